"""Verbs against real instances: what a person or a script asks of a master that runs, hangs, or is dead."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import Bench, alive, as_from_a_shell, open_files, runtime_in, state, until
from pyworkers._client.find import find
from pyworkers._client.wire import Wire
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


def test_app_of_another_directory_is_looked_at_and_not_touched(bench: Bench) -> None:
    """An import string there may be another app: status says what runs, stop wants to hear which one is meant."""
    instance = bench.start(CRAWL)
    await_status(bench, 0)
    elsewhere = Bench(bench.directory / "elsewhere")
    elsewhere.directory.mkdir()
    environment = {"XDG_RUNTIME_DIR": str(bench.directory / ".runtime")}

    assert elsewhere.run("status", "shop:app", env=environment).returncode == 0
    refused = elsewhere.run("stop", "shop:app", env=environment)
    assert refused.returncode == 4
    assert f"but in {bench.directory}, pid={instance.pid}" in refused.stderr
    assert elsewhere.run("stop", "shop", env=environment).returncode == 0


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


def test_lock_file_finds_who_runs_and_not_who_is_dead(bench: Bench) -> None:
    """A killed master has left an entry here, and that of the one that runs is in another environment's directory."""
    first = bench.start(CRAWL)
    await_status(bench, 0)
    first.process.kill()
    first.process.wait()
    elsewhere = bench.directory / ".elsewhere"
    elsewhere.mkdir()
    second = bench.start(None, env={"XDG_RUNTIME_DIR": str(elsewhere)})

    assert status(bench, "--lock-file", "lock")["pid"] == second.pid
    assert second.stop() == 0
    done = bench.run("ping", "--lock-file", "lock")
    assert done.returncode == 4
    assert f"its master pid {first.pid}, started " in done.stderr


def test_int_ends_the_wait_of_a_verb_in_one_line(bench: Bench) -> None:
    """The master does what it was asked for, or will: it is asked no second time."""
    instance = bench.start(CRAWL)
    await_status(bench, 0)
    os.kill(instance.pid, signal.SIGSTOP)
    for verb, goes_on in (("reload", "; the master goes on with the reload"), ("status", "")):
        asker = subprocess.Popen(
            [sys.executable, "-m", "pyworkers", verb, "shop:app"],
            cwd=bench.directory,
            env={**os.environ, **runtime_in(bench.directory)},
            preexec_fn=as_from_a_shell,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(
            lambda pid=asker.pid: (
                any(link.startswith("socket:") for link in open_files(pid).values()) and state(pid) == "S"
            ),
            "the question",
        )
        asker.send_signal(signal.SIGINT)
        said = asker.communicate(timeout=20)[1]
        assert (asker.returncode, said) == (130, f"pyworkers: interrupted{goes_on}\n")
    os.kill(instance.pid, signal.SIGCONT)
    assert instance.stop() == 0


def test_master_that_does_not_answer_holds_up_no_reload(bench: Bench) -> None:
    """Before the wait that has no limit is one that has."""
    instance = bench.start(CRAWL)
    await_status(bench, 0)
    os.kill(instance.pid, signal.SIGSTOP)
    done = bench.run("reload", "shop:app")

    assert done.returncode == 1
    assert f"master pid {instance.pid} has not answered in 10 s" in done.stderr


class Scripted:
    """A wire on which a PIN has these states, one after the other."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)

    def ask(self, verb: str, **_: object) -> dict[str, Any]:
        assert verb == "status"
        now = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"workers": [{"pin": 3, "state": now, "suspended": False}]}


def test_verbs_wait_for_who_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no telling how long on_worker_start takes; who is late for another reason is named."""
    from pyworkers._client import verbs

    def settled(row: dict[str, Any]) -> bool:
        return bool(row["state"] == "running")

    slow = Scripted("starting", "starting", "starting", "running")
    assert verbs._await(slow, [3], settled, 0.0)[0]["state"] == "running"  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""
    late = Scripted("starting", "backoff")
    assert verbs._await(late, [3], settled, 0.0)[0]["state"] == "backoff"  # type: ignore[arg-type]
    assert capsys.readouterr().err == "pyworkers: not up after 0 s: PIN 3 is backoff\n"


@pytest.mark.parametrize("has_on_stop", [False, True])
def test_stop_leaves_time_to_on_stop(bench: Bench, *, has_on_stop: bool) -> None:
    """What a master promises is for its workers, and 10 s more where it has functions of its own to run."""
    instance = bench.start(CRAWL + ("\n@app.on_stop\ndef end():\n    pass\n" if has_on_stop else ""))
    await_status(bench, 0)
    wire = Wire(find(None, str(bench.directory / "lock")))

    assert wire.ask("stop", kind="graceful")["timeout"] == 8.0 + 10 * has_on_stop
    wire.close()
    assert instance.wait() == 0


def test_socket_that_cannot_be_made_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There is no place for it at all: one line that says so, and no error."""
    monkeypatch.setattr(rendezvous, "directories", lambda: [str(tmp_path / "missing" / "pyworkers")])
    lines: list[str] = []

    reception = Reception(
        Presence("shop", None, "/", str(tmp_path / "no" / "lock")), lambda _, line: lines.append(line), 0.0
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

    assert not [link for link in open_files(worker).values() if link.startswith("socket:")]
    instance.process.kill()
    assert connection.recv(1000) == b""
    connection.close()


RESTARTABLE = """
app = App("shop", lock_file=here / "lock", workers=3)
@app.worker(pins=0)
def named():
    app.sleep(600)
@app.worker()
def rest(pin):
    app.unit(f"unit of {pin}")
    app.sleep(600)
"""


def states(bench: Bench) -> dict[int, str]:
    """Return the state of each PIN."""
    return {row["pin"]: row["state"] for row in status(bench)["workers"]}


def test_restart_returns_when_the_new_workers_are_up(bench: Bench) -> None:
    """One PIN, then all of them: other pids, code 0, a table of what is there now."""
    instance = bench.start(RESTARTABLE)
    await_status(bench, 0)

    done = bench.run("restart", "shop:app", "1")
    assert done.returncode == 0, done
    assert done.stdout.split("\n")[1].split()[:3] == ["1", "rest", "running"]
    assert len(instance.started(1)) == 2
    assert len(instance.started(0)) == len(instance.started(2)) == 1
    assert bench.run("restart", "--lock-file", "lock").returncode == 0
    assert [len(instance.started(pin)) for pin in range(3)] == [2, 3, 2]
    assert "restarting pins=1 reason=restart pid=" in instance.log


def test_restart_starts_what_has_finished_or_failed(bench: Bench) -> None:
    """Both are forked again; what is still not there is told by the code."""
    bench.start(
        """
        app = App("shop", permanent_failure_codes=7)
        @app.worker(pins=0)
        def stay():
            app.sleep(600)
        @app.worker(pins=range(1, 3))
        def once(pin):
            if not (here / f"seen.{pin}").exists():
                (here / f"seen.{pin}").touch()
                return 0 if pin == 1 else 7
            app.sleep(600)
        """
    )
    until(lambda: states(bench) == {0: "running", 1: "finished", 2: "failed"}, "both ends")

    assert bench.run("restart", "shop:app", "1", "2").returncode == 0
    assert states(bench) == dict.fromkeys(range(3), "running")
    refused = bench.run("restart", "shop:app", "1", "77")
    assert (refused.returncode, refused.stderr) == (1, "pyworkers: restart: there is no PIN 77\n")


def test_scale_adds_and_removes_workers_whose_cells_work(bench: Bench) -> None:
    """A hundred PINs more than the shared memory had room for at the start: each can name its unit; then two."""
    instance = bench.start(RESTARTABLE)
    await_status(bench, 0)

    done = bench.run("scale", "shop:app", "100")
    assert done.returncode == 0, done
    assert done.stdout.startswith("100 PINs: added PINs 3,4,")
    rows = status(bench)["workers"]
    assert [row["pin"] for row in rows] == list(range(101))
    assert {row["unit"] for row in rows if row["pin"]} == {f"unit of {pin}" for pin in range(1, 101)}
    assert bench.run("scale", "--lock-file", "lock", "1").returncode == 0
    until(lambda: list(states(bench)) == [0, 1], "the last to leave")
    assert len(instance.workers()) == 2
    assert "must be 1 to 1,000,000, got 0" in bench.run("scale", "shop:app", "0").stderr


def test_ttin_and_ttou_step(bench: Bench) -> None:
    """A PIN more with each TTIN, the highest one less with each TTOU; one always stays."""
    instance = bench.start(RESTARTABLE)
    await_status(bench, 0)
    for pins in ([0, 1, 2, 3], [0, 1, 2, 3, 4]):
        instance.signal(signal.SIGTTIN)
        until(lambda pins=pins: list(states(bench)) == pins, f"PINs {pins}")
    for pins in ([0, 1, 2, 3], [0, 1, 2], [0, 1]):
        instance.signal(signal.SIGTTOU)
        until(lambda pins=pins: list(states(bench)) == pins, f"PINs {pins}")
    instance.signal(signal.SIGTTOU)
    instance.await_log("refused reason=SIGTTOU: the number of its PINs must be 1 to 1,000,000, got 0")


def test_spare_that_is_older_than_a_pin_can_take_it(bench: Bench) -> None:
    """It has mapped the cells of before; its own is behind them."""
    bench.start(
        """
        app = App("shop", workers=1)
        @app.worker(spares=1)
        def rest(pin):
            app.unit(f"unit of {pin}")
            app.sleep(600)
        """
    )
    until(lambda: [row["state"] for row in status(bench)["spares"]] == ["running"], "the spare")
    spare = status(bench)["spares"][0]["pid"]

    assert bench.run("scale", "shop:app", "40").returncode == 0
    rows = status(bench)["workers"]
    assert rows[1]["pid"] == spare
    assert [row["unit"] for row in rows] == [f"unit of {pin}" for pin in range(40)]


def test_stack_of_a_worker_that_is_stuck_in_c_code(bench: Bench) -> None:
    """It holds the interpreter's lock and no checkpoint will come; the stack says where, and the worker goes on."""
    instance = bench.start(
        """
        import re
        app = App("shop", lock_file=here / "lock")
        def helper():
            threading.Event().wait()
        @app.worker(pins=7)
        def backtrack():
            threading.Thread(target=helper, daemon=True).start()
            (here / "there").touch()
            re.match("(a*)*b", "a" * 64)
        """
    )
    until((bench.directory / "there").exists, "the worker")

    done = bench.run("stack", "shop:app", "7")
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"backtrack pin=7 pid={instance.worker(7)}\n")
    assert " in backtrack\n" in done.stdout
    assert " in helper\n" in done.stdout
    assert "_worker/boot.py" not in done.stdout
    assert bench.run("stack", "--lock-file", "lock", "7").returncode == 0
    assert status(bench)["workers"][0]["pid"] == instance.worker(7)


def test_stack_of_who_cannot_answer(bench: Bench) -> None:
    """A suspended worker says nothing, and the kernel says why; without a process, or in another program, no try."""
    instance = bench.start(
        """
        app = App("shop", backoff=(60, 60))
        @app.worker(pins=0)
        def stay():
            app.sleep(600)
        @app.worker(pins=1)
        def other():
            os.execv("/bin/sleep", ["sleep", "600"])
        @app.worker(pins=2)
        def crash():
            os._exit(1)
        """
    )
    until(lambda: states(bench) == {0: "running", 1: "running", 2: "backoff"}, "all three")
    until(lambda: Path(f"/proc/{instance.worker(1)}/comm").read_text() == "sleep\n", "the other program")

    assert "runs another program" in bench.run("stack", "shop:app", "1").stderr
    assert "PIN 2 has no process, it is backoff" in bench.run("stack", "shop:app", "2").stderr
    os.kill(instance.worker(0), signal.SIGSTOP)
    until(lambda: state(instance.worker(0)) == "T", "the worker to be suspended")
    assert "the kernel says of it: T (stopped)" in bench.run("stack", "shop:app", "0").stderr
    # It was not even asked, or it would write when it goes on, for whoever is asked then.
    pending = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{instance.worker(0)}/status").read_text(), re.MULTILINE)
    assert pending is not None
    assert int(pending[1], 16) == 0
    assert bench.run("stack", "shop:app").returncode == 2


def test_story_of_a_crash_loop(bench: Bench) -> None:
    """What a stranger needs: that it is one, by which cause, how the delays come about, and why it was given up."""
    bench.start(
        """
        app = App("shop", backoff=(0.01, 0.04), max_restarts=5, restart_period=600)
        @app.worker(pins=0)
        def stay():
            app.sleep(600)
        @app.worker(pins=1)
        def crash():
            app.unit("order 66")
            os._exit(41)
        """
    )
    until(lambda: states(bench) == {0: "running", 1: "failed"}, "the verdict")

    done = bench.run("status", "shop:app", "1")
    assert done.returncode == 3
    head, policy, loop, _, *events = done.stdout.splitlines()
    assert head == "shop: PIN 1 of handler crash is failed; restarts so far: 5"
    assert policy == (
        "it is restarted after every end but that by exit code 0, at most 5 times in 600 s; at once, but when it lives"
        " less than 1 s for the second time in a row after 0.01 s, doubling up to 0.04 s"
    )
    assert loop.startswith("a crash loop: its last 6 processes have each ended by exit=41 within 0.")
    told = [line.strip() for line in events]
    assert len(told) == 6 * 3
    assert "attempt 6" in told[15]
    assert "; pid=" in told[16]
    assert "unit='order 66'" in told[16]
    assert told[2].endswith(
        "at once, for this is the first short life (less than 1 s); restart 1 of at most 5 in 600 s"
    )
    assert "short life number 3 in a row makes 0.01 s doubled once = 0.02 s, less a random part of up to" in told[8]
    assert "makes 0.01 s doubled 3 times, but at most 0.04 s, less" in told[14]
    assert told[17] == "given up: it was restarted 5 times in 600 s, and max_restarts allows no more"
    as_json = json.loads(bench.run("status", "shop:app", "1", "--json").stdout)
    assert [event["event"] for event in as_json["events"]] == ["started", "ended"] * 6


def test_history_is_bounded(bench: Bench) -> None:
    """The oldest goes for the newest, and what is counted is not what is kept."""
    bench.start(
        """
        app = App("shop", backoff=(0.001, 0.001))
        @app.worker(pins=0)
        def crash():
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    until(lambda: status(bench)["workers"][0]["restarts"] > 100, "a hundred restarts")

    events = json.loads(bench.run("status", "shop:app", "0", "--json").stdout)["events"]
    assert len(events) == 32


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_gets_nothing(bench: Bench) -> None:
    """Not by the file's mode, and where that is opened to all, not by a connection either; root gets it all."""
    import socket

    bench.start(CRAWL)
    await_status(bench, 0)
    path = bench.directory / "lock.sock"
    bench.directory.chmod(0o755)
    directory = os.open(bench.directory, os.O_PATH)
    code = f"""
import os, socket
os.fchdir({directory})
os.setgid(65534); os.setuid(65534)
made = socket.socket(socket.AF_UNIX)
try:
    made.connect("lock.sock")
    made.sendall(b'{{"v":1,"verb":"status"}}\\n')
    print(made.recv(1000))
except (PermissionError, BrokenPipeError, ConnectionResetError) as error:
    print(type(error).__name__)
"""

    def stranger() -> str:
        command = ["python3", "-c", code]
        done = subprocess.run(command, pass_fds=[directory], capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    assert stranger() == "PermissionError"
    path.chmod(0o666)
    assert stranger() in ("b''", "BrokenPipeError", "ConnectionResetError")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.relpath(path))
    connection.sendall(b'{"v":1,"verb":"ping"}\n')
    assert b'"ok":true' in connection.recv(1000)
    connection.close()
    os.close(directory)


@pytest.mark.parametrize("text", ["plain", 'quo"te\\', "tab\t", "Größe", "\U0001f600 \U0010ffff", "\udcff", ""])
def test_entry_is_json_whatever_a_name_holds(text: str) -> None:
    """Written without `json`, read with it."""
    assert json.loads(rendezvous._object({"name": text, "app": None, "pid": 3, "started": 1.5})) == {
        "name": text, "app": None, "pid": 3, "started": 1.5,
    }  # fmt: skip
