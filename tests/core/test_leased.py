"""A PIN that is leased: no process without the row, none after it, and the keeper of the rows hears of every end."""

from __future__ import annotations

from typing import Any

import pytest

from core.stage import GRACEFUL, KILL, Stage, acts, only
from pyworkers._core import messages as m
from pyworkers._core.messages import Next
from pyworkers._core.rows import RowDone, RowGranted, RowLapsed, RowRevoked, RowsAnswered, Vacate
from pyworkers._core.standing import standing_of
from pyworkers._core.types import (
    Backoff,
    Exited,
    ExitStatus,
    Failed,
    Finished,
    Killing,
    Pin,
    Purpose,
    Restart,
    Running,
    Signaled,
    SlotPlan,
    Stopping,
    Waiting,
)

PIN = Pin(0)
PLAN = SlotPlan(PIN, leased=True)
KILLED = Signaled(9)


def held(plan: SlotPlan = PLAN) -> Stage:
    """Return a stage on which the row of the one PIN is held, and its worker is up."""
    stage = Stage(plan)
    stage.start(up=False)
    stage.feed(RowGranted(PIN))
    stage.tick()
    stage.up()
    return stage


def revoke(stage: Stage, in_s: float) -> list[m.Effect]:
    return stage.feed(RowRevoked(PIN, stage.now + in_s))


def test_nothing_is_forked_without_the_row() -> None:
    """A start alone leaves the PIN waiting, for as long as it takes."""
    stage = Stage(PLAN)

    assert only(stage.start(up=False) + stage.advance(1e6), m.Spawn) == []
    assert stage.state() == Waiting()
    assert stage.wakes_in is None


def test_row_makes_the_fork_due_at_once() -> None:
    """Like every fork, it is carried out by the deadline."""
    stage = Stage(PLAN)
    stage.start(up=False)

    assert stage.feed(RowGranted(PIN)) == []
    assert stage.state() == Backoff(stage.now)
    assert only(stage.tick(), m.Spawn) == [m.Spawn(PIN, stage.attempt())]


def test_worker_of_a_lost_row_gets_the_ladder_up_to_its_end() -> None:
    """TERM at once, QUIT at 80 % of what is left, KILL at the end of it: not at the end of `stop_timeout`."""
    stage = held()
    stage.now += 100
    revoke(stage, 1.0)
    stage.advance(2.0)

    assert acts(stage) == [(100, "TERM"), (100.25, "TERM"), (100.5, "TERM"), (100.8, "QUIT"), (101, "KILL")]
    assert stage.state().purpose is Purpose.LEASE


def test_own_stop_timeout_is_kept_where_it_is_shorter() -> None:
    """Time to leave is no reason to take it."""
    stage = held(SlotPlan(PIN, leased=True, stop_timeout=0.5))
    revoke(stage, 10.0)
    stage.advance(1.0)

    assert acts(stage)[-1] == (0.5, "KILL")


def test_no_time_left_means_kill_at_once() -> None:
    """Somebody else may have started already."""
    stage = held()
    revoke(stage, -3.0)

    assert acts(stage) == [(0, "KILL")]
    assert isinstance(stage.state(), Killing)


def test_end_after_a_lost_row_is_no_failure_and_waits_for_the_next_row() -> None:
    """The keeper hears that the PIN is free and still wanted."""
    stage = held(SlotPlan(PIN, leased=True, max_restarts=0))
    revoke(stage, 1.0)
    effects = stage.exit(Exited(143))

    (ended,) = only(effects, m.WorkerEnded)
    assert (ended.follows, ended.is_failure, ended.purpose, ended.delay_s) == (Next.LEASE, False, Purpose.LEASE, 0.0)
    assert only(effects, Vacate) == [Vacate(PIN, done=False, wanted=True)]
    assert stage.state() == Waiting()
    stage.feed(RowGranted(PIN))
    assert only(stage.tick(), m.Spawn)


def test_restart_never_is_kept_waiting_too() -> None:
    """Its worker has not failed, so the PIN has not."""
    stage = held(SlotPlan(PIN, leased=True, restart=Restart.NEVER))
    revoke(stage, 1.0)
    stage.exit(Exited(143))

    assert stage.state() == Waiting()


@pytest.mark.parametrize("options", [{"restart": Restart.NEVER}, {"max_restarts": 0}])
@pytest.mark.parametrize("status", [Exited(143), KILLED])
def test_end_that_the_master_was_too_late_to_ask_for_is_none_of_a_failure(status: ExitStatus, options: Any) -> None:
    """It was held up: the worker's own timer, or the helper, came first."""
    stage = held(SlotPlan(PIN, leased=True, **options))
    lapsed = stage.feed(RowLapsed(PIN))
    effects = stage.exit(status)

    assert lapsed == []
    (ended,) = only(effects, m.WorkerEnded)
    assert (ended.follows, ended.is_failure, ended.purpose) == (Next.LEASE, False, Purpose.LEASE)
    assert only(effects, Vacate) == [Vacate(PIN, wanted=True)]
    assert stage.state() == Waiting()
    stage.feed(RowGranted(PIN))
    assert only(stage.tick(), m.Spawn)


def test_lapsed_row_changes_no_other_reason_to_leave() -> None:
    """A stop stays a stop, and what ended normally is done."""
    stopped, done = held(), held()
    stopped.feed(GRACEFUL)
    for stage in (stopped, done):
        stage.feed(RowLapsed(PIN))

    (ended,) = only(stopped.exit(Exited(143)), m.WorkerEnded)
    assert ended.purpose is Purpose.STOP
    assert only(done.exit(Exited(0)), Vacate) == [Vacate(PIN, done=True)]


def test_row_that_lapsed_before_the_worker_was_up_is_no_failed_start() -> None:
    """As one that is lost then."""
    stage = Stage(PLAN)
    stage.start(up=False)
    stage.feed(RowGranted(PIN))
    stage.tick()
    stage.feed(RowLapsed(PIN))

    assert only(stage.exit(KILLED), m.Announce) == []


def test_crash_keeps_the_row() -> None:
    """A respawn on the same row tells the keeper nothing."""
    stage = held()
    effects = stage.exit(KILLED) + stage.advance(60)

    assert only(effects, Vacate) == []
    assert only(effects, m.Spawn)


def test_row_lost_in_backoff_keeps_the_respawn_from_happening() -> None:
    """Also where it was due in the same instant: no process was there, so the PIN is free at once."""
    stage = held()
    stage.exit(KILLED)
    effects = revoke(stage, 5.0)

    assert only(effects, Vacate) == [Vacate(PIN, wanted=True)]
    assert only(stage.advance(60), m.Spawn) == []
    assert stage.state() == Waiting()


def test_worker_on_its_way_out_gets_no_more_time_than_the_row() -> None:
    """It was recycled, with 8 s to leave; then the row is lost, with one."""
    stage = held(SlotPlan(PIN, leased=True, max_runtime=10.0))
    stage.advance(10.0)
    assert stage.state().purpose is Purpose.RECYCLE
    began = stage.now
    revoke(stage, 1.0)
    stage.advance(2.0)

    assert isinstance(stage.state(), Killing)
    assert acts(stage)[-1] == (round(began - 1000.0 + 1.0, 6), "KILL")
    (ended,) = only(stage.exit(KILLED), m.WorkerEnded)
    assert ended.follows is Next.LEASE


def test_normal_end_tells_that_the_pin_is_done() -> None:
    """So that nobody starts it again in this run."""
    stage = held()
    effects = stage.exit(Exited(0))

    assert only(effects, Vacate) == [Vacate(PIN, done=True)]
    assert stage.state() == Finished()


def test_always_wants_its_row_also_after_a_normal_end() -> None:
    """A PIN that is to be there for ever is never done."""
    stage = held(SlotPlan(PIN, leased=True, restart=Restart.ALWAYS))
    revoke(stage, 1.0)
    effects = stage.exit(Exited(0))

    assert only(effects, Vacate) == [Vacate(PIN, done=False, wanted=True)]


def test_failed_pin_gives_its_row_back() -> None:
    """It is not done: another host may have more luck."""
    stage = held(SlotPlan(PIN, leased=True, max_restarts=0))
    effects = stage.exit(Exited(1))

    assert only(effects, Vacate) == [Vacate(PIN)]
    assert stage.state() == Failed()


def test_done_elsewhere_is_finished_here() -> None:
    """A master whose PINs are all done has nothing left to do."""
    stage = Stage(PLAN)
    stage.start(up=False)
    effects = stage.feed(RowDone(PIN))

    assert only(effects, m.Finish) == [m.Finish(0, stopped=False)]


def test_stop_while_waiting_ends_at_once() -> None:
    """And takes the PIN from the list of those who are wanted."""
    stage = Stage(PLAN)
    stage.start(up=False)
    effects = stage.feed(GRACEFUL)

    assert only(effects, Vacate) == [Vacate(PIN)]
    assert only(effects, m.Finish)


def test_stop_gives_each_row_back_when_its_worker_has_ended() -> None:
    """Not before, and not all together at the end."""
    stage = held()
    assert only(stage.feed(GRACEFUL), Vacate) == []
    assert only(stage.exit(Exited(143)), Vacate) == [Vacate(PIN)]


def test_row_lost_in_a_stop_shortens_the_stop() -> None:
    """The ladder of the stop would have gone on for 8 s."""
    stage = held()
    stage.feed(GRACEFUL)
    revoke(stage, 1.0)
    stage.advance(1.0)

    assert isinstance(stage.state(), Killing)
    assert stage.state().purpose is Purpose.STOP


@pytest.mark.parametrize("event", [RowGranted(PIN), RowDone(PIN), RowLapsed(PIN), RowRevoked(PIN, 0.0)])
def test_news_that_mean_nothing_are_ignored_with_a_report(event: m.Event) -> None:
    """Of a PIN that is over, that is not leased, that is not there."""
    over, plain = held(), Stage(SlotPlan(PIN))
    over.exit(Exited(0))
    plain.start()
    other = Stage(SlotPlan(Pin(1), leased=True))

    assert [only(stage.feed(event), m.EventIgnored) for stage in (over, plain, other)] != [[], [], []]
    assert isinstance(plain.state(), Running)


def test_grant_of_a_running_pin_is_ignored() -> None:
    """A second one forks nothing."""
    stage = held()

    (ignored,) = only(stage.feed(RowGranted(PIN)), m.EventIgnored)
    assert ignored.because == "state Running"
    assert only(stage.advance(10), m.Spawn) == []


def test_doomed_group_takes_those_that_wait_along() -> None:
    """A PIN of the group has failed for good: who waits for its row does not wait any longer."""
    plans = [SlotPlan(Pin(pin), leased=True, group="g", max_restarts=0) for pin in range(2)]
    stage = Stage(*plans)
    stage.start(up=False)
    stage.feed(RowGranted(PIN))
    stage.tick()
    stage.up()
    effects = stage.exit(Exited(1))

    assert stage.state(1) == Failed()
    assert only(effects, Vacate) == [Vacate(Pin(0)), Vacate(Pin(1))]


def test_second_stop_kills_whoever_leaves_for_its_row() -> None:
    """A stop is a stop, whatever else is going on."""
    stage = held()
    revoke(stage, 5.0)
    assert isinstance(stage.state(), Stopping)
    stage.feed(KILL)

    assert acts(stage)[-1] == (0, "KILL")


RESTART = m.RestartRequested("test")


def test_restart_keeps_the_row() -> None:
    """Nobody else can come in between: the next worker is due when the old one has ended."""
    stage = held()
    stage.feed(RESTART)
    ended = stage.exit(KILLED)

    assert only(ended, Vacate) == []
    assert only(ended, m.WorkerEnded)[0].follows is Next.RESPAWN
    assert only(stage.tick(), m.Spawn) == [m.Spawn(PIN, stage.attempt())]


def test_row_that_is_lost_in_a_restart_is_waited_for() -> None:
    """The restart is owed still, and no start has failed."""
    stage = Stage(PLAN)
    stage.start(up=False)
    stage.feed(RowGranted(PIN))
    stage.tick()
    stage.feed(RESTART)
    revoke(stage, 1.0)
    ended = stage.exit(KILLED)

    assert only(ended, Vacate) == [Vacate(PIN, wanted=True)]
    assert only(ended, m.Announce) == []
    assert stage.state() == Waiting()


def test_lease_that_is_lost_before_the_worker_is_up_is_no_failed_start() -> None:
    """It is asked to leave as any other."""
    stage = Stage(PLAN)
    stage.start(up=False)
    stage.feed(RowGranted(PIN))
    stage.tick()
    revoke(stage, 1.0)

    assert only(stage.exit(KILLED), m.Announce) == []


def test_restart_of_one_that_has_failed_asks_for_its_row_again() -> None:
    """It was given back when the PIN failed, so somebody else may have it by now."""
    stage = Stage(SlotPlan(PIN, leased=True, restart=Restart.NEVER), SlotPlan(Pin(1)))
    stage.start(up=False)
    stage.feed(RowGranted(PIN))
    stage.tick()
    stage.up()
    assert only(stage.exit(KILLED), Vacate) == [Vacate(PIN)]
    assert stage.state() == Failed()

    restarted = stage.feed(m.RestartRequested("test", (PIN,)))
    assert only(restarted, Vacate) == [Vacate(PIN, wanted=True)]
    assert stage.state() == Waiting()
    assert only(stage.tick(), m.Spawn) == []
    stage.feed(RowGranted(PIN))
    assert only(stage.tick(), m.Spawn) == [m.Spawn(PIN, stage.attempt())]


def test_restart_leaves_alone_who_waits_and_who_is_done() -> None:
    """A row that is not held gives no process, and a PIN that ended normally is done for all masters."""
    stage = Stage(PLAN, SlotPlan(Pin(1), leased=True), SlotPlan(Pin(2)))
    stage.start(up=False)
    stage.feed(RowDone(PIN))
    restarted = stage.feed(RESTART)

    assert only(restarted, Vacate) == []
    assert (stage.state(0), stage.state(1)) == (Finished(), Waiting())
    assert [act.pin for act in only(restarted, m.Act)] == [2]


def test_row_that_comes_while_its_group_restarts_starts_with_the_group() -> None:
    """Not beside a worker that is still on its way out."""
    stage = Stage(*(SlotPlan(Pin(pin), leased=True, group="all") for pin in range(3)))
    stage.start(up=False)
    for pin in (0, 1):
        stage.feed(RowGranted(Pin(pin)))
    stage.tick()
    for pin in (0, 1):
        stage.up(pin)
    stage.exit(KILLED, 0)
    stage.feed(RowGranted(Pin(2)))
    assert only(stage.tick(), m.Spawn) == []

    stage.exit(KILLED, 1)
    assert sorted(spawn.pin for spawn in only(stage.advance(1.0), m.Spawn)) == [0, 1, 2]


def test_start_is_over_when_the_database_has_answered_and_all_who_hold_a_row_are_up() -> None:
    """One that waits for a row may do so for a year, and its service manager must not."""
    stage = Stage(PLAN, SlotPlan(Pin(1), leased=True))
    stage.start(up=False)
    assert not standing_of(stage.core).is_started

    stage.feed(RowGranted(PIN))
    assert stage.feed(RowsAnswered()) == []
    stage.tick()
    assert not standing_of(stage.core).is_started
    assert only(stage.up(), m.Announce) == [m.Announce(True)]
    assert standing_of(stage.core).is_started
    assert stage.feed(RowsAnswered()) == []


def test_each_who_holds_a_row_has_to_come_up() -> None:
    """In whatever order they do, and whoever waits in between."""
    stage = Stage(*(SlotPlan(Pin(pin), leased=True) for pin in range(5)))
    stage.start(up=False)
    for pin in (0, 2, 4):
        stage.feed(RowGranted(Pin(pin)))
    stage.feed(RowsAnswered())
    stage.tick()

    assert [only(stage.up(pin), m.Announce) for pin in (4, 0, 2)] == [[], [], [m.Announce(True)]]


def test_start_is_over_at_the_first_answer_where_all_rows_are_taken_or_done() -> None:
    """There is nothing to come."""
    stage = Stage(PLAN, SlotPlan(Pin(1), leased=True))
    stage.start(up=False)
    stage.feed(RowDone(PIN))

    assert stage.feed(RowsAnswered()) == [m.Announce(True)]


@pytest.mark.parametrize("status", [Exited(1), KILLED])
def test_worker_that_ends_before_it_is_up_fails_the_start_after_the_answer_too(status: ExitStatus) -> None:
    """The answer came when its row was granted, long before it could be up."""
    stage = Stage(PLAN, SlotPlan(Pin(1), leased=True))
    stage.start(up=False)
    stage.feed(RowGranted(PIN))
    stage.feed(RowsAnswered())
    stage.tick()

    assert only(stage.exit(status), m.Announce) == [m.Announce(False)]


def test_start_waits_no_longer_for_one_who_loses_its_row() -> None:
    """Before it was forked, or before it was up."""
    early, late = Stage(PLAN, SlotPlan(Pin(1), leased=True)), Stage(PLAN, SlotPlan(Pin(1), leased=True))
    for stage in (early, late):
        stage.start(up=False)
        stage.feed(RowGranted(PIN))
        stage.feed(RowsAnswered())
    late.tick()

    assert only(revoke(early, 1.0), m.Announce) == [m.Announce(True)]
    assert only(revoke(late, 1.0), m.Announce) == []
    assert only(late.exit(Exited(143)), m.Announce) == [m.Announce(True)]
