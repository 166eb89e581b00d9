"""Maps each PIN to its handler: deterministic, total, and checked before anything forks.

It has nothing to do with time: like the scheduler of an operating system, it places work on seats.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from pyworkers._core.records import record
from pyworkers._core.types import PIN_MAX, PINS_MAX, Pin, shown


class AssignmentError(ValueError):
    """The pins of the handlers do not add up; the text is one line for a person."""


@record
class Claim:
    """What one handler asks for: these PINs, or with None every PIN that nobody else claims (the catch-all)."""

    handler: str
    pins: tuple[Pin, ...] | None


def claim(handler: str, pins: int | Iterable[int] | None) -> Claim:
    """Check what was written as `pins` and return it as a claim, its PINs in ascending order.

    Raises:
        AssignmentError: A PIN is no int, is negative or is named twice, or there is none or no end of them.
    """
    if pins is None:
        return Claim(handler, None)
    if isinstance(pins, int):
        return Claim(handler, (_checked(handler, pins),))
    if not isinstance(pins, Iterable):
        raise AssignmentError(
            f"pins of worker '{handler}' must be an int, a range or an iterable of ints, got {shown(pins)}"
        )
    seen: set[Pin] = set()
    for number in pins:
        pin = _checked(handler, number)
        if pin in seen:
            raise AssignmentError(f"pins of worker '{handler}' name PIN {pin} twice")
        seen.add(pin)
        if len(seen) > PINS_MAX:
            raise AssignmentError(f"pins of worker '{handler}' are more than {PINS_MAX:,}")
    if not seen:
        raise AssignmentError(f"pins of worker '{handler}' are empty: name at least one PIN")
    return Claim(handler, tuple(sorted(seen)))


def assign(claims: Sequence[Claim], workers: int | None) -> Mapping[Pin, int]:
    """Return which claim, by its place in `claims`, each PIN goes to, in ascending order of the PINs.

    Args:
        claims: In the order of registration.
        workers: The number of PINs that the instance must fill, from 0; None where no catch-all needs it.

    Raises:
        AssignmentError: Nobody claims anything, two claim the same, or a PIN of `range(workers)` is left over.
    """
    if not claims:
        raise AssignmentError("no worker is registered: decorate a function with @app.worker(pins=...)")
    taken: dict[Pin, int] = {}
    catch_all: int | None = None
    for place, wanted in enumerate(claims):
        if wanted.pins is None:
            if catch_all is not None:
                raise AssignmentError(
                    f"workers '{claims[catch_all].handler}' and '{wanted.handler}' both have no pins:"
                    " only one can be the catch-all"
                )
            catch_all = place
            continue
        for pin in wanted.pins:
            if pin in taken:
                raise AssignmentError(
                    f"pins of worker '{wanted.handler}' overlap worker '{claims[taken[pin]].handler}' at {pin}"
                )
            taken[pin] = place
    rest = [Pin(number) for number in range(workers or 0) if number not in taken]
    if catch_all is None:
        if rest:
            raise AssignmentError(
                f"no worker takes {_listed(rest)} of range({workers}): name {'it' if len(rest) == 1 else 'them'}"
                " in pins=..., or register a worker without pins"
            )
    else:
        _fill(taken, rest, catch_all, claims[catch_all].handler, workers)
    return {pin: taken[pin] for pin in sorted(taken)}


def scaled(own: Collection[Pin], others: Collection[Pin], count: int) -> tuple[list[Pin], list[Pin]]:
    """Return which PINs to add to the catch-all and which to remove: the lowest free ones, the highest of its own.

    Args:
        own: Its PINs.
        others: Those of other handlers.
        count: How many it shall have.
    """
    removed = sorted(own)[count:]
    added: list[Pin] = []
    pin = Pin(0)
    while len(own) + len(added) < count:
        if pin not in own and pin not in others:
            added.append(pin)
        pin = Pin(pin + 1)
    return added, removed


def share(assignment: Mapping[Pin, int], index: int, count: int) -> Mapping[Pin, int]:
    """Return what falls to one of `count` shards: of the PINs in ascending order, every one whose place is its index.

    Dealt out in turn, so that each shard gets of each handler's range, and sizes differ by at most one.
    """
    return {pin: place for number, (pin, place) in enumerate(assignment.items()) if number % count == index}


def _fill(taken: dict[Pin, int], rest: list[Pin], place: int, handler: str, workers: int | None) -> None:
    if workers is None:
        raise AssignmentError(
            f"worker '{handler}' has no pins, so it takes what is left of range(workers):"
            " set App(workers=...), --workers or PYWORKERS_WORKERS"
        )
    if not rest:
        raise AssignmentError(
            f"worker '{handler}' has no pins, and the others take all of range({workers}): nothing is left for it"
        )
    for pin in rest:
        taken[pin] = place


def _checked(handler: str, number: object) -> Pin:
    # A bool is an int to Python, and a slip to a person.
    if not isinstance(number, int) or isinstance(number, bool):
        raise AssignmentError(f"pins of worker '{handler}' must be ints, got {shown(number)}")
    if number < 0:
        raise AssignmentError(f"pins of worker '{handler}' must not be negative, got {shown(number)}")
    if number > PIN_MAX:
        raise AssignmentError(f"pins of worker '{handler}' must be at most {PIN_MAX}, got {shown(number)}")
    return Pin(number)


def _listed(pins: Sequence[Pin]) -> str:
    shown = ", ".join(str(pin) for pin in pins[:5])
    more = f" and {len(pins) - 5} more" if len(pins) > 5 else ""
    return f"{'PIN' if len(pins) == 1 else 'PINs'} {shown}{more}"
