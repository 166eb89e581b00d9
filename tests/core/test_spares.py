"""Warm spares: who takes one instead of a fork, when the next one is warmed, and when they are dismissed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.stage import GRACEFUL, KILL, QUICK, START, Stage, acts, only, spare_plan
from pyworkers._core import messages as m
from pyworkers._core import policy
from pyworkers._core.messages import GivenUp, Next, StopKind
from pyworkers._core.supervisor import DEADLINES_PER_WAKE
from pyworkers._core.types import (
    FIRST_SPARE,
    Abandoned,
    Action,
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Failed,
    Finished,
    Hung,
    Limit,
    Pin,
    Purpose,
    Restart,
    Running,
    Signaled,
    SlotPlan,
    Starting,
    Vanished,
    Wear,
    is_spare,
)

REST_S = policy.SPARE_REST_S


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next spare follow at once: these tests are about who follows whom, and those of the rest say so."""
    monkeypatch.setattr(policy, "SPARE_REST_S", 0.0)


S1, S2, S3 = FIRST_SPARE, Pin(FIRST_SPARE + 1), Pin(FIRST_SPARE + 2)
N1, N2 = Attempt(1), Attempt(2)


def _spawned(pin: int, attempt: int = 2) -> list[m.Effect]:
    return [m.Spawn(Pin(pin), Attempt(attempt)), m.WorkerStarted(Pin(pin), Attempt(attempt))]


def _assigned(pin: int, spare: Pin = S1, attempt: int = 2) -> list[m.Effect]:
    return [m.Assign(Pin(pin), Attempt(attempt), spare), m.WorkerStarted(Pin(pin), Attempt(attempt))]


def _act(action: Action, pin: int, attempt: int = 1) -> m.Act:
    return m.Act(Pin(pin), Attempt(attempt), action)


def _end(code: int, *failed: int, stopped: bool = False) -> list[m.Effect]:
    return [m.AllEnded(stopped, code, tuple(map(Pin, failed))), m.Finish(code, stopped)]


def _left(spare: Pin, status: ExitStatus, lifetime_s: float, attempt: int = 1) -> m.WorkerEnded:
    return m.WorkerEnded(spare, Attempt(attempt), status, lifetime_s, Next.STOPPED, 0.0, Purpose.STOP)


def _staged(pin_count: int, spare_count: int = 1, **options: object) -> Stage:
    """Return a stage on which PINs of one handler run beside parked spares, since 10 s."""
    pins = [SlotPlan(Pin(pin), **options) for pin in range(pin_count)]  # type: ignore[arg-type]
    stage = Stage(*pins, *map(spare_plan, range(spare_count)))
    stage.start()
    stage.now += 10.0
    return stage


# The first ones


def test_spares_are_forked_after_all_pins() -> None:
    """At the start every PIN comes before any spare, in whatever order the plans were given."""
    stage = Stage(spare_plan(1), SlotPlan(Pin(7)), spare_plan(0), SlotPlan(Pin(0)))

    assert stage.start(up=False) == [*_spawned(0, 1), *_spawned(7, 1), *_spawned(S1, 1), *_spawned(S2, 1)]
    assert (is_spare(Pin(7)), is_spare(S1)) == (False, True)


def test_spares_wait_for_the_last_batch_of_a_mass_start() -> None:
    """A mass start of several batches has forked its last PIN before the first spare."""
    stage = Stage(spare_plan(), *(SlotPlan(Pin(pin)) for pin in range(DEADLINES_PER_WAKE + 1)))
    stage.feed(m.StartRequested())

    assert [spawn.pin for spawn in only(stage.tick(), m.Spawn)] == list(range(DEADLINES_PER_WAKE))
    assert stage.tick() == [*_spawned(DEADLINES_PER_WAKE, 1), *_spawned(S1, 1)]


def test_announcement_does_not_wait_for_spares() -> None:
    """The instance is up when all of its PINs are."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)), spare_plan())
    stage.start(up=False)

    assert stage.up(0) == []
    assert stage.up(1) == [m.Announce(up=True)]
    assert stage.up(S1) == []


def test_end_of_a_spare_does_not_spoil_the_announcement() -> None:
    """A spare that never came up says nothing about the PINs."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan())
    stage.start(up=False)

    assert only(stage.exit(Exited(1), S1), m.Announce) == []
    assert stage.up(0) == [m.Announce(up=True)]


# Taken


@pytest.mark.parametrize("status", [Exited(1), Signaled(9), Vanished()])
def test_death_is_followed_by_a_parked_spare_and_a_fork_for_its_seat(status: ExitStatus) -> None:
    """The PIN gets the process that waits, and only then the next spare is forked; both in the same wake."""
    stage = _staged(1)
    stage.exit(status)

    assert stage.wakes_in == 10.0
    assert stage.tick() == [*_assigned(0), *_spawned(S1)]
    assert stage.state(0) == Starting(N2, START + 10.0, confirmed=True)
    assert stage.state(S1) == Starting(N2, START + 10.0, confirmed=True)
    assert stage.wakes_in is None
    assert stage.up(0) == []
    assert stage.state(0) == Running(N2, START + 10.0)


def test_next_spare_is_forked_when_its_forerunner_has_had_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take a processor from the process that has just taken the PIN; a death meanwhile is a fork."""
    monkeypatch.setattr(policy, "SPARE_REST_S", REST_S)
    stage = _staged(2)
    stage.exit(Exited(1), 0)

    assert stage.tick() == _assigned(0)
    assert stage.wakes_in == 10.0 + REST_S
    stage.now += REST_S / 2
    stage.exit(Exited(1), 1)
    assert stage.tick() == _spawned(1)
    assert stage.advance(REST_S / 2 - 0.001) == []
    assert stage.advance(0.001) == _spawned(S1)


def test_spare_that_has_died_is_followed_without_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has taken its process, so there is nobody to be spared."""
    monkeypatch.setattr(policy, "SPARE_REST_S", REST_S)
    stage = _staged(1)
    stage.exit(Exited(1), S1)

    assert stage.tick() == _spawned(S1)


def test_normal_end_under_always_is_followed_by_a_spare() -> None:
    """A spare does not ask why its PIN is due."""
    stage = _staged(1, restart=Restart.ALWAYS)
    stage.exit(Exited(0))

    assert stage.tick() == [*_assigned(0), *_spawned(S1)]


def test_next_spare_is_taken_as_soon_as_it_is_up() -> None:
    """Each new spare serves the next death, again and again."""
    stage = _staged(1)
    for attempt in (2, 3, 4):
        stage.exit(Exited(1))
        assert stage.tick() == [*_assigned(0, attempt=attempt), *_spawned(S1, attempt)]
        stage.up(0)
        stage.up(S1)
        stage.now += 10.0


def _starting(stage: Stage) -> None:
    stage.exit(Exited(1), S1)
    stage.tick()


def _suspended(stage: Stage) -> None:
    stage.suspend(S1)


def _up_while_suspended(stage: Stage) -> None:
    _starting(stage)
    stage.suspend(S1)
    stage.up(S1)


def _in_backoff(stage: Stage) -> None:
    stage.forks_fail = True
    _starting(stage)
    stage.forks_fail = False


def _hung(stage: Stage) -> None:
    stage.beats[S1] = START
    stage.advance(3.0)
    assert isinstance(stage.state(S1), Hung)


@pytest.mark.parametrize("prepare", [_starting, _suspended, _up_while_suspended, _in_backoff, _hung])
def test_spare_that_does_not_wait_is_not_taken(prepare: Callable[[Stage], None]) -> None:
    """A process that is not up, or cannot run, would be no gain: the PIN is forked."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan(hang_timeout=2.0))
    stage.start()
    prepare(stage)
    before = stage.state(S1)
    stage.exit(Exited(1))

    assert stage.tick() == _spawned(0)
    assert stage.state(S1) is before


def test_spare_that_goes_on_is_taken_again() -> None:
    """A suspension is over with the news that it is."""
    stage = _staged(1)
    stage.suspend(S1)
    stage.resume(S1)
    stage.exit(Exited(1))

    assert stage.tick() == [*_assigned(0), *_spawned(S1)]


def test_spare_that_has_waited_longest_is_taken_first() -> None:
    """The line is one of arrival, and who was suspended joins it anew."""
    stage = Stage(SlotPlan(Pin(0)), *map(spare_plan, range(3)))
    stage.start(up=False)
    for pin in (0, S2, S1, S3):
        stage.up(pin)
    stage.suspend(S2)
    stage.resume(S2)

    for attempt, spare in enumerate((S1, S3, S2), start=2):
        stage.exit(Exited(1))
        assert only(stage.advance(60.0), m.Assign) == [m.Assign(Pin(0), Attempt(attempt), spare)]
        stage.up(0)


def test_spare_of_another_handler_is_not_taken() -> None:
    """A spare has warmed up for its own handler only."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1), handler=1), spare_plan(0, handler=1))
    stage.start()
    stage.exit(Exited(1), 0)
    assert stage.tick() == _spawned(0)
    stage.exit(Exited(1), 1)

    assert stage.tick() == [*_assigned(1), *_spawned(S1)]


def test_pin_waits_for_its_backoff_though_a_spare_is_there() -> None:
    """A spare shortens no delay: a crash loop stays as slow as it was."""
    stage = Stage(SlotPlan(Pin(0), backoff=(0.5, 30.0)), spare_plan())
    stage.start()
    delays: list[float] = []
    for attempt in range(2, 6):
        delay_s = stage.exit(Exited(1))[0].delay_s
        delays.append(delay_s)
        stage.now += delay_s / 2
        assert delay_s == 0 or stage.tick() == []
        assert stage.advance(delay_s / 2) == [*_assigned(0, attempt=attempt), *_spawned(S1, attempt)]
        stage.up(S1)

    assert delays == [0.0, 0.5, 1.0, 2.0]


def test_few_spares_are_taken_by_the_first_of_many() -> None:
    """When many die at once, the spares go to the lowest PINs, the others are forked, and then the next spares."""
    stage = _staged(4, 2)
    for pin in range(4):
        stage.exit(Signaled(9), pin)

    assert stage.tick() == [
        *_assigned(0, S1), *_assigned(1, S2), *_spawned(2), *_spawned(3), *_spawned(S1), *_spawned(S2)
    ]  # fmt: skip


def test_spares_are_taken_once_over_all_batches_of_a_mass_death() -> None:
    """Where a mass death takes several batches, a spare that is taken in the first is not taken again in the next."""
    count = 2 * DEADLINES_PER_WAKE
    stage = _staged(count, 3)
    for pin in range(count):
        stage.exit(Signaled(9), pin)

    effects = stage.advance(0.0)

    assert [(taken.pin, taken.spare) for taken in only(effects, m.Assign)] == [(0, S1), (1, S2), (2, S3)]
    assert [spawn.pin for spawn in only(effects, m.Spawn)] == [*range(3, count), S1, S2, S3]


def test_attempts_count_spares_and_forks_alike() -> None:
    """The nth process of a PIN is its nth, wherever it came from; a fork that failed is an attempt as well."""
    stage = _staged(1)
    stage.exit(Exited(1))
    assert stage.tick() == [*_assigned(0, attempt=2), *_spawned(S1)]
    stage.now += 10.0
    stage.exit(Exited(1))
    assert stage.tick() == _spawned(0, 3)
    stage.forks_fail = True
    stage.exit(Exited(1))
    assert stage.tick()[0] == m.Spawn(Pin(0), Attempt(4))
    stage.up(S1)

    assert stage.advance(0.1)[:2] == _assigned(0, attempt=5)
    assert stage.attempt(0) == 5


def test_pin_whose_fork_has_failed_takes_a_spare() -> None:
    """Where the system cannot fork, a process that is there already is worth the most."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan())
    stage.feed(m.StartRequested())
    stage.core.handle(m.DeadlineReached(), stage.now)
    stage.feed(m.SpawnFailed(Pin(0), N1, "no memory"))
    stage.feed(m.Spawned(S1, N1))
    stage.up(S1)

    assert stage.advance(0.1) == [*_assigned(0), *_spawned(S1)]
    assert stage.up(0) == [m.Announce(up=True)]


# What becomes of who was taken


def test_end_of_who_was_a_spare_is_its_pins() -> None:
    """The life of a PIN's process counts from the assignment, and its end is one of the PIN."""
    stage = _staged(1, max_restarts=1)
    stage.exit(Exited(1))
    stage.tick()
    stage.up(0)
    stage.now += 5.0

    assert stage.exit(Exited(1)) == [
        m.WorkerEnded(
            Pin(0), N2, Exited(1), 5.0, Next.FAILED, given_up=GivenUp.INTENSITY, is_failure=True, restart_count=1
        ),
        _act(Action.TERMINATE, S1, 2),
    ]


@pytest.mark.parametrize(
    ("forks_fail", "because"), [(False, "attempt 2 is current"), (True, "no process in state Backoff")]
)
def test_news_of_a_seat_that_was_given_away_is_ignored(because: str, *, forks_fail: bool) -> None:
    """What names the spare's old process is stale, while the new one is there and while it waits for its fork."""
    stage = _staged(1)
    stage.exit(Exited(1))
    stage.forks_fail = forks_fail
    stage.tick()
    before = dict(stage.core.snapshot())

    news: list[m.Event] = [m.WorkerExited(S1, N1, Signaled(9)), m.WorkerUp(S1, N1), m.WorkerSuspended(S1, N1)]
    for event in news:
        assert stage.feed(event) == [m.EventIgnored(event, because)]
    assert stage.core.snapshot() == before


@pytest.mark.parametrize("limit", [Limit.MAX_RUNTIME, Limit.MAX_RSS])
def test_recycled_worker_is_replaced_by_a_spare_and_holds_its_turn(limit: Limit) -> None:
    """The next of the handler is asked to leave when the spare that took the first one's place says that it is up."""
    options = {"max_runtime": 10.0} if limit is Limit.MAX_RUNTIME else {"max_rss": 1000}
    stage = Stage(*(SlotPlan(Pin(pin), **options) for pin in range(2)), spare_plan())  # type: ignore[arg-type]
    stage.sizes = {0: 1001, 1: 1001}
    stage.start()
    assert only(stage.advance(30.0), m.WorkerRecycled) == [
        m.WorkerRecycled(Pin(0), N1, Wear(limit, 10.0 if limit is Limit.MAX_RUNTIME else 1001))
    ]

    stage.exit(Exited(143), 0)
    assert stage.tick() == [*_assigned(0), *_spawned(S1)]
    assert only(stage.up(0), m.WorkerRecycled, m.Act)[0].pin == 1


def test_spare_itself_holds_no_turn_and_waits_for_none() -> None:
    """Spares that come and go let the recycling of their handler go on."""
    stage = Stage(*(SlotPlan(Pin(pin), max_runtime=10.0) for pin in range(2)), spare_plan())
    stage.start()
    stage.exit(Exited(1), S1)
    stage.tick()

    assert [recycled.pin for recycled in only(stage.advance(10.0), m.WorkerRecycled)] == [0]
    stage.exit(Exited(143), 0)
    stage.tick()
    assert [recycled.pin for recycled in only(stage.up(0), m.WorkerRecycled)] == [1]


@pytest.mark.parametrize(("spare_count", "second"), [(2, _assigned(1, S2)), (1, _spawned(1))])
def test_group_restart_takes_spares(spare_count: int, second: list[m.Effect]) -> None:
    """When the last of a group has ended, all of it are due, and those that find a spare take it."""
    stage = _staged(2, spare_count, group="g")
    assert stage.exit(Exited(1), 0)[1:] == [m.GroupRestarted(Pin(0), "g", 1), _act(Action.TERMINATE, 1)]
    assert stage.tick() == []
    stage.exit(Exited(143), 1)

    spares = [S1, S2][:spare_count]
    assert stage.tick() == [
        *_assigned(0, S1), *second, *(effect for spare in spares for effect in _spawned(spare))
    ]  # fmt: skip


# Spares that die


@pytest.mark.parametrize("status", [Exited(0), Exited(1), Exited(78), Signaled(9), Vanished()])
@pytest.mark.parametrize("up", [False, True], ids=["starting", "parked"])
def test_end_of_a_spare_is_followed_by_another(status: ExitStatus, *, up: bool) -> None:
    """Whatever a spare ends with, the next one is warmed, and no PIN is touched by it."""
    stage = Stage(SlotPlan(Pin(0), permanent_failure_codes=frozenset({78}), max_restarts=0), spare_plan())
    stage.start(up=up)
    before = stage.state(0)
    stage.now += 10.0

    assert stage.exit(status, S1) == [m.WorkerEnded(S1, N1, status, 10.0, Next.RESPAWN, is_failure=True)]
    assert stage.tick() == _spawned(S1)
    assert stage.state(0) is before


def test_spares_that_die_young_wait_longer_each_time() -> None:
    """A handler that cannot warm up costs a fork now and then, as a PIN in a crash loop does."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan(backoff=(0.5, 1.0)))
    stage.start()
    delays: list[float] = []
    for attempt in range(2, 6):
        delays.append(stage.exit(Exited(1), S1)[0].delay_s)
        assert stage.advance(delays[-1]) == _spawned(S1, attempt)

    assert delays == [0.0, 0.5, 1.0, 1.0]


def test_spare_that_was_taken_ends_the_crash_loop_of_its_seat() -> None:
    """A spare that did what it is for owes nothing: the failures before it do not add up over the years."""
    stage = _staged(1)
    stage.forks_fail = True
    stage.exit(Exited(1), S1)
    stage.tick()
    stage.forks_fail = False
    assert stage.advance(0.1) == _spawned(S1, 3)
    stage.up(S1)
    stage.exit(Exited(1))
    assert stage.tick() == [*_assigned(0), *_spawned(S1, 4)]

    assert stage.exit(Exited(1), S1)[0].delay_s == 0.0


def test_spare_whose_fork_fails_is_tried_again_later() -> None:
    """A failed fork of a spare is told and delayed; the PINs, and the announcement, have nothing to do with it."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan())
    stage.feed(m.StartRequested())
    stage.core.handle(m.DeadlineReached(), stage.now)
    stage.feed(m.Spawned(Pin(0), N1))

    assert stage.feed(m.SpawnFailed(S1, N1, "no memory")) == [m.SpawnDelayed(S1, N1, "no memory", 0.1)]
    assert stage.up(0) == [m.Announce(up=True)]
    assert stage.advance(0.1) == _spawned(S1)


# Dismissed


def test_spares_are_dismissed_with_the_last_end_of_their_handler() -> None:
    """Nobody needs them any more, so they are asked to leave, and the instance ends with the last of them."""
    stage = _staged(2, 2)
    assert only(stage.exit(Exited(0), 1), m.Act) == []

    assert stage.exit(Exited(0), 0)[1:] == [_act(Action.TERMINATE, S1), _act(Action.TERMINATE, S2)]
    assert stage.exit(Exited(143), S2) == [_left(S2, Exited(143), 10.0)]
    assert stage.exit(Exited(143), S1) == [_left(S1, Exited(143), 10.0), *_end(0)]


@pytest.mark.parametrize("prepare", [_starting, _suspended], ids=["starting", "suspended"])
def test_spare_is_dismissed_whatever_it_is_at(prepare: Callable[[Stage], None]) -> None:
    """A spare that is not ready to be taken is dismissed as well."""
    stage = _staged(1)
    prepare(stage)
    attempt = stage.attempt(S1)

    assert stage.exit(Exited(0))[1:] == [_act(Action.TERMINATE, S1, attempt)]
    assert only(stage.exit(Signaled(15), S1), m.Finish) == [m.Finish(0, stopped=False)]


def test_spare_without_a_process_does_not_delay_the_end() -> None:
    """A spare in backoff has nothing to leave, and none is forked for it any more."""
    stage = _staged(1)
    _in_backoff(stage)

    assert stage.exit(Exited(0))[1:] == _end(0)
    assert stage.state(S1) == Finished(cut=True)
    assert stage.advance(60.0) == []


def test_dismissed_spare_climbs_the_ladder_and_tears_nothing() -> None:
    """A spare that does not leave is interrupted and killed, and there was no unit of work to be torn."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan(stop_timeout=1.0))
    stage.start()
    stage.exit(Exited(0))
    stage.advance(1.0)

    assert acts(stage, S1) == [(0.0, "TERM"), (0.25, "TERM"), (0.5, "TERM"), (0.8, "QUIT"), (1.0, "KILL")]
    assert stage.exit(Signaled(9), S1) == [_left(S1, Signaled(9), 1.0), *_end(0)]


def test_dismissed_spare_that_even_kill_does_not_end_is_left_behind() -> None:
    """The end waits for it as long as a stop would; when it is gone after all, nothing follows."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan(stop_timeout=0.0))
    stage.start()
    stage.exit(Exited(0))

    assert stage.advance(1.0) == [m.WorkerAbandoned(S1, N1, waiting=False), *_end(0)]
    assert stage.state(S1) == Abandoned(N1, START)
    assert stage.exit(Signaled(9), S1) == [m.WorkerEnded(S1, N1, Signaled(9), 1.0, Next.STOPPED)]
    assert stage.advance(60.0) == []


def test_spare_that_was_left_behind_is_not_replaced_while_others_work() -> None:
    """A handler that is done stays done, whenever its last spare goes."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1), handler=1), spare_plan(stop_timeout=0.0))
    stage.start()
    stage.exit(Exited(0), 0)
    stage.advance(1.0)

    assert stage.exit(Signaled(9), S1)[0].follows is Next.STOPPED
    assert stage.advance(60.0) == []
    assert stage.exit(Exited(0), 1)[1:] == _end(0)


def test_spares_are_dismissed_when_the_last_pin_has_failed() -> None:
    """A PIN that is given up needs no spare, and only it makes the exit code."""
    stage = Stage(SlotPlan(Pin(0), restart=Restart.NEVER), SlotPlan(Pin(1)), spare_plan())
    stage.start()
    stage.exit(Exited(0), 1)

    assert stage.exit(Exited(1), 0)[1:] == [_act(Action.TERMINATE, S1)]
    assert stage.state(0) == Failed()
    assert stage.exit(Exited(143), S1)[1:] == _end(1, 0)


def test_spares_are_dismissed_when_their_group_has_failed() -> None:
    """The last member of a doomed group that leaves takes the spares along."""
    stage = _staged(2, group="g", permanent_failure_codes=frozenset({78}))
    assert only(stage.exit(Exited(78), 0), m.Act) == [_act(Action.TERMINATE, 1)]

    assert stage.exit(Exited(143), 1)[1:] == [_act(Action.TERMINATE, S1)]
    assert stage.exit(Exited(143), S1)[1:] == _end(1, 0, 1)


def test_spares_of_other_handlers_stay() -> None:
    """Each handler dismisses its own spares, at its own end."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1), handler=1), spare_plan(0, handler=1), spare_plan(1))
    stage.start()

    assert only(stage.exit(Exited(0), 0), m.Act) == [_act(Action.TERMINATE, S2)]
    stage.exit(Exited(143), S2)
    stage.exit(Exited(1), 1)
    assert stage.tick() == [*_assigned(1, S1), *_spawned(S1)]


def test_spares_stay_while_a_pin_waits_for_its_respawn() -> None:
    """A PIN without a process still needs them most of all."""
    stage = Stage(SlotPlan(Pin(0), backoff=(5.0, 5.0)), SlotPlan(Pin(1)), spare_plan())
    stage.start()
    for _ in range(2):
        stage.exit(Exited(1), 0)
        stage.tick()
    assert isinstance(stage.state(0), Backoff)
    stage.up(S1)

    assert only(stage.exit(Exited(0), 1), m.Act) == []
    assert stage.advance(5.0)[:2] == _assigned(0, attempt=3)


def test_spare_that_dies_while_it_is_dismissed_is_not_replaced() -> None:
    """A death on the way out is as good as any other end."""
    stage = _staged(1, 2)
    stage.exit(Exited(0))

    assert stage.exit(Signaled(11), S1) == [_left(S1, Signaled(11), 10.0)]
    assert only(stage.advance(0.2), m.Spawn) == []


# Stop


@pytest.mark.parametrize(
    ("stop", "action"), [(GRACEFUL, Action.TERMINATE), (QUICK, Action.INTERRUPT), (KILL, Action.KILL)]
)
def test_stop_reaches_spares_and_does_not_count_them(stop: m.StopRequested, action: Action) -> None:
    """The stop tells how many workers it has to stop; the spares are stopped like them."""
    stage = _staged(2)

    effects = stage.feed(stop)

    assert effects[0] == m.StopStarted(stop.reason, stop.kind, 2)
    assert only(effects, m.Act) == [_act(action, 0), _act(action, 1), _act(action, S1)]
    for pin in (0, 1):
        assert only(stage.exit(Exited(143), pin), m.Finish, m.Act) == []
    assert only(stage.exit(Exited(143), S1), m.Finish) == [m.Finish(int(stop is not GRACEFUL), stopped=True)]


def test_spare_that_a_stop_has_to_kill_tears_nothing() -> None:
    """Whatever a spare needs to leave, the exit code is that of the workers."""
    stage = Stage(SlotPlan(Pin(0)), spare_plan(stop_timeout=1.0))
    stage.start()
    stage.feed(GRACEFUL)
    stage.exit(Exited(143), 0)
    stage.advance(1.0)

    assert acts(stage, S1)[-1] == (1.0, "KILL")
    assert stage.exit(Signaled(9), S1)[1:] == _end(0, stopped=True)


def test_stop_in_a_backoff_of_a_spare_forks_none() -> None:
    """A spare that has no process is done with the stop."""
    stage = _staged(1)
    _in_backoff(stage)
    stage.feed(GRACEFUL)

    assert stage.state(S1) == Finished(cut=True)
    assert stage.exit(Exited(143), 0)[1:] == _end(0, stopped=True)


def test_stop_before_the_respawn_assigns_nobody() -> None:
    """An exit and a stop of the same wake leave the spare where it is."""
    stage = _staged(1)
    stage.exit(Exited(1))

    assert stage.feed(GRACEFUL) == [
        m.StopStarted("SIGTERM", StopKind.GRACEFUL, 0), _act(Action.TERMINATE, S1)
    ]  # fmt: skip
    assert only(stage.advance(60.0), m.Assign, m.Spawn) == []


def test_stop_takes_over_spares_that_are_leaving() -> None:
    """A stop after the last end has no workers to count; a quick one hurries the spares."""
    stage = _staged(1)
    stage.exit(Exited(0))

    assert stage.feed(GRACEFUL) == [m.StopStarted("SIGTERM", StopKind.GRACEFUL, 0)]
    assert stage.feed(QUICK) == [
        m.StopStarted("SIGQUIT", StopKind.QUICK, 0),
        m.WorkerOverdue(S1, N1, Action.INTERRUPT),
        _act(Action.INTERRUPT, S1),
    ]
    assert stage.exit(Signaled(3), S1)[1:] == _end(0, stopped=True)


def test_signal_of_the_users_own_does_not_reach_spares() -> None:
    """A spare runs none of the functions of a worker; who was one gets it."""
    stage = _staged(2)
    assert stage.feed(m.ForwardRequested(10)) == [m.Forward(Pin(0), N1, 10), m.Forward(Pin(1), N1, 10)]
    stage.exit(Exited(1), 0)
    stage.tick()

    assert stage.feed(m.ForwardRequested(10)) == [m.Forward(Pin(0), N2, 10), m.Forward(Pin(1), N1, 10)]
