"""Taking over from the program before: what goes on as it was, what is replaced, and where the roll halts."""

from __future__ import annotations

import json

import pytest

from core.stage import GRACEFUL, START, Stage, acts, only, spare_plan
from pyworkers._core import messages as m
from pyworkers._core import policy
from pyworkers._core.handover import KINDS, Codec
from pyworkers._core.heir import Heir, legacy_of
from pyworkers._core.types import (
    FIRST_SPARE,
    Attempt,
    Backoff,
    Exited,
    Failed,
    Finished,
    Pin,
    Purpose,
    Restart,
    Running,
    Signaled,
    SlotPlan,
    Starting,
    Stopping,
)

STOPPED = Exited(143)


def plans(count: int, **options: object) -> list[SlotPlan]:
    return [SlotPlan(Pin(pin), **options) for pin in range(count)]  # type: ignore[arg-type]


def reload(stage: Stage, *declared: SlotPlan, rolling: bool = True) -> list[m.Effect]:
    """Let a new program take over on this stage, by way of JSON, and return what it does first."""
    codec = Codec(KINDS)
    legacy = codec.unpack(json.loads(json.dumps(codec.pack(legacy_of(stage.core)))))
    stage.core = Heir(declared, lambda delay_s: delay_s, legacy, rolling=rolling)
    stage.history.clear()
    return stage.feed(m.StartRequested()) + stage.advance(0.0)


def staged(count: int, **options: object) -> Stage:
    stage = Stage(*plans(count, **options))
    stage.start()
    stage.now += 10.0
    return stage


def leave(stage: Stage, pin: int) -> list[m.Effect]:
    """Let a worker follow the request to leave, and its successor be forked."""
    return stage.exit(STOPPED, pin) + stage.advance(0.0)


def replace_one(stage: Stage, pin: int) -> list[m.Effect]:
    """Let a worker be replaced, and its successor live for long enough."""
    return leave(stage, pin) + stage.up(pin) + stage.advance(policy.CANARY_S)


def live(stage: Stage) -> dict[int, int]:
    """Return the attempt of each PIN that has a process."""
    return {pin: state.attempt for pin, state in stage.core.snapshot().items() if hasattr(state, "attempt")}


def test_workers_are_replaced_one_at_a_time_in_the_order_of_their_pins() -> None:
    """The next is asked to leave when the one before it is up, and the first has lived for a moment."""
    stage = staged(3)
    effects = reload(stage, *plans(3))

    assert effects[0] == m.RollStarted(3, 0, 0)
    assert only(effects, m.Act) == [m.Act(Pin(0), Attempt(1), m.Action.TERMINATE)]
    leave(stage, 0)
    assert live(stage) == {0: 2, 1: 1, 2: 1}
    stage.up(0)
    assert not acts(stage, 1)
    stage.advance(policy.CANARY_S)
    assert len(acts(stage, 1)) == 1
    leave(stage, 1)
    assert not acts(stage, 2)
    # The handler is proven: nothing to wait for but that it is up.
    effects = stage.up(1)
    assert only(effects, m.Act) == [m.Act(Pin(2), Attempt(1), m.Action.TERMINATE)]
    leave(stage, 2)
    assert stage.up(2) == [m.RollEnded(3)]
    assert live(stage) == {0: 2, 1: 2, 2: 2}
    assert stage.advance(1000.0) == []


def test_first_pin_of_each_handler_has_to_live_for_a_moment() -> None:
    """Each handler is code of its own."""
    declared = [SlotPlan(Pin(0), handler=0), SlotPlan(Pin(1), handler=1), SlotPlan(Pin(2), handler=1)]
    stage = Stage(*declared)
    stage.start()
    reload(stage, *declared)
    replace_one(stage, 0)
    leave(stage, 1)
    stage.up(1)

    assert not acts(stage, 2)
    stage.advance(policy.CANARY_S)
    assert acts(stage, 2)


@pytest.mark.parametrize("comes_up", [False, True])
def test_roll_halts_at_the_first_pin_that_does_not_come_up(comes_up: bool) -> None:
    """G: that PIN alone is down, and the others go on with the code that they run."""
    stage = staged(3)
    reload(stage, *plans(3))
    leave(stage, 0)
    if comes_up:
        stage.up(0)
        stage.now += policy.CANARY_S / 2
    effects = stage.exit(Exited(1), 0)

    assert effects[-1] == m.RollHalted(Pin(0), 2)
    stage.advance(60.0)
    assert not only(stage.exit(Exited(1), 0), m.RollHalted)
    stage.advance(3600.0)
    assert live(stage) == {0: live(stage)[0], 1: 1, 2: 1}
    assert not acts(stage, 1)
    assert not only([effect for _, effect in stage.history], m.RollEnded)


def test_one_that_was_replaced_and_dies_young_halts_the_roll() -> None:
    """What is wrong with the new code may need a moment to show; who has not been replaced by then is spared."""
    stage = staged(4)
    reload(stage, *plans(4))
    replace_one(stage, 0)
    leave(stage, 1)
    stage.up(1)
    assert acts(stage, 2)
    leave(stage, 2)
    effects = stage.exit(Signaled(11), 1)

    assert effects[-1] == m.RollHalted(Pin(1), 2)
    stage.up(2)
    stage.advance(60.0)
    assert not acts(stage, 3)


def test_one_that_was_replaced_and_dies_later_is_only_respawned() -> None:
    """A worker that has lived is no verdict on the code."""
    stage = staged(3)
    reload(stage, *plans(3))
    replace_one(stage, 0)
    stage.now += 5.0
    stage.exit(Exited(1), 0)
    replace_one(stage, 1)

    assert not only([effect for _, effect in stage.history], m.RollHalted)
    assert acts(stage, 2)


def test_fork_that_fails_is_waited_for() -> None:
    """It is the system's fault, not the code's."""
    stage = staged(2)
    reload(stage, *plans(2))
    stage.forks_fail = True
    leave(stage, 0)
    stage.advance(60.0)
    assert not acts(stage, 1)
    stage.forks_fail = False
    stage.advance(60.0)
    stage.up(0)
    stage.advance(policy.CANARY_S)

    assert acts(stage, 1)


def test_worker_that_ends_well_instead_has_finished() -> None:
    """A normal end is never respawned, and the roll goes on."""
    stage = staged(2)
    reload(stage, *plans(2))
    stage.exit(Exited(0), 0)

    assert isinstance(stage.state(0), Finished)
    assert acts(stage, 1)


def test_worker_that_crashes_while_it_waits_is_respawned_with_the_new_code_and_not_again() -> None:
    """Its successor is new already: when its turn comes, it has only to be up."""
    stage = staged(3)
    reload(stage, *plans(3))
    stage.exit(Signaled(9), 1)
    stage.advance(0.0)
    stage.up(1)
    replace_one(stage, 0)

    assert live(stage) == {0: 2, 1: 2, 2: 1}
    assert not acts(stage, 1)
    assert acts(stage, 2)


def test_who_waits_for_a_respawn_or_was_given_up_is_started_in_its_turn() -> None:
    """New code is what such a PIN has been waiting for."""
    stage = staged(3, restart=Restart.NEVER)
    stage.exit(Exited(1), 0)
    assert isinstance(stage.state(0), Failed)
    reload(stage, *plans(3))

    assert isinstance(stage.state(0), Starting)
    stage.up(0)
    stage.advance(policy.CANARY_S)
    assert acts(stage, 1)


def test_who_has_finished_stays_so() -> None:
    """A normal end is never respawned, by no reload either."""
    stage = staged(2)
    stage.exit(Exited(0), 0)
    reload(stage, *plans(2))

    assert isinstance(stage.state(0), Finished)
    assert acts(stage, 1)


def test_crash_loop_keeps_its_count() -> None:
    """Where no new code has come, a PIN that waits goes on waiting, and the next delay is twice this one."""
    stage = Stage(SlotPlan(Pin(0), backoff=(1.0, 100.0)))
    stage.start(up=False)
    for _ in range(4):
        stage.exit(Exited(1))
        stage.advance(stage.state().respawn_at - stage.now)
    stage.exit(Exited(1))
    before = stage.state()
    assert before == Backoff(stage.now + 8.0)
    reload(stage, SlotPlan(Pin(0), backoff=(1.0, 100.0)), rolling=False)

    assert stage.state() == before
    stage.advance(8.0)
    (ended,) = only(stage.exit(Exited(1)), m.WorkerEnded)
    assert ended.delay_s == 16.0


def test_pins_that_are_new_start_and_those_that_are_gone_are_stopped_at_once() -> None:
    """The rest is replaced one at a time meanwhile."""
    stage = staged(3)
    effects = reload(stage, SlotPlan(Pin(1)), SlotPlan(Pin(2)), SlotPlan(Pin(9)))

    assert effects[0] == m.RollStarted(2, 1, 1)
    assert [effect.pin for effect in only(effects, m.Spawn)] == [9]
    assert stage.state(0).purpose is Purpose.SCALE
    stage.exit(STOPPED, 0)
    assert sorted(stage.core.snapshot()) == [1, 2, 9]
    assert live(stage) == {1: 1, 2: 1, 9: 1}


def test_spares_with_the_old_code_take_no_pin() -> None:
    """They are replaced first, all at once: nobody misses them."""
    stage = Stage(*plans(2), spare_plan())
    stage.start()
    effects = reload(stage, *plans(2), spare_plan())
    assert isinstance(stage.state(FIRST_SPARE), Stopping)
    effects = leave(stage, 0)

    assert [effect.pin for effect in only(effects, m.Spawn)] == [0]
    effects = leave(stage, FIRST_SPARE)
    assert [effect.pin for effect in only(effects, m.Spawn)] == [FIRST_SPARE]


def test_spare_that_nobody_declares_any_more_is_dismissed() -> None:
    """The new code has fewer of them."""
    stage = Stage(*plans(1), spare_plan(), spare_plan(1))
    stage.start()
    reload(stage, *plans(1), spare_plan())
    stage.exit(STOPPED, FIRST_SPARE + 1)

    assert sorted(stage.core.snapshot()) == [0, FIRST_SPARE]


def test_group_is_replaced_together() -> None:
    """Who lives together starts together."""
    stage = staged(3, group="g")
    effects = reload(stage, *plans(3, group="g"))
    assert [effect.pin for effect in only(effects, m.Act)] == [0, 1, 2]
    for pin in range(3):
        stage.exit(STOPPED, pin)
    effects = stage.advance(0.0)

    assert [effect.pin for effect in only(effects, m.Spawn)] == [0, 1, 2]
    for pin in range(3):
        stage.up(pin)
    assert m.RollEnded(3) in stage.advance(policy.CANARY_S)


@pytest.mark.parametrize("status", [Exited(0), STOPPED])
def test_roll_waits_for_all_of_a_group(status: Exited) -> None:
    """Also for one that only the new code has, and where the one whose turn it was has finished."""
    stage = staged(2)
    declared = [SlotPlan(Pin(0), group="g"), SlotPlan(Pin(1)), SlotPlan(Pin(2), group="g")]
    reload(stage, *declared)
    stage.exit(status, 0)
    stage.advance(0.0)
    if status == STOPPED:
        stage.up(0)
    stage.advance(policy.CANARY_S)
    assert not acts(stage, 1)
    stage.up(2)

    assert [action for _, action in acts(stage, 1)] == ["TERM"]


def test_new_pin_of_a_group_that_dies_halts_the_roll() -> None:
    """It is started with those that are replaced."""
    stage = staged(2)
    reload(stage, SlotPlan(Pin(0), group="g"), SlotPlan(Pin(1)), SlotPlan(Pin(2), group="g"))
    leave(stage, 0)
    effects = stage.exit(Exited(1), 2)

    assert m.RollHalted(Pin(2), 2) in effects
    assert not acts(stage, 1)


def test_group_whose_new_code_dies_halts_the_roll() -> None:
    """Also where it is another PIN of the group than the one whose turn it is."""
    stage = Stage(*plans(2, group="g"), SlotPlan(Pin(2), handler=1))
    stage.start()
    stage.now += 10.0
    declared = [*plans(2, group="g"), SlotPlan(Pin(2), handler=1)]
    reload(stage, *declared)
    for pin in range(2):
        stage.exit(STOPPED, pin)
    stage.advance(0.0)
    stage.up(0)
    effects = stage.exit(Exited(1), 1)

    assert m.RollHalted(Pin(1), 2) in effects
    assert not acts(stage, 2)


def test_instance_is_up_when_who_was_not_is_gone() -> None:
    """Whoever waits for the start is told, if all that are left have been up."""
    stage = Stage(*plans(2))
    stage.start(up=False)
    stage.up(0)
    effects = reload(stage, SlotPlan(Pin(0)))

    assert m.Announce(up=True) in effects


def test_group_that_was_about_to_start_again_does_so() -> None:
    """A reload in the middle of a group's restart loses nobody."""
    stage = staged(3, group="g")
    stage.exit(Exited(1), 0)
    stage.exit(STOPPED, 1)
    reload(stage, *plans(3, group="g"), rolling=False)
    stage.exit(STOPPED, 2)
    effects = stage.advance(1.0)

    assert sorted(effect.pin for effect in only(effects, m.Spawn)) == [0, 1, 2]


def test_stop_ends_the_roll() -> None:
    """G8: nothing is started after it, and it is as short as ever."""
    stage = staged(3)
    reload(stage, *plans(3))
    stage.feed(GRACEFUL)
    effects = [effect for pin in range(3) for effect in stage.exit(STOPPED, pin)]

    assert not only(effects, m.Spawn)
    assert effects[-1] == m.Finish(0, stopped=True)


def test_without_new_code_nobody_is_replaced() -> None:
    """Where the new program could not start after all, those who run go on."""
    stage = staged(3)
    effects = reload(stage, *plans(3), rolling=False)

    assert effects == []
    assert live(stage) == {0: 1, 1: 1, 2: 1}
    assert stage.wakes_in is None


def test_without_code_nobody_leaves_for_whom_nobody_could_follow() -> None:
    """Not by the operator's wish, not for age, and not with a group; a stop is a stop."""
    stage = staged(3, group="g", max_runtime=100.0)
    reload(stage, *plans(3, group="g", max_runtime=100.0), rolling=False)

    for event in (
        m.RestartRequested("restart"),
        m.RestartRequested("restart", (Pin(1),)),
        m.ScaleRequested("scale", 5),
    ):
        (refused,) = stage.feed(event)
        assert isinstance(refused, m.RequestRefused)
        assert refused.because == "since the last reload there is no code to run: mend it and reload again"
    stage.advance(1000.0)
    stage.exit(Exited(1), 0)
    assert not only([effect for _, effect in stage.history], m.Act)
    assert {pin for pin in live(stage) if pin} == {1, 2}

    stage.feed(GRACEFUL)
    (refused,) = stage.feed(m.RestartRequested("restart"))
    assert isinstance(refused, m.RequestRefused)
    assert refused.because == "it is stopping"
    assert len(only([effect for _, effect in stage.history], m.Act)) == 2


def test_who_was_worn_without_code_is_recycled_with_the_next() -> None:
    """The next program that can start replaces all of them."""
    stage = staged(1, max_runtime=100.0)
    reload(stage, *plans(1, max_runtime=100.0), rolling=False)
    stage.advance(1000.0)
    reload(stage, *plans(1, max_runtime=100.0))

    assert len(acts(stage, 0)) == 1
    replace_one(stage, 0)
    assert live(stage) == {0: 2}


def test_reload_in_the_middle_of_a_roll_begins_anew() -> None:
    """Nobody knows how old the code of a worker is: all are replaced again."""
    stage = staged(3)
    reload(stage, *plans(3))
    leave(stage, 0)
    stage.up(0)
    reload(stage, *plans(3))

    assert acts(stage, 0) == [(stage.now - START, "TERM")]
    for pin in range(3):
        replace_one(stage, pin)
    assert live(stage) == {0: 3, 1: 2, 2: 2}
    assert isinstance(stage.state(0), Running)
