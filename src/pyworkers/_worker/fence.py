"""What makes a worker leave when its PIN's lease ends, whatever has become of its master.

A timer sends the worker a signal at the deadline that it knows of. The trap looks up the deadline of now: if the master
has put it off, the timer is set again, else this is a stop like any other. So the checkpoints need not look at a clock.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import FrameType

from pyworkers._core.types import Pin
from pyworkers._posix import boottime, signals
from pyworkers._posix.deadlines import Deadlines
from pyworkers._worker.runtime import Runtime
from pyworkers.errors import ExitCode, Stop


class Fence:
    """One for all workers of an instance; each of them begins with its own timer.

    Args:
        seats: Where the cell of each PIN is.
        grace_s: From the deadline to the end of a worker that does not leave, in seconds.
        dump_descriptor: Where its watchdog writes then.
    """

    def __init__(
        self,
        runtime: Runtime,
        deadlines: Deadlines,
        seats: Mapping[Pin, int],
        grace_s: float,
        dump_descriptor: int,
    ) -> None:
        self._runtime = runtime
        self._deadlines = deadlines
        self._seats = seats
        self._grace_s = grace_s
        self._dump_descriptor = dump_descriptor
        self._seat = 0
        self._timer: boottime.Timer | None = None

    def begin(self, pin: int) -> None:
        """In the worker, before any code that knows its PIN.

        Raises:
            Stop: The lease has ended on the way here: the master was held up before the fork, or this process after it.
        """
        self._seat = self._seats[Pin(pin)]
        self._deadlines.sign(self._seat, os.getpid())
        until = self._deadlines.until(self._seat)
        if until <= boottime.now():
            raise Stop(int(ExitCode.STOPPED))
        assert signals.LEASE is not None
        self._timer = boottime.Timer(signals.LEASE)
        self._timer.set(until)

    def traps(self) -> dict[int, signals.Trap]:
        """In the master: return what a worker has to trap for it."""
        return {} if signals.LEASE is None else {signals.LEASE: self._trap}

    def _trap(self, _signum: int, frame: FrameType | None) -> None:
        """At the deadline that was set last."""
        until = self._deadlines.until(self._seat)
        if self._timer is None:
            # Sent by somebody else.
            return
        if until > boottime.now():
            self._timer.set(until)
            return
        # For one that does not reach a checkpoint; it needs no interpreter from here on.
        self._runtime._watchdog.end_after(self._grace_s, ExitCode.STOPPED, self._dump_descriptor)
        self._runtime._stop(signal.SIGTERM, frame)
