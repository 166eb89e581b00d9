"""The values that every room speaks of: defaults, bounds, and how a stranger's value is shown."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pyworkers._core import events, messages, scheduler, types
from pyworkers._core.messages import StopKind
from pyworkers._core.types import (
    NEVER,
    PIN_MAX,
    PINS_MAX,
    Action,
    Attempt,
    Hung,
    Limit,
    Pin,
    Purpose,
    Restart,
    Running,
    SlotPlan,
    Starting,
    Watch,
    shown,
)


def test_plan_of_which_only_the_pin_is_known_is_that_of_the_contract() -> None:
    """The defaults are those of the contract's table of options."""
    assert SlotPlan(Pin(3)) == SlotPlan(
        pin=Pin(3),
        normal_exit_codes=frozenset({0}),
        permanent_failure_codes=frozenset(),
        restart=Restart.ON_FAILURE,
        backoff=(0.1, 30.0),
        max_restarts=None,
        restart_period=60.0,
        stop_timeout=8.0,
        hang_timeout=None,
        max_runtime=None,
        max_rss=None,
        handler=0,
        group=None,
    )


def test_states_begin_with_nothing_asked_for() -> None:
    """A fork is not confirmed, a worker is not worn and not suspended, and no deadline is set, unless said so."""
    assert Starting(Attempt(1), 5.0) == Starting(Attempt(1), 5.0, confirmed=False, suspended=False)
    assert Running(Attempt(1), 5.0) == Running(Attempt(1), 5.0, Watch(NEVER, None, NEVER, NEVER), None, suspended=False)
    assert Hung(Attempt(1), 5.0, 6.0) == Hung(Attempt(1), 5.0, 6.0, asked=False)


def test_bounds_are_those_of_the_kernel_and_of_a_person() -> None:
    """The largest PIN is the largest C int, a million of them are enough, and never is later than anything."""
    assert PIN_MAX == 2147483647
    assert PINS_MAX == 1000000
    assert math.inf == NEVER


def test_words_are_those_of_the_options_and_of_the_signals() -> None:
    """What users write and what logs show are these words."""
    assert [restart.value for restart in Restart] == ["on-failure", "always", "never"]
    assert [limit.value for limit in Limit] == ["max_runtime", "max_rss"]
    assert [action.value for action in Action] == ["TERM", "QUIT", "KILL"]
    assert [purpose.value for purpose in Purpose] == ["stop", "hang", "recycle", "group", "restart", "scale", "lease"]


def test_stops_are_ordered_by_how_hard_they_are() -> None:
    """A stop only ever gets harder, so the kinds compare."""
    assert StopKind.GRACEFUL < StopKind.QUICK < StopKind.KILL
    assert len(StopKind) == 3


VALUES = [
    value
    for module in (types, events, messages, scheduler)
    for value in vars(module).values()
    if "__match_args__" in getattr(value, "__dict__", ()) and value.__module__ == module.__name__
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_values_cannot_be_changed(value: Any) -> None:
    """What the core was told and what it has said stays as it was; and a thousand slots need no dictionaries."""
    with pytest.raises(AttributeError, match=f"{value.__name__} cannot be changed"):
        object.__new__(value).code = 1
    assert "__slots__" in vars(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3 (int)"),
        ("a\nb", "'a\\nb' (str)"),
        (None, "None (NoneType)"),
        ("x" * 79, "'" + "x" * 79 + " (str)"),
        ("x" * 78, "'" + "x" * 78 + "' (str)"),
    ],
)
def test_shown_is_one_short_line_with_the_type(value: object, text: str) -> None:
    """A value is shown by its repr, cut at 80 characters, and by the name of its type."""
    assert shown(value) == text


def test_shown_survives_a_repr_that_raises() -> None:
    """A user's own class may be broken in any way, and an error about it must not be another error."""

    class Shy:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    assert shown(Shy()) == "a value that cannot be shown (Shy)"
