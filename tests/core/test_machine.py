"""The supervisor against a model of the kernel: random histories, and what must hold after every step of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyworkers._core import messages as m
from pyworkers._core import policy
from pyworkers._core.messages import StopKind
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import (
    Abandoned,
    Action,
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Finished,
    Killing,
    LiveState,
    Pin,
    Running,
    Signaled,
    SlotPlan,
    Starting,
    Stopping,
    Vanished,
)

NORMAL = frozenset({0, 42})

statuses = st.one_of(
    st.sampled_from([Exited(0), Exited(42), Exited(1), Exited(143), Exited(255), Signaled(9), Signaled(11), Vanished()])
)
plans = st.builds(
    SlotPlan,
    pin=st.integers(0, 5).map(Pin),
    normal_exit_codes=st.just(NORMAL),
    backoff=st.sampled_from([(0.1, 30.0), (1.0, 1.0), (0.5, 4.0)]),
    stop_timeout=st.sampled_from([0.0, 0.2, 1.0, 3.0, 8.0]),
)
sides = st.sampled_from([-0.001, 0.0, 0.001, 0.1, 5.0])


@dataclass
class Process:
    """What the kernel and an observer know of one worker."""

    pin: Pin
    attempt: Attempt
    spawned_at: float
    acts: list[tuple[float, Action]] = field(default_factory=list)
    reaped: bool = False


class SupervisorMachine(RuleBasedStateMachine):
    """Rules are what the world does; `_feed` plays the shell and checks every effect as it comes out."""

    @initialize(
        given=st.lists(plans, min_size=1, max_size=4, unique_by=lambda plan: plan.pin),
        shrink=st.sampled_from([1.0, 0.5]),
        peace=st.integers(0, 30),
    )
    def create(self, given: list[SlotPlan], shrink: float, peace: int) -> None:
        self.plans = {plan.pin: plan for plan in given}
        self.core = Supervisor(given, lambda delay_s: delay_s * shrink)
        self.shrink = shrink
        self.peace = peace  # events before the first stop, or most histories would be over before they began
        self.now = 500.0
        self.live: dict[Pin, Process] = {}
        self.all: list[Process] = []
        self.owed: set[Pin] = set()  # PINs that an abnormal end has left empty, and whose respawn is due by itself
        self.short_lives = dict.fromkeys(self.plans, 0)
        self.done: set[Pin] = set()  # PINs that ended normally
        self.stop_kinds: list[tuple[float, StopKind]] = []  # only what made the stop begin or get harder
        self.interrupts = 0
        self.asked_code: int | None = None
        self.torn = False
        self.abandoned: dict[Pin, Process] = {}
        self.finish: m.Finish | None = None
        self.announced: list[bool] = []
        self.up: set[Pin] = set()
        self.forks_fail = False
        self._feed(m.StartRequested())
        self.owed = set(self.plans)

    # The shell

    def _feed(self, event: m.Event) -> list[m.Effect]:
        after_finish = self.finish is not None
        self.peace -= 1
        effects = self.core.handle(event, self.now)
        if after_finish:
            # An abandoned process may end after all: a fact for the log, and nothing to do.
            assert all(isinstance(effect, m.EventIgnored | m.WorkerEnded) for effect in effects), effects
        acted = [effect.pin for effect in effects if isinstance(effect, m.Act)]
        assert len(acted) == len(set(acted)), "two rungs in one step"
        for place, effect in enumerate(effects):
            assert self.finish is None or after_finish, f"{effect} after Finish"
            self._carry_out(effect)
            if isinstance(effect, m.Finish):
                assert place == len(effects) - 1
        return effects

    def _carry_out(self, effect: m.Effect) -> None:
        match effect:
            case m.Spawn(pin, attempt):
                assert not self.stop_kinds, "a fork after the stop"
                assert pin not in self.live, "two live processes on one PIN"
                assert pin in self.owed, "a fork that no abnormal end asked for"
                assert attempt == 1 + max((old.attempt for old in self.all if old.pin == pin), default=0)
                process = Process(pin, attempt, self.now)
                self.all.append(process)
                if self.forks_fail:
                    process.reaped = True
                    self.short_lives[pin] = max(self.short_lives[pin] + 1, 2)
                    (delayed,) = self._feed(m.SpawnFailed(pin, attempt, "no memory"))
                    assert isinstance(delayed, m.SpawnDelayed)
                    assert delayed.delay_s == self._delay_of(pin) > 0
                else:
                    self.live[pin] = process
                    self.owed.discard(pin)
                    assert self._feed(m.Spawned(pin, attempt)) == [m.WorkerStarted(pin, attempt)]
            case m.Act(pin, attempt, action):
                self._check_act(self.live[pin], attempt, action)
            case m.Forward(pin, attempt):
                assert self.live[pin].attempt == attempt
            case m.WorkerAbandoned(pin, attempt):
                process = self.live.pop(pin)
                assert process.attempt == attempt
                killed_at = next(at for at, action in process.acts if action is Action.KILL)
                assert self.now >= killed_at + policy.ABANDON_S
                self.abandoned[pin] = process
            case m.Announce(up):
                self.announced.append(up)
            case m.Finish(exit_code, stopped):
                assert self.finish is None
                assert not self.live, "Finish before the last process was reaped"
                assert stopped == bool(self.stop_kinds)
                assert exit_code == (int(self.torn) if self.asked_code is None else self.asked_code)
                self.finish = effect
            case _:
                pass

    def _delay_of(self, pin: Pin) -> float:
        return policy.respawn_delay(self.short_lives[pin], self.plans[pin].backoff) * self.shrink

    def _check_act(self, process: Process, attempt: Attempt, action: Action) -> None:
        assert process.attempt == attempt, "a signal to a process that is gone"
        assert self.stop_kinds, "a signal outside a stop"
        forces = list(Action)
        assert all(forces.index(action) >= forces.index(before) for _, before in process.acts), "down the ladder"
        plan, (graceful_at, _) = self.plans[process.pin], self.stop_kinds[0]
        hardest = max(kind for _, kind in self.stop_kinds)
        if action is Action.TERMINATE:
            assert hardest is StopKind.GRACEFUL
        else:
            self.torn = True
        if action is Action.INTERRUPT and hardest is StopKind.GRACEFUL:
            assert self.now >= graceful_at + 0.8 * plan.stop_timeout
            assert plan.stop_timeout == 0 or process.acts, "QUIT before TERM"
        if action is Action.KILL:
            asked_at = next((at for at, kind in self.stop_kinds if kind is StopKind.QUICK), math.inf)
            due = graceful_at + plan.stop_timeout
            due = min(due, asked_at + policy.QUICK_STOP_S)
            assert hardest is StopKind.KILL or self.now >= due, "KILL too early"
            assert hardest is not StopKind.GRACEFUL or plan.stop_timeout == 0 or process.acts, "KILL before TERM"
        process.acts.append((self.now, action))

    # What the world does

    @precondition(lambda self: self.live)
    @rule(data=st.data(), status=statuses)
    def exit(self, data: st.DataObject, status: ExitStatus) -> None:
        pin = data.draw(st.sampled_from(sorted(self.live)))
        process = self.live.pop(pin)
        process.reaped = True
        stopping = bool(self.stop_kinds)
        normal = isinstance(status, Exited) and status.code in NORMAL
        if normal:
            self.done.add(pin)
        elif not stopping:
            self.owed.add(pin)
        effects = self._feed(m.WorkerExited(pin, process.attempt, status))

        (ended,) = [effect for effect in effects if isinstance(effect, m.WorkerEnded)]
        follows = m.Next.FINISHED if normal else m.Next.STOPPED if stopping else m.Next.RESPAWN
        assert ended.follows is follows
        assert ended.lifetime_s == self.now - process.spawned_at
        if follows is m.Next.RESPAWN:
            state = self.core.snapshot()[pin]
            assert isinstance(state, Backoff)
            self.short_lives[pin] = self.short_lives[pin] + 1 if ended.lifetime_s < policy.SHORT_LIFE_S else 0
            assert ended.delay_s == self._delay_of(pin)
            assert state.respawn_at == self.now + ended.delay_s

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def come_up(self, data: st.DataObject) -> None:
        pin = data.draw(st.sampled_from(sorted(self.live)))
        starting = isinstance(self.core.snapshot()[pin], Starting)
        effects = self._feed(m.WorkerUp(pin, self.live[pin].attempt))
        if starting:
            self.up.add(pin)
        assert any(isinstance(effect, m.EventIgnored) for effect in effects) is not starting

    @rule(fail=st.booleans())
    def forks_fail_from_now_on(self, *, fail: bool) -> None:
        self.forks_fail = fail

    @precondition(lambda self: self.peace < 0)
    @rule(kind=st.sampled_from(StopKind), code=st.none() | st.integers(0, 255))
    def stop(self, kind: StopKind, code: int | None) -> None:
        if self.finish is None and self.asked_code is None:
            self.asked_code = code
        self._stop(kind, m.StopRequested(kind, "rule", code))

    @precondition(lambda self: self.peace < 0)
    @rule(times=st.integers(1, 2))
    def interrupt(self, times: int) -> None:
        for _ in range(times):
            kind = StopKind.KILL if self.interrupts else StopKind.GRACEFUL
            self.interrupts += 1
            self._stop(kind, m.InterruptRequested("rule"))

    def _stop(self, kind: StopKind, event: m.Event) -> None:
        before = dict(self.core.snapshot())
        harder = self.finish is None and all(kind > earlier for _, earlier in self.stop_kinds)
        if harder:
            self.stop_kinds.append((self.now, kind))
            self.owed.clear()
        effects = self._feed(event)
        if not harder:
            assert [type(effect) for effect in effects] == [m.EventIgnored]
            assert all(self.core.snapshot()[key] is state for key, state in before.items())
            return
        assert effects[0] == m.StopStarted("rule", kind, len(self.live))
        for process in self.live.values():
            assert process.acts, "a worker that nobody asked to stop"
            assert kind is not StopKind.KILL or process.acts[-1][1] is Action.KILL

    @rule(signum=st.sampled_from([10, 12]))
    def forward(self, signum: int) -> None:
        effects = self._feed(m.ForwardRequested(signum))
        assert [effect.pin for effect in effects if isinstance(effect, m.Forward)] == sorted(self.live)

    @precondition(lambda self: any(process.reaped for process in self.all))
    @rule(data=st.data(), status=statuses)
    def late_event_of_a_process_that_is_gone(self, data: st.DataObject, status: ExitStatus) -> None:
        gone = data.draw(st.sampled_from([process for process in self.all if process.reaped]))
        pin, attempt = gone.pin, gone.attempt
        event = data.draw(
            st.sampled_from(
                [
                    m.Spawned(pin, attempt),
                    m.SpawnFailed(pin, attempt, "late"),
                    m.WorkerUp(pin, attempt),
                    m.WorkerExited(pin, attempt, status),
                ]
            )
        )
        before = dict(self.core.snapshot())
        assert [type(effect) for effect in self._feed(event)] == [m.EventIgnored]
        assert all(self.core.snapshot()[key] is state for key, state in before.items())

    @precondition(lambda self: any(not process.reaped for process in self.abandoned.values()))
    @rule(data=st.data(), status=statuses)
    def abandoned_process_ends_after_all(self, data: st.DataObject, status: ExitStatus) -> None:
        left = sorted(pin for pin, process in self.abandoned.items() if not process.reaped)
        process = self.abandoned[data.draw(st.sampled_from(left))]
        process.reaped = True
        (ended, *others) = self._feed(m.WorkerExited(process.pin, process.attempt, status))
        assert isinstance(ended, m.WorkerEnded)
        assert others == [] or (others == [m.Announce(up=False)] and self.finish is None)
        assert ended.follows is not m.Next.RESPAWN

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def second_answer_to_a_spawn(self, data: st.DataObject) -> None:
        process = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        before = self.core.snapshot()[process.pin]
        for event in (
            m.Spawned(process.pin, process.attempt),
            m.SpawnFailed(process.pin, process.attempt, "no memory"),
        ):
            assert [type(effect) for effect in self._feed(event)] == [m.EventIgnored]
        assert self.core.snapshot()[process.pin] is before

    @rule()
    def start_again(self) -> None:
        assert self._feed(m.StartRequested()) == []

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5, 100.0]))
    def time_passes_unseen(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.core.next_deadline() is not None)
    @rule(side=sides)
    def advance_to_the_next_deadline(self, side: float) -> None:
        deadline = self.core.next_deadline()
        assert deadline is not None
        before = dict(self.core.snapshot())
        self.now = max(self.now, deadline + side)
        effects = self._feed(m.DeadlineReached())
        changed = any(self.core.snapshot()[pin] is not state for pin, state in before.items())
        assert changed == (self.now >= deadline), effects
        left = self.core.next_deadline()
        assert left is None or left > self.now, "something is due still"

    @rule()
    def wake_for_nothing(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is None or deadline > self.now:
            assert self._feed(m.DeadlineReached()) == []

    # What must hold

    @invariant()
    def states_are_those_of_the_kernel(self) -> None:
        snapshot = self.core.snapshot()
        assert list(snapshot) == sorted(self.plans)
        for pin, state in snapshot.items():
            if pin in self.live:
                assert isinstance(state, LiveState)
                assert state.attempt == self.live[pin].attempt
                assert isinstance(state, Starting | Running) is not bool(self.stop_kinds)
            elif pin in self.abandoned:
                assert isinstance(state, Abandoned | Finished)
            else:
                assert isinstance(state, Backoff if pin in self.owed else Finished)

    @invariant()
    def deadline_is_that_of_the_states(self) -> None:
        wakes = []
        for pin, state in self.core.snapshot().items():
            match state:
                case Backoff(respawn_at):
                    wakes.append(respawn_at)
                case Stopping(rungs=rungs):
                    assert rungs[-1].action is Action.KILL
                    assert rungs[-1].at <= self._killed_by(pin)
                    wakes.append(rungs[0].at)
                case Killing(abandon_at=abandon_at):
                    wakes.append(abandon_at)
                case _:
                    pass
        assert self.core.next_deadline() == min(wakes, default=None)

    def _killed_by(self, pin: Pin) -> float:
        """Return by when the hardest stop so far has promised the KILL."""
        limits = {
            StopKind.GRACEFUL: self.plans[pin].stop_timeout,
            StopKind.QUICK: policy.QUICK_STOP_S,
            StopKind.KILL: 0.0,
        }
        return min(at + min(limits[kind], self.plans[pin].stop_timeout) for at, kind in self.stop_kinds)

    @invariant()
    def every_pin_is_held_or_owed_or_over(self) -> None:
        over = self.done | set(self.abandoned)
        if not self.stop_kinds:
            assert set(self.live) | self.owed | over == set(self.plans)
            assert not self.torn
        assert (self.finish is not None) == (not self.live and not self.owed)

    @invariant()
    def announcement_comes_once(self) -> None:
        assert len(self.announced) <= 1
        if self.announced == [True]:
            assert self.up == set(self.plans)

    def teardown(self) -> None:
        """With no further events, time alone leads to rest: in a bounded number of steps, and in a stop to the end."""
        if not hasattr(self, "core"):
            return
        self.forks_fail = False
        for _ in range(40 * len(self.plans)):
            deadline = self.core.next_deadline()
            if deadline is None:
                break
            self.now = max(self.now, deadline)
            self._feed(m.DeadlineReached())
            self.deadline_is_that_of_the_states()
        assert self.core.next_deadline() is None, "never comes to rest"
        assert not self.owed, "an abnormal end without a respawn"
        self.every_pin_is_held_or_owed_or_over()
        if self.stop_kinds:
            assert self.finish is not None, "a stop without an end"


TestSupervisorMachine = SupervisorMachine.TestCase
