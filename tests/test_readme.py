"""Every block of the README does what the text around it says; every table says what the code says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from helpers import PATIENCE_S, Bench, Instance, alive, state, until
from pyworkers import App, ExitCode
from pyworkers._client.metrics import families
from pyworkers._options import OPTIONS
from pyworkers.cli import OPERATIONS

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = [(found[1], found[2]) for found in re.finditer(r"(?ms)^```(.*?)\n(.*?)^```$", README)]
PROGRAMS = {source.split("\n", 1)[0][2:].removesuffix(".py"): source for kind, source in BLOCKS if kind == "python"}
LOGS = {re.findall(r" (\w+)\[\d+\] ", text)[0]: text for kind, text in BLOCKS if kind == "log"}
COMMANDS = [line for kind, text in BLOCKS[1:] if kind == "sh" for line in text.splitlines()]

SET_UP = """\
python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/python -m pyworkers examples.stdlib_census:app
.venv/bin/pip install -q nox && .venv/bin/nox
"""

UNTIL_TERM = {"units": 2, "waits": 2, "fetcher": 2}
"""Programs that run until they are stopped, with the number of their workers."""

TO_THE_END = {"pins": 8, "hooks": 2, "shared": 2}
"""Programs that end by themselves, likewise."""

OWN_TESTS = {"crawler", "script", "failing", "watch", "warm", "pages"}
"""Programs that other tests below run."""

COMMAND_LINE = {"check", "pyworkers", "reload", "status"}
"""What the table of needs names beside options and methods."""

UNIT_TESTS = {"test_crawler": 3}
"""Programs that are tests, with their number."""


def write_programs(directory: Path) -> None:
    """Lay all programs of the README side by side, as a reader would."""
    for name, source in PROGRAMS.items():
        (directory / f"{name}.py").write_text(source)


def start(bench: Bench, *arguments: str) -> Instance:
    """Start an instance of one of the programs."""
    write_programs(bench.directory)
    instance = Instance(bench.directory, *arguments, preexec_fn=heed_signals)
    bench.instances.append(instance)
    return instance


def run(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=bench.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def heed_signals() -> None:
    """Undo what nohup, or a script that runs the tests in the background, ignores: it would stay ignored."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(signum, signal.SIG_DFL)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a line, without its head."""
    _, _, below = README.partition(f"\n{heading}\n")
    table = re.search(r"(?m)(?:^\|.*\n)+", below)
    assert table, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def words(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]*)`", cell)


def test_every_block_has_a_rule() -> None:
    """What no test below runs does not belong into the README."""
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "log", "crontab", "ini", "text"}
    assert README.count("\n```") == 2 * len(BLOCKS)
    assert len(PROGRAMS) == sum(kind == "python" for kind, _ in BLOCKS)
    assert len(LOGS) == sum(kind == "log" for kind, _ in BLOCKS)
    assert set(LOGS) == {"crawler", "failing", "watch", "warm", "pages", "shared", "units"}
    assert set(PROGRAMS) == {*UNTIL_TERM, *TO_THE_END, *UNIT_TESTS, *OWN_TESTS}


def test_first_block_sets_up() -> None:
    """Two commands, each in one line."""
    assert BLOCKS[0] == ("sh", SET_UP)


def test_programs_pass_check(bench: Bench) -> None:
    """Each is a complete program. One process checks all of them, through the command line's own entry."""
    write_programs(bench.directory)
    checks = """
import sys
from pyworkers.cli import main
for name in sys.argv[1:]:
    assert main(["check", f"{name}:app"]) == 0, name
"""
    checked = run(bench, "-c", checks, *PROGRAMS)

    assert (checked.returncode, checked.stderr) == (0, "")
    assert all(f"{name}: " in checked.stdout for name in PROGRAMS if name not in UNIT_TESTS)


@pytest.mark.parametrize("name", UNTIL_TERM)
def test_program_runs_until_term(name: str, bench: Bench) -> None:
    """No worker of it fails, and the stop is a graceful one."""
    instance = start(bench, f"{name}:app")
    instance.await_log("worker started", UNTIL_TERM[name])

    assert instance.stop() == 0
    assert not instance.matches("ERROR|respawning|; finished"), instance.log
    assert len(instance.matches("exit=143 .*; stopped")) == UNTIL_TERM[name]


@pytest.mark.parametrize("name", TO_THE_END)
def test_program_runs_to_its_end(name: str, bench: Bench) -> None:
    """No worker of it fails."""
    instance = start(bench, f"{name}:app")

    assert instance.wait() == 0
    assert not instance.matches("ERROR|respawning"), instance.log
    assert len(instance.matches("worker ended")) == TO_THE_END[name]
    assert_promised(instance, LOGS.get(name, ""))


def test_script_starts_itself(bench: Bench) -> None:
    """By app.run()."""
    write_programs(bench.directory)
    command = [sys.executable, "script.py"]
    ended = subprocess.run(
        command, cwd=bench.directory, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert ended.returncode == 0
    assert "INFO greet pin=1: hello from 1" in ended.stderr
    assert "script[" in ended.stderr


@pytest.mark.parametrize("name", UNIT_TESTS)
def test_unit_tests_pass(name: str, bench: Bench) -> None:
    """Beside the program that they test."""
    write_programs(bench.directory)
    ended = run(bench, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{name}.py")

    assert f"{UNIT_TESTS[name]} passed" in ended.stdout, ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_command_works(command: str, bench: Bench) -> None:
    """Each is run, to its end or until TERM; only those that would leave a daemon behind, or need a database, are merely checked."""
    python, minus_m, *arguments = shlex.split(command)
    assert (python, minus_m) == ("python", "-m")
    write_programs(bench.directory)
    assert arguments.pop(0) == "pyworkers"
    if "--inline" in arguments:
        assert bench.run(*arguments).returncode == 3
    elif arguments[0] in OPERATIONS:
        instance = start(bench, "crawler:app")
        until(lambda: bench.run("status", "crawler:app").returncode == 0, "all PINs")
        done = bench.run(*arguments)
        assert done.returncode == 0, done
        if instance.process.poll() is None:
            assert instance.stop() == 0
    elif arguments[0] in ("check", "export", "--help"):
        assert bench.run(*arguments).returncode == 0
    elif "--daemon" in arguments or "--lease" in arguments:
        checked = bench.run("check", *arguments)
        assert checked.returncode == 0, checked.stderr
    else:
        instance = start(bench, *arguments)
        instance.await_log("worker started report pin=3")
        assert instance.stop() == (143 if "--shard" in arguments else 0)


def test_printed_lines_look_like_those_of_a_real_run(bench: Bench) -> None:
    """The block of `--prefix-output`, written by three workers."""
    (promised,) = [text for kind, text in BLOCKS if kind == "text"]
    lines = [re.fullmatch(r"\S+ (\w+)\.(\d+) +\| (.*)", line) for line in promised.splitlines()]
    said = {int(line[2]): (line[1], line[3]) for line in lines if line}
    workers = "".join(
        f"@app.worker(pins={[pin for pin in said if said[pin][0] == handler]})\n"
        f"def {handler}(pin):\n    print({ {pin: words for pin, (_, words) in said.items()}!r}[pin])\n"
        for handler in {handler for handler, _ in said.values()}
    )
    bench.app("app = App()\n" + workers)
    printed = bench.run("shop:app", "--prefix-output").stdout

    def timeless(text: str) -> list[str]:
        return sorted(re.sub(r"(?m)^\d\d:\d\d:\d\d ", "", text).splitlines())

    assert len(said) == 3
    assert timeless(printed) == timeless(promised)


def test_crontab_line_is_accepted(bench: Bench) -> None:
    """Five fields of time, and a command that the command line takes."""
    write_programs(bench.directory)
    (line,) = [text for kind, text in BLOCKS if kind == "crontab"]
    found = re.fullmatch(r"(?:\* ){5}cd \$HOME/project && \.venv/bin/python -m pyworkers (.*)\n", line)
    assert found

    assert bench.run("check", *found[1].split()).returncode == 0


def test_unit_is_what_export_prints(bench: Bench) -> None:
    """But for where Python and the app are, and who has exported it."""
    write_programs(bench.directory)
    (unit,) = [text for kind, text in BLOCKS if kind == "ini"]
    printed = bench.run("export", "systemd", "crawler:app").stdout

    printed = printed.replace(sys.executable, "/srv/project/.venv/bin/python").replace(
        str(bench.directory), "/srv/project"
    )
    assert re.sub(r"(?m)^User=.*\n", "", printed) == unit


def test_table_of_metrics_is_complete() -> None:
    """Each that there can be, by the name of its samples, in the order of the text."""
    worker = {"handler": "crawl", "pin": 0, "state": "running", "suspended": False, "started": 1.0, "restarts": 0,
              "done": 1, "total": 2, "checkpoint": 0.5, "last_exit": {"cause": "exit=1", "at": 1.0, "after": 1.0}}  # fmt: skip
    spare = {"handler": "crawl", "spare": 0, "state": "running"}
    reply = {"name": "shop", "app": "shop:app", "started": 1.0, "workers": [worker], "spares": [spare]}

    assert [words(row[0])[0] for row in rows("## Metrics")] == [family.sample_name for family in families(reply)]


def test_log_is_that_of_a_real_run(bench: Bench) -> None:
    """PIN 1 is killed, then the master gets TERM; numbers, and the order in which workers leave, may differ."""
    instance = start(bench, "crawler:app")
    instance.await_log("still here")
    os.kill(instance.worker(1), signal.SIGKILL)
    instance.worker(1, 2)
    assert instance.stop() == 0

    assert blurred(instance.log) == blurred(LOGS["crawler"])


def blurred(log: str) -> Counter[str]:
    """Return the lines of a log without their order, and without what differs from run to run."""
    log = re.sub(r"(?m)^\S+ \S+ ", "", log)
    log = re.sub(r" unit='\w+ \d+'| done=\d+/\d+", "", log)
    log = re.sub(r"\[\d+\]|pid=\d+|(after|silent)=\d+\.\ds|in \d\.\ds|0x\w+|page \d+|/\S+/", "...", log)
    return Counter(log.splitlines())


def assert_promised(instance: Instance, promised: str) -> None:
    """Check that the lines stand in the log of a run, among others."""
    assert blurred(promised) <= blurred(instance.log), instance.log


def test_failures_are_told_and_counted(bench: Bench) -> None:
    """The one PIN is given up after two restarts, the other one at once, and the exit code says so."""
    instance = start(bench, "failing:app")

    assert instance.wait() == 1
    assert len(instance.matches("worker started fetch")) == 3
    assert len(instance.matches("worker started configure")) == 1
    assert instance.log.endswith(" failed=0,1; master exits code=1\n")
    assert_promised(instance, LOGS["failing"])


def test_hang_is_found_and_shown(bench: Bench) -> None:
    """With the line of the program in which it stands."""
    instance = start(bench, "watch:app")

    assert instance.wait() == 0
    assert_promised(instance, LOGS["watch"])
    (line,) = instance.matches(r'watch\.py", line (\d+) in fetch')
    assert "here.recv" in PROGRAMS["watch"].splitlines()[int(line[1]) - 1]


def test_every_named_checkpoint_proves_life(bench: Bench) -> None:
    """A worker that reaches one kind of them alone, again and again, is not taken for hung."""
    bench.app(
        """
        import asyncio
        app = App("shop", hang_timeout=1)

        @app.worker(pins=range(6))
        def work(pin):
            app.checkpoint()
            items = app.track(range(10_000))
            end = time.monotonic() + 3
            while time.monotonic() < end:
                if pin == 0:
                    app.checkpoint()
                elif pin == 1:
                    app.sleep(0.01)
                elif pin == 2:
                    app.wait([], 0.01)
                elif pin == 3:
                    next(items)
                elif pin == 4:
                    with app.critical():
                        time.sleep(0.01)
                else:
                    with app.interruptible():
                        time.sleep(2)
                time.sleep(0.01)
            (here / f"done.{pin}").touch()
            app.sleep(3600)

        @app.worker(pins=6)
        async def turn():
            app.checkpoint()
            await asyncio.sleep(3)
            (here / "done.6").touch()
            while True:
                app.checkpoint()
                await asyncio.sleep(0.1)
        """
    )
    instance = bench.start()

    until(lambda: len(list(bench.directory.glob("done.*"))) == 7, "three seconds of each kind")
    assert instance.stop() == 0
    assert not instance.matches("hung|respawning"), instance.log


def test_spare_takes_the_pin_of_a_worker_that_was_killed(bench: Bench) -> None:
    """The process is the one that has waited, and another one gets ready."""
    instance = start(bench, "warm:app")
    (spare,) = instance.await_log(r"worker started translate spare=0 pid=(\d+)")
    instance.await_log("translate spare: ready")
    # From here on it sleeps only where it waits for its PIN.
    until(lambda: state(int(spare[1])) == "S", "the spare to wait")
    instance.await_log("pin=1: a dog is a Hund")
    os.kill(instance.worker(1), signal.SIGKILL)

    assert instance.worker(1, 2) == int(spare[1])
    instance.await_log("translate spare: ready", 2)
    assert instance.stop() == 0
    assert_promised(instance, LOGS["warm"])
    assert not instance.matches("ERROR")


def test_poison_is_skipped_and_a_late_write_refused(bench: Bench) -> None:
    """The page at which the worker was shot has a row, and with the generation of the dead one nothing is written."""
    instance = start(bench, "pages:app")
    with closing(sqlite3.connect(bench.directory / "pages.db", isolation_level=None)) as database:
        until(lambda: pages_in(database), "a page")
        ((generation,),) = database.execute("SELECT generation FROM claim").fetchall()
        os.kill(instance.worker(0), signal.SIGKILL)
        (skipped,) = instance.await_log(r"skipping (page \d+) after signal=SIGKILL")
        until(lambda: skipped[1] in pages_in(database), "the row of the page that is skipped")

        with pytest.raises(sqlite3.IntegrityError, match="a late write"):
            database.execute("INSERT INTO page VALUES ('late', 0, ?, '')", (generation,))
        database.execute("INSERT INTO page VALUES ('in time', 0, ?, '')", (generation + 1,))

    assert instance.stop() == 0
    assert_promised(instance, LOGS["pages"])
    assert (bench.directory / "pages.lock.generation").exists()


def pages_in(database: sqlite3.Connection) -> list[str]:
    """Return the names of the pages that have a row; none as long as there is no table."""
    try:
        return [name for (name,) in database.execute("SELECT name FROM page")]
    except sqlite3.OperationalError:
        return []


def test_audit_refuses_to_start_when_strict(bench: Bench) -> None:
    """The same findings as without, and code 2."""
    instance = start(bench, "shared:app", "--strict")

    assert instance.wait() == 2
    assert_promised(instance, LOGS["shared"])
    assert not instance.matches("worker started")


def test_table_of_needs_names_options_and_sections(bench: Bench) -> None:
    """Each link leads to a heading, and what is written as an option is one."""
    anchors = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in re.findall("(?m)^#+ .*", README)
    }
    links = re.findall(r"\]\(#([^)]*)\)", README)

    assert len(links) > 8
    assert set(links) <= {anchor.lstrip("-") for anchor in anchors}
    for row in rows("What else there is:"):
        for word in words(row[1]):
            name = re.match(r"(?:app\.)?(\w+)", word)
            assert name
            assert name[1] in OPTIONS or name[1] in COMMAND_LINE or hasattr(App, name[1]), word


def test_what_a_worker_has_started_ends_with_it(bench: Bench) -> None:
    """Its process group is gone before the successor starts; a session of its own has escaped."""
    bench.app(
        """
        import subprocess
        app = App("shop")

        @app.worker(pins=0)
        def work():
            pids = [subprocess.Popen(["sleep", "1000"], start_new_session=own).pid for own in (False, True)]
            app.log.info("pids %d %d", *pids)
            app.sleep(1000)
        """
    )
    instance = bench.start()
    (first,) = instance.await_log(r"pids (\d+) (\d+)")

    os.kill(instance.worker(0), signal.SIGKILL)
    instance.worker(0, 2)

    until(lambda: not alive(int(first[1])), "the end of its process group")
    assert alive(int(first[2]))
    assert instance.stop() == 0


def test_options_table_is_complete_and_right(bench: Bench) -> None:
    """Names, flags and variables are those of the table in the code, defaults those that `check` shows."""
    table = rows("### Options")
    assert [words(row[0]) for row in table] == [[name] for name in OPTIONS]
    for row, option in zip(table, OPTIONS.values(), strict=True):
        assert words(row[3])[0].split()[0] == option.flag
        assert words(row[4]) == [option.variable]
    bench.app("app = App()\n@app.worker(pins=0)\ndef work() -> None: ...")
    shown = dict(re.findall(r"(\w+)=(\S+)", bench.run("check", "shop:app").stdout))
    assert (shown.pop("name"), shown.pop("wait_s")) == ("shop", "None")
    assert {words(row[0])[0]: words(row[1])[0] for row in table[1:]} == shown


def test_environment_table_is_complete(bench: Bench) -> None:
    """A worker finds these variables, and no others of ours."""
    bench.app(
        """
        app = App()
        @app.worker(pins=0)
        def work() -> None:
            for name in os.environ:
                if name.startswith("PYWORKERS_"):
                    print(name)
        """
    )
    ended = bench.run("shop:app", env={"PYWORKERS_DEBUG": "0"})
    assert sorted(ended.stdout.split()) == sorted(words(row[0])[0] for row in rows("### A worker's environment"))


def test_exit_code_tables_name_every_code() -> None:
    """Those of the master and of a worker together are those of errors.py."""
    master = [row[0].split(",")[0] for row in rows("Of the master:")]
    worker = [row[0] for row in rows("Of a worker:")]
    verbs = [row[0] for row in rows("of these:")]

    assert {int(code) for code in master + worker + verbs} == {int(code) for code in ExitCode}


def test_table_of_verbs_names_every_verb() -> None:
    """Each verb for an instance that runs has its row, and there is no other."""
    _, _, below = README.partition("\n| Verb | What it does |\n")
    named = re.findall(r"(?m)^\| `(\w+)", below.partition("\n\n")[0])

    assert set(named) == set(OPERATIONS)


def test_hup_reloads(bench: Bench) -> None:
    """One PIN after the other, and the log says so."""
    instance = start(bench, "units:app")
    instance.await_log("worker started", 2)
    until(lambda: [row.unit for row in instance.status()] == ["entry 2"] * 2, "both at work")

    instance.signal(signal.SIGHUP)
    instance.await_log("reload complete")

    assert_promised(instance, LOGS["units"])
    assert instance.stop() == 0


@pytest.mark.parametrize(
    ("signum", "code", "line"),
    [(signal.SIGINT, 0, "stopping reason=SIGINT"), (signal.SIGQUIT, 1, "stopping quickly reason=SIGQUIT")],
)
def test_signals_that_stop(signum: signal.Signals, code: int, line: str, bench: Bench) -> None:
    """As the table has it; TERM stands in the log above."""
    assert signum.name.removeprefix("SIG") in [row[0] for row in rows("To the master:")]
    instance = start(bench, "crawler:app")
    instance.await_log("still here")

    instance.signal(signum)

    assert instance.wait() == code
    assert instance.matches(line)
