"""The overlap checker finds what it is for, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.overlap import BEAT_S, Book, Diary, Life, lives, overlaps


def life(first: float, last: float, pin: int = 0, pid: int = 1) -> Life:
    return Life("n1", pid, pin, 0, first, last, ended=True)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ([], []),
        ([life(0, 2), life(2.001, 4)], []),
        ([life(0, 2), life(1, 4)], [1.0]),
        ([life(1, 4), life(0, 2)], [1.0]),
        ([life(0, 9), life(1, 2)], [1.0]),
        ([life(0, 9), life(1, 2), life(3, 4)], [1.0, 1.0]),
        ([life(0, 2), life(1, 4, pin=1)], []),
        ([life(0, 5), life(1, 6), life(2, 7)], [4.0, 3.0, 4.0]),
    ],
)
def test_overlaps_are_found_and_measured(told: list[Life], seconds: list[float]) -> None:
    """A successor that begins at once is none, and another PIN's worker neither."""
    assert [found.seconds for found in overlaps(told)] == seconds


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 20)), max_size=12))
def test_overlaps_are_those_of_every_pair(told: list[tuple[int, int, int]]) -> None:
    """As many as there are pairs that cut each other."""
    made = [life(first, first + length, pin, pid) for pid, (pin, first, length) in enumerate(told)]

    pairs = 0
    for index, one in enumerate(made):
        for other in made[index + 1 :]:
            older, newer = (one, other) if one.first <= other.first else (other, one)
            pairs += one.pin == other.pin and older.last > newer.first
    assert len(overlaps(made)) == pairs


def test_lines_become_lives() -> None:
    """A pid that comes again is another process; who was killed has not ended; half a line is left out."""
    text = (
        "1.0 n1 7 0 3 start\n1.1 n1 7 0 3 beat\n1.2 n2 7 0 4 start\n1.3 n1 7 0 3 beat\n1.4 n1 7 0 3 end\n"
        "2.0 n1 7 0 5 start\n2.1 n1 7 0"
    )

    assert lives(text.splitlines(keepends=True)) == [
        Life("n1", 7, 0, 3, 1.0, 1.4, ended=True),
        Life("n2", 7, 0, 4, 1.2, 1.2, ended=False),
        Life("n1", 7, 0, 5, 2.0, 2.0, ended=False),
    ]


def test_two_processes_with_one_pin_are_seen(tmp_path: Path) -> None:
    """By the diaries that they keep; and one after the other is as it should be."""
    book = Book(tmp_path / "book")

    def keep(pin: int) -> None:
        with Diary(book.path, pin) as diary:
            for _ in range(4):
                diary.beat()
                time.sleep(BEAT_S)  # a beat's length

    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=keep, args=(0,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert len(book.overlaps()) == 1

    later = fork.Process(target=keep, args=(0,))
    later.start()
    later.join()
    keep(1)
    assert len(book.overlaps()) == 1
    assert [told.pid for told in book.of(1)] == [os.getpid()]
    assert book.holders([0, 1]) is None
    with Diary(book.path, 2):
        assert list(book.holders([2]) or ()) == [2]
