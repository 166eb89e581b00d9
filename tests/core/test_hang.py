"""A worker that reaches no checkpoint any more: looks, probes, stacks and replacement, and who is suspended."""

from __future__ import annotations

import math

import pytest

from core.stage import GRACEFUL, INTERRUPT, KILL, QUICK, START, Stage, acts
from pyworkers._core import messages as m
from pyworkers._core.messages import GivenUp, Next, StopKind
from pyworkers._core.types import (
    NEVER,
    Abandoned,
    Action,
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Failed,
    Hung,
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
    Watch,
)

N1 = Attempt(1)


def _look(pin: int = 0) -> m.Look:
    return m.Look(Pin(pin), N1)


def _probe(pin: int = 0) -> m.Probe:
    return m.Probe(Pin(pin), N1)


def _act(action: Action, pin: int = 0) -> m.Act:
    return m.Act(Pin(pin), N1, action)


def _overdue(action: Action, pin: int = 0) -> m.WorkerOverdue:
    return m.WorkerOverdue(Pin(pin), N1, action)


def _stage(count: int = 1, *, stop_timeout: float = 8.0, max_restarts: int | None = None) -> Stage:
    """Return a stage whose workers run, may be silent for 10 s, and have reached one checkpoint, at the start."""
    plans = (
        SlotPlan(Pin(pin), hang_timeout=10.0, stop_timeout=stop_timeout, max_restarts=max_restarts)
        for pin in range(count)
    )
    stage = Stage(*plans)
    stage.start()
    stage.beats = dict.fromkeys(range(count), START)
    return stage


def _hung(count: int = 1, *, stop_timeout: float = 8.0, max_restarts: int | None = None) -> Stage:
    """Return a stage whose workers are found hung 15 s after the start."""
    stage = _stage(count, stop_timeout=stop_timeout, max_restarts=max_restarts)
    stage.advance(15.0)
    return stage


# Looking and probing


def test_worker_without_hang_timeout_is_never_looked_at() -> None:
    """Hang detection is off by default, and costs no deadline."""
    stage = Stage()
    stage.start()

    assert stage.state().watch == Watch()
    assert stage.wakes_in is None


def test_watch_begins_when_the_worker_is_up() -> None:
    """The time that the start takes is no silence: the first look is half of `hang_timeout` after it."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=10.0))
    stage.start(up=False)
    assert stage.wakes_in is None
    stage.now += 100.0
    stage.up()

    assert stage.state() == Running(N1, START, Watch(look_at=START + 105.0))
    assert stage.wakes_in == 105.0


def test_worker_that_never_reached_a_checkpoint_is_not_judged() -> None:
    """Before the first checkpoint there are looks and nothing else, for as long as it takes."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=10.0))
    stage.start()

    assert stage.advance(50.0) == [_look()] * 10
    assert stage.wakes_in == 55.0


def test_look_is_due_at_its_instant() -> None:
    """Nothing is looked at before half of `hang_timeout` has passed."""
    stage = _stage()
    stage.now = math.nextafter(START + 5.0, 0.0)

    assert stage.tick() == []
    assert stage.wakes_in == 5.0
    assert stage.at(5.0) == [_look(), _probe()]
    assert stage.state().watch == Watch(look_at=START + 10.0, probed_at=START + 5.0)
    assert stage.wakes_in == 10.0


def test_look_that_finds_no_answer_is_made_again() -> None:
    """The next look is due half of `hang_timeout` after the last, whatever became of that one."""
    stage = _stage()
    stage.now += 5.0

    assert stage.core.handle(m.DeadlineReached(), stage.now) == [_look()]
    assert stage.state().watch == Watch(look_at=START + 10.0)
    assert stage.wakes_in == 10.0


def test_worker_that_answers_is_probed_again_and_again() -> None:
    """Each probe that was answered is followed by the next one at the next look."""
    stage = _stage()
    effects = []
    for look_at in (5.0, 10.0, 15.0, 20.0, 25.0):
        effects.append(stage.at(look_at))
        stage.beats[0] = stage.now + 3.0
        assert stage.wakes_in == look_at + 5.0

    assert effects == [[_look(), _probe()]] * 5


def test_probe_that_waits_for_an_answer_is_not_sent_again() -> None:
    """While a probe has no answer, the worker is looked at and left alone."""
    stage = _stage()

    assert stage.at(5.0) == [_look(), _probe()]
    assert stage.at(10.0) == [_look()]
    assert stage.wakes_in == 15.0
    assert stage.state().watch == Watch(look_at=START + 15.0, probed_at=START + 5.0)


@pytest.mark.parametrize(("beat_at", "hung"), [(4.999, True), (5.0, False), (14.999, False)])
def test_answer_to_the_last_probe_is_what_counts(beat_at: float, *, hung: bool) -> None:
    """A worker is hung when its last beat is older than the probe; a beat in the instant of the probe is an answer."""
    stage = _stage()
    stage.advance(14.0)
    stage.beats[0] = START + beat_at

    assert stage.at(15.0)[1:] == ([m.WorkerHung(Pin(0), N1, 10.0), m.Dump(Pin(0), N1)] if hung else [_probe()])


@pytest.mark.parametrize(("silent_s", "hung"), [(9.999, False), (10.0, True), (10.5, True)])
def test_worker_is_hung_when_hang_timeout_is_over(silent_s: float, *, hung: bool) -> None:
    """A probe must have waited for all of `hang_timeout`, and the report says for how long it has."""
    stage = _stage()
    stage.advance(10.0)
    stage.now = START + 5.0 + silent_s
    looked = m.Looked(Pin(0), N1, START)
    before = stage.state()

    effects = stage.feed(looked)

    if hung:
        assert effects == [m.WorkerHung(Pin(0), N1, silent_s), m.Dump(Pin(0), N1)]
        assert stage.state() == Hung(N1, START, stage.now + 2.0, asked=True)
    else:
        assert effects == []
        assert stage.state() == before
        assert stage.wakes_in == 15.0


@pytest.mark.parametrize(("late_s", "hung"), [(1.0, True), (1.001, False)])
def test_look_that_is_late_judges_nobody(late_s: float, *, hung: bool) -> None:
    """More than a second late, the machine itself was suspended: the worker gets a new probe and a new period."""
    stage = _stage()
    stage.advance(10.0)
    effects = stage.at(15.0 + late_s)

    if hung:
        assert effects == [_look(), m.WorkerHung(Pin(0), N1, 11.0), m.Dump(Pin(0), N1)]
    else:
        assert effects == [_look(), _probe()]
        assert stage.state().watch == Watch(look_at=stage.now + 5.0, probed_at=stage.now)


def test_looks_go_on_beside_other_deadlines() -> None:
    """Several workers are looked at each at its own time, and only those who are silent are judged."""
    stage = _stage(2)
    stage.at(5.0)
    stage.beats[1] = START + 7.0

    assert stage.at(10.0) == [_look(0), _look(1), _probe(1)]
    assert stage.at(15.0) == [_look(0), m.WorkerHung(Pin(0), N1, 10.0), m.Dump(Pin(0), N1), _look(1)]
    assert stage.state(1) == Running(N1, START, Watch(look_at=START + 20.0, probed_at=START + 10.0))


# Stacks


def test_hung_worker_is_asked_for_its_stacks_and_replaced_when_they_are_there() -> None:
    """Hung, dumped, interrupted, reaped, respawned: one after the other, each with its report."""
    stage = _stage()
    stage.advance(10.0)

    assert stage.at(15.0) == [_look(), m.WorkerHung(Pin(0), N1, 10.0), m.Dump(Pin(0), N1)]
    assert stage.state() == Hung(N1, START, START + 17.0, asked=True)
    assert stage.wakes_in == 17.0
    stage.now += 0.5
    assert stage.feed(m.Dumped(Pin(0), N1)) == [_act(Action.INTERRUPT)]
    assert stage.wakes_in == 15.75
    assert stage.state() == Stopping(
        N1,
        START,
        Action.INTERRUPT,
        (
            Rung(START + 15.75, Action.INTERRUPT),
            Rung(START + 16.0, Action.INTERRUPT),
            Rung(START + 16.5, Action.INTERRUPT),
            Rung(START + 17.5, Action.KILL),
        ),
        Purpose.HANG,
    )
    stage.now += 0.5
    assert stage.exit(Exited(131)) == [
        m.WorkerEnded(Pin(0), N1, Exited(131), 16.0, Next.RESPAWN, 0.0, Purpose.HANG, None, is_failure=True)
    ]
    assert stage.tick() == [m.Spawn(Pin(0), Attempt(2)), m.WorkerStarted(Pin(0), Attempt(2))]


def test_hung_worker_that_writes_no_stacks_is_replaced_without() -> None:
    """Two seconds after it was asked, whoever has not written its stacks is interrupted all the same."""
    stage = _hung()
    stage.now = math.nextafter(START + 17.0, 0.0)
    assert stage.tick() == []
    assert stage.wakes_in == 17.0

    assert stage.at(17.0) == [_act(Action.INTERRUPT)]
    late = m.Dumped(Pin(0), N1)
    assert stage.feed(late) == [m.EventIgnored(late, "state Stopping")]


def test_interrupt_of_a_hung_worker_is_no_news_and_its_kill_is() -> None:
    """That it hangs was said; that even the interrupt did not help is worth a line."""
    stage = _hung()
    effects = stage.advance(4.0)

    assert acts(stage) == [(17.0, "QUIT"), (17.25, "QUIT"), (17.5, "QUIT"), (18.0, "QUIT"), (19.0, "KILL")]
    assert effects == [*[_act(Action.INTERRUPT)] * 4, _overdue(Action.KILL), _act(Action.KILL)]
    assert stage.state() == Killing(N1, START, START + 20.0, Purpose.HANG)


@pytest.mark.parametrize(("stop_timeout", "kill_at"), [(0.6, 17.6), (1.999, 18.999), (2.0, 19.0), (8.0, 19.0)])
def test_hung_worker_has_two_seconds_or_its_stop_timeout(stop_timeout: float, kill_at: float) -> None:
    """From the interrupt to KILL it is 2 s, or `stop_timeout` where that is shorter."""
    stage = _hung(stop_timeout=stop_timeout)
    stage.advance(10.0)

    assert acts(stage)[0] == (17.0, "QUIT")
    assert acts(stage)[-1] == (kill_at, "KILL")


def test_hung_worker_without_stop_timeout_is_killed_at_once() -> None:
    """`stop_timeout=0` means KILL at once here as well."""
    stage = _hung(stop_timeout=0.0)

    assert stage.at(17.0) == [_overdue(Action.KILL), _act(Action.KILL)]


def test_stacks_are_asked_for_one_pin_at_a_time() -> None:
    """There is one log to write into: the next is asked when the one before has written or had its time."""
    stage = _stage(3)
    stage.advance(10.0)

    assert stage.at(15.0) == [
        _look(0), m.WorkerHung(Pin(0), N1, 10.0), m.Dump(Pin(0), N1),
        _look(1), m.WorkerHung(Pin(1), N1, 10.0),
        _look(2), m.WorkerHung(Pin(2), N1, 10.0),
    ]  # fmt: skip
    assert stage.state(1) == Hung(N1, START, START + 25.0)
    assert stage.wakes_in == 17.0
    stage.now += 0.5
    assert stage.feed(m.Dumped(Pin(0), N1)) == [_act(Action.INTERRUPT, 0), m.Dump(Pin(1), N1)]
    assert stage.state(1) == Hung(N1, START, START + 17.5, asked=True)
    assert stage.wakes_in == 15.75
    assert stage.at(17.5) == [
        _overdue(Action.KILL, 0), _act(Action.KILL, 0), _act(Action.INTERRUPT, 1), m.Dump(Pin(2), N1)
    ]  # fmt: skip
    assert stage.state(2) == Hung(N1, START, START + 19.5, asked=True)


def test_last_of_many_that_hang_at_once_is_not_kept_waiting() -> None:
    """Where nobody answers, who has waited ten seconds for its turn is ended without its stacks, all of them at once."""
    stage = _stage(8)
    stage.advance(10.0)
    assert [type(effect) for effect in stage.at(15.0)].count(m.WorkerHung) == 8
    asked = [stage.at(second) for second in (17.0, 19.0, 21.0, 23.0)]
    assert [effect for effects in asked for effect in effects if isinstance(effect, m.Dump)] == [
        m.Dump(Pin(pin), N1) for pin in (1, 2, 3, 4)
    ]

    last = stage.at(25.0)

    assert [effect for effect in last if effect in (_act(Action.INTERRUPT, pin) for pin in range(8))] == [
        _act(Action.INTERRUPT, pin) for pin in (4, 5, 6, 7)
    ]
    assert not any(isinstance(effect, m.Dump) for effect in last)
    assert not any(isinstance(stage.state(pin), Hung) for pin in range(8))


def test_who_waits_to_write_its_stacks_and_ends_is_not_asked_any_more() -> None:
    """A hung worker that ends by itself leaves the line, and its end is told as a hang."""
    stage = _hung(3)

    assert stage.exit(Signaled(9), 1) == [
        m.WorkerEnded(Pin(1), N1, Signaled(9), 15.0, Next.RESPAWN, 0.0, Purpose.HANG, None, is_failure=True)
    ]
    assert stage.exit(Signaled(9), 0)[1:] == [m.Dump(Pin(2), N1)]


@pytest.mark.parametrize("status", [Exited(1), Exited(143), Signaled(9), Vanished()])
def test_end_of_a_hung_worker_is_a_hang_whatever_it_was(status: ExitStatus) -> None:
    """Between the judgement and the interrupt an end may still come by itself: the cause is the hang."""
    stage = _hung()

    assert stage.exit(status) == [
        m.WorkerEnded(Pin(0), N1, status, 15.0, Next.RESPAWN, 0.0, Purpose.HANG, None, is_failure=True)
    ]
    assert stage.state() == Backoff(START + 15.0)


def test_hung_worker_that_ends_normally_has_finished() -> None:
    """A normal end is a normal end, also a late one."""
    stage = _hung()

    assert stage.exit(Exited(0)) == [
        m.WorkerEnded(Pin(0), N1, Exited(0), 15.0, Next.FINISHED, 0.0, Purpose.HANG),
        m.AllEnded(stopped=False, exit_code=0),
        m.Finish(0, stopped=False),
    ]


def test_hang_counts_as_a_failure_for_the_restart_intensity() -> None:
    """A worker that hangs is replaced no more often than one that crashes."""
    stage = _hung(max_restarts=0)
    stage.advance(2.0)

    assert stage.exit(Exited(131))[0] == m.WorkerEnded(
        Pin(0), N1, Exited(131), 17.0, Next.FAILED, 0.0, Purpose.HANG, GivenUp.INTENSITY, is_failure=True
    )
    assert stage.state() == Failed()


def test_hang_after_a_short_life_backs_off() -> None:
    """A worker that hangs at once, again and again, is one in a crash loop."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=0.25, stop_timeout=0.0))
    stage.start()
    delays = []
    for _ in range(3):
        stage.beats[0] = stage.now
        stage.advance(0.375)
        assert isinstance(stage.state(), Hung)
        stage.feed(m.Dumped(Pin(0), stage.attempt()))
        delays.append(stage.exit(Signaled(9))[0].delay_s)
        stage.advance(delays[-1])
        stage.up()

    assert delays == [0.0, 0.1, 0.2]


def test_unkillable_hung_worker_is_waited_for() -> None:
    """Outside a stop, whoever survives KILL is reported once, and its PIN waits for it as long as it takes."""
    stage = _hung()
    stage.advance(4.0)
    assert stage.wakes_in == 20.0
    stage.now = math.nextafter(START + 20.0, 0.0)
    assert stage.tick() == []

    assert stage.at(20.0) == [m.WorkerAbandoned(Pin(0), N1, waiting=True)]
    assert stage.state() == Killing(N1, START, NEVER, Purpose.HANG)
    assert stage.wakes_in is None
    assert stage.at(5000.0) == []
    assert stage.exit(Signaled(9)) == [
        m.WorkerEnded(Pin(0), N1, Signaled(9), 5000.0, Next.RESPAWN, 0.0, Purpose.HANG, None, is_failure=True)
    ]
    assert stage.tick() == [m.Spawn(Pin(0), Attempt(2)), m.WorkerStarted(Pin(0), Attempt(2))]


# Hang and stop


@pytest.mark.parametrize("pin", [0, 1])
def test_graceful_stop_of_a_hung_worker_starts_the_ladder(pin: int) -> None:
    """A stop is for everyone alike: also a hung worker, asked for its stacks or in line for it, gets TERM and its time."""
    stage = _hung(2)
    stage.now += 1.0

    assert stage.feed(GRACEFUL) == [
        m.StopStarted("SIGTERM", StopKind.GRACEFUL, 2), _act(Action.TERMINATE, 0), _act(Action.TERMINATE, 1)
    ]  # fmt: skip
    assert stage.wakes_in == 16.25
    assert stage.exit(Exited(143), pin) == [
        m.WorkerEnded(Pin(pin), N1, Exited(143), 16.0, Next.STOPPED, 0.0, Purpose.STOP)
    ]
    assert stage.exit(Exited(143), 1 - pin)[-1] == m.Finish(0, stopped=True)


@pytest.mark.parametrize(("event", "action"), [(QUICK, Action.INTERRUPT), (KILL, Action.KILL)])
def test_harder_stop_of_a_hung_worker_is_news(event: m.Event, action: Action) -> None:
    """In a stop the interrupt of a hung worker is reported, since it makes the exit code 1."""
    stage = _hung()

    assert stage.feed(event)[1:] == [_overdue(action), _act(action)]
    assert stage.exit(Exited(131))[-1] == m.Finish(1, stopped=True)


def test_graceful_stop_leaves_a_hung_worker_on_its_ladder() -> None:
    """Who was interrupted for hanging gets no second ladder from a stop, but its unit may be torn: code 1."""
    stage = _hung()
    stage.advance(2.5)
    before = stage.state()

    assert stage.feed(GRACEFUL) == [m.StopStarted("SIGTERM", StopKind.GRACEFUL, 1)]
    assert stage.state() == Stopping(N1, START, Action.INTERRUPT, before.rungs, Purpose.STOP)
    assert stage.wakes_in == 18.0
    assert stage.exit(Exited(131)) == [
        m.WorkerEnded(Pin(0), N1, Exited(131), 17.5, Next.STOPPED, 0.0, Purpose.STOP),
        m.AllEnded(stopped=True, exit_code=1),
        m.Finish(1, stopped=True),
    ]


def test_stop_gives_a_killed_hung_worker_a_second() -> None:
    """A stop does not wait for a worker that survives KILL: a second after the stop it is left behind, with code 1."""
    stage = _hung()
    stage.advance(100.0)

    assert stage.feed(GRACEFUL) == [m.StopStarted("SIGTERM", StopKind.GRACEFUL, 1)]
    assert stage.state() == Killing(N1, START, START + 116.0, Purpose.STOP)
    assert stage.advance(60.0) == [
        m.WorkerAbandoned(Pin(0), N1, waiting=False),
        m.AllEnded(stopped=True, exit_code=1),
        m.Finish(1, stopped=True),
    ]


def test_hang_that_was_over_before_the_stop_does_not_change_the_code() -> None:
    """An interrupt outside the stop was a replacement: a later stop by TERM alone is code 0."""
    stage = _hung()
    stage.advance(2.0)
    stage.exit(Exited(131))
    stage.tick()
    stage.up()
    stage.feed(INTERRUPT)

    assert stage.exit(Exited(143))[-1] == m.Finish(0, stopped=True)


# Suspension


def test_suspended_worker_is_not_looked_at_and_starts_anew() -> None:
    """Who is stopped by a signal cannot be silent by fault: no look until it goes on, and then a whole new period."""
    stage = _stage()
    stage.advance(10.0)
    assert stage.suspend() == [m.SuspensionNoted(Pin(0), N1, suspended=True)]
    assert stage.state() == Running(N1, START, suspended=True)
    assert stage.wakes_in is None
    assert stage.advance(90.0) == []

    assert stage.resume() == [m.SuspensionNoted(Pin(0), N1, suspended=False)]
    assert stage.state().watch == Watch(look_at=START + 100.0)
    assert stage.wakes_in == 100.0
    assert stage.tick() == [_look(), _probe()]
    assert stage.at(105.0) == [_look()]
    assert stage.at(110.0)[1:] == [m.WorkerHung(Pin(0), N1, 10.0), m.Dump(Pin(0), N1)]


def test_resumed_worker_without_hang_timeout_is_not_looked_at() -> None:
    """Where hang detection is off, a worker that goes on changes nothing."""
    stage = Stage()
    stage.start()
    stage.suspend()
    stage.resume()

    assert stage.state() == Running(N1, START)
    assert stage.wakes_in is None


def test_suspension_leaves_the_other_deadlines() -> None:
    """Memory and age go on being looked after."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=10.0, max_runtime=100.0, max_rss=1000))
    stage.start()
    stage.suspend()
    assert stage.state().watch == Watch(NEVER, None, START + 30.0, START + 100.0)
    stage.resume()

    assert stage.state().watch == Watch(START, None, START + 30.0, START + 100.0)


def test_suspension_is_noted_in_every_live_state() -> None:
    """That a worker is suspended is worth a line wherever it is; who is on its way out goes on being so."""
    stage = _hung()
    notes = [m.SuspensionNoted(Pin(0), N1, suspended=True), m.SuspensionNoted(Pin(0), N1, suspended=False)]
    for state in (Hung, Stopping, Killing):
        before = stage.state()
        assert isinstance(before, state)
        assert stage.suspend() + stage.resume() == notes
        assert stage.state() is before
        stage.advance(2.0)
    stage.feed(GRACEFUL)
    stage.advance(2.0)

    assert isinstance(stage.state(), Abandoned)
    assert stage.suspend() + stage.resume() == notes


def test_worker_that_is_suspended_while_it_starts_is_not_looked_at_when_its_word_arrives() -> None:
    """A worker may say that it is up and be stopped before that is read: it is watched from when it goes on."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=10.0, max_runtime=100.0))
    stage.start(up=False)
    assert stage.suspend() == [m.SuspensionNoted(Pin(0), N1, suspended=True)]
    assert stage.state() == Starting(N1, START, confirmed=True, suspended=True)
    stage.now += 1.0
    assert stage.up() == [m.Announce(up=True)]
    assert stage.state() == Running(N1, START, Watch(recycle_at=START + 101.0), suspended=True)
    assert stage.wakes_in == 101.0
    stage.now += 1.0
    stage.resume()

    assert stage.state() == Running(N1, START, Watch(look_at=START + 2.0, recycle_at=START + 101.0))
    assert stage.wakes_in == 2.0


def test_worker_that_goes_on_before_it_is_up_is_watched_as_ever() -> None:
    """A suspension that is over when the worker comes up changes nothing."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=10.0))
    stage.start(up=False)
    stage.suspend()
    stage.resume()
    assert stage.state() == Starting(N1, START, confirmed=True, suspended=False)
    stage.up()

    assert stage.state().watch == Watch(look_at=START + 5.0)


@pytest.mark.parametrize("word", [m.WorkerSuspended, m.WorkerResumed])
def test_suspension_of_nobody_is_ignored(word: type) -> None:
    """News of a process that is gone changes nothing."""
    stage = _stage()
    stage.exit(Exited(1))
    event = word(Pin(0), N1)

    assert stage.feed(event) == [m.EventIgnored(event, "no process in state Backoff")]
