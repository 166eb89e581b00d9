"""What the value of a slot's state says, whoever asks: when it has something to do, and what is left of its time."""

from __future__ import annotations

from pyworkers._core import policy
from pyworkers._core.messages import StopKind
from pyworkers._core.types import (
    NEVER,
    Abandoned,
    Action,
    Backoff,
    Failed,
    Finished,
    Hung,
    Killing,
    Purpose,
    Retired,
    Rung,
    Running,
    SlotState,
    Starting,
    Stopping,
    Waiting,
)


def wakes_at(state: SlotState) -> float:
    """Return the instant at which its deadline is due: part of the state, so there is no timer to cancel."""
    match state:
        case Backoff(respawn_at):
            return respawn_at
        case Running(watch=watched):
            return watched.wakes_at()
        case Hung(end_at=end_at):
            return end_at
        case Stopping(rungs=rungs):
            return rungs[0].at
        case Killing(abandon_at=abandon_at):
            return abandon_at
        case Starting() | Waiting() | Finished() | Failed() | Retired() | Abandoned():
            return NEVER


def retires(state: SlotState) -> bool:
    """Whether the PIN was taken away, also while its last process is still leaving."""
    leaving = isinstance(state, Stopping | Killing) and state.purpose is Purpose.SCALE
    return leaving or isinstance(state, Retired)


def left_on_request(before: SlotState, after: SlotState) -> bool:
    """Whether the process that has ended was unwanted by an operator, or could not be held: no start has failed."""
    asked = (Purpose.RESTART, Purpose.SCALE, Purpose.LEASE)
    was_asked = isinstance(before, Stopping | Killing) and before.purpose in asked
    return was_asked and isinstance(after, Backoff | Waiting | Retired)


def ladder(kind: StopKind, state: SlotState, stop_timeout: float, now: float) -> tuple[Rung, ...]:
    """Return the rungs of a stop of the instance; a quick one grants no more time than was left."""
    match kind:
        case StopKind.GRACEFUL:
            return policy.stop_ladder(stop_timeout, now)
        case StopKind.QUICK:
            promised = state.rungs[-1].at if isinstance(state, Stopping) else NEVER
            return policy.quick_ladder(now, min(promised, now + stop_timeout))
        case StopKind.KILL:
            return (Rung(now, Action.KILL),)
