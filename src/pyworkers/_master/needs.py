"""What the master needs of the operating system: `_posix.kernel` is the real one, and tests have one of their own."""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core.typed import Protocol
from pyworkers._core.types import Pid
from pyworkers._posix.kernel import Wake


class Kernel(Protocol):
    """For the workers, and to wait."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def fork(self, child_main: Callable[[], int], *, leader: bool) -> Pid:
        """Start a process that runs `child_main` and leaves with its result; raises OSError where it cannot.

        It will be the `leader` of a process group, none of which is to survive it.
        """
        ...

    def send(self, pid: Pid, signum: int) -> None:
        """Send a signal to a process that was forked and has not been reported as ended."""
        ...

    def await_end(self, pid: Pid) -> None:
        """Wait until a process is gone that was sent a KILL, and reap it; not for long, whatever holds it up."""
        ...

    def private_bytes(self, pid: Pid, limit: int) -> int | None:
        """Return a process's private memory, or any number up to `limit` that is not below it; None where unknown."""
        ...

    def oom_kills(self) -> int:
        """Return how many processes in our surroundings were killed for want of memory since the last call."""
        ...

    def wait(self, timeout_s: float | None, log_fd: int | None) -> Wake:
        """Wait for a signal, a record, room in the log, or the time; None waits without end."""
        ...


class Watcher(Protocol):
    """For the control socket: to wait for more."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def watch(self, descriptor: int, events: int) -> None:
        """Wake for these events of a descriptor."""
        ...

    def unwatch(self, descriptor: int) -> None:
        """Wake for it no more."""
        ...
