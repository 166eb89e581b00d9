"""What one program of a master leaves to the next, as plain values that JSON can carry, and back.

A reload replaces the program of the master (execve(2)) and keeps its processes, so that all it knows of them has to
be written down. Only the kinds below come back, each with the fields that it has today: `schema` tells two versions of
pyworkers apart that could not understand each other.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from pyworkers._core import types as t
from pyworkers._core.records import record
from pyworkers._core.slot import Slot
from pyworkers._core.typed import cast
from pyworkers._core.types import Attempt, SlotPlan, SlotState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Plain = None | bool | int | float | str | list["Plain"]


class HandoverError(ValueError):
    """The state is none that this version has written."""


@record
class SlotMemory:
    """One PIN's or spare's slot: its plan, its state and its history, as far as decisions rest on it."""

    plan: SlotPlan
    state: SlotState
    attempt: Attempt
    short_lives: int
    restarts: tuple[float, ...]
    doomed: bool
    ever_up: bool


def memory_of(slot: Slot) -> SlotMemory:
    """Return what a slot leaves."""
    tally = slot._tally
    return SlotMemory(
        slot.plan, slot.state, slot._attempt, tally.short_lives, tally._restarts, slot._doomed, slot.ever_up
    )


def remind(slot: Slot, memory: SlotMemory) -> None:
    """Let a slot, which may have another plan by now, go on where that one was."""
    slot.state, slot.ever_up = memory.state, memory.ever_up
    slot._attempt, slot._doomed = memory.attempt, memory.doomed
    slot._tally.short_lives, slot._tally._restarts = memory.short_lives, memory.restarts


@record
class Legacy:
    """All that a supervisor leaves.

    Attributes:
        slots: In the order of their PINs.
        announced: Whether it was told that every worker is up, or that one was not.
    """

    slots: tuple[SlotMemory, ...]
    announced: bool


KINDS: tuple[type, ...] = (
    Legacy, SlotMemory, SlotPlan,
    t.Restart, t.Limit, t.Purpose, t.Action, t.Rung, t.Watch, t.Wear,
    t.Backoff, t.Waiting, t.Starting, t.Running, t.Hung, t.Stopping, t.Killing, t.Finished, t.Failed, t.Retired,
    t.Abandoned,
    t.FailureRecord, t.Previous, t.Exited, t.Signaled, t.Vanished,
)  # fmt: skip
"""What there is of this room in what is handed over."""


class Codec:
    """Packs values of these kinds, tuples, sets and plain ones, and unpacks nothing else."""

    def __init__(self, kinds: Iterable[type]) -> None:
        self._kinds: dict[str, Any] = {kind.__name__: kind for kind in kinds}

    def schema(self) -> list[Plain]:
        """Return what another version must have in common with this one to understand what this one packs."""
        return [[name, *_fields(kind)] for name, kind in sorted(self._kinds.items())]

    def pack(self, value: object) -> Plain:
        """Return a value as plain values."""
        if isinstance(value, enum.Enum) and type(value).__name__ in self._kinds:
            return [type(value).__name__, value.value]
        if value is None or isinstance(value, bool | float):
            return value
        # A user's IntEnum or the like is what it is worth.
        if isinstance(value, int):
            return int(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, tuple):
            return ["tuple", *map(self.pack, cast(tuple[object, ...], value))]
        if isinstance(value, frozenset):
            return ["set", *map(self.pack, sorted(cast(frozenset[int], value)))]
        old: Any = value
        assert type(value).__name__ in self._kinds, value
        return [type(value).__name__, *(self.pack(getattr(old, name)) for name in old.__match_args__)]

    def unpack(self, plain: object) -> Any:
        """Return what was packed.

        Raises:
            HandoverError: It is nothing that `pack` returns.
        """
        if plain is None or isinstance(plain, bool | int | float | str):
            return plain
        whole: object = plain
        parts = cast(list[object], plain) if isinstance(plain, list) else []
        if not parts:
            raise HandoverError(f"expected a plain value or a list that begins with a kind, got {t.shown(whole)}")
        name, *parts = parts
        values = [self.unpack(part) for part in parts]
        if name == "tuple":
            return tuple(values)
        if name == "set":
            return frozenset(values)
        kind = self._kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise HandoverError(f"expected a kind of value that this version knows, got {t.shown(name)}")
        if issubclass(kind, enum.Enum):
            if len(values) == 1 and values[0] in [member.value for member in kind]:
                return kind(values[0])
        elif len(values) == len(kind.__match_args__):
            return kind(*values)
        raise HandoverError(f"expected the fields of {name} as this version has them, got {t.shown(values)}")


def _fields(kind: Any) -> list[Plain]:
    if issubclass(kind, enum.Enum):
        return [member.value for member in kind]
    return list(kind.__match_args__)
