"""Every sentence that the master can say about its workers, in one table: fixed words first, then key=value fields."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from pyworkers._core import messages as m
from pyworkers._core.types import Action, Exited, ExitStatus, Pid, Signaled, Vanished
from pyworkers._posix.process import signal_name

if TYPE_CHECKING:
    from pyworkers._posix.cells import Trace


class Seat(NamedTuple):
    """What the core does not know of a PIN: the handler's name, the process, what it was at."""

    handler: str
    pid: Pid | None
    trace: Trace | None


def describe(report: m.Report, seat: Seat | None) -> tuple[int, str]:
    """Return the level and the line for a report. `seat` belongs to the report's PIN, where it has one."""
    match report:
        case m.WorkerStarted(pin):
            return logging.INFO, f"worker started {_who(pin, seat)}"
        case m.WorkerEnded():
            return _ended(report, seat)
        case m.SpawnDelayed(pin, _, reason, delay_s):
            handler = seat.handler if seat else ""
            return logging.ERROR, f"cannot fork {handler} pin={pin}: {reason}; trying again in {delay_s:.1f}s"
        case m.StopStarted(reason, kind, live_count):
            how = {
                m.StopKind.GRACEFUL: "stopping",
                m.StopKind.QUICK: "stopping quickly",
                m.StopKind.KILL: "killing all workers",
            }[kind]
            return logging.INFO, f"{how} reason={reason} workers={live_count}"
        case m.WorkerOverdue(pin, _, action):
            happens = "interrupting it" if action is Action.INTERRUPT else "killing it"
            return logging.WARNING, f"worker has not left {_who(pin, seat)}; {happens} by {_signal_of(action)}"
        case m.WorkerAbandoned(pin):
            return logging.ERROR, f"worker survives SIGKILL {_who(pin, seat)}; leaving it to the kernel"
        case m.AllEnded(stopped, exit_code):
            how = "stopped" if stopped else "finished"
            code = f" code={exit_code}" if exit_code else ""
            return logging.INFO, f"all workers {how}; master exits{code}"
        case m.EventIgnored(event, because):
            return logging.DEBUG, f"ignored {event}: {because}"


def cause(status: ExitStatus) -> str:
    """Return how a process ended: `exit=41`, `signal=SIGKILL` or `status=unknown`."""
    match status:
        case Exited(code):
            return f"exit={code}"
        case Signaled(signum):
            return f"signal={signal_name(signum)}"
        case Vanished():
            return "status=unknown"


def _ended(report: m.WorkerEnded, seat: Seat | None) -> tuple[int, str]:
    line = f"worker ended {_who(report.pin, seat)} {cause(report.status)} after={report.lifetime_s:.1f}s"
    match report.follows:
        case m.Next.FINISHED:
            return logging.INFO, f"{line}; finished"
        case m.Next.STOPPED:
            return logging.INFO, f"{line}{_trace(seat)}; stopped"
        case m.Next.RESPAWN:
            when = f"in {report.delay_s:.1f}s" if report.delay_s else "now"
            return logging.WARNING, f"{line}{_trace(seat)}; respawning {when}"


def _who(pin: int, seat: Seat | None) -> str:
    if seat is None:
        return f"pin={pin}"
    return f"{seat.handler} pin={pin} pid={seat.pid}"


def _trace(seat: Seat | None) -> str:
    if seat is None or seat.trace is None:
        return ""
    trace = seat.trace
    unit = f" unit={trace.unit!r}" if trace.unit else ""
    total = "" if trace.total_count is None else f"/{trace.total_count}"
    progress = f" done={trace.done_count}{total}" if trace.done_count or total else ""
    return unit + progress


def _signal_of(action: Action) -> str:
    return f"SIG{action.value}"
