"""The model of the database, on which the simulated cluster stands, says what a real PostgreSQL says to the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from cluster.database import Client, Database
from engines.postgres import Server, server
from pyworkers._core.exchange import Request
from pyworkers._core.types import Pin
from pyworkers._lease.postgres import Postgres
from pyworkers._lease.wire import Hello

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

PINS = tuple(Pin(pin) for pin in range(12))


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    """A server on this machine."""
    with server() as lent:
        yield lent


class Pair:
    """One master's client of the model, and its client of the server."""

    def __init__(self, server: Server, app: str, client: Client) -> None:
        self.client = client
        names = dict.fromkeys(PINS, "work")
        hello = Hello(server.url, app, client.owner, client.ttl, client.run, client.attempt, names)
        self.real = Postgres(hello)
        self.epochs: dict[Pin, int] = {}
        self.number = 0


def request_of(dice: random.Random, pair: Pair, marks: list[tuple[str, int]]) -> Request:
    """Return a request as a master might send it, or one that a delayed or mistaken one would."""
    pair.number += 1

    def some(pins: object) -> list[Pin]:
        return [pin for pin in sorted(pins) if dice.random() < 0.6]  # type: ignore[call-overload]

    held = some(pair.epochs)
    give = {pin: (pair.epochs[pin], dice.random() < 0.3) for pin in held if dice.random() < 0.3}
    return Request(
        pair.number,
        {pin: pair.epochs[pin] - (dice.random() < 0.1) for pin in held if pin not in give},
        tuple(pin for pin in some(PINS) if pin not in held),
        dice.random() < 0.7,
        tuple(mark for mark in marks if dice.random() < 0.3),
        give,
    )


@pytest.mark.parametrize("seed", range(5))
def test_model_says_what_postgresql_says(database: Server, seed: int) -> None:
    """Hundreds of random requests of masters in two runs, two jobs and two attempts are answered alike."""
    dice = random.Random(seed)
    app, model = f"app{seed}", Database()
    model.prepare(PINS)
    clients = [
        Client("a", 6.0, "run", ("job", 0)),
        Client("b", 7.0, "run", ("job", 1)),
        Client("c", 8.0),
        Client("d", 9.0, "other"),
        Client("e", 9.5, "run"),
        Client("f", 6.5, "run", ("again", 0)),
    ]
    granted = 0

    async def play() -> None:
        nonlocal granted
        pairs = [Pair(database, app, client) for client in clients]
        for _ in range(150):
            pair = dice.choice(pairs)
            request = request_of(dice, pair, sorted({row.mark for row in model.rows.values()}))
            expected = model.carry_out(request, pair.client)
            assert await pair.real.exchange(request, 10.0) == expected
            pair.epochs.update(expected.granted)
            granted += len(expected.granted)
        for pair in pairs:
            await pair.real.close()

    asyncio.run(play())

    assert granted > 30
    rows = database.query("SELECT pin, owner, epoch, done_run FROM pyworkers_lease WHERE app = %s ORDER BY pin", app)
    assert rows == [(pin, row.owner, row.epoch, row.done_run) for pin, row in sorted(model.rows.items())]


def granted_to(database: Server, app: str, clients: list[Client]) -> list[bool]:
    """Let each claim the free rows and give them back, one after the other; return which of them got them."""
    told: list[bool] = []

    async def play() -> None:
        for client in clients:
            real = Pair(database, app, client).real
            got = (await real.exchange(Request(1, {}, PINS, fresh=True, expired=(), give={}), 10.0)).granted
            give = {pin: (epoch, False) for pin, epoch in got.items()}
            await real.exchange(Request(2, {}, (), fresh=True, expired=(), give=give), 10.0)
            await real.close()
            assert set(got) in (set(), set(PINS))
            told.append(bool(got))

    asyncio.run(play())
    return told


def test_attempts_are_compared_within_a_job(database: Server) -> None:
    """The user calls two jobs one run: the first attempt of the second comes after any one of the first."""
    first, second = ("slurm-7", 1), ("slurm-8", 0)
    clients = [Client("a", 6.0, "run", first), Client("b", 6.0, "run", ("slurm-7", 0)), Client("c", 6.0, "run", second)]

    assert granted_to(database, "jobs", clients) == [True, False, True]


@pytest.mark.parametrize("run", [None, "run", "other"])
def test_attempt_outlives_who_has_none(database: Server, run: str | None) -> None:
    """A standby had the rows in between: the earlier attempt does not get them, the later one does."""
    clients = [
        Client("a", 6.0, "run", ("slurm-7", 1)),
        Client("standby", 6.0, run),
        Client("stale", 6.0, "run", ("slurm-7", 0)),
        Client("b", 6.0, "run", ("slurm-7", 1)),
    ]

    assert granted_to(database, f"between {run}", clients) == [True, True, False, True]


def test_request_that_takes_too_long_is_an_error_and_the_next_one_works(database: Server) -> None:
    """Somebody has locked the table; the connection is given up, and made anew."""
    from pyworkers._lease.backend import BackendError

    async def play() -> None:
        pair = Pair(database, "locked", Client("a", 6.0))
        first = Request(1, {}, PINS, fresh=True, expired=(), give={})
        reply = await pair.real.exchange(first, 10.0)
        with database.locked("pyworkers_lease"), pytest.raises(BackendError, match=r"no answer within 0\.5s"):
            await pair.real.exchange(Request(2, dict(reply.granted), (), fresh=True, expired=(), give={}), 0.5)
        third = await pair.real.exchange(Request(3, dict(reply.granted), (), fresh=True, expired=(), give={}), 10.0)
        assert third.renewed == frozenset(PINS)
        await pair.real.close()

    asyncio.run(play())
