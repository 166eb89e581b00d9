"""PINs that live and die together: who is stopped, when all start again, and when none does."""

from __future__ import annotations

import pytest

from core.stage import GRACEFUL, START, Stage, acts, only
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
    Pin,
    Purpose,
    Restart,
    Running,
    Signaled,
    SlotPlan,
    Stopping,
    Vanished,
)

N1, N2 = Attempt(1), Attempt(2)
LEFT = Exited(143)


def _plan(pin: int, group: str | None = "g", **options: object) -> SlotPlan:
    return SlotPlan(Pin(pin), group=group, permanent_failure_codes=frozenset({78}), **options)  # type: ignore[arg-type]


def _group(count: int = 3, **options: object) -> Stage:
    """Return a stage whose workers run in one group, since 10 s."""
    stage = Stage(*(_plan(pin, **options) for pin in range(count)))
    stage.start()
    stage.now += 10.0
    return stage


def _term(*pins: int, attempt: int = 1) -> list[m.Effect]:
    return [m.Act(Pin(pin), Attempt(attempt), Action.TERMINATE) for pin in pins]


def _failed(pin: int, status: ExitStatus, given_up: GivenUp, purpose: Purpose | None = None) -> m.WorkerEnded:
    is_failure = given_up is not GivenUp.GROUP
    return m.WorkerEnded(Pin(pin), N1, status, 10.0, Next.FAILED, 0.0, purpose, given_up, is_failure)


def _left(pin: int, status: ExitStatus = LEFT, lifetime_s: float = 10.0) -> m.WorkerEnded:
    return m.WorkerEnded(Pin(pin), N1, status, lifetime_s, Next.GROUP, 0.0, Purpose.GROUP)


def _respawned(*pins: int, attempt: int = 2) -> list[m.Effect]:
    return [
        effect
        for pin in pins
        for effect in (m.Spawn(Pin(pin), Attempt(attempt)), m.WorkerStarted(Pin(pin), Attempt(attempt)))
    ]


def _crash(stage: Stage, pin: int) -> None:
    """Let a worker crash, and all of its group start again at once."""
    stage.exit(Exited(1), pin)
    for other, state in stage.core.snapshot().items():
        if isinstance(state, Stopping):
            stage.exit(Exited(143), other)
    stage.tick()
    for member in stage.core.snapshot():
        stage.up(member)


# Restart


@pytest.mark.parametrize("status", [Exited(1), Signaled(9), Vanished()])
def test_failure_of_one_stops_all_and_the_last_end_starts_all(status: ExitStatus) -> None:
    """One fails, the others are asked to leave in the order of their PINs, and when the last has ended all are due."""
    stage = _group()

    assert stage.exit(status, 1) == [
        m.WorkerEnded(Pin(1), N1, status, 10.0, Next.GROUP, 0.0, None, None, is_failure=True),
        m.GroupRestarted(Pin(1), "g", 2),
        *_term(0, 2),
    ]
    assert stage.state(1) == Backoff(NEVER)
    assert (stage.state(0).purpose, stage.state(2).purpose) == (Purpose.GROUP, Purpose.GROUP)
    assert stage.wakes_in == 10.25
    assert stage.exit(Exited(143), 2) == [_left(2)]
    assert stage.state(2) == Backoff(NEVER)
    assert stage.wakes_in == 10.25
    stage.now += 3.0
    assert stage.exit(Exited(143), 0) == [_left(0, lifetime_s=13.0)]
    assert [stage.state(pin) for pin in range(3)] == [Backoff(START + 13.0)] * 3
    assert stage.wakes_in == 13.0
    assert stage.tick() == _respawned(0, 1, 2)
    assert stage.wakes_in is None


def test_group_restarts_again_and_again() -> None:
    """Each restart of a group is a restart of its own."""
    stage = _group(2)
    for attempt in (1, 2, 3):
        assert stage.exit(Signaled(9), attempt % 2)[1:] == [
            m.GroupRestarted(Pin(attempt % 2), "g", 1),
            *_term(1 - attempt % 2, attempt=attempt),
        ]
        stage.exit(Exited(143), 1 - attempt % 2)
        assert stage.tick() == _respawned(0, 1, attempt=attempt + 1)
        stage.up(0)
        stage.up(1)
        stage.now += 10.0


def test_failure_outside_of_the_group_does_not_touch_it() -> None:
    """Groups are none of the business of other groups, nor of a PIN of its own."""
    stage = Stage(_plan(0), _plan(1, "other"), _plan(2), _plan(3, None), _plan(4, "other"))
    stage.start()
    stage.now += 10.0

    assert stage.exit(Exited(1), 3) == [m.WorkerEnded(Pin(3), N1, Exited(1), 10.0, Next.RESPAWN, is_failure=True)]
    assert stage.tick() == _respawned(3)
    assert stage.exit(Exited(1), 4)[1:] == [m.GroupRestarted(Pin(4), "other", 1), *_term(1)]
    assert stage.exit(Exited(1), 0)[1:] == [m.GroupRestarted(Pin(0), "g", 1), *_term(2)]


def test_group_of_one_is_restarted_by_itself() -> None:
    """A group may have a single member, which waits for nobody."""
    stage = _group(1)

    assert stage.exit(Exited(1)) == [
        m.WorkerEnded(Pin(0), N1, Exited(1), 10.0, Next.GROUP, is_failure=True),
        m.GroupRestarted(Pin(0), "g", 0),
    ]
    assert stage.state() == Backoff(START + 10.0)
    assert stage.tick() == _respawned(0)


@pytest.mark.parametrize("status", [Exited(1), Exited(143), Signaled(15), Vanished()])
def test_end_of_who_left_with_the_group_is_no_failure(status: ExitStatus) -> None:
    """Whoever was asked to leave for another one has not failed, whatever it leaves with."""
    stage = Stage(_plan(0, max_restarts=0), _plan(1))
    stage.start()
    stage.now += 10.0
    stage.exit(Exited(1), 1)

    assert stage.exit(status, 0) == [_left(0, status)]


def test_who_ends_normally_has_finished_and_the_others_go_on() -> None:
    """A normal end restarts nobody, and whoever has finished is not started again with its group."""
    stage = _group()

    assert stage.exit(Exited(0), 2) == [m.WorkerEnded(Pin(2), N1, Exited(0), 10.0, Next.FINISHED)]
    assert stage.exit(Exited(1), 0)[1:] == [m.GroupRestarted(Pin(0), "g", 1), *_term(1)]
    assert stage.exit(Exited(143), 1) == [_left(1)]
    assert stage.tick() == _respawned(0, 1)
    assert stage.state(2) == Finished()


def test_who_ends_normally_when_asked_to_leave_has_finished() -> None:
    """A worker that the group's restart finds at the end of its work is done, and the others start without it."""
    stage = _group(2)
    stage.exit(Exited(1), 0)

    assert stage.exit(Exited(0), 1) == [m.WorkerEnded(Pin(1), N1, Exited(0), 10.0, Next.FINISHED, 0.0, Purpose.GROUP)]
    assert stage.state(0) == Backoff(START + 10.0)
    assert stage.tick() == _respawned(0)


def test_normal_end_under_always_restarts_the_group() -> None:
    """Under "always" a normal end is followed by a new worker, and so by a new group."""
    stage = _group(2, restart=Restart.ALWAYS)

    assert stage.exit(Exited(0), 0) == [
        m.WorkerEnded(Pin(0), N1, Exited(0), 10.0, Next.GROUP),
        m.GroupRestarted(Pin(0), "g", 1),
        *_term(1),
    ]
    assert stage.exit(Exited(0), 1) == [_left(1, Exited(0))]
    assert stage.tick() == _respawned(0, 1)


def test_group_waits_for_the_delay_of_who_failed() -> None:
    """The backoff of a crash loop is that of the one who crashes, and the whole group waits for it."""
    stage = Stage(_plan(0), _plan(1, backoff=(5.0, 5.0)))
    stage.start()
    for delay_s in (0.0, 5.0):
        effects = stage.exit(Exited(1), 1)
        assert effects[0].delay_s == delay_s
        stage.now += 0.5
        assert stage.exit(Exited(143), 0)[0].delay_s == 0.0
        stage.advance(delay_s)
        stage.up(0)
        stage.up(1)

    assert [at - START for at, effect in stage.history if isinstance(effect, m.Spawn)] == [0.0, 0.0, 0.5, 0.5, 5.5, 5.5]


@pytest.mark.parametrize(("left_at", "due_at"), [(4.999, 5.0), (5.0, 5.0), (5.5, 5.5)])
def test_group_is_due_at_the_later_of_the_delay_and_the_last_end(left_at: float, due_at: float) -> None:
    """Neither the delay nor the last end alone makes the group due."""
    stage = Stage(_plan(0), _plan(1, backoff=(5.0, 5.0)))
    stage.start()
    _crash(stage, 1)
    assert stage.exit(Exited(1), 1)[0].delay_s == 5.0
    stage.now = START + left_at
    stage.exit(Exited(143), 0)

    assert stage.state(0) == stage.state(1) == Backoff(START + due_at)
    assert stage.wakes_in == due_at


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_group_waits_for_the_longest_delay_of_several_failures(first: int, second: int) -> None:
    """A member that hangs while the group leaves has a delay of its own: the longest one counts, in either order."""
    stage = Stage(
        _plan(0, backoff=(3.0, 3.0), hang_timeout=0.5, stop_timeout=100.0),
        _plan(1, backoff=(7.0, 7.0), hang_timeout=0.5, stop_timeout=100.0),
        _plan(2, stop_timeout=100.0),
    )
    stage.start()
    _crash(stage, 0)
    _crash(stage, 1)
    stage.beats = {0: START, 1: START}
    stage.advance(0.75)
    stage.feed(m.Dumped(Pin(0), Attempt(3)))
    stage.feed(m.Dumped(Pin(1), Attempt(3)))
    assert [stage.state(pin).purpose for pin in (0, 1)] == [Purpose.HANG, Purpose.HANG]

    assert stage.exit(Exited(131), first)[1:] == [
        m.GroupRestarted(Pin(first), "g", 2), *_term(2, attempt=3)
    ]  # fmt: skip
    assert stage.exit(Exited(131), second)[0].delay_s == (3.0, 7.0)[second]
    assert stage.exit(Exited(143), 2)[0].delay_s == 0.0

    assert stage.wakes_in == 7.75
    assert [stage.state(pin) for pin in range(3)] == [Backoff(START + 7.75)] * 3


def test_restart_of_the_group_counts_for_who_failed_alone() -> None:
    """Whoever left for another one neither needs a granted restart nor uses one up, nor has it lived shortly."""
    stage = Stage(_plan(0, max_restarts=1), _plan(1, max_restarts=1))
    stage.start()
    stage.exit(Exited(1), 0)
    stage.exit(Exited(143), 1)
    stage.tick()

    assert stage.exit(Exited(1), 1)[0] == m.WorkerEnded(
        Pin(1), N2, Exited(1), 0.0, Next.GROUP, is_failure=True, short_lives=1, restart_count=1
    )
    assert stage.exit(Exited(143), 0)[0].follows is Next.GROUP
    stage.tick()
    assert stage.exit(Exited(1), 0)[0].given_up is GivenUp.INTENSITY


def test_worker_that_starts_is_asked_to_leave_with_its_group() -> None:
    """Who is not up yet belongs to the group as well."""
    stage = Stage(_plan(0), _plan(1))
    stage.start(up=False)

    assert stage.exit(Exited(1), 0) == [
        m.WorkerEnded(Pin(0), N1, Exited(1), 0.0, Next.GROUP, is_failure=True, short_lives=1),
        m.GroupRestarted(Pin(0), "g", 1),
        *_term(1),
        m.Announce(up=False),
    ]


def test_worker_that_is_not_forked_yet_waits_for_its_group() -> None:
    """In a mass start, who is still due when another fails waits until that one's process and the others are gone."""
    stage = Stage(*(_plan(pin) for pin in range(70)))
    stage.feed(m.StartRequested())
    stage.tick()

    effects = stage.exit(Exited(1), 0)

    assert effects[1:] == [m.GroupRestarted(Pin(0), "g", 63), *_term(*range(1, 64)), m.Announce(up=False)]
    assert [stage.state(pin) for pin in (0, 64, 69)] == [Backoff(NEVER)] * 3
    assert stage.tick() == []
    for pin in range(1, 63):
        stage.exit(Exited(143), pin)
    assert stage.tick() == []
    stage.exit(Exited(143), 63)
    assert len(only(stage.tick(), m.Spawn)) == 64


def test_failed_fork_of_one_member_is_its_own_affair() -> None:
    """The system's refusal to fork stops nobody who runs: the member is tried again by itself."""
    stage = _group(2)
    stage.exit(Exited(1), 0)
    stage.forks_fail = True
    stage.exit(Exited(143), 1)
    assert [effect.delay_s for effect in only(stage.tick(), m.SpawnDelayed)] == [0.1, 0.1]
    stage.forks_fail = False

    assert stage.advance(0.1) == _respawned(0, 1, attempt=3)


def test_hung_member_leaves_with_its_group() -> None:
    """A member that waits for its stacks is asked to leave like any other, and the next one in line is asked for them."""
    stage = Stage(_plan(0, hang_timeout=4.0), SlotPlan(Pin(1), hang_timeout=4.0), _plan(2))
    stage.start()
    stage.beats = {0: START, 1: START}
    stage.advance(6.0)
    assert isinstance(stage.state(0), Hung)

    assert stage.exit(Exited(1), 2)[1:] == [m.GroupRestarted(Pin(2), "g", 1), *_term(0), m.Dump(Pin(1), N1)]
    assert stage.exit(Exited(143), 0)[0] == m.WorkerEnded(Pin(0), N1, Exited(143), 6.0, Next.GROUP, 0.0, Purpose.GROUP)


def test_hang_of_one_restarts_the_group() -> None:
    """A member that is replaced for hanging is a failure like any other."""
    stage = Stage(_plan(0, hang_timeout=4.0), _plan(1))
    stage.start()
    stage.beats = {0: START}
    stage.advance(8.0)

    assert stage.exit(Exited(131), 0) == [
        m.WorkerEnded(Pin(0), N1, Exited(131), 8.0, Next.GROUP, 0.0, Purpose.HANG, None, is_failure=True),
        m.GroupRestarted(Pin(0), "g", 1),
        *_term(1),
    ]


def test_recycled_member_restarts_its_group() -> None:
    """A group begins anew with each of its members, also where one was only recycled."""
    stage = Stage(_plan(0, max_runtime=10.0), _plan(1))
    stage.start()
    stage.advance(10.0)

    assert stage.exit(Exited(143), 0) == [
        m.WorkerEnded(Pin(0), N1, Exited(143), 10.0, Next.GROUP, 0.0, Purpose.RECYCLE),
        m.GroupRestarted(Pin(0), "g", 1),
        *_term(1),
    ]


def test_member_that_is_being_recycled_is_not_asked_twice() -> None:
    """Who is on its way already stays on its ladder and keeps its reason; the group waits for it."""
    stage = Stage(_plan(0, max_runtime=10.0), _plan(1))
    stage.start()
    stage.advance(10.0)
    before = stage.state(0)

    assert stage.exit(Exited(1), 1)[1:] == [m.GroupRestarted(Pin(1), "g", 1)]
    assert stage.state(0) is before
    assert stage.exit(Exited(143), 0) == [
        m.WorkerEnded(Pin(0), N1, Exited(143), 10.0, Next.GROUP, 0.0, Purpose.RECYCLE)
    ]
    assert stage.tick() == _respawned(0, 1)


def test_group_waits_for_a_member_that_survives_kill() -> None:
    """An unkillable member is reported, and the group starts when the kernel has let it go."""
    stage = _group(2, stop_timeout=0.0)

    assert stage.exit(Exited(1), 0)[1:] == [
        m.GroupRestarted(Pin(0), "g", 1),
        m.WorkerOverdue(Pin(1), N1, Action.KILL),
        m.Act(Pin(1), N1, Action.KILL),
    ]
    assert stage.advance(100.0) == [m.WorkerAbandoned(Pin(1), N1, waiting=True)]
    assert stage.state(1) == Killing(N1, START, NEVER, Purpose.GROUP)
    assert stage.wakes_in is None
    assert stage.exit(Signaled(9), 1) == [_left(1, Signaled(9), 110.0)]
    assert stage.tick() == _respawned(0, 1)


def test_member_climbs_the_ladder_at_its_own_pace() -> None:
    """Who does not leave with its group is interrupted and killed as in a stop, each with its report."""
    stage = Stage(_plan(0), _plan(1, stop_timeout=1.0))
    stage.start()
    stage.exit(Exited(1), 0)
    effects = stage.advance(1.0)

    assert acts(stage, 1) == [(0.0, "TERM"), (0.25, "TERM"), (0.5, "TERM"), (0.8, "QUIT"), (1.0, "KILL")]
    assert [effect.action for effect in only(effects, m.WorkerOverdue)] == [Action.INTERRUPT, Action.KILL]


# Failure


def test_group_fails_with_the_first_member_that_is_given_up() -> None:
    """One is given up, the others are asked to leave, and none of them is replaced."""
    stage = _group()

    assert stage.exit(Exited(78), 1) == [
        _failed(1, Exited(78), GivenUp.PERMANENT),
        m.GroupFailed(Pin(1), "g", 2, ()),
        *_term(0, 2),
    ]
    assert stage.exit(Exited(143), 2) == [_failed(2, Exited(143), GivenUp.GROUP, Purpose.GROUP)]
    assert stage.state(2) == Failed()
    assert stage.exit(Exited(143), 0) == [
        _failed(0, Exited(143), GivenUp.GROUP, Purpose.GROUP),
        m.AllEnded(stopped=False, exit_code=1, failed=(Pin(0), Pin(1), Pin(2))),
        m.Finish(1, stopped=False),
    ]
    assert stage.wakes_in is None


def test_who_ends_normally_in_a_failed_group_has_finished() -> None:
    """A normal end is the handler's own word, also from who was asked to leave for good."""
    stage = _group(2)
    stage.exit(Exited(78), 1)

    assert stage.exit(Exited(0), 0) == [
        m.WorkerEnded(Pin(0), N1, Exited(0), 10.0, Next.FINISHED, 0.0, Purpose.GROUP),
        m.AllEnded(stopped=False, exit_code=1, failed=(Pin(1),)),
        m.Finish(1, stopped=False),
    ]


def test_failed_group_names_its_own_reason_before_any_other() -> None:
    """Whoever leaves a failed group has failed with it, also with a code of its own and under every policy."""
    stage = _group(2, restart=Restart.ALWAYS, max_restarts=0)
    stage.exit(Exited(78), 1)

    assert stage.exit(Exited(78), 0)[0] == _failed(0, Exited(78), GivenUp.GROUP, Purpose.GROUP)


@pytest.mark.parametrize(
    ("options", "reason"), [({"restart": Restart.NEVER}, GivenUp.NO_RESTART), ({"max_restarts": 0}, GivenUp.INTENSITY)]
)
def test_group_fails_for_every_reason(options: dict[str, object], reason: GivenUp) -> None:
    """Whatever the member was given up for, its group goes with it."""
    stage = Stage(_plan(0, **options), _plan(1))
    stage.start()
    stage.now += 10.0

    assert stage.exit(Exited(1), 0) == [
        _failed(0, Exited(1), reason), m.GroupFailed(Pin(0), "g", 1, ()), *_term(1)
    ]  # fmt: skip


def test_never_restarted_member_that_leaves_with_its_group_starts_again_with_it() -> None:
    """The policy is for a worker's own end; what belongs together is started together."""
    stage = Stage(_plan(0), _plan(1, restart=Restart.NEVER))
    stage.start()
    stage.now += 10.0
    stage.exit(Exited(1), 0)

    assert stage.exit(Exited(143), 1) == [_left(1)]
    assert stage.tick() == _respawned(0, 1)


def test_member_that_is_given_up_while_the_group_leaves_makes_it_fail() -> None:
    """The restart that was under way is off: who waited for it is given up and named, and nobody is asked twice."""
    stage = _group(4)
    stage.exit(Exited(1), 0)
    stage.exit(Exited(143), 3)

    assert stage.exit(Exited(78), 1) == [
        _failed(1, Exited(78), GivenUp.PERMANENT, Purpose.GROUP),
        m.GroupFailed(Pin(1), "g", 1, (Pin(0), Pin(3))),
    ]
    assert [stage.state(pin) for pin in (0, 1, 3)] == [Failed()] * 3
    assert isinstance(stage.state(2), Stopping)
    assert stage.exit(Exited(143), 2) == [
        _failed(2, Exited(143), GivenUp.GROUP, Purpose.GROUP),
        m.AllEnded(stopped=False, exit_code=1, failed=(Pin(0), Pin(1), Pin(2), Pin(3))),
        m.Finish(1, stopped=False),
    ]


def test_last_member_that_is_given_up_ends_the_instance() -> None:
    """Where everybody else waits for the restart, the group is over at once."""
    stage = _group(2)
    stage.exit(Exited(1), 0)

    assert stage.exit(Exited(78), 1) == [
        _failed(1, Exited(78), GivenUp.PERMANENT, Purpose.GROUP),
        m.GroupFailed(Pin(1), "g", 0, (Pin(0),)),
        m.AllEnded(stopped=False, exit_code=1, failed=(Pin(0), Pin(1))),
        m.Finish(1, stopped=False),
    ]


def test_member_that_was_never_forked_fails_with_its_group_and_that_is_no_start() -> None:
    """Whoever waits for the start hears of it, also where the one that failed had been up."""
    stage = Stage(*(_plan(pin) for pin in range(66)))
    stage.feed(m.StartRequested())
    stage.tick()
    stage.up(0)

    assert stage.exit(Exited(78), 0)[1:] == [
        m.GroupFailed(Pin(0), "g", 63, (Pin(64), Pin(65))), *_term(*range(1, 64)), m.Announce(up=False)
    ]  # fmt: skip
    assert [stage.state(pin) for pin in (64, 65)] == [Failed()] * 2
    assert stage.tick() == []


def test_failure_of_who_was_up_is_no_failed_start_until_one_ends_that_never_was() -> None:
    """A member that is asked to leave before it was up makes the start fail with its end, not before it."""
    stage = Stage(_plan(0), _plan(1))
    stage.start(up=False)
    stage.up(0)
    stage.now += 10.0

    assert stage.exit(Exited(78), 0) == [
        _failed(0, Exited(78), GivenUp.PERMANENT), m.GroupFailed(Pin(0), "g", 1, ()), *_term(1),
    ]  # fmt: skip
    assert stage.exit(Exited(143), 1) == [
        _failed(1, Exited(143), GivenUp.GROUP, Purpose.GROUP),
        m.Announce(up=False),
        m.AllEnded(stopped=False, exit_code=1, failed=(Pin(0), Pin(1))),
        m.Finish(1, stopped=False),
    ]


def test_finished_member_is_not_among_those_who_fail_with_the_group() -> None:
    """Who has finished has finished, whatever becomes of its group."""
    stage = _group()
    stage.exit(Exited(0), 0)

    assert stage.exit(Exited(78), 1)[1:] == [m.GroupFailed(Pin(1), "g", 1, ()), *_term(2)]
    assert stage.state(0) == Finished()


def test_failed_group_leaves_the_others_alone() -> None:
    """Who is not of the group goes on."""
    stage = Stage(_plan(0), _plan(1, None), _plan(2, "other"))
    stage.start()
    stage.exit(Exited(78), 0)

    assert isinstance(stage.state(1), Running)
    assert isinstance(stage.state(2), Running)
    assert stage.exit(Exited(1), 2)[0].follows is Next.GROUP


# Groups and stop


def test_stop_during_the_restart_of_a_group_starts_nobody() -> None:
    """Who waits for the group has finished, who is leaving leaves, and the code is 0."""
    stage = _group()
    stage.exit(Exited(1), 0)

    assert stage.feed(GRACEFUL) == [m.StopStarted("SIGTERM", StopKind.GRACEFUL, 2)]
    assert stage.state(0) == Finished(cut=True)
    assert stage.exit(Exited(143), 1) == [m.WorkerEnded(Pin(1), N1, Exited(143), 10.0, Next.STOPPED, 0.0, Purpose.STOP)]
    assert stage.exit(Exited(143), 2)[1:] == [m.AllEnded(stopped=True, exit_code=0), m.Finish(0, stopped=True)]


def test_failure_in_a_stop_concerns_nobody_else() -> None:
    """In a stop a group neither restarts nor fails."""
    stage = _group(2)
    stage.feed(GRACEFUL)

    assert stage.exit(Exited(78), 0) == [m.WorkerEnded(Pin(0), N1, Exited(78), 10.0, Next.STOPPED, 0.0, Purpose.STOP)]
    assert stage.exit(Exited(1), 1)[1:] == [m.AllEnded(stopped=True, exit_code=0), m.Finish(0, stopped=True)]


def test_stop_of_a_failed_group_keeps_the_code_1() -> None:
    """Whoever is still on its way out when the stop comes is stopped; the PIN that was given up counts."""
    stage = _group(2)
    stage.exit(Exited(78), 0)
    stage.feed(GRACEFUL)

    assert stage.exit(Exited(143), 1) == [
        m.WorkerEnded(Pin(1), N1, Exited(143), 10.0, Next.STOPPED, 0.0, Purpose.STOP),
        m.AllEnded(stopped=True, exit_code=1, failed=(Pin(0),)),
        m.Finish(1, stopped=True),
    ]


def test_announcement_waits_for_every_member() -> None:
    """A group that restarts while the others come up is up when all of them have been."""
    stage = Stage(_plan(0), _plan(1), _plan(2, None))
    stage.start(up=False)
    stage.up(0)
    stage.up(1)
    assert not only(stage.exit(Exited(1), 0) + stage.exit(Exited(143), 1) + stage.tick(), m.Announce)

    assert stage.up(2) == [m.Announce(up=True)]
    assert stage.up(0) == stage.up(1) == []


def test_failed_fork_keeps_its_backoff_when_its_group_restarts() -> None:
    """A fork that has failed is not tried again at once because somebody else has failed after it."""
    stage = Stage(_plan(0), _plan(1))
    stage.feed(m.StartRequested())
    stage.core.handle(m.DeadlineReached(), stage.now)
    stage.feed(m.Spawned(Pin(0), N1))
    stage.feed(m.SpawnFailed(Pin(1), N1, "no memory"))
    assert stage.state(1) == Backoff(START + 0.1)

    stage.now += 0.05
    stage.exit(Exited(1), 0)

    assert [stage.state(pin) for pin in (0, 1)] == [Backoff(START + 0.1)] * 2
