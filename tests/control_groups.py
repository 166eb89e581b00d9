"""Control groups of our own for tests, with little of something; processes enter one by a write to its cgroup.procs."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import until
from pyworkers._posix import cgroups
from pyworkers._posix.memory import OomKills

_numbers = itertools.count()


@contextlib.contextmanager
def little_memory(size: int) -> Iterator[Path]:
    """A control group with so many bytes; skips the test where there can be none."""
    counter = Path(OomKills()._path)
    if counter.name not in {"memory.events", "memory.oom_control"}:
        pytest.skip("we are in no control group with a memory controller")
    # cgroups(7), "no internal processes": in version 2 a group with processes has no limited groups beneath it, so
    # ours goes beside the own one. In version 1 it goes beneath it, where all limits that we are under still hold.
    place = counter.parent.parent if counter.name == "memory.events" else counter.parent
    try:
        made = _made_in(place)
    except OSError as error:
        pytest.skip(f"cannot make a control group in {place}: {error.strerror}")
    with _removing(made):
        try:
            _limit_memory(made, size)
        except OSError as error:
            pytest.skip(f"cannot limit the memory of a control group in {place}: {error.strerror}")
        yield made


@contextlib.contextmanager
def few_processes(count: int) -> Iterator[Path]:
    """A control group that allows so many processes; skips the test where there can be none."""
    for place in cgroups.places("pids"):
        with contextlib.ExitStack() as stack:
            try:
                made = _made_in(Path(place.point + place.group))
                stack.enter_context(_removing(made))
                # Where two versions are mounted, only one of them has this file.
                (made / "pids.max").write_text(str(count))
            except OSError:
                continue
            yield made
            return
    pytest.skip("cannot make a control group that limits processes")


def _made_in(place: Path) -> Path:
    made = place / f"pyworkers-test-{os.getpid()}-{next(_numbers)}"
    made.mkdir()
    return made


def _limit_memory(group: Path, size: int) -> None:
    """Give a group little memory, and no swap where the kernel accounts for that."""
    if (group / "memory.max").exists():
        (group / "memory.max").write_text(str(size))
        swap, swap_size = group / "memory.swap.max", 0
    else:
        (group / "memory.limit_in_bytes").write_text(str(size))
        swap, swap_size = group / "memory.memsw.limit_in_bytes", size
    if swap.exists():
        swap.write_text(str(swap_size))


@contextlib.contextmanager
def _removing(group: Path) -> Iterator[None]:
    try:
        yield
    finally:
        until(lambda: _removed(group), f"the end of {group}")


def _removed(group: Path) -> bool:
    """Whether the group is gone; whoever is left in it is one of ours."""
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    # EBUSY as long as a process in it has not been reaped, by whomever.
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
