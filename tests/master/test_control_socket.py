"""The connections of the control socket: every kind of client, with real sockets and a clock that tests move."""

from __future__ import annotations

import json
import os
import random
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyworkers._master import control as c
from pyworkers._master.control import Control
from pyworkers._master.protocol import encode, parse
from pyworkers._posix.sockets import Listener, Peer

PING = b'{"v":1,"verb":"ping"}\n'


class Desk:
    """Answers requests at once, or keeps them until told.

    Attributes:
        asked: The requests so far.
        reply: What `answer` says.
        later: Where answers wait; None answers at once.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.reply: dict[str, object] = {"ok": True}
        self.later: list[Callable[[dict[str, object]], None]] | None = None

    def answer(self, request: dict[str, object], _peer: Peer, answer: Callable[[dict[str, object]], None]) -> None:
        self.asked.append(request)
        if self.later is None:
            answer(self.reply)
        else:
            self.later.append(answer)


class Stage:
    """A control socket, its clock, and its clients."""

    def __init__(self, path: Path) -> None:
        self.time = 100.0
        self.poller = select.poll()
        self.watched: set[int] = set()
        self.listener = Listener(str(path))
        self.desk = Desk()
        self.descriptors: set[int] = set()
        self.lines: list[str] = []
        self.control = Control(
            self.listener, self, self.desk, self.descriptors, lambda _level, line: self.lines.append(line)
        )
        self.clients: list[socket.socket] = []
        self.path = path

    def now(self) -> float:
        return self.time

    def watch(self, descriptor: int, events: int) -> None:
        self.watched.add(descriptor)
        self.poller.register(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        if descriptor in self.watched:
            self.watched.remove(descriptor)
            self.poller.unregister(descriptor)

    def turn(self, count: int = 1) -> None:
        """Let the master's loop go round."""
        for _ in range(count):
            self.control.serve(self.poller.poll(0), self.time)

    def client(self, data: bytes = b"") -> socket.socket:
        """Connect, and say something."""
        made = socket.socket(socket.AF_UNIX)
        made.setblocking(False)
        made.connect(os.path.relpath(self.path))
        self.clients.append(made)
        self.turn(2)
        if data:
            made.sendall(data)
            self.turn(2)
        return made

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.control.close()
        self.listener.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "socket")
    yield made
    made.close()
    assert made.descriptors == set()
    assert made.watched == set()


def heard(client: socket.socket) -> bytes | None:
    """Return what has come; nothing at all where the other end has hung up; None where it has said nothing."""
    try:
        return client.recv(1 << 20)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


BAD = {
    "nothing": (b"\n", "Expecting value"),
    "no json": (b"status\n", "Expecting value"),
    "half": (b'{"v":1,\n', "Expecting property name"),
    "two": (b"{} {}\n", "Extra data"),
    "a list": (b"[1]\n", "got list"),
    "a number": (b"1\n", "got int"),
    "no utf-8": (b"\xff\xfe\n", "UTF-8"),
    "no version": (b'{"verb":"ping"}\n', '"v": 1'),
    "another version": (b'{"v":2,"verb":"ping"}\n', '"v": 1'),
    "deep": (b"[" * 60000 + b"\n", "one JSON object"),
    "a long number": (b'{"v":' + b"1" * 5000 + b"}\n", "more than 20 digits"),
    "no number": (b'{"v":NaN}\n', "NaN"),
    "endless": (b'{"v":Infinity}\n', "Infinity"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_request_is_told_so_and_hung_up_on(stage: Stage, name: str) -> None:
    """One line that says what was expected, and the end: what would follow cannot be understood either."""
    data, words = BAD[name]
    client = stage.client()
    client.setblocking(True)
    client.sendall(data)
    client.setblocking(False)
    stage.turn(3)

    reply = json.loads(heard(client) or b"")
    assert (reply["v"], reply["ok"]) == (1, False)
    assert words in reply["error"]
    assert heard(client) == b""
    assert stage.desk.asked == []


def test_request_is_answered_and_another_one_too(stage: Stage) -> None:
    """A connection serves for many requests, one after the other."""
    client = stage.client()
    for _ in range(3):
        client.sendall(PING)
        stage.turn()
        assert heard(client) == b'{"v":1,"ok":true}\n'
    assert stage.desk.asked == [{"verb": "ping"}] * 3


def test_request_in_pieces_is_one(stage: Stage) -> None:
    """Each byte may come alone, as long as the last is there in time."""
    client = stage.client()
    for byte in PING:
        assert heard(client) is None
        client.sendall(bytes([byte]))
        stage.turn()
    assert heard(client) == b'{"v":1,"ok":true}\n'
    assert stage.control.next_deadline() is None


def test_requests_that_come_together_are_answered_in_turn(stage: Stage) -> None:
    """What lies behind a request waits, and is not forgotten when nothing else comes: the loop is asked to go on."""
    client = stage.client(PING * 3)
    while stage.control.next_deadline() is not None:
        stage.turn()
    assert heard(client) == b'{"v":1,"ok":true}\n' * 3


def test_last_request_before_the_writing_end_is_shut(stage: Stage) -> None:
    """`printf ... | nc -U` gets its answer, and then the end."""
    client = stage.client(PING)
    client.shutdown(socket.SHUT_WR)
    stage.turn(3)
    assert heard(client) == b'{"v":1,"ok":true}\n'
    assert heard(client) == b""


def test_request_of_who_hangs_up_at_once_is_done(stage: Stage) -> None:
    """Nobody hears the answer, and that is no error."""
    client = stage.client()
    client.sendall(PING)
    client.close()
    stage.turn(3)
    assert stage.desk.asked == [{"verb": "ping"}]
    assert stage.descriptors == set()
    assert stage.lines == []


def test_request_has_to_be_complete_in_time(stage: Stage) -> None:
    """Half a request for five seconds, also if a byte comes now and then; silence without one has no limit."""
    silent, half = stage.client(), stage.client(b"{")
    assert stage.control.next_deadline() == stage.time + 5.0
    stage.time += 4.0
    half.sendall(b" ")
    stage.turn()
    assert heard(half) is None
    stage.time += 1.0
    stage.turn()
    assert heard(half) == b""
    stage.time += 1e6
    stage.turn()
    assert heard(silent) is None
    assert stage.control.next_deadline() is None


@pytest.mark.parametrize("data", [b"x" * 70000, b"x" * 70000 + b"\n", b" " * 66000 + PING])
def test_request_has_to_be_short(stage: Stage, data: bytes) -> None:
    """64 KiB and no byte more are kept of what is no request yet."""
    client = stage.client()
    client.setblocking(True)
    client.sendall(data)
    client.setblocking(False)
    stage.turn(4)
    assert b"at most 65536 bytes" in (heard(client) or b"")
    assert stage.desk.asked == []


def test_reply_that_is_not_read_goes_with_its_connection(stage: Stage) -> None:
    """Five seconds without a byte taken; each byte taken is five seconds more."""
    stage.desk.reply = {"ok": True, "long": "x" * 3_000_000}
    client = stage.client(PING)
    stage.time += 4.0
    assert heard(client)
    stage.turn()
    stage.time += 4.0
    stage.turn()
    assert len(stage.descriptors) == 1
    stage.time += 1.0
    stage.turn()
    assert stage.descriptors == set()


def test_slow_reader_gets_all_of_it(stage: Stage) -> None:
    """A reply larger than what the socket holds comes in pieces, as fast as they are taken."""
    stage.desk.reply = {"ok": True, "long": "x" * 3_000_000}
    client = stage.client(PING)
    data = b""
    while not data.endswith(b"\n"):
        data += heard(client) or b""
        stage.turn()
    assert data == encode(stage.desk.reply)


def test_replies_that_nobody_reads_are_bounded_in_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader that has moved nothing for longest goes first."""
    monkeypatch.setattr(c, "BACKLOG_MAX", 6_000_000)
    stage.desk.reply = {"ok": True, "long": "x" * 3_000_000}
    clients = []
    for _ in range(4):
        stage.time += 0.5
        clients.append(stage.client(PING))
    assert len(stage.descriptors) == 2
    assert sum(len(each.outbox) for each in stage.control._connections.values()) <= 6_000_000


def test_answer_may_come_later(stage: Stage) -> None:
    """Meanwhile the connection is not read, and another is served; an answer to who is gone means nothing."""
    stage.desk.later = []
    waiting, gone = stage.client(PING + PING), stage.client(PING)
    gone.close()
    stage.turn()
    first, second = stage.desk.later
    second({"ok": True})
    assert heard(waiting) is None
    first({"ok": True, "late": 1})
    assert heard(waiting) == b'{"v":1,"ok":true,"late":1}\n'
    stage.turn()
    assert len(stage.desk.later) == 3


def test_newcomer_takes_the_place_of_who_was_idle_for_longest(stage: Stage) -> None:
    """Two hundred that never say a word keep nobody out; who waits for an answer is not the first to go."""
    stage.desk.later = []
    waiting = stage.client(PING)
    for _ in range(200):
        stage.time += 0.01
        stage.client()
    assert len(stage.descriptors) == c.CONNECTIONS_MAX
    stage.desk.later[0]({"ok": True})
    assert heard(waiting) == b'{"v":1,"ok":true}\n'


def test_other_users_are_not_answered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither root nor the master's own: closed without a word."""
    monkeypatch.setattr(stage.control, "_user", 1234)
    monkeypatch.setattr(stage.listener, "accept", _accepting(stage.listener, uid=4321))
    client = stage.client(b"")
    assert heard(client) == b""
    assert stage.descriptors == set()


def _accepting(listener: Listener, uid: int) -> Callable[[], tuple[int, Peer] | None]:
    accept = listener.accept

    def changed() -> tuple[int, Peer] | None:
        found = accept()
        return None if found is None else (found[0], Peer(found[1].pid, uid))

    return changed


def test_want_of_descriptors_is_waited_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE: the socket stays readable, so it is not looked at for a second instead of again and again."""
    accept = stage.listener.accept

    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(stage.listener, "accept", fail)
    client = stage.client()
    assert stage.control.next_deadline() == stage.time + 1.0
    assert stage.poller.poll(0) == []
    monkeypatch.setattr(stage.listener, "accept", accept)
    stage.time += 1.0
    client.sendall(PING)
    stage.turn(3)
    assert heard(client) == b'{"v":1,"ok":true}\n'


def test_turn_is_over_after_its_slice(stage: Stage) -> None:
    """When answers take long, the others wait for the next turn, and who was served last comes last."""
    clients = [stage.client() for _ in range(3)]

    def slow(request: dict[str, object], _peer: Peer, answer: Callable[[dict[str, object]], None]) -> None:
        stage.time += 0.01
        answer({"ok": True})

    stage.desk.answer = slow  # type: ignore[method-assign]
    for client in clients:
        client.sendall(PING)
    for _ in range(3):
        stage.time += 1.0
        served: list[socket.socket] = []
        while not served:
            stage.turn()
            served = [client for client in clients if heard(client)]
        assert len(served) == 1
        clients.remove(served[0])


def test_whoever_asks_without_end_gets_a_share_of_the_time(stage: Stage) -> None:
    """A burst is served at once; then the socket is deaf for four times as long as it has cost, and hears again."""

    def slow(request: dict[str, object], _peer: Peer, answer: Callable[[dict[str, object]], None]) -> None:
        stage.time += 0.001
        answer({"ok": True})

    stage.desk.answer = slow  # type: ignore[method-assign]
    client = stage.client()
    began, served = stage.time, 0
    while stage.time < began + 1.0:
        client.sendall(PING)
        stage.turn()
        if heard(client):
            served += 1
            continue
        deadline = stage.control.next_deadline()
        assert deadline is not None
        assert stage.poller.poll(0) == []
        stage.time = deadline
        stage.turn()
        served += heard(client) is not None
    assert 200 <= served <= 260


def test_rest_ends_also_where_nobody_is_left(stage: Stage) -> None:
    """Who has used up the time is gone when it is over; the next one is heard."""

    def slow(request: dict[str, object], _peer: Peer, answer: Callable[[dict[str, object]], None]) -> None:
        stage.time += 1.0
        answer({"ok": True})

    client = stage.client()
    answer, stage.desk.answer = stage.desk.answer, slow  # type: ignore[method-assign]
    client.sendall(PING)
    client.close()
    stage.turn()
    stage.desk.answer = answer  # type: ignore[method-assign]
    assert stage.descriptors == set()

    deadline = stage.control.next_deadline()
    assert deadline is not None
    stage.time = deadline
    stage.turn()
    assert stage.control.next_deadline() is None
    assert heard(stage.client(PING)) == b'{"v":1,"ok":true}\n'


def test_defect_costs_one_connection(stage: Stage) -> None:
    """What nobody thought of is a line of the log, and no end of the master."""

    def fail(*_: object) -> None:
        raise MemoryError("of all things")

    stage.desk.answer = fail  # type: ignore[method-assign]
    client = stage.client(PING)
    assert heard(client) == b""
    assert stage.lines == ["control connection dropped: MemoryError: of all things"]


def test_garbage_of_every_kind(stage: Stage) -> None:
    """Ten thousand random and mangled messages: each gets one line or the end, and nothing is left."""
    dice = random.Random(5)
    for _ in range(10_000):
        data = bytearray(PING)
        for _ in range(dice.randint(0, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        client = stage.client(bytes(data) if dice.random() < 0.7 else dice.randbytes(dice.randint(1, 200)))
        said = heard(client)
        assert said is None or said == b"" or json.loads(said.split(b"\n")[0])["v"] == 1
        client.close()
        stage.clients.clear()
        stage.turn()
    assert stage.lines == []
    assert stage.descriptors == set()


def test_parse_returns_the_request_without_its_version() -> None:
    """All else is for the verb."""
    assert parse(b'{"v":1,"verb":"stack","pin":3}') == {"verb": "stack", "pin": 3}
