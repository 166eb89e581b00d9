"""The instance as process 1 of a container or as a subreaper, and the process groups that end with their workers.

Strangers are processes that nobody in the instance has forked: they become the master's children when their parents
end. Whatever a test lets loose here lives in the bench's directory, by which it is found and ended.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess

import pytest

from helpers import Bench, Instance, alive, as_from_a_shell, children, state, until

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


class ProcessOne(Instance):
    """An instance that is process 1 of a PID namespace; the pids in its log are those of the namespace."""

    def _command(self, app: str, *options: str) -> list[str]:
        return [*UNSHARE, *super()._command(app, *options)]

    @property
    def pid(self) -> int:
        """The master's pid outside of the namespace."""
        return until(lambda: children(self.process.pid), "process 1")[0]


def become_subreaper() -> None:
    """In a child before exec, which keeps the setting: prctl(2)."""
    as_from_a_shell()
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def may_make_namespaces() -> bool:
    """Whether this user and machine have what ProcessOne needs."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(params=["subreaper", "process 1"])
def adopter(request: pytest.FixtureRequest, bench: Bench):
    """Starts a master that adopts orphans, from a source."""
    if request.param == "process 1" and not may_make_namespaces():
        pytest.skip("may not make a PID namespace here: unshare(1)")

    def start(source: str) -> Instance:
        if request.param == "subreaper":
            return bench.start(source, preexec_fn=become_subreaper)
        bench.app(source)
        instance = ProcessOne(bench.directory, "shop:app")
        bench.instances.append(instance)
        return instance

    return start


STRANGERS = """
import subprocess

app = App(backoff=(0.01, 0.01))

def loose(code: int) -> None:
    # Forks twice, as a daemon does: the master is the grandchild's parent as soon as the middle one has ended.
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            while os.getppid() != master:
                time.sleep(0.001)
            with (here / "adopted").open("a") as out:
                out.write("x")
            if code < 0:
                os.kill(os.getpid(), -code)
            os._exit(code)
        os._exit(0)
    os.waitpid(middle, 0)

master = os.getpid()
"""


def zombies(master: Instance) -> list[int]:
    return [pid for pid in children(master.pid) if state(pid) == "Z"]


def test_adopted_strangers_are_reaped_without_a_word(bench: Bench, adopter) -> None:
    """Whatever way they end, no zombie of theirs is left, no line is about them, and no PIN is disturbed."""
    master = adopter(
        STRANGERS
        + """
@app.worker(pins=range(2))
def work(pin: int) -> None:
    for code in (0, 41, -9):
        loose(code)
    (here / f"done.{pin}").touch()
    app.sleep(3600)
"""
    )
    until(lambda: len(list(bench.directory.glob("done.*"))) == 2, "both workers")
    bench.await_text("adopted", "x", 6)

    until(lambda: len(children(master.pid)) == 2, "two children, the workers")
    assert zombies(master) == []
    assert len(master.log.splitlines()) == len(master.matches("worker started")) == 2
    assert master.stop() == 0


def test_helper_of_on_start_keeps_its_status_among_strangers(bench: Bench, adopter) -> None:
    """A subprocess that on_start has left is never taken for a stranger, however long on_stop lets it wait."""
    master = adopter(
        STRANGERS
        + """
@app.on_start
def start() -> None:
    global early, late
    early = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    late = subprocess.Popen(["sh", "-c", "while [ ! -e go ]; do sleep 0.01; done; exit 8"])
    # It is a zombie before the first worker is there, and hides all who end after it.
    os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT)

@app.worker(pins=range(2))
def work(pin: int) -> None:
    if app.previous is None:
        for code in (0, 41, -9):
            loose(code)
        os.kill(os.getpid(), signal.SIGKILL)
    (here / f"done.{pin}").touch()
    app.sleep(3600)

@app.on_stop
def stop() -> None:
    (here / "codes").write_text(f"{early.wait()} {late.wait()}")
"""
    )
    until(lambda: len(list(bench.directory.glob("done.*"))) == 2, "both second workers")
    bench.await_text("adopted", "x", 6)
    (bench.directory / "go").touch()
    # Of four children the two helpers have ended, and are not ours to collect.
    until(lambda: len(children(master.pid)) == 4 and len(zombies(master)) == 2, "workers and helpers alone")

    master.await_log("worker started", 4)
    assert len(master.matches("worker ended")) == 2
    assert master.stop() == 0
    assert bench.read("codes") == "7 8"


def leave_a_child() -> None:
    """In a child before exec: start a process that exec leaves to the program, as `job & exec program` does."""
    become_subreaper()
    if os.fork() == 0:
        os.execlp("sh", "sh", "-c", "while [ ! -e go ]; do sleep 0.01; done")


def test_child_from_before_exec_is_a_stranger(bench: Bench) -> None:
    """Nobody in the instance started it or waits for it, so it is reaped as an orphan is."""
    source = "app = App()\n@app.worker(pins=0)\ndef work():\n    app.sleep(3600)\n"
    master = bench.start(source, preexec_fn=leave_a_child)
    master.worker(0)
    assert len(children(master.pid)) == 2
    (bench.directory / "go").touch()

    until(lambda: len(children(master.pid)) == 1, "the worker alone")
    assert master.stop() == 0


def test_orphan_of_a_helper_is_a_stranger_and_the_helper_is_none(bench: Bench, adopter) -> None:
    """What a subprocess of on_start leaves behind is reaped; its own status waits for on_stop."""
    master = adopter(
        STRANGERS
        + """
@app.on_start
def start() -> None:
    global helper
    orphan = "while [ ! -e go ]; do sleep 0.01; done; exit 5"
    helper = subprocess.Popen(["sh", "-c", f"while [ ! -e up ]; do sleep 0.01; done; ({orphan}) & exit 7"])

@app.worker(pins=0)
def work() -> None:
    (here / "up").touch()
    app.sleep(3600)

@app.on_stop
def stop() -> None:
    (here / "code").write_text(str(helper.wait()))
"""
    )
    until(lambda: len(children(master.pid)) == 3, "worker, helper and orphan")
    (bench.directory / "go").touch()
    until(lambda: len(children(master.pid)) == 2, "the worker and the helper")

    assert len(zombies(master)) == 1
    assert master.stop() == 0
    assert bench.read("code") == "7"


def test_who_adopts_nobody_leaves_strangers_to_others(bench: Bench) -> None:
    """Without the setting, orphans of workers go to whoever is there for them, and the master never meets them."""
    master = bench.start(
        STRANGERS.replace("os.getppid() != master", "os.getppid() in (master, parent)").replace(
            "    if middle == 0:", "    if middle == 0:\n        parent = os.getpid()"
        )
        + "@app.worker(pins=0)\ndef work():\n    loose(41)\n    app.sleep(3600)\n"
    )
    bench.await_text("adopted", "x")

    assert len(children(master.pid)) == 1
    assert master.stop() == 0


UNITS = """
app = App(stop_timeout=5)

@app.worker(pins=range(3))
def work(pin: int) -> None:
    app.checkpoint()
    while True:
        with (here / f"begun.{pin}").open("a") as out:
            out.write("x")
        time.sleep(0.02)
        with (here / f"ended.{pin}").open("a") as out:
            out.write("x")
        app.checkpoint()
"""


def test_term_to_an_adopter_is_a_graceful_stop(bench: Bench, adopter) -> None:
    """The TERM of docker stop reaches process 1 like any other: units end, nobody is killed, code 0."""
    master = adopter(UNITS)
    for pin in range(3):
        bench.await_text(f"ended.{pin}", "x", 2)
    workers = master.workers()

    assert master.stop() == 0
    assert len(workers) == 3
    assert not any(alive(pid) for pid in workers)
    assert [bench.read(f"begun.{pin}") for pin in range(3)] == [bench.read(f"ended.{pin}") for pin in range(3)]
    assert len(master.matches("exit=143 .*; stopped")) == 3


COUNTING = """
app = App()

def note(what: str) -> None:
    with (here / f"told.{app.pin}").open("a") as out:
        out.write(what)

@app.on_signal(signal.SIGUSR1)
def one() -> None:
    note("1")

@app.on_signal(signal.SIGUSR2)
def two() -> None:
    note("2")

@app.worker(pins=range(3))
def work(pin: int) -> None:
    app.checkpoint()
    (here / f"up.{pin}").touch()
    app.sleep(3600)
"""


def test_signal_to_the_masters_group_reaches_each_worker_once(bench: Bench) -> None:
    """Engines signal a group: it comes to the workers through the master alone, for each leads a group of its own."""
    master = bench.start(COUNTING, start_new_session=True)
    until(lambda: len(list(bench.directory.glob("up.*"))) == 3, "three workers")

    for count in range(1, 11):
        os.killpg(master.pid, signal.SIGUSR1)
        for pin in range(3):
            bench.await_text(f"told.{pin}", "1", count)
    # Signals of the master come in order: with this one, all that were to come are there.
    master.signal(signal.SIGUSR2)
    for pin in range(3):
        bench.await_text(f"told.{pin}", "2")

    assert [bench.read(f"told.{pin}") for pin in range(3)] == ["1111111111" + "2"] * 3
    assert master.stop() == 0


def test_workers_lead_their_group_and_no_session(bench: Bench) -> None:
    """setpgid(2), not setsid(2): a terminal's hang-up still reaches them, and so does its job control."""
    master = bench.start(
        """
        app = App()

        @app.on_worker_start
        def note(pin: int) -> None:
            (here / f"ids.{pin}").write_text(f"{os.getpid()} {os.getpgrp()} {os.getsid(0)}")

        @app.worker(pins=0)
        def leader() -> None:
            (here / "up.0").touch()
            time.sleep(3600)

        @app.worker(pins=1, kill_group=False)
        def member() -> None:
            (here / "up.1").touch()
            time.sleep(3600)
        """
    )
    until(lambda: len(list(bench.directory.glob("up.*"))) == 2, "both workers")

    leader, member = (bench.read(f"ids.{pin}").split() for pin in range(2))
    session, group = str(os.getsid(master.pid)), str(os.getpgid(master.pid))
    assert leader == [str(master.worker(0)), str(master.worker(0)), session]
    assert member == [str(master.worker(1)), group, session]
    assert master.stop() == 0


# Groups


FAMILY = """
import subprocess

app = App()

PF_EXITING = 0x4  # linux/sched.h; proc(5), /proc/PID/stat, flags

def dying(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line[:7] in ("SigPnd:", "ShdPnd:")]
    return fields[0] in "ZX" or bool(int(fields[6]) & PF_EXITING) or any(mask >> 8 & 1 for mask in masks)

def note(name: str, *pids: int) -> None:
    (here / f"{name}.new").write_text(" ".join(map(str, pids)))
    (here / f"{name}.new").rename(here / name)

kept = []

def start_family(new_session: bool) -> None:
    program = subprocess.Popen(["sleep", "3600"], start_new_session=new_session)
    # Not finalized when this returns: a Stop that is raised in a __del__ is printed, and lost.
    kept.append(program)
    child = os.fork()
    if child == 0:
        if new_session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        reader.close()
        os.write(writer.fileno(), b"x")
        while True:
            time.sleep(3600)
    assert reader.read(1) == b"x"
    note("family", program.pid, child)

reader, writer = (os.fdopen(end, mode, 0) for end, mode in zip(os.pipe(), ("rb", "wb")))
"""

WORK = """
@app.worker(pins=0, {options})
def work() -> None:
    if app.previous is None:
        start_family({new_session})
        {end}
    family = [int(pid) for pid in (here / "family").read_text().split()]
    # Three looks: between a signal's delivery and the process's end there is an instant that shows neither.
    note("seen", *(int(any(dying(pid) for _ in range(3))) for pid in family))
    time.sleep(3600)
"""

ENDS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "crashed": "raise ValueError('bad page')",
    "at once": "os._exit(1)",
    "recycled": "return",
}


def family(bench: Bench) -> list[int]:
    """Wait for the worker's children, and return their pids: a program and a fork that ignores TERM."""
    return [int(pid) for pid in until(lambda: bench.read("family"), "the family").split()]


@pytest.mark.parametrize("end", ENDS)
def test_what_a_worker_started_is_doomed_before_its_successor_starts(bench: Bench, end: str) -> None:
    """kill_group: however a worker ends, nothing that it has started is still at work on its PIN."""
    options = "restart='always'" if end == "recycled" else ""
    master = bench.start(FAMILY + WORK.format(options=options, new_session=False, end=ENDS[end]))
    pids = family(bench)

    assert until(lambda: bench.read("seen"), "the successor") == "1 1"
    until(lambda: not any(alive(pid) for pid in pids), "the end of the family")
    assert master.stop() == 0


def test_what_a_worker_started_ends_with_a_normal_end(bench: Bench) -> None:
    """kill_group: where nobody follows, too."""
    master = bench.start(FAMILY + WORK.format(options="", new_session=False, end="return"))

    assert master.wait() == 0
    until(lambda: not any(alive(pid) for pid in family(bench)), "the end of the family")


def test_what_a_worker_started_ends_with_a_stop(bench: Bench) -> None:
    """kill_group: a stop leaves nobody behind, and needs no force for it."""
    master = bench.start(FAMILY + WORK.format(options="", new_session=False, end="time.sleep(3600)"))
    pids = family(bench)

    assert master.stop() == 0
    assert master.matches("worker ended work .* exit=143 .*; stopped")
    until(lambda: not any(alive(pid) for pid in pids), "the end of the family")


def end_all(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("why", ["kill_group=False", "start_new_session"])
def test_who_is_in_no_group_of_the_worker_survives_it(bench: Bench, why: str) -> None:
    """Without kill_group all survive a crash and the stop; with it, those who have left for a session of their own."""
    new_session = why == "start_new_session"
    options = "" if new_session else why
    master = bench.start(FAMILY + WORK.format(options=options, new_session=new_session, end=ENDS["killed"]))
    pids = family(bench)

    assert until(lambda: bench.read("seen"), "the successor") == "0 0"
    assert master.stop() == 0
    assert all(alive(pid) for pid in pids)
    end_all(pids)


def test_adopter_reaps_what_it_kills_with_a_group(bench: Bench, adopter) -> None:
    """The grandchildren that a dead worker leaves are the master's own from then on: no zombie of them is left."""
    master = adopter(FAMILY + WORK.format(options="", new_session=False, end=ENDS["killed"]))
    until(lambda: bench.read("seen"), "the successor")

    until(lambda: len(children(master.pid)) == 1, "the successor as the only child")
    master.worker(0, attempt=2)
    assert re.findall(r"pid=(\d+)", master.log.splitlines()[-1]) == [str(master.started(0)[1])]
    assert len(master.log.splitlines()) == 3
    assert master.stop() == 0
