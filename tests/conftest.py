"""Fixtures that all rooms' tests share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from helpers import Bench, bench_in

# The same examples each time; whoever changes a machine looks further: pytest --hypothesis-profile=long
settings.register_profile("quick", max_examples=60, stateful_step_count=50, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=2000, stateful_step_count=100, deadline=None)
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def _nobody_s_directories() -> Iterator[None]:
    """Masters that became somebody who is in no list of users have had their runtime directory there."""
    yield
    for left in Path("/tmp").glob("pyworkers-5432[0-9]"):
        with contextlib.suppress(OSError):
            # Not one that another process of this run still has something in.
            left.rmdir()


@pytest.fixture(scope="session", autouse=True)
def _runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Apps of the same name run in the other processes of this run: nobody is to find those, or be found by them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A directory in which apps run; nothing survives the test. One that fails shows the logs."""
    with bench_in(tmp_path) as lent:
        yield lent
    for instance in lent.instances:
        # pytest shows what a fixture prints where the test has failed.
        print(f"log of {instance!r}:\n{instance.log}")
