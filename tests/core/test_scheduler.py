"""The map from PINs to handlers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkers._core import scheduler
from pyworkers._core.scheduler import AssignmentError, Claim, assign, claim
from pyworkers._core.types import Pin

pin_sets = st.frozensets(st.integers(0, 12), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        (3, (3,)),
        (0, (0,)),
        (range(3), (0, 1, 2)),
        (range(4, 10, 3), (4, 7)),
        ([5, 1, 3], (1, 3, 5)),
        ({2, 0}, (0, 2)),
        ({2: "c", 1: "b"}.keys(), (1, 2)),
        (None, None),
    ],
)
def test_claim_takes_ints_ranges_and_iterables(pins: int | Iterable[int] | None, expected: object) -> None:
    """Pins may be an int, a range or any iterable of ints; the claim has them in ascending order."""
    assert claim("crawl", pins) == Claim("crawl", expected)  # type: ignore[arg-type]


def test_claim_takes_what_can_be_iterated_only_once() -> None:
    """A generator of pins is as good as a list of them."""
    assert claim("crawl", (number * 2 for number in (2, 0, 1))) == Claim("crawl", (Pin(0), Pin(2), Pin(4)))


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        (-1, "must not be negative, got -1 (int)"),
        ([0, -3], "must not be negative, got -3 (int)"),
        (2**31, "must be at most 2147483647, got 2147483648 (int)"),
        (True, "must be ints, got True (bool)"),
        ([0, False], "must be ints, got False (bool)"),
        ("12", "must be ints, got '1' (str)"),
        ([0, 1.0], "must be ints, got 1.0 (float)"),
        ([None], "must be ints, got None (NoneType)"),
        (1.5, "must be an int, a range or an iterable of ints, got 1.5 (float)"),
        (object, "must be an int, a range or an iterable of ints, got <class 'object'> (type)"),
        ([], "are empty: name at least one PIN"),
        (range(3, 3), "are empty: name at least one PIN"),
        ([4, 2, 4], "name PIN 4 twice"),
        (itertools.repeat(0), "name PIN 0 twice"),
        (itertools.count(), "are more than 1,000,000"),
        (["x" * 500], f"must be ints, got '{'x' * 79} (str)"),
    ],
)
def test_claim_refuses_in_one_line_that_names_handler_and_value(pins: object, words: str) -> None:
    """Each mistake in `pins` has its own line, which names the handler and what was got."""
    with pytest.raises(AssignmentError) as caught:
        claim("crawl", pins)  # type: ignore[arg-type]

    text = str(caught.value)
    assert text == f"pins of worker 'crawl' {words}"
    assert len(text) < 200


NOBODY = "no worker is registered: decorate a function with @app.worker(pins=...)"
WHERE = "set App(workers=...), --workers or PYWORKERS_WORKERS"
HOW = "in pins=..., or register a worker without pins"


@pytest.mark.parametrize(
    ("claims", "workers", "text"),
    [
        ([], None, NOBODY),
        ([], 3, NOBODY),
        ([("crawl", range(3)), ("parse", [4, 2])], None, "pins of worker 'parse' overlap worker 'crawl' at 2"),
        ([("a", [0]), ("b", [1]), ("c", [1])], None, "pins of worker 'c' overlap worker 'b' at 1"),
        (
            [("crawl", None), ("zero", [0]), ("parse", None)],
            3,
            "workers 'crawl' and 'parse' both have no pins: only one can be the catch-all",
        ),
        (
            [("zero", [0]), ("crawl", None)],
            None,
            f"worker 'crawl' has no pins, so it takes what is left of range(workers): {WHERE}",
        ),
        (
            [("crawl", [0, 1]), ("rest", None)],
            2,
            "worker 'rest' has no pins, and the others take all of range(2): nothing is left for it",
        ),
        (
            [("rest", None)],
            0,
            "worker 'rest' has no pins, and the others take all of range(0): nothing is left for it",
        ),
        ([("crawl", [0])], 2, f"no worker takes PIN 1 of range(2): name it {HOW}"),
        ([("crawl", [1])], 4, f"no worker takes PINs 0, 2, 3 of range(4): name them {HOW}"),
        ([("crawl", [0])], 6, f"no worker takes PINs 1, 2, 3, 4, 5 of range(6): name them {HOW}"),
        ([("crawl", [0])], 7, f"no worker takes PINs 1, 2, 3, 4, 5 and 1 more of range(7): name them {HOW}"),
        ([("crawl", [0])], 100, f"no worker takes PINs 1, 2, 3, 4, 5 and 94 more of range(100): name them {HOW}"),
    ],
)
def test_assign_refuses_what_does_not_add_up(
    claims: list[tuple[str, Iterable[int] | None]], workers: int | None, text: str
) -> None:
    """Each way in which claims do not add up has its own line."""
    with pytest.raises(AssignmentError) as caught:
        assign([claim(handler, pins) for handler, pins in claims], workers)

    assert str(caught.value) == text


def test_claim_takes_as_many_pins_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound itself is allowed, one PIN more is not."""
    monkeypatch.setattr(scheduler, "PINS_MAX", 5000)

    assert claim("crawl", range(5000)).pins == tuple(range(5000))
    with pytest.raises(AssignmentError, match=r"^pins of worker 'crawl' are more than 5,000$"):
        claim("crawl", range(5001))


def test_claim_takes_the_largest_pin() -> None:
    """A PIN may be as large as the kernel's own process numbers could ever be."""
    assert claim("crawl", 2**31 - 1) == Claim("crawl", (Pin(2147483647),))


def test_assign_without_workers_needs_no_more_than_what_is_claimed() -> None:
    """Where no PIN must be filled, what the handlers name is all there is, in ascending order."""
    assert list(assign([claim("crawl", [9, 4]), claim("parse", 7)], None).items()) == [(4, 0), (7, 1), (9, 0)]


def test_assign_gives_the_catch_all_what_nobody_claims() -> None:
    """The handler without pins takes every PIN of `range(workers)` that no other handler claims."""
    claims = [claim("rest", None), claim("crawl", [1, 7]), claim("parse", 3)]

    assert dict(assign(claims, 5)) == {0: 0, 1: 1, 2: 0, 3: 2, 4: 0, 7: 1}


def test_assign_allows_pins_beyond_workers() -> None:
    """`workers` is what must be filled, not a limit to PINs that are named."""
    assert dict(assign([claim("crawl", range(2)), claim("parse", 9)], 2)) == {0: 0, 1: 0, 9: 1}


@given(st.lists(pin_sets, min_size=1, max_size=4), st.none() | st.integers(1, 15), st.none() | st.integers(0, 4))
def test_assign_is_total_or_refuses(
    wanted: list[frozenset[int]], workers: int | None, catch_all_place: int | None
) -> None:
    """Either the map is exactly what was claimed plus the rest for the catch-all, in ascending order, or it is refused."""
    claims = [claim(f"handler{place}", pins) for place, pins in enumerate(wanted)]
    if catch_all_place is not None:
        claims.insert(catch_all_place, claim("rest", None))
    named = [pin for pins in wanted for pin in pins]
    overlap = len(named) != len(set(named))
    rest = set(range(workers or 0)) - set(named)
    bad = overlap or (catch_all_place is None and rest) or (catch_all_place is not None and not rest)

    if bad:
        with pytest.raises(AssignmentError):
            assign(claims, workers)
        return

    found = assign(claims, workers)
    assert list(found) == sorted(set(named) | rest)
    for pin, place in found.items():
        pins = claims[place].pins
        assert pin in rest if pins is None else pin in pins


@given(st.lists(pin_sets, min_size=1, max_size=4), st.integers(1, 15), st.randoms())
def test_assign_does_not_depend_on_the_order_of_registration(wanted, workers, random) -> None:
    """Registered in another order, each PIN still goes to the same handler."""
    seen: set[int] = set()
    claims = [claim("rest", None)]
    for place, pins in enumerate(wanted):
        if free := pins - seen:
            claims.append(claim(f"handler{place}", free))
        seen |= pins
    if set(range(workers)) <= seen:
        workers = max(seen) + 2
    shuffled = random.sample(claims, len(claims))

    def names(order: list[Claim]) -> dict[Pin, str]:
        return {pin: order[place].handler for pin, place in assign(order, workers).items()}

    assert names(claims) == names(shuffled)
