"""A batch file of Slurm: a job array whose elements are shards, and come back until their work is done: sbatch(1)."""

from __future__ import annotations

import re
import shlex

from pyworkers._export.launch import Launch
from pyworkers.errors import ExitCode

WARNING_S = 30
"""Beyond the time that a stop takes, for the requeue behind it. Slurm warns up to a minute earlier than asked."""


def export(launch: Launch) -> str:
    """Return the file; it runs as it is, where the directory and the interpreter are those of all nodes.

    Raises:
        UsageError: It has an option that has no place in a job.
    """
    launch.refuse("slurm", daemon="a job ends with its script", notify_fd="nobody waits for that")
    shards = launch.shards or 1
    more = [f"--shard=slurm/{shards}"]
    if launch.lock_file is not None and "if_running" not in launch.said:
        # What holds the lock is the same shard before its requeue, on its way out.
        more.append("--if-running=wait")
    return _FILE.format(
        name=re.sub(r"[^\w.-]", "-", launch.name, flags=re.ASCII),
        shards=shards,
        last=shards - 1,
        cpus=launch.seats,
        warning_s=launch.stop_s + WARNING_S,
        directory=shlex.quote(launch.directory),
        variables="".join(f"export {name}={shlex.quote(text)}\n" for name, text in launch.variables.items()),
        command=shlex.join(launch.command(launch.interpreter, *more)),
        usage=int(ExitCode.USAGE),
        stop_all=int(ExitCode.STOP_ALL),
    )


_FILE = """\
#!/bin/bash
# For sbatch. Each element of the array is a shard, and a job of its own: a node that is lost takes only its own along.
# Before the end of its time it is asked to stop, and comes back, as often as it takes.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --nodes=1
#SBATCH --ntasks=1
# CHANGE ME: this is one for each process of a shard. Fewer do, where they mostly wait.
#SBATCH --cpus-per-task={cpus}
#SBATCH --requeue
#SBATCH --signal=TERM@{warning_s}
#SBATCH --chdir={directory}
#SBATCH --output=%x.%a-of-{shards}.log
#SBATCH --open-mode=append

{variables}# srun: else the time limit's warning would reach nobody. It does not take over the number of CPUs by itself.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" {command}
code=$?

# 0: every PIN of the shard has ended. {usage}: usage, or a bad app. {stop_all}: App.stop_all.
# All else comes again, such as 143, asked to stop in time, and 137, the master was killed; but not after scancel.
case $code in 0 | {usage} | {stop_all}) exit $code ;; esac
# Not SLURM_JOB_ID: that of the last element is the number of the whole array.
element=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
# A controller that is just being restarted is waited for.
until state=$(scontrol show job "$element"); do sleep 5; done
case $state in *JobState=RUNNING*) scontrol requeue "$element" ;; esac
exit $code
"""
