"""One at a time: PINs that want the same thing wait in line for it, each until the one before it is done."""

from __future__ import annotations

from collections.abc import Hashable

from pyworkers._core.types import ClosedState, Hung, Pin, Running, SlotPlan, SlotState


class Turns:
    """Lines of PINs, one for each key, in the order in which they joined."""

    def __init__(self) -> None:
        # Dictionaries as ordered sets: a PIN waits once, however often it joins.
        self._waiting: dict[Hashable, dict[Pin, None]] = {}
        self._holders: dict[Hashable, Pin] = {}

    def join(self, key: Hashable, pin: Pin) -> None:
        """Wait for the turn. Who has it may wait for it as well: both end with `leave`."""
        self._waiting.setdefault(key, {})[pin] = None

    def leave(self, key: Hashable, pin: Pin) -> None:
        """End the turn, if it is this PIN's, and stop waiting for it."""
        if self._holders.get(key) == pin:
            del self._holders[key]
        waiting = self._waiting.get(key, {})
        if pin in waiting:
            self._remove(key, waiting, pin)

    def take(self) -> Pin | None:
        """Give a turn that is free to the first who waits for it, and return who that is; None where nobody can go."""
        for key, waiting in self._waiting.items():
            if key not in self._holders:
                pin = next(iter(waiting))
                self._remove(key, waiting, pin)
                self._holders[key] = pin
                return pin
        return None

    def _remove(self, key: Hashable, waiting: dict[Pin, None], pin: Pin) -> None:
        del waiting[pin]
        if not waiting:
            del self._waiting[key]


class Queues:
    """What the PINs of an instance wait in line for.

    Attributes:
        recycling: To be recycled, by handlers.
        dumping: To write stacks: there is one log to dump into.
    """

    def __init__(self) -> None:
        self.recycling = Turns()
        self.dumping = Turns()

    def settle(self, plan: SlotPlan, before: SlotState, state: SlotState) -> None:
        """Let a PIN join or leave, after its state has changed."""
        if isinstance(state, Running) and state.worn is not None and not state.suspended:
            self.recycling.join(plan.handler, plan.pin)
        elif isinstance(state, Running | ClosedState):
            # Held until its successor is up: never more than one PIN of a handler is missing for its age.
            self.recycling.leave(plan.handler, plan.pin)
        if isinstance(state, Hung):
            self.dumping.join(None, plan.pin)
        elif isinstance(before, Hung):
            self.dumping.leave(None, plan.pin)
