"""One PIN: its plan, its one state value, and the transitions between them.

A slot knows nothing of its neighbours; what concerns all of them (the stop, the end, the deadlines) is the
supervisor's. Every method takes the time and returns effects; an event that does not fit the state changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core import messages as m
from pyworkers._core import policy
from pyworkers._core.messages import Effect, StopKind
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
    Rung,
    Running,
    SlotPlan,
    SlotState,
    Starting,
    Stopping,
)

WorkerEvent = m.Spawned | m.SpawnFailed | m.WorkerUp | m.WorkerExited

NEVER = float("inf")


class Slot:
    """The seat of one PIN.

    Attributes:
        state: Exactly one value; see `pyworkers._core.types`.
        ever_up: Whether any attempt of it has come up.
        torn: Whether a worker of it had to be interrupted or killed, so that a unit of work may be torn.
    """

    __slots__ = ("_attempt", "_jitter", "_plan", "_short_lives", "ever_up", "state", "torn")

    def __init__(self, plan: SlotPlan, jitter: Callable[[float], float]) -> None:
        self._plan = plan
        self._jitter = jitter
        self._attempt = Attempt(0)
        self._short_lives = 0
        self.state: SlotState = Backoff(NEVER)
        self.ever_up = False
        self.torn = False

    def wakes_at(self) -> float:
        """Return the instant at which `meet_deadline` is due: part of the state, so there is no timer to cancel."""
        match self.state:
            case Backoff(respawn_at):
                return respawn_at
            case Stopping(rungs=rungs):
                return rungs[0].at
            case Killing(abandon_at=abandon_at):
                return abandon_at
            case Starting() | Running() | Finished() | Abandoned():
                return NEVER

    def start(self, now: float) -> None:
        """Make the first spawn due."""
        if self.state == Backoff(NEVER):
            self.state = Backoff(now)

    def meet_deadline(self, now: float) -> list[Effect]:
        """Do what is due by now: spawn, climb a rung, or give up on a process that KILL does not end."""
        match self.state:
            case Backoff(respawn_at) if respawn_at <= now:
                self._attempt = Attempt(self._attempt + 1)
                self.state = Starting(self._attempt, now)
                return [m.Spawn(self._plan.pin, self._attempt)]
            case Stopping(rungs=rungs) as state if rungs[0].at <= now:
                return self._climb(state, rungs, now)
            case Killing(attempt, spawned_at, abandon_at) if abandon_at <= now:
                self.state = Abandoned(attempt, spawned_at)
                return [m.WorkerAbandoned(self._plan.pin, attempt)]
            case _:
                return []

    def hear(self, event: WorkerEvent, now: float, *, stopping: bool) -> list[Effect]:
        """Take news of the worker; `stopping` says whether the instance still replaces those who end."""
        state = self.state
        if not isinstance(state, LiveState | Abandoned):
            return [m.EventIgnored(event, f"no process in state {type(state).__name__}")]
        if state.attempt != event.attempt:
            return [m.EventIgnored(event, f"attempt {state.attempt} is current")]
        match event, state:
            case m.WorkerExited(status=status), _:
                return self._exit(state, status, now, stopping=stopping)
            case m.Spawned(), Starting(confirmed=False):
                self.state = Starting(state.attempt, now, confirmed=True)
                return [m.WorkerStarted(event.pin, event.attempt)]
            case m.SpawnFailed(reason=reason), Starting(confirmed=False):
                # A failed fork is never tried again at once: the system has to recover first.
                self._short_lives = max(self._short_lives + 1, 2)
                delay_s = self._back_off(now)
                return [m.SpawnDelayed(event.pin, event.attempt, reason, delay_s)]
            case m.WorkerUp(), Starting():
                self.ever_up = True
                self.state = Running(state.attempt, state.spawned_at)
                return []
            case _:
                return [m.EventIgnored(event, f"state {type(state).__name__}")]

    def stop(self, kind: StopKind, now: float) -> list[Effect]:
        """Set foot on the ladder, or on a steeper one."""
        match self.state:
            case Backoff():
                self.state = Finished()
                return []
            case Starting() | Running() | Stopping() as state:
                return self._climb(state, self._ladder(kind, now), now)
            case Killing() | Finished() | Abandoned():
                return []

    def _exit(self, state: LiveState | Abandoned, status: ExitStatus, now: float, *, stopping: bool) -> list[Effect]:
        pin, lifetime_s = self._plan.pin, now - state.spawned_at
        if isinstance(status, Exited) and status.code in self._plan.normal_exit_codes:
            self.state = Finished()
            return [m.WorkerEnded(pin, state.attempt, status, lifetime_s, m.Next.FINISHED)]
        if stopping:
            self.state = Finished()
            return [m.WorkerEnded(pin, state.attempt, status, lifetime_s, m.Next.STOPPED)]
        self._short_lives = self._short_lives + 1 if lifetime_s < policy.SHORT_LIFE_S else 0
        delay_s = self._back_off(now)
        return [m.WorkerEnded(pin, state.attempt, status, lifetime_s, m.Next.RESPAWN, delay_s)]

    def _back_off(self, now: float) -> float:
        delay_s = policy.respawn_delay(self._short_lives, self._plan.backoff)
        if delay_s > 0:
            delay_s = self._jitter(delay_s)
        self.state = Backoff(now + delay_s)
        return delay_s

    def _ladder(self, kind: StopKind, now: float) -> tuple[Rung, ...]:
        match kind:
            case StopKind.GRACEFUL:
                return policy.stop_ladder(self._plan.stop_timeout, now)
            case StopKind.QUICK:
                promised = self.state.rungs[-1].at if isinstance(self.state, Stopping) else NEVER
                return policy.quick_ladder(now, min(promised, now + self._plan.stop_timeout))
            case StopKind.KILL:
                return (Rung(now, Action.KILL),)

    def _climb(self, state: Starting | Running | Stopping, rungs: tuple[Rung, ...], now: float) -> list[Effect]:
        """Do the last rung that is due; the ones before it have become pointless."""
        due_count = sum(rung.at <= now for rung in rungs)
        action = rungs[due_count - 1].action
        if due_count < len(rungs):
            self.state = Stopping(state.attempt, state.spawned_at, action, rungs[due_count:])
        else:
            self.state = Killing(state.attempt, state.spawned_at, now + policy.ABANDON_S)
        act = m.Act(self._plan.pin, state.attempt, action)
        if action is Action.TERMINATE:
            return [act]
        self.torn = True
        if isinstance(state, Stopping) and state.acted is action:
            return [act]
        return [m.WorkerOverdue(self._plan.pin, state.attempt, action), act]
