"""Workers that reach a limit: age and memory, the turns they take, and what a stop makes of it."""

from __future__ import annotations

import math

import pytest

from core.stage import GRACEFUL, QUICK, START, Stage, acts, only
from pyworkers._core import messages as m
from pyworkers._core.messages import GivenUp, Next, StopKind
from pyworkers._core.types import (
    NEVER,
    Action,
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Failed,
    Finished,
    Hung,
    Killing,
    Limit,
    Pin,
    Purpose,
    Restart,
    Rung,
    Running,
    Signaled,
    SlotPlan,
    Stopping,
    Vanished,
    Watch,
    Wear,
)

N1, N2 = Attempt(1), Attempt(2)


def _measure(limit: int, pin: int = 0) -> m.Measure:
    return m.Measure(Pin(pin), N1, limit)


def _recycled(measured: float, pin: int = 0, limit: Limit = Limit.MAX_RUNTIME) -> list[m.Effect]:
    return [
        m.WorkerRecycled(Pin(pin), N1, Wear(limit, measured)), m.Act(Pin(pin), N1, Action.TERMINATE)
    ]  # fmt: skip


def _spawned(pin: int = 0, attempt: int = 2) -> list[m.Effect]:
    return [m.Spawn(Pin(pin), Attempt(attempt)), m.WorkerStarted(Pin(pin), Attempt(attempt))]


def _aged(*plans: SlotPlan) -> Stage:
    """Return a stage on which everything up to 100 s has happened."""
    stage = Stage(*plans)
    stage.start()
    stage.advance(100.0)
    return stage


def _plans(count: int) -> list[SlotPlan]:
    return [SlotPlan(Pin(pin), max_runtime=100.0) for pin in range(count)]


# Age


def test_worker_is_recycled_when_it_has_run_for_max_runtime() -> None:
    """At its instant and not before, an old worker is told, asked to leave, and replaced at once."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=100.0))
    stage.start()
    assert stage.state() == Running(N1, START, Watch(recycle_at=START + 100.0))
    assert stage.wakes_in == 100.0
    stage.now = math.nextafter(START + 100.0, 0.0)
    assert stage.tick() == []

    assert stage.at(100.0) == _recycled(100.0)
    assert stage.wakes_in == 100.25
    assert stage.state() == Stopping(
        N1,
        START,
        Action.TERMINATE,
        (
            *(Rung(START + at, Action.TERMINATE) for at in (100.25, 100.5, 101.0, 102.0)),
            *(Rung(START + at, Action.INTERRUPT) for at in (106.4, 106.65, 106.9, 107.4)),
            Rung(START + 108.0, Action.KILL),
        ),
        Purpose.RECYCLE,
    )
    stage.now += 0.125
    assert stage.exit(Exited(143)) == [
        m.WorkerEnded(Pin(0), N1, Exited(143), 100.125, Next.RESPAWN, 0.0, Purpose.RECYCLE)
    ]
    assert stage.wakes_in == 100.125
    assert stage.tick() == _spawned()
    stage.up()
    assert stage.wakes_in == 200.125


def test_age_counts_from_when_the_worker_was_up_and_is_told_from_its_fork() -> None:
    """A long start does not shorten the time in which a worker works; the report tells its age."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=100.0))
    stage.start(up=False)
    stage.now += 50.0
    stage.up()

    assert stage.wakes_in == 150.0
    assert stage.at(151.0) == _recycled(151.0)


def test_jitter_makes_up_to_a_fifth_of_the_age() -> None:
    """Four fifths of `max_runtime` are sure, the last one is jittered."""
    asked: list[float] = []

    def halve(delay_s: float) -> float:
        asked.append(delay_s)
        return delay_s / 2

    stage = Stage(SlotPlan(Pin(0), max_runtime=100.0), jitter=halve)
    stage.start()

    assert asked == [20.0]
    assert stage.wakes_in == 90.0


@pytest.mark.parametrize("status", [Exited(1), Exited(143), Signaled(15), Signaled(9), Vanished()])
def test_end_of_a_recycled_worker_is_no_failure(status: ExitStatus) -> None:
    """Whoever was asked to leave has not failed, whatever it leaves with, and is replaced at once."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))

    assert stage.exit(status) == [
        m.WorkerEnded(Pin(0), N1, status, 100.0, Next.RESPAWN, 0.0, Purpose.RECYCLE, None, is_failure=False)
    ]
    assert stage.state() == Backoff(START + 100.0)


def test_recycled_worker_that_ends_normally_has_finished() -> None:
    """A normal end is the handler's own word that its work is done."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))

    assert stage.exit(Exited(0)) == [
        m.WorkerEnded(Pin(0), N1, Exited(0), 100.0, Next.FINISHED, 0.0, Purpose.RECYCLE),
        m.AllEnded(stopped=False, exit_code=0),
        m.Finish(0, stopped=False),
    ]


def test_recycled_worker_that_ends_normally_is_replaced_under_always() -> None:
    """Under "always" nothing is ever finished."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0, restart=Restart.ALWAYS, max_restarts=0))

    assert stage.exit(Exited(0)) == [m.WorkerEnded(Pin(0), N1, Exited(0), 100.0, Next.RESPAWN, 0.0, Purpose.RECYCLE)]


def test_recycled_worker_with_a_permanent_failure_is_given_up() -> None:
    """A code that says "never again" is heard also from who was asked to leave."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0, permanent_failure_codes=frozenset({78})))

    assert stage.exit(Exited(78))[0] == m.WorkerEnded(
        Pin(0), N1, Exited(78), 100.0, Next.FAILED, 0.0, Purpose.RECYCLE, GivenUp.PERMANENT, is_failure=True
    )
    assert stage.state() == Failed()


def test_recycling_is_no_restart_for_the_restart_intensity() -> None:
    """What was asked for neither needs a granted restart nor uses one up."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=1.0, max_restarts=1, restart_period=1e6))
    stage.start()
    for _ in range(3):
        stage.advance(1.0)
        assert stage.exit(Exited(143))[0].follows is Next.RESPAWN
        stage.tick()
        stage.up()

    assert stage.exit(Exited(1))[0].follows is Next.RESPAWN
    stage.tick()
    assert stage.exit(Exited(1))[0].follows is Next.FAILED


def test_recycling_leaves_the_crash_loop_as_it_is() -> None:
    """A short life that was asked to end is no crash, and it is no long life that would end a crash loop either."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=0.5))
    stage.start()
    delays = [stage.exit(Exited(1))[0].delay_s]
    stage.tick()
    for kind in (Exited(143), Exited(1), Exited(143), Exited(1)):
        stage.up()
        if kind == Exited(143):
            stage.advance(0.5)
        delays.append(stage.exit(kind)[0].delay_s)
        stage.advance(delays[-1])

    assert delays == [0.0, 0.0, 0.1, 0.0, 0.2]


@pytest.mark.parametrize(("life_s", "delay_s"), [(1.0, 0.0), (0.9, 0.2)])
def test_long_life_ends_a_crash_loop_also_if_it_was_asked_to_end(life_s: float, delay_s: float) -> None:
    """What counts is how long it lived: the first respawn after a healthy time is immediate."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=life_s))
    stage.start()
    for _ in range(2):
        stage.exit(Exited(1))
        stage.advance(0.1)
    stage.up()
    stage.advance(life_s)
    stage.exit(Exited(143))
    stage.tick()

    assert stage.exit(Exited(1))[0].delay_s == delay_s


def test_recycled_worker_climbs_the_ladder_of_a_stop() -> None:
    """Whoever does not leave is interrupted and killed as in a stop, each with its report."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=100.0, stop_timeout=1.0))
    stage.start()
    effects = stage.advance(101.5)

    assert acts(stage) == [
        (100.0, "TERM"), (100.25, "TERM"), (100.5, "TERM"), (100.8, "QUIT"), (101.0, "KILL")
    ]  # fmt: skip
    assert only(effects, m.WorkerOverdue) == [
        m.WorkerOverdue(Pin(0), N1, Action.INTERRUPT), m.WorkerOverdue(Pin(0), N1, Action.KILL)
    ]  # fmt: skip
    assert stage.state() == Killing(N1, START, START + 102.0, Purpose.RECYCLE)
    assert stage.advance(100.0) == [m.WorkerAbandoned(Pin(0), N1, waiting=True)]
    assert stage.state() == Killing(N1, START, NEVER, Purpose.RECYCLE)
    assert stage.exit(Signaled(9))[0] == m.WorkerEnded(
        Pin(0), N1, Signaled(9), 201.5, Next.RESPAWN, 0.0, Purpose.RECYCLE
    )


def test_recycled_worker_that_had_to_be_interrupted_does_not_change_the_code_of_a_later_stop() -> None:
    """The code 1 is for units torn in the stop itself."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))
    stage.advance(7.0)
    stage.exit(Exited(131))
    stage.tick()
    stage.feed(GRACEFUL)

    assert stage.exit(Exited(143))[-1] == m.Finish(0, stopped=True)


# Memory


def test_memory_is_measured_every_30_seconds() -> None:
    """The first measurement comes at a jittered instant within 30 s after the start, the others 30 s apart."""
    asked: list[float] = []

    def third(delay_s: float) -> float:
        asked.append(delay_s)
        return delay_s / 3

    stage = Stage(SlotPlan(Pin(0), max_rss=1000), jitter=third)
    stage.start()
    assert asked == [30.0]
    assert stage.wakes_in == 10.0
    stage.now = math.nextafter(START + 10.0, 0.0)
    assert stage.tick() == []

    assert stage.at(10.0) == [_measure(1000)]
    assert stage.wakes_in == 40.0
    assert stage.at(40.0) == [_measure(1000)]
    assert stage.wakes_in == 70.0
    assert stage.state() == Running(N1, START, Watch(measure_at=START + 70.0))


@pytest.mark.parametrize(("size", "worn"), [(None, False), (0, False), (999, False), (1000, False), (1001, True)])
def test_worker_above_max_rss_is_recycled(size: int | None, *, worn: bool) -> None:
    """What has more private memory than `max_rss` leaves; what has as much, or what cannot be measured, stays."""
    stage = Stage(SlotPlan(Pin(0), max_rss=1000))
    stage.start()
    if size is not None:
        stage.sizes[0] = size

    effects = stage.advance(30.0)

    assert effects == [_measure(1000), *(_recycled(1001, limit=Limit.MAX_RSS) if worn else [])]
    assert stage.wakes_in == (30.25 if worn else 60.0)


def test_measurement_that_nobody_asked_for_changes_nothing() -> None:
    """A worker without a limit cannot be above it."""
    stage = Stage()
    stage.start()
    before = stage.state()

    assert stage.feed(m.Measured(Pin(0), N1, 10**15)) == []
    assert stage.state() is before


def test_memory_is_not_measured_where_it_is_not_limited() -> None:
    """No limit, no deadline."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=100.0))
    stage.start()

    assert stage.state().watch.measure_at == NEVER


def test_what_is_due_together_is_done_in_one_go() -> None:
    """Age first, then memory, then the look: each is done once, and each gets its next instant."""
    stage = Stage(
        SlotPlan(Pin(0), max_runtime=60.0),
        SlotPlan(Pin(1), max_runtime=60.0, max_rss=1000, hang_timeout=120.0, handler=0),
    )
    stage.start()
    stage.advance(59.0)

    assert stage.at(60.0) == [m.Measure(Pin(1), N1, 1000), m.Look(Pin(1), N1), *_recycled(60.0)]
    assert stage.state(1) == Running(N1, START, Watch(look_at=START + 120.0), Wear(Limit.MAX_RUNTIME, 60.0))


# Turns


def test_one_pin_of_a_handler_is_recycled_at_a_time() -> None:
    """The others wait until the successor of the one before them is up; who waits goes on working."""
    stage = _aged(*_plans(3))
    assert acts(stage, 0) == [(100.0, "TERM")]
    assert acts(stage, 1) == acts(stage, 2) == []
    assert stage.state(1) == Running(N1, START, Watch(), Wear(Limit.MAX_RUNTIME, 100.0))

    assert len(stage.exit(Exited(143), 0)) == 1
    assert stage.tick() == _spawned(0)
    stage.now += 3.0
    assert stage.up(0) == _recycled(100.0, 1)
    assert stage.exit(Exited(143), 1)[0].lifetime_s == 103.0
    stage.tick()
    assert stage.up(1) == _recycled(100.0, 2)
    stage.exit(Exited(143), 2)
    stage.tick()
    assert stage.up(2) == []


def test_handlers_take_their_turns_independently() -> None:
    """Each handler has a turn of its own."""
    stage = _aged(
        SlotPlan(Pin(0), max_runtime=100.0, handler=1),
        SlotPlan(Pin(1), max_runtime=100.0),
        SlotPlan(Pin(2), max_runtime=100.0, handler=1),
    )

    assert [acts(stage, pin) for pin in range(3)] == [[(100.0, "TERM")], [(100.0, "TERM")], []]


def test_turn_is_not_over_when_the_successor_crashes() -> None:
    """While nobody takes the PIN of the one who was recycled, nobody else is sent away."""
    stage = _aged(*_plans(2))
    stage.exit(Exited(143), 0)
    stage.tick()
    stage.exit(Exited(1), 0)
    stage.tick()
    assert acts(stage, 1) == []

    assert stage.up(0) == _recycled(100.0, 1)


@pytest.mark.parametrize(("status", "state"), [(Exited(0), Finished()), (Exited(78), Failed())])
def test_turn_is_over_when_no_successor_follows(status: ExitStatus, state: object) -> None:
    """Where the PIN is closed, the next one goes at once."""
    plans = [SlotPlan(Pin(pin), max_runtime=100.0, permanent_failure_codes=frozenset({78})) for pin in range(2)]
    stage = _aged(*plans)

    assert stage.exit(status, 0)[1:] == _recycled(100.0, 1)
    assert stage.state(0) == state


def test_who_is_worn_twice_keeps_the_first_reason_and_waits_once() -> None:
    """Too old, then too big: the report tells what was reached first, and there is one turn."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=50.0), SlotPlan(Pin(1), max_runtime=50.0, max_rss=1000))
    stage.sizes[1] = 500
    stage.start()
    stage.advance(50.0)
    stage.sizes[1] = 5000
    assert stage.advance(10.0) == [
        m.Act(Pin(0), N1, Action.TERMINATE), m.Act(Pin(0), N1, Action.TERMINATE),
        m.Act(Pin(0), N1, Action.TERMINATE), m.Act(Pin(0), N1, Action.TERMINATE),
        m.WorkerOverdue(Pin(0), N1, Action.INTERRUPT), *[m.Act(Pin(0), N1, Action.INTERRUPT)] * 4,
        m.WorkerOverdue(Pin(0), N1, Action.KILL), m.Act(Pin(0), N1, Action.KILL),
        m.WorkerAbandoned(Pin(0), N1, waiting=True),
        _measure(1000, 1),
    ]  # fmt: skip
    assert stage.state(1) == Running(N1, START, Watch(), Wear(Limit.MAX_RUNTIME, 50.0))
    assert stage.wakes_in is None
    stage.exit(Signaled(9), 0)
    stage.tick()

    assert stage.up(0) == _recycled(50.0, 1)


def test_who_is_too_big_first_and_too_old_then_keeps_the_first_reason() -> None:
    """Too big, then too old: the report tells of the memory."""
    stage = Stage(SlotPlan(Pin(0), max_rss=1000), SlotPlan(Pin(1), max_runtime=50.0, max_rss=1000))
    stage.sizes = {0: 2000, 1: 3000}
    stage.start()
    stage.advance(30.0)
    assert acts(stage, 1) == []
    assert stage.state(1).worn == Wear(Limit.MAX_RSS, 3000)
    stage.sizes[1] = 4000
    stage.advance(30.0)

    assert stage.state(1) == Running(N1, START, Watch(), Wear(Limit.MAX_RSS, 3000))


def test_suspended_worker_is_recycled_when_it_goes_on() -> None:
    """Who cannot reach a checkpoint is not sent up the ladder to its KILL for its age, and takes nobody's turn."""
    stage = Stage(*_plans(2))
    stage.start()
    stage.suspend(0)

    assert stage.advance(100.0) == _recycled(100.0, 1)
    stage.exit(Exited(143), 1)
    stage.tick()
    assert stage.up(1) == []

    resumed = [m.SuspensionNoted(Pin(0), N1, suspended=False), *_recycled(100.0, 0)]
    assert stage.resume(0) == resumed


def test_who_waits_and_is_suspended_lets_the_next_go_first() -> None:
    """A worn worker that is suspended while it waits leaves the line, and joins it again when it goes on."""
    stage = _aged(*_plans(3))
    stage.suspend(1)
    stage.exit(Exited(143), 0)
    stage.tick()
    assert stage.up(0) == _recycled(100.0, 2)
    assert stage.resume(1) == [m.SuspensionNoted(Pin(1), N1, suspended=False)]
    stage.exit(Exited(143), 2)
    stage.tick()

    assert stage.up(2) == _recycled(100.0, 1)


def test_who_waits_and_ends_by_itself_takes_no_turn_as_a_new_worker() -> None:
    """A worker that crashes while it waits needs no recycling: its successor is fresh."""
    stage = _aged(*_plans(3))
    stage.exit(Signaled(11), 1)
    stage.tick()
    assert stage.up(1) == []
    stage.exit(Exited(143), 0)
    stage.tick()

    assert stage.up(0) == _recycled(100.0, 2)


def test_who_waits_and_finishes_leaves_the_line() -> None:
    """A worker that ends normally while it waits is not waited for."""
    stage = _aged(*_plans(3))
    stage.exit(Exited(0), 1)
    stage.exit(Exited(143), 0)
    stage.tick()

    assert stage.up(0) == _recycled(100.0, 2)


def test_crash_of_who_waits_is_a_failure() -> None:
    """Being worn is no excuse for a crash: it was not asked to leave yet."""
    stage = _aged(*_plans(2))

    assert stage.exit(Signaled(11), 1) == [
        m.WorkerEnded(Pin(1), N1, Signaled(11), 100.0, Next.RESPAWN, 0.0, None, None, is_failure=True)
    ]


def test_who_waits_and_hangs_is_replaced_for_that() -> None:
    """A hung worker does not wait for its turn, and the turn that comes meanwhile is kept until its successor is up."""
    stage = Stage(*(SlotPlan(Pin(pin), max_runtime=100.0, hang_timeout=80.0, stop_timeout=500.0) for pin in range(3)))
    stage.start()
    stage.beats[1] = START
    stage.advance(120.0)
    assert isinstance(stage.state(1), Hung)
    stage.feed(m.Dumped(Pin(1), N1))
    stage.exit(Exited(143), 0)
    stage.tick()

    assert stage.up(0) == []
    assert acts(stage, 1) == [(120.0, "QUIT")]
    assert stage.exit(Exited(131), 1)[0].purpose is Purpose.HANG
    stage.tick()
    assert stage.up(1) == _recycled(100.0, 2)


# Recycling and stop


def test_graceful_stop_leaves_a_recycled_worker_on_its_ladder() -> None:
    """Who is on its way already gets no second ladder, nobody else is recycled any more, and the code is 0."""
    stage = _aged(*_plans(2))
    stage.advance(0.5)
    before = stage.state()

    assert stage.feed(GRACEFUL) == [
        m.StopStarted("SIGTERM", StopKind.GRACEFUL, 2), m.Act(Pin(1), N1, Action.TERMINATE)
    ]  # fmt: skip
    assert stage.state() == Stopping(N1, START, Action.TERMINATE, before.rungs, Purpose.STOP)
    assert stage.exit(Exited(143)) == [m.WorkerEnded(Pin(0), N1, Exited(143), 100.5, Next.STOPPED, 0.0, Purpose.STOP)]
    assert stage.exit(Exited(143), 1)[1:] == [
        m.AllEnded(stopped=True, exit_code=0),
        m.Finish(0, stopped=True),
    ]


def test_recycled_worker_that_was_interrupted_before_the_stop_makes_its_code_1() -> None:
    """Its unit may be torn, and it is the stop that it leaves in."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))
    stage.advance(6.5)
    stage.feed(GRACEFUL)

    assert stage.exit(Exited(131))[-1] == m.Finish(1, stopped=True)


def test_recycled_worker_that_is_interrupted_in_the_stop_makes_its_code_1() -> None:
    """From the stop on, its rungs are those of the stop."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))
    stage.feed(GRACEFUL)
    assert stage.advance(6.4)[-2:] == [
        m.WorkerOverdue(Pin(0), N1, Action.INTERRUPT), m.Act(Pin(0), N1, Action.INTERRUPT)
    ]  # fmt: skip

    assert stage.exit(Exited(131))[-1] == m.Finish(1, stopped=True)


def test_quick_stop_of_a_recycled_worker_keeps_the_promised_end() -> None:
    """A quick stop grants no more time than the recycling had left."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))
    stage.advance(7.0)

    assert stage.feed(QUICK) == [
        m.StopStarted("SIGQUIT", StopKind.QUICK, 1), m.Act(Pin(0), N1, Action.INTERRUPT)
    ]  # fmt: skip
    stage.advance(10.0)
    assert acts(stage)[-1] == (108.0, "KILL")


def test_killed_recycled_worker_is_given_up_a_second_after_the_stop() -> None:
    """Its own second may have begun before: the stop's counts, and the code is 1."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))
    stage.advance(8.5)
    assert stage.state() == Killing(N1, START, START + 109.0, Purpose.RECYCLE)

    stage.feed(GRACEFUL)

    assert stage.state() == Killing(N1, START, START + 109.5, Purpose.STOP)
    assert stage.exit(Signaled(9))[-1] == m.Finish(1, stopped=True)


def test_respawn_that_follows_a_recycling_is_not_made_in_a_stop() -> None:
    """A stop between the end of the old worker and the fork of the new one leaves the PIN empty."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0))
    stage.exit(Exited(143))

    assert stage.feed(GRACEFUL)[-1] == m.Finish(0, stopped=True)


def test_never_restarted_worker_that_is_recycled_is_given_up() -> None:
    """Under "never" no worker follows, also where the limit was the reason."""
    stage = _aged(SlotPlan(Pin(0), max_runtime=100.0, restart=Restart.NEVER))

    assert stage.exit(Exited(143))[0] == m.WorkerEnded(
        Pin(0), N1, Exited(143), 100.0, Next.FAILED, 0.0, Purpose.RECYCLE, GivenUp.NO_RESTART, is_failure=True
    )
