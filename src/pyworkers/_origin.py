"""How this program has begun: by itself, or in the course of a reload, for a check or to take over."""

from __future__ import annotations

import contextlib
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
    """

    origin: Origin
    target: str | None
    errand: Errand | None = None
    estate: Estate | None = None
    early: EarlySignals | None = None
    children: frozenset[Pid] = frozenset()

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


def beginning(target: str | None = None) -> Beginning:
    """Return it, before anything is changed, or loaded that the user has written.

    Raises:
        UsageError: What was handed over cannot be read.
    """
    errand = reexec.errand()
    origin = reexec.origin()
    if errand is None:
        return Beginning(origin, target)
    from pyworkers import _succession

    estate = _succession.read(errand.read())
    if errand.answer is not None:
        return Beginning(origin, target, errand, estate)
    children = process.children() or frozenset()
    return Beginning(origin, target, errand, estate, EarlySignals(estate.mask), children)
