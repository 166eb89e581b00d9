"""What goes into the core: facts that the shell has seen and wishes that it was told, all in the past tense."""

from __future__ import annotations

import enum

from pyworkers._core.records import record
from pyworkers._core.rows import RowEvent, RowsAnswered
from pyworkers._core.types import Attempt, ExitStatus, Pin


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
class RestartRequested:
    """An operator wants new processes on these PINs, or on all of them, and all start anew: also what was given up."""

    reason: str
    pins: tuple[Pin, ...] | None = None


@record
class ScaleRequested:
    """An operator wants the catch-all handler to have `count` PINs, or, where it is `relative`, so many more."""

    reason: str
    count: int
    relative: bool = False


@record
class ForwardRequested:
    """A signal of the user's own shall reach every worker. Its number means nothing to the core."""

    signum: int


@record
class DeadlineReached:
    """Time has passed; whatever is due by now shall happen."""


WorkerEvent = (
    Spawned | SpawnFailed | WorkerUp | WorkerExited | WorkerSuspended | WorkerResumed | Looked | Measured | Dumped
)
"""News of one process."""

Event = (
    StartRequested
    | WorkerEvent
    | StopRequested
    | InterruptRequested
    | RestartRequested
    | ScaleRequested
    | ForwardRequested
    | RowEvent
    | RowsAnswered
    | DeadlineReached
)
