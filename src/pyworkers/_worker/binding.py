"""What makes a runtime that of one worker, and what signals mean to it."""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pyworkers._core.types import Pid, Pin
from pyworkers._posix.cells import Cells
from pyworkers._posix.channel import Channel

IGNORED = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH"))
"""Ignored in a worker without an `on_signal` function; INT always is, so that Ctrl-C leaves the stop to the master."""

RESERVED = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP})
"""What `on_signal` cannot have: ours, or the kernel's."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One worker's place in its instance.

    Attributes:
        pin: The PIN it holds.
        seat: Where its cell is.
        handler: Which handler's shared byte is its own.
        master: The pid that getppid(2) has to return while the master lives.
        cooperative: The option.
        stop_timeout: The option; also how long the worker may go on after the master's death.
        functions: The `on_signal` functions.
        dump_descriptor: Where the watchdog writes.
    """

    pin: Pin
    seat: int
    handler: int
    master: Pid
    cooperative: bool | None
    stop_timeout: float
    functions: Mapping[int, Sequence[Callable[[], object]]]
    cells: Cells
    channel: Channel
    dump_descriptor: int


class Phase(enum.Enum):
    """Where the main thread is; it decides what may be raised there."""

    STARTING = "starting"
    """In `on_worker_start`: only the interrupt."""
    RUNNING = "running"
    """In the handler: every stop."""
    STEP = "step"
    """In a step of the end that runs the user's code: only the interrupt."""
    QUIET = "quiet"
    """In code that nothing may cut."""
