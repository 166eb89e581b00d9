"""Leases as rows of a table of PostgreSQL, by psycopg 3. No session state is needed: a pooler may stand in between.

The statements of a request travel in one pipeline, which is one transaction and one round trip. Whoever claims skips
rows that are locked at the moment, so that nobody ever waits for two others: there is no deadlock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

import psycopg

from pyworkers._core.exchange import CLAIMS_MAX, Reply, Request
from pyworkers._core.types import Pin
from pyworkers._lease.backend import BackendError
from pyworkers._lease.wire import Hello

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]
    Cursor = psycopg.AsyncCursor[tuple[Any, ...]]

# Half of each page is left free, so that a renewal finds room beside the old version of its row (a heap-only tuple).
# `run` is the engine's job, with which `attempt` goes; `done_run` is what the user calls the run, else that job, too.
TABLE = """
CREATE TABLE IF NOT EXISTS pyworkers_lease (
    app text NOT NULL, pin bigint NOT NULL, worker text NOT NULL,
    owner text, epoch bigint NOT NULL DEFAULT 0, renewal bigint NOT NULL DEFAULT 0,
    ttl double precision NOT NULL DEFAULT 0, expires timestamptz,
    run text, attempt integer NOT NULL DEFAULT 0, done_run text,
    PRIMARY KEY (app, pin)
) WITH (fillfactor = 50)
"""

ROWS = """
INSERT INTO pyworkers_lease (app, pin, worker)
SELECT %(app)s, pin, worker FROM unnest(%(pins)s::bigint[], %(workers)s::text[]) AS mine (pin, worker) ORDER BY pin
ON CONFLICT (app, pin) DO NOTHING
"""

# `expires` is for people to read: no statement here compares it.
RENEW = """
UPDATE pyworkers_lease AS lease SET renewal = %(number)s, expires = clock_timestamp() + make_interval(secs => %(ttl)s)
FROM unnest(%(pins)s::bigint[], %(epochs)s::bigint[]) AS mine (pin, epoch)
WHERE lease.app = %(app)s AND lease.pin = mine.pin AND lease.owner = %(owner)s AND lease.epoch = mine.epoch
RETURNING lease.pin
"""

GIVE = """
UPDATE pyworkers_lease AS lease SET owner = NULL, expires = NULL,
    done_run = CASE WHEN mine.done AND %(run)s::text IS NOT NULL THEN %(run)s ELSE lease.done_run END
FROM unnest(%(pins)s::bigint[], %(epochs)s::bigint[], %(done)s::boolean[]) AS mine (pin, epoch, done)
WHERE lease.app = %(app)s AND lease.pin = mine.pin AND lease.owner = %(owner)s AND lease.epoch = mine.epoch
"""

# An attempt that the engine has given up may still live behind a cut cable: within a job, no earlier one takes a lease.
# A master without a job, such as a standby, leaves the last attempt as it is, for whoever comes after it.
CLAIM = """
WITH free AS (
    SELECT pin FROM pyworkers_lease
    WHERE app = %(app)s AND pin = ANY(%(pins)s::bigint[]) AND (done_run = %(run)s) IS NOT TRUE
    AND (run = %(job)s AND attempt > %(attempt)s::integer) IS NOT TRUE
    AND (owner = %(owner)s OR (owner IS NULL AND %(fresh)s) OR (coalesce(owner, ''), renewal) IN (
        SELECT owner, renewal FROM unnest(%(owners)s::text[], %(renewals)s::bigint[]) AS expired (owner, renewal)))
    ORDER BY pin LIMIT %(most)s FOR UPDATE SKIP LOCKED
)
UPDATE pyworkers_lease AS lease SET owner = %(owner)s, epoch = lease.epoch + 1, renewal = %(number)s, ttl = %(ttl)s,
    expires = clock_timestamp() + make_interval(secs => %(ttl)s),
    run = coalesce(%(job)s, lease.run), attempt = coalesce(%(attempt)s::integer, lease.attempt)
FROM free WHERE lease.app = %(app)s AND lease.pin = free.pin
RETURNING lease.pin, lease.epoch
"""

SEEN = """
SELECT coalesce(owner, ''), renewal, max(CASE WHEN owner IS NULL THEN %(ttl)s ELSE ttl END) FROM pyworkers_lease
WHERE app = %(app)s AND pin = ANY(%(pins)s::bigint[]) AND (done_run = %(run)s) IS NOT TRUE
AND owner IS DISTINCT FROM %(owner)s AND (owner IS NOT NULL OR NOT %(fresh)s)
GROUP BY 1, 2
"""

DONE = """
SELECT pin FROM pyworkers_lease WHERE app = %(app)s AND pin = ANY(%(pins)s::bigint[]) AND done_run = %(run)s
"""

CHANNEL = "pyworkers_lease"


class Postgres:
    """The rows of one master: a `Backend`."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        job, attempt = hello.attempt or (None, None)
        self._common = {
            "app": hello.app,
            "owner": hello.owner,
            "ttl": hello.ttl,
            "run": hello.run,
            "job": job,
            "attempt": attempt,
        }
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._hint: Callable[[], None] = lambda: None
        self._noticed = False

    def on_hint(self, function: Callable[[], None]) -> None:
        self._hint = function

    async def exchange(self, request: Request, limit_s: float) -> Reply:
        loop = asyncio.get_running_loop()
        until = loop.time() + limit_s
        connection = await self._connected(limit_s)
        if until - loop.time() < limit_s / 2:
            # The connection has just been made, and is kept for the next request, which has all the time.
            raise BackendError("connected, too late for this request")
        self._listen(connection, listen=False)
        work = asyncio.ensure_future(self._carry_out(connection, request))
        await asyncio.wait([work], timeout=max(0.0, until - loop.time()))
        if not work.done():
            # Not cancelled: psycopg would ask the server to cancel, and wait for that. Its socket is shut instead.
            self._drop(connection)
            await asyncio.wait([work], timeout=limit_s)
            work.cancel()
            raise BackendError(f"no answer within {limit_s:.1f}s")
        try:
            reply = work.result()
        except (psycopg.Error, OSError, UnicodeError) as error:
            self._drop(connection)
            raise BackendError(_line(error)) from error
        self._listen(connection, listen=True)
        if self._noticed:
            # After the reply.
            self._noticed = False
            loop.call_soon(self._hint)
        return reply

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._listen(self._connection, listen=False)
            await self._connection.close()

    async def _connected(self, limit_s: float) -> Connection:
        if self._connection is not None:
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
        await asyncio.wait([self._connecting], timeout=limit_s)
        if not self._connecting.done():
            raise BackendError(f"no connection within {limit_s:.1f}s")
        connecting, self._connecting = self._connecting, None
        try:
            self._connection = connecting.result()
        except asyncio.TimeoutError as error:
            raise BackendError(f"no connection within {self._hello.ttl:.1f}s") from error
        except (psycopg.Error, OSError, UnicodeError) as error:
            raise BackendError(_line(error)) from error
        return self._connection

    async def _connect(self) -> Connection:
        """Make a connection, however long that takes: meanwhile, requests fail for want of it."""
        ttl = self._hello.ttl
        # Nothing is prepared in the server, for a pooler gives each transaction another session. Whatever the database
        # and the URL say, text is to be text: psycopg takes that of a SQL_ASCII database for bytes.
        opening = psycopg.AsyncConnection.connect(
            self._hello.url,
            autocommit=True,
            prepare_threshold=None,
            application_name="pyworkers-lease",
            client_encoding="UTF8",
        )
        connection = await asyncio.wait_for(opening, ttl)
        # What comes between the answers of a request, psycopg takes for itself.
        connection.add_notify_handler(self._on_notice)
        try:
            await asyncio.wait_for(self._prepare_all(connection), ttl)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _prepare_all(self, connection: Connection) -> None:
        try:
            await self._prepare(connection)
        except psycopg.errors.UndefinedTable:
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                # CREATE TABLE IF NOT EXISTS, twice at once: the other one has made it.
                await connection.execute(TABLE)
            await self._prepare(connection)

    async def _prepare(self, connection: Connection) -> None:
        names = self._hello.names
        rows = {"app": self._hello.app, "pins": list(names), "workers": list(names.values())}
        async with connection.pipeline():
            await connection.execute(f"LISTEN {CHANNEL}")
            await connection.execute(ROWS, rows)

    async def _carry_out(self, connection: Connection, request: Request) -> Reply:
        claim = {
            **self._common,
            "number": request.number,
            "pins": list(request.claim),
            "fresh": request.fresh,
            "most": CLAIMS_MAX,
            "owners": [owner for owner, _ in request.expired],
            "renewals": [renewal for _, renewal in request.expired],
        }
        renewed = granted = done = seen = None
        async with connection.pipeline():
            if request.renew:
                pins, epochs = list(request.renew), list(request.renew.values())
                mine = {**self._common, "number": request.number, "pins": pins, "epochs": epochs}
                renewed = await connection.execute(RENEW, mine)
            if request.give:
                await connection.execute(GIVE, {**self._common, **_given(request)})
                await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, self._hello.app))
            if request.claim:
                granted = await connection.execute(CLAIM, claim)
                seen = await connection.execute(SEEN, claim)
                if self._hello.run is not None:
                    done = await connection.execute(DONE, claim)
        return Reply(
            request.number,
            frozenset(Pin(pin) for (pin,) in await _rows(renewed)),
            {Pin(pin): epoch for pin, epoch in await _rows(granted)},
            frozenset(Pin(pin) for (pin,) in await _rows(done)),
            {(owner, renewal): ttl for owner, renewal, ttl in await _rows(seen)},
        )

    def _listen(self, connection: Connection, *, listen: bool) -> None:
        """Look at the connection while nothing is asked of it. During a request, psycopg itself does."""
        loop = asyncio.get_running_loop()
        if listen:
            loop.add_reader(connection.fileno(), self._on_readable, connection)
        else:
            loop.remove_reader(connection.fileno())

    def _on_readable(self, connection: Connection) -> None:
        try:
            connection.pgconn.consume_input()
        except psycopg.Error:
            # The server has gone. The next request makes a new connection.
            self._drop(connection)
            return
        hinted = False
        while (notice := connection.pgconn.notifies()) is not None:
            hinted = hinted or notice.extra == self._hello.app.encode()
        if hinted:
            self._hint()

    def _on_notice(self, notice: psycopg.Notify) -> None:
        self._noticed = self._noticed or notice.payload == self._hello.app

    def _drop(self, connection: Connection) -> None:
        self._connection = None
        if connection.closed:
            return
        self._listen(connection, listen=False)
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)
        if connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
            connection.pgconn.finish()


def _given(request: Request) -> dict[str, object]:
    return {
        "pins": list(request.give),
        "epochs": [epoch for epoch, _ in request.give.values()],
        "done": [done for _, done in request.give.values()],
    }


async def _rows(cursor: Cursor | None) -> list[tuple[Any, ...]]:
    return [] if cursor is None else await cursor.fetchall()


def _line(error: BaseException) -> str:
    # What a codec says names no culprit. All text here is names: of hosts, apps, handlers and owners.
    what = "a name cannot be encoded or decoded: " if isinstance(error, UnicodeError) else ""
    return what + (" ".join(str(error).split()) or type(error).__name__)
