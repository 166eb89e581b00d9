"""G9: what the workers would share by mistake is told, or refused, before the first fork; what they share on purpose.

What the audit finds and how is tested in test_audit.py, how `check` shows it in test_cli.py.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from helpers import Bench

# Each makes one finding, and each finding is a pattern.
FINDINGS = {
    "thread": (
        "gate = threading.Event()\nbeat = threading.Thread(target=gate.wait, name='beat', daemon=True)\nbeat.start()",
        r"thread beat \(threading\.Event\.wait\) will not run in a worker; start it in on_worker_start",
    ),
    "socket": (
        "import socket as s\nfar = s.create_server(('127.0.0.1', 0))\npeer = s.create_connection(far.getsockname())",
        r"socket fd=\d+ connected to 127\.0\.0\.1:\d+ would be shared by all workers; open it in on_worker_start",
    ),
    "database": (
        "import sqlite3\ndatabase = sqlite3.connect(here / 'rows.db')\ndatabase.execute('CREATE TABLE rows (n)')",
        r"database .*/rows\.db would be shared by all workers; open it in on_worker_start",
    ),
    "generator": (
        "import random\ndice = random.Random(1)",
        r"generator shop\.dice \(random\.Random\) would draw the same in every worker; make it in on_worker_start",
    ),
}

WORK = """
@app.worker(pins=range(2))
def work(pin: int) -> None:
    (here / f"worked.{pin}").touch()

@app.on_stop
def stop() -> None:
    (here / "stopped").touch()
"""


def app_with(bench: Bench, kind: str, where: str, options: str = "") -> None:
    """Write an app that has one finding, made at import or in on_start."""
    code = FINDINGS[kind][0]
    if where == "on_start":
        names = [line.split(" =")[0] for line in code.splitlines() if " = " in line]
        body = "\n    ".join([f"global {', '.join(names)}", *code.splitlines()])
        code = f"@app.on_start\ndef start() -> None:\n    {body}"
    bench.app(f"app = App({options})\n{code}\n{WORK}")


def worked(bench: Bench) -> int:
    return len(list(bench.directory.glob("worked.*")))


@pytest.mark.parametrize("where", ["import", "on_start"])
@pytest.mark.parametrize("kind", FINDINGS)
def test_finding_is_a_warning_before_the_first_worker(bench: Bench, kind: str, where: str) -> None:
    """G9: each is named in one line with what to do, as the first line of the log; the workers work all the same."""
    app_with(bench, kind, where)

    finished = bench.run("shop:app")

    assert finished.returncode == 0
    first, *others = finished.stderr.splitlines()
    assert re.search(rf" WARNING fork-safety: {FINDINGS[kind][1]}$", first)
    assert "worker started" in others[0]
    assert finished.stderr.count("fork-safety") == 1
    assert worked(bench) == 2


STRICT = {
    "App": ("strict=True", [], {}),
    "flag": ("", ["--strict"], {}),
    "variable": ("", [], {"PYWORKERS_STRICT": "true"}),
    "flag over variable": ("", ["--strict"], {"PYWORKERS_STRICT": "false"}),
}


@pytest.mark.parametrize("source", STRICT)
def test_strict_instance_refuses_to_start(bench: Bench, source: str) -> None:
    """G9: code 2, the finding and the reason in the log, nothing forked, and on_stop has nothing to stop."""
    options, arguments, env = STRICT[source]
    app_with(bench, "database", "on_start", options)

    finished = bench.run("shop:app", *arguments, env=env)

    assert finished.returncode == 2
    finding, reason = finished.stderr.splitlines()
    assert re.search(rf" WARNING fork-safety: {FINDINGS['database'][1]}$", finding)
    assert reason.endswith(" ERROR not started: strict is on, and the fork-safety audit has found something")
    assert worked(bench) == 0
    assert not (bench.directory / "stopped").exists()


def test_strict_can_be_taken_back_by_a_flag(bench: Bench) -> None:
    """A flag beats the App: --no-strict warns and starts."""
    app_with(bench, "generator", "import", "strict=True")

    finished = bench.run("shop:app", "--no-strict")

    assert finished.returncode == 0
    assert finished.stderr.count(" WARNING fork-safety: ") == 1
    assert worked(bench) == 2


PLAIN = """
app = App(lock_file=here / "lock", strict=True, hang_timeout=5)

@app.on_failure
def tell(record) -> None: ...

@app.worker(pins=0)
async def work() -> None:
    (here / "worked.0").touch()
"""


def assert_plain(code: int, log: str, bench: Bench) -> None:
    assert code == 0, log
    assert "fork-safety" not in log
    assert worked(bench) == 1


def test_plain_instance_has_no_finding(bench: Bench) -> None:
    """With all that the master itself opens (lock, generations, pipes, asyncio), strict finds nothing."""
    bench.app(PLAIN)
    finished = bench.run("shop:app")

    assert_plain(finished.returncode, finished.stderr, bench)


def test_log_to_syslog_is_no_finding(bench: Bench) -> None:
    """The instance's own connection is made for many writers."""
    bench.app(PLAIN)
    address = str(bench.directory / "log.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        finished = bench.run("shop:app", f"--syslog={address}")
        server.setblocking(False)
        log = ""
        while "master exits" not in log:
            log += server.recv(4096).decode() + "\n"

    assert finished.stderr == ""
    assert_plain(finished.returncode, log, bench)


def test_daemon_has_no_finding(bench: Bench) -> None:
    """What it takes to become a daemon (its pipe to the shell, its log) is no finding."""
    bench.app(PLAIN.replace('(here / "worked.0").touch()', '(here / "worked.0").touch()\n    app.checkpoint()'))
    address = str(bench.directory / "log.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(20)
        finished = bench.run("shop:app", "--daemon", f"--syslog={address}")
        log = ""
        while "master exits" not in log:
            log += server.recv(4096).decode() + "\n"

    assert finished.stderr == ""
    assert_plain(finished.returncode, log, bench)


def test_strict_daemon_says_by_its_code_that_it_has_not_started(bench: Bench) -> None:
    """The shell that waits for the daemon gets 1 and a line; the log has the finding."""
    app_with(bench, "database", "import", "strict=True")
    address = str(bench.directory / "log.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(20)
        finished = bench.run("shop:app", "--daemon", f"--syslog={address}")
        log = [server.recv(4096).decode() for _ in range(2)]

    assert finished.returncode == 1
    assert "the daemon ended before its workers were up; its log says why" in finished.stderr
    assert "fork-safety: database" in log[0]
    assert "not started: strict is on" in log[1]
    assert worked(bench) == 0


@pytest.mark.parametrize("kind", ["stream socket", "datagram socket", "pipe"])
def test_stderr_that_is_connected_is_no_finding(bench: Bench, kind: str) -> None:
    """As under systemd and in containers: neither descriptor 2 nor the log's own descriptor of it."""
    if kind == "pipe":
        reader, writer = (os.fdopen(end, mode, 0) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    else:
        reader, writer = socket.socketpair(type=socket.SOCK_STREAM if kind == "stream socket" else socket.SOCK_DGRAM)
    with reader, writer:
        bench.app(PLAIN)
        master = bench.start(None, stderr=writer.fileno())
        code = master.wait()
        log = ""
        while "master exits" not in log:
            log += os.read(reader.fileno(), 65536).decode()

    assert_plain(code, log, bench)


def test_standard_streams_on_a_connection_are_no_finding(bench: Bench) -> None:
    """As from inetd: one TCP connection as stdin, stdout and stderr."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        bench.app(PLAIN)
        descriptor = accepted.fileno()
        master = bench.start(None, stdin=descriptor, stdout=descriptor, stderr=descriptor)
        code = master.wait()
        client.settimeout(20)
        log = ""
        while "master exits" not in log:
            log += client.recv(65536).decode()

    assert_plain(code, log, bench)


# What they share on purpose

FROZEN = """
import gc, os, sys
from pathlib import Path
from pyworkers import App

app = App(backoff=(0.001, 0.001))

@app.worker(pins=range(2))
def work(pin):
    Path(f"frozen.{pin}.{os.getpid()}").write_text(str(gc.get_freeze_count()))
    return 9 if pin and app.previous is None else 0

if sys.argv[1:] == ["before"]:
    gc.freeze()
before = gc.get_freeze_count()
code = app.run()
print(code, before, gc.get_freeze_count())
"""


def run_script(bench: Bench, *arguments: str) -> tuple[int, int, int]:
    """Run FROZEN; return its exit code of the app, and how much was frozen before and after the run."""
    (bench.directory / "script.py").write_text(FROZEN)
    finished = subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=bench.directory,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    code, before, after = map(int, finished.stdout.split())
    return code, before, after


def test_workers_have_what_there_was_before_them_frozen(bench: Bench) -> None:
    """Respawned workers, too, have the master's objects out of the collector's way; the program has them back later."""
    code, before, after = run_script(bench)

    counts = [int(path.read_text()) for path in bench.directory.glob("frozen.*")]
    assert len(counts) == 3
    assert min(counts) > 1000
    assert code == 0
    # What the interpreter itself had frozen is set free with the rest.
    assert after <= before


def test_program_that_has_frozen_its_objects_keeps_them_so(bench: Bench) -> None:
    """gc.unfreeze knows no halves: what the program had frozen before the run stays frozen."""
    code, before, after = run_script(bench, "before")

    assert code == 0
    assert before > 0
    assert after >= before
