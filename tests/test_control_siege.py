"""The control socket under siege: whatever clients do, workers are replaced as fast as without them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import Bench, Instance, until

MESSAGES = int(os.environ.get("SIEGE_MESSAGES", "100000"))
SILENT = 200
RESPAWNS = 150

APP = """
app = App("shop", lock_file=here / "lock", backoff=(0.0001, 0.0001))
beats = os.open(here / "beats", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
@app.worker(pins=range(4))
def crawl(pin):
    os.write(beats, b"%d %d\\n" % (pin, time.monotonic_ns()))
    app.sleep(600)
"""

ATTACKER = """
import os, random, socket, sys
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


def respawns_ms(bench: Bench, instance: Instance) -> list[float]:
    """Kill the workers in turn, and return how long it took each time until the handler of the next one ran."""
    found: list[float] = []
    with (bench.directory / "beats").open() as beats:
        beats.seek(0, os.SEEK_END)
        for number in range(RESPAWNS):
            pin = number % 4
            pid = instance.started(pin)[-1]
            at = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            line = until(beats.readline, "the next handler")
            assert int(line.split()[0]) == pin
            found.append((int(line.split()[1]) - at) / 1e6)
            count = len(instance.matches(rf"worker ended crawl pin={pin} "))
            until(lambda pin=pin, count=count: len(instance.started(pin)) > count, "its line in the log")
    return found


def descriptors(instance: Instance) -> int:
    return len(list(Path(f"/proc/{instance.pid}/fd").iterdir()))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@contextlib.contextmanager
def besieged(bench: Bench) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Let two send garbage as fast as they can, many say nothing for ever, and one ask and never read."""
    path = os.path.relpath(bench.directory / "lock.sock")
    idle = []
    for _ in range(SILENT):
        made = socket.socket(socket.AF_UNIX)
        until(lambda made=made: made.connect_ex(path) == 0, "a place in the queue")
        idle.append(made)
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(path)
    deaf.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(2000):
            deaf.send(b'{"v":1,"verb":"status"}\n')
    attackers = [
        # The niceness of a neighbour: on two cores, it is the master's answers that are tried, not the scheduler.
        subprocess.Popen(["nice", sys.executable, "-c", ATTACKER, str(seed), path, str(MESSAGES // 2)])
        for seed in range(2)
    ]
    try:
        yield attackers
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
        for made in [*idle, deaf]:
            made.close()


@pytest.mark.fire
@pytest.mark.timeout(600)
def test_supervision_goes_on_under_siege(bench: Bench) -> None:
    """100,000 messages, 200 silent clients, one that never reads: respawns, memory and descriptors stay as they were."""
    instance = bench.start(APP)
    instance.await_log("worker started", 4)
    until(lambda: bench.run("status", "shop:app").returncode == 0, "all up")
    quiet = respawns_ms(bench, instance)

    with besieged(bench) as attackers:
        loud = respawns_ms(bench, instance)
        assert bench.run("status", "shop:app").returncode == 0
        for attacker in attackers:
            assert attacker.wait(500) == 0
        assert descriptors(instance) < 64 + 20
    assert percentile(loud, 0.99) <= 1.5 * percentile(quiet, 0.99) + 1.0, (quiet, loud)
    until(lambda: descriptors(instance) < 25, "the last of them to be forgotten")
    assert "control request failed" not in instance.log
    assert instance.stop() == 0


def test_garbage_changes_nothing(bench: Bench) -> None:
    """What is mangled beyond its verb has no effect on any worker, and the log says nothing of it."""
    instance = bench.start(APP)
    instance.await_log("worker started", 4)
    until(lambda: bench.run("status", "shop:app").returncode == 0, "all up")
    dice = random.Random(7)
    path = os.path.relpath(bench.directory / "lock.sock")
    before = instance.log
    for _ in range(300):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
            made.connect(path)
            made.sendall(dice.randbytes(dice.randint(1, 300)) + b"\n")
            made.settimeout(20)
            assert b'"ok":false' in made.recv(1000)

    assert instance.log == before
    assert instance.stop() == 0
