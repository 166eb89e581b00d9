"""What a handler can ask of its app: checkpoints, waits, protected sections, and the traps beneath them.

A trap records; `checkpoint` dispatches. A trap raises only where a worker may be cut: in a handler that has no
checkpoints, inside `interruptible`, and, outside `critical`, for the interrupt. It raises once for TERM and once for
QUIT, because the master sends both again to stragglers, and a `finally` must not be torn by the second one. Only a
checkpoint raises again.

Unbound, which is outside a worker, everything here is harmless, so that a handler runs in a plain unit test.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from _thread import get_ident
from collections.abc import Generator, Iterable
from types import FrameType

from pyworkers._core.types import Attempt, Pin, shown
from pyworkers._logs import Journal
from pyworkers._posix import signals
from pyworkers._posix.channel import Told, Word
from pyworkers._posix.watchdog import Watchdog
from pyworkers._worker.binding import IGNORED, Assignment, Binding, Phase
from pyworkers._worker.flag import Flag
from pyworkers._worker.place import Place
from pyworkers._worker.sections import Critical, Interruptible
from pyworkers._worker.wakeups import Wakeups, loop_is_running, poll
from pyworkers.errors import ExitCode, Stop, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from pyworkers._worker.wakeups import Waitable


class Runtime:
    """One app's runtime; `bind` makes it a worker's.

    Args:
        flag: Is set where `checkpoint` has anything to do.

    Attributes:
        place: Who this worker is, and the marks that it leaves.
        who: What the master knows it by: its PIN, or its seat among the spares, and which process there it is.
        journal: The log of the run that is going on, in master and workers.
    """

    # As for `Place`.
    __slots__ = (
        "_binding", "_cooperative", "_critical_depths", "_flag", "_interruptible_depth", "_loop", "_main", "_phase",
        "_raised", "_reached", "_recorded", "_stop_code", "_task", "_wakeups", "_watchdog",
        "critical", "interruptible", "journal", "place", "who",
    )  # fmt: skip

    def __init__(self, flag: Flag) -> None:
        self._flag = flag
        self.place = Place()
        self.journal: Journal | None = None
        self.critical = Critical(self)
        self.interruptible = Interruptible(self)
        self._binding: Binding | None = None
        self.who = (Pin(0), Attempt(0))
        self._main, self._phase = 0, Phase.QUIET
        self._cooperative = self._reached = False
        self._watchdog = Watchdog()
        self._recorded: list[int] = []
        self._stop_code: ExitCode | None = None
        # Which stops have been raised in which thread: each once, but for checkpoints.
        self._raised: set[tuple[int, ExitCode]] = set()
        self._critical_depths: dict[int, int] = {}
        self._interruptible_depth = 0
        self._wakeups = Wakeups()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    # The worker's side of it: boot calls these.
    def bind(self, binding: Binding, who: tuple[Pin, Attempt], assignment: Assignment | None) -> None:
        """Become the runtime of this worker, in the main thread, also before it is forked; without one, of a spare."""
        self._binding, self.who = binding, who
        if assignment is not None:
            self.place.take(binding, assignment)
        self._main = get_ident()
        self._cooperative = binding.cooperative is True
        self._reached = binding.cooperative is not None
        # The first checkpoint takes the slow path: that is how it is noticed.
        self._flag._pending = True

    def traps(self, recorded: Iterable[int]) -> dict[int, signals.Trap]:
        """In the master: return the dispositions of a worker's signals, of which some are `recorded` for functions."""
        return signals.plain(
            {
                **dict.fromkeys(IGNORED, signals.IGNORE),
                signal.SIGINT: signals.IGNORE,
                signal.SIGCHLD: signals.DEFAULT,
                **dict.fromkeys(recorded, self._record),
                signal.SIGTERM: self._stop,
                signal.SIGQUIT: self._stop,
                **({} if signals.PROBE is None else {signals.PROBE: self._probe}),
            }
        )

    def release(self) -> None:
        """Be no worker's: in the master between its forks, and in what a worker or the master forks besides."""
        self._binding = self._stop_code = None
        self._flag._pending, self._phase = False, Phase.QUIET
        self.place.leave()

    def unbind(self) -> None:
        """In a process that the worker forks: be a plain process, which TERM ends, as `multiprocessing` expects.

        INT stays ignored: Ctrl-C must not take its helpers from a worker that is finishing a unit.
        """
        self.release()
        signal.set_wakeup_fd(-1)
        signals.install(dict.fromkeys((signal.SIGTERM, signal.SIGQUIT), signals.DEFAULT))

    def prepare(self) -> None:
        """From here on the interrupt may be raised, also one that has come before."""
        self._phase = Phase.STARTING
        if self._stop_code is ExitCode.INTERRUPTED:
            self._raise_stop()

    def begin(self) -> None:
        """From here on a stop may be raised; one that has come during `on_worker_start` is raised now."""
        self._phase = Phase.RUNNING
        if self._stop_code is not None:
            self._raise_stop()

    def end(self) -> None:
        """From here on nothing is raised in the main thread: the handler is over."""
        self._phase = Phase.QUIET

    @contextlib.contextmanager
    def step(self) -> Generator[None]:
        """Around a step of the end that runs the user's code: the interrupt may cut it, and nothing else."""
        self._phase = Phase.STEP
        try:
            yield
        finally:
            self._phase = Phase.QUIET

    @contextlib.contextmanager
    def inside_loop(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> Generator[None]:
        """While the handler is the `task` of a running `loop`: stop it by cancelling."""
        self._loop, self._task = loop, task
        reader = self._wakeups.main()
        loop.add_reader(reader, self._on_wakeup)
        try:
            self._on_wakeup()
            yield
        finally:
            # What the loop has still to do, such as to cancel its other tasks, is not to be cut either.
            self._phase = Phase.QUIET
            self._loop = self._task = None
            loop.remove_reader(reader)

    def park(self, desk: int) -> bytes:
        """Wait for what comes from there, and return it; nothing for a spare that is to leave."""
        return self._wakeups.read(desk, lambda: self._stop_code is not None)

    # The handler's side of it: App calls these.

    @property
    def stop_code(self) -> int | None:
        """The code of the stop that is due, if one is."""
        return self._stop_code

    def dispatch(self) -> None:
        """The checkpoint's slow path: run what is recorded, raise what is due."""
        if self._binding is None or os.getpid() == self._binding.master:
            # The second one for a thread of the master, which is bound while it forks.
            return
        ident = get_ident()
        if ident == self._main:
            if self._phase is Phase.RUNNING and not self._reached:
                self._reached = self._cooperative = True
                self._binding.cells.mark_cooperative(self._binding.handler)
            # A checkpoint before the handler says nothing of the handler.
            if self._phase is not Phase.STARTING:
                self.place.beat()
        if self._critical_depths.get(ident):
            return
        self._deliver(ident)

    def sleep(self, seconds: float) -> None:
        """See `App.sleep`."""
        if seconds < 0:
            raise ValueError(f"sleep takes a number of seconds from 0 on, got {seconds}")
        self.wait(list[int](), seconds)

    def wait(self, fds: Iterable[Waitable], timeout: float | None) -> list[Waitable]:
        """See `App.wait`."""
        if loop_is_running():
            raise RuntimeError("app.sleep and app.wait block: inside a running asyncio loop, await instead")
        waited = list(fds)
        deadline = None if timeout is None else time.monotonic() + timeout
        ident = get_ident()
        while True:
            # The pipe first, then the look at what is pending: a signal in between leaves a byte.
            wakeup = self._wakeup_of(ident)
            if self._flag._pending:
                self.dispatch()
            with self.place.resting(proves=ident == self._main and self._phase is not Phase.STARTING):
                ready, woken = poll(waited, wakeup, deadline)
            if woken and ident == self._main:
                self._wakeups.drain()
            elif (ready and not woken) or (deadline is not None and time.monotonic() >= deadline):
                return ready

    def stop_all(self, code: int) -> None:
        """See `App.stop_all`."""
        if not isinstance(code, int) or isinstance(code, bool) or not 0 <= code <= 255:
            raise UsageError(f"stop_all takes an exit code of 0 to 255, got {shown(code)}")
        if self._binding is not None:
            self._binding.channel.tell(Told(*self.who, Word.STOP_ALL, code).packed())

    def enter_critical(self) -> None:
        """Begin a section that nothing cuts."""
        ident = get_ident()
        self._critical_depths[ident] = self._critical_depths.get(ident, 0) + 1

    def leave_critical(self, *, failing: bool) -> None:
        """End it: the outermost one proves life, and lets out what is pending, never over an exception in flight."""
        ident = get_ident()
        self._critical_depths[ident] -= 1
        if self._critical_depths[ident]:
            return
        del self._critical_depths[ident]
        if ident == self._main and self._reached and self._phase is not Phase.STARTING:
            self.place.beat()
        if self._flag._pending and self._binding is not None and not failing:
            self._deliver(ident, again=False)

    def enter_interruptible(self) -> None:
        """Begin a section that a stop may cut anywhere."""
        if get_ident() == self._main:
            self._interruptible_depth += 1
        if self._flag._pending:
            try:
                self.dispatch()
            except BaseException:
                # Without an __enter__ that returned there will be no __exit__.
                self.leave_interruptible()
                raise

    def leave_interruptible(self) -> None:
        """End it."""
        if get_ident() == self._main:
            self._interruptible_depth -= 1

    # Traps and what they share with the above.

    def _stop(self, signum: int, _frame: FrameType | None) -> None:
        binding = self._binding
        if binding is None:
            return
        if os.getppid() != binding.master:
            self._watchdog.end_after(binding.stop_timeout, ExitCode.STOPPED, binding.dump_descriptor)
        code = ExitCode.INTERRUPTED if signum == signal.SIGQUIT else ExitCode.STOPPED
        if code is ExitCode.INTERRUPTED or self._stop_code is None:
            self._stop_code = code
        self._flag._pending = True
        self._wakeups.announce_stop()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_wakeup)
        elif (self._main, code) not in self._raised and self._may_be_cut(code):
            self._raise_stop()

    def _record(self, signum: int, _frame: FrameType | None) -> None:
        if signum not in self._recorded:
            self._recorded.append(signum)
        self._flag._pending = True

    def _probe(self, _signum: int, _frame: FrameType | None) -> None:
        self.place.probed = self._flag._pending = True
        if self._interruptible_depth > 0:
            self.place.beat()
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_wakeup)

    def _may_be_cut(self, code: ExitCode) -> bool:
        if self._critical_depths.get(self._main) or not self._admits(code):
            return False
        return code is ExitCode.INTERRUPTED or self._interruptible_depth > 0 or not self._is_cooperative()

    def _admits(self, code: ExitCode) -> bool:
        """Whether the main thread is where a stop may be raised at all."""
        return self._phase is Phase.RUNNING or (code is ExitCode.INTERRUPTED and self._phase is not Phase.QUIET)

    def _is_cooperative(self) -> bool:
        if self._cooperative or self._binding is None or self._binding.cooperative is not None:
            return self._cooperative
        # One byte for all workers of the handler: a respawn is not torn in its first unit.
        return self._binding.cells.is_cooperative(self._binding.handler)

    def _deliver(self, ident: int, *, again: bool = True) -> None:
        """Run what is recorded and raise what is due; `again` also if it has been raised in this thread before."""
        if ident == self._main:
            self._run_recorded()
            if self._stop_code is None or not self._admits(self._stop_code):
                return
        if self._stop_code is not None and (again or (ident, self._stop_code) not in self._raised):
            self._raise_stop()

    def _run_recorded(self) -> None:
        # Cleared before looking: a trap in between sets it again, and costs one more slow path.
        self._flag._pending = False
        try:
            while self._recorded and self._binding is not None:
                for function in self._binding.functions[self._recorded.pop(0)]:
                    function()
        finally:
            if self._recorded or self._stop_code is not None or not self._reached or self.place.probed:
                self._flag._pending = True

    def _raise_stop(self) -> None:
        """Raise Stop, or inside a running loop cancel the handler's task, which does the same at its next await."""
        code, ident = self._stop_code, get_ident()
        assert code is not None
        self._raised |= {(ident, ExitCode.STOPPED), (ident, code)}
        if self._task is not None and ident == self._main:
            self._task.cancel()
        else:
            raise Stop(int(code))

    def _on_wakeup(self) -> None:
        """Inside the running loop: a signal has come, and the loop turns, which is all that a probe wants to know."""
        self._wakeups.drain()
        self.place.beat()
        if self._stop_code is None or self._task is None or self._critical_depths.get(self._main):
            return
        # The master sends a signal again to stragglers: a clean-up that awaits must not be cancelled by the second.
        if (self._main, self._stop_code) in self._raised:
            return
        if self._stop_code is ExitCode.INTERRUPTED or not self._is_cooperative():
            self._raise_stop()

    def _wakeup_of(self, ident: int) -> int | None:
        """Return what wakes this thread: every signal the main thread, a stop the others."""
        if self._binding is None or os.getpid() == self._binding.master:
            return None
        if ident == self._main:
            return self._wakeups.main()
        # In a critical section a stop that is due would wake it again and again.
        return None if self._critical_depths.get(ident) else self._wakeups.others()
