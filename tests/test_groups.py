"""PINs that live and die together: strategy="all" in a real instance."""

from __future__ import annotations

import os
import signal
import time

import pytest

from helpers import Bench, Instance, alive, until

BOOK = """
def note(word, pin):
    # One write for a line, so that the file has the order of the events.
    with (here / "book").open("a") as out:
        out.write(f"{word} {pin} {os.getpid()}\\n")

def live(pin):
    note("begin", pin)
    try:
        while not (here / f"go.{pin}.{1 if app.previous is None else app.previous.attempt + 1}").exists():
            app.sleep(0.02)
    finally:
        # What is still at work here must be over before anybody of the group begins anew.
        time.sleep(0.2)
        note("end", pin)

@app.on_failure
def tell(record):
    with (here / "told").open("a") as out:
        out.write(f"{record.pin} {record.cause} {record.attempt}\\n")
"""
"""Workers that keep a book of their lives, and end normally when `go.PIN.ATTEMPT` is there."""


def start(bench: Bench, options: str = "", more: str = "") -> Instance:
    """Start a group of four PINs of two handlers, and a PIN 9 outside of it; return when all have begun."""
    bench.app(
        f"""
app = App(group="shop", strategy="all", {options})
{BOOK}
@app.worker(pins=range(3))
def sell(pin):
    live(pin)

@app.worker(pins=3)
def buy(pin):
    live(pin)

@app.worker(pins=9, group=None, strategy="one", max_restarts=None, restart="on-failure")
def outside(pin):
    live(pin)
{more}"""
    )
    master = bench.start()
    bench.await_text("book", "begin", 5)
    return master


def go(bench: Bench, pin: int, attempt: int = 1) -> None:
    """Let a worker end normally."""
    (bench.directory / f"go.{pin}.{attempt}").touch()


def book(bench: Bench) -> list[tuple[str, int]]:
    """Return what the workers of the group have noted, in order."""
    lines = [line.split() for line in bench.read("book").splitlines()]
    return [(word, int(pin)) for word, pin, _ in lines if pin != "9"]


def second_lives(bench: Bench, pins: set[int]) -> None:
    """Wait until all of them have begun once more, and assert that no first life went on beside them."""
    until(lambda: {pin for word, pin in book(bench)[4:] if word == "begin"} == pins, "the second lives")
    noted = book(bench)
    first = next(at for at, (word, _) in enumerate(noted) if at >= 4 and word == "begin")

    ends = [pin for word, pin in noted[4:first] if word == "end"]
    assert set(ends) >= pins - {0}
    assert len(noted[first:]) == len(pins)


def last_line(master: Instance) -> str:
    """Return the level and the text of the log's last line."""
    return master.log.rstrip().splitlines()[-1].partition("] ")[2]


def test_failure_of_one_restarts_all_and_no_old_life_goes_on_beside_a_new_one(bench: Bench) -> None:
    """One is killed: the others leave at a checkpoint, all of the group begin again, and nobody else notices."""
    master = start(bench)
    culprit = master.worker(0)

    os.kill(culprit, signal.SIGKILL)

    second_lives(bench, {0, 1, 2, 3})
    master.await_log("worker started", 9)
    assert master.matches(
        rf"WARNING worker ended sell pin=0 pid={culprit} signal=SIGKILL .*; respawning with its group"
    )
    assert master.matches(r"WARNING group restarting shop after pin=0 workers=3; all start again")
    assert len(master.matches(r"INFO worker ended \S+ pin=[123] pid=\d+ exit=143 .*; respawning with its group")) == 3
    assert len(master.started(9)) == 1
    # Only one has failed.
    until(lambda: bench.read("told"), "the telling")
    assert master.stop() == 0
    assert bench.read("told") == "0 signal=SIGKILL 1\n"


def test_unit_of_a_member_is_not_torn(bench: Bench) -> None:
    """The others of the group are asked as in a stop: at their next checkpoint, not before."""
    master = bench.start(
        f"""
app = App(group="shop", strategy="all")
{BOOK}
@app.worker(pins=0)
def bad(pin):
    while app.previous is None:
        if (here / "go").exists():
            os._exit(1)
        app.sleep(0.01)
    app.sleep(3600)

@app.worker(pins=1)
def good(pin):
    app.checkpoint()
    note("begin", pin)
    (here / "go").touch()
    deadline = time.monotonic() + 0.5
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(left)
    note("whole", pin)
    app.sleep(3600)
"""
    )
    bench.await_text("book", "begin", 2)

    assert [line.split()[0] for line in bench.read("book").splitlines()] == ["begin", "whole", "begin"]
    master.worker(0, attempt=2)
    assert master.stop() == 0


def test_member_that_ends_normally_when_asked_has_finished(bench: Bench) -> None:
    """G2: a normal end is never respawned, also not with the group; nor is one from before."""
    master = bench.start(
        f"""
app = App(group="shop", strategy="all")
{BOOK}
@app.worker(pins=0)
def bad(pin):
    live(pin)

@app.worker(pins=1)
def done_before(pin):
    note("begin", pin)

@app.worker(pins=2)
def done_when_asked(pin):
    try:
        live(pin)
    except Stop:
        return 0
"""
    )
    bench.await_text("book", "begin", 3)
    master.await_log("worker ended done_before .*; finished")
    os.kill(master.worker(0), signal.SIGKILL)
    master.worker(0, attempt=2)
    go(bench, 0, attempt=2)

    assert master.wait() == 0
    assert master.matches("worker ended done_when_asked pin=2 .* exit=0 .*; finished")
    assert [len(master.started(pin)) for pin in range(3)] == [2, 1, 1]
    assert last_line(master) == "INFO all workers finished; master exits"


def test_normal_end_of_a_member_restarts_nobody(bench: Bench) -> None:
    """Only failures concern the others."""
    master = start(bench)
    go(bench, 1)
    master.await_log("worker ended sell pin=1 .*; finished")
    for pin in (0, 2, 3, 9):
        go(bench, pin)

    assert master.wait() == 0
    assert not master.matches("group restarting")
    assert len(master.matches("worker started")) == 5


def test_failure_outside_of_the_group_does_not_concern_it(bench: Bench) -> None:
    """A PIN without the group is respawned by itself, at once."""
    master = start(bench)

    os.kill(master.worker(9), signal.SIGKILL)

    master.worker(9, attempt=2)
    assert master.stop() == 0
    assert not master.matches("group restarting")
    assert [len(master.started(pin)) for pin in range(4)] == [1, 1, 1, 1]


def test_group_that_fails_for_good_is_over_as_a_whole(bench: Bench) -> None:
    """The culprit is given up, the others fail with it, whoever is outside goes on, and the code is 1."""
    master = start(bench, "max_restarts=1")
    attempts = 2
    for attempt in range(1, attempts + 1):
        bench.await_text("book", "begin 0", attempt)
        os.kill(master.worker(0, attempt), signal.SIGKILL)
        if attempt < attempts:
            second_lives(bench, {0, 1, 2, 3})
    master.await_log(r"ERROR worker ended sell pin=0 pid=\d+ signal=SIGKILL .*; failed, for max_restarts is reached")
    master.await_log("ERROR group failed shop after pin=0 workers=3; stopping them")
    ended = master.await_log(r"(\S+) worker ended \S+ pin=[123] pid=\d+ exit=143 after=\S+; failed with its group", 3)
    assert master.process.poll() is None
    go(bench, 9)

    assert master.wait() == 1
    assert len(ended) == 3
    assert last_line(master) == "ERROR all workers ended failed=0,1,2,3; master exits code=1"
    assert [len(master.started(pin)) for pin in range(4)] == [attempts] * 4
    until(lambda: bench.read("told").count("\n") == attempts, "the tellings")
    assert bench.read("told").splitlines() == [f"0 signal=SIGKILL {n}" for n in range(1, attempts + 1)]


def test_hang_of_a_member_restarts_the_group(bench: Bench) -> None:
    """A hang is a failure like any other: explained, then all begin again."""
    master = bench.start(
        f"""
app = App(group="shop", strategy="all", hang_timeout=0.5)
{BOOK}
@app.worker(pins=0)
def hang(pin):
    note("begin", pin)
    app.checkpoint()
    if app.previous is None:
        time.sleep(3600)
    (here / "previous").write_text(app.previous.cause)
    app.sleep(3600)

@app.worker(pins=range(1, 3))
def good(pin):
    live(pin)
"""
    )
    master.worker(1, attempt=2)
    bench.await_text("book", "begin", 6)
    bench.await_text("previous", "hang")

    assert [line.split()[0] for line in bench.read("book").splitlines()] == [
        *3 * ["begin"],
        "end",
        "end",
        *3 * ["begin"],
    ]
    assert master.matches("worker hung hang pin=0")
    assert master.matches("stack hang pin=0 .* in hang")
    assert len(master.matches("group restarting shop after pin=0")) == 1
    assert master.stop() == 0


def test_two_failures_at_the_same_time_are_one_restart(bench: Bench) -> None:
    """Who fails while the group is on its way out belongs to the same restart."""
    master = start(bench)

    culprits = [master.worker(pin) for pin in (0, 3)]
    # Both are dead before the master can look at either.
    master.signal(signal.SIGSTOP)
    for pid in culprits:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in culprits), "both deaths")
    master.signal(signal.SIGCONT)

    until(lambda: len([word for word, _ in book(bench) if word == "begin"]) == 8, "the second lives")
    # Whoever has begun may have done so before its master says so.
    assert all(master.worker(pin, attempt=2) for pin in range(4))
    assert len(master.matches("group restarting")) == 1
    assert [len(master.started(pin)) for pin in range(4)] == [2, 2, 2, 2]
    assert len(master.matches(r"worker ended \S+ pin=[03] pid=\d+ signal=SIGKILL .*; respawning with its group")) == 2
    assert master.stop() == 0


def test_group_in_a_crash_loop_backs_off_as_a_whole(bench: Bench) -> None:
    """The delay of the one who fails is everybody's: no member comes back before it."""
    master = bench.start(
        f"""
import pyworkers._core.policy
pyworkers._core.policy.SHORT_LIFE_S = 60.0  # on a busy machine, a short life takes its time

app = App(group="shop", strategy="all", backoff=(60, 60))
{BOOK}
@app.worker(pins=0)
def bad(pin):
    os._exit(1)

@app.worker(pins=1)
def good(pin):
    live(pin)

@app.worker(pins=9, group=None, strategy="one")
def outside(pin):
    live(pin)
"""
    )
    master.await_log("worker ended bad .*; respawning with its group", 2)
    master.await_log("worker ended good .*; respawning with its group", 2)
    # Whoever is due now would be started before this one.
    os.kill(master.worker(9), signal.SIGKILL)
    master.worker(9, attempt=2)

    assert len(master.started(0)) == len(master.started(1)) == 2
    assert master.stop() == 0


WRONG = {
    "no group": (
        "@app.worker(pins=0, strategy='all')\ndef one(): ...\n",
        "worker 'one' has strategy 'all' but no group: name one by group=...",
    ),
    "two strategies": (
        "@app.worker(pins=0, group='shop', strategy='all')\ndef one(): ...\n@app.worker(pins=1, group='shop')\ndef two(): ...",
        "workers 'one' and 'two' of group 'shop' have different strategies, 'all' and 'one': a group has one",
    ),
    "no such strategy": (
        "@app.worker(pins=0, group='shop', strategy='some')\ndef one(): ...\n",
        "strategy of @app.worker of 'one' must be one of one, all, got 'some' (str)",
    ),
    "bad name": (
        "@app.worker(pins=0, group='my shop')\ndef one(): ...\n",
        "group of @app.worker of 'one' must be 1 to 64 characters without spaces and brackets, got 'my shop' (str)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_declaration_of_a_group_is_one_line(bench: Bench, kind: str) -> None:
    """Code 2, one line that names the handlers, and no fork."""
    source, error = WRONG[kind]
    bench.app(f"app = App()\n\n{source}")

    finished = bench.run("shop:app")

    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("pyworkers: error: ")
    assert error in line


@pytest.mark.parametrize("source", ["flag", "variable"])
def test_strategy_can_be_set_from_outside(bench: Bench, source: str) -> None:
    """The flags and the variables of group and strategy are those of the code."""
    bench.app(
        f"app = App()\n{BOOK}\n@app.worker(pins=range(2))\ndef work(pin):\n    live(pin)\n",
    )
    if source == "flag":
        master = bench.start(None, "--worker-group=shop", "--strategy=all")
    else:
        master = bench.start(env={"PYWORKERS_WORKER_GROUP": "shop", "PYWORKERS_STRATEGY": "all"})
    bench.await_text("book", "begin", 2)

    os.kill(master.worker(1), signal.SIGKILL)

    master.worker(0, attempt=2)
    assert master.matches("group restarting shop after pin=1")
    assert master.stop() == 0


def test_stop_during_a_restart_is_bounded_and_starts_nobody(bench: Bench) -> None:
    """G8: a member that will not leave with its group holds a stop up no longer than its stop_timeout."""
    master = bench.start(
        f"""
app = App(group="shop", strategy="all", stop_timeout=1.5)
{BOOK}
@app.worker(pins=0)
def bad(pin):
    live(pin)

@app.worker(pins=1)
def stubborn(pin):
    note("begin", pin)
    while True:
        try:
            while True:
                time.sleep(3600)
        except BaseException:
            pass
"""
    )
    bench.await_text("book", "begin", 2)
    os.kill(master.worker(0), signal.SIGKILL)
    master.await_log("group restarting shop after pin=0 workers=1")

    begun = time.monotonic()
    assert master.stop() == 1
    assert time.monotonic() - begun < 1.5 + 1
    assert len(master.matches("worker started")) == 2
    assert master.matches("worker ended stubborn pin=1 .* signal=SIGKILL .*; stopped")


def test_stubborn_member_is_killed_and_the_group_begins_anew(bench: Bench) -> None:
    """A group's restart climbs the same ladder as a stop, and then goes on."""
    master = bench.start(
        f"""
app = App(group="shop", strategy="all", stop_timeout=4)
{BOOK}
@app.worker(pins=0)
def bad(pin):
    live(pin)

@app.worker(pins=1)
def stubborn(pin):
    note("begin", pin)
    while app.previous is None:
        try:
            time.sleep(3600)
        except BaseException:
            pass
    app.sleep(3600)
"""
    )
    bench.await_text("book", "begin", 2)
    os.kill(master.worker(0), signal.SIGKILL)
    bench.await_text("book", "begin", 4)

    master.await_log("worker started", 4)
    assert master.matches("worker has not left stubborn pin=1 .*; killing it by SIGKILL")
    killed = master.log.index("signal=SIGKILL after", master.log.index("killing it by SIGKILL"))
    assert killed < [found.start() for found in master.matches(r"worker started \S+ pin=\d")][2]
    # KILL was needed, but not for the stop.
    assert master.stop() == 0
