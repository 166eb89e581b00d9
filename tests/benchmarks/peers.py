"""All who keep workers running, with the same work, in rounds that take turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.arena import Arena, Overdue
from benchmarks.contenders import BARE, BARE_WITH_IMPORTS, OURS, OURS_WITH_SPARE, PEERS, Contender
from benchmarks.measure import Figures, Workload, orphans, play
from benchmarks.table import comparison, rendered

IDLE_S = 2.0


def chosen(only: str) -> list[Contender]:
    """Return who takes part: those with these names, or all; who cannot is told."""
    contenders: list[Contender] = []
    for contender in (BARE, BARE_WITH_IMPORTS, OURS, OURS_WITH_SPARE, *PEERS):
        if only and contender.name not in only.split(","):
            continue
        if contender.missing:
            say(f"{contender.name} does not take part: {contender.missing}")
        else:
            contenders.append(contender)
    return contenders


def say(text: str) -> None:
    """Tell how far it is; what is found goes to the standard output, and this does not."""
    print(text, file=sys.stderr, flush=True)


def run(arena: Arena, given: argparse.Namespace) -> None:
    """Measure for each size, and print each table when it is complete."""
    contenders = chosen(given.only)
    found: dict[str, dict[str, Figures]] = {}
    for size in map(int, given.sizes.split(",")):
        found[str(size)] = played(arena, contenders, size, given)
        print(f"\n{size} workers, medians; in brackets by the {BARE.name}; {conditions()}\n")
        print(rendered(comparison(found[str(size)], BARE.name), markdown=given.markdown), flush=True)
        if given.json:
            given.json.write_text(json.dumps({**machine(), "sizes": found}, indent=1) + "\n")
    if given.plot:
        from benchmarks.plot import draw

        draw(found, given.plot)


def machine() -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "python": platform.python_version(),
        "system": platform.system() + " " + platform.release(),
        "cores": len(os.sched_getaffinity(0)),
    }


def conditions() -> str:
    """Return the same in words."""
    found = machine()
    return f"Python {found['python']}, {found['system']}, {found['cores']} cores"


def played(arena: Arena, contenders: Sequence[Contender], size: int, given: argparse.Namespace) -> dict[str, Figures]:
    """Return the figures of each contender. One that fails is not asked again, so that it costs little patience."""
    found: dict[str, Figures] = {contender.name: {} for contender in contenders}
    # This comes first: it also compiles what is imported and brings it into memory.
    left = [each for each in contenders if _abandoned(arena, each, size, found[each.name])]
    for number in range(given.rounds):
        # A worker may die again once it is old enough, so that many respawns of few workers are mostly a wait.
        work = Workload(size, min(given.respawns, 3 * size), 0.0 if number else IDLE_S)
        # Each round in the other direction, so that nobody always follows the same one.
        for contender in list(left if number % 2 else reversed(left)):
            began = time.monotonic()
            figures, failure = play(arena, contender, work)
            say(
                f"{size} workers, round {number + 1} of {given.rounds}: {contender.name}, "
                f"{time.monotonic() - began:.1f} s{failure and '; gave up at ' + failure}"
            )
            for name, values in figures.items():
                found[contender.name].setdefault(name, []).extend(values)
            if failure:
                left.remove(contender)
    return found


def _abandoned(arena: Arena, contender: Contender, size: int, figures: Figures) -> bool:
    began = time.monotonic()
    try:
        figures["orphans"] = [orphans(arena, contender, size)]
    except (Overdue, OSError) as error:
        say(f"{size} workers, {contender.name}: gave up at {error}")
        return False
    say(f"{size} workers, orphans: {contender.name}, {time.monotonic() - began:.1f} s")
    return True
