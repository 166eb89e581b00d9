"""`python -m benchmarks budget`: each figure that pyworkers has a budget for, beside it.

Only the bare loops and pyworkers run, in rounds that take turns. BARE is the yardstick, and so is IMPORTS for memory.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.arena import Arena, Overdue
from benchmarks.contenders import BARE, BARE_WITH_IMPORTS, OURS, OURS_WITH_SPARE, Contender, ours, preloaded
from benchmarks.measure import Figures, Workload, control_of, idle, launched, play, start_s, stop_s, storm_s
from benchmarks.micro import checkpoint_in_worker_ns, import_ms
from benchmarks.peers import conditions, machine, say
from benchmarks.table import percentile, rendered
from benchmarks.verdict import HEADINGS, Row, checkpoint_budget
from pyworkers._client.wire import Wire

SMALL = 100
PRELOAD_MB = 200
SPARED = OURS_WITH_SPARE
WARMED = ours("pyworkers, spares=1, 1 s to warm up", spares=1, warm_up_s=1)
PRELOADED = preloaded(OURS, PRELOAD_MB)
SPARED_PRELOADED, WARMED_PRELOADED = (preloaded(each, PRELOAD_MB) for each in (SPARED, WARMED))
BARE_PRELOADED, IMPORTS_PRELOADED = (preloaded(each, PRELOAD_MB) for each in (BARE, BARE_WITH_IMPORTS))
HANG_TIMEOUTS_S = (1, 10)


@dataclass(slots=True)
class Findings:
    """Figures by what they are of: a contender's name, and its number of workers."""

    by_key: dict[str, Figures] = field(default_factory=dict)

    def add(self, key: str, figures: Mapping[str, Sequence[float]]) -> None:
        """Keep some more."""
        for name, values in figures.items():
            self.by_key.setdefault(key, {}).setdefault(name, []).extend(values)

    def get(self, key: str, name: str, reduced: Callable[[Sequence[float]], float] = statistics.median) -> float | None:
        """Return a figure; None where it is missing."""
        values = self.by_key.get(key, {}).get(name)
        return reduced(values) if values else None


def run(arena: Arena, given: argparse.Namespace) -> None:
    """Measure, and print the table."""
    found = Findings()
    for contender in (BARE_WITH_IMPORTS, OURS):
        # Compiles what is imported, and brings it into memory.
        with launched(arena, contender, 1) as match:
            match.reports(1)
    for number in range(given.rounds):
        for contender, work in _turns(given)[:: 1 if number % 2 else -1]:
            began = time.monotonic()
            figures, failure = play(arena, contender, work)
            found.add(_key(contender, work.count), figures)
            _progress(f"round {number + 1}: {contender.name}, {work.count} workers", began, failure)
    _measure_once(arena, found, given)
    rows = [
        *_respawn_rows(found),
        *_large_rows(found, given.large),
        *_small_rows(found),
        *_hang_rows(found, given.large),
        *_status_rows(found, given.large),
    ]
    rows += _memory_rows(found)
    if given.many:
        rows += _many_rows(found, given.many)
    print(f"{conditions()}; rounds: {given.rounds}\n")
    print(rendered([HEADINGS, *(row.cells() for row in rows)], markdown=given.markdown))
    if given.json:
        given.json.write_text(json.dumps({**machine(), "figures": found.by_key}, indent=1) + "\n")


def _turns(given: argparse.Namespace) -> list[tuple[Contender, Workload]]:
    plain = Workload(SMALL, given.respawns, idle_s=2.0)
    spared = Workload(SMALL, given.respawns)
    # Each takes a second until the next spare is warm.
    warmed = Workload(SMALL, min(10, given.respawns), limit_s=30)
    large = Workload(given.large)
    return [
        *((contender, plain) for contender in (BARE, BARE_WITH_IMPORTS, OURS)),
        (SPARED, spared),
        *((contender, plain) for contender in (BARE_PRELOADED, IMPORTS_PRELOADED, PRELOADED)),
        (SPARED_PRELOADED, spared),
        *((contender, warmed) for contender in (WARMED, WARMED_PRELOADED)),
        *((contender, large) for contender in (BARE, BARE_WITH_IMPORTS, OURS)),
    ]


def _measure_once(arena: Arena, found: Findings, given: argparse.Namespace) -> None:
    """Measure what no turns make fairer."""
    for timeout_s in (0, *HANG_TIMEOUTS_S[-1:]):
        _tried(found, f"checkpoint, hang_timeout={timeout_s}", lambda timeout_s=timeout_s: _checkpoint(timeout_s))
    _tried(found, "import", lambda: {"ms": [import_ms(15)]})
    _tried(found, f"status of {given.large}", lambda: _status(arena, given.large))
    for timeout_s in HANG_TIMEOUTS_S:
        _tried(found, f"hang_timeout={timeout_s}", lambda timeout_s=timeout_s: _watched(arena, given.large, timeout_s))
    if given.many:
        for contender, count, storms in ((OURS, SMALL, 20), (OURS, given.many, 3), (BARE, given.many, 3)):
            tenths = functools.partial(_tenths, arena, contender, count, storms)
            _tried(found, f"tenths of {_key(contender, count)}", tenths)


def _tried(found: Findings, key: str, measured: Callable[[], Figures]) -> None:
    began, failure = time.monotonic(), ""
    try:
        found.add(key, measured())
    except (Overdue, OSError, subprocess.SubprocessError) as error:
        failure = str(error)
    _progress(key, began, failure)


def _status(arena: Arena, count: int) -> Figures:
    """Return how long a script waits for the status of so many PINs, and how long `json` takes for the same text."""
    with launched(arena, OURS, count) as match:
        match.reports(count)
        wire = Wire(control_of(match))
        try:
            # The first one loads what it takes.
            reply = wire.ask("status")
            asked = [_asked_ms(wire) for _ in range(20)]
        finally:
            wire.close()
        return {"ms": asked, "yardstick ms": [_ms(lambda: json.loads(json.dumps(reply))) for _ in range(20)]}


def _asked_ms(wire: Wire) -> float:
    # Nobody has it drawn more often; whoever asks without end is made to wait, on purpose.
    time.sleep(0.2)
    return _ms(lambda: wire.ask("status"))


def _ms(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1e3


def _checkpoint(timeout_s: float) -> Figures:
    value, yardstick = checkpoint_in_worker_ns(timeout_s)
    return {"ns": [value], "yardstick ns": [yardstick]}


def _watched(arena: Arena, count: int, timeout_s: float) -> Figures:
    """Return the master's share of a core while it probes workers that do nothing."""
    with launched(arena, ours("watched", hang_timeout_s=timeout_s), count) as match:
        match.reports(count)
        # More than one turn of the watch over all of them.
        switched, used = idle(match, max(5.0, 1.5 * timeout_s))
    return {"idle CPU %": [used], "idle switches/s": [switched]}


def _tenths(arena: Arena, contender: Contender, count: int, storms: int) -> Figures:
    """Return how long it takes to start, to replace a random tenth of the workers, for each of them, and to stop."""
    with launched(arena, contender, count) as match:
        started = start_s(match, count)
        each_ms = [storm_s(match, 0.1) * 1e3 / (count // 10) for _ in range(storms)]
        return {"start ms": [started * 1e3], "event ms": each_ms, "stop ms": [stop_s(match) * 1e3]}


def _progress(what: str, began: float, failure: str) -> None:
    say(f"{what}, {time.monotonic() - began:.1f} s{failure and '; gave up at ' + failure}")


def _key(contender: Contender, count: int) -> str:
    return f"{contender.name}, {count}"


def _respawn_rows(found: Findings) -> list[Row]:
    def p50(contender: Contender) -> float | None:
        return found.get(_key(contender, SMALL), "respawn ms")

    def p99(contender: Contender) -> float | None:
        return found.get(_key(contender, SMALL), "respawn ms", lambda values: percentile(values, 0.99))

    data = f"{PRELOAD_MB} MB preloaded"
    by_preloaded = p50(BARE_PRELOADED), p50(IMPORTS_PRELOADED)
    return [
        Row("respawn p50, ms", p50(OURS), 1.15, p50(BARE), p50(BARE_WITH_IMPORTS)),
        Row("respawn p99, ms", p99(OURS), 1.5, p99(BARE), p99(BARE_WITH_IMPORTS)),
        Row("respawn p50, spares=1, ms", p50(SPARED), 0.8, p50(BARE), p50(BARE_WITH_IMPORTS)),
        Row("respawn p99, spares=1, ms", p99(SPARED), None, p99(BARE), p99(BARE_WITH_IMPORTS)),
        Row(f"respawn p50, {data}, ms", p50(PRELOADED), 1.15, *by_preloaded),
        Row(f"respawn p99, {data}, ms", p99(PRELOADED), 1.5, p99(BARE_PRELOADED), p99(IMPORTS_PRELOADED)),
        Row(
            f"respawn p50, spares=1, {data}, ms",
            p50(SPARED_PRELOADED),
            0.8,
            p50(BARE_PRELOADED),
            p50(IMPORTS_PRELOADED),
        ),
        Row("respawn p50, spares=1, 1 s to warm up, ms", p50(WARMED), 5.0),
        Row("respawn p99, spares=1, 1 s to warm up, ms", p99(WARMED), 5.0),
        # The end of so large a process alone may take longer than that.
        Row(f"respawn p50, the same, {data}, ms", p50(WARMED_PRELOADED), 0.8, *by_preloaded),
    ]


def _large_rows(found: Findings, count: int) -> list[Row]:
    def value(contender: Contender, name: str) -> float | None:
        return found.get(_key(contender, count), name)

    return [
        Row(f"{count} workers, {name}", *_by_both(lambda contender, name=name: value(contender, name), 1.2))
        for name in ("start ms", "storm ms", "stop ms")
    ]


def _by_both(value: Callable[[Contender], float | None], budget: float) -> tuple[float | None, ...]:
    return value(OURS), budget, value(BARE), value(BARE_WITH_IMPORTS)


def _small_rows(found: Findings) -> list[Row]:
    plain, watched = (f"checkpoint, hang_timeout={timeout_s}" for timeout_s in (0, HANG_TIMEOUTS_S[-1]))
    budget = checkpoint_budget()
    return [
        Row("checkpoint by an empty method, ns", found.get(plain, "ns"), budget, found.get(plain, "yardstick ns")),
        Row(f"{watched}, ns", found.get(watched, "ns"), budget, found.get(watched, "yardstick ns")),
        # Nothing may be added, and what is timed twice differs by a few percent.
        Row(f"{watched}, by that without, ns", found.get(watched, "ns"), 1.05, found.get(plain, "ns")),
        Row("import by dataclasses and logging, ms", found.get("import", "ms"), 15.0),
        Row("idle, context switches/s", found.get(_key(OURS, SMALL), "idle switches/s"), 0.0),
    ]


def _hang_rows(found: Findings, count: int) -> list[Row]:
    return [
        Row(f"idle, {count} PINs, {key}, % of a core", found.get(key, "idle CPU %"), 1.0)
        for key in (f"hang_timeout={timeout_s}" for timeout_s in HANG_TIMEOUTS_S)
    ]


def _status_rows(found: Findings, count: int) -> list[Row]:
    key = f"status of {count}"
    value, yardstick = found.get(key, "ms"), found.get(key, "yardstick ms")
    return [
        Row(f"{key} PINs, ms", value, 50.0),
        Row(f"{key} PINs, by json of the same text, ms", value, None, yardstick),
    ]


def _memory_rows(found: Findings) -> list[Row]:
    values = [
        (
            what,
            budget,
            *(found.get(_key(contender, SMALL), f"{what} kB") for contender in (OURS, BARE, BARE_WITH_IMPORTS)),
        )
        for what, budget in (("worker", 1.1), ("master", 2.5))
    ]
    return [
        Row(f"PSS of a {what}, kB", value, budget, bare, imports, by_imports=True)
        for what, budget, value, bare, imports in values
    ]


def _many_rows(found: Findings, count: int) -> list[Row]:
    """What so many cost, for each of them, by what fewer cost; and by the bare loop with as many.

    The latter tells how much of it is the machine's: whatever walks through all who share a page, such as a monitor of
    the memory, holds up every fork among so many.
    """

    def each(contender: Contender, of: int, name: str) -> float | None:
        value = found.get(f"tenths of {_key(contender, of)}", name)
        return value if value is None or name == "event ms" else value / of

    rows: list[Row] = []
    for what, name in (("start", "start ms"), ("a tenth killed", "event ms"), ("stop", "stop ms")):
        many = each(OURS, count, name)
        budget = 2.0 if name == "event ms" else None
        rows.append(Row(f"{count} PINs, {what}, by {SMALL} PINs, ms each", many, budget, each(OURS, SMALL, name)))
        rows.append(Row(f"{count} PINs, {what}, by the bare loop, ms each", many, None, each(BARE, count, name)))
    return rows
