"""What goes into the core (events), what comes out of it (effects), and what is worth a log line (reports).

Events are in the past tense and effects in the imperative. A report is a fact with fields; its words are the business
of `_master/reports.py`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pyworkers._core.types import Action, Attempt, ExitStatus, Pin


class StopKind(enum.IntEnum):
    """How hard the instance stops. A stop only ever gets harder."""

    GRACEFUL = 1
    QUICK = 2
    KILL = 3


# Events


@dataclass(frozen=True, slots=True)
class StartRequested:
    """The instance shall start: every PIN is due now."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """The fork that `Spawn` asked for has happened."""

    pin: Pin
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The fork that `Spawn` asked for has failed, for this reason."""

    pin: Pin
    attempt: Attempt
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """The worker said that it is up."""

    pin: Pin
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The worker was reaped: the only proof of a death."""

    pin: Pin
    attempt: Attempt
    status: ExitStatus


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The instance shall stop. `exit_code` is set where a worker asked for it (`App.stop_all`)."""

    kind: StopKind
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class InterruptRequested:
    """A person at a terminal wants it to stop: gracefully, but a second time means at once."""

    reason: str


@dataclass(frozen=True, slots=True)
class ForwardRequested:
    """A signal of the user's own shall reach every worker. Its number means nothing to the core."""

    signum: int


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """Time has passed; whatever is due by now shall happen."""


Event = (
    StartRequested
    | Spawned
    | SpawnFailed
    | WorkerUp
    | WorkerExited
    | StopRequested
    | InterruptRequested
    | ForwardRequested
    | DeadlineReached
)


# Reports


class Next(enum.Enum):
    """What follows the end of a worker."""

    RESPAWN = "respawn"
    FINISHED = "finished"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker was forked."""

    pin: Pin
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """A worker was reaped. `delay_s` counts where `follows` is a respawn."""

    pin: Pin
    attempt: Attempt
    status: ExitStatus
    lifetime_s: float
    follows: Next
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SpawnDelayed:
    """A fork failed; the next try is in `delay_s`."""

    pin: Pin
    attempt: Attempt
    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class StopStarted:
    """The instance began to stop, or to stop harder."""

    reason: str
    kind: StopKind
    live_count: int


@dataclass(frozen=True, slots=True)
class WorkerOverdue:
    """A worker has not left in time and was interrupted or killed: a unit of work may be torn."""

    pin: Pin
    attempt: Attempt
    action: Action


@dataclass(frozen=True, slots=True)
class WorkerAbandoned:
    """Even KILL did not end this worker in time."""

    pin: Pin
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class AllEnded:
    """No worker is left, and none will follow."""

    stopped: bool
    exit_code: int


@dataclass(frozen=True, slots=True)
class EventIgnored:
    """An event named an attempt that is over, or came where it means nothing: `because` says which."""

    event: Event
    because: str


Report = (
    WorkerStarted | WorkerEnded | SpawnDelayed | StopStarted | WorkerOverdue | WorkerAbandoned | AllEnded | EventIgnored
)


# Effects


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a worker for this PIN, and answer with `Spawned` or `SpawnFailed`."""

    pin: Pin
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Act:
    """Climb a rung: terminate, interrupt or kill this worker."""

    pin: Pin
    attempt: Attempt
    action: Action


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the user's own signal to this worker."""

    pin: Pin
    attempt: Attempt
    signum: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell whoever waits for the start, once: every worker is up, or one ended before it was ever up."""

    up: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """Leave, with this exit code. Always the last effect."""

    exit_code: int
    stopped: bool


Effect = Spawn | Act | Forward | Announce | Finish | Report
