"""Where log lines go, on both sides of fork: stderr or syslog, never blocking the master.

What does not fit is kept up to a bound, beyond it counted, and the count is written as soon as there is room. A worker
waits a moment for room before it drops, so that a log that comes in bursts loses nothing; the master never waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable

from pyworkers._logs import CRITICAL, DEBUG, ERROR, INFO, LEVELS, WARNING
from pyworkers._posix.outlets import NO_ROOM, Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

BACKLOG_MAX = 65536
"""Bytes kept for a reader that does not keep up: as much again as a pipe holds, pipe(7)."""

WORKER_PATIENCE_S = 1.0
"""How long a worker waits for a stalled reader, once, before it drops lines until there is room again."""

LAST_PATIENCE_S = 0.5
"""How long the end waits for a stalled reader: a stop stays bounded."""

_FACILITY_DAEMON = 3
_SEVERITY = {CRITICAL: 2, ERROR: 3, WARNING: 4, INFO: 6, DEBUG: 7}


Dress = Callable[[int, str], str]
"""Makes a sink's own words, with their level, look like the lines that it is given."""


class _Backlog:
    """What both sinks share: lines that wait, and the number of those that were dropped."""

    def __init__(self, dress: Dress | None) -> None:
        self._dress = dress
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped_count = 0
        self._patience_s = 0.0
        self._stalled = False
        self._full = False
        self._pid = os.getpid()

    def emit(self, level: int, line: str) -> None:
        self._notice_fork()
        self._keep(self._encode(level, line))
        self.flush()
        if self._full and self._patience_s and not self._stalled:
            self._stalled = not self._wait(self._patience_s)

    def flush(self) -> None:
        self._notice_fork()
        self._full = False
        while self._lines or self._dropped_count:
            data = self._lines.popleft() if self._lines else None
            try:
                rest = self._write(data or self._notice())
            except OSError as error:
                # Nobody reads any more, or the disk is full. That is no reason to die, and no reason to wait either:
                # the next line tries again, and says how many came to nothing.
                self._full = error.errno in NO_ROOM
                self._recover(data)
                return
            if data is None:
                self._dropped_count = 0
            else:
                self._size -= len(data)
            if rest:
                self._lines.appendleft(rest)
                self._size += len(rest)
            self._stalled = False

    def waiting(self) -> int | None:
        return self._descriptor() if self._full else None

    def become_master(self) -> None:
        self._pid = os.getpid()

    def _notice_fork(self) -> None:
        """In a child, at its first line: forget what the master has kept, and be patient from now on.

        Here and not right after the fork, because most workers log nothing before their work has begun.
        """
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lines.clear()
            self._size = self._dropped_count = 0
            self._patience_s = WORKER_PATIENCE_S
            self._stalled = self._full = False

    def _keep(self, data: bytes) -> None:
        if self._size + len(data) > BACKLOG_MAX:
            self._dropped_count += 1
        else:
            self._lines.append(data)
            self._size += len(data)

    def _recover(self, data: bytes | None) -> None:
        if data is not None:
            self._lines.appendleft(data)
        if not self._full:
            self._dropped_count += len(self._lines)
            self._lines.clear()
            self._size = 0

    def _notice(self) -> bytes:
        words = f"log lines dropped count={self._dropped_count}; nobody took them in time"
        return self._encode(WARNING, words if self._dress is None else self._dress(WARNING, words))

    def _wait(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while self._full and (left_s := deadline - time.monotonic()) > 0:
            poller = select.poll()
            poller.register(self._descriptor(), select.POLLOUT)
            poller.poll(left_s * 1000)
            self.flush()
        return not self._full

    def _encode(self, level: int, line: str) -> bytes:
        raise NotImplementedError

    def _write(self, data: bytes) -> bytes:
        """Write, and return what is left of `data`. Raises OSError, one of `NO_ROOM` where there is no room."""
        raise NotImplementedError

    def _descriptor(self) -> int:
        raise NotImplementedError


class StderrSink(_Backlog):
    """Lines to the standard error that the instance was started with.

    Args:
        ident: Stands in each line before the pid.
        descriptor: Which one to write to.
        dress: Is given where lines come whole, so that nothing is to stand before them.
    """

    def __init__(self, ident: str, descriptor: int = 2, *, dress: Dress | None = None) -> None:
        super().__init__(dress)
        self._ident = ident
        self._outlet = Outlet(descriptor)

    def dump_descriptor(self) -> int:
        return self._outlet.fileno()

    def close(self) -> None:
        self._wait(LAST_PATIENCE_S)
        self._outlet.close()

    def _encode(self, level: int, line: str) -> bytes:
        if self._dress is not None:
            return f"{line}\n".encode(errors="backslashreplace")
        now = time.time()
        instant = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        # A level that is not one of ours can only have come by way of a logger.
        name = LEVELS.get(level) or sys.modules["logging"].getLevelName(level)
        text = f"{instant},{int(now % 1 * 1000):03d} {self._ident}[{os.getpid()}] {name} {line}\n"
        return text.encode(errors="backslashreplace")

    def _write(self, data: bytes) -> bytes:
        return self._outlet.write(data)

    def _descriptor(self) -> int:
        return self._outlet.fileno()


class SyslogSink(_Backlog):
    """Lines to a syslog daemon: RFC 3164 as syslog(3) writes it, facility daemon.

    Args:
        ident: The tag before the pid.
        address: A socket's path, or HOST:PORT for UDP.
        dress: Likewise; the head that syslog(3) wants stands before them all the same.

    Raises:
        OSError: There is no daemon at the address, or no such host.
        UnicodeError: The host's name cannot be one.
    """

    def __init__(self, ident: str, address: str, *, dress: Dress | None = None) -> None:
        super().__init__(dress)
        self._ident = ident
        self._address = address
        # Looked up once: a name server must not hold up the master when it connects again.
        self._peer = None if address.startswith("/") else _resolved(address)
        self._is_stream = False
        self._socket = self._connect()
        self._null = os.open(os.devnull, os.O_WRONLY)

    def dump_descriptor(self) -> int:
        # A dump is no syslog message, and stderr may be a pipe that nobody reads.
        return self._null

    def close(self) -> None:
        self._wait(LAST_PATIENCE_S)
        self._socket.close()
        os.close(self._null)

    def _connect(self) -> socket.socket:
        import socket

        if self._peer is not None:
            return _connected(self._peer[0], socket.SOCK_DGRAM, self._peer[1])
        try:
            connection = _connected(socket.AF_UNIX, socket.SOCK_DGRAM, self._address)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            # Some daemons listen on a stream socket; syslog(3) tries both, too.
            connection = _connected(socket.AF_UNIX, socket.SOCK_STREAM, self._address)
        self._is_stream = connection.type == socket.SOCK_STREAM
        return connection

    def _encode(self, level: int, line: str) -> bytes:
        # RFC 3164, 4.1.2: English month names whatever the locale, the day padded with a space.
        now = time.localtime()
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[now.tm_mon * 3 - 3 : now.tm_mon * 3]
        stamp = f"{month} {now.tm_mday:2d} {time.strftime('%H:%M:%S', now)}"
        severity = _SEVERITY.get(level, 6)
        text = f"<{_FACILITY_DAEMON << 3 | severity}>{stamp} {self._ident}[{os.getpid()}]: {line}"
        if self._is_stream:
            text += "\0"
        return text.encode(errors="backslashreplace")

    def _write(self, data: bytes) -> bytes:
        try:
            return data[self._socket.send(data) :]
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            if error.errno == errno.EMSGSIZE and len(data) > 512:
                return self._write(data[: len(data) // 2])
        # The daemon was restarted (ECONNREFUSED, ENOTCONN, EPIPE): its socket is another one now.
        fresh = self._connect()
        self._socket.close()
        self._socket = fresh
        return data[self._socket.send(data) :]

    def _descriptor(self) -> int:
        return self._socket.fileno()


def _resolved(address: str) -> tuple[int, object]:
    import socket

    host, _, port = address.rpartition(":")
    family, _, _, _, target = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    return family, target


def _connected(family: int, kind: int, target: object) -> socket.socket:
    import socket

    connection = socket.socket(family, kind)
    connection.setblocking(False)
    try:
        connection.connect(target)  # type: ignore[arg-type]  # a path or a pair, as the family has it
    except BaseException:
        connection.close()
        raise
    return connection


def complain(error: object) -> None:
    """Write one line to stderr, if there is one."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        try:
            # One line, also where a file's name or an exception's text holds several.
            sys.stderr.write(f"pyworkers: error: {' '.join(str(error).splitlines())}\n")
            sys.stderr.flush()
        except BrokenPipeError:
            # Python holds back what it could not write, tries again at its end, and then leaves with 120.
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), sys.stderr.fileno())
