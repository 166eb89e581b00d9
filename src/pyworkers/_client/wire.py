"""One conversation with a master: a request, its reply, and again; every wait has a limit."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time

from pyworkers._client.find import Found, obituary
from pyworkers._core.typed import cast
from pyworkers._posix import sockets
from pyworkers.errors import NotRunningError, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Reply = dict[str, Any]

PATIENCE_S = 10.0
"""For an answer that the master gives at once: it has no long business, but the machine may."""

VERSION = 1


class Wire:
    """A connection to the master of an instance.

    Attributes:
        peer: The master, by the kernel's word.
    """

    def __init__(self, found: Found) -> None:
        """Connect.

        Raises:
            NotRunningError: Nobody listens there.
            RefusedError: Somebody else does, or we may not.
        """
        self._found = found
        self._rest = b""
        try:
            self._descriptor = sockets.connect(found.socket, PATIENCE_S)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunningError(obituary(found)) from None
        except OSError as error:
            raise RefusedError(f"cannot connect to {found.socket}: {os.strerror(error.errno or 0)}") from None
        self.peer = sockets.peer_of(self._descriptor)
        # A socket in a directory of many may be anybody's; root asks everybody.
        if self.peer.uid not in (0, os.geteuid()) and os.geteuid() != 0:
            self.close()
            raise RefusedError(f"{found.socket} belongs to user {self.peer.uid}, and not to this one")

    def close(self) -> None:
        """Hang up."""
        os.close(self._descriptor)

    def ask(self, verb: str, *, endless: bool = False, **arguments: object) -> Reply:
        """Return the reply.

        Args:
            verb: What to do.
            endless: Whether the answer comes only when it is done, however long that takes.
            arguments: Of the verb.

        Raises:
            RefusedError: The master says no, and why; or it does not answer.
            NotRunningError: It has ended meanwhile.
        """
        request = json.dumps({"v": VERSION, "verb": verb, **arguments}) + "\n"
        try:
            os.write(self._descriptor, request.encode())
            reply = self._reply(endless=endless)
        except BlockingIOError:
            raise RefusedError(f"master pid {self.peer.pid} has not answered in {PATIENCE_S:.0f} s") from None
        except (BrokenPipeError, ConnectionResetError):
            raise NotRunningError(f"{self._found.name}: master pid {self.peer.pid} has hung up") from None
        if reply.get("ok") is not True:
            raise RefusedError(str(reply.get("error")))
        return reply

    def await_end(self, timeout_s: float) -> bool:
        """Wait until the master's process is gone, and return whether it is."""
        deadline = time.monotonic() + timeout_s
        if not hasattr(os, "pidfd_open"):
            return self._hung_up(deadline)
        try:
            pidfd = os.pidfd_open(self.peer.pid)
        except ProcessLookupError:
            return True
        except OSError:
            return self._hung_up(deadline)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            return bool(poller.poll(max(0.0, timeout_s) * 1000))
        finally:
            os.close(pidfd)

    def _hung_up(self, deadline: float) -> bool:
        while (left_s := deadline - time.monotonic()) > 0:
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                poller = select.poll()
                poller.register(self._descriptor, select.POLLIN)
                if poller.poll(left_s * 1000) and not os.read(self._descriptor, 65536):
                    return True
        return False

    def _reply(self, *, endless: bool) -> Reply:
        while b"\n" not in self._rest:
            try:
                data = os.read(self._descriptor, 1 << 20)
            except BlockingIOError:
                if endless:
                    continue
                raise
            if not data:
                raise ConnectionResetError
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return cast("Reply", json.loads(line))
