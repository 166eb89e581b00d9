"""What type checkers make of the testing kit; nothing runs this file. Its manner is that of `handlers.py`."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from typing_extensions import assert_type

from pyworkers import App, Previous
from pyworkers.testing import (
    HandlerResult,
    Instance,
    Life,
    SimulatedAttempt,
    Timeline,
    WorkerStatus,
    run_handler,
    simulate,
)

app = App("shop")


@app.worker(pins=range(2))
def sell(pin: int) -> None: ...


@app.worker(pins=2)
async def fetch() -> int:
    return 0


# A handler in this process

result = run_handler(app, sell)
assert_type(result, HandlerResult)
assert_type(result.exit_code, int)
assert_type(result.checkpoints, int)
assert_type(result.units, tuple[str, ...])
assert_type(result.marks, tuple[tuple[int, int | None], ...])
assert_type(result.slept, float)
assert_type(result.stop_all, int | None)
run_handler(app, fetch, 2, stop_at=3, signals={1: signal.SIGUSR1}, sleep=print, time_limit=1)
run_handler(app, sell, pin=1, previous=Previous("exit=1", 1, ""), generation=3, hooks=False)
run_handler(app, "sell")  # type: ignore[arg-type]
run_handler(app, sell, stop_at="3")  # type: ignore[arg-type]
result.exit_code = 0  # type: ignore[misc]


# Simulated time

by_pin: dict[int, Life] = {0: Life()}
by_name: dict[str, list[Life]] = {"sell": [Life(exit=1, after=0.2), Life(signal=signal.SIGKILL, after=5)]}


def endless() -> Iterator[Life]:
    while True:
        yield Life(hang=True, after=3, leaves_after=math.inf)


timeline = simulate(app, by_pin)
assert_type(timeline, Timeline)
assert_type(timeline.attempts, tuple[SimulatedAttempt, ...])
assert_type(timeline.exit_code, int | None)
assert_type(timeline.failed, Mapping[int, float])
assert_type(timeline.backoff("sell"), float)
assert_type(timeline.of(0)[0].delay, float | None)
simulate(app, by_name, seconds=60, stop_after=30, jitter=lambda delay: delay / 2)
simulate(app, {0: Life(), "sell": endless()})
simulate(app, {"sell": "exit 1"})  # type: ignore[dict-item]
Life(0.2)  # type: ignore[call-arg]


# A real instance


def test_shop(pyworkers_instance: type[Instance], tmp_path: Path) -> None:
    with pyworkers_instance(
        "shop:app", "--debug", directory=tmp_path, env={"SHOP": "7", "HOME": None}, time_limit=5
    ) as instance:
        assert_type(instance, Instance)
        assert_type(instance.pid, int)
        assert_type(instance.exit_code, int | None)
        assert_type(instance.log, str)
        assert_type(instance.status(), tuple[WorkerStatus, ...])
        assert_type(instance.pid_of(1), int)
        assert_type(instance.kill(1, signal.SIGTERM), int)
        assert_type(instance.wait_for_respawn(1), int)
        assert_type(instance.wait_for_log("sold"), list[re.Match[str]])
        assert_type(instance.stop(), int)
    stop: Callable[[], int] = Instance("shop:app", source="").stop
    assert_type(stop(), int)
    Instance(app)  # type: ignore[arg-type]
