"""What has happened on each PIN, as far back as memory is granted for it: bounded for each PIN, and in all.

Made of the reports that the log is made of, with the clock's time. What is kept is the fact; its words are made when
somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pyworkers._core import messages as m
from pyworkers._core.records import record
from pyworkers._core.types import Pin, is_spare
from pyworkers._master.reports import Seat, cause

PER_PIN_MAX = 32
"""A crash loop at its longest backoff fills a quarter of an hour, and the beginning of one is in the log."""

IN_ALL_MAX = 8192
"""Some 4 MB; with more PINs than a few hundred, each has less, but never less than `PER_PIN_MIN`."""

PER_PIN_MIN = 2

TOLD = (
    m.WorkerStarted,
    m.WorkerEnded,
    m.SpawnDelayed,
    m.SuspensionNoted,
    m.WorkerHung,
    m.WorkerRecycled,
    m.WorkerOverdue,
    m.WorkerAbandoned,
)
"""What belongs to one PIN alone."""


@record
class Entry:
    """One fact, and when it was, on the monotonic clock."""

    at: float
    report: m.WorkerReport
    seat: Seat


@record
class LastEnd:
    """How the latest process of a PIN that has ended did so."""

    cause: str
    at: float
    lifetime_s: float


class History:
    """The recent past of all PINs.

    Args:
        pin_count: How many PINs there are, about: what each may keep follows from it.
    """

    def __init__(self, pin_count: int) -> None:
        self._most = max(PER_PIN_MIN, min(PER_PIN_MAX, IN_ALL_MAX // max(1, pin_count)))
        self._entries: dict[Pin, deque[Entry]] = {}
        self._starts: dict[Pin, int] = {}
        self._ends: dict[Pin, LastEnd] = {}

    def add(self, report: m.Report, seat: Seat | None, at: float) -> None:
        """Keep a report, if it is one of a PIN; the oldest of that PIN goes for it."""
        if not isinstance(report, TOLD) or seat is None or is_spare(report.pin):
            return
        pin = report.pin
        if isinstance(report, m.WorkerStarted):
            self._starts[pin] = self._starts.get(pin, 0) + 1
        elif isinstance(report, m.WorkerEnded):
            self._ends[pin] = LastEnd(cause(report, oom=seat.oom), at, report.lifetime_s)
        entries = self._entries.get(pin)
        if entries is None:
            entries = self._entries[pin] = deque(maxlen=self._most)
        entries.append(Entry(at, report, seat))

    def keep(self, pin: Pin, entries: Iterable[Entry], start_count: int, end: LastEnd | None) -> None:
        """Take over what another one has kept of a PIN."""
        self._entries[pin] = deque(entries, maxlen=self._most)
        self._starts[pin] = start_count
        if end is not None:
            self._ends[pin] = end

    def entries(self, pin: Pin) -> Iterable[Entry]:
        """Return what is kept of a PIN, the oldest first."""
        return self._entries.get(pin, ())

    def restarts(self, pin: Pin) -> int:
        """Return how many processes have followed the first one."""
        return max(0, self._starts.get(pin, 0) - 1)

    def last_end(self, pin: Pin) -> LastEnd | None:
        """Return how the latest one that has ended did so."""
        return self._ends.get(pin)
