"""Shards on a real Slurm, with leases in a real PostgreSQL: what no engine promises, and what a lease adds to it."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.overlap import Book, Life
from engines.postgres import Server, server
from engines.slurm import CPUS, Cluster
from helpers import Bench, runtime_in, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TESTS = str(Path(__file__).parent.parent)
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "stdlib_census.py"

APP = """
    from engines.overlap import live
    app = App("shop", stop_timeout=4)

    @app.worker(pins=range(6))
    def crawl(pin: int) -> None:
        short = pin == int(os.environ.get("SHORT", "-1"))
        live(app, here / "book", app.generation, 0.5 if short else float("inf"))
"""

CENSUS = """
    import threading
    import stdlib_census as census
    from engines.overlap import BEAT_S, Diary
    app, survey = census.app, census.survey

    def slowly(path):
        time.sleep(0.15)
        return survey(path)

    census.survey = slowly

    @app.on_worker_start
    def keep_diary(pin: int) -> None:
        def beat() -> None:
            with Diary(here / "book", pin, app.generation) as diary:
                while not over.wait(BEAT_S):
                    diary.beat()

        global over, beating
        over, beating = threading.Event(), threading.Thread(target=beat, daemon=True)
        beating.start()

    @app.on_worker_exit
    def close_diary() -> None:
        over.set()
        beating.join()
"""


class Site:
    """A cluster with a database on its host 0, an app in a directory that all nodes see, and its workers' diaries."""

    def __init__(self, cluster: Cluster, database: Server, bench: Bench) -> None:
        self.cluster, self.database, self.directory = cluster, database, bench.directory
        self.book = Book(bench.directory / "book")
        self.env = {"PYTHONPATH": TESTS, **runtime_in(bench.directory)}

    def array(self, **env: str) -> str:
        """Hand in an array of two shards, each of which takes all of a node: one of the three is spare."""
        lease = f"--lease {self.database.remote} --lease-ttl 6"
        return self.cluster.submit(
            "--array=0-1",
            f"--chdir={self.directory}",
            f"--cpus-per-task={CPUS}",
            "--requeue",
            "--output=%a.log",
            "--open-mode=append",
            "--wrap",
            f"exec {sys.executable} -m pyworkers shop:app --shard slurm/2 {lease}",
            **self.env,
            **env,
        )

    def await_holders(self, pins: range, epoch: int = 1, patience_s: float = 60) -> dict[int, Life]:
        """Wait until each of the PINs has its one worker, of this epoch or a later one."""

        def there() -> dict[int, Life] | None:
            found = self.book.holders(pins)
            return found if found and all(life.epoch >= epoch for life in found.values()) else None

        found = until(there, f"workers of {pins} with epoch {epoch}", patience_s)
        assert found is not None
        return found

    def node(self, life: Life) -> int:
        """Return the number of the host on which a worker is."""
        return int(life.host.removeprefix("n"))


@pytest.fixture
def site(cluster: Cluster, bench: Bench) -> Iterator[Site]:
    """A place to run shards with leases."""
    bench.app(APP)
    with server(cluster.hosts) as database:
        yield Site(cluster, database, bench)


def test_partition_lets_no_pin_have_two_workers(site: Site) -> None:
    """The test of the limit of shards alone, with a lease; and then the cable is back, and the job is cancelled."""
    job = site.array()
    before = site.await_holders(range(6))
    cut = site.node(before[0])
    site.cluster.hosts.cut(cut)
    after = site.await_holders(range(0, 6, 2), epoch=2, patience_s=40)

    assert {life.epoch for life in after.values()} == {2}
    assert {site.node(life) for life in after.values()}.isdisjoint({cut, site.node(before[1])})
    for pin, life in after.items():
        assert life.first - before[pin].first < 60
        assert life.first - site.book.of(pin)[0].last >= 0.3

    # The stale master of the first attempt is alive behind the healed cable, and its rows are free: it may not have
    # them, since the engine has given it up. Its node will kill it, some time later.
    site.cluster.hosts.heal(cut)
    site.cluster.run("scancel", job)
    until(lambda: not site.book.living(), "the end of all workers")
    free = "SELECT count(*) FROM pyworkers_lease WHERE owner IS NULL"
    until(lambda: site.database.query(free) == [(6,)], "six free rows")
    site.cluster.await_idle()
    assert max(life.epoch for life in site.book.lives()) == 2
    assert site.book.overlaps() == []


def test_done_pin_is_not_started_again_with_its_shard(site: Site) -> None:
    """PIN 0 has ended normally when its node loses its power: only the others of the shard come back, in this run."""
    job = site.array(SHORT="0")
    before = site.await_holders(range(1, 6))
    until(lambda: site.book.of(0) and site.book.of(0)[0].ended, "the end of PIN 0")
    done = "SELECT done_run FROM pyworkers_lease WHERE pin = 0"
    assert until(lambda: site.database.query(done)[0][0], "PIN 0 to be done") == f"slurm-{job}"
    site.cluster.hosts.power_off(site.node(before[2]))
    until(lambda: {life.epoch for life in site.book.of(2)} == {1, 2}, "the second attempt of the shard", 60)
    site.await_holders(range(1, 6))
    assert len(site.book.of(0)) == 1

    site.cluster.run("scancel", job)
    until(lambda: not site.book.living(), "the end of all workers")
    site.array()
    site.await_holders(range(6))
    assert len(site.book.of(0)) == 2
    assert site.book.overlaps() == []


def test_census_is_complete_whatever_happens_to_nodes(
    cluster: Cluster, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cable is cut in the middle, and put back; then a node loses its power: each file has its row, exactly once."""
    shutil.copy(EXAMPLE, bench.directory)
    bench.app(CENSUS)
    with contextlib.closing(sqlite3.connect(bench.directory / "stdlib_census.db")) as made:
        # Two masters that do it in the same moment lock each other out, and SQLite waits for neither.
        made.execute("PRAGMA journal_mode = WAL")
    with server(cluster.hosts) as database:
        site = Site(cluster, database, bench)
        job = site.array()
        before = site.await_holders(range(5))
        cut = site.node(before[0])
        site.cluster.hosts.cut(cut)
        moved = site.await_holders(range(0, 5, 2), epoch=2)
        site.cluster.hosts.heal(cut)
        # Slurm ends what was left there, and may use the node again.
        until(
            lambda: site.cluster.run("sinfo", "-h", "-n", f"n{cut}", "-o", "%T").stdout.strip() == "idle",
            "the node",
            60,
        )
        lost = site.node(before[1])
        site.cluster.hosts.power_off(lost)
        replaced = site.await_holders(range(1, 5, 2), epoch=2)
        for element in (f"{job}_0", f"{job}_1"):
            site.cluster.await_state(element, "COMPLETED", 120)

        rows = sqlite3.connect(bench.directory / "stdlib_census.db").execute("SELECT path FROM module").fetchall()
        assert len({path for (path,) in rows}) == len(rows)
        printed = bench.read("0.log") + bench.read("1.log")
        found = re.search(r"^(\d+) modules of the standard library", printed, re.MULTILINE)
        assert found is not None
        assert int(found[1]) == len(rows) > 500
        assert site.book.overlaps() == []
        gaps = {
            what: max(
                life.first - max(old.last for old in site.book.of(pin) if old.first < life.first)
                for pin, life in lives.items()
            )
            for what, lives in (("cut", moved), ("lost", replaced))
        }
        with capsys.disabled():
            print(
                f"\ntaken over after the cable was cut: {gaps['cut']:.1f} s; after the node was lost: {gaps['lost']:.1f} s"
            )
