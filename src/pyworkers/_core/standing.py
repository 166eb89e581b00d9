"""How an instance stands, as a whole: for whoever does not want to hear of each PIN, such as a service manager."""

from __future__ import annotations

from pyworkers._core.records import record
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Failed, Finished, Pin, ProcessState, Running, is_spare


@record
class Standing:
    """How the instance stands, in numbers, for whoever looks at it from outside.

    Attributes:
        wanted: How many PINs it has.
        up: How many of them have a worker that is up and was not asked to leave.
        coming: How many have never been up, and still may be.
        late: Those of the coming whose worker has ended before it was up.
        finished: How many are done.
        failed: How many were given up.
        live: How many processes hold a PIN.
        is_stopping: Whether the instance was asked to stop.
        is_over: Whether nobody is left.
    """

    wanted: int
    up: int
    coming: int
    late: tuple[Pin, ...]
    finished: int
    failed: int
    live: int
    is_stopping: bool
    is_over: bool

    @property
    def is_started(self) -> bool:
        """Whether the start is over: every PIN has been up, or never will be.

        One that was given up does not hold it back, for the others go on without it; all of them do.
        """
        return self.coming == 0 and not self.is_stopping and self.failed < self.wanted


def standing_of(core: Supervisor) -> Standing:
    """Return how the instance stands; it costs a look at every slot."""
    slots = [slot for pin, slot in core._slots.items() if not is_spare(pin)]
    coming = [slot for slot in slots if core._onset.is_coming(slot)]
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
