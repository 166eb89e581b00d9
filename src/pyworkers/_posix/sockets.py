"""Unix stream sockets for control: listen, accept, connect, and who is at the other end: unix(7).

The C module beneath `socket`, which is not loaded for this. A connection is its descriptor and nothing more, so that a
child closes it like any other one. Nothing here blocks, but for what a client does with a time limit of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import struct
from collections.abc import Generator

from pyworkers._core.records import record
from pyworkers._core.types import Pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# No stubs know this module; typed by its use below.
_socket: Any = importlib.import_module("_socket")

_CREDENTIALS = struct.Struct("=iII")
_PATH_MAX = 107
"""What fits `sun_path` beside its final zero."""

_BACKLOG = 64


@record
class Peer:
    """Who is at the other end of a connection, as the kernel noted it when that was made."""

    pid: Pid
    uid: int


class Listener:
    """A socket that is bound to a path, for its owner alone.

    Args:
        path: Where it is to be.
        kept: The descriptor of the program before this one, which listens there already.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: str, kept: int | None = None) -> None:
        """Bind the path, in place of a socket that nobody listens at any more.

        The caller knows that nobody does: by the lock beside it, or because the path has its own pid in it.

        Raises:
            OSError: It cannot be bound.
        """
        self.path = path
        if kept is not None:
            self._socket = _socket.socket(fileno=kept)
            return
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        # The mode that bind(2) gives to the file; a chmod after it would be too late for a moment.
        mask = os.umask(0o177)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            with _reachable(path) as name:
                self._socket.bind(name)
            self._socket.listen(_BACKLOG)
        except BaseException:
            self._socket.close()
            raise
        finally:
            os.umask(mask)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when somebody connects."""
        return int(self._socket.fileno())

    def accept(self) -> tuple[int, Peer] | None:
        """Return the next connection and who it is from, or None where nobody waits.

        Raises:
            OSError: There is no descriptor or no memory left; whoever waits goes on waiting.
        """
        try:
            descriptor, _ = self._socket._accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        os.set_blocking(descriptor, False)
        return descriptor, peer_of(descriptor)

    def close(self) -> None:
        """At the end: take the path away, and the socket."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self._socket.close()


def connect(path: str, timeout_s: float) -> int:
    """As a client: return a connection, with which reading and writing may take `timeout_s` each.

    Raises:
        OSError: Nobody listens there, or not to us; EAGAIN where too many are waiting already.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        # As struct timeval, so that plain read(2) and write(2) keep to it, too: socket(7).
        limit = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
            connection.setsockopt(_socket.SOL_SOCKET, option, limit)
        with _reachable(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return int(connection.detach())


def peer_of(descriptor: int) -> Peer:
    """Return who is at the other end of a connection: SO_PEERCRED."""
    connection = _socket.socket(fileno=descriptor)
    try:
        data = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    finally:
        connection.detach()
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return Peer(Pid(pid), uid)


@contextlib.contextmanager
def _reachable(path: str) -> Generator[str]:
    """Return a name of this path that fits into a socket's address, which is short."""
    if len(os.fsencode(path)) <= _PATH_MAX:
        yield path
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
