"""What an operator can want of a running instance: new processes on some PINs, more PINs, or fewer."""

from __future__ import annotations

from typing import Any

import pytest

from core.stage import GRACEFUL, Stage, only, spare_plan
from pyworkers._core import messages as m
from pyworkers._core.messages import GivenUp, Next
from pyworkers._core.records import replace
from pyworkers._core.scheduler import scaled
from pyworkers._core.types import (
    FIRST_SPARE,
    PINS_MAX,
    Action,
    Backoff,
    Exited,
    Failed,
    Finished,
    Phase,
    Pin,
    Purpose,
    Restart,
    Signaled,
    SlotPlan,
)

ALL = SlotPlan(Pin(0), handler=7)
"""What the PINs of the catch-all have in common."""


def restart(*pins: int) -> m.RestartRequested:
    return m.RestartRequested("test", tuple(map(Pin, pins)) or None)


def scale(count: int, *, relative: bool = False) -> m.ScaleRequested:
    return m.ScaleRequested("test", count, relative)


def scalable(*pins: int, named: tuple[int, ...] = (), **options: Any) -> Stage:
    """Return a stage with these PINs of the catch-all, and these of another handler."""
    catch_all = replace(ALL, **options)
    plans = [replace(catch_all, pin=Pin(pin)) for pin in pins]
    stage = Stage(*plans, *(SlotPlan(Pin(pin)) for pin in named), catch_all=catch_all)
    stage.start()
    return stage


def test_restart_goes_down_the_ladder_and_starts_at_once() -> None:
    """TERM first; whatever abnormal end follows, the next process is due at once, and it is no failure."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()

    assert stage.feed(restart(1)) == [
        m.RestartStarted("test", (Pin(1),), 2),
        m.Act(Pin(1), stage.attempt(1), Action.TERMINATE),
    ]
    (ended,) = only(stage.exit(Exited(143), 1), m.WorkerEnded)
    assert (ended.follows, ended.delay_s, ended.purpose, ended.is_failure) == (
        Next.RESPAWN, 0.0, Purpose.RESTART, False,
    )  # fmt: skip
    assert [effect.pin for effect in only(stage.tick(), m.Spawn)] == [1]


def test_restart_of_all_is_at_once() -> None:
    """Without PINs all are asked in the same instant: a roll is what a reload does."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(3)))
    stage.start()

    assert [effect.pin for effect in only(stage.feed(restart()), m.Act)] == [0, 1, 2]


def test_restarted_worker_that_ends_normally_has_finished() -> None:
    """It was done before it heard of it."""
    stage = Stage()
    stage.start()
    stage.feed(restart())

    assert stage.exit(Exited(0))[0].follows is Next.FINISHED


@pytest.mark.parametrize("policy", [{"restart": Restart.NEVER}, {"max_restarts": 0}, {}], ids=str)
def test_restart_counts_for_no_limit(policy: dict[str, Any]) -> None:
    """Neither restart=never nor the restart intensity is about what an operator wants."""
    stage = Stage(SlotPlan(Pin(0), **policy))
    stage.start()
    stage.feed(restart())

    assert stage.exit(Signaled(9))[0].follows is Next.RESPAWN


@pytest.mark.parametrize("status", [Exited(0), Exited(78)])
def test_restart_of_a_closed_pin_starts_it_anew(status: Exited) -> None:
    """Finished or failed, it is forked again; the other PIN keeps the instance alive."""
    stage = Stage(SlotPlan(Pin(0), permanent_failure_codes=frozenset({78})), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(status)
    assert isinstance(stage.state(), Finished | Failed)

    assert stage.feed(restart(0)) == [m.RestartStarted("test", (Pin(0),), 1)]
    assert only(stage.tick(), m.Spawn) == [m.Spawn(Pin(0), stage.attempt())]
    assert stage.attempt() == 2


def test_restart_forgets_what_counted() -> None:
    """After it, a crash loop begins at no delay and with all its restarts."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=2, backoff=(1.0, 8.0)), SlotPlan(Pin(1)))
    stage.start()
    for _ in range(2):
        stage.exit(Exited(1))
        stage.advance(8.0)
    assert stage.exit(Exited(1))[0].given_up is GivenUp.INTENSITY

    stage.feed(restart(0))
    stage.tick()
    ended = stage.exit(Exited(1))[0]
    assert (ended.follows, ended.delay_s, ended.short_lives, ended.restart_count) == (Next.RESPAWN, 0.0, 1, 1)


def test_restart_in_backoff_is_due_now() -> None:
    """Nobody who asks for it wants to wait for the rest of the delay."""
    stage = Stage(SlotPlan(Pin(0), backoff=(30.0, 30.0)))
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.exit(Exited(1))
    assert stage.wakes_in == 30.0

    stage.feed(restart(0))
    assert len(only(stage.tick(), m.Spawn)) == 1


def test_restart_of_one_restarts_its_group() -> None:
    """All of a group start together, when the last has ended; a finished member too."""
    stage = Stage(*(SlotPlan(Pin(pin), group="g") for pin in range(3)), SlotPlan(Pin(3)))
    stage.start()
    stage.exit(Exited(0), 2)

    assert stage.feed(restart(0))[0] == m.RestartStarted("test", (Pin(0), Pin(1), Pin(2)), 3)
    stage.exit(Exited(143), 0)
    assert only(stage.tick(), m.Spawn) == []
    stage.exit(Exited(143), 1)
    assert [effect.pin for effect in only(stage.tick(), m.Spawn)] == [0, 1, 2]


def test_restart_of_a_failed_group_starts_it_anew() -> None:
    """What was given up all together comes back all together, and can be given up again."""
    stage = Stage(*(SlotPlan(Pin(pin), group="g", max_restarts=0) for pin in range(2)), SlotPlan(Pin(2)))
    stage.start()
    stage.exit(Exited(1), 0)
    stage.exit(Exited(143), 1)
    assert isinstance(stage.state(1), Failed)

    stage.feed(restart(1))
    assert [effect.pin for effect in only(stage.tick(), m.Spawn)] == [0, 1]
    assert stage.exit(Exited(1), 1)[0].given_up is GivenUp.INTENSITY


def test_restart_brings_dismissed_spares_back() -> None:
    """The first PIN of a handler that is open again needs its spare again."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1), handler=1), spare_plan())
    stage.start()
    stage.exit(Exited(0))
    stage.exit(Exited(143), FIRST_SPARE)
    assert stage.state(FIRST_SPARE) == Finished(cut=True)

    stage.feed(restart(0))
    assert [effect.pin for effect in only(stage.tick(), m.Spawn)] == [0, FIRST_SPARE]


@pytest.mark.parametrize("pins", [(9,), (0, 9), (FIRST_SPARE,)])
def test_restart_of_an_unknown_pin_is_refused(pins: tuple[int, ...]) -> None:
    """A slip of the hand has no effect at all, also on the PINs beside it."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan())
    stage.start()

    (refused,) = stage.feed(restart(*pins))
    assert refused == m.RequestRefused("test", f"there is no PIN {max(pins)}")


@pytest.mark.parametrize("event", [restart(), scale(2)])
def test_wishes_are_refused_in_a_stop_and_before_the_start(event: m.Event) -> None:
    """Who is on the way out takes none, and who has not begun neither."""
    stage = Stage(ALL, catch_all=ALL)
    assert stage.feed(event) == [m.RequestRefused("test", "it has not started")]
    stage.start()
    stage.feed(GRACEFUL)

    assert stage.feed(event) == [m.RequestRefused("test", "it is stopping")]


def test_restart_before_it_was_up_is_no_failed_start() -> None:
    """The start is judged by the process that the operator wanted, not by the one that had to go."""
    stage = Stage()
    stage.start(up=False)
    stage.feed(restart())

    assert only(stage.exit(Exited(143)), m.Announce) == []
    stage.tick()
    assert only(stage.up(), m.Announce) == [m.Announce(up=True)]


# Scaling


@pytest.mark.parametrize(
    ("own", "others", "count", "expected"),
    [
        ([0, 1], [], 4, ([2, 3], [])),
        ([0, 4], [1, 2], 4, ([3, 5], [])),
        ([0, 3, 9], [1], 1, ([], [3, 9])),
        ([5], [], 2, ([0], [])),
        ([0, 1], [], 2, ([], [])),
    ],
)
def test_lowest_free_pins_are_added_and_highest_own_removed(
    own: list[int], others: list[int], count: int, expected: tuple[list[int], list[int]]
) -> None:
    """Whoever scales up and down again has the PINs of before."""
    assert scaled([Pin(pin) for pin in own], [Pin(pin) for pin in others], count) == expected


def test_scale_adds_pins_with_the_options_of_the_handler() -> None:
    """The new PINs are forked at once, in their order, and come after those of others."""
    stage = scalable(0, 1, named=(2,))

    assert stage.feed(scale(4))[0] == m.Scaled("test", 4, (Pin(3), Pin(4)), (), ALL)
    assert only(stage.tick(), m.Spawn) == [m.Spawn(Pin(3), 1), m.Spawn(Pin(4), 1)]
    assert list(stage.core.snapshot()) == [0, 1, 2, 3, 4]


def test_scale_removes_the_highest_pins_of_the_handler() -> None:
    """They are stopped as in a stop, and are gone with their process, whatever its end; nobody follows."""
    stage = scalable(0, 1, 5, named=(9,))

    assert stage.feed(scale(1)) == [
        m.Scaled("test", 1, (), (Pin(1), Pin(5)), ALL),
        m.Act(Pin(1), 1, Action.TERMINATE),
        m.Act(Pin(5), 1, Action.TERMINATE),
    ]
    (ended,) = stage.exit(Signaled(9), 5)
    assert (ended.follows, ended.purpose, ended.is_failure) == (Next.STOPPED, Purpose.SCALE, False)
    assert list(stage.core.snapshot()) == [0, 1, 9]
    assert only(stage.tick(), m.Spawn) == []


def test_pin_that_comes_back_waits_for_its_old_process() -> None:
    """G1: taken away and added again while its process is leaving, it has one process after the other."""
    stage = scalable(0, 1)
    stage.feed(scale(1))

    assert only(stage.feed(scale(2)) + stage.tick(), m.Spawn) == []
    assert stage.exit(Exited(143), 1)[0].follows is Next.RESPAWN
    assert only(stage.tick(), m.Spawn) == [m.Spawn(Pin(1), 2)]


def test_attempts_go_on_where_a_pin_comes_back() -> None:
    """News of its former life can never be taken for that of the new one."""
    stage = scalable(0, 1)
    stage.feed(scale(1))
    stage.exit(Exited(143), 1)

    stage.feed(scale(2))
    assert only(stage.tick(), m.Spawn) == [m.Spawn(Pin(1), 2)]


def test_steps_count_from_what_is_wanted() -> None:
    """TTIN twice adds two; TTOU takes one of them away, also before it was forked."""
    stage = scalable(0)
    stage.feed(scale(1, relative=True))
    stage.feed(scale(1, relative=True))

    assert stage.feed(scale(-1, relative=True))[0] == m.Scaled("test", 2, (), (Pin(2),), ALL)
    assert [effect.pin for effect in only(stage.tick(), m.Spawn)] == [1]


@pytest.mark.parametrize("count", [0, -1, PINS_MAX + 1])
def test_bad_counts_are_refused(count: int) -> None:
    """Nobody means them: an instance without PINs would end, and a million is the most that there can be."""
    stage = scalable(0)

    (refused,) = stage.feed(scale(count))
    assert refused.because == f"the number of its PINs must be 1 to 1,000,000, got {count:,}"


def test_without_a_catch_all_nothing_can_be_scaled() -> None:
    """Every other handler has said which PINs are its own; and what a shard could add, others may have."""
    stage = Stage()
    stage.start()

    assert stage.feed(scale(2)) == [
        m.RequestRefused(
            "test", "only a worker without pins can have more or fewer, and none of a shard, --lease or --only"
        )
    ]


def test_start_is_complete_when_those_are_up_that_are_left() -> None:
    """Who is taken away before it was up is not waited for; who is added, is."""
    stage = Stage(ALL, replace(ALL, pin=Pin(1)), catch_all=ALL)
    stage.start(up=False)
    stage.up(0)
    assert stage.core.phase is Phase.STARTING

    assert only(stage.feed(scale(1)), m.Announce) == [m.Announce(up=True)]
    assert only(stage.exit(Exited(143), 1), m.Announce) == []
    assert stage.core.phase is Phase.RUNNING


def test_failed_pin_that_is_taken_away_does_not_count_any_more() -> None:
    """The exit code is about the PINs that there are."""
    stage = scalable(0, 1, max_restarts=0)
    stage.exit(Exited(1), 1)
    stage.feed(scale(1))

    assert stage.exit(Exited(0), 0)[-1] == m.Finish(0, stopped=False)


def test_pin_of_a_group_is_added_to_it() -> None:
    """It starts at once, and from then on with the others; to a failed group nothing is added."""
    stage = scalable(0, 1, group="g", max_restarts=0)
    stage.feed(scale(3))
    stage.tick()
    stage.up(2)

    assert [effect.pin for effect in only(stage.exit(Exited(1), 0), m.Act)] == [1, 2]
    (refused,) = stage.feed(scale(4))
    assert refused.because == "its group g has failed; restart that first"


def test_pin_that_is_added_while_its_group_restarts_waits_with_it() -> None:
    """All of the group start together."""
    stage = scalable(0, 1, group="g")
    stage.exit(Exited(1), 0)
    stage.feed(scale(3))
    assert stage.state(2) == Backoff(float("inf"))

    stage.exit(Exited(143), 1)
    assert [effect.pin for effect in only(stage.tick(), m.Spawn)] == [0, 1, 2]


def test_stop_ends_who_was_being_taken_away() -> None:
    """The instance does not end before the last of them."""
    stage = scalable(0, 1)
    stage.feed(scale(1))
    stage.feed(GRACEFUL)
    assert only(stage.exit(Exited(143), 0), m.Finish) == []

    assert stage.exit(Exited(143), 1)[-1] == m.Finish(0, stopped=True)
