"""What makes a runtime that of one worker, and what signals mean to it."""

from __future__ import annotations

import enum
import marshal
import signal
from collections.abc import Callable, Mapping, Sequence

from pyworkers._core.records import record
from pyworkers._core.types import Attempt, Pid, Pin, Previous
from pyworkers._posix import signals
from pyworkers._posix.cells import Cells
from pyworkers._posix.channel import Channel
from pyworkers.errors import LockError, PyworkersError, UsageError

IGNORED = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH"))
"""Ignored in a worker without an `on_signal` function; INT always is, so that Ctrl-C leaves the stop to the master."""

RESERVED = frozenset(
    {
        signal.SIGTERM,
        signal.SIGQUIT,
        signal.SIGINT,
        signal.SIGCHLD,
        signal.SIGKILL,
        signal.SIGSTOP,
        signals.PROBE,
        signals.DUMP,
        signals.LEASE,
    }
)
"""What `on_signal` cannot have: ours, or the kernel's."""

_FAULTS = {fault.__name__: fault for fault in (LockError, UsageError)}
"""Why an attempt has no generation."""


@record
class Assignment:
    """What one process has to itself: the PIN, and what goes with this attempt of it.

    Attributes:
        seat: Where the PIN's cell is.
        generation: The number of this attempt, larger than that of every earlier one, or why it has none.
        previous: How the process before it ended.
    """

    pin: Pin
    attempt: Attempt
    seat: int
    generation: int | PyworkersError
    previous: Previous | None

    def packed(self) -> bytes:
        """Return it for a process that was forked before it was known."""
        generation, last = self.generation, self.previous
        number = (type(generation).__name__, str(generation)) if isinstance(generation, Exception) else generation
        previous = None if last is None else (last.cause, last.attempt, last.unit)
        return marshal.dumps((self.pin, self.attempt, self.seat, number, previous))

    @classmethod
    def unpacked(cls, data: bytes) -> Assignment:
        """Return what was packed by the same program."""
        told: tuple[Pin, Attempt, int, int | tuple[str, str], tuple[str, int, str] | None]
        told = marshal.loads(data)  # noqa: S302  (from our own master, by a pipe)
        pin, attempt, seat, number, last = told
        generation = number if isinstance(number, int) else _FAULTS[number[0]](number[1])
        return cls(pin, attempt, seat, generation, None if last is None else Previous(*last))


@record
class Binding:
    """What all workers of one handler have in common.

    Attributes:
        handler: Which handler's shared byte is its own.
        master: The pid that getppid(2) has to return while the master lives.
        cooperative: The option.
        stop_timeout: The option; also how long the worker may go on after the master's death.
        functions: The `on_signal` functions.
        is_watched: Whether it has to prove that it reaches its checkpoints (`hang_timeout`).
        dump_descriptor: Where the watchdog writes.
    """

    handler: int
    master: Pid
    cooperative: bool | None
    stop_timeout: float
    is_watched: bool
    functions: Mapping[int, Sequence[Callable[[], object]]]
    cells: Cells
    channel: Channel
    dump_descriptor: int


class Phase(enum.Enum):
    """Where the main thread is; it decides what may be raised there."""

    STARTING = "starting"
    """In `on_worker_warm` or `on_worker_start`: only the interrupt."""
    RUNNING = "running"
    """In the handler: every stop."""
    STEP = "step"
    """In a step of the end that runs the user's code: only the interrupt."""
    QUIET = "quiet"
    """In code that nothing may cut."""
