"""`python -m sim`: run the simulation, say what has happened in it, and leave with 1 where something did not hold."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from sim.chaos import share

SHARES = 8
"""A run is cut into as many shares on any machine, so that its seed alone says what happens in it."""

APART = 1_000_000
"""From the number of a share's first instance to that of the next one's."""


def shares(seed: int, events: int, jobs: int) -> Iterator[tuple[Counter[str], str | None]]:
    """Yield the results of the shares, in their order."""
    given = repeat(seed), repeat(events // SHARES), [number * APART for number in range(SHARES)]
    if jobs == 1:
        yield from map(share, *given)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(share, *given)


def main() -> int:
    """Parse the arguments, run, and print."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="Simulate failures, from a seed.")
    parser.add_argument("--seed", type=int, help="what to repeat (default: random)")
    parser.add_argument("--events", type=int, default=1_000_000, help="how many at least (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many processes (default: %(default)s)")
    parser.add_argument("--instance", type=int, help="only this instance of the seed")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    began, counts = time.monotonic(), Counter[str]()
    results = shares(seed, given.events, given.jobs) if given.instance is None else [share(seed, 1, given.instance)]
    for happened, violation in results:
        counts += happened
        if violation is not None:
            print(violation)
            print(f"found after {counts['events']:,} events", flush=True)
            return 1
    for name in sorted(counts):
        print(f"{counts[name]:12,} {name}")
    took_s = time.monotonic() - began
    print(f"{counts['events']:,} events in {took_s:.1f} s, {counts['events'] / took_s:,.0f} a second; nothing wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
