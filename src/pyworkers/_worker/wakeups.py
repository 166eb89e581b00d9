"""What wakes a worker that waits: pipes that signals write to, made when a thread first waits.

`signal.set_wakeup_fd` writes a byte for each signal, from C, so that a poll on the pipe's other end is free of the
race that `time.sleep` has: a signal between the last check of the flags and the call. The pipe of the main thread is
drained by it. Other threads share a second one, which is written once, when a stop becomes due, and never drained.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

from pyworkers._core.typed import Protocol
from pyworkers._posix import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Waitable = TypeVar("Waitable", bound="int | HasFileno")

# poll(2) takes an int of milliseconds.
_TIMEOUT_MAX_MS = 2**31 - 1


class HasFileno(Protocol):
    """A file, a socket, a pipe's end, a queue's reader: whatever poll(2) can wait for."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class Wakeups:
    """The pipes of one worker."""

    __slots__ = ("_lock", "_main", "_others")

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._main: tuple[int, int] | None = None
        self._others: tuple[int, int] | None = None

    def main(self) -> int:
        """In the main thread: return what every signal makes readable."""
        if self._main is None:
            self._main = signals.wakeup_pipe()
        # Each time, for a loop of asyncio that the handler has run and closed takes it away.
        signal.set_wakeup_fd(self._main[1], warn_on_full_buffer=False)
        return self._main[0]

    def read(self, fd: int, is_stopping: Callable[[], bool]) -> bytes:
        """In the main thread: return what can be read there first, or nothing as soon as a signal makes it stop."""
        while True:
            # The pipe first, then the look: a signal in between leaves a byte.
            wakeup = self.main()
            if is_stopping():
                return b""
            ready, woken = poll([fd], wakeup, None)
            if woken:
                self.drain()
            elif ready:
                return os.read(fd, 65536)

    def others(self) -> int:
        """Return what a stop makes readable, for good. Whoever asks looks for a stop that is due after this."""
        # Two threads may wait for the first time at once. The trap never takes this lock.
        with self._lock:
            if self._others is None:
                self._others = signals.wakeup_pipe()
            return self._others[0]

    def announce_stop(self) -> None:
        """In the trap: wake the other threads."""
        if self._others is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(self._others[1], b"s")

    def drain(self) -> None:
        """In the main thread: wait for the next signal from here on."""
        if self._main is not None:
            signals.drain(self._main[0])


def poll(fds: Sequence[Waitable], wakeup: int | None, deadline: float | None) -> tuple[list[Waitable], bool]:
    """Wait once for `fds` or the wake-up, and return those that can be read and whether it was the wake-up."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    if wakeup is not None:
        poller.register(wakeup, select.POLLIN)
    left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
    timeout_ms = None if left_s is None else min(math.ceil(left_s * 1000), _TIMEOUT_MAX_MS)
    found = {fd for fd, _ in poller.poll(timeout_ms)}
    return [fd for fd in fds if (fd if isinstance(fd, int) else fd.fileno()) in found], wakeup in found


def loop_is_running() -> bool:
    """Return whether this thread runs an asyncio loop, which a wait would block."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
