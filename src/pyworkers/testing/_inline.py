"""Runs a handler in this very process, on the runtime that a worker has, and counts its checkpoints.

What is the kernel's there is a script here: a signal arrives just before a checkpoint, and its trap is called. No
disposition of this process is touched, and the time that `App.sleep` takes is skipped.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Generator, Mapping

from pyworkers._core.records import record
from pyworkers._core.types import Attempt, Pid, Pin, Previous, shown
from pyworkers._declare import Declaration, WorkerSpec, name_of
from pyworkers._posix.channel import Channel
from pyworkers._settings import worker_settings
from pyworkers._worker.binding import IGNORED, Assignment, Binding
from pyworkers._worker.boot import run_async
from pyworkers._worker.outcome import code_of_exit, exit_code_of
from pyworkers.app import App, declaration_of, runtime_of
from pyworkers.errors import UsageError
from pyworkers.testing._scripted import STOPS, InlineRuntime, NotedCells, Stuck


@record
class HandlerResult:
    """What a handler did in `run_handler`.

    Attributes:
        exit_code: As the worker's: 143 after a stop, 131 after the interrupt, else what the handler returned.
        checkpoints: How many the handler has reached in its main thread, the one that stopped it included.
        units: What it told `App.unit`, in order.
        marks: The progress marks of `App.track`, in order: how many items were done, of how many.
        slept: The seconds that `App.sleep` was to take, in sum.
        stop_all: The code that it gave to `App.stop_all`; None where it did not call it.
    """

    exit_code: int
    checkpoints: int
    units: tuple[str, ...]
    marks: tuple[tuple[int, int | None], ...]
    slept: float
    stop_all: int | None


def run_handler(  # noqa: PLR0913  (keyword-only)
    app: App,
    handler: Callable[..., object],
    pin: int | None = None,
    *,
    stop_at: int | None = None,
    signals: Mapping[int, int] | None = None,
    previous: Previous | None = None,
    generation: int = 1,
    shard: tuple[int, int] | None = None,
    hooks: bool = True,
    sleep: Callable[[float], object] | None = None,
    time_limit: float = 10.0,
) -> HandlerResult:
    """Call a handler in this very process, as its worker would, and return what it did.

    A signal arrives just before a checkpoint, so that `stop_at=1` stops the handler at its first one. Checkpoints are
    those of `App.checkpoint`: also `sleep`, `wait`, each item of `track`, entering `interruptible`, and leaving the
    outermost `critical`. After `App.stop_all` the next one is a stop. `App.sleep` takes no time; `App.wait` does,
    where it waits for descriptors. A handler that reaches no checkpoint is not bounded by `time_limit`, nor is one that
    catches every BaseException and goes on.

    Args:
        app: What the handler is registered at. No other run of it may be going on.
        handler: The function below `@app.worker`; an async one is run in a loop of its own.
        pin: By default the first that the handler has, and 0 for one without `pins`.
        stop_at: The checkpoint at which TERM stops the handler; by default none.
        signals: For other signals, the checkpoint at which each arrives: `{3: signal.SIGUSR1}`.
        previous: What `App.previous` shall be; by default None, as in the first worker of a PIN.
        generation: What `App.generation` shall be.
        shard: What `App.shard` shall be.
        hooks: Whether the `on_worker_warm`, `on_worker_start` and `on_worker_exit` functions run around the handler.
        sleep: Is called instead of sleeping, with the seconds; by default nothing is.
        time_limit: In seconds, for a handler that does not end.

    Raises:
        TimeoutError: The handler has not ended within `time_limit`, as far as that bounds it, or waits for ever.
        UsageError: The app has no such handler, or this handler no such PIN, or the script makes no sense.
        Exception: What the handler or a hook raised, where that is no exit.

    Example:
        >>> app = App("crawler")
        >>> @app.worker(pins=range(3))
        ... def crawl(pin: int) -> None:
        ...     for number in app.track(range(10)):
        ...         app.unit(f"page {number}")
        >>> result = run_handler(app, crawl, stop_at=3)
        >>> result.exit_code, result.checkpoints, result.units
        (143, 3, ('page 0', 'page 1'))
    """
    declaration = declaration_of(app)
    spec = _spec_of(declaration, handler)
    place = _pin_of(spec, pin)
    script = _script(declaration, stop_at, signals or {})
    if declaration.closed or runtime_of(app).place.pin is not None:
        raise UsageError("run_handler was called while the app runs already")
    runtime = InlineRuntime(app, script, sleep, time_limit)
    cells, channel = NotedCells(), Channel()
    with contextlib.ExitStack() as stack:
        stack.callback(cells.close)
        stack.callback(channel.close)
        stack.enter_context(_lent(app, runtime))
        binding = Binding(
            handler=1,
            # Whatever is not this process: a worker is told from its master by it.
            master=Pid(os.getppid()),
            cooperative=worker_settings({**declaration.options, **spec.options}).cooperative,
            stop_timeout=0.0,
            is_watched=False,
            functions=declaration.on_signal,
            cells=cells,
            channel=channel,
            dump_descriptor=-1,
        )
        who = place, Attempt(1 if previous is None else previous.attempt + 1)
        runtime.place.shard = shard
        runtime.bind(binding, who, Assignment(*who, 0, generation, previous))
        try:
            code = _run(runtime, spec, place, declaration if hooks else Declaration({}))
        except Stuck as stuck:
            raise TimeoutError(f"handler '{spec.name}' {stuck}") from stuck
        asked = [told.number for told in channel.read()]
    return HandlerResult(
        int(code), runtime.count, tuple(cells.units), tuple(cells.marks), runtime.slept, asked[0] if asked else None
    )


def _run(runtime: InlineRuntime, spec: WorkerSpec, pin: Pin, hooks: Declaration) -> int:
    """Do what a worker does with its functions, in its order."""
    try:
        try:
            runtime.prepare()
            for function in hooks.on_worker_warm:
                function()
            for pin_function in hooks.on_worker_start:
                pin_function(pin)
            runtime.begin()
            return exit_code_of(run_async(runtime, spec.call, pin) if spec.is_async else spec.call(pin))
        finally:
            runtime.end()
    except SystemExit as end:
        return code_of_exit(end)
    finally:
        for pin_function in hooks.on_worker_exit:
            pin_function(pin)


def _spec_of(declaration: Declaration, handler: Callable[..., object]) -> WorkerSpec:
    for spec in declaration.handlers:
        if spec.function is handler:
            return spec
    known = ", ".join(f"'{spec.name}'" for spec in declaration.handlers) or "none"
    raise UsageError(f"'{name_of(handler)}' is no handler of the app; its handlers are {known}")


def _pin_of(spec: WorkerSpec, pin: int | None) -> Pin:
    pins = spec.claim.pins
    if pin is None:
        return Pin(0) if pins is None else pins[0]
    if not isinstance(pin, int) or isinstance(pin, bool) or pin < 0 or (pins is not None and pin not in pins):
        raise UsageError(f"handler '{spec.name}' does not take PIN {shown(pin)}")
    return Pin(pin)


def _script(declaration: Declaration, stop_at: int | None, given: Mapping[int, int]) -> dict[int, list[int]]:
    """Return what arrives at which checkpoint; a stop last, so that what comes with it is not lost."""
    script = {checkpoint: [int(signum)] for checkpoint, signum in given.items()}
    if stop_at is not None:
        script.setdefault(stop_at, []).append(signal.SIGTERM)
    for checkpoint, signums in script.items():
        if not isinstance(checkpoint, int) or isinstance(checkpoint, bool) or checkpoint < 1:
            raise UsageError(f"checkpoints are counted from 1, got {shown(checkpoint)}")
        for signum in signums:
            if signum not in (*STOPS, *IGNORED, signal.SIGINT, *declaration.on_signal):
                raise UsageError(f"signal {shown(signum)} has no on_signal function: it would end the worker")
    return script


@contextlib.contextmanager
def _lent(app: App, runtime: InlineRuntime) -> Generator[None]:
    """Let the app have this runtime meanwhile; what the handler forks is a plain process, as in a worker."""
    own = app._runtime
    app._runtime = runtime
    _running.append(runtime)
    try:
        yield
    finally:
        _running.remove(runtime)
        runtime.close()
        app._runtime = own


_running: list[InlineRuntime] = []


def _release_in_child() -> None:
    for runtime in _running:
        runtime.release()


# There is no taking it back, so once for all runs.
os.register_at_fork(after_in_child=_release_in_child)
