"""The runtime of a worker whose signals come from a script, and the rest of what a handler is given inline.

Everything that `App` asks for is done by the code that does it in a worker; what is here takes the kernel's place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from _thread import get_ident
from collections.abc import Callable, Generator, Iterable

from pyworkers._posix.cells import Cells
from pyworkers._posix.signals import wakeup_pipe
from pyworkers._posix.watchdog import Watchdog
from pyworkers._worker.binding import Phase
from pyworkers._worker.flag import Flag
from pyworkers._worker.runtime import Runtime
from pyworkers._worker.wakeups import Wakeups

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from pyworkers._worker.wakeups import Waitable

STOPS = (signal.SIGTERM, signal.SIGQUIT)


class Stuck(BaseException):
    """The handler will not end. No Exception: those are caught by many a handler that goes on for ever."""


class NotedCells(Cells):
    """The one cell, and all that was ever written to it, as the master would have read it."""

    def __init__(self) -> None:
        super().__init__(seats=2)
        self.clear(0)
        self.units: list[str] = []
        self.marks: list[tuple[int, int | None]] = []

    def write_label(self, seat: int, label: str) -> None:
        super().write_label(seat, label)
        self.units.append(self.read(seat).unit)

    def write_progress(self, seat: int, done: int, total: int | None) -> None:
        super().write_progress(seat, done, total)
        self.marks.append((done, total))


class _Pipes(Wakeups):
    """Pipes that no signal writes to: the wake-up descriptor of this process is not ours to set."""

    __slots__ = ()

    def main(self) -> int:
        if self._main is None:
            self._main = wakeup_pipe()
        return self._main[0]

    def close(self) -> None:
        for end in (*(self._main or ()), *(self._others or ())):
            os.close(end)


class _NoWatchdog(Watchdog):
    """Nothing of ours may end this process."""

    __slots__ = ()

    def end_after(self, seconds: float, code: int, dump_descriptor: int) -> None:
        pass


class InlineRuntime(Runtime):
    """A worker's runtime whose signals come from a script.

    Its bit is always set while the handler runs, so that every checkpoint takes the slow path and is counted.
    """

    __slots__ = ("_deadline", "_pipes", "_script", "_skip", "_time_limit", "count", "slept")

    def __init__(
        self, flag: Flag, script: dict[int, list[int]], skip: Callable[[float], object] | None, time_limit: float
    ) -> None:
        super().__init__(flag)
        self._wakeups = self._pipes = _Pipes()
        self._watchdog = _NoWatchdog()
        self._script = script
        self._skip = skip
        self._time_limit = time_limit
        self._deadline = time.monotonic() + time_limit
        self.count = 0
        self.slept = 0.0

    def close(self) -> None:
        """Be no worker's any more."""
        self.release()
        self._pipes.close()

    def dispatch(self) -> None:
        self._arrive(get_ident())
        super().dispatch()

    def leave_critical(self, *, failing: bool) -> None:
        ident = get_ident()
        if not failing and self._critical_depths.get(ident) == 1:
            self._arrive(ident)
        super().leave_critical(failing=failing)

    def wait(self, fds: Iterable[Waitable], timeout: float | None) -> list[Waitable]:
        waited = list(fds)
        if get_ident() != self._main:
            return super().wait(waited, timeout)
        if waited:
            left_s = max(0.0, self._deadline - time.monotonic())
            ready = super().wait(waited, left_s if timeout is None else min(timeout, left_s))
            if not ready and (timeout is None or timeout > left_s):
                raise self._stuck()
            return ready
        super().wait(waited, 0.0)
        while timeout is None:
            # It goes on after signals other than a stop.
            if self.count >= max(self._script, default=0):
                raise Stuck("waits for ever, and no signal is left that could wake it: see stop_at")
            super().wait(waited, 0.0)
        self.slept += timeout
        if self._skip is not None:
            self._skip(timeout)
        return []

    def stop_all(self, code: int) -> None:
        super().stop_all(code)
        self._script.setdefault(self.count + 1, []).append(signal.SIGTERM)

    @contextlib.contextmanager
    def inside_loop(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> Generator[None]:
        late: list[Stuck] = []

        def give_up() -> None:
            late.append(self._stuck())
            task.cancel()

        timer = loop.call_later(self._deadline - time.monotonic(), give_up)
        try:
            with super().inside_loop(loop, task):
                yield
        finally:
            timer.cancel()
            if late:
                raise late[0]

    def _arrive(self, ident: int) -> None:
        """Count a checkpoint of the handler, and let the signals of the script arrive just before it."""
        if ident != self._main or self._phase is not Phase.RUNNING:
            return
        self.count += 1
        if time.monotonic() > self._deadline:
            raise self._stuck()
        for signum in self._script.get(self.count, ()):
            if signum in STOPS:
                self._stop(signum, None)
            elif self._binding is not None and signum in self._binding.functions:
                self._record(signum, None)

    def _run_recorded(self) -> None:
        try:
            super()._run_recorded()
        finally:
            self._flag._pending = True

    def _stuck(self) -> Stuck:
        due = min((at for at, signums in self._script.items() if set(signums) & set(STOPS)), default=self.count + 1)
        why = f"a stop is due since checkpoint {due}: it swallows Stop" if due < self.count else "see stop_at"
        return Stuck(f"has not ended in {self._time_limit} s, and is at checkpoint {self.count}; {why}")
