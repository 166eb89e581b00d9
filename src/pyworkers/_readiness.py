"""Who waits for the start of an instance, and how each of them is told: a daemon's shell, a service manager, s6.

Composition: what a service manager hears, and when, is the business of `_master.notify`, which is loaded only for one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from pyworkers._core.standing import Standing
from pyworkers._logs import WARNING
from pyworkers._posix import process, signals
from pyworkers._settings import RunSettings
from pyworkers.errors import ExitCode, LockError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._master.notify import Notifier
    from pyworkers._posix.notify import Manager, NotifyDescriptor, NotifySocket


class Readiness:
    """The ways out of one run's good news. To be made first of all, before a descriptor of ours takes a number.

    Args:
        run: What the command line says.
        complain: Tells an error to the shell that waits for a daemon.
        is_first: Whether this is the master's first program: who waits on a descriptor was told before a reload.

    Raises:
        UsageError: `notify_fd` is not open.
    """

    def __init__(self, run: RunSettings, complain: Callable[[str], None], *, is_first: bool = True) -> None:
        self._complain = complain
        self._pipe: tuple[int, int] | None = None
        self._manager: Manager | None = None
        self._socket: NotifySocket | None = None
        self._descriptor: NotifyDescriptor | None = None
        self._announced = False
        if run.notify_fd is not None or os.environ.get("NOTIFY_SOCKET"):
            from pyworkers._posix.notify import NotifyDescriptor, manager_of

            # Asked now, for a daemon is not the process that the variables name.
            self._manager = manager_of(os.environ)
            if run.notify_fd is not None and is_first:
                try:
                    self._descriptor = NotifyDescriptor(run.notify_fd)
                except OSError as error:
                    why = os.strerror(error.errno or 0)
                    raise UsageError(f"--notify-fd {run.notify_fd} is no open descriptor: {why}") from None

    def detach(self) -> None:
        """Become a daemon; the process that the shell waits for stays behind, and tells it how the start went.

        Raises:
            LockError: There is no process to be had.
        """
        reader, writer = os.pipe()

        def ready() -> int:
            signals.install(dict.fromkeys(signals.STOPPING, signals.DEFAULT))
            os.close(writer)
            told, _, daemon = os.read(reader, 64).partition(b" ")
            if told == b"up":
                # As the manager sees it, we are the service still, and may say who is from now on: NotifyAccess=main.
                self._tell_manager(f"READY=1\nMAINPID={int(daemon)}")
                return ExitCode.OK
            self._complain("a worker ended before it was up" if told else "the daemon ended before its workers were up")
            return ExitCode.FAILED

        try:
            process.detach(ready)
        except OSError as error:
            raise LockError(f"cannot become a daemon: {os.strerror(error.errno or 0)}") from error
        os.close(reader)
        self._pipe = (reader, writer)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits who can be told by this program alone."""
        return not self._announced and (self._pipe is not None or self._descriptor is not None)

    def announce(self, up: bool) -> None:
        """Tell the shell of a daemon, once, whether every worker came up."""
        self._announced = True
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe[1], b"up %d" % os.getpid() if up else b"down ")

    def open(self, log: Callable[[int, str], None]) -> None:
        """Open what the notifier needs, before the first fork."""
        if self._manager is not None:
            from pyworkers._posix.notify import NotifySocket

            try:
                self._socket = NotifySocket(self._manager.address)
            except OSError as error:
                why = os.strerror(error.errno or 0)
                log(WARNING, f"cannot notify the service manager at {self._manager.address}: {why}")

    def notifier(self, standing: Callable[[], Standing], log: Callable[[int, str], None]) -> Notifier | None:
        """Return what tells the service manager, or None where nobody waits for it."""
        if self._socket is None and self._descriptor is None:
            return None
        from pyworkers._master.notify import Notifier

        return Notifier(
            standing,
            log,
            manager=self._socket,
            descriptor=self._descriptor,
            watchdog_s=None if self._manager is None else self._manager.watchdog_s,
            is_daemon=self._pipe is not None,
        )

    def descriptors(self) -> tuple[int, ...]:
        """Return what no child has a use for."""
        ends = (self._socket, self._descriptor)
        pipe = () if self._pipe is None else self._pipe[1:]
        return (*pipe, *(end.fileno() for end in ends if end is not None))

    def close(self) -> None:
        """After the run: who still waits has waited in vain."""
        for end in (self._socket, self._descriptor):
            if end is not None:
                end.close()

    def _tell_manager(self, message: str) -> None:
        if self._manager is not None:
            from pyworkers._posix.notify import NotifySocket

            with contextlib.suppress(OSError):
                NotifySocket(self._manager.address).send(message)
