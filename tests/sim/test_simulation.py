"""The simulation of `sim.chaos` as a test: a short run, and a run against each of the faults that it must find.

The faults, each put into a copy of the core:

- a rung is climbed after its instant, not at it
- an event of an older attempt counts
- a respawn follows an end in a stop
- a turn to be recycled is kept for ever
- one restart too many is allowed
- the window of restarts is closed at its end
- a late master calls its workers hung
- a suspended worker is looked after
- a group is released one end too early
- an exit that its group asked for counts as a restart
- who ends normally in recycling is respawned
- a long life does not end a crash loop
- permanent failure codes are ignored
- a deadline that is put off is forgotten
- two workers write their stacks at once
- a quick stop grants more time than was left
- a failed PIN does not show in the exit code
- a torn unit does not show in the exit code
- a suspended spare is assigned
- a spare of another handler is taken
- spares are not dismissed
- what failed before counts after an operator's restart
- a PIN that is added while its process leaves has two
- a PIN that is taken away is followed by a new process
- spares do not come back with the first PIN of their handler
- a group that an operator starts anew does not wait for its last worker
- a spare that was abandoned is followed by a new one
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path

import pytest

import pyworkers
from pyworkers._core import messages as m
from pyworkers._core.messages import GivenUp, Next, StopKind
from pyworkers._core.types import Action, Limit
from sim.chaos import share
from sim.faults import FAULTS, Fault

SEEDS = (1, 2, 3)
EVENTS = 10_000

TESTS = Path(__file__).parent.parent


def test_random_histories_keep_every_promise() -> None:
    """Tens of thousands of random events break no invariant, and nothing that the core can do is missing in them."""
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        happened, violation = share(seed, EVENTS, first=0)
        assert violation is None, violation
        counts += happened

    expected = {
        # A reload has a machine of its own: tests/core/test_reload_machine.py.
        *(effect.__name__ for effect in typing.get_args(m.Effect) if not effect.__name__.startswith("Roll")),
        *(f"end: {follows.value}" for follows in Next),
        *(f"given up: {reason.value}" for reason in GivenUp),
        *(f"stop: {kind.name}" for kind in StopKind),
        *(f"recycled for {limit.value}" for limit in Limit),
        *(action.value for action in Action),
        *("exit code 0", "exit code 1", "exit code 254", "full batch", "look forgiven"),
        *("spare dismissed", "spare abandoned", "spare recalled", "machine suspended", "master suspended"),
    }
    # No PIN is leased here: that is simulated by `cluster`.
    expected -= {"Vacate", f"end: {Next.LEASE.value}"}
    assert counts.keys() >= expected, expected - counts.keys()


def test_same_seed_gives_the_same_history() -> None:
    """A seed is all that it takes to repeat a run."""
    assert share(4, 2000, first=0) == share(4, 2000, first=0)


def simulate(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation against this copy of the package."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, (package.parent, TESTS)))}
    command = [sys.executable, "-m", "sim", "--jobs", "1", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, of which there is only the core."""
    root, copy = Path(pyworkers.__file__).parent, tmp_path / "pyworkers"
    shutil.copytree(root / "_core", copy / "_core", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__init__.py").touch()
    return copy


def test_core_without_a_fault_passes(package: Path) -> None:
    """The copy itself is no reason for a violation; the seed and what has happened are printed."""
    done = simulate(package, "--seed", "5", "--events", "2000")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 5\n")
    assert " WorkerHung\n" in done.stdout


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what.replace(" ", "-"))
def test_fault_is_found(package: Path, fault: Fault) -> None:
    """Each of the faults is found within 60,000 events, and it is told how to see that again."""
    fault.put_into(package / "_core")

    done = simulate(package, "--seed", "1", "--events", "60000")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "violation: AssertionError" in done.stdout
    assert "again: python -m sim --seed 1 --instance" in done.stdout


def test_faults_are_those_of_the_docstring() -> None:
    """The list at the top of this module is the list of what is tried."""
    assert __doc__ is not None
    assert [line.removeprefix("- ") for line in __doc__.splitlines() if line.startswith("- ")] == [
        fault.what for fault in FAULTS
    ]
