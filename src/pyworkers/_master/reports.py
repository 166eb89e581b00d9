"""Every sentence that the master can say about its workers, in one table: fixed words first, then key=value fields."""

from __future__ import annotations

from pyworkers._core import messages as m
from pyworkers._core.records import record
from pyworkers._core.standing import Standing
from pyworkers._core.types import (
    FIRST_SPARE,
    Action,
    Exited,
    ExitStatus,
    Limit,
    Pid,
    Pin,
    Purpose,
    Signaled,
    Vanished,
    is_spare,
)
from pyworkers._logs import DEBUG, ERROR, INFO, WARNING
from pyworkers._posix.process import signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._posix.cells import Trace


@record
class Seat:
    """What the core does not know of a PIN: the handler's name, the process, what it was at, why it was killed."""

    handler: str
    pid: Pid | None
    trace: Trace | None = None
    oom: bool = False


OOM_KILL = "oom-kill"
HANG = "hang"

_GIVEN_UP = {
    m.GivenUp.NO_RESTART: "failed, for restart=never",
    m.GivenUp.PERMANENT: "failed, for this is a permanent failure code",
    m.GivenUp.INTENSITY: "failed, for max_restarts is reached",
    m.GivenUp.GROUP: "failed with its group",
}

_STOPPING = {
    m.StopKind.GRACEFUL: "stopping",
    m.StopKind.QUICK: "stopping quickly",
    m.StopKind.KILL: "killing all workers",
}


def describe(report: m.Report, seat: Seat | None) -> tuple[int, str]:
    """Return the level and the line for a report. `seat` belongs to the report's PIN, where it has one."""
    match report:
        case m.StopStarted(reason, kind, live_count):
            return INFO, f"{_STOPPING[kind]} reason={reason} workers={live_count}"
        case m.AllEnded():
            return _all_ended(report)
        case m.EventIgnored(event, because):
            return DEBUG, f"ignored {event}: {because}"
        case m.GroupRestarted(pin, group, live_count):
            return WARNING, f"group restarting {group} after pin={pin} workers={live_count}; all start again"
        case m.GroupFailed(pin, group, live_count, pins):
            others = f" failed={_listed(pins)}" if pins else ""
            return ERROR, f"group failed {group} after pin={pin}{others} workers={live_count}; stopping them"
        case m.RestartStarted() | m.Scaled() | m.RequestRefused() | m.RollStarted() | m.RollHalted() | m.RollEnded():
            return _operated(report)
        case _:
            assert seat is not None
            return _of_worker(report, seat, f"{seat.handler} {named(report.pin)} pid={seat.pid}")


def _operated(report: m.OperatorReport) -> tuple[int, str]:
    match report:
        case m.RestartStarted(reason, pins, live_count):
            return INFO, f"restarting pins={_listed(pins)} reason={reason} workers={live_count}"
        case m.Scaled(reason, count, added, removed):
            changes = "".join(
                f" {what}={_listed(pins)}" for what, pins in (("added", added), ("removed", removed)) if pins
            )
            return INFO, f"scaled pins={count}{changes} reason={reason}"
        case m.RequestRefused(reason, because):
            return WARNING, f"refused reason={reason}: {because}"
        case m.RollStarted(count, new_count, gone_count):
            changed = f" new={new_count} gone={gone_count}" if new_count or gone_count else ""
            return INFO, f"reloaded workers={count}{changed}; replacing them one at a time"
        case m.RollHalted(pin, left_count):
            others = f"workers={left_count} go on with the code that they run"
            return ERROR, f"reload halted at pin={pin}; {others}: mend the new code and reload again"
        case m.RollEnded(count):
            return INFO, f"reload complete workers={count}"


def cause(report: m.WorkerEnded, *, oom: bool) -> str:
    """Return why a process ended: `exit=41`, `signal=SIGKILL`, `oom-kill`, `hang` or `status=unknown`."""
    if report.purpose is Purpose.HANG:
        return HANG
    return OOM_KILL if oom else status_of(report.status)


def named(seat: Pin) -> str:
    """Return what the log calls a seat."""
    return f"spare={seat - FIRST_SPARE}" if is_spare(seat) else f"pin={seat}"


def standing_line(standing: Standing) -> str:
    """Return what a service manager shows of the instance: one short line."""
    if standing.is_over:
        return "all workers stopped" if standing.is_stopping else "all workers ended"
    if standing.is_stopping:
        return f"stopping: {standing.live} worker{'s' if standing.live != 1 else ''} left"
    line = "starting: " if standing.coming else ""
    line += f"{standing.up} of {standing.wanted} PINs up"
    line += "".join(
        f", {count} {word}" for count, word in ((standing.finished, "finished"), (standing.failed, "failed")) if count
    )
    return line + (f"; ended before up, and tried again: {_listed(standing.late)}" if standing.late else "")


def _of_worker(report: m.WorkerReport, seat: Seat, who: str) -> tuple[int, str]:
    match report:
        case m.WorkerStarted():
            return INFO, f"worker started {who}"
        case m.WorkerEnded():
            return _ended(report, seat, who)
        case m.SpawnDelayed(pin, _, reason, delay_s):
            line = f"cannot fork {seat.handler} {named(pin)}: {reason}; trying again in {delay_s:.1f}s"
            return ERROR, line
        case m.SuspensionNoted(suspended=suspended):
            line = f"worker suspended {who}; it keeps its PIN" if suspended else f"worker resumed {who}"
            return WARNING, line
        case m.WorkerHung(silent_s=silent_s):
            return ERROR, f"worker hung {who} silent={silent_s:.1f}s; its stacks follow, then it is replaced"
        case m.WorkerRecycled(wear=wear):
            measured = f"{wear.measured / 2**20:.1f}M" if wear.limit is Limit.MAX_RSS else f"{wear.measured:.1f}s"
            return INFO, f"worker recycled {who} {wear.limit.value} reached={measured}; asking it to leave"
        case m.WorkerOverdue(action=action):
            happens = "interrupting it" if action is Action.INTERRUPT else "killing it"
            return WARNING, f"worker has not left {who}; {happens} by SIG{action.value}"
        case m.WorkerAbandoned(waiting=waiting):
            what = "waiting for the kernel to end it" if waiting else "leaving it to the kernel"
            return ERROR, f"worker survives SIGKILL {who}; {what}"
        case m.GroupRestarted() | m.GroupFailed():
            raise AssertionError(report)


def _ended(report: m.WorkerEnded, seat: Seat, who: str) -> tuple[int, str]:
    why = cause(report, oom=seat.oom)
    because = f" cause={why}" if why in (HANG, OOM_KILL) else ""
    line = f"worker ended {who} {status_of(report.status)}{because} after={report.lifetime_s:.1f}s"
    abnormal = WARNING if report.is_failure else INFO
    match report.follows:
        case m.Next.FINISHED:
            return INFO, f"{line}; finished"
        case m.Next.STOPPED:
            return INFO, f"{line}{trace_of(seat)}; stopped"
        case m.Next.FAILED:
            assert report.given_up is not None
            return ERROR, f"{line}{trace_of(seat)}; {_GIVEN_UP[report.given_up]}"
        case m.Next.GROUP:
            return abnormal, f"{line}{trace_of(seat)}; respawning with its group"
        case m.Next.LEASE:
            return abnormal, f"{line}{trace_of(seat)}; waiting for its lease"
        case m.Next.RESPAWN:
            when = f"in {report.delay_s:.1f}s" if report.delay_s else "now"
            return abnormal, f"{line}{trace_of(seat)}; respawning {when}"


def _all_ended(report: m.AllEnded) -> tuple[int, str]:
    how = "stopped" if report.stopped else "ended" if report.failed else "finished"
    failed = f" failed={_listed(report.failed)}" if report.failed else ""
    code = f" code={report.exit_code}" if report.exit_code else ""
    level = ERROR if report.failed else INFO
    return level, f"all workers {how}{failed}; master exits{code}"


def status_of(status: ExitStatus) -> str:
    match status:
        case Exited(code):
            return f"exit={code}"
        case Signaled(signum):
            return f"signal={signal_name(signum)}"
        case Vanished():
            return "status=unknown"


def _listed(pins: tuple[int, ...]) -> str:
    more = ",..." if len(pins) > 20 else ""
    return ",".join(str(pin) for pin in pins[:20]) + more


def trace_of(seat: Seat) -> str:
    """Return what a worker was at, as fields of a line."""
    if seat.trace is None:
        return ""
    trace = seat.trace
    unit = f" unit={trace.unit!r}" if trace.unit else ""
    total = "" if trace.total_count is None else f"/{trace.total_count}"
    progress = f" done={trace.done_count}{total}" if trace.done_count or total else ""
    return unit + progress
