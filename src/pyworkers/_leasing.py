"""Puts together what leases need, on both sides of a fork. Loaded only where there are any."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from pyworkers._core import lease as c
from pyworkers._core.rows import Vacate
from pyworkers._core.types import NEVER, Pin
from pyworkers._lease.wire import Hello
from pyworkers._master.lease import Keeper, Parent, Terms
from pyworkers._posix.deadlines import Deadlines
from pyworkers._settings import RunSettings
from pyworkers._worker.fence import Fence
from pyworkers._worker.runtime import Runtime


def _run(settings: RunSettings) -> tuple[str | None, tuple[str, int] | None]:
    """Return the name of this run, and which attempt this is of which of the engine's jobs."""
    if settings.shard is None:
        return settings.run_id, None
    # Not loaded for a run of all PINs.
    from pyworkers import _shards

    job, attempt = _shards.run_of(settings.shard, os.environ)
    return settings.run_id or job, None if job is None or attempt is None else (job, attempt)


class Leasing:
    """The parts of one instance.

    Args:
        app: The name under which all masters know the app.
        names: The handler of each PIN.
        seats: Where the cell of each PIN is.

    Raises:
        OSError: There is no memory, or no descriptor.
    """

    def __init__(self, settings: RunSettings, app: str, names: Mapping[Pin, str], seats: Mapping[Pin, int]) -> None:
        self._settings = settings
        self._names = dict(names)
        self._seats = seats
        self._app = app
        self._deadlines = Deadlines.create(len(seats))
        self._keeper: Keeper | None = None

    def close(self) -> None:
        """At the end of the loop."""
        if self._keeper is not None:
            self._keeper.close()
        self._deadlines.close()

    def fence(self, runtime: Runtime, dump_descriptor: int) -> Fence:
        """Return the worker's part."""
        grace_s = self._settings.lease_ttl * (c.KILL - c.FENCE)
        return Fence(runtime, self._deadlines, self._seats, grace_s, dump_descriptor)

    def epoch(self, pin: Pin) -> int:
        """Return that of the row of a PIN, which is held."""
        assert self._keeper is not None
        return self._keeper.epoch(pin)

    def vacate(self, effect: Vacate) -> None:
        """Let the keeper know that no process is left on a PIN."""
        assert self._keeper is not None
        self._keeper.vacate(effect)

    def begin(self, kernel: Parent, connections: set[int], log: Callable[[int, str], None]) -> Keeper:
        """Return the master's part, which begins with the loop."""
        settings = self._settings
        # For people, and unique for the program: a pid comes again, also on the same host.
        owner = f"{os.uname().nodename}:{os.getpid()}:{os.urandom(4).hex()}"
        decided = c.Lease(
            self._seats,
            owner,
            settings.lease_ttl,
            standby=settings.standby,
            patience=NEVER if settings.lease_wait is None else settings.lease_wait,
        )
        assert settings.lease is not None
        run, attempt = _run(settings)
        hello = Hello(settings.lease, self._app, owner, settings.lease_ttl, run, attempt, self._names)
        terms = Terms(hello, self._seats, connections, log)
        self._keeper = Keeper(decided, self._deadlines, kernel, terms)
        return self._keeper
