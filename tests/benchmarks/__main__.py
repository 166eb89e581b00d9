"""`python -m benchmarks`: what pyworkers costs, beside its peers (the default), by its budget, over time, or under siege.

Every figure is of one machine and one run. The ratios are by the bare loop of the same run.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import peers
from benchmarks.arena import Arena


def main() -> None:
    """Parse the arguments, run, and print."""
    # What was started is cleaned up on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = _parser().parse_args()
    if given.mode == "plot":
        from benchmarks.plot import draw_again

        draw_again(given.figures, given.picture)
        return
    with tempfile.TemporaryDirectory(prefix="arena-") as directory, Arena(Path(directory)) as arena:
        if given.mode == "budget":
            from benchmarks import budget

            budget.run(arena, given)
        elif given.mode == "soak":
            from benchmarks import soak

            soak.run(arena, given)
        elif given.mode == "siege":
            from benchmarks import siege

            siege.run(arena, given)
        else:
            peers.run(arena, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure pyworkers.")
    _table_options(parser, rounds=3, respawns=50)
    parser.add_argument("--sizes", default="10,100", help="numbers of workers (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of contenders with commas between them (default: all)")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the figures of the largest size")
    modes = parser.add_subparsers(dest="mode", title="other modes than the comparison with its peers")
    budget = modes.add_parser("budget", help="what pyworkers may cost, and what it does")
    _table_options(budget, rounds=3, respawns=100)
    budget.add_argument("--large", type=int, default=1000, help="workers of the large instance (default: %(default)s)")
    budget.add_argument("--many", type=int, default=0, help="workers of a very large one (default: none)")
    budget.add_argument("--ten-thousand", dest="many", action="store_const", const=10_000, help="the same as 10000")
    soak = modes.add_parser("soak", help="respawns at a steady rate: what grows?")
    soak.add_argument("--minutes", type=float, default=10, help="(default: %(default)s)")
    soak.add_argument("--rate", type=float, default=100, help="respawns a second (default: %(default)s)")
    siege = modes.add_parser("siege", help="respawns while clients besiege the control socket")
    siege.add_argument("--rounds", type=int, default=4, help="(default: %(default)s)")
    siege.add_argument("--messages", type=int, default=100_000, help="in all rounds (default: %(default)s)")
    siege.add_argument("--markdown", action="store_true", help="print a table of Markdown")
    plot = modes.add_parser("plot", help="draw again, without a measurement")
    plot.add_argument("figures", type=Path, metavar="FILE.json")
    plot.add_argument("picture", type=Path, metavar="FILE.svg")
    return parser


def _table_options(parser: argparse.ArgumentParser, *, rounds: int, respawns: int) -> None:
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each runs (default: %(default)s)")
    parser.add_argument(
        "--respawns", type=int, default=respawns, help="workers killed one by one in a round (default: %(default)s)"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables of Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures there")


if __name__ == "__main__":
    main()
