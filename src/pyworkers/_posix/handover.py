"""How a worker hands the other ends of its stdout and stderr to the process that prints them.

The worker makes the pipes itself, after the fork, and sends their reading ends (unix(7), SCM_RIGHTS): the master has no
descriptor more for each PIN, and is never the one who waits.
"""

from __future__ import annotations

import array
import contextlib
import marshal
import os
import select

from pyworkers._core.records import record
from pyworkers._core.types import Pid
from pyworkers._posix.outlets import NO_ROOM

PATIENCE_S = 1.0
"""How long a worker waits for the printer at most, before it writes past it."""

_END = b"end"
_SIZE_MAX = 4096
_NAME_MAX = 200


@record
class Handed:
    """What a worker says: who it is, and, the first time, where its output comes from.

    Attributes:
        name: What stands before its lines.
        colour: Its number; None for none.
        sources: The reading ends of stdout and stderr, or one for both; none where only the name has changed.
    """

    pid: Pid
    name: str
    colour: int | None
    sources: tuple[int, ...]


class Handover:
    """Both ends of the socket. It may be made only where somebody wants its output printed.

    Attributes:
        is_one: Whether stdout and stderr are one file, so that what is written to them keeps its order.
    """

    def __init__(self) -> None:
        # The C type: `socket` loads more than the use that we have for it.
        import _socket

        self._giver, self._taker = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        for end in (self._giver, self._taker):
            end.setblocking(False)
        self.is_one = os.path.samestat(os.fstat(1), os.fstat(2))
        self._was_given = False

    # In a worker

    def say_who(self, name: str, colour: int | None = None, *, last: bool = True) -> bool:
        """Write to the printer from here on, under this name; return whether it is so.

        Where it is not the `last` name, as with a spare, another call follows.
        """
        pipes = [] if self._was_given else [os.pipe() for _ in range(1 if self.is_one else 2)]
        try:
            self._send(marshal.dumps((os.getpid(), name[:_NAME_MAX], colour)), [reader for reader, _ in pipes])
            for stream in (1, 2) if pipes else ():
                os.dup2(pipes[min(stream, len(pipes)) - 1][1], stream)
            self._was_given = True
        except OSError:
            return False
        finally:
            for descriptor in (end for pipe in pipes for end in pipe):
                os.close(descriptor)
            if last:
                # What it forks must not keep it open: its end tells the printer that nobody is left.
                self._giver.close()
        return True

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        import _socket

        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        # No SIGPIPE: many a program has the default for it.
        flags = getattr(_socket, "MSG_NOSIGNAL", 0)
        try:
            self._giver.sendmsg([message], rights, flags)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            poller = select.poll()
            poller.register(self._giver.fileno(), select.POLLOUT)
            poller.poll(PATIENCE_S * 1000)
            self._giver.sendmsg([message], rights, flags)

    # In the master

    def keep_giving(self) -> None:
        """After the fork of the printer: leave the other end to it."""
        self._taker.close()

    def end(self, patience_s: float) -> bool:
        """Say that all workers are gone, and return whether the printer has gone, too, in that time."""
        with contextlib.suppress(OSError):
            self._giver.send(_END)
        poller = select.poll()
        poller.register(self._giver.fileno(), 0)
        # POLLHUP comes unasked: poll(2).
        gone = bool(poller.poll(patience_s * 1000))
        self._giver.close()
        return gone

    # In the printer

    def keep_taking(self) -> int:
        """Leave the other end to the master and the workers, and return what becomes readable."""
        self._giver.close()
        return self._taker.fileno()

    def take(self) -> Handed | bool | None:
        """Return what a worker says; True at the end, False where nobody is left to say it, None where nothing is."""
        import _socket

        try:
            message, ancillary, _, _ = self._taker.recvmsg(_SIZE_MAX, _socket.CMSG_SPACE(2 * 4))
        except BlockingIOError:
            return None
        if message in (b"", _END):
            return message == _END
        sources = array.array("i")
        for _, _, data in ancillary:
            sources.frombytes(data)
        pid, name, colour = marshal.loads(message)  # noqa: S302  (from our own workers, by a socket that only they have)
        return Handed(Pid(pid), name, colour, tuple(sources))
