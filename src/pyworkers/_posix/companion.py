"""Another program beside the master, at the other end of a socket: posix_spawn(3), so nothing of ours goes along."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

from pyworkers._core.types import Pid
from pyworkers._posix.signals import MANAGED, STOPPING


class Companion:
    """The program, and the master's end of the socket.

    Args:
        module: What `python -m` runs, with its end of the socket as stdin.
        stdout: What its stdout is to be.

    Attributes:
        hung_up: Whether it has closed its end.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, module: str, stdout: int) -> None:
        # -I, and then our own path: what this process has found, and not what a variable or a directory says there.
        run = f"import runpy; runpy.run_module({module!r}, run_name='__main__')"
        code = f"import sys; sys.path[:] = {sys.path!r}; {run}"
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.pid = Pid(
                    os.posix_spawn(
                        sys.executable,
                        [sys.executable, "-I", "-c", code],
                        os.environ,
                        file_actions=[
                            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                            (os.POSIX_SPAWN_DUP2, stdout, 1),
                        ],
                        # Until it has said how it takes them.
                        setsigmask=STOPPING,
                        setsigdef=[*MANAGED, signal.SIGPIPE],
                    )
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours
        self._unsent = b""
        self.hung_up = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when it has said something, or has ended."""
        return self._socket.fileno()

    def send(self, data: bytes) -> bool:
        """Say this, as far as it goes without waiting, and return whether there is more to be sent by `flush`."""
        self._unsent += data
        return self.flush()

    def flush(self) -> bool:
        """Go on sending, and return whether there is still more."""
        with contextlib.suppress(BlockingIOError):
            try:
                while self._unsent:
                    sent = self._socket.send(self._unsent)
                    self._unsent = self._unsent[sent:]
            except (BrokenPipeError, ConnectionResetError):
                # It has ended, as its reaping will tell.
                self._unsent = b""
        return bool(self._unsent)

    def read(self) -> bytes:
        """Return what it has said since the last call."""
        chunks: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while chunk := self._receive():
                chunks.append(chunk)
            self.hung_up = True
        return b"".join(chunks)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1 << 20)
        except ConnectionResetError:
            # It has ended, and left unread what we had said.
            return b""

    def close(self) -> None:
        """Hang up, which tells it to end."""
        self._socket.close()
