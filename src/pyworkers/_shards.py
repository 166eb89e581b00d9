"""Which shard of an app this process runs: K of N, told by the user or by the engine that started it.

Pure: the environment is an argument. Loaded only where a shard is asked for: without that, no variable of an engine is
looked at, and a run in a shell of Slurm or a pod of Kubernetes is a run of all PINs. Two rules that a change must keep:

- N is what the user writes. Slurm's SLURM_ARRAY_TASK_COUNT is 1 when a single element of an array is sent again, and
  in a batch script SLURM_NTASKS counts processes that nobody has started. Where an engine does know its own N for sure,
  another one is refused.
- K is refused rather than guessed: a shard too many runs PINs twice, and a shard too few leaves some out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pyworkers._core.records import replace
from pyworkers._core.types import PINS_MAX
from pyworkers._settings import InstanceSettings
from pyworkers.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Environment = Mapping[str, str]
    Shard = tuple[int, int]

_SRUN_STEPS_MAX = 0xFFFFFFF0
"""Steps from here on are none of srun's, but Slurm's own: the batch script, salloc's shell, what a node adopted."""


def check(value: object) -> str:
    """Return a shard as it is asked for, or raise ValueError with what was expected."""
    if isinstance(value, str) and (found := re.fullmatch(r"([^/]+)/([0-9]{1,10})", value)):
        source, count = found[1], int(found[2])
        if re.fullmatch(r"[0-9]{1,10}", source):
            known = int(source) < count
        else:
            known = source in _ENGINES or re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", source) is not None
        if known and 1 <= count <= PINS_MAX:
            return value
    raise ValueError(f"K/N with K from 0 to N-1, or one of {', '.join(f'{name}/N' for name in _ENGINES)}, env:NAME/N")


def resolve(asked: str, environment: Environment) -> Shard:
    """Return K and N.

    Args:
        asked: As `check` returned it.
        environment: The variables that engines set.

    Raises:
        UsageError: K cannot be told, or N is not the engine's; the text says what to do.
    """
    source, _, number = asked.rpartition("/")
    count = int(number)
    if source.isdecimal():
        return int(source), count
    if source.startswith("env:"):
        index = _rank(source.removeprefix("env:"), environment, asked, "set it to the shard's number, from 0 on")
    else:
        index = _ENGINES[source](environment, asked, count)
    if index >= count:
        raise UsageError(
            f"shard {asked}: this is number {index}, and {count} shards have the numbers 0 to {count - 1}:"
            " start as many as you say, and number them from 0"
        )
    return index, count


def run_of(asked: str | None, environment: Environment) -> tuple[str | None, int | None]:
    """Return what the engine calls this run of the app, and how often it has started this shard again in it.

    Each of them is None where the engine does not tell, or there is none.
    """
    if asked is None or not asked.startswith("slurm/"):
        return None, None
    number = environment.get("SLURM_ARRAY_JOB_ID", environment.get("SLURM_JOB_ID"))
    restarts = environment.get("SLURM_RESTART_COUNT", "0")
    return None if number is None else f"slurm-{number:.50}", int(restarts) if restarts.isdecimal() else None


def placed(instance: InstanceSettings, shard: Shard) -> InstanceSettings:
    """Return the instance as that of a shard: several of them may share a host, and whatever is called after it."""
    label = "{}-of-{}".format(*shard)
    lock_file = None if instance.lock_file is None else f"{instance.lock_file}.{label}"
    return replace(instance, name=f"{instance.name}.{label}", lock_file=lock_file)


def _slurm(environment: Environment, asked: str, count: int) -> int:
    if "SLURM_ARRAY_TASK_ID" in environment:
        tasks = environment.get("SLURM_NTASKS", "1")
        if tasks != "1":
            raise UsageError(
                f"shard {asked}: this element of a job array has {tasks} tasks, and all of them would be the same"
                " shard: use --ntasks=1"
            )
        return _rank("SLURM_ARRAY_TASK_ID", environment, asked, "")
    if "SLURM_PROCID" not in environment:
        raise _unset(asked, "SLURM_ARRAY_TASK_ID nor SLURM_PROCID", "use a job array, or srun; see export slurm")
    step = environment.get("SLURM_STEP_ID", "")
    if not step.isdecimal() or int(step) >= _SRUN_STEPS_MAX:
        raise UsageError(
            f"shard {asked}: this is no task of srun, but the script of a job, where SLURM_PROCID is always 0:"
            f" use srun, or a job array (--array=0-{count - 1})"
        )
    _agree("SLURM_NTASKS", environment, asked, count)
    return _rank("SLURM_PROCID", environment, asked, "")


def _kubernetes(environment: Environment, asked: str, _count: int) -> int:
    return _rank("JOB_COMPLETION_INDEX", environment, asked, "use a Job with completionMode: Indexed")


def _nomad(environment: Environment, asked: str, _count: int) -> int:
    return _rank("NOMAD_ALLOC_INDEX", environment, asked, "use a task group with a count")


def _mpi(environment: Environment, asked: str, count: int) -> int:
    for rank, size in _MPI:
        if rank in environment:
            _agree(size, environment, asked, count)
            return _rank(rank, environment, asked, "")
    raise _unset(asked, " nor ".join(rank for rank, _ in _MPI), "use mpirun or mpiexec")


_MPI = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMIX_RANK", "PMIX_SIZE"), ("PMI_RANK", "PMI_SIZE"))
"""Open MPI; what follows the standards PMIx and PMI: the rank, and where there is one the number of ranks."""

_ENGINES: Mapping[str, Callable[[Environment, str, int], int]] = {
    "slurm": _slurm,
    "kubernetes": _kubernetes,
    "nomad": _nomad,
    "mpi": _mpi,
}


def _rank(name: str, environment: Environment, asked: str, advice: str) -> int:
    if name not in environment:
        raise _unset(asked, name, advice)
    text = environment[name]
    if re.fullmatch(r"[0-9]{1,10}", text) is None:
        raise UsageError(f"shard {asked}: {name} must be the shard's number, from 0 on, got {text!r:.80}")
    return int(text)


def _agree(name: str, environment: Environment, asked: str, count: int) -> None:
    told = environment.get(name, str(count))
    if told != str(count):
        source = asked.rpartition("/")[0]
        raise UsageError(f"shard {asked}: {name} is {told:.80}: start {count} tasks, or say {source}/{told:.80}")


def _unset(asked: str, names: str, advice: str) -> UsageError:
    neither = "neither " if " nor " in names else ""
    return UsageError(f"shard {asked}: {neither}{names} is {'' if neither else 'not '}set: {advice}")
