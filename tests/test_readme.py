"""Every block of the README does what the text around it says; every table says what the code says."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import PATIENCE_S, Bench, Instance
from pyworkers import ExitCode
from pyworkers._options import OPTIONS

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = [(found[1], found[2]) for found in re.finditer(r"(?ms)^```(.*?)\n(.*?)^```$", README)]
PROGRAMS = {source.split("\n", 1)[0][2:].removesuffix(".py"): source for kind, source in BLOCKS if kind == "python"}
COMMANDS = [line for kind, text in BLOCKS[1:] if kind == "sh" for line in text.splitlines()]

SET_UP = """\
python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/python -m pyworkers examples.stdlib_census:app
.venv/bin/pip install -q nox && .venv/bin/nox
"""

UNTIL_TERM = {"crawler": 4, "units": 2, "waits": 2, "fetcher": 2}
"""Programs that run until they are stopped, with the number of their workers."""

TO_THE_END = {"pins": 8, "hooks": 2, "script": 2}
"""Programs that end by themselves, likewise."""

UNIT_TESTS = {"test_once": "test_collect"}


def write_programs(directory: Path) -> None:
    """Lay all programs of the README side by side, as a reader would."""
    for name, source in PROGRAMS.items():
        (directory / f"{name}.py").write_text(source)


def start(bench: Bench, *arguments: str) -> Instance:
    """Start an instance of one of the programs."""
    write_programs(bench.directory)
    instance = Instance(bench.directory, *arguments)
    bench.instances.append(instance)
    return instance


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
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "log", "crontab"}
    assert README.count("\n```") == 2 * len(BLOCKS)
    assert len(PROGRAMS) == sum(kind == "python" for kind, _ in BLOCKS)
    assert set(PROGRAMS) == {*UNTIL_TERM, *TO_THE_END, *UNIT_TESTS}


def test_first_block_sets_up() -> None:
    """Two commands, each in one line."""
    assert BLOCKS[0] == ("sh", SET_UP)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_passes_check(name: str, bench: Bench) -> None:
    """Each is a complete program."""
    write_programs(bench.directory)
    checked = bench.run("check", f"{name}:app")

    assert (checked.returncode, checked.stderr) == (0, "")


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
def test_handler_runs_in_a_unit_test(name: str, tmp_path: Path) -> None:
    """In this very process."""
    write_programs(tmp_path)
    spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    getattr(module, UNIT_TESTS[name])()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_works(command: str, bench: Bench) -> None:
    """Those that end are run; of the others, the ones with options of `run` are checked, and the rest run until TERM."""
    python, minus_m, *arguments = shlex.split(command)
    assert (python, minus_m) == ("python", "-m")
    write_programs(bench.directory)
    if arguments[0] == "pdb":
        debugged = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=bench.directory,
            input="continue\nquit\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert "Exit status: 3" in debugged.stdout
        return
    assert arguments.pop(0) == "pyworkers"
    if arguments[0] in ("check", "--help"):
        assert bench.run(*arguments).returncode == 0
    elif "--daemon" in arguments:
        checked = bench.run("check", *arguments)
        assert checked.returncode == 0, checked.stderr
    else:
        instance = start(bench, *arguments)
        instance.await_log("worker started report pin=3")
        assert instance.stop() == 0


def test_crontab_line_is_accepted(bench: Bench) -> None:
    """Five fields of time, and a command that the command line takes."""
    write_programs(bench.directory)
    (line,) = [text for kind, text in BLOCKS if kind == "crontab"]
    found = re.fullmatch(r"(?:\* ){5}cd \$HOME/project && \.venv/bin/python -m pyworkers (.*)\n", line)
    assert found

    assert bench.run("check", *found[1].split()).returncode == 0


def test_log_is_that_of_a_real_run(bench: Bench) -> None:
    """PIN 1 is killed, then the master gets TERM; numbers, and the order in which workers leave, may differ."""
    (promised,) = [text for kind, text in BLOCKS if kind == "log"]
    instance = start(bench, "crawler:app")
    instance.await_log("still here")
    os.kill(instance.worker(1), signal.SIGKILL)
    instance.worker(1, 2)
    assert instance.stop() == 0

    assert blurred(instance.log) == blurred(promised)


def blurred(log: str) -> list[str]:
    """Return the lines of a log in an order of their own, without what differs from run to run."""
    log = re.sub(r"(?m)^\S+ \S+ ", "", log)
    log = re.sub(r" unit='page \d+'| done=\d+/1000", "", log)
    log = re.sub(r"\[\d+\]|pid=\d+|after=\d+\.\ds", "...", log)
    return sorted(log.splitlines())


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

    assert {int(code) for code in master + worker} == {int(code) for code in ExitCode}


@pytest.mark.parametrize("name", ["HUP", "TTIN", "TTOU"])
def test_signals_that_this_version_ignores(name: str, bench: Bench) -> None:
    """They are logged, and change nothing."""
    (row,) = [row for row in rows("To the master:") if "HUP" in row[0]]
    assert row == ["HUP, TTIN, TTOU", "logged and ignored"]
    instance = start(bench, "crawler:app")
    instance.await_log("worker started", 4)

    instance.signal(getattr(signal, f"SIG{name}"))
    instance.await_log(f"signal ignored signal=SIG{name}")

    assert len(instance.workers()) == 4
    assert instance.stop() == 0


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("TERM", 0, "stopping reason=SIGTERM"),
        ("INT", 0, "stopping reason=SIGINT"),
        ("QUIT", 1, "stopping quickly reason=SIGQUIT"),
    ],
)
def test_signals_that_stop(name: str, code: int, line: str, bench: Bench) -> None:
    """As the table has it."""
    assert name in [row[0] for row in rows("To the master:")]
    instance = start(bench, "crawler:app")
    instance.await_log("still here")

    instance.signal(getattr(signal, f"SIG{name}"))

    assert instance.wait() == code
    assert instance.matches(line)
