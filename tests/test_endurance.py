"""G6: what ends a lesser master.

No process, no memory, no descriptor, no room on the disk, nobody who reads its log, hooks that never return: it says
what it waits for, goes on, and can be stopped all the while.

Elsewhere: a crash loop and a stalled reader (test_logs.py), EAGAIN in the middle of a run (test_original_defects.py),
hooks that raise (test_lifecycle.py), a master that wakes up late (master/test_late.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import Bench, Instance, open_files, until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SLEEPER = """
app = App(backoff=(0.01, 0.01))

@app.worker(pins=0)
def work() -> None:
    with (here / "ups").open("a") as out:
        out.write(f"{os.getpid()}\\n")
    time.sleep(3600)
"""


def kill_and_await_successor(bench: Bench) -> None:
    """Kill the sleeper, and wait for the next one, without a look at the log."""
    pids = until(lambda: bench.read("ups").split(), "the sleeper")
    os.kill(int(pids[-1]), signal.SIGKILL)
    until(lambda: bench.read("ups").count("\n") > len(pids), "its successor")


# No process


NO_PROCESS = """
import resource

app = App()

@app.on_start
def drop() -> None:
    # RLIMIT_NPROC does not bind root: setrlimit(2).
    if os.geteuid() == 0:
        os.setgid(54322)
        os.setuid(54322)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))

@app.worker(pins=range(2))
def work(pin: int) -> None:
    time.sleep(3600)
"""


def limit_processes(master: Instance, count: int | None) -> None:
    """Set how many processes the master's user may have; None for as many as there may ever be."""
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[1] if count is None else count
    # prlimit(2) asks for the same user, or for a capability that root of a container lacks.
    who = {"user": 54322, "group": 54322} if os.geteuid() == 0 else {}
    subprocess.run(["prlimit", f"--pid={master.pid}", f"--nproc={soft}:"], check=True, **who)


def test_start_without_a_process_to_be_had_waits_for_one(bench: Bench) -> None:
    """G6: where not even the first fork succeeds, each PIN says so, and both start when there are processes again."""
    master = bench.start(NO_PROCESS)
    for pin in range(2):
        master.await_log(rf"ERROR cannot fork work pin={pin}: Resource temporarily unavailable; trying again in 0\.\ds")

    limit_processes(master, None)

    assert {master.worker(0), master.worker(1)} == set(master.workers())
    assert master.stop() == 0


def test_stop_without_a_process_to_be_had_ends_at_once(bench: Bench) -> None:
    """G6: a fork that fails again and again keeps nobody from stopping the instance."""
    master = bench.start(NO_PROCESS)
    master.await_log("cannot fork work pin=1", 2)

    assert master.stop() == 0
    assert "worker started" not in master.log
    assert "all workers stopped; master exits" in master.log


def test_failure_that_nobody_could_be_forked_for_is_named_and_the_next_is_told(bench: Bench) -> None:
    """G6: a fork that fails for on_failure costs this one telling, in so many words, and neither PIN nor hook."""
    master = bench.start(
        NO_PROCESS.replace("(1, ", "(50, ")
        + "@app.on_failure\ndef tell(record) -> None:\n    app.log.info('told of %s', record.cause)\n"
    )
    master.worker(1)
    limit_processes(master, 1)

    os.kill(master.worker(0), signal.SIGKILL)

    master.await_log("cannot fork for on_failure pin=0: Resource temporarily unavailable; it is not told")
    limit_processes(master, None)
    os.kill(master.worker(0, attempt=2), signal.SIGTERM)
    master.await_log("told of exit=143")
    assert not master.matches("told of signal=SIGKILL")
    assert master.stop() == 0


# No memory


NO_MEMORY = """
import ctypes

app = App()
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID = 0x20000000
home = os.open("/proc/self/ns/pid", os.O_RDONLY)

def lose(*_: object) -> None:
    # pid_namespaces(7): when the first process of a namespace has ended, fork(2) into it fails with ENOMEM.
    assert libc.unshare(CLONE_NEWPID) == 0
    first = os.fork()
    if first == 0:
        os._exit(0)
    os.waitpid(first, 0)
    (here / "lost").touch()

def find(*_: object) -> None:
    assert libc.setns(home, CLONE_NEWPID) == 0

@app.on_start
def trap() -> None:
    # The one way to run a line in the master's main thread: signals that mean nothing to it.
    signal.signal(signal.SIGVTALRM, lose)
    signal.signal(signal.SIGPROF, find)

@app.worker(pins=range(2))
def work(pin: int) -> None:
    time.sleep(3600)
"""


@AS_ROOT
def test_fork_without_memory_is_tried_again(bench: Bench) -> None:
    """G6: ENOMEM from the kernel is a line with the time of the next try, for this PIN alone, and no end."""
    master = bench.start(NO_MEMORY)
    other = master.worker(1)
    victim = master.worker(0)
    master.signal(signal.SIGVTALRM)
    until((bench.directory / "lost").exists, "a namespace that nobody can be born into")

    os.kill(victim, signal.SIGKILL)

    master.await_log(r"ERROR cannot fork work pin=0: Cannot allocate memory; trying again in \d\.\ds", 2)
    master.signal(signal.SIGPROF)
    successor = master.worker(0, attempt=2)
    assert set(master.workers()) == {other, successor}
    assert master.stop() == 0


# No descriptor


NO_DESCRIPTOR = """
import resource
from pyworkers._core import policy

policy.MEASURE_INTERVAL_S = 0.1  # thirty seconds are the default
app = App(backoff=(0.01, 0.01), lock_file=here / "lock")

@app.on_worker_start
def recover() -> None:
    # What is scarce in this test is the master's.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))

def wait_for(name: str) -> None:
    while not (here / name).exists():
        app.sleep(0.01)

@app.on_failure
def tell(record) -> None:
    recover()
    with (here / "told").open("a") as out:
        out.write(f"{record.pin}\\n")

@app.worker(pins=0)
def crash() -> None:
    time.sleep(3600)

@app.worker(pins=1, hang_timeout=0.5)
def hang() -> None:
    app.checkpoint()
    if app.previous is None:
        wait_for("hang")
        time.sleep(3600)
    app.sleep(3600)

@app.worker(pins=2, max_rss="40M")
def eat() -> None:
    if app.previous is None:
        wait_for("eat")
        eaten = bytearray(os.urandom(1 << 20) * 60)
        (here / "eaten").touch()
    app.sleep(3600)
"""


@contextlib.contextmanager
def without_descriptors(master: Instance) -> Iterator[None]:
    """Let the master open nothing: its table ends where it is full."""
    limits = resource.prlimit(master.pid, resource.RLIMIT_NOFILE)
    taken = open_files(master.pid)
    free = min(set(range(len(taken) + 1)) - taken.keys())
    resource.prlimit(master.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(master.pid, resource.RLIMIT_NOFILE, limits)


def test_exhausted_descriptors_end_no_supervision(bench: Bench) -> None:
    """G6: without a free descriptor deaths are answered, hangs found, failures told; memory is taken again later."""
    master = bench.start(NO_DESCRIPTOR)
    for pin in range(3):
        master.worker(pin)
    with without_descriptors(master):
        (bench.directory / "eat").touch()
        until((bench.directory / "eaten").exists, "a worker that is too large")
        for attempt in range(1, 4):
            os.kill(master.worker(0, attempt), signal.SIGKILL)
        master.worker(0, attempt=4)
        (bench.directory / "hang").touch()
        master.await_log(r"worker hung hang pin=1")
        master.await_log(r"stack hang pin=1 pid=\d+: .*shop\.py., line \d+ in hang")
        master.worker(1, attempt=2)
        bench.await_text("told", "1\n")
        assert not master.matches("worker recycled")

    master.await_log(r"worker recycled eat pin=2 pid=\d+ max_rss reached=\d+\.\dM")
    master.worker(2, attempt=2)
    assert master.stop() == 0
    assert re.findall(r"Traceback|Error", master.log) == []


def test_log_to_a_socket_needs_no_descriptor_of_its_own(bench: Bench) -> None:
    """G6: under systemd, where stderr is a socket, the log goes on when no descriptor is left."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    with ours, theirs:
        master = bench.start(SLEEPER, stderr=theirs.fileno())
        text = ours.recv(65536).decode()
        with without_descriptors(master):
            kill_and_await_successor(bench)
            while text.count("worker started") < 2:
                text += ours.recv(65536).decode()

        assert "signal=SIGKILL" in text
        assert master.stop() == 0


def test_log_to_a_socket_leaves_it_blocking_for_everybody_else(bench: Bench) -> None:
    """A default timeout of the program's own is no reason to change the flags of a stderr that others share."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bench.app("import socket\nsocket.setdefaulttimeout(5)\n" + SLEEPER)
        master = bench.start(None, stderr=theirs.fileno())
        until(lambda: bench.read("ups"), "the sleeper")

        assert os.get_blocking(theirs.fileno())
        assert master.stop() == 0


# No room


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    point = tmp_path / "disk"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(point)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def fill(disk: Path, log: Path) -> None:
    """Leave no byte: the log's last page is filled up, and a file beside it takes the rest."""
    with log.open("ab", buffering=0) as out:
        out.write(b"." * (-log.stat().st_size % 4096 - 1) + b"\n")
    with (disk / "filler").open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(4096))


@AS_ROOT
def test_full_disk_costs_lines_that_are_counted(bench: Bench, disk: Path) -> None:
    """G6: a log on a full disk stops nothing, and says how many lines are missing as soon as there is room."""
    log = disk / "log"
    with log.open("ab") as out:
        bench.start(SLEEPER, stderr=out.fileno())
    until(lambda: "worker started" in log.read_text(), "the first line")
    fill(disk, log)
    size = log.stat().st_size

    for _ in range(5):
        kill_and_await_successor(bench)
    assert log.stat().st_size == size
    (disk / "filler").unlink()
    kill_and_await_successor(bench)
    last = f"worker started work pin=0 pid={bench.read('ups').split()[-1]}\n"
    text = until(lambda: last in (text := log.read_text()) and text, "the last line")

    # The log is behind the workers: some of the lines before the last death may have found room already.
    (dropped,) = re.findall(r"WARNING log lines dropped count=(\d+); nobody took them in time", text)
    assert int(dropped) + text.count("worker ended") + text.count("worker started") == 1 + 2 * 6
    assert bench.instances[0].stop() == 0


# Nobody who reads


def test_stderr_that_nobody_has_read_ever_is_no_harm(bench: Bench) -> None:
    """G6: started with a pipe whose reader is gone (EPIPE), an instance supervises and stops as ever."""
    reader, writer = os.pipe()
    os.close(reader)
    master = bench.start(SLEEPER, stderr=writer)
    os.close(writer)

    for _ in range(3):
        kill_and_await_successor(bench)

    assert master.stop() == 0


def test_stderr_whose_reader_leaves_is_no_harm(bench: Bench) -> None:
    """G6: a reader that goes away in the middle takes its lines with it, and nothing else."""
    reader, writer = os.pipe()
    master = bench.start(SLEEPER, stderr=writer)
    os.close(writer)
    assert b"worker started" in os.read(reader, 65536)
    os.close(reader)

    for _ in range(3):
        kill_and_await_successor(bench)

    assert master.stop() == 0


def test_default_action_of_sigpipe_does_not_end_the_master(bench: Bench) -> None:
    """G6: signal(SIGPIPE, SIG_DFL), as in many a program, is no reason to die of a log that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    bench.app("signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n" + SLEEPER)
    master = bench.start(None, stderr=writer)
    os.close(writer)

    kill_and_await_successor(bench)

    assert master.stop() == 0


def test_error_that_nobody_can_be_told_keeps_its_code(bench: Bench) -> None:
    """G6: where even the one line of a usage error has no reader, code 2 still says it."""
    reader, writer = os.pipe()
    os.close(reader)
    bench.app("app = App()\n")
    master = bench.start(None, stderr=writer)
    os.close(writer)

    assert master.wait() == 2


def test_syslog_daemon_that_was_away_gets_the_count(bench: Bench) -> None:
    """G6: without its daemon an instance goes on; the next daemon at the address gets its lines, and how many not."""
    address = str(bench.directory / "log.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(address)
        first.settimeout(20)
        master = bench.start(SLEEPER, f"--syslog={address}")
        assert b"worker started" in first.recv(4096)
    Path(address).unlink()
    for _ in range(3):
        kill_and_await_successor(bench)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(address)
        second.settimeout(20)
        kill_and_await_successor(bench)
        lines: list[str] = []
        pid = bench.read("ups").split()[-1]
        while not any(line.endswith(f"worker started work pin=0 pid={pid}") for line in lines):
            lines.append(second.recv(4096).decode())

        (dropped,) = re.findall(r"log lines dropped count=(\d+)", "\n".join(lines))
        # One end and one start for each of four deaths, those of the count among them.
        assert int(dropped) + len(lines) - 1 == 2 * 4
        assert master.stop() == 0


# Hooks that never return


STUCK_START = """
app = App()

def wait(name: str) -> None:
    (here / name).touch()
    while True:
        time.sleep(0.01)

@app.on_start
def quick() -> None: ...

@app.on_start
def stuck() -> None:
    wait("first")

@app.on_stop
def stop() -> None:
    (here / "stopped").touch()

@app.worker(pins=0)
def work() -> None: ...
"""

SWALLOWING_START = STUCK_START.replace(
    '    wait("first")\n',
    """
    try:
        wait("first")
    except BaseException:
        pass
    wait("second")
""",
)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_on_start_that_never_returns_is_ended_by_every_stop(bench: Bench, signum: signal.Signals) -> None:
    """G6: the function that holds up the start is named, nothing is started, and on_stop has nothing to stop."""
    master = bench.start(STUCK_START)
    until((bench.directory / "first").exists, "on_start")

    master.signal(signum)

    assert master.wait() == 0
    assert f"WARNING stopped in on_start function=stuck reason={signum.name}" in master.log
    assert "worker started" not in master.log
    assert not (bench.directory / "stopped").exists()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGTERM, signal.SIGQUIT),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGQUIT, signal.SIGQUIT),
    ],
)
def test_on_start_that_swallows_the_first_stop_is_ended_by_the_second(
    bench: Bench, first: signal.Signals, second: signal.Signals
) -> None:
    """G6: a bare except in on_start does not make the start immortal."""
    master = bench.start(SWALLOWING_START)
    until((bench.directory / "first").exists, "on_start")
    master.signal(first)
    until((bench.directory / "second").exists, "the except clause")

    master.signal(second)

    assert master.wait() == 0
    assert f"stopped in on_start function=stuck reason={second.name}" in master.log


def test_second_term_does_not_cut_the_clean_up_of_on_start(bench: Bench) -> None:
    """TERM twice is TERM once: what the first one has begun to tidy up is not torn by the second."""
    master = bench.start(
        STUCK_START.replace(
            '    wait("first")\n',
            """
    try:
        wait("first")
    finally:
        (here / "second").touch()
        while not (here / "go").exists():
            time.sleep(0.01)
        (here / "tidy").touch()
""",
        )
    )
    until((bench.directory / "first").exists, "on_start")
    master.signal()
    until((bench.directory / "second").exists, "the clean-up")

    master.signal()
    # The master has it: its trap runs before the next line of the clean-up.
    until(lambda: not pending(master.pid, signal.SIGTERM), "the delivery of the second TERM")
    (bench.directory / "go").touch()

    assert master.wait() == 0
    assert (bench.directory / "tidy").exists()


def pending(pid: int, signum: int) -> bool:
    """Whether a signal waits to be delivered: proc(5), SigPnd and ShdPnd."""
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s+([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (signum - 1) & 1 for mask in masks)


def test_stop_that_on_start_swallows_stops_before_the_first_fork(bench: Bench) -> None:
    """G3: a stop is not lost with the exception that carried it; on_stop runs, for on_start has ended well."""
    master = bench.start(SWALLOWING_START.replace('    wait("second")\n', ""))
    until((bench.directory / "first").exists, "on_start")

    assert master.stop() == 0
    assert "worker started" not in master.log
    assert "all workers stopped; master exits" in master.log
    assert (bench.directory / "stopped").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_on_stop_that_never_returns_is_cut_short(bench: Bench, signum: signal.Signals) -> None:
    """G6: TERM leaves on_stop its time, a person's INT or QUIT ends it, and code 1 says that it was not done."""
    master = bench.start(
        """
        app = App()

        @app.on_stop
        def stuck() -> None:
            (here / "stuck").touch()
            while True:
                time.sleep(0.01)

        @app.worker(pins=0)
        def work() -> None: ...
        """
    )
    until((bench.directory / "stuck").exists, "on_stop")
    master.signal()
    until(lambda: not pending(master.pid, signal.SIGTERM), "the delivery of TERM")

    master.signal(signum)

    assert master.wait() == 1
    assert f"on_stop was cut short reason={signum.name}" in master.log


def test_on_start_that_leaves_by_sys_exit_is_a_line_and_code_2(bench: Bench) -> None:
    """Every surprise ends in one clear line, also one that is no Exception; nothing is started."""
    master = bench.start(STUCK_START.replace('    wait("first")\n', '    sys.exit("no such queue")\n'))

    assert master.wait() == 2
    assert "ERROR on_start function=stuck raised; nothing was started" in master.log
    assert "no such queue" in master.log
    assert "worker started" not in master.log


def test_on_stop_that_leaves_by_sys_exit_is_a_failure(bench: Bench) -> None:
    """The master's exit code is not the hook's to choose: it says that on_stop did not do its work."""
    master = bench.start(
        "app = App()\n\n@app.on_stop\ndef leave():\n    sys.exit(0)\n\n@app.worker(pins=0)\ndef work(): ...\n"
    )

    assert master.wait() == 1
    assert "ERROR on_stop raised" in master.log
