"""`Instance` and its fixture: a real master to shoot at, bounded waits, and nothing that survives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from helpers import alive, clean_environment, until
from pyworkers import UsageError
from pyworkers.testing import Instance

SLEEPER = """
from pyworkers import App

app = App("shop")

@app.worker(pins=range(2))
def sell(pin):
    app.sleep(3600)
"""

FAMILY = """
import os, subprocess, sys
from pathlib import Path
from pyworkers import App

app = App("shop")

@app.worker(pins=0)
def sell():
    # One that stays, one in a session of its own, and a daemon, which is nobody's child.
    sleep = [sys.executable, "-c", "import time; print(__import__('os').getpid(), flush=True); time.sleep(3600)"]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sleep[0], sleep)
        os._exit(0)
    app.sleep(3600)
"""


def test_worker_that_is_killed_has_a_successor() -> None:
    """Its PIN is up again in another process, the other PIN in the same; the stop is a graceful one."""
    with Instance("shop:app", source=SLEEPER) as instance:
        instance.wait_until_up()
        other = instance.pid_of(0)

        killed = instance.kill(1)
        successor = instance.wait_for_respawn(1)

        assert killed != successor == instance.pid_of(1)
        assert instance.pid_of(0) == other
        assert instance.exit_code is None
        (first, second) = instance.status()
        assert (first.handler, first.pin, first.state, first.pid, first.restarts) == ("sell", 0, "running", other, 0)
        assert (second.pin, second.restarts, second.cause) == (1, 1, "signal=SIGKILL")
        assert instance.stop() == 0 == instance.exit_code
        assert instance.stop() == 0
        assert not alive(successor)
    assert "all workers stopped; master exits" in instance.log


def test_signals_reach_workers_and_master() -> None:
    """A worker by `kill`, the master by `send_signal`."""
    with Instance("shop:app", source=SLEEPER) as instance:
        first = instance.kill(0, signal.SIGTERM)
        second = instance.wait_for_respawn(0)
        instance.wait_for_log(r"sell pin=0 pid=\d+ exit=143 .*; respawning")
        os.kill(second, signal.SIGKILL)
        assert instance.wait_for_respawn(0, after=second) not in (first, second)
        instance.send_signal(signal.SIGQUIT)
        assert instance.wait() == 1


def test_app_can_be_in_a_package_in_a_directory_with_options_and_environment(tmp_path: Path) -> None:
    """As on the command line; None takes a variable away."""
    source = """
        import os
        from pyworkers import App
        app = App("shop")
        @app.worker()
        def sell(pin):
            app.log.info("%s %s %s", os.environ.get("SHOP"), os.environ.get("HOME"), os.getcwd())
    """
    with Instance(
        "stores.shop:app", "--workers", "2", source=source, directory=tmp_path, env={"SHOP": "7", "HOME": None}
    ) as instance:
        assert instance.wait() == 0
        assert len(instance.wait_for_log(f"sell pin=[01]: 7 None {tmp_path}\n", 2)) == 2
    assert (tmp_path / "stores" / "shop.py").is_file()
    with Instance("stores.shop:app", "--workers=1", directory=tmp_path) as again:
        assert again.wait() == 0


def test_nothing_survives_a_block_that_raises() -> None:
    """Neither master nor workers nor what they have started, whatever session it is in, nor the directory."""
    with pytest.raises(KeyError), Instance("shop:app", source=FAMILY) as instance:  # noqa: PT012  (the block is the point)
        pids = [int(found[0]) for found in instance.wait_for_log(r"(?m)^\d+$", 3)]
        pids += [instance.pid, instance.pid_of(0)]
        assert all(alive(pid) for pid in pids)
        raise KeyError

    assert [pid for pid in pids if alive(pid)] == []
    assert not instance.directory.exists()
    assert instance.exit_code == -signal.SIGKILL
    assert "worker started sell pin=0" in instance.log
    instance.close()


def test_daemon_does_not_survive_its_block(tmp_path: Path) -> None:
    """It has left the process that was started, and is found all the same."""
    source = SLEEPER.replace('App("shop")', f'App("shop", lock_file={str(tmp_path / "lock")!r})')
    with Instance("shop:app", "--daemon", f"--syslog={tmp_path / 'none'}", source=source) as instance:
        assert instance.wait() == 0
        pid = int(re.findall(r"master=(\d+)", (tmp_path / "lock").read_text())[0])
        assert alive(pid)
    assert not alive(pid)


def test_block_ends_with_a_graceful_stop() -> None:
    """Workers may finish their unit."""
    with Instance("shop:app", source=SLEEPER) as instance:
        instance.wait_until_up()
    assert instance.exit_code == 0
    assert instance.log.count("exit=143") == 2


def test_waits_are_bounded_and_say_what_they_waited_for() -> None:
    """With the end of the log."""
    with Instance("shop:app", source=SLEEPER) as instance:
        instance.wait_until_up()
        instance.time_limit = 0.1
        for wait, what in [
            (
                lambda: instance.wait_for_log("sold", 2),
                r"2 x 'sold' in the log in vain, 0.1 s at most\nthe status is\n.*\nPIN +HANDLER",
            ),
            (lambda: instance.wait_for_respawn(0, after=instance.pid_of(0)), r"another process than \d+ on PIN 0"),
            (instance.wait, "the master's end"),
            (lambda: instance.wait(0.05), "the master's end in vain, 0.05 s"),
        ]:
            with pytest.raises(TimeoutError, match=rf"(?s)waited for {what}.*the log ends with\n.*worker started sell"):
                wait()
        instance.time_limit = 20
        with pytest.raises(UsageError, match=r"there is no PIN 7 \(int\); there are 0, 1"):
            instance.kill(7)


def test_pin_that_has_failed_ends_the_wait_until_all_are_up() -> None:
    """It never will be."""
    source = (
        SLEEPER.replace("app.sleep(3600)", "return pin").replace("range(2)", "range(2), restart='never'")
        + """
@app.worker(pins=2)
def stay():
    app.sleep(3600)
"""
    )
    with Instance("shop:app", source=source) as instance:
        # Until then, they may have been up.
        instance.wait_for_log("pin=1 .*; failed, for restart=never")
        instance.wait_for_log("worker ended sell pin=0 .* exit=0")
        with pytest.raises(RuntimeError, match=r"(?s)PIN 1 has failed; .*1  +sell +failed"):
            instance.wait_until_up()
        assert [worker.state for worker in instance.status()] == ["finished", "failed", "running"]


def test_up_means_that_the_hooks_of_the_start_are_done(tmp_path: Path) -> None:
    """Not only that there is a process."""
    os.mkfifo(tmp_path / "gate")
    source = (
        SLEEPER
        + f"""
@app.on_worker_start
def begin(pin):
    if pin == 1:
        open({str(tmp_path / "gate")!r}).read()
"""
    )
    with Instance("shop:app", source=source) as instance:
        instance.wait_for_log("worker started", 2)
        instance.time_limit = 0.2
        with pytest.raises(TimeoutError, match=r"(?s)1  +sell +starting"):
            instance.wait_until_up()
        with pytest.raises(TimeoutError, match="waited for a process on PIN 1"):
            instance.pid_of(1)
        (tmp_path / "gate").open("w").close()
        instance.time_limit = 20
        instance.wait_until_up()


def test_status_tells_how_far_the_workers_are() -> None:
    """What a worker has told of itself."""
    source = SLEEPER.replace(
        "app.sleep(3600)", "for number in app.track('abc'): app.unit(number); number > 'a' and app.sleep(99)"
    )
    with Instance("shop:app", source=source) as instance:
        instance.wait_until_up()
        until(
            lambda: {(each.unit, each.done, each.total) for each in instance.status()} == {("b", 1, 3)},
            "the second unit",
        )
    with pytest.raises(RuntimeError, match="the master ended with 0; waited for the status"):
        instance.status()


def test_end_of_the_master_ends_a_wait() -> None:
    """At once, not after the time limit; what is in the log by then counts."""
    with Instance("shop:app", source="1 / 0\n", time_limit=60) as instance:
        for wait in (instance.wait_until_up, lambda: instance.wait_for_log("sold"), lambda: instance.kill(0)):
            with pytest.raises(RuntimeError, match=r"(?s)the master ended with 2; waited for .*ZeroDivisionError"):
                wait()
        assert instance.wait() == 2
        assert instance.wait_for_log("failed to import")


def test_mistakes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leave no directory behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UsageError, match="expected an import string 'module:attribute', got 'shop' "):
        Instance("shop", source=SLEEPER)
    with pytest.raises(FileNotFoundError):
        Instance("shop:app", directory=tmp_path / "nowhere")
    with Instance("shop:app", source=SLEEPER) as instance, pytest.raises(UsageError, match=r"needs a kill\(0\) before"):
        instance.wait_for_respawn(0)
    assert list(tmp_path.iterdir()) == []


TESTS = """
import sys

LOADED = sorted(name for name in sys.modules if name.partition(".")[0] == "pyworkers")

def test_nothing_is_loaded():
    assert LOADED == []

def test_fixture(pyworkers_instance):
    instance = pyworkers_instance("shop:app")
    instance.wait_until_up()
    instance.kill(1)
    instance.wait_for_respawn(1)
    print("pids", instance.pid, instance.pid_of(0), instance.pid_of(1))

def test_that_fails(pyworkers_instance):
    instance = pyworkers_instance("shop:app")
    instance.wait_until_up()
    print("pids", instance.pid, instance.pid_of(0), instance.pid_of(1))
    raise KeyError("of the test")
"""


def test_fixture_comes_with_the_package_and_costs_nothing(tmp_path: Path) -> None:
    """Pytest finds it, loads nothing of pyworkers for it, warns of nothing; whoever uses it leaves nothing behind."""
    (tmp_path / "shop.py").write_text(SLEEPER)
    (tmp_path / "test_shop.py").write_text(TESTS)
    # As in a project of its own: neither our configuration nor the plugins that we use.
    plugins = ["-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-rP", "-W", "error", *plugins, str(tmp_path)],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert re.search("1 failed, 2 passed", done.stdout), done.stdout + done.stderr
    assert "KeyError: 'of the test'" in done.stdout
    assert len(re.findall(r"log of <Instance pid=\d+ ended with -9>:\n.*worker started sell pin=0", done.stdout)) == 2
    pids = [int(pid) for found in re.findall(r"pids (\d+) (\d+) (\d+)", done.stdout) for pid in found]
    assert len(pids) == 6
    assert [pid for pid in pids if alive(pid)] == []


def test_fixture_is_the_class_itself(pyworkers_instance: type[Instance]) -> None:
    """So its type needs no name of its own; `close` is for whoever wants it earlier."""
    instance = pyworkers_instance("shop:app", source=SLEEPER)

    assert isinstance(instance, Instance)
    pid = instance.pid_of(0)
    began = time.monotonic()
    instance.close()
    assert not alive(pid)
    assert time.monotonic() - began < 5


def test_processes_of_others_are_let_alone() -> None:
    """The mark of one instance is not that of another."""
    with Instance("shop:app", source=SLEEPER) as kept, Instance("shop:app", source=SLEEPER) as closed:
        kept.wait_until_up()
        closed.wait_until_up()
        pids = [closed.pid_of(0), closed.pid_of(1), closed.pid]
        closed.close()
        assert kept.exit_code is None
        assert all(alive(kept.pid_of(pin)) for pin in (0, 1))
        assert not any(alive(pid) for pid in pids)
