"""Shards of one app as real instances, without an engine: what they run, what keeps them apart, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.overlap import Book
from helpers import Bench, Instance, alive, until

TESTS = str(Path(__file__).parent.parent)

APP = """
    from engines.overlap import live
    app = App("shop", lock_file=here / "lock", stop_timeout=4)

    @app.worker(pins=range(5))
    def crawl() -> None:
        live(app, here / "book")

    @app.worker(pins=range(5, 9))
    def report() -> None:
        live(app, here / "book")
"""

ENGINES = {
    "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_ARRAY_TASK_COUNT": "8", "JOB_COMPLETION_INDEX": "3", "NOMAD_ALLOC_INDEX": "1", "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "1", "PMI_RANK": "1", "PMI_SIZE": "4",
}  # fmt: skip


def start(bench: Bench, source: str | None, *arguments: str, **env: str) -> Instance:
    """Run the app with diaries, as a foreground job of its own."""
    env = {"PYTHONPATH": TESTS, **env}
    return bench.start(source, *arguments, env=env, start_new_session=True)


def test_without_a_shard_all_pins_run(bench: Bench) -> None:
    """Whatever engines have put into the environment: nothing is implicit."""
    instance = start(bench, APP, **ENGINES)
    book = Book(bench.directory / "book")

    until(lambda: book.holders(range(9)), "all nine PINs")
    assert instance.stop() == 0
    assert " shop[" in instance.log
    assert not (bench.directory / "lock.2-of-8").exists()


def test_shards_share_a_host_and_the_pins(bench: Bench) -> None:
    """Each has its own lock, log name and socket; together they run every PIN once; the numbers are the app's."""
    first = start(bench, APP, "--shard", "0/2")
    second = start(bench, None, PYWORKERS_SHARD="env:RANK/2", RANK="1")
    book = Book(bench.directory / "book")

    until(lambda: book.holders(range(9)), "all nine PINs")
    first.await_log("worker started", 5)
    second.await_log("worker started", 4)
    assert [pin for pin in range(9) if first.started(pin)] == [0, 2, 4, 6, 8]
    assert [pin for pin in range(9) if second.started(pin)] == [1, 3, 5, 7]
    assert " shop.0-of-2[" in first.log
    assert " shop.1-of-2[" in second.log
    for label, master in (("0-of-2", first), ("1-of-2", second)):
        assert f"name=shop.{label} master={master.pid} " in bench.read(f"lock.{label}")
        told = bench.run("status", f"shop.{label}")
        assert (told.returncode, told.stdout.split(" ", 1)[0]) == (0, f"shop.{label}"), told.stdout
    assert (first.stop(), second.stop()) == (143, 143)
    assert book.overlaps() == []


@pytest.mark.parametrize(("arguments", "code"), [((), 75), (("--if-running=exit",), 0)])
def test_same_shard_twice_is_refused(bench: Bench, arguments: tuple[str, ...], code: int) -> None:
    """By default with the code for try again: 0 is for work that is done."""
    first = start(bench, APP, "--shard", "1/2")
    first.worker(1)

    second = bench.run("shop:app", "--shard", "1/2", "--debug", *arguments, env={"PYTHONPATH": TESTS})

    assert second.returncode == code
    assert "lock.1-of-2 is held by shop.1-of-2, master pid" in second.stderr
    assert first.stop() == 143


STOPS = """
    app = App("shop", stop_timeout=4)

    @app.worker(pins=range(4))
    def work(pin: int) -> None:
        try:
            (here / f"up.{pin}").touch()
            while True:
                app.sleep(3600)
        finally:
            with (here / "stops").open("a") as out:
                out.write(f"{pin}\\n")
            time.sleep(0.3)  # so that every signal meets a worker that is about to leave
"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_of_a_shard_runs_once_and_has_its_code(bench: Bench, signum: int, code: int) -> None:
    """Engines send TERM to every process, the master passes it on, and again, and CONT between them."""
    instance = start(bench, STOPS, "--shard", "1/2")
    until(lambda: len(list(bench.directory.glob("up.*"))) == 2, "both workers")
    workers = instance.workers()

    def send(number: int) -> None:
        for pid in (instance.pid, *(worker for worker in workers if number != signal.SIGINT)):
            os.kill(pid, number)

    send(signum)
    bench.await_text("stops", "\n", 2)
    if signum == signal.SIGTERM:
        # A second INT is meant differently: it kills.
        send(signum)
        send(signal.SIGCONT)
        send(signum)

    assert instance.wait() == code
    assert sorted(bench.read("stops").split()) == ["1", "3"]
    assert instance.matches(rf"all workers stopped; master exits code={code}")


def test_shard_whose_pins_have_ended_exits_with_0(bench: Bench) -> None:
    """Also where TERM comes after the last of them, while the master is still in `on_stop`."""
    source = """
    app = App("shop")

    @app.on_stop
    def finish() -> None:
        (here / "finishing").touch()
        while not (here / "go").exists():
            time.sleep(0.01)

    @app.worker(pins=range(4))
    def work() -> None:
        (here / f"{app.shard[0]}-of-{app.shard[1]}.{app.pin}").touch()
    """
    instance = start(bench, source, "--shard", "1/2")
    until((bench.directory / "finishing").exists, "on_stop")
    instance.signal()
    (bench.directory / "go").touch()

    assert instance.wait() == 0
    assert sorted(path.name for path in bench.directory.glob("*-of-*")) == ["1-of-2.1", "1-of-2.3"]


def test_stop_before_the_first_worker_is_no_end_of_the_work(bench: Bench) -> None:
    """TERM in `on_start`, and while the lock is waited for."""
    source = (
        APP
        + """
    @app.on_start
    def prepare() -> None:
        (here / "preparing").touch()
        assert app.shard == (1, 2)
        while not (here / "go").exists():
            time.sleep(0.01)
    """
    )
    first = start(bench, source, "--shard", "1/2")
    until((bench.directory / "preparing").exists, "on_start")
    second = start(bench, None, "--shard", "1/2", "--if-running=wait")
    second.await_log("waiting: lock")

    assert second.stop() == 143
    assert first.stop() == 143
    assert not first.matches("worker started")


def test_shard_without_pins_is_done(bench: Bench) -> None:
    """At once, and it says why."""
    bench.app(APP)
    done = bench.run("shop:app", "--shard", "9/10", env={"PYTHONPATH": TESTS})

    assert (done.returncode, done.stdout) == (0, "")
    assert "INFO no PINs for this shard; master exits" in done.stderr


def test_check_prints_the_shard(bench: Bench) -> None:
    """Its PINs, by handler, and how it is called; where the engine does not tell, what to do."""
    bench.app(APP)
    env = {"PYTHONPATH": TESTS}
    told = bench.run("check", "shop:app", "--shard", "2/4", env=env)
    refused = bench.run("check", "shop:app", "--shard", "slurm/4", env={**env, "SLURM_PROCID": "0"})

    assert told.returncode == 0
    assert told.stdout.startswith("shop.2-of-4: 2 PINs, 2 handlers\n")
    assert [line.split()[:2] for line in told.stdout.splitlines()[3:5]] == [["2", "crawl"], ["6", "report"]]
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "use srun" in refused.stderr


def test_only_one_pin_of_a_shard(bench: Bench) -> None:
    """It has to be one of its own."""
    bench.app(APP)
    env = {"PYTHONPATH": TESTS}

    assert bench.run("check", "shop:app", "--shard", "2/4", env=env).returncode == 0
    other = bench.run("shop:app", "--shard", "2/4", "--only", "3", env=env)
    assert other.returncode == 2
    assert "no handler of shop.2-of-4 has this PIN; there are 2,6" in other.stderr


def test_killed_master_leaves_no_worker(bench: Bench) -> None:
    """Within a second, with stop_timeout=1: an engine starts the shard again elsewhere."""
    instance = start(bench, APP, "--shard", "0/2", "--stop-timeout", "1")
    book = Book(bench.directory / "book")
    until(lambda: book.holders([0, 2, 4, 6, 8]), "five workers")
    workers = instance.workers()

    instance.signal(signal.SIGKILL)

    until(lambda: not any(alive(pid) for pid in workers), "the end of the workers", 1.0)
    assert len(workers) == 5


def up(instance: Instance) -> set[int]:
    """Return which PINs have a worker that is up."""
    return {row.pin for row in instance.status() if row.state == "running"}


def reloaded(bench: Bench, source: str) -> subprocess.CompletedProcess[str]:
    """Let shard 1 of 2 have other code."""
    bench.app(source)
    return bench.run("reload", "shop.1-of-2")


VERSIONS = """
    from engines.overlap import live
    app = App("shop", lock_file=here / "lock", stop_timeout=4)

    @app.worker(pins=range(4))
    def v1(pin: int) -> None:
        assert app.shard == (1, 2)
        live(app, here / "book")
"""


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_shard_reloads_as_the_shard_that_it_is(bench: Bench, by: str) -> None:
    """Its number, PINs, names, lock and exit code are those of the start; the other shard does not notice."""
    told = {"flag": (("--shard", "env:RANK/2"), {}), "variable": ((), {"PYWORKERS_SHARD": "env:RANK/2"})}
    arguments, env = told[by]
    # Whatever a program makes of its environment: what counts is that of the start.
    source = VERSIONS + '\n    app.on_start(lambda: os.environ.update(RANK="0"))'
    other = start(bench, VERSIONS.replace("(1, 2)", "(0, 2)"), "--shard=0/2")
    until(lambda: up(other) == {0, 2}, "the workers of shard 0")
    shard = start(bench, source, *arguments, RANK="1", **env)
    until(lambda: up(shard) == {1, 3}, "the workers of shard 1")
    before, signed = {row.pin: row.pid for row in other.status()}, bench.read("lock.1-of-2")

    for version in ("v2", "v3"):
        done = reloaded(bench, source.replace("v1", version))
        assert (done.returncode, done.stderr) == (0, "")
        rows = shard.status()
        assert [(row.pin, row.handler, row.state) for row in rows] == [(1, version, "running"), (3, version, "running")]

    assert bench.read("lock.1-of-2") == signed
    assert "shop.1-of-2" in bench.run("status", "shop.1-of-2").stdout
    assert bench.run("shop:app", "--shard=1/2", env={"PYTHONPATH": TESTS}).returncode == 75
    assert {row.pin: row.pid for row in other.status()} == before
    assert (shard.stop(), other.stop()) == (143, 143)
    assert Book(bench.directory / "book").overlaps() == []


@pytest.mark.parametrize("pins", ["range(1, 4)", "range(6)", "range(3)"])
def test_reload_that_deals_out_the_pins_anew_is_refused(bench: Bench, pins: str) -> None:
    """What would be this shard's, another one may have, and what would not be, nobody takes."""
    shard = start(bench, VERSIONS, "--shard=1/2")
    until(lambda: up(shard) == {1, 3}, "the workers")
    before = shard.workers()
    done = reloaded(bench, VERSIONS.replace("range(4)", pins))

    assert done.returncode == 1
    assert "the PINs of a shard cannot change by a reload" in done.stderr
    assert shard.workers() == before
    assert shard.stop() == 143


def test_shard_without_its_new_code_is_still_one(bench: Bench) -> None:
    """Code that is good when it is tried out, and deals out the PINs anew when it takes over."""
    shard = start(bench, VERSIONS, "--shard=1/2")
    until(lambda: up(shard) == {1, 3}, "the workers")
    before = shard.workers()
    bad = VERSIONS.replace("range(4)", "range(6 if (here / 'tried').exists() else 4)")
    done = reloaded(bench, bad + "\n    (here / 'tried').touch()")

    assert done.returncode == 1
    assert "the PINs of a shard cannot change by a reload" in done.stderr
    assert shard.matches("reload failed: .*the workers go on with the code that they run")
    assert shard.workers() == before
    assert reloaded(bench, VERSIONS.replace("v1", "v2")).returncode == 0
    assert [(row.pin, row.handler) for row in shard.status()] == [(1, "v2"), (3, "v2")]
    assert reloaded(bench, bad).returncode == 1
    assert shard.stop() == 143


def test_shard_is_not_scaled(bench: Bench) -> None:
    """A PIN that is free here may have a worker elsewhere."""
    shard = start(bench, "app = App('shop', workers=4)\n@app.worker()\ndef work(): app.sleep(3600)", "--shard=1/2")
    until(lambda: up(shard) == {1, 3}, "the workers")
    done = bench.run("scale", "shop.1-of-2", "3")

    assert done.returncode == 1
    assert "only a worker without pins can have more or fewer, and none of a shard" in done.stderr
    assert [row.pin for row in shard.status()] == [1, 3]
    assert shard.stop() == 143


def test_shards_cost_nothing_where_nobody_asks(bench: Bench) -> None:
    """Nothing of it is imported in a run of all PINs."""
    bench.app("app = App()\n@app.worker(pins=0)\ndef work():\n    print('pyworkers._shards' in sys.modules)")

    for arguments, loaded in (((), "False"), (("--shard", "0/1"), "True")):
        command = [sys.executable, "-m", "pyworkers", "shop:app", *arguments]
        ended = subprocess.run(
            command, cwd=bench.directory, env={**os.environ, **ENGINES}, capture_output=True, text=True, check=True
        )
        assert ended.stdout.strip() == loaded
