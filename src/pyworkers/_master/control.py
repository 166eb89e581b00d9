"""The control socket's connections: one JSON object a line, each way, on the master's one poll.

Whoever is at the other end may be slow, silent, mad or hostile, and supervision goes on: nothing here waits, every
buffer and every number has a bound, a turn of the loop spends `SLICE_S` here and all of them `SHARE` of the time
(beyond the answer that is being made). What a request asks for is somebody else's business (`verbs`).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Mapping, Sequence

from pyworkers._core.typed import Protocol
from pyworkers._core.types import NEVER
from pyworkers._logs import ERROR
from pyworkers._master.needs import Watcher
from pyworkers._master.protocol import BadRequestError, Reply, encode, parse, refusal
from pyworkers._posix.sockets import Listener, Peer

CONNECTIONS_MAX = 64
"""More than any person has terminals; the one that was idle for longest goes for a newcomer."""

REQUEST_MAX = 64 * 1024
PATIENCE_S = 5.0
"""For the rest of a request, and for the next byte of a reply to be read."""

BACKLOG_MAX = 16 * 1024 * 1024
"""Of replies that nobody has read yet, in all: a few of the largest; the slowest reader goes for the next reply."""

SLICE_S = 0.001
"""About as long as a respawn takes."""

SHARE = 0.2
CREDIT_MAX_S = 0.05
"""Of the master's time, after a burst as long as a few statuses of a thousand PINs: whoever asks without end finds
the socket deaf in between. A busy master would share the processors with the very workers that it starts."""

DEAF_S = 1.0
"""How long the socket is not looked at where a connection could not be taken, for want of descriptors or memory."""

_ERRORS = select.POLLHUP | select.POLLERR | select.POLLNVAL

Answer = Callable[[Reply], None]
"""Takes the reply to one request, at once or later, once."""


class Requests(Protocol):
    """What a request is for."""

    def answer(self, request: dict[str, object], peer: Peer, answer: Answer) -> None:
        """Do what the request asks for, and answer; never raises."""
        ...


class _Connection:
    """One of them.

    Attributes:
        inbox: What was read, and is no whole request yet, or waits behind one that is being answered.
        outbox: What is to be written.
        active_at: When it last moved a byte, or was answered.
        due_at: When it is dropped, unless it moves.
        busy: Whether an answer is still to come.
        done: Whether it ends when all is written.
    """

    __slots__ = ("active_at", "busy", "descriptor", "done", "due_at", "inbox", "outbox", "peer")

    def __init__(self, descriptor: int, peer: Peer, now: float) -> None:
        self.descriptor = descriptor
        self.peer = peer
        self.inbox = b""
        self.outbox = b""
        self.active_at = now
        self.due_at = NEVER
        self.busy = self.done = False

    def has_request(self) -> bool:
        """Whether there is a line to be answered next."""
        return not self.busy and not self.outbox and b"\n" in self.inbox


class Control:
    """Takes connections of the master's own user and root, and hands their requests on.

    Args:
        listener: The socket; it is closed by whoever made it.
        connections: The descriptors that a child has to close; kept up to date here.
        log: Takes a level and a line.
    """

    def __init__(
        self,
        listener: Listener,
        kernel: Watcher,
        requests: Requests,
        connections: set[int],
        log: Callable[[int, str], None],
    ) -> None:
        self._listener = listener
        self._kernel = kernel
        self._requests = requests
        self._descriptors = connections
        self._log = log
        self._connections: dict[int, _Connection] = {}
        self._user = os.geteuid()
        # What to wake for, and when to do so again, where it is not done: at newcomers, and at all.
        self._events: dict[int, int] = {}
        self._deaf_until: float | None = None
        self._rests_until: float | None = None
        self._credit_s, self._credited_at = CREDIT_MAX_S, kernel.now()
        self._watch(listener.fileno(), select.POLLIN)

    def close(self) -> None:
        """At the end of the loop."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._unwatch(self._listener.fileno())

    def next_deadline(self) -> float | None:
        """Return the instant at which `serve` is to be called, also where nothing is ready, or None."""
        if self._rests_until is not None:
            return self._rests_until
        at = NEVER if self._deaf_until is None else self._deaf_until
        for connection in self._connections.values():
            at = -NEVER if connection.has_request() else min(at, connection.due_at)
        return None if at == NEVER else at

    def serve(self, ready: Sequence[tuple[int, int]], now: float) -> None:
        """Move what can be moved, for about `SLICE_S`; who had the last turn has to wait for the others."""
        if self._rests_until is None:
            if not ready and not self._connections and self._deaf_until is None:
                return
        elif now < self._rests_until:
            return
        else:
            self._rests_until = None
            for descriptor, events in self._events.items():
                self._kernel.watch(descriptor, events)
        self._serve(dict(ready), now)
        self._pay(now)

    def _pay(self, since: float) -> None:
        """Take the time that was spent from what was granted, and rest where there is none left."""
        now = self._kernel.now()
        self._credit_s = min(CREDIT_MAX_S, self._credit_s + (now - self._credited_at) * SHARE) - (now - since)
        self._credited_at = now
        if self._credit_s < 0:
            self._rests_until = now - self._credit_s / SHARE
            for descriptor in self._events:
                self._kernel.unwatch(descriptor)

    def _watch(self, descriptor: int, events: int) -> None:
        self._events[descriptor] = events
        if self._rests_until is None:
            self._kernel.watch(descriptor, events)

    def _unwatch(self, descriptor: int) -> None:
        if self._events.pop(descriptor, None) is not None:
            self._kernel.unwatch(descriptor)

    def _serve(self, events: Mapping[int, int], now: float) -> None:
        if self._deaf_until is not None and now >= self._deaf_until:
            self._deaf_until = None
            self._watch(self._listener.fileno(), select.POLLIN)
        if self._listener.fileno() in events:
            self._accept(now)
        for connection in sorted(self._connections.values(), key=lambda each: each.active_at):
            event = events.get(connection.descriptor, 0)
            if event or connection.has_request():
                try:
                    self._move(connection, event, now)
                except Exception as error:  # noqa: BLE001  (what nobody thought of must not end the master)
                    self._log(ERROR, f"control connection dropped: {type(error).__name__}: {error}")
                    self._drop(connection)
                if self._kernel.now() - now > SLICE_S:
                    break
            elif now >= connection.due_at:
                self._drop(connection)

    def _accept(self, now: float) -> None:
        # One at a time: the poll says so if there are more.
        try:
            found = self._listener.accept()
        except OSError:
            self._deaf_until = now + DEAF_S
            self._unwatch(self._listener.fileno())
            return
        if found is None:
            return
        descriptor, peer = found
        if peer.uid not in (0, self._user):
            os.close(descriptor)
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            self._drop(_longest_idle(self._connections.values()))
        self._settle(self.connection(descriptor, peer, now))

    def connection(self, descriptor: int, peer: Peer, now: float) -> _Connection:
        """Take on a connection, which is watched once it is settled."""
        connection = self._connections[descriptor] = _Connection(descriptor, peer, now)
        self._descriptors.add(descriptor)
        return connection

    def _move(self, connection: _Connection, event: int, now: float) -> None:
        if event & select.POLLOUT:
            self._write(connection, now)
        elif event & select.POLLIN:
            self._read(connection, now)
        elif event & _ERRORS:
            self._drop(connection)
        if self._has(connection) and connection.has_request():
            self._take_request(connection, now)
        self._settle(connection)

    def _read(self, connection: _Connection, now: float) -> None:
        try:
            data = os.read(connection.descriptor, REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        connection.active_at = now
        if not data:
            # It may have shut down its writing end only, and wait for what it has asked for.
            connection.done = True
            if b"\n" not in connection.inbox:
                connection.inbox = b""
            return
        if b"\n" not in connection.inbox and not connection.inbox:
            connection.due_at = now + PATIENCE_S
        connection.inbox += data
        if len(connection.inbox.partition(b"\n")[0]) > REQUEST_MAX:
            connection.inbox, connection.done = b"", True
            self._reply(connection, refusal(f"a request is one line of at most {REQUEST_MAX} bytes"), now)

    def _take_request(self, connection: _Connection, now: float) -> None:
        line, _, connection.inbox = connection.inbox.partition(b"\n")
        connection.due_at = now + PATIENCE_S if connection.inbox else NEVER
        connection.busy = True
        answer = self._answer_to(connection)
        try:
            request = parse(line)
        except BadRequestError as error:
            # Whoever it is, he does not speak our language: what follows cannot be understood either.
            connection.inbox, connection.done = b"", True
            answer(refusal(str(error)))
            return
        self._requests.answer(request, connection.peer, answer)

    def _answer_to(self, connection: _Connection) -> Answer:
        def answer(reply: Reply) -> None:
            connection.busy = False
            if self._has(connection):
                self._reply(connection, reply, self._kernel.now())
                self._settle(connection)

        return answer

    def _reply(self, connection: _Connection, reply: Reply, now: float) -> None:
        connection.outbox += encode(reply)
        connection.active_at = now
        connection.due_at = now + PATIENCE_S
        self._write(connection, now)
        while sum(len(each.outbox) for each in self._connections.values()) > BACKLOG_MAX:
            readers = [each for each in self._connections.values() if each.outbox]
            if len(readers) == 1:
                break
            self._drop(min(readers, key=lambda each: each.active_at))

    def _write(self, connection: _Connection, now: float) -> None:
        if not connection.outbox:
            return
        try:
            written = os.write(connection.descriptor, connection.outbox)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        connection.outbox = connection.outbox[written:]
        connection.active_at = now
        connection.due_at = now + PATIENCE_S if connection.outbox or connection.inbox else NEVER

    def _settle(self, connection: _Connection) -> None:
        """Watch for what comes next, unless it was dropped."""
        if not self._has(connection):
            return
        if connection.outbox:
            self._watch(connection.descriptor, select.POLLOUT)
        elif connection.busy or connection.has_request():
            # Hanging up is always told.
            self._watch(connection.descriptor, 0)
        elif connection.done:
            self._drop(connection)
        else:
            self._watch(connection.descriptor, select.POLLIN)

    def _has(self, connection: _Connection) -> bool:
        # By identity: its descriptor may be another one's by now.
        return self._connections.get(connection.descriptor) is connection

    def _drop(self, connection: _Connection) -> None:
        if self._has(connection):
            del self._connections[connection.descriptor]
            self._unwatch(connection.descriptor)
            self._descriptors.discard(connection.descriptor)
            os.close(connection.descriptor)


def _longest_idle(connections: Iterable[_Connection]) -> _Connection:
    """Return the one that is missed least: nobody waits for an answer there, if there is such a one."""
    return min(connections, key=lambda each: (each.busy or bool(each.outbox), each.active_at))
