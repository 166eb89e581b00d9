"""`python -m benchmarks`: all who are here, with the same work, in rounds that take turns; medians, and ratios.

Every figure is of one machine and one run. The ratios are by the bare loop of the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.arena import Arena
from benchmarks.contenders import BARE, BARE_WITH_IMPORTS, OURS, PEERS, Contender
from benchmarks.measure import abandon, percentile, play
from benchmarks.micro import checkpoint_ratio, import_ms

Figures = dict[str, list[float]]


def main() -> None:
    """Parse the arguments, run, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure pyworkers beside its peers.")
    parser.add_argument("--sizes", default="10,100", help="numbers of workers (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender runs (default: %(default)s)")
    parser.add_argument("--respawns", type=int, default=50, help="workers killed one by one (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of contenders with commas between them (default: all)")
    given = parser.parse_args()
    contenders = _chosen(given.only)
    print(f"checkpoint() by an empty method: {checkpoint_ratio(15):.2f}")
    print(f"import pyworkers over import dataclasses, logging: {import_ms(15):.1f} ms\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="arena-") as directory, Arena(Path(directory)) as arena:
        for size in map(int, given.sizes.split(",")):
            _show(size, _played(arena, contenders, size, given))


def _chosen(only: str) -> list[Contender]:
    contenders: list[Contender] = []
    for contender in (BARE, BARE_WITH_IMPORTS, OURS, *PEERS):
        if only and contender.name not in only.split(","):
            continue
        if contender.missing:
            print(f"{contender.name} does not take part: {contender.missing}")
        else:
            contenders.append(contender)
    return contenders


def _played(arena: Arena, contenders: Sequence[Contender], size: int, given: argparse.Namespace) -> dict[str, Figures]:
    found: dict[str, Figures] = {contender.name: {} for contender in contenders}
    for number in range(given.rounds):
        # Each round in the other direction, so that nobody always follows the same one.
        for contender in contenders if number % 2 else reversed(contenders):
            for name, values in play(arena, contender, size, given.respawns).items():
                found[contender.name].setdefault(name, []).extend(values)
    for contender in contenders:
        found[contender.name]["orphans"] = [abandon(arena, contender, size)]
    return found


def _show(size: int, found: Mapping[str, Figures]) -> None:
    columns = {name: None for figures in found.values() for name in figures}
    print(f"{size} workers, medians" + ("; in brackets by the bare loop" if BARE.name in found else ""))
    print(f"{'':22}" + "".join(f"{column:>18}" for column in [*columns, "respawn p99 ms"]))
    for name, figures in found.items():
        cells = [_cell(figures.get(column), found.get(BARE.name, {}).get(column)) for column in columns]
        respawns, bare = figures.get("respawn ms"), found.get(BARE.name, {}).get("respawn ms")
        cells.append(_cell(respawns and [percentile(respawns, 0.99)], bare and [percentile(bare, 0.99)]))
        print(f"{name:22}" + "".join(f"{cell:>18}" for cell in cells))
    print(flush=True)


def _cell(values: Sequence[float] | None, yardstick: Sequence[float] | None) -> str:
    if not values:
        return "-"
    value = statistics.median(values)
    ratio = f" ({value / statistics.median(yardstick):.2f})" if yardstick and statistics.median(yardstick) else ""
    return f"{value:.4g}{ratio}"


if __name__ == "__main__":
    main()
