"""The values that every room speaks of: PINs, attempts, exit statuses and the state of one slot.

Values only; nothing is decided here. A slot has exactly one state value, and a field exists only in the states where
it means something, so that "has a process but is finished" cannot be written.
"""

from __future__ import annotations

import enum

from pyworkers._core.records import record
from pyworkers._core.typed import NewType

Pin = NewType("Pin", int)
"""The process index number: the stable name of a seat that outlives the processes that take it."""

Pid = NewType("Pid", int)
"""A process of the kernel. `Pin` and `Pid` differ by a letter: a swap must be a type error."""

Attempt = NewType("Attempt", int)
"""The nth process of a PIN, from 1. An event that names an older attempt is stale."""


PIN_MAX = 2**31 - 1
"""The largest PIN: as large as the kernel's own process numbers could ever be, and short enough for a log line."""

FIRST_SPARE = Pin(PIN_MAX + 1)
"""The seats from here on are no PINs: each is a spare's, a process that waits to take any PIN of its handler."""

PINS_MAX = 1_000_000
"""As many PINs as a person can mean: pid_max is at most 2**22 (proc(5)). It also bounds an endless iterable."""


@record
class Exited:
    """The process ended by itself, with this exit code."""

    code: int


@record
class Signaled:
    """The process was ended by this signal. Never a negative exit code: wait(2) keeps the two apart, and so do we."""

    signum: int


@record
class Vanished:
    """The process is gone, but somebody else collected its status (waitpid(2), ECHILD)."""


ExitStatus = Exited | Signaled | Vanished


def is_spare(seat: Pin) -> bool:
    """Whether this seat is a spare's, and no PIN."""
    return seat >= FIRST_SPARE


class Restart(enum.Enum):
    """Which ends of a worker are followed by a new one: the words of systemd and Docker."""

    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    NEVER = "never"


class Limit(enum.Enum):
    """What a worker may reach before it is recycled; the values are the options' names."""

    MAX_RUNTIME = "max_runtime"
    MAX_RSS = "max_rss"


class Phase(enum.Enum):
    """Where the instance is between its start and its end."""

    STARTING = "starting"
    """Not yet has every worker been up, and none of them has ended before it was."""
    RUNNING = "running"
    STOPPING = "stopping"
    """It was asked to stop, or all has ended."""


class Purpose(enum.Enum):
    """Why a worker was asked to leave."""

    STOP = "stop"
    """The instance stops."""
    HANG = "hang"
    """It has not reached a checkpoint in time."""
    RECYCLE = "recycle"
    """It has reached a limit."""
    GROUP = "group"
    """Another PIN of its group has failed."""
    RESTART = "restart"
    """An operator wants a new one."""
    SCALE = "scale"
    """An operator wants fewer PINs."""
    LEASE = "lease"
    """Its PIN may not be held any longer."""


class Action(enum.Enum):
    """What a rung of the stop ladder does to a worker."""

    TERMINATE = "TERM"
    INTERRUPT = "QUIT"
    KILL = "KILL"


@record
class Rung:
    """One step of the stop ladder: at the instant `at`, do `action`."""

    at: float
    action: Action


@record
class SlotPlan:
    """What the core has to know of one PIN: its policy, not its function. Durations in seconds, memory in bytes.

    Attributes:
        handler: PINs of the same handler are recycled one at a time, and share its spares.
        group: PINs of the same group are restarted all together; None for a PIN of its own.
        leased: Whether there may be a process only while the row of the PIN is held.
    """

    pin: Pin
    normal_exit_codes: frozenset[int] = frozenset({0})
    permanent_failure_codes: frozenset[int] = frozenset()
    restart: Restart = Restart.ON_FAILURE
    backoff: tuple[float, float] = (0.1, 30.0)
    max_restarts: int | None = None
    restart_period: float = 60.0
    stop_timeout: float = 8.0
    hang_timeout: float | None = None
    max_runtime: float | None = None
    max_rss: int | None = None
    handler: int = 0
    group: str | None = None
    leased: bool = False


NEVER = float("inf")
"""The instant of a deadline that nobody has asked for."""


@record
class Watch:
    """When a running worker is looked after next.

    Attributes:
        look_at: When to see whether it still reaches its checkpoints.
        probed_at: When it was asked to prove that; None where no answer is due.
        measure_at: When to take its memory.
        recycle_at: When it will have run for long enough.
    """

    look_at: float = NEVER
    probed_at: float | None = None
    measure_at: float = NEVER
    recycle_at: float = NEVER

    def wakes_at(self) -> float:
        """Return the earliest of them."""
        return min(self.look_at, self.measure_at, self.recycle_at)


@record
class Wear:
    """A limit that a worker has reached, and what was measured, in seconds or bytes."""

    limit: Limit
    measured: float


@record
class Backoff:
    """No process; one is due at `respawn_at`, which may be now; never, while it waits for its group."""

    respawn_at: float


@record
class Waiting:
    """No process, and none may be there before the row of the PIN is held."""


@record
class Starting:
    """Forked, and not yet up. Until the shell has `confirmed` the fork, it may still turn out to have failed."""

    attempt: Attempt
    spawned_at: float
    confirmed: bool = False
    suspended: bool = False


@record
class Running:
    """Up: `on_worker_start` is done. With `worn` it waits for its turn to be recycled, unless it is `suspended`."""

    attempt: Attempt
    spawned_at: float
    watch: Watch = Watch()
    worn: Wear | None = None
    suspended: bool = False


@record
class Hung:
    """It has missed its `hang_timeout`. It is `asked` for its stacks in its turn, and ended at `end_at` in any case."""

    attempt: Attempt
    spawned_at: float
    end_at: float
    asked: bool = False


@record
class Stopping:
    """Asked to leave, last by `acted`. `rungs` is what is left of the ladder, next first; it always ends in a KILL."""

    attempt: Attempt
    spawned_at: float
    acted: Action
    rungs: tuple[Rung, ...]
    purpose: Purpose


@record
class Killing:
    """KILL was sent. `abandon_at` is when it is said that even KILL does not end it; a stop then leaves without it."""

    attempt: Attempt
    spawned_at: float
    abandon_at: float
    purpose: Purpose


@record
class Finished:
    """No process, and none will follow: a normal end, or, where it was cut short of that, the instance is stopping."""

    cut: bool = False


@record
class Failed:
    """No process, and none will follow: the PIN was given up."""


@record
class Retired:
    """No process, and none will follow unless the PIN is added again: an operator has taken it away."""


@record
class Abandoned:
    """KILL did not end the process (proc(5), state D); it holds PIN and lock until the kernel lets it go."""

    attempt: Attempt
    spawned_at: float


LiveState = Starting | Running | Hung | Stopping | Killing
ProcessState = LiveState | Abandoned
ClosedState = Finished | Failed | Retired | Abandoned
SlotState = Backoff | Waiting | LiveState | ClosedState


@record
class FailureRecord:
    """One abnormal end of a worker, as the `on_failure` functions get it.

    Attributes:
        pin: The process index number.
        pid: Of the process that ended.
        handler: The name of the handler's function.
        cause: `exit=41`, `signal=SIGKILL`, `oom-kill`, `hang`, or `status=unknown`.
        lifetime: Seconds from the fork to the end.
        attempt: Which process of this PIN it was, from 1.
    """

    pin: int
    pid: int
    handler: str
    cause: str
    lifetime: float
    attempt: int


@record
class Previous:
    """How the process before this one, on the same PIN, ended: `App.previous`.

    Attributes:
        cause: As of a `FailureRecord`.
        attempt: Which process of this PIN it was, from 1.
        unit: What it had told `App.unit` last; empty where nothing.
    """

    cause: str
    attempt: int
    unit: str


def shown(value: object) -> str:
    """Return a value with its type, short enough for the one line of an error."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  (an int of thousands of digits refuses, and so may a user's own class)
        text = "a value that cannot be shown"
    return f"{text:.80} ({type(value).__name__})"
