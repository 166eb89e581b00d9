"""One at a time: lines of PINs, and whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyworkers._core.turns import Turns
from pyworkers._core.types import Pin

P0, P1, P2 = Pin(0), Pin(1), Pin(2)


def _line(*pins: Pin, key: str = "a") -> Turns:
    turns = Turns()
    for pin in pins:
        turns.join(key, pin)
    return turns


def test_nobody_can_go_where_nobody_waits() -> None:
    """An empty line gives no turn, and leaving it is harmless."""
    turns = _line()
    turns.leave("a", P0)

    assert turns.take() is None


def test_turns_are_given_in_the_order_of_joining_one_at_a_time() -> None:
    """The first who joined goes first, and the next only when that one has left."""
    turns = _line(P2, P0, P1)

    for pin in (P2, P0, P1):
        assert turns.take() == pin
        assert turns.take() is None
        turns.leave("a", pin)
    assert turns.take() is None


def test_who_joins_twice_waits_once_at_the_first_place() -> None:
    """Joining again changes nothing for who waits."""
    turns = _line(P0, P1, P0)

    assert turns.take() == P0
    turns.leave("a", P0)
    assert turns.take() == P1
    turns.leave("a", P1)
    assert turns.take() is None


def test_who_has_the_turn_gets_no_second_one() -> None:
    """The holder of the turn may join again, and leaves once for both."""
    turns = _line(P0)
    turns.take()
    turns.join("a", P0)
    turns.leave("a", P0)

    assert turns.take() is None


def test_who_had_the_turn_may_join_again() -> None:
    """After its turn, a PIN waits like any other, behind those who wait already."""
    turns = _line(P0, P1)
    turns.take()
    turns.leave("a", P0)
    turns.join("a", P0)

    assert turns.take() == P1
    turns.leave("a", P1)
    assert turns.take() == P0


def test_who_leaves_the_line_is_not_called() -> None:
    """Whoever stops waiting is passed over, and the turn of another is not ended by it."""
    turns = _line(P0, P1, P2)
    assert turns.take() == P0
    turns.leave("a", P1)
    assert turns.take() is None
    turns.leave("a", P0)

    assert turns.take() == P2


def test_last_who_leaves_the_line_leaves_nothing() -> None:
    """A line that has become empty is as if it had never been, and can be joined anew."""
    turns = _line(P0)
    turns.leave("a", P0)
    assert turns.take() is None
    turns.join("a", P1)

    assert turns.take() == P1


def test_leaving_twice_ends_no_other_turn() -> None:
    """The turn belongs to one PIN: who has left already cannot end the next one's."""
    turns = _line(P0, P1)
    turns.take()
    turns.leave("a", P0)
    assert turns.take() == P1
    turns.leave("a", P0)
    turns.join("a", P2)

    assert turns.take() is None


def test_lines_of_different_keys_are_independent() -> None:
    """Each key has its line and its turn, and a PIN in both has a place in both."""
    turns = _line(P0, P1)
    turns.join("b", P1)
    turns.join("b", P0)

    assert [turns.take(), turns.take(), turns.take()] == [P0, P1, None]
    turns.leave("b", P0)
    assert turns.take() is None
    turns.leave("b", P1)
    assert turns.take() is None
    turns.leave("a", P0)
    assert turns.take() == P1
    assert turns.take() is None


def test_who_has_the_turn_of_one_key_may_wait_for_another() -> None:
    """A turn in one line is none in another."""
    turns = _line(P0)
    assert turns.take() == P0
    turns.join("b", P0)

    assert turns.take() == P0
    turns.leave("b", P1)
    turns.join("b", P1)
    assert turns.take() is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "leave", "take"]), st.sampled_from("ab"), st.integers(0, 3).map(Pin)),
        max_size=60,
    )
)
def test_turns_are_exclusive_fair_and_never_lost(calls: list[tuple[str, str, Pin]]) -> None:
    """Against a plain model: one holder for each key, first come first served, and a turn wherever one is free."""
    turns = Turns()
    lines: dict[str, list[Pin]] = {"a": [], "b": []}
    holders: dict[str, Pin] = {}
    for call, key, pin in calls:
        if call == "join":
            turns.join(key, pin)
            if holders.get(key) != pin and pin not in lines[key]:
                lines[key].append(pin)
        elif call == "leave":
            turns.leave(key, pin)
            if holders.get(key) == pin:
                del holders[key]
            if pin in lines[key]:
                lines[key].remove(pin)
        else:
            free = {other: line[0] for other, line in lines.items() if line and other not in holders}
            taken = turns.take()
            assert taken in free.values() if free else taken is None
            # Where both lines could go, and the same PIN is first in both, either may have been meant.
            keys = [other for other, first in free.items() if first == taken]
            if len(keys) > 1:
                return
            for other in keys:
                holders[other] = lines[other].pop(0)
