"""Who is who in a running master: the handler of each PIN and spare, and the cell of each PIN; PINs can be added.

Composition, like `_assembly`: the core knows only that there are PINs, the executor only their names.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyworkers._core.types import Pin, SlotPlan, is_spare
from pyworkers._plan import Plan
from pyworkers._posix.cells import Cells, Trace


class Roster:
    """The PINs and spares of one instance.

    Attributes:
        places: The handler of each, by its place in the declaration.
        handlers: The name of that.
        leaders: Those whose workers lead a process group.
        seats: The cell of each PIN that has had a worker, or was there from the start.
        catch_all: What the PINs of the handler without pins have in common; None where there is no such handler.
    """

    def __init__(self, decided: Plan, names: Sequence[str], cells: Cells) -> None:
        self._decided = decided
        self._names = names
        self._cells = cells
        self.places: dict[Pin, int] = {}
        self.handlers: dict[Pin, str] = {}
        self.leaders: set[Pin] = set()
        self.seats = {pin: seat for seat, pin in enumerate(decided.assignment)}
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
            seat = len(self.seats)
            self._cells.grow(seat + 1)
            self.seats[pin] = seat
        self._cells.clear(seat)

    def trace(self, pin: Pin) -> Trace:
        """Return what the latest worker of a PIN was at; a spare is at nothing."""
        return Trace() if is_spare(pin) else self._cells.read(self.seats[pin])

    def beat(self, pin: Pin) -> float | None:
        """Return when the latest worker of a PIN last proved that it reaches its checkpoints."""
        return self._cells.read_beat(self.seats[pin])

    def _place(self, pin: Pin, place: int) -> None:
        self.places[pin] = place
        self.handlers[pin] = self._names[place]
        if self._decided.workers[place].kill_group:
            self.leaders.add(pin)
