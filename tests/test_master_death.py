"""G1 and G4: what happens to workers whose master dies, and how its successor takes over."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from helpers import Bench, Instance, alive, state, until

TIMEOUT_S = 1.5

KINDS = {
    "sleeping": "time.sleep(3600)",
    "cooperative": "while True:\n        app.checkpoint()\n        time.sleep(0.01)",
    "waiting": "app.sleep(3600)",
    "stubborn": """while True:
        try:
            while True:
                time.sleep(3600)
        except BaseException:
            pass""",
    "stubborn and busy": """while True:
        try:
            while True:
                app.checkpoint()
        except BaseException:
            pass""",
}


def start(bench: Bench, body: str, *arguments: str) -> tuple[Instance, list[int]]:
    """Start three workers with this body, and return the master and their pids."""
    master = bench.start(
        f"""
app = App(lock_file=here / "lock", stop_timeout={TIMEOUT_S})

@app.worker(pins=range(3))
def work(pin: int) -> None:
    (here / f"up.{{os.getpid()}}").write_text(str(time.monotonic()))
    {body}
""",
        *arguments,
    )
    until(lambda: len(list(bench.directory.glob("up.*"))) >= 3, "three workers")
    return master, [master.worker(pin) for pin in range(3)]


def await_sleep(workers: list[int]) -> None:
    """Wait until workers are in time.sleep.

    The one TERM of the kernel may fall between the interpreter's last look for signals and the sleep, and not end that.
    """
    until(lambda: all(state(pid) == "S" for pid in workers), "sleep")


@pytest.mark.parametrize("kind", KINDS)
def test_no_worker_survives_a_killed_master(bench: Bench, kind: str) -> None:
    """G4: SIGKILL to the master, and within stop_timeout its workers are gone, stubborn or not."""
    master, workers = start(bench, KINDS[kind])
    if "time.sleep(3600)" in KINDS[kind]:
        await_sleep(workers)

    begun = time.monotonic()
    master.process.kill()
    until(lambda: not any(alive(pid) for pid in workers), "the end of the orphans")

    # A promise in seconds is measured in seconds; half of one for a loaded machine.
    assert time.monotonic() - begun < TIMEOUT_S + 0.5


def test_orphans_finish_their_unit(bench: Bench) -> None:
    """G4: the parent-death signal is a TERM like any other, and waits for a checkpoint."""
    master, workers = start(
        bench,
        """app.checkpoint()
    while True:
        with (here / f"begun.{pin}").open("a") as out:
            out.write("x")
        deadline = time.monotonic() + 0.1
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(left)
        with (here / f"ended.{pin}").open("a") as out:
            out.write("x")
        app.checkpoint()""",
    )
    for pin in range(3):
        bench.await_text(f"ended.{pin}", "x")

    master.process.kill()
    until(lambda: not any(alive(pid) for pid in workers), "the end of the orphans")

    for pin in range(3):
        assert bench.read(f"begun.{pin}") == bench.read(f"ended.{pin}")


def test_credentials_changed_in_on_worker_start_do_not_disarm_the_death_signal(bench: Bench) -> None:
    """prctl(2): setuid clears the parent-death signal; it is armed again after the hook."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    master = bench.start(
        """
        app = App()

        @app.on_worker_start
        def drop(pin: int) -> None:
            os.setgid(65534)
            os.setuid(65534)

        @app.worker(pins=0)
        def work() -> None:
            app.log.info("at work as user %s", os.geteuid())
            time.sleep(3600)
        """
    )
    master.await_log("at work as user 65534")
    worker = master.worker(0)

    master.process.kill()

    until(lambda: not alive(worker), "the end of the orphan")


def first_up(bench: Bench, before: set[Path]) -> float:
    """Return when the first worker that is not in `before` came up, on the monotonic clock."""

    def new() -> list[Path]:
        return [path for path in set(bench.directory.glob("up.*")) - before if path.read_text()]

    return min(float(path.read_text()) for path in until(new, "a worker of the successor"))


def test_stopped_orphans_leave_by_themselves(bench: Bench) -> None:
    """G4: the kernel continues a stopped process group that has lost its master, and TERM is waiting there."""
    master, workers = start(bench, KINDS["sleeping"])
    await_sleep(workers)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(state(pid) == "T" for pid in workers), "all stopped")

    master.process.kill()

    until(lambda: not any(alive(pid) for pid in workers), "the end of the orphans")


def ticks(pid: int) -> int:
    """Return how long a process has computed, in ticks of 10 ms: proc(5), utime."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.parametrize("how", ["stopped", "deep in C"])
def test_successor_ends_what_the_watchdog_cannot(bench: Bench, how: str) -> None:
    """G1: a SIGSTOPped orphan, or one in a C call that holds the GIL, is ended before the first new worker starts."""
    body = "time.sleep(3600)"
    if how == "deep in C":
        # A sum that takes for ever, in C, with the GIL held: no trap runs, so no watchdog is armed.
        body = """if not (here / f"deep.{pin}").exists():
        (here / f"deep.{pin}").touch()
        sum(range(10**13))
    time.sleep(3600)"""
    master, workers = start(bench, body, "--no-kill-group")
    if how == "deep in C":
        until(lambda: len(list(bench.directory.glob("deep.*"))) == 3, "the last lines of Python")
        before_ticks = {pid: ticks(pid) for pid in workers}
        until(lambda: all(ticks(pid) > before_ticks[pid] + 1 for pid in workers), "a while in C")
    if how == "stopped":
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: all(state(pid) == "T" for pid in workers), "all stopped")
    before = set(bench.directory.glob("up.*"))
    master.process.kill()
    master.process.wait()
    assert all(alive(pid) for pid in workers)

    successor = bench.start(None)
    ended_at: dict[int, float] = {}

    def gone() -> bool:
        for pid in workers:
            if pid not in ended_at and not alive(pid):
                ended_at[pid] = time.monotonic()
        return len(ended_at) == len(workers)

    until(gone, "the end of the orphans")
    came_up_at = first_up(bench, before)

    # Seen by a poll, an end may be noticed a few milliseconds late; a start before the KILL would be 1.5 s early.
    assert came_up_at > max(ended_at.values()) - 0.05
    assert successor.matches(r"is held by what is left of shop master=\d+ pids=[\d,]+; ending them first")
    assert successor.stop() == 0


def test_lock_is_held_until_the_last_worker_is_gone(bench: Bench) -> None:
    """G1: the workers hold the lock with their master, so nobody starts beside them."""
    master, workers = start(bench, "while True:\n        app.checkpoint()\n        time.sleep(0.1)")
    master.process.kill()
    master.process.wait()
    before = set(bench.directory.glob("up.*"))

    successor = bench.start(None)
    came_up_at = first_up(bench, before)

    assert not any(alive(pid) for pid in workers)
    assert came_up_at
    assert successor.stop() == 0


def start_with_grandchild(bench: Bench, *arguments: str) -> tuple[Instance, list[int], int]:
    """Start three workers, the first of which forks a process that no signal but KILL ends."""
    master, workers = start(
        bench,
        """if pin == 0 and not (here / "grandchild").exists():
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGQUIT, signal.SIG_IGN)
            (here / "grandchild").write_text(str(os.getpid()))
            time.sleep(3600)
            os._exit(0)
    app.sleep(3600)""",
        *arguments,
    )
    return master, workers, int(until(lambda: bench.read("grandchild"), "the grandchild"))


def test_grandchildren_do_not_survive_an_orphan(bench: Bench) -> None:
    """G4: a worker without a master ends its process group as its last act, since nobody else will."""
    master, _, grandchild = start_with_grandchild(bench)

    master.process.kill()

    until(lambda: not alive(grandchild), "the end of the grandchild")


def test_grandchild_without_exec_holds_the_lock_and_is_ended(bench: Bench) -> None:
    """What a worker forks inherits the lock, on purpose; the successor ends it, too."""
    master, workers, grandchild = start_with_grandchild(bench, "--no-kill-group")
    master.process.kill()
    master.process.wait()
    until(lambda: not any(alive(pid) for pid in workers), "the end of the orphans")
    assert alive(grandchild)

    successor = bench.start(None)
    until(lambda: not alive(grandchild), "the end of the grandchild")

    successor.worker(0)
    assert successor.stop() == 0


@pytest.mark.parametrize(
    ("shard", "signum", "code"),
    [
        ((), signal.SIGTERM, 0),
        ((), signal.SIGINT, 0),
        (("--shard", "0/1"), signal.SIGTERM, 143),
        (("--shard", "0/1"), signal.SIGINT, 130),
    ],
)
def test_stop_while_taking_over_starts_nothing(
    bench: Bench, shard: tuple[str, ...], signum: signal.Signals, code: int
) -> None:
    """TERM while waiting for orphans: leave, with 0, or as a shard that is not done."""
    master, workers = start(bench, "time.sleep(3600)", "--no-kill-group", *shard)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    master.process.kill()
    master.process.wait()

    successor = bench.start(None, *shard)
    successor.await_log("ending them first")
    successor.process.send_signal(signum)

    assert successor.wait() == code
    assert "worker started" not in successor.log
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
