"""One PIN: its plan, its one state value, and the transitions between them.

A slot knows nothing of its neighbours; what concerns several of them (the stop, the end, groups, turns, the deadlines)
is the supervisor's. Every method takes the time and returns effects; an event that does not fit the state changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core import messages as m
from pyworkers._core import policy, states, watch
from pyworkers._core.messages import Effect, GivenUp, Next, StopKind
from pyworkers._core.records import replace
from pyworkers._core.tally import Tally
from pyworkers._core.types import (
    NEVER,
    Abandoned,
    Action,
    Attempt,
    Backoff,
    Exited,
    ExitStatus,
    Failed,
    Finished,
    Hung,
    Killing,
    Limit,
    Pin,
    ProcessState,
    Purpose,
    Restart,
    Retired,
    Rung,
    Running,
    SlotPlan,
    SlotState,
    Starting,
    Stopping,
    Waiting,
    Wear,
)


class Slot:
    """The seat of one PIN.

    Attributes:
        plan: Its policy.
        state: Exactly one value; see `pyworkers._core.types`.
        ever_up: Whether any attempt of it has come up.
        torn: Whether a worker of it had to be interrupted or killed in a stop, so that a unit of work may be torn.
    """

    __slots__ = ("_attempt", "_doomed", "_jitter", "_tally", "ever_up", "plan", "state", "torn")

    def __init__(self, plan: SlotPlan, jitter: Callable[[float], float]) -> None:
        self.plan = plan
        self._jitter = jitter
        self._attempt = Attempt(0)
        self._tally = Tally(plan, jitter)
        # Its group was given up: what is left of it is on its way out.
        self._doomed = False
        self.state: SlotState = Backoff(NEVER)
        self.ever_up = self.torn = False

    def wakes_at(self) -> float:
        """Return the instant at which `meet_deadline` is due."""
        return states.wakes_at(self.state)

    def respawn_at(self, at: float) -> None:
        """Where no process is there and one is to come: put it off, or make it due. `NEVER` waits for the next call."""
        if isinstance(self.state, Backoff):
            self.state = Backoff(at)

    def meet_deadline(self, now: float) -> list[Effect]:
        """Do the one thing that is due next: spawn, look, climb a rung, or give up waiting."""
        if self.wakes_at() > now:
            return []
        match self.state:
            case Backoff():
                self._attempt = Attempt(self._attempt + 1)
                self.state = Starting(self._attempt, now)
                return [m.Spawn(self.plan.pin, self._attempt)]
            case Running() as state:
                return self._look_after(state, now)
            case Hung() as state:
                return self._end_hung(state, now)
            case Stopping(rungs=rungs) as state:
                return self._climb(state, rungs, now, state.purpose)
            case Killing(attempt, spawned_at, _, purpose):
                waiting = purpose is not Purpose.STOP
                self.state = Killing(attempt, spawned_at, NEVER, purpose) if waiting else Abandoned(attempt, spawned_at)
                return [m.WorkerAbandoned(self.plan.pin, attempt, waiting)]
            case Starting() | Waiting() | Finished() | Failed() | Retired() | Abandoned():
                return []

    def hear(self, event: m.WorkerEvent, now: float) -> list[Effect]:
        """Take news of the worker."""
        state = self.state
        if not isinstance(state, ProcessState):
            return [m.EventIgnored(event, f"no process in state {type(state).__name__}")]
        if state.attempt != event.attempt:
            return [m.EventIgnored(event, f"attempt {state.attempt} is current")]
        match event, state:
            case m.WorkerExited(status=status), _:
                return self._exit(state, status, now)
            case m.Spawned(), Starting(confirmed=False):
                self.state = Starting(state.attempt, now, confirmed=True)
                return [m.WorkerStarted(event.pin, event.attempt)]
            case m.SpawnFailed(reason=reason), Starting(confirmed=False):
                self._tally.note_failed_fork()
                delay_s = self._back_off(now)
                return [m.SpawnDelayed(event.pin, event.attempt, reason, delay_s)]
            case m.WorkerUp(), Starting():
                self.ever_up = True
                watched = watch.begin(self.plan, now, self._jitter)
                # Its word was still on the way when it was suspended.
                watched = watch.suspend(watched) if state.suspended else watched
                self.state = Running(state.attempt, state.spawned_at, watched, suspended=state.suspended)
                return []
            case ((m.WorkerSuspended() | m.WorkerResumed()), _):
                return self._note_suspension(event, state, now)
            case ((m.Looked() | m.Measured()), Running()):
                return self._learn(event, state, now)
            case m.Dumped(), Hung():
                return self._end_hung(state, now)
            case _:
                return [m.EventIgnored(event, f"state {type(state).__name__}")]

    def stop(self, kind: StopKind, now: float) -> list[Effect]:
        """Set foot on the ladder, or on a steeper one, because the instance stops."""
        match self.state:
            case Backoff() | Waiting():
                self.state = Finished(cut=True)
                return []
            case Stopping(acted=acted) as state if kind is StopKind.GRACEFUL:
                # On its way already: the ladder that it is on ends no later than a new one would.
                self.torn = self.torn or acted is not Action.TERMINATE
                self.state = replace(state, purpose=Purpose.STOP)
                return []
            case Killing() as state if state.purpose is not Purpose.STOP:
                self.torn = True
                self.state = replace(state, abandon_at=now + policy.ABANDON_S, purpose=Purpose.STOP)
                return []
            case Starting() | Running() | Hung() | Stopping() as state:
                return self._climb(state, states.ladder(kind, state, self.plan.stop_timeout, now), now, Purpose.STOP)
            case Killing() | Finished() | Failed() | Retired() | Abandoned():
                return []

    def restart(self, now: float, at: float) -> list[Effect]:
        """Start anew, since an operator wants it: what has failed before is forgotten. Where no process is, at `at`."""
        self._tally.forget()
        self._doomed = False
        match self.state:
            case Backoff() | Finished() | Failed() | Retired():
                self.state = Backoff(at)
            case Starting() | Running() | Hung() as state:
                return self._climb(state, policy.stop_ladder(self.plan.stop_timeout, now), now, Purpose.RESTART)
            case (Stopping() | Killing()) as state if state.purpose in (Purpose.STOP, Purpose.SCALE):
                # On its way out for good: a spare that was dismissed, or a PIN that was taken away.
                self.state = replace(state, purpose=Purpose.RESTART)
            case Waiting() | Stopping() | Killing() | Abandoned():
                pass
        return []

    def retire(self, now: float) -> list[Effect]:
        """Leave for good, since an operator wants fewer PINs."""
        match self.state:
            case Backoff() | Waiting() | Finished() | Failed():
                self.state = Retired()
            case Starting() | Running() | Hung() as state:
                return self._climb(state, policy.stop_ladder(self.plan.stop_timeout, now), now, Purpose.SCALE)
            case (Stopping() | Killing()) as state:
                self.state = replace(state, purpose=Purpose.SCALE)
            case Retired() | Abandoned():
                pass
        return []

    def give(self, now: float) -> None:
        """Of a spare: let another seat have the process, and be due for a new one soon; its short lives are over."""
        self._tally.forget()
        self.state = Backoff(now + policy.SPARE_REST_S)

    def take(self, spare: Pin, now: float) -> list[Effect]:
        """Take the process of that spare for the one that is due."""
        self._attempt = Attempt(self._attempt + 1)
        self.state = Starting(self._attempt, now)
        return [m.Assign(self.plan.pin, self._attempt, spare)]

    def recycle(self, now: float) -> list[Effect]:
        """It is its turn: ask a worker that has reached a limit to leave."""
        match self.state:
            case Running(attempt=attempt, worn=Wear() as wear, suspended=False) as state:
                rungs = policy.stop_ladder(self.plan.stop_timeout, now)
                return [
                    m.WorkerRecycled(self.plan.pin, attempt, wear),
                    *self._climb(state, rungs, now, Purpose.RECYCLE),
                ]
            case _:
                return []

    def dump(self, now: float) -> list[Effect]:
        """It is its turn: ask a hung worker for its stacks."""
        match self.state:
            case Hung(attempt, spawned_at, asked=False):
                self.state = Hung(attempt, spawned_at, now + policy.DUMP_TIMEOUT_S, asked=True)
                return [m.Dump(self.plan.pin, attempt)]
            case _:
                return []

    def leave_with_group(self, now: float, *, doomed: bool) -> list[Effect]:
        """Another PIN of the group has failed: leave, and wait for the others, or for nothing if all are `doomed`."""
        self._doomed = self._doomed or doomed
        match self.state:
            case Backoff() if self._doomed:
                self.state = Failed()
            case Backoff():
                self.state = Backoff(NEVER)
            case Starting() | Running() | Hung() as state:
                return self._climb(state, policy.stop_ladder(self.plan.stop_timeout, now), now, Purpose.GROUP)
            case _:
                pass
        return []

    def _look_after(self, state: Running, now: float) -> list[Effect]:
        pin, watched = self.plan.pin, state.watch
        if watched.recycle_at <= now:
            worn = state.worn or Wear(Limit.MAX_RUNTIME, now - state.spawned_at)
            self.state = replace(state, watch=replace(watched, recycle_at=NEVER), worn=worn)
            return []
        if watched.measure_at <= now:
            later = now + policy.MEASURE_INTERVAL_S if state.worn is None else NEVER
            self.state = replace(state, watch=replace(watched, measure_at=later))
            return [m.Measure(pin, state.attempt, self.plan.max_rss or 0)]
        self.state = replace(state, watch=watch.look_again(watched, self.plan.hang_timeout or NEVER, now))
        return [m.Look(pin, state.attempt)]

    def _learn(self, event: m.Looked | m.Measured, state: Running, now: float) -> list[Effect]:
        if isinstance(event, m.Measured):
            size = event.private_bytes
            if size is not None and state.worn is None and size > (self.plan.max_rss or NEVER):
                self.state = replace(state, worn=Wear(Limit.MAX_RSS, size))
            return []
        before = state.watch.probed_at
        judged = watch.judged(state.watch, self.plan.hang_timeout or NEVER, event.beat_at, now)
        if judged is None:
            self.state = Hung(state.attempt, state.spawned_at, now + policy.DUMP_TURN_S)
            return [m.WorkerHung(self.plan.pin, state.attempt, now - (before or now))]
        if judged is not state.watch:
            self.state = replace(state, watch=judged)
        return [] if judged.probed_at in (None, before) else [m.Probe(self.plan.pin, state.attempt)]

    def _note_suspension(
        self, event: m.WorkerSuspended | m.WorkerResumed, state: ProcessState, now: float
    ) -> list[Effect]:
        suspended = isinstance(event, m.WorkerSuspended)
        if isinstance(state, Starting):
            self.state = replace(state, suspended=suspended)
        elif isinstance(state, Running):
            watched = watch.suspend(state.watch) if suspended else watch.resume(state.watch, self.plan, now)
            self.state = replace(state, watch=watched, suspended=suspended)
        return [m.SuspensionNoted(event.pin, event.attempt, suspended)]

    def _end_hung(self, state: Hung, now: float) -> list[Effect]:
        # The interrupt lets it tidy up, where it still can; it has had its time for a polite answer.
        rungs = policy.quick_ladder(now, now + self.plan.stop_timeout)
        return self._climb(state, rungs, now, Purpose.HANG)

    def _exit(self, state: ProcessState, status: ExitStatus, now: float) -> list[Effect]:
        code = status.code if isinstance(status, Exited) else None
        normal = code in self.plan.normal_exit_codes
        purpose = state.purpose if isinstance(state, Stopping | Killing) else None
        if isinstance(state, Hung):
            purpose = Purpose.HANG
        asked = purpose in (Purpose.RECYCLE, Purpose.GROUP, Purpose.RESTART, Purpose.LEASE)
        # A spare is stopped before the instance, when no PIN is left that could need it.
        stopping = purpose in (Purpose.STOP, Purpose.SCALE) or isinstance(state, Abandoned)
        lifetime_s, delay_s = now - state.spawned_at, 0.0
        given_up = None
        done = normal and self.plan.restart is not Restart.ALWAYS
        if stopping or done:
            follows = Next.FINISHED if normal else Next.STOPPED
            self.state = Retired() if purpose is Purpose.SCALE else Finished(cut=not done)
        elif (given_up := self._given_up(code, now, asked=purpose)) is not None:
            follows = Next.FAILED
            self.state = Failed()
        else:
            follows = Next.RESPAWN if self.plan.group is None else Next.GROUP
            self._tally.note_life(lifetime_s, asked=asked)
            delay_s = self._back_off(now, at_once=asked)
        lost = given_up not in (None, GivenUp.GROUP)
        return [
            m.WorkerEnded(
                self.plan.pin,
                state.attempt,
                status,
                lifetime_s,
                follows,
                delay_s,
                purpose,
                given_up,
                is_failure=not (normal or asked or stopping) or lost,
                short_lives=self._tally.short_lives,
                restart_count=self._tally.restart_count,
            )
        ]

    def _given_up(self, code: int | None, now: float, *, asked: Purpose | None) -> GivenUp | None:
        """Return why no worker follows, or None and count the restart."""
        if self._doomed:
            return GivenUp.GROUP
        if code in self.plan.permanent_failure_codes:
            return GivenUp.PERMANENT
        if asked in (Purpose.GROUP, Purpose.RESTART, Purpose.LEASE):
            return None
        if self.plan.restart is Restart.NEVER:
            return GivenUp.NO_RESTART
        return None if asked is Purpose.RECYCLE or self._tally.may_restart(now) else GivenUp.INTENSITY

    def _back_off(self, now: float, *, at_once: bool = False) -> float:
        delay_s = 0.0 if at_once else self._tally.delay_s()
        self.state = Backoff(now + delay_s)
        return delay_s

    def _climb(
        self, state: Starting | Running | Hung | Stopping, rungs: tuple[Rung, ...], now: float, purpose: Purpose
    ) -> list[Effect]:
        """Do the last rung that is due; the ones before it have become pointless."""
        due_count = sum(rung.at <= now for rung in rungs)
        action = rungs[due_count - 1].action
        if due_count < len(rungs):
            self.state = Stopping(state.attempt, state.spawned_at, action, rungs[due_count:], purpose)
        else:
            self.state = Killing(state.attempt, state.spawned_at, now + policy.ABANDON_S, purpose)
        act = m.Act(self.plan.pin, state.attempt, action)
        if action is Action.TERMINATE:
            return [act]
        self.torn = self.torn or purpose is Purpose.STOP
        told = purpose is Purpose.HANG and action is Action.INTERRUPT
        if told or (isinstance(state, Stopping) and state.acted is action):
            return [act]
        return [m.WorkerOverdue(self.plan.pin, state.attempt, action), act]
