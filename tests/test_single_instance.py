"""The lock file: one instance, an answer to whoever comes second, and clear errors."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from helpers import Bench, Instance, alive, until

APP = """
app = App(lock_file=here / "lock", stop_timeout=4)

@app.worker(pins=0)
def work() -> None:
    (here / f"up.{os.getpid()}").touch()
    app.sleep(3600)
"""


@pytest.fixture
def first(bench: Bench) -> Instance:
    """An instance that holds the lock and has a worker."""
    master = bench.start(APP)
    until(lambda: list(bench.directory.glob("up.*")), "the worker")
    return master


def test_second_instance_leaves_quietly_for_cron(bench: Bench, first: Instance) -> None:
    """The default: code 0 and not a byte, because cron mails every line."""
    second = bench.run("shop:app")

    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert first.stop() == 0


def test_second_instance_says_why_where_somebody_looks(bench: Bench, first: Instance) -> None:
    """With debug, or on a terminal, it says who holds the lock."""
    second = bench.run("shop:app", "--debug")

    assert second.returncode == 0
    assert f"already running: lock {bench.directory}/lock is held by shop, master pid {first.pid}" in second.stderr

    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "pyworkers", "shop:app"]
    third = subprocess.run(command, cwd=bench.directory, stderr=terminal, timeout=20, check=False)
    os.close(terminal)
    said = os.read(controller, 65536).decode()
    os.close(controller)
    assert third.returncode == 0
    assert "already running" in said
    assert first.stop() == 0


@pytest.mark.parametrize("option", ["fail", "wait:0.2"])
def test_busy_is_75(bench: Bench, first: Instance, option: str) -> None:
    """`fail` says so at once, wait after its time; both name the holder."""
    begun = time.monotonic()
    second = bench.run("shop:app", f"--if-running={option}")

    assert second.returncode == 75
    assert second.stderr.count("already running: ") == 1
    assert f"master pid {first.pid}" in second.stderr
    assert time.monotonic() - begun >= (0.2 if option != "fail" else 0)
    assert first.stop() == 0


def test_waiting_instance_starts_when_the_first_ends(bench: Bench, first: Instance) -> None:
    """`wait` takes over, and only after the last worker of the first is gone."""
    second = bench.start(None, "--if-running=wait")
    second.await_log("waiting: lock .* is held by shop")
    worker = first.worker(0)

    assert first.stop() == 0

    assert not alive(worker)
    second.worker(0)
    assert second.stop() == 0


def test_waiting_instance_takes_over_from_a_killed_master(bench: Bench, first: Instance) -> None:
    """The end of the holder wakes whoever waits."""
    second = bench.start(None, "--if-running=wait:60")
    second.await_log("waiting: lock .* is held by shop")
    worker = first.worker(0)

    first.process.kill()

    second.worker(0)
    assert not alive(worker)
    assert second.stop() == 0


def test_term_while_waiting_for_the_lock_leaves_with_zero(bench: Bench, first: Instance) -> None:
    """A wait is no reason to be unstoppable."""
    second = bench.start(None, "--if-running=wait")
    second.await_log("waiting: lock .* is held by shop")

    assert second.stop() == 0
    assert "worker started" not in second.log
    assert first.stop() == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_shard_that_is_stopped_while_it_waits_is_not_done(bench: Bench, signum: signal.Signals, code: int) -> None:
    """An engine would take 0 for work that is done; by which signal it was stopped, the code tells as always."""
    first = bench.start(APP, "--shard", "0/1")
    until(lambda: list(bench.directory.glob("up.*")), "the worker")
    second = bench.start(None, "--shard", "0/1", "--if-running=wait")
    second.await_log("waiting: lock .* is held by shop")
    second.process.send_signal(signum)

    assert second.wait() == code
    assert first.stop() == 143


def test_of_many_starters_exactly_one_runs(bench: Bench) -> None:
    """Eight at once: one master, seven with 75."""
    bench.app(APP)
    starters = [bench.start(None, "--if-running=fail") for _ in range(8)]
    until(lambda: sum(starter.process.poll() is not None for starter in starters) == 7, "seven to leave")

    (winner,) = [starter for starter in starters if starter.process.poll() is None]
    assert [starter.process.returncode for starter in starters if starter is not winner] == [75] * 7
    winner.worker(0)
    assert winner.stop() == 0


def test_lock_file_tells_a_person_and_stays(bench: Bench, first: Instance) -> None:
    """The file names name and master, says what a dead master means, and is never removed."""
    text = bench.read("lock")

    assert text.startswith(f"pyworkers lock: name=shop master={first.pid} started=")
    assert f"if process {first.pid} is gone, its last workers" in text
    assert first.stop() == 0
    assert bench.read("lock") == text
    assert bench.start(None).worker(0)


def test_replaced_lock_file_keeps_nobody_out_and_lets_nobody_in_twice(bench: Bench, first: Instance) -> None:
    """A path that was renamed away and made anew is another lock; whoever opened the old one notices."""
    (bench.directory / "lock").rename(bench.directory / "old")
    (bench.directory / "lock").touch()

    second = bench.start(None, "--if-running=fail")
    second.worker(0)

    third = bench.run("shop:app", "--if-running=fail")
    assert f"master pid {second.pid}" in third.stderr
    assert second.stop() == 0
    assert first.stop() == 0


def test_lock_of_another_program_is_respected(bench: Bench) -> None:
    """Somebody else's flock on our file is a live holder, never an orphan to be killed."""
    bench.app(APP)
    with (bench.directory / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        second = bench.run("shop:app", "--if-running=fail")

    assert second.returncode == 75
    assert "is held by another program, a process" in second.stderr


def test_child_of_another_locker_is_no_orphan_of_ours(bench: Bench) -> None:
    """Who took the lock is gone, its child holds it, and the file is not signed by us: a stranger, left alone."""
    bench.app(APP)
    command = "exec 9>>lock; flock -n 9; touch locked; exec sleep 3600"
    with subprocess.Popen(["bash", "-c", command], cwd=bench.directory) as stranger:
        until((bench.directory / "locked").exists, "the lock")

        second = bench.run("shop:app", "--if-running=fail")

        assert second.returncode == 75
        assert stranger.poll() is None
        stranger.kill()


def test_reader_of_the_lock_file_is_not_taken_for_a_holder(bench: Bench, first: Instance) -> None:
    """A process that merely has the file open is neither named nor ended by a successor."""
    with (bench.directory / "lock").open() as lock, subprocess.Popen(["sleep", "3600"], stdin=lock) as reader:
        worker = first.worker(0)
        os.kill(worker, signal.SIGSTOP)
        first.process.kill()
        first.process.wait()

        second = bench.start(None)
        second.worker(0)

        assert reader.poll() is None
        assert not alive(worker)
        reader.kill()
    assert second.stop() == 0


BAD_LOCKS = {
    "missing directory": ("{here}/no/lock", "directory {here}/no does not exist; create it first"),
    "symbolic link": ("{here}/link", "it is a symbolic link, which is never followed"),
    "directory": ("{here}/folder", "it is a directory"),
    "file as a directory": ("{here}/foreign/lock", "{here}/foreign is not a directory"),
    "foreign file": ("{here}/foreign", "it holds something else, and would be overwritten"),
    "fifo": ("{here}/fifo", "it is not a regular file"),
    "device": ("/dev/null", "it is not a regular file"),
}


@pytest.mark.parametrize("case", BAD_LOCKS)
def test_bad_lock_file_is_one_line_and_no_effect(bench: Bench, case: str) -> None:
    """G11: code 2, one line with the path and what to do, nothing forked, nothing written."""
    here = bench.directory
    bench.app(APP)
    (here / "foreign").write_text("precious\n")
    (here / "link").symlink_to(here / "foreign")
    (here / "folder").mkdir()
    os.mkfifo(here / "fifo")
    path, reason = (text.format(here=here) for text in BAD_LOCKS[case])

    finished = bench.run("shop:app", f"--lock-file={path}")

    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert path in finished.stderr
    assert reason in finished.stderr
    assert bench.read("foreign") == "precious\n"


def test_lock_file_without_permission_is_one_line(bench: Bench) -> None:
    """Who may not open it learns which user he is."""
    if os.geteuid() == 0:
        pytest.skip("root may open everything")
    bench.app(APP)
    (bench.directory / "lock").touch(mode=0)

    finished = bench.run("shop:app")

    assert finished.returncode == 2
    assert "permission denied to user" in finished.stderr


def test_lock_that_we_were_started_with_is_an_error_and_kills_nobody(bench: Bench) -> None:
    """The idiom of flock(1) around a command, on the same file: said in a line, instead of ending our own parents."""
    bench.app(APP)
    command = f"exec 9>>lock; flock -n 9; {sys.executable} -m pyworkers shop:app; echo code $?"

    shell = subprocess.run(
        ["bash", "-c", command], cwd=bench.directory, capture_output=True, text=True, timeout=20, check=False
    )

    assert shell.stdout == "code 2\n"
    assert "held by a descriptor that this process was started with" in shell.stderr


def test_record_that_cannot_be_written_is_a_warning(bench: Bench) -> None:
    """A full disk keeps nobody from holding the lock."""
    bench.app(
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "app = App(lock_file=here / 'lock')\n\n@app.worker(pins=0)\ndef work(): ...\n"
    )

    finished = bench.run("shop:app", env={"PYTHONDONTWRITEBYTECODE": "1"})

    assert finished.returncode == 0
    assert "cannot write who holds it to lock file" in finished.stderr
