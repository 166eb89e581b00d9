"""The composition root: the only module that knows every room. It builds, and everything else receives."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import math
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Mapping

from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Attempt, FailureRecord, Pid, Pin, SlotPlan
from pyworkers._declare import Declaration, WorkerSpec
from pyworkers._logs import Sink, SinkHandler, StderrSink, SyslogSink
from pyworkers._master.entry import Entry, Gate, enter, held_by
from pyworkers._master.execute import Crew, Executor
from pyworkers._master.loop import Loop
from pyworkers._options import OPTIONS
from pyworkers._plan import Plan, plan
from pyworkers._posix import process, signals
from pyworkers._posix.cells import Cells
from pyworkers._posix.channel import Channel
from pyworkers._posix.kernel import PosixKernel
from pyworkers._posix.lockfile import LockFile
from pyworkers._posix.signals import Interrupted, MasterSignals
from pyworkers._settings import WorkerSettings
from pyworkers._worker import boot
from pyworkers._worker.binding import Binding
from pyworkers.app import App, declaration_of, runtime_of
from pyworkers.errors import ExitCode, LockError, PyworkersError, UsageError


def main(app: App, given: Mapping[str, object], only: int | None = None, *, inline: bool = False) -> int:
    """Run the app and return the exit code, a plain int; an error becomes one line."""
    try:
        with _closed(app):
            return int(_Instance(app, plan(declaration_of(app), given, only)).run(inline=inline))
    except PyworkersError as error:
        complain(error)
        return int(ExitCode.USAGE)


def complain(error: object) -> None:
    """Write one line to stderr, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            # One line, also where a file's name or an exception's text holds several.
            sys.stderr.write(f"pyworkers: error: {' '.join(str(error).splitlines())}\n")
            sys.stderr.flush()


@contextlib.contextmanager
def _closed(app: App) -> Generator[None]:
    """Take no registrations while the app runs, and no second run."""
    declaration = declaration_of(app)
    if runtime_of(app).pin is not None:
        raise UsageError("app.run() was called inside a worker; put it under if __name__ == '__main__'")
    if declaration.closed:
        raise UsageError("app.run() was called while the app runs already")
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("app.run() must be called in the main thread: only there can Python take signals")
    declaration.closed = True
    try:
        yield
    finally:
        declaration.closed = False


class _Instance:
    """One instance on its way through start, loop and end."""

    def __init__(self, app: App, decided: Plan) -> None:
        self._app = app
        self._plan = decided
        self._declaration: Declaration = declaration_of(app)
        self._ready: tuple[int, int] | None = None
        self._lock: LockFile | None = None

    def run(self, *, inline: bool) -> int:
        """Enter, run, and leave nothing behind."""
        if inline and self._plan.run.daemon:
            raise UsageError("--inline and --daemon (or PYWORKERS_DAEMON) exclude each other")
        process.open_standard_streams()
        if self._plan.instance.lock_file is not None:
            self._lock = LockFile(self._plan.instance.lock_file)
        try:
            with self._logging():
                with MasterSignals() as trapped:
                    code = self._enter(trapped)
                    if code is None and not inline:
                        code = self._supervise(trapped)
                return self._inline() if code is None else code
        finally:
            if self._lock is not None:
                self._lock.close()

    def _log(self, level: int, line: str) -> None:
        self._app.log.log(level, "%s", line)

    @contextlib.contextmanager
    def _logging(self) -> Generator[None]:
        """Lead the app's logger to our sink for the time of the run."""
        log, instance = self._app.log, self._plan.instance
        before = log.level, log.propagate
        sink, missing = self._open_sink()
        self._handler = SinkHandler(sink)
        log.addHandler(self._handler)
        log.setLevel(logging.DEBUG if instance.debug else logging.INFO)
        log.propagate = False
        if missing is not None:
            # A daemon has no stderr to fall back to.
            instead = "the daemon will have no log" if self._plan.run.daemon else "logging to stderr"
            self._log(logging.WARNING, f"no syslog at {self._plan.run.syslog}: {missing}; {instead}")
        try:
            # Python 3.12 warns at each fork of a process with threads; where warnings are errors, that error would
            # come after the fork, and cost us the pid.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                yield
        finally:
            log.removeHandler(self._handler)
            log.setLevel(before[0])
            log.propagate = before[1]
            self._handler.sink.close()

    def _open_sink(self) -> tuple[Sink, Exception | None]:
        name, address = self._plan.instance.name, self._plan.run.syslog
        if address is None:
            return StderrSink(name), None
        try:
            return SyslogSink(name, address), None
        except (OSError, UnicodeError) as error:
            return StderrSink(name), error

    def _enter(self, trapped: MasterSignals) -> int | None:
        """Become the one instance, in the process that stays; return None, or the code to leave with."""
        run = self._plan.run
        if self._lock is not None:
            wait_s = 0.0 if run.if_running != "wait" else math.inf if run.wait_s is None else run.wait_s
            stop_timeout = max(worker.stop_timeout for worker in self._plan.workers)
            entry, tenure = enter(Gate(self._lock, trapped, stop_timeout, self._log), wait_s)
            if entry is Entry.STOPPED:
                return ExitCode.OK
            if tenure is not None:
                # cron mails every line that a job prints.
                quiet = run.if_running == "exit" and not (self._plan.instance.debug or os.isatty(2))
                if not quiet:
                    self._log(logging.WARNING, f"already running: {held_by(self._lock, tenure)}")
                return ExitCode.OK if run.if_running == "exit" else ExitCode.BUSY
        if run.daemon:
            self._detach()
        if self._lock is not None:
            self._sign(self._lock)
        return None

    def _sign(self, lock: LockFile) -> None:
        try:
            lock.sign(self._plan.instance.name)
        except OSError as error:
            why = f"cannot write who holds it to lock file {lock.path}: {os.strerror(error.errno or 0)}"
            # Of a daemon, only what is written there proves to the next instance that it lives.
            if self._plan.run.daemon:
                self._log(logging.ERROR, why)
                raise LockError(why) from error
            self._log(logging.WARNING, why)

    def _detach(self) -> None:
        reader, writer = os.pipe()

        def ready() -> int:
            signals.install(dict.fromkeys(signals.STOPPING, signals.DEFAULT))
            os.close(writer)
            told = os.read(reader, 1)
            if told != b"1":
                how = "a worker ended before it was up" if told else "the daemon ended before its workers were up"
                complain(f"{self._plan.instance.name}: {how}; its log says why")
            return ExitCode.OK if told == b"1" else ExitCode.FAILED

        try:
            process.detach(ready)
        except OSError as error:
            raise LockError(f"cannot become a daemon: {os.strerror(error.errno or 0)}") from error
        os.close(reader)
        self._ready = (reader, writer)
        if isinstance(self._handler.sink, StderrSink):
            # Not the terminal's any more: it would keep ssh(1) and $(...) waiting.
            self._handler.sink.close()
            self._handler.sink = StderrSink(self._plan.instance.name)

    def _announce(self, up: bool) -> None:
        if self._ready is not None:
            with contextlib.suppress(OSError):
                os.write(self._ready[1], b"1" if up else b"0")

    def _supervise(self, trapped: MasterSignals) -> int:
        try:
            with trapped.raising(signals.STOPPING):
                for function in self._declaration.on_start:
                    function()
        except Interrupted as stop:
            self._log(logging.INFO, f"stopped in on_start reason={process.signal_name(stop.signum)}")
            return ExitCode.OK
        except Exception:
            self._app.log.exception("on_start raised; nothing was started")
            return ExitCode.USAGE
        # From here on the master writes nothing to them, so no child can write it again.
        try:
            process.flush_standard_streams()
        except OSError as error:
            self._log(logging.ERROR, f"cannot write to stdout or stderr: {os.strerror(error.errno or 0)}")
        code = self._loop(trapped)
        try:
            with trapped.raising({signals.INTERRUPT, signals.QUIT}):
                for function in self._declaration.on_stop:
                    function()
        except Interrupted as stop:
            self._log(logging.WARNING, f"on_stop was cut short reason={process.signal_name(stop.signum)}")
            return code or ExitCode.FAILED
        except Exception:
            self._app.log.exception("on_stop raised")
            return code or ExitCode.FAILED
        return code

    def _loop(self, trapped: MasterSignals) -> int:
        handlers, assignment = self._declaration.handlers, self._plan.assignment
        if any(spec.is_async for spec in handlers):
            # Loaded once, here, instead of once in each worker.
            importlib.import_module("asyncio")
        with contextlib.ExitStack() as stack:
            cells = Cells(len(handlers), len(assignment))
            stack.callback(cells.close)
            channel = Channel()
            stack.callback(channel.close)
            null = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, null)
            dropped = (*trapped.descriptors(), *(self._ready[1:] if self._ready else ()))
            mask = trapped.inherited_mask - signals.MANAGED
            inheritance = boot.Inheritance(Pid(os.getpid()), mask, null, dropped, channel)
            seats = {pin: seat for seat, pin in enumerate(assignment)}
            crew = Crew(
                worker_main=self._worker_main(cells, inheritance, seats),
                notice_main=self._notice_main(inheritance) if self._declaration.on_failure else None,
                handlers={pin: handlers[place].name for pin, place in assignment.items()},
                clear=lambda pin: cells.clear(seats[pin]),
                trace=lambda pin: cells.read(seats[pin]),
                announce=self._announce,
                log=self._log,
            )
            core = Supervisor(
                [self._slot_plan(pin, self._plan.workers[place]) for pin, place in assignment.items()],
                jitter=lambda delay_s: delay_s * random.uniform(0.5, 1.0),  # noqa: S311  (no secret)
            )
            kernel = PosixKernel(trapped, channel)
            return Loop(core, kernel, Executor(kernel, crew), self._handler).run()

    def _slot_plan(self, pin: Pin, worker: WorkerSettings) -> SlotPlan:
        return SlotPlan(pin, self._plan.instance.normal_exit_codes, worker.backoff, worker.stop_timeout)

    def _worker_main(
        self, cells: Cells, inheritance: boot.Inheritance, seats: Mapping[Pin, int]
    ) -> Callable[[Pin, Attempt], Callable[[], int]]:
        declaration, decided = self._declaration, self._plan

        def worker_main(pin: Pin, _attempt: Attempt) -> Callable[[], int]:
            place = decided.assignment[pin]
            spec, worker = declaration.handlers[place], decided.workers[place]
            binding = Binding(
                pin=pin,
                seat=seats[pin],
                handler=place,
                master=inheritance.master,
                cooperative=worker.cooperative,
                stop_timeout=worker.stop_timeout,
                functions=declaration.on_signal,
                cells=cells,
                channel=inheritance.channel,
                dump_descriptor=self._handler.sink.dump_descriptor(),
            )
            job = boot.Job(
                binding=binding,
                runtime=runtime_of(self._app),
                handler_name=spec.name,
                handler=spec.call,
                is_async=spec.is_async,
                on_start=declaration.on_worker_start,
                on_exit=declaration.on_worker_exit,
                environ=self._environ(spec, pin, inheritance.master),
                log=self._app.log,
                sink_handler=self._handler,
            )
            return lambda: boot.run_worker(job, inheritance)

        return worker_main

    def _notice_main(self, inheritance: boot.Inheritance) -> Callable[[FailureRecord], Callable[[], int]]:
        functions = self._declaration.on_failure

        def notice_main(record: FailureRecord) -> Callable[[], int]:
            calls = [functools.partial(function, record) for function in functions]
            return lambda: boot.run_notice(calls, inheritance, self._app.log, self._handler.sink)

        return notice_main

    def _environ(self, spec: WorkerSpec, pin: Pin, master: Pid) -> dict[str, str | None]:
        # The option variables go: an instance that a worker starts must not inherit them.
        return {
            **{option.variable: None for option in OPTIONS.values()},
            "PYWORKERS_WORKER_NAME": self._plan.instance.name,
            "PYWORKERS_WORKER_PIN": str(pin),
            "PYWORKERS_WORKER_HANDLER": spec.name,
            "PYWORKERS_WORKER_MASTER_PID": str(master),
        }

    def _inline(self) -> int:
        """Call the one PIN's handler in this very process, its hooks around it, with Python's own signals."""
        ((pin, place),) = self._plan.assignment.items()
        spec, declaration = self._declaration.handlers[place], self._declaration
        with runtime_of(self._app).inline(pin):
            for function in declaration.on_start:
                function()
            try:
                for pin_function in declaration.on_worker_start:
                    pin_function(pin)
                return boot.run_inline(spec.call, pin, is_async=spec.is_async)
            finally:
                for pin_function in declaration.on_worker_exit:
                    pin_function(pin)
                for function in declaration.on_stop:
                    function()
