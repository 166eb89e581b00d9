"""Fixtures that all rooms' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from helpers import Bench, bench_in

settings.register_profile("quick", max_examples=60, stateful_step_count=50, deadline=None)
settings.register_profile("long", max_examples=2000, stateful_step_count=100, deadline=None)
settings.load_profile("quick")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A directory in which apps run; nothing survives the test."""
    with bench_in(tmp_path) as lent:
        yield lent
