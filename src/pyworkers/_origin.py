"""How this program has begun: by itself, or in the course of a reload, for a check or to take over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from pyworkers._core.records import record
from pyworkers._core.types import Pid
from pyworkers._posix import process, reexec
from pyworkers._posix.reexec import Errand, Origin
from pyworkers._posix.signals import EarlySignals, Interrupted
from pyworkers.errors import AppImportError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._succession import Estate


BEGINS_MAX, CALM_S = 5, 60.0
"""So many programs may follow each other in so many seconds because of a file that changed while one began."""


@record
class Beginning:
    """That of this program.

    Attributes:
        origin: How to begin again.
        target: The import string, by which verbs find the instance; None for `app.run()`.
        errand: What the program before this one wants of it; None where there was none.
        estate: What that one has left.
        early: The signals that come before the master's traps stand; None where there is nothing to take over.
        children: Those that the program before this one has left, workers or not: nobody else can reap them any more.
        begins: When this program and a few before it began, the oldest first, by the clock that files have.
    """

    origin: Origin
    target: str | None
    errand: Errand | None = None
    estate: Estate | None = None
    early: EarlySignals | None = None
    children: frozenset[Pid] = frozenset()
    begins: tuple[float, ...] = ()

    @property
    def inherited(self) -> Estate | None:
        """What there is to take over; a check takes nothing."""
        return None if self.early is None else self.estate

    @contextlib.contextmanager
    def importing(self) -> Generator[None]:
        """Where the user's code is imported in the block, let a stop cut that short: workers wait to be told of it.

        Raises:
            AppImportError: It has.
        """
        if self.early is None:
            yield
            return
        try:
            with self.early.raising():
                yield
        except Interrupted as stop:
            raise AppImportError(f"{process.signal_name(stop.signum)} has come while its code was imported") from None

    @property
    def next_begins(self) -> tuple[float, ...]:
        """The `begins` of a program that begins now."""
        return (*self.begins, time.time())[-BEGINS_MAX:]

    @property
    def calm_at(self) -> float:
        """When one more may follow: code that writes a Python file as it is imported must not bring one by one."""
        return self.begins[0] + CALM_S if len(self.begins) == BEGINS_MAX else self.begins[-1]


def beginning(target: str | None = None) -> Beginning:
    """Return it, before anything is changed, or loaded that the user has written.

    Raises:
        UsageError: What was handed over cannot be read.
    """
    errand = reexec.errand()
    origin = reexec.origin()
    if errand is None:
        # A script has been read before its `app.run()`, and what it imports.
        return Beginning(origin, target, begins=(time.time() if target else reexec.started(),))
    from pyworkers import _succession

    estate = _succession.read(errand.read())
    if errand.answer is not None:
        return Beginning(origin, target, errand, estate)
    children = process.children() or frozenset()
    return Beginning(origin, target, errand, estate, EarlySignals(estate.mask), children, estate.begins)
