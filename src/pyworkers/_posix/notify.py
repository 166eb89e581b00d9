"""The ends at which somebody waits for a start: the service manager's socket, s6's notification descriptor.

Nothing here blocks, and nothing here decides what is said.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
from collections.abc import Mapping

from pyworkers._core.records import record

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What a service manager tells a master; meant for nobody else, so no child keeps it."""

_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR)


@record
class Manager:
    """What the environment says of a service manager.

    Attributes:
        address: Of its socket: a path, or `@` and an abstract name.
        watchdog_s: It takes us for hung after so many seconds without a word; None where it does not look.
    """

    address: str
    watchdog_s: float | None


def manager_of(environ: Mapping[str, str]) -> Manager | None:
    """Return who has started this process and waits for news, or None."""
    address = environ.get("NOTIFY_SOCKET")
    return Manager(address, _watchdog_s(environ)) if address else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    # sd_watchdog_enabled(3): the variables are inherited, so without its own pid in them a process was not meant.
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    if not (text.isascii() and text.isdecimal() and len(text) < 20) or pid != str(os.getpid()):
        return None
    return int(text) / 1e6 or None


class NotifySocket:
    """Our end of the service manager's socket.

    Raises:
        OSError: The address is of a kind that this system does not have.
    """

    def __init__(self, address: str) -> None:
        # The C type: `socket` loads more than the use that we have for it.
        import _socket

        if address[0] not in "/@":
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        # unix(7): an abstract name begins with a null byte.
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, which no child has a use for."""
        return self._socket.fileno()

    def send(self, message: str) -> bool:
        """Send it, or return False where there is no room just now.

        Raises:
            OSError: Nobody is there.
        """
        try:
            # To the name and not to a connection: a manager that was restarted is another peer.
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            raise
        return True

    def close(self) -> None:
        """Close our end."""
        self._socket.close()


class NotifyDescriptor:
    """The descriptor that gets a newline when the start is over, as s6 and dinit have it.

    Raises:
        OSError: It is not open.
    """

    def __init__(self, descriptor: int) -> None:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFD)
        # What a hook executes would hold it open, and whoever waits for its end would wait for that.
        fcntl.fcntl(descriptor, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor, which no child has a use for."""
        return self._descriptor

    def tell(self) -> None:
        """Write the newline, unless nobody takes it, and let go of the reader, as it expects."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        with contextlib.suppress(OSError):
            # Not made non-blocking: its description is shared with whoever has started us (open(2)).
            if poller.poll(0):
                os.write(self._descriptor, b"\n")
            # Not closed: children that come later still close this number, and it must be nobody else's then.
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(null, self._descriptor, inheritable=False)
            os.close(null)

    def close(self) -> None:
        """Close it; to its reader that is the end of a start that has failed."""
        os.close(self._descriptor)
