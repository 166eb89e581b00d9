"""The work that every worker of a benchmark does: report itself on a datagram socket, and sleep.

Imported in the master of each contender, so that it costs nothing after the fork. BENCHMARK_ARENA is the address of
the socket. A report is the pid, and the instant on CLOCK_MONOTONIC at which the worker's own code ran.
"""

from __future__ import annotations

import os
import socket
import struct
import time

REPORT = struct.Struct("=qq")

_arena = os.environ.get("BENCHMARK_ARENA", "")
_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def report() -> None:
    """Say that this process is at work."""
    _socket.sendto(REPORT.pack(os.getpid(), time.monotonic_ns()), _arena)


def work(*_: object) -> None:
    """Report, and sleep."""
    report()
    time.sleep(10_000)
