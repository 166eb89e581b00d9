"""G10: none of the original's defects, each kept by name. D1 to D11 are numbered as they were found in it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from helpers import Bench, alive, state, until

MIXED = """
app = App()

@app.worker(pins=0)
def finishes() -> None: ...

@app.worker(pins=1)
def crashes() -> None:
    if not (here / "second").exists():
        while not (here / "go").exists():
            time.sleep(0.01)
        (here / "second").touch()
        os._exit(1)
    time.sleep(3600)
"""


def test_d1_respawn_after_another_pin_has_finished_forks_once(bench: Bench) -> None:
    """A crash after another PIN's normal end is answered by one fork, not by forks without end."""
    master = bench.start(MIXED)
    master.await_log("worker ended finishes pin=0 .*; finished")
    (bench.directory / "go").touch()
    master.worker(1, attempt=2)
    os.kill(master.worker(1, attempt=2), signal.SIGKILL)
    master.worker(1, attempt=3)

    assert len(master.workers()) == 1
    assert len(master.started(0)) == 1
    assert master.stop() == 0


def test_d2_death_by_signal_is_not_exit_code_zero(bench: Bench) -> None:
    """A SIGKILLed worker has not finished, whatever the exit-status byte says."""
    master = bench.start("app = App()\n\n@app.worker(pins=0)\ndef work():\n    time.sleep(3600)\n")
    os.kill(master.worker(0), signal.SIGKILL)

    assert alive(master.worker(0, attempt=2))
    assert master.stop() == 0


def test_d3_sigstop_is_not_an_exit(bench: Bench) -> None:
    """A stopped worker keeps its PIN; nobody else is forked for it, also when other deaths are collected meanwhile."""
    master = bench.start("app = App()\n\n@app.worker(pins=range(2))\ndef work(pin):\n    time.sleep(3600)\n")
    stopped = master.worker(0)
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: state(stopped) == "T", "the stop")
    os.kill(master.worker(1), signal.SIGKILL)
    master.worker(1, attempt=2)

    assert master.started(0) == [stopped]
    os.kill(stopped, signal.SIGCONT)
    until(lambda: state(stopped) == "S", "the continuation")
    assert master.started(0) == [stopped]
    assert master.stop() == 0


def test_d4_term_before_the_last_fork_leaves_no_orphans(bench: Bench) -> None:
    """The traps stand before the first fork; TERM in the middle of a mass start ends all that was started."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=range(500))
        def work(pin: int) -> None:
            time.sleep(3600)
        """
    )
    master.await_log("worker started", 10)

    assert master.stop() == 0
    started = master.matches(r"worker started work pin=\d+ pid=(\d+)")
    assert not any(alive(int(found[1])) for found in started)
    assert len(started) < 500


def test_d5_crash_loop_waits_longer_each_time(bench: Bench) -> None:
    """The first respawn is immediate, the others are delayed more and more."""
    master = bench.start("app = App(backoff=(0.05, 0.2))\n\n@app.worker(pins=0)\ndef work():\n    os._exit(1)\n")
    master.worker(0, attempt=6)

    ends = [found.groups() for found in master.matches(r" after=(\S+)s; respawning (now|in \S+s)")][:5]
    assert ends[0][1] == "now"
    # On a loaded machine a worker may live for a second, and then it is none of a crash loop.
    assert all(follows.startswith("in ") or float(lifetime) >= 1.0 for lifetime, follows in ends[1:])
    assert master.stop() == 0


def test_d6_stop_has_a_timeout(bench: Bench) -> None:
    """A worker that will not leave does not keep the master."""
    master = bench.start(
        """
        app = App(stop_timeout=0.5, cooperative=True)

        @app.worker(pins=0)
        def work() -> None:
            (here / "up").touch()
            while True:
                try:
                    time.sleep(3600)
                except BaseException:
                    pass
        """
    )
    until((bench.directory / "up").exists, "the worker")
    begun = time.monotonic()

    assert master.stop() == 1
    assert time.monotonic() - begun < 0.5 + 1


def test_d7_exit_status_reports_failure(bench: Bench) -> None:
    """Forced stop 1, bad app 2, stop_all's own code: never 0 for everything."""
    bench.app("app = App()\n\n@app.worker(pins=0)\ndef work():\n    app.stop_all(3)\n    app.sleep(3600)\n")

    assert bench.run("shop:app").returncode == 3
    assert bench.run("shop:none").returncode == 2


def test_d8_daemon_is_in_a_session_of_its_own(bench: Bench) -> None:
    """setsid, a second fork, streams to /dev/null; the shell gets its prompt when all workers are up."""
    bench.app(
        """
        app = App(lock_file=here / "lock")

        @app.on_worker_start
        def slow(pin: int) -> None:
            time.sleep(0.1)
            (here / f"up.{pin}").touch()

        @app.worker(pins=range(3))
        def work(pin: int) -> None:
            time.sleep(3600)
        """
    )

    finished = bench.run("shop:app", "--daemon", f"--syslog={bench.directory}/none")

    assert finished.returncode == 0
    assert len(list(bench.directory.glob("up.*"))) == 3
    daemon = int(bench.read("lock").split("master=")[1].split()[0])
    try:
        assert os.getsid(daemon) not in (os.getsid(0), daemon)
        links = [os.readlink(f"/proc/{daemon}/fd/{descriptor}") for descriptor in range(3)]
        assert links == ["/dev/null"] * 3
        assert os.readlink(f"/proc/{daemon}/cwd") == str(bench.directory)
        with open(f"/proc/{daemon}/stat") as stat:
            assert stat.read().rpartition(")")[2].split()[4] == "0", "has a controlling terminal"
    finally:
        os.kill(daemon, signal.SIGTERM)
        until(lambda: not alive(daemon), "the daemon's end")


def test_d8_daemon_whose_worker_does_not_come_up_is_code_1(bench: Bench) -> None:
    """The command that started it learns that a PIN ended before it was up; the daemon goes on trying."""
    bench.app(
        """
        app = App(lock_file=here / "lock")

        @app.on_worker_start
        def broken(pin: int) -> None:
            raise RuntimeError

        @app.worker(pins=0)
        def work() -> None: ...
        """
    )

    finished = bench.run("shop:app", "--daemon", f"--syslog={bench.directory}/none")

    daemon = int(bench.read("lock").split("master=")[1].split()[0])
    assert finished.returncode == 1
    assert "a worker ended before it was up" in finished.stderr
    assert alive(daemon)
    os.kill(daemon, signal.SIGTERM)
    until(lambda: not alive(daemon), "the daemon's end")


def test_d8_daemon_that_is_running_already_says_so_before_it_detaches(bench: Bench) -> None:
    """The lock is taken first: the caller sees 75, not a daemon that vanishes."""
    bench.app("app = App(lock_file=here / 'lock')\n\n@app.worker(pins=0)\ndef work():\n    time.sleep(3600)\n")
    assert bench.run("shop:app", "--daemon", f"--syslog={bench.directory}/none").returncode == 0
    daemon = int(bench.read("lock").split("master=")[1].split()[0])
    try:
        again = bench.run("shop:app", "--daemon", "--if-running=fail", f"--syslog={bench.directory}/none")
        assert again.returncode == 75
        assert f"master pid {daemon}" in again.stderr
    finally:
        os.kill(daemon, signal.SIGTERM)
        until(lambda: not alive(daemon), "the daemon's end")


def test_d9_failed_fork_is_tried_again(bench: Bench) -> None:
    """G6: with no process to be had, the master says so, stays, and goes on when there is one again."""
    master = bench.start(
        """
        import resource

        app = App()
        limits = resource.getrlimit(resource.RLIMIT_NPROC)

        @app.on_start
        def drop() -> None:
            # RLIMIT_NPROC does not bind root: setrlimit(2).
            if os.geteuid() == 0:
                os.setgid(54321)
                os.setuid(54321)

        @app.worker(pins=0)
        def work() -> None:
            time.sleep(3600)

        @app.worker(pins=1)
        def warden() -> None:
            # The one who may: prlimit(2) asks for the same user.
            app.checkpoint()
            resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, (1, limits[1]))
            app.log.info("no more processes")
            app.sleep(3600)

        @app.on_signal(signal.SIGUSR1)
        def relent() -> None:
            resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, limits)
        """
    )
    master.await_log("no more processes")
    os.kill(master.worker(0), signal.SIGKILL)
    master.await_log(r"cannot fork work pin=0: Resource temporarily unavailable; trying again in \S+s", 2)
    os.kill(master.worker(1), signal.SIGUSR1)

    master.worker(0, attempt=2)
    assert master.stop() == 0


def test_d10_handler_that_returns_does_not_run_the_rest_of_the_script(bench: Bench) -> None:
    """Nothing after app.run() is executed by a worker, however it ends."""
    (bench.directory / "script.py").write_text(
        "import os, sys\nfrom pathlib import Path\nfrom pyworkers import App\napp = App()\n"
        "@app.worker(pins=range(4))\ndef work(pin):\n    if pin == 1: sys.exit()\n    if pin == 2: os._exit(0)\n"
        "app.run()\nprint('beyond', flush=True)\n"
    )
    import subprocess
    import sys

    finished = subprocess.run(
        [sys.executable, "script.py"], cwd=bench.directory, capture_output=True, text=True, timeout=20, check=True
    )
    assert finished.stdout == "beyond\n"


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD, signal.SIGCONT])
def test_d11_interrupted_wait_does_not_end_the_master(bench: Bench, signum: signal.Signals) -> None:
    """A signal in the middle of the wait is no reason to leave, let alone without the workers."""
    master = bench.start("app = App()\n\n@app.worker(pins=range(2))\ndef work(pin):\n    time.sleep(3600)\n")
    master.await_log("worker started", 2)
    for _ in range(50):
        master.signal(signum)
    os.kill(master.worker(0), signal.SIGKILL)
    master.worker(0, attempt=2)

    assert master.process.poll() is None
    assert master.stop() == 0
