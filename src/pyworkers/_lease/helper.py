"""The helper's life: requests of the master in, answers of the database out, and an eye on who outstays.

It renews nothing of its own accord: a master that is held up looks after no worker, so its rows are to lapse. When they
have, what is left of the workers is killed here, also of those that nothing else can end, such as one in a call of C
code whose master is suspended. It ends with its master, or when none of its workers can be left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

from pyworkers._core.exchange import Request
from pyworkers._core.lease import ANSWER, FENCE, KILL, LOOK
from pyworkers._lease.backend import Backend, BackendError
from pyworkers._lease.wire import LENGTH, Failed, Hello, Hint, Message, Ready, Unable, packed, unpacked
from pyworkers._posix import boottime
from pyworkers._posix.deadlines import Deadlines

LIMIT = ANSWER * 0.8
"""Of the TTL: how long the database may take. The master takes us for dead somewhat later."""

_HEEDLESS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def main() -> None:
    """Work until the master is gone."""
    # An engine sends its TERM to every process of a job, and a terminal its INT: the rows are needed to the end.
    for signum in _HEEDLESS:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    asyncio.run(_Helper(Deadlines(os.dup(1))).run())


class _Helper:
    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=os.dup(0)))
        hello = await _next(reader)
        if not isinstance(hello, Hello):
            return
        guard = asyncio.ensure_future(self._guard(hello.ttl))
        try:
            backend = _backend(hello)
            backend.on_hint(lambda: self._tell(Hint()))
        except ImportError as error:
            self._tell(Unable(f"cannot import psycopg: {error}"))
            return
        self._tell(Ready())
        while isinstance(request := await _next(reader), Request):
            self._tell(await _answer(backend, request, hello.ttl * LIMIT))
        # No master, and so no renewal. What it could not say to the end is said by its rows, which lapse.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(backend.close(), hello.ttl * LIMIT)
        await self._outlast(hello.ttl)
        guard.cancel()

    def _tell(self, message: Message) -> None:
        assert self._writer is not None
        # A master that is gone reads nothing, and that is no news.
        if not self._writer.is_closing():
            self._writer.write(packed(message))

    async def _guard(self, ttl: float) -> None:
        """Kill whoever is there for too long."""
        while True:
            grace_s = ttl * (KILL - FENCE)
            now, next_at = boottime.now(), boottime.now() + grace_s
            for occupant in self._deadlines.occupants():
                end_at = occupant.until + grace_s
                if end_at <= now:
                    self._deadlines.end(occupant)
                else:
                    next_at = min(next_at, end_at)
            # asyncio's clock stands still while the machine sleeps. So does everybody here; the rest was looked for.
            await asyncio.sleep(max(0.01, next_at - now))

    async def _outlast(self, ttl: float) -> None:
        """Stay until the last deadline is over."""
        last = max((occupant.until for occupant in self._deadlines.occupants()), default=0.0)
        await asyncio.sleep(max(0.0, last + ttl * (KILL - FENCE + 2 * LOOK) - boottime.now()))


async def _answer(backend: Backend, request: Request, limit_s: float) -> Message:
    try:
        return await backend.exchange(request, limit_s)
    except BackendError as error:
        return Failed(request.number, str(error))


def _backend(hello: Hello) -> Backend:
    # Here, so that what cannot be imported can still be told.
    from pyworkers._lease.postgres import Postgres

    return Postgres(hello)


async def _next(reader: asyncio.StreamReader) -> Message | None:
    """Return what the master says next; None where it is gone."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return unpacked(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
