"""pyworkers, as its users write it. What is measured besides a plain instance is switched on in the environment."""

from __future__ import annotations

import os
import time

from reports import WARM
from work import report

from pyworkers import App

COUNT = int(os.environ["BENCHMARK_COUNT"])
SPARES = int(os.environ.get("BENCHMARK_SPARES", "0"))
WARM_UP_S = float(os.environ.get("BENCHMARK_WARM_UP_S", "0"))
HANG_TIMEOUT_S = float(os.environ.get("BENCHMARK_HANG_TIMEOUT_S", "0")) or None

app = App("ours", spares=SPARES, hang_timeout=HANG_TIMEOUT_S)
# Only app.sleep reaches a checkpoint, from which on a worker is watched.
sleep = app.sleep if HANG_TIMEOUT_S else time.sleep


@app.worker(pins=range(COUNT))
def work(pin: int) -> None:
    report(pin)
    sleep(10_000)


if SPARES or WARM_UP_S:

    @app.on_worker_warm
    def warm_up() -> None:
        time.sleep(WARM_UP_S)
        report(WARM)
