"""The decision machine in simulated time: histories, and every state with every event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyworkers._core import messages as m
from pyworkers._core.messages import StopKind
from pyworkers._core.supervisor import DEADLINES_PER_WAKE, Supervisor
from pyworkers._core.types import (
    Abandoned,
    Action,
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Finished,
    Killing,
    Pin,
    Running,
    Signaled,
    SlotPlan,
    Starting,
    Stopping,
    Vanished,
)

GRACEFUL = m.StopRequested(StopKind.GRACEFUL, "SIGTERM")
QUICK = m.StopRequested(StopKind.QUICK, "SIGQUIT")
KILL = m.StopRequested(StopKind.KILL, "test")
INTERRUPT = m.InterruptRequested("SIGINT")

NEVER = float("inf")


class Stage:
    """A supervisor, a clock that only tests move, and a kernel in which every fork works unless told otherwise."""

    def __init__(self, *plans: SlotPlan, jitter: Callable[[float], float] = lambda delay_s: delay_s) -> None:
        self.core = Supervisor(plans or [SlotPlan(Pin(0))], jitter)
        self.now = 1000.0
        self.history: list[tuple[float, m.Effect]] = []
        self.forks_fail = False

    def feed(self, event: m.Event) -> list[m.Effect]:
        """Feed an event, let the kernel answer to forks, and return all effects in order."""
        effects: list[m.Effect] = []
        for effect in self.core.handle(event, self.now):
            effects.append(effect)
            self.history.append((self.now, effect))
            if isinstance(effect, m.Spawn):
                failed = m.SpawnFailed(effect.pin, effect.attempt, "no memory")
                effects += self.feed(failed if self.forks_fail else m.Spawned(effect.pin, effect.attempt))
        return effects

    def tick(self) -> list[m.Effect]:
        """Do what is due now."""
        return self.feed(m.DeadlineReached())

    def advance(self, seconds: float) -> list[m.Effect]:
        """Move the clock, meeting every deadline on the way at its instant, and return the effects."""
        end, effects = self.now + seconds, []
        while (at := self.core.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            effects += self.tick()
        self.now = end
        return effects

    def start(self, *, up: bool = True) -> list[m.Effect]:
        """Start the instance and let every worker come up."""
        effects = self.feed(m.StartRequested()) + self.advance(0.0)
        for pin in self.core.snapshot() if up else ():
            effects += self.feed(m.WorkerUp(pin, self.attempt(pin)))
        return effects

    def state(self, pin: int = 0) -> Any:
        return self.core.snapshot()[Pin(pin)]

    def attempt(self, pin: int = 0) -> Attempt:
        return self.state(pin).attempt

    def exit(self, status: ExitStatus, pin: int = 0) -> list[m.Effect]:
        """Let the process of a PIN end."""
        return self.feed(m.WorkerExited(Pin(pin), self.attempt(pin), status))


def only(effects: list[m.Effect], *kinds: type) -> list[Any]:
    """Return the effects of these kinds."""
    return [effect for effect in effects if isinstance(effect, kinds)]


def acts(stage: Stage, pin: int = 0) -> list[tuple[float, str]]:
    """Return the rungs climbed for a PIN, with their instants since 1000."""
    return [
        (round(at - 1000.0, 6), effect.action.value)
        for at, effect in stage.history
        if isinstance(effect, m.Act) and effect.pin == pin
    ]


# Respawn


def test_start_spawns_every_pin_in_order() -> None:
    """The start forks a worker for every PIN, in the order of the PINs, whatever the order of the plans."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in (4, 0, 2)))

    effects = stage.start(up=False)

    assert [effect.pin for effect in only(effects, m.Spawn)] == [0, 2, 4]
    assert {effect.attempt for effect in only(effects, m.Spawn)} == {1}


@pytest.mark.parametrize("status", [Exited(1), Exited(255), Signaled(9), Signaled(11), Vanished()])
def test_respawn_after_abnormal_exit_keeps_pin(status: ExitStatus) -> None:
    """A worker that ends abnormally, by code, by signal or unseen, is replaced at once under the same PIN."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(7)))
    stage.start()
    stage.now += 5.0

    ended = stage.exit(status, pin=7)
    spawned = stage.tick()

    assert ended == [m.WorkerEnded(Pin(7), Attempt(1), status, 5.0, m.Next.RESPAWN, 0.0)]
    assert spawned == [m.Spawn(Pin(7), Attempt(2)), m.WorkerStarted(Pin(7), Attempt(2))]


def test_normal_exit_is_not_respawned_and_others_go_on() -> None:
    """A PIN that ended normally is done, and that changes nothing for the others: no fork, no end."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()

    ended = stage.exit(Exited(0))

    assert [effect.follows for effect in only(ended, m.WorkerEnded)] == [m.Next.FINISHED]
    assert not only(ended, m.Finish)
    assert stage.advance(1e6) == []
    assert stage.state(0) == Finished()
    assert isinstance(stage.state(1), Running)


def test_respawn_after_another_pin_has_finished_forks_once() -> None:
    """With one PIN finished, the crash of another gives one fork, not an endless row of them."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(0), pin=0)

    stage.exit(Signaled(9), pin=1)
    effects = stage.advance(3600.0)

    assert [(effect.pin, effect.attempt) for effect in only(effects, m.Spawn)] == [(1, 2)]


@pytest.mark.parametrize(("code", "normal"), [(0, False), (3, True), (254, True), (4, False)])
def test_normal_exit_codes_decide_alone(code: int, *, normal: bool) -> None:
    """Which codes are normal is the plan's to say, 0 included."""
    stage = Stage(SlotPlan(Pin(0), normal_exit_codes=frozenset({3, 254})))
    stage.start()

    ended = stage.exit(Exited(code))

    assert (only(ended, m.WorkerEnded)[0].follows is m.Next.FINISHED) is normal
    assert bool(only(ended, m.Finish)) is normal


def test_death_by_signal_is_never_a_normal_exit() -> None:
    """A death by a signal whose number is among the normal codes is abnormal all the same."""
    stage = Stage(SlotPlan(Pin(0), normal_exit_codes=frozenset(range(256))))
    stage.start()

    assert only(stage.exit(Signaled(9)), m.WorkerEnded)[0].follows is m.Next.RESPAWN


def test_crash_loop_backs_off_and_doubles() -> None:
    """Short-lived workers are respawned at once, then after 0.1 s, doubling to the longest delay."""
    stage = Stage(SlotPlan(Pin(0), backoff=(0.1, 1.0)))
    stage.start()
    delays = []
    for _ in range(7):
        delays.append(only(stage.exit(Exited(1)), m.WorkerEnded)[0].delay_s)
        stage.advance(delays[-1])

    assert delays == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert stage.attempt() == 8


def test_long_life_ends_the_crash_loop() -> None:
    """A worker that lived for a second or longer is respawned at once, and the next short life counts as the first."""
    stage = Stage()
    stage.start()
    for _ in range(5):
        stage.exit(Exited(1))
        stage.advance(60.0 if isinstance(stage.state(), Running) else stage.state().respawn_at - stage.now)
    stage.now += 1.0
    long_lived = stage.exit(Exited(1))
    stage.tick()
    short_lived = stage.exit(Exited(1))

    assert only(long_lived, m.WorkerEnded)[0].delay_s == 0.0
    assert only(short_lived, m.WorkerEnded)[0].delay_s == 0.0


@pytest.mark.parametrize(("lifetime_s", "delay_s"), [(0.999, 0.1), (1.0, 0.0)])
def test_lifetime_of_a_second_is_not_short(lifetime_s: float, delay_s: float) -> None:
    """A life counts as short below one second, not at it."""
    stage = Stage()
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.now += lifetime_s

    assert only(stage.exit(Exited(1)), m.WorkerEnded)[0].delay_s == delay_s


def test_respawn_waits_for_its_instant() -> None:
    """Nothing is forked before the delay is over, however often the machine is woken."""
    stage = Stage(SlotPlan(Pin(0), backoff=(10.0, 10.0)))
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.exit(Exited(1))

    assert stage.core.next_deadline() == 1010.0
    stage.now = 1009.999
    assert stage.tick() == []
    stage.now = 1010.0
    assert only(stage.tick(), m.Spawn) == [m.Spawn(Pin(0), Attempt(3))]


def test_jitter_is_applied_to_delays_only() -> None:
    """Jitter changes a delay, and an immediate respawn stays immediate."""
    asked: list[float] = []

    def halve(delay_s: float) -> float:
        asked.append(delay_s)
        return delay_s / 2

    stage = Stage(jitter=halve)
    stage.start()
    first = only(stage.exit(Exited(1)), m.WorkerEnded)[0].delay_s
    stage.tick()
    second = only(stage.exit(Exited(1)), m.WorkerEnded)[0].delay_s

    assert (first, second, asked) == (0.0, 0.05, [0.1])
    assert stage.core.next_deadline() == stage.now + 0.05


def test_spawn_failure_is_reported_and_tried_again_later() -> None:
    """A failed fork is never tried again at once: it backs off, doubles, and ends nothing."""
    stage = Stage()
    stage.forks_fail = True
    stage.start(up=False)
    stage.advance(0.1 + 0.2 + 0.4)
    stage.forks_fail = False
    effects = stage.advance(0.8)

    delays = [effect for _, effect in stage.history if isinstance(effect, m.SpawnDelayed)]
    assert [effect.delay_s for effect in delays] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert [effect.attempt for effect in delays] == [1, 2, 3, 4]
    assert effects == [m.Spawn(Pin(0), Attempt(5)), m.WorkerStarted(Pin(0), Attempt(5))]


def test_spawn_failure_of_one_pin_does_not_hold_the_others() -> None:
    """While one PIN waits for a fork to work, the others are respawned at once."""
    stage = Stage(SlotPlan(Pin(0), backoff=(30.0, 30.0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(1), pin=0)
    stage.forks_fail = True
    stage.tick()
    stage.forks_fail = False
    stage.exit(Exited(1), pin=1)

    assert only(stage.tick(), m.Spawn) == [m.Spawn(Pin(1), Attempt(2))]
    assert stage.state(0) == Backoff(1030.0)


def test_exits_of_one_wakeup_are_all_respawned() -> None:
    """A thousand workers that die in the same instant are all replaced, in batches, and none is forgotten."""
    count = 1000
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(count)))
    stage.start()
    for pin in range(count):
        stage.exit(Signaled(9), pin)
    batches = 0
    while stage.core.next_deadline() is not None:
        assert len(only(stage.tick(), m.Spawn)) <= DEADLINES_PER_WAKE
        batches += 1

    assert batches == -(-count // DEADLINES_PER_WAKE)
    assert {state.attempt for state in stage.core.snapshot().values() if isinstance(state, Starting)} == {2}


def test_running_instance_has_no_deadline() -> None:
    """While all workers run there is nothing to wake up for."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()

    assert stage.core.next_deadline() is None


# Stop


def test_stop_during_backoff_spawns_nothing() -> None:
    """A PIN that waits for its respawn when the stop comes is not forked any more."""
    stage = Stage(SlotPlan(Pin(0), backoff=(5.0, 5.0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.exit(Exited(1))

    stage.feed(GRACEFUL)
    effects = stage.advance(60.0) + stage.feed(m.StartRequested()) + stage.advance(60.0)

    assert not only(effects, m.Spawn)
    assert stage.state(0) == Finished()


def test_stop_before_a_due_respawn_of_the_same_wakeup_spawns_nothing() -> None:
    """An exit and a stop that arrive together end in no fork."""
    stage = Stage()
    stage.start()
    stage.exit(Signaled(11))
    effects = stage.feed(GRACEFUL) + stage.advance(60.0)

    assert not only(effects, m.Spawn, m.Act)
    assert effects[-1] == m.Finish(0, stopped=True)


def test_stop_between_batches_of_a_mass_start_spawns_no_more() -> None:
    """A stop in the middle of a mass start is honoured before the next batch."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(100)))
    stage.feed(m.StartRequested())
    stage.tick()
    effects = stage.feed(GRACEFUL)

    assert len(only(effects, m.Act)) == DEADLINES_PER_WAKE
    assert not only(stage.advance(60.0), m.Spawn)


def test_stop_before_start_finishes_without_a_fork() -> None:
    """An instance that is stopped before it starts leaves at once, and a late start changes nothing."""
    stage = Stage()

    effects = stage.feed(GRACEFUL)
    late = stage.feed(m.StartRequested()) + stage.advance(60.0)

    assert effects[-1] == m.Finish(0, stopped=True)
    assert late == []


def test_stop_climbs_the_ladder_of_each_pin() -> None:
    """All PINs start the ladder together, and each climbs at the pace of its own `stop_timeout`."""
    stage = Stage(
        SlotPlan(Pin(0), stop_timeout=8.0), SlotPlan(Pin(1), stop_timeout=1.0), SlotPlan(Pin(2), stop_timeout=0)
    )
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(60.0)

    term = [(0.0, "TERM"), (0.25, "TERM"), (0.5, "TERM"), (1.0, "TERM"), (2.0, "TERM")]
    quit_ = [(6.4, "QUIT"), (6.65, "QUIT"), (6.9, "QUIT"), (7.4, "QUIT")]
    assert acts(stage, 0) == [*term, *quit_, (8.0, "KILL")]
    assert acts(stage, 1) == [(0.0, "TERM"), (0.25, "TERM"), (0.5, "TERM"), (0.8, "QUIT"), (1.0, "KILL")]
    assert acts(stage, 2) == [(0.0, "KILL")]


def test_overdue_is_reported_once_per_rung() -> None:
    """The first QUIT and the KILL are news; a QUIT that is sent again is not."""
    stage = Stage()
    stage.start()
    effects = stage.feed(GRACEFUL) + stage.advance(8.0)

    assert [effect.action for effect in only(effects, m.WorkerOverdue)] == [Action.INTERRUPT, Action.KILL]


def test_late_wakeup_does_only_the_last_rung_that_is_due() -> None:
    """After a long sleep (SIGSTOP, a suspended machine) the steps that were missed are not made up one by one."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.now += 7.0

    assert only(stage.tick(), m.Act) == [m.Act(Pin(0), Attempt(1), Action.INTERRUPT)]
    assert stage.core.next_deadline() == 1007.4


def test_exit_at_grace_deadline_is_not_killed() -> None:
    """A worker that is reaped in the very instant of its KILL is not killed, and nobody was interrupted but by QUIT."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(7.999)
    stage.now = 1008.0

    effects = stage.exit(Exited(143)) + stage.advance(60.0)

    assert not only(effects, m.Act)
    assert "KILL" not in [action for _, action in acts(stage)]
    assert effects[-1] == m.Finish(1, stopped=True)


@pytest.mark.parametrize("status", [Exited(143), Exited(0), Exited(1), Signaled(15), Vanished()])
def test_graceful_stop_replaces_nobody_and_ends_with_0(status: ExitStatus) -> None:
    """In a stop nobody is replaced, and a stop by TERM alone is code 0, whatever the workers leave with."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.feed(GRACEFUL)
    first, last = stage.exit(status, 0), stage.exit(status, 1)

    follows = m.Next.FINISHED if status == Exited(0) else m.Next.STOPPED
    assert [effect.follows for effect in only(first + last, m.WorkerEnded)] == [follows, follows]
    assert not only(first, m.Finish)
    assert last[-2:] == [m.AllEnded(stopped=True, exit_code=0), m.Finish(0, stopped=True)]
    assert stage.advance(60.0) == []


def test_worker_that_starts_when_the_stop_comes_is_asked_too() -> None:
    """A worker that is not up yet gets its TERM like any other."""
    stage = Stage()
    stage.start(up=False)

    assert only(stage.feed(GRACEFUL), m.Act) == [m.Act(Pin(0), Attempt(1), Action.TERMINATE)]
    assert only(stage.feed(m.WorkerUp(Pin(0), Attempt(1))), m.EventIgnored)


def test_term_is_idempotent() -> None:
    """A second TERM changes nothing: no new ladder, no more time, no harder stop."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(3.0)
    before = stage.state()

    assert stage.feed(GRACEFUL) == [m.EventIgnored(GRACEFUL, "already stopping")]
    assert stage.state() is before


def test_second_interrupt_kills_at_once() -> None:
    """The first INT stops gracefully, the second kills."""
    stage = Stage()
    stage.start()
    first, second = stage.feed(INTERRUPT), stage.feed(INTERRUPT)

    assert [effect.action for effect in only(first, m.Act)] == [Action.TERMINATE]
    assert [effect.action for effect in only(second, m.Act)] == [Action.KILL]


def test_interrupt_after_term_needs_a_second_one_to_kill() -> None:
    """After a TERM, one INT is a repetition of it, and a second INT kills at once."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)

    assert not only(stage.feed(INTERRUPT), m.Act)
    assert [effect.action for effect in only(stage.feed(INTERRUPT), m.Act)] == [Action.KILL]


def test_quick_stop_interrupts_now_and_kills_two_seconds_later() -> None:
    """QUIT to the master is the interrupt now and KILL after 2 s."""
    stage = Stage()
    stage.start()
    stage.feed(QUICK)
    stage.advance(60.0)

    assert acts(stage)[0] == (0.0, "QUIT")
    assert acts(stage)[-1] == (2.0, "KILL")
    assert "TERM" not in [action for _, action in acts(stage)]


def test_quick_stop_never_grants_more_time_than_the_graceful_one_had_left() -> None:
    """A harder stop that comes a second before KILL does not postpone the KILL."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(7.0)
    stage.feed(QUICK)
    stage.advance(60.0)

    assert acts(stage)[-1] == (8.0, "KILL")


def test_quick_stop_respects_a_shorter_stop_timeout() -> None:
    """Where `stop_timeout` is shorter than 2 s, it bounds the quick stop as well."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=0.6))
    stage.start()
    stage.feed(QUICK)
    stage.advance(60.0)

    assert acts(stage) == [(0.0, "QUIT"), (0.25, "QUIT"), (0.5, "QUIT"), (0.6, "KILL")]


def test_stop_only_gets_harder() -> None:
    """A softer stop after a harder one is ignored, with a report."""
    stage = Stage()
    stage.start()
    stage.feed(QUICK)
    before = stage.state()

    assert stage.feed(GRACEFUL) == [m.EventIgnored(GRACEFUL, "already stopping")]
    assert stage.state() is before
    assert [effect.action for effect in only(stage.feed(KILL), m.Act)] == [Action.KILL]


def test_unkillable_worker_is_abandoned_after_a_second() -> None:
    """A process that even KILL does not end is reported a second later, and the instance leaves with code 1."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    effects = stage.advance(9.0)

    assert effects[-3:] == [
        m.WorkerAbandoned(Pin(0), Attempt(1)),
        m.AllEnded(stopped=True, exit_code=1),
        m.Finish(1, stopped=True),
    ]
    assert stage.now == 1009.0


def test_stop_is_bounded_by_stop_timeout_plus_a_second() -> None:
    """Whatever the workers do, the end comes a second after the longest `stop_timeout` at the latest."""
    stage = Stage(*(SlotPlan(Pin(pin), stop_timeout=float(pin)) for pin in range(6)))
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(60.0)

    (finished_at,) = [at for at, effect in stage.history if isinstance(effect, m.Finish)]
    assert finished_at == 1006.0


def test_abandoned_worker_that_ends_after_all_is_reported() -> None:
    """The late end of an abandoned process is a fact for the log, and it is not respawned."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=1.0), SlotPlan(Pin(1), stop_timeout=60.0))
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(3.0)
    assert isinstance(stage.state(0), Abandoned)

    late = stage.exit(Signaled(9), 0)

    assert late == [m.WorkerEnded(Pin(0), Attempt(1), Signaled(9), 3.0, m.Next.STOPPED)]
    assert stage.state(0) == Finished()
    assert stage.exit(Exited(143), 1)[-1] == m.Finish(1, stopped=True)


# Exit codes


def test_end_of_all_workers_is_code_0() -> None:
    """When the last worker has ended normally, the instance leaves with 0, and that was no stop."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(0), 1)

    assert stage.exit(Exited(0), 0)[-2:] == [m.AllEnded(stopped=False, exit_code=0), m.Finish(0, stopped=False)]


@pytest.mark.parametrize(("left_at_s", "code"), [(6.3, 0), (6.4, 1), (8.0, 1)])
def test_exit_code_is_1_where_term_was_not_enough(left_at_s: float, code: int) -> None:
    """A worker that had to be interrupted or killed makes the instance's code 1."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(left_at_s)

    assert stage.exit(Exited(143))[-1] == m.Finish(code, stopped=True)


@pytest.mark.parametrize("status", [Exited(143), Exited(0)])
def test_stop_all_sets_the_exit_code(status: ExitStatus) -> None:
    """What a worker asks for by `stop_all` is the instance's exit code."""
    stage = Stage()
    stage.start()
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 254))

    assert stage.exit(status)[-1] == m.Finish(254, stopped=True)


def test_stop_all_beats_the_code_of_a_torn_stop() -> None:
    """The code that was asked for stands also where a worker had to be killed."""
    stage = Stage()
    stage.start()
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 0))

    assert stage.advance(60.0)[-1] == m.Finish(0, stopped=True)


def test_first_stop_all_sets_the_exit_code() -> None:
    """Of several workers that ask, the first one sets the code, also during a stop."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.feed(GRACEFUL)
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 7))
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 8))
    stage.exit(Exited(0), 0)

    assert stage.exit(Exited(0), 1)[-1] == m.Finish(7, stopped=True)


def test_instance_without_pins_finishes_at_once() -> None:
    """With nothing to keep running, the first event ends it."""
    core = Supervisor([], lambda delay_s: delay_s)

    assert core.handle(m.StartRequested(), 0.0) == [m.AllEnded(stopped=False, exit_code=0), m.Finish(0, stopped=False)]
    assert core.handle(m.DeadlineReached(), 1.0) == []


def test_nothing_follows_finish() -> None:
    """After `Finish` every event is harmless: no second `Finish`, no fork, no signal."""
    stage = Stage()
    stage.start()
    stage.exit(Exited(0))
    late: list[m.Effect] = []
    for event in (
        GRACEFUL,
        KILL,
        INTERRUPT,
        INTERRUPT,
        m.StartRequested(),
        m.DeadlineReached(),
        m.ForwardRequested(10),
    ):
        late += stage.feed(event)
    late += stage.feed(m.WorkerExited(Pin(0), Attempt(1), Exited(1)))

    assert {type(effect) for effect in late} == {m.EventIgnored}


def test_late_end_of_an_abandoned_worker_is_only_reported() -> None:
    """`Finish` is the last thing to do: what a process does that was abandoned before can only be reported after it."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=0.0))
    stage.start(up=False)
    stage.feed(GRACEFUL)
    assert isinstance(stage.advance(1.0)[-1], m.Finish)

    late = stage.exit(Signaled(9))

    assert late == [m.WorkerEnded(Pin(0), Attempt(1), Signaled(9), 1.0, m.Next.STOPPED)]


# Announcements, passed-on signals, and what does not belong


def test_announce_up_once_when_every_worker_is_up() -> None:
    """Whoever waits for the start is told once, when the last worker came up."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start(up=False)

    assert stage.feed(m.WorkerUp(Pin(1), Attempt(1))) == []
    assert stage.feed(m.WorkerUp(Pin(0), Attempt(1))) == [m.Announce(up=True)]
    stage.exit(Exited(1), 0)
    stage.tick()
    assert stage.feed(m.WorkerUp(Pin(0), Attempt(2))) == []


@pytest.mark.parametrize("status", [Exited(1), Exited(0), Signaled(9)])
def test_announce_failure_once_when_a_worker_ends_before_it_is_up(status: ExitStatus) -> None:
    """A worker that ends before it was ever up is told as a failed start, and nothing is told after that."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start(up=False)
    stage.feed(m.WorkerUp(Pin(1), Attempt(1)))

    assert only(stage.exit(status, 0), m.Announce) == [m.Announce(up=False)]
    assert not only(stage.exit(Exited(1), 1), m.Announce)
    stage.tick()
    for pin, state in stage.core.snapshot().items():
        if isinstance(state, Starting):
            assert not only(stage.feed(m.WorkerUp(pin, state.attempt)), m.Announce)


def test_worker_that_crashes_after_it_was_up_is_no_failed_start() -> None:
    """A PIN that was up once counts as up for the announcement, though it crashed before the last one came up."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start(up=False)
    stage.feed(m.WorkerUp(Pin(0), Attempt(1)))

    assert not only(stage.exit(Exited(1), 0), m.Announce)
    assert stage.feed(m.WorkerUp(Pin(1), Attempt(1))) == [m.Announce(up=True)]


def test_forward_reaches_live_workers_in_order() -> None:
    """A signal of the user's goes to every process there is, also one that is stopping, and to nobody else."""
    stage = Stage(*(SlotPlan(Pin(pin), backoff=(5.0, 5.0)) for pin in (3, 1, 2, 0)))
    stage.start()
    stage.exit(Exited(0), 0)
    stage.exit(Exited(1), 2)
    stage.tick()
    stage.exit(Exited(1), 2)

    assert stage.feed(m.ForwardRequested(10)) == [m.Forward(Pin(1), Attempt(1), 10), m.Forward(Pin(3), Attempt(1), 10)]
    stage.feed(GRACEFUL)
    assert len(stage.feed(m.ForwardRequested(12))) == 2


def test_stop_reports_how_many_are_live() -> None:
    """The report of a stop counts processes, not PINs."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(3)))
    stage.start()
    stage.exit(Exited(0), 1)

    assert stage.feed(GRACEFUL)[0] == m.StopStarted("SIGTERM", StopKind.GRACEFUL, 2)


@pytest.mark.parametrize("status", [Exited(1), Vanished()])
def test_deadline_of_a_state_that_has_passed_is_forgotten(status: ExitStatus) -> None:
    """A worker that left has no rungs to climb: the machine is not woken for instants that mean nothing any more."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1), stop_timeout=100.0))
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(2.5)
    stage.exit(status, 0)

    assert stage.core.next_deadline() == 1080.0


def test_time_that_goes_back_is_refused() -> None:
    """The clock never goes back; a shell that says so has a bug."""
    stage = Stage()
    stage.start()
    stage.now -= 1.0

    with pytest.raises(AssertionError, match="time went back"):
        stage.tick()


@pytest.mark.parametrize(
    "late",
    [m.Spawned(Pin(0), Attempt(1)), m.SpawnFailed(Pin(0), Attempt(1), "no memory")],
    ids=["Spawned", "SpawnFailed"],
)
def test_second_answer_to_a_spawn_is_ignored(late: m.Event) -> None:
    """Once a fork is confirmed, only an exit retires the process: another answer to the same `Spawn` changes nothing."""
    stage = Stage()
    stage.start(up=False)
    before = stage.state()
    stage.now += 1.0

    effects = stage.feed(late)

    assert [type(effect) for effect in effects] == [m.EventIgnored]
    assert stage.state() is before


# Every state with every event

SLOW = SlotPlan(Pin(1), stop_timeout=1e6)
"""A bystander: on the ladder when the other is, and far from its rungs."""


def _unstarted(stage: Stage) -> None:
    pass


def _due(stage: Stage) -> None:
    stage.feed(m.StartRequested())


def _spawning(stage: Stage) -> None:
    stage.core.handle(m.StartRequested(), stage.now)
    assert m.Spawn(Pin(0), Attempt(1)) in stage.core.handle(m.DeadlineReached(), stage.now)


def _running(stage: Stage) -> None:
    stage.start()


def _second_running(stage: Stage) -> None:
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.feed(m.WorkerUp(Pin(0), Attempt(2)))


def _backoff(stage: Stage) -> None:
    _second_running(stage)
    stage.exit(Exited(1))


def _stopping(stage: Stage) -> None:
    _second_running(stage)
    stage.feed(GRACEFUL)


def _interrupted(stage: Stage) -> None:
    _stopping(stage)
    stage.advance(6.4)


def _killing(stage: Stage) -> None:
    _stopping(stage)
    stage.advance(8.0)


def _abandoned(stage: Stage) -> None:
    _stopping(stage)
    stage.advance(9.0)


def _finished(stage: Stage) -> None:
    stage.start()
    stage.exit(Exited(0))


def _stopped(stage: Stage) -> None:
    _stopping(stage)
    stage.exit(Exited(143))


# For each state: the events that it takes, and the state that follows. "live" stands for the current attempt. Every
# other event must be ignored, with a report where it is about one worker or a stop.
STATES: dict[str, tuple[Callable[[Stage], None], type, dict[str, type]]] = {
    "unstarted": (_unstarted, Backoff, {"start": Backoff, "stop": Finished, "quick": Finished, "kill": Finished, "int": Finished}),
    "due": (_due, Backoff, {"later": Starting, "stop": Finished, "quick": Finished, "kill": Finished, "int": Finished}),
    "backoff": (_backoff, Backoff, {"later": Starting, "stop": Finished, "quick": Finished, "kill": Finished, "int": Finished}),
    "spawning": (
        _spawning,
        Starting,
        {
            "spawned": Starting, "spawn failed": Backoff, "up": Running, "exit 0": Finished, "exit 1": Backoff,
            "signal": Backoff, "vanished": Backoff, "stop": Stopping, "quick": Stopping, "kill": Killing, "int": Stopping,
        },
    ),
    "running": (
        _second_running,
        Running,
        {
            "exit 0": Finished, "exit 1": Backoff, "signal": Backoff, "vanished": Backoff, "stop": Stopping,
            "quick": Stopping, "kill": Killing, "int": Stopping,
        },
    ),
    "stopping": (
        _stopping,
        Stopping,
        {
            "exit 0": Finished, "exit 1": Finished, "signal": Finished, "vanished": Finished, "quick": Stopping,
            "kill": Killing, "later": Killing,
        },
    ),
    "interrupted": (
        _interrupted,
        Stopping,
        {
            "exit 0": Finished, "exit 1": Finished, "signal": Finished, "vanished": Finished, "quick": Stopping,
            "kill": Killing, "later": Killing,
        },
    ),
    "killing": (
        _killing,
        Killing,
        {
            "exit 0": Finished, "exit 1": Finished, "signal": Finished, "vanished": Finished, "quick": Killing,
            "kill": Killing, "later": Abandoned,
        },
    ),
    "abandoned": (
        _abandoned,
        Abandoned,
        {
            "exit 0": Finished, "exit 1": Finished, "signal": Finished, "vanished": Finished, "quick": Abandoned,
            "kill": Abandoned,
        },
    ),
    "finished": (_finished, Finished, {"stop": Finished, "quick": Finished, "kill": Finished, "int": Finished}),
    "stopped": (_stopped, Finished, {"quick": Finished, "kill": Finished}),
}  # fmt: skip

STATUSES: dict[str, ExitStatus] = {
    "exit 0": Exited(0), "exit 1": Exited(1), "signal": Signaled(9), "vanished": Vanished(),
}  # fmt: skip

INSTANCE_EVENTS: dict[str, m.Event] = {
    "start": m.StartRequested(), "stop": GRACEFUL, "quick": QUICK, "kill": KILL, "int": INTERRUPT,
    "forward": m.ForwardRequested(10), "now": m.DeadlineReached(), "later": m.DeadlineReached(),
}  # fmt: skip

SILENT = {"start", "forward", "now", "later"}
"""Events that ask for nothing in particular, so that there is nothing to report when they change nothing."""


def _worker_events(pin: Pin, attempt: int) -> dict[str, m.Event]:
    n = Attempt(attempt)
    return {
        "spawned": m.Spawned(pin, n),
        "spawn failed": m.SpawnFailed(pin, n, "no memory"),
        "up": m.WorkerUp(pin, n),
        **{name: m.WorkerExited(pin, n, status) for name, status in STATUSES.items()},
    }


def _prepared(name: str) -> Stage:
    stage = Stage(SlotPlan(Pin(0)), SLOW)
    STATES[name][0](stage)
    assert type(stage.state()) is STATES[name][1]
    return stage


@pytest.mark.parametrize("event_name", [*_worker_events(Pin(0), 1), *INSTANCE_EVENTS])
@pytest.mark.parametrize("state_name", STATES)
def test_every_state_with_every_event(state_name: str, event_name: str) -> None:
    """Each event leads from each state to the one state that the table names, or changes nothing and says so."""
    stage = _prepared(state_name)
    before = stage.state()
    attempt = getattr(before, "attempt", 1)
    event = {**_worker_events(Pin(0), attempt), **INSTANCE_EVENTS}[event_name]
    if event_name == "later":
        stage.now += 3600.0

    effects = stage.core.handle(event, stage.now)

    expected = STATES[state_name][2].get(event_name)
    if expected is not None:
        assert type(stage.state()) is expected
        assert not only(effects, m.EventIgnored)
    elif event_name == "now" and state_name == "due":
        assert only(effects, m.Spawn)
    else:
        assert stage.state() is before
        about_us = [
            effect for effect in effects if getattr(effect, "pin", 0) == 0 and not isinstance(effect, m.Forward)
        ]
        assert [type(effect) for effect in about_us] == ([] if event_name in SILENT else [m.EventIgnored])
    over = all(isinstance(state, Finished | Abandoned) for state in stage.core.snapshot().values())
    assert len(only(effects, m.Finish)) == over


@pytest.mark.parametrize("event_name", _worker_events(Pin(0), 1))
@pytest.mark.parametrize(
    ("pin", "ahead"), [(0, -1), (0, 1), (9, 0)], ids=["older attempt", "future attempt", "no such PIN"]
)
@pytest.mark.parametrize("state_name", STATES)
def test_event_of_another_attempt_changes_nothing(state_name: str, pin: int, ahead: int, event_name: str) -> None:
    """News of another attempt, or of a PIN that does not exist, is ignored with a report in every state."""
    stage = _prepared(state_name)
    before = dict(stage.core.snapshot())
    event = _worker_events(Pin(pin), getattr(stage.state(), "attempt", 2) + ahead)[event_name]

    effects = stage.core.handle(event, stage.now)

    assert [type(effect) for effect in effects] == [m.EventIgnored]
    assert only(effects, m.EventIgnored)[0].event is event
    assert all(stage.core.snapshot()[key] is state for key, state in before.items())
