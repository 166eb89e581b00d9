"""Who is who in a running master: the handler of each PIN and spare, and the cell of each PIN; PINs can be added.

Composition, like `_assembly`: the core knows only that there are PINs, the executor only their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from pyworkers._core.records import record
from pyworkers._core.types import Pin, SlotPlan, is_spare
from pyworkers._plan import Plan
from pyworkers._posix.cells import Cells, Trace


@record
class Past:
    """What is left of the program before this one: the handler, the cell and the handler's cell of who is alive."""

    handlers: tuple[tuple[Pin, str], ...] = ()
    seats: tuple[tuple[Pin, int], ...] = ()
    flags: tuple[tuple[Pin, int], ...] = ()


NO_PAST = Past()


class Roster:
    """The PINs and spares of one instance.

    Args:
        decided: The run.
        names: The handlers' names, by their places.
        file: The cells' file of the program before this one.
        past: What that has left.

    Attributes:
        places: The handler of each, by its place in the declaration.
        handlers: The name of that.
        leaders: Those whose workers lead a process group.
        seats: The cell of each PIN that has had a worker, or was there from the start.
        flags: The cell of each handler, by its place.
        flag_of: The handler's cell that the latest worker of a PIN was told of.
        cells: All of them.
        catch_all: What the PINs of the handler without pins have in common; None where there is no such handler.
    """

    def __init__(self, decided: Plan, names: Sequence[str], file: int | None = None, past: Past = NO_PAST) -> None:
        self._decided = decided
        self._names = names
        self.places: dict[Pin, int] = {}
        self.handlers: dict[Pin, str] = dict(past.handlers)
        self.leaders: set[Pin] = set()
        self.flag_of = dict(past.flags)
        self.seats = dict(past.seats)
        # Of workers of the program before: each goes on with the cells that it was told of.
        taken = {*self.seats.values(), *self.flag_of.values()}
        self._free: Iterator[int] = (seat for seat in itertools.count() if seat not in taken)
        for pin in decided.assignment:
            if pin not in self.seats:
                self.seats[pin] = next(self._free)
        # New code is not known to have checkpoints because the old one had some.
        self.flags = [next(self._free) for _ in names]
        self.cells = Cells(1 + max(*self.seats.values(), *self.flag_of.values(), *self.flags), file)
        for flag in self.flags:
            self.cells.clear(flag)
        for pin, place in (*decided.assignment.items(), *decided.spares().items()):
            self._place(pin, place)
        self.catch_all: SlotPlan | None = None
        if decided.catch_all is not None:
            self.catch_all = decided.slot_plan(Pin(0), decided.catch_all)

    def add(self, pins: Sequence[Pin]) -> None:
        """Take note of PINs that the catch-all handler has besides."""
        assert self._decided.catch_all is not None
        for pin in pins:
            self._place(pin, self._decided.catch_all)

    def clear(self, pin: Pin) -> None:
        """Before a fork: let the PIN's cell belong to its next attempt; one that was added gets a cell first.

        Raises:
            OSError: There is no memory for it.
        """
        if is_spare(pin):
            return
        seat = self.seats.get(pin)
        if seat is None:
            seat = next(self._free)
            try:
                self.cells.grow(seat + 1)
            except OSError:
                self._free = itertools.chain((seat,), self._free)
                raise
            self.seats[pin] = seat
        self.cells.clear(seat)
        self.flag_of[pin] = self.flags[self.places[pin]]

    def trace(self, pin: Pin) -> Trace:
        """Return what the latest worker of a PIN was at; a spare is at nothing."""
        return Trace() if is_spare(pin) else self.cells.read(self.seats[pin])

    def beat(self, pin: Pin) -> float | None:
        """Return when the latest worker of a PIN last proved that it reaches its checkpoints."""
        return self.cells.read_beat(self.seats[pin])

    def past(self, live: Iterable[Pin]) -> Past:
        """Return what the next program has to know of these PINs and spares, which have a process."""
        pins = list(live)
        return Past(
            tuple((pin, self.handlers[pin]) for pin in pins),
            tuple((pin, self.seats[pin]) for pin in pins if pin in self.seats),
            tuple((pin, self.flag_of[pin]) for pin in pins if pin in self.flag_of),
        )

    def _place(self, pin: Pin, place: int) -> None:
        self.places[pin] = place
        self.handlers[pin] = self._names[place]
        if self._decided.workers[place].kill_group:
            self.leaders.add(pin)
