"""The notes on one instance, and what must hold of the core's states by them after every step.

The notes are the sum of what was fed and what was carried out; the states are the core's own account. Where the two
differ, one of them is wrong, and a history that leads there is at hand.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

from pyworkers._core import messages as m
from pyworkers._core.messages import StopKind
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import (
    NEVER,
    Abandoned,
    Action,
    Backoff,
    Failed,
    Finished,
    Hung,
    Killing,
    Pin,
    Purpose,
    Retired,
    Running,
    SlotPlan,
    SlotState,
    Starting,
    Stopping,
)
from sim.seats import Flock, Seat
from sim.worker import EPSILON_S, Worker

TRACE_MAX = 40

Step = tuple[int, float, object, list[m.Effect]]


def wakes_at(state: SlotState) -> float:
    """Return when this state has something to do."""
    match state:
        case Backoff(respawn_at):
            return respawn_at
        case Running(watch=watch):
            return min(watch.look_at, watch.measure_at, watch.recycle_at)
        case Hung(end_at=end_at):
            return end_at
        case Stopping(rungs=rungs):
            return min(rung.at for rung in rungs)
        case Killing(abandon_at=abandon_at):
            return abandon_at
        case _:
            return NEVER


class Ledger:
    """What is known of one instance.

    Args:
        plans: One for each PIN and each spare.
        catch_all: What the PINs of the handler that can be scaled have in common.
        shrink: What the jitter does to every delay: a factor between 0.5 and 1.

    Attributes:
        stops: Only what made the stop begin or get harder.
        counts: How often each effect has come, and what it was about.
        trace: The last steps, for whoever has to find out why one of them was wrong.
        on_fork: Called with each new worker, so that a driver can give it a character.
        fork_fails: Called for each fork.
        answers: How often a look or a measurement is answered: twice is a duplicate.
        blind: Whether memory cannot be told.
    """

    def __init__(self, plans: Iterable[SlotPlan], shrink: float = 1.0, catch_all: SlotPlan | None = None) -> None:
        self.catch_all = catch_all
        self.dismissed: set[int] = set()
        self.seats = {plan.pin: Seat(plan) for plan in sorted(plans, key=lambda plan: plan.pin)}
        self.flocks: dict[str, Flock] = {}
        for seat in self.seats.values():
            if seat.plan.group is not None:
                seat.flock = self.flocks.setdefault(seat.plan.group, Flock(seat.plan.group, []))
                seat.flock.seats.append(seat)
        plans = [seat.plan for seat in reversed(self.seats.values())]
        self.core = Supervisor(plans, lambda delay_s: delay_s * shrink, catch_all)
        self.shrink = shrink
        self.now = 500.0
        self.started = False
        self.gone: deque[Worker] = deque(maxlen=50)
        self.abandoned: list[Worker] = []
        self.stops: list[tuple[float, StopKind]] = []
        self.interrupts = 0
        self.asked_code: int | None = None
        self.torn = False
        self.announced: bool | None = None
        self.finish: m.Finish | None = None
        self.fork_fails: Callable[[], bool] = lambda: False
        self.blind = False
        self.answers = 1
        self.on_fork: Callable[[Worker], None] = lambda _worker: None
        self.counts: Counter[str] = Counter()
        self.trace: deque[Step] = deque(maxlen=TRACE_MAX)
        self.event_count = 0
        self.states: Mapping[Pin, SlotState] = {}
        self._wakes: dict[Pin, float] = {}
        self.check()

    @property
    def hardest(self) -> StopKind | None:
        """How hard the instance stops, if it does."""
        return self.stops[-1][1] if self.stops else None

    def note(self, what: str, worker: Worker | None = None) -> None:
        """Note in the trace what the core was not told."""
        name = "" if worker is None else f" pin={worker.pin} attempt={worker.attempt}"
        self.trace.append((self.event_count, self.now, f"({what}{name})", []))

    def living(self) -> list[Worker]:
        """Return the workers and spares that were not reaped, nor abandoned."""
        return [seat.worker for seat in self.seats.values() if seat.worker is not None]

    def pins(self) -> list[Seat]:
        """Return the seats without those of the spares, and of PINs that were taken away."""
        return [seat for seat in self.seats.values() if not seat.spare and seat.over is not Retired]

    def wanted(self) -> list[Seat]:
        """Return those of them that no operator has taken away."""
        return [seat for seat in self.pins() if not seat.retiring]

    def working(self) -> list[Worker]:
        """Return the workers that were not reaped, nor abandoned; no spares."""
        return [seat.worker for seat in self.pins() if seat.worker is not None]

    def parked(self, handler: int) -> list[Worker]:
        """Return the spares of this handler that could take a PIN, as far as the master knows."""
        return [
            seat.worker
            for seat in self.seats.values()
            if seat.spare and seat.plan.handler == handler and seat.worker is not None
            if seat.worker.up_at is not None and seat.worker.purpose is None and not seat.worker.suspended
        ]

    def note_dismissals(self) -> None:
        """Note that spares leave whose handler has no PIN any more, and come back where it has one again."""
        needed = {seat.plan.handler for seat in self.pins() if seat.over is None}
        for seat in [seat for seat in self.seats.values() if seat.spare]:
            if seat.plan.handler in needed and seat.plan.handler in self.dismissed:
                seat.renew(self.now, self.now)
                self.counts["spare recalled"] += 1
        handlers = {seat.plan.handler for seat in self.seats.values() if seat.spare}
        before, self.dismissed = self.dismissed, handlers - needed
        for seat in self.seats.values():
            if not seat.spare or seat.over is not None or seat.plan.handler not in self.dismissed - before:
                continue
            if seat.worker is None:
                seat.close(Finished)
            elif seat.worker.purpose in (None, Purpose.RESTART):
                seat.worker.stop(StopKind.GRACEFUL, self.now, seat.plan.stop_timeout)
                self.counts["spare dismissed"] += 1

    def dumping(self, worker: Worker) -> bool:
        """Whether this worker is being asked for its stacks, and still has time to write them."""
        if not worker.hung or worker.purpose is not None or worker.dump_at is None:
            return False
        return self.now < worker.dump_end_at

    def check(self) -> None:
        """Check what must hold after every step."""
        states = self.core.snapshot()
        seats = {pin: seat for pin, seat in self.seats.items() if seat.over is not Retired}
        assert list(states) == list(seats)
        for pin in self.seats.keys() - seats.keys():
            self._wakes[pin] = NEVER
        waiting = dumping = 0
        for (pin, state), seat in zip(states.items(), seats.values(), strict=True):
            before = self.states.get(pin)
            if state is not before:
                self._wakes[pin] = wakes_at(state)
                if isinstance(before, Running) and before.worn is not None and isinstance(state, Running):
                    assert state.worn is before.worn, "its first limit is forgotten"
            worker = seat.worker
            self._check_state(seat, worker, state)
            if worker is not None and worker.hung and worker.purpose is None:
                waiting += 1
                dumping += worker.dump_at is not None
        self.states = states
        assert dumping == min(waiting, 1), "a dump is due, one at a time"
        at = min(self._wakes.values(), default=NEVER)
        deadline = self.core.next_deadline()
        assert deadline == (None if at == NEVER else at), f"the next deadline is {deadline}, by the states {at}"
        assert len(self.core._wakes) <= 4 * len(self.seats) + 65, "the heap grows"
        self._check_end()

    def _check_end(self) -> None:
        closed = all(seat.over is not None for seat in self.seats.values())
        assert (self.finish is not None) is closed, "Finish comes with the last end"
        if self.announced is None and self.finish is None:
            assert not all(seat.ever_up for seat in self.wanted()), "nobody said that all are up"
            assert not any(seat.missed for seat in self.wanted()), "nobody said that one was never up"

    def _check_state(self, seat: Seat, worker: Worker | None, state: SlotState) -> None:
        if worker is None:
            expected = seat.over or Backoff
            assert type(state) is expected, f"{state} where {expected.__name__} is right"
            if type(state) is Backoff:
                assert state.respawn_at == seat.due, f"due at {state.respawn_at} and not at {seat.due}"
            return
        if worker.purpose is not None:
            self._check_leaving(worker, state)
            return
        expected = Hung if worker.hung else Starting if worker.up_at is None else Running
        assert type(state) is expected, f"{state} where {expected.__name__} is right"
        assert state.attempt == worker.attempt
        assert state.spawned_at == worker.spawned_at
        assert not self.stops, "a worker that nobody asked to stop"

    def _check_leaving(self, worker: Worker, state: SlotState) -> None:
        expected = Killing if worker.killed else Stopping
        assert isinstance(state, Killing | Stopping), f"{state} where {expected.__name__} is right"
        assert type(state) is expected
        assert state.attempt == worker.attempt
        assert state.spawned_at == worker.spawned_at
        assert state.purpose is worker.purpose
        if isinstance(state, Killing):
            assert worker.abandon_at == NEVER or abs(state.abandon_at - worker.abandon_at) < EPSILON_S
            return
        assert worker.acts, "asked to leave, and nothing was done"
        assert state.acted is worker.acts[-1]
        assert state.rungs[-1].action is Action.KILL
        assert abs(state.rungs[-1].at - worker.kill_at) < EPSILON_S, f"KILL is due at {worker.kill_at}"

    def check_in_time(self) -> None:
        """Check, after all that was due is done, that nothing has been forgotten."""
        deadline = self.core.next_deadline()
        assert deadline is None or deadline > self.now, "something is due still"
        for pin, state in self.states.items():
            if isinstance(state, Running):
                seat = self.seats[pin]
                assert seat.worker is not None
                self._check_watch(seat, seat.worker, state)
            elif isinstance(state, Hung):
                worker = self.seats[pin].worker
                assert worker is not None
                assert self.now < worker.dump_end_at, "waits for its stacks for ever"
            elif isinstance(state, Stopping):
                worker = self.seats[pin].worker
                assert worker is not None
                assert worker.interrupt_at > self.now - EPSILON_S or worker.acts[-1] is not Action.TERMINATE, "no QUIT"
            elif isinstance(state, Starting | Finished | Failed | Abandoned):
                assert self._wakes[pin] == NEVER

    def _check_watch(self, seat: Seat, worker: Worker, state: Running) -> None:
        plan = seat.plan
        assert worker.up_at is not None
        if plan.hang_timeout is not None and not worker.suspended:
            worker.run_to(self.now)
            if worker.checkpoint_at is not None:
                silent_s = self.now - max(worker.checkpoint_at, worker.quiet_from)
                allowed_s = 1.5 * plan.hang_timeout + worker.late_s
                assert silent_s <= allowed_s + EPSILON_S, f"silent for {silent_s} s, and nobody minds"
        if state.worn is not None:
            assert worker.suspended or self._in_line(seat), "reached its limit, and nobody minds"
            return
        assert worker.oversize is None, "too large, and nobody minds"
        if plan.max_runtime is not None:
            limit_s = plan.max_runtime * (0.8 + 0.2 * self.shrink)
            assert self.now < worker.up_at + limit_s + EPSILON_S, "too old, and nobody minds"
        if plan.max_rss is not None:
            assert self.now < worker.measure_at + EPSILON_S, "nobody takes its memory"

    def _in_line(self, seat: Seat) -> bool:
        """Whether another PIN of the same handler is on its way from one worker to the next, so that this one waits."""
        return any(
            isinstance(self.states[other.plan.pin], Backoff | Starting | Hung | Stopping | Killing)
            for other in self.pins()
            if other is not seat and other.plan.handler == seat.plan.handler
        )
