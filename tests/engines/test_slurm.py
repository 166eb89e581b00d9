"""Shards on a real Slurm of three nodes: where they run, how they stop, what comes back, and what it cannot promise.

Times are those of a Slurm with short timers; see `engines.slurm`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from engines.overlap import Book, Life
from engines.slurm import CPUS, Cluster
from helpers import Bench, runtime_in, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

TESTS = str(Path(__file__).parent.parent)
MASTER = (sys.executable, "-m", "pyworkers", "shop:app")

APP = """
    import math
    from engines.overlap import live
    app = App("shop", stop_timeout=4)
    seconds = float(os.environ.get("SECONDS", "inf"))

    @app.worker(pins=range(5))
    def crawl() -> None:
        live(app, here / "book", seconds=seconds)

    @app.worker(pins=range(5, 9))
    def report() -> None:
        live(app, here / "book", seconds=seconds)
"""


class Site:
    """A cluster, an app in a directory that all nodes see, and the diaries of its workers."""

    def __init__(self, cluster: Cluster, bench: Bench) -> None:
        bench.app(APP)
        self.cluster, self.directory = cluster, bench.directory
        self.book = Book(bench.directory / "book")
        self.env = {"PYTHONPATH": TESTS, **runtime_in(bench.directory)}

    def array(self, shards: int, *options: str, **env: str) -> str:
        """Hand in a job array of shards, each of which takes all of a node, and return its number."""
        return self.cluster.submit(
            f"--array=0-{shards - 1}",
            f"--chdir={self.directory}",
            f"--cpus-per-task={CPUS}",
            "--output=%a.log",
            "--open-mode=append",
            *options,
            "--wrap",
            f"exec {' '.join(MASTER)} --shard slurm/{shards}",
            **self.env,
            **env,
        )

    def await_holders(self, pins: range = range(9), patience_s: float = 30) -> dict[int, Life]:
        """Wait until each of the PINs has its one worker, and return them by PIN."""
        found = until(lambda: self.book.holders(pins), f"one worker for each of {pins}", patience_s)
        assert found is not None
        return found


@pytest.fixture
def site(cluster: Cluster, bench: Bench) -> Site:
    """A place to run shards."""
    return Site(cluster, bench)


def assert_each_ran_once(site: Site) -> None:
    told = site.book.lives()
    assert sorted(life.pin for life in told) == list(range(9))
    assert all(life.ended for life in told)
    assert {life.host for life in told} == {"n1", "n2", "n3"}
    # The ith PIN is that of shard i modulo 3, wherever that runs.
    for shard in range(3):
        assert len({life.host for life in told if life.pin % 3 == shard}) == 1


def test_tasks_of_srun_are_shards(site: Site) -> None:
    """Three masters, nine PINs of two handlers, each of them once; code 0 when all are done."""
    place = ("-N3", "-n3", f"--chdir={site.directory}")
    site.cluster.run("srun", *place, *MASTER, "--shard", "slurm/3", **site.env, SECONDS="1")

    assert_each_ran_once(site)


def test_elements_of_an_array_are_shards(site: Site) -> None:
    """Likewise, and the engine has the work for done."""
    job = site.array(3, SECONDS="1")

    for index in range(3):
        assert site.cluster.await_state(f"{job}_{index}", "COMPLETED")["ExitCode"] == "0:0"
    assert_each_ran_once(site)


def test_script_of_a_job_is_no_shard(site: Site) -> None:
    """A batch script without srun looks like rank 0 of its tasks: it is refused, and nothing runs."""
    wrap = f"exec {' '.join(MASTER)} --shard slurm/3"
    job = site.cluster.submit("-n3", f"--chdir={site.directory}", "--output=refused.log", "--wrap", wrap, **site.env)

    assert site.cluster.await_state(job, "FAILED")["ExitCode"] == "2:0"
    assert "use srun" in (site.directory / "refused.log").read_text()
    assert site.book.lives() == []


def test_one_element_sent_again_is_the_same_shard(site: Site) -> None:
    """Slurm then counts one element in all."""
    job = site.array(3, "--array=2", SECONDS="0.2")

    site.cluster.await_state(f"{job}_2", "COMPLETED")
    assert sorted(life.pin for life in site.book.lives()) == [2, 5, 8]


def test_scancel_lets_every_worker_leave(site: Site) -> None:
    """TERM reaches masters and workers at once, and the workers once more: all leave in time, at a checkpoint."""
    job = site.array(3)
    site.await_holders()

    began = time.monotonic()
    site.cluster.run("scancel", job)
    until(lambda: not site.book.living(), "the end of the workers", 3)
    for index in range(3):
        site.cluster.await_state(f"{job}_{index}", "CANCELLED", 3 - (time.monotonic() - began))

    assert all(life.ended for life in site.book.lives())
    # Nobody is told twice. But a worker may have its TERM, and a successor, before its master has one.
    assert {life.pin for life in site.book.lives()} == set(range(9))
    assert site.book.overlaps() == []
    for index in range(3):
        assert "all workers stopped; master exits code=143" in (site.directory / f"{index}.log").read_text()


def test_scancel_ends_who_does_not_listen(site: Site, bench: Bench) -> None:
    """By Slurm's KillWait, also where the app would have waited longer."""
    bench.app(
        """
        from engines.overlap import Diary
        app = App("shop", stop_timeout=600, cooperative=True)

        @app.worker(pins=range(9))
        def work() -> None:
            with Diary(here / "book", app.pin) as diary:
                while True:
                    diary.beat()
                    time.sleep(0.05)
        """
    )
    job = site.array(3)
    site.await_holders()

    site.cluster.run("scancel", job)

    # KillWait, and the time that the controller and the nodes take for it.
    until(lambda: not site.book.living(), "the end of the workers", 3 + 6)
    assert not any(life.ended for life in site.book.lives())


def test_requeued_shard_comes_back_alone(site: Site) -> None:
    """With its PINs, and nobody else is disturbed."""
    job = site.array(3)
    before = site.await_holders()

    site.cluster.run("scontrol", "requeue", f"{job}_1")
    until(lambda: not any(life.pin % 3 == 1 for life in site.book.living()), "the end of shard 1")
    after = site.await_holders(patience_s=10)

    assert {pin for pin in range(9) if after[pin] == before[pin]} == set()
    assert {pin for pin in range(9) if after[pin].pid == before[pin].pid} == {0, 2, 3, 5, 6, 8}
    assert site.book.overlaps() == []


def test_lost_node_is_replaced(site: Site) -> None:
    """Its shard runs on the spare one; the other never notices."""
    site.array(2, "--requeue")
    before = site.await_holders()
    lost = int(before[0].host.removeprefix("n"))

    site.cluster.hosts.power_off(lost)
    began = time.monotonic()
    until(lambda: not any(life.pin % 2 == 0 for life in site.book.living()), "the end of shard 0")
    after = site.await_holders(patience_s=40 - (time.monotonic() - began))

    assert {after[pin].host for pin in range(0, 9, 2)}.isdisjoint({before[0].host, before[1].host})
    assert [after[pin].pid for pin in range(1, 9, 2)] == [before[pin].pid for pin in range(1, 9, 2)]
    assert site.book.overlaps() == []


def test_controller_may_be_started_anew(site: Site) -> None:
    """No worker restarts, and the jobs can be cancelled afterwards."""
    job = site.array(3)
    before = site.await_holders()

    site.cluster.stop_controller()
    site.cluster.start_controller()
    site.cluster.await_state(f"{job}_0", "RUNNING")
    # SlurmdTimeout: by then a node that was not heard of would be down, and its job somewhere else.
    time.sleep(12)  # that nothing happens cannot be waited for

    assert {pin: life.pid for pin, life in site.await_holders().items()} == {
        pin: life.pid for pin, life in before.items()
    }
    site.cluster.run("scancel", job)
    until(lambda: not site.book.living(), "the end of the workers")


def test_partition_lets_a_pin_have_two_workers(site: Site) -> None:
    """What shards alone do not promise: the cut node goes on, and Slurm starts its shard again elsewhere.

    It proves the checker, too.
    """
    site.array(2, "--requeue")
    before = site.await_holders()
    assert site.book.overlaps() == []

    site.cluster.hosts.cut(int(before[0].host.removeprefix("n")))

    two = until(site.book.overlaps, "two workers of a PIN", 45)
    assert {found.older.host for found in two} == {before[0].host}
    assert {found.newer.host for found in two}.isdisjoint({before[0].host, before[1].host})
    assert {found.older.pin for found in two} <= set(range(0, 9, 2))
