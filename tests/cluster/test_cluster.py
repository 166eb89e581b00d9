"""The simulated cluster as a test: a short run, and a run against each of the faults that it must find.

The faults, each put into a copy of the core:

- a holder trusts its row for longer than others wait
- a renewal is seen when it is asked for
- a row is wanted again while its worker lives
- a row that was not renewed counts as renewed
- another renewal does not begin anew
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyworkers
from cluster.__main__ import Size, loss_of_a_tenth, storm

TESTS = Path(__file__).parent.parent

FAULTS: dict[str, tuple[str, str]] = {
    "a holder trusts its row for longer than others wait": ("KILL = 5 / 6", "KILL = 7 / 6"),
    "a renewal is seen when it is asked for": (
        "self._seen.get(renewal, (now, ttl))",
        "self._seen.get(renewal, (now - ttl / 3, ttl))",
    ),
    "a row is wanted again while its worker lives": (
        "            del self._good_at[pin]\n",
        "            del self._good_at[pin]\n            self._wanted[pin] = self._now\n            self._claim = None\n",
    ),
    "a row that was not renewed counts as renewed": ("reply.renewed", "asked.renew"),
    "another renewal does not begin anew": (
        "self._seen.get(renewal, (now, ttl))",
        "next((seen for (owner, _), seen in self._seen.items() if owner == renewal[0]), (now, ttl))",
    ),
}


def test_storm_breaks_no_promise() -> None:
    """Twelve hosts on which everything goes wrong all the time: no PIN is held twice, none that is done comes back."""
    world = storm(1, Size(12, 60, 2, 6.0), seconds=300, per_s=0.5)

    assert world.served["started"] > 200
    assert world.served["ended by the guard"] > 10
    assert world.done


def test_standbys_take_over_what_a_tenth_of_the_hosts_has_left() -> None:
    """Between one third of the TTL before and one sixth after it, and at ten statements a second for a hundred hosts."""
    size = Size(100, 1000, 3, 30.0)
    world = loss_of_a_tenth(1, size)

    assert len(world.taken_over_s) == 100
    assert min(world.taken_over_s) > 15
    assert max(world.taken_over_s) < 35
    assert world.served["renewals"] / 300 == pytest.approx(9.3, abs=0.7)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.replace(" ", "-"))
def test_fault_is_found(fault: str, tmp_path: Path) -> None:
    """Each of the faults makes a storm break a promise."""
    root, copy = Path(pyworkers.__file__).parent, tmp_path / "pyworkers"
    shutil.copytree(root / "_core", copy / "_core", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__init__.py").touch()
    source = (copy / "_core" / "lease.py").read_text()
    right, wrong = FAULTS[fault]
    assert right in source
    (copy / "_core" / "lease.py").write_text(source.replace(right, wrong))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, TESTS)))}
    command = [sys.executable, "-m", "cluster", "--seed", "1", "--storms", "4", "--masters", "0"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "violation: " in done.stdout


def test_faults_are_those_of_the_docstring() -> None:
    """The list at the top of this module is the list of what is tried."""
    assert __doc__ is not None
    assert [line.removeprefix("- ") for line in __doc__.splitlines() if line.startswith("- ")] == list(FAULTS)
