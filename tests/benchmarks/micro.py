"""What needs no arena: the price of a checkpoint and of an import."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
import timeit
from collections.abc import Callable

from pyworkers import App


class _Yardstick:
    """An object with an empty method, as far away as `App.checkpoint`."""

    def checkpoint(self) -> None:
        """Do nothing."""


def checkpoint_ratio(rounds: int) -> float:
    """Return the time of `checkpoint()` with nothing pending, by that of an empty method."""
    ours, theirs = _timer(App("micro")), _timer(_Yardstick())
    # The best of each: what is measured takes no time of its own to wait for.
    return min(ours() for _ in range(rounds)) / min(theirs() for _ in range(rounds))


def _timer(owner: object) -> Callable[[], float]:
    return functools.partial(timeit.timeit, "owner.checkpoint()", globals={"owner": owner}, number=200_000)


def import_ms(rounds: int) -> float:
    """Return how much longer `import pyworkers` takes than `import dataclasses, logging`."""
    ours, theirs = ([_run(f"import {what}") for _ in range(rounds)] for what in ("pyworkers", "dataclasses, logging"))
    return min(ours) - min(theirs)


def _run(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - began) * 1e3
