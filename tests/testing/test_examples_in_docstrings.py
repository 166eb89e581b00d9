"""What stands in the docstrings of the kit as an example is run."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

import pyworkers.testing


@pytest.mark.parametrize("name", pyworkers.testing.__all__)
def test_example_does_what_it_says(name: str) -> None:
    """What a user calls has one, and it is right; what is only handed out says what is in it."""
    public = getattr(pyworkers.testing, name)
    module = importlib.import_module(public.__module__)
    (found,) = doctest.DocTestFinder(recurse=False).find(public, name, module)
    if name in ("HandlerResult", "SimulatedAttempt", "Timeline", "WorkerStatus"):
        assert "Attributes:" in (inspect.getdoc(public) or "")
    else:
        assert found.examples
    runner = doctest.DocTestRunner()

    assert runner.run(found).failed == 0
