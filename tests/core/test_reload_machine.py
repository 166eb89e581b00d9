"""Any history with reloads in it keeps the promises: Hypothesis chooses what happens, a model knows who lives."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from core.stage import START, spare_plan
from pyworkers._core import messages as m
from pyworkers._core.handover import KINDS, Codec
from pyworkers._core.heir import Heir, legacy_of
from pyworkers._core.messages import StopKind
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import (
    Action,
    Attempt,
    ClosedState,
    Exited,
    Finished,
    Pin,
    Restart,
    Signaled,
    SlotPlan,
)

CODEC = Codec(KINDS)

PLANS = st.lists(st.integers(0, 5), min_size=1, max_size=5, unique=True).flatmap(
    lambda pins: st.tuples(
        *(
            st.builds(
                SlotPlan,
                st.just(Pin(pin)),
                restart=st.sampled_from([Restart.ON_FAILURE, Restart.ALWAYS, Restart.NEVER]),
                max_restarts=st.sampled_from([None, 2]),
                handler=st.integers(0, 1),
                group=st.sampled_from([None, None, "g"]),
            )
            for pin in pins
        )
    )
)


class ReloadMachine(RuleBasedStateMachine):
    """An instance that is reloaded again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        # Who lives: the attempt of each seat, the program that has started it, and whether it is up.
        self.live: dict[int, tuple[Attempt, int, bool]] = {}
        self.program = 0
        self.fork_works = True
        self.stopping = False
        self.over = False
        self.killed: set[int] = set()
        # Who has come up under this program, and whom the roll has asked to leave last.
        self.came_up: set[int] = set()
        self.rolling: tuple[Pin, ...] = ()
        self.core: Supervisor

    @initialize(plans=PLANS, spares=st.integers(0, 1))
    def begin(self, plans: tuple[SlotPlan, ...], spares: int) -> None:
        self.core = Supervisor([*plans, *map(spare_plan, range(spares))], lambda delay_s: delay_s)
        self.feed(m.StartRequested())

    def feed(self, event: m.Event) -> None:
        for effect in self.core.handle(event, self.now):
            assert not self.over, effect
            match effect:
                case m.Spawn(pin, attempt):
                    # G1: nobody is forked for a PIN whose process lives.
                    assert pin not in self.live, effect
                    assert not self.stopping, effect
                    if self.fork_works:
                        self.live[pin] = (attempt, self.program, False)
                        self.feed(m.Spawned(pin, attempt))
                    else:
                        self.feed(m.SpawnFailed(pin, attempt, "no memory"))
                case m.Assign(pin, attempt, spare):
                    assert pin not in self.live, effect
                    _, program, up = self.live.pop(spare)
                    # What has warmed up with the old code runs no new PIN.
                    assert (program, up) == (self.program, True)
                    self.live[pin] = (attempt, program, False)
                    self.feed(m.Spawned(pin, attempt))
                case m.Act(pin, attempt, action):
                    assert self.live[pin][0] == attempt
                    if action is Action.KILL:
                        self.killed.add(pin)
                case m.RestartStarted("reload", pins):
                    # One at a time: the last one is up, or will never be.
                    for pin in self.rolling:
                        assert pin in self.came_up or isinstance(self.core.snapshot().get(pin), ClosedState | None), pin
                    self.rolling = pins
                case m.Finish():
                    assert not self.live
                    self.over = True
                case _:
                    pass

    def pick(self, number: int) -> int:
        return sorted(self.live)[number % len(self.live)]

    @precondition(lambda self: self.live and not self.over)
    @rule(number=st.integers(0, 9), status=st.sampled_from([Exited(0), Exited(1), Exited(143), Signaled(9)]))
    def end(self, number: int, status: Exited | Signaled) -> None:
        pin = self.pick(number)
        attempt, _, _ = self.live.pop(pin)
        self.feed(m.WorkerExited(Pin(pin), attempt, status))

    @precondition(lambda self: self.live and not self.over)
    @rule(number=st.integers(0, 9))
    def come_up(self, number: int) -> None:
        pin = self.pick(number)
        attempt, program, _ = self.live[pin]
        self.live[pin] = (attempt, program, True)
        if program == self.program:
            self.came_up.add(pin)
        self.feed(m.WorkerUp(Pin(pin), attempt))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 2.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(400):
            # The kernel ends at once whom it is told to kill.
            for pin in self.killed & self.live.keys():
                attempt, _, _ = self.live.pop(pin)
                self.feed(m.WorkerExited(Pin(pin), attempt, Signaled(9)))
            self.killed.clear()
            at = self.core.next_deadline()
            if at is None or at > end or self.over:
                break
            self.now = max(self.now, at)
            self.feed(m.DeadlineReached())
        else:
            raise AssertionError("it never comes to rest")
        self.now = end

    @rule(works=st.booleans())
    def set_fork(self, works: bool) -> None:
        self.fork_works = works

    @precondition(lambda self: not self.stopping and not self.over)
    @rule(plans=PLANS, spares=st.integers(0, 1), rolling=st.booleans())
    def reload(self, plans: tuple[SlotPlan, ...], spares: int, rolling: bool) -> None:
        before = self.core.snapshot()
        legacy = CODEC.unpack(json.loads(json.dumps(CODEC.pack(legacy_of(self.core)))))
        declared = [*plans, *map(spare_plan, range(spares))] if rolling else [slot.plan for slot in legacy.slots]
        self.program += 1
        self.rolling, self.came_up = (), set()
        self.core = Heir(declared, lambda delay_s: delay_s, legacy, rolling=rolling)
        after = self.core.snapshot()
        # Nobody who has a process is forgotten, and nobody who has finished is forgotten to have finished.
        assert self.live.keys() <= after.keys()
        for plan in declared:
            if isinstance(before.get(plan.pin), Finished):
                assert isinstance(after[plan.pin], Finished)
        self.feed(m.StartRequested())

    @precondition(lambda self: not self.over)
    @rule(kind=st.sampled_from(list(StopKind)))
    def stop(self, kind: StopKind) -> None:
        self.stopping = True
        self.feed(m.StopRequested(kind, "test"))


TestReloadMachine = ReloadMachine.TestCase
