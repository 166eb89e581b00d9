"""When the functions that want to hear of failures run: one at a time, each with a time limit, from a bounded queue.

Pure like the supervisor beside it, and separate from it: a notice that hangs or is dropped changes no PIN.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pyworkers._core.types import FailureRecord

NOTICE_TIMEOUT_S = 10.0
"""How long the functions may take for one failure: as long as docker and supervisord wait before they kill."""

NOTICES_MAX = 1000
"""How many failures may wait; a storm of more is counted instead of kept."""


class Notices:
    """The queue of failures, and the deadline of the one that is being told."""

    def __init__(self) -> None:
        self._waiting: deque[FailureRecord] = deque()
        self._busy = False
        self._kill_at: float | None = None
        self._close_at: float | None = None
        self.dropped_count = 0

    def add(self, record: FailureRecord) -> None:
        """Queue a failure, or count it as dropped where too many wait."""
        if len(self._waiting) >= NOTICES_MAX:
            self.dropped_count += 1
        else:
            self._waiting.append(record)

    def take(self, now: float) -> FailureRecord | None:
        """Return the failure to tell now, or None. After one was returned, `done` must follow before the next."""
        if self._busy or not self._waiting:
            return None
        if self._close_at is not None and now >= self._close_at:
            self.dropped_count += len(self._waiting)
            self._waiting.clear()
            return None
        self._busy = True
        self._kill_at = now + NOTICE_TIMEOUT_S
        return self._waiting.popleft()

    def done(self) -> None:
        """Note that whoever was told has ended."""
        self._busy = False
        self._kill_at = None

    def expire(self, now: float) -> bool:
        """Return, once, whether whoever is being told has taken too long and is to be killed."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return False
        self._kill_at = None
        return True

    def restore(self, waiting: Iterable[FailureRecord], dropped_count: int, now: float, *, busy: bool) -> None:
        """Go on where another one was: with those who wait, and the one that is being told, if it is `busy`."""
        self._waiting.extend(waiting)
        self.dropped_count = dropped_count
        self._busy = busy
        # Nobody knows how much of its time is over.
        self._kill_at = now + NOTICE_TIMEOUT_S if busy else None

    def drop(self) -> None:
        """Count all who wait as dropped: there is nobody any more who wants to hear."""
        self.dropped_count += len(self._waiting)
        self._waiting.clear()

    def close(self, now: float, *, grace_s: float) -> None:
        """Let what is queued be told for `grace_s` seconds more, in all."""
        self._close_at = now + grace_s

    @property
    def idle(self) -> bool:
        """Whether nobody is being told and nobody waits."""
        return not self._busy and not self._waiting

    def next_deadline(self) -> float | None:
        """Return the instant at which `expire` is due, or None."""
        if self._kill_at is None or self._close_at is None:
            return self._kill_at
        return min(self._kill_at, self._close_at)
