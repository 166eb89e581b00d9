"""Records: classes of immutable values, as `@dataclass(frozen=True, slots=True)` makes them, at a thirtieth the cost.

Making one such dataclass compiles the text of half a dozen methods, which costs 0.4 ms, and the module behind it loads
the parser and the disassembler of the standard library. Here all methods are shared but for `__init__`, which is
compiled once for all records with equally many fields.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from pyworkers._core.typed import dataclass_transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    R = TypeVar("R")


class _Record:
    """What all records have in common; their fields are what `__match_args__` names."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: cannot assign to '{name}'")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: cannot delete '{name}'")

    def __repr__(self) -> str:
        fields = [f"{name}={getattr(self, name)!r}" for name in self.__match_args__]
        return f"{type(self).__qualname__}({', '.join(fields)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # The way that object has sets one attribute after the other.
        return type(self), _values(self)


def _values(value: Any) -> tuple[Any, ...]:
    return tuple([getattr(value, name) for name in value.__match_args__])


@dataclass_transform(frozen_default=True)
def record(cls: type[R]) -> type[R]:
    """Make a class of immutable values out of one that annotates its fields, with or without defaults.

    A field with a default comes after those without. A subclass has the fields of its parent before its own; where it
    has none of its own, it needs no decorator.
    """
    old: Any = cls
    namespace: dict[str, Any] = dict(old.__dict__)
    own: tuple[str, ...] = tuple(namespace.get("__annotations__", ()))
    names: tuple[str, ...] = (*getattr(old, "__match_args__", ()), *own)
    defaults: list[object] = list(getattr(old.__init__, "__defaults__", None) or ())
    for name in own:
        if name in namespace:
            defaults.append(namespace.pop(name))
        elif defaults:
            raise TypeError(f"'{name}' of {old.__name__} has no default, and one before it has")
    # Python makes slots only of what a class has from its beginning, so it begins once more.
    for name in ("__dict__", "__weakref__"):
        namespace.pop(name, None)
    namespace.update(__slots__=own, __match_args__=names, __qualname__=old.__qualname__)
    new: Any = type(old)(old.__name__, (_Record,) if old.__bases__ == (object,) else old.__bases__, namespace)
    # A slot's own setter does not ask `__setattr__`, and nothing sets it quicker.
    init: Any = _init_maker(len(names))(*[getattr(new, name).__set__ for name in names])
    init.__code__ = init.__code__.replace(co_varnames=("self", *names))
    init.__defaults__ = tuple(defaults)
    init.__qualname__ = f"{old.__qualname__}.__init__"
    init.__module__ = old.__module__
    new.__init__ = init
    return new  # type: ignore[no-any-return]


@functools.cache
def _init_maker(count: int) -> Callable[..., Any]:
    """Return a function that takes the setters of `count` slots, and makes the `__init__` that calls them."""
    setters = "".join(f"set_{index}, " for index in range(count))
    fields = "".join(f", field_{index}" for index in range(count))
    calls = "".join(f"\n        set_{index}(self, field_{index})" for index in range(count)) or " pass"
    made: dict[str, Any] = {}
    exec(f"def make({setters}):\n    def __init__(self{fields}):{calls}\n    return __init__", made)  # noqa: S102
    return made["make"]  # type: ignore[no-any-return]


def replace(value: R, /, **changes: Any) -> R:
    """Return a record like this one, but for these fields."""
    old: Any = value
    for name in old.__match_args__:
        if name not in changes:
            changes[name] = getattr(old, name)
    return type(value)(**changes)
