"""Warm spares: a process that has run its warm-up waits for a PIN, takes it without delay, and disturbs nobody else."""

from __future__ import annotations

import contextlib
import os
import re
import signal

import pytest

from helpers import PATIENCE_S, Bench, Instance, alive, children, open_files, state, until

NOTES = """
def note(name, *words):
    with (here / name).open("a") as out:
        out.write(" ".join(map(str, words)) + "\\n")
"""

WARM = f"""{NOTES}
@app.on_worker_warm
def warm():
    note("warm", os.getpid())
"""
"""Hooks of an app whose processes say that they are warm, which `parked` waits for."""

IDLE = """
@app.worker(pins=range(2))
def work(pin):
    note("begun", pin, os.getpid())
    app.sleep(3600)
"""


def app(options: str = "spares=1", body: str = IDLE) -> str:
    """Return the source of an app with `WARM`."""
    return f"\napp = App(backoff=(0.001, 0.001), {options})\n{WARM}{body}"


def spare(master: Instance, number: int = 0, attempt: int = 1) -> int:
    """Wait for the nth process of a spare and return its pid."""
    return int(master.await_log(rf"worker started \S+ spare={number} pid=(\d+)", attempt)[attempt - 1][1])


def parked(bench: Bench, master: Instance, number: int = 0, attempt: int = 1) -> int:
    """Wait until the nth process of a spare is warm and waits for a PIN, and return its pid."""
    pid = spare(master, number, attempt)
    # Between the end of its warm-up and its poll it does not sleep, and it has told the master before.
    until(lambda: str(pid) in bench.read("warm").split() and state(pid) == "S", f"spare {pid} to be parked")
    return pid


def begun(bench: Bench) -> dict[int, list[int]]:
    """Return the pids whose handler has begun, by their PINs, in order."""
    pids: dict[int, list[int]] = {}
    for pin, pid in re.findall(r"(\d+) (\d+)\n", bench.read("begun")):
        pids.setdefault(int(pin), []).append(int(pid))
    return pids


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    """Send a signal; it may have gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def descriptors(pid: int) -> list[str]:
    """Return what the descriptors of a process are, by their kinds."""
    return sorted(link.partition(":")[0] for link in open_files(pid).values())


# Who takes a PIN


def test_due_pin_goes_to_the_parked_spare_and_another_is_warmed(bench: Bench) -> None:
    """Again and again: the process is the one that waited, and its place is taken."""
    master = bench.start(app())
    until(lambda: len(begun(bench)) == 2, "both handlers")
    for attempt, pin in ((1, 0), (2, 1), (3, 0)):
        waiting = parked(bench, master, attempt=attempt)
        victim = begun(bench)[pin][-1]
        kill(victim)
        until(lambda: waiting in begun(bench)[pin], "the handler in the spare's process")  # noqa: B023

        master.await_log(rf"WARNING worker ended work pin={pin} pid={victim} signal=SIGKILL .*; respawning")
        master.await_log(rf"INFO worker started work pin={pin} pid={waiting}\n")
    fourth = parked(bench, master, attempt=4)

    assert [len(begun(bench)[pin]) for pin in (0, 1)] == [3, 2]
    assert master.stop() == 0
    # A spare is no worker of the instance yet.
    assert master.matches("stopping reason=SIGTERM workers=2")
    assert master.matches(rf"INFO worker ended work spare=0 pid={fourth} exit=143 after=\S+; stopped")
    assert not master.matches("ERROR")


def test_spares_are_forked_after_all_pins(bench: Bench) -> None:
    """No PIN waits for a spare."""
    master = bench.start(app("spares=2"))
    spare(master, 1)

    assert re.findall(r"worker started work (\S+)", master.log) == ["pin=0", "pin=1", "spare=0", "spare=1"]
    assert master.stop() == 0


def test_spare_waits_for_the_pins_of_its_own_handler(bench: Bench) -> None:
    """A PIN of another handler is forked, though a spare is parked."""
    master = bench.start(
        app(
            "",
            """
@app.worker(pins=0, spares=1)
def fetch():
    app.sleep(3600)

@app.worker(pins=1)
def send():
    app.sleep(3600)
""",
        )
    )
    waiting = parked(bench, master)
    kill(master.worker(1))

    assert master.worker(1, attempt=2) != waiting
    kill(master.worker(0))
    assert master.worker(0, attempt=2) == waiting
    assert master.stop() == 0


def test_restarted_group_goes_to_the_parked_spares(bench: Bench) -> None:
    """All PINs of the group are due at once: each that there is a spare for takes one."""
    master = bench.start(app('spares=2, group="pair", strategy="all"'))
    waiting = {parked(bench, master, 0), parked(bench, master, 1)}
    kill(master.worker(0))

    assert {master.worker(0, attempt=2), master.worker(1, attempt=2)} == waiting
    assert master.stop() == 0


def test_recycled_worker_is_followed_by_the_spare(bench: Bench) -> None:
    """It leaves at a checkpoint, and its successor is warm already."""
    master = bench.start(
        app(
            "spares=1, max_runtime=1, stop_timeout=60, cooperative=True",
            """
@app.worker(pins=0)
def work(pin):
    while not (here / "go").exists():
        time.sleep(0.01)
    app.sleep(3600)
""",
        )
    )
    waiting = parked(bench, master)
    (bench.directory / "go").touch()

    assert master.worker(0, attempt=2) == waiting
    assert master.matches(r"INFO worker recycled work pin=0 .* max_runtime")
    assert master.stop() == 0


def test_worker_that_is_not_restarted_needs_no_spare(bench: Bench) -> None:
    """With restart="never" the PIN has failed, the spare is dismissed, and the code says so."""
    master = bench.start(app('spares=1, restart="never"', IDLE.replace("range(2)", "0")))
    parked(bench, master)
    kill(master.worker(0))

    assert master.wait() == 1
    assert len(master.started(0)) == 1
    assert not alive(spare(master))


def test_spares_of_a_handler_without_a_pin_are_not_made(bench: Bench) -> None:
    """`--only` leaves the other handlers without PINs."""
    body = "\n@app.worker(pins=0)\ndef fetch():\n    app.sleep(3600)\n\n@app.worker(pins=1)\ndef send():\n    app.sleep(3600)\n"
    master = bench.start(app("spares=1", body), "--only", "1")
    parked(bench, master)

    assert re.findall(r"worker started (\w+ \w+)=", master.log) == ["send pin", "send spare"]
    assert master.stop() == 0


# What runs in it, and in which order

LIFE = """
@app.on_worker_warm
def warm_more():
    note("life", os.getpid(), "warm")

@app.on_worker_start
def start(pin):
    note("life", os.getpid(), f"start {pin}")

@app.worker(pins=0)
def work(pin):
    note("life", os.getpid(), f"handler {pin}")
    app.sleep(3600)

@app.on_worker_exit
def leave(pin):
    note("life", os.getpid(), f"exit {pin}")
"""


def test_hooks_run_in_the_same_order_in_a_spare_as_in_a_direct_worker(bench: Bench) -> None:
    """Warm, start, handler, exit, each once in a process; a spare that never had a PIN has no more than warm."""
    master = bench.start(app("spares=1", LIFE))
    taken = parked(bench, master)
    first = master.worker(0)
    bench.await_text("life", f"{first} handler 0")
    kill(first, signal.SIGTERM)
    bench.await_text("life", f"{taken} handler 0")
    idle = parked(bench, master, attempt=2)

    assert master.stop() == 0
    life = [line.split(" ", 1) for line in bench.read("life").splitlines()]
    for pid in (first, taken):
        assert [words for who, words in life if who == str(pid)] == ["warm", "start 0", "handler 0", "exit 0"]
    assert [words for who, words in life if who == str(idle)] == ["warm"]
    assert sorted(bench.read("warm").split()) == sorted(map(str, (first, taken, idle)))


WHO = """
def who():
    names = ("PYWORKERS_WORKER_PIN", "PYWORKERS_WORKER_HANDLER")
    return (app.pin, app.generation, app.previous and tuple(map(str, (app.previous.cause, app.previous.unit))),
        *(os.environ.get(name) for name in names))

@app.on_worker_warm
def ask():
    app.unit("nobody's unit")
    app.checkpoint()
    app.log.info("hello")
    note("who", os.getpid(), "warm", *who())

@app.worker(pins=[3, 4])
def work(pin):
    note("who", os.getpid(), "work", *who())
    note("generations", app.generation)
    if app.previous is None:
        app.unit(f"unit of {os.getpid()}")
    note("begun", pin, os.getpid())
    app.sleep(3600)
"""


def test_spare_is_nobody_and_then_who_it_was_told_to_be(bench: Bench) -> None:
    """PIN, generation, previous and unit: none in the warm-up, and those of the PIN after it; a handler it always has."""
    master = bench.start(app('spares=1, lock_file=here / "lock"', WHO))
    first = master.worker(4)
    until(lambda: len(begun(bench)) == 2, "both handlers")
    taken = parked(bench, master)
    kill(first)
    bench.await_text("begun", f"4 {taken}\n")
    follower = parked(bench, master, attempt=2)
    kill(taken)
    bench.await_text("begun", f"4 {follower}\n")

    told = bench.read("who")
    for pid, unit in ((taken, f"unit of {first}"), (follower, "")):
        assert f"{pid} warm None 0 None None work\n" in told
        previous = ("signal=SIGKILL", unit)
        assert re.search(rf"{pid} work 4 [1-9]\d* {re.escape(str(previous))} 4 work\n", told), told
    numbers = [int(number) for number in bench.read("generations").split()]
    assert numbers[2:] == sorted(set(numbers))[2:]
    assert len(numbers) == 4
    assert master.matches(rf"\[{taken}\] INFO work spare: hello")
    assert master.stop() == 0


def test_generation_without_a_lock_file_is_the_same_error_in_a_spare(bench: Bench) -> None:
    """It is a mistake of usage, whoever finds it."""
    master = bench.start(
        app(
            "spares=1",
            """
@app.worker(pins=0)
def work(pin):
    try:
        app.generation
    except Exception as error:
        note("error", type(error).__name__, error)
    note("begun", pin, os.getpid())
    app.sleep(3600)
""",
        )
    )
    taken = parked(bench, master)
    bench.await_text("begun", "\n")
    kill(master.worker(0))
    bench.await_text("begun", f"0 {taken}\n")

    direct, told = bench.read("error").splitlines()
    assert told == direct
    assert direct.startswith("UsageError ")
    assert master.stop() == 0


def test_stop_all_in_a_warm_up_names_the_spare(bench: Bench) -> None:
    """It has no PIN that the line could name; the stop is one like any other."""
    master = bench.start(
        app(
            "spares=1",
            "\n@app.on_worker_warm\ndef give_up():\n    if app.pin is None:\n        app.stop_all(7)\n" + IDLE,
        )
    )

    assert master.wait() == 7
    assert master.matches(rf"stopping reason=stop_all spare=0 pid={spare(master)} workers=2")


def test_async_handler_runs_in_a_spare(bench: Bench) -> None:
    """Its loop is made when the PIN is there, and a stop cancels its task as ever."""
    master = bench.start(
        app(
            "spares=1",
            """
import asyncio

@app.worker(pins=0)
async def work(pin):
    note("begun", pin, os.getpid())
    try:
        while True:
            app.checkpoint()
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note("cancelled", os.getpid())
        raise
""",
        )
    )
    taken = parked(bench, master)
    bench.await_text("begun", "\n")
    kill(master.worker(0))
    bench.await_text("begun", f"0 {taken}\n")

    assert master.stop() == 0
    assert bench.read("cancelled") == f"{taken}\n"
    assert master.matches(rf"worker ended work pin=0 pid={taken} exit=143 .*; stopped")


# A spare that ends, or does not become one

TELL = """
@app.on_failure
def tell(record):
    note("told", record.pin, record.cause, record.attempt)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
def test_parked_spare_that_is_ended_is_replaced_and_no_failure(bench: Bench, signum: signal.Signals) -> None:
    """on_failure is not told, the PINs go on, nothing is torn, and the next one takes a PIN."""
    master = bench.start(app("spares=1", TELL + IDLE))
    kill(parked(bench, master), signum)
    second = parked(bench, master, attempt=2)
    kill(master.worker(0))
    assert master.worker(0, attempt=2) == second
    # Failures are told in their order: had the spare's been told of, it would stand before this one.
    bench.await_text("told", "\n")

    assert master.stop() == 0
    assert bench.read("told") == "0 signal=SIGKILL 1\n"
    assert len(master.started(1)) == 1
    assert not re.search(r"Traceback|ERROR|exit=1\b", master.log), master.log
    status = "signal=SIGKILL" if signum == signal.SIGKILL else "exit=143"
    assert master.matches(rf"worker ended work spare=0 pid=\d+ {status} after=\S+; respawning")


def test_warm_up_that_raises_is_tried_again_with_backoff(bench: Bench) -> None:
    """The PINs do not notice, and when it can be done there is a spare."""
    master = bench.start(
        f"""
app = App(spares=1, backoff=(0.1, 0.1))
{NOTES}
@app.on_worker_warm
def warm():
    if app.pin is None and not (here / "good").exists():
        raise OSError("no model")
    note("warm", os.getpid())
{TELL}{IDLE}"""
    )
    fourth = spare(master, attempt=4)
    master.await_log(r"ERROR work spare: on_worker_warm raised", 3)
    master.await_log(r"ERROR work spare: OSError: no model", 3)
    assert master.matches(r"worker ended work spare=0 pid=\d+ exit=1 after=0\.\ds; respawning in 0\.1s")
    (bench.directory / "good").touch()
    until(lambda: not alive(fourth) or state(fourth) == "S", "the end of the last that may fail")
    until(lambda: set(bench.read("warm").split()) - {str(master.worker(pin)) for pin in (0, 1)}, "a spare that is warm")

    assert master.stop() == 0
    assert [len(master.started(pin)) for pin in (0, 1)] == [1, 1]
    assert bench.read("told") == ""


def test_warm_up_that_raises_fails_a_direct_worker_too(bench: Bench) -> None:
    """It is tried again like every other failure, and on_failure is told."""
    master = bench.start(
        f"""
app = App(backoff=(0.001, 0.001))
{NOTES}{TELL}
@app.on_worker_warm
def warm():
    if app.previous is None:
        raise OSError("no model")

@app.worker(pins=0)
def work():
    note("begun", 0, os.getpid())
"""
    )

    assert master.wait() == 0
    assert begun(bench) == {0: master.started(0)[1:]}
    assert bench.read("told") == "0 exit=1 1\n"
    assert master.matches("ERROR work pin=0: on_worker_warm raised")


ENDLESS = {
    "sleeping": "time.sleep(3600)",
    "stubborn": """while True:
            try:
                time.sleep(3600)
            except BaseException:
                pass""",
}

NEVER_WARM = """
# Who is interrupted has a fifth of the time to leave.
app = App(spares=1, stop_timeout=5)
{notes}
@app.on_worker_warm
def warm():
    if app.pin is None:
        note("warming", os.getpid())
        {how}

@app.worker(pins=0)
def work(pin):
    while not (here / "go").exists():
        app.sleep(0.01)
"""


@pytest.mark.parametrize("how", ENDLESS)
@pytest.mark.parametrize("end", ["stop", "finish", "master killed"])
def test_warm_up_that_never_returns_holds_up_nobody(bench: Bench, how: str, end: str) -> None:
    """The PIN is forked anew without it, the instance ends in its time with 0, and an orphan, too, is gone."""
    master = bench.start(NEVER_WARM.format(notes=NOTES, how=ENDLESS[how]))
    warming = spare(master)
    bench.await_text("warming", f"{warming}\n")
    kill(master.worker(0))
    assert master.worker(0, attempt=2) != warming

    if end == "master killed":
        master.process.kill()
        until(lambda: not alive(warming), "the end of the orphan")
        return
    if end == "finish":
        (bench.directory / "go").touch()
        assert master.wait() == 0
    else:
        assert master.stop() == 0
    assert not alive(warming)
    status = "exit=131" if how == "sleeping" else "signal=SIGKILL"
    assert master.matches(rf"worker ended work spare=0 pid={warming} {status} after=\S+; stopped")


def test_suspended_spare_is_not_taken(bench: Bench) -> None:
    """A PIN that is due does not wait for it; once it goes on it can be taken again."""
    master = bench.start(app())
    waiting = parked(bench, master)
    kill(waiting, signal.SIGSTOP)
    master.await_log(rf"worker suspended work spare=0 pid={waiting}")
    kill(master.worker(0))
    second = master.worker(0, attempt=2)
    kill(waiting, signal.SIGCONT)
    master.await_log(rf"worker resumed work spare=0 pid={waiting}")
    kill(second)

    assert second != waiting
    assert master.worker(0, attempt=3) == waiting
    assert master.stop() == 0


@pytest.mark.parametrize("spare_first", [False, True])
def test_spare_and_worker_that_die_together_leave_no_pin_empty(bench: Bench, *, spare_first: bool) -> None:
    """Also where the master assigns the PIN to a spare that is dead already."""
    master = bench.start(app("spares=1", IDLE))
    killed: set[int] = set()

    def pair() -> list[int]:
        pids = begun(bench)
        worker = pids.get(0, [0])[-1]
        busy = {pid for seat in pids.values() for pid in seat}
        idle = [pid for pid in map(int, bench.read("warm").split()) if pid not in busy | killed and state(pid) == "S"]
        return [worker, *idle] if len(pids) == 2 and worker not in killed and len(idle) == 1 else []

    for round_ in range(15):
        victims = until(pair, f"a worker and a spare in round {round_}")
        for pid in reversed(victims) if spare_first else victims:
            kill(pid)
        killed.update(victims)
    until(pair, "a worker and a spare at the end")

    assert len(begun(bench)[1]) == 1
    assert master.stop() == 0


# The end of the instance


def test_instance_ends_when_all_pins_have_ended_though_spares_are_parked(bench: Bench) -> None:
    """They are dismissed, handler by handler, and the code is that of a normal end."""
    master = bench.start(
        app(
            "spares=2",
            """
def until_there(name):
    while not (here / name).exists():
        app.sleep(0.01)

@app.worker(pins=0)
def fetch():
    until_there("fetched")

@app.worker(pins=1)
def send():
    until_there("sent")
""",
        )
    )
    spares = [parked(bench, master, number) for number in range(4)]
    (bench.directory / "fetched").touch()
    until(lambda: not any(map(alive, spares[:2])), "the end of the spares of fetch")
    assert all(map(alive, spares[2:]))
    (bench.directory / "sent").touch()

    assert master.wait() == 0
    assert not any(map(alive, spares))
    assert master.log.endswith("INFO all workers finished; master exits\n")
    assert len(master.matches(r"INFO worker ended \w+ spare=\d pid=\d+ exit=143 after=\S+; stopped")) == 4


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 1)])
def test_stop_ends_the_spares_too(bench: Bench, signum: signal.Signals, code: int) -> None:
    """Parked ones leave at once, and the code is what it would be without them."""
    master = bench.start(app("spares=3"))
    spares = [parked(bench, master, number) for number in range(3)]
    until(lambda: len(begun(bench)) == 2, "both handlers")
    master.signal(signum)

    assert master.wait() == code
    assert not any(map(alive, spares))
    assert len(master.matches(r"spare=\d pid=\d+ exit=143 after=\S+; stopped")) == 3
    assert not master.matches("Traceback")


def test_parked_spare_leaves_at_once_when_the_master_is_killed(bench: Bench) -> None:
    """It has nothing to finish, so it does not use the time of stop_timeout."""
    master = bench.start(app("spares=2, stop_timeout=3600"))
    spares = [parked(bench, master, number) for number in range(2)]
    master.process.kill()

    until(lambda: not any(map(alive, spares)), "the end of the spares")


def test_spare_leaves_though_the_masters_death_signal_is_lost(bench: Bench) -> None:
    """Its pipe tells it, too: credentials that change in the warm-up, or another system than Linux."""
    body = "\nfrom pyworkers._posix import process\nprocess._prctl = None\n" + IDLE
    master = bench.start(app("spares=2", body))
    spares = [parked(bench, master, number) for number in range(2)]
    master.process.kill()

    until(lambda: not any(map(alive, spares)), "the end of the spares")


# No harm to the PINs

STORM = """
import fcntl

@app.worker(pins=range(10))
def work(pin):
    lock = os.open(here / f"seat.{pin}", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("doubled", pin, os.getpid())
    name = f"units.{pin}"
    (here / name).touch()
    number = (here / name).read_text().count("\\n")
    note("begun", pin, os.getpid(), app.generation)
    while True:
        app.checkpoint()
        note(name, number)
        number += 1
        time.sleep(0.001)
"""


def test_storm_of_kills_never_doubles_a_pin_nor_a_unit(bench: Bench) -> None:
    """All ten workers killed six times, and half of the times their three spares with them."""
    master = bench.start(app('spares=3, lock_file=here / "lock"', STORM))
    latest: dict[int, int] = {}

    def renewed() -> bool:
        found = {int(pin): int(pid) for pin, pid in re.findall(r"(?m)^(\d+) (\d+) ", bench.read("begun"))}
        fresh = len(found) == 10 and all(pid != latest.get(pin) and alive(pid) for pin, pid in found.items())
        latest.update(found if fresh else {})
        return fresh

    for round_ in range(6):
        until(renewed, f"ten new workers in round {round_}")
        victims = set(children(master.pid)) if round_ % 2 else set(latest.values())
        for pid in victims:
            kill(pid)
    until(renewed, "ten new workers at the end")

    assert master.stop() == 0
    assert bench.read("doubled") == ""
    for pin in range(10):
        units = bench.read(f"units.{pin}").split()
        assert units == [str(number) for number in range(len(units))]
    rows = [[int(word) for word in line.split()] for line in bench.read("begun").splitlines()]
    for pin in range(10):
        generations = [generation for seat, _, generation in rows if seat == pin]
        assert generations == sorted(set(generations))
    spares = {int(found[1]) for found in master.matches(r"worker started work spare=\d pid=(\d+)")}
    assert spares & {pid for _, pid, _ in rows}


# A worker that was a spare is a worker like any other


def test_signals_pass_a_parked_spare_by_and_reach_it_as_a_worker(bench: Bench) -> None:
    """USR1 to the master is for workers: a spare sleeps on, and its function runs once it has a PIN."""
    master = bench.start(
        app(
            "spares=1",
            """
@app.on_signal(signal.SIGUSR1)
def rotate():
    note("rotated", app.pin, os.getpid())

@app.worker(pins=0)
def work(pin):
    app.checkpoint()
    note("begun", pin, os.getpid())
    app.sleep(3600)
""",
        )
    )
    first, taken = master.worker(0), parked(bench, master)
    bench.await_text("begun", f"0 {first}\n")
    master.signal(signal.SIGUSR1)
    bench.await_text("rotated", f"0 {first}\n")
    assert parked(bench, master) == taken
    kill(first)
    bench.await_text("begun", f"0 {taken}\n")
    # What had come before is dispatched by now.
    assert bench.read("rotated") == f"0 {first}\n"
    master.signal(signal.SIGUSR1)
    bench.await_text("rotated", f"0 {taken}\n")

    assert master.stop() == 0


def test_worker_that_was_a_spare_is_found_when_it_hangs(bench: Bench) -> None:
    """With the stack of its handler, down to the handler and no further; a parked spare is never called hung."""
    master = bench.start(
        app(
            "spares=1, hang_timeout=0.5, stop_timeout=4",
            """
def stuck():
    time.sleep(3600)

@app.worker(pins=0)
def work(pin):
    app.checkpoint()
    app.unit(f"unit of {os.getpid()}")
    note("begun", pin, os.getpid())
    stuck()
""",
        )
    )
    taken = parked(bench, master)
    master.await_log(rf"worker ended work pin=0 pid={master.worker(0)} exit=131 cause=hang")
    assert master.worker(0, attempt=2) == taken
    master.await_log(rf"ended work pin=0 pid={taken} exit=131 cause=hang after=\S+ unit='unit of {taken}'; respawning")

    stack = [found[1] for found in master.matches(rf"ERROR stack work pin=0 pid={taken}: (.*)")]
    assert re.search(r"shop\.py\", line \d+ in stuck", stack[-2])
    assert re.search(r"shop\.py\", line \d+ in work", stack[-1])
    assert not master.matches("worker hung work spare")
    master.stop()


def test_what_a_worker_that_was_a_spare_has_started_ends_with_it(bench: Bench) -> None:
    """In its warm-up as in its handler; and what a spare has started ends with the spare."""
    master = bench.start(
        app(
            "spares=1",
            """
import subprocess

@app.on_worker_warm
def start_helper():
    note("helpers", os.getpid(), subprocess.Popen(["sleep", "1000"]).pid)

@app.worker(pins=0)
def work(pin):
    note("helpers", os.getpid(), subprocess.Popen(["sleep", "1000"]).pid)
    app.sleep(3600)
""",
        )
    )

    def helpers(pid: int, count: int) -> list[int]:
        def found() -> list[int]:
            return [int(helper) for helper in re.findall(rf"(?m)^{pid} (\d+)$", bench.read("helpers"))]

        until(lambda: len(found()) == count, f"{count} helpers of {pid}")
        return found()

    first, taken = master.worker(0), spare(master)
    helpers(taken, 1)
    until(lambda: state(taken) == "S", "the spare to be parked")
    helpers(first, 2)
    kill(first)
    started = helpers(taken, 2)
    idle = spare(master, attempt=2)
    started += helpers(idle, 1)
    kill(taken)
    kill(idle)

    until(lambda: not any(map(alive, started)), "the end of their process groups")
    assert master.worker(0, attempt=2) == taken
    assert master.stop() == 0


def test_worker_that_was_a_spare_has_the_descriptors_of_a_direct_one(bench: Bench) -> None:
    """The pipe that it waited at is closed, and so are those of the other spares."""
    master = bench.start(app("spares=3"))
    waiting = [parked(bench, master, number) for number in range(3)]
    until(lambda: len(begun(bench)) == 2, "both handlers")
    direct = begun(bench)[1][0]
    kill(begun(bench)[0][0])
    until(lambda: len(begun(bench)[0]) == 2, "the handler in a spare's process")
    (taken,) = set(waiting) & set(begun(bench)[0])
    # In its sleep, a worker has made the pipe that it sleeps at.
    until(lambda: state(direct) == state(taken) == "S", "both to sleep")

    assert descriptors(taken) == descriptors(direct)
    assert master.stop() == 0


def test_descriptors_of_the_master_do_not_grow_with_failovers(bench: Bench) -> None:
    """Fifty of them; the pipe of a spare is closed when it has been told."""
    master = bench.start(app())
    counts: list[list[str]] = []
    for attempt in range(1, 52):
        waiting = parked(bench, master, attempt=attempt)
        counts.append(descriptors(master.pid))
        kill(master.started(0)[-1] if attempt > 1 else master.worker(0))
        bench.await_text("begun", f"0 {waiting}\n")
        master.worker(0, attempt + 1)

    assert counts[0] == counts[-1]
    assert len(set(master.started(0))) == 52
    assert master.stop(PATIENCE_S) == 0


def test_lock_is_free_after_an_instance_with_spares(bench: Bench) -> None:
    """A new instance starts at once, for no spare of a killed master is left to hold the lock."""
    master = bench.start(app('spares=2, lock_file=here / "lock"'))
    spares = [parked(bench, master, number) for number in range(2)]
    master.process.kill()
    master.wait()
    successor = bench.start()
    successor.worker(1)

    assert not any(map(alive, spares))
    assert successor.stop() == 0


# Elsewhere


def test_warm_up_runs_inline_before_the_start(bench: Bench) -> None:
    """For a debugger the handler finds what it finds in a worker."""
    bench.app(app("spares=1", LIFE.replace("app.sleep(3600)", "pass")))
    done = bench.run("shop:app", "--only", "0", "--inline")

    assert done.returncode == 0, done.stderr
    assert re.findall(r"\d+ (\w+)", bench.read("life")) == ["warm", "start", "handler", "exit"]
