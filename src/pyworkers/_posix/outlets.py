"""Writing to a descriptor that was inherited, without ever blocking, and without changing it for those who share it.

O_NONBLOCK belongs to the open file description (open(2)): set on the one that we inherited, it would change the shell's
and every worker's stderr. So an outlet has a description of its own, where there is one to be had.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR)


class Outlet:
    """Another way to the file behind a descriptor.

    Args:
        descriptor: Stays as it is.
    """

    def __init__(self, descriptor: int) -> None:
        self._target, is_socket, self._blocks = _reopened(descriptor)
        self._socket: socket.socket | None = None
        self._dontwait = 0
        if is_socket:
            self._socket, self._dontwait = _borrowed(self._target)

    def fileno(self) -> int:
        """Return the outlet's own descriptor."""
        return self._target

    def write(self, data: bytes) -> bytes:
        """Write, and return what is left of `data`.

        Raises:
            OSError: One of `NO_ROOM` where there is no room; or nobody reads any more, or the disk is full.
        """
        if self._socket is not None:
            return data[self._socket.send(data, self._dontwait) :]
        if self._blocks and not _has_room(self._target):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        # A blocking pipe that has room at all takes PIPE_BUF bytes without blocking.
        return data[os.write(self._target, data[: select.PIPE_BUF] if self._blocks else data) :]

    def close(self) -> None:
        """Close the outlet's own descriptor."""
        if self._socket is not None:
            self._socket.detach()
        os.close(self._target)


def _reopened(descriptor: int) -> tuple[int, bool, bool]:
    """Return a descriptor for the same file with a description of its own, whether it is a socket, whether it blocks.

    A regular file never blocks and shares its offset with the workers on purpose: with an offset of our own, we would
    overwrite each other's lines.
    """
    mode = os.fstat(descriptor).st_mode
    duplicate = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    if stat.S_ISREG(mode):
        return duplicate, False, False
    if stat.S_ISSOCK(mode):
        return duplicate, True, False
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        own = os.open(f"/dev/fd/{descriptor}", flags)
    except OSError:
        # A terminal or pipe of another user (after su): no description of our own, so ask for room before writing.
        return duplicate, False, True
    os.close(duplicate)
    return own, False, False


def _has_room(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    return bool(poller.poll(0))


def _borrowed(descriptor: int) -> tuple[socket.socket, int]:
    """Return a socket object for the descriptor, made once, since there may be no descriptor to be had later.

    And the flag with which its `send` does not block.
    """
    import socket

    # With SOCK_NONBLOCK Python sets nothing. A default timeout would make the socket non-blocking for all who share it
    # (macOS lacks the flag).
    kind = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
    return socket.socket(type=kind, fileno=descriptor), socket.MSG_DONTWAIT
