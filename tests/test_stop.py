"""Stopping, and what a handler sees of it: units are not torn, workers are not unstoppable."""

from __future__ import annotations

import os
import signal
import time

import pytest

from helpers import Bench, Instance, alive, state, until

UNITS = """
app = App(stop_timeout=5)

@app.worker(pins=range(6))
def work(pin: int) -> None:
    while True:
        app.checkpoint()
        with (here / f"begun.{pin}").open("a") as out:
            out.write("x")
        deadline = time.monotonic() + 0.1
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(left)
        with (here / f"ended.{pin}").open("a") as out:
            out.write("x")
"""


def stubborn(how: str = "") -> str:
    """Return an app whose worker swallows every exception; `how` stands beside the decorator's pins."""
    return f"""
    app = App()

    @app.worker(pins=0, {how})
    def stubborn() -> None:
        while True:
            try:
                while True:
                    (here / "up").touch()
                    time.sleep(3600)
            except BaseException as error:
                with (here / "swallowed").open("a") as out:
                    out.write(f"{{error!r}}\\n")
    """


def run_on(bench: Bench, body: str, options: str = "", head: str = "") -> Instance:
    """Start an app with one handler on PIN 0, and wait until it has touched `up`."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    source = f"app = App({options})\n{head}\n@app.worker(pins=0)\ndef work(pin):\n{lines}"
    master = bench.start(source)
    until((bench.directory / "up").exists, "the worker to be at work")
    return master


def test_sleeping_workers_are_stopped_where_they_stand(bench: Bench) -> None:
    """A handler without checkpoints gives way to TERM at once; nobody is left, and no force was needed."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=range(6))
        def sleeper(pin: int) -> None:
            (here / f"up.{pin}").touch()
            time.sleep(3600)
        """
    )
    until(lambda: len(list(bench.directory.glob("up.*"))) == 6, "six sleepers")
    workers = master.workers()

    assert master.stop() == 0
    assert len(workers) == 6
    assert not any(alive(pid) for pid in workers)
    assert len(master.matches("exit=143 .*; stopped")) == 6


def test_units_that_began_have_ended(bench: Bench) -> None:
    """G3: TERM reaches a cooperative handler between two units, never inside one."""
    master = bench.start(UNITS)
    for pin in range(6):
        bench.await_text(f"ended.{pin}", "xx")

    assert master.stop() == 0
    for pin in range(6):
        assert bench.read(f"begun.{pin}") == bench.read(f"ended.{pin}")


def test_respawn_of_a_cooperative_handler_is_not_torn_in_its_first_unit(bench: Bench) -> None:
    """One worker's checkpoint speaks for the handler: its successor is cooperative before its own first one."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=0)
        def work() -> None:
            if (here / "second").exists():
                (here / "up").touch()
                deadline = time.monotonic() + 0.6
                while (left := deadline - time.monotonic()) > 0:
                    time.sleep(left)
                (here / "whole").touch()
            app.checkpoint()
            (here / "second").touch()
            os._exit(1)
        """
    )
    until((bench.directory / "up").exists, "the successor")

    assert master.stop() == 0
    assert (bench.directory / "whole").exists()


def test_stubborn_worker_climbs_the_ladder(bench: Bench) -> None:
    """G8: TERM, then QUIT at 80 %, then KILL; the stop is bounded and its exit code says that force was needed."""
    master = bench.start(stubborn("stop_timeout=5"))
    until((bench.directory / "up").exists, "the worker")

    begun = time.monotonic()
    assert master.stop() == 1
    took_s = time.monotonic() - begun

    assert 5.0 <= took_s < 5.0 + 1.0
    assert bench.read("swallowed").splitlines() == ["Stop(143)", "Stop(131)"]
    assert len(master.matches("interrupting it by SIGQUIT")) == 1
    assert len(master.matches("killing it by SIGKILL")) == 1


def test_stop_timeout_of_zero_kills_at_once(bench: Bench) -> None:
    """stop_timeout=0 is KILL without a question."""
    master = bench.start(stubborn("stop_timeout=0"))
    until((bench.directory / "up").exists, "the worker")

    assert master.stop() == 1
    assert bench.read("swallowed") == ""


def test_second_int_kills_at_once(bench: Bench) -> None:
    """A person at a terminal presses Ctrl-C twice."""
    master = bench.start(stubborn("stop_timeout=60"))
    until((bench.directory / "up").exists, "the worker")

    master.signal(signal.SIGINT)
    master.await_log("stopping reason=SIGINT")
    master.signal(signal.SIGINT)

    assert master.wait() == 1
    assert master.matches("killing all workers reason=SIGINT")


def test_term_twice_is_term_once(bench: Bench) -> None:
    """Engines and groups deliver TERM twice; the second is not an order to hurry."""
    master = bench.start(UNITS)
    for pin in range(6):
        bench.await_text(f"ended.{pin}", "x")

    master.signal()
    master.signal()

    assert master.wait() == 0
    for pin in range(6):
        assert bench.read(f"begun.{pin}") == bench.read(f"ended.{pin}")


def test_quit_interrupts_a_cooperative_worker_inside_its_unit(bench: Bench) -> None:
    """QUIT to the master is the quick stop: it does not wait for a checkpoint, and code 1 says so."""
    master = run_on(
        bench,
        """
app.checkpoint()
try:
    (here / "up").touch()
    time.sleep(3600)
except Stop as stop:
    (here / "code").write_text(str(stop.code))
    raise
""",
    )

    master.signal(signal.SIGQUIT)

    assert master.wait() == 1
    assert bench.read("code") == "131"


def test_quick_stop_kills_after_two_seconds(bench: Bench) -> None:
    """A quick stop is bounded by two seconds, however long stop_timeout is."""
    master = bench.start(stubborn("stop_timeout=60"))
    until((bench.directory / "up").exists, "the worker")

    begun = time.monotonic()
    master.signal(signal.SIGQUIT)

    assert master.wait() == 1
    assert 2.0 <= time.monotonic() - begun < 3.0


def test_ctrl_c_for_the_whole_group_tears_nothing(bench: Bench) -> None:
    """Workers ignore INT; the master coordinates, and nobody prints a KeyboardInterrupt."""
    bench.app(UNITS)
    master = bench.start(None, start_new_session=True)
    for pin in range(6):
        bench.await_text(f"ended.{pin}", "x")

    os.killpg(master.pid, signal.SIGINT)

    assert master.wait() == 0
    assert "KeyboardInterrupt" not in master.log
    for pin in range(6):
        assert bench.read(f"begun.{pin}") == bench.read(f"ended.{pin}")


def test_term_from_a_person_is_not_the_end_of_the_pin(bench: Bench) -> None:
    """A worker that somebody stopped by hand leaves with 143 and is replaced."""
    master = bench.start(UNITS)
    bench.await_text("ended.2", "x")

    os.kill(master.worker(2), signal.SIGTERM)

    master.worker(2, attempt=2)
    assert master.matches("worker ended work pin=2 .* exit=143 .*respawning now")
    assert master.stop() == 0


def test_swallowed_stop_is_raised_again_at_the_next_checkpoint(bench: Bench) -> None:
    """A bare except does not make a worker immortal."""
    master = run_on(
        bench,
        """
caught = 0
while True:
    try:
        app.checkpoint()
        (here / "up").touch()
        time.sleep(0.01)
    except:
        caught += 1
        (here / "caught").write_text(str(caught))
        if caught == 3:
            raise
""",
    )

    assert master.stop() == 0
    assert bench.read("caught") == "3"


def test_except_exception_cannot_eat_a_stop() -> None:
    """Stop is a SystemExit, not an Exception."""
    from pyworkers import Stop

    assert issubclass(Stop, SystemExit)
    assert not issubclass(Stop, Exception)


@pytest.mark.parametrize("section", ["app.sleep(3600)", "app.wait([], None)", "app.wait([os.pipe()[0]])"])
def test_waits_end_the_moment_a_stop_is_due(bench: Bench, section: str) -> None:
    """app.sleep and app.wait wake for a stop, and are checkpoints."""
    master = run_on(bench, f"(here / 'up').touch()\n{section}")

    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 2.0


def test_interruptible_call_is_cut_in_a_cooperative_worker(bench: Bench) -> None:
    """Inside interruptible a blocking call gives way to TERM, although the handler has checkpoints."""
    master = run_on(
        bench,
        """
app.checkpoint()
(here / "up").touch()
with app.interruptible():
    time.sleep(3600)
""",
        "stop_timeout=30",
    )

    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 5.0


def test_critical_section_is_not_cut_even_by_the_interrupt(bench: Bench) -> None:
    """TERM and QUIT wait for the end of the outermost block; a checkpoint inside raises nothing."""
    master = run_on(
        bench,
        """
with app.critical():
    with app.critical():
        (here / "up").touch()
        while app._runtime.stop_code != 131:
            app.checkpoint()
            time.sleep(0.01)
        app.sleep(0.01)
    (here / "whole").touch()
(here / "beyond").touch()
""",
        "stop_timeout=5",
    )

    assert master.stop() == 1
    assert (bench.directory / "whole").exists()
    assert not (bench.directory / "beyond").exists()
    assert master.matches("exit=131 .*; stopped")


def test_critical_section_never_hides_an_exception_in_flight(bench: Bench) -> None:
    """What is pending stays pending while an exception leaves the block."""
    master = run_on(
        bench,
        """
try:
    with app.critical():
        (here / "up").touch()
        while not app._runtime.stop_code:
            time.sleep(0.01)
        raise ValueError("mine")
except ValueError as error:
    (here / "seen").write_text(f"{error} {error.__context__}")
app.checkpoint()
""",
    )

    assert master.stop() == 0
    assert bench.read("seen") == "mine None"
    assert master.matches("exit=143 .*; stopped")


@pytest.mark.parametrize("cooperative", [True, False])
def test_option_cooperative_decides_where_term_raises(bench: Bench, cooperative: bool) -> None:
    """True waits for a checkpoint that never comes until the interrupt; False raises in spite of checkpoints."""
    master = run_on(
        bench,
        """
if not app._runtime._binding.cooperative:
    app.checkpoint()
(here / "up").touch()
time.sleep(3600)
""",
        f"cooperative={cooperative}, stop_timeout=5",
    )

    assert master.stop() == (1 if cooperative else 0)
    assert master.matches(f"exit={131 if cooperative else 143} ")


def test_term_during_on_worker_start_is_delivered_after_it(bench: Bench) -> None:
    """A connection that is being opened is not torn; the handler then does not even begin."""
    master = bench.start(
        """
        app = App()

        @app.on_worker_start
        def connect(pin: int) -> None:
            (here / "up").touch()
            deadline = time.monotonic() + 0.5
            while (left := deadline - time.monotonic()) > 0:
                time.sleep(left)
            (here / "connected").touch()

        @app.worker(pins=0)
        def work() -> None:
            (here / "begun").touch()
        """
    )
    until((bench.directory / "up").exists, "on_worker_start")

    assert master.stop() == 0
    assert (bench.directory / "connected").exists()
    assert not (bench.directory / "begun").exists()
    assert master.matches("exit=143 .*; stopped")


def test_track_loses_no_item_to_a_stop(bench: Bench) -> None:
    """The checkpoint comes before an item is taken: what was taken was worked on."""
    master = run_on(
        bench,
        """
def items():
    for number in range(10_000):
        with (here / "taken").open("a") as out:
            out.write("x")
        yield number

for item in app.track(items()):
    (here / "up").touch()
    time.sleep(0.01)
    with (here / "worked").open("a") as out:
        out.write("x")
""",
    )
    bench.await_text("worked", "x", 5)

    assert master.stop() == 0
    assert bench.read("taken") == bench.read("worked")


SIGNAL_HEAD = """
@app.on_signal(signal.SIGUSR1)
def one():
    with (here / "told").open("a") as out:
        out.write(f"1 {threading.current_thread() is threading.main_thread()}\\n")

@app.on_signal(signal.SIGHUP)
def hup():
    with (here / "told").open("a") as out:
        out.write("hup\\n")
"""


def test_other_signals_run_their_function_at_the_next_checkpoint(bench: Bench) -> None:
    """on_signal runs in the main thread between two units; app.sleep dispatches and goes on sleeping."""
    master = run_on(
        bench,
        """
(here / "up").touch()
while not (here / "go").exists():
    time.sleep(0.01)
assert not (here / "told").exists()
app.checkpoint()
begun = time.monotonic()
app.sleep(0.5)
(here / "slept").write_text(str(time.monotonic() - begun))
app.sleep(3600)
""",
        head=SIGNAL_HEAD,
    )
    worker = master.worker(0)
    os.kill(worker, signal.SIGUSR1)
    os.kill(worker, signal.SIGUSR2)  # has no function: ignored
    (bench.directory / "go").touch()
    bench.await_text("told", "1 True")
    os.kill(worker, signal.SIGHUP)
    bench.await_text("told", "hup")
    until(lambda: bench.read("slept"), "the end of the sleep")

    assert float(bench.read("slept")) >= 0.5
    assert alive(worker)
    assert master.stop() == 0
    assert bench.read("told") == "1 True\nhup\n"


def test_usr1_to_the_master_reaches_every_worker(bench: Bench) -> None:
    """USR1 and USR2 are passed on."""
    master = bench.start(
        """
        app = App()

        @app.on_signal(signal.SIGUSR1)
        def told() -> None:
            (here / f"told.{app.pin}").touch()

        @app.worker(pins=range(4))
        def work(pin: int) -> None:
            (here / f"up.{pin}").touch()
            app.sleep(3600)
        """
    )
    until(lambda: len(list(bench.directory.glob("up.*"))) == 4, "four workers")

    master.signal(signal.SIGUSR1)

    until(lambda: len(list(bench.directory.glob("told.*"))) == 4, "all four told")
    assert master.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT])
def test_signal_without_a_meaning_is_harmless(bench: Bench, signum: signal.Signals) -> None:
    """What the master has no use for does not end it, and it says so."""
    master = run_on(bench, "(here / 'up').touch()\napp.sleep(3600)")

    master.signal(signum)

    if signum is not signal.SIGCONT:
        master.await_log(f"refused reason={signum.name}")
    assert master.stop() == 0
    assert len(master.started(0)) == 1


def test_thread_in_a_worker_gets_its_own_stop(bench: Bench) -> None:
    """A checkpoint, a sleep and a wait in another thread raise Stop there; the thread is joined."""
    master = run_on(
        bench,
        """
def helper(name, step):
    try:
        while True:
            step()
    except Stop:
        (here / f"stopped.{name}").touch()

steps = {"checkpoint": lambda: (app.checkpoint(), time.sleep(0.01)), "sleep": lambda: app.sleep(3600),
         "wait": lambda: app.wait([os.pipe()[0]], 3600)}
for name, step in steps.items():
    threading.Thread(target=helper, args=(name, step)).start()
app.checkpoint()
(here / "up").touch()
while True:
    app.sleep(3600)
""",
    )

    assert master.stop() == 0
    assert {path.name for path in bench.directory.glob("stopped.*")} == {
        "stopped.checkpoint",
        "stopped.sleep",
        "stopped.wait",
    }


ASYNC_HEAD = "import asyncio\n"


def start_async(bench: Bench, body: str, options: str = "") -> Instance:
    """Start an app with one async handler on PIN 0, and wait until it has touched `up`."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    master = bench.start(f"import asyncio\napp = App({options})\n\n@app.worker(pins=0)\nasync def work(pin):\n{lines}")
    until((bench.directory / "up").exists, "the worker to be at work")
    return master


def test_async_handler_is_cancelled_at_its_next_await(bench: Bench) -> None:
    """Without checkpoints a stop cancels the task: its finally runs, and it leaves with 143."""
    master = start_async(
        bench,
        """
try:
    (here / "up").touch()
    await asyncio.sleep(3600)
finally:
    await asyncio.sleep(0.01)
    (here / "closed").touch()
""",
    )

    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 2.0
    assert (bench.directory / "closed").exists()
    assert master.matches("exit=143 .*; stopped")


def test_async_handler_with_checkpoints_is_cancelled_at_one(bench: Bench) -> None:
    """A cooperative async unit is whole, although it awaits inside."""
    master = start_async(
        bench,
        """
while True:
    app.checkpoint()
    await asyncio.sleep(0)
    with (here / "begun").open("a") as out:
        out.write("x")
    (here / "up").touch()
    await asyncio.sleep(0.1)
    with (here / "ended").open("a") as out:
        out.write("x")
""",
    )
    bench.await_text("ended", "xx")

    assert master.stop() == 0
    assert bench.read("begun") == bench.read("ended")


def test_async_handler_that_catches_its_cancellation_may_end_normally(bench: Bench) -> None:
    """Whoever tidies up and returns has finished."""
    master = start_async(
        bench,
        """
try:
    (here / "up").touch()
    await asyncio.sleep(3600)
except asyncio.CancelledError:
    return 0
""",
    )

    assert master.stop() == 0
    assert master.matches("exit=0 .*; finished")


def test_async_critical_section_is_not_cancelled(bench: Bench) -> None:
    """The cancellation waits for the end of the block."""
    master = start_async(
        bench,
        """
with app.critical():
    (here / "up").touch()
    while not app._runtime.stop_code:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    (here / "whole").touch()
await asyncio.sleep(3600)
""",
    )

    assert master.stop() == 0
    assert (bench.directory / "whole").exists()


def test_blocking_waits_are_refused_inside_a_running_loop(bench: Bench) -> None:
    """app.sleep would stop the loop: a clear error instead."""
    master = start_async(
        bench,
        """
for call in (lambda: app.sleep(1), lambda: app.wait([], 1)):
    try:
        call()
    except RuntimeError as error:
        with (here / "errors").open("a") as out:
            out.write(f"{error}\\n")
(here / "up").touch()
""",
    )

    assert master.wait() == 0
    assert bench.read("errors").count("inside a running asyncio loop") == 2


def test_nohup_keeps_hup_ignored_and_int_of_a_background_job_too(bench: Bench) -> None:
    """What was ignored when the master started stays ignored."""
    bench.app("app = App()\n\n@app.worker(pins=0)\ndef work():\n    (here / 'up').touch()\n    app.sleep(3600)\n")

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    master = bench.start(None, preexec_fn=ignore)
    until((bench.directory / "up").exists, "the worker")

    master.signal(signal.SIGHUP)
    master.signal(signal.SIGINT)
    os.kill(master.worker(0), signal.SIGKILL)
    master.worker(0, attempt=2)

    assert "SIGHUP" not in master.log
    assert "stopping" not in master.log
    assert master.stop() == 0


def test_blocked_and_ignored_term_still_stops(bench: Bench) -> None:
    """A TERM that the starter had blocked or ignored is honoured, by the master and by its workers."""
    bench.app("app = App()\n\n@app.worker(pins=0)\ndef work():\n    (here / 'up').touch()\n    time.sleep(3600)\n")

    def block() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1})

    master = bench.start(None, preexec_fn=block)
    until((bench.directory / "up").exists, "the worker")

    assert master.stop() == 0
    assert master.matches("exit=143 ")


def test_async_clean_up_is_not_cancelled_again_by_a_signal_that_is_sent_again(bench: Bench) -> None:
    """TERM comes to stragglers at 0.25 and 0.5 s: a `finally` that awaits goes on, and so does asyncio's own end."""
    master = start_async(
        bench,
        """
async def background():
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.6)
        (here / "background").touch()

task = asyncio.create_task(background())
await asyncio.sleep(0)
try:
    (here / "up").touch()
    await asyncio.sleep(3600)
finally:
    await asyncio.sleep(0.6)
    with app.critical():
        await asyncio.sleep(0)
    (here / "own").touch()
""",
    )

    assert master.stop() == 0
    assert (bench.directory / "own").exists()
    assert (bench.directory / "background").exists()
    assert master.matches("exit=143 .*; stopped")


def test_critical_section_in_a_finally_does_not_raise_over_the_stop_in_flight(bench: Bench) -> None:
    """What follows it in the `finally` runs."""
    master = run_on(
        bench,
        """
try:
    (here / "up").touch()
    time.sleep(3600)
finally:
    with app.critical():
        time.sleep(0.01)
    (here / "closed").touch()
""",
    )

    assert master.stop() == 0
    assert (bench.directory / "closed").exists()


def test_checkpoint_in_a_hook_neither_raises_nor_makes_cooperative(bench: Bench) -> None:
    """on_worker_start and on_worker_exit may sleep by app.sleep: they are not cut by TERM, and the handler still is."""
    master = run_on(
        bench,
        "(here / 'up').touch()\ntime.sleep(3600)",
        head="""
@app.on_worker_start
def start(pin):
    app.sleep(0.01)

@app.on_worker_exit
def leave(pin):
    app.checkpoint()
    app.sleep(0.3)
    (here / "left").touch()
""",
    )

    assert master.stop() == 0
    assert (bench.directory / "left").exists()
    assert master.matches("exit=143 .*; stopped")


def test_interrupt_cuts_one_step_of_the_end_and_not_the_next(bench: Bench) -> None:
    """QUIT in on_worker_exit ends that function; exit functions and the exit code are as they should be."""
    master = run_on(
        bench,
        "import atexit\natexit.register((here / 'atexit').touch)\n(here / 'up').touch()\ntime.sleep(3600)",
        "stop_timeout=5",
        """
@app.on_worker_exit
def first(pin):
    time.sleep(3600)

@app.on_worker_exit
def second(pin):
    (here / "second").touch()
""",
    )

    assert master.stop() == 1
    assert (bench.directory / "second").exists()
    assert (bench.directory / "atexit").exists()
    assert master.matches("exit=131 .*; stopped")


def test_on_signal_function_that_raises_does_not_lose_the_next_signal(bench: Bench) -> None:
    """G3: what was recorded stays recorded."""
    master = run_on(
        bench,
        """
(here / "up").touch()
while not (here / "go").exists():
    time.sleep(0.01)
try:
    app.checkpoint()
except ValueError:
    app.checkpoint()
app.sleep(3600)
""",
        head="""
@app.on_signal(signal.SIGUSR1)
def one():
    raise ValueError

@app.on_signal(signal.SIGUSR2)
def two():
    (here / "two").touch()
""",
    )
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(master.worker(0), signum)
    (bench.directory / "go").touch()

    until((bench.directory / "two").exists, "the second signal's function")
    assert master.stop() == 0


def test_sleep_after_a_loop_of_the_handlers_own_still_wakes(bench: Bench) -> None:
    """Asyncio takes the wake-up descriptor away when a loop with signal handlers closes; app.sleep takes it back."""
    master = run_on(
        bench,
        """
import asyncio

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, print)

app.sleep(0)
asyncio.run(main())
(here / "up").touch()
app.sleep(3600)
""",
    )

    assert master.stop() == 0


def test_term_to_the_whole_group_is_no_failure_of_the_workers(bench: Bench) -> None:
    """Engines signal master and workers together: who has left by then is stopped, not failed."""
    bench.app(
        """
        app = App()

        @app.on_failure
        def tell(record) -> None:
            (here / "told").touch()

        @app.worker(pins=range(3), kill_group=False)
        def work(pin: int) -> None:
            (here / f"up.{pin}").touch()
            time.sleep(3600)
        """
    )
    master = bench.start(None, start_new_session=True)
    until(lambda: len(list(bench.directory.glob("up.*"))) == 3, "three workers")
    workers = [master.worker(pin) for pin in range(3)]
    os.kill(master.pid, signal.SIGSTOP)
    until(lambda: state(master.pid) == "T", "the master to be stopped")
    os.killpg(master.pid, signal.SIGTERM)
    until(lambda: not any(alive(pid) for pid in workers), "the workers' ends")
    os.kill(master.pid, signal.SIGCONT)

    assert master.wait() == 0
    assert "respawning" not in master.log
    assert not (bench.directory / "told").exists()
