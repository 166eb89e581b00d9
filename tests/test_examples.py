"""Every file of examples/ keeps the promise of its docstring: run through the real command line, in a copy."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import PATIENCE_S, Bench, Instance, state, until

EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass(frozen=True)
class Entry:
    """What one example promises.

    Attributes:
        lines: Patterns of the log, each with how often it stands there when all is over.
        code: The master's exit code.
        meanwhile: For one that runs until TERM: what to await of the instance, and do to it, before.
    """

    lines: Mapping[str, int]
    code: int = 0
    meanwhile: Callable[[Bench, Instance], None] | None = None


def probe_and_kill(_bench: Bench, instance: Instance) -> None:
    """Ask how far the workers are until both are in their loop, and shoot one there."""

    def both_have_told() -> bool:
        instance.signal(signal.SIGUSR1)
        told = r"INFO transfer pin=(\d): [1-9]\d* transfers so far, the accounts add up to 1000\n"
        return {found[1] for found in instance.matches(told)} == {"0", "1"}

    victim = instance.worker(0)
    until(both_have_told, "the first transfers of both workers")
    os.kill(victim, signal.SIGKILL)
    instance.worker(0, 2)


def start_again(bench: Bench, instance: Instance) -> None:
    """Start a second instance as cron does, and as a person does."""
    instance.await_log(r"INFO poll pin=\d: looking into queue \d", 2)
    quiet = bench.run("examples.cron_lock:app")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    told = bench.run("examples.cron_lock:app", "--if-running=fail")
    assert told.returncode == 75
    wanted = (
        f"already running: lock cron_lock.lock is held by cron_lock, master pid {instance.pid} and 2 other processes"
    )
    assert wanted in told.stderr


def see_batches(_bench: Bench, instance: Instance) -> None:
    """Wait until both workers are at it."""
    for pin in (0, 1):
        instance.await_log(rf"INFO fetch pin={pin}: batch 1: \['page 0 of pin {pin}', 'page 1 of pin {pin}'\]")


def see_replacements(_bench: Bench, instance: Instance) -> None:
    """Wait for the successors of the worker that hangs and of one that grows old."""
    instance.await_log(r"leaving out page 3")
    recycled = instance.await_log(r"worker recycled resize pin=(\d) pid=\d+ max_runtime reached=\d\.\ds; asking it")
    instance.await_log(r"worker ended resize pin=\d pid=\d+ exit=143 after=\d+\.\ds; respawning now\n")
    instance.worker(int(recycled[0][1]), 2)


def shoot_when_the_spare_is_ready(_bench: Bench, instance: Instance) -> None:
    """End a worker, and see that the spare takes its place, and another one that of the spare."""
    (spare,) = instance.await_log(r"worker started answer spare=0 pid=(\d+)")
    instance.await_log(rf"\[{spare[1]}\] INFO answer spare: ready")
    # From here on it sleeps only where it waits for its PIN.
    until(lambda: state(int(spare[1])) == "S", "the spare to wait")
    instance.await_log(r"answer pin=0: 100 is the sum")
    os.kill(instance.worker(0), signal.SIGKILL)
    instance.await_log(rf"\[{spare[1]}\] INFO answer pin=0: 100 is the sum")
    assert instance.worker(0, 2) == int(spare[1])
    instance.await_log(r"answer spare: ready", 2)


ENTRIES = {
    "one_handler": Entry(
        {
            r"INFO worker started add_squares pin=[012] pid=\d+$": 3,
            r"INFO add_squares pin=0: sum of squares is 112761$": 1,
            r"INFO add_squares pin=1: sum of squares is 106161$": 1,
            r"INFO add_squares pin=2: sum of squares is 109428$": 1,
            r"INFO worker ended add_squares pin=[012] pid=\d+ exit=0 after=\d+\.\ds; finished$": 3,
            r"INFO all workers finished; master exits$": 1,
            r"WARNING|ERROR": 0,
        }
    ),
    "per_pin": Entry(
        {
            r"INFO download pin=([012]): downloading part \1$": 3,
            r"INFO resize pin=3: resizing$": 1,
            r"INFO mail pin=([46]): mailing list \1$": 2,
            r"INFO sweep pin=([57]): sweeping as pin \1$": 2,
            r"; finished$": 8,
            r"INFO all workers finished; master exits$": 1,
            r"WARNING|ERROR": 0,
        }
    ),
    "exit_codes": Entry(
        {
            r"worker ended unlucky pin=0 pid=\d+ signal=SIGKILL after=\d+\.\ds; respawning now$": 1,
            r"worker ended unlucky pin=0 pid=\d+ exit=41 after=\d+\.\ds; respawning (now|in 0\.1s)$": 1,
            r"unlucky pin=0: ConnectionError: the other side hung up$": 1,
            r"worker ended unlucky pin=0 pid=\d+ exit=1 after=\d+\.\ds; respawning (now|in 0\.[12]s)$": 1,
            r"stopping reason=stop_all pin=0 pid=\d+ workers=[12]$": 1,
            r"worker ended unlucky pin=0 pid=\d+ exit=10 after=\d+\.\ds; finished$": 1,
            r"worker ended bystander pin=1 pid=\d+ exit=143 after=\d+\.\ds; stopped$": 1,
            r"INFO all workers stopped; master exits code=7$": 1,
        },
        code=7,
    ),
    "atomic_units": Entry(
        {
            r"transfer pin=[01]: the accounts add up to 1000$": 2,
            r"signal=SIGKILL after=\d+\.\ds unit='transfer \d+' done=\d+/1000000; respawning now$": 1,
            r"INFO all workers stopped; master exits$": 1,
        },
        meanwhile=probe_and_kill,
    ),
    "lifecycle_hooks": Entry(
        {
            r"INFO write pin=\d: connected$": 4,
            r"INFO write pin=\d: closed$": 4,
            r"ERROR write pin=1: OSError: PIN 1 fails once, between two items$": 1,
            r"worker ended write pin=1 pid=\d+ exit=1 after=\d+\.\ds done=2/4; respawning now$": 1,
            r"INFO failure pin=1 exit=1 attempt=1$": 1,
            r"INFO all workers finished; master exits$": 1,
            r"INFO 12 rows$": 1,
        }
    ),
    "cron_lock": Entry(
        {r"INFO poll pin=([01]): looking into queue \1$": 2, r"INFO all workers stopped; master exits$": 1},
        meanwhile=start_again,
    ),
    "async_handler": Entry(
        {
            r"INFO fetch pin=\d: left after \d+ whole batches$": 2,
            r"worker ended fetch pin=\d pid=\d+ exit=143 after=\d+\.\ds; stopped$": 2,
            r"torn": 0,
            r"INFO all workers stopped; master exits$": 1,
        },
        meanwhile=see_batches,
    ),
    "hang_and_age": Entry(
        {
            r"ERROR worker hung fetch pin=0 pid=\d+ silent=\d+\.\ds; its stacks follow, then it is replaced$": 1,
            r"ERROR stack fetch pin=0 pid=\d+:   File \".*/examples/hang_and_age\.py\", line 34 in store$": 1,
            r"worker ended fetch pin=0 pid=\d+ exit=131 cause=hang after=\d+\.\ds unit='page 3'; respawning now$": 1,
            r"INFO fetch pin=0: leaving out page 3$": 1,
            r"INFO all workers stopped; master exits$": 1,
        },
        meanwhile=see_replacements,
    ),
    "group_restart": Entry(
        {
            r"worker ended collect pin=0 pid=\d+ signal=SIGKILL after=\d+\.\ds; respawning with its group$": 1,
            r"WARNING group restarting feed after pin=\d workers=\d; all start again$": 1,
            # Who sends in the very moment of that death fails by itself.
            r"worker ended send pin=[12] pid=\d+ exit=(143|1) after=\d+\.\ds( done=./5)?; respawning with its group$": 2,
            r"INFO worker started collect pin=0 pid=\d+$": 2,
            r"INFO worker started send pin=[12] pid=\d+$": 4,
            r"INFO collect pin=0: all 10 messages have come$": 1,
            r"; finished$": 3,
            r"INFO all workers finished; master exits$": 1,
        }
    ),
    "fencing": Entry(
        {
            r"worker ended convert pin=0 pid=\d+ signal=SIGKILL after=.* unit='page 3' done=3/6; respawning now$": 1,
            r"INFO convert pin=0: skipping page 3 after signal=SIGKILL$": 1,
            r"INFO convert pin=0: refused: a late write$": 1,
            r"INFO worker ended convert pin=0 pid=\d+ exit=0 after=\d+\.\ds; finished$": 1,
            r"INFO all workers finished; master exits$": 1,
            r"ERROR": 0,
        }
    ),
    "warm_spares": Entry(
        {
            r"worker ended answer pin=0 pid=\d+ signal=SIGKILL after=\d+\.\ds( done=\d+/225)?; respawning now$": 1,
            r"INFO answer pin=0: 100 is the sum of 47 and 53$": 2,
            r"INFO worker started answer pin=0 pid=\d+$": 2,
            r"INFO worker started answer spare=0 pid=\d+$": 2,
            r"INFO answer pin=[01]: ready$": 2,
            r"INFO all workers stopped; master exits$": 1,
            r"ERROR": 0,
        },
        meanwhile=shoot_when_the_spare_is_ready,
    ),
}

ELSEWHERE = {"stdlib_census": "test_census.py", "testing_kit": "the test below"}
"""Examples that have a test of their own."""


def test_every_example_has_an_entry() -> None:
    """A new file without a promise that is kept fails here."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(ENTRIES) | set(ELSEWHERE)


@pytest.mark.parametrize("name", [*ENTRIES, *ELSEWHERE])
def test_example_keeps_its_promise(name: str, bench: Bench) -> None:
    """It ends as its docstring says, with the lines that it says."""
    if name in ELSEWHERE:
        pytest.skip(f"{ELSEWHERE[name]} runs it")
    entry = ENTRIES[name]
    shutil.copytree(EXAMPLES, bench.directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    instance = Instance(bench.directory, f"examples.{name}:app", env={"TMPDIR": str(bench.directory)})
    bench.instances.append(instance)

    if entry.meanwhile is None:
        code = instance.wait()
    else:
        entry.meanwhile(bench, instance)
        code = instance.stop()

    assert code == entry.code, instance.log
    found = {pattern: len(instance.matches(f"(?m){pattern}")) for pattern in entry.lines}
    assert found == entry.lines, instance.log
    assert not list(bench.directory.glob("tmp*")), "a temporary file was left behind"


def test_example_of_the_testing_kit_passes(bench: Bench) -> None:
    """It is itself a file of tests, and says how many."""
    shutil.copytree(EXAMPLES, bench.directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "examples/testing_kit.py"]
    done = subprocess.run(
        command, cwd=bench.directory, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )

    (count,) = re.findall(r"`(\d+ passed)`", (EXAMPLES / "testing_kit.py").read_text())
    assert f" {count} in " in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ENTRIES)
def test_example_is_short_and_says_how_to_run_it(name: str) -> None:
    """Under 60 lines, and its number in the reading order, its command and what will be seen stand on top."""
    source = (EXAMPLES / f"{name}.py").read_text()
    docstring = ast.get_docstring(ast.parse(source)) or ""

    assert len(source.splitlines()) < 60
    assert docstring.startswith(f"{list(ENTRIES).index(name) + 1}. ")
    assert f"    python -m pyworkers examples.{name}:app" in docstring
    assert re.search("[Yy]ou will see|prints|says", docstring)
