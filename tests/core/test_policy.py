"""The arithmetic of respawn delays, of the restart intensity, of limits and of the stop ladder."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkers._core import policy
from pyworkers._core.types import Action, Rung

instants = st.floats(0.0, 1e6)
timeouts = st.floats(0.0, 1e5)
backoffs = st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e6)).map(lambda pair: (min(pair), max(pair)))


@pytest.mark.parametrize(
    ("short_lives", "delay_s"),
    [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (4, 0.4), (5, 0.8), (10, 25.6), (11, 30.0), (12, 30.0), (10_000, 30.0)],
)
def test_respawn_delay_doubles_from_the_second_short_life_up_to_the_longest(short_lives: int, delay_s: float) -> None:
    """The first respawn is immediate, then 0.1 s doubles up to 30 s and stays there."""
    assert policy.respawn_delay(short_lives, (0.1, 30.0)) == pytest.approx(delay_s)


@pytest.mark.parametrize(("short_lives", "delay_s"), [(65, 2.0**63), (66, 2.0**64), (67, 2.0**64), (2000, 2.0**64)])
def test_respawn_delay_stops_doubling_before_it_overflows(short_lives: int, delay_s: float) -> None:
    """A delay is doubled 64 times at most: no power of two that is needed is out of reach, and none overflows."""
    assert policy.respawn_delay(short_lives, (1.0, 1e30)) == delay_s


def test_respawn_delay_is_not_above_the_longest_where_the_first_is() -> None:
    """A first delay above the longest one is cut to it."""
    assert policy.respawn_delay(2, (5.0, 3.0)) == 3.0


@given(st.integers(0, 10**9), backoffs)
def test_respawn_delay_never_exceeds_the_longest_and_never_shrinks(
    short_lives: int, backoff: tuple[float, float]
) -> None:
    """One more short life never makes the delay shorter, and no number of them overflows it."""
    delay_s = policy.respawn_delay(short_lives, backoff)

    assert 0.0 <= delay_s <= backoff[1]
    assert policy.respawn_delay(short_lives + 1, backoff) >= delay_s


JUST_AFTER_40 = math.nextafter(40.0, 100.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (100.0, (JUST_AFTER_40, 50.0, 99.0, 100.0)),
        (math.nextafter(110.0, 0.0), (50.0, 99.0, 100.0)),
        (110.0, (99.0, 100.0)),
        (160.0, ()),
    ],
)
def test_recent_are_the_restarts_of_less_than_a_period_ago(now: float, expected: tuple[float, ...]) -> None:
    """A restart counts until it is as old as the period; the order is kept."""
    assert policy.recent((30.0, 40.0, JUST_AFTER_40, 50.0, 99.0, 100.0), now, 60.0) == expected


def test_recent_of_nothing_is_nothing() -> None:
    """Where nothing was restarted, nothing counts."""
    assert policy.recent((), 100.0, 60.0) == ()


@pytest.mark.parametrize(("share", "limit_s"), [(0.0, 80.0), (0.5, 90.0), (1.0, 100.0)])
def test_runtime_limit_is_jittered_in_its_last_fifth(share: float, limit_s: float) -> None:
    """Whatever the dice say, the limit is between four fifths of `max_runtime` and all of it."""
    assert policy.runtime_limit(100.0, lambda delay_s: delay_s * share) == limit_s


def test_runtime_limit_throws_the_dice_once_for_the_last_fifth() -> None:
    """What is jittered is a fifth of `max_runtime`."""
    asked: list[float] = []

    policy.runtime_limit(50.0, lambda delay_s: asked.append(delay_s) or 0.0)

    assert asked == [10.0]


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        (policy.SHORT_LIFE_S, 1.0),
        (policy.QUICK_STOP_S, 2.0),
        (policy.ABANDON_S, 1.0),
        (policy.LATE_S, 1.0),
        (policy.MEASURE_INTERVAL_S, 30.0),
        (policy.DUMP_TIMEOUT_S, 2.0),
        (policy.DUMP_TURN_S, 10.0),
        (policy.INTERRUPT_AT, 0.8),
        (policy.STRAGGLER_DELAYS_S, (0.25, 0.5, 1.0, 2.0)),
    ],
)
def test_constants_are_those_of_the_contract(constant: object, value: object) -> None:
    """Operators plan with these numbers: a change of one is a change of the contract."""
    assert constant == value


def test_stop_ladder_with_the_default_timeout() -> None:
    """TERM goes out at once and again to stragglers, QUIT at 80 % and again, KILL at the end."""
    assert policy.stop_ladder(8.0, 100.0) == (
        Rung(100.0, Action.TERMINATE),
        Rung(100.25, Action.TERMINATE),
        Rung(100.5, Action.TERMINATE),
        Rung(101.0, Action.TERMINATE),
        Rung(102.0, Action.TERMINATE),
        Rung(106.4, Action.INTERRUPT),
        Rung(106.65, Action.INTERRUPT),
        Rung(106.9, Action.INTERRUPT),
        Rung(107.4, Action.INTERRUPT),
        Rung(108.0, Action.KILL),
    )


@pytest.mark.parametrize(
    ("stop_timeout", "expected"),
    [
        (0.3125, [(0.0, "TERM"), (0.25, "QUIT"), (0.3125, "KILL")]),
        (1.25, [(0.0, "TERM"), (0.25, "TERM"), (0.5, "TERM"), (1.0, "QUIT"), (1.25, "KILL")]),
        (
            1.3125,
            [
                (0.0, "TERM"),
                (0.25, "TERM"),
                (0.5, "TERM"),
                (1.0, "TERM"),
                (1.05, "QUIT"),
                (1.3, "QUIT"),
                (1.3125, "KILL"),
            ],
        ),
    ],
)
def test_rung_that_falls_on_the_next_one_is_left_out(stop_timeout: float, expected: list[tuple[float, str]]) -> None:
    """A signal is sent again only before the next rung is due, not at its instant."""
    rungs = policy.stop_ladder(stop_timeout, 0.0)

    assert [(round(rung.at, 9), rung.action.value) for rung in rungs] == expected


def test_stop_ladder_without_time_is_kill_at_once() -> None:
    """A `stop_timeout` of 0 means KILL at once."""
    assert policy.stop_ladder(0.0, 5.0) == (Rung(5.0, Action.KILL),)


@given(timeouts, instants)
def test_stop_ladder_climbs(stop_timeout: float, now: float) -> None:
    """The rungs go forward in time and up in force, and the only KILL is the last, at the end of `stop_timeout`."""
    rungs = policy.stop_ladder(stop_timeout, now)

    order = list(Action)
    assert [rung.at for rung in rungs] == sorted(rung.at for rung in rungs)
    assert [order.index(rung.action) for rung in rungs] == sorted(order.index(rung.action) for rung in rungs)
    assert [rung for rung in rungs if rung.action is Action.KILL] == [Rung(now + stop_timeout, Action.KILL)]
    assert all(rung.at >= now for rung in rungs)


@given(st.floats(0.01, 1e5), instants)
def test_stop_ladder_starts_politely_and_interrupts_at_80_percent(stop_timeout: float, now: float) -> None:
    """With any time at all, TERM goes out first and at once, and the first QUIT at 80 % of the time."""
    rungs = policy.stop_ladder(stop_timeout, now)

    assert rungs[0] == Rung(now, Action.TERMINATE)
    interrupts = [rung.at for rung in rungs if rung.action is Action.INTERRUPT]
    assert interrupts[0] == pytest.approx(now + 0.8 * stop_timeout)


@pytest.mark.parametrize(
    ("kill_by", "expected"),
    [
        (50.0, [(10.0, "QUIT"), (10.25, "QUIT"), (10.5, "QUIT"), (11.0, "QUIT"), (12.0, "KILL")]),
        (10.4, [(10.0, "QUIT"), (10.25, "QUIT"), (10.4, "KILL")]),
        (10.0, [(10.0, "KILL")]),
        (9.0, [(9.0, "KILL")]),
        (float("inf"), [(10.0, "QUIT"), (10.25, "QUIT"), (10.5, "QUIT"), (11.0, "QUIT"), (12.0, "KILL")]),
    ],
)
def test_quick_ladder_interrupts_now_and_kills_in_two_seconds_or_sooner(
    kill_by: float, expected: list[tuple[float, str]]
) -> None:
    """A quick stop interrupts at once and kills 2 s later, but never after what was promised before."""
    assert [(rung.at, rung.action.value) for rung in policy.quick_ladder(10.0, kill_by)] == expected


@given(instants, st.floats(-10.0, 10.0))
def test_quick_ladder_ends_in_one_kill_no_later_than_promised(now: float, ahead_s: float) -> None:
    """A quick stop never grants more time than an earlier stop has left."""
    rungs = policy.quick_ladder(now, now + ahead_s)

    assert rungs[-1].action is Action.KILL
    assert rungs[-1].at <= now + min(ahead_s, policy.QUICK_STOP_S)
    assert all(rung.action is Action.INTERRUPT and rung.at < rungs[-1].at for rung in rungs[:-1])
