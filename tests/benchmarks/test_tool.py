from __future__ import annotations

import pytest

from benchmarks.soak import Window, findings
from benchmarks.table import cell, comparison, number, percentile, rendered
from benchmarks.verdict import Row, checkpoint_budget


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, 1), (0.07, 7), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)],
    ids=lambda value: str(value),
)
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_percentile_of_a_single_value() -> None:
    assert percentile([3.5], 0.99) == 3.5


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.00001, "0"), (0.01234, "0.0123"), (12.34, "12.3"), (12345.6, "12346")]
)
def test_three_digits_count(value: float, text: str) -> None:
    assert number(value) == text


def test_cell_has_a_ratio_where_there_is_a_yardstick() -> None:
    assert [cell(None, 2.0), cell(3.0, None), cell(3.0, 0.0), cell(3.0, 2.0)] == ["-", "3", "3", "3 (1.50)"]


def test_comparison_has_a_dash_for_what_is_missing_and_orphans_come_last() -> None:
    rows = comparison({"loop": {"orphans": [10], "respawn ms": [1, 2, 3]}, "other": {"orphans": [0]}}, "loop")
    assert rows == [
        ["", "respawn ms", "respawn p99 ms", "orphans"],
        ["loop", "2 (1.00)", "3 (1.00)", "10"],
        ["other", "-", "-", "0"],
    ]


def test_table_of_markdown() -> None:
    assert rendered([["", "ms"], ["loop", "10"]], markdown=True) == "|      | ms |\n| ---- | -: |\n| loop | 10 |"


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("ratio", 1.15, 1.15, 1.0), "met"),
        (Row("ratio", 1.2, 1.15, 1.0, 2.0), "over"),
        (Row("ratio by the imports", 1.2, 1.15, 1.0, 2.0, by_imports=True), "met"),
        (Row("value", 6.0, 5.0), "over"),
        (Row("nothing", 0.0, 0.0), "met"),
        (Row("for comparison", 1.0, None, 1.0), "-"),
        (Row("could not be measured", None, 1.15, 1.0), "-"),
    ],
    ids=lambda value: value.figure if isinstance(value, Row) else value,
)
def test_verdict(row: Row, verdict: str) -> None:
    assert row.verdict == verdict
    assert row.cells()[-1] == verdict


def test_checkpoint_budget_is_that_of_the_version() -> None:
    assert [checkpoint_budget((3, minor)) for minor in (10, 11, 13)] == [1.5, 1.25, 1.5]


def test_soak_tells_what_has_grown() -> None:
    calm, grown = Window([1.0, 2.0], 1000, 10), Window([1.0, 3.0], 1100, 11)
    assert [line.rpartition(" ")[2] for line in findings([calm, calm], 0)] == ["met", "met", "met", "0"]
    assert [line.rpartition(" ")[2] for line in findings([calm, grown], 2)] == ["over", "over", "over", "2"]
