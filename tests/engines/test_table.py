"""Which shard a process is, by every environment that an engine was seen to make; and how PINs are dealt out."""

from __future__ import annotations

import itertools

import pytest

from pyworkers import _shards
from pyworkers._core.scheduler import share
from pyworkers._core.types import Pin
from pyworkers._settings import InstanceSettings
from pyworkers.errors import UsageError

STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
ELEMENT = {"SLURM_JOB_ID": "9", "SLURM_PROCID": "0", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_STEP": "1"}


def element(index: int, count: int, least: int = 0, most: int = 7, **more: str) -> dict[str, str]:
    """Return the environment of an element of a job array."""
    told = {"ID": index, "COUNT": count, "MIN": least, "MAX": most}
    return {**ELEMENT, **{f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in told.items()}, **more}


# As measured with Slurm 22.05 and Open MPI 4.1.4; the rest as documented.
KNOWN = [
    ("2/8", {}, (2, 8)),
    ("0/1", {}, (0, 1)),
    *(
        (f"slurm/{6}", {**STEP, "SLURM_PROCID": str(rank), "SLURM_NTASKS": "6", "SLURM_NODEID": "0"}, (rank, 6))
        for rank in range(6)
    ),
    *(("slurm/8", element(index, 8), (index, 8)) for index in range(8)),
    # One element sent again, and some of them: their count is not that of the shards.
    ("slurm/8", element(2, 1, 2, 2), (2, 8)),
    *(("slurm/8", element(index, 3, 1), (index, 8)) for index in (1, 5, 7)),
    ("slurm/8", element(3, 8, SLURM_RESTART_COUNT="2"), (3, 8)),
    # An element whose script uses srun has a step with one task.
    ("slurm/8", element(3, 8, SLURM_STEP_ID="0", SLURM_NTASKS="1"), (3, 8)),
    ("kubernetes/8", {"JOB_COMPLETION_INDEX": "7"}, (7, 8)),
    ("nomad/3", {"NOMAD_ALLOC_INDEX": "0"}, (0, 3)),
    ("mpi/4", {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "3"}, (3, 4)),
    ("mpi/4", {"PMIX_RANK": "1"}, (1, 4)),
    ("mpi/4", {"PMI_RANK": "2", "PMI_SIZE": "4"}, (2, 4)),
    ("env:MY_RANK/4", {"MY_RANK": "2"}, (2, 4)),
    # Another engine's variables do not disturb.
    ("kubernetes/8", {**element(2, 8), "JOB_COMPLETION_INDEX": "5"}, (5, 8)),
]

REFUSED = [
    ("slurm/8", {}, "neither SLURM_ARRAY_TASK_ID nor SLURM_PROCID is set"),
    # The script of a job, with and without -n.
    ("slurm/4", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "use srun, or a job array"),
    ("slurm/1", {"SLURM_PROCID": "0"}, "use srun, or a job array"),
    # The shell that salloc starts is a step that Slurm keeps for itself.
    ("slurm/4", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "4294967290"}, "no task of srun"),
    ("slurm/8", {**STEP, "SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, "SLURM_NTASKS is 6: start 8 tasks, or say slurm/6"),
    ("slurm/8", element(2, 8, SLURM_NTASKS="4"), "use --ntasks=1"),
    ("slurm/8", element(8, 8, 1, 8), "this is number 8, and 8 shards have the numbers 0 to 7"),
    ("slurm/8", {**ELEMENT, "SLURM_ARRAY_TASK_ID": "two"}, "SLURM_ARRAY_TASK_ID must be"),
    ("kubernetes/8", {}, "JOB_COMPLETION_INDEX is not set: use a Job with completionMode: Indexed"),
    ("kubernetes/8", {"JOB_COMPLETION_INDEX": "8"}, "this is number 8"),
    ("kubernetes/8", {"JOB_COMPLETION_INDEX": ""}, "must be the shard's number, from 0 on, got ''"),
    ("nomad/8", {}, "NOMAD_ALLOC_INDEX is not set: use a task group with a count"),
    ("nomad/8", {"NOMAD_ALLOC_INDEX": "9"}, "this is number 9"),
    ("mpi/8", {}, "neither OMPI_COMM_WORLD_RANK nor PMIX_RANK nor PMI_RANK is set: use mpirun"),
    ("mpi/8", {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE is 4"),
    ("mpi/8", {"PMI_RANK": "0", "PMI_SIZE": "4"}, "PMI_SIZE is 4: start 8 tasks, or say mpi/4"),
    ("mpi/8", {"PMIX_RANK": "8"}, "this is number 8"),
    ("env:MY_RANK/4", {}, "MY_RANK is not set"),
    ("env:MY_RANK/4", {"MY_RANK": "4"}, "this is number 4"),
    ("env:MY_RANK/4", {"MY_RANK": "-1"}, "MY_RANK must be"),
]


@pytest.mark.parametrize(("asked", "environment", "shard"), KNOWN)
def test_shard_is_the_engines_rank(asked: str, environment: dict[str, str], shard: tuple[int, int]) -> None:
    """N is what was asked for."""
    assert _shards.check(asked) == asked
    assert _shards.resolve(asked, environment) == shard


@pytest.mark.parametrize(("asked", "environment", "words"), REFUSED)
def test_shard_that_cannot_be_told_is_refused(asked: str, environment: dict[str, str], words: str) -> None:
    """In one line that says what to do."""
    with pytest.raises(UsageError) as caught:
        _shards.resolve(_shards.check(asked), environment)

    assert words in str(caught.value)
    assert str(caught.value).startswith(f"shard {asked}: ")


@pytest.mark.parametrize(("pin_count", "shard_count"), list(itertools.product(range(21), range(1, 8))))
def test_shards_are_a_partition(pin_count: int, shard_count: int) -> None:
    """Disjoint, together all pairs of PIN and handler, and their sizes differ by at most one; PINs may have gaps."""
    whole = {Pin(3 * number): number % 2 for number in range(pin_count)}
    shards = [share(whole, index, shard_count) for index in range(shard_count)]

    assert sorted(pair for shard in shards for pair in shard.items()) == sorted(whole.items())
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert all(list(shard) == sorted(shard) for shard in shards)


def test_names_of_a_shard_are_its_own() -> None:
    """Several may land on one host; without a lock file there is none."""
    placed = _shards.placed(InstanceSettings("shop", lock_file="/run/shop.lock"), (2, 8))

    assert (placed.name, placed.lock_file) == ("shop.2-of-8", "/run/shop.lock.2-of-8")
    assert _shards.placed(InstanceSettings("shop"), (2, 8)).lock_file is None


@pytest.mark.parametrize(
    ("asked", "environment", "run", "attempt"),
    [
        (None, {"SLURM_JOB_ID": "7"}, None, None),
        ("0/2", {"SLURM_JOB_ID": "7"}, None, None),
        ("kubernetes/2", {"SLURM_JOB_ID": "7", "JOB_COMPLETION_INDEX": "0"}, None, None),
        ("slurm/2", {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7"}, "slurm-7", 0),
        ("slurm/2", {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3"}, "slurm-7", 3),
        ("slurm/2", {"SLURM_RESTART_COUNT": "?"}, None, None),
    ],
)
def test_run_and_attempt_are_the_engine_s(
    asked: str | None, environment: dict[str, str], run: str | None, attempt: int | None
) -> None:
    """A PIN that is done is done in one run, and of an engine's attempts only the last may hold a lease."""
    assert _shards.run_of(asked, environment) == (run, attempt)
