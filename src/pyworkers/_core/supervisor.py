"""The decision machine: `handle(event, now)` returns effects, `next_deadline()` says when it wants to be called again.

It never sees a pid, a descriptor, a signal's meaning or a clock. Rules that a change must keep:

- `handle` is total: any event in any state returns effects; one of an older attempt is ignored, with a report.
- Only `WorkerExited` retires a process. A kill that failed is no news: the reaper will tell.
- A respawn is always carried out by `DeadlineReached`, also one that is due now: exits and stops that arrive in the
  same wake-up are then seen before it, and a mass start leaves room for signals between its batches.
- Slots are visited in the order of their PINs: the same history gives the same effects.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from pyworkers._core import messages as m
from pyworkers._core.groups import Group
from pyworkers._core.messages import Effect, Event, StopKind
from pyworkers._core.slot import Slot, WorkerEvent
from pyworkers._core.turns import Turns
from pyworkers._core.types import (
    NEVER,
    Backoff,
    ClosedState,
    Failed,
    Finished,
    Hung,
    LiveState,
    Phase,
    Pin,
    ProcessState,
    Running,
    SlotPlan,
    SlotState,
    Standing,
    is_spare,
)

DEADLINES_PER_WAKE = 64
"""Deadlines met in one go before the shell looks at its signals again: 64 forks take about 20 ms."""


class Supervisor:
    """Keeps every PIN of its plans taken, until it ended normally or the instance stops.

    Args:
        plans: One for each PIN, and for each spare, which takes the place of a fork when a PIN of its handler is due.
        jitter: Turns a delay into the one that is used, so that a crash that many PINs share does not make them all
            fork in the same instant. Injected, because the core has no dice.
    """

    def __init__(self, plans: Iterable[SlotPlan], jitter: Callable[[float], float]) -> None:
        self._slots = {plan.pin: Slot(plan, jitter) for plan in sorted(plans, key=lambda plan: plan.pin)}
        self._groups = self._grouped()
        self._recycling = Turns()
        # There is one log to dump into.
        self._dumping = Turns()
        self._spares = self._spares_by_handler()
        # The spares of each handler that are up, as ordered sets, and how many PINs it has that may still need them.
        self._parked: dict[int, dict[Pin, None]] = {handler: {} for handler in self._spares}
        self._open_pins = Counter(slot.plan.handler for pin, slot in self._slots.items() if not is_spare(pin))
        self._now = -NEVER
        self._wakes: list[tuple[float, Pin]] = []
        self._open_count = len(self._slots)
        self._live_count = 0
        self._never_up_count = self._open_pins.total()
        self._started = False
        self._announced = False
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
        effects += self._dismiss_spares()
        if self._open_count == 0 and not self._over:
            self._over = True
            stopped = self._stop_kind is not None
            failed = tuple(pin for pin, slot in self._slots.items() if isinstance(slot.state, Failed))
            code = self._asked_code if self._asked_code is not None else int(self._torn or bool(failed))
            effects += [m.AllEnded(stopped, code, failed), m.Finish(code, stopped)]
        return effects

    def next_deadline(self) -> float | None:
        """Return the instant at which `DeadlineReached` is due, or None where nothing ever is."""
        while self._wakes:
            at, pin = self._wakes[0]
            if self._slots[pin].wakes_at() == at:
                return at
            heapq.heappop(self._wakes)
        return None

    def snapshot(self) -> Mapping[Pin, SlotState]:
        """Return the state of every slot, in the order of the PINs."""
        return {pin: slot.state for pin, slot in self._slots.items()}

    @property
    def phase(self) -> Phase:
        """Where the instance is between its start and its end."""
        if self._over or self._stop_kind is not None:
            return Phase.STOPPING
        return Phase.RUNNING if self._announced else Phase.STARTING

    def standing(self) -> Standing:
        """Return how the instance stands; it costs a look at every slot."""
        slots = [slot for pin, slot in self._slots.items() if not is_spare(pin)]
        coming = [slot for slot in slots if not (slot.ever_up or isinstance(slot.state, ClosedState))]
        return Standing(
            wanted=len(slots),
            up=sum(isinstance(slot.state, Running) for slot in slots),
            coming=len(coming),
            # Who has had an attempt, and it is not the one that is there.
            late=tuple(slot.plan.pin for slot in coming if slot._attempt > isinstance(slot.state, ProcessState)),
            finished=sum(isinstance(slot.state, Finished) for slot in slots),
            failed=sum(isinstance(slot.state, Failed) for slot in slots),
            live=self._live_count,
            is_stopping=self._stop_kind is not None,
            is_over=self._over,
        )

    def _decide(self, event: Event) -> list[Effect]:
        # First, since most events are: each class that a match looks at is on a page that the last fork made costly.
        if isinstance(event, m.OfWorker):
            return self._hear(event)
        match event:
            case m.StartRequested():
                if self._started:
                    return [m.EventIgnored(event, "already started")]
                self._started = True
                for slot in self._slots.values():
                    before = slot.state
                    slot.respawn_at(self._now)
                    self._settle(slot, before)
                return []
            case m.StopRequested(kind, reason, exit_code):
                if self._asked_code is None:
                    self._asked_code = exit_code
                return self._stop(event, kind, reason)
            case m.InterruptRequested(reason):
                kind = StopKind.KILL if self._interrupted else StopKind.GRACEFUL
                self._interrupted = True
                return self._stop(event, kind, reason)
            case m.ForwardRequested(signum):
                return self._forward(signum)
            case m.DeadlineReached():
                return self._meet_deadlines()

    def _hear(self, event: WorkerEvent) -> list[Effect]:
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
            if self._never_up_count == 0:
                effects += self._announce(up=True)
        elif not slot.ever_up and isinstance(event, m.WorkerExited) and slot.state is not before:
            effects += self._announce(up=False)
        return effects

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
        effects: list[Effect] = []
        for turns, act in ((self._recycling, Slot.recycle), (self._dumping, Slot.dump)):
            while (pin := turns.take()) is not None:
                slot = self._slots[pin]
                before = slot.state
                effects += act(slot, self._now)
                self._settle(slot, before)
        return effects

    def _announce(self, *, up: bool) -> list[Effect]:
        if self._announced or self._over:
            return []
        self._announced = True
        return [m.Announce(up)]

    def _stop(self, event: Event, kind: StopKind, reason: str) -> list[Effect]:
        if self._over or (self._stop_kind is not None and kind <= self._stop_kind):
            return [m.EventIgnored(event, "already stopping")]
        self._stop_kind = kind
        effects: list[Effect] = [m.StopStarted(reason, kind, self._live_count)]
        for slot in self._slots.values():
            before = slot.state
            effects += slot.stop(kind, self._now)
            self._settle(slot, before)
        return effects

    def _forward(self, signum: int) -> list[Effect]:
        return [
            m.Forward(pin, slot.state.attempt, signum)
            for pin, slot in self._slots.items()
            if isinstance(slot.state, LiveState) and not is_spare(pin)
        ]

    def _meet_deadlines(self) -> list[Effect]:
        effects: list[Effect] = []
        for _ in range(DEADLINES_PER_WAKE):
            at = self.next_deadline()
            if at is None or at > self._now:
                break
            _, pin = heapq.heappop(self._wakes)
            slot = self._slots[pin]
            before = slot.state
            spare = self._spare_for(slot)
            effects += slot.meet_deadline(self._now) if spare is None else slot.take(spare.plan.pin, self._now)
            self._settle(slot, before)
            if spare is not None:
                before = spare.state
                spare.give(self._now)
                self._settle(spare, before)
        return effects

    def _spare_for(self, slot: Slot) -> Slot | None:
        """Return a process that waits for just this: a PIN of its handler is due."""
        parked = self._parked.get(slot.plan.handler)
        if not parked or is_spare(slot.plan.pin) or not isinstance(slot.state, Backoff):
            return None
        return self._slots[next(iter(parked))]

    def _dismiss_spares(self) -> list[Effect]:
        """Stop the spares of the handlers that need none any more: they must not keep the instance alive."""
        effects: list[Effect] = []
        for handler in [handler for handler in self._spares if not self._open_pins[handler]]:
            for slot in self._spares.pop(handler):
                before = slot.state
                effects += slot.stop(StopKind.GRACEFUL, self._now)
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
            self._settle_spare(slot)
        else:
            self._open_pins[slot.plan.handler] += opened
            self._live_count += isinstance(state, LiveState) - isinstance(before, LiveState)
            self._torn = self._torn or slot.torn
        if isinstance(state, Running) and state.worn is not None and not state.suspended:
            self._recycling.join(slot.plan.handler, pin)
        elif isinstance(state, Running | ClosedState):
            # Held until its successor is up: never more than one PIN of a handler is missing for its age.
            self._recycling.leave(slot.plan.handler, pin)
        if isinstance(state, Hung):
            self._dumping.join(None, pin)
        elif isinstance(before, Hung):
            self._dumping.leave(None, pin)
        at = slot.wakes_at()
        if at < NEVER:
            heapq.heappush(self._wakes, (at, pin))
        if len(self._wakes) > 4 * len(self._slots) + 64:
            # Instants that were put off stay in the heap until they come; many in a row must not make it grow.
            self._wakes = [(slot.wakes_at(), pin) for pin, slot in self._slots.items() if slot.wakes_at() < NEVER]
            heapq.heapify(self._wakes)

    def _settle_spare(self, spare: Slot) -> None:
        parked, pin = self._parked[spare.plan.handler], spare.plan.pin
        if isinstance(spare.state, Running) and not spare.state.suspended:
            parked[pin] = None
        else:
            parked.pop(pin, None)

    def _spares_by_handler(self) -> dict[int, list[Slot]]:
        spares: dict[int, list[Slot]] = {}
        for pin, slot in self._slots.items():
            if is_spare(pin):
                spares.setdefault(slot.plan.handler, []).append(slot)
        return spares

    def _grouped(self) -> dict[str, Group]:
        slots: dict[str, list[Slot]] = {}
        for slot in self._slots.values():
            if slot.plan.group is not None:
                slots.setdefault(slot.plan.group, []).append(slot)
        return {name: Group(name, members) for name, members in slots.items()}
