"""A worker that does not reach its checkpoints: seen, explained by its stacks, replaced; and who only looks like one."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import Bench, Instance, as_from_a_shell, open_files, state, until

CLOCK = """
import itertools

app = App(hang_timeout={hang_timeout}, stop_timeout=4, backoff=(0.001, 0.001))

@app.worker(pins=99, cooperative=False)
def clock():
    app.checkpoint()
    time.sleep(3600)
"""
"""An app in which one worker hangs for ever. It is the clock of tests in which nothing is to happen for a while: each
time that it is called hung, hang_timeout has passed once more by the master's own reckoning. The code of a stop says
nothing there, for the stop may find it interrupted."""


def tick(master: Instance, count: int) -> None:
    """Wait until the clock's worker has been found hung so many times more."""
    before = len(master.matches("worker hung clock"))
    master.await_log("worker hung clock", before + count)


def hung(master: Instance, pin: int) -> list[re.Match[str]]:
    """Return the lines that call a PIN hung."""
    return master.matches(rf"worker hung \S+ pin={pin} .*")


def stacks(master: Instance, pid: int) -> list[str]:
    """Return the stack lines of a process, in their order."""
    return [found[1] for found in master.matches(rf"ERROR stack \S+ pin=\d+ pid={pid}: (.*)")]


def line_of(bench: Bench, text: str) -> int:
    """Return the number of the one line of the app that has this text."""
    (number,) = [
        number for number, line in enumerate(bench.read("shop.py").splitlines(), start=1) if line.strip() == text
    ]
    return number


# What is a hang

HANGS = {
    "loop": "while True: pass",
    "sleep": "time.sleep(3600)",
    "lock": "both = threading.Lock(); both.acquire(); both.acquire()",
    "C call": "sum(itertools.repeat(1))",
}

STUCK = """
import itertools

app = App(hang_timeout=0.5, stop_timeout=4)

def idle():
    threading.Event().wait()

def stuck():
    {how}

@app.worker(pins=range(3, 4))
def fetch(pin):
    if app.previous is not None:
        (here / "previous").write_text(f"{{app.previous.cause}} {{app.previous.attempt}} {{app.previous.unit}}")
        app.sleep(3600)
    threading.Thread(target=idle, daemon=True).start()
    app.checkpoint()
    app.unit("page 7")
    stuck()

@app.worker(pins=0)
def bystander():
    while True:
        app.sleep(0.05)

@app.on_failure
def tell(record):
    (here / "told").write_text(f"{{record.pin}} {{record.handler}} {{record.cause}} {{record.attempt}}")
"""


@pytest.mark.parametrize("kind", HANGS)
def test_hung_worker_is_explained_and_replaced(bench: Bench, kind: str) -> None:
    """Whatever it hangs in: said, its stacks logged down to the handler and no further, replaced under its PIN."""
    how = HANGS[kind]
    master = bench.start(STUCK.format(how=how))
    victim = master.worker(3)
    successor = master.worker(3, attempt=2)
    bench.await_text("told", "3 fetch hang 1")
    bench.await_text("previous", "hang 1 page 7")

    (line,) = hung(master, 3)
    silent = re.fullmatch(
        rf"worker hung fetch pin=3 pid={victim} silent=(\d+\.\d)s; its stacks follow, then it is replaced", line[0]
    )
    assert silent is not None
    assert float(silent[1]) >= 0.5
    found, path = stacks(master, victim), bench.directory / "shop.py"
    main = found.index(f'  File "{path}", line {line_of(bench, how)} in stuck')
    assert found[main + 1] == f'  File "{path}", line {line_of(bench, "stuck()")} in fetch'
    assert any(re.search(r"Thread 0x[0-9a-f]+ ", text) for text in found[:main])
    assert f'  File "{path}", line {line_of(bench, "threading.Event().wait()")} in idle' in found
    # The second thread's stack has the interpreter's own frames; none has ours.
    assert len(found) > main
    assert not any("/pyworkers/" in text for text in found)
    if kind == "C call":
        assert master.matches(rf"worker has not left fetch pin=3 pid={victim}; killing it by SIGKILL")
        status = "signal=SIGKILL"
    else:
        status = "exit=131"
    assert master.matches(
        rf"WARNING worker ended fetch pin=3 pid={victim} {status} cause=hang after=\S+ unit='page 7'; respawning now"
    )
    assert master.log.index("stack fetch") < master.log.index(f"pid={victim} {status}")
    assert successor != victim
    assert not hung(master, 0)
    assert master.stop() == 0


def test_hung_worker_may_clean_up_after_the_interrupt(bench: Bench) -> None:
    """The interrupt raises where it stands: finally, on_worker_exit and atexit functions run, then it is replaced."""
    master = bench.start(
        """
        import atexit

        app = App(hang_timeout=0.5)

        def note(text):
            with (here / "notes").open("a") as out:
                out.write(text + "\\n")

        @app.on_worker_exit
        def leave(pin):
            note(f"exit {pin}")

        @app.worker(pins=0)
        def work():
            if app.previous is not None:
                return
            atexit.register(note, "atexit")
            app.checkpoint()
            try:
                time.sleep(3600)
            except Stop as stop:
                note(f"stop {stop.code}")
                raise
        """
    )

    assert master.wait() == 0
    assert bench.read("notes").splitlines() == ["stop 131", "exit 0", "atexit", "exit 0"]
    assert master.matches("exit=131 cause=hang .*; respawning now")


def test_hung_worker_that_ends_normally_when_interrupted_has_finished(bench: Bench) -> None:
    """It is asked to leave like any other: a normal code is a normal end, and the line still says what it was."""
    master = bench.start(
        """
        app = App(hang_timeout=0.5)

        @app.worker(pins=0)
        def work():
            app.checkpoint()
            try:
                time.sleep(3600)
            except Stop:
                return 0
        """
    )

    assert master.wait() == 0
    assert len(master.started(0)) == 1
    assert master.matches("exit=0 cause=hang .*; finished")


def test_async_handler_that_blocks_its_loop_is_hung(bench: Bench) -> None:
    """A turn of the loop is what counts for an async handler, so one without checkpoints is watched, too."""
    master = bench.start(
        """
        import asyncio

        # The end of the second worker counts, too, and takes its time on a busy machine.
        app = App(hang_timeout=4)

        def block():
            time.sleep(3600)

        @app.worker(pins=0)
        async def work():
            if app.previous is not None:
                return
            await asyncio.sleep(0)
            block()
        """
    )

    assert master.wait() == 0
    assert len(hung(master, 0)) == 1
    assert [text for text in stacks(master, master.started(0)[0]) if text.endswith((" in block", " in work"))] == [
        f'  File "{bench.directory}/shop.py", line {line_of(bench, "time.sleep(3600)")} in block',
        f'  File "{bench.directory}/shop.py", line {line_of(bench, "block()")} in work',
    ]


def test_many_hung_at_once_do_not_mix_their_stacks(bench: Bench) -> None:
    """One dump at a time: each worker's lines stand together, under its own PIN and pid."""
    master = bench.start(
        """
        app = App(hang_timeout=0.5)

        @app.worker(pins=range(8))
        def work(pin):
            if app.previous is not None:
                app.sleep(3600)
            names = {"time": time, "threading": threading}
            exec(f"def idle_{pin}(): threading.Event().wait()\\ndef stuck_{pin}(): time.sleep(3600)", names)
            for _ in range(5):
                threading.Thread(target=names[f"idle_{pin}"], daemon=True).start()
            app.checkpoint()
            names[f"stuck_{pin}"]()
        """
    )
    master.await_log("worker started", 16)

    lines = [(found[1], found[2], found[3]) for found in master.matches(r"stack work pin=(\d) pid=(\d+): (.*)")]
    together = [who for who, _ in itertools.groupby(lines, key=lambda line: line[:2])]
    assert sorted(together) == [(str(pin), str(master.started(pin)[0])) for pin in range(8)]
    named = [found[1] for _, _, text in lines if (found := re.search(r"(?:idle|stuck)_(\d)", text))]
    assert named == [number for number, _ in together for _ in range(6)]
    assert master.stop() == 0


def test_stacks_go_to_syslog_like_every_other_line(bench: Bench, tmp_path: Path) -> None:
    """A daemon has no stderr, so the dump must not depend on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log.sock"))
        server.settimeout(20)
        bench.app(STUCK.format(how="time.sleep(3600)"))
        master = bench.start(None, f"--syslog={tmp_path}/log.sock")
        lines: list[str] = []
        while not (lines and "cause=hang" in lines[-1]):
            lines.append(server.recv(4096).decode())
        pid = re.findall(r"worker hung fetch pin=3 pid=(\d+)", "\n".join(lines))[0]
        assert master.stop() == 0

    assert master.log == ""
    # <27> is an error of the facility daemon.
    stack = [line for line in lines if f"stack fetch pin=3 pid={pid}: " in line]
    assert all(line.startswith("<27>") for line in stack)
    assert any(line.endswith(" in stuck") for line in stack)
    assert any(line.endswith(" in fetch") for line in stack)


def test_hang_in_a_stop_is_the_ladders_business(bench: Bench) -> None:
    """A stop that comes while a worker is being dumped, or after, ends it in time and starts nobody."""
    bench.app(STUCK.format(how="sum(itertools.repeat(1))"))
    master = bench.start()
    master.await_log("worker hung fetch")

    begun = time.monotonic()
    assert master.stop() == 1
    assert time.monotonic() - begun < 4 + 1
    assert len(master.started(3)) == 1
    assert master.log.endswith("INFO all workers stopped; master exits code=1\n")


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.fire)])
def test_master_keeps_no_descriptor_of_a_hang(bench: Bench, count: int) -> None:
    """G7: the pipe of the stacks is made once, however many hang."""
    master = bench.start(
        """
        app = App(hang_timeout=0.2, backoff=(0.001, 0.001))

        @app.worker(pins=range(5), cooperative=False)
        def work(pin):
            app.checkpoint()
            time.sleep(3600)
        """
    )
    master.await_log("worker started", 5)
    before = open_files(master.pid)

    master.await_log("cause=hang", count)

    until(lambda: open_files(master.pid) == before, "the same descriptors")
    master.stop()


# What is none

PATIENT = """
import asyncio

def until(name):
    while not (here / name).exists():
        app.checkpoint()
        time.sleep(0.05)

@app.worker(pins=0)
def sleep():
    app.sleep(3600)

@app.worker(pins=1)
def wait():
    app.wait([os.pipe()[0]])

@app.worker(pins=2)
def wait_again_and_again():
    while True:
        app.wait([], 3)

@app.worker(pins=3)
def track_a_slow_iterator():
    for _ in app.track(app.sleep(3) for _ in range(1000)):
        pass

@app.worker(pins=4)
def track_short_units():
    for _ in app.track(itertools.repeat(0)):
        time.sleep(0.05)

@app.worker(pins=5)
def interruptible():
    app.checkpoint()
    with app.interruptible():
        os.read(os.pipe()[0], 1)

@app.worker(pins=6)
def interruptible_as_the_first_checkpoint():
    with app.interruptible():
        time.sleep(3600)

@app.worker(pins=7)
def critical_with_checkpoints():
    app.checkpoint()
    with app.critical(), app.critical():
        until("go")

@app.worker(pins=8)
def critical_with_sleep():
    with app.critical():
        while not (here / "go").exists():
            app.sleep(0.6)

@app.worker(pins=9)
def no_checkpoint_yet():
    time.sleep(3600)

@app.worker(pins=10)
def checkpoint_in_another_thread():
    threading.Thread(target=app.sleep, args=(3600,)).start()
    time.sleep(3600)

@app.worker(pins=11)
async def await_long():
    await asyncio.sleep(3600)

@app.worker(pins=12)
async def await_often():
    while True:
        await asyncio.sleep(0.05)

@app.worker(pins=13)
async def await_without_our_wakeup():
    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, print)
    await asyncio.sleep(3600)

@app.worker(pins=14)
async def await_with_checkpoints():
    while True:
        app.checkpoint()
        await asyncio.sleep(0.6)
"""


def block_real_time_signals() -> None:
    """In a child before exec, which keeps the mask, as a program does that takes its signals by signalfd(2)."""
    as_from_a_shell()
    signal.pthread_sigmask(signal.SIG_BLOCK, range(signal.SIGRTMIN, signal.SIGRTMAX + 1))


def test_starter_that_blocks_signals_hides_no_hang_and_makes_none(bench: Bench) -> None:
    """Whatever mask the instance was started with, a worker answers its probes, and leaves its stacks when it hangs."""
    master = bench.start(
        """
app = App(hang_timeout=0.3)

@app.worker(pins=0)
def work():
    if app.previous is None:
        for _ in app.track(range(30)):
            app.sleep(0.05)
        while True:
            pass
""",
        preexec_fn=block_real_time_signals,
    )

    assert master.wait() == 0
    assert len(master.started(0)) == 2
    assert master.matches(r"stack work .*in work")
    assert master.matches(r"worker ended work .*cause=hang after=\S+ done=30/30;")


def test_waiting_is_no_hang(bench: Bench) -> None:
    """Whatever the package waits in counts as a checkpoint, and a turn of an asyncio loop does; none before the first."""
    master = bench.start(CLOCK.format(hang_timeout=0.5) + PATIENT)
    master.await_log("worker started", 16)

    tick(master, 4)

    assert not [line for line in master.log.splitlines() if "worker hung" in line and "hung clock" not in line]
    assert [len(master.started(pin)) for pin in range(15)] == [1] * 15
    (bench.directory / "go").touch()
    master.stop()


def test_on_worker_start_may_take_longer(bench: Bench) -> None:
    """Who is not up is not watched, though on_worker_start has a checkpoint of its own."""
    master = bench.start(
        CLOCK.format(hang_timeout=0.5)
        + """
@app.on_worker_start
def prepare(pin):
    if pin == 0:
        app.checkpoint()
        while not (here / "go").exists():
            time.sleep(0.01)

@app.worker(pins=0)
def work():
    app.checkpoint()
    (here / "worked").touch()
"""
    )
    master.worker(0)
    tick(master, 3)
    assert not hung(master, 0)
    (bench.directory / "go").touch()
    until((bench.directory / "worked").exists, "the handler")

    assert not hung(master, 0)
    master.stop()


def test_checkpoint_before_the_handler_says_nothing_of_the_handler(bench: Bench) -> None:
    """Detection starts with a checkpoint of the handler: one that has none is not watched, whatever ran before it."""
    master = bench.start(
        CLOCK.format(hang_timeout=0.5)
        + """
@app.on_worker_warm
def load():
    app.sleep(0)

@app.on_worker_start
def prepare(pin):
    with app.critical():
        app.checkpoint()

@app.worker(pins=0)
def work():
    time.sleep(3600)

@app.worker(pins=1, cooperative=True)
def work_too():
    time.sleep(3600)
"""
    )
    tick(master, 3)

    assert not hung(master, 0)
    assert not hung(master, 1)
    master.stop()


def test_unit_of_nine_tenths_is_never_called_hung(bench: Bench) -> None:
    """Wherever the probes fall: a worker has all of hang_timeout between two checkpoints, and is never hung earlier."""
    master = bench.start(
        """
        app = App(hang_timeout=1)

        @app.worker(pins=range(3))
        def work(pin):
            app.sleep(pin / 5)
            for _ in range(5):
                app.checkpoint()
                begun = time.monotonic()
                try:
                    time.sleep(0.9)
                except Stop:
                    # On a machine that is too busy, a unit may truly have taken too long.
                    (here / f"gap.{time.monotonic() - begun}").touch()
            (here / f"done.{pin}").touch()
            # Not its end: on a busy machine that takes long, too.
            app.sleep(3600)
        """
    )

    until(lambda: len(list(bench.directory.glob("done.*"))) == 3, "five units of each")
    assert master.stop() == 0
    gaps = [float(path.name.partition(".")[2]) for path in bench.directory.glob("gap.*")]
    assert len(master.matches("worker hung")) == len(gaps)
    assert all(gap >= 1 for gap in gaps)


# Suspended processes

STEADY = """
@app.worker(pins=0)
def steady():
    while True:
        app.checkpoint()
        with (here / "steps").open("a") as out:
            out.write("x")
        time.sleep(0.02)
"""


def steps(bench: Bench) -> int:
    """Return how many units the steady worker has begun."""
    return len(bench.read("steps"))


def test_suspended_worker_is_never_hung_and_goes_on(bench: Bench) -> None:
    """SIGSTOP is no hang, however long: it is said, the PIN is kept, and after SIGCONT it is watched as before."""
    master = bench.start(CLOCK.format(hang_timeout=0.5) + STEADY)
    bench.await_text("steps", "x", 3)
    worker = master.worker(0)

    os.kill(worker, signal.SIGSTOP)
    master.await_log(rf"WARNING worker suspended steady pin=0 pid={worker}; it keeps its PIN")
    tick(master, 3)
    assert state(worker) == "T"
    assert not hung(master, 0)
    before = steps(bench)
    os.kill(worker, signal.SIGCONT)
    master.await_log(rf"WARNING worker resumed steady pin=0 pid={worker}")
    bench.await_text("steps", "x", before + 3)
    tick(master, 2)

    assert not hung(master, 0)
    assert master.started(0) == [worker]
    assert len(master.matches("worker suspended")) == len(master.matches("worker resumed")) == 1
    master.stop()


def test_worker_that_hangs_after_it_was_resumed_is_found(bench: Bench) -> None:
    """A suspension ends the watch for its own time only."""
    master = bench.start(
        """
        app = App(hang_timeout=0.5)

        @app.worker(pins=0)
        def work():
            if app.previous is not None:
                return
            app.checkpoint()
            (here / "up").touch()
            time.sleep(3600)
        """
    )
    until((bench.directory / "up").exists, "the worker")
    worker = master.worker(0)
    os.kill(worker, signal.SIGSTOP)
    master.await_log("worker suspended")

    os.kill(worker, signal.SIGCONT)

    assert master.wait() == 0
    assert re.search(r"worker resumed.*worker hung.*cause=hang", master.log, re.DOTALL)


@pytest.mark.parametrize("periods", [2, 4])
def test_master_that_was_suspended_kills_nobody(bench: Bench, periods: int) -> None:
    """Workers that pass their checkpoints while nobody looks have nothing to fear when somebody does again."""
    master = bench.start(CLOCK.format(hang_timeout=0.5) + STEADY)
    bench.await_text("steps", "x", 3)
    tick(master, 1)

    master.signal(signal.SIGSTOP)
    until(lambda: state(master.pid) == "T", "the master at rest")
    # Each step takes 0.02 s at least.
    bench.await_text("steps", "x", steps(bench) + 25 * periods)
    master.signal(signal.SIGCONT)
    tick(master, 2)

    assert not hung(master, 0)
    assert len(master.started(0)) == 1
    master.stop()


LONG_UNITS = """
app = App(hang_timeout=1)

@app.worker(pins=range(6))
def work(pin):
    app.sleep(pin / 10)
    while True:
        app.checkpoint()
        with (here / f"steps.{pin}").open("a") as out:
            out.write("x")
        # Of many pieces, so that the end of the rest is not the end of the unit.
        for _ in range(20):
            time.sleep(0.02)
"""
"""Units of almost half of hang_timeout: often a probe waits for its answer."""


def await_units(bench: Bench, more: int) -> None:
    """Wait until each of the six has begun so many units more."""
    before = [len(bench.read(f"steps.{pin}")) for pin in range(6)]
    for pin in range(6):
        bench.await_text(f"steps.{pin}", "x", before[pin] + more)


def rest() -> None:
    """Let more than two periods pass, and more than a second beyond one. The time is the fact here."""
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 2.2, "time to pass")


@pytest.mark.parametrize("order", ["master first", "workers first"])
def test_instance_that_was_suspended_kills_nobody(bench: Bench, order: str) -> None:
    """Time that passes for none of them proves nothing, in whatever order they go on."""
    master = bench.start(LONG_UNITS)
    await_units(bench, 3)
    everybody = [master.worker(pin) for pin in range(6)] + [master.pid]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(state(pid) == "T" for pid in everybody), "all of them at rest")

    rest()
    if order == "master first":
        master.signal(signal.SIGCONT)
        master.await_log("worker suspended work", 6)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    await_units(bench, 4)

    assert not master.matches("worker hung")
    assert master.stop() == 0


class Freezer:
    """A control group that can be frozen whole, as `docker pause` does it: no signal tells of it. cgroups(7)."""

    def __init__(self, group: Path) -> None:
        self.group = group
        group.mkdir()
        self._second = (group / "cgroup.freeze").exists()

    def enter(self) -> None:
        """Put this process into the group."""
        (self.group / "cgroup.procs").write_text("0")

    def freeze(self) -> None:
        """Stop all that is in it."""
        self._write(("FROZEN", "1"))
        until(self._is_frozen, "the frost")

    def thaw(self) -> None:
        """Let it go on."""
        self._write(("THAWED", "0"))

    def remove(self) -> None:
        """Leave nothing behind; a group with a process in it cannot be removed."""
        self.thaw()
        for pid in (self.group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        until(lambda: not (self.group / "cgroup.procs").read_text(), "the end of the group")
        self.group.rmdir()

    def _write(self, words: tuple[str, str]) -> None:
        (self.group / ("cgroup.freeze" if self._second else "freezer.state")).write_text(words[self._second])

    def _is_frozen(self) -> bool:
        if self._second:
            return "frozen 1" in (self.group / "cgroup.events").read_text()
        return (self.group / "freezer.state").read_text().strip() == "FROZEN"


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    """A freezer, where this machine lets us have one."""
    for found in re.finditer(r"^\d+:(freezer)?:(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE):
        for root in ("freezer",) if found[1] else ("unified", "."):
            with contextlib.suppress(OSError):
                lent = Freezer(Path(f"/sys/fs/cgroup/{root}/{found[2]}/pyworkers-test-{os.getpid()}"))
                break
        else:
            continue
        try:
            yield lent
        finally:
            lent.remove()
        return
    pytest.skip("cannot make a control group here that can be frozen")


def test_instance_that_was_frozen_kills_nobody(bench: Bench, freezer: Freezer) -> None:
    """What passes unseen by all of them proves nothing either: the looks are late, and begin anew."""

    def enter() -> None:
        as_from_a_shell()
        freezer.enter()

    master = bench.start(LONG_UNITS, preexec_fn=enter)
    await_units(bench, 3)

    freezer.freeze()
    rest()
    freezer.thaw()
    await_units(bench, 4)

    assert not master.matches("worker hung")
    assert master.stop() == 0


# What it costs


def switches(pid: int) -> int:
    """Return how often a process has gone to sleep: proc(5), voluntary_ctxt_switches."""
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_who_waits_is_not_woken_for_a_proof(bench: Bench) -> None:
    """While the master looks at them, workers in `sleep` and `wait` have not one turn of a processor."""
    master = bench.start(
        """
        app = App(hang_timeout=0.1)

        @app.worker(pins=range(2))
        def work(pin):
            (here / f"up.{pin}").touch()
            if pin == 0:
                app.sleep(3600)
            app.wait([os.pipe()[0]])
        """
    )
    until(lambda: len(list(bench.directory.glob("up.*"))) == 2, "two workers")
    workers = master.workers()
    until(lambda: all(state(pid) == "S" for pid in workers), "both of them asleep")
    before, looks = [switches(pid) for pid in workers], switches(master.pid)
    until(lambda: switches(master.pid) >= looks + 20, "twenty looks")

    assert [switches(pid) for pid in workers] == before
    assert master.stop() == 0


def test_hang_after_a_wait_is_found(bench: Bench) -> None:
    """What proved life as long as it lasted proves nothing of what comes after it."""
    master = bench.start(
        """
        app = App(hang_timeout=0.3)

        @app.worker(pins=0)
        def work():
            if not (here / "hung").exists():
                app.sleep(0.5)
                (here / "hung").touch()
                time.sleep(3600)
        """
    )

    assert master.wait() == 0
    assert master.matches(r"worker ended work pin=0 .*cause=hang after=\S+; respawning")


def test_idle_master_wakes_for_its_looks_alone(bench: Bench) -> None:
    """With hang detection on ten workers the master sleeps until the first look is due, and workers are left alone."""
    master = bench.start(
        """
        app = App(hang_timeout=60)

        @app.worker(pins=range(10))
        def work(pin):
            (here / f"up.{pin}").touch()
            app.sleep(3600)
        """
    )
    until(lambda: len(list(bench.directory.glob("up.*"))) == 10, "ten workers")
    master.await_log("worker started", 10)
    everybody = [master.pid, *master.workers()]
    until(lambda: all(state(pid) == "S" for pid in everybody), "all of them asleep")
    before = [switches(pid) for pid in everybody]

    # The one duration that is the fact itself.
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 1, "a second")

    assert [switches(pid) for pid in everybody] == before
    assert len(everybody) == 11
    assert master.stop() == 0
