"""Finds the processes that carry a mark in their environment, and ends them: proc(5), /proc/PID/environ.

What is forked has the mark, whatever session, group or parent it has by then; what is executed inherits it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from pyworkers._posix.lockfile import started_ticks
from pyworkers._posix.rendezvous import is_alive


def marked(mark: str) -> list[int]:
    """Return the pids of the processes that have this `NAME=value` in their environment. A zombie has none."""
    wanted = mark.encode()
    pids: list[int] = []
    for name in os.listdir("/proc"):
        # Gone, or somebody else's.
        with contextlib.suppress(OSError):
            if name.isdecimal() and int(name) != os.getpid():
                with open(f"/proc/{name}/environ", "rb") as environ:
                    if wanted in environ.read().split(b"\0"):
                        pids.append(int(name))
    return pids


def end_all(mark: str, time_limit: float) -> None:
    """Kill them, until none is left: one that was just being forked is found the next time.

    A process that ends gives its memory back first, and with it the mark, but its files, sockets and locks only then.

    Raises:
        TimeoutError: Some do not end.
    """
    deadline = time.monotonic() + time_limit
    dying: dict[int, int] = {}
    while pids := {*marked(mark), *(pid for pid, ticks in dying.items() if is_alive(pid, ticks))}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {', '.join(map(str, sorted(pids)))} survive SIGKILL for {time_limit} s")
        for pid in pids:
            if (ticks := started_ticks(pid)) is not None:
                dying.setdefault(pid, ticks)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
