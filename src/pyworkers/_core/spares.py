"""The spares of each handler: which of them wait to take a PIN, and whether their handler still has one to take.

What one slot does about it is the slot's; this is the part that looks at all spares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyworkers._core.slot import Slot
from pyworkers._core.types import Backoff, Running, is_spare


class Spares:
    """All spares of an instance."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._needed: dict[int, list[Slot]] = {}
        for slot in slots:
            self._needed.setdefault(slot.plan.handler, []).append(slot)
        self._dismissed: dict[int, list[Slot]] = {}
        # Those of each handler that are up, as ordered sets.
        self._parked: dict[int, dict[Slot, None]] = {handler: {} for handler in self._needed}

    def settle(self, spare: Slot) -> None:
        """Note whether a spare can take a PIN, after its state has changed."""
        parked = self._parked[spare.plan.handler]
        if isinstance(spare.state, Running) and not spare.state.suspended:
            parked[spare] = None
        else:
            parked.pop(spare, None)

    def one_for(self, slot: Slot) -> Slot | None:
        """Return a process that waits for just this: a PIN of its handler is due."""
        if is_spare(slot.plan.pin) or not isinstance(slot.state, Backoff):
            return None
        return next(iter(self._parked.get(slot.plan.handler, ())), None)

    def dismiss(self, open_pins: Mapping[int, int]) -> list[Slot]:
        """Return the spares of handlers without an open PIN, once: they must not keep the instance alive."""
        return _moved(self._needed, self._dismissed, [each for each in self._needed if not open_pins[each]])

    def recall(self, open_pins: Mapping[int, int]) -> list[Slot]:
        """Return those of them whose handler has a PIN again, since an operator wants it, once."""
        return _moved(self._dismissed, self._needed, [each for each in self._dismissed if open_pins[each]])


def _moved(source: dict[int, list[Slot]], target: dict[int, list[Slot]], handlers: list[int]) -> list[Slot]:
    slots: list[Slot] = []
    for handler in handlers:
        target[handler] = source.pop(handler)
        slots += target[handler]
    return slots
