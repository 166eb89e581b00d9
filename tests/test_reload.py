"""Reload of real instances: the new code is tried out first, takes over, and workers are replaced one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import Bench, Instance, alive, as_from_a_shell, open_files, runtime_in, until
from pyworkers import _watcher
from pyworkers._origin import BEGINS_MAX, CALM_S, Beginning
from pyworkers._posix.reexec import Origin
from pyworkers._watcher import has_changed

EXAMPLE = Path(__file__).parent.parent / "examples" / "stdlib_census.py"

CODE = """
app = App("shop", lock_file=here / "lock")

@app.worker(pins=range(3))
def sell(pin):
    with (here / "begun").open("a") as out:
        out.write(f"{pin} VERSION {os.getpid()} {app.generation}\\n")
    while True:
        app.sleep(0.02)
"""


def code(version: str = "v1", text: str = CODE) -> str:
    return text.replace("VERSION", version)


def start(bench: Bench, text: str | None = None, *arguments: str, **popen: object) -> Instance:
    """Start an instance of three PINs, and wait until all of their handlers run."""
    instance = bench.start(code() if text is None else text, *arguments, **popen)
    until(lambda: len(begun(bench)) == 3, "three handlers")
    return instance


def begun(bench: Bench) -> list[list[str]]:
    """Return PIN, version, pid and generation of every handler that has begun."""
    return [line.split() for line in bench.read("begun").splitlines()]


def versions(bench: Bench) -> dict[str, str]:
    """Return the version that each PIN's latest handler is of."""
    return {pin: version for pin, version, _, _ in begun(bench)}


def pids(instance: Instance) -> dict[int, int | None]:
    return {row.pin: row.pid for row in instance.status()}


def refused(bench: Bench, instance: Instance, why: str) -> None:
    """Reload, and see that nothing changes, and one line says why."""
    before = pids(instance)
    done = bench.run("reload", "shop:app")

    assert done.returncode == 1
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    lines = [line for line in instance.log.splitlines() if "reload refused: " in line]
    assert why in lines[-1]
    assert lines[-1].endswith("; nothing changes")
    assert pids(instance) == before
    assert not instance.matches("worker ended|restarting")


def descriptors(pid: int) -> list[str]:
    """Return the kinds of what a process has open: a pipe that is made anew has another number."""
    return sorted(re.sub(r"\d+", "", link) for link in open_files(pid).values())


@pytest.mark.parametrize("by", ["signal", "verb"])
def test_reload_replaces_the_code_and_keeps_the_master(bench: Bench, by: str) -> None:
    """Same pid, same lock, same socket; generations grow; every PIN ends up with the new code, each by one restart."""
    instance = start(bench)
    bench.app(code("v2"))
    if by == "verb":
        done = bench.run("reload", "shop:app")
        assert (done.returncode, done.stderr) == (0, "")
    else:
        instance.signal(signal.SIGHUP)
    instance.await_log("reload complete workers=3")

    until(lambda: versions(bench) == {"0": "v2", "1": "v2", "2": "v2"}, "the new code on every PIN")
    assert len(begun(bench)) == 6
    generations = [int(generation) for *_, generation in begun(bench)]
    assert len(set(generations)) == 6
    assert min(generations[3:]) > max(generations[:3])
    assert {row.restarts for row in instance.status()} == {1}
    assert not instance.matches("WARNING|ERROR"), instance.log
    assert "already running" in instance_of_another(bench)
    assert instance.stop() == 0
    assert not alive(instance.pid)


def instance_of_another(bench: Bench) -> str:
    """Return what a second instance says."""
    return bench.run("shop:app", "--if-running=fail").stderr


def test_workers_are_replaced_one_after_the_other(bench: Bench) -> None:
    """Never more than one PIN is missing, and the next is asked to leave when the one before is up."""
    text = CODE + "\n@app.on_worker_start\ndef slow(pin):\n    time.sleep(0.1)\n"
    instance = start(bench, code("v1", text))
    bench.app(code("v2", text))
    bench.run("reload", "shop:app")
    found = [(line[1], line[2]) for line in instance.matches(r"(restarting pins|worker started sell pin)=(\d)")]

    assert found[3:] == [(what, pin) for pin in "012" for what in ("restarting pins", "worker started sell pin")]


BAD = {
    "syntax": ("def (:\n", "SyntaxError"),
    "import": ("import no_such_module\n", "No module named 'no_such_module'"),
    "exception": ("1 / 0\n", "ZeroDivisionError"),
    "no handlers": ("app = App('shop', lock_file=here / 'lock')\n", "no worker"),
    "overlap": (
        "app = App('shop', lock_file=here / 'lock')\n@app.worker(pins=0)\ndef a(): ...\n@app.worker(pins=[0, 1])\ndef b(): ...\n",
        "at 0",
    ),
    "option": ("app = App('shop', lock_file=here / 'lock', stop_timout=3)\n", "stop_timout"),
    "exit": ("sys.exit(0)\n", "called sys.exit(0)"),
    "lock": (
        "app = App('shop', lock_file=here / 'other')\n@app.worker(pins=0)\ndef a(): ...\n",
        "lock_file cannot change",
    ),
    "killed": ("os.kill(os.getpid(), 9)\n", "did not come to its app.run()"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_code_changes_nothing_and_is_named_in_one_line(bench: Bench, kind: str) -> None:
    """G11: whatever is wrong with it, the workers go on, and a good reload works after it."""
    instance = start(bench)
    text, why = BAD[kind]
    bench.app(text)
    refused(bench, instance, why)

    bench.app(code("v2"))
    assert bench.run("reload", "shop:app").returncode == 0
    until(lambda: set(versions(bench).values()) == {"v2"}, "the new code")
    assert instance.stop() == 0


def test_code_whose_first_pin_dies_costs_that_pin_alone(bench: Bench) -> None:
    """The roll halts, the rest goes on with the code that it runs, the line says what to do, and so does status."""
    instance = start(bench)
    before = pids(instance)
    bench.app(code("v2").replace("while True", "raise RuntimeError('broken')\n    while True"))
    done = bench.run("reload", "shop:app")

    assert done.returncode == 1
    assert "halted at pin=0" in done.stderr
    (line,) = instance.matches("reload halted at pin=0; .*")
    assert "workers=2 go on with the code that they run: mend the new code and reload again" in line[0]
    assert {pin: pid for pin, pid in pids(instance).items() if pin} == {pin: pid for pin, pid in before.items() if pin}
    until(lambda: bench.run("status", "shop:app").returncode == 3, "status to say that a PIN is down")
    assert len(instance.matches("reload halted")) == 1
    bench.app(code("v3"))
    assert bench.run("reload", "shop:app").returncode == 0
    until(lambda: versions(bench) == dict.fromkeys("012", "v3"), "the mended code")


def test_pins_come_and_go_with_the_code(bench: Bench) -> None:
    """PINs that are no longer declared are stopped, new ones are started, and another handler may have one."""
    instance = start(bench)
    bench.app(code("v2").replace("range(3)", "[1, 2, 7]"))
    assert bench.run("reload", "shop:app").returncode == 0

    until(lambda: versions(bench) == {"0": "v1", "1": "v2", "2": "v2", "7": "v2"}, "the new PINs")
    until(lambda: sorted(pids(instance)) == [1, 2, 7], "PIN 0 gone")
    assert instance.matches("reloaded workers=2 new=1 gone=1")
    bench.app(code("v3").replace("def sell", "def buy"))
    assert bench.run("reload", "shop:app").returncode == 0
    until(lambda: {row.handler for row in instance.status()} == {"buy"}, "another handler")
    assert sorted(pids(instance)) == [0, 1, 2]


def test_worker_that_dies_between_two_programs_is_replaced(bench: Bench) -> None:
    """Its death waits for the new program, and so does that of another one at the same time."""
    instance = start(bench)
    # The new code holds its second import, the one that takes over, until it is told to go on.
    hold = (
        "if (here / 'tried').exists():\n"
        "    (here / 'held').touch()\n"
        "    while not (here / 'go').exists(): time.sleep(0.01)\n"
        "(here / 'tried').touch()\n"
    )
    bench.app(hold + code("v2"))
    instance.signal(signal.SIGHUP)
    until(lambda: (bench.directory / "held").exists(), "the new program")
    killed = [instance.worker(pin) for pin in (1, 2)]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    (bench.directory / "go").touch()

    until(lambda: versions(bench) == dict.fromkeys("012", "v2"), "all with the new code")
    assert len(instance.await_log(r"worker ended sell pin=[12] pid=\d+ signal=SIGKILL", 2)) == 2
    instance.await_log("reload complete")
    assert instance.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_g3_stop_between_two_programs_is_honoured(bench: Bench, signum: int) -> None:
    """G3: a signal that comes while the new program is imported is none that is lost, and none that kills the master."""
    hold = (
        "if (here / 'tried').exists():\n"
        "    (here / 'held').touch()\n"
        "    while not (here / 'go').exists(): time.sleep(0.01)\n"
        "(here / 'tried').touch()\n"
    )
    instance = start(bench)
    bench.app(hold + code("v2"))
    instance.signal(signal.SIGHUP)
    until(lambda: (bench.directory / "held").exists(), "the new program")
    instance.signal(signum)
    (bench.directory / "go").touch()

    assert instance.wait() in ((0,) if signum != signal.SIGQUIT else (0, 1))
    assert instance.matches("all workers stopped; master exits")
    assert not [pid for _, _, pid, _ in begun(bench) if alive(int(pid))]


def test_stop_while_the_code_is_tried_out_ends_the_reload(bench: Bench) -> None:
    """Nobody waits for an import that takes long."""
    instance = start(bench)
    bench.app("(here / 'trying').touch()\ntime.sleep(60)\n" + code("v2"))
    instance.signal(signal.SIGHUP)
    until(lambda: (bench.directory / "trying").exists(), "the check")
    (checker,) = set(instance.workers()) - {int(pid) for _, _, pid, _ in begun(bench)}

    assert instance.stop() == 0
    assert not alive(checker)


def test_code_that_fails_only_when_it_takes_over_leaves_the_workers_alone(bench: Bench) -> None:
    """Checked, and bad all the same: workers go on, the log says so, nobody is replaced until code comes that is good."""
    instance = start(bench)
    before = pids(instance)
    bench.app("if (here / 'tried').exists(): raise RuntimeError('gone')\n(here / 'tried').touch()\n" + code("v2"))
    done = bench.run("reload", "shop:app")

    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    (line,) = instance.matches("reload failed: .*")
    assert "the workers go on with the code that they run, and nobody is replaced: mend it and reload again" in line[0]
    assert pids(instance) == before
    os.kill(instance.worker(2), signal.SIGKILL)
    instance.await_log("cannot fork sell pin=2: there is no code to run: .*; trying again in")
    bench.app(code("v3"))
    assert bench.run("reload", "shop:app").returncode == 0
    until(lambda: versions(bench) == dict.fromkeys("012", "v3"), "the good code")
    assert instance.stop() == 0


def test_on_start_that_raises_after_a_reload_leaves_the_workers_alone(bench: Bench) -> None:
    """It cannot be tried out, so it is the one thing that may fail late: then there is no new code, either."""
    instance = start(bench)
    before = pids(instance)
    bench.app(code("v2") + "\n@app.on_start\ndef bind():\n    raise OSError('address in use')\n")
    done = bench.run("reload", "shop:app")

    assert done.returncode == 1
    assert "on_start function=bind raised OSError" in done.stderr
    assert instance.matches("OSError: address in use")
    assert pids(instance) == before
    assert instance.stop() == 0


def test_without_code_no_verb_takes_a_worker_away(bench: Bench) -> None:
    """Nobody could follow it: the verbs are refused until there is code again."""
    instance = start(bench)
    before = pids(instance)
    bench.app(code("v2") + "\n@app.on_start\ndef bind():\n    raise OSError('address in use')\n")
    assert bench.run("reload", "shop:app").returncode == 1
    done = bench.run("restart", "shop:app", "1")

    assert done.returncode == 1
    assert done.stderr.endswith("restart: since the last reload there is no code to run: mend it and reload again\n")
    assert pids(instance) == before
    assert instance.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_while_the_new_program_imports_its_code_is_not_held_up(bench: Bench, signum: int) -> None:
    """G3, G8: it was tried out quickly, and takes its time when it takes over; workers are told at once."""
    instance = start(bench)
    slow = (
        "if (here / 'tried').exists():\n    (here / 'again').touch()\n    time.sleep(3600)\n(here / 'tried').touch()\n"
    )
    bench.app(slow + code("v2"))
    instance.signal(signal.SIGHUP)
    until((bench.directory / "again").exists, "the import of the new program")
    instance.signal(signum)

    assert instance.wait() == (1 if signum == signal.SIGQUIT else 0)
    assert instance.matches("has come while its code was imported; the workers go on")
    assert not [pid for _, _, pid, _ in begun(bench) if alive(int(pid))]


def test_each_of_two_reloads_is_told_its_own_end(bench: Bench) -> None:
    """The first one's workers are being replaced when the second one's code turns out to be bad."""
    text = (
        CODE + "\n@app.on_worker_start\ndef warm():\n    while not (here / 'go').exists():\n        time.sleep(0.01)\n"
    )
    (go := bench.directory / "go").touch()
    instance = start(bench, code("v1", text))
    go.unlink()
    bench.app(code("v2", text))
    first = asking(bench, "reload", "shop:app")
    instance.await_log("restarting pins=0 reason=reload")
    bench.app("1/0")
    second = bench.run("reload", "shop:app")

    assert second.returncode == 1
    assert "ZeroDivisionError" in second.stderr
    assert first.poll() is None
    bench.app(code("v2", text))
    go.touch()
    assert first.communicate(timeout=40)[1] == ""
    assert first.returncode == 0
    assert versions(bench) == dict.fromkeys("012", "v2")
    assert instance.stop() == 0


def test_verbs_follow_a_deployment_by_a_symbolic_link(bench: Bench) -> None:
    """`current` leads to another directory after the reload, and there the instance is found, and stopped."""
    current = bench.directory / "current"
    for release in ("v1", "v2"):
        (bench.directory / release).mkdir()
        bench.app(code(release).replace("here /", "here.parent /"))
        shutil.move(bench.directory / "shop.py", bench.directory / release / "shop.py")
    current.symlink_to("v1")
    env = {"PWD": str(current)}
    instance = Instance(current, "shop:app", env={**env, **runtime_in(bench.directory)})
    bench.instances.append(instance)
    until(lambda: len(begun(bench)) == 3, "three handlers")
    current.unlink()
    current.symlink_to("v2")
    for verb in ("reload", "restart", "stop"):
        done = subprocess.run(
            [sys.executable, "-m", "pyworkers", verb, "shop:app"],
            cwd=current,
            env={**os.environ, **env, **runtime_in(bench.directory)},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), verb

    assert versions(bench) == dict.fromkeys("012", "v2")
    assert instance.wait() == 0


def asking(bench: Bench, *arguments: str) -> subprocess.Popen[str]:
    """Start a verb."""
    return subprocess.Popen(
        [sys.executable, "-m", "pyworkers", *arguments],
        cwd=bench.directory,
        env={**os.environ, **runtime_in(bench.directory)},
        preexec_fn=as_from_a_shell,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_program_of_a_script_reloads_as_well(bench: Bench) -> None:
    """`app.run()` under __main__: the whole script begins again, with its arguments."""
    bench.app(code() + "\nif __name__ == '__main__':\n    assert sys.argv[1:] == ['--mine']\n    sys.exit(app.run())\n")
    log = (bench.directory / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "shop.py", "--mine"],
        cwd=bench.directory,
        stderr=log,
        env={**os.environ, **runtime_in(bench.directory)},
        preexec_fn=as_from_a_shell,
    )
    try:
        until(lambda: len(begun(bench)) == 3, "the workers")
        bench.app(code("v2") + "\nif __name__ == '__main__':\n    sys.exit(app.run())\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: versions(bench) == dict.fromkeys("012", "v2"), "the new code")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        log.close()


def test_check_runs_nothing_of_what_follows_the_run(bench: Bench) -> None:
    """What a script does after its app.run(), or at its exit, is not for a program that only tries out the code."""
    after = """
if __name__ == "__main__":
    import atexit
    atexit.register((here / "exited").touch)
    code = app.run()
    (here / "after").touch()
    sys.exit(code)
"""
    bench.app(code() + after)
    process = subprocess.Popen(
        [sys.executable, "shop.py"],
        cwd=bench.directory,
        env={**os.environ, **runtime_in(bench.directory)},
        preexec_fn=as_from_a_shell,
    )
    try:
        until(lambda: len(begun(bench)) == 3, "the workers")
        bench.app(code("v2") + after)
        process.send_signal(signal.SIGHUP)
        until(lambda: versions(bench) == dict.fromkeys("012", "v2"), "the new code")
        assert not (bench.directory / "after").exists()
        assert not (bench.directory / "exited").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert (bench.directory / "after").exists()
    finally:
        process.kill()
        process.wait()


def test_failures_that_were_to_be_told_do_not_keep_a_master_without_on_failure(bench: Bench) -> None:
    """G8: the new code has no `on_failure`, and the stop is as short as ever."""
    tell = "\n@app.on_failure\ndef tell(record):\n    (here / 'telling').touch()\n    time.sleep(3600)\n"
    instance = start(bench, code() + tell)
    for pin in (1, 2):
        os.kill(instance.worker(pin), signal.SIGKILL)
    until(lambda: (bench.directory / "telling").exists(), "the first to be told")
    bench.app(code("v2"))
    assert bench.run("reload", "shop:app").returncode == 0

    assert instance.stop() == 0
    assert instance.matches(r"on_failure was not told of all failures count=1")


def test_who_waits_on_a_descriptor_is_told_once(bench: Bench) -> None:
    """`--notify-fd`: the descriptor is gone by the reload, and nobody is told again by whatever has its number."""
    reader, writer = os.pipe()
    instance = start(bench, None, "--notify-fd", str(writer), pass_fds=(writer,))
    os.close(writer)
    assert os.read(reader, 10) == b"\n"
    bench.app(code("v2"))
    assert bench.run("reload", "shop:app").returncode == 0
    assert os.read(reader, 10) == b""
    os.close(reader)
    until(lambda: versions(bench) == dict.fromkeys("012", "v2"), "the new code")
    assert instance.stop() == 0


def test_environment_directory_and_mask_are_those_of_the_start(bench: Bench) -> None:
    """What the first program has changed for itself is not handed on: no variable, no directory, no blocked signal."""
    tell = """
import json
state = [os.getcwd(), os.environ.get("PYWORKERS_DEBUG"), os.environ.get("MINE"), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))]
with (here / "state").open("a") as out:
    out.write(json.dumps(state) + "\\n")
os.environ["MINE"] = "changed"
os.chdir("/")
"""
    instance = start(bench, tell + code())
    bench.app(tell + code("v2"))
    done = bench.run("reload", "shop:app")
    assert (done.returncode, done.stderr) == (0, "")
    told = bench.read("state").splitlines()

    # At the start, in the check, and in the program that takes over.
    assert len(told) == 3
    assert len(set(told)) == 1
    # By this, the verbs of another shell find it.
    (entry,) = bench.directory.glob(".runtime/pyworkers/*.json")
    assert json.loads(entry.read_text())["directory"] == str(bench.directory.resolve())
    assert instance.stop() == 0


def test_spares_are_replaced_with_the_code(bench: Bench) -> None:
    """No PIN is ever given to a spare that has warmed up with the old code."""
    text = CODE.replace('here / "lock")', 'here / "lock", spares=1)')
    instance = start(bench, code("v1", text))
    instance.await_log(r"worker started sell spare=0 pid=\d+")
    bench.app(code("v2", text))
    assert bench.run("reload", "shop:app").returncode == 0
    instance.await_log(r"worker started sell spare=0 pid=\d+", 2)
    killed = pids(instance)[1]
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    until(
        lambda: [version for pin, version, *_ in begun(bench) if pin == "1"] == ["v1", "v2", "v2"], "the third of PIN 1"
    )
    assert instance.stop() == 0


def test_daemon_reloads(bench: Bench) -> None:
    """It detaches once, and its pid is what the lock file says, before and after."""
    bench.app(code())
    assert bench.run("shop:app", "--daemon", "--syslog=/no/such/socket").returncode == 0
    until(lambda: len(begun(bench)) == 3, "the workers")
    before = bench.read("lock")
    bench.app(code("v2"))

    assert bench.run("reload", "shop:app").returncode == 0
    until(lambda: versions(bench) == dict.fromkeys("012", "v2"), "the new code")
    assert bench.read("lock") == before
    assert bench.run("stop", "shop:app").returncode == 0


def test_many_reloads_leak_nothing_and_refuse_no_question(bench: Bench) -> None:
    """Under a stream of questions and deaths: the same master, no PIN doubled, the same descriptors."""
    reload_many(bench, 8)


CENSUS = """
import time
import stdlib_census as census
app = census.app

if (here / "slow").exists():
    # So that it lasts for two hundred reloads.
    survey = census.survey
    census.survey = lambda path: (time.sleep(0.1), survey(path))[1]

def note(what, pin):
    with (here / "diary").open("a") as out:
        out.write(f"{time.monotonic()} {what} {pin} {os.getpid()}\\n")

@app.on_worker_start
def begin(pin):
    note("begin", pin)

@app.on_worker_exit
def end(pin):
    note("end", pin)
"""


def table(bench: Bench) -> list[object]:
    """Return the census, and forget it."""
    path = bench.directory / "stdlib_census.db"
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM module ORDER BY path").fetchall()
    finally:
        connection.close()
        path.unlink()


@pytest.mark.fire
def test_census_is_the_same_after_two_hundred_reloads(bench: Bench) -> None:
    """One after the other, most of them in the middle of a roll, under a stream of questions: the table is identical.

    No PIN is ever held twice, the master keeps its pid and its descriptors, and no question goes without an answer.
    """
    shutil.copy(EXAMPLE, bench.directory)
    bench.app(CENSUS)
    assert bench.start().wait(120) == 0
    expected, count = table(bench), 0
    (bench.directory / "slow").touch()
    asker = ask_without_end(bench)
    kept: set[tuple[str, ...]] = set()
    while count < 200:
        instance = bench.start()
        instance.await_log("worker started")
        while instance.exit_code is None:
            count += 1
            reload_once(bench, instance, to_the_end=count % 10 == 0)
            # Connections come and go.
            kept.add(tuple(kind for kind in descriptors(instance.pid) if not kind.startswith("socket")))
        assert instance.wait() == 0, instance.log
        assert table(bench) == expected
        assert not instance.matches("ERROR|Traceback"), instance.log
        assert {found[1] for found in instance.matches(r"census\[(\d+)\] INFO reloaded")} == {str(instance.pid)}
    # One that ends has closed most of them.
    sizes = [len(kinds) for kinds in kept if any("cells" in kind for kind in kinds)]
    assert max(sizes) <= min(sizes) + 2, kept
    answered(bench, asker)
    assert not doubled(bench)


def reload_once(bench: Bench, instance: Instance, *, to_the_end: bool) -> None:
    """Reload, and wait until the new program has taken over, or until the roll has ended; or the instance has."""
    number = len(instance.matches("INFO reloaded workers="))
    if to_the_end:
        bench.run("reload", "shop:app")
    else:
        instance.signal(signal.SIGHUP)
        until(
            lambda: len(instance.matches("INFO reloaded workers=")) > number or instance.exit_code is not None,
            "the new program",
        )


def doubled(bench: Bench) -> list[str]:
    """Return the lines of the diary at which a worker begins before the last one of its PIN has ended."""
    holders: dict[str, str] = {}
    found: list[str] = []
    for line in sorted(bench.read("diary").splitlines(), key=lambda line: float(line.split()[0])):
        _, what, pin, pid = line.split()
        if what == "begin" and holders.get(pin, pid) != pid:
            found.append(line)
        if what == "begin":
            holders[pin] = pid
        else:
            holders.pop(pin, None)
    return found


def ask_without_end(bench: Bench) -> subprocess.Popen[str]:
    """Ask for the status again and again, by the same connection and by new ones, until `answered`."""
    return subprocess.Popen(
        [sys.executable, "-c", ASKER, str(bench.directory)],
        cwd=bench.directory,
        env={**os.environ, **runtime_in(bench.directory)},
        stdout=subprocess.PIPE,
        text=True,
    )


def answered(bench: Bench, asker: subprocess.Popen[str]) -> None:
    """Every question was answered that was put to a master that was there."""
    (bench.directory / "enough").touch()
    answers, _ = asker.communicate(timeout=20)
    asked, _, failed = answers.partition("\n")

    assert int(asked) > 20
    assert failed.strip() == ""


def reload_many(bench: Bench, count: int) -> None:
    instance = start(bench)
    assert bench.run("reload", "shop:app").returncode == 0
    before = descriptors(instance.pid)
    asker = ask_without_end(bench)
    try:
        for number in range(count):
            bench.app(code(f"v{number}"))
            done = bench.run("reload", "shop:app")
            assert (done.returncode, done.stderr) == (0, ""), number
            until(lambda number=number: set(versions(bench).values()) == {f"v{number}"}, "the new code")
    finally:
        answered(bench, asker)
    assert until(lambda: descriptors(instance.pid) == before, "the same descriptors")
    holders = [line for line in begun(bench) if alive(int(line[2]))]
    assert sorted(pin for pin, *_ in holders) == ["0", "1", "2"]
    assert instance.stop() == 0


ASKER = """
import sys, time
from pathlib import Path
from pyworkers._client.find import find
from pyworkers._client.wire import Wire
from pyworkers.errors import NotRunningError
here = Path(sys.argv[1])
asked, failed, refused = 0, [], None
def there(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
    except OSError:
        return b""
while not (here / "enough").exists():
    try:
        wire = Wire(find("shop:app", None))
        while not (here / "enough").exists():
            pid = wire.ask("status")["pid"]
            if refused is not None and refused[0] == pid:
                # It was there all the time, and goes on.
                failed.append(refused[1])
            since, refused = time.monotonic(), None
            other = Wire(find("shop:app", None))
            other.ask("status")
            other.close()
            asked += 1
            time.sleep(0.01)
    except NotRunningError as error:
        # Between two instances: the one that was asked is about to be gone, or gone.
        if asked:
            refused = pid, str(error)
            if time.monotonic() - since > 15 and there(pid):
                failed.append(f"{error}, and does not come back")
                break
        time.sleep(0.01)
    except Exception as error:
        failed.append(repr(error))
print(asked)
print("\\n".join(failed))
"""


def test_files_are_watched_for_development(bench: Bench) -> None:
    """`--reload`: a file that is written is a reload, and the watcher leaves with the master, however that ends."""
    instance = start(bench, None, "--reload")
    (watcher,) = instance.await_log(r"file watcher started directory=\S+ pid=(\d+)")
    # inotify(7) has to be set up before a change can be seen.

    def watches() -> bool:
        # A descriptor may be closed between two looks at it.
        with contextlib.suppress(FileNotFoundError):
            return any("inotify wd:" in info.read_text() for info in Path(f"/proc/{watcher[1]}/fdinfo").iterdir())
        return False

    until(watches, "the watch")
    bench.app(code("v2"))
    instance.await_log("reload complete")
    until(lambda: versions(bench) == dict.fromkeys("012", "v2"), "the new code")
    (_, second) = instance.await_log(r"file watcher started directory=\S+ pid=(\d+)", 2)
    assert not alive(int(watcher[1]))
    os.kill(instance.pid, signal.SIGKILL)
    until(lambda: not alive(int(second[1])), "the end of the watcher")


SLOW = (
    """
with (here / "imports").open("a") as out:
    out.write("VERSION\\n")
while (here / "imports").read_text().count("VERSION") == WAITING and not (here / "go").exists():
    time.sleep(0.005)
"""
    + CODE
)


@pytest.mark.parametrize("waiting", ["1", "2"], ids=["start", "takeover"])
def test_what_is_saved_while_the_code_is_imported_is_a_reload(bench: Bench, waiting: str) -> None:
    """Nobody watches then: neither before the first watcher, nor between two."""
    changed = "v1"
    if waiting == "2":
        start(bench, None, "--reload").await_log("file watcher started")
        # Tried out, then executed.
        changed = "v2"
        bench.app(code(changed, SLOW).replace("WAITING", waiting))
    else:
        bench.start(code(changed, SLOW).replace("WAITING", waiting), "--reload")
    (instance,) = bench.instances
    bench.await_text("imports", changed, int(waiting))

    bench.app(code("v3"))
    (bench.directory / "go").touch()

    until(lambda: versions(bench) == dict.fromkeys("012", "v3"), "the code that was saved last")
    instance.await_log("reload complete")
    # One more where a change was found twice, while the watch began.
    assert len(instance.matches("trying out")) <= int(waiting) + 1, instance.log
    assert instance.stop() == 0


def test_script_is_watched_from_its_start(bench: Bench) -> None:
    """It is read long before its `app.run()`, also in the program of a reload."""
    run = "\nif __name__ == '__main__':\n    sys.exit(app.run())\n"
    bench.app(code("v1", SLOW).replace("WAITING", "1") + run)
    program = subprocess.Popen(
        [sys.executable, "shop.py"],
        cwd=bench.directory,
        env={**os.environ, **runtime_in(bench.directory), "PYWORKERS_RELOAD": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        bench.await_text("imports", "v1")
        bench.app(code("v2", SLOW).replace("WAITING", "2") + run)
        (bench.directory / "go").touch()
        (bench.directory / "imports").write_text("v1\n")
        bench.await_text("imports", "v2", 1)
        (bench.directory / "go").unlink()
        bench.await_text("imports", "v2", 2)
        bench.app(code("v3") + run)
        (bench.directory / "go").touch()
        until(lambda: versions(bench) == dict.fromkeys("012", "v3"), "the code that was saved last")
    finally:
        program.terminate()
        assert program.wait(20) == 0


def test_look_back_finds_what_the_watch_would_have_seen(tmp_path: Path) -> None:
    """Also a file of old that was moved there; nothing that is written beside the code."""
    (tmp_path / "old.py").touch()
    (tmp_path / "package" / "__pycache__").mkdir(parents=True)
    since = (tmp_path / "old.py").stat().st_ctime + 1.0

    def later(name: str) -> None:
        # By the clock that the kernel gives files, which nobody can set back.
        until(lambda: time.time() > since, "a second")
        (tmp_path / name).touch()

    assert not has_changed(str(tmp_path), since)
    for name in ("notes.txt", "package/__pycache__/a.py", ".#a.py"):
        later(name)
        assert not has_changed(str(tmp_path), since), name
    (tmp_path / "old.py").rename(tmp_path / "package" / "new.py")
    assert has_changed(str(tmp_path), since)


def test_code_that_changes_itself_is_not_reloaded_without_end() -> None:
    """A few programs may follow each other at once, as where somebody saves often; the next one has to wait."""
    begin = Beginning(Origin("", (), "", {}), None, begins=(100.0,))
    looks = []
    for _ in range(BEGINS_MAX + 1):
        looks.append(begin.calm_at)
        begin = Beginning(begin.origin, None, begins=begin.next_begins)

    assert max(looks[: BEGINS_MAX - 1]) <= time.time()
    assert looks[BEGINS_MAX - 1] == 100.0 + CALM_S
    assert looks[BEGINS_MAX] > time.time()
    assert len(begin.begins) == BEGINS_MAX


def test_look_back_waits_for_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And there is one."""
    told: list[int] = []
    monkeypatch.setattr(_watcher, "tell", lambda master: told.append(master) or True)
    (tmp_path / "shop.py").touch()
    at = time.time() + 1000
    look = _watcher.Look(7, str(tmp_path), 0.0, at)

    assert not look.is_set()
    assert not told
    monkeypatch.setattr(time, "time", lambda: at)
    assert not look.is_set()
    assert not look.is_set()
    assert told == [7]
