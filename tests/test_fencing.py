"""What a worker knows of those before it: the generation that a database compares, and how the previous one ended."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Bench, alive, until
from pyworkers import App
from pyworkers._core.types import Previous
from pyworkers._posix.cells import LABEL_MAX, Cells

# Generations

GENERATIONS = """
app = App(lock_file=here / "lock", backoff=(0.001, 0.001), stop_timeout=4)

def note() -> None:
    with (here / "generations").open("a") as out:
        out.write(f"{app.generation} {app.pin}\\n")
"""

SLEEPERS = (
    GENERATIONS
    + """
@app.worker(pins=range(3))
def work(pin: int) -> None:
    note()
    time.sleep(3600)
"""
)


def numbers(bench: Bench, count: int) -> list[int]:
    """Wait until so many attempts have noted their generation, and return them in order."""
    bench.await_text("generations", "\n", count)
    return [int(line.split()[0]) for line in bench.read("generations").splitlines()]


def test_generation_grows_with_every_attempt_of_every_pin(bench: Bench) -> None:
    """Within an instance no two attempts share a number, and a later attempt has the larger one."""
    bench.app(
        GENERATIONS
        + """
@app.worker(pins=range(3))
def work(pin: int) -> None:
    note()
    if app.previous is None or app.previous.attempt < 9:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    finished = bench.run("shop:app")

    assert finished.returncode == 0, finished.stderr
    lines = [line.split() for line in bench.read("generations").splitlines()]
    assert len({number for number, _ in lines}) == len(lines) == 30
    for pin in "012":
        of_pin = [int(number) for number, noted in lines if noted == pin]
        assert of_pin == sorted(of_pin)
    # The log has the attempts of all PINs in the order of their forks, which is that of the numbers.
    forked = re.findall(r"worker started work pin=(\d)", finished.stderr)
    assert [pin for _, pin in sorted(lines)] == forked


def test_generation_grows_from_a_stopped_master_to_the_next(bench: Bench) -> None:
    """The numbers go on in the file beside the lock, which names no one."""
    first = bench.start(SLEEPERS)
    before = numbers(bench, 3)
    assert first.stop() == 0
    assert re.fullmatch(r"pyworkers generation: \d{20} is the first number .*\n", bench.read("lock.generation"))

    second = bench.start(None)
    after = numbers(bench, 6)[3:]

    assert max(before) < min(after)
    assert second.stop() == 0


def test_generation_grows_from_orphans_to_the_successor_of_a_killed_master(bench: Bench) -> None:
    """A master that was killed had no time to write anything down, and its orphans have numbers all the same."""
    first = bench.start(SLEEPERS)
    before = numbers(bench, 3)
    orphans = [first.worker(pin) for pin in range(3)]
    for pid in orphans:
        os.kill(pid, signal.SIGSTOP)
    first.process.kill()
    first.process.wait()

    second = bench.start(None)
    after = numbers(bench, 6)[3:]

    assert max(before) < min(after)
    assert not any(alive(pid) for pid in orphans)
    assert second.stop() == 0


def test_generation_is_zero_where_there_is_no_worker(bench: Bench) -> None:
    """In a unit test, in the master, and in a process that a worker forks: no attempt, no number."""
    bench.app(
        GENERATIONS
        + """
@app.on_start
@app.on_stop
def in_master() -> None:
    note()

@app.on_worker_start
@app.on_worker_exit
def in_worker() -> None:
    note()

@app.worker(pins=0)
def work() -> None:
    note()
    child = os.fork()
    if child == 0:
        note()
        os._exit(0)
    os.waitpid(child, 0)
"""
    )
    assert bench.run("shop:app").returncode == 0

    start, in_hook, in_handler, in_child, in_exit_hook, stop = numbers(bench, 6)
    assert (start, in_child, stop) == (0, 0, 0)
    assert in_hook == in_handler == in_exit_hook > 0
    assert App("unit").generation == 0


ASKING = """
@app.worker(pins=0)
def modest() -> None:
    (here / "modest").touch()

@app.worker(pins=1, restart="never")
def asking() -> None:
    while not (here / "modest").exists():
        time.sleep(0.005)
    note()
"""


def test_generation_without_a_lock_file_is_an_error_that_says_so(bench: Bench) -> None:
    """Without the file there is no number that could grow; who does not ask does not need one."""
    bench.app(GENERATIONS.replace('lock_file=here / "lock", ', "") + ASKING)

    finished = bench.run("shop:app")

    assert finished.returncode == 1
    assert (
        "asking pin=1: pyworkers.errors.UsageError: app.generation needs App(lock_file=...): "
        "the number is kept beside the lock\n" in finished.stderr
    )
    assert bench.read("generations") == ""
    assert re.search(r"worker ended modest pin=0 pid=\d+ exit=0 .*; finished", finished.stderr)


def test_full_disk_costs_only_those_who_ask(bench: Bench) -> None:
    """No number is better than a wrong one, and a worker that has no use for it works on."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    bench.app(limit + "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + GENERATIONS + ASKING)

    finished = bench.run("shop:app", env={"PYTHONDONTWRITEBYTECODE": "1"})

    assert finished.returncode == 1
    path = bench.directory / "lock.generation"
    assert (
        f"asking pin=1: pyworkers.errors.LockError: app.generation has no number: {path}: File too large\n"
        in finished.stderr
    )
    assert re.search(r"worker ended modest pin=0 pid=\d+ exit=0 .*; finished", finished.stderr)


def test_number_that_could_not_be_had_is_had_when_there_is_room_again(bench: Bench) -> None:
    """The next attempt tries the disk again."""
    bench.app(
        "import resource\nhard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        + GENERATIONS
        + """
@app.on_start
def fill() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

@app.worker(pins=0)
def work() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    if app.previous is None:
        resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (hard, hard))
    note()
"""
    )
    finished = bench.run("shop:app", env={"PYTHONDONTWRITEBYTECODE": "1"})

    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("LockError: app.generation has no number") == 1
    assert numbers(bench, 1)[0] > 0


@pytest.mark.parametrize("content", ["precious\n", "pyworkers generation: 12"], ids=["foreign", "cut short"])
def test_generation_file_that_makes_no_sense_is_one_line_and_no_effect(bench: Bench, content: str) -> None:
    """G11: a guess could be too low, so nothing is forked, and the file stays for a person to look at."""
    bench.app(SLEEPERS)
    (bench.directory / "lock.generation").write_text(content)

    finished = bench.run("shop:app")

    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert f"pyworkers: error: cannot use generation file {bench.directory}/lock.generation: " in finished.stderr
    assert bench.read("generations") == ""
    assert bench.read("lock.generation") == content


def test_refused_generation_file_is_told_before_a_daemon_detaches(bench: Bench) -> None:
    """The line stands where somebody can read it: on the stderr of the command."""
    bench.app(SLEEPERS)
    (bench.directory / "lock.generation").write_text("precious\n")

    finished = bench.run("shop:app", "--daemon")

    assert finished.returncode == 2
    assert f"pyworkers: error: cannot use generation file {bench.directory}/lock.generation: " in finished.stderr


def test_generation_file_that_cannot_be_created_hinders_nobody_who_needs_no_number(bench: Bench) -> None:
    """As on a full disk: one warning, the others do their work, and who asks for a number gets an error, not a guess.

    The lock file's name is as long as a name may be, and that of its sibling is longer.
    """
    bench.app(
        """
app = App(lock_file="l" * 255, max_restarts=0)

@app.worker(pins=0)
def work():
    (here / "worked").touch()

@app.worker(pins=1)
def numbered():
    app.generation
"""
    )
    finished = bench.run("shop:app")

    assert finished.returncode == 1, finished.stderr
    assert (bench.directory / "worked").exists()
    assert finished.stderr.count("WARNING app.generation has no numbers: cannot use generation file ") == 1
    assert "LockError: app.generation has no numbers: " in finished.stderr


def test_refused_generation_file_keeps_no_lock(bench: Bench) -> None:
    """A program that repairs the file can run its app at once: the lock that was taken before is given back."""
    (bench.directory / "lock.generation").write_text("precious\n")
    (bench.directory / "script.py").write_text(
        "import os\nfrom pyworkers import App\napp = App(lock_file='lock')\n"
        "@app.worker(pins=0)\ndef work():\n    print('at work')\n"
        "assert app.run() == 2\nos.unlink('lock.generation')\nassert app.run() == 0\n"
    )
    finished = subprocess.run(
        [sys.executable, "script.py"], cwd=bench.directory, capture_output=True, text=True, timeout=20, check=False
    )

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "at work\n"


STORE = (
    GENERATIONS
    + """
import sqlite3

def store(stock: int, generation: int) -> bool:
    \"\"\"Write the stock unless somebody newer has written, and say whether it was written.\"\"\"
    with sqlite3.connect(here / "stock.db", timeout=20) as database:
        done = database.execute(
            "UPDATE stock SET amount = ?, generation = ? WHERE generation <= ?", (stock, generation, generation)
        )
        return done.rowcount == 1

@app.worker(pins=0, kill_group=False)
def count() -> None:
    generation = app.generation
    if app.previous is None:
        # What a worker has begun may outlive it: a helper, or a request on its way through the network.
        if os.fork() == 0:
            while not (here / "counted").exists():
                time.sleep(0.005)
            (here / "late").write_text(str(store(666, generation)))
            os._exit(0)
        assert store(7, generation)
        os.kill(os.getpid(), signal.SIGKILL)
    assert store(8, generation)
    (here / "counted").touch()
"""
)


def test_database_refuses_a_stale_worker_by_its_generation(bench: Bench) -> None:
    """The use of it: a late write of a worker that was replaced is not written over its successor's."""
    with contextlib.closing(sqlite3.connect(bench.directory / "stock.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE stock (amount INTEGER, generation INTEGER)")
        database.execute("INSERT INTO stock VALUES (0, 0)")
    bench.app(STORE)

    finished = bench.run("shop:app")

    assert finished.returncode == 0, finished.stderr
    assert until(lambda: bench.read("late"), "the late write") == "False"
    with contextlib.closing(sqlite3.connect(bench.directory / "stock.db")) as database:
        assert database.execute("SELECT amount FROM stock").fetchall() == [(8,)]


# The previous one

ENDS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "", "signal=SIGKILL"),
    "exit code": ("os._exit(41)", "", "exit=41"),
    "exception": ("raise ValueError('bad page')", "", "exit=1"),
    "asked by hand": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(3600)", "", "exit=143"),
    "normal end": ("return", "restart='always'", "exit=0"),
    "hang": ("app.checkpoint(); time.sleep(3600)", "hang_timeout=0.2", "hang"),
    "recycled": ("app.sleep(3600)", "max_rss='1M', max_runtime=None", "exit=143"),
}


@pytest.mark.parametrize("end", ENDS)
def test_previous_tells_how_the_one_before_ended_and_at_what(bench: Bench, end: str) -> None:
    """None for the first attempt; then the cause in the words of the log, the attempt, and its last unit."""
    body, options, cause = ENDS[end]
    master = bench.start(
        f"""
        from pyworkers._core import policy

        policy.MEASURE_INTERVAL_S = 0.1  # thirty seconds are the default
        app = App(backoff=(0.001, 0.001))

        @app.worker(pins=3, {options})
        def work() -> None:
            with (here / "previous").open("a") as out:
                out.write(f"{{app.previous}}\\n")
            if app.previous is not None and app.previous.attempt == 2:
                (here / "third").touch()
                app.sleep(3600)
            app.unit("page 1")
            app.unit(f"page {{2 if app.previous is None else 3}}")
            {body}
        """
    )
    until((bench.directory / "third").exists, "the third attempt")

    first, second, third = bench.read("previous").splitlines()[:3]
    assert first == "None"
    assert second == f"Previous(cause='{cause}', attempt=1, unit='page 2')"
    assert third == f"Previous(cause='{cause}', attempt=2, unit='page 3')"
    master.worker(3, attempt=3)
    assert len(master.matches(r"worker ended work pin=3 .* unit='page [23]'")) == 2
    assert master.stop() == 0


def test_previous_of_a_worker_without_a_unit_has_none(bench: Bench) -> None:
    """A unit is that of this attempt: what the one before the previous was at is forgotten."""
    bench.app(
        """
        app = App(backoff=(0.001, 0.001))

        @app.worker(pins=0)
        def work() -> None:
            attempt = 1 if app.previous is None else app.previous.attempt + 1
            if attempt == 1:
                app.unit("page 1")
            if attempt < 3:
                os._exit(9)
            (here / "unit").write_text(repr(app.previous))
        """
    )

    assert bench.run("shop:app").returncode == 0
    assert bench.read("unit") == "Previous(cause='exit=9', attempt=2, unit='')"


def test_handler_can_skip_the_unit_that_killed_it(bench: Bench) -> None:
    """The use of it: one poisoned unit of a list costs itself, and nothing else."""
    bench.app(
        """
        app = App(backoff=(0.001, 0.001))

        @app.worker(pins=0)
        def work() -> None:
            poison = here / "poison"
            if app.previous is not None and app.previous.cause == "signal=SIGKILL":
                poison.write_text(app.previous.unit)
            done = here / "done"
            begun = set(done.read_text().split()) if done.exists() else set()
            skipped = {poison.read_text()} if poison.exists() else set()
            for unit in app.track(f"unit{number}" for number in range(20)):
                if unit in begun | skipped:
                    continue
                app.unit(unit)
                if unit == "unit7":
                    os.kill(os.getpid(), signal.SIGKILL)
                with done.open("a") as out:
                    out.write(f"{unit}\\n")
        """
    )
    finished = bench.run("shop:app")

    assert finished.returncode == 0
    assert bench.read("done").split() == [f"unit{number}" for number in range(20) if number != 7]
    assert finished.stderr.count("worker started") == 2


@pytest.mark.parametrize("lead", ["", "x", "xx", "xxx"])
def test_long_unit_is_cut_between_two_characters(bench: Bench, lead: str) -> None:
    """300 bytes of two, three and four bytes each: at most 230 of them stay, and no half of a character."""
    label = lead + "äöü€☃🙂" * 20
    bench.app(
        f"""
        app = App(backoff=(0.001, 0.001))

        @app.worker(pins=0)
        def work() -> None:
            if app.previous is None:
                app.unit({label!r})
                os._exit(9)
            (here / "unit").write_text(app.previous.unit, encoding="utf-8")
        """
    )
    finished = bench.run("shop:app")

    unit = (bench.directory / "unit").read_text(encoding="utf-8")
    assert finished.returncode == 0
    assert label.startswith(unit)
    assert LABEL_MAX - 3 <= len(unit.encode()) <= LABEL_MAX
    assert f"unit='{unit}'" in finished.stderr


def test_every_cut_of_a_label_leaves_whole_characters() -> None:
    """In the shared cell itself, whatever stands at the edge, a surrogate that UTF-8 has no form for included."""
    cells = Cells(2)
    for character in "xä€🙂\ud800":
        for lead in range(LABEL_MAX - 5, LABEL_MAX + 2):
            label = "." * lead + character * 3
            cells.write_label(0, label)

            assert label.replace("\ud800", "?").startswith(cells.read(0).unit)
            assert len(cells.read(0).unit.encode()) >= LABEL_MAX - 3
    cells.close()


def test_previous_is_a_value() -> None:
    """It cannot be assigned to, neither in its fields nor beside them; it compares, and goes through pickle."""
    previous = Previous("exit=41", 1, "page 7")

    for name in ("cause", "attempt", "unit"):
        with pytest.raises(AttributeError, match="Previous cannot be changed"):
            setattr(previous, name, "other")
    with pytest.raises((AttributeError, TypeError)):
        previous.colour = "red"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        App("unit").previous = previous  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(previous)) == previous
    assert {previous: 1}[Previous("exit=41", 1, "page 7")] == 1


def test_generation_and_previous_stand_in_no_way_of_a_unit_test(tmp_path: Path) -> None:
    """Outside a worker both are harmless, with and without a lock file, and no file is touched."""
    for app in (App("unit"), App("unit", lock_file=tmp_path / "lock")):
        assert (app.generation, app.previous) == (0, None)
        app.unit("page 7")
    assert list(tmp_path.iterdir()) == []
