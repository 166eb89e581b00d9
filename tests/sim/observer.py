"""Watches the core at work: carries out what it decides, and checks every effect as it comes out.

The shell's half of the model. It answers as the real one does, at once and in the order of the effects: a fork with
`Spawned` or `SpawnFailed`, an assignment with `Spawned`, a look with what the cell says, a measurement with the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyworkers._core import messages as m
from pyworkers._core.messages import StopKind
from pyworkers._core.types import NEVER, Abandoned, Action, Failed, Limit, Pin, Purpose, Running
from sim.ledger import Ledger
from sim.seats import Seat, delay_of
from sim.worker import DUMP_TIMEOUT_S, DUMP_TURN_S, EPSILON_S, LATE_S, MEASURE_INTERVAL_S, SPARE_REST_S, Worker

AFTERWARDS = (m.EventIgnored, m.RequestRefused, m.WorkerEnded, m.SuspensionNoted)
"""What may still come after Finish: news of abandoned workers, and answers to operators, for the log."""


class Observer(Ledger):
    """The shell of one instance."""

    _depth = 0

    def feed(self, event: m.Event) -> list[m.Effect]:
        """Feed an event, carry out its effects, and check them and all states."""
        self.event_count += 1
        over = self.finish is not None
        effects = self.core.handle(event, self.now)
        self.trace.append((self.event_count, self.now, event, effects))
        self._depth += 1
        acted: set[Pin] = set()
        for effect in effects:
            assert self.finish is None or (over and isinstance(effect, AFTERWARDS)), f"{effect} after Finish"
            if type(effect) is m.Act:
                assert effect.pin not in acted, "two rungs in one step"
                acted.add(effect.pin)
            kind = type(effect)
            self.counts[kind.__name__] += 1
            carry_out = CARRIERS.get(kind)
            if carry_out is not None:
                carry_out(self, effect)
        self._depth -= 1
        if self._depth == 0:
            self.check()
        return effects

    def worker(self, of: m.OfWorker) -> Worker:
        """Return the worker that an effect names, which must be there."""
        worker = self.seats[of.pin].worker
        assert worker is not None, f"{of} where no process is"
        assert worker.attempt == of.attempt, f"{of} to a process that is gone"
        return worker

    # What the shell does with each effect

    def _begin(self, effect: m.Spawn | m.Assign) -> Seat:
        seat = self.seats[effect.pin]
        assert not self.stops, "a worker after the stop"
        assert seat.worker is None, "two live processes on one PIN"
        assert seat.over is None, f"a worker for a PIN that is {seat.over}"
        assert self.started, "a worker before the start"
        assert seat.due <= self.now, f"a worker that is due at {seat.due} only"
        if seat.flock is not None:
            assert not seat.flock.failed, "a worker for a failed group"
            assert all(old.reaped for old in seat.flock.old), "a worker before the last of its old group has ended"
        seat.attempts += 1
        assert effect.attempt == seat.attempts
        return seat

    def _spawn(self, effect: m.Spawn) -> None:
        seat = self._begin(effect)
        if seat.spare:
            others = [other for other in self.pins() if other.worker is None and other.over is None]
            assert not any(other.due <= seat.due for other in others), "a spare before a PIN"
        else:
            assert not self.parked(seat.plan.handler), "a fork while a spare waits for just this"
        worker = Worker(effect.pin, effect.attempt, self.now)
        if self.fork_fails():
            worker.reaped = True
            self.gone.append(worker)
            seat.short_lives = max(seat.short_lives + 1, 2)
            delay_s = delay_of(seat, self.shrink)
            assert delay_s > 0
            seat.due = self.now + delay_s
            answer = self.feed(m.SpawnFailed(effect.pin, effect.attempt, "no memory"))
            assert m.SpawnDelayed(effect.pin, effect.attempt, "no memory", delay_s) in answer
            return
        seat.due, seat.worker = NEVER, worker
        self.on_fork(worker)
        assert m.WorkerStarted(effect.pin, effect.attempt) in self.feed(m.Spawned(effect.pin, effect.attempt))

    def _assign(self, effect: m.Assign) -> None:
        seat, spare = self._begin(effect), self.seats[effect.spare]
        assert not seat.spare, "a spare for a spare"
        assert spare.spare, "a worker is taken from another PIN"
        assert spare.worker is not None, "a spare that is not there"
        assert spare.worker in self.parked(seat.plan.handler), "a spare that does not wait for this"
        self.gone.append(spare.worker)
        seat.due, seat.worker = NEVER, spare.worker.moved(effect.pin, effect.attempt, self.now)
        spare.due, spare.worker, spare.short_lives = self.now + SPARE_REST_S, None, 0
        assert m.WorkerStarted(effect.pin, effect.attempt) in self.feed(m.Spawned(effect.pin, effect.attempt))

    def _act(self, effect: m.Act) -> None:
        worker = self.worker(effect)
        plan = self.seats[effect.pin].plan
        if worker.purpose is None and worker.hung:
            assert effect.action is not Action.TERMINATE, "a hung worker is interrupted, not asked"
            assert worker.dumped or self.now >= worker.dump_end_at, "no time for its stacks"
            worker.ask(Purpose.HANG, self.now, plan.stop_timeout)
        polite = worker.purpose is not Purpose.HANG and self.hardest in (None, StopKind.GRACEFUL)
        if effect.action is Action.TERMINATE:
            assert polite, "TERM where it is too late for that"
        elif polite and plan.stop_timeout > 0:
            assert worker.acts, f"{effect.action} before TERM"
        worker.act(effect.action, self.now)
        self.counts[effect.action.value] += 1
        if self.stops and effect.action is not Action.TERMINATE and not self.seats[effect.pin].spare:
            self.torn = True

    def _overdue(self, report: m.WorkerOverdue) -> None:
        worker = self.worker(report)
        assert worker.overdue is None
        worker.overdue = report.action

    def _look(self, effect: m.Look) -> None:
        worker = self.worker(effect)
        state = self.states[effect.pin]
        assert isinstance(state, Running)
        hang_timeout = self.seats[effect.pin].plan.hang_timeout
        assert hang_timeout is not None
        assert not worker.suspended, "a suspended worker cannot prove anything"
        overdue = worker.probe_at is not None and self.now >= worker.probe_at + hang_timeout - EPSILON_S
        assert overdue or self.now >= worker.looked_at + hang_timeout / 2 - EPSILON_S, "looked at without a need"
        worker.looked_at = self.now
        late_s = self.now - state.watch.look_at
        if late_s > min(LATE_S, hang_timeout / 2):
            worker.quiet_from, worker.late_s = self.now, 0.0
            self.counts["look forgiven"] += 1
        else:
            worker.late_s += late_s
        worker.run_to(self.now)
        for _ in range(self.answers):
            self.feed(m.Looked(effect.pin, effect.attempt, worker.beat_at))

    def _probe(self, effect: m.Probe) -> None:
        worker = self.worker(effect)
        assert worker.beat_at is not None, "a probe before the first checkpoint"
        worker.run_to(self.now)
        worker.probed, worker.probe_at = True, self.now

    def _hung(self, report: m.WorkerHung) -> None:
        worker = self.worker(report)
        hang_timeout = self.seats[report.pin].plan.hang_timeout
        worker.run_to(self.now)
        assert hang_timeout is not None
        assert worker.up_at is not None
        assert worker.purpose is None
        assert not worker.hung, "hung twice"
        assert worker.checkpoint_at is not None, "hung before its first checkpoint"
        assert not worker.suspended, "hung while it was suspended"
        assert worker.probe_at is not None, "hung without a probe"
        assert worker.probed, "hung after it has answered"
        assert worker.probe_at >= worker.quiet_from, "hung while it, or the master, was suspended"
        silent_s = self.now - max(worker.checkpoint_at, worker.probe_at)
        assert silent_s >= hang_timeout - EPSILON_S, f"hung after {silent_s} s"
        assert abs(report.silent_s - silent_s) < EPSILON_S
        worker.hung, worker.dump_end_at = True, self.now + DUMP_TURN_S

    def _dump(self, effect: m.Dump) -> None:
        worker = self.worker(effect)
        assert worker.hung
        assert worker.purpose is None
        assert worker.dump_at is None, "asked for its stacks twice"
        assert not any(self.dumping(other) for other in self.living()), "two dumps at once"
        worker.dump_at, worker.dump_end_at = self.now, self.now + DUMP_TIMEOUT_S

    def _measure(self, effect: m.Measure) -> None:
        worker, plan = self.worker(effect), self.seats[effect.pin].plan
        assert plan.max_rss is not None
        size = None if self.blind else worker.memory
        assert effect.limit == plan.max_rss
        assert self.now >= worker.measure_at - EPSILON_S, "measured without a need"
        state = self.states[effect.pin]
        assert isinstance(state, Running)
        # Nobody needs to know twice that it is too large; once more is what was due already.
        worker.measure_at = self.now + MEASURE_INTERVAL_S if state.worn is None else NEVER
        if size is not None and size > plan.max_rss and worker.oversize is None:
            worker.oversize = size
        for _ in range(self.answers):
            self.feed(m.Measured(effect.pin, effect.attempt, size))

    def _recycled(self, report: m.WorkerRecycled) -> None:
        worker, seat = self.worker(report), self.seats[report.pin]
        plan, wear = seat.plan, report.wear
        assert not seat.spare
        assert worker.up_at is not None
        assert worker.purpose is None
        assert not worker.hung
        assert not worker.suspended, "a suspended worker cannot leave"
        for other in self.seats.values():
            assert other.plan.handler != plan.handler or not other.turn, "two of a handler in recycling"
        seat.turn = True
        if wear.limit is Limit.MAX_RSS:
            assert wear.measured == worker.oversize
        else:
            assert plan.max_runtime is not None
            assert wear.measured >= 0.9 * plan.max_runtime - EPSILON_S, "recycled too early"
            assert wear.measured <= self.now - worker.spawned_at + EPSILON_S
        self.counts[f"recycled for {wear.limit.value}"] += 1
        worker.ask(Purpose.RECYCLE, self.now, plan.stop_timeout)

    def _abandon(self, report: m.WorkerAbandoned) -> None:
        worker, seat = self.worker(report), self.seats[report.pin]
        assert worker.killed
        assert self.now >= worker.abandon_at - EPSILON_S, "given up too early"
        assert report.waiting is (worker.purpose is not Purpose.STOP)
        worker.abandon_at = NEVER
        if seat.spare and not self.stops:
            self.counts["spare abandoned"] += 1
        if not report.waiting:
            seat.worker = None
            seat.close(Abandoned)
            self.abandoned.append(worker)

    def _forward(self, effect: m.Forward) -> None:
        assert self.worker(effect) in self.working(), "a signal of the user's own to a spare"

    def _announce(self, effect: m.Announce) -> None:
        assert self.announced is None, "announced twice"
        assert effect.up is all(seat.ever_up for seat in self.wanted())
        assert effect.up is not any(seat.missed for seat in self.wanted())
        self.announced = effect.up

    def _ended(self, report: m.WorkerEnded) -> None:
        self.counts[f"end: {report.follows.value}"] += 1
        if report.given_up is not None:
            self.counts[f"given up: {report.given_up.value}"] += 1

    def _all_ended(self, report: m.AllEnded) -> None:
        failed = tuple(seat.plan.pin for seat in self.pins() if seat.over is Failed)
        assert report == m.AllEnded(bool(self.stops), self._exit_code(), failed)

    def _finish(self, effect: m.Finish) -> None:
        assert self.finish is None, "Finish twice"
        assert not self.living(), "Finish before the last process was reaped"
        assert effect == m.Finish(self._exit_code(), bool(self.stops))
        self.finish = effect

    def _exit_code(self) -> int:
        if self.asked_code is not None:
            return self.asked_code
        return int(self.torn or any(seat.over is Failed for seat in self.pins()))


CARRIERS: dict[type, Callable[[Any, Any], None]] = {
    m.Spawn: Observer._spawn,
    m.Assign: Observer._assign,
    m.Act: Observer._act,
    m.WorkerOverdue: Observer._overdue,
    m.Look: Observer._look,
    m.Probe: Observer._probe,
    m.WorkerHung: Observer._hung,
    m.Dump: Observer._dump,
    m.Measure: Observer._measure,
    m.WorkerRecycled: Observer._recycled,
    m.WorkerAbandoned: Observer._abandon,
    m.Forward: Observer._forward,
    m.Announce: Observer._announce,
    m.WorkerEnded: Observer._ended,
    m.AllEnded: Observer._all_ended,
    m.Finish: Observer._finish,
}
"""What is done about each effect; the others are only reports."""
