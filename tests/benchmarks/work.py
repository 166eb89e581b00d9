"""The work that every worker of a benchmark does: report itself on a datagram socket, and sleep.

Imported in the master of each contender, so that it costs nothing after the fork. BENCHMARK_ARENA is the address of
the socket, BENCHMARK_PRELOAD_MB how much the master has loaded before it forks.
"""

from __future__ import annotations

import os
import socket
import time

from reports import NOWHERE, REPORT

_arena = os.environ.get("BENCHMARK_ARENA", "")
_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
# Many objects and not a single large one: their reference counts are what a program writes to.
_preloaded = [bytes(1000) for _ in range(1000 * int(os.environ.get("BENCHMARK_PRELOAD_MB", "0")))]


def report(place: int = NOWHERE) -> None:
    """Say that this process is at work."""
    _socket.sendto(REPORT.pack(os.getpid(), time.monotonic_ns(), place), _arena)


def work() -> None:
    """Report, and sleep."""
    report()
    time.sleep(10_000)
