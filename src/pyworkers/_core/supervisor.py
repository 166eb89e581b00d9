"""The decision machine: `handle(event, now)` returns effects, `next_deadline()` says when it wants to be called again.

It never sees a pid, a descriptor, a signal's meaning or a clock. Rules that a change must keep:

- `handle` is total: any event in any state returns effects; one of an older attempt is ignored, with a report.
- Only `WorkerExited` retires a process. A kill that failed is no news: the reaper will tell.
- A respawn is always carried out by `DeadlineReached`, also one that is due now: exits and stops that arrive in the
  same wake-up are then seen before it, and a mass start leaves room for signals between its batches.
- Slots are visited in the order of their PINs: the same history gives the same effects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from pyworkers._core import messages as m
from pyworkers._core.ending import ending
from pyworkers._core.groups import Group, grouped
from pyworkers._core.leased import LeasedSlot, Onset, seat
from pyworkers._core.messages import Effect, Event, StopKind
from pyworkers._core.records import replace
from pyworkers._core.rows import OfRow, RowEvent, RowsAnswered
from pyworkers._core.scheduler import scaled
from pyworkers._core.slot import Slot
from pyworkers._core.spares import Spares
from pyworkers._core.states import left_on_request, retires
from pyworkers._core.turns import Queues
from pyworkers._core.types import (
    NEVER,
    PINS_MAX,
    ClosedState,
    Failed,
    LiveState,
    Phase,
    Pin,
    Retired,
    SlotPlan,
    SlotState,
    is_spare,
)
from pyworkers._core.wakes import Wakes

DEADLINES_PER_WAKE = 64
"""Deadlines met in one go before the shell looks at its signals again: 64 forks take about 20 ms."""


class Supervisor:
    """Keeps every PIN of its plans taken, until it ended normally or the instance stops.

    Args:
        plans: One for each PIN, and for each spare, which takes the place of a fork when a PIN of its handler is due.
        jitter: Turns a delay into the one that is used, so that a crash that many PINs share does not make them all
            fork in the same instant. Injected, because the core has no dice.
        catch_all: What a PIN of the handler that can be scaled has in common with the others; None where there is
            no such handler.
        cut_codes: The exit code where a stop came before all PINs had ended normally, and where an interrupt did.
    """

    def __init__(
        self,
        plans: Iterable[SlotPlan],
        jitter: Callable[[float], float],
        catch_all: SlotPlan | None = None,
        cut_codes: tuple[int, int] = (0, 0),
    ) -> None:
        self._jitter = jitter
        self._catch_all = catch_all
        self._cut_codes = cut_codes
        self._slots = {plan.pin: seat(plan, jitter) for plan in sorted(plans, key=lambda plan: plan.pin)}
        self._groups = grouped(self._slots.values())
        self._queues = Queues()
        self._spares = Spares(slot for pin, slot in self._slots.items() if is_spare(pin))
        # How many PINs each handler has that may still need a worker.
        self._open_pins = Counter(slot.plan.handler for pin, slot in self._slots.items() if not is_spare(pin))
        self._now = -NEVER
        self._wakes = Wakes()
        self._open_count = len(self._slots)
        self._live_count = 0
        self._never_up_count = self._open_pins.total()
        self._started = False
        self._announced = False
        self._onset = Onset()
        self._stop_kind: StopKind | None = None
        self._interrupted = False
        self._torn = False
        self._asked_code: int | None = None
        self._over = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and return what to do about it, in order. `now` is monotonic and never decreases."""
        assert now >= self._now, f"time went back from {self._now} to {now}"
        self._now = now
        effects = self._decide(event)
        effects += self._give_turns()
        effects += self._balance_spares()
        if self._open_count == 0 and not self._over:
            self._over = True
            effects += ending(
                self.snapshot(),
                stopped=self._stop_kind is not None,
                torn=self._torn,
                asked_code=self._asked_code,
                cut_code=self._cut_codes[self._interrupted],
            )
        return effects

    def next_deadline(self) -> float | None:
        """Return the instant at which `DeadlineReached` is due, or None where nothing ever is."""
        return self._wakes.next_at(self._slots)

    def snapshot(self) -> Mapping[Pin, SlotState]:
        """Return the state of every slot, in the order of the PINs; of those that were taken away, none."""
        return {pin: slot.state for pin, slot in self._slots.items() if not isinstance(slot.state, Retired)}

    def plan(self, pin: Pin) -> SlotPlan:
        """Return the policy of a PIN of the snapshot."""
        return self._slots[pin].plan

    @property
    def phase(self) -> Phase:
        """Where the instance is between its start and its end."""
        if self._over or self._stop_kind is not None:
            return Phase.STOPPING
        return Phase.RUNNING if self._announced else Phase.STARTING

    def _decide(self, event: Event) -> list[Effect]:
        # First, since most events are: each class that a match looks at is on a page that the last fork made costly.
        if isinstance(event, m.OfWorker):
            return self._hear(event)
        match event:
            case m.StartRequested():
                if self._started:
                    return [m.EventIgnored(event, "already started")]
                self._started = True
                return self._start()
            case m.StopRequested(kind, reason, exit_code):
                if self._asked_code is None:
                    self._asked_code = exit_code
                return self._stop(event, kind, reason)
            case m.InterruptRequested(reason):
                kind = StopKind.KILL if self._interrupted else StopKind.GRACEFUL
                self._interrupted = True
                return self._stop(event, kind, reason)
            case m.RestartRequested() | m.ScaleRequested():
                return self._operate(event)
            case m.ForwardRequested(signum):
                return self._forward(signum)
            case m.DeadlineReached():
                return self._meet_deadlines()
            case OfRow() | RowsAnswered():
                return self._hear_of_row(event)

    def _start(self) -> list[Effect]:
        for slot in self._slots.values():
            before = slot.state
            slot.respawn_at(self._now)
            self._settle(slot, before)
        return []

    def _hear(self, event: m.WorkerEvent) -> list[Effect]:
        slot = self._slots.get(event.pin)
        if slot is None:
            return [m.EventIgnored(event, "no such PIN")]
        before, was_up = slot.state, slot.ever_up
        effects = slot.hear(event, self._now)
        self._settle(slot, before)
        if is_spare(event.pin):
            return effects
        if isinstance(event, m.WorkerExited) and slot.state is not before:
            effects += self._tell_group(slot)
        if slot.ever_up and not was_up:
            self._never_up_count -= 1
            effects += self._announce(up=True)
        elif not slot.ever_up and isinstance(event, m.WorkerExited) and slot.state is not before:
            effects += self._announce(up=left_on_request(before, slot.state))
        return effects

    def _hear_of_row(self, event: RowEvent | RowsAnswered) -> list[Effect]:
        if isinstance(event, RowsAnswered):
            self._onset.answered = True
            return self._announce(up=True)
        slot = self._slots.get(event.pin)
        if not isinstance(slot, LeasedSlot):
            return [m.EventIgnored(event, "not leased")]
        effects = self._let(slot, slot.hear_of_row, event, self._now)
        if slot.plan.group is not None and self._groups[slot.plan.group].restarts:
            slot.respawn_at(NEVER)
        return effects + self._announce(up=True)

    def _tell_group(self, slot: Slot) -> list[Effect]:
        group = self._groups.get(slot.plan.group) if slot.plan.group is not None else None
        if group is None or self._stop_kind is not None:
            return []
        before = [(member, member.state) for member in group.slots]
        effects = group.after_exit(slot, self._now)
        for member, state in before:
            self._settle(member, state)
            if isinstance(member.state, Failed) and not member.ever_up:
                effects += self._announce(up=False)
        return effects

    def _give_turns(self) -> list[Effect]:
        effects = self._recycle()
        while (pin := self._queues.dumping.take()) is not None:
            effects += self._let(self._slots[pin], self._slots[pin].dump, self._now)
        return effects

    def _recycle(self) -> list[Effect]:
        effects: list[Effect] = []
        while (pin := self._queues.recycling.take()) is not None:
            effects += self._let(self._slots[pin], self._slots[pin].recycle, self._now)
        return effects

    def _announce(self, *, up: bool) -> list[Effect]:
        """Say, once, that a worker has ended too early; or, where it is so, that all are up who do not wait."""
        if self._announced or self._over or (up and self._never_up_count and not self._onset.is_over(self._slots)):
            return []
        self._announced = True
        return [m.Announce(up)]

    def _stop(self, event: Event, kind: StopKind, reason: str) -> list[Effect]:
        if self._over or (self._stop_kind is not None and kind <= self._stop_kind):
            return [m.EventIgnored(event, "already stopping")]
        self._stop_kind = kind
        effects: list[Effect] = [m.StopStarted(reason, kind, self._live_count)]
        for slot in self._slots.values():
            effects += self._let(slot, slot.stop, kind, self._now)
        return effects

    def _operate(self, event: m.RestartRequested | m.ScaleRequested) -> list[Effect]:
        if self._over or self._stop_kind is not None or not self._started:
            because = "it is stopping" if self._started else "it has not started"
            return [m.RequestRefused(event.reason, because)]
        match event:
            case m.RestartRequested(reason, pins):
                return self._restart(reason, pins)
            case m.ScaleRequested(reason, count, relative):
                return self._scale(reason, count, relative=relative)

    def _restart(self, reason: str, wanted: tuple[Pin, ...] | None) -> list[Effect]:
        known = [pin for pin, slot in self._slots.items() if not is_spare(pin) and not retires(slot.state)]
        if unknown := set(wanted or ()).difference(known):
            return [m.RequestRefused(reason, f"there is no PIN {min(unknown)}")]
        pins = set(known if wanted is None else wanted)
        # Who lives together starts together.
        groups = [group for group in self._groups.values() if any(slot.plan.pin in pins for slot in group.slots)]
        pins |= {slot.plan.pin for group in groups for slot in group.slots if not retires(slot.state)}
        alone = [self._slots[pin] for pin in sorted(pins) if self._slots[pin].plan.group is None]
        effects: list[Effect] = [m.RestartStarted(reason, tuple(sorted(pins)), self._live_count)]
        for group in groups:
            before = [(slot, slot.state) for slot in group.slots]
            effects += group.restart(self._now)
            for slot, state in before:
                self._settle(slot, state)
        for slot in alone:
            effects += self._let(slot, slot.restart, self._now, self._now)
        return effects

    def _scale(self, reason: str, count: int, *, relative: bool) -> list[Effect]:
        plan = self._catch_all
        if plan is None:
            return [
                m.RequestRefused(
                    reason, "only a worker without pins can have more or fewer, and none of a shard, --lease or --only"
                )
            ]
        pins = {pin: slot for pin, slot in self._slots.items() if not is_spare(pin) and not retires(slot.state)}
        own = [pin for pin, slot in pins.items() if slot.plan.handler == plan.handler]
        count = len(own) + count if relative else count
        if not 1 <= count <= PINS_MAX:
            return [m.RequestRefused(reason, f"the number of its PINs must be 1 to {PINS_MAX:,}, got {count:,}")]
        group = self._groups.get(plan.group) if plan.group is not None else None
        if group is not None and group.failed:
            return [m.RequestRefused(reason, f"its group {plan.group} has failed; restart that first")]
        added, removed = scaled(own, pins.keys() - own, count)
        effects: list[Effect] = [m.Scaled(reason, count, tuple(added), tuple(removed), plan)]
        for pin in removed:
            self._never_up_count -= not self._slots[pin].ever_up
            effects += self._let(self._slots[pin], self._slots[pin].retire, self._now)
        for pin in added:
            effects += self._add(replace(plan, pin=pin), group)
        if added:
            self._slots = dict(sorted(self._slots.items()))
        return effects + self._announce(up=True)

    def _add(self, plan: SlotPlan, group: Group | None) -> list[Effect]:
        slot = self._slots.get(plan.pin)
        if slot is None:
            slot = self._slots[plan.pin] = Slot(plan, self._jitter)
            self._open_count += 1
            self._open_pins[plan.handler] += 1
        self._never_up_count += not slot.ever_up
        at = self._now if group is None else group.join(slot, self._now)
        return self._let(slot, slot.restart, self._now, at)

    def _forward(self, signum: int) -> list[Effect]:
        return [
            m.Forward(pin, slot.state.attempt, signum)
            for pin, slot in self._slots.items()
            if isinstance(slot.state, LiveState) and not is_spare(pin)
        ]

    def _meet_deadlines(self) -> list[Effect]:
        effects: list[Effect] = []
        for _ in range(DEADLINES_PER_WAKE):
            pin = self._wakes.take(self._slots, self._now)
            if pin is None:
                break
            slot = self._slots[pin]
            before = slot.state
            spare = self._spares.one_for(slot)
            effects += slot.meet_deadline(self._now) if spare is None else slot.take(spare.plan.pin, self._now)
            self._settle(slot, before)
            if spare is not None:
                before = spare.state
                spare.give(self._now)
                self._settle(spare, before)
        return effects

    def _balance_spares(self) -> list[Effect]:
        effects: list[Effect] = []
        for slot in self._spares.dismiss(self._open_pins):
            effects += self._let(slot, slot.stop, StopKind.GRACEFUL, self._now)
        for slot in self._spares.recall(self._open_pins):
            effects += self._let(slot, slot.restart, self._now, self._now)
        return effects

    def _let(self, slot: Slot, act: Callable[..., list[Effect]], *arguments: object) -> list[Effect]:
        """Let a slot do something, which is one of its methods, and keep the books."""
        before = slot.state
        effects = act(*arguments)
        self._settle(slot, before)
        return effects

    def _settle(self, slot: Slot, before: SlotState) -> None:
        """Keep the books after a slot may have changed: what is live, open, torn, in line, and when it wakes."""
        state, pin = slot.state, slot.plan.pin
        if state is before:
            return
        opened = isinstance(before, ClosedState) - isinstance(state, ClosedState)
        self._open_count += opened
        if is_spare(pin):
            self._spares.settle(slot)
        else:
            self._open_pins[slot.plan.handler] += opened
            self._live_count += isinstance(state, LiveState) - isinstance(before, LiveState)
            self._torn = self._torn or slot.torn
        self._queues.settle(slot.plan, before, state)
        self._wakes.note(slot, self._slots)
