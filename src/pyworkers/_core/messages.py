"""What goes into the core (events), what comes out of it (effects), and what is worth a log line (reports).

Events are in the past tense and effects in the imperative. A report is a fact with fields; its words are the business
of `_master/reports.py`.
"""

from __future__ import annotations

import enum

from pyworkers._core.records import record
from pyworkers._core.types import Action, Attempt, ExitStatus, Pin, Purpose, Wear


class StopKind(enum.IntEnum):
    """How hard the instance stops. A stop only ever gets harder."""

    GRACEFUL = 1
    QUICK = 2
    KILL = 3


@record
class OfWorker:
    """A message that names a worker: its PIN or its seat among the spares, and which of the processes there."""

    pin: Pin
    attempt: Attempt


# Events


@record
class StartRequested:
    """The instance shall start: every PIN is due now."""


class Spawned(OfWorker):
    """The fork that `Spawn` asked for has happened, or a spare was told what `Assign` says."""


@record
class SpawnFailed(OfWorker):
    """The fork that `Spawn` asked for has failed, for this reason."""

    reason: str


class WorkerUp(OfWorker):
    """The worker said that it is up."""


@record
class WorkerExited(OfWorker):
    """The worker was reaped: the only proof of a death."""

    status: ExitStatus


class WorkerSuspended(OfWorker):
    """The worker was stopped by a signal, as by SIGSTOP: it cannot reach a checkpoint."""


class WorkerResumed(OfWorker):
    """The worker goes on after it was suspended."""


@record
class Looked(OfWorker):
    """What `Look` has found: when the worker last proved that it reaches its checkpoints; None for never."""

    beat_at: float | None


@record
class Measured(OfWorker):
    """What `Measure` has found: the worker's private memory in bytes; None where it cannot be told."""

    private_bytes: int | None


class Dumped(OfWorker):
    """The stacks that `Dump` asked for are in the log, or will not come."""


@record
class StopRequested:
    """The instance shall stop. `exit_code` is set where a worker asked for it (`App.stop_all`)."""

    kind: StopKind
    reason: str
    exit_code: int | None = None


@record
class InterruptRequested:
    """A person at a terminal wants it to stop: gracefully, but a second time means at once."""

    reason: str


@record
class ForwardRequested:
    """A signal of the user's own shall reach every worker. Its number means nothing to the core."""

    signum: int


@record
class DeadlineReached:
    """Time has passed; whatever is due by now shall happen."""


Event = (
    StartRequested
    | Spawned
    | SpawnFailed
    | WorkerUp
    | WorkerExited
    | WorkerSuspended
    | WorkerResumed
    | Looked
    | Measured
    | Dumped
    | StopRequested
    | InterruptRequested
    | ForwardRequested
    | DeadlineReached
)


# Reports


class Next(enum.Enum):
    """What follows the end of a worker."""

    RESPAWN = "respawn"
    GROUP = "group"
    """A respawn, as soon as all of its group have ended."""
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
    """

    status: ExitStatus
    lifetime_s: float
    follows: Next
    delay_s: float = 0.0
    purpose: Purpose | None = None
    given_up: GivenUp | None = None
    is_failure: bool = False


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

Report = WorkerReport | StopStarted | AllEnded | EventIgnored


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


Effect = Spawn | Assign | Act | Look | Probe | Measure | Dump | Forward | Announce | Finish | Report
