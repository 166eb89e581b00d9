"""Leases without a database: what `--lease` asks for, what it costs who does not use it, and the timers beneath it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from helpers import Bench, alive, until
from pyworkers import _leasing
from pyworkers._core.exchange import Reply, Request
from pyworkers._core.types import Pid, Pin
from pyworkers._lease import wire
from pyworkers._posix.companion import Companion
from pyworkers._posix.deadlines import Deadlines, Occupant
from pyworkers._posix.lockfile import started_ticks
from pyworkers._posix.watchdog import Watchdog
from pyworkers._settings import RunSettings

URL = "postgresql://user:secret@nowhere.invalid/jobs"

APP = """
app = App("shop")

@app.worker(pins=0)
def work() -> None:
    wanted = {"asyncio", "ctypes.wintypes", "psycopg", "pyworkers._lease", "pyworkers._leasing", "pyworkers._posix.boottime",
              "pyworkers._posix.companion", "pyworkers._posix.deadlines", "pyworkers._worker.fence", "pyworkers._core.lease"}
    print(sorted(wanted & set(sys.modules)))
"""

SCALABLE = """
app = App("shop", workers=2, stop_timeout=60)

@app.worker()
def work() -> None:
    app.sleep(60)
"""


def test_run_without_a_lease_loads_nothing_of_it(bench: Bench) -> None:
    """Neither master nor worker."""
    bench.app(APP)
    ended = bench.run("shop:app")

    assert ended.returncode == 0
    assert ended.stdout == "[]\n"


def test_lease_without_its_package_says_what_to_install(bench: Bench) -> None:
    """Before anything is started, with code 2."""
    bench.app(APP)
    code = (
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'psycopg' else find(name, *rest)\n"
        "from pyworkers.cli import main\n"
        f"raise SystemExit(main(['shop:app', '--lease', '{URL}']))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=bench.directory, capture_output=True, text=True, timeout=20, check=False
    )

    assert ended.returncode == 2
    assert ended.stderr == (
        "pyworkers: error: --lease needs a package that is not installed: pip install 'pyworkers[postgres]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--standby",), "standby needs a lease"),
        (("--lease", "db/jobs"), "--lease must be the URL of a database, such as postgresql://host/name"),
        (("--lease", URL, "--lease-ttl", "1"), "--lease-ttl must be a number of seconds from 2 on"),
        (("--lease", URL, "--only", "0", "--inline"), "--inline and --lease"),
        (("--lease", URL, "--reload"), "--reload and --lease"),
    ],
)
def test_bad_use_is_refused_in_one_line(bench: Bench, arguments: tuple[str, ...], why: str) -> None:
    """Code 2, and what was expected."""
    bench.app(APP)
    ended = bench.run("shop:app", *arguments)

    assert ended.returncode == 2
    assert why in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_check_does_not_show_the_password(bench: Bench) -> None:
    """All else of the URL, it does."""
    bench.app(APP)
    shown = bench.run("check", "shop:app", "--lease", URL).stdout

    assert "lease=postgresql://user:...@nowhere.invalid/jobs" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("run_id", "environment", "told"),
    [
        (None, {}, ("slurm-7", ("slurm-7", 2))),
        ("one", {}, ("one", ("slurm-7", 2))),
        # Without a number, nothing can be compared.
        ("one", {"SLURM_RESTART_COUNT": "?"}, ("one", None)),
    ],
)
def test_name_of_the_run_is_the_user_s_and_attempts_are_the_engine_s(
    monkeypatch: pytest.MonkeyPatch, run_id: str | None, environment: dict[str, str], told: object
) -> None:
    """A job that is sent again with the same `--run-id` goes on with the run, and its attempts begin anew."""
    for name, value in {"SLURM_ARRAY_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", **environment}.items():
        monkeypatch.setenv(name, value)

    assert _leasing._run(RunSettings(shard="slurm/2", run_id=run_id)) == told
    assert _leasing._run(RunSettings(shard="0/2", run_id=run_id)) == (run_id, None)


def test_host_that_is_none_is_told_once_and_costs_no_helper(bench: Bench) -> None:
    """It cannot even be looked up: one line, and the helper goes on asking."""
    instance = bench.start(APP, env={"PYWORKERS_LEASE": "postgresql://a..b/jobs", "PYWORKERS_LEASE_TTL": "2"})
    (helper,) = until(instance.workers, "the helper")
    instance.await_log("lease database: a name cannot be encoded or decoded: .*; trying again\n")

    assert instance.stop() == 0
    assert alive(helper) is False
    assert "Traceback" not in instance.log
    assert "it has ended" not in instance.log


def test_password_is_in_no_process_s_arguments_or_environment_but_the_master_s(bench: Bench) -> None:
    """The helper gets the URL through its socket; workers do not get it at all."""
    instance = bench.start(APP, env={"PYWORKERS_LEASE": URL})
    (helper,) = until(instance.workers, "the helper")
    instance.await_log("lease database: .*; trying again")
    for name in ("cmdline", "environ"):
        with open(f"/proc/{helper}/{name}") as file:
            assert "secret" not in file.read()

    assert "secret" not in instance.log
    assert instance.stop() == 0


def test_who_waits_is_shown_and_what_leases_cannot_do_is_refused(bench: Bench) -> None:
    """Each in one line, and nothing changes: not the master, not the number of its PINs."""
    instance = bench.start(SCALABLE, env={"PYWORKERS_LEASE": URL})
    instance.await_log("lease database: .*; trying again")
    before = [(row.pin, row.state, row.pid) for row in instance.status()]
    assert before == [(0, "waiting", None), (1, "waiting", None)]
    for verb, why in (
        (("reload", "shop:app"), "leases are not handed over to new code: stop the instance and start it"),
        (("scale", "shop:app", "3"), "none of a shard, --lease or --only"),
    ):
        refused = bench.run(*verb)
        assert refused.returncode == 1
        assert why in refused.stderr
        assert refused.stderr.count("\n") == 1
    instance.process.send_signal(signal.SIGHUP)
    instance.await_log("reload refused: leases are not handed over .*; nothing changes\n(.*\n)*.*reload refused: ")

    # It has no process, so there is nothing to wait for: no minute, which is the time for a stop.
    assert bench.run("restart", "shop:app").stdout.count("waiting") == 2
    assert [(row.pin, row.state, row.pid) for row in instance.status()] == before
    assert instance.stop() == 0


def test_helper_is_replaced_and_goes_with_its_master(bench: Bench) -> None:
    """A signal that reaches all processes of a job does not end it; KILL does, and another one follows."""
    instance = bench.start(APP, env={"PYWORKERS_LEASE": URL})
    (first,) = until(instance.workers, "the helper")
    instance.await_log("lease database: .*; trying again")
    os.kill(first, signal.SIGTERM)
    os.kill(first, signal.SIGINT)
    assert instance.workers() == [first]
    os.kill(first, signal.SIGKILL)
    instance.await_log(f"lease helper pid={first}: it has ended; trying again")
    (second,) = until(lambda: [pid for pid in instance.workers() if pid != first], "the next helper")
    instance.process.kill()

    until(lambda: not alive(second), "the end of the helper")


# The parts


TIMER = """
import signal, threading
from pyworkers._posix import boottime
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def came(seconds):
    return signal.sigtimedwait({signal.SIGUSR1}, seconds) is not None
timer = boottime.Timer(signal.SIGUSR1)
timer.set(boottime.now() + 3600)
assert not came(0)
began = boottime.now()
timer.set(began + 0.05)
assert came(20) and boottime.now() - began >= 0.049
assert came(20) and boottime.now() - began >= 0.25
timer.set(-5.0)
assert came(20)
# A thread that would take a signal to the process gets none of it.
timer.set(boottime.now() + 3600)
while came(0):
    pass
def take():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    leave.wait()
leave, thread = threading.Event(), threading.Thread(target=take)
thread.start()
timer.set(-5.0)
assert came(20)
leave.set()
"""


def test_timer_signals_the_main_thread_at_the_instant_that_was_set_last() -> None:
    """And again after that; also where it has passed; and not at the one before."""
    ended = subprocess.run([sys.executable, "-c", TIMER], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    """Those of two PINs."""
    deadlines = Deadlines.create(2)
    yield deadlines
    deadlines.close()


def test_deadlines_are_shared_and_know_their_own(deadlines: Deadlines) -> None:
    """A process that started at another time has got the pid of one that had signed: it is none of ours."""
    other = Deadlines(os.dup(deadlines.descriptor))
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        deadlines.extend(1, 12.5)
        deadlines.sign(1, child)
        started = started_ticks(child)
        assert started is not None
        assert other.until(1) == 12.5
        assert other.occupants() == [Occupant(Pid(child), started, 12.5)]
        for earlier in (started - 1, 0):
            assert not other.end(Occupant(Pid(child), earlier, 12.5))
        assert alive(child)
        assert other.end(*other.occupants())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not other.end(*other.occupants())
    deadlines.sign(1, 0)
    assert other.occupants() == []
    other.close()


def test_process_that_executes_another_program_is_still_the_one_that_has_signed(deadlines: Deadlines) -> None:
    """It has neither the memory nor its timer any more."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(theirs, 1)
        deadlines.sign(0, os.getpid())
        os.execv(sys.executable, [sys.executable, "-c", "import os, signal; os.write(1, b'there'); signal.pause()"])
    try:
        assert os.read(ours, 5) == b"there"
        (occupant,) = deadlines.occupants()
        assert occupant.pid == child
        assert deadlines.end(occupant)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ours)
        os.close(theirs)


def test_watchdog_keeps_the_earlier_end() -> None:
    """A second call with less time brings the end forward, one with more does not put it off."""
    code = """
import sys, time
from pyworkers._posix.watchdog import Watchdog
watchdog = Watchdog()
for seconds in (60, 0.1, 60):
    watchdog.end_after(seconds, 3, 2)
time.sleep(30)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, check=False)

    assert ended.returncode == 1
    assert b"Timeout (0:00:00.1" in ended.stderr
    assert Watchdog() is not None


def test_companion_hears_and_is_heard() -> None:
    """More than a socket holds goes in pieces, without waiting; its end is noticed."""
    null = os.open(os.devnull, os.O_WRONLY)
    companion = Companion("code", null)
    try:
        # `python -m code` reads its lines from stdin, and echoes none on stdout, which is /dev/null.
        more = companion.send(b"# " + b"x" * 2_000_000 + b"\nraise SystemExit\n")
        assert more
        until(lambda: not companion.flush(), "all to be sent")
        until(lambda: (companion.read(), companion.hung_up)[1], "its end")
        assert companion.send(b"too late") is False
    finally:
        os.close(null)
        companion.close()
        os.waitpid(companion.pid, 0)


MESSAGES = [
    wire.Hello(URL, "shop", "me", 6.0, "one", ("slurm-7", 1), {Pin(0): "work"}),
    wire.Ready(),
    Request(7, {Pin(1): 3}, (Pin(0), Pin(2)), fresh=True, expired=(("you", 5),), give={Pin(3): (4, True)}),
    Reply(7, frozenset({Pin(1)}), {Pin(0): 1}, frozenset({Pin(2)}), {("you", 5): 6.0}),
    wire.Failed(8, "no"),
    wire.Hint(),
    wire.Unable("no"),
]


def test_messages_come_out_as_they_went_in_however_they_are_cut() -> None:
    """Byte by byte, as well as all at once."""
    data = b"".join(wire.packed(message) for message in MESSAGES)
    assert wire.split(data) == (MESSAGES, b"")
    told: list[wire.Message] = []
    rest = b""
    for number in range(len(data)):
        messages, rest = wire.split(rest + data[number : number + 1])
        told += messages

    assert told == MESSAGES
    assert rest == b""
