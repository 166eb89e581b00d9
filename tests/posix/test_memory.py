"""Linux's facts about memory, seen from real processes and, where the machine lets us, after real OOM kills."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import pytest

from control_groups import little_memory
from helpers import PATIENCE_S, state, until
from pyworkers._core.types import Pid
from pyworkers._posix import cgroups, memory, process, signals
from pyworkers._posix.memory import OomKills

MB = 1024 * 1024
ENDLESS = 2**60
"""A limit that no resident set reaches."""

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="this system has no /proc/PID/smaps_rollup"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def forked(main: Callable[[], int]) -> Pid:
    mask = signals.block()
    try:
        return process.fork(main)
    finally:
        signals.unblock(mask)


class Child:
    """A forked process that takes one step each time it is told to, and sends what the step returned."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._ours, theirs = Pipe()
        self.pid = forked(lambda: self._live(theirs, steps))
        self._reaped = False
        theirs.close()

    def _live(self, talk: Connection, steps: tuple[Callable[[], object], ...]) -> int:
        self._ours.close()
        # A collection would write to every object that is shared so far.
        gc.freeze()
        # Without us the child reads the end of the file, and ends.
        with contextlib.suppress(EOFError):
            for step in steps:
                talk.recv()
                talk.send(step())
            talk.recv()
        return 0

    def step(self) -> object:
        """Let it take its next step; EOFError where it dies of it."""
        self._ours.send(None)
        assert self._ours.poll(PATIENCE_S), "the child does not answer"
        result: object = self._ours.recv()
        # It waits for the next step now, and touches no more memory.
        until(lambda: state(self.pid) == "S", "the child at rest")
        return result

    def kill(self) -> None:
        """End it, and leave a zombie."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        """End it where that has not been done."""
        if not self._reaped:
            self.kill()
            os.waitpid(self.pid, 0)
            self._ours.close()
            self._reaped = True


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    """Makes children that do not outlive the test."""
    made: list[Child] = []

    def make(*steps: Callable[[], object]) -> Child:
        made.append(Child(*steps))
        return made[-1]

    yield make
    for each in made:
        each.reap()


def touch(data: bytearray) -> int:
    """Write to every page of it."""
    step = resource.getpagesize()
    data[::step] = b"y" * len(range(0, len(data), step))
    return len(data)


# How much memory a process has for itself.


@needs_proc
def test_shared_memory_becomes_private_when_the_child_writes_to_it(child: Callable[..., Child]) -> None:
    """Copy-on-write pages of the master count for a worker only from its first write to them."""
    ballast = bytearray(b"x") * (50 * MB)
    worker = child(os.getpid, lambda: touch(ballast))
    worker.step()
    before = memory.private_bytes(worker.pid, 0)
    worker.step()
    after = memory.private_bytes(worker.pid, 0)

    assert before is not None
    assert after is not None
    assert before < 25 * MB
    assert before + 49.5 * MB <= after <= before + 60 * MB


@needs_proc
def test_resident_set_within_the_limit_is_returned_without_the_walk(child: Callable[..., Child]) -> None:
    """The upper bound holds shared pages, too, and is what comes back as long as it is not above the limit."""
    ballast = bytearray(b"x") * (50 * MB)
    worker = child(os.getpid)
    worker.step()
    bound = memory.private_bytes(worker.pid, ENDLESS)

    assert bound is not None
    assert bound > len(ballast)
    assert bound == int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * resource.getpagesize()
    assert memory.private_bytes(worker.pid, bound) == bound
    walked = memory.private_bytes(worker.pid, bound - 1)
    assert walked is not None
    assert walked < bound - 48 * MB


@needs_proc
@pytest.mark.parametrize("limit", [0, ENDLESS])
def test_process_that_is_gone_has_no_size(child: Callable[..., Child], limit: int) -> None:
    """Neither a zombie nor a pid that nobody has is a process of zero bytes."""
    worker = child()
    worker.kill()
    zombie = memory.private_bytes(worker.pid, limit)
    worker.reap()

    assert zombie is None
    assert memory.private_bytes(worker.pid, limit) is None


@needs_proc
@needs_root
def test_process_of_another_user_has_no_size_that_we_could_know(child: Callable[..., Child]) -> None:
    """The kernel shows a process's pages to its own user only; what it refuses is no error."""
    ours = Pid(os.getpid())

    def ask() -> object:
        os.setuid(65534)
        return memory.private_bytes(ours, 0)

    assert child(ask).step() is None


def test_without_descriptors_nothing_is_known_and_nothing_raised(child: Callable[..., Child], tmp_path: Path) -> None:
    """An exhausted descriptor table hides the facts for a while; kills that fell into it are told afterwards."""
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 3\n")

    def starve() -> object:
        kills = OomKills(str(counter))
        counter.write_text("oom_kill 5\n")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        starved = OomKills().new_count()
        memory.invite_oom_killer(Pid(os.getpid()), b"1000")
        answers = [memory.private_bytes(Pid(os.getpid()), 0), memory.worker_oom_score(), kills.new_count(), starved]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return [*answers, kills.new_count()]

    assert child(starve).step() == [None, b"", 0, 0, 2]


# What the OOM killer took.

COUNTERS = {
    "memory.events": "low 0\nhigh 9\nmax 77\noom 12\noom_kill {}\noom_group_kill 8\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
    "vmstat": "nr_free_pages 5786101\noom_kill {}\nnuma_hit 81\n",
}


@pytest.mark.parametrize("name", COUNTERS)
def test_kills_are_counted_since_the_last_call(tmp_path: Path, name: str) -> None:
    """Each format's field is read; what had happened before the construction is not new."""
    counter = tmp_path / name
    counter.write_text(COUNTERS[name].format(7))
    kills = OomKills(str(counter))

    assert kills.new_count() == 0
    counter.write_text(COUNTERS[name].format(8))
    assert kills.new_count() == 1
    assert kills.new_count() == 0
    counter.write_text(COUNTERS[name].format(11))
    assert kills.new_count() == 3


@pytest.mark.parametrize("text", [None, "", "oom_kill", "oom_kill many\n", "oom 4\n"])
def test_counter_that_cannot_be_read_counts_nothing(tmp_path: Path, text: str | None) -> None:
    """A missing file, a kernel without the field and noise are no kills, and no error."""
    counter = tmp_path / "memory.events"
    if text is not None:
        counter.write_text(text)
    kills = OomKills(str(counter))

    assert kills.new_count() == 0
    counter.write_text("oom_kill 40\n")
    # Nobody knows how many of them are new.
    assert kills.new_count() == 0
    counter.write_text("oom_kill 41\n")
    assert kills.new_count() == 1


def test_counter_that_went_backward_starts_anew(tmp_path: Path) -> None:
    """A group that was made again under the same name counts from zero."""
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 9\n")
    kills = OomKills(str(counter))
    counter.write_text("oom_kill 1\n")

    assert kills.new_count() == 0
    counter.write_text("oom_kill 2\n")
    assert kills.new_count() == 1


@dataclass(frozen=True)
class Layout:
    """What a machine's /proc tells; POINT stands for where control groups are mounted.

    Attributes:
        counter: The file that is ours, of those that are there.
    """

    memberships: str
    mounts: str
    counter: str
    others: list[str] = field(default_factory=list)


ROOT_MOUNT = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
V2_MOUNT = "29 23 0:26 / POINT rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1_MOUNT = "35 31 0:32 / POINT/memory rw,relatime - cgroup cgroup rw,memory\n"
V1_CPU_MOUNT = "32 31 0:29 / POINT/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
UNIFIED_MOUNT = "41 31 0:38 / POINT/unified rw,relatime - cgroup2 cgroup2 rw\n"
V1_MEMBERSHIP = "9:name=systemd:/\n4:cpu,cpuacct:/elsewhere\n3:memory:/user.slice/shop\n0::/\n"

LAYOUTS = {
    "version 2": Layout(
        "0::/system.slice/shop.service\n",
        ROOT_MOUNT + V2_MOUNT,
        "system.slice/shop.service/memory.events",
        ["memory.events", "system.slice/memory.events"],
    ),
    "version 2 in a container with a namespace": Layout("0::/\n", V2_MOUNT, "memory.events"),
    "version 2 in a container without a namespace": Layout(
        "0::/docker/4711\n", V2_MOUNT, "memory.events", ["docker/memory.events"]
    ),
    "version 1": Layout(
        V1_MEMBERSHIP,
        V1_CPU_MOUNT + V1_MOUNT,
        "memory/user.slice/shop/memory.oom_control",
        ["memory/memory.oom_control", "cpu/elsewhere/memory.oom_control"],
    ),
    "version 1 beside a version 2 without the memory controller": Layout(
        V1_MEMBERSHIP, UNIFIED_MOUNT + V1_MOUNT, "memory/user.slice/shop/memory.oom_control", ["unified/cgroup.stat"]
    ),
    "version 2 beside a version 1 without the memory controller": Layout(
        "2:cpu,cpuacct:/elsewhere\n0::/shop\n", V1_CPU_MOUNT + UNIFIED_MOUNT, "unified/shop/memory.events"
    ),
    "version 1 mounted together with other controllers": Layout(
        "3:cpu,memory:/shop\n",
        "35 31 0:32 / POINT/both rw - cgroup cgroup rw,cpu,memory\n",
        "both/shop/memory.oom_control",
    ),
    "version 1 in a container that sees a part of the hierarchy": Layout(
        "3:memory:/docker/4711/shop\n",
        "35 31 0:32 /docker/4711 POINT/memory ro,nosuid master:11 - cgroup cgroup rw,memory\n",
        "memory/shop/memory.oom_control",
        ["memory/memory.oom_control"],
    ),
    "a path with a colon": Layout("0::/a:b\n", V2_MOUNT, "a:b/memory.events", ["memory.events"]),
    "control groups without the memory controller": Layout(
        "4:cpu,cpuacct:/elsewhere\n0::/\n", V1_CPU_MOUNT + UNIFIED_MOUNT, "vmstat"
    ),
    "no control groups": Layout("", ROOT_MOUNT, "vmstat"),
    "nothing that we understand": Layout("::\n4\n", "- cgroup2\n" + V2_MOUNT[:40], "vmstat"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_counter_of_the_own_group_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The own group's counter goes before that of the mount, and the whole machine's is the last resort."""
    layout = LAYOUTS[name]
    told = {
        "/proc/self/cgroup": layout.memberships,
        "/proc/self/mountinfo": layout.mounts.replace("POINT", str(tmp_path)),
    }
    monkeypatch.setattr(cgroups, "_read", told.__getitem__)
    monkeypatch.setattr(memory, "_VMSTAT", str(tmp_path / "vmstat"))
    for other in ("vmstat", *layout.others, layout.counter):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("oom_kill 0\n")
    kills = OomKills()
    for other in ("vmstat", *layout.others):
        (tmp_path / other).write_text("oom_kill 100\n")
    (tmp_path / layout.counter).write_text("oom_kill 1\n")

    assert kills.new_count() == 1


@pytest.mark.skipif(memory._read_counter("/proc/vmstat") is None, reason="this kernel counts no OOM kills")
def test_counter_of_this_machine_is_found() -> None:
    """Without a path, the counter is a file that is there."""
    assert memory._read_counter(OomKills()._path) is not None


def test_system_without_any_facts_is_harmless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no /proc, nothing is known, nothing counted, and nothing raised."""
    monkeypatch.setattr(cgroups, "_read", lambda _: "")
    monkeypatch.setattr(memory, "_VMSTAT", str(tmp_path / "none"))
    monkeypatch.setattr(memory, "_OWN_SCORE", str(tmp_path / "none"))

    assert OomKills().new_count() == 0
    assert memory.worker_oom_score() == b""
    memory.invite_oom_killer(Pid(os.getpid()), b"")


def test_nobody_is_invited_who_is_gone(child: Callable[..., Child]) -> None:
    """A pid that nobody has is no error."""
    worker = child()
    worker.reap()

    memory.invite_oom_killer(worker.pid, b"100")


# Real kills, in a control group of our own with little memory.

GROUP_BYTES = 512 * MB


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory; processes enter it by a write to its cgroup.procs."""
    with little_memory(GROUP_BYTES) as made:
        yield made


@pytest.fixture
def inside(group: Path, child: Callable[..., Child]) -> Callable[..., Child]:
    """Makes children in that group; they end before it does."""

    def make(step: Callable[[], object]) -> Child:
        made = child(lambda: (group / "cgroup.procs").write_text("0"), step)
        made.step()
        return made

    return make


def eat() -> int:
    """Take memory until somebody ends us, or the limit turns out not to hold."""
    eaten = [bytearray(b"x") * MB for _ in range(2 * GROUP_BYTES // MB)]
    return len(eaten) % 2


def idle() -> int:
    signal.pause()
    return 0


def test_real_kill_is_counted_when_its_victim_is_reaped(inside: Callable[..., Child], group: Path) -> None:
    """The master that collects a worker's SIGKILL can ask at once whether it was the OOM killer's."""

    def master() -> object:
        kills = OomKills()
        before = kills.new_count()
        _, eater = os.waitpid(forked(eat), 0)
        first = kills.new_count()
        pid = forked(idle)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return str(Path(kills._path).parent), before, eater, first, kills.new_count()

    assert inside(master).step() == (str(group), 0, signal.SIGKILL, 1, 0)


def larger_master(invitation: bytes) -> int:
    """Take more memory than our worker has, until the OOM killer strikes; return the worker's wait status."""
    kills, ours = OomKills(), Pid(os.getpid())
    reader, writer = os.pipe()

    def worker() -> int:
        process.die_with_parent(ours, signal.SIGKILL)
        # Half of what an invitation forgives less than the master gets, so that neither test rests on the kernel's
        # counters, which are some megabytes late.
        eaten = bytearray(b"x") * (GROUP_BYTES * 19 // 40)
        os.write(writer, b"x")
        idle()
        return len(eaten) % 2

    pid = forked(worker)
    memory.invite_oom_killer(pid, invitation)
    os.read(reader, 1)
    eaten: list[bytearray] = []
    while not kills.new_count():
        eaten.append(bytearray(b"x") * MB)
    return os.waitpid(pid, 0)[1]


def test_invited_worker_is_killed_in_place_of_a_larger_master(inside: Callable[..., Child]) -> None:
    """A tenth of the memory that there is: by so much a master may be larger than the worker that goes first."""
    score = memory.worker_oom_score()

    assert inside(lambda: larger_master(score)).step() == signal.SIGKILL


def test_without_an_invitation_the_larger_master_is_killed(inside: Callable[..., Child]) -> None:
    """The same pair, so that the test before this one proves something."""
    with pytest.raises(EOFError):
        inside(lambda: larger_master(b"")).step()


# Whom it shall take first.


def own_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


@needs_proc
def test_child_has_its_parents_score_and_a_hundred(child: Callable[..., Child]) -> None:
    """The invitation raises the child's score, and leaves the parent's alone."""
    before = own_score()
    worker = child(own_score)
    memory.invite_oom_killer(worker.pid, memory.worker_oom_score())

    assert worker.step() == min(before + 100, 1000)
    assert own_score() == before


@needs_proc
def test_score_is_capped_at_what_the_kernel_takes(child: Callable[..., Child]) -> None:
    """A master that stands at 950 has workers at 1000."""

    def master() -> object:
        Path("/proc/self/oom_score_adj").write_text("950")
        score = memory.worker_oom_score()
        memory.invite_oom_killer(Pid(os.getpid()), score)
        return score, own_score()

    assert child(master).step() == (b"1000", 1000)


@needs_proc
@pytest.mark.parametrize("score", [b"", b"1001", b"much"])
def test_score_that_the_kernel_refuses_has_no_effect(child: Callable[..., Child], score: bytes) -> None:
    """No exception, no other score, no descriptor left open."""

    def refused() -> object:
        before = own_score(), os.dup(0)
        os.close(before[1])
        memory.invite_oom_killer(Pid(os.getpid()), score)
        return (own_score(), os.dup(0)) == before

    assert child(refused).step() is True
