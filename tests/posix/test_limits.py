"""What the system allows: the lowest limit is found wherever it is set, and named as an administrator knows it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_groups import few_processes
from helpers import Bench
from pyworkers._posix import cgroups, limits

MANY = 10**9


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a limit of processes, whose control groups are beneath the directory that is returned."""
    files = {
        "/proc/self/cgroup": "0::/system.slice/shop.service\n",
        "/proc/self/mountinfo": f"29 23 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n",
    }
    monkeypatch.setattr(cgroups, "_read", files.__getitem__)
    number = limits._number
    monkeypatch.setattr(limits, "_number", lambda path: None if path.startswith("/proc/sys") else number(path))
    monkeypatch.setattr(limits, "_is_exempt", lambda: True)
    (tmp_path / "system.slice/shop.service").mkdir(parents=True)
    return tmp_path


def test_nothing_is_short_where_nothing_limits(unlimited: Path) -> None:
    """Without a limit there is none to name."""
    assert list(limits.shortages(MANY, 0)) == []


@pytest.mark.parametrize("name", ["pid_max", "threads-max"])
def test_limit_of_the_kernel_is_named(name: str) -> None:
    """This machine's own: exactly as many are no shortage, one more is."""
    value = int(Path(f"/proc/sys/kernel/{name}").read_text())
    found = [limit for limit in limits._of_processes() if limit.name == f"kernel.{name}"]

    assert found == [limits.Limit(value, f"kernel.{name}")]


def test_as_many_as_allowed_are_no_shortage(unlimited: Path) -> None:
    """The limit counts all of them, so the last one still fits."""
    (unlimited / "system.slice/pids.max").write_text("7\n")

    assert list(limits.shortages(7, 0)) == []
    assert list(limits.shortages(8, 0)) == [f"8 processes are needed, and {unlimited}/system.slice/pids.max allows 7"]


@pytest.mark.parametrize("group", ["", "system.slice/", "system.slice/shop.service/"])
def test_control_group_is_bound_by_all_above_it(unlimited: Path, group: str) -> None:
    """The lowest of them counts, and one without a limit says `max`."""
    for each in ("", "system.slice/", "system.slice/shop.service/"):
        (unlimited / each / "pids.max").write_text("max\n" if each != group else "12\n")

    assert list(limits.shortages(13, 0)) == [f"13 processes are needed, and {unlimited}/{group}pids.max allows 12"]


def limited(soft: int, kind: int) -> Iterator[None]:
    """Lower a soft limit of this process for a while."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_descriptors_that_are_open_count(unlimited: Path) -> None:
    """Those that are there, those that the master will need, and those that were asked for."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.contextmanager(limited)(400, resource.RLIMIT_NOFILE))
        there = limits._open_count()
        room = 400 - there - limits._RESERVE

        assert list(limits.shortages(1, room)) == []
        stack.enter_context(open(os.devnull))
        assert list(limits.shortages(1, room)) == [
            "401 descriptors are needed, and RLIMIT_NOFILE (ulimit -n) allows 400"
        ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("capable", "binds"), [(True, False), (False, True)])
def test_limit_of_a_user_does_not_bind_root_and_the_capable(capable: bool, binds: bool) -> None:
    """getrlimit(2), RLIMIT_NPROC: judged by the user and the capabilities, in a process that gives them up."""
    code = """
import ctypes, os, resource, sys
from pyworkers._posix import limits
PR_SET_KEEPCAPS = 8
resource.setrlimit(resource.RLIMIT_NPROC, (50, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
assert limits._is_exempt()
if sys.argv[1] == "True":
    # setuid(2) takes the effective capabilities in any case; capset(2) brings them back.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
os.setresuid(65534, 65534, 65534)
if sys.argv[1] == "True":
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0], sets[3] = sets[1], sets[4]
    assert libc.capset(header, sets) == 0, ctypes.get_errno()
print(any(limit.name == "RLIMIT_NPROC (ulimit -u)" and limit.value == 50 for limit in limits._of_processes()))
"""
    done = subprocess.run([sys.executable, "-c", code, str(capable)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == str(binds)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that allows 20 processes; who writes to its cgroup.procs enters it."""
    with few_processes(20) as made:
        yield made


def test_control_group_that_cannot_hold_all_is_named_and_the_last_waits_for_room(group: Path, bench: Bench) -> None:
    """One line names the file before the first fork; who does not fit is forked when there is room."""

    def enter() -> None:
        (group / "cgroup.procs").write_text("0")

    master = bench.start(
        """
        app = App(backoff=(0.05, 0.05))

        @app.worker(pins=range(20))
        def work(pin):
            app.sleep(3600)
        """,
        preexec_fn=enter,
    )
    master.await_log("cannot fork work pin=19: Resource temporarily unavailable; trying again")

    assert len(master.matches("worker started")) == 19
    assert master.log.partition("] ")[2].startswith(
        f"ERROR 21 processes are needed, and {group}/pids.max allows 20;"
        " raise that, or have fewer PINs or spares: who does not fit waits\n"
    )
    (group / "pids.max").write_text("max")
    assert master.worker(19)
    assert master.stop() == 0


def test_control_group_that_holds_all_is_not_mentioned(group: Path, bench: Bench) -> None:
    """As many as fit exactly are no shortage."""

    def enter() -> None:
        (group / "cgroup.procs").write_text("0")

    master = bench.start(
        """
        app = App()

        @app.worker(pins=range(19))
        def work(pin):
            app.sleep(3600)
        """,
        preexec_fn=enter,
    )
    master.await_log("worker started", 19)

    assert "ERROR" not in master.log
    assert master.stop() == 0


def test_descriptors_that_the_spares_will_lack_are_named(bench: Bench) -> None:
    """A spare needs a pipe in the master; those that get none keep no PIN from its worker."""
    source = """
        app = App(spares=40)

        @app.worker(pins=0)
        def work(pin):
            app.sleep(3600)
        """

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    master = bench.start(source, preexec_fn=lower)
    master.worker(0)
    master.await_log(r"cannot fork work spare=\d+: Too many open files; trying again")

    assert master.matches(r"ERROR \d+ descriptors are needed, and RLIMIT_NOFILE \(ulimit -n\) allows 64;")
    assert master.stop() == 0


def test_instance_that_gets_no_memory_to_share_is_not_started(bench: Bench) -> None:
    """mmap(2), ENOMEM: one line and code 2, and no traceback."""
    source = f"""
        import resource

        app = App()

        @app.on_start
        def shrink() -> None:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + (40 << 20), resource.RLIM_INFINITY))

        @app.worker(pins=range({250_000}))
        def work(pin):
            app.sleep(3600)
        """
    master = bench.start(source)

    assert master.wait() == 2
    assert master.matches(r"ERROR not started: cannot get the shared memory .*: Cannot allocate memory\n")
    assert "Traceback" not in master.log
