"""The keeper of the rows, between a helper that says what the test wants it to and a kernel that does nothing."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import pytest

from pyworkers._core import lease as c
from pyworkers._core import messages as m
from pyworkers._core.exchange import Reply, Request
from pyworkers._core.rows import RowGranted, RowLapsed, RowsAnswered, Vacate
from pyworkers._core.types import Attempt, Exited, Pid, Pin
from pyworkers._lease import wire
from pyworkers._master import lease
from pyworkers._master.lease import Keeper, Terms
from pyworkers._posix import boottime
from pyworkers._posix.deadlines import Deadlines
from pyworkers._posix.kernel import Wake

PIN = Pin(0)
DESCRIPTOR = 77


class Kernel:
    """Nobody is there."""

    def now(self) -> float:
        return boottime.now()

    def watch(self, _descriptor: int, _events: int) -> None: ...

    def unwatch(self, _descriptor: int) -> None: ...

    def adopt(self, _pid: Pid) -> None: ...

    def send(self, _pid: Pid, _signum: int) -> None: ...

    def await_end(self, _pid: Pid) -> None: ...


class Helper:
    """In the place of the companion."""

    pid, hung_up = Pid(4711), False

    def __init__(self, _module: str, _stdout: int) -> None:
        self.said, self.heard = b"", b""

    def fileno(self) -> int:
        return DESCRIPTOR

    def send(self, data: bytes) -> bool:
        self.heard += data
        return False

    def flush(self) -> bool:
        return False

    def read(self) -> bytes:
        said, self.said = self.said, b""
        return said

    def close(self) -> None: ...


class Desk:
    """A keeper of one PIN, and its helper, which is there."""

    def __init__(self) -> None:
        self.deadlines = Deadlines.create(1)
        hello = wire.Hello("postgresql://", "shop", "me", 3600.0, None, None, {PIN: "work"})
        terms = Terms(hello, {PIN: 0}, set(), lambda _level, _line: None)
        self.keeper = Keeper(c.Lease([PIN], "me", 3600.0), self.deadlines, Kernel(), terms)
        self.keeper.attend(None)
        assert isinstance(self.keeper._helper, Helper)
        self.helper = self.keeper._helper
        self.say(wire.Ready())

    def say(self, message: wire.Message) -> list[m.Event]:
        self.helper.said += wire.packed(message)
        return self.keeper.attend(Wake([], [], [], [], ready=[(DESCRIPTOR, select.POLLIN)]))

    def asked(self) -> Request:
        """Return the last request."""
        heard, _ = wire.split(self.helper.heard)
        request = heard[-1]
        assert isinstance(request, Request)
        return request

    def reply(self, **fields: Any) -> list[m.Event]:
        known: dict[str, Any] = {"renewed": frozenset(), "granted": {}, "done": frozenset(), "seen": {}}
        return self.say(Reply(self.asked().number, **{**known, **fields}))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(lease, "Companion", Helper)
    desk = Desk()
    yield desk
    desk.deadlines.close()


def test_end_past_the_deadline_is_preceded_by_that(desk: Desk) -> None:
    """Where the master was held up it has revoked nothing: what it has allowed tells."""
    ended = m.WorkerExited(PIN, Attempt(1), Exited(143))
    spare = m.WorkerExited(Pin(1 << 40), Attempt(1), Exited(143))
    up = m.WorkerUp(PIN, Attempt(1))
    assert desk.reply(granted={PIN: 1}) == [RowGranted(PIN), RowsAnswered()]
    assert desk.keeper.precede([up, ended, spare]) == [up, ended, spare]

    desk.deadlines.extend(0, boottime.now())
    assert desk.keeper.precede([up, ended, spare]) == [up, RowLapsed(PIN), ended, spare]


def test_claim_under_way_is_waited_for_and_what_it_grants_is_given_back(desk: Desk) -> None:
    """A master that waited was told to stop: the database may have made it the holder in that moment."""
    assert desk.asked().claim == (PIN,)
    desk.keeper.vacate(Vacate(PIN))
    desk.keeper.attend(None)
    desk.keeper.leave(3600.0)
    assert not desk.keeper.idle

    assert desk.reply(granted={PIN: 7}) == [RowsAnswered()]
    assert not desk.keeper.idle
    assert (desk.asked().claim, desk.asked().give) == ((), {PIN: (7, False)})
    desk.reply()
    assert desk.keeper.idle


@pytest.mark.parametrize("how", ["grants nothing", "has failed", "helper is gone", "no time is left"])
def test_claim_that_comes_to_nothing_holds_nobody_up(desk: Desk, how: str) -> None:
    """Nor does one whose outcome nobody will tell."""
    desk.keeper.vacate(Vacate(PIN))
    desk.keeper.attend(None)
    desk.keeper.leave(0.0 if how == "no time is left" else 3600.0)
    match how:
        case "grants nothing":
            assert not desk.keeper.idle
            desk.reply()
        case "has failed":
            assert not desk.keeper.idle
            desk.say(wire.Failed(desk.asked().number, "no"))
        case "helper is gone":
            assert not desk.keeper.idle
            desk.keeper.attend(Wake([], [], [], [(desk.helper.pid, Exited(1))]))

    assert desk.keeper.idle
