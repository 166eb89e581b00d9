"""`run_handler`: what App offers behaves as in a worker, a script takes the kernel's place, and nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path

import pytest

from helpers import Bench
from pyworkers import App, Previous, Stop, UsageError
from pyworkers.testing import HandlerResult, run_handler


def app_of(handler: Callable[..., object], **options: object) -> App:
    """Return an app with this handler on the PINs 3 and 4."""
    app = App("shop", **options)  # type: ignore[arg-type]
    app.worker(pins=(3, 4))(handler)
    return app


def descriptors_of_this_process() -> list[str]:
    return sorted(entry.name for entry in Path("/dev/fd").iterdir())


def test_stop_at_a_checkpoint_leaves_the_units_before_it_done() -> None:
    """The stop comes before the third item is taken, so that it is still in the iterator."""
    app, committed = App("shop"), list[int]()
    stock = iter(range(10))

    @app.worker(pins=0)
    def sell() -> None:
        for number in app.track(stock, total=10):
            app.unit(f"item {number}")
            committed.append(number)

    result = run_handler(app, sell, stop_at=3)

    assert result == HandlerResult(
        exit_code=143, checkpoints=3, units=("item 0", "item 1"), marks=((1, 10), (2, 10)), slept=0.0, stop_all=None
    )
    assert committed == [0, 1]
    assert next(stock) == 2


@pytest.mark.parametrize("stop_at", [None, 5])
def test_handler_that_ends_before_the_stop_has_ended(stop_at: int | None) -> None:
    """Its own exit code stands, and its checkpoints are those that it has reached."""
    app = App("shop")

    @app.worker(pins=0)
    def sell() -> int:
        for _ in range(4):
            app.checkpoint()
        return 7

    result = run_handler(app, sell, stop_at=stop_at)

    assert (result.exit_code, type(result.exit_code), result.checkpoints) == (7, int, 4)


def test_every_kind_of_checkpoint_counts() -> None:
    """Those that the documentation of `App.checkpoint` names, each once."""
    app, counts = App("shop"), list[int]()

    @app.worker(pins=0)
    def sell() -> None:
        app.checkpoint()
        app.sleep(1)
        app.wait([], timeout=1)
        with app.interruptible():
            pass
        with app.critical(), app.critical():
            pass
        for _ in app.track("ab"):
            pass

    for stop_at in range(1, 10):
        counts.append(run_handler(app, sell, stop_at=stop_at).exit_code)

    # Before the first item of `track`, the second, and the end.
    assert counts == [143] * 8 + [0]


@pytest.mark.parametrize("stop_at", [2, 3])
def test_critical_section_is_not_cut(stop_at: int) -> None:
    """A stop that comes inside is raised on leaving the outermost block, and not over an exception."""
    app, deeds = App("shop"), list[str]()

    @app.worker(pins=0)
    def sell() -> None:
        app.checkpoint()
        with app.critical():
            deeds.append("take")
            with app.critical():
                app.checkpoint()
            deeds.append("give")
        deeds.append("never")

    assert run_handler(app, sell, stop_at=stop_at).exit_code == 143
    assert deeds == ["take", "give"]


def test_exception_that_leaves_a_critical_section_is_not_replaced_by_the_stop() -> None:
    """What the handler raises is what the test sees."""
    app = App("shop")

    def sell() -> None:
        with app.critical():
            app.checkpoint()
            raise ValueError("no change")

    app.worker(pins=0)(sell)
    with pytest.raises(ValueError, match="no change"):
        run_handler(app, sell, stop_at=1)


def test_functions_of_signals_run_at_the_checkpoint_and_before_a_stop() -> None:
    """The stop is not lost, nor is what came with it."""
    app, heard = App("shop"), list[tuple[str, int]]()
    done = 0

    @app.on_signal(signal.SIGUSR1)
    def tell() -> None:
        heard.append(("USR1", done))

    @app.worker(pins=0)
    def sell() -> None:
        nonlocal done
        while True:
            app.checkpoint()
            done += 1

    result = run_handler(app, sell, stop_at=5, signals={2: signal.SIGUSR1, 5: signal.SIGUSR1, 3: signal.SIGHUP})

    assert (result.exit_code, result.checkpoints) == (143, 5)
    assert heard == [("USR1", 1), ("USR1", 4)]


def test_interrupt_cuts_where_term_waits() -> None:
    """QUIT has an exit code of its own."""
    app = App("shop")

    @app.worker(pins=0)
    def sell() -> None:
        while True:
            app.checkpoint()

    assert run_handler(app, sell, signals={4: signal.SIGQUIT}).exit_code == 131


def test_swallowed_stop_is_raised_again() -> None:
    """A handler that catches it once leaves at the next checkpoint."""
    app, caught = App("shop"), list[object]()

    @app.worker(pins=0)
    def sell() -> None:
        try:
            app.sleep(1)
        except Stop as stop:
            caught.append(stop.code)
        app.checkpoint()

    result = run_handler(app, sell, stop_at=1)

    assert (result.exit_code, result.checkpoints, caught) == (143, 2, [143])


def test_stop_that_is_always_swallowed_is_told() -> None:
    """After the time limit, with the checkpoint since which it is due."""
    app = App("shop")

    @app.worker(pins=0)
    def sell() -> None:
        while True:
            with contextlib.suppress(SystemExit):
                app.sleep(1)

    with pytest.raises(TimeoutError, match=r"handler 'sell' .* a stop is due since checkpoint 3: it swallows Stop"):
        run_handler(app, sell, stop_at=3, time_limit=0.05)


def test_handler_without_an_end_is_told_with_the_place_where_it_was() -> None:
    """Also one that catches every Exception; the traceback leads into the handler."""
    app = App("shop")

    @app.worker(pins=0)
    def sell() -> None:
        while True:
            with contextlib.suppress(Exception):
                app.checkpoint()

    with pytest.raises(TimeoutError, match=r"has not ended in 0.05 s, and is at checkpoint \d+; see stop_at") as told:
        run_handler(app, sell, time_limit=0.05)
    assert told.value.__cause__ is not None
    frames = []
    traceback = told.value.__cause__.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "sell" in frames


def test_sleep_takes_no_time() -> None:
    """An hour passes at once, in sum, and whoever wants to do something instead is called."""
    app, told = App("shop"), list[float]()

    @app.worker(pins=0)
    def sell() -> None:
        for _ in range(60):
            app.sleep(60)

    began = time.monotonic()
    result = run_handler(app, sell, sleep=told.append)

    assert time.monotonic() - began < 5
    assert result.slept == 3600
    assert told == [60] * 60
    assert run_handler(app, sell).slept == 3600


def test_wait_without_end_goes_on_to_the_signals_of_the_script() -> None:
    """Each of them wakes it, and only the stop ends it; without one it is told that it waits for ever."""
    app, heard = App("shop"), list[int]()

    @app.on_signal(signal.SIGUSR1)
    def tell() -> None:
        heard.append(1)

    @app.worker(pins=0)
    def sell() -> None:
        app.wait([])

    assert run_handler(app, sell, stop_at=9, signals={2: signal.SIGUSR1}).exit_code == 143
    assert heard == [1]
    with pytest.raises(TimeoutError, match=r"handler 'sell' waits for ever, and no signal is left"):
        run_handler(app, sell, signals={2: signal.SIGUSR1})


def test_wait_for_descriptors_is_a_real_one() -> None:
    """What can be read is returned, and a wait in vain is bounded by the time limit."""
    app, got = App("shop"), list[object]()
    here, there = Pipe()
    with here, there:

        @app.worker(pins=0)
        def sell() -> None:
            while True:
                for _ in app.wait([here], timeout=60):
                    got.append(here.recv())

        there.send("a")
        there.send("b")
        assert run_handler(app, sell, stop_at=3).exit_code == 143
        assert got == ["a", "b"]
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"handler 'sell' has not ended in 0.05 s, and is at checkpoint 1"):
            run_handler(app, sell, stop_at=3, time_limit=0.05)
        assert time.monotonic() - began < 30


def test_async_handler_is_cancelled_at_its_checkpoint_and_may_tidy_up() -> None:
    """In a loop of its own; the clean-up that awaits is not cancelled again."""
    app, deeds = App("shop"), list[str]()

    @app.worker(pins=range(2))
    async def fetch(pin: int) -> None:
        try:
            while True:
                await asyncio.sleep(0)
                app.checkpoint()
                deeds.append(f"unit of {pin}")
        finally:
            await asyncio.sleep(0.001)
            deeds.append("tidied up")

    result = run_handler(app, fetch, pin=1, stop_at=3)

    assert (result.exit_code, result.checkpoints) == (143, 3)
    # It is cancelled at its next await.
    assert deeds == ["unit of 1"] * 3 + ["tidied up"]


def test_async_handler_ends_and_is_bounded() -> None:
    """Its result is its exit code; one that never reaches a checkpoint is given up after the time limit."""
    app = App("shop")

    @app.worker(pins=0)
    async def fetch() -> int:
        await asyncio.sleep(0)
        return 3

    @app.worker(pins=1)
    async def hang() -> None:
        await asyncio.sleep(3600)

    assert run_handler(app, fetch).exit_code == 3
    with pytest.raises(TimeoutError, match=r"handler 'hang' has not ended in 0.05 s"):
        run_handler(app, hang, time_limit=0.05)


def test_cancellation_of_the_handlers_own_is_no_stop() -> None:
    """It reaches the test as it would the log."""
    app = App("shop")

    async def fetch() -> None:
        raise asyncio.CancelledError

    app.worker(pins=0)(fetch)
    with pytest.raises(asyncio.CancelledError):
        run_handler(app, fetch)


def test_hooks_run_around_the_handler_as_in_a_worker() -> None:
    """A stop at the first checkpoint is none in a hook; `hooks=False` leaves them all out."""
    app, deeds = App("shop"), list[str]()

    @app.on_worker_warm
    def warm() -> None:
        deeds.append("warm")

    @app.on_worker_start
    def begin(pin: int) -> None:
        app.checkpoint()
        deeds.append(f"start {pin}")

    @app.on_worker_exit
    def end(pin: int) -> None:
        app.checkpoint()
        deeds.append(f"exit {pin}")

    @app.on_start
    @app.on_stop
    def in_the_master() -> None:
        deeds.append("not in a worker")

    @app.worker(pins=2)
    def sell(pin: int) -> None:
        deeds.append(f"sell {pin}")
        app.checkpoint()
        deeds.append("never")

    assert run_handler(app, sell, stop_at=1).exit_code == 143
    assert deeds == ["warm", "start 2", "sell 2", "exit 2"]
    deeds.clear()
    assert run_handler(app, sell, stop_at=1, hooks=False).exit_code == 143
    assert deeds == ["sell 2"]


def test_exit_hooks_run_after_an_exception_too() -> None:
    """And the exception is the test's."""
    app, deeds = App("shop"), list[str]()
    app.on_worker_exit(lambda: deeds.append("exit"))

    def sell() -> None:
        raise KeyError("price")

    app.worker(pins=0)(sell)
    with pytest.raises(KeyError, match="price"):
        run_handler(app, sell)
    assert deeds == ["exit"]


@pytest.mark.parametrize(
    ("code", "seen"), [(None, 0), (0, 0), (3, 3), (256, 1), (-1, 255), ("out of stock", 1)], ids=str
)
def test_exits_become_the_workers_exit_codes(code: object, seen: int) -> None:
    """As `sys.exit` in a worker does."""

    def sell() -> None:
        sys.exit(code)  # type: ignore[arg-type]

    assert run_handler(app_of(sell), sell).exit_code == seen


def test_result_that_is_no_exit_code_is_refused() -> None:
    """As in a worker, where it is an error line."""

    def sell() -> str:
        return "sold"

    with pytest.raises(TypeError, match="a handler returns None or an exit code of 0 to 255, got 'sold'"):
        run_handler(app_of(sell), sell)


def test_handler_knows_who_it_is_and_nothing_is_left_of_it() -> None:
    """The app is as harmless after it as before, the process's signals and descriptors are as they were."""
    seen = list[object]()

    def sell() -> None:
        seen.extend([app.pin, app.generation, app.previous, app.shard])
        app.sleep(1)

    app = app_of(sell)
    last, runtime = Previous("signal=SIGKILL", 2, "item 5"), app._runtime
    descriptors = descriptors_of_this_process()
    traps = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)

    run_handler(app, sell)
    run_handler(app, sell, pin=4, previous=last, generation=7, shard=(1, 2), stop_at=1)

    assert seen == [3, 1, None, None, 4, 7, last, (1, 2)]
    assert (app.pin, app.generation, app.previous, app.shard, app._pending) == (None, 0, None, None, False)
    assert app._runtime is runtime
    app.checkpoint()
    assert descriptors_of_this_process() == descriptors
    assert {signum: signal.getsignal(signum) for signum in signal.valid_signals()} == traps
    assert signal.set_wakeup_fd(wakeup) == wakeup


def test_stop_all_is_noted_and_followed_by_a_stop() -> None:
    """As the master would, and with the same check of the code."""
    app = App("shop")

    @app.worker(pins=0)
    def sell(pin: int) -> None:
        app.checkpoint()
        app.stop_all(9)
        app.sleep(3600)

    result = run_handler(app, sell)

    assert (result.exit_code, result.checkpoints, result.slept, result.stop_all) == (143, 2, 0.0, 9)


def test_threads_of_the_handler_get_the_stop_and_are_not_counted() -> None:
    """A checkpoint in another thread raises Stop there, when one is due; a sleep there wakes for it."""
    app, seen = App("shop"), list[object]()

    @app.worker(pins=0)
    def sell() -> None:
        def help_out() -> None:
            try:
                app.sleep(60)
            except Stop as stop:
                seen.append(stop.code)

        helper = threading.Thread(target=help_out)
        helper.start()
        try:
            app.checkpoint()
        finally:
            helper.join(20)

    assert run_handler(app, sell, stop_at=1).checkpoints == 1
    assert seen == [143]


def test_what_a_handler_forks_is_a_plain_process() -> None:
    """It holds no PIN, and no stop is raised there."""
    app = App("shop")

    @app.worker(pins=0)
    def sell() -> int:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                app.checkpoint()
                code = 0 if app.pin is None else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert run_handler(app, sell, stop_at=1).exit_code == 0


def test_mistakes_are_refused() -> None:
    """Each with one line; nothing has run then."""
    ran = list[str]()

    def sell() -> None:
        ran.append("sell")

    def buy() -> None: ...

    app = app_of(sell)
    for arguments, message in [
        ({"handler": buy}, "'buy' is no handler of the app; its handlers are 'sell'"),
        ({"pin": 5}, "handler 'sell' does not take PIN 5 (int)"),
        ({"pin": True}, "handler 'sell' does not take PIN True (bool)"),
        ({"stop_at": 0}, "checkpoints are counted from 1, got 0 (int)"),
        ({"signals": {"1": signal.SIGUSR1}}, "checkpoints are counted from 1, got '1' (str)"),
        ({"signals": {1: signal.SIGALRM}}, "signal 14 (int) has no on_signal function: it would end the worker"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)):
            run_handler(app, **{"handler": sell, **arguments})  # type: ignore[arg-type]
    assert ran == []


def test_run_inside_a_run_is_refused() -> None:
    """One app has one runtime."""

    def sell() -> None:
        run_handler(app, sell)

    app = app_of(sell)
    with pytest.raises(UsageError, match="run_handler was called while the app runs already"):
        run_handler(app, sell)


STORY = """
app = App("shop", restart="never")

@app.on_signal(signal.SIGUSR1)
def tell():
    print("USR1", flush=True)

@app.worker(pins=0)
def sell():
    for number in app.track(range(9)):
        app.unit(f"item {number}")
        with app.critical():
            for signum in {3: [signal.SIGUSR1], 5: [signal.SIGTERM, signal.SIGUSR1]}.get(number, []):
                if real:
                    os.kill(os.getpid(), signum)
            app.checkpoint()
            print(number, flush=True)

real = __name__ == "shop"
"""


def test_story_is_the_one_that_a_real_worker_tells(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """The same handler with the same signals at the same places: the same units, in the same order, the same end."""
    instance = bench.start(STORY)
    (ended,) = instance.await_log(r"worker ended sell pin=0 pid=\d+ exit=(\d+) after=\S+ unit='(.*)' done=(\d+)/(\d+);")
    assert instance.wait() == 1
    told = re.findall(r"(?m)^(?:\d|USR1)$", instance.log.partition("worker ended")[0])
    namespace: dict[str, object] = {"App": App, "os": os, "signal": signal, "__name__": "inline"}
    exec(STORY, namespace)
    app, sell = namespace["app"], namespace["sell"]
    assert isinstance(app, App)

    # An item has three checkpoints: its own, the one in its critical section, and the end of that.
    result = run_handler(app, sell, stop_at=5 * 3 + 2, signals={3 * 3 + 2: signal.SIGUSR1, 5 * 3 + 2: signal.SIGUSR1})  # type: ignore[arg-type]

    assert capfd.readouterr().out.split() == told == ["0", "1", "2", "3", "USR1", "4", "5", "USR1"]
    assert (str(result.exit_code), result.units[-1]) == (ended[1], ended[2])
    assert result.marks[-1] == (int(ended[3]), int(ended[4]))


def test_log_of_the_app_goes_to_the_handlers_of_the_test(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody leads it elsewhere."""

    def sell() -> None:
        app.log.warning("sold out")

    app = app_of(sell)
    run_handler(app, sell)

    assert "sold out" in caplog.text


def test_it_runs_in_any_thread(tmp_path: Path) -> None:
    """No disposition is touched, so it need not be the main thread."""
    results = list[HandlerResult]()

    def sell() -> None:
        for _ in app.track(range(3)):
            app.sleep(1)

    app = app_of(sell)
    thread = threading.Thread(target=lambda: results.append(run_handler(app, sell, stop_at=4)))
    thread.start()
    thread.join(20)

    assert [(result.exit_code, result.checkpoints) for result in results] == [(143, 4)]
