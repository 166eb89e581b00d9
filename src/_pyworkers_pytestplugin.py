"""The pytest plugin: the fixture `pyworkers_instance`.

A module of its own beside the package, as Hypothesis has one: pytest loads it at each start, for those who never use
it, too, and to load a module of a package is to load the package. That would also come before a coverage tool begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyworkers.testing import Instance


@pytest.fixture
def pyworkers_instance() -> Iterator[type[Instance]]:
    """Start instances of apps: a `pyworkers.testing.Instance` whose processes are killed at the end of the test.

    A test that fails shows their logs.
    """
    from pyworkers.testing import Instance

    with contextlib.ExitStack() as stack:

        class StartedInstance(Instance):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                stack.callback(_end, self)

        yield StartedInstance


def _end(instance: Instance) -> None:
    instance.close()
    # pytest shows what a fixture prints where the test has failed.
    print(f"log of {instance!r}:\n{instance.log}")  # noqa: T201  (as above)
