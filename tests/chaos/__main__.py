"""`python -m chaos`: fire a plan at a real instance, say what was fired, and leave with 1 where something did not hold."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from chaos.plan import planned
from chaos.run import besiege


def main() -> int:
    """Parse the arguments, run, and print."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Shoot at a real instance, from a seed.")
    parser.add_argument("--seed", type=int, help="what to repeat (default: random)")
    parser.add_argument("--seconds", type=float, default=120, help="how long to fire (default: %(default)s)")
    parser.add_argument("--plan", action="store_true", help="only print the plan of the seed, shot by shot")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed
    plan = planned(seed, given.seconds)
    print(f"seed {seed}, {given.seconds:g} s, {len(plan)} shots", flush=True)
    if given.plan:
        print(*plan, sep="\n")
        return 0
    directory = Path(tempfile.mkdtemp(prefix="chaos-")).resolve()
    (directory / "plan").write_text("".join(f"{shot}\n" for shot in plan))
    began = time.monotonic()
    outcome = besiege(directory, seed, plan)
    for name, count in outcome.table.items():
        print(f"{count:8,} {name}")
    print(f"{len(outcome.violations)} violations in {time.monotonic() - began:.0f} s")
    if outcome.violations:
        print(*outcome.violations[:50], sep="\n")
        print(
            f"plan, records and logs are in {directory}; again: python -m chaos --seed {seed} --seconds {given.seconds:g}"
        )
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
