"""Leases on a real PostgreSQL and three hosts: who runs a PIN when hosts, cables, masters and the server fail.

The TTL is 6 s: workers are stopped 4 s after the last good renewal, dead after 5, and nobody takes a row before 6.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engines.hosts import Hosts, hosts_in, need
from engines.overlap import Book, Life
from engines.postgres import Server, Statement, binaries, server
from helpers import Bench, Instance, alive, clean_environment, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

TESTS = str(Path(__file__).parent.parent)
TTL = 6.0

APP = """
    import ctypes
    from engines.overlap import Diary, live
    app = App("leased", stop_timeout=4)

    @app.worker(pins=range(int(os.environ.get("PINS", "3"))))
    def work(pin: int) -> None:
        if pin == int(os.environ.get("STUBBORN", "-1")):
            with Diary(here / "book", pin, app.generation) as diary:
                app.checkpoint()
                while True:
                    diary.beat()
                    # Holds the interpreter's lock all the time: no trap runs, no thread, no checkpoint.
                    ctypes.PyDLL(None).usleep(50_000)
        live(app, here / "book", app.generation, float(os.environ.get("SECONDS", "inf")))
"""


class Master(Instance):
    """One on a host of the tests."""

    def __init__(self, hosts: Hosts, host: int, directory: Path, *arguments: str, env: dict[str, str]) -> None:
        self._hosts, self._host = hosts, host
        super().__init__(directory, "shop:app", *arguments, env=env)

    def _command(self, *arguments: str) -> list[str]:
        return self._hosts.command(self._host, *super()._command(*arguments))


class Site:
    """Hosts, a server on host 0, an app in a directory that all hosts see, and the diaries of its workers."""

    def __init__(self, hosts: Hosts, database: Server, bench: Bench) -> None:
        bench.app(APP)
        self.hosts, self.database, self.bench = hosts, database, bench
        self.book = Book(bench.directory / "book")

    def start(self, host: int, *arguments: str, url: str | None = None, ttl: float = TTL, **env: str) -> Instance:
        """Start a master on a host."""
        lease = ("--lease", url or self.database.remote, "--lease-ttl", str(ttl))
        instance = Master(self.hosts, host, self.bench.directory, *lease, *arguments, env={"PYTHONPATH": TESTS, **env})
        self.bench.instances.append(instance)
        return instance

    def await_holders(self, host: int, pins: range = range(3), patience_s: float = 30.0) -> dict[int, Life]:
        """Wait until each of the PINs has its one worker, all of them on this host."""

        def there() -> dict[int, Life] | None:
            found = self.book.holders(pins)
            return found if found and all(life.host == f"n{host}" for life in found.values()) else None

        found = until(there, f"workers of {pins} on host {host}", patience_s)
        assert found is not None
        return found

    def await_silence(self, patience_s: float = 30.0) -> None:
        """Wait until no worker lives."""
        until(lambda: not self.book.living(), "the end of all workers", patience_s)


@pytest.fixture
def site(bench: Bench) -> Iterator[Site]:
    """A place to run masters with leases."""
    need("ip", "nsenter")
    binaries()
    with hosts_in(bench.directory, 3) as hosts, server(hosts) as database:
        yield Site(hosts, database, bench)


def epochs(lives: dict[int, Life]) -> set[int]:
    return {life.epoch for life in lives.values()}


def test_killed_master_is_followed_after_the_ttl_and_a_stopped_one_at_once(site: Site) -> None:
    """Its workers leave with it, but nobody else can know; one that stops gives its rows back."""
    first = site.start(1)
    assert epochs(site.await_holders(1)) == {1}
    second = site.start(2)
    second.await_log("waiting for the lease of 3 PINs held by n1:")
    killed_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    first.process.kill()
    taken = site.await_holders(2)

    for life in taken.values():
        assert 3.9 < life.first - killed_at < 7
    assert epochs(taken) == {2}

    # Each stops in favour of the next. The quickest of three counts: the machine may have other things to do.
    holder, gaps = second, list[float]()
    for host in (3, 1, 2):
        waiting = site.start(host)
        waiting.await_log("waiting for the lease of 3 PINs held by n")
        assert holder.stop() == 0
        taken, holder = site.await_holders(host), waiting
        assert epochs(taken) == {len(gaps) + 3}
        silences = [life.first - site.book.of(pin)[-2].last for pin, life in taken.items()]
        assert min(silences) > 0
        gaps.append(max(silences))
    assert min(gaps) < 0.5, gaps
    assert site.book.overlaps() == []


def test_cut_host_stops_its_workers_before_another_starts_any(site: Site) -> None:
    """The cable is out for longer than the TTL; when it is back, the host waits for its turn."""
    first = site.start(1)
    site.await_holders(1)
    second = site.start(2)
    second.await_log("waiting for the lease")
    site.hosts.cut(1)
    taken = site.await_holders(2)

    for pin, life in taken.items():
        old, new = site.book.of(pin)
        assert new.first - old.last >= 0.3
        assert (old.epoch, life.epoch) == (1, 2)
    first.await_log("lease lost pins=0,1,2: no renewal in time; stopping workers")
    site.hosts.heal(1)
    first.await_log("waiting for the lease of 3 PINs held by n2:")
    assert site.book.overlaps() == []


@pytest.mark.parametrize("how", ["fast", "kill"])
def test_server_that_is_soon_back_costs_no_worker(site: Site, how: str) -> None:
    """A restart of the server is no loss of any row: nothing depends on a session."""
    # After a kill the server has to recover, which takes a busy machine some seconds.
    master = site.start(1, ttl=15.0 if how == "kill" else TTL)
    before = site.await_holders(1)
    if how == "kill":
        site.database.kill()
    else:
        site.database.stop()
    site.database.start()
    # Three renewals later, nothing has happened.
    began = site.database.query("SELECT max(renewal) FROM pyworkers_lease")
    until(
        lambda: site.database.query("SELECT max(renewal) >= %s + 3 FROM pyworkers_lease", began[0][0]) == [(True,)],
        "three renewals",
    )

    assert {pin: life.pid for pin, life in site.await_holders(1).items()} == {
        pin: life.pid for pin, life in before.items()
    }
    assert "lease lost" not in master.log


def test_server_that_is_down_for_long_stops_the_workers_until_it_is_back(site: Site) -> None:
    """Within the TTL all are stopped; they run again soon after."""
    master = site.start(1)
    site.await_holders(1)
    down_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    site.database.stop()
    site.await_silence()
    assert max(life.last for life in site.book.lives()) - down_at < TTL
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > down_at + 12, "12 s without a server")
    assert site.book.living() == []

    site.database.start()
    up_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    again = site.await_holders(1)
    assert max(life.first for life in again.values()) - up_at < 3
    assert epochs(again) == {2}
    master.await_log("lease database answers again")
    # A database that is down for minutes is no reason to fill the log.
    assert master.log.count("trying again") <= 4


def test_held_up_master_loses_its_workers_and_their_late_writes(site: Site) -> None:
    """SIGSTOP of the master alone: workers leave at a checkpoint by their own timers, and what they sent is refused."""
    first = site.start(1)
    site.await_holders(1)
    second = site.start(2)
    second.await_log("waiting for the lease")
    site.database.query("CREATE TABLE result (pin int PRIMARY KEY, epoch bigint)")
    site.database.query("INSERT INTO result VALUES (0, 1)")
    held_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.kill(first.pid, signal.SIGSTOP)
    taken = site.await_holders(2)
    write = "UPDATE result SET epoch = %s WHERE pin = 0 AND epoch <= %s RETURNING epoch"

    for pin in range(3):
        old = site.book.of(pin)[0]
        assert old.ended
        assert old.last - held_at < TTL
    assert site.database.query(write, taken[0].epoch, taken[0].epoch) == [(2,)]
    assert site.database.query(write, 1, 1) == []
    os.kill(first.pid, signal.SIGCONT)
    first.await_log("waiting for the lease of 3 PINs held by n2:")
    assert site.book.overlaps() == []


def test_workers_that_left_a_held_up_master_start_again(site: Site) -> None:
    """Nobody else wants the rows. It hears of the ends first, and none of them has failed, or counts as a restart."""
    site.bench.app(
        "app = App('leased', restart_period=600)\n"
        "@app.worker(pins=0, restart='never')\ndef never():\n    app.sleep(1000)\n"
        "@app.worker(pins=1, max_restarts=0)\ndef seldom():\n    app.sleep(1000)\n"
    )
    master = site.start(1, ttl=3.0)
    master.await_log("(?s)worker started.*worker started")
    workers = [row.pid for row in master.status() if row.pid is not None]
    assert len(workers) == 2
    os.kill(master.pid, signal.SIGSTOP)
    # They are its children, so they are zombies until it goes on.
    until(lambda: not any(map(alive, workers)), "the end of its workers")
    os.kill(master.pid, signal.SIGCONT)

    master.await_log("(?s)waiting for its lease.*waiting for its lease.*worker started.*worker started")
    assert "given up" not in master.log
    assert master.stop() in (0, 143)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_worker_that_nothing_reaches_is_ended_by_the_helper(site: Site, how: signal.Signals) -> None:
    """It is in C code that holds the interpreter, and its master is held up, or gone."""
    first = site.start(1, STUBBORN="1")
    before = site.await_holders(1)
    site.start(2).await_log("waiting for the lease")
    os.kill(first.pid, how)
    taken = site.await_holders(2)

    assert not site.book.of(1)[0].ended
    assert not alive(before[1].pid)
    assert taken[1].first - site.book.of(1)[0].last > 0.3
    assert site.book.overlaps() == []


def test_worker_that_has_executed_another_program_is_ended_by_the_helper(site: Site) -> None:
    """Its timer is gone with its own program, and its master is held up. The next worker of the PIN finds it gone."""
    site.bench.app(
        "app = App('leased')\n"
        "@app.worker(pins=0)\ndef work():\n"
        "    os.execv('/bin/sh', ['sh', '-c', 'echo $$ >> sleepers; exec sleep 1000'])\n"
    )
    sleepers = site.bench.directory / "sleepers"
    first = site.start(1, ttl=3.0)
    until(sleepers.exists, "the other program")
    (before,) = until(lambda: sleepers.read_text().split(), "its pid")
    site.start(2, ttl=3.0).await_log("waiting for the lease")
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: len(sleepers.read_text().split()) == 2, "the next one")

    assert not alive(int(before))


def test_slow_link_costs_no_row(site: Site) -> None:
    """Half a second for a round trip, as over two satellites, for more than three TTLs."""
    address = site.hosts.address(0)
    command = [sys.executable, "-m", "engines.slow", "6543", address, "5432", "0.25"]
    environment = {**clean_environment(), "PYTHONPATH": TESTS}
    with subprocess.Popen(site.hosts.command(0, *command), env=environment, stdout=subprocess.PIPE) as link:
        try:
            assert link.stdout is not None
            assert link.stdout.readline() == b"ready\n"
            master = site.start(1, url=f"postgresql://postgres@{address}:6543/postgres?sslmode=disable")
            site.await_holders(1)
            until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > site.book.lives()[0].first + 20, "20 s", 30)
            assert len(site.book.lives()) == 3
            assert "lease lost" not in master.log
            assert master.stop() == 0
        finally:
            link.kill()


def test_steps_of_clocks_move_nothing(site: Site) -> None:
    """What the server's wall clock says has no say: the rows look expired for an hour, or good for another one."""
    first = site.start(1)
    before = site.await_holders(1)
    second = site.start(2)
    second.await_log("waiting for the lease")
    for step in ("-1 hour", "1 hour"):
        (at,) = site.database.query("SELECT max(renewal) FROM pyworkers_lease")
        until(
            lambda at=at, step=step: site.database.query(
                "UPDATE pyworkers_lease SET expires = clock_timestamp() + %s::interval"
                " WHERE renewal >= %s + 2 RETURNING 1",
                step,
                at[0],
            ),
            "two renewals",
        )
    assert {pin: life.pid for pin, life in site.await_holders(1).items()} == {
        pin: life.pid for pin, life in before.items()
    }
    assert len(site.book.lives()) == 3

    first.process.kill()
    site.await_holders(2, patience_s=12)
    assert site.book.overlaps() == []


def test_other_number_of_shards_doubles_no_pin(site: Site) -> None:
    """From two shards to three while the old ones run: the new ones wait for each PIN until its old master is gone."""
    old = [site.start(1 + shard, "--shard", f"{shard}/2", PINS="6") for shard in range(2)]
    until(lambda: site.book.holders(range(6)), "workers of the old shards")
    new = [site.start(1 + shard, "--shard", f"{shard}/3", PINS="6") for shard in range(3)]
    for master in new:
        master.await_log("waiting for the lease of 2 PINs")
    for master in old:
        assert master.stop() == 143
    held = until(lambda: site.book.holders(range(6)), "workers of the new shards")

    assert held is not None
    assert epochs(held) == {2}
    assert {pin: life.host for pin, life in held.items()} == {pin: f"n{1 + pin % 3}" for pin in range(6)}
    assert site.book.overlaps() == []


def test_thousand_pins_are_renewed_by_one_statement(site: Site) -> None:
    """One for all rows, every third of the TTL, and in less than 50 ms.

    The workers only wait, and the middle one of some counts: what else the machine does is not the statement's.
    """
    site.bench.app("app = App('leased')\n@app.worker(pins=range(1000))\ndef work():\n    app.sleep(3600)")
    site.database.query("ALTER SYSTEM SET log_min_duration_statement = 0")
    site.database.query("SELECT pg_reload_conf()")
    master = site.start(1)
    master.await_log("worker started")
    count = "SELECT count(*) FROM pyworkers_lease WHERE owner IS NOT NULL"
    until(lambda: site.database.query(count) == [(1000,)], "1,000 rows")

    def renewals() -> list[Statement]:
        return site.database.statements("SET renewal = ")

    before = len(renewals())
    found = until(lambda: late if len(late := renewals()[before:]) >= 5 else None, "five renewals")

    assert found is not None
    gaps = [later.ended_s - earlier.ended_s for earlier, later in itertools.pairwise(found)]
    assert TTL / 3 - 0.3 < statistics.median(gaps) < TTL / 3 + 0.3
    assert site.database.query("SELECT count(DISTINCT renewal) FROM pyworkers_lease") == [(1,)]
    assert statistics.median(renewal.took_ms for renewal in found) < 50
    assert master.stop() == 0


def test_done_pin_is_not_started_again_in_the_run(site: Site) -> None:
    """Neither by the next master, nor by one that has waited; another run starts it."""
    first = site.start(1, "--run-id", "one", SECONDS="0.5")
    waiting = site.start(2, "--run-id", "one", SECONDS="0.5")
    assert first.wait() == waiting.wait() == 0
    again = site.start(3, "--run-id", "one")
    assert again.wait() == 0
    again.await_log("done before in this run: pins=0,1,2")
    assert len(site.book.lives()) == 3

    assert site.start(3, "--run-id", "two", SECONDS="0.5").wait() == 0
    assert len(site.book.lives()) == 6
    assert site.book.overlaps() == []


def test_job_that_is_sent_again_with_its_run_id_goes_on(site: Site) -> None:
    """The first one was started a second time in the middle of the run; the attempts of the new one begin anew."""
    element = ("--shard", "slurm/1", "--run-id", "one")
    slurm = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
    first = site.start(1, *element, **slurm)
    site.await_holders(1)
    assert first.stop() == 143
    site.start(2, *element, **{**slurm, "SLURM_ARRAY_JOB_ID": "8", "SLURM_RESTART_COUNT": "0"})

    assert epochs(site.await_holders(2)) == {2}


def test_daemon_says_whether_its_workers_came_up(site: Site) -> None:
    """It has its rows long before that. One whose PINs others run has come up, too."""
    site.bench.app(
        "app = App('leased', restart='never')\n"
        "@app.on_worker_start\ndef start():\n    if 'FAIL' in os.environ:\n        raise OSError\n"
        "@app.worker(pins=0)\ndef work():\n    app.sleep(1000)\n"
    )
    lease = ("--lease", site.database.url, "--lease-ttl", str(TTL))
    daemon = ("shop:app", "--daemon", f"--syslog={site.bench.directory}/none", *lease)
    assert site.bench.run(*daemon, env={"FAIL": "1"}).returncode == 1

    holder = site.start(1)
    holder.await_log("worker started")
    try:
        assert site.bench.run(*daemon).returncode == 0
    finally:
        holder.stop()
        assert site.bench.run("stop", "shop:app").returncode == 0


def test_standby_leaves_what_is_free_to_others(site: Site) -> None:
    """It takes nothing as long as somebody else may still come, and everything when nobody does."""
    standby = site.start(3, "--standby")
    standby.await_log("waiting for the lease of 3 PINs")
    first = site.start(1)
    site.await_holders(1)
    first.process.kill()
    taken = site.await_holders(3)

    assert epochs(taken) == {2}


def test_patience_runs_out_with_75(site: Site) -> None:
    """No row within `lease_wait`."""
    site.start(1)
    site.await_holders(1)
    late = site.start(2, "--lease-wait", "1")

    assert late.wait() == 75
    assert "no lease for pin=0 within lease_wait" in late.log


def test_free_rows_need_no_patience(site: Site) -> None:
    """The helper takes its time to start, and more than one answer is needed: no PIN waits for anybody."""
    site.bench.app("app = App('leased')\n@app.worker(pins=range(300))\ndef work():\n    pass")
    master = site.start(1, "--lease-wait", "0", "--run-id", "one")

    assert master.wait() == 0, master.log


def test_database_that_is_not_there_is_waited_for(site: Site) -> None:
    """One line says what is wrong, without the password."""
    master = site.start(1, url="postgresql://postgres:secret@10.77.0.10:1/postgres")
    master.await_log("lease database: .*; trying again")
    site.database.query("SELECT 1")

    assert "secret" not in master.log
    assert master.stop() == 0


def test_table_is_for_people_too(site: Site) -> None:
    """It says who holds what, and until when."""
    site.start(1)
    site.await_holders(1)
    with psycopg.connect(site.database.url) as connection:
        rows = connection.execute(
            "SELECT app, pin, worker, owner LIKE 'n1:%', epoch, expires > clock_timestamp() FROM pyworkers_lease"
            " ORDER BY pin"
        ).fetchall()

    assert rows == [("leased", pin, "work", True, 1, True) for pin in range(3)]
