"""The batch file that `export slurm` prints, handed to a real Slurm as it is: what comes back, and what does not."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from engines.overlap import Book, Life
from engines.slurm import Cluster
from helpers import Bench, bench_in, runtime_in, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

TESTS = str(Path(__file__).parent.parent)

APP = """
    from engines.overlap import BEAT_S, Diary
    app = App("shop", stop_timeout=4)

    @app.worker(pins=range(4))
    def crawl() -> None:
        # (in the handler)
        # The epoch is the master's pid.
        with Diary(here / "book", app.pin, os.getppid()) as diary:
            while not (here / "done").exists():
                app.checkpoint()
                diary.beat()
                app.sleep(BEAT_S)
"""


class Batch:
    """An app, its exported file, and the job that was made of it."""

    def __init__(self, cluster: Cluster, bench: Bench, source: str = APP, *options: str) -> None:
        bench.app(source)
        self.cluster, self.directory = cluster, bench.directory
        self.book = Book(bench.directory / "book")
        env = {"PYTHONPATH": TESTS}
        printed = bench.run("export", "slurm", "shop:app", "--shards", "2", env=env)
        assert (printed.returncode, printed.stderr) == (0, "")
        file = bench.directory / "shop.sbatch"
        file.write_text(printed.stdout)
        self.job = cluster.submit(*options, str(file), **runtime_in(bench.directory))

    def await_holders(self, patience_s: float = 30, pins: Collection[int] = range(4)) -> dict[int, Life]:
        """Wait until each of the PINs has its one worker, and return them by PIN."""
        found = until(lambda: self.book.holders(pins), f"one worker for each of {pins}", patience_s)
        assert found is not None
        return found

    def log(self, shard: int) -> str:
        """Return what a shard has logged, over all of its attempts."""
        return (self.directory / f"shop.{shard}-of-2.log").read_text()

    def restarts(self, shard: int) -> int:
        """Return how often Slurm has started the shard anew."""
        return int(self.cluster.job(f"{self.job}_{shard}")["Restarts"])

    def await_idle(self) -> None:
        """Wait until no shard runs any more."""
        self.cluster.await_idle()


@pytest.fixture
def batch(cluster: Cluster, bench: Bench) -> Batch:
    """The app's job, with all of its workers at work."""
    made = Batch(cluster, bench)
    made.await_holders()
    return made


def test_crash_of_a_worker_is_the_masters_affair(batch: Batch) -> None:
    """The worker is replaced under its PIN, and the job goes on."""
    before = batch.await_holders()
    os.kill(before[1].pid, signal.SIGKILL)

    until(lambda: len(batch.book.of(1)) == 2, "the next worker of PIN 1", 3)
    after = batch.await_holders()
    assert after[1].epoch == before[1].epoch
    assert [after[pin].pid for pin in (0, 2, 3)] == [before[pin].pid for pin in (0, 2, 3)]
    assert (batch.restarts(0), batch.restarts(1)) == (0, 0)
    assert batch.book.overlaps() == []


@pytest.mark.parametrize("shard", range(2))
def test_killed_master_comes_back(batch: Batch, shard: int) -> None:
    """Its workers leave, its shard is requeued, and the other one is not disturbed: the last one's number is special."""
    before = batch.await_holders()
    began = time.monotonic()
    os.kill(before[shard].epoch, signal.SIGKILL)

    until(lambda: not any(life.pin % 2 == shard for life in batch.book.living()), "the end of the shard")
    after = batch.await_holders(15 - (time.monotonic() - began))
    others = [pin for pin in range(4) if pin % 2 != shard]
    assert [after[pin].pid for pin in others] == [before[pin].pid for pin in others]
    assert after[shard].epoch != before[shard].epoch
    assert (batch.restarts(shard), batch.restarts(1 - shard)) == (1, 0)
    assert batch.book.overlaps() == []


def test_master_killed_while_the_controller_is_away_is_requeued(batch: Batch) -> None:
    """Its script has nobody to ask for that, and waits."""
    before = batch.await_holders()
    batch.cluster.stop_controller()
    os.kill(before[0].epoch, signal.SIGKILL)
    until(lambda: "Unable to contact" in batch.log(0), "a request in vain", 60)

    batch.cluster.start_controller()

    # It is back some time later: meanwhile Slurm finds out about the node, whose step nobody took note of.
    until(lambda: batch.restarts(0) == 1, "the requeue", 60)
    after = batch.await_holders(pins=(1, 3))
    assert {pin: after[pin].pid for pin in (1, 3)} == {pin: before[pin].pid for pin in (1, 3)}
    assert batch.restarts(1) == 0


def test_limit_of_time_is_no_end_of_the_work(cluster: Cluster, bench: Bench) -> None:
    """Warned in time, every shard leaves its units whole, and is back with its PINs."""
    batch = Batch(cluster, bench, APP, "--time=1", "--signal=TERM@20")
    before = batch.await_holders()

    until(lambda: not batch.book.living(), "the warning", 45)
    assert all(life.ended for life in batch.book.lives())
    after = batch.await_holders(15)
    assert {life.pid for life in after.values()}.isdisjoint({life.pid for life in before.values()})
    for shard in range(2):
        assert re.search(r"all workers stopped; master exits code=143\n", batch.log(shard))
        assert batch.restarts(shard) == 1
    assert batch.book.overlaps() == []


def test_shards_that_are_done_stay_done(batch: Batch) -> None:
    """When all PINs have ended, and not before."""
    (batch.directory / "done").touch()

    for shard in range(2):
        known = batch.cluster.await_state(f"{batch.job}_{shard}", "COMPLETED")
        assert (known["ExitCode"], known["Restarts"]) == ("0:0", "0")
        assert "all workers finished; master exits" in batch.log(shard)
    batch.await_idle()
    assert len(batch.book.lives()) == 4


@pytest.mark.parametrize(
    ("line", "code"), [("if 'SLURM_JOB_ID' in os.environ: import nothing_of_this_name", 2), ("app.stop_all()", 254)]
)
def test_what_no_restart_can_cure_is_not_tried_again(cluster: Cluster, bench: Bench, line: str, code: int) -> None:
    """A bad app, bad only where it runs, and an app that wants to stop everything."""
    source = APP.replace("# (in the handler)", line) if code == 254 else f"{APP}\n    {line}\n"
    batch = Batch(cluster, bench, source)

    for shard in range(2):
        known = cluster.await_state(f"{batch.job}_{shard}", "FAILED")
        assert (known["ExitCode"], known["Restarts"]) == (f"{code}:0", "0")


@pytest.mark.parametrize("attempt", range(3))
def test_scancel_is_for_good(batch: Batch, attempt: int) -> None:
    """Whoever is told first, the script or its step: nothing is requeued."""
    batch.cluster.run("scancel", batch.job)

    for shard in range(2):
        batch.cluster.await_state(f"{batch.job}_{shard}", "CANCELLED", 10)
    batch.await_idle()
    # cred_expire and a second: by then a requeued job would be back.
    time.sleep(7)  # that nothing comes cannot be waited for
    for shard in range(2):
        known = batch.cluster.job(f"{batch.job}_{shard}")
        assert (known["JobState"], known["Restarts"]) == ("CANCELLED", "0")
    assert all(life.ended for life in batch.book.lives())


def test_odd_directory_and_names_pass_unharmed(cluster: Cluster, tmp_path: Path) -> None:
    """The directory is read by sbatch, the rest by the shell."""
    odd = tmp_path / "a $b 'c' \"d\""
    odd.mkdir()
    with bench_in(odd) as bench:
        batch = Batch(cluster, bench, APP.replace('App("shop"', "App('sh%p'"))
        batch.await_holders()
        (odd / "done").touch()
        for shard in range(2):
            cluster.await_state(f"{batch.job}_{shard}", "COMPLETED")
            assert f" sh%p.{shard}-of-2[" in (odd / f"sh-p.{shard}-of-2.log").read_text()
