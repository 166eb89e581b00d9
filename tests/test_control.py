"""Verbs against real instances: what a person or a script asks of a master that runs, hangs, or is dead."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers import Bench, alive, until
from pyworkers._posix import rendezvous
from pyworkers._posix.rendezvous import Presence
from pyworkers._presence import Reception

CRAWL = """
app = App("shop", lock_file=here / "lock")
@app.worker(pins=range(2))
def crawl(pin):
    while True:
        app.sleep(0.02)
"""


def status(bench: Bench, *target: str) -> dict[str, Any]:
    """Wait until the instance is there, and return what `status --json` prints of it."""

    def answered() -> str:
        done = bench.run("status", *(target or ("shop:app",)), "--json")
        return done.stdout if done.returncode in (0, 3) else ""

    found: dict[str, Any] = json.loads(until(answered, f"an answer of {target}"))
    return found


def await_status(bench: Bench, code: int) -> subprocess.CompletedProcess[str]:
    """Wait until `status` leaves with this code."""

    def fitting() -> subprocess.CompletedProcess[str] | None:
        done = bench.run("status", "shop:app")
        return done if done.returncode == code else None

    found = until(fitting, f"status to leave with {code}")
    assert found is not None
    return found


def test_status_tells_of_every_pin(bench: Bench) -> None:
    """Pid, state, uptime and restarts of each PIN; all are up, so the code is 0."""
    instance = bench.start(CRAWL)
    await_status(bench, 0)

    found = status(bench)
    assert [found[name] for name in ("v", "ok", "name", "app", "pid", "state")] == [
        1, True, "shop", "shop:app", instance.pid, "running",
    ]  # fmt: skip
    assert found["lock_file"] == str(bench.directory / "lock")
    assert [(row["pin"], row["handler"], row["state"], row["pid"]) for row in found["workers"]] == [
        (pin, "crawl", "running", instance.worker(pin)) for pin in range(2)
    ]
    assert all(row["restarts"] == 0 and row["last_exit"] is None for row in found["workers"])
    shown = bench.run("status", "shop:app").stdout.splitlines()
    assert shown[0].startswith(f"shop (shop:app) running, master pid {instance.pid}, up ")
    assert shown[0].endswith(": 2 of 2 up")
    assert [line.split()[:3] for line in shown[2:]] == [["0", "crawl", "running"], ["1", "crawl", "running"]]


def test_status_tells_how_the_last_worker_ended(bench: Bench) -> None:
    """A worker that was killed: one restart, the signal's name, when, after how long."""
    instance = bench.start(CRAWL)
    os.kill(instance.worker(1), signal.SIGKILL)
    instance.worker(1, 2)

    row = status(bench)["workers"][1]
    assert row["restarts"] == 1
    assert row["last_exit"]["cause"] == "signal=SIGKILL"
    assert 0 < row["last_exit"]["after"] < 20
    assert "signal=SIGKILL" in bench.run("status", "shop").stdout


def test_status_of_an_app_with_a_pin_down_leaves_with_3(bench: Bench) -> None:
    """A crash loop in its backoff, and a PIN that was given up, are down; one that is done is not missed."""
    bench.start(
        """
        app = App("shop", backoff=(60, 60))
        @app.worker(pins=0)
        def crash():
            os._exit(9)
        @app.worker(pins=1, restart="never")
        def lost():
            os._exit(9)
        @app.worker(pins=2)
        def done():
            pass
        @app.worker(pins=3)
        def stay():
            app.sleep(60)
        """
    ).await_log("respawning in")

    shown = await_status(bench, 3).stdout
    assert "1 of 3 up, 1 finished" in shown
    rows = {row["pin"]: row for row in status(bench)["workers"]}
    assert [rows[pin]["state"] for pin in range(4)] == ["backoff", "failed", "finished", "running"]
    assert 25 < rows[0]["delay"] <= 60
    assert "backoff" in shown


def test_status_shows_progress_unit_and_checkpoint(bench: Bench) -> None:
    """What `app.track` and `app.unit` have noted, and with hang detection when the last beat was."""
    bench.start(
        """
        app = App("shop")
        @app.worker(pins=0, hang_timeout=60)
        def crawl():
            for item in app.track(range(4)):
                app.unit(f"page {item}")
                if item == 2:
                    (here / "there").touch()
                    app.sleep(60)
        """
    )
    until((bench.directory / "there").exists, "the third item")

    (row,) = status(bench)["workers"]
    assert (row["unit"], row["done"], row["total"]) == ("page 2", 2, 4)
    assert 0 <= row["checkpoint"] < 20
    shown = bench.run("status", "shop:app").stdout
    assert "2/4 50%" in shown
    assert "page 2" in shown


def test_status_tells_of_spares(bench: Bench) -> None:
    """A spare has a row of its own, and is no PIN."""
    bench.start(
        """
        app = App("shop")
        @app.worker(pins=0, spares=1)
        def crawl():
            app.sleep(60)
        """
    )
    until(lambda: [row["state"] for row in status(bench)["spares"]] == ["running"], "the spare")

    found = status(bench)
    assert len(found["workers"]) == 1
    assert found["spares"][0]["handler"] == "crawl"
    assert "spare  crawl" in bench.run("status", "shop:app").stdout


def test_stop_returns_when_the_instance_is_gone(bench: Bench) -> None:
    """After it the master is no process any more, its code was 0, and socket and entry are gone."""
    instance = bench.start(CRAWL)
    instance.await_log("worker started", 2)

    done = bench.run("stop", "shop:app")
    assert done.returncode == 0, done
    assert not alive(instance.pid)
    assert instance.wait() == 0
    assert "reason=stop pid=" in instance.log
    assert not (bench.directory / "lock.sock").exists()
    assert list((bench.directory / ".runtime/pyworkers").iterdir()) == []
    assert bench.run("stop", "shop:app").returncode == 4


def test_verbs_work_on_hung_workers_and_never_import_the_app(bench: Bench) -> None:
    """Workers that never reach a checkpoint and ignore TERM: status answers at once, `stop --kill` ends them."""
    instance = bench.start(
        """
        app = App("shop", stop_timeout=60, cooperative=True)
        @app.worker(pins=range(2))
        def hang():
            (here / f"hangs.{app.pin}").touch()
            while True:
                pass
        """
    )
    until(lambda: len(list(bench.directory.glob("hangs.*"))) == 2, "both to hang")
    bench.app("(here / 'imported').touch(); raise RuntimeError")

    assert [row["state"] for row in status(bench)["workers"]] == ["running", "running"]
    assert bench.run("stop", "shop:app", "--kill").returncode == 0
    assert instance.wait() == 1
    assert not (bench.directory / "imported").exists()


def test_verbs_find_the_instance_by_name_and_by_lock_file(bench: Bench) -> None:
    """The import string, the name, the lock file: each leads to the same master."""
    instance = bench.start(CRAWL)
    await_status(bench, 0)

    for target in (["shop:app"], ["shop"], ["--lock-file", "lock"], ["--lock-file", str(bench.directory / "lock")]):
        assert status(bench, *target)["pid"] == instance.pid
    assert bench.run("status", "shop:ap").returncode == 4
    assert "status needs the app" in bench.run("status").stderr


def test_two_instances_of_one_app_are_told_apart(bench: Bench) -> None:
    """Which one is meant cannot be guessed: both are named; from elsewhere, the one of this directory is meant."""
    first = bench.start(CRAWL)
    second = bench.start(None, "--lock-file", "other")
    until(lambda: bench.run("status", "shop:app").returncode == 2, "both")

    complaint = bench.run("status", "shop:app").stderr
    assert f"pid={first.pid}" in complaint
    assert f"pid={second.pid}" in complaint
    assert status(bench, "--lock-file", "other")["pid"] == second.pid


def test_dead_master_is_told_of(bench: Bench) -> None:
    """After SIGKILL of the master: not running, since when it ran, and which of its workers hold the lock."""
    instance = bench.start(
        """
        app = App("shop", lock_file=here / "lock", stop_timeout=60)
        @app.worker(pins=0)
        def stay():
            app.checkpoint()
            with app.critical():
                (here / "there").touch()
                while not (here / "enough").exists():
                    time.sleep(0.02)
        """
    )
    until((bench.directory / "there").exists, "the worker")
    worker = instance.worker(0)
    instance.process.kill()
    instance.wait()

    done = bench.run("status", "shop:app")
    assert done.returncode == 4
    assert f"its master pid {instance.pid}, started " in done.stderr
    assert (
        f"workers of it are still finishing and hold the lock {bench.directory / 'lock'}: pids={worker}" in done.stderr
    )
    (bench.directory / "enough").touch()
    until(lambda: not alive(worker), "the orphan's end")
    assert "was killed or has crashed" in bench.run("stop", "shop:app").stderr


def test_next_start_clears_what_a_dead_master_has_left(bench: Bench) -> None:
    """Its entry and its socket without a lock go; the new master is found."""
    source = """
    app = App("shop")
    @app.worker(pins=0)
    def crawl():
        app.sleep(60)
    """
    first = bench.start(source)
    await_status(bench, 0)
    first.process.kill()
    first.wait()
    runtime = bench.directory / ".runtime/pyworkers"
    assert {path.name for path in runtime.iterdir()} == {f"{first.pid}.json", f"shop.{first.pid}.sock"}

    second = bench.start()
    await_status(bench, 0)
    assert {path.name for path in runtime.iterdir()} == {f"{second.pid}.json", f"shop.{second.pid}.sock"}
    assert status(bench)["pid"] == second.pid


def test_socket_is_for_its_owner_alone(bench: Bench) -> None:
    """Mode 0600, whatever the umask says; so is the directory of the entries."""
    bench.start(CRAWL, preexec_fn=lambda: os.umask(0))
    await_status(bench, 0)

    assert stat.S_IMODE((bench.directory / "lock.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((bench.directory / ".runtime/pyworkers").stat().st_mode) == 0o700


def test_socket_that_cannot_be_beside_the_lock_is_elsewhere(bench: Bench) -> None:
    """Something else stands at its path: it is in the runtime directory, and found by the lock file all the same."""
    (bench.directory / "lock.sock").mkdir()
    instance = bench.start(CRAWL)
    await_status(bench, 0)

    assert status(bench, "--lock-file", "lock")["pid"] == instance.pid
    assert (bench.directory / f".runtime/pyworkers/shop.{instance.pid}.sock").is_socket()


def test_socket_that_cannot_be_made_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There is no place for it at all: one line that says so, and no error."""
    monkeypatch.setattr(rendezvous, "directories", lambda: [str(tmp_path / "missing" / "pyworkers")])
    lines: list[str] = []

    reception = Reception(
        Presence("shop", None, "/", str(tmp_path / "no" / "lock")), lambda _, line: lines.append(line)
    )
    reception.close()
    assert reception.listener is None
    (line,) = lines
    assert line.startswith(f"no control socket: {tmp_path}/no/lock.sock: No such file or directory; status and other ")


def test_socket_beside_a_lock_file_with_a_long_path(bench: Bench) -> None:
    """A path that does not fit into a socket's address is reached all the same."""
    deep = bench.directory / ("d" * 120)
    deep.mkdir()
    bench.app(CRAWL.replace('here / "lock"', 'here / ("d" * 120) / "lock"'))
    instance = bench.start()
    await_status(bench, 0)

    assert status(bench, "--lock-file", str(deep / "lock"))["pid"] == instance.pid
    assert (deep / "lock.sock").is_socket()


def test_worker_does_not_hold_connections(bench: Bench) -> None:
    """A worker that is forked while somebody is connected has neither the socket nor the connection."""
    import socket

    instance = bench.start(CRAWL)
    await_status(bench, 0)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(os.path.relpath(bench.directory / "lock.sock"))
    connection.sendall(b'{"v":1,"verb":"ping"}\n')
    assert b'"ok":true' in connection.recv(1000)
    os.kill(instance.worker(0), signal.SIGKILL)
    worker = instance.worker(0, 2)
    until(lambda: status(bench)["workers"][0]["state"] == "running", "the new worker")

    links = [os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()]
    assert not [link for link in links if link.startswith("socket:")]
    instance.process.kill()
    assert connection.recv(1000) == b""
    connection.close()
