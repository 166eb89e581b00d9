"""A worker's life: the first lines after fork, the handler, its outcome as an exit code, and a clean end.

Runs in the child only. The order of the prologue is the point of it: every signal is blocked until the traps stand,
so that none is lost and none runs the master's trap in the wrong process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pyworkers._core.types import Pid
from pyworkers._logs import Sink, SinkHandler
from pyworkers._posix import process, signals
from pyworkers._posix.channel import Channel, Word
from pyworkers._worker.binding import Binding
from pyworkers._worker.runtime import Runtime
from pyworkers.errors import ExitCode, Stop

PinFunction = Callable[[int], object]
"""A user's function, whether it was declared with the `pin` parameter or without."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of a process needs, that of a worker or of a notice."""

    runtime: Runtime
    log: logging.Logger
    sink: Sink


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs to know; composed before the fork.

    Attributes:
        handler_name: For logs and the environment.
        handler: Runs the user's handler; an async one returns its coroutine.
        on_start: The `on_worker_start` functions.
        on_exit: The `on_worker_exit` functions.
        environ: What to set in the environment; None removes.
    """

    binding: Binding
    runtime: Runtime
    handler_name: str
    handler: PinFunction
    is_async: bool
    on_start: Sequence[PinFunction]
    on_exit: Sequence[PinFunction]
    environ: Mapping[str, str | None]
    log: logging.Logger
    sink_handler: SinkHandler


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What every child of the master gets from it, and what of that it has to drop.

    Attributes:
        mask: The signal mask that user code shall see: the one that the master was started with.
        null: A descriptor of /dev/null, the child's stdin.
        dropped: The master's own descriptors.
    """

    master: Pid
    mask: frozenset[int]
    null: int
    dropped: tuple[int, ...]
    channel: Channel


def run_worker(job: Job, inheritance: Inheritance) -> int:
    """Live as a worker, and return the exit code."""
    runtime, pin = job.runtime, job.binding.pin
    runtime.bind(job.binding)
    if not _settle_in(inheritance, runtime.traps(), signal.SIGTERM):
        return ExitCode.STOPPED
    job.sink_handler.prefix = f"{job.handler_name} pin={pin}: "
    job.sink_handler.sink.become_worker()
    _set_environment(job.environ)
    _forget_exit_functions()
    os.register_at_fork(after_in_child=runtime.unbind)
    signals.unblock(inheritance.mask)
    code = _work(job, inheritance)
    ending = Ending(runtime, job.log, job.sink_handler.sink)
    for function in job.on_exit:
        code = _guarded(ending, "on_worker_exit", code, functools.partial(function, pin))
    return _end(ending, code)


def run_notice(
    functions: Sequence[Callable[[], object]], inheritance: Inheritance, log: logging.Logger, sink: Sink
) -> int:
    """Live as the short-lived process that tells a failure to the `on_failure` functions."""
    traps: dict[int, signals.Trap] = dict.fromkeys(signals.MANAGED, signals.DEFAULT)
    traps[signal.SIGINT] = signals.IGNORE
    if not _settle_in(inheritance, traps, signal.SIGKILL):
        return ExitCode.STOPPED
    sink.become_worker()
    _forget_exit_functions()
    signals.unblock(inheritance.mask)
    ending = Ending(Runtime(), log, sink)
    code: int = ExitCode.OK
    for function in functions:
        code = _guarded(ending, "on_failure", code, function)
    return _end(ending, code)


def run_inline(handler: PinFunction, pin: int, *, is_async: bool) -> int:
    """Run a handler in this very process, for a debugger: what it raises is not caught."""
    result = handler(pin)
    if is_async:
        import asyncio

        result = asyncio.run(_awaited(result))
    return exit_code_of(result)


def exit_code_of(result: object) -> int:
    """Return the exit code that a handler's result means.

    Raises:
        TypeError: It is no exit code.
    """
    if result is None:
        return ExitCode.OK
    if isinstance(result, int) and not isinstance(result, bool) and 0 <= result <= 255:
        return result
    raise TypeError(f"a handler returns None or an exit code of 0 to 255, got {result!r:.80} ({type(result).__name__})")


def _settle_in(inheritance: Inheritance, traps: Mapping[int, signals.Trap], death_signal: int) -> bool:
    """Cut what ties this process to the master; return whether the master still lives."""
    signals.forget_wakeup()
    signals.install(traps)
    alive = process.die_with_parent(inheritance.master, death_signal)
    for descriptor in inheritance.dropped:
        os.close(descriptor)
    inheritance.channel.become_worker()
    os.dup2(inheritance.null, 0)
    # Not every object that stands in for stdout can do it.
    reconfigure: Any = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # Closed by the module, or its other end is gone: whoever prints will be told.
        with contextlib.suppress(OSError, ValueError):
            reconfigure(line_buffering=True)
    return alive


def _work(job: Job, inheritance: Inheritance) -> int:
    runtime, pin = job.runtime, job.binding.pin
    what = "on_worker_start"
    try:
        try:
            for function in job.on_start:
                function(pin)
            # setuid in a hook has cleared the parent-death signal.
            if job.on_start and not process.die_with_parent(inheritance.master, signal.SIGTERM):
                return ExitCode.STOPPED
            inheritance.channel.tell(Word.UP)
            what = f"handler {job.handler_name}"
            runtime.begin()
            return exit_code_of(_run_async(job) if job.is_async else job.handler(pin))
        finally:
            runtime.end()
    except BaseException as error:  # noqa: BLE001  (whatever a handler raises becomes an exit code, here and nowhere else)
        runtime.end()
        return _code_of_exception(job.log, what, error)


def _run_async(job: Job) -> object:
    # Loaded before the fork where a handler is async.
    import asyncio

    async def main() -> object:
        task = asyncio.current_task()
        assert task is not None
        with job.runtime.inside_loop(asyncio.get_running_loop(), task):
            return await _awaited(job.handler(job.binding.pin))

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        code = job.runtime.stop_code
        if code is None:
            raise
        raise Stop(code) from None


async def _awaited(result: object) -> object:
    assert isinstance(result, Awaitable)
    return await cast("Awaitable[object]", result)


def _code_of_exception(log: logging.Logger, what: str, error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        _log_exception(log, what, error)
        return ExitCode.FAILED
    code = error.code
    if code is None:
        return ExitCode.OK
    if isinstance(code, int):
        # What exit(3) leaves of it; but 256 must not become the 0 of a normal end.
        return code & 0xFF or (ExitCode.FAILED if code else ExitCode.OK)
    log.error("%s exits: %s", what, code)
    return ExitCode.FAILED


def _end(ending: Ending, code: int) -> int:
    """Do what the interpreter does at its end, in its order, for os._exit will not."""
    code = _guarded(ending, "threading", code, threading._shutdown)  # type: ignore[attr-defined]
    code = _guarded(ending, "atexit", code, atexit._run_exitfuncs)
    code = _guarded(ending, "flushing the standard streams", code, process.flush_standard_streams)
    ending.sink.flush()
    return code


def _guarded(ending: Ending, step: str, code: int, function: Callable[[], object]) -> int:
    """Run a step of the end; what it raises is logged, and makes an end that was fine a failure."""
    try:
        with ending.runtime.step():
            function()
    except Stop:
        # The interrupt: this step is cut, the next one is not.
        return ending.runtime.stop_code or code
    except BaseException as error:  # noqa: BLE001  (the steps after it have to run)
        _log_exception(ending.log, step, error)
        return code or ExitCode.FAILED
    return code


def _log_exception(log: logging.Logger, what: str, error: BaseException) -> None:
    log.error("%s raised", what, exc_info=(type(error), error, error.__traceback__))


def _set_environment(environ: Mapping[str, str | None]) -> None:
    for name, value in environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _forget_exit_functions() -> None:
    """Make the exit functions of this process its own.

    Inherited ones would remove the master's temporary directory; a bare os._exit would lose what a
    multiprocessing.Queue of the worker still holds. What the standard library registers for itself at import is
    registered anew, because those modules are loaded already; it runs after the worker's own.
    """
    atexit._clear()
    atexit.register(logging.shutdown)
    finalizers: Any = weakref.finalize
    finalizers._registry.clear()
    finalizers._registered_with_atexit = False
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)
    children: Any = sys.modules.get("multiprocessing.process")
    if children is not None:
        children._children = set()
