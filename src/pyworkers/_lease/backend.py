"""What a database has to do for leases: the protocol that each back end fulfils."""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core.exchange import Reply, Request
from pyworkers._core.typed import Protocol


class BackendError(Exception):
    """The request failed, or nobody can tell whether; the text is one line for a person."""


class Backend(Protocol):
    """One database, as one master uses it. Whatever it does not keep, the pure logic can do without."""

    async def exchange(self, request: Request, limit_s: float) -> Reply:
        """Carry a request out: all of it, or nothing.

        Raises:
            BackendError: It has failed, or has taken longer than `limit_s` seconds; it may still be carried out.
        """
        ...

    def on_hint(self, function: Callable[[], None]) -> None:
        """Call this whenever somebody may have given rows back; a back end that cannot tell never does."""
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...
