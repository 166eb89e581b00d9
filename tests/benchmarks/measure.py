"""What is measured of a contender, each figure in its own unit."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Sequence

from benchmarks.arena import Arena, Match, Overdue, cpu_s, pss_kb, switches
from benchmarks.contenders import Contender


def settle() -> None:
    """Let all workers grow older than a second: who dies younger is in a crash loop, and many contenders slow that."""
    time.sleep(1.1)


def start_s(match: Match, count: int) -> float:
    """From the launch of the command to the last worker's begin."""
    return (max(report.at for report in match.reports(count)) - match.launched_at) / 1e9


def respawns_ms(match: Match, times: int) -> list[float]:
    """From the SIGKILL of a worker to its successor's begin, many times in a row."""
    found: list[float] = []
    for number in range(times):
        if number % len(match.pids) == 0:
            settle()
        at = match.kill([match.oldest()])
        found.append((match.reports(1)[0].at - at) / 1e6)
    return found


def storm_s(match: Match) -> float:
    """From the first of the SIGKILLs of all workers to the last successor's begin."""
    count = len(match.pids)
    settle()
    at = match.kill(match.pids)
    return (max(report.at for report in match.reports(count)) - at) / 1e9


def stop_s(match: Match) -> float:
    """From TERM to the master to its end, with nobody left."""
    # A bare loop does not know a worker yet that has just reported.
    settle()
    seconds = match.end(signal.SIGTERM)
    assert not match.survivors(0), "it has left workers behind"
    return seconds


def orphans(match: Match, patience_s: float) -> int:
    """How many workers outlive the SIGKILL of their master."""
    match.end(signal.SIGKILL)
    return match.survivors(patience_s)


def idle(match: Match, seconds: float) -> tuple[float, float]:
    """Return the master's context switches a second, and its share of a core in percent, while nothing happens."""
    # What it still has to do after the start.
    before = -1.0
    while (now := switches(match.process.pid)) != before:
        before = now
        time.sleep(0.3)
        if time.monotonic_ns() - match.launched_at > 10e9:
            break
    count, used = switches(match.process.pid), cpu_s(match.process.pid)
    time.sleep(seconds)
    pid = match.process.pid
    return (switches(pid) - count) / seconds, (cpu_s(pid) - used) / seconds * 100


def memory_kb(match: Match) -> tuple[float, float]:
    """Return the share of the memory that a worker and the master have."""
    pids = list(match.pids)
    return statistics.median(map(pss_kb, pids[:: max(1, len(pids) // 20)])), pss_kb(match.process.pid)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def play(arena: Arena, contender: Contender, count: int, respawns: int) -> dict[str, list[float]]:
    """Run a contender once, and return its figures; what it cannot do, or not in time, is missing."""
    figures: dict[str, list[float]] = {}
    contender.prepare(arena.directory, count)
    match = arena.launch(contender.command(count), contender.environment(count))
    try:
        figures["start ms"] = [start_s(match, count) * 1e3]
        worker, master = memory_kb(match)
        figures |= {"worker kB": [worker], "master kB": [master]}
        switched, used = idle(match, 2.0)
        figures |= {"idle switches/s": [switched], "idle CPU %": [used]}
        if contender.respawns:
            figures["respawn ms"] = respawns_ms(match, respawns)
            figures["storm ms"] = [storm_s(match) * 1e3]
        if contender.stops:
            figures["stop ms"] = [stop_s(match) * 1e3]
    except Overdue as overdue:
        print(f"{contender.name}, {count} workers: {str(overdue).splitlines()[0]}", flush=True)
    finally:
        match.clean_up()
    return figures


def abandon(arena: Arena, contender: Contender, count: int) -> float:
    """Run a contender, kill its master, and return how many of its workers are still there 3 seconds later."""
    contender.prepare(arena.directory, count)
    match = arena.launch(contender.command(count), contender.environment(count))
    try:
        match.reports(count)
        return orphans(match, 3.0)
    finally:
        match.clean_up()
