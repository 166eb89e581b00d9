"""`python -m benchmarks soak`: an instance whose oldest worker is killed at a steady rate. Does anything grow?

The rate does not depend on how fast it is: each kill has its instant, and several respawns may be under way.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

from benchmarks.arena import SETTLED_S, Arena, Match, Overdue, anonymous_kb, descriptors
from benchmarks.contenders import OURS
from benchmarks.measure import launched
from benchmarks.table import percentile

WINDOW_S = 60.0
TAIL_BUDGET = 1.2
NOISE_KB = 64
"""What the memory of a process that does not grow goes up and down by."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen in a minute: how long each respawn took, and the master at its end."""

    respawns_ms: list[float]
    anonymous_kb: float
    descriptors: int

    def __str__(self) -> str:
        p50, p99 = (percentile(self.respawns_ms, share) for share in (0.5, 0.99))
        return (
            f"{len(self.respawns_ms)} respawns, p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
            f"master {self.anonymous_kb:.0f} kB, {self.descriptors} descriptors"
        )


class Soak:
    """One instance, and which of its PINs are empty since when.

    Attributes:
        skipped: How many kills were left out because no worker was old enough.
    """

    def __init__(self, match: Match, rate: float) -> None:
        self._match = match
        self._pins: dict[int, int] = {}
        self._killed: dict[int, int] = {}
        self._period_s = 1 / rate
        self._due = time.monotonic()
        self.skipped = 0

    def begin(self, count: int) -> None:
        """Wait for the first workers, and until they are old enough."""
        self._pins.update((report.pid, report.place) for report in self._match.reports(count))
        self._match.settle(self._match.pids)
        self._due = time.monotonic()

    def window(self, seconds: float) -> Window:
        """Kill for so long, and return what was seen."""
        respawns: list[float] = []
        end = self._due + seconds
        while self._due < end:
            respawns += self._respawned(self._due)
            self._kill_oldest()
            self._due += self._period_s
        if self._killed and time.monotonic_ns() - min(self._killed.values()) > self._match.patience_s * 1e9:
            raise Overdue(f"a worker has had no successor for {self._match.patience_s:g} s")
        pid = self._match.process.pid
        # What is there for a moment only is none that stays.
        return Window(respawns, min(anonymous_kb(pid) for _ in range(3)), min(descriptors(pid) for _ in range(3)))

    def _respawned(self, until: float) -> list[float]:
        """Return how long each respawn took whose report comes until that instant."""
        found: list[float] = []
        while (report := self._match.next_report(until - time.monotonic())) is not None:
            self._pins[report.pid] = report.place
            found.append((report.at - self._killed.pop(report.place)) / 1e6)
        return found

    def _kill_oldest(self) -> None:
        if not self._match.pids or time.monotonic_ns() - self._match.pids[self._match.oldest()] < SETTLED_S * 1e9:
            self.skipped += 1
            return
        pid = self._match.oldest()
        self._killed[self._pins.pop(pid)] = self._match.kill([pid])


def run(arena: Arena, given: argparse.Namespace) -> None:
    """Soak, and tell each minute, and what has grown."""
    # Each worker lives for two seconds.
    count = max(10, math.ceil(2 * given.rate))
    windows: list[Window] = []
    total = max(2, round(given.minutes * 60 / WINDOW_S))
    with launched(arena, OURS, count) as match:
        soak = Soak(match, given.rate)
        soak.begin(count)
        for number in range(total):
            windows.append(soak.window(given.minutes * 60 / total))
            print(f"{number + 1} of {total}: {windows[-1]}", flush=True)
    print("\n".join(findings(windows, soak.skipped)))


def findings(windows: list[Window], skipped: int) -> list[str]:
    """Return what has changed from the first window to the last."""
    first, last = windows[0], windows[-1]
    ratio = percentile(last.respawns_ms, 0.99) / percentile(first.respawns_ms, 0.99)
    opened = last.descriptors - first.descriptors
    grown_kb = last.anonymous_kb - first.anonymous_kb
    return [
        f"p99 of the last by the first: {ratio:.2f}, budget {TAIL_BUDGET:g}: {_verdict(ratio <= TAIL_BUDGET)}",
        f"memory: {grown_kb:+.0f} kB, budget {NOISE_KB}: {_verdict(grown_kb <= NOISE_KB)}",
        f"descriptors: {opened:+d}, budget 0: {_verdict(opened <= 0)}",
        f"kills left out because no worker was old enough: {skipped}",
    ]


def _verdict(met: bool) -> str:
    return "met" if met else "over"
