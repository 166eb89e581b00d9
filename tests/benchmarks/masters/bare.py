"""The yardstick: a bare loop of os.fork and a blocking os.waitpid. It can do nothing else."""

from __future__ import annotations

import os
import signal
import sys

from work import work

if "--imports" in sys.argv:
    # What any program of some size has loaded: the yardstick of the memory.
    import logging  # noqa: F401
    import socket  # noqa: F401
    import threading  # noqa: F401

pids: set[int] = set()


def spawn() -> None:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work()
        os._exit(0)
    pids.add(pid)


def stop(*_: object) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for pid in pids:
        os.waitpid(pid, 0)
    os._exit(0)


signal.signal(signal.SIGTERM, stop)
for _ in range(int(sys.argv[1])):
    spawn()
while True:
    pid, _ = os.waitpid(-1, 0)
    pids.discard(pid)
    spawn()
