"""A real Slurm: controller and nodes of its own, one on each of the hosts, without systemd, cgroups or a database."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engines.hosts import Hosts, hosts_in
from helpers import clean_environment, until

PROGRAMS = ("ip", "munged", "slurmctld", "slurmd", "sbatch", "srun")

CPUS = 4
"""As many as each node claims to have: a shard that asks for all of them has a node to itself."""

# slurm.conf(5). Timers are short, so that a lost node is noticed in seconds; `cred_expire` is how long a requeued job
# has to wait, and 5 is the least that counts.
CONFIGURATION = """\
ClusterName=sandbox
SlurmctldHost=n0({controller})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=3
MessageTimeout=5
BatchStartTimeout=10
UnkillableStepTimeout=20
InactiveLimit=0
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A controller on host 0, and a node on each other host; up from the beginning."""

    def __init__(self, hosts: Hosts, root: Path) -> None:
        self.hosts, self._root = hosts, root
        nodes = [
            f"NodeName=n{number} NodeAddr={hosts.address(number)} CPUs={CPUS} State=UNKNOWN\n" for number in self._nodes
        ]
        text = CONFIGURATION.format(controller=hosts.address(0), root=root) + "".join(nodes)
        (root / "slurm.conf").write_text(text)
        # Else slurmd 22.05 wants to see a cgroup file system of version 2.
        (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (root / "state").mkdir()
        key = root / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self._do(
            0, "munged", "--force", f"--key-file={key}", f"--socket={root}/munge.sock", f"--pid-file={root}/munged.pid",
            f"--seed-file={root}/munged.seed", f"--log-file={root}/munged.log",
        )  # fmt: skip
        self.start_controller()
        for number in self._nodes:
            self.start_node(number)
        self.await_idle()

    @property
    def _nodes(self) -> range:
        return range(1, self.hosts.count + 1)

    def start_controller(self) -> None:
        """Start slurmctld; it goes to the background."""
        self._do(0, "slurmctld", "-i")

    def stop_controller(self) -> None:
        """Stop slurmctld by TERM, and return when it is gone."""
        pid = int((self._root / "slurmctld.pid").read_text())
        os.kill(pid, 15)
        until(lambda: pid not in self.hosts.pids(0), "the end of slurmctld")

    def start_node(self, number: int) -> None:
        """Start a node's slurmd, also after its power was off; it goes to the background."""
        (self._root / f"spool.n{number}").mkdir(exist_ok=True)
        self._do(number, "slurmd", "-N", f"n{number}")

    def await_idle(self) -> None:
        """Wait until all nodes are there, and have nothing to do."""

        def idle() -> bool:
            told = self.run("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split()
            return told == ["idle"] * self.hosts.count

        until(idle, "all nodes to be idle", 60)

    def run(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands to its end."""
        done = subprocess.run(
            self.hosts.command(0, *command),
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def submit(self, *arguments: str, **env: str) -> str:
        """Hand in a job, and return its number."""
        return self.run("sbatch", "--parsable", *arguments, **env).stdout.strip()

    def environment(self, **more: str) -> dict[str, str]:
        """Return what Slurm's commands need in their environment, and what a job gets."""
        return {**clean_environment(), "SLURM_CONF": str(self._root / "slurm.conf"), **more}

    def job(self, number: str) -> dict[str, str]:
        """Return what the controller knows of a job, or of an element of an array such as 7_1; nothing if nothing."""
        told = self.run("scontrol", "show", "job", "-o", number, check=False).stdout
        return dict(re.findall(r"(\w+)=(\S*)", told))

    def await_state(self, number: str, state: str, patience_s: float = 45) -> dict[str, str]:
        """Wait until a job is in this state, and return what is known of it."""

        def reached() -> dict[str, str]:
            known = self.job(number)
            return known if known.get("JobState") == state else {}

        try:
            return until(reached, f"job {number} to be {state}", patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.job(number)}") from None

    def logs(self) -> str:
        """Return the end of what the daemons have logged."""
        return "".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self._root.glob("slurm*.log")))

    def _do(self, number: int, *command: str) -> None:
        done = subprocess.run(
            self.hosts.command(number, *command),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: code {done.returncode}; {self.logs()}"


@contextlib.contextmanager
def cluster_of(count: int) -> Iterator[Cluster]:
    """Lend a cluster of so many nodes, and remove it after use."""
    # A short path, for sockets in it: unix(7).
    root = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with hosts_in(root, count) as hosts:
            yield Cluster(hosts, root)
    finally:
        shutil.rmtree(root)
