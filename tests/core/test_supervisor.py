"""The instance as a whole, in simulated time: stop, exit codes, announcements, and the machine's own bookkeeping."""

from __future__ import annotations

import math

import pytest

from core.stage import GRACEFUL, INTERRUPT, KILL, QUICK, START, Stage, acts, only
from pyworkers._core import messages as m
from pyworkers._core.messages import Next, StopKind
from pyworkers._core.supervisor import DEADLINES_PER_WAKE, Supervisor
from pyworkers._core.types import (
    Abandoned,
    Action,
    Attempt,
    Exited,
    ExitStatus,
    Finished,
    Killing,
    Pin,
    Purpose,
    Rung,
    Running,
    Signaled,
    SlotPlan,
    Starting,
    Stopping,
    Vanished,
)

TERMS = [(0.0, "TERM"), (0.25, "TERM"), (0.5, "TERM"), (1.0, "TERM"), (2.0, "TERM")]
QUITS = [(6.4, "QUIT"), (6.65, "QUIT"), (6.9, "QUIT"), (7.4, "QUIT")]


def _act(action: Action, pin: int = 0, attempt: int = 1) -> m.Act:
    return m.Act(Pin(pin), Attempt(attempt), action)


def _overdue(action: Action, pin: int = 0) -> m.WorkerOverdue:
    return m.WorkerOverdue(Pin(pin), Attempt(1), action)


def _end(code: int, *, stopped: bool = True) -> list[m.Effect]:
    return [m.AllEnded(stopped=stopped, exit_code=code), m.Finish(code, stopped=stopped)]


# Stop


def test_stop_during_backoff_spawns_nothing() -> None:
    """A PIN that waits for its respawn when the stop comes is not forked any more."""
    stage = Stage(SlotPlan(Pin(0), backoff=(5.0, 5.0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.exit(Exited(1))

    assert stage.feed(GRACEFUL) == [
        m.StopStarted("SIGTERM", StopKind.GRACEFUL, 1), _act(Action.TERMINATE, 1)
    ]  # fmt: skip
    assert stage.state(0) == Finished(cut=True)
    assert stage.wakes_in == 0.25
    assert not only(stage.advance(60.0), m.Spawn)


def test_stop_before_a_due_respawn_of_the_same_wakeup_spawns_nothing() -> None:
    """An exit and a stop that arrive together end in no fork."""
    stage = Stage()
    stage.start()
    stage.exit(Signaled(11))

    assert stage.feed(GRACEFUL) == [m.StopStarted("SIGTERM", StopKind.GRACEFUL, 0), *_end(0)]
    assert stage.advance(60.0) == []


def test_stop_between_batches_of_a_mass_start_spawns_no_more() -> None:
    """A stop in the middle of a mass start is honoured before the next batch."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(100)))
    stage.feed(m.StartRequested())
    assert len(only(stage.tick(), m.Spawn)) == DEADLINES_PER_WAKE
    effects = stage.feed(GRACEFUL)

    assert effects == [
        m.StopStarted("SIGTERM", StopKind.GRACEFUL, 64), *(_act(Action.TERMINATE, pin) for pin in range(64))
    ]  # fmt: skip
    assert not only(stage.advance(60.0), m.Spawn)


def test_stop_before_start_finishes_without_a_fork() -> None:
    """An instance that is stopped before it starts leaves at once, and a late start changes nothing."""
    stage = Stage()

    assert stage.feed(GRACEFUL) == [m.StopStarted("SIGTERM", StopKind.GRACEFUL, 0), *_end(0)]
    assert stage.feed(m.StartRequested()) == []
    assert stage.advance(60.0) == []


def test_stop_climbs_the_ladder_of_each_pin() -> None:
    """All PINs start the ladder together, and each climbs at the pace of its own `stop_timeout`."""
    stage = Stage(
        SlotPlan(Pin(0), stop_timeout=8.0), SlotPlan(Pin(1), stop_timeout=1.0), SlotPlan(Pin(2), stop_timeout=0)
    )
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(60.0)

    assert acts(stage, 0) == [*TERMS, *QUITS, (8.0, "KILL")]
    assert acts(stage, 1) == [(0.0, "TERM"), (0.25, "TERM"), (0.5, "TERM"), (0.8, "QUIT"), (1.0, "KILL")]
    assert acts(stage, 2) == [(0.0, "KILL")]


def test_stop_is_told_pin_by_pin_with_what_is_overdue() -> None:
    """Each rung is a signal; the first QUIT and the KILL are news as well, before they are sent."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=1.0), SlotPlan(Pin(1), stop_timeout=0.0))
    stage.start()

    assert stage.feed(GRACEFUL) == [
        m.StopStarted("SIGTERM", StopKind.GRACEFUL, 2),
        _act(Action.TERMINATE),
        _overdue(Action.KILL, 1),
        _act(Action.KILL, 1),
    ]
    assert stage.state(0) == Stopping(
        Attempt(1),
        START,
        Action.TERMINATE,
        (
            Rung(START + 0.25, Action.TERMINATE),
            Rung(START + 0.5, Action.TERMINATE),
            Rung(START + 0.8, Action.INTERRUPT),
            Rung(START + 1.0, Action.KILL),
        ),
        Purpose.STOP,
    )
    assert stage.state(1) == Killing(Attempt(1), START, START + 1.0, Purpose.STOP)
    assert stage.exit(Signaled(9), 1)[0].purpose is Purpose.STOP
    assert stage.wakes_in == 0.25
    assert stage.at(0.25) == [_act(Action.TERMINATE)]
    assert stage.wakes_in == 0.5
    assert stage.at(0.5) == [_act(Action.TERMINATE)]
    assert stage.wakes_in == 0.8
    assert stage.at(0.8) == [_overdue(Action.INTERRUPT), _act(Action.INTERRUPT)]
    assert stage.wakes_in == 1.0
    assert stage.at(1.0) == [_overdue(Action.KILL), _act(Action.KILL)]
    assert stage.state(0) == Killing(Attempt(1), START, START + 2.0, Purpose.STOP)
    assert stage.wakes_in == 2.0


def test_interrupt_that_is_sent_again_is_no_news() -> None:
    """The first QUIT is reported, those to a straggler are not."""
    stage = Stage()
    stage.start()
    effects = stage.feed(GRACEFUL) + stage.advance(8.0)

    assert only(effects, m.WorkerOverdue) == [_overdue(Action.INTERRUPT), _overdue(Action.KILL)]


def test_rung_is_climbed_at_its_instant() -> None:
    """A rung is due at its instant and not before it."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(2.0)
    stage.now = math.nextafter(START + 6.4, 0.0)

    assert stage.tick() == []
    assert stage.wakes_in == 6.4
    assert stage.at(6.4) == [_overdue(Action.INTERRUPT), _act(Action.INTERRUPT)]
    assert stage.wakes_in == 6.65


@pytest.mark.parametrize(
    ("late_at", "action", "wakes_in"),
    [
        (0.6, Action.TERMINATE, 1.0),
        (6.39, Action.TERMINATE, 6.4),
        (7.0, Action.INTERRUPT, 7.4),
        (9.5, Action.KILL, 10.5),
    ],
)
def test_late_wakeup_does_only_the_last_rung_that_is_due(late_at: float, action: Action, wakes_in: float) -> None:
    """After a long sleep (SIGSTOP, a suspended machine) the steps that were missed are not made up one by one."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)

    assert only(stage.at(late_at), m.Act) == [_act(action)]
    assert stage.wakes_in == wakes_in


def test_exit_at_grace_deadline_is_not_killed() -> None:
    """A worker that is reaped in the very instant of its KILL is not killed."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(7.999)
    stage.now = START + 8.0

    effects = stage.exit(Exited(143))

    assert effects == [
        m.WorkerEnded(Pin(0), Attempt(1), Exited(143), 8.0, Next.STOPPED, purpose=Purpose.STOP), *_end(1)
    ]  # fmt: skip
    assert stage.advance(60.0) == []
    assert acts(stage) == [*TERMS, *QUITS]


@pytest.mark.parametrize("status", [Exited(143), Exited(0), Exited(1), Signaled(15), Vanished()])
def test_graceful_stop_replaces_nobody_and_ends_with_0(status: ExitStatus) -> None:
    """In a stop nobody is replaced and nobody has failed, and a stop by TERM alone is code 0, whatever they leave with."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.feed(GRACEFUL)
    stage.now += 0.5
    first, last = stage.exit(status, 0), stage.exit(status, 1)

    follows = Next.FINISHED if status == Exited(0) else Next.STOPPED
    assert first == [m.WorkerEnded(Pin(0), Attempt(1), status, 0.5, follows, 0.0, Purpose.STOP)]
    assert last == [m.WorkerEnded(Pin(1), Attempt(1), status, 0.5, follows, 0.0, Purpose.STOP), *_end(0)]
    assert stage.wakes_in is None


def test_worker_that_starts_when_the_stop_comes_is_asked_too() -> None:
    """A worker that is not up yet gets its TERM like any other."""
    stage = Stage()
    stage.start(up=False)
    up = m.WorkerUp(Pin(0), Attempt(1))

    assert stage.feed(GRACEFUL)[1:] == [_act(Action.TERMINATE)]
    assert stage.feed(up) == [m.EventIgnored(up, "state Stopping")]


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

    assert stage.feed(INTERRUPT) == [m.StopStarted("SIGINT", StopKind.GRACEFUL, 1), _act(Action.TERMINATE)]
    stage.now += 0.1
    assert stage.feed(INTERRUPT) == [
        m.StopStarted("SIGINT", StopKind.KILL, 1), _overdue(Action.KILL), _act(Action.KILL)
    ]  # fmt: skip
    assert stage.wakes_in == 1.1
    assert stage.feed(INTERRUPT) == [m.EventIgnored(INTERRUPT, "already stopping")]


def test_interrupt_after_term_needs_a_second_one_to_kill() -> None:
    """After a TERM, one INT is a repetition of it, and a second INT kills at once."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)

    assert stage.feed(INTERRUPT) == [m.EventIgnored(INTERRUPT, "already stopping")]
    assert only(stage.feed(INTERRUPT), m.Act) == [_act(Action.KILL)]


def test_quick_stop_interrupts_now_and_kills_two_seconds_later() -> None:
    """QUIT to the master is the interrupt now and KILL after 2 s."""
    stage = Stage()
    stage.start()

    assert stage.feed(QUICK) == [
        m.StopStarted("SIGQUIT", StopKind.QUICK, 1), _overdue(Action.INTERRUPT), _act(Action.INTERRUPT)
    ]  # fmt: skip
    stage.advance(60.0)
    assert acts(stage) == [(0.0, "QUIT"), (0.25, "QUIT"), (0.5, "QUIT"), (1.0, "QUIT"), (2.0, "KILL")]


@pytest.mark.parametrize(("asked_at", "kill_at"), [(1.0, 3.0), (5.999, 7.999), (6.0, 8.0), (7.0, 8.0)])
def test_quick_stop_never_grants_more_time_than_the_graceful_one_had_left(asked_at: float, kill_at: float) -> None:
    """A harder stop that comes a second before KILL does not postpone the KILL."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(asked_at)
    stage.feed(QUICK)
    assert acts(stage)[-1] == (asked_at, "QUIT")
    stage.advance(60.0)

    assert acts(stage)[-1] == (kill_at, "KILL")


def test_quick_stop_of_who_is_overdue_already_kills() -> None:
    """A quick stop that finds the time of the graceful one used up has no time to give."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.now += 8.5

    assert stage.feed(QUICK)[1:] == [_overdue(Action.KILL), _act(Action.KILL)]
    assert stage.wakes_in == 9.5


def test_quick_stop_respects_a_shorter_stop_timeout() -> None:
    """Where `stop_timeout` is shorter than 2 s, it bounds the quick stop as well."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=0.6))
    stage.start()
    stage.feed(QUICK)
    stage.advance(60.0)

    assert acts(stage) == [(0.0, "QUIT"), (0.25, "QUIT"), (0.5, "QUIT"), (0.6, "KILL")]


def test_quick_stop_after_the_interrupt_is_no_second_news() -> None:
    """Who was interrupted before the quick stop is interrupted again, which is no news."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(6.5)

    assert stage.feed(QUICK) == [m.StopStarted("SIGQUIT", StopKind.QUICK, 1), _act(Action.INTERRUPT)]


def test_stop_only_gets_harder() -> None:
    """A softer stop after a harder one is ignored, with a report, and so is one as hard."""
    stage = Stage()
    stage.start()
    stage.feed(QUICK)
    before = stage.state()

    assert stage.feed(GRACEFUL) == [m.EventIgnored(GRACEFUL, "already stopping")]
    assert stage.feed(QUICK) == [m.EventIgnored(QUICK, "already stopping")]
    assert stage.state() is before
    assert stage.feed(KILL) == [m.StopStarted("test", StopKind.KILL, 1), _overdue(Action.KILL), _act(Action.KILL)]
    assert stage.feed(KILL) == [m.EventIgnored(KILL, "already stopping")]


def test_harder_stop_leaves_a_killed_worker_its_second() -> None:
    """Who was killed is not killed again, and the second after which it is given up goes on."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=0.0))
    stage.start()
    stage.feed(GRACEFUL)
    stage.now += 0.75
    before = stage.state()

    assert stage.feed(QUICK) == [m.StopStarted("SIGQUIT", StopKind.QUICK, 1)]
    assert stage.feed(KILL) == [m.StopStarted("test", StopKind.KILL, 1)]
    assert stage.state() is before
    assert stage.wakes_in == 1.0


def test_unkillable_worker_is_abandoned_after_a_second() -> None:
    """A process that even KILL does not end is reported a second later, and the instance leaves with code 1."""
    stage = Stage()
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(8.5)
    stage.now = math.nextafter(START + 9.0, 0.0)

    assert stage.tick() == []
    assert stage.at(9.0) == [m.WorkerAbandoned(Pin(0), Attempt(1), waiting=False), *_end(1)]
    assert stage.state() == Abandoned(Attempt(1), START)
    assert stage.wakes_in is None


def test_stop_is_bounded_by_stop_timeout_plus_a_second() -> None:
    """Whatever the workers do, the end comes a second after the longest `stop_timeout` at the latest."""
    stage = Stage(*(SlotPlan(Pin(pin), stop_timeout=float(pin)) for pin in range(6)))
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(60.0)

    (finished_at,) = [at for at, effect in stage.history if isinstance(effect, m.Finish)]
    assert finished_at == START + 6.0


def test_abandoned_worker_that_ends_after_all_is_reported() -> None:
    """The late end of an abandoned process is a fact for the log, and it is not respawned."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=1.0), SlotPlan(Pin(1), stop_timeout=60.0))
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(3.0)
    assert isinstance(stage.state(0), Abandoned)

    late = stage.exit(Signaled(9), 0)

    assert late == [m.WorkerEnded(Pin(0), Attempt(1), Signaled(9), 3.0, Next.STOPPED)]
    assert stage.state(0) == Finished(cut=True)
    assert stage.exit(Exited(143), 1)[1:] == _end(1)


# Exit codes


def test_end_of_all_workers_is_code_0() -> None:
    """When the last worker has ended normally, the instance leaves with 0, and that was no stop."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.exit(Exited(0), 1)

    assert stage.exit(Exited(0), 0)[1:] == _end(0, stopped=False)


@pytest.mark.parametrize(("left_at_s", "code"), [(6.3, 0), (6.4, 1), (8.0, 1)])
def test_exit_code_is_1_where_term_was_not_enough(left_at_s: float, code: int) -> None:
    """A worker that had to be interrupted or killed makes the instance's code 1."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.feed(GRACEFUL)
    stage.exit(Exited(143), 1)
    stage.advance(left_at_s)

    assert stage.exit(Exited(143))[1:] == _end(code)


def test_exit_code_stays_1_though_others_leave_in_time() -> None:
    """One torn worker is enough, also where others leave after it."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=0.0), SlotPlan(Pin(1)))
    stage.start()
    stage.feed(GRACEFUL)
    stage.exit(Signaled(9), 0)

    assert stage.exit(Exited(143), 1)[1:] == _end(1)


@pytest.mark.parametrize("status", [Exited(143), Exited(0)])
def test_stop_all_sets_the_exit_code(status: ExitStatus) -> None:
    """What a worker asks for by `stop_all` is the instance's exit code."""
    stage = Stage()
    stage.start()
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 254))

    assert stage.exit(status)[1:] == _end(254)


def test_stop_all_beats_the_code_of_a_torn_stop() -> None:
    """The code that was asked for stands also where a worker had to be killed."""
    stage = Stage()
    stage.start()
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 0))

    assert stage.advance(60.0)[-2:] == _end(0)


def test_first_stop_all_sets_the_exit_code() -> None:
    """Of several workers that ask, the first one sets the code, also during a stop."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start()
    stage.feed(GRACEFUL)
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 7))
    stage.feed(m.StopRequested(StopKind.GRACEFUL, "stop_all", 8))
    stage.exit(Exited(0), 0)

    assert stage.exit(Exited(0), 1)[1:] == _end(7)


def test_instance_without_pins_finishes_at_once() -> None:
    """With nothing to keep running, the first event ends it."""
    core = Supervisor([], lambda delay_s: delay_s)

    assert core.handle(m.StartRequested(), 0.0) == _end(0, stopped=False)
    assert core.handle(m.DeadlineReached(), 1.0) == []


def test_nothing_follows_finish() -> None:
    """After `Finish` every event is harmless: no second `Finish`, no fork, no signal."""
    stage = Stage()
    stage.start()
    stage.exit(Exited(0))
    exited = m.WorkerExited(Pin(0), Attempt(1), Exited(1))

    for event in (GRACEFUL, KILL, INTERRUPT, INTERRUPT):
        assert stage.feed(event) == [m.EventIgnored(event, "already stopping")]
    assert stage.feed(m.StartRequested()) == [m.EventIgnored(m.StartRequested(), "already started")]
    assert stage.feed(m.DeadlineReached()) == []
    assert stage.feed(m.ForwardRequested(10)) == []
    assert stage.feed(exited) == [m.EventIgnored(exited, "no process in state Finished")]


def test_late_end_of_an_abandoned_worker_is_only_reported() -> None:
    """`Finish` is the last thing to do: what a process does that was abandoned before can only be reported after it."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=0.0))
    stage.start(up=False)
    stage.feed(GRACEFUL)
    assert isinstance(stage.advance(1.0)[-1], m.Finish)

    late = stage.exit(Signaled(9))

    assert late == [m.WorkerEnded(Pin(0), Attempt(1), Signaled(9), 1.0, Next.STOPPED)]


# Announcements


def test_announce_up_once_when_every_worker_is_up() -> None:
    """Whoever waits for the start is told once, when the last worker came up."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(3)))
    stage.start(up=False)

    assert stage.up(1) == []
    assert stage.up(0) == []
    assert stage.up(2) == [m.Announce(up=True)]
    stage.exit(Exited(1), 0)
    stage.tick()
    assert stage.up(0) == []


def test_announce_up_needs_every_pin_not_every_start() -> None:
    """A PIN that comes up twice does not stand for another that never did."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start(up=False)
    stage.up(0)
    stage.exit(Exited(1), 0)
    stage.tick()

    assert stage.up(0) == []
    assert stage.up(1) == [m.Announce(up=True)]


@pytest.mark.parametrize("status", [Exited(1), Exited(0), Signaled(9)])
def test_announce_failure_once_when_a_worker_ends_before_it_is_up(status: ExitStatus) -> None:
    """A worker that ends before it was ever up is told as a failed start, and nothing is told after that."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)), SlotPlan(Pin(2)))
    stage.start(up=False)
    stage.up(1)

    assert stage.exit(status, 0)[1:] == [m.Announce(up=False)]
    assert not only(stage.exit(status, 2), m.Announce)
    assert not only(stage.exit(Exited(1), 1), m.Announce)
    stage.tick()
    for pin, state in stage.core.snapshot().items():
        if isinstance(state, Starting):
            assert stage.up(pin) == []


def test_announce_comes_before_the_end() -> None:
    """Where the only worker ends before it was up, that is told before `Finish`, and not again after it."""
    stage = Stage()
    stage.start(up=False)

    assert stage.exit(Exited(0))[1:] == [m.Announce(up=False), *_end(0, stopped=False)]


def test_nothing_is_announced_after_finish() -> None:
    """Whoever waited for the start has seen the end of the instance, which says enough."""
    stage = Stage(SlotPlan(Pin(0), stop_timeout=0.0), SlotPlan(Pin(1), stop_timeout=0.0))
    stage.start(up=False)
    stage.up(1)
    stage.feed(GRACEFUL)
    stage.advance(1.0)

    assert stage.exit(Signaled(9), 0) == [m.WorkerEnded(Pin(0), Attempt(1), Signaled(9), 1.0, Next.STOPPED)]


def test_event_that_is_ignored_announces_nothing() -> None:
    """The late end of an older attempt is no failed start."""
    stage = Stage()
    stage.start(up=False)
    late = m.WorkerExited(Pin(0), Attempt(2), Exited(1))

    assert stage.feed(late) == [m.EventIgnored(late, "attempt 1 is current")]


def test_worker_that_crashes_after_it_was_up_is_no_failed_start() -> None:
    """A PIN that was up once counts as up for the announcement, though it crashed before the last one came up."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1)))
    stage.start(up=False)
    stage.up(0)

    assert len(stage.exit(Exited(1), 0)) == 1
    assert stage.up(1) == [m.Announce(up=True)]


def test_failed_fork_is_no_failed_start() -> None:
    """A fork that the system refused is tried again, so nothing is told yet."""
    stage = Stage()
    stage.forks_fail = True
    assert not only(stage.start(up=False), m.Announce)
    stage.forks_fail = False
    stage.advance(0.1)

    assert stage.up() == [m.Announce(up=True)]


# Passed-on signals, counts, deadlines, and what does not belong


def test_forward_reaches_live_workers_in_order() -> None:
    """A signal of the user's goes to every process there is, also one that is stopping, and to nobody else."""
    stage = Stage(*(SlotPlan(Pin(pin), backoff=(5.0, 5.0), stop_timeout=pin) for pin in (3, 1, 2, 0)))
    stage.start()
    stage.exit(Exited(0), 0)
    stage.exit(Exited(1), 2)
    stage.tick()
    stage.exit(Exited(1), 2)
    expected = [m.Forward(Pin(1), Attempt(1), 10), m.Forward(Pin(3), Attempt(1), 10)]

    assert stage.feed(m.ForwardRequested(10)) == expected
    stage.feed(GRACEFUL)
    assert stage.feed(m.ForwardRequested(10)) == expected
    stage.advance(1.0)
    assert stage.feed(m.ForwardRequested(10)) == expected
    stage.advance(1.0)
    assert stage.feed(m.ForwardRequested(10)) == expected[1:]


def test_stop_reports_how_many_are_live() -> None:
    """The report of a stop counts processes, not PINs, and a harder one counts again."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(4)))
    stage.start()
    stage.exit(Exited(0), 1)
    stage.exit(Exited(1), 2)

    assert stage.feed(GRACEFUL)[0] == m.StopStarted("SIGTERM", StopKind.GRACEFUL, 2)
    stage.exit(Exited(143), 3)
    assert stage.feed(QUICK)[0] == m.StopStarted("SIGQUIT", StopKind.QUICK, 1)
    stage.advance(60.0)
    assert isinstance(stage.state(0), Abandoned)


@pytest.mark.parametrize("status", [Exited(1), Vanished()])
def test_deadline_of_a_state_that_has_passed_is_forgotten(status: ExitStatus) -> None:
    """A worker that left has no rungs to climb: the machine is not woken for instants that mean nothing any more."""
    stage = Stage(SlotPlan(Pin(0)), SlotPlan(Pin(1), stop_timeout=100.0))
    stage.start()
    stage.feed(GRACEFUL)
    stage.advance(2.5)
    stage.exit(status, 0)

    assert stage.wakes_in == 80.0


def test_deadlines_of_one_instant_are_met_in_the_order_of_the_pins() -> None:
    """Who is due at the same time is served in the order of the PINs, whoever was due first."""
    stage = Stage(*(SlotPlan(Pin(pin), backoff=(5.0, 5.0)) for pin in range(3)))
    stage.start()
    for pin in (2, 0, 1):
        stage.exit(Exited(1), pin)

    assert [effect.pin for effect in only(stage.tick(), m.Spawn)] == [0, 1, 2]


def test_earlier_deadlines_are_met_first() -> None:
    """Of several that are due, the one that has waited longest is served first."""
    stage = Stage(*(SlotPlan(Pin(pin), backoff=(backoff, backoff)) for pin, backoff in enumerate((5.0, 3.0, 4.0))))
    stage.start()
    for pin in range(3):
        stage.exit(Exited(1), pin)
    stage.tick()
    for pin in range(3):
        stage.exit(Exited(1), pin)

    assert stage.wakes_in == 3.0
    assert [effect.pin for effect in only(stage.at(6.0), m.Spawn)] == [1, 2, 0]


def test_time_may_stand_still_but_not_go_back() -> None:
    """The clock never goes back; a shell that says so has a bug."""
    stage = Stage()
    stage.start()
    assert stage.tick() == []
    stage.now = math.nextafter(START, 0.0)

    with pytest.raises(AssertionError, match=r"^time went back from 1000\.0 to 999\.9999999999999$"):
        stage.tick()


def test_put_off_deadlines_do_not_pile_up() -> None:
    """Instants that were put off are kept up to a bound, and no deadline is lost or made up when they are cleared away."""
    pins = range(3)
    plans = [SlotPlan(Pin(pin), hang_timeout=100.0 + pin, max_runtime=500.0 + pin) for pin in pins]
    stage = Stage(*plans, SlotPlan(Pin(3)))
    stage.start()
    kept = []
    for step in range(500):
        stage.now = START + step / 64
        stage.suspend(step % 3)
        stage.resume(step % 3)
        kept.append(len(stage.core._wakes))
        wakes_at = [stage.state(pin).watch.wakes_at() for pin in pins]
        assert stage.core.next_deadline() == min(wakes_at)

    assert max(kept) == 4 * 4 + 64
    for pin in pins:
        stage.suspend(pin)
    assert stage.wakes_in == 500.0
    for pin in pins:
        stage.exit(Exited(0), pin)
    assert stage.wakes_in is None


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

    assert stage.feed(late) == [m.EventIgnored(late, "state Starting")]
    assert stage.state() is before


def test_event_of_a_pin_that_does_not_exist_is_ignored() -> None:
    """News of a PIN that nobody planned is reported and changes nothing."""
    stage = Stage()
    stage.start()
    stray = m.WorkerExited(Pin(1), Attempt(1), Exited(1))

    assert stage.feed(stray) == [m.EventIgnored(stray, "no such PIN")]
    assert isinstance(stage.state(), Running)
