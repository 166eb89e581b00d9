"""`python -m benchmarks siege`: does what clients of the control socket do delay a respawn?

Quiet windows and besieged ones take turns. The besiegers are here, so that the tests send what the benchmark does.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.arena import Arena
from benchmarks.contenders import OURS
from benchmarks.measure import control_of, launched
from benchmarks.soak import Soak
from benchmarks.table import percentile, rendered
from benchmarks.verdict import Row

SILENT = 200
TAIL_BUDGET = 1.5
WINDOW_S = 5.0
RATE = 50.0

_ATTACKER = """
import random, socket, sys
dice, path, count = random.Random(int(sys.argv[1])), sys.argv[2], int(sys.argv[3])
said = [b'{"v":1,"verb":"ping"}', b'{"v":1,"verb":"status"}', b'{"v":1,"verb":"stack","pin":0}']
def message():
    data = bytearray(dice.choice(said))
    if dice.random() < 0.2 and b"stack" not in data:
        return bytes(data) + b"\\n"
    if dice.random() < 0.2:
        return dice.randbytes(dice.randint(1, 2000)) + b"\\n"
    for _ in range(dice.randint(1, 6)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data) + b"\\n" * (dice.random() < 0.9)
made = None
for _ in range(count):
    try:
        if made is None:
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(10)
            made.connect(path)
        data = message()
        made.sendall(data)
        if dice.random() < 0.5 and data.endswith(b"\\n"):
            made.recv(65536)
        if dice.random() < 0.1:
            raise OSError
    except OSError:
        made.close()
        made = None
"""


@contextlib.contextmanager
def besieged(path: str, messages: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Let two send garbage as fast as they can, many say nothing for ever, and one ask and never read."""
    with contextlib.ExitStack() as stack:
        for _ in range(SILENT):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(path)
        deaf = stack.enter_context(socket.socket(socket.AF_UNIX))
        deaf.connect(path)
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(2000):
                deaf.send(b'{"v":1,"verb":"status"}\n')
        attackers = [
            # The niceness of a neighbour: it is the master's answers that are tried, not the scheduler of two cores.
            stack.enter_context(
                subprocess.Popen(["nice", sys.executable, "-c", _ATTACKER, str(seed), path, str(messages // 2)])
            )
            for seed in range(2)
        ]
        try:
            yield attackers
        finally:
            for attacker in attackers:
                attacker.kill()


def run(arena: Arena, given: argparse.Namespace) -> None:
    """Take turns, and print both tails."""
    quiet: list[float] = []
    loud: list[float] = []
    # Each worker lives for two seconds.
    count = round(2 * RATE)
    with launched(arena, OURS, count) as match:
        soak = Soak(match, RATE)
        soak.begin(count)
        path = control_of(match).socket
        for _ in range(given.rounds):
            quiet += soak.window(WINDOW_S).respawns_ms
            with besieged(path, given.messages // given.rounds) as attackers:
                while any(attacker.poll() is None for attacker in attackers):
                    loud += soak.window(1.0).respawns_ms
    print(f"{given.messages} messages, {SILENT} silent clients, one that never reads; {len(loud)} respawns\n")
    rows = [["", "quiet, ms", "besieged, ms", "ratio", "budget", "verdict"]]
    for share, budget in ((0.5, None), (0.99, TAIL_BUDGET)):
        row = Row(f"respawn p{100 * share:g}", percentile(loud, share), budget, percentile(quiet, share))
        figure, before, _, during, by_quiet, _, limit, verdict = row.cells()
        rows.append([figure, before, during, by_quiet, limit, verdict])
    print(rendered(rows, markdown=given.markdown))
