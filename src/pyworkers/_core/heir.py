"""A supervisor that takes over from the one of the program before it, and replaces the workers that still run its code.

What is there goes on as it was: states, attempts, delays, what counts against a PIN. PINs that are new start, those
that the new code does not declare are taken away, and spares, which wait with the old code, are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyworkers._core import messages as m
from pyworkers._core.handover import Legacy, SlotMemory, memory_of, remind
from pyworkers._core.messages import Effect
from pyworkers._core.records import replace
from pyworkers._core.roll import Roll
from pyworkers._core.slot import Slot
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import (
    NEVER,
    Backoff,
    Failed,
    LiveState,
    Phase,
    ProcessState,
    Retired,
    SlotPlan,
    is_spare,
)

_NO_HANDLER = -1
"""That of PINs which no handler has any more; none of the new handlers waits for them, or lends them its spares."""


def legacy_of(core: Supervisor) -> Legacy:
    """Return what a supervisor leaves to the next program's."""
    slots = [memory_of(slot) for slot in core._slots.values() if not isinstance(slot.state, Retired)]
    return Legacy(tuple(slots), core._announced)


class Heir(Supervisor):
    """One that goes on where another has left.

    Args:
        plans: As of any supervisor, those of the new code.
        jitter: The same.
        legacy: What the one before it has left.
        rolling: Whether the workers with the old code are to be replaced; not where there is no new code after all.
        catch_all: As of any supervisor.
        cut_codes: The same.

    Attributes:
        has_code: Whether there is new code. Without it, whoever is there goes on until it ends by itself or in a stop.
    """

    def __init__(
        self,
        plans: Iterable[SlotPlan],
        jitter: Callable[[float], float],
        legacy: Legacy,
        *,
        rolling: bool = True,
        catch_all: SlotPlan | None = None,
        cut_codes: tuple[int, int] = (0, 0),
    ) -> None:
        declared = {plan.pin: plan for plan in plans}
        left = {memory.plan.pin: memory for memory in legacy.slots}
        self._gone = [pin for pin, memory in left.items() if pin not in declared and _has_process(memory)]
        kept = [replace(left[pin].plan, handler=_NO_HANDLER, group=None) for pin in self._gone]
        super().__init__([*declared.values(), *kept], jitter, catch_all, cut_codes)
        self._announced = legacy.announced
        self._new = [pin for pin in declared if pin not in left]
        for pin, slot in self._slots.items():
            if pin in left:
                before = slot.state
                remind(slot, left[pin])
                self._settle(slot, before)
                self._never_up_count -= (slot.ever_up or pin in self._gone) and not is_spare(pin)
        for group in self._groups.values():
            group.go_on_waiting()
        stale = [(pin, left[pin].attempt) for pin in declared if pin in left and not is_spare(pin)]
        self._roll = Roll(self._slots, [(pin, n) for pin, n in stale if _is_to_follow(left[pin])] if rolling else ())
        self.has_code, self._told = rolling, not rolling

    @property
    def roll(self) -> Roll:
        """How far the replacement of the old workers is."""
        return self._roll

    def next_deadline(self) -> float | None:
        """Return the instant at which `DeadlineReached` is due, or None where nothing ever is."""
        at = min(super().next_deadline() or NEVER, self._roll.wakes_at())
        return None if at == NEVER else at

    def _start(self) -> list[Effect]:
        # Spares of no handler are dismissed here and not later, so that they are gone for good.
        effects = self._balance_spares()
        for pin in self._new:
            effects += self._let(self._slots[pin], self._slots[pin].restart, self._now, self._now)
        for pin in self._gone:
            effects += self._let(self._slots[pin], self._slots[pin].retire, self._now)
        for pin, slot in self._slots.items():
            if is_spare(pin) and isinstance(slot.state, LiveState) and pin not in self._gone:
                effects += self._let(slot, slot.restart, self._now, self._now)
        for group in self._groups.values():
            before = [(slot, slot.state) for slot in group.slots]
            group.go_on(self._now)
            for slot, state in before:
                self._settle(slot, state)
        if self._never_up_count == 0:
            # Who had not been up is gone with the new code.
            effects += self._announce(up=True)
        if not self._told:
            effects.insert(0, m.RollStarted(self._roll.left_count, len(self._new), len(self._gone)))
        return effects

    def _hear(self, event: m.WorkerEvent) -> list[Effect]:
        effects = super()._hear(event)
        for ended in [effect for effect in effects if isinstance(effect, m.WorkerEnded)]:
            if self._roll.note_end(ended):
                effects.append(m.RollHalted(ended.pin, self._roll.left_count))
                self._told = True
        return effects

    def _operate(self, event: m.RestartRequested | m.ScaleRequested) -> list[Effect]:
        if self.has_code or self.phase is Phase.STOPPING:
            return super()._operate(event)
        because = "since the last reload there is no code to run: mend it and reload again"
        return [m.RequestRefused(event.reason, because)]

    # Without code nobody is asked to leave who is well, for nobody could follow.

    def _recycle(self) -> list[Effect]:
        return super()._recycle() if self.has_code else []

    def _tell_group(self, slot: Slot) -> list[Effect]:
        group = slot.plan.group
        if not self.has_code and group is not None and not self._groups[group].restarts:
            return []
        return super()._tell_group(slot)

    def _give_turns(self) -> list[Effect]:
        effects = super()._give_turns()
        if self._stop_kind is not None or not self._started or self._told:
            return effects
        while (pin := self._roll.next(self._now)) is not None:
            effects += self._restart("reload", (pin,))
        if not self._roll.left_count:
            self._told = True
            effects.append(m.RollEnded(self._roll.done_count))
        return effects


def _has_process(memory: SlotMemory) -> bool:
    return isinstance(memory.state, ProcessState)


def _is_to_follow(memory: SlotMemory) -> bool:
    """Whether a worker with the new code is to follow this one, or the end of the last."""
    return isinstance(memory.state, LiveState | Backoff | Failed)
