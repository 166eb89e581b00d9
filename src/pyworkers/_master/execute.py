"""Carries out effects: one effect, one call of the kernel, and its failure becomes an event.

Knows which process sits on which PIN, which is all the state that the core must not have.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence

from pyworkers._core import messages as m
from pyworkers._core.notices import Notices
from pyworkers._core.records import record
from pyworkers._core.rows import Vacate
from pyworkers._core.types import Action, Attempt, ExitStatus, FailureRecord, Pid, Pin, Previous, Signaled, is_spare
from pyworkers._logs import ERROR, WARNING, Line
from pyworkers._master.history import History
from pyworkers._master.needs import Kernel
from pyworkers._master.reload import Reload
from pyworkers._master.reports import Seat, cause, describe, named
from pyworkers._master.stacks import Stacks
from pyworkers._posix.cells import Trace
from pyworkers._posix.channel import Told
from pyworkers._posix.kernel import Wake
from pyworkers._posix.signals import DUMP, PROBE

KILLED = Signaled(signal.SIGKILL)

OOM_REAPED_S = 2.0
"""Within this time of a counted OOM kill its victim is reaped; a large one takes a while to give its memory back."""

SIGNAL_OF = {Action.TERMINATE: signal.SIGTERM, Action.INTERRUPT: signal.SIGQUIT, Action.KILL: signal.SIGKILL}


def unleased(_effect: Vacate) -> None:
    """Where no PIN is leased, nobody has to know."""


@record
class Crew:
    """What compose hands to the master of the other side of fork, which it must not know itself.

    Attributes:
        worker_main: Makes the function that a forked worker or spare runs, with how the one before it ended.
        assign: Tells a spare that it is the next worker of a PIN, and how the one before it ended.
        release: Is called when the forks of a turn are over: what `worker_main` has made of this process is undone.
        notice_main: Makes the function that tells a failure; None where nobody wants to hear.
        handlers: The name of the handler of each PIN and spare.
        leaders: The PINs and spares whose workers lead a process group.
        add: Is told which PINs the catch-all handler has besides, and sees to it that all of the above know them.
        clear: Is called with the PIN before its worker is forked; raises OSError where there is no memory for it.
        trace: Returns what the latest worker of the PIN was at.
        beat: Returns when the latest worker of the PIN last proved that it reaches its checkpoints, or None.
        announce: Is told, once, whether every worker came up.
        log: Takes a level and a line.
        vacate: Is told where no process is left on a PIN that is leased.
    """

    worker_main: Callable[[Pin, Attempt, Previous | None], Callable[[], int]]
    assign: Callable[[Pin, Pin, Attempt, Previous | None], None]
    release: Callable[[], None]
    notice_main: Callable[[FailureRecord], Callable[[], int]] | None
    handlers: Mapping[Pin, str]
    leaders: Collection[Pin]
    add: Callable[[Sequence[Pin]], None]
    clear: Callable[[Pin], None]
    trace: Callable[[Pin], Trace]
    beat: Callable[[Pin], float | None]
    announce: Callable[[bool], None]
    log: Callable[[int, str], None]
    vacate: Callable[[Vacate], None] = unleased


class Executor:
    """Carries out effects by way of the kernel, and keeps the books of who sits where."""

    def __init__(self, kernel: Kernel, crew: Crew) -> None:
        self._kernel = kernel
        self._crew = crew
        self._by_pid: dict[Pid, tuple[Pin, Attempt]] = {}
        self._by_pin: dict[Pin, Pid] = {}
        self._previous: dict[Pin, Previous] = {}
        self.stacks = Stacks(self._ask_stacks, lambda line: crew.log(ERROR, line))
        self.notices = Notices()
        self._notice_pid: Pid | None = None
        # OOM kills that no end of a worker was laid to yet, and until when they may be.
        self._oom_count, self._oom_until = 0, 0.0
        self._killed: set[Pin] = set()
        self._has_forked = False
        self._unsaid: list[tuple[m.Report, Seat | None]] = []
        self.history = History(len(crew.handlers))
        self.reload: Reload | None = None

    def handler(self, pin: Pin) -> str:
        """Return the name of the handler of a PIN or spare."""
        return self._crew.handlers[pin]

    def pid(self, pin: Pin) -> Pid | None:
        """Return the latest process of a PIN or spare."""
        return self._by_pin.get(pin)

    def trace(self, pin: Pin) -> Trace:
        """Return what the latest worker of a PIN was at."""
        return self._crew.trace(pin)

    def beat(self, pin: Pin) -> float | None:
        """Return when the latest worker of a PIN last proved that it reaches its checkpoints, as far as was asked."""
        return self._crew.beat(pin)

    def log(self, level: int, line: str) -> None:
        """Write a line into the log."""
        self._crew.log(level, line)

    def carry_out(self, effect: m.Effect) -> m.Event | None:
        """Do it, and return what came of it, where that is news for the core. `Finish` is the loop's own."""
        # Not among the cases: each class that is asked for there would cost every fork of a mass start a page fault.
        if isinstance(effect, m.Spawn):
            return self._spawn(effect.pin, effect.attempt)
        match effect:
            # These first, since most effects are: see `Supervisor._decide`.
            case m.WorkerEnded() | m.WorkerStarted():
                self._report(effect)
            case m.Assign(pin, attempt, spare):
                return self._assign(pin, attempt, spare)
            case m.Act(pin, _, action):
                if action is Action.KILL:
                    self._killed.add(pin)
                self._kernel.send(self._by_pin[pin], SIGNAL_OF[action])
            case m.Look() | m.Probe() | m.Measure() | m.Dump():
                return self._look_after(effect)
            case m.Forward(pin, _, signum):
                self._send(pin, signum)
            case m.Announce(up):
                self._crew.announce(up)
            case Vacate():
                self._crew.vacate(effect)
            case m.Finish():
                pass
            case _:
                self._report(effect)
        return None

    def translate(self, wake: Wake) -> list[m.Event]:
        """Turn what the kernel told into events, in the order in which the core shall hear them.

        Records first, because a worker speaks before it ends; then signals, because a group's TERM reaches master and
        workers together, and who has left by then has not failed.
        """
        for _, status in wake.ended:
            if status == KILLED:
                self._count_oom_kills()
                break
        events: list[m.Event] = []
        for told in wake.told:
            events += self._told(told)
        for signum in wake.signums:
            events += self._signaled(signum)
        for pid, suspended in wake.suspended:
            if pid in self._by_pid:
                events.append((m.WorkerSuspended if suspended else m.WorkerResumed)(*self._by_pid[pid]))
        events += [event for pid, status in wake.ended if (event := self._reaped(pid, status)) is not None]
        if wake.dumped:
            self.stacks.feed(wake.dumped, self._kernel.now())
        return events

    def _reaped(self, pid: Pid, status: ExitStatus) -> m.Event | None:
        if pid == self._notice_pid:
            self._notice_pid = None
            self.notices.done()
        elif pid in self._by_pid:
            return m.WorkerExited(*self._by_pid.pop(pid), status)
        elif self.reload is not None:
            self.reload.ended(pid)
        return None

    def next_deadline(self) -> float | None:
        """Return the instant at which `meet_deadline` is due, or None."""
        checked = None if self.reload is None else self.reload.next_deadline()
        deadlines = (self.notices.next_deadline(), self.stacks.next_deadline(), checked)
        return min((at for at in deadlines if at is not None), default=None)

    def meet_deadline(self, now: float) -> list[m.Event]:
        """Go on with what runs beside the workers: the telling of failures, the stacks of a hung one."""
        self._tell_failures(now)
        if self.reload is not None:
            self.reload.meet_deadline(now)
        dumped = self.stacks.meet_deadline(now)
        return [] if dumped is None else [m.Dumped(*dumped)]

    def speak(self) -> None:
        """Log what has happened. To write a line takes longer than to replace a worker, so that comes first."""
        if self._has_forked:
            # From here on code of the user may run, such as a filter of the app's logger.
            self._crew.release()
            self._has_forked = False
        unsaid, self._unsaid = self._unsaid, []
        now = self._kernel.now()
        for report, seat in unsaid:
            level, line = describe(report, seat)
            self._crew.log(level, Line(line, (report, seat)))
            self.history.add(report, seat, now)

    def report_untold(self) -> None:
        """Say how many failures `on_failure` was not told of: too many waited, or the end came first."""
        if count := self.notices.dropped_count:
            self._crew.log(WARNING, f"on_failure was not told of all failures count={count}")

    def _tell_failures(self, now: float) -> None:
        if self._notice_pid is not None and self.notices.expire(now):
            self._crew.log(ERROR, f"on_failure has not returned in time pid={self._notice_pid}; killing it by SIGKILL")
            self._kernel.send(self._notice_pid, signal.SIGKILL)
        if self._crew.notice_main is None:
            # After a reload, those of the old code may wait.
            self.notices.drop()
            return
        record = self.notices.take(now)
        if record is not None:
            try:
                self._notice_pid = self._kernel.fork(self._crew.notice_main(record), leader=False)
            except OSError as error:
                self._crew.log(ERROR, f"cannot fork for on_failure pin={record.pin}: {error.strerror}; it is not told")
                self.notices.done()

    def _look_after(self, effect: m.Look | m.Probe | m.Measure | m.Dump) -> m.Event | None:
        pin, attempt = effect.pin, effect.attempt
        match effect:
            case m.Look():
                return m.Looked(pin, attempt, self._crew.beat(pin))
            case m.Measure(limit=limit):
                return m.Measured(pin, attempt, self._kernel.private_bytes(self._by_pin[pin], limit))
            case m.Probe():
                self._send(pin, PROBE)
            case m.Dump():
                # Named now: when the last line comes, somebody else may sit there.
                handler, pid = self._crew.handlers[pin], self._by_pin[pin]
                who = Line(f"{handler} pin={pin} pid={pid}", {"handler": handler, "pin": pin, "pid": pid})
                self.stacks.of_hung(pin, attempt, who, self._kernel.now())
        return None

    def _spawn(self, pin: Pin, attempt: Attempt) -> m.Event:
        self._has_forked = True
        try:
            self._crew.clear(pin)
            child_main = self._crew.worker_main(pin, attempt, self._previous.get(pin))
            pid = self._kernel.fork(child_main, leader=pin in self._crew.leaders)
        except OSError as error:
            return m.SpawnFailed(pin, attempt, error.strerror or str(error))
        self._by_pid[pid] = (pin, attempt)
        self._by_pin[pin] = pid
        return m.Spawned(pin, attempt)

    def _assign(self, pin: Pin, attempt: Attempt, spare: Pin) -> m.Event:
        pid = self._by_pin.pop(spare)
        try:
            self._crew.clear(pin)
        except OSError as error:
            # The core has given it away: whoever sits there would wait for ever.
            self._kernel.send(pid, signal.SIGKILL)
            return m.SpawnFailed(pin, attempt, os.strerror(error.errno or 0))
        self._crew.assign(spare, pin, attempt, self._previous.get(pin))
        self._by_pid[pid] = (pin, attempt)
        self._by_pin[pin] = pid
        return m.Spawned(pin, attempt)

    def _send(self, pin: Pin, signum: int | None) -> None:
        if signum is not None:
            self._kernel.send(self._by_pin[pin], signum)

    def _told(self, told: Told) -> list[m.Event]:
        pin, attempt, pid = told.pin, told.attempt, self._by_pin.get(told.pin)
        if pid is None or self._by_pid.get(pid) != (pin, attempt):
            # Noise: nobody who is there.
            return []
        if told.word is told.word.UP:
            return [m.WorkerUp(pin, attempt)]
        return [m.StopRequested(m.StopKind.GRACEFUL, f"stop_all {named(pin)} pid={pid}", told.number)]

    def _signaled(self, signum: int) -> list[m.Event]:
        match signum:
            case signal.SIGTERM:
                return [m.StopRequested(m.StopKind.GRACEFUL, "SIGTERM")]
            case signal.SIGINT:
                return [m.InterruptRequested("SIGINT")]
            case signal.SIGQUIT:
                return [m.StopRequested(m.StopKind.QUICK, "SIGQUIT")]
            case signal.SIGTTIN | signal.SIGTTOU:
                step = 1 if signum == signal.SIGTTIN else -1
                return [m.ScaleRequested(signal.Signals(signum).name, step, relative=True)]
            case signal.SIGUSR1 | signal.SIGUSR2:
                return [m.ForwardRequested(signum)]
            case signal.SIGHUP if self.reload is not None:
                self.reload.request("SIGHUP")
                return []
            case _:
                self._crew.log(WARNING, f"signal ignored signal={signal.Signals(signum).name}; it means nothing here")
                return []

    def _ask_stacks(self, pin: Pin, attempt: Attempt) -> bool:
        pid = self._by_pin.get(pin)
        if pid is None or self._by_pid.get(pid) != (pin, attempt):
            return False
        self._send(pin, DUMP)
        return True

    def _report(self, report: m.Report) -> None:
        seat = None
        if isinstance(report, m.WorkerEnded):
            seat = self._ended(report)
        elif isinstance(report, m.Scaled):
            self._crew.add(report.added)
        elif isinstance(report, m.RollEnded | m.RollHalted) and self.reload is not None:
            self.reload.rolled(report)
        elif isinstance(report, m.OfWorker):
            seat = Seat(self._crew.handlers[report.pin], self._by_pin.get(report.pin))
        self._unsaid.append((report, seat))

    def _ended(self, report: m.WorkerEnded) -> Seat:
        """Keep what the next worker of the PIN, and those who want to hear of failures, shall know."""
        pin, pid, handler = report.pin, self._by_pin[report.pin], self._crew.handlers[report.pin]
        seat = Seat(handler, pid, self._crew.trace(pin), oom=self._was_oom_kill(pin, report.status))
        if is_spare(pin):
            return seat
        why = cause(report, oom=seat.oom)
        unit = seat.trace.unit if seat.trace is not None else ""
        self._previous[pin] = Previous(why, report.attempt, unit)
        if report.is_failure and self._crew.notice_main is not None:
            self.notices.add(FailureRecord(pin, pid, handler, why, report.lifetime_s, report.attempt))
        return seat

    def _count_oom_kills(self) -> None:
        now = self._kernel.now()
        if now >= self._oom_until:
            # Those victims were not ours: what a worker had started, or somebody beside us.
            self._oom_count = 0
        if count := self._kernel.oom_kills():
            self._oom_count, self._oom_until = self._oom_count + count, now + OOM_REAPED_S

    def _was_oom_kill(self, pin: Pin, status: ExitStatus) -> bool:
        """Whether the kernel's OOM killer did it: nobody else tells, and its signal is the one of `kill -9`."""
        ours = pin in self._killed
        self._killed.discard(pin)
        if ours or status != KILLED or not self._oom_count:
            return False
        self._oom_count -= 1
        return True
