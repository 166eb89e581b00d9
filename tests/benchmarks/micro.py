"""What needs no arena: the price of a checkpoint and of an import."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from pyworkers import App

HERE = Path(__file__).parent
CALLS = 200_000


class _Yardstick:
    """An object with an empty method, as far away as `App.checkpoint`."""

    def checkpoint(self) -> None:
        """Do nothing."""


def checkpoint_ns(app: App, rounds: int) -> tuple[float, float]:
    """Return the time of `checkpoint()` with nothing pending, and that of an empty method."""
    ours, theirs = _timer(app), _timer(_Yardstick())
    timed = [(ours(), theirs()) for _ in range(rounds)]
    # The best of each: what is measured takes no time of its own to wait for.
    best, yardstick = map(min, zip(*timed, strict=True))
    return best / CALLS * 1e9, yardstick / CALLS * 1e9


def _timer(owner: object) -> Callable[[], float]:
    return functools.partial(timeit.timeit, "owner.checkpoint()", globals={"owner": owner}, number=CALLS)


def checkpoint_in_worker_ns(hang_timeout_s: float) -> tuple[float, float]:
    """Return what `checkpoint_ns` finds in a worker; a timeout of 0 is none."""
    with TemporaryDirectory() as directory:
        result = Path(directory) / "result"
        environ = {
            "PYTHONPATH": f"{HERE}:{HERE / 'masters'}",
            "BENCHMARK_HANG_TIMEOUT_S": str(hang_timeout_s),
            "BENCHMARK_RESULT": str(result),
        }
        command = [sys.executable, "-m", "pyworkers", "checkpoint:app"]
        subprocess.run(command, env=os.environ | environ, check=True, capture_output=True, timeout=60)
        ours, theirs = map(float, result.read_text().split())
        return ours, theirs


def import_ms(rounds: int) -> float:
    """Return how much longer `import pyworkers` takes than `import dataclasses, logging`."""
    with TemporaryDirectory() as directory:
        environ = compiled(Path(directory))
        # One more for each, which compiles.
        timed = [(_run("pyworkers", environ), _run("dataclasses, logging", environ)) for _ in range(rounds + 1)]
    ours, theirs = map(min, zip(*timed[1:], strict=True))
    return ours - theirs


def compiled(directory: Path) -> dict[str, str]:
    """Return an environment in which Python keeps what it has compiled, as it does by default, but there."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**environ, "PYTHONPYCACHEPREFIX": str(directory / "pycache")}


def _run(what: str, environ: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {what}"], env=environ, check=True)
    return (time.perf_counter() - began) * 1e3
