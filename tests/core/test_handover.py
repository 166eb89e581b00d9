"""What a master's program hands over to the next one: all of it comes back, and nothing else does."""

from __future__ import annotations

import enum
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkers._core import types as t
from pyworkers._core.handover import KINDS, Codec, HandoverError, Legacy, SlotMemory
from pyworkers._core.types import Attempt, Pin, SlotPlan

CODEC = Codec(KINDS)

STATES = [
    t.Waiting(),
    t.Backoff(t.NEVER),
    t.Starting(Attempt(1), 2.5, confirmed=True, suspended=True),
    t.Running(Attempt(2), 0.1, t.Watch(1.0, None, t.NEVER, 7.25), t.Wear(t.Limit.MAX_RSS, 3e9), suspended=True),
    t.Hung(Attempt(3), 1e9, 1e9 + 0.1, asked=True),
    t.Stopping(Attempt(4), 3.0, t.Action.TERMINATE, (t.Rung(4.0, t.Action.KILL),), t.Purpose.RECYCLE),
    t.Killing(Attempt(5), 3.0, t.NEVER, t.Purpose.STOP),
    t.Finished(),
    t.Failed(),
    t.Retired(),
    t.Abandoned(Attempt(6), 3.0),
]


def legacy() -> Legacy:
    plan = SlotPlan(
        Pin(0), frozenset({0, 3}), frozenset({9}), t.Restart.NEVER, (0.1, 1.0), 5, 60.0, 1.0, 2.0, 3.0, 4, 1, "g"
    )
    slots = [
        SlotMemory(t.SlotPlan(Pin(7)) if number else plan, state, Attempt(9), number, (1.0, 2.0), True, False)
        for number, state in enumerate(STATES)
    ]
    return Legacy(tuple(slots), announced=True)


@pytest.mark.parametrize("kind", t.SlotState.__args__)
def test_there_is_an_example_of_every_state(kind: type) -> None:
    """A new state has to be handed over, too."""
    assert any(type(state) is kind for state in STATES)


def test_all_of_it_comes_back_through_json() -> None:
    """Every field of every kind, floats to the last bit."""
    assert CODEC.unpack(json.loads(json.dumps(CODEC.pack(legacy())))) == legacy()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner).map(tuple),
    )
)
def test_plain_values_and_tuples_come_back(value: object) -> None:
    """Whatever JSON has a form for, and tuples of it."""
    assert CODEC.unpack(json.loads(json.dumps(CODEC.pack(value)))) == value


def test_enums_of_a_user_are_what_they_are_worth() -> None:
    """App(normal_exit_codes=Code.FINE) is no reason to refuse a reload."""

    class Code(enum.IntEnum):
        FINE = 3

    class Name(str, enum.Enum):
        SHOP = "shop"

    assert CODEC.pack((Code.FINE, Name.SHOP, frozenset({Code.FINE}))) == ["tuple", 3, "shop", ["set", 3]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([kind.__name__ for kind in KINDS]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner, min_size=1).map(lambda parts: ["Running", *parts]),
)  # fmt: skip


@given(JSON)
def test_anything_else_is_one_clear_error(plain: object) -> None:
    """G11: state handed over gets one clear error and no effect."""
    said = "expected "
    try:
        CODEC.unpack(plain)
    except HandoverError as error:
        said = str(error)

    assert said.startswith("expected ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({}, "expected a plain value or a list that begins with a kind, got {} (dict)"),
        ([], "expected a plain value or a list that begins with a kind, got [] (list)"),
        (["Popen", "ls"], "expected a kind of value that this version knows, got 'Popen' (str)"),
        (["Starting", 1], "expected the fields of Starting as this version has them, got [1] (list)"),
        (["Purpose", "fun"], "expected the fields of Purpose as this version has them, got ['fun'] (list)"),
    ],
)
def test_each_error_says_what_was_expected(plain: object, said: str) -> None:
    """What was expected, and what was got."""
    with pytest.raises(HandoverError) as caught:
        CODEC.unpack(plain)

    assert str(caught.value) == said


def test_another_version_is_told_by_its_schema() -> None:
    """A field more, or one less, and the two do not understand each other."""
    fewer = Codec(kind for kind in KINDS if kind is not t.Wear)

    assert Codec(KINDS).schema() == CODEC.schema()
    assert fewer.schema() != CODEC.schema()
    assert ["Wear", "limit", "measured"] in CODEC.schema()
    assert ["Restart", "on-failure", "always", "never"] in CODEC.schema()
