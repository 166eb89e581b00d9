"""How a running worker is looked after: hang detection, its memory, its age. Pure functions over a `Watch`.

Hang detection asks before it judges. A worker that passes checkpoints leaves no trace of it, since a checkpoint must
cost nothing; a probe makes the next one leave a beat. Probes are sent at half of `hang_timeout`, and a worker is hung
when one of them has had no answer for all of `hang_timeout`: never earlier than that after its last checkpoint, and at
most half of it later. Who waits in one of our own calls says so, and is left alone: it would have to be woken for an
answer, and what it waits for is no hang.
"""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core import policy
from pyworkers._core.records import replace
from pyworkers._core.types import NEVER, SlotPlan, Watch


def begin(plan: SlotPlan, now: float, jitter: Callable[[float], float]) -> Watch:
    """Return the watch over a worker that has just come up."""
    return Watch(
        look_at=NEVER if plan.hang_timeout is None else now + plan.hang_timeout / 2,
        # The first one at random, so that the workers of a mass start are not all measured at once.
        measure_at=NEVER if plan.max_rss is None else now + jitter(policy.MEASURE_INTERVAL_S),
        recycle_at=NEVER if plan.max_runtime is None else now + policy.runtime_limit(plan.max_runtime, jitter),
    )


def look_again(watch: Watch, hang_timeout: float, now: float) -> Watch:
    """Return the watch after its deadline to look has come.

    If the deadline is met late, the master was suspended, and perhaps the whole machine: the worker gets another
    period, since the time that has passed proves nothing. A whole period late is always late: after a pause as long as
    a short `hang_timeout`, nobody could have answered.
    """
    late = now - watch.look_at > min(policy.LATE_S, hang_timeout / 2)
    return replace(watch, look_at=now + hang_timeout / 2, probed_at=None if late else watch.probed_at)


def judged(watch: Watch, hang_timeout: float, beat_at: float | None, now: float) -> Watch | None:
    """Return the watch after a look, or None for a worker that is hung. A new `probed_at` means that a probe is due.

    Detection starts with the worker's first checkpoint, so before the first beat nothing is judged. A beat of `NEVER`
    is one that lasts: the worker waits.
    """
    next_at = now + hang_timeout / 2
    if beat_at is None or beat_at == NEVER:
        # As it is after `look_again` in most cases: a thousand that wait are to cost little.
        settled = watch.look_at == next_at and watch.probed_at is None
        return watch if settled else replace(watch, look_at=next_at, probed_at=None)
    if watch.probed_at is None or beat_at >= watch.probed_at:
        return replace(watch, look_at=next_at, probed_at=now)
    overdue_at = watch.probed_at + hang_timeout
    return None if now >= overdue_at else replace(watch, look_at=min(next_at, overdue_at))


def suspend(watch: Watch) -> Watch:
    """Return the watch over a worker that cannot run, and so cannot be hung."""
    return replace(watch, look_at=NEVER, probed_at=None)


def resume(watch: Watch, plan: SlotPlan, now: float) -> Watch:
    """Return the watch over a worker that runs again."""
    return replace(watch, look_at=NEVER if plan.hang_timeout is None else now, probed_at=None)
