"""The queue of failures to tell: one at a time, limited in time and number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkers._core.notices import NOTICE_TIMEOUT_S, NOTICES_MAX, Notices


def test_take_hands_out_one_at_a_time_in_order() -> None:
    """The next failure is told only after the one before has been."""
    notices = Notices()
    notices.add("first")
    notices.add("second")

    assert notices.take(0.0) == "first"
    assert notices.take(1.0) is None
    notices.done()
    assert notices.take(2.0) == "second"
    notices.done()
    assert notices.take(3.0) is None
    assert notices.idle


def test_idle_counts_who_waits_and_who_is_told() -> None:
    """The queue is idle only when nobody waits and nobody is being told."""
    notices = Notices()
    assert notices.idle
    notices.add("one")
    assert not notices.idle
    notices.take(0.0)
    assert not notices.idle
    notices.done()
    assert notices.idle


@pytest.mark.parametrize(("at", "expired"), [(109.999, False), (110.0, True), (200.0, True)])
def test_expire_is_due_at_the_time_limit(at: float, *, expired: bool) -> None:
    """Whoever is told is to be killed at the limit, not before it."""
    notices = Notices()
    notices.add("one")
    notices.take(100.0)

    assert notices.next_deadline() == 110.0
    assert notices.expire(at) is expired


def test_expire_is_true_once() -> None:
    """After it was told to be killed, there is nothing more to wake up for but its end."""
    notices = Notices()
    notices.add("one")
    notices.take(0.0)

    assert notices.expire(NOTICE_TIMEOUT_S)
    assert not notices.expire(NOTICE_TIMEOUT_S + 1.0)
    assert notices.next_deadline() is None
    assert not notices.idle


def test_add_beyond_the_bound_counts_instead_of_keeping() -> None:
    """A storm of failures is counted, not kept."""
    notices = Notices()
    for number in range(NOTICES_MAX + 5):
        notices.add(number)

    assert notices.dropped_count == 5
    assert notices.take(0.0) == 0
    notices.add(-1)
    assert notices.dropped_count == 5


def test_close_shortens_the_limit_of_the_one_being_told() -> None:
    """When the instance ends, whoever is told has only the grace."""
    notices = Notices()
    notices.add("one")
    notices.take(100.0)
    notices.close(101.0, grace_s=1.0)

    assert notices.next_deadline() == 102.0
    assert not notices.expire(101.9)
    assert notices.expire(102.0)


def test_close_does_not_lengthen_the_limit_of_the_one_being_told() -> None:
    """A grace that is longer than what is left changes nothing."""
    notices = Notices()
    notices.add("one")
    notices.take(100.0)
    notices.close(105.0, grace_s=20.0)

    assert notices.next_deadline() == 110.0


def test_nobody_is_told_and_nothing_is_due() -> None:
    """Without anybody being told there is no deadline, closed or not, and nothing expires."""
    notices = Notices()
    assert notices.next_deadline() is None
    assert not notices.expire(1e9)
    notices.close(100.0, grace_s=1.0)
    notices.add("one")

    assert notices.next_deadline() is None
    assert not notices.expire(1e9)


def test_done_ends_the_time_limit() -> None:
    """Who has been told in time has no deadline any more."""
    notices = Notices()
    notices.add("one")
    notices.take(100.0)
    notices.done()

    assert notices.next_deadline() is None
    assert not notices.expire(1e9)


def test_limits_are_those_of_the_contract() -> None:
    """Ten seconds for one failure, and a thousand failures in line."""
    assert (NOTICE_TIMEOUT_S, NOTICES_MAX) == (10.0, 1000)


@pytest.mark.parametrize(("at", "told"), [(100.999, "two"), (101.0, None), (101.001, None)])
def test_close_lets_who_waits_be_told_until_the_grace_is_over(at: float, told: str | None) -> None:
    """Before the end of the grace the next one is told; at its end all who wait are dropped."""
    notices = Notices()
    for text in ("one", "two", "three"):
        notices.add(text)
    notices.take(99.0)
    notices.done()
    notices.close(100.0, grace_s=1.0)

    assert notices.take(at) == told
    assert notices.dropped_count == (0 if told else 2)
    assert notices.idle is (told is None)
    if told:
        assert notices.next_deadline() == 101.0


def test_close_drops_nobody_where_nobody_waits() -> None:
    """After the grace there is nothing to count where nothing was in line, and what comes late is counted."""
    notices = Notices()
    notices.add("dropped")
    notices.close(100.0, grace_s=1.0)
    assert notices.take(200.0) is None
    assert notices.take(201.0) is None
    assert notices.dropped_count == 1
    notices.add("late")
    assert notices.take(202.0) is None

    assert notices.dropped_count == 2


def test_close_drops_who_waits_when_the_grace_is_over() -> None:
    """What is still queued after the grace is counted as dropped, and the queue becomes idle."""
    notices = Notices()
    for text in ("one", "two", "three"):
        notices.add(text)
    notices.close(100.0, grace_s=1.0)

    assert notices.take(100.5) == "one"
    notices.done()
    assert notices.take(101.0) is None
    assert notices.dropped_count == 2
    assert notices.idle


@given(
    st.lists(st.sampled_from(["add", "take", "done", "expire", "close"]), max_size=60),
    st.lists(st.floats(0.0, 5.0), min_size=60, max_size=60),
)
def test_each_failure_is_told_once_or_counted(calls: list[str], steps: list[float]) -> None:
    """Whatever happens, failures are told in order and at most once, and none is lost without being counted."""
    notices = Notices()
    added, told, busy, now = 0, [], False, 0.0
    for call, step_s in zip(calls, steps, strict=False):
        now += step_s
        match call:
            case "add":
                notices.add(added)
                added += 1
            case "take":
                record = notices.take(now)
                assert record is None or not busy
                if record is not None:
                    told.append(record)
                    busy = True
            case "done" if busy:
                notices.done()
                busy = False
            case "expire":
                due = notices.next_deadline()
                assert notices.expire(now) == (due is not None and due <= now)
            case "close":
                notices.close(now, grace_s=1.0)
        assert told == sorted(set(told))
        assert notices.idle == (not busy and len(told) + notices.dropped_count == added)
        assert busy or notices.next_deadline() is None
