"""The watch over a running worker: pure functions, each at, just before and just after its boundaries."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkers._core import watch
from pyworkers._core.types import NEVER, Pin, SlotPlan, Watch

NOW = 1000.0
BEFORE = math.nextafter(NOW, 0.0)
AFTER = math.nextafter(NOW, 2000.0)

instants = st.floats(0.0, 1e6)


def _plan(
    *, hang_timeout: float | None = None, max_runtime: float | None = None, max_rss: int | None = None
) -> SlotPlan:
    return SlotPlan(Pin(0), hang_timeout=hang_timeout, max_runtime=max_runtime, max_rss=max_rss)


def _same(delay_s: float) -> float:
    return delay_s


# Wake-up


@pytest.mark.parametrize(
    ("watched", "at"),
    [
        (Watch(), NEVER),
        (Watch(look_at=3.0, measure_at=4.0, recycle_at=5.0), 3.0),
        (Watch(look_at=6.0, measure_at=4.0, recycle_at=5.0), 4.0),
        (Watch(look_at=6.0, measure_at=7.0, recycle_at=5.0), 5.0),
        (Watch(look_at=6.0, probed_at=1.0), 6.0),
        (Watch(measure_at=4.0), 4.0),
        (Watch(recycle_at=5.0), 5.0),
    ],
)
def test_wake_up_is_the_earliest_instant(watched: Watch, at: float) -> None:
    """The earliest of the three deadlines counts; when the worker was probed is none."""
    assert watched.wakes_at() == at


# The beginning


def test_nothing_is_watched_where_nothing_is_asked_for() -> None:
    """Without limits there are no deadlines, and the dice are not thrown."""

    def refuse(delay_s: float) -> float:
        raise AssertionError(delay_s)

    assert watch.begin(_plan(), NOW, refuse) == Watch(NEVER, None, NEVER, NEVER)
    assert watch.begin(_plan(hang_timeout=3.0), NOW, refuse) == Watch(NOW + 1.5, None, NEVER, NEVER)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (_plan(hang_timeout=10.0), Watch(look_at=NOW + 5.0)),
        (_plan(max_rss=1), Watch(measure_at=NOW + 30.0)),
        (_plan(max_runtime=100.0), Watch(recycle_at=NOW + 100.0)),
        (
            _plan(hang_timeout=0.5, max_runtime=1.0, max_rss=1),
            Watch(look_at=NOW + 0.25, measure_at=NOW + 30.0, recycle_at=NOW + 1.0),
        ),
    ],
)
def test_watch_begins_with_what_the_plan_asks_for(plan: SlotPlan, expected: Watch) -> None:
    """Each option of the plan gives one deadline, and no other."""
    assert watch.begin(plan, NOW, _same) == expected


def test_beginning_is_jittered_so_that_a_mass_start_is_spread() -> None:
    """The first measurement and the age are jittered, the looks are not."""
    plan = _plan(hang_timeout=10.0, max_runtime=100.0, max_rss=1)

    assert watch.begin(plan, NOW, lambda delay_s: delay_s / 4) == Watch(
        look_at=NOW + 5.0, measure_at=NOW + 7.5, recycle_at=NOW + 85.0
    )


# Looking again


@pytest.mark.parametrize(
    ("now", "probed_at"), [(NOW, 7.0), (NOW + 1.0, 7.0), (math.nextafter(NOW + 1.0, 2000.0), None), (NOW + 99.0, None)]
)
def test_look_that_is_more_than_a_second_late_forgets_the_probe(now: float, probed_at: float | None) -> None:
    """Up to a second late is on time; beyond it the time that has passed proves nothing."""
    watched = Watch(look_at=NOW, probed_at=7.0, measure_at=8.0, recycle_at=9.0)

    assert watch.look_again(watched, 10.0, now) == Watch(now + 5.0, probed_at, 8.0, 9.0)


@pytest.mark.parametrize(("hang_timeout", "limit_s"), [(0.5, 0.25), (1.5, 0.75), (2.0, 1.0), (3.0, 1.0)])
def test_look_of_a_short_timeout_is_late_after_half_of_it(hang_timeout: float, limit_s: float) -> None:
    """A look that is late by a whole period between two looks is late, however short the period is."""
    watched = Watch(look_at=NOW, probed_at=7.0)

    assert watch.look_again(watched, hang_timeout, NOW + limit_s).probed_at == 7.0
    assert watch.look_again(watched, hang_timeout, math.nextafter(NOW + limit_s, 2000.0)).probed_at is None


def test_look_again_without_a_probe_stays_without() -> None:
    """There is nothing to forget, late or not."""
    for now in (NOW, NOW + 5.0):
        assert watch.look_again(Watch(look_at=NOW), 10.0, now) == Watch(look_at=now + 5.0)


# Judgement


@pytest.mark.parametrize("probed_at", [None, NOW - 20.0, NOW])
def test_worker_that_never_beat_is_not_judged(probed_at: float | None) -> None:
    """Before the first beat nothing is judged, and no answer is due."""
    watched = Watch(look_at=1.0, probed_at=probed_at, measure_at=8.0, recycle_at=9.0)

    assert watch.judged(watched, 10.0, None, NOW) == Watch(NOW + 5.0, None, 8.0, 9.0)


@pytest.mark.parametrize("probed_at", [None, NOW - 20.0, NOW])
def test_worker_that_waits_is_not_asked(probed_at: float | None) -> None:
    """Its beat lasts: no probe is due, and none that was sent is overdue; nothing is made anew where nothing changes."""
    watched = Watch(look_at=NOW + 5.0, probed_at=probed_at, measure_at=8.0, recycle_at=9.0)
    judged = watch.judged(watched, 10.0, NEVER, NOW)

    assert judged == Watch(NOW + 5.0, None, 8.0, 9.0)
    assert (judged is watched) == (probed_at is None)


@pytest.mark.parametrize(
    ("probed_at", "beat_at"),
    [(None, 1.0), (None, NOW), (NOW - 9.0, NOW - 9.0), (NOW - 9.0, NOW), (NOW - 30.0, NOW - 1.0)],
)
def test_worker_that_has_answered_is_probed_again(probed_at: float | None, beat_at: float) -> None:
    """With no answer due, or with a beat no older than the probe, the next probe is due now."""
    watched = Watch(look_at=1.0, probed_at=probed_at, measure_at=8.0, recycle_at=9.0)

    assert watch.judged(watched, 10.0, beat_at, NOW) == Watch(NOW + 5.0, NOW, 8.0, 9.0)


def test_beat_from_just_before_the_probe_is_no_answer() -> None:
    """A beat is an answer from the instant of the probe on."""
    assert watch.judged(Watch(probed_at=NOW), 10.0, BEFORE, NOW + 10.0) is None
    assert watch.judged(Watch(probed_at=NOW), 10.0, NOW, NOW + 10.0) is not None
    assert watch.judged(Watch(probed_at=NOW), 10.0, AFTER, NOW + 10.0) is not None


@pytest.mark.parametrize(
    ("now", "look_at"),
    [
        (NOW + 1.0, NOW + 6.0),
        (NOW + 5.0, NOW + 10.0),
        (NOW + 7.0, NOW + 10.0),
        (math.nextafter(NOW + 10.0, 0.0), NOW + 10.0),
    ],
)
def test_worker_that_still_has_time_is_looked_at_when_it_is_over(now: float, look_at: float) -> None:
    """The next look is half of the time later, but no later than when the answer is overdue; no second probe is sent."""
    watched = Watch(look_at=1.0, probed_at=NOW, measure_at=8.0, recycle_at=9.0)

    assert watch.judged(watched, 10.0, 1.0, now) == Watch(look_at, NOW, 8.0, 9.0)


@pytest.mark.parametrize("now", [NOW + 10.0, math.nextafter(NOW + 10.0, 2000.0), NOW + 11.0])
def test_worker_is_hung_when_the_answer_is_overdue(now: float) -> None:
    """At `hang_timeout` after the probe, and not before it, the worker is hung."""
    assert watch.judged(Watch(probed_at=NOW), 10.0, 1.0, now) is None


@given(instants, st.floats(0.02, 1e4), st.floats(0.0, 20.0), st.lists(st.floats(0.0, 0.99), min_size=1, max_size=5))
def test_worker_is_never_hung_early_and_at_most_half_the_time_late(
    start: float, hang_timeout: float, periods: float, shares: list[float]
) -> None:
    """After its last checkpoint a worker is hung in `hang_timeout` at the earliest, and in half of it more at the latest."""
    silent_from = start + periods * hang_timeout
    lateness = [share * min(1.0, hang_timeout / 2) for share in shares]
    watched, beat_at, now = watch.begin(_plan(hang_timeout=hang_timeout), start, _same), start, start
    for late_s in itertools.islice(itertools.cycle(lateness), 100):
        now = watched.look_at + late_s
        watched = watch.look_again(watched, hang_timeout, now)
        judged = watch.judged(watched, hang_timeout, beat_at, now)
        if judged is None:
            break
        if judged.probed_at == now <= silent_from:
            beat_at = now
        watched = judged
    else:
        pytest.fail("never hung")

    assert -1e-6 <= now - silent_from - hang_timeout <= hang_timeout / 2 + 3 * max(lateness) + 1e-6


# Suspension


def test_suspended_worker_has_no_looks_and_owes_no_answer() -> None:
    """What cannot run cannot beat; its memory and its age are still looked after."""
    assert watch.suspend(Watch(5.0, 4.0, 8.0, 9.0)) == Watch(NEVER, None, 8.0, 9.0)


@pytest.mark.parametrize(("hang_timeout", "look_at"), [(None, NEVER), (10.0, NOW)])
def test_resumed_worker_is_looked_at_at_once(hang_timeout: float | None, look_at: float) -> None:
    """The first look after a suspension is due now, where there are looks at all, and no answer is owed."""
    watched = Watch(5.0, 4.0, 8.0, 9.0)

    assert watch.resume(watched, _plan(hang_timeout=hang_timeout), NOW) == Watch(look_at, None, 8.0, 9.0)
