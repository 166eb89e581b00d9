"""What comes out of the core (effects), and what of that is worth a log line (reports).

What goes in is in `events`, and can be had here, too. Effects are in the imperative. A report is a fact with fields;
its words are the business of `_master/reports.py`.
"""

from __future__ import annotations

import enum

from pyworkers._core.events import (
    DeadlineReached,
    Dumped,
    Event,
    ForwardRequested,
    InterruptRequested,
    Looked,
    Measured,
    OfWorker,
    RestartRequested,
    ScaleRequested,
    Spawned,
    SpawnFailed,
    StartRequested,
    StopKind,
    StopRequested,
    WorkerEvent,
    WorkerExited,
    WorkerResumed,
    WorkerSuspended,
    WorkerUp,
)
from pyworkers._core.records import record
from pyworkers._core.rows import Vacate
from pyworkers._core.types import Action, ExitStatus, Pin, Purpose, SlotPlan, Wear

__all__ = [
    "DeadlineReached",
    "Dumped",
    "Event",
    "ForwardRequested",
    "InterruptRequested",
    "Looked",
    "Measured",
    "OfWorker",
    "RestartRequested",
    "ScaleRequested",
    "SpawnFailed",
    "Spawned",
    "StartRequested",
    "StopKind",
    "StopRequested",
    "WorkerEvent",
    "WorkerExited",
    "WorkerResumed",
    "WorkerSuspended",
    "WorkerUp",
]


# Reports


class Next(enum.Enum):
    """What follows the end of a worker."""

    RESPAWN = "respawn"
    GROUP = "group"
    """A respawn, as soon as all of its group have ended."""
    LEASE = "lease"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class GivenUp(enum.Enum):
    """Why a PIN failed: what its last worker did or is not allowed."""

    NO_RESTART = "restart=never"
    PERMANENT = "permanent_failure_codes"
    INTENSITY = "max_restarts"
    GROUP = "group"


class WorkerStarted(OfWorker):
    """A worker was forked."""


@record
class WorkerEnded(OfWorker):
    """A worker was reaped.

    Attributes:
        delay_s: Counts where `follows` is a respawn.
        purpose: Why it was asked to leave, if it was.
        given_up: Why it failed, if it did.
        is_failure: Whether the end was abnormal, and not what it was asked for; or has cost the PIN.
        short_lives: How many workers in a row have lived less than a second, this one included; `delay_s` follows
            from it.
        restart_count: How many restarts count for `max_restarts`, the one that follows included.
    """

    status: ExitStatus
    lifetime_s: float
    follows: Next
    delay_s: float = 0.0
    purpose: Purpose | None = None
    given_up: GivenUp | None = None
    is_failure: bool = False
    short_lives: int = 0
    restart_count: int = 0


@record
class SuspensionNoted(OfWorker):
    """A worker was suspended, or goes on."""

    suspended: bool


@record
class WorkerHung(OfWorker):
    """A worker has reached no checkpoint for `silent_s` seconds or more."""

    silent_s: float


@record
class WorkerRecycled(OfWorker):
    """A worker has reached a limit, and is asked to leave."""

    wear: Wear


@record
class GroupRestarted:
    """A worker has ended and a new one is to follow, so all of its group are stopped and started again."""

    pin: Pin
    group: str
    live_count: int


@record
class GroupFailed:
    """A PIN was given up, so all of its group are stopped; `pins` are those that had no worker."""

    pin: Pin
    group: str
    live_count: int
    pins: tuple[Pin, ...]


@record
class SpawnDelayed(OfWorker):
    """A fork failed; the next try is in `delay_s`."""

    reason: str
    delay_s: float


@record
class RestartStarted:
    """The workers of these PINs are stopped, if they have any, and new ones are started."""

    reason: str
    pins: tuple[Pin, ...]
    live_count: int


@record
class Scaled:
    """The catch-all handler has `count` PINs from now on; `plan` is what these have in common."""

    reason: str
    count: int
    added: tuple[Pin, ...]
    removed: tuple[Pin, ...]
    plan: SlotPlan


@record
class RequestRefused:
    """An operator wants what cannot be."""

    reason: str
    because: str


@record
class RollStarted:
    """New code has taken over: so many workers are replaced one at a time, so many PINs are new, so many gone."""

    count: int
    new_count: int
    gone_count: int


@record
class RollHalted:
    """The new code's worker did not come up on this PIN: `left_count` others go on with the code that they run."""

    pin: Pin
    left_count: int


@record
class RollEnded:
    """Every worker that had to be replaced was."""

    count: int


@record
class StopStarted:
    """The instance began to stop, or to stop harder."""

    reason: str
    kind: StopKind
    live_count: int


@record
class WorkerOverdue(OfWorker):
    """A worker has not left in time and was interrupted or killed: a unit of work may be torn."""

    action: Action


@record
class WorkerAbandoned(OfWorker):
    """Even KILL did not end this worker in time. With `waiting` its PIN waits for it."""

    waiting: bool


@record
class AllEnded:
    """No worker is left, and none will follow; `failed` are the PINs that were given up."""

    stopped: bool
    exit_code: int
    failed: tuple[Pin, ...] = ()


@record
class EventIgnored:
    """An event named an attempt that is over, or came where it means nothing: `because` says which."""

    event: Event
    because: str


WorkerReport = (
    WorkerStarted
    | WorkerEnded
    | SpawnDelayed
    | SuspensionNoted
    | WorkerHung
    | WorkerRecycled
    | GroupRestarted
    | GroupFailed
    | WorkerOverdue
    | WorkerAbandoned
)
"""What concerns one PIN."""

OperatorReport = RestartStarted | Scaled | RequestRefused | RollStarted | RollHalted | RollEnded
"""What an operator has wanted, and what came of it."""

Report = WorkerReport | OperatorReport | StopStarted | AllEnded | EventIgnored


# Effects


class Spawn(OfWorker):
    """Fork a worker for this PIN, and answer with `Spawned` or `SpawnFailed`."""


@record
class Assign(OfWorker):
    """Let the process of this spare be the PIN's next one, and answer with `Spawned`."""

    spare: Pin


@record
class Act(OfWorker):
    """Climb a rung: terminate, interrupt or kill this worker."""

    action: Action


class Look(OfWorker):
    """See when this worker last proved that it reaches its checkpoints, and answer with `Looked`."""


class Probe(OfWorker):
    """Ask this worker to prove it at its next checkpoint."""


@record
class Measure(OfWorker):
    """Take this worker's private memory, and answer with `Measured`; exactly, where it is more than `limit` bytes."""

    limit: int


class Dump(OfWorker):
    """Make this worker write the stacks of all its threads into the log; `Dumped` may answer at any time."""


@record
class Forward(OfWorker):
    """Send the user's own signal to this worker."""

    signum: int


@record
class Announce:
    """Tell whoever waits for the start, once: every worker is up, or one ended before it was ever up."""

    up: bool


@record
class Finish:
    """Leave, with this exit code. Always the last effect."""

    exit_code: int
    stopped: bool


Effect = Spawn | Assign | Act | Look | Probe | Measure | Dump | Forward | Vacate | Announce | Finish | Report
