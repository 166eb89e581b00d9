"""The model of the database, on which the simulated cluster stands, says what a real PostgreSQL says to the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import psycopg
import pytest

from cluster.database import Client, Database
from engines.postgres import Server, server
from pyworkers._core.exchange import Request
from pyworkers._core.types import Pin
from pyworkers._lease.backend import BackendError
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
    """One master's client of the model, and its client of the server: of a database of it, as its URL ends."""

    def __init__(self, server: Server, app: str, client: Client, database: str = "postgres?") -> None:
        self.client = client
        names = dict.fromkeys(PINS, "work")
        url = server.url.replace("/postgres?", f"/{database}")
        hello = Hello(url, app, client.owner, client.ttl, client.run, client.attempt, names)
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


def make_database(database: Server, encoding: str) -> str:
    """Make one that takes text in this encoding, and return its name."""
    name = encoding.lower()
    if not database.query("SELECT 1 FROM pg_database WHERE datname = %s", name):
        database.query(f"CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    return name


@pytest.mark.parametrize("option", ["", "client_encoding=SQL_ASCII&"])
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_rows_are_taken_over_in_any_encoding(database: Server, encoding: str, option: str) -> None:
    """Who holds a row is told as text, by which its row is found again; whatever the URL says."""
    name = f"{make_database(database, encoding)}?{option}"

    async def play() -> None:
        first = Pair(database, f"over {option}", Client("a", 6.0), name).real
        second = Pair(database, f"over {option}", Client("b", 6.0), name).real
        claim = Request(1, {}, PINS, fresh=True, expired=(), give={})
        assert set((await first.exchange(claim, 10.0)).granted) == set(PINS)
        assert (await second.exchange(claim, 10.0)).seen == {("a", 1): 6.0}
        take = Request(2, {}, PINS, fresh=True, expired=(("a", 1),), give={})
        assert set((await second.exchange(take, 10.0)).granted) == set(PINS)
        await first.close()
        await second.close()

    asyncio.run(play())


def test_text_that_cannot_be_sent_or_read_is_an_error_in_one_line(database: Server) -> None:
    """A name that the database has no letters for, an owner in another encoding, and what the shell took for a name."""
    claim = Request(1, {}, PINS, fresh=True, expired=(), give={})
    latin, none = (f"{make_database(database, encoding)}?" for encoding in ("LATIN1", "SQL_ASCII"))

    async def fail(pair: Pair, why: str) -> None:
        with pytest.raises(BackendError, match=f"^{why}.*$"):
            await pair.real.exchange(claim, 10.0)
        await pair.real.close()

    async def play() -> None:
        await fail(Pair(database, "краулер", Client("a", 6.0), latin), "character with byte sequence")
        pair = Pair(database, "bytes", Client("a", 6.0), none)
        await pair.real.exchange(claim, 10.0)
        with psycopg.connect(database.url.replace("/postgres?", f"/{none}"), autocommit=True) as connection:
            connection.execute(r"UPDATE pyworkers_lease SET owner = E'\xff' WHERE app = 'bytes'")
        await fail(pair, "invalid byte sequence")
        for app, run in (("app\udcff", "run"), ("app", "run\udcff")):
            await fail(Pair(database, app, Client("a", 6.0, run)), "a name cannot be encoded or decoded: ")

    asyncio.run(play())


def test_request_that_takes_too_long_is_an_error_and_the_next_one_works(database: Server) -> None:
    """Somebody has locked the table; the connection is given up, and made anew."""

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
