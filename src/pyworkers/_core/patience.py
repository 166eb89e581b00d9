"""How long a master waits for rows that others hold, before it says so: part of the decisions of `_core.lease`."""

from __future__ import annotations

from pyworkers._core.types import NEVER


class Patience:
    """Counts from the first answer of the database that has told of all rows: only then are those left others'.

    Until then, the start of a helper, a database that is slow and rows that come by many answers take their time. A
    database that never answers is waited for as well, but not for ever: for a TTL, or longer where patience is.

    Args:
        seconds: How long a PIN may wait for its row.
        ttl: In seconds.
    """

    def __init__(self, seconds: float, ttl: float) -> None:
        self._seconds = seconds
        self._unanswered_s = max(0.0, ttl - seconds)
        self._began_at = NEVER
        self._answered = False
        self._said = False

    def begin(self, now: float) -> None:
        """Begin to wait for an answer."""
        self._began_at = now + self._unanswered_s

    def answer(self, now: float, *, whole: bool) -> None:
        """Take note of an answer, and whether it has told of all rows."""
        if not self._answered:
            self._answered = whole
            self._began_at = now if whole else now + self._unanswered_s

    def say(self) -> None:
        """Take note that somebody was told: once is enough."""
        self._said = True

    def ends_at(self, wanted_at: float) -> float:
        """Return the instant at which a PIN that is wanted since then will have waited for too long."""
        return NEVER if self._said else max(wanted_at, self._began_at) + self._seconds
