"""Iterating over units of work: a checkpoint before each, a progress mark after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

T = TypeVar("T")


class Marker(Protocol):
    """What tracking needs of the runtime."""

    pending: bool

    def dispatch(self) -> None:
        """The checkpoint's slow path."""
        ...

    def mark(self, done: int, total: int | None) -> None:
        """Note how many items are done."""
        ...


def track(iterable: Iterable[T], total: int | None, marker: Marker) -> Iterator[T]:
    """Yield the items; see `App.track`."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    total = None if total is None else max(0, int(total))
    iterator = iter(iterable)
    done = 0
    while True:
        # Before the item is taken: one that a stop leaves behind is still in its iterator.
        if marker.pending:
            marker.dispatch()
        try:
            item = next(iterator)
        except StopIteration:
            return
        yield item
        done += 1
        marker.mark(done, total)
