"""PINs that live and die together: when one fails, all of its group are stopped, and started when the last has ended.

OTP's one_for_all. What one slot does about it is the slot's; this is the part that looks at all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyworkers._core import messages as m
from pyworkers._core.messages import Effect
from pyworkers._core.slot import Slot
from pyworkers._core.states import retires
from pyworkers._core.types import NEVER, Backoff, Failed, LiveState, Pin


def grouped(slots: Iterable[Slot]) -> dict[str, Group]:
    """Return the groups of these slots, by name; a slot of its own is in none."""
    members: dict[str, list[Slot]] = {}
    for slot in slots:
        if slot.plan.group is not None:
            members.setdefault(slot.plan.group, []).append(slot)
    return {name: Group(name, own) for name, own in members.items()}


class Group:
    """One group's slots, and the restart that is under way.

    Attributes:
        slots: In the order of their PINs.
    """

    def __init__(self, name: str, slots: Iterable[Slot]) -> None:
        self._name = name
        self.slots = list(slots)
        self._restart_at: float | None = None
        self._failed = False

    def after_exit(self, slot: Slot, now: float) -> list[Effect]:
        """Draw the conclusions from the end of a worker of this group; any of its slots may change."""
        effects: list[Effect] = []
        match slot.state:
            case Failed() if not self._failed:
                self._failed = True
                effects = self._leave(slot, now)
            case Backoff(respawn_at):
                if self._restart_at is None:
                    # A member whose fork has failed is in backoff, too, and the system has to recover first.
                    self._restart_at = max(self._owed())
                    effects = self._leave(slot, now)
                self._restart_at = max(respawn_at, self._restart_at)
                slot.respawn_at(NEVER)
            case _:
                pass
        self.go_on(now)
        return effects

    def restart(self, now: float) -> list[Effect]:
        """Start all of the group anew, since an operator wants it, when the last that is live has ended."""
        self._failed, self._restart_at = False, now
        effects: list[Effect] = []
        for member in self.slots:
            if not retires(member.state):
                effects += member.restart(now, NEVER)
        self.go_on(now)
        return effects

    def join(self, slot: Slot, now: float) -> float:
        """Take in a PIN that is added, and return when it is due: now, or when all are."""
        if slot not in self.slots:
            self.slots.append(slot)
        return NEVER if self.restarts else now

    def go_on_waiting(self) -> None:
        """After a new program has taken over: know again what the states of its slots tell."""
        self._failed = any(isinstance(member.state, Failed) for member in self.slots)
        if any(member.state == Backoff(NEVER) for member in self.slots):
            self._restart_at = -NEVER

    @property
    def restarts(self) -> bool:
        """Whether nobody of it may start before all can."""
        return self._restart_at is not None

    @property
    def failed(self) -> bool:
        """Whether the group was given up."""
        return self._failed

    def go_on(self, now: float) -> None:
        """Start all of it, if that is due and nobody of it lives."""
        if self._restart_at is not None and not self._live_count():
            for member in self.slots:
                member.respawn_at(max(now, self._restart_at))
            self._restart_at = None

    def _leave(self, culprit: Slot, now: float) -> list[Effect]:
        pin, live_count = culprit.plan.pin, self._live_count()
        before = self._failed_pins()
        effects: list[Effect] = []
        for member in self.slots:
            if member is not culprit:
                effects += member.leave_with_group(now, doomed=self._failed)
        if self._failed:
            given_up = tuple(failed for failed in self._failed_pins() if failed not in before)
            return [m.GroupFailed(pin, self._name, live_count, given_up), *effects]
        return [m.GroupRestarted(pin, self._name, live_count), *effects]

    def _live_count(self) -> int:
        return sum(isinstance(member.state, LiveState) for member in self.slots)

    def _owed(self) -> list[float]:
        return [member.state.respawn_at for member in self.slots if isinstance(member.state, Backoff)]

    def _failed_pins(self) -> tuple[Pin, ...]:
        return tuple(member.plan.pin for member in self.slots if isinstance(member.state, Failed))
