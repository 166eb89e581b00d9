"""A stop that comes before all PINs have ended normally: a shard says so by its exit code."""

from __future__ import annotations

import pytest

from core.stage import GRACEFUL, INTERRUPT, KILL, Stage, only, spare_plan
from pyworkers._core import messages as m
from pyworkers._core.types import Exited, Pin, Restart, Signaled, SlotPlan

STOPPED, BY_INT = 143, 130


def shard(*plans: SlotPlan) -> Stage:
    """Return a stage with two PINs, or these, whose master tells of a stop."""
    return Stage(*(plans or (SlotPlan(Pin(0)), SlotPlan(Pin(1)))), cut_codes=(STOPPED, BY_INT))


def code_of(effects: list[m.Effect]) -> int:
    (finish,) = only(effects, m.Finish)
    return finish.exit_code


@pytest.mark.parametrize(("request_", "code"), [(GRACEFUL, STOPPED), (INTERRUPT, BY_INT)])
def test_stop_of_a_shard_with_work_left_has_its_own_code(request_: m.Event, code: int) -> None:
    """Engines take 0 for work that is done."""
    stage = shard()
    stage.start()
    stage.exit(Exited(0), 0)
    stage.feed(request_)

    assert code_of(stage.exit(Exited(143), 1)) == code


def test_stop_of_all_pins_has_none() -> None:
    """Without a shard a stop is as good an end as any."""
    stage = Stage(SlotPlan(Pin(0)))
    stage.start()
    stage.feed(GRACEFUL)

    assert code_of(stage.exit(Exited(143))) == 0


def test_shard_that_ended_its_work_in_the_stop_is_done() -> None:
    """Who was asked to leave, and had nothing left to do, has finished."""
    stage = shard()
    stage.start()
    stage.feed(GRACEFUL)
    stage.exit(Exited(0), 0)

    assert code_of(stage.exit(Exited(0), 1)) == 0


def test_worker_that_never_ends_is_cut_by_every_stop() -> None:
    """Under restart="always" a normal end is followed by a new worker, so it is no end of the work."""
    stage = shard(SlotPlan(Pin(0), restart=Restart.ALWAYS))
    stage.start()
    stage.feed(GRACEFUL)

    assert code_of(stage.exit(Exited(0))) == STOPPED


def test_pin_in_a_backoff_is_cut_by_a_stop() -> None:
    """It has no process, and it is not done."""
    stage = shard(SlotPlan(Pin(0)))
    stage.start()
    stage.exit(Exited(1))
    stage.advance(0.0)
    stage.exit(Exited(1))

    assert code_of(stage.feed(GRACEFUL)) == STOPPED


def test_spare_is_no_work() -> None:
    """Its end is always by a stop, and says nothing of the PINs."""
    stage = shard(SlotPlan(Pin(0)), spare_plan())
    stage.start()
    stage.exit(Exited(0), 0)
    (spare,) = [pin for pin in stage.core.snapshot() if pin != 0]

    assert code_of(stage.exit(Exited(143), spare)) == 0


def test_torn_unit_and_a_code_that_was_asked_for_come_first() -> None:
    """1 tells more than that there was a stop; `stop_all` has the last word, as ever."""
    torn = shard(SlotPlan(Pin(0)))
    torn.start()
    torn.feed(KILL)
    assert code_of(torn.exit(Signaled(9))) == 1

    asked = shard(SlotPlan(Pin(0)))
    asked.start()
    asked.feed(m.StopRequested(m.StopKind.GRACEFUL, "stop_all", 7))
    assert code_of(asked.exit(Exited(143))) == 7
