"""One instance on its way: it enters, runs its loop, and leaves nothing behind. Composition, like `_compose`."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Generator

from pyworkers import _audit
from pyworkers._assembly import Parts, assembled
from pyworkers._core.types import Pid
from pyworkers._declare import Declaration, name_of
from pyworkers._inline import run_inline
from pyworkers._logs import DEBUG, ERROR, INFO, WARNING, Journal, Sink, may_log
from pyworkers._master.entry import Entry, Gate, enter, held_by
from pyworkers._origin import Beginning
from pyworkers._plan import Plan
from pyworkers._posix import hugepages, limits, process, signals
from pyworkers._posix.generations import Generations
from pyworkers._posix.lockfile import LockFile, reason
from pyworkers._posix.signals import Interrupted, MasterSignals
from pyworkers._readiness import Readiness
from pyworkers._sinks import StderrSink, SyslogSink, complain
from pyworkers.app import App, declaration_of, runtime_of
from pyworkers.errors import ExitCode, LockError, PyworkersError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._posix.identity import Identity
    from pyworkers._structured import Structure

GATHER_MIN_S = 1.0
"""How long the memory of a master may be made ready for its forks, however little time its loading has taken."""


class Instance:
    """One instance on its way through start, loop and end."""

    def __init__(self, app: App, decided: Plan, begin: Beginning, broken: str | None = None) -> None:
        self._app, self._plan = app, decided
        self._begin, self._broken = begin, broken
        self._declaration: Declaration = declaration_of(app)
        self._missing: Exception | None = None
        self._lock: LockFile | None = None
        self._generations: Generations | PyworkersError = UsageError(
            "app.generation needs App(lock_file=...): the number is kept beside the lock"
        )

    def run(self, *, inline: bool, leaving: bool) -> int:
        """Enter, run, and leave nothing behind."""
        if inline and self._plan.run.daemon:
            raise UsageError("--inline and --daemon (or PYWORKERS_DAEMON) exclude each other")
        if self._plan.run.prefix_output and self._plan.run.daemon:
            raise UsageError("--prefix-output and --daemon exclude each other: a daemon's streams are /dev/null")
        if signals.PROBE is None and any(worker.hang_timeout is not None for worker in self._plan.workers):
            raise UsageError("hang_timeout needs real-time signals, which this system does not have: leave it off")
        self._identity = self._find_identity(inline=inline)
        process.open_standard_streams()
        left, name = self._begin.inherited, self._plan.instance.name
        self._readiness = Readiness(
            self._plan.run, lambda how: complain(f"{name}: {how}; its log says why"), is_first=left is None
        )
        if self._plan.instance.lock_file is not None:
            self._lock = LockFile(self._plan.instance.lock_file, None if left is None else left.kept.lock)
        try:
            with self._logging():
                if self._begin.early is not None:
                    self._begin.early.tell_again()
                with MasterSignals(None if left is None else left.mask) as trapped:
                    code = self._enter(trapped) if left is None else None
                    if code is None and not inline:
                        code = self._supervise(trapped)
                    if code is not None and leaving:
                        trapped.be_deaf_after()
                return run_inline(self._app, self._plan) if code is None else code
        finally:
            if isinstance(self._generations, Generations):
                self._generations.close()
            if self._lock is not None:
                self._lock.close()
            self._readiness.close()

    def _find_identity(self, *, inline: bool) -> Identity | None:
        run = self._plan.run
        if run.user is None and run.unix_group is None and run.umask is None:
            return None
        from pyworkers._posix.identity import identity_of, lend_streams

        identity = identity_of(run.user, run.unix_group, run.umask)
        if identity is not None and identity.group is not None:
            if inline:
                raise UsageError(
                    "--inline runs the handler in this very process, which stays who it is: leave --user out"
                )
            lend_streams(identity)
        return identity

    def _log(self, level: int, line: str, error: BaseException | None = None) -> None:
        self._journal.write(level, line, error)

    @contextlib.contextmanager
    def _logging(self) -> Generator[None]:
        """Have a log for the time of the run, and lead the app's logger to it."""
        structure = self._structure()
        self._dress = None if structure is None else structure.line
        sink, level = self._open_sink(), DEBUG if self._plan.instance.debug else INFO
        self._journal = Journal(sink, level) if structure is None else structure.journal(sink, level)
        if "logging" in sys.modules or may_log(spec.function for spec in self._declaration.handlers):
            # Now rather than in each worker.
            self._journal.lead(self._app.log)
        runtime_of(self._app).journal, runtime_of(self._app).place.shard = self._journal, self._plan.shard
        try:
            # Python 3.12 warns at each fork of a process with threads; where warnings are errors, that error would
            # come after the fork, and cost us the pid.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                yield
        finally:
            runtime_of(self._app).journal = runtime_of(self._app).place.shard = None
            self._journal.close()

    def _structure(self) -> Structure | None:
        if self._plan.run.log_format == "text":
            return None
        from pyworkers._master.facts import facts_of
        from pyworkers._structured import Structure

        return Structure(self._plan.instance.name, facts_of)

    def _open_sink(self) -> Sink:
        name, address = self._plan.instance.name, self._plan.run.syslog
        try:
            if address is None:
                return StderrSink(name, dress=self._dress)
            return SyslogSink(name, address, dress=self._dress)
        except (OSError, UnicodeError) as error:
            self._missing = error
            return StderrSink(name, dress=self._dress)

    def _enter(self, trapped: MasterSignals) -> int | None:
        """Become the one instance, in the process that stays; return None, or the code to leave with."""
        run = self._plan.run
        if not self._plan.assignment:
            self._log(INFO, "no PINs for this shard; master exits")
            return ExitCode.OK
        if self._lock is not None:
            wait_s = 0.0 if run.if_running != "wait" else math.inf if run.wait_s is None else run.wait_s
            stop_timeout = max(worker.stop_timeout for worker in self._plan.workers)
            entry, tenure = enter(Gate(self._lock, trapped, stop_timeout, self._log), wait_s)
            if entry in (Entry.STOPPED, Entry.INTERRUPTED):
                return self._plan.cut_codes[entry is Entry.INTERRUPTED]
            if tenure is not None:
                # cron mails every line that a job prints.
                quiet = run.if_running == "exit" and not (self._plan.instance.debug or os.isatty(2))
                if not quiet:
                    self._log(WARNING, f"already running: {held_by(self._lock, tenure)}")
                return ExitCode.OK if run.if_running == "exit" else ExitCode.BUSY
            self._generations = self._numbers(self._lock)
        if self._missing is not None:
            # Only now: cron mails what a second instance prints. A daemon has no stderr to fall back to.
            instead = "the daemon will have no log" if run.daemon else "logging to stderr"
            self._log(WARNING, f"no syslog at {run.syslog}: {self._missing}; {instead}")
        if run.daemon:
            self._detach()
        if self._lock is not None:
            self._sign(self._lock)
        return None

    def _numbers(self, lock: LockFile) -> Generations | PyworkersError:
        path = f"{lock.path}.generation"
        try:
            return Generations(path)
        except OSError as error:
            # Like a full disk later on: whoever does not ask for a number can do without.
            why = f"app.generation has no numbers: cannot use generation file {path}: {reason(path, error)}"
            self._log(WARNING, why)
            return LockError(why)

    def _sign(self, lock: LockFile) -> None:
        try:
            lock.sign(self._plan.instance.name)
        except OSError as error:
            why = f"cannot write who holds it to lock file {lock.path}: {os.strerror(error.errno or 0)}"
            # Of a daemon, only what is written there proves to the next instance that it lives.
            if self._plan.run.daemon:
                self._log(ERROR, why)
                raise LockError(why) from error
            self._log(WARNING, why)

    def _detach(self) -> None:
        self._readiness.detach()
        self._journal.sink.become_master()
        if isinstance(self._journal.sink, StderrSink):
            # Not the terminal's any more: it would keep ssh(1) and $(...) waiting.
            self._journal.sink.close()
            self._journal.sink = StderrSink(self._plan.instance.name, dress=self._dress)

    def _supervise(self, trapped: MasterSignals) -> int:
        if self._lock is not None and self._begin.inherited is not None:
            self._generations = self._numbers(self._lock)
        # As process 1: left to us by what this process was before (execve(2)), so that nobody here waits for them.
        inherited = process.children() or frozenset()
        refusal = None if self._broken is not None else self._run_on_start(trapped)
        if refusal is not None:
            return refusal
        if "logging" in sys.modules:
            self._journal.lead(self._app.log)
        if self._audited() and self._plan.instance.strict and self._begin.inherited is None:
            return self._not_started("strict is on, and the fork-safety audit has found something")
        self._look_at_limits()
        # From here on the master writes nothing to them, so no child can write it again.
        try:
            process.flush_standard_streams()
        except OSError as error:
            self._log(ERROR, f"cannot write to stdout or stderr: {os.strerror(error.errno or 0)}")
        # Who has come since then was started by a hook, the last of the user's code to run in the master.
        started = process.children() if process.adopts() else None
        code = self._loop(trapped, None if started is None else started - inherited)
        if code is None:
            return ExitCode.USAGE
        try:
            with trapped.raising({signals.INTERRUPT, signals.QUIT}):
                for function in self._declaration.on_stop:
                    function()
        except Interrupted as stop:
            self._log(WARNING, f"on_stop was cut short reason={process.signal_name(stop.signum)}")
            return code or ExitCode.FAILED
        except (Exception, SystemExit) as error:  # noqa: BLE001  (as above)
            self._log(ERROR, "on_stop raised", error)
            return code or ExitCode.FAILED
        return code

    def _run_on_start(self, trapped: MasterSignals) -> int | None:
        """Run the `on_start` functions; return None, or the code to leave with.

        After a reload, it is too late for that: there are workers, and the loop goes on with them, if without new code.
        """
        function: Callable[[], object] | None = None
        has_workers = self._begin.inherited is not None
        try:
            with trapped.raising(signals.STOPPING):
                for function in self._declaration.on_start:
                    function()
        except Interrupted as stop:
            if function is not None:
                why = process.signal_name(stop.signum)
                self._log(WARNING, f"stopped in on_start function={name_of(function)} reason={why}")
            # The loop finds the same signal, and stops the workers.
            return None if has_workers else self._plan.cut_codes[stop.signum == signals.INTERRUPT]
        except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's code may raise what it likes)
            what = f"on_start function={name_of(function)} raised"
            self._log(ERROR, what if has_workers else f"{what}; nothing was started", error)
            if not has_workers:
                return ExitCode.USAGE
            self._broken = f"{what} {type(error).__name__}"
        return None

    def _not_started(self, why: str) -> ExitCode:
        self._log(ERROR, f"not started: {why}")
        return ExitCode.USAGE

    def _audited(self) -> bool:
        """Warn about what all workers would share, and return whether there is anything."""
        left = self._begin.inherited
        kept = () if left is None else left.kept.numbers(left.lines)
        found = _audit.findings(self._plan.run.syslog, kept)
        for finding in found:
            self._log(WARNING, f"fork-safety: {finding}")
        return bool(found)

    def _look_at_limits(self) -> None:
        """Say beforehand which limit of the system is too low. It is no end: workers may finish, limits be raised."""
        pin_count, spare_count = len(self._plan.assignment), len(self._plan.spares())
        # A pipe for each spare; the master is a process, too.
        for shortage in limits.shortages(pin_count + spare_count + 1, 2 * spare_count):
            self._log(ERROR, f"{shortage}; raise that, or have fewer PINs or spares: who does not fit waits")

    def _loop(self, trapped: MasterSignals, spared: frozenset[Pid] | None) -> int | None:
        """Run the master's loop, or return None where it cannot begin.

        A collection would touch the pages of all objects that are there by now. gc.freeze() keeps them shared with the
        workers; it is undone for a program that goes on after the run. What has been loaded by now is made cheap to
        fork, which may take a tenth of the time that has gone into it.
        """
        # Python 3.12 has frozen a few hundred objects of its own by then.
        frozen_before = gc.get_freeze_count() > 1000
        gc.collect()
        gc.freeze()
        hugepages.gather(max(GATHER_MIN_S, time.process_time() / 10))
        try:
            self._readiness.open(self._log)
            parts = Parts(
                self._app,
                self._plan,
                self._begin,
                self._broken,
                self._lock,
                trapped,
                self._journal,
                self._generations,
                spared,
                self._readiness,
                self._identity,
            )
            with contextlib.ExitStack() as stack:
                try:
                    loop = stack.enter_context(assembled(parts))
                except OSError as error:
                    what = "cannot get the shared memory or a descriptor that the master needs"
                    self._not_started(f"{what}: {os.strerror(error.errno or 0)}")
                    return None
                return loop.run()
        finally:
            if not frozen_before:
                gc.unfreeze()
