"""The seat of a PIN that is leased: as every other one, but there is a process only while the row of the PIN is held.

Apart from `slot`, so that a PIN that nobody else may run knows nothing of rows.
"""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core import messages as m
from pyworkers._core import policy
from pyworkers._core.messages import Effect, Next, StopKind
from pyworkers._core.records import replace
from pyworkers._core.rows import RowDone, RowEvent, RowGranted, RowLapsed, RowRevoked, Vacate
from pyworkers._core.slot import Slot
from pyworkers._core.types import (
    NEVER,
    Action,
    Backoff,
    ClosedState,
    Failed,
    Finished,
    Hung,
    Killing,
    Pin,
    Purpose,
    Rung,
    Running,
    SlotPlan,
    SlotState,
    Starting,
    Stopping,
    Waiting,
    is_spare,
)


def _awaiting_row(effect: Effect) -> Effect:
    """Return the report of an end without a respawn's delay: when there will be one, is for others to say."""
    return replace(effect, follows=Next.LEASE, delay_s=0.0) if isinstance(effect, m.WorkerEnded) else effect


def seat(plan: SlotPlan, jitter: Callable[[float], float]) -> Slot:
    """Return the seat of a PIN, leased or not."""
    return (LeasedSlot if plan.leased else Slot)(plan, jitter)


class Onset:
    """Whether a start is over before all PINs have been up, which takes an answer of the database first.

    Attributes:
        answered: Whether there was one.
    """

    def __init__(self) -> None:
        self.answered = False
        # Asked first, so that each of many that come up costs no look at all the others.
        self._last: Slot | None = None

    def is_over(self, slots: dict[Pin, Slot]) -> bool:
        """Return whether nobody holds it up: each PIN has been up, or waits, or never will be."""
        if not self.answered:
            return False
        if self._last is None or not self.is_coming(self._last):
            self._last = next((slot for slot in reversed(slots.values()) if self.is_coming(slot)), None)
        return self._last is None

    def is_coming(self, slot: Slot) -> bool:
        """Return whether it holds the start up; not who waits after an answer: others may have its row for a year."""
        if slot.ever_up or is_spare(slot.plan.pin):
            return False
        return not isinstance(slot.state, ClosedState) and not (self.answered and isinstance(slot.state, Waiting))


class LeasedSlot(Slot):
    """A seat that waits for its row first."""

    __slots__ = ("_held",)

    def __init__(self, plan: SlotPlan, jitter: Callable[[float], float]) -> None:
        super().__init__(plan, jitter)
        self._held = False
        self.state = Waiting()

    def hear(self, event: m.WorkerEvent, now: float) -> list[Effect]:
        """Take news of the worker."""
        before = self.state
        effects = super().hear(event, now)
        if not self._held and isinstance(self.state, Backoff):
            self.state = Waiting()
            effects = [_awaiting_row(effect) for effect in effects]
        return effects + self._vacated(before)

    def stop(self, kind: StopKind, now: float) -> list[Effect]:
        """Set foot on the ladder, or on a steeper one, because the instance stops."""
        before = self.state
        return super().stop(kind, now) + self._vacated(before)

    def restart(self, now: float, at: float) -> list[Effect]:
        """Start anew, since an operator wants it. What ended normally has done so for all masters, and stays ended."""
        before = self.state
        if isinstance(before, Finished):
            return []
        if isinstance(before, Failed):
            # Its row was given back.
            self._held = False
        effects = super().restart(now, at)
        if not self._held and isinstance(self.state, Backoff):
            self.state = Waiting()
        return effects + self._vacated(before)

    def leave_with_group(self, now: float, *, doomed: bool) -> list[Effect]:
        """Another PIN of the group has failed."""
        before = self.state
        if doomed and isinstance(before, Waiting):
            self.state = Failed()
        return super().leave_with_group(now, doomed=doomed) + self._vacated(before)

    def hear_of_row(self, event: RowEvent, now: float) -> list[Effect]:
        """Take news of the row."""
        before = self.state
        match event, before:
            case RowGranted(), Waiting():
                self._held, self.state = True, Backoff(now)
                return []
            case RowDone(), Waiting():
                self.state = Finished()
                return []
            case RowRevoked(kill_by=kill_by), _ if self._held:
                self._held = False
                return self._leave_by(kill_by, now) + self._vacated(before)
            case RowLapsed(), _ if self._held:
                self._held = False
                if isinstance(before, Starting | Running | Hung):
                    # Its own timer has asked it to leave, or the helper has ended it. There is nobody left to act on.
                    self.state = Killing(before.attempt, before.spawned_at, NEVER, Purpose.LEASE)
                return []
            case _:
                return [m.EventIgnored(event, f"state {type(before).__name__}")]

    def _leave_by(self, kill_by: float, now: float) -> list[Effect]:
        match self.state:
            case Backoff():
                self.state = Waiting()
            case Starting() | Running() | Hung() as state:
                timeout_s = min(self.plan.stop_timeout, max(0.0, kill_by - now))
                return self._climb(state, policy.stop_ladder(timeout_s, now), now, Purpose.LEASE)
            case Stopping(rungs=rungs) as state:
                # On its way already, and why stays the same; it only must not take longer.
                kept = tuple(rung for rung in rungs if rung.at < kill_by)
                self.state = replace(state, rungs=(*kept, Rung(max(now, kill_by), Action.KILL)))
            case _:
                pass
        return []

    def _vacated(self, before: SlotState) -> list[Effect]:
        """Say that no process is left, where this is so from now on."""
        if self.state is before or not isinstance(self.state, Waiting | Finished | Failed):
            return []
        return [Vacate(self.plan.pin, self.state == Finished(), isinstance(self.state, Waiting))]
