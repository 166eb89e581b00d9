"""The roll after a reload: workers that still run the old code are replaced one at a time, each when the last is up.

Who lives together is replaced together, with those of the group whom only the new code has.

It halts at the first that does not come up, and all others go on with the code that they run. Up means that
`on_worker_start` is done; code that fails at its first lines does so after that, so the first PIN of each handler has
to live for a moment before others follow, and any that dies young ends the roll.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyworkers._core import messages as m
from pyworkers._core import policy
from pyworkers._core.slot import Slot
from pyworkers._core.types import (
    NEVER,
    Abandoned,
    Attempt,
    Backoff,
    Failed,
    Finished,
    LiveState,
    Pin,
    Purpose,
    Retired,
    Running,
)


class Roll:
    """Who is to be replaced, and how far that is.

    Args:
        slots: Of all PINs; only their state is looked at here.
        stale: Which PINs are to be replaced, in this order, and the attempt of each that is the last of the old code.

    Attributes:
        halted: The PIN that did not come up, or None.
        current: The PIN that is being replaced.
        done_count: How many have been.
    """

    def __init__(self, slots: Mapping[Pin, Slot], stale: Iterable[tuple[Pin, Attempt]]) -> None:
        self._slots = slots
        self._stale = dict(stale)
        self._waiting = list(self._stale)
        self._proven: set[int] = set()
        self._settle_at = NEVER
        # Who is started with the current one, that one included.
        self._step: dict[Pin, Slot] = {}
        self.current: Pin | None = None
        self.halted: Pin | None = None
        self.done_count = 0

    @property
    def left_count(self) -> int:
        """How many PINs have not been replaced."""
        return len(self._waiting) + (self.current is not None)

    def wakes_at(self) -> float:
        """Return the instant at which `next` has something new to say, or NEVER."""
        return self._settle_at

    def next(self, now: float) -> Pin | None:
        """Return the PIN that is to be started anew now, or None while there is something to wait for, or no more."""
        while self.halted is None:
            if self.current is not None and not all(self._is_replaced(slot, now) for slot in self._step.values()):
                return None
            if self.current is not None:
                self.current = None
                self.done_count += 1
            if not self._waiting:
                return None
            self.current = self._waiting.pop(0)
            self._step = self._mates(self.current)
            if self._is_old(self._slots[self.current]):
                return self.current
        return None

    def note_end(self, ended: m.WorkerEnded) -> bool:
        """Take the end of a worker, and return whether the roll halts at it: new code that has failed, unasked."""
        pin, state = ended.pin, self._slots[ended.pin].state
        mate = self.current is not None and pin in self._step
        new = (mate or (pin in self._stale and pin not in self._waiting)) and ended.attempt > self._stale.get(pin, 0)
        if self.halted is not None or not new or self.left_count == 0 or ended.purpose not in (None, Purpose.HANG):
            return False
        young = mate or ended.lifetime_s < policy.SHORT_LIFE_S
        if not young or not isinstance(state, Backoff | Failed):
            return False
        if self.current not in (None, pin):
            self._waiting.insert(0, self.current)
        if pin in self._waiting:
            self._waiting.remove(pin)
        self.halted, self.current, self._settle_at = pin, None, NEVER
        return True

    def _mates(self, pin: Pin) -> dict[Pin, Slot]:
        """Return the PIN and all of its group."""
        slot = self._slots[pin]
        if slot.plan.group is None:
            return {pin: slot}
        return {mate: other for mate, other in self._slots.items() if other.plan.group == slot.plan.group}

    def _is_old(self, slot: Slot) -> bool:
        """Whether its process, if it has one, runs the old code; one that has none is started with the new."""
        if isinstance(slot.state, LiveState):
            return slot.state.attempt <= self._stale[slot.plan.pin]
        return isinstance(slot.state, Backoff | Failed)

    def _is_replaced(self, slot: Slot, now: float) -> bool:
        self._settle_at = NEVER
        match slot.state:
            case Running(attempt=attempt, spawned_at=spawned_at) if attempt > self._stale.get(slot.plan.pin, 0):
                if slot.plan.handler in self._proven:
                    return True
                self._settle_at = spawned_at + policy.CANARY_S
                if now < self._settle_at:
                    return False
                self._settle_at = NEVER
                self._proven.add(slot.plan.handler)
                return True
            case Finished() | Retired() | Abandoned():
                return True
            case _:
                return False
