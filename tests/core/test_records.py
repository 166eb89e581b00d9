"""Records: values that compare, show themselves, match, and cannot be changed."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from typing import Any

import pytest

from pyworkers._core.records import record, replace


@record
class Nothing:
    """A record without fields."""


@record
class Point:
    """A record with a default."""

    x: int
    y: int = 0

    def norm(self) -> float:
        """Return how far away it is."""
        return math.hypot(self.x, self.y)


@record
class Named(Point):
    """One with fields of its own after those of its parent."""

    name: str = "nobody"
    tags: tuple[str, ...] = ()


class Other(Point):
    """One that is only another kind of what its parent is."""


@record
class Lazy:
    """One whose field cannot be hashed."""

    items: list[int]


def test_record_takes_its_fields_by_place_and_by_name() -> None:
    """The fields stand in the order of their annotations, and a default takes the place of what is not given."""
    assert (Point(1, 2).x, Point(1, 2).y) == (1, 2)
    assert (Point(y=2, x=1).x, Point(1).y) == (1, 0)


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)])
def test_record_refuses_too_few_and_too_many_fields(arguments: tuple[int, ...]) -> None:
    """A field without a default has to be given, and the error names the record's own function."""
    with pytest.raises(TypeError, match=r"Point\.__init__\(\)|^__init__\(\)"):
        Point(*arguments)


def test_record_refuses_a_field_that_it_has_not() -> None:
    """A name that is no field is an error, as with any function."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1, z=3)  # type: ignore[call-arg]


def test_field_without_a_default_after_one_with_is_refused() -> None:
    """A default in front of a field without one would be taken for the wrong field."""
    with pytest.raises(TypeError, match="'b' of Twisted has no default"):

        @record
        class Twisted:
            a: int = 1
            b: int  # type: ignore[misc]


def test_signature_is_that_of_the_fields() -> None:
    """Who asks for help is told the names and the defaults."""
    assert str(inspect.signature(Named)) == "(x, y=0, name='nobody', tags=())"


def test_subclass_has_the_fields_of_its_parent_first() -> None:
    """The fields and the defaults of the parent come before the subclass's own."""
    assert Named(1, 2, "a", ("b",)) == Named(x=1, y=2, name="a", tags=("b",))
    assert (Named(1).y, Named(1).name) == (0, "nobody")


def test_subclass_without_fields_needs_no_decorator() -> None:
    """It has its parent's fields, and its own name."""
    assert repr(Other(1, 2)) == "Other(x=1, y=2)"


def test_records_of_the_same_class_compare_field_by_field() -> None:
    """Equal fields make equal records, and one different field makes different ones."""
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Point(0, 2)
    assert Nothing() == Nothing()


def test_records_of_different_classes_are_never_equal() -> None:
    """A subclass with the same fields is something else, and so is a tuple of them."""
    assert Point(1, 2) != Other(1, 2)
    assert Other(1, 2) != Point(1, 2)
    assert Point(1, 2) != (1, 2)


def test_equal_records_have_the_same_hash() -> None:
    """A record can be a key, where its fields can."""
    assert {Point(1, 2): "found"}[Point(1, 2)] == "found"
    assert hash(Point(1, 2)) != hash(Point(2, 1))
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(Lazy([]))


def test_record_shows_its_fields() -> None:
    """The repr is what would make it again, as that of a dataclass."""
    assert repr(Named(1, name="a")) == "Named(x=1, y=0, name='a', tags=())"
    assert repr(Nothing()) == "Nothing()"


def test_record_of_a_function_shows_where_it_is_from() -> None:
    """The repr has the qualified name, as that of a dataclass."""

    @record
    class Inner:
        a: int

    assert repr(Inner(1)) == "test_record_of_a_function_shows_where_it_is_from.<locals>.Inner(a=1)"


@pytest.mark.parametrize("value", [Point(1, 2), Named(1, 2), Other(1, 2)])
@pytest.mark.parametrize("name", ["x", "colour"])
def test_record_cannot_be_changed(value: Any, name: str) -> None:
    """Nothing can be assigned to it or deleted from it, be it a field or not, and the error says so."""
    with pytest.raises(AttributeError, match=f"^{type(value).__name__} cannot be changed: cannot assign to '{name}'$"):
        setattr(value, name, 3)
    with pytest.raises(AttributeError, match=f"^{type(value).__name__} cannot be changed: cannot delete '{name}'$"):
        delattr(value, name)

    assert value.x == 1


def test_record_has_no_dictionary() -> None:
    """A thousand slots need no dictionaries, and what has slots cannot get one by the way."""
    assert not hasattr(Named(1), "__dict__")
    assert Named.__slots__ == ("name", "tags")  # type: ignore[attr-defined]


def test_record_matches_by_place_and_by_name() -> None:
    """A pattern without names stands for the fields in their order."""
    match Named(1, 2, "a"):
        case Named(x, 2, name=name):
            assert (x, name) == (1, "a")
        case _:
            raise AssertionError


def test_record_goes_through_pickle_and_copy() -> None:
    """Every way to copy it gives an equal one of the same class."""
    for value in (Point(1, 2), Named(1, tags=("b",)), Other(1), Nothing(), Lazy([1])):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(value, protocol)) == value
        assert copy.copy(value) == copy.deepcopy(value) == value


def test_deep_copy_shares_nothing() -> None:
    """A list in a field is copied by a deep copy, and shared by a shallow one."""
    value = Lazy([1])

    assert copy.copy(value).items is value.items
    assert copy.deepcopy(value).items is not value.items


def test_record_keeps_what_its_class_says() -> None:
    """Its text, its methods, its module and its names are those that it was written with."""
    assert Point.__doc__ == "A record with a default."
    assert Point(3, 4).norm() == 5.0
    assert (Point.__module__, Point.__qualname__) == (__name__, "Point")
    assert Point.__annotations__ == {"x": "int", "y": "int"}


def test_replace_changes_these_fields_and_no_other() -> None:
    """The result is a new record of the same class; the old one stays as it was."""
    old = Named(1, 2, "a", ("b",))

    assert replace(old, y=5, name="c") == Named(1, 5, "c", ("b",))
    assert replace(Other(1), y=7) == Other(1, 7)
    assert replace(old) == old == Named(1, 2, "a", ("b",))


def test_replace_refuses_a_field_that_the_record_has_not() -> None:
    """A misspelt field must not be lost."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        replace(Point(1), z=1)


def test_names_of_fields_stand_in_nobodys_way() -> None:
    """A field may have any name: that of an argument of ours, too."""

    @record
    class Odd:
        set_0: int
        value: int
        field_1: int

    assert replace(Odd(1, 2, 3), set_0=4, value=5) == Odd(4, 5, 3)
