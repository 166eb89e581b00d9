"""When slots have something to do: a heap of instants, in which those that were put off stay until they come."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from pyworkers._core.slot import Slot
from pyworkers._core.types import NEVER, Pin


class Wakes:
    """The instants of all slots; which of them still count, the slots themselves say."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Pin]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def note(self, slot: Slot, slots: Mapping[Pin, Slot]) -> None:
        """Take note of the instant of one of the slots, which may have changed."""
        at = slot.wakes_at()
        if at < NEVER:
            heapq.heappush(self._heap, (at, slot.plan.pin))
        if len(self._heap) > 4 * len(slots) + 64:
            # Many that are put off in a row must not make it grow.
            self._heap = [(slot.wakes_at(), pin) for pin, slot in slots.items() if slot.wakes_at() < NEVER]
            heapq.heapify(self._heap)

    def next_at(self, slots: Mapping[Pin, Slot]) -> float | None:
        """Return the first instant, or None where nothing is ever due."""
        while self._heap:
            at, pin = self._heap[0]
            if slots[pin].wakes_at() == at:
                return at
            heapq.heappop(self._heap)
        return None

    def take(self, slots: Mapping[Pin, Slot], now: float) -> Pin | None:
        """Return whose instant has come, the earliest first, or None; it is to be noted again."""
        at = self.next_at(slots)
        return None if at is None or at > now else heapq.heappop(self._heap)[1]
