"""Iterating over units of work: a checkpoint before each, a progress mark after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")


def track(
    iterable: Iterable[T],
    total: int | None,
    checkpoint: Callable[[], object],
    mark: Callable[[int, int | None], None],
) -> Iterator[T]:
    """Yield the items; see `App.track`."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    total = None if total is None else max(0, int(total))
    iterator = iter(iterable)
    done = 0
    while True:
        # Before the item is taken: one that a stop leaves behind is still in its iterator.
        checkpoint()
        try:
            item = next(iterator)
        except StopIteration:
            return
        yield item
        done += 1
        mark(done, total)
