"""Figures as text: for a terminal, and as a table of Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

Figures = Mapping[str, Sequence[float]]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    # 0.07 of 100 is a little more than 7 in floating point.
    return ordered[max(1, math.ceil(round(share * len(ordered), 6))) - 1]


def number(value: float) -> str:
    """Return a value with three digits that count, and without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{round(value, 4):.3g}"


def cell(value: float | None, yardstick: float | None) -> str:
    """Return a value, and in brackets its ratio by the yardstick."""
    if value is None:
        return "-"
    return f"{number(value)} ({value / yardstick:.2f})" if yardstick else number(value)


def summary(figures: Figures) -> dict[str, float]:
    """Return the median of each figure; that of the respawns is followed by their 99th percentile."""
    found: dict[str, float] = {}
    for name, values in figures.items():
        if values:
            found[name] = statistics.median(values)
            if name == "respawn ms":
                found["respawn p99 ms"] = percentile(values, 0.99)
    return found


def comparison(found: Mapping[str, Figures], yardstick: str) -> list[list[str]]:
    """Return a row for each contender, below one of headings; each figure is followed by its ratio by the yardstick."""
    summaries = {name: summary(figures) for name, figures in found.items()}
    # Those that are measured first are of least interest.
    columns = sorted({column: None for figures in summaries.values() for column in figures}, key="orphans".__eq__)
    # A ratio of other units says nothing.
    by = {column: value for column, value in summaries.get(yardstick, {}).items() if column.endswith((" ms", " kB"))}
    return [
        ["", *columns],
        *([name, *(cell(each.get(column), by.get(column)) for column in columns)] for name, each in summaries.items()),
    ]


def rendered(rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Return the rows as lines of a table; the first row is that of the headings, the first column is to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[_padded(at, text, widths[at]) for at, text in enumerate(row)] for row in rows]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * width if at == 0 else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def _padded(column: int, text: str, width: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)
