"""Workers that have grown too old or too large, one at a time; and what the kernel takes when memory runs out."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_groups import little_memory
from helpers import Bench, as_from_a_shell, state, until

TELL = """
@app.on_failure
def tell(record):
    with (here / "told").open("a") as out:
        out.write(f"{record.pin} {record.cause} {record.attempt}\\n")
"""

# Age


def test_worker_of_an_age_is_recycled_at_a_checkpoint(bench: Bench) -> None:
    """Asked between two units, replaced at once, again and again; and none of it counts as a failure."""
    master = bench.start(
        f"""
app = App(max_runtime=1, backoff=(60, 60))
{TELL}
@app.worker(pins=0)
def work(pin):
    while True:
        app.checkpoint()
        with (here / "begun").open("a") as out:
            out.write("x")
        time.sleep(0.05)
        with (here / "ended").open("a") as out:
            out.write("x")
"""
    )
    third = master.worker(0, attempt=3)
    master.await_log("INFO worker recycled work", 3)
    fourth = master.worker(0, attempt=4)
    os.kill(fourth, signal.SIGKILL)
    # Failures are told in their order: had a recycling been told of, it would stand before this one.
    bench.await_text("told", "\n")

    reached = master.matches(
        r"INFO worker recycled work pin=0 pid=(\d+) max_runtime reached=(\d\.\d)s; asking it to leave"
    )
    assert [int(found[1]) for found in reached] == master.started(0)[:3]
    # The last tenth is left to the jitter.
    assert all(float(found[2]) >= 0.9 for found in reached)
    assert master.matches(rf"INFO worker ended work pin=0 pid={third} exit=143 after=\S+; respawning now")
    assert len(master.matches("exit=143 after=.*; respawning now")) == 3
    assert bench.read("told") == "0 signal=SIGKILL 4\n"
    master.worker(0, attempt=5)
    assert master.stop() == 0
    # The one that was killed may have died inside a unit.
    assert 0 <= len(bench.read("begun")) - len(bench.read("ended")) <= 1


def test_one_pin_of_a_handler_is_recycled_at_a_time(bench: Bench) -> None:
    """Though all of them are of an age: nobody is asked before the successor of the one before it is up."""
    master = bench.start(
        """
        app = App(max_runtime=1)

        @app.on_worker_start
        def connect(pin):
            if pin < 4:
                time.sleep(0.2)
            # The last words before it is up.
            app.log.info("nearly up")

        @app.worker(pins=range(4))
        def crawl(pin):
            app.sleep(3600)

        @app.worker(pins=range(4, 6))
        def report(pin):
            app.sleep(3600)
        """
    )
    for pin in range(4):
        master.await_log(rf"worker recycled crawl pin={pin}", 2)
    assert master.stop() == 0

    missing: dict[str, str] = {}
    for found in master.matches(r"(worker recycled )?(crawl|report) pin=(\d)(?:: nearly up| pid=\d+ max_runtime)"):
        recycled, handler, pin = found.groups()
        if recycled:
            assert handler not in missing
            missing[handler] = pin
        elif missing.get(handler) == pin:
            del missing[handler]
    assert len(master.matches("worker recycled report pin=4")) >= 2


def test_recycled_worker_that_returns_normally_has_finished(bench: Bench) -> None:
    """Asked to leave, it says that its work is done: then it is."""
    master = bench.start(
        """
        app = App(max_runtime=1)

        @app.worker(pins=0)
        def work():
            try:
                app.sleep(3600)
            except Stop:
                return 0
        """
    )

    assert master.wait() == 0
    assert len(master.matches("worker recycled")) == len(master.started(0)) == 1
    assert master.matches("exit=0 after=.*; finished")


def test_worker_that_will_not_be_recycled_is_killed_and_replaced(bench: Bench) -> None:
    """The ladder is that of a stop; that it ends in a KILL concerns no later stop."""
    master = bench.start(
        f"""
app = App(max_runtime=1, stop_timeout=4)
{TELL}
@app.worker(pins=0)
def stubborn():
    while app.previous is None:
        try:
            time.sleep(3600)
        except BaseException:
            pass
    (here / "previous").write_text(app.previous.cause)
    app.sleep(3600)
"""
    )
    bench.await_text("previous", "signal=SIGKILL")
    master.worker(0, attempt=2)

    assert re.search(
        r"INFO worker recycled stubborn .*?interrupting it by SIGQUIT.*?killing it by SIGKILL"
        r".*?INFO worker ended stubborn pin=0 pid=\d+ signal=SIGKILL after=\S+; respawning now",
        master.log,
        re.DOTALL,
    )
    assert master.stop() == 0
    assert bench.read("told") == ""


# Size

LARGE = """
from pyworkers._core import policy

# A worker's memory is taken every 30 seconds, which is too long for a test.
policy.MEASURE_INTERVAL_S = 0.1

app = App({options})
MB = 1 << 20
inherited = bytearray(b"x") * (60 * MB)

@app.on_failure
def tell(record):
    (here / "told").touch()

@app.worker(pins=0)
def heir():
    while not (here / "go").exists():
        app.sleep(0.02)
    inherited[::4096] = b"y" * (60 * MB // 4096)
    app.sleep(3600)

@app.worker(pins=1)
def eater():
    own = bytearray(b"x") * (60 * MB)
    app.sleep(3600)
    del own
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system has no /proc/PID/smaps_rollup")
def test_worker_of_a_size_is_recycled_and_its_inheritance_does_not_count(bench: Bench) -> None:
    """60 MB of its own are too many, 60 MB of the master's are not, until the worker has written to them."""
    master = bench.start(LARGE.format(options='max_rss="50M"'))
    # As often as the eater has been measured, so has the heir.
    sizes = master.await_log(
        r"INFO worker recycled eater pin=1 pid=\d+ max_rss reached=(\d+\.\d)M; asking it to leave", 4
    )
    # One that is measured while it eats has not all of it yet.
    assert all(50 < float(size[1]) < 90 for size in sizes)
    assert not master.matches("worker recycled heir")
    (bench.directory / "go").touch()

    (size,) = master.await_log(rf"worker recycled heir pin=0 pid={master.worker(0)} max_rss reached=(\d+\.\d)M")[:1]
    assert 50 < float(size[1]) < 90
    assert master.matches("INFO worker ended eater .* exit=143 .*; respawning now")
    assert master.stop() == 0
    assert not (bench.directory / "told").exists()


@pytest.mark.parametrize("source", ["flag", "variable"])
@pytest.mark.parametrize(("name", "text"), [("max_runtime", "1"), ("max_rss", "50M")])
def test_limits_can_be_set_from_outside(bench: Bench, name: str, text: str, source: str) -> None:
    """A flag and a variable say the same as the code."""
    bench.app(LARGE.format(options=""))
    if source == "flag":
        master = bench.start(None, f"--{name.replace('_', '-')}={text}")
    else:
        master = bench.start(env={f"PYWORKERS_{name.upper()}": text})

    master.await_log(f"worker recycled eater pin=1 .* {name} reached=")

    assert master.stop() == 0


# When memory runs out


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="this system has no /proc/PID/oom_score_adj")
@pytest.mark.parametrize(("given", "expected"), [(0, 100), (950, 1000)])
def test_kernel_shall_take_a_worker_rather_than_its_master(bench: Bench, given: int, expected: int) -> None:
    """A worker's oom_score_adj is above the master's, whatever that one is."""
    if int(Path("/proc/self/oom_score_adj").read_text()) > given:
        pytest.skip("lowering a score needs a privilege")

    def prepare() -> None:
        as_from_a_shell()
        Path("/proc/self/oom_score_adj").write_text(str(given))

    master = bench.start(
        """
        app = App()

        @app.worker(pins=range(2))
        def work(pin):
            app.sleep(3600)
        """,
        preexec_fn=prepare,
    )
    # A worker may be at work before its master has got to that.
    for pin in range(2):
        path = Path(f"/proc/{master.worker(pin)}/oom_score_adj")
        until(lambda path=path: int(path.read_text()) == expected, f"the score of PIN {pin}")
    assert int(Path(f"/proc/{master.pid}/oom_score_adj").read_text()) == given
    assert master.stop() == 0


GROUP_BYTES = 128 << 20


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory; processes enter it by a write to its cgroup.procs."""
    with little_memory(GROUP_BYTES) as made:
        yield made


def test_oom_kill_of_a_worker_is_named_and_survived(bench: Bench, group: Path) -> None:
    """What the OOM killer took is called so, in the log, to on_failure and to the successor; a kill -9 is not."""

    def enter() -> None:
        as_from_a_shell()
        (group / "cgroup.procs").write_text("0")

    master = bench.start(
        f"""
app = App()
{TELL}
@app.worker(pins=0)
def eat(pin):
    if app.previous is not None:
        with (here / "previous").open("a") as out:
            out.write(app.previous.cause + "\\n")
        app.sleep(3600)
    app.unit("dinner")
    eaten = [bytearray(b"x") * (1 << 20) for _ in range(1000)]
    (here / f"sated.{{len(eaten)}}").touch()

@app.worker(pins=1)
def bystander(pin):
    app.sleep(3600)
""",
        preexec_fn=enter,
    )
    victim, successor = master.worker(0), master.worker(0, attempt=2)
    bench.await_text("previous", "oom-kill\n")
    bench.await_text("told", "0 oom-kill 1\n")
    os.kill(successor, signal.SIGKILL)
    bench.await_text("told", "0 signal=SIGKILL 2\n")
    bench.await_text("previous", "signal=SIGKILL\n")

    assert not list(bench.directory.glob("sated.*"))
    assert master.matches(
        rf"WARNING worker ended eat pin=0 pid={victim} signal=SIGKILL cause=oom-kill after=\S+ unit='dinner'; respawning now"
    )
    assert master.matches(rf"worker ended eat pin=0 pid={successor} signal=SIGKILL after=")
    assert len(master.started(1)) == 1
    assert state(master.pid) != ""
    assert master.stop() == 0
