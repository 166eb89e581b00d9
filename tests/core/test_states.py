"""The complete table: every state with every event, and every event of a process that is not the current one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from core.stage import GRACEFUL, INTERRUPT, KILL, QUICK, START, Stage, spare_plan
from pyworkers._core import messages as m
from pyworkers._core.records import replace
from pyworkers._core.slot import Slot
from pyworkers._core.types import (
    FIRST_SPARE,
    NEVER,
    Abandoned,
    Attempt,
    Backoff,
    ClosedState,
    Exited,
    ExitStatus,
    Failed,
    Finished,
    Hung,
    Killing,
    LiveState,
    Pin,
    Purpose,
    Retired,
    Running,
    Signaled,
    SlotPlan,
    Starting,
    Stopping,
    Vanished,
    is_spare,
)

PLAN = SlotPlan(
    Pin(0), permanent_failure_codes=frozenset({78}), hang_timeout=10.0, max_runtime=100.0, max_rss=1000, backoff=(5, 5)
)
"""The one that is looked at."""

OTHER = SlotPlan(Pin(1), stop_timeout=1e6, handler=1)
"""A bystander, which never leaves: nothing that happens to it is in the table."""

SPARE = spare_plan(backoff=(5, 5))
"""It waits to take the place of a worker of `PLAN`."""

GROUPED = (replace(PLAN, group="g"), replace(OTHER, group="g"))


def _unstarted(stage: Stage) -> None:
    pass


def _due(stage: Stage) -> None:
    stage.feed(m.StartRequested())


def _spawning(stage: Stage) -> None:
    stage.core.handle(m.StartRequested(), stage.now)
    assert m.Spawn(Pin(0), Attempt(1)) in stage.core.handle(m.DeadlineReached(), stage.now)


def _starting(stage: Stage) -> None:
    stage.start(up=False)
    stage.up(1)


def _paused(stage: Stage) -> None:
    _starting(stage)
    stage.suspend()


def _running(stage: Stage) -> None:
    stage.start()
    stage.exit(Exited(1))
    stage.tick()
    stage.up()


def _suspended(stage: Stage) -> None:
    _running(stage)
    stage.suspend()


def _backoff(stage: Stage) -> None:
    _running(stage)
    stage.exit(Exited(1))


def _overdue(stage: Stage) -> None:
    _running(stage)
    stage.beats = {0: START, 1: START}
    stage.advance(14.0)
    stage.now = START + 15.0


def _dumping(stage: Stage) -> None:
    _overdue(stage)
    stage.tick()


def _replaced(stage: Stage) -> None:
    _dumping(stage)
    stage.feed(m.Dumped(Pin(0), Attempt(2)))


def _killed(stage: Stage) -> None:
    _replaced(stage)
    stage.advance(2.0)


def _aged(stage: Stage) -> None:
    _running(stage)
    stage.advance(100.0)


def _unkillable(stage: Stage) -> None:
    _aged(stage)
    stage.advance(9.0)


def _together(stage: Stage) -> None:
    stage.start()
    stage.exit(Exited(1))
    stage.exit(Exited(143), 1)
    stage.tick()
    stage.up()
    stage.up(1)


def _leaving(stage: Stage) -> None:
    _together(stage)
    stage.exit(Exited(1), 1)


def _doomed(stage: Stage) -> None:
    _together(stage)
    stage.exit(Exited(78), 1)


def _waiting(stage: Stage) -> None:
    _together(stage)
    stage.exit(Exited(1), 0)


def _stopping(stage: Stage) -> None:
    _running(stage)
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


def _failed(stage: Stage) -> None:
    stage.start()
    stage.exit(Exited(78))


def _stopped(stage: Stage) -> None:
    _stopping(stage)
    stage.exit(Exited(143))


def _warming(stage: Stage) -> None:
    stage.start(up=False)
    stage.up()


def _parked(stage: Stage) -> None:
    stage.start()


def _spare_suspended(stage: Stage) -> None:
    stage.start()
    stage.suspend(FIRST_SPARE)


def _due_again(stage: Stage) -> None:
    stage.start()
    stage.exit(Exited(1))


def _assigned(stage: Stage) -> None:
    _due_again(stage)
    assert m.Assign(Pin(0), Attempt(2), FIRST_SPARE) in stage.core.handle(m.DeadlineReached(), stage.now)


def _given(stage: Stage) -> None:
    _due_again(stage)
    stage.forks_fail = True
    stage.tick()


def _dismissed(stage: Stage) -> None:
    stage.start()
    stage.exit(Exited(0))


def _dismissed_killed(stage: Stage) -> None:
    _dismissed(stage)
    stage.advance(8.0)


def _dismissed_abandoned(stage: Stage) -> None:
    _dismissed(stage)
    stage.advance(9.0)


@dataclass(frozen=True)
class Row:
    """A state, how to get there, and what follows each event that is not treated as in `_usual`.

    A cell names the type of the state that follows, or "=" where the state stays the very same, and then the effects.

    Attributes:
        pin: Whose state it is.
    """

    prepare: Callable[[Stage], None]
    state: type
    cells: dict[str, str]
    plans: tuple[SlotPlan, ...] = (PLAN, OTHER)
    pin: Pin = PLAN.pin


UNUSED = {
    "stop": "Finished StopStarted", "quick": "Finished StopStarted",
    "kill": "Finished StopStarted", "int": "Finished StopStarted",
}  # fmt: skip
LAST = {event: f"{cell} AllEnded Finish" for event, cell in UNUSED.items()}
STOPPED = {
    "stop": "Stopping StopStarted Act", "quick": "Stopping StopStarted WorkerOverdue Act",
    "kill": "Killing StopStarted WorkerOverdue Act", "int": "Stopping StopStarted Act",
}  # fmt: skip
ON_ITS_WAY = {**STOPPED, "stop": "Stopping StopStarted", "int": "Stopping StopStarted"}
DYING = {
    "stop": "Killing StopStarted", "quick": "Killing StopStarted",
    "kill": "Killing StopStarted", "int": "Killing StopStarted",
}  # fmt: skip
CLOSED = {"stop": "= StopStarted", "quick": "= StopStarted", "kill": "= StopStarted", "int": "= StopStarted"}
ENDS = {
    "exit 0": "Finished WorkerEnded", "exit 1": "Backoff WorkerEnded", "exit 78": "Failed WorkerEnded",
    "signal": "Backoff WorkerEnded", "vanished": "Backoff WorkerEnded",
}  # fmt: skip
EARLY_ENDS = {event: f"{cell} Announce" for event, cell in ENDS.items()}
LAST_ENDS = dict.fromkeys(ENDS, "Finished WorkerEnded")
REFUSED = {"restart": "= RequestRefused"}
NOTED = {"suspend": "= SuspensionNoted", "resume": "= SuspensionNoted"}
MAY_START = {**EARLY_ENDS, **STOPPED, "suspend": "Starting SuspensionNoted", "resume": "Starting SuspensionNoted"}
MAY_RUN = {
    **ENDS, **STOPPED, "suspend": "Running SuspensionNoted", "resume": "Running SuspensionNoted",
    "no beat": "=", "lasting beat": "=", "old beat": "Running Probe", "beat": "Running Probe",
    "no size": "=", "size": "=", "big size": "Stopping WorkerRecycled Act",
}  # fmt: skip
# What was in doubt before is so no more.
SETTLED = {"no beat": "Running", "lasting beat": "Running"}

SPARED: dict[str, Any] = {"plans": (PLAN, OTHER, SPARE), "pin": FIRST_SPARE}
SPARE_ENDS = dict.fromkeys(ENDS, "Backoff WorkerEnded")
SPARE_LIVES = {**SPARE_ENDS, **STOPPED, "forward": "="}
LOOKED_AT = {
    "no beat": "=", "lasting beat": "=", "old beat": "Running Probe", "beat": "Running Probe",
    "no size": "=", "size": "=", "big size": "=",
}  # fmt: skip
SPARE_LEAVES = {**LAST_ENDS, **NOTED, "forward": "="}

STATES = {
    "unstarted": Row(_unstarted, Backoff, {**LAST, **REFUSED, "start": "Backoff"}),
    "due": Row(_due, Backoff, {**LAST, "now": "Starting Spawn", "later": "Starting Spawn"}),
    "backoff": Row(_backoff, Backoff, {**UNUSED, "later": "Starting Spawn"}),
    "waiting for its group": Row(_waiting, Backoff, UNUSED, GROUPED),
    "spawning": Row(
        _spawning,
        Starting,
        {**MAY_START, "spawned": "Starting WorkerStarted", "spawn failed": "Backoff SpawnDelayed", "up": "Running"},
    ),
    "starting": Row(_starting, Starting, {**MAY_START, "up": "Running Announce"}),
    "suspended while starting": Row(_paused, Starting, {**MAY_START, "up": "Running Announce"}),
    "running": Row(_running, Running, {**MAY_RUN, "later": "Stopping Measure Look WorkerRecycled Act"}),
    "suspended": Row(_suspended, Running, {**MAY_RUN, **SETTLED, "big size": "Running", "later": "Running Measure"}),
    "running silently": Row(
        _overdue,
        Running,
        {
            **MAY_RUN, **SETTLED, "old beat": "Hung WorkerHung Dump", "now": "Running Look",
            "later": "Stopping Measure Look WorkerRecycled Act",
        },
    ),
    "waiting to be recycled": Row(
        _aged,
        Running,
        {**MAY_RUN, "big size": "=", "later": "Running Measure Look"},
        (PLAN, replace(OTHER, handler=0, max_runtime=50.0)),
    ),
    "waiting to be dumped": Row(
        _dumping,
        Hung,
        {**ENDS, **NOTED, **STOPPED, "dumped": "Stopping Act", "later": "Stopping Act"},
        (PLAN, replace(OTHER, hang_timeout=9.0)),
    ),
    "dumping": Row(_dumping, Hung, {**ENDS, **NOTED, **STOPPED, "dumped": "Stopping Act", "later": "Stopping Act"}),
    "stopping for a hang": Row(
        _replaced,
        Stopping,
        {**ENDS, **NOTED, **ON_ITS_WAY, "quick": "Stopping StopStarted Act", "later": "Killing WorkerOverdue Act"},
    ),
    "killed for a hang": Row(_killed, Killing, {**ENDS, **NOTED, **DYING, "later": "Killing WorkerAbandoned"}),
    "recycled": Row(_aged, Stopping, {**ENDS, **NOTED, **ON_ITS_WAY, "later": "Killing WorkerOverdue Act"}),
    "unkillable": Row(_unkillable, Killing, {**ENDS, **NOTED, **DYING}),
    "leaving with its group": Row(
        _leaving,
        Stopping,
        {
            **ENDS, **NOTED, **ON_ITS_WAY, "exit 78": "Failed WorkerEnded GroupFailed AllEnded Finish",
            "later": "Killing WorkerOverdue Act",
        },
        GROUPED,
    ),
    "leaving for good": Row(
        _doomed,
        Stopping,
        {
            **dict.fromkeys(ENDS, "Failed WorkerEnded AllEnded Finish"), "exit 0": "Finished WorkerEnded AllEnded Finish",
            **NOTED, **ON_ITS_WAY, "later": "Killing WorkerOverdue Act",
        },
        (GROUPED[0], replace(GROUPED[1], permanent_failure_codes=frozenset({78}))),
    ),
    "stopping": Row(
        _stopping,
        Stopping,
        {
            **REFUSED, **LAST_ENDS, **NOTED, "quick": STOPPED["quick"], "kill": STOPPED["kill"],
            "later": "Killing WorkerOverdue Act",
        },
    ),
    "interrupted": Row(
        _interrupted,
        Stopping,
        {
            **REFUSED, **LAST_ENDS, **NOTED, "quick": "Stopping StopStarted Act", "kill": STOPPED["kill"],
            "later": "Killing WorkerOverdue Act",
        },
    ),
    "killing": Row(
        _killing,
        Killing,
        {
            **REFUSED, **LAST_ENDS, **NOTED, "quick": "= StopStarted", "kill": "= StopStarted",
            "later": "Abandoned WorkerAbandoned",
        },
    ),
    "abandoned": Row(
        _abandoned, Abandoned, {**REFUSED, **LAST_ENDS, **NOTED, "quick": "= StopStarted", "kill": "= StopStarted"}
    ),
    "finished": Row(_finished, Finished, CLOSED),
    "failed": Row(_failed, Failed, CLOSED),
    "stopped": Row(_stopped, Finished, {**REFUSED, "quick": "= StopStarted", "kill": "= StopStarted"}),
    "due with a spare": Row(
        _due_again,
        Backoff,
        {**UNUSED, "now": "Starting Assign", "later": "Starting Assign"},
        (PLAN, OTHER, SPARE),
    ),
    "taking a spare": Row(
        _assigned,
        Starting,
        {
            **ENDS, **STOPPED, "spawned": "Starting WorkerStarted", "spawn failed": "Backoff SpawnDelayed", "up": "Running",
            "suspend": "Starting SuspensionNoted", "resume": "Starting SuspensionNoted",
        },
        (PLAN, OTHER, SPARE),
    ),
    "warming": Row(
        _warming,
        Starting,
        {
            **SPARE_LIVES, "suspend": "Starting SuspensionNoted", "resume": "Starting SuspensionNoted",
            "up": "Running",
        },
        **SPARED,
    ),
    "parked": Row(
        _parked,
        Running,
        {**SPARE_LIVES, **LOOKED_AT, "suspend": "Running SuspensionNoted", "resume": "Running SuspensionNoted"},
        **SPARED,
    ),
    "suspended while parked": Row(
        _spare_suspended,
        Running,
        {**SPARE_LIVES, **LOOKED_AT, "suspend": "Running SuspensionNoted", "resume": "Running SuspensionNoted"},
        **SPARED,
    ),
    "given away": Row(_given, Backoff, {**UNUSED, "later": "Starting Spawn"}, **SPARED),
    "dismissed": Row(
        _dismissed,
        Stopping,
        {**SPARE_LEAVES, **ON_ITS_WAY, "later": "Killing WorkerOverdue Act", "restart": "Stopping RestartStarted"},
        **SPARED,
    ),
    "dismissed and killed": Row(
        _dismissed_killed,
        Killing,
        {**SPARE_LEAVES, **CLOSED, "later": "Abandoned WorkerAbandoned", "restart": "Killing RestartStarted"},
        **SPARED,
    ),
    "dismissed and abandoned": Row(
        _dismissed_abandoned, Abandoned, {**LAST_ENDS, **NOTED, **CLOSED}, **SPARED
    ),
}  # fmt: skip


def _usual(event_name: str, state: object, pin: Pin) -> str:
    """Return what follows an event that fits nothing: a report where it asks for something, and no change."""
    match event_name:
        case "now" | "later":
            return "="
        case "restart":
            return "= RestartStarted" if is_spare(pin) else _restarted(state)
        case "scale":
            return "= RequestRefused"
        case "forward":
            return "= Forward" if isinstance(state, LiveState) else "="
        case _:
            return "= EventIgnored"


def _restarted(state: object) -> str:
    """Return what an operator's restart makes of a PIN: a stop, or a new start, or nothing where it is on its way."""
    match state:
        case Backoff() | Finished() | Failed():
            return "Backoff RestartStarted"
        case Starting() | Running() | Hung():
            return "Stopping RestartStarted Act"
        case _:
            return "= RestartStarted"


STATUSES: dict[str, ExitStatus] = {
    "exit 0": Exited(0), "exit 1": Exited(1), "exit 78": Exited(78), "signal": Signaled(9), "vanished": Vanished(),
}  # fmt: skip

INSTANCE_EVENTS: dict[str, m.Event] = {
    "start": m.StartRequested(), "stop": GRACEFUL, "quick": QUICK, "kill": KILL, "int": INTERRUPT,
    "restart": m.RestartRequested("test", (PLAN.pin,)), "scale": m.ScaleRequested("test", 1),
    "forward": m.ForwardRequested(10), "now": m.DeadlineReached(), "later": m.DeadlineReached(),
}  # fmt: skip


def _worker_events(pin: Pin, attempt: int, now: float = START) -> dict[str, m.Event]:
    n = Attempt(attempt)
    return {
        "spawned": m.Spawned(pin, n),
        "spawn failed": m.SpawnFailed(pin, n, "no memory"),
        "up": m.WorkerUp(pin, n),
        **{name: m.WorkerExited(pin, n, status) for name, status in STATUSES.items()},
        "suspend": m.WorkerSuspended(pin, n),
        "resume": m.WorkerResumed(pin, n),
        "no beat": m.Looked(pin, n, None),
        "old beat": m.Looked(pin, n, START),
        "beat": m.Looked(pin, n, now),
        "lasting beat": m.Looked(pin, n, NEVER),
        "no size": m.Measured(pin, n, None),
        "size": m.Measured(pin, n, 1000),
        "big size": m.Measured(pin, n, 1001),
        "dumped": m.Dumped(pin, n),
    }


def _prepared(name: str) -> Stage:
    row = STATES[name]
    stage = Stage(*row.plans)
    row.prepare(stage)
    assert type(stage.state(row.pin)) is row.state
    return stage


def _wakes_at(state: object) -> float:
    """Return when a slot wants to be woken: told a second time, from what each state's fields are for."""
    match state:
        case Backoff(respawn_at=at) | Hung(end_at=at) | Killing(abandon_at=at):
            return at
        case Running(watch=watched):
            return min(watched.look_at, watched.measure_at, watched.recycle_at)
        case Stopping(rungs=(first, *_)):
            return first.at
        case _:
            return float("inf")


@pytest.mark.parametrize("event_name", [*_worker_events(Pin(0), 1), *INSTANCE_EVENTS])
@pytest.mark.parametrize("state_name", STATES)
def test_every_state_with_every_event(state_name: str, event_name: str) -> None:
    """Each event leads from each state to the state and the effects that the table names, or to nothing but a report."""
    stage, pin = _prepared(state_name), STATES[state_name].pin
    before = stage.state(pin)
    events = {**_worker_events(pin, getattr(before, "attempt", 1), stage.now), **INSTANCE_EVENTS}
    if event_name == "later":
        stage.now += 3600.0

    effects = stage.core.handle(events[event_name], stage.now)

    after = stage.state(pin)
    about_us = [type(effect).__name__ for effect in effects if getattr(effect, "pin", pin) == pin]
    cell = ["=" if after is before else type(after).__name__, *about_us]
    assert " ".join(cell) == STATES[state_name].cells.get(event_name, _usual(event_name, before, pin))
    states = stage.core.snapshot().values()
    wakes_at = min(_wakes_at(state) for state in states)
    assert stage.core.next_deadline() == (None if wakes_at == float("inf") else wakes_at)
    assert ("Finish" in about_us) is all(isinstance(state, ClosedState) for state in states)


@pytest.mark.parametrize(
    ("stranger", "ahead"), [(None, -1), (None, 1), (Pin(9), 0)], ids=["older attempt", "future attempt", "no such PIN"]
)
@pytest.mark.parametrize("state_name", STATES)
def test_event_of_another_attempt_changes_nothing(state_name: str, stranger: Pin | None, ahead: int) -> None:
    """News of another attempt, or of a PIN that does not exist, is ignored with a report in every state."""
    stage = _prepared(state_name)
    before = dict(stage.core.snapshot())
    deadline = stage.core.next_deadline()
    pin = STATES[state_name].pin
    current = getattr(stage.state(pin), "attempt", None)
    because = (
        "no such PIN" if stranger
        else f"no process in state {type(stage.state(pin)).__name__}" if current is None
        else f"attempt {current} is current"
    )  # fmt: skip

    for event in _worker_events(stranger or pin, (current or 2) + ahead).values():
        assert stage.core.handle(event, stage.now) == [m.EventIgnored(event, because)]

    assert all(stage.core.snapshot()[key] is state for key, state in before.items())
    assert stage.core.next_deadline() == deadline


@pytest.mark.parametrize("state_name", STATES)
def test_event_that_does_not_fit_the_state_is_named_with_it(state_name: str) -> None:
    """What is ignored for coming in the wrong state says in which."""
    stage, pin = _prepared(state_name), STATES[state_name].pin
    before = stage.state(pin)
    state = type(before).__name__
    reason = f"state {state}" if isinstance(before, LiveState | Abandoned) else f"no process in state {state}"

    for name, event in _worker_events(pin, getattr(before, "attempt", 1)).items():
        if name not in STATES[state_name].cells:
            assert stage.core.handle(event, stage.now) == [m.EventIgnored(event, reason)]


# Every state with every request of the supervisor that does not fit it


def _slot(state_name: str) -> tuple[Slot, Stage]:
    stage = _prepared(state_name)
    return stage.core._slots[STATES[state_name].pin], stage


def test_slot_begins_empty_and_waits_for_the_start() -> None:
    """A new slot has no process, no history and no deadline."""
    slot = Slot(SlotPlan(Pin(3)), lambda delay_s: delay_s)

    assert slot.state == Backoff(float("inf"))
    assert (slot.ever_up, slot.torn) == (False, False)
    assert slot.wakes_at() == float("inf")
    assert slot.meet_deadline(1e9) == []


@pytest.mark.parametrize("state_name", STATES)
def test_turns_are_nothing_to_who_does_not_wait_for_them(state_name: str) -> None:
    """Only a worn worker is recycled, and only a hung one that was not asked yet is dumped."""
    slot, stage = _slot(state_name)
    before = slot.state

    if not (isinstance(before, Running) and before.worn):
        assert slot.recycle(stage.now) == []
    if not (isinstance(before, Hung) and not before.asked):
        assert slot.dump(stage.now) == []
    assert slot.state is before


@pytest.mark.parametrize("state_name", STATES)
def test_every_state_of_a_pin_that_is_taken_away(state_name: str) -> None:
    """Who has a process is asked to leave and leaves for good; who has none is gone at once."""
    slot, stage = _slot(state_name)
    before = slot.state

    effects = slot.retire(stage.now)

    match before:
        case Backoff() | Finished() | Failed():
            assert (slot.state, effects) == (Retired(), [])
        case Starting() | Running() | Hung():
            assert [type(effect) for effect in effects] == [m.Act]
            assert slot.state.purpose is Purpose.SCALE
        case Stopping() | Killing():
            assert (slot.state, effects) == (replace(before, purpose=Purpose.SCALE), [])
        case _:
            assert (slot.state, effects) == (before, [])


@pytest.mark.parametrize("state_name", STATES)
def test_respawn_is_put_off_only_where_one_is_to_come(state_name: str) -> None:
    """Where there is a process, or none will follow, there is no respawn to put off."""
    slot, _ = _slot(state_name)
    expected = Backoff(5000.0) if isinstance(slot.state, Backoff) else slot.state

    slot.respawn_at(5000.0)

    assert slot.state == expected


@pytest.mark.parametrize("state_name", STATES)
def test_nothing_is_done_before_its_time(state_name: str) -> None:
    """A slot that is woken before its deadline does nothing."""
    slot, stage = _slot(state_name)
    before = slot.state

    if slot.wakes_at() > stage.now:
        assert slot.meet_deadline(stage.now) == []
        assert slot.state is before
