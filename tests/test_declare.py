"""Declaring an app: each mistake is refused where it is written, and what was declared stays the user's own."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pyworkers import App, DeclarationError, FailureRecord, PyworkersError, UsageError
from pyworkers._declare import _can_take
from pyworkers._plan import plan
from pyworkers.app import declaration_of

HOOKS = ["on_start", "on_stop", "on_worker_warm", "on_worker_start", "on_worker_exit", "on_failure"]


def plain() -> None: ...


def with_pin(pin: int) -> None: ...


async def async_plain() -> None: ...


async def async_with_pin(pin: int) -> None: ...


def generator(pin: int) -> Iterator[int]:
    yield pin


async def async_generator() -> AsyncIterator[int]:
    yield 1


def two(first: int, second: int) -> None: ...


def keyword_only(*, pin: int) -> None: ...


def required_and_optional(pin: int, limit: int = 3) -> None: ...


class Callable_:
    def __call__(self, pin: int) -> None: ...


class AsyncCallable:
    async def __call__(self) -> None: ...


class Methods:
    def work(self, pin: int) -> None: ...


def refused(app: App, register: Callable[[App], object], words: str) -> str:
    """Check that a registration is refused in one line, and changes nothing."""
    before = repr(vars(declaration_of(app)))
    with pytest.raises(DeclarationError) as caught:
        register(app)
    text = str(caught.value)
    assert re.search(words, text), text
    assert "\n" not in text
    assert repr(vars(declaration_of(app))) == before
    return text


# Workers


@pytest.mark.parametrize("function", [plain, with_pin, async_plain, async_with_pin, Callable_(), Methods().work, len])
@pytest.mark.parametrize("arguments", [{}, {"pins": 3}, {"pins": range(2), "stop_timeout": 1.0}])
def test_decorator_returns_the_function_unchanged(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """A registered function is the very same object: importable, callable, picklable."""
    assert App("test").worker(**arguments)(function) is function


@pytest.mark.parametrize(
    ("function", "takes_pin", "is_async"),
    [
        (plain, False, False),
        (with_pin, True, False),
        (async_plain, False, True),
        (async_with_pin, True, True),
        (required_and_optional, True, False),
        (Callable_(), True, False),
        (AsyncCallable(), False, True),
        (Methods().work, True, False),
        (functools.partial(two, 1), True, False),
        (functools.partial(async_with_pin, 1), False, True),
        (lambda *arguments: None, True, False),
    ],
)
def test_worker_finds_out_how_to_call(function: Any, *, takes_pin: bool, is_async: bool) -> None:
    """A handler is called with its PIN where it takes one, and awaited where it is async."""
    app = App("test")
    app.worker(pins=0)(function)
    (spec,) = declaration_of(app).handlers

    assert (spec.takes_pin, spec.is_async) == (takes_pin, is_async)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(
    "function",
    [
        lambda: 0,
        lambda a: 0,
        lambda a, /: 0,
        lambda a=1, /: 0,
        lambda a, b: 0,
        lambda a, b=1: 0,
        lambda a=1, b=2: 0,
        lambda *a: 0,
        lambda a, *b: 0,
        lambda a, b, *c: 0,
        lambda **a: 0,
        lambda *, a: 0,
        lambda *, a=1: 0,
        lambda *, a, b=1: 0,
        lambda a, *b, c=1, **d: 0,
        lambda a, *b, c: 0,
    ],
)
def test_code_of_a_plain_function_says_what_its_signature_does(function: Callable[..., int], count: int) -> None:
    """What is read from the code object, for speed, is what `inspect` would have found out."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        assert not _can_take(function, count)
    else:
        assert _can_take(function, count)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def test_decorated_function_is_called_as_the_one_beneath() -> None:
    """What functools.wraps has made takes anything, but the signature that it shows is the user's."""
    app = App("test")
    app.worker(pins=0)(decorated(plain))
    app.worker(pins=1)(decorated(with_pin))

    assert [spec.takes_pin for spec in declaration_of(app).handlers] == [False, True]
    refused(app, lambda app: app.worker(pins=2)(decorated(two)), r"its signature is \(first: 'int', second: 'int'\)")


def test_plain_functions_are_declared_without_inspect() -> None:
    """Nearly all handlers are plain functions, and for them the module is not loaded."""
    code = """
import logging, sys
old = set(sys.modules)
from pyworkers import App
app = App("test")
app.worker(pins=[1, 2], stop_timeout=1.0)(lambda pin: None)
app.on_worker_start(lambda: None)
print("inspect" in set(sys.modules) - old)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_worker_calls_with_the_pin_or_with_nothing() -> None:
    """The PIN is handed over to those who take it, and to nobody else."""
    app, seen = App("test"), []
    app.worker(pins=0)(lambda pin: seen.append(pin))
    app.worker(pins=1)(lambda: seen.append("nothing"))
    for spec, pin in zip(declaration_of(app).handlers, (7, 8), strict=True):
        spec.call(pin)

    assert seen == [7, "nothing"]


def test_bare_worker_is_told_to_use_parentheses() -> None:
    """`@app.worker` without parentheses has its own line, which says what to write."""
    refused(
        App("test"),
        lambda app: app.worker(plain),
        r"^@app.worker needs parentheses: write @app.worker\(pins=.*'plain'$",
    )  # type: ignore[arg-type]


def test_bare_on_signal_is_told_to_name_a_signal() -> None:
    """`@app.on_signal` without a signal has its own line, which says what to write."""
    refused(App("test"), lambda app: app.on_signal(plain), r"write @app.on_signal\(signal.SIGUSR1\)")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (generator, r"^worker 'generator' is a generator"),
        (async_generator, r"^worker 'async_generator' is a generator"),
        (two, r"^worker 'two' must take \(pin\) or nothing, its signature is \(first: 'int', second: 'int'\)"),
        (keyword_only, r"^worker 'keyword_only' must take \(pin\) or nothing"),
        (3, r"^worker 'int' must be a function, got 3 \(int\)"),
        (None, r"must be a function, got None \(NoneType\)"),
        ("crawl", r"must be a function, got 'crawl' \(str\)"),
    ],
)
def test_worker_refuses_what_it_cannot_call(function: Any, words: str) -> None:
    """A handler that takes neither its PIN nor nothing, or is a generator or no function, is refused by name."""
    refused(App("test"), lambda app: app.worker(pins=0)(function), words)


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ([], "are empty"),
        (range(0), "are empty"),
        (-1, "must not be negative, got -1"),
        ([1, 1], "name PIN 1 twice"),
        (True, "must be ints, got True"),
        ("1", "must be ints, got '1'"),
        (1.0, "must be an int, a range or an iterable of ints, got 1.0"),
        (itertools.count(), "are more than 1,000,000"),
    ],
)
def test_worker_refuses_bad_pins(pins: Any, words: str) -> None:
    """Pins that mean nothing are refused where they are written, by a line that names the handler."""
    refused(App("test"), lambda app: app.worker(pins=pins)(plain), f"^pins of worker 'plain' .*{words}")


def test_worker_keeps_the_app_usable_after_a_refusal() -> None:
    """A refused handler leaves nothing behind: the next one takes the same PINs."""
    app = App("test")
    refused(app, lambda app: app.worker(pins=[0, 1, 1])(plain), "twice")
    refused(app, lambda app: app.worker(pins=[0], stop_timeout=-1)(plain), "stop_timeout")
    app.worker(pins=[0, 1])(plain)

    assert [spec.claim.pins for spec in declaration_of(app).handlers] == [(0, 1)]


# What is right one by one, and wrong together


def together(options: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> App:
    """Return an app with two handlers, `plain` and `with_pin`."""
    app = App("test", **options)
    app.worker(pins=0, **first)(plain)
    app.worker(pins=1, **second)(with_pin)
    return app


@pytest.mark.parametrize(
    ("options", "first", "second", "line"),
    [
        (
            {"normal_exit_codes": (0, 3, 4), "permanent_failure_codes": (4, 3, 5)}, {}, {},
            "exit code 3 is in normal_exit_codes and in permanent_failure_codes: it can only be in one",
        ),
        (
            {}, {}, {"strategy": "all"},
            "worker 'with_pin' has strategy 'all' but no group: name one by group=...",
        ),
        (
            {"restart": "never"}, {}, {"group": "pair", "strategy": "all"},
            (
                "worker 'with_pin' has restart 'never' and strategy 'all', which starts all of the group 'pair' again:"
                " choose one of them"
            ),
        ),
        (
            {"strategy": "all"}, {}, {"group": "pair"},
            "worker 'plain' has strategy 'all' but no group: name one by group=...",
        ),
        (
            {"group": "pair"}, {"strategy": "all"}, {"group": None, "strategy": "all"},
            "worker 'with_pin' has strategy 'all' but no group: name one by group=...",
        ),
        (
            {"group": "pair"}, {"strategy": "all"}, {},
            "workers 'plain' and 'with_pin' of group 'pair' have different strategies, 'all' and 'one': a group has one",
        ),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], first: dict[str, Any], second: dict[str, Any], line: str
) -> None:
    """Which of them holds only shows when all sources are merged, so that is when they are refused, by one line."""
    with pytest.raises(DeclarationError) as caught:
        plan(declaration_of(together(options, first, second)), {})

    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({"normal_exit_codes": (0, 3), "permanent_failure_codes": 4}, {}, {}),
        ({"group": "pair", "strategy": "all"}, {}, {}),
        ({"group": "pair"}, {}, {}),
        ({}, {"group": "pair", "strategy": "all"}, {"group": "two", "strategy": "one"}),
        ({"group": "pair"}, {"strategy": "all"}, {"group": None}),
    ],
)
def test_options_that_go_together_are_accepted(
    options: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Different groups may have different strategies, and a group with the strategy 'one' is no mistake."""
    assert len(plan(declaration_of(together(options, first, second)), {}).workers) == 2


# Hooks


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_returns_the_function_unchanged(hook: str) -> None:
    """A hook is used bare and returns the very same function."""
    assert getattr(App("test"), hook)(plain) is plain
    assert App("test").on_signal(signal.SIGUSR1)(plain) is plain


def _hook(name: str) -> Callable[[App, Any], Any]:
    if name == "on_signal":
        return lambda app, function: app.on_signal(signal.SIGUSR1)(function)
    return lambda app, function: getattr(app, name)(function)


@pytest.mark.parametrize("hook", [*HOOKS, "on_signal"])
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (async_plain, r"function 'async_plain' is async; it must be a plain function$"),
        (AsyncCallable(), r"function 'AsyncCallable' is async"),
        (async_generator, r"function 'async_generator' is a generator"),
        (generator, r"function 'generator' is a generator"),
        (two, r"function 'two' must take (\((pin|record)\) or )?nothing, its signature is "),
        (5, r"must be a function, got 5 \(int\)"),
    ],
)
def test_hook_refuses_what_it_cannot_call(hook: str, function: Any, words: str) -> None:
    """A hook that is async, a generator, no function, or takes too much is refused by a line that names both."""
    app = App("test")
    app.on_signal(signal.SIGUSR1)
    refused(app, lambda app: _hook(hook)(app, function), f"^{hook} .*{words}")


@pytest.mark.parametrize("hook", ["on_start", "on_stop", "on_worker_warm", "on_signal"])
def test_hook_without_an_argument_refuses_a_parameter(hook: str) -> None:
    """A hook that is called with nothing refuses a function that wants a PIN."""
    app = App("test")
    app.on_signal(signal.SIGUSR1)
    refused(app, lambda app: _hook(hook)(app, with_pin), f"^{hook} function 'with_pin' must take nothing")


@pytest.mark.parametrize("hook", ["on_worker_start", "on_worker_exit", "on_failure"])
def test_hook_gets_its_argument_where_it_takes_one(hook: str) -> None:
    """A hook that has something to hand over hands it to those who take it, and calls the others plainly."""
    app, seen = App("test"), []
    getattr(app, hook)(lambda given: seen.append(given))
    getattr(app, hook)(lambda: seen.append("nothing"))
    record = FailureRecord(pin=1, pid=2, handler="crawl", cause="exit=1", lifetime=0.5, attempt=3)
    for function in getattr(declaration_of(app), hook):
        function(record)

    assert seen == [record, "nothing"]


@pytest.mark.parametrize(
    "signum",
    [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, 0, -1, 32, 4096],
)
def test_on_signal_refuses_reserved_and_unknown_signals(signum: int) -> None:
    """The signals of the stop ladder, those that the kernel keeps, and those that do not exist are refused."""
    refused(
        App("test"), lambda app: app.on_signal(signum), "^on_signal cannot have signal .*reserved or does not exist"
    )


@pytest.mark.parametrize("signum", [None, "SIGUSR1", 10.0, True, plain])
def test_on_signal_refuses_what_is_no_signal(signum: Any) -> None:
    """What is no signal number at all is told how to write it."""
    refused(App("test"), lambda app: app.on_signal(signum), "^on_signal takes one signal: write @app.on_signal")


def test_on_signal_keeps_functions_in_order() -> None:
    """A signal may have several functions, which run in the order of their registration."""
    app = App("test")
    app.on_signal(signal.SIGUSR1)(plain)
    app.on_signal(signal.SIGHUP)(plain)
    app.on_signal(int(signal.SIGUSR1))(other := lambda: None)

    assert declaration_of(app).on_signal == {signal.SIGUSR1: [plain, other], signal.SIGHUP: [plain]}


# While it runs


@pytest.mark.parametrize("hook", [*HOOKS, "worker", "on_signal"])
def test_registration_is_closed_while_the_app_runs(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the app runs nothing can be registered, and the line says when to do it."""
    app, lines = App("test"), []

    @app.worker(pins=0)
    def handler() -> None: ...

    def late(*_: object, **__: object) -> int:
        register = app.worker(pins=1) if hook == "worker" else lambda function: _hook(hook)(app, function)
        with pytest.raises(DeclarationError) as caught:
            register(plain)
        lines.append(str(caught.value))
        return 5

    monkeypatch.setattr("pyworkers._instance.Instance.run", late)

    assert app.run() == 5
    assert re.fullmatch(r"cannot register .*'plain': the app runs already; register at import", lines[0])
    app.worker(pins=1)(plain)


def test_run_inside_a_run_is_refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A second `app.run()` while the first is on is one line and code 2."""
    app = App("test")
    app.worker(pins=0)(plain)
    monkeypatch.setattr("pyworkers._instance.Instance.run", lambda *_, **__: app.run())

    assert app.run() == 2
    assert capfd.readouterr().err == "pyworkers: error: app.run() was called while the app runs already\n"


def test_run_in_another_thread_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """Only the main thread can take signals, so a run in another one is one line and code 2."""
    app, codes = App("test"), []
    app.worker(pins=0)(plain)
    thread = threading.Thread(target=lambda: codes.append(app.run()))
    thread.start()
    thread.join()

    assert codes == [2]
    assert capfd.readouterr().err.startswith("pyworkers: error: app.run() must be called in the main thread")


# Outside a worker


def test_handler_runs_in_a_plain_unit_test() -> None:
    """All that a handler can ask for is harmless outside a worker, so that it can be called as what it is."""
    app = App("test")

    @app.worker(pins=range(3))
    def crawl(pin: int) -> int:
        done = 0
        for item in app.track([1, 2, 3], total=3):
            app.checkpoint()
            app.unit(f"item {item}")
            with app.critical(), app.critical():
                app.checkpoint()
                done += item
            with app.interruptible():
                app.sleep(0.0)
        app.stop_all(3)
        return done + pin

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}

    assert crawl(1) == 7
    assert (app.pin, app.generation, app.previous) == (None, 0, None)
    assert {signum: signal.getsignal(signum) for signum in before} == before


def test_async_handler_runs_in_a_plain_unit_test() -> None:
    """An async handler, too, is what it was before it was registered."""
    app = App("test")

    @app.worker(pins=0)
    async def crawl(pin: int) -> int:
        app.checkpoint()
        with app.critical():
            await asyncio.sleep(0)
        return pin

    assert asyncio.run(crawl(4)) == 4


def test_wait_returns_what_is_ready_outside_a_worker() -> None:
    """`wait` gives the ready ones of what it was given, and an empty list when the time runs out."""
    app = App("test")
    reader, writer = os.pipe()
    try:
        assert app.wait([reader], 0.0) == []
        os.write(writer, b"x")
        assert app.wait([reader]) == [reader]
        with open(reader, closefd=False) as file:
            assert app.wait(iter([file]), 5.0) == [file]
    finally:
        os.close(reader)
        os.close(writer)


def test_wait_inside_a_running_loop_is_refused() -> None:
    """`wait` would block the loop that is to be stopped: inside a running one it is an error that says so."""
    app = App("test")

    async def misuse() -> None:
        app.wait([], 0.0)

    with pytest.raises(RuntimeError, match="inside a running asyncio loop"):
        asyncio.run(misuse())


def test_critical_lets_exceptions_through() -> None:
    """The contexts swallow nothing, and can be used again after an exception."""
    app = App("test")
    for context in (app.critical(), app.interruptible()):
        for _ in range(2):
            with pytest.raises(KeyError), context:
                raise KeyError


@pytest.mark.parametrize("code", [-1, 256, True, None, "1", 1.0])
def test_stop_all_refuses_what_is_no_exit_code(code: Any) -> None:
    """A bad exit code is an error also outside a worker, where unit tests find it."""
    with pytest.raises(UsageError, match="stop_all takes an exit code of 0 to 255"):
        App("test").stop_all(code)


def test_track_is_lazy_and_takes_any_iterable() -> None:
    """`track` takes an item only when it is asked for one, and works without a length."""
    app, source = App("test"), iter(range(3))
    tracked = app.track(source)

    assert next(tracked) == 0
    assert next(source) == 1
    assert list(tracked) == [2]


def test_log_is_a_standard_logger_of_the_app() -> None:
    """`app.log` is a logger of the standard library, named after the app."""
    assert App("crawler").log is logging.getLogger("pyworkers.crawler")


def test_repr_names_app_and_handlers() -> None:
    """An app says who it is."""
    app = App("crawler")
    app.worker(pins=0)(plain)
    app.worker(pins=1)(with_pin)

    assert repr(app) == "<App 'crawler' handlers=[plain, with_pin]>"


def test_errors_share_one_base() -> None:
    """A program that embeds pyworkers can catch all of its errors at once."""
    with pytest.raises(PyworkersError):
        App("two words")


def test_generator_in_disguise_is_refused() -> None:
    """An object whose `__call__` is a generator would never run its body either."""

    class Lazy:
        def __call__(self) -> Any:
            yield

    with pytest.raises(DeclarationError, match="is a generator"):
        App("test").worker(pins=0)(Lazy())  # type: ignore[type-var]


def test_on_signal_without_a_function_traps_nothing() -> None:
    """Only a registered function makes a signal mean something."""
    app = App("test")
    app.on_signal(signal.SIGUSR1)

    assert declaration_of(app).on_signal == {}


def test_negative_sleep_is_refused_as_by_time_sleep() -> None:
    """A ValueError, in a worker and out of one."""
    with pytest.raises(ValueError, match="from 0 on, got -1"):
        App("test").sleep(-1)


def test_pin_that_is_too_large_is_refused() -> None:
    """A PIN has to fit into a log line, and the error, too."""
    with pytest.raises(DeclarationError, match=r"must be at most 2147483647, got a value that cannot be shown \(int\)"):
        App("test").worker(pins=10**5000)(lambda: None)
