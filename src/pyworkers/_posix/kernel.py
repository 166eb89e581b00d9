"""The real kernel behind the master's loop: one poll on two pipes, fork with every signal blocked, reaping."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable

from pyworkers._core.types import ExitStatus, Pid
from pyworkers._posix import process, signals
from pyworkers._posix.channel import Channel, Told

# poll(2) takes an int of milliseconds.
_TIMEOUT_MAX_MS = 2**31 - 1


class PosixKernel:
    """Forks and reaps children, and waits for them.

    Args:
        trapped: The master's signals.
        channel: What its workers write to.
    """

    def __init__(self, trapped: signals.MasterSignals, channel: Channel) -> None:
        self._signals = trapped
        self._channel = channel
        self._children: set[Pid] = set()
        self._poller = select.poll()
        self._poller.register(trapped.fileno(), select.POLLIN)
        self._poller.register(channel.fileno(), select.POLLIN)

    def now(self) -> float:
        """Return seconds on a clock that stands still while the machine sleeps: time(7), CLOCK_MONOTONIC."""
        return time.monotonic()

    def fork(self, child_main: Callable[[], int]) -> Pid:
        """Start a child; every signal stays blocked in it until it unblocks them."""
        with signals.blocked():
            pid = process.fork(child_main)
            self._children.add(pid)
        return pid

    def send(self, pid: Pid, signum: int) -> None:
        """Send a signal to a child that has not been reaped."""
        if pid in self._children:
            process.send(pid, signum)

    def wait(
        self, timeout_s: float | None, log_fd: int | None
    ) -> tuple[list[int], list[Told], list[tuple[Pid, ExitStatus]]]:
        """Wait for a signal, a record, room in the log, or the time, and return what there is.

        Children are collected before the channel is read: what a worker said before it ended is then always there.
        """
        timeout_ms = None if timeout_s is None else min(math.ceil(timeout_s * 1000), _TIMEOUT_MAX_MS)
        if log_fd is not None:
            self._poller.register(log_fd, select.POLLOUT)
        self._poller.poll(timeout_ms)
        if log_fd is not None:
            self._poller.unregister(log_fd)
        signums = self._signals.take()
        ended = process.collect(self._children)
        return signums, self._channel.read(), ended
