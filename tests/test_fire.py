"""What must hold at any instant is tried at many: each test repeats a failure until it had every chance to show."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.plan import Shot, planned
from chaos.siege import Siege
from chaos.verdict import faults_of_log
from helpers import Bench, Instance, alive, bench_in, children, state, until

pytestmark = pytest.mark.fire

EXAMPLES = Path(__file__).parent.parent / "examples"

CRASH_LOOP = """
app = App(stop_timeout=4)

@app.worker(pins=range(2))
def crash(pin: int) -> None:
    os._exit(1)

@app.worker(pins=2)
def sleeper() -> None:
    time.sleep(3600)
"""


INSTANTS = int(os.environ.get("FIRE_INSTANTS", "120"))
"""At so many instants the master gets each of TERM and KILL."""

AT_ONCE = 4
"""So many instances run side by side: most of the time each of them sleeps."""

FAMILY = """
import subprocess

app = App(lock_file=here / "lock", stop_timeout=4, backoff=(0.01, 0.1))

@app.worker(pins=range(2))
def work(pin: int) -> None:
    app.checkpoint()
    app.sleep(3600)

@app.worker(pins=2)
def sleeper() -> None:
    time.sleep(3600)

@app.worker(pins=range(3, 5))
def crash(pin: int) -> None:
    os._exit(1)
"""

PARENT = """
@app.worker(pins=5)
def parent() -> None:
    subprocess.Popen(["sleep", "3600"])
    if os.fork() == 0:
        time.sleep(3600)
    app.sleep(3600)
"""

SPANS_S = {"launch": 0.6, "start": 0.15, "respawn": 0.3, "stop": 0.05}
"""For so many seconds the instant may fall: after the command, after the lock file is there, after everybody was up,
after a TERM before."""


def has_begun(master: Instance, phase: str, pins: int) -> bool:
    """Whether the phase has begun for this master."""
    if phase == "start":
        return (master.directory / "lock").exists()
    return phase == "launch" or all(master.started(pin) for pin in range(pins))


def shoot(delays: dict[Instance, float], phase: str, pins: int, signum: signal.Signals) -> None:
    """Send each master the signal when so many seconds of its phase have gone by."""
    ahead, due = dict(delays), dict[Instance, float]()

    def all_shot() -> bool:
        for master in [master for master in ahead if has_begun(master, phase, pins)]:
            if phase == "stop":
                master.signal()
            due[master] = time.monotonic() + ahead.pop(master)
        while due and (first := min(due, key=due.__getitem__)) and due[first] <= time.monotonic():
            del due[first]
            first.signal(signum)
        return not ahead and not due

    until(all_shot, f"{phase} of all of {[master.log_path for master in delays]}")


def lodgers(directory: Path) -> list[str]:
    """Return the command lines of the processes that live in a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == directory:
                found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()!r}")
    return found


def lock_is_free(path: Path) -> bool:
    """Whether a successor would get the lock at once."""
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize("phase", SPANS_S)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_signal_to_the_master_at_many_instants(tmp_path: Path, phase: str, signum: signal.Signals) -> None:
    """G3, G4: wherever it falls, all ends in time, nobody is left, grandchildren included, and the lock is free."""
    dice = random.Random(f"{phase} {signum}")
    # What a worker has started ends when it is reaped: one that dies in the same moment as its master is reaped by
    # somebody who does not know of it. So in a stop nobody has started anything.
    source = FAMILY if (phase, signum) == ("stop", signal.SIGKILL) else FAMILY + PARENT
    codes: Counter[int] = Counter()
    for first in range(0, -(-INSTANTS // len(SPANS_S)), AT_ONCE):
        with contextlib.ExitStack() as stack:
            homes = [tmp_path / str(first + place) for place in range(AT_ONCE)]
            delays = {}
            for home in homes:
                home.mkdir()
                delays[stack.enter_context(bench_in(home)).start(source)] = dice.uniform(0, SPANS_S[phase])
            shoot(delays, phase, 5 if source == FAMILY else 6, signum)
            for master, delay_s in delays.items():
                home = master.directory
                codes[code := master.wait(10)] += 1
                where = f"instant {delay_s} of instance {home}"
                # Before its traps stand, the interpreter dies of TERM as any program does; afterwards never. KILL may
                # come after the end.
                stands = signum == signal.SIGTERM and phase in ("respawn", "stop")
                assert code in ((0,) if stands else (0, -signum)), f"{where}: {code}; log:\n{master.log}"
                until(lambda home=home: not lodgers(home), f"{where}: {lodgers(home)} to end; log:\n{master.log}", 10)
                # The kernel takes a process's directory from it a moment before its locks.
                until(lambda home=home: lock_is_free(home / "lock"), f"{where}: the lock")
        for home in homes:
            shutil.rmtree(home)
    print(f"{signum.name} in {phase}: {dict(codes)}")


def test_six_sleepers_are_gone_in_half_a_second(tmp_path: Path) -> None:
    """TERM to the master, and within 0.5 s nobody is left; the best of three, for the machine may be busy."""
    times = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        with bench_in(tmp_path / str(number)) as bench:
            master = bench.start("app = App()\n\n@app.worker(pins=range(6))\ndef work(pin):\n    time.sleep(3600)\n")
            master.await_log("worker started", 6)
            workers = [master.worker(pin) for pin in range(6)]
            begun = time.monotonic()
            assert master.stop() == 0
            assert not any(alive(pid) for pid in workers)
            times.append(time.monotonic() - begun)

    assert min(times) < 0.5


def test_term_to_fresh_workers_at_200_instants(bench: Bench) -> None:
    """G3: a signal between fork and the first line of the handler is not lost, and not taken by the master.

    The handler waits in `app.sleep`: a time.sleep that is entered just after the interpreter has looked for signals
    sleeps on, which is why the master sends its TERM more than once.
    """
    master = bench.start(
        """
        app = App(backoff=(0.001, 0.001))

        @app.worker(pins=0)
        def work() -> None:
            app.sleep(3600)
        """
    )
    worker = master.worker(0)
    for number in range(200):
        os.kill(worker, signal.SIGKILL)

        def successor(before: int = worker) -> int:
            found = [pid for pid in children(master.pid) if pid != before and alive(pid)]
            return found[0] if found else 0

        worker = until(successor, "the next worker")
        due = time.monotonic() + 0.004 * number / 200
        while time.monotonic() < due:
            pass
        os.kill(worker, signal.SIGTERM)
        until(lambda pid=worker: not alive(pid), f"the end of {worker}", 5)
        # Dead already: the next round kills its successor.
        worker = until(successor, "the next worker")

    assert "stopping" not in master.log
    assert master.stop() == 0


def test_200_workers_killed_at_once_are_all_replaced(bench: Bench) -> None:
    """G2: five deaths are one SIGCHLD, and none is lost; each comes back under its PIN."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=range(200))
        def work(pin: int) -> None:
            time.sleep(3600)
        """
    )
    master.await_log("worker started", 200)
    for _ in range(3):
        before = {pin: master.started(pin) for pin in range(200)}
        os.kill(master.pid, signal.SIGSTOP)
        until(lambda: state(master.pid) == "T", "the master to be stopped")
        for pids in before.values():
            os.kill(pids[-1], signal.SIGKILL)
        os.kill(master.pid, signal.SIGCONT)
        master.await_log("worker started", sum(map(len, before.values())) + 200)

        assert {pin: len(master.started(pin)) for pin in range(200)} == {pin: len(p) + 1 for pin, p in before.items()}
        until(lambda: len(master.workers()) == 200, "200 live workers")
    assert master.stop() == 0


def test_crash_loop_of_two_pins_is_slowed_down_and_stops_promptly(bench: Bench) -> None:
    """G6: between 6 and 40 attempts in 4 s."""
    begun = time.monotonic()
    master = bench.start(CRASH_LOOP)
    until(lambda: time.monotonic() - begun > 4.0, "four seconds")
    attempts = len(master.started(0)) + len(master.started(1))

    assert 6 <= attempts <= 40
    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 1.0


def census(database: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the example on a database of its own."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "pyworkers", "examples.stdlib_census:app"],
            cwd=EXAMPLES.parent,
            env={**os.environ, "CENSUS_DB": str(database)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=out,
        )


def table(database: Path) -> list[tuple[object, ...]]:
    """Return what the census has found."""
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT * FROM module ORDER BY path").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("seed", range(int(os.environ.get("FIRE_ROUNDS", "3"))))
def test_census_under_fire_gives_the_same_table(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: list[tuple[object, ...]], seed: int
) -> None:
    """A random worker is killed every 50 ms for 10 s; the table is the same, row for row, and the code is 0."""
    directory = tmp_path_factory.mktemp("fire")
    dice = random.Random(seed)
    master = census(directory / "db", directory / "log")
    try:
        end = time.monotonic() + 10
        kill_count = 0
        while time.monotonic() < end and master.poll() is None:
            workers = children(master.pid)
            if workers:
                os.kill(dice.choice(workers), signal.SIGKILL)
                kill_count += 1
            time.sleep(0.05)  # the rate of fire
        assert master.wait(120) == 0
    finally:
        master.kill()
        master.wait()

    assert kill_count >= 10
    assert table(directory / "db") == undisturbed


@pytest.mark.parametrize("seed", range(int(os.environ.get("FIRE_SIEGES", "1"))))
def test_census_under_chaos_gives_the_same_table(
    bench: Bench, undisturbed: list[tuple[object, ...]], seed: int
) -> None:
    """Workers and masters are shot at in every way until the census is done; the table is the same, row for row."""
    shutil.copy(EXAMPLES / "stdlib_census.py", bench.directory / "shop.py")

    def start() -> Instance:
        return bench.start(None, "--lock-file=lock", "--if-running=wait", "--backoff=0.01,0.1", "--stop-timeout=2")

    siege = Siege(bench.directory / "lock", start)
    # However fast the machine is, the first master dies in the middle of it.
    siege.fire(sorted([*planned(seed, 20), Shot(1.5, "master", signal.SIGKILL, 0.0, 0.0)]))
    survivors = [master for master in siege.masters if master.pid not in siege.killed]

    assert [master.wait(300) for master in survivors] == [0] * len(survivors)
    assert siege.violations == []
    for master in siege.masters:
        assert list(faults_of_log(master.pid, master.log, killed=master.pid in siege.killed)) == []
    assert table(bench.directory / "stdlib_census.db") == undisturbed
    print(dict(siege.fired))
    assert siege.fired.total() >= 20
    assert siege.killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """The table of a run that nobody shot at."""
    directory = tmp_path_factory.mktemp("calm")
    master = census(directory / "db", directory / "log")
    assert master.wait(120) == 0
    rows = table(directory / "db")
    assert len(rows) > 500
    return rows


def test_idle_for_ten_seconds_without_a_system_call(bench: Bench) -> None:
    """Idle costs nothing: the voluntary context switches of a sleeping instance stand still."""
    master = bench.start("app = App()\n\n@app.worker(pins=range(5))\ndef work(pin):\n    app.sleep(3600)\n")
    master.await_log("worker started", 5)

    def switches() -> list[str]:
        pids = [master.pid, *children(master.pid)]
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return [line for text in texts for line in text.splitlines() if line.startswith("voluntary_ctxt")]

    def settled() -> bool:
        before = switches()
        time.sleep(0.2)
        return before == switches()

    until(settled, "the instance to settle")
    before = switches()
    time.sleep(10)  # the duration is the fact

    assert switches() == before
    assert master.stop() == 0


CRASHES = """
app = App(lock_file=here / "lock", backoff=(0.001, 0.001), hang_timeout=60, max_runtime=3600)

@app.worker(pins=range(24))
def crash(pin: int) -> None:
    app.unit(f"unit of {os.getpid()}")
    os._exit(1)
"""

RESPAWNS = int(os.environ.get("FIRE_RESPAWNS", "4000"))
SETTLED = 1000
"""After so many the master has done everything it does at least once, and its own pages are no longer those it shares."""

NOISE_KB = 64
"""What malloc(3) and the interpreter may move about: an object of 22 bytes lost in each of 3,000 respawns is more."""


def starts_in(log: Path) -> Iterator[int]:
    """Yield again and again how many workers the log says were started, reading only what is new of it."""
    count, rest = 0, b""
    with log.open("rb") as stream:
        while True:
            *lines, rest = (rest + stream.read()).split(b"\n")
            count += sum(b" worker started " in line for line in lines)
            yield count


def footprint(master: int) -> dict[str, int]:
    """Return the master's descriptors, and its memory in kB: the least of three looks.

    At one of them it may be about to tell the OOM killer of a worker, and have a file of /proc open for that.
    """
    looks = [glance(master) for _ in range(3)]
    return {kind: min(look[kind] for look in looks) for kind in looks[0]}


def glance(master: int) -> dict[str, int]:
    """Return the same of an instant at which it has no child.

    Not what smaps_rollup calls private: pages of a library are that only as long as no other program has loaded it.
    """
    os.kill(master, signal.SIGSTOP)
    try:
        until(lambda: state(master) == "T" and not any(map(alive, children(master))), "the master to be left alone")
        status = dict(re.findall(r"(\w+):\s+(\d+)", Path(f"/proc/{master}/status").read_text()))
        descriptors = len(list(Path(f"/proc/{master}/fd").iterdir()))
        return {"descriptors": descriptors, "anonymous": int(status["RssAnon"]), "resident": int(status["VmRSS"])}
    finally:
        os.kill(master, signal.SIGCONT)


def test_master_is_as_large_after_thousands_of_respawns_as_after_the_first(bench: Bench) -> None:
    """G7: neither its descriptors nor its memory grow; FIRE_RESPAWNS=100000 says how often to try."""
    master = bench.start(CRASHES)
    starts = starts_in(master.log_path)
    seen = []
    for count in sorted({SETTLED, *(each for each in (10_000, 50_000) if each < RESPAWNS), RESPAWNS}):
        until(lambda count=count: next(starts) >= count, f"{count} respawns", 120 + count / 20)
        seen.append(footprint(master.pid))
        print(f"{count:9,} respawns: {seen[-1]}", flush=True)

    first, last = seen[0], seen[-1]
    assert last["descriptors"] == first["descriptors"]
    for kind in ("anonymous", "resident"):
        assert last[kind] - first[kind] <= NOISE_KB, seen
    assert master.stop() == 0
