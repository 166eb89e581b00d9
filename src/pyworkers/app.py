"""App: what a user declares, and the façade of what a handler can ask for. It holds no logic of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pyworkers._core.types import Previous
from pyworkers._declare import Declaration, calling_module, name_of
from pyworkers._settings import declared
from pyworkers._worker.flag import Flag
from pyworkers._worker.runtime import Runtime
from pyworkers._worker.sections import Critical, Interruptible
from pyworkers._worker.tracking import track
from pyworkers.errors import DeclarationError, ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    import os
    from typing import TypeVar

    from typing_extensions import Never, Unpack

    from pyworkers._declare import FailureFunction, Handler, PinFunction, PlainFunction
    from pyworkers._settings import WorkerOptions
    from pyworkers._worker.wakeups import Waitable

    AnyHandler = TypeVar("AnyHandler", bound=Handler)
    MasterHook = TypeVar("MasterHook", bound=PlainFunction)
    PinHook = TypeVar("PinHook", bound=PinFunction | PlainFunction)
    FailureHook = TypeVar("FailureHook", bound=FailureFunction)
    SignalFunction = TypeVar("SignalFunction", bound=PlainFunction)
    T = TypeVar("T")


class App(Flag):
    """A set of handlers, each kept running on its PINs (process index numbers, from 0).

    Every option has a flag (`--lock-file`) and a variable (`PYWORKERS_LOCK_FILE`); a flag beats a variable beats this.
    Options of `@app.worker` given here are the defaults of every handler; what stands at a handler beats them all.

    Args:
        name: Of the instance, in logs; by default the name of the module that makes the App.
        workers: The number of PINs for the handler without `pins`; None where each handler names its own.
        normal_exit_codes: An exit code or several after which a PIN is done; by default 0, the original's.
        permanent_failure_codes: Exit codes after which a PIN has failed and is not started again; by default none.
        lock_file: Allows a single instance, by an flock(2) that the workers share; by default none.
        strict: Refuse to start where the fork-safety audit finds something; by default it warns.
        debug: Log at level DEBUG instead of INFO, and show the tracebacks of an app that cannot be imported.
        worker_defaults: `restart` ("on-failure" by default, "always" or "never"); `backoff` (seconds: first delay and
            longest, by default 0.1 and 30); `max_restarts` in `restart_period` (by default unlimited, and 60 seconds);
            `stop_timeout` (seconds from TERM to KILL, by default 8); `cooperative` (whether TERM waits for a
            checkpoint, by default found out); `hang_timeout` (the longest time between two checkpoints), `max_runtime`
            (seconds) and `max_rss` (private memory, in bytes or "300M"), all off by default; `kill_group` (whether
            what a worker has started ends with it, by default True); `group` (a name) and `strategy` ("one" by
            default; "all" restarts all of the group when one fails); `spares` (processes of each handler that have run
            `on_worker_warm` and wait for a PIN, by default 0).

    Raises:
        DeclarationError: An option is unknown or has a bad value.

    Example:
        >>> app = App("crawler", lock_file="/run/lock/crawler.lock")
        >>> @app.worker(pins=range(0, 3))
        ... def crawl(pin: int) -> None:
        ...     for page in range(10):
        ...         app.checkpoint()
    """

    def __init__(  # noqa: PLR0913  (keyword-only)
        self,
        name: str | None = None,
        *,
        workers: int | None = None,
        normal_exit_codes: int | Iterable[int] = (0,),
        permanent_failure_codes: int | Iterable[int] = (),
        lock_file: str | os.PathLike[str] | None = None,
        strict: bool = False,
        debug: bool = False,
        **worker_defaults: Unpack[WorkerOptions],
    ) -> None:
        given: dict[str, object] = {
            "name": calling_module() if name is None else name,
            "workers": workers,
            "normal_exit_codes": normal_exit_codes,
            "permanent_failure_codes": permanent_failure_codes,
            "lock_file": lock_file,
            "strict": strict,
            "debug": debug,
            **worker_defaults,
        }
        self._declaration = Declaration(declared(given, ("instance", "worker"), "App"))
        super().__init__()
        self._runtime = Runtime(self)
        self._log: logging.Logger | None = None

    def __repr__(self) -> str:
        names = ", ".join(spec.name for spec in self._declaration.handlers)
        return f"<App {self._declaration.options['name']!r} handlers=[{names}]>"

    # Declaring

    def worker(
        self, *misused: Never, pins: int | Iterable[int] | None = None, **options: Unpack[WorkerOptions]
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Register a handler for its PINs, and return it unchanged.

        Args:
            misused: Nothing; it is here to tell a decorator without parentheses from others.
            pins: An int, a range or any iterable of ints; without it, the handler takes every PIN of `range(workers)`
                that no other handler claims.
            options: As on App, for this handler.

        Raises:
            DeclarationError: The pins, an option or the function is wrong, or the app runs already.
        """
        if misused:
            name = name_of(misused[0])
            raise DeclarationError(f"@app.worker needs parentheses: write @app.worker(pins=...) above '{name}'")

        def register(function: AnyHandler) -> AnyHandler:
            self._declaration.add_worker(function, pins, options)
            return function

        return register

    def on_start(self, function: MasterHook) -> MasterHook:
        """Run the function in the master, with the lock held, before the first fork. Use it bare: `@app.on_start`."""
        self._declaration.add_hook(self._declaration.on_start, function, "on_start")
        return function

    def on_stop(self, function: MasterHook) -> MasterHook:
        """Run the function in the master after the last worker is gone. It may wait for subprocesses of its own."""
        self._declaration.add_hook(self._declaration.on_stop, function, "on_stop")
        return function

    def on_worker_warm(self, function: MasterHook) -> MasterHook:
        """Run the function in each process before it has a PIN: load models and fill caches here.

        With `spares`, processes that have done this wait to take any PIN of their handler.
        """
        self._declaration.add_hook(self._declaration.on_worker_warm, function, "on_worker_warm")
        return function

    def on_worker_start(self, function: PinHook) -> PinHook:
        """Run the function in each worker before its handler, with the PIN: open database connections here."""
        self._declaration.add_hook(self._declaration.on_worker_start, function, "on_worker_start", "pin")
        return function

    def on_worker_exit(self, function: PinHook) -> PinHook:
        """Run the function in each worker, with the PIN, on every way out that Python sees."""
        self._declaration.add_hook(self._declaration.on_worker_exit, function, "on_worker_exit", "pin")
        return function

    def on_failure(self, function: FailureHook) -> FailureHook:
        """Run the function for each abnormal end of a worker, with a `FailureRecord`.

        It runs in a short-lived process of its own, one failure at a time, and is killed after 10 seconds.
        """
        self._declaration.add_hook(self._declaration.on_failure, function, "on_failure", "record")
        return function

    def on_signal(self, signum: int) -> Callable[[SignalFunction], SignalFunction]:
        """Run the function in the worker's main thread at its next checkpoint after this signal: signal(7).

        HUP, USR1, USR2, TTIN, TTOU and WINCH are ignored in a worker without such a function. USR1 and USR2 sent to
        the master are passed on to every worker.

        Raises:
            DeclarationError: The signal is unknown, or one that pyworkers or the kernel keeps for itself.
        """
        self._declaration.check_signal(signum)

        def register(function: SignalFunction) -> SignalFunction:
            self._declaration.add_signal(signum, function)
            return function

        return register

    # In a handler

    @property
    def pin(self) -> int | None:
        """The PIN of this worker; None outside of one."""
        return self._runtime.place.pin

    @property
    def shard(self) -> tuple[int, int] | None:
        """K and N of `--shard`, in hooks and handlers; None where this instance runs all PINs."""
        return self._runtime.place.shard

    @property
    def generation(self) -> int:
        """The number of this attempt, larger than that of any earlier attempt of this instance; 0 outside a worker.

        It grows across masters, too, so that a database can refuse the late write of a worker that was replaced. It is
        kept in a file beside the lock.

        Raises:
            UsageError: The app has no `lock_file`.
            LockError: The number could not be written down: the disk is full.
        """
        return self._runtime.place.generation

    @property
    def previous(self) -> Previous | None:
        """How the worker before this one ended, and the unit that it was at; None for the first of its PIN."""
        return self._runtime.place.previous

    @property
    def log(self) -> logging.Logger:
        """A standard logger; in a worker its lines carry handler, PIN and pid."""
        if self._log is None:
            import logging

            log = logging.getLogger(f"pyworkers.{self._declaration.options['name']}")
            if self._runtime.journal is not None:
                self._runtime.journal.lead(log)
            # Last, so that no thread logs to one that leads nowhere yet.
            self._log = log
        return self._log

    def checkpoint(self) -> None:
        """Dispatch pending signals, between two units of work: this is where a stop is raised.

        `sleep`, `wait`, `track`, and the edges of `critical` and `interruptible` are checkpoints, too. Outside a worker
        it does nothing.

        Raises:
            Stop: A stop is due. In an async handler the handler's task is cancelled instead.
        """
        if self._pending:
            self._runtime.dispatch()

    def sleep(self, seconds: float) -> None:
        """Sleep, but wake the moment a stop is due; other signals are dispatched and the sleep goes on.

        Raises:
            Stop: A stop is due.
            RuntimeError: An asyncio loop is running in this thread.
            ValueError: `seconds` is negative.
        """
        self._runtime.sleep(seconds)

    def wait(self, fds: Iterable[Waitable], timeout: float | None = None) -> list[Waitable]:
        """Wait until one of `fds` can be read, and return those that can, as `multiprocessing.connection.wait` does.

        Args:
            fds: Descriptors, or objects with `fileno()`.
            timeout: In seconds; None waits without end. Where it runs out, the list is empty.

        Raises:
            Stop: A stop is due; nothing was taken from what was waited for.
            RuntimeError: An asyncio loop is running in this thread.
        """
        return self._runtime.wait(fds, timeout)

    def interruptible(self) -> Interruptible:
        """Return a context in which a stop may cut a blocking call.

        Only where losing the call's result is harmless: elsewhere use `wait([fd])` and a non-blocking take.
        """
        return self._runtime.interruptible

    def critical(self) -> Critical:
        """Return a context that not even the interrupt cuts, only KILL.

        A checkpoint inside raises nothing; what is pending is raised on leaving the outermost block, but never over an
        exception in flight.
        """
        return self._runtime.critical

    def track(self, iterable: Iterable[T], total: int | None = None) -> Iterator[T]:
        """Yield the items, with a checkpoint before each and a progress mark after it.

        Args:
            iterable: An item is taken from it only after the checkpoint: a stop loses none.
            total: How many there are; by default `len(iterable)`, where that exists.
        """
        return track(iterable, total, self.checkpoint, self._runtime.place.mark)

    def unit(self, label: str) -> None:
        """Name the unit at work, in 230 bytes at most.

        If this worker dies, the master's log says which unit it was at, and to the next worker `previous` does.
        """
        self._runtime.place.unit(label)

    def stop_all(self, code: int = ExitCode.STOP_ALL) -> None:
        """Ask the master to stop the whole instance and to exit with `code`; by default the original's 254.

        It returns at once; the stop reaches this worker as any other.

        Raises:
            UsageError: The code is not an int of 0 to 255.
        """
        self._runtime.stop_all(code)

    def run(self) -> int:
        """Run the app as the command line does, and return the exit code of the master.

        Reads the PYWORKERS_ variables, not sys.argv. Must be called in the main thread.
        """
        from pyworkers import _compose

        return _compose.main(self, {})


def declaration_of(app: App) -> Declaration:
    """Return what the app declares; for `_compose`."""
    return app._declaration


def runtime_of(app: App) -> Runtime:
    """Return the app's runtime; for `_compose`."""
    return app._runtime
