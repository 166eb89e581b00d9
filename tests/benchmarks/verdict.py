"""The budget: which figures must not exceed what, and whether they do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.table import number

HEADINGS = ["", "bare loop", "with imports", "pyworkers", "ratio", "ratio by imports", "budget", "verdict"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. What has a yardstick is judged by the ratio, anything else by the value.

    Attributes:
        figure: What it is of, and its unit.
        ours: The value; None where it could not be measured.
        budget: The largest ratio, or value; None where there is none, and it is told for comparison.
        yardstick: The same of the bare loop, or of what else it is to be compared with.
        imports: The same of the bare loop with imports: every program that has imported threading pays for its
            functions in each child.
        by_imports: Whether that is what the ratio is judged by.
    """

    figure: str
    ours: float | None
    budget: float | None
    yardstick: float | None = None
    imports: float | None = None
    by_imports: bool = False

    @property
    def judged(self) -> float | None:
        """What the budget is for; None where nothing can be said."""
        divisor = self.imports if self.by_imports else self.yardstick
        return self.ours if divisor is None else ratio(self.ours, divisor)

    @property
    def verdict(self) -> str:
        """`met` or `over`, or a dash."""
        if self.budget is None or self.judged is None:
            return "-"
        return "met" if self.judged <= self.budget else "over"

    def cells(self) -> list[str]:
        """Return what stands in the row of the table."""
        return [
            self.figure,
            _shown(self.yardstick),
            _shown(self.imports),
            _shown(self.ours),
            _shown(ratio(self.ours, self.yardstick), ".2f"),
            _shown(ratio(self.ours, self.imports), ".2f"),
            _shown(self.budget, "g"),
            self.verdict,
        ]


def ratio(value: float | None, yardstick: float | None) -> float | None:
    """Return one by the other, as far as there is something to divide."""
    return value / yardstick if value is not None and yardstick else None


def checkpoint_budget(version: Sequence[int] = sys.version_info) -> float:
    """Return the budget of a checkpoint: 3.11 runs it faster than the others."""
    return 1.25 if tuple(version[:2]) == (3, 11) else 1.5


def _shown(value: float | None, form: str = "") -> str:
    if value is None:
        return "-"
    return format(value, form) if form else number(value)
