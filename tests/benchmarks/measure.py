"""What is measured of a contender, each figure in its own unit."""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.arena import Arena, Match, Overdue, cpu_s, pss_kb, switches
from benchmarks.contenders import Contender
from pyworkers._client.find import Found, read
from pyworkers._posix import rendezvous

Figures = dict[str, list[float]]
Phase = Callable[[Match], Figures]

PAUSE_S = 0.01
"""Between two kills: what a master still does after a respawn, such as its log, is no part of the next one."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How much of what a contender does.

    Attributes:
        respawns: How many workers are killed one by one.
        idle_s: How long the idle master is looked at; 0 leaves that out.
        limit_s: When to be content with fewer respawns.
    """

    count: int
    respawns: int = 0
    idle_s: float = 0.0
    limit_s: float = 10.0


@contextlib.contextmanager
def launched(arena: Arena, contender: Contender, count: int) -> Iterator[Match]:
    """Start a contender, and leave nothing of it behind."""
    contender.prepare(arena.directory, count)
    match = arena.launch(contender.command(count), contender.environment(count), count)
    try:
        yield match
    finally:
        match.clean_up()


def control_of(match: Match) -> Found:
    """Return where pyworkers can be asked: it tells in its entry."""
    (entry,) = [path for path in rendezvous.entries() if path.endswith(f"/{match.process.pid}.json")]
    return read(entry)


def start_s(match: Match, count: int) -> float:
    """From the launch of the command to the last worker's begin."""
    return (max(report.at for report in match.reports(count)) - match.launched_at) / 1e9


def respawns_ms(match: Match, work: Workload, spares: int = 0) -> list[float]:
    """From the SIGKILL of a worker to its successor's begin, many times in a row, each when the spares are warm."""
    found: list[float] = []
    deadline = time.monotonic() + work.limit_s
    while len(found) < work.respawns and time.monotonic() < deadline:
        match.await_spares(spares)
        match.settle([match.oldest()])
        time.sleep(PAUSE_S)
        at = match.kill([match.oldest()])
        found.append((match.reports(1)[0].at - at) / 1e6)
    return found


def storm_s(match: Match, share: float = 1.0) -> float:
    """From the first of the SIGKILLs of all workers, or of a share, to the last successor's begin."""
    pids = random.sample(list(match.pids), int(len(match.pids) * share))
    match.settle(pids)
    at = match.kill(pids)
    return (max(report.at for report in match.reports(len(pids))) - at) / 1e9


def stop_s(match: Match) -> float:
    """From TERM to the master to its end, with nobody left."""
    # A bare loop does not know a worker yet that has just reported.
    time.sleep(0.2)
    seconds = match.end(signal.SIGTERM)
    if count := match.survivors(0):
        raise Overdue(f"it has left {count} workers behind")
    return seconds


def orphans(arena: Arena, contender: Contender, count: int) -> int:
    """How many workers are still there 3 seconds after the SIGKILL of their master."""
    with launched(arena, contender, count) as match:
        match.reports(count)
        match.end(signal.SIGKILL)
        return match.survivors(3.0)


def idle(match: Match, seconds: float) -> tuple[float, float]:
    """Return the master's context switches a second, and its share of a core in percent, while nothing happens."""
    pid = match.process.pid
    # What it still has to do after the start; some are never done.
    deadline = time.monotonic() + 1 + match.patience_s / 20
    before = -1.0
    while (now := switches(pid)) != before and time.monotonic() < deadline:
        before = now
        time.sleep(0.3)
    count, used, began = switches(pid), cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return (switches(pid) - count) / passed, (cpu_s(pid) - used) / passed * 100


def memory_kb(match: Match) -> tuple[float, float]:
    """Return the share of the memory that a worker and the master have."""
    pids = list(match.pids)
    return statistics.median(map(pss_kb, pids[:: max(1, len(pids) // 20)])), pss_kb(match.process.pid)


def play(arena: Arena, contender: Contender, work: Workload) -> tuple[Figures, str]:
    """Run a contender once; return its figures, and why some are missing: what comes after a failure means nothing."""
    figures: Figures = {}
    with launched(arena, contender, work.count) as match:
        for name, phase in _phases(contender, work):
            try:
                figures |= phase(match)
            except (Overdue, OSError) as error:
                return figures, f"{name}: {error}"
    return figures, ""


def _phases(contender: Contender, work: Workload) -> Iterator[tuple[str, Phase]]:
    yield "start", lambda match: {"start ms": [start_s(match, work.count) * 1e3]}
    yield "memory", _memory
    if work.idle_s:
        yield "idle", lambda match: _idle(match, work.idle_s)
    if contender.respawns and work.respawns:
        yield "respawn", lambda match: {"respawn ms": respawns_ms(match, work, contender.spares)}
    if contender.respawns:
        yield "storm", lambda match: {"storm ms": [storm_s(match) * 1e3]}
    if contender.stops:
        yield "stop", lambda match: {"stop ms": [stop_s(match) * 1e3]}


def _memory(match: Match) -> Figures:
    worker, master = memory_kb(match)
    return {"worker kB": [worker], "master kB": [master]}


def _idle(match: Match, seconds: float) -> Figures:
    switched, used = idle(match, seconds)
    return {"idle switches/s": [switched], "idle CPU %": [used]}
