"""What can happen to an instance: every move that the kernel, the workers, the clock and the operator have.

Both drivers make these moves and no others: `tests/core/test_machine.py`, in which Hypothesis chooses, and `sim.chaos`,
which throws dice. A move notes first what must follow from it; then it feeds the event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyworkers._core import messages as m
from pyworkers._core.messages import StopKind
from pyworkers._core.records import replace
from pyworkers._core.supervisor import DEADLINES_PER_WAKE
from pyworkers._core.types import (
    FIRST_SPARE,
    NEVER,
    Action,
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Finished,
    Hung,
    Killing,
    Pin,
    Purpose,
    Restart,
    Signaled,
    SlotPlan,
    SlotState,
    Stopping,
    Vanished,
)
from sim.observer import Observer
from sim.seats import Flock, Seat, end
from sim.worker import Worker

NORMAL = (Exited(0), Exited(42))
PERMANENT = (Exited(125), Exited(126))
ABNORMAL = (Exited(1), Exited(143), Exited(255), Signaled(9), Signaled(11), Signaled(15), Vanished())

WATCHED = ("Look", "Probe", "Measure", "look forgiven")
"""What goes on for ever while workers run, and changes nothing."""

LONG_ENOUGH_S = 35.0
"""For the longest backoff, for the longest silence to be noticed, and for most workers to grow too old."""

REPORTS_OF_AN_END = (m.WorkerEnded, m.GroupRestarted, m.GroupFailed)

Pick = Callable[[Sequence[Any]], Any]


def plan_of(pin: int, pick: Pick, group: str | None = None) -> SlotPlan:
    """Return a plan for a PIN, each of its options picked from what is worth trying."""
    return SlotPlan(
        Pin(pin),
        normal_exit_codes=frozenset({0, 42}),
        permanent_failure_codes=pick([frozenset(), frozenset({125, 126})]),
        restart=pick([Restart.ON_FAILURE, Restart.ON_FAILURE, Restart.ALWAYS, Restart.NEVER]),
        backoff=pick([(0.1, 30.0), (1.0, 1.0), (0.5, 4.0)]),
        max_restarts=pick([None, None, 0, 1, 3]),
        restart_period=pick([5.0, 60.0]),
        stop_timeout=pick([0.0, 0.2, 1.0, 3.0, 8.0]),
        hang_timeout=pick([None, 0.4, 2.0, 10.0]),
        max_runtime=pick([None, None, 3.0, 20.0]),
        max_rss=pick([None, None, 1000]),
        handler=pick([0, 0, 1]),
        group=group,
    )


def spare_plans(wanted: Iterable[int], pick: Pick) -> list[SlotPlan]:
    """Return the plan of a spare for each of these handlers."""
    return [
        SlotPlan(
            Pin(FIRST_SPARE + number),
            normal_exit_codes=frozenset(),
            restart=Restart.ALWAYS,
            backoff=pick([(0.1, 30.0), (1.0, 1.0), (0.5, 4.0)]),
            stop_timeout=pick([0.0, 0.2, 1.0, 3.0, 8.0]),
            handler=handler,
        )
        for number, handler in enumerate(wanted)
    ]


class World(Observer):
    """One instance, and the moves of the world around it."""

    def start(self) -> None:
        """Start the instance; a second time means nothing."""
        if self.started:
            (ignored,) = self.feed(m.StartRequested())
            assert isinstance(ignored, m.EventIgnored)
            return
        self.started = True
        for seat in self.seats.values():
            seat.due = self.now
        self.feed(m.StartRequested())

    # Workers

    def come_up(self, worker: Worker) -> None:
        """Let a worker say that it is up; one that was asked to leave may say so, too."""
        seat = self.seats[worker.pin]
        accepted = worker.up_at is None and worker.purpose is None
        if accepted:
            worker.come_up(self.now, self.shrink)
            seat.ever_up, seat.turn = True, False
        effects = self.feed(m.WorkerUp(worker.pin, worker.attempt))
        assert isinstance(effects[0], m.EventIgnored) if not accepted else m.EventIgnored not in map(type, effects)

    def set_pace(self, worker: Worker, pace: float | None) -> None:
        """Let a worker pass a checkpoint every `pace` seconds from now on, or none."""
        worker.set_pace(pace, self.now)
        self.note("silent" if pace is None else f"a checkpoint every {pace} s", worker)

    def grow(self, worker: Worker, size: int) -> None:
        """Let a worker take memory."""
        worker.memory = size
        self.note(f"{size} bytes", worker)

    def end(self, worker: Worker, status: ExitStatus, *, reap: bool = True) -> None:
        """Let a worker end; without `reap` the master gets to know later. A suspended one can only be killed."""
        worker.run_to(self.now)
        worker.status = Signaled(9) if worker.suspended else status
        if reap:
            self.reap(worker)
        else:
            self.note(f"{worker.status}, not reaped", worker)

    def reap(self, worker: Worker) -> None:
        """Let the master know that a worker has ended."""
        assert worker.status is not None
        self.gone.append(worker)
        if worker in self.abandoned:
            self._reap_abandoned(worker, worker.status)
            return
        seat = self.seats[worker.pin]
        stopping = bool(self.stops) or worker.purpose is Purpose.STOP
        expected = end(seat, worker.status, self.now, self.shrink, stopping=stopping)
        self.note_dismissals()
        effects = self.feed(m.WorkerExited(worker.pin, worker.attempt, worker.status))
        assert [effect for effect in effects if isinstance(effect, REPORTS_OF_AN_END)] == expected

    def _reap_abandoned(self, worker: Worker, status: ExitStatus) -> None:
        self.abandoned.remove(worker)
        seat = self.seats[worker.pin]
        worker.reaped, seat.over, seat.missed = True, Finished, not seat.ever_up
        ended, *others = self.feed(m.WorkerExited(worker.pin, worker.attempt, status))
        assert isinstance(ended, m.WorkerEnded)
        assert ended.follows in (m.Next.FINISHED, m.Next.STOPPED)
        assert others in ([], [m.Announce(up=False)])

    def reap_all(self) -> None:
        """Let the master know of every end, as each wake of its loop does before it meets deadlines."""
        for worker in [*self.living(), *self.abandoned]:
            if worker.status is not None:
                self.reap(worker)

    def suspend(self, worker: Worker) -> None:
        """Stop a worker, as by SIGSTOP; again is a duplicate."""
        if not worker.suspended:
            worker.suspend(self.now)
        assert self.feed(m.WorkerSuspended(worker.pin, worker.attempt)) == [
            m.SuspensionNoted(worker.pin, worker.attempt, suspended=True)
        ]

    def resume(self, worker: Worker) -> None:
        """Let a worker go on; where it was not suspended, the suspension went by unseen."""
        if not worker.suspended:
            worker.suspend(self.now)
        worker.resume(self.now)
        # It may have waited for this to be recycled.
        noted, *_ = self.feed(m.WorkerResumed(worker.pin, worker.attempt))
        assert noted == m.SuspensionNoted(worker.pin, worker.attempt, suspended=False)

    def dumped(self, worker: Worker) -> None:
        """Let the stacks of a worker reach the log, whether or not somebody waits for them."""
        due = self.dumping(worker)
        worker.dumped = worker.dumped or due
        effects = self.feed(m.Dumped(worker.pin, worker.attempt))
        assert isinstance(effects[0], m.EventIgnored) is not due

    # The operator

    def stop(self, kind: StopKind, code: int | None = None) -> None:
        """Ask for a stop; with a code it is a worker's `stop_all`."""
        if self.finish is None and self.asked_code is None:
            self.asked_code = code
        self._stop(kind, m.StopRequested(kind, "world", code))

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        kind = StopKind.KILL if self.interrupts else StopKind.GRACEFUL
        self.interrupts += 1
        self._stop(kind, m.InterruptRequested("world"))

    def _stop(self, kind: StopKind, event: m.Event) -> None:
        before = self.states
        harder = self.finish is None and (self.hardest is None or kind > self.hardest)
        live_count = len(self.working())
        if harder:
            self._note_stop(kind)
        effects = self.feed(event)
        if harder:
            self.counts[f"stop: {kind.name}"] += 1
            assert effects[0] == m.StopStarted("world", kind, live_count)
            assert kind is not StopKind.KILL or all(worker.killed for worker in self.living())
        else:
            assert [type(effect) for effect in effects] == [m.EventIgnored]
            self._assert_unchanged(before)

    def _note_stop(self, kind: StopKind) -> None:
        self.stops.append((self.now, kind))
        for seat in self.seats.values():
            if seat.worker is not None:
                forced = Action.INTERRUPT in seat.worker.acts or Action.KILL in seat.worker.acts
                self.torn = self.torn or (forced and not seat.spare)
                seat.worker.stop(kind, self.now, seat.plan.stop_timeout)
                # From here on it leaves for the same reason as all others.
                seat.retiring = False
            elif seat.over is None:
                seat.close(Finished)

    def restart(self, pins: Sequence[Pin] | None) -> None:
        """Ask for new processes on these PINs, or on all."""
        known = {seat.plan.pin for seat in self.wanted()}
        asked = known if pins is None else set(pins)
        event = m.RestartRequested("world", None if pins is None else tuple(pins))
        if self._refused(event, bad=not asked <= known):
            return
        flocks = [flock for flock in self.flocks.values() if any(seat.plan.pin in asked for seat in flock.seats)]
        asked |= {seat.plan.pin for flock in flocks for seat in flock.seats if not seat.retiring}
        report = m.RestartStarted("world", tuple(sorted(asked)), len(self.working()))
        for flock in flocks:
            flock.renew(self.now)
        for pin in sorted(asked):
            if self.seats[pin].flock is None:
                self.seats[pin].renew(self.now, self.now)
        self.note_dismissals()
        assert self.feed(event)[0] == report

    def scale(self, count: int, *, relative: bool) -> None:
        """Ask for so many PINs of the catch-all handler, or for so many more."""
        event, plan = m.ScaleRequested("world", count, relative), self.catch_all
        own = {seat.plan.pin for seat in self.wanted() if plan is not None and seat.plan.handler == plan.handler}
        count = len(own) + count if relative else count
        flock = self.flocks.get(plan.group) if plan is not None and plan.group is not None else None
        if self._refused(event, bad=plan is None or count < 1 or (flock is not None and flock.failed)):
            return
        assert plan is not None
        added, removed = [], []
        while len(own) > count:
            removed.insert(0, max(own))
            own.remove(removed[0])
            self.seats[removed[0]].retire(self.now)
        taken = {seat.plan.pin for seat in self.wanted()}
        while len(own) < count:
            pin = next(Pin(number) for number in range(10**6) if number not in taken)
            added.append(pin)
            own.add(pin)
            taken.add(pin)
            self._add(replace(plan, pin=pin), flock)
        self.note_dismissals()
        assert self.feed(event)[0] == m.Scaled("world", count, tuple(added), tuple(removed), plan)

    def _add(self, plan: SlotPlan, flock: Flock | None) -> None:
        if plan.pin not in self.seats:
            self.seats = dict(sorted({**self.seats, plan.pin: Seat(plan, flock)}.items()))
            if flock is not None:
                flock.seats.append(self.seats[plan.pin])
        self.seats[plan.pin].renew(self.now, NEVER if flock is not None and flock.restart_at is not None else self.now)

    def _refused(self, event: m.RestartRequested | m.ScaleRequested, *, bad: bool) -> bool:
        """Feed what cannot be, and see that nothing happens; return whether it was such a wish."""
        if not bad and self.started and not self.stops and self.finish is None:
            return False
        before = self.states
        assert [type(effect) for effect in self.feed(event)] == [m.RequestRefused]
        self._assert_unchanged(before)
        return True

    def forward(self, signum: int) -> None:
        """Send the user's own signal to the master."""
        effects = self.feed(m.ForwardRequested(signum))
        assert effects == [m.Forward(worker.pin, worker.attempt, signum) for worker in self.working()]

    # Strays

    def stray(self, pin: Pin, attempt: Attempt, which: int, status: ExitStatus) -> None:
        """Feed an event that names no process, or one that is gone: it changes nothing, whatever it says."""
        events: list[m.Event] = [
            m.Spawned(pin, attempt),
            m.SpawnFailed(pin, attempt, "late"),
            m.WorkerUp(pin, attempt),
            m.WorkerExited(pin, attempt, status),
            m.WorkerSuspended(pin, attempt),
            m.WorkerResumed(pin, attempt),
            m.Looked(pin, attempt, self.now - which),
            m.Measured(pin, attempt, 10**9),
            m.Dumped(pin, attempt),
        ]
        self._feed_for_nothing(events[which % len(events)])

    def again(self, worker: Worker) -> None:
        """Feed a second time what a worker, or its fork, has said before."""
        events: list[m.Event] = [
            m.Spawned(worker.pin, worker.attempt),
            m.SpawnFailed(worker.pin, worker.attempt, "no memory"),
        ]
        if worker.up_at is not None:
            events.append(m.WorkerUp(worker.pin, worker.attempt))
        if worker.up_at is None or worker.hung or worker.purpose is not None:
            events.append(m.Looked(worker.pin, worker.attempt, worker.beat_at))
            events.append(m.Measured(worker.pin, worker.attempt, worker.memory))
        for event in events:
            self._feed_for_nothing(event)

    def _feed_for_nothing(self, event: m.Event) -> None:
        before = self.states
        assert [type(effect) for effect in self.feed(event)] == [m.EventIgnored]
        self._assert_unchanged(before)

    def _assert_unchanged(self, before: Any) -> None:
        assert all(self.states[pin] is state for pin, state in before.items()), "an event without a meaning had one"

    # Time

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in which the workers go on and the master does nothing."""
        self.now += seconds

    def freeze(self, seconds: float) -> None:
        """Suspend the whole machine: time passes, and nobody runs."""
        for worker in self.living():
            worker.run_to(self.now)
            worker.next_at += seconds
        self.now += seconds
        self.note(f"the machine was suspended for {seconds} s")

    def to_deadline(self, side: float = 0.0) -> None:
        """Let time pass to the next deadline, or to a little before or after it."""
        deadline = self.core.next_deadline()
        if deadline is not None:
            self.now = max(self.now, deadline + side)

    def to_edge_of_window(self, seat: Seat, side: float = 0.0) -> None:
        """Let time pass to where the oldest of the restarts that count does not count any more."""
        if seat.restarts and seat.plan.max_restarts is not None:
            oldest = seat.restarts[-seat.plan.max_restarts :][0]
            self.now = max(self.now, oldest + seat.plan.restart_period + side)

    def meet(self) -> None:
        """Let the master meet what is due: all of it, in as many batches as that takes, and nothing before its time."""
        deadline = self.core.next_deadline()
        if deadline is None or deadline > self.now:
            assert self.feed(m.DeadlineReached()) == []
            return
        batches = 0
        while (deadline := self.core.next_deadline()) is not None and deadline <= self.now:
            self.meet_some()
            batches += 1
            # A slot has at most three deadlines in one instant: its age, its memory, its checkpoints.
            assert batches <= 2 + 4 * len(self.seats) // DEADLINES_PER_WAKE, "the same instant again and again"
        self.check_in_time()

    def meet_some(self) -> None:
        """Let the master meet one batch of what is due."""
        before = self.states
        self.feed(m.DeadlineReached())
        if (deadline := self.core.next_deadline()) is not None and deadline <= self.now:
            self.counts["full batch"] += 1
        assert any(self.states[pin] is not state for pin, state in before.items()), "a deadline without a meaning"

    def rest(self) -> None:
        """Check that without further events, time alone leads to rest; in a stop, to the end.

        At rest, nothing is due any more, or nothing but looks at workers that run.
        """
        self.fork_fails = lambda: False
        self.reap_all()
        busy_count, end = 0, self.now + LONG_ENOUGH_S
        for _ in range(500 * len(self.seats) + 200):
            deadline = self.core.next_deadline()
            if deadline is None or (deadline > end and not any(map(in_motion, self.states.values()))):
                break
            self.to_deadline()
            before = self._busy()
            self.meet()
            busy_count += self._busy() > before
        else:
            raise AssertionError("never comes to rest")
        assert busy_count <= 40 * len(self.seats), "a busy rest"
        assert not self.stops or self.finish is not None, "a stop without an end"
        assert self.finish is not None or any(seat.over is None for seat in self.pins()), "spares keep it alive"

    def _busy(self) -> int:
        return self.counts.total() - sum(self.counts[name] for name in WATCHED)


def in_motion(state: SlotState) -> bool:
    """Whether time alone will change this state, other than by what is seen of a worker that runs."""
    match state:
        case Backoff(at) | Killing(abandon_at=at):
            return at < NEVER
        case _:
            return isinstance(state, Hung | Stopping)
