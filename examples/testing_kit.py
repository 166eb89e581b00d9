"""13. Tests of workers: of example 4, in this very process, in simulated time, and with a real instance.

A stop at each of the first eight checkpoints shows that no transfer is ever torn. Then an hour of a crash loop passes
in a millisecond, and at last a real worker is killed, by the fixture that comes with pyworkers.

    python -m pytest examples/testing_kit.py

You will see `10 passed`; it takes about two seconds.
"""

from __future__ import annotations

import signal

import pytest
from examples.atomic_units import accounts, app, transfer, transfers

from pyworkers.testing import Instance, Life, run_handler, simulate


@pytest.mark.parametrize("stop_at", range(1, 9))
def test_stop_tears_no_transfer(stop_at: int) -> None:
    """A transfer has two checkpoints: before it, and where it leaves `app.critical`."""
    transfers.clear()

    result = run_handler(app, transfer, stop_at=stop_at, signals={1: signal.SIGUSR1})

    assert result.exit_code == 143
    assert result.checkpoints == stop_at
    assert len(transfers) == len(result.units) == stop_at // 2
    assert sum(accounts.values()) == 1000


def test_crash_loop_costs_nothing() -> None:
    """Workers that keep dying young are started again every 30 seconds in the end, so 128 times in an hour."""
    timeline = simulate(app, {"transfer": Life(exit=1, after=0.2)}, seconds=3600)

    assert [round(attempt.delay or 0, 3) for attempt in timeline.of(0)][:4] == [0, 0.1, 0.2, 0.4]
    assert len(timeline.of(0)) == 128
    assert timeline.exit_code is None


def test_worker_that_is_killed_is_replaced(pyworkers_instance: type[Instance]) -> None:
    """The other one does not notice, and the stop is a graceful one."""
    instance = pyworkers_instance("examples.atomic_units:app")
    instance.wait_until_up()
    other = instance.pid_of(0)

    killed = instance.kill(1)

    assert instance.wait_for_respawn(1) != killed
    assert instance.pid_of(0) == other
    assert instance.stop() == 0
