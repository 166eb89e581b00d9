"""How an instance stands, as a whole: for whoever does not want to hear of each PIN, such as a service manager."""

from __future__ import annotations

from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import ClosedState, Failed, Finished, ProcessState, Running, Standing, is_spare


def standing_of(core: Supervisor) -> Standing:
    """Return how the instance stands; it costs a look at every slot."""
    slots = [slot for pin, slot in core._slots.items() if not is_spare(pin)]
    coming = [slot for slot in slots if not (slot.ever_up or isinstance(slot.state, ClosedState))]
    return Standing(
        wanted=len(slots),
        up=sum(isinstance(slot.state, Running) for slot in slots),
        coming=len(coming),
        # Who has had an attempt, and it is not the one that is there.
        late=tuple(slot.plan.pin for slot in coming if slot._attempt > isinstance(slot.state, ProcessState)),
        finished=sum(isinstance(slot.state, Finished) for slot in slots),
        failed=sum(isinstance(slot.state, Failed) for slot in slots),
        live=core._live_count,
        is_stopping=core._stop_kind is not None,
        is_over=core._over,
    )
