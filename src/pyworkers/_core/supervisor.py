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
from collections.abc import Callable, Iterable, Mapping

from pyworkers._core import messages as m
from pyworkers._core.messages import Effect, Event, StopKind
from pyworkers._core.slot import NEVER, Slot, WorkerEvent
from pyworkers._core.types import Abandoned, Finished, LiveState, Pin, SlotPlan, SlotState

DEADLINES_PER_WAKE = 64
"""Deadlines met in one go before the shell looks at its signals again: 64 forks take about 20 ms."""


class Supervisor:
    """Keeps every PIN of its plans taken, until it ended normally or the instance stops.

    Args:
        plans: One for each PIN.
        jitter: Turns a delay into the one that is used, so that a crash that many PINs share does not make them all
            fork in the same instant. Injected, because the core has no dice.
    """

    def __init__(self, plans: Iterable[SlotPlan], jitter: Callable[[float], float]) -> None:
        self._slots = {plan.pin: Slot(plan, jitter) for plan in sorted(plans, key=lambda plan: plan.pin)}
        self._now = -NEVER
        self._wakes: list[tuple[float, Pin]] = []
        self._open_count = len(self._slots)
        self._live_count = 0
        self._never_up_count = len(self._slots)
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
        if self._open_count == 0 and not self._over:
            self._over = True
            stopped = self._stop_kind is not None
            code = self._asked_code if self._asked_code is not None else int(self._torn)
            effects += [m.AllEnded(stopped, code), m.Finish(code, stopped)]
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

    def _decide(self, event: Event) -> list[Effect]:
        match event:
            case m.StartRequested():
                for pin, slot in self._slots.items():
                    before = slot.state
                    slot.start(self._now)
                    self._settle(pin, slot, before)
                return []
            case m.Spawned() | m.SpawnFailed() | m.WorkerUp() | m.WorkerExited():
                return self._hear(event)
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
        effects = slot.hear(event, self._now, stopping=self._stop_kind is not None)
        self._settle(event.pin, slot, before)
        if slot.ever_up and not was_up:
            self._never_up_count -= 1
            if self._never_up_count == 0:
                effects += self._announce(up=True)
        elif not slot.ever_up and isinstance(event, m.WorkerExited) and slot.state is not before:
            effects += self._announce(up=False)
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
        for pin, slot in self._slots.items():
            before = slot.state
            effects += slot.stop(kind, self._now)
            self._settle(pin, slot, before)
        return effects

    def _forward(self, signum: int) -> list[Effect]:
        return [
            m.Forward(pin, slot.state.attempt, signum)
            for pin, slot in self._slots.items()
            if isinstance(slot.state, LiveState)
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
            effects += slot.meet_deadline(self._now)
            self._settle(pin, slot, before)
        return effects

    def _settle(self, pin: Pin, slot: Slot, before: SlotState) -> None:
        """Keep the books after a slot may have changed: what is live, open, torn, and when it wakes."""
        if slot.state is before:
            return
        self._live_count += isinstance(slot.state, LiveState) - isinstance(before, LiveState)
        self._open_count += isinstance(before, Finished | Abandoned) - isinstance(slot.state, Finished | Abandoned)
        self._torn = self._torn or slot.torn
        at = slot.wakes_at()
        if at < NEVER:
            heapq.heappush(self._wakes, (at, pin))
