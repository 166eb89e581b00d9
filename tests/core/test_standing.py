"""How the instance stands, in numbers, through every state of its PINs."""

from __future__ import annotations

from core.stage import GRACEFUL, Stage, spare_plan
from pyworkers._core.standing import Standing, standing_of
from pyworkers._core.types import Exited, Pin, Restart, SlotPlan


def standing(stage: Stage) -> tuple[int, int, tuple[int, ...], int, int, int]:
    """Return what changes: up, coming, late, finished, failed, live."""
    now = standing_of(stage.core)
    return (now.up, now.coming, now.late, now.finished, now.failed, now.live)


def test_start_is_over_when_every_pin_has_been_up() -> None:
    """Spares do not count, up or not."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(2)), spare_plan())
    assert standing_of(stage.core) == Standing(2, 0, 2, (), 0, 0, 0, is_stopping=False, is_over=False)
    stage.start(up=False)
    assert standing(stage) == (0, 2, (), 0, 0, 2)
    stage.up(0)
    assert standing(stage) == (1, 1, (), 0, 0, 2)
    assert not standing_of(stage.core).is_started
    stage.up(1)

    assert standing_of(stage.core).is_started
    stage.exit(Exited(1), 0)
    assert standing(stage) == (1, 0, (), 0, 0, 1)
    assert standing_of(stage.core).is_started


def test_pin_that_ended_before_it_was_up_is_late_until_it_is_up() -> None:
    """Between its attempts and during the next one; the first attempt of another is not."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(2)))
    stage.start(up=False)
    stage.exit(Exited(1), 1)
    assert standing(stage) == (0, 2, (1,), 0, 0, 1)
    stage.advance(0.0)
    assert standing(stage) == (0, 2, (1,), 0, 0, 2)
    stage.up(1)

    assert standing(stage) == (1, 1, (), 0, 0, 2)


def test_pin_that_was_given_up_holds_no_start_back() -> None:
    """Unless there is nobody else."""
    stage = Stage(*(SlotPlan(Pin(pin), restart=Restart.NEVER) for pin in range(2)))
    stage.start(up=False)
    stage.up(0)
    stage.exit(Exited(1), 1)
    assert standing(stage) == (1, 0, (), 0, 1, 1)
    assert standing_of(stage.core).is_started

    alone = Stage(SlotPlan(Pin(0), restart=Restart.NEVER))
    alone.start(up=False)
    alone.exit(Exited(1))
    assert standing(alone) == (0, 0, (), 0, 1, 0)
    assert not standing_of(alone.core).is_started


def test_finished_work_was_started_and_a_stop_ends_the_start() -> None:
    """What is stopped before it was up was not."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(2)))
    stage.start(up=False)
    stage.up(0)
    stage.exit(Exited(0), 0)
    assert standing(stage) == (0, 1, (), 1, 0, 1)
    stage.feed(GRACEFUL)
    assert (standing_of(stage.core).is_stopping, standing_of(stage.core).is_over) == (True, False)
    assert standing_of(stage.core).live == 1
    stage.exit(Exited(143), 1)

    assert standing_of(stage.core).is_over
    assert not standing_of(stage.core).is_started
