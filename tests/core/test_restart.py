"""Who is replaced, when, and for how long: restart policy, backoff and restart intensity, in simulated time."""

from __future__ import annotations

import math

import pytest

from core.stage import GRACEFUL, START, Stage, only
from pyworkers._core import messages as m
from pyworkers._core.messages import GivenUp, Next
from pyworkers._core.supervisor import DEADLINES_PER_WAKE
from pyworkers._core.types import (
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Failed,
    Finished,
    Pin,
    Restart,
    Running,
    Signaled,
    SlotPlan,
    Starting,
    Vanished,
)

ABNORMAL = [Exited(1), Exited(255), Signaled(9), Signaled(11), Vanished()]


def _spawned(pin: int, attempt: int) -> list[m.Effect]:
    return [m.Spawn(Pin(pin), Attempt(attempt)), m.WorkerStarted(Pin(pin), Attempt(attempt))]


# Who is replaced


def test_start_spawns_every_pin_in_order() -> None:
    """The start forks a worker for every PIN, in the order of the PINs, whatever the order of the plans."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in (4, 0, 2)))

    assert stage.wakes_in is None
    assert stage.feed(m.StartRequested()) == []
    assert stage.wakes_in == 0.0
    assert stage.tick() == [*_spawned(0, 1), *_spawned(2, 1), *_spawned(4, 1)]
    assert stage.wakes_in is None


def test_start_is_asked_for_once() -> None:
    """A second start changes nothing, and says so: a respawn that has to wait is not made due by it."""
    stage = Stage(SlotPlan(Pin(0), backoff=(5.0, 5.0)))
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.exit(Exited(1))

    assert stage.feed(m.StartRequested()) == [m.EventIgnored(m.StartRequested(), "already started")]
    assert stage.wakes_in == 5.0


@pytest.mark.parametrize("status", ABNORMAL)
def test_respawn_after_abnormal_exit_keeps_pin(status: ExitStatus) -> None:
    """A worker that ends abnormally, by code, by signal or unseen, is replaced at once under the same PIN."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(7)))
    stage.start()
    stage.now += 5.0

    ended = stage.exit(status, pin=7)

    assert ended == [m.WorkerEnded(Pin(7), Attempt(1), status, 5.0, Next.RESPAWN, 0.0, None, None, is_failure=True)]
    assert stage.state(7) == Backoff(START + 5.0)
    assert stage.wakes_in == 5.0
    assert stage.tick() == _spawned(7, 2)
    assert stage.state(7) == Starting(Attempt(2), START + 5.0, confirmed=True)
    assert stage.wakes_in is None


def test_lifetime_counts_from_the_confirmed_fork() -> None:
    """The time that a fork takes belongs to the master, not to the worker's life."""
    stage = Stage()
    stage.core.handle(m.StartRequested(), START)
    stage.core.handle(m.DeadlineReached(), START)
    assert stage.state() == Starting(Attempt(1), START)
    stage.now += 0.25
    stage.feed(m.Spawned(Pin(0), Attempt(1)))
    assert stage.state() == Starting(Attempt(1), START + 0.25, confirmed=True)
    stage.now += 0.25
    stage.up()
    assert stage.state() == Running(Attempt(1), START + 0.25)
    stage.now += 0.25

    assert stage.exit(Exited(1))[0].lifetime_s == 0.5


def test_exit_is_no_surprise_before_the_fork_is_confirmed() -> None:
    """A worker whose end is told before its fork was confirmed is replaced like any other."""
    stage = Stage()
    stage.core.handle(m.StartRequested(), START)
    stage.core.handle(m.DeadlineReached(), START)

    effects = stage.exit(Exited(1))

    assert effects == [
        m.WorkerEnded(Pin(0), Attempt(1), Exited(1), 0.0, Next.RESPAWN, is_failure=True, short_lives=1),
        m.Announce(up=False),
    ]
    assert stage.tick() == _spawned(0, 2)


def test_normal_exit_is_not_respawned_and_others_go_on() -> None:
    """A PIN that ended normally is done, and that changes nothing for the others: no fork, no end."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()

    ended = stage.exit(Exited(0))

    assert ended == [m.WorkerEnded(Pin(0), Attempt(1), Exited(0), 0.0, Next.FINISHED)]
    assert stage.advance(1e6) == []
    assert stage.state(0) == Finished()
    assert isinstance(stage.state(1), Running)


def test_respawn_after_another_pin_has_finished_forks_once() -> None:
    """With one PIN finished, the crash of another gives one fork, not an endless row of them."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(0), pin=0)

    stage.exit(Signaled(9), pin=1)

    assert stage.advance(3600.0) == _spawned(1, 2)


@pytest.mark.parametrize(("code", "normal"), [(0, False), (3, True), (254, True), (4, False)])
def test_normal_exit_codes_decide_alone(code: int, *, normal: bool) -> None:
    """Which codes are normal is the plan's to say, 0 included."""
    stage = Stage(SlotPlan(Pin(0), normal_exit_codes=frozenset({3, 254})))
    stage.start()

    ended = stage.exit(Exited(code))

    assert ended[0].follows is (Next.FINISHED if normal else Next.RESPAWN)
    assert ended[0].is_failure is not normal
    assert ended[1:] == ([m.AllEnded(stopped=False, exit_code=0), m.Finish(0, stopped=False)] if normal else [])


@pytest.mark.parametrize("status", [Signaled(9), Vanished()])
def test_death_by_signal_is_never_a_normal_exit(status: ExitStatus) -> None:
    """A death by a signal whose number is among the normal codes is abnormal all the same, and so is one unseen."""
    stage = Stage(SlotPlan(Pin(0), normal_exit_codes=frozenset(range(256))))
    stage.start()

    assert stage.exit(status)[0] == m.WorkerEnded(
        Pin(0), Attempt(1), status, 0.0, Next.RESPAWN, is_failure=True, short_lives=1
    )


@pytest.mark.parametrize("status", [Exited(0), *ABNORMAL])
def test_restart_always_replaces_also_who_ended_normally(status: ExitStatus) -> None:
    """Under "always" every end is followed by a new worker; a normal one is still no failure."""
    stage = Stage(SlotPlan(Pin(0), restart=Restart.ALWAYS))
    stage.start()

    assert stage.exit(status) == [
        m.WorkerEnded(Pin(0), Attempt(1), status, 0.0, Next.RESPAWN, is_failure=status != Exited(0), short_lives=1)
    ]
    assert stage.tick() == _spawned(0, 2)


def test_restart_always_backs_off_for_short_normal_lives() -> None:
    """A worker that has nothing to do, again and again, is no reason to burn the processor."""
    stage = Stage(SlotPlan(Pin(0), restart=Restart.ALWAYS))
    stage.start()
    delays = []
    for _ in range(4):
        delays.append(stage.exit(Exited(0))[0].delay_s)
        stage.advance(delays[-1])

    assert delays == [0.0, 0.1, 0.2, 0.4]


@pytest.mark.parametrize("status", ABNORMAL)
def test_restart_never_gives_up_after_the_first_failure(status: ExitStatus) -> None:
    """Under "never" an abnormal end makes the PIN fail; the rest go on, and the exit code says so in the end."""
    stage = Stage(SlotPlan(Pin(0), restart=Restart.NEVER), SlotPlan(Pin(1)))
    stage.start()
    stage.now += 2.0

    assert stage.exit(status) == [
        m.WorkerEnded(Pin(0), Attempt(1), status, 2.0, Next.FAILED, 0.0, None, GivenUp.NO_RESTART, is_failure=True)
    ]
    assert stage.state() == Failed()
    assert stage.advance(3600.0) == []
    assert stage.exit(Exited(0), 1)[1:] == [
        m.AllEnded(stopped=False, exit_code=1, failed=(Pin(0),)),
        m.Finish(1, stopped=False),
    ]


def test_restart_never_finishes_after_a_normal_end() -> None:
    """Under "never" a normal end is what it always is."""
    stage = Stage(SlotPlan(Pin(0), restart=Restart.NEVER))
    stage.start()

    assert stage.exit(Exited(0)) == [
        m.WorkerEnded(Pin(0), Attempt(1), Exited(0), 0.0, Next.FINISHED),
        m.AllEnded(stopped=False, exit_code=0),
        m.Finish(0, stopped=False),
    ]


# Permanent failures


@pytest.mark.parametrize("restart", Restart)
def test_permanent_failure_code_gives_up_under_every_policy(restart: Restart) -> None:
    """A code that says "never again" beats every restart policy, and is named as the reason."""
    plan = SlotPlan(Pin(0), permanent_failure_codes=frozenset({78}), restart=restart, max_restarts=0)
    stage = Stage(plan, SlotPlan(Pin(1)))
    stage.start()

    assert stage.exit(Exited(78)) == [
        m.WorkerEnded(Pin(0), Attempt(1), Exited(78), 0.0, Next.FAILED, 0.0, None, GivenUp.PERMANENT, is_failure=True)
    ]
    assert stage.state() == Failed()


@pytest.mark.parametrize("status", [Exited(77), Exited(79), Signaled(78), Vanished()])
def test_other_ends_are_no_permanent_failure(status: ExitStatus) -> None:
    """Only the codes themselves are permanent failures: no neighbour, and no signal of the same number."""
    stage = Stage(SlotPlan(Pin(0), permanent_failure_codes=frozenset({78})))
    stage.start()

    assert stage.exit(status)[0].follows is Next.RESPAWN


def test_permanent_failure_code_in_a_stop_fails_nothing() -> None:
    """In a stop nobody would be replaced, so nobody is given up: the code of the instance stays 0."""
    stage = Stage(SlotPlan(Pin(0), permanent_failure_codes=frozenset({78}), restart=Restart.NEVER))
    stage.start()
    stage.feed(GRACEFUL)
    ended, *rest = stage.exit(Exited(78))

    assert (ended.follows, ended.given_up, ended.is_failure) == (Next.STOPPED, None, False)
    assert rest == [m.AllEnded(stopped=True, exit_code=0), m.Finish(0, stopped=True)]
    assert stage.state() == Finished(cut=True)


def test_failed_pins_are_named_in_order() -> None:
    """The last report names all PINs that were given up, in their order, whatever the order of their ends."""
    stage = Stage(*(SlotPlan(Pin(pin), restart=Restart.NEVER) for pin in (5, 3, 1, 0)))
    stage.start()
    stage.exit(Exited(1), 5)
    stage.exit(Exited(0), 3)
    stage.exit(Exited(1), 0)
    effects = stage.exit(Signaled(9), 1)

    assert effects[1:] == [
        m.AllEnded(stopped=False, exit_code=1, failed=(Pin(0), Pin(1), Pin(5))),
        m.Finish(1, stopped=False),
    ]


def test_failed_pin_makes_the_code_of_a_stop_1() -> None:
    """A stop after a PIN was given up is no success, however well everybody leaves."""
    stage = Stage(SlotPlan(Pin(0), restart=Restart.NEVER), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(1))

    stage.feed(GRACEFUL)

    assert stage.state() == Failed()
    assert stage.exit(Exited(143), 1)[1:] == [
        m.AllEnded(stopped=True, exit_code=1, failed=(Pin(0),)),
        m.Finish(1, stopped=True),
    ]


# Restart intensity


def test_restart_intensity_gives_up_one_beyond_the_most() -> None:
    """`max_restarts` restarts within `restart_period` are granted; the next failure makes the PIN fail."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=2, restart_period=60.0, backoff=(0.1, 0.1)), SlotPlan(Pin(1)))
    stage.start()
    for at in (10.0, 20.0):
        stage.at(at)
        assert stage.exit(Exited(1))[0].follows is Next.RESPAWN
        stage.tick()
    stage.at(30.0)

    assert stage.exit(Exited(1)) == [
        m.WorkerEnded(
            Pin(0),
            Attempt(3),
            Exited(1),
            10.0,
            Next.FAILED,
            given_up=GivenUp.INTENSITY,
            is_failure=True,
            restart_count=2,
        )
    ]
    assert stage.state() == Failed()
    assert stage.wakes_in is None


@pytest.mark.parametrize(
    ("at", "follows"),
    [(math.nextafter(START + 70.0, 0.0) - START, Next.FAILED), (70.0, Next.RESPAWN), (70.001, Next.RESPAWN)],
)
def test_restart_intensity_forgets_what_is_as_old_as_the_period(at: float, follows: Next) -> None:
    """A restart counts until it is `restart_period` old, and not at that very instant."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=2, restart_period=60.0))
    stage.start()
    for earlier in (10.0, 20.0):
        stage.at(earlier)
        stage.exit(Exited(1))
        stage.tick()
    stage.at(at)

    assert stage.exit(Exited(1))[0].follows is follows


def test_restart_intensity_goes_on_from_the_restarts_that_still_count() -> None:
    """The window slides: each restart counts for its own period, those before it and after it included."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=2, restart_period=60.0))
    stage.start()
    follows = []
    for at in (0.0, 30.0, 60.0, 90.0, 119.0):
        stage.at(at)
        follows.append(stage.exit(Exited(1))[0].follows)
        if follows[-1] is Next.RESPAWN:
            stage.advance(1.0)

    assert follows == [Next.RESPAWN] * 4 + [Next.FAILED]


@pytest.mark.parametrize(("period", "follows"), [(60.0, Next.FAILED), (59.0, Next.RESPAWN), (1e-3, Next.RESPAWN)])
def test_restart_period_is_the_length_of_the_window(period: float, follows: Next) -> None:
    """How long a restart counts is the plan's to say."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=1, restart_period=period))
    stage.start()
    stage.at(1.0)
    stage.exit(Exited(1))
    stage.tick()
    stage.at(60.5)

    assert stage.exit(Exited(1))[0].follows is follows


def test_restart_period_is_a_minute_by_default() -> None:
    """Where nothing is said, a restart counts for 60 s."""
    for at, follows in ((59.999, Next.FAILED), (60.0, Next.RESPAWN)):
        stage = Stage(SlotPlan(Pin(0), max_restarts=1))
        stage.start()
        stage.exit(Exited(1))
        stage.tick()
        stage.at(at)

        assert stage.exit(Exited(1))[0].follows is follows


def test_no_restarts_allowed_means_that_the_first_failure_is_the_last() -> None:
    """`max_restarts=0` grants none, and leaves normal ends alone."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=0), SlotPlan(Pin(1), max_restarts=0))
    stage.start()

    assert stage.exit(Exited(0), 1)[0].given_up is None
    assert stage.exit(Exited(1), 0)[0].given_up is GivenUp.INTENSITY


def test_restart_intensity_counts_normal_ends_under_always() -> None:
    """What counts is the restart, not what it was for."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=1, restart=Restart.ALWAYS))
    stage.start()
    stage.exit(Exited(0))
    stage.tick()

    assert stage.exit(Exited(0))[0] == m.WorkerEnded(
        Pin(0),
        Attempt(2),
        Exited(0),
        0.0,
        Next.FAILED,
        given_up=GivenUp.INTENSITY,
        is_failure=True,
        short_lives=1,
        restart_count=1,
    )


def test_restart_intensity_is_counted_for_each_pin() -> None:
    """The failures of one PIN do not use up the restarts of another."""
    stage = Stage(*(SlotPlan(Pin(pin), max_restarts=1) for pin in range(2)))
    stage.start()

    assert [stage.exit(Exited(1), pin)[0].follows for pin in range(2)] == [Next.RESPAWN, Next.RESPAWN]


def test_restarts_are_unlimited_by_default() -> None:
    """Where nothing is said, no number of failures makes a PIN fail."""
    stage = Stage(SlotPlan(Pin(0), backoff=(0.001, 0.001)))
    stage.start()
    for _ in range(500):
        assert stage.exit(Exited(1))[0].follows is Next.RESPAWN
        stage.advance(0.001)


def test_failed_forks_do_not_count_as_restarts() -> None:
    """A fork that the system refused says nothing of the worker."""
    stage = Stage(SlotPlan(Pin(0), max_restarts=1))
    stage.start()
    stage.exit(Exited(1))
    stage.forks_fail = True
    stage.advance(10.0)
    stage.forks_fail = False
    stage.advance(60.0)
    assert isinstance(stage.state(), Starting)

    assert stage.exit(Exited(1))[0].follows is Next.RESPAWN


# Delays


def test_crash_loop_backs_off_and_doubles() -> None:
    """Short-lived workers are respawned at once, then after 0.1 s, doubling to the longest delay."""
    stage = Stage(SlotPlan(Pin(0), backoff=(0.1, 1.0)))
    stage.start()
    delays = []
    for _ in range(7):
        delays.append(stage.exit(Exited(1))[0].delay_s)
        assert stage.state() == Backoff(stage.now + delays[-1])
        stage.advance(delays[-1])

    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert stage.attempt() == 8


def test_backoff_is_a_tenth_of_a_second_to_30_by_default() -> None:
    """Where nothing is said, the delays go from 0.1 s to 30 s."""
    stage = Stage()
    stage.start()
    delays = []
    for _ in range(14):
        delays.append(stage.exit(Exited(1))[0].delay_s)
        stage.advance(delays[-1])

    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[9:] == [25.6, 30.0, 30.0, 30.0, 30.0]


def test_long_life_ends_the_crash_loop() -> None:
    """A worker that lived for a second or longer is respawned at once, and the next short life counts as the first."""
    stage = Stage()
    stage.start()
    for _ in range(5):
        stage.advance(stage.exit(Exited(1))[0].delay_s)
    stage.now += 1.0
    delays = []
    for _ in range(3):
        delays.append(stage.exit(Exited(1))[0].delay_s)
        stage.tick()

    assert delays == [0.0, 0.0, 0.1]


@pytest.mark.parametrize(
    ("lifetime_s", "delay_s"), [(math.nextafter(START + 1.0, 0.0) - START, 0.1), (1.0, 0.0), (1.001, 0.0)]
)
def test_lifetime_of_a_second_is_not_short(lifetime_s: float, delay_s: float) -> None:
    """A life counts as short below one second, not at it."""
    stage = Stage()
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.now += lifetime_s

    assert stage.exit(Exited(1))[0].delay_s == delay_s


def test_respawn_waits_for_its_instant() -> None:
    """Nothing is forked before the delay is over, however often the machine is woken."""
    stage = Stage(SlotPlan(Pin(0), backoff=(10.0, 10.0)))
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.exit(Exited(1))

    assert stage.wakes_in == 10.0
    stage.now = math.nextafter(START + 10.0, 0.0)
    assert stage.tick() == []
    assert stage.wakes_in == 10.0
    stage.now = START + 10.0
    assert stage.tick() == _spawned(0, 3)


def test_jitter_is_applied_to_delays_only() -> None:
    """Jitter changes a delay, and an immediate respawn stays immediate."""
    asked: list[float] = []

    def halve(delay_s: float) -> float:
        asked.append(delay_s)
        return delay_s / 2

    stage = Stage(jitter=halve)
    stage.start()
    first = stage.exit(Exited(1))[0].delay_s
    stage.tick()
    second = stage.exit(Exited(1))[0].delay_s

    assert (first, second, asked) == (0.0, 0.05, [0.1])
    assert stage.core.next_deadline() == stage.now + 0.05


def test_spawn_failure_is_reported_and_tried_again_later() -> None:
    """A failed fork is never tried again at once: it backs off, doubles, and ends nothing."""
    stage = Stage()
    stage.forks_fail = True
    effects = stage.start(up=False)
    assert effects == [
        m.Spawn(Pin(0), Attempt(1)), m.SpawnDelayed(Pin(0), Attempt(1), "no memory", 0.1),
    ]  # fmt: skip
    assert stage.wakes_in == 0.1
    effects = stage.advance(0.1 + 0.2 + 0.4)
    stage.forks_fail = False

    assert [effect.delay_s for effect in only(effects, m.SpawnDelayed)] == [0.2, 0.4, 0.8]
    assert [effect.attempt for effect in only(effects, m.SpawnDelayed)] == [2, 3, 4]
    assert stage.advance(0.8) == _spawned(0, 5)


def test_spawn_failure_counts_as_a_short_life() -> None:
    """A fork that fails in a crash loop goes on from the delay that the loop has come to."""
    stage = Stage()
    stage.start()
    for _ in range(3):
        stage.advance(stage.exit(Exited(1))[0].delay_s)
    stage.forks_fail = True
    effects = stage.exit(Exited(1)) + stage.advance(0.4)

    assert [effect.delay_s for effect in only(effects, m.WorkerEnded, m.SpawnDelayed)] == [0.4, 0.8]


def test_spawn_failure_of_one_pin_does_not_hold_the_others() -> None:
    """While one PIN waits for a fork to work, the others are respawned at once."""
    stage = Stage(SlotPlan(Pin(0), backoff=(30.0, 30.0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(1), pin=0)
    stage.forks_fail = True
    stage.tick()
    stage.forks_fail = False
    stage.exit(Exited(1), pin=1)

    assert stage.tick() == _spawned(1, 2)
    assert stage.state(0) == Backoff(START + 30.0)


def test_exits_of_one_wakeup_are_all_respawned() -> None:
    """Hundreds of workers that die in the same instant are all replaced, in batches, and none is forgotten."""
    count = 3 * DEADLINES_PER_WAKE + 1
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(count)))
    stage.start()
    for pin in range(count):
        stage.exit(Signaled(9), pin)
    batches: list[int] = []
    spawned: list[Pin] = []
    while stage.core.next_deadline() is not None:
        batch = [effect.pin for effect in only(stage.tick(), m.Spawn)]
        batches.append(len(batch))
        spawned += batch

    assert batches == [64, 64, 64, 1]
    assert spawned == list(range(count))
    assert {state.attempt for state in stage.core.snapshot().values()} == {2}


def test_running_instance_has_no_deadline() -> None:
    """While all workers run there is nothing to wake up for."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()

    assert stage.wakes_in is None
