"""Carries out effects: one effect, one call of the kernel, and its failure becomes an event.

Knows which process sits on which PIN, which is all the state that the core must not have.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pyworkers._core import messages as m
from pyworkers._core.notices import Notices
from pyworkers._core.types import Action, Attempt, ExitStatus, FailureRecord, Pid, Pin
from pyworkers._master.reports import Seat, cause, describe
from pyworkers._posix.cells import Trace
from pyworkers._posix.channel import Told

SIGNAL_OF = {Action.TERMINATE: signal.SIGTERM, Action.INTERRUPT: signal.SIGQUIT, Action.KILL: signal.SIGKILL}


Wake = tuple[list[int], list[Told], list[tuple[Pid, ExitStatus]]]
"""What a wait has brought: signals, records of workers, and who has ended."""


class Kernel(Protocol):
    """What the master needs of the operating system; `_posix.kernel` is the real one."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def fork(self, child_main: Callable[[], int]) -> Pid:
        """Start a process that runs `child_main` and leaves with its result; raises OSError where it cannot."""
        ...

    def send(self, pid: Pid, signum: int) -> None:
        """Send a signal to a process that was forked and has not been reported as ended."""
        ...

    def wait(self, timeout_s: float | None, log_fd: int | None) -> Wake:
        """Wait for a signal, a record, room in the log, or the time; None waits without end."""
        ...


@dataclass(frozen=True, slots=True)
class Crew:
    """What compose hands to the master of the other side of fork, which it must not know itself.

    Attributes:
        worker_main: Makes the function that a forked worker runs.
        notice_main: Makes the function that tells a failure; None where nobody wants to hear.
        handlers: The name of each PIN's handler.
        clear: Is called with the PIN before its worker is forked.
        trace: Returns what the latest worker of the PIN was at.
        announce: Is told, once, whether every worker came up.
        log: Takes a level and a line.
    """

    worker_main: Callable[[Pin, Attempt], Callable[[], int]]
    notice_main: Callable[[FailureRecord], Callable[[], int]] | None
    handlers: Mapping[Pin, str]
    clear: Callable[[Pin], None]
    trace: Callable[[Pin], Trace]
    announce: Callable[[bool], None]
    log: Callable[[int, str], None]


class Executor:
    """Carries out effects by way of the kernel; `whose` and `forget` keep the books of who sits where."""

    def __init__(self, kernel: Kernel, crew: Crew) -> None:
        self._kernel = kernel
        self._crew = crew
        self._by_pid: dict[Pid, tuple[Pin, Attempt]] = {}
        self._by_pin: dict[Pin, Pid] = {}
        self.notices: Notices[FailureRecord] = Notices()
        self._notice_pid: Pid | None = None

    def carry_out(self, effect: m.Effect) -> m.Event | None:
        """Do it, and return what came of it, where that is news for the core. `Finish` is the loop's own."""
        match effect:
            case m.Spawn(pin, attempt):
                return self._spawn(pin, attempt)
            case m.Act(pin, _, action):
                self._kernel.send(self._by_pin[pin], SIGNAL_OF[action])
            case m.Forward(pin, _, signum):
                self._kernel.send(self._by_pin[pin], signum)
            case m.Announce(up):
                self._crew.announce(up)
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
        signums, records, ended = wake
        events: list[m.Event] = []
        for told in records:
            events += self._told(told)
        for signum in signums:
            events += self._signaled(signum)
        for pid, status in ended:
            if pid == self._notice_pid:
                self._notice_pid = None
                self.notices.done()
            elif pid in self._by_pid:
                pin, attempt = self._by_pid.pop(pid)
                events.append(m.WorkerExited(pin, attempt, status))
        return events

    def tell_failures(self, now: float) -> None:
        """Start, or end by force, the process that runs the `on_failure` functions."""
        if self._crew.notice_main is None:
            return
        if self._notice_pid is not None and self.notices.expire(now):
            self._crew.log(
                logging.ERROR, f"on_failure has not returned in time pid={self._notice_pid}; killing it by SIGKILL"
            )
            self._kernel.send(self._notice_pid, signal.SIGKILL)
        record = self.notices.take(now)
        if record is not None:
            try:
                self._notice_pid = self._kernel.fork(self._crew.notice_main(record))
            except OSError as error:
                self._crew.log(
                    logging.ERROR, f"cannot fork for on_failure pin={record.pin}: {error.strerror}; it is not told"
                )
                self.notices.done()

    def report_untold(self) -> None:
        """Say how many failures `on_failure` was not told of: too many waited, or the end came first."""
        if count := self.notices.dropped_count:
            self._crew.log(logging.WARNING, f"on_failure was not told of all failures count={count}")

    def _spawn(self, pin: Pin, attempt: Attempt) -> m.Event:
        self._crew.clear(pin)
        try:
            pid = self._kernel.fork(self._crew.worker_main(pin, attempt))
        except OSError as error:
            return m.SpawnFailed(pin, attempt, os.strerror(error.errno or 0))
        self._by_pid[pid] = (pin, attempt)
        self._by_pin[pin] = pid
        return m.Spawned(pin, attempt)

    def _told(self, told: Told) -> list[m.Event]:
        seat = self._by_pid.get(told.pid)
        if seat is None:
            # A process that the worker forked, or noise: nobody whom we gave a PIN.
            return []
        pin, attempt = seat
        if told.word is told.word.UP:
            return [m.WorkerUp(pin, attempt)]
        reason = f"stop_all pin={pin} pid={told.pid}"
        return [m.StopRequested(m.StopKind.GRACEFUL, reason, told.number)]

    def _signaled(self, signum: int) -> list[m.Event]:
        match signum:
            case signal.SIGTERM:
                return [m.StopRequested(m.StopKind.GRACEFUL, "SIGTERM")]
            case signal.SIGINT:
                return [m.InterruptRequested("SIGINT")]
            case signal.SIGQUIT:
                return [m.StopRequested(m.StopKind.QUICK, "SIGQUIT")]
            case signal.SIGUSR1 | signal.SIGUSR2:
                return [m.ForwardRequested(signum)]
            case _:
                self._crew.log(
                    logging.WARNING, f"signal ignored signal={signal.Signals(signum).name}; it means nothing here"
                )
                return []

    def _report(self, report: m.Report) -> None:
        seat = None
        if not isinstance(report, m.EventIgnored | m.StopStarted | m.AllEnded):
            pin = report.pin
            trace = self._crew.trace(pin) if isinstance(report, m.WorkerEnded) else None
            seat = Seat(self._crew.handlers[pin], self._by_pin.get(pin), trace)
            if isinstance(report, m.WorkerEnded) and report.follows is m.Next.RESPAWN and self._crew.notice_main:
                self.notices.add(
                    FailureRecord(
                        pin=pin,
                        pid=self._by_pin[pin],
                        handler=seat.handler,
                        cause=cause(report.status),
                        lifetime=report.lifetime_s,
                        attempt=report.attempt,
                    )
                )
        self._crew.log(*describe(report, seat))
