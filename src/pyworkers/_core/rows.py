"""What the supervisor hears of the rows that PINs are leased by, and what it says of them: see `pyworkers._core.lease`.

A row is the right to have a process on a PIN, in the whole cluster.
"""

from __future__ import annotations

from pyworkers._core.records import record
from pyworkers._core.types import Pin


@record
class OfRow:
    """An event that names the row of a PIN."""

    pin: Pin


class RowGranted(OfRow):
    """The row is held from now on."""


@record
class RowRevoked(OfRow):
    """The row is held no longer, or that is in doubt: no process may be left at `kill_by`."""

    kill_by: float


class RowLapsed(OfRow):
    """The row was over when its worker ended, as the next event tells: the master has been late to ask for that."""


class RowDone(OfRow):
    """The PIN has ended normally before, in the same run: nothing is left to do."""


RowEvent = RowGranted | RowRevoked | RowLapsed | RowDone


@record
class RowsAnswered:
    """The database has answered for the first time: a PIN that waits for its row holds up no start from now on."""


@record
class Vacate:
    """Tell the keeper of the rows that no process is left on this PIN.

    Attributes:
        done: Whether the PIN has ended normally.
        wanted: Whether a process will follow as soon as there is a new row.
    """

    pin: Pin
    done: bool = False
    wanted: bool = False
