"""The values that every room speaks of: PINs, attempts, exit statuses and the state of one slot.

Values only; nothing is decided here. A slot has exactly one state value, and a field exists only in the states where
it means something, so that "has a process but is finished" cannot be written.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

Pin = NewType("Pin", int)
"""The process index number: the stable name of a seat that outlives the processes that take it."""

Pid = NewType("Pid", int)
"""A process of the kernel. `Pin` and `Pid` differ by a letter: a swap must be a type error."""

Attempt = NewType("Attempt", int)
"""The nth process of a PIN, from 1. An event that names an older attempt is stale."""


PIN_MAX = 2**31 - 1
"""The largest PIN: as large as the kernel's own process numbers could ever be, and short enough for a log line."""

PINS_MAX = 1_000_000
"""As many PINs as a person can mean: pid_max is at most 2**22 (proc(5)). It also bounds an endless iterable."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended by itself, with this exit code."""

    code: int


@dataclass(frozen=True, slots=True)
class Signaled:
    """The process was ended by this signal. Never a negative exit code: wait(2) keeps the two apart, and so do we."""

    signum: int


@dataclass(frozen=True, slots=True)
class Vanished:
    """The process is gone, but somebody else collected its status (waitpid(2), ECHILD)."""


ExitStatus = Exited | Signaled | Vanished


class Action(enum.Enum):
    """What a rung of the stop ladder does to a worker."""

    TERMINATE = "TERM"
    INTERRUPT = "QUIT"
    KILL = "KILL"


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the stop ladder: at the instant `at`, do `action`."""

    at: float
    action: Action


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """What the core has to know of one PIN: its policy, not its function. Durations in seconds."""

    pin: Pin
    normal_exit_codes: frozenset[int] = frozenset({0})
    backoff: tuple[float, float] = (0.1, 30.0)
    stop_timeout: float = 8.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """No process; one is due at `respawn_at`, which may be now."""

    respawn_at: float


@dataclass(frozen=True, slots=True)
class Starting:
    """Forked, and not yet up. Until the shell has `confirmed` the fork, it may still turn out to have failed."""

    attempt: Attempt
    spawned_at: float
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """Up: `on_worker_start` is done."""

    attempt: Attempt
    spawned_at: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """Asked to leave, last by `acted`. `rungs` is what is left of the ladder, next first; it always ends in a KILL."""

    attempt: Attempt
    spawned_at: float
    acted: Action
    rungs: tuple[Rung, ...]


@dataclass(frozen=True, slots=True)
class Killing:
    """KILL was sent. At `abandon_at` the master stops waiting for a process that even KILL does not end."""

    attempt: Attempt
    spawned_at: float
    abandon_at: float


@dataclass(frozen=True, slots=True)
class Finished:
    """No process, and none will follow: a normal end, or the instance is stopping."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """KILL did not end the process (proc(5), state D); it holds PIN and lock until the kernel lets it go."""

    attempt: Attempt
    spawned_at: float


LiveState = Starting | Running | Stopping | Killing
SlotState = Backoff | Starting | Running | Stopping | Killing | Finished | Abandoned


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One abnormal end of a worker, as the `on_failure` functions get it.

    Attributes:
        pin: The process index number.
        pid: Of the process that ended.
        handler: The name of the handler's function.
        cause: `exit=41`, `signal=SIGKILL`, or `status=unknown`.
        lifetime: Seconds from the fork to the end.
        attempt: Which process of this PIN it was, from 1.
    """

    pin: int
    pid: int
    handler: str
    cause: str
    lifetime: float
    attempt: int


def shown(value: object) -> str:
    """Return a value with its type, short enough for the one line of an error."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  (an int of thousands of digits refuses, and so may a user's own class)
        text = "a value that cannot be shown"
    return f"{text:.80} ({type(value).__name__})"
