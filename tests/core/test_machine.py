"""The supervisor against a model of the world: histories that Hypothesis chooses, and shrinks where one goes wrong.

What must hold after every step is checked by the world itself, see `sim.observer`; the rules here are its moves. For
histories by the million, thrown by dice, see `sim.chaos`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pyworkers._core.messages import StopKind
from pyworkers._core.records import replace
from pyworkers._core.types import FIRST_SPARE, Attempt, ExitStatus, Pin
from sim.worker import Worker
from sim.world import ABNORMAL, NORMAL, PERMANENT, World, plan_of, spare_plans

statuses = st.sampled_from([*ABNORMAL, *NORMAL, *PERMANENT])
sides = st.sampled_from([0.0, -0.001, 0.001, 0.1, 5.0])
paces = st.none() | st.sampled_from([0.01, 0.15, 0.38, 1.9, 9.5])
groups = st.lists(st.sampled_from([1, 1, 1, 2, 3, 4]), min_size=1, max_size=3)
spares = st.lists(st.sampled_from([0, 0, 1]), max_size=3)


class SupervisorMachine(RuleBasedStateMachine):
    """Rules are what the world does; it plays the shell, too, and checks every effect as it comes out."""

    @initialize(data=st.data(), sizes=groups, shrink=st.sampled_from([1.0, 0.5]), peace=st.integers(0, 40))
    def create(self, data: st.DataObject, sizes: list[int], shrink: float, peace: int) -> None:
        def pick(options: Sequence[Any]) -> Any:
            return data.draw(st.sampled_from(options))

        plans = [
            plan_of(pin, pick, f"g{group}" if size > 1 else None)
            for group, size in enumerate(sizes)
            for pin in range(4 * group, 4 * group + size)
        ]
        handlers = {plan.handler for plan in plans}
        plans += spare_plans([handler for handler in data.draw(spares) if handler in handlers], pick)
        catch_all = None
        if data.draw(st.booleans()):
            catch_all = replace(plan_of(0, pick, pick([None, "all"])), handler=2)
            plans += [replace(catch_all, pin=Pin(pin)) for pin in range(20, 20 + data.draw(st.integers(1, 2)))]
        self.world = World(plans, shrink, catch_all)
        self.peace = peace  # events before the first stop, or most histories would be over before they began
        self.world.start()
        self.world.meet()

    def draw(self, data: st.DataObject, workers: list[Worker]) -> Worker:
        return data.draw(st.sampled_from(workers))

    @property
    def live(self) -> list[Worker]:
        """Who has not ended."""
        return [worker for worker in self.world.living() if worker.status is None]

    @property
    def ended(self) -> list[Worker]:
        """Who has ended, and was not reaped."""
        return [worker for worker in self.world.living() if worker.status is not None]

    @property
    def at_peace(self) -> bool:
        return self.world.event_count < self.peace

    # What workers do

    @precondition(lambda self: self.live)
    @rule(data=st.data(), status=statuses, reap=st.booleans())
    def end(self, data: st.DataObject, status: ExitStatus, *, reap: bool) -> None:
        self.world.end(self.draw(data, self.live), status, reap=reap)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def reap(self, data: st.DataObject) -> None:
        self.world.reap(self.draw(data, self.ended))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), pace=paces)
    def come_up(self, data: st.DataObject, pace: float | None) -> None:
        worker = self.draw(data, self.live)
        self.world.come_up(worker)
        if not worker.suspended:
            self.world.set_pace(worker, pace)

    @precondition(lambda self: any(worker.up_at is None for worker in self.live))
    @rule(pace=paces)
    def all_come_up(self, pace: float | None) -> None:
        for worker in self.live:
            if worker.up_at is None and not worker.suspended:
                self.world.come_up(worker)
                self.world.set_pace(worker, pace)

    @precondition(lambda self: any(worker.purpose is not None for worker in self.live))
    @rule(status=statuses)
    def those_that_were_asked_leave(self, status: ExitStatus) -> None:
        for worker in self.live:
            if worker.purpose is not None:
                self.world.end(worker, status)

    @precondition(lambda self: any(not worker.suspended for worker in self.live))
    @rule(data=st.data(), pace=paces)
    def pass_checkpoints_or_none(self, data: st.DataObject, pace: float | None) -> None:
        self.world.set_pace(self.draw(data, [worker for worker in self.live if not worker.suspended]), pace)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def suspend(self, data: st.DataObject) -> None:
        self.world.suspend(self.draw(data, self.live))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self.world.resume(self.draw(data, self.live))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), size=st.sampled_from([0, 1000, 1001, 10**9]))
    def grow(self, data: st.DataObject, size: int) -> None:
        self.world.grow(self.draw(data, self.live), size)

    @precondition(lambda self: any(not worker.hung or self.world.dumping(worker) for worker in self.live))
    @rule(data=st.data())
    def dumped(self, data: st.DataObject) -> None:
        fitting = [worker for worker in self.live if not worker.hung or self.world.dumping(worker)]
        self.world.dumped(self.draw(data, fitting))

    @precondition(lambda self: self.world.abandoned)
    @rule(data=st.data(), status=statuses)
    def abandoned_process_ends_after_all(self, data: st.DataObject, status: ExitStatus) -> None:
        self.world.end(self.draw(data, self.world.abandoned), status)

    # What the kernel does

    @rule(fail=st.booleans(), blind=st.booleans(), answers=st.integers(1, 2))
    def change_the_weather(self, *, fail: bool, blind: bool, answers: int) -> None:
        self.world.fork_fails = lambda: fail
        self.world.blind, self.world.answers = blind, answers

    # What the operator does

    @precondition(lambda self: not self.at_peace)
    @rule(kind=st.sampled_from(StopKind), code=st.none() | st.integers(0, 255))
    def stop(self, kind: StopKind, code: int | None) -> None:
        self.world.stop(kind, code)

    @precondition(lambda self: not self.at_peace)
    @rule(times=st.integers(1, 2))
    def interrupt(self, times: int) -> None:
        for _ in range(times):
            self.world.interrupt()

    @rule(data=st.data(), some=st.booleans())
    def restart(self, data: st.DataObject, *, some: bool) -> None:
        pins = [seat.plan.pin for seat in self.world.wanted()]
        self.world.restart(data.draw(st.lists(st.sampled_from([*pins, Pin(777)]), min_size=1)) if some else None)

    @rule(count=st.integers(-2, 5), relative=st.booleans())
    def scale(self, count: int, *, relative: bool) -> None:
        self.world.scale(count, relative=relative)

    @rule()
    def forward(self) -> None:
        self.world.forward(10)

    @rule()
    def start_again(self) -> None:
        self.world.start()

    # What does not concern anybody

    @precondition(lambda self: self.world.gone)
    @rule(data=st.data(), which=st.integers(0, 8), status=statuses)
    def late_event_of_a_process_that_is_gone(self, data: st.DataObject, which: int, status: ExitStatus) -> None:
        gone = self.draw(data, list(self.world.gone))
        self.world.stray(gone.pin, gone.attempt, which, status)

    @rule(pin=st.sampled_from([-1, 0, 1, FIRST_SPARE]), which=st.integers(0, 8), status=statuses)
    def event_of_a_process_that_never_was(self, pin: int, which: int, status: ExitStatus) -> None:
        self.world.stray(Pin(pin), Attempt(10**9), which, status)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def say_it_again(self, data: st.DataObject) -> None:
        self.world.again(self.draw(data, self.live))

    # What the clock does

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5, 100.0]))
    def time_passes_unseen(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([0.5, 0.9, 1.5, 600.0]))
    def machine_is_suspended(self, seconds: float) -> None:
        self.world.freeze(seconds)

    @rule(side=sides)
    def advance_to_the_next_deadline(self, side: float) -> None:
        self.world.to_deadline(side)
        self.world.meet()

    @rule(count=st.integers(2, 20))
    def advance_over_some_deadlines(self, count: int) -> None:
        for _ in range(count):
            self.world.reap_all()
            self.world.to_deadline()
            self.world.meet()

    @rule(data=st.data(), side=sides)
    def advance_to_where_a_restart_does_not_count_any_more(self, data: st.DataObject, side: float) -> None:
        self.world.to_edge_of_window(data.draw(st.sampled_from(list(self.world.seats.values()))), side)

    @rule()
    def wake(self) -> None:
        self.world.reap_all()
        self.world.meet()

    def teardown(self) -> None:
        """With no further events, time alone leads to rest: in a bounded number of steps, and in a stop to the end."""
        if hasattr(self, "world"):
            self.world.rest()


TestSupervisorMachine = SupervisorMachine.TestCase
