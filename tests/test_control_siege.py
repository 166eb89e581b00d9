"""The control socket under siege: whatever clients do, workers are replaced, and nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket

import pytest

from benchmarks.arena import descriptors
from benchmarks.siege import besieged
from helpers import Bench, Instance, until

MESSAGES = int(os.environ.get("SIEGE_MESSAGES", "100000"))
RESPAWNS = 150

APP = """
app = App("shop", lock_file=here / "lock", backoff=(0.0001, 0.0001))
@app.worker(pins=range(4))
def crawl(pin):
    app.sleep(600)
"""


def kill_in_turn(instance: Instance) -> None:
    """Kill the workers one after the other, and see each replaced under its PIN."""
    for number in range(RESPAWNS):
        pin = number % 4
        pid = instance.started(pin)[-1]
        os.kill(pid, signal.SIGKILL)
        until(lambda pin=pin, pid=pid: instance.started(pin)[-1] != pid, "its successor")


@pytest.mark.fire
@pytest.mark.timeout(600)
def test_supervision_goes_on_under_siege(bench: Bench) -> None:
    """100,000 messages, 200 silent clients, one that never reads: who dies is replaced, and nothing grows.

    How fast that is, beside an instance that is left alone: `nox -s bench -- siege`.
    """
    instance = bench.start(APP)
    instance.await_log("worker started", 4)
    until(lambda: bench.run("status", "shop:app").returncode == 0, "all up")

    with besieged(os.path.relpath(bench.directory / "lock.sock"), MESSAGES) as attackers:
        kill_in_turn(instance)
        assert bench.run("status", "shop:app").returncode == 0
        for attacker in attackers:
            assert attacker.wait(500) == 0
        assert descriptors(instance.pid) < 64 + 20
    until(lambda: descriptors(instance.pid) < 25, "the last of them to be forgotten")
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
