"""Runs an app as a real instance, through the real command line, with what a test wants to do to it.

Every wait polls a condition, is bounded by the instance's time limit, and says with the end of the log what it waited
in vain for. Nothing survives `close`: a mark in the environment, which whatever an instance starts inherits, tells its
processes from all others, as Jenkins finds those of a build.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from pyworkers._client import table
from pyworkers._core.types import shown
from pyworkers._posix import rendezvous
from pyworkers.errors import UsageError
from pyworkers.testing._processes import end_all
from pyworkers.testing._status import Monitor, WorkerStatus, worker_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import Self

    from pyworkers._client.wire import Reply

    T = TypeVar("T")

POLL_S = 0.005
_MARK = "_PYWORKERS_TESTING"


class Instance:
    """A running instance: `python -m pyworkers APP OPTIONS` in a process of its own.

    As a context manager it is stopped gracefully at the end of the block, and killed where the block raises. Whatever
    it has started, daemons included, is gone after that. It has an XDG_RUNTIME_DIR of its own, unless `env` says so.

    Args:
        app: An import string, `module:attribute`.
        options: Of the command line, such as `"--workers", "3"`.
        source: The text of the module, where it is not in a file already; its indentation is taken away.
        directory: The working directory, where imports look first; by default this process's, and a temporary one for
            `source`.
        env: Environment variables to set, beside those of this process; None takes one away, as in nox.
        time_limit: The longest time for each wait, in seconds.
        popen: Arguments for `subprocess.Popen`, such as `stderr`, where the log shall not be read here.

    Attributes:
        directory: The working directory.
        process: The master.
        log_path: The file that has the log, until `close`.

    Raises:
        UsageError: The import string of an app with `source` has no module.

    Example:
        >>> SOURCE = '''
        ... from pyworkers import App
        ... app = App("shop")
        ... @app.worker(pins=range(2))
        ... def sell(pin: int) -> None:
        ...     app.sleep(60)
        ... '''
        >>> with Instance("shop:app", source=SOURCE) as instance:
        ...     instance.wait_until_up()
        ...     before = instance.kill(1)
        ...     assert instance.wait_for_respawn(1) != before
        ...     assert instance.stop() == 0
    """

    def __init__(
        self,
        app: str,
        *options: str,
        source: str | None = None,
        directory: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        time_limit: float = 20.0,
        **popen: Any,
    ) -> None:
        self.time_limit = time_limit
        self._temporary = Path(tempfile.mkdtemp(prefix="pyworkers-testing-"))
        self._mark = os.urandom(16).hex()
        self._kept_log: str | None = None
        self._killed: dict[int, int] = {}
        self.log_path = self._temporary / "log"
        own_runtime = self._temporary / "runtime"
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(own_runtime), **(env or {}), _MARK: self._mark}
        # setproctitle's own: a title is not to be written over the environment, where the mark is looked for.
        environment["SPT_NOENV"] = "1"
        try:
            own_runtime.mkdir(mode=0o700)
            if directory is None and source is None:
                directory = os.getcwd()
            self.directory = self._temporary if directory is None else Path(directory)
            if source is not None:
                self._write(app, source)
            with self.log_path.open("wb") as log:
                arguments: dict[str, Any] = {
                    "stdin": subprocess.DEVNULL,
                    "stdout": log,
                    "stderr": log,
                    "preexec_fn": as_from_a_shell,
                    **popen,
                    "cwd": self.directory,
                    "env": {name: value for name, value in environment.items() if value is not None},
                }
                self.process: subprocess.Popen[bytes] = subprocess.Popen[bytes](
                    self._command(app, *options), **arguments
                )
        except BaseException:
            shutil.rmtree(self._temporary)
            raise
        runtime = environment["XDG_RUNTIME_DIR"]
        directories = rendezvous.directories() if runtime is None else [os.path.join(runtime, "pyworkers")]
        self._monitor = Monitor(self.process.pid, directories)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.exit_code is None:
                self.stop()
        finally:
            self.close()

    def __repr__(self) -> str:
        how = "runs" if self.exit_code is None else f"ended with {self.exit_code}"
        return f"<Instance pid={self.process.pid} {how}>"

    # What it is

    @property
    def pid(self) -> int:
        """The master's pid."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """The master's exit code, negative for a signal as in `subprocess`; None while it runs."""
        return self.process.poll()

    @property
    def log(self) -> str:
        """All that was logged so far, and what the workers have printed; also after the end."""
        return self.log_path.read_text(errors="replace") if self._kept_log is None else self._kept_log

    def status(self) -> tuple[WorkerStatus, ...]:
        """Return how each PIN is, in the order of the PINs, as soon as the master can tell.

        Raises:
            TimeoutError: It did not within `time_limit`.
            RuntimeError: The master ended before.
        """
        return tuple(map(worker_status, self._until(self._rows, "the status")))

    def pid_of(self, pin: int) -> int:
        """Wait until a PIN is up, and return its pid."""
        return self._wait_for_worker(pin, None)

    # What happens to it

    def send_signal(self, signum: int = signal.SIGTERM) -> None:
        """Send a signal to the master, if it still runs."""
        if self.exit_code is None:
            os.kill(self.pid, signum)

    def kill(self, pin: int, signum: int = signal.SIGKILL) -> int:
        """Wait until a PIN is up, send its process a signal, by default SIGKILL, and return its pid."""
        pid = self.pid_of(pin)
        self._killed[pin] = pid
        os.kill(pid, signum)
        return pid

    def stop(self, time_limit: float | None = None) -> int:
        """Send TERM to the master, wait for its end as `wait` does, and return its exit code."""
        self.send_signal()
        return self.wait(time_limit)

    def close(self) -> None:
        """Kill whatever is left of it, at once. It can be called again."""
        if self._kept_log is not None:
            return
        self._monitor.close()
        if self.process.poll() is None:
            self.process.kill()
        end_all(f"{_MARK}={self._mark}", self.time_limit)
        self.process.wait(self.time_limit)
        self._kept_log = self.log
        shutil.rmtree(self._temporary)

    # Waits

    def wait(self, time_limit: float | None = None) -> int:
        """Wait for the master's end, and return its exit code.

        Args:
            time_limit: In seconds; by default the instance's.

        Raises:
            TimeoutError: It did not come within the limit.
        """
        limit_s = self.time_limit if time_limit is None else time_limit
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(self._in_vain("the master's end", limit_s)) from None

    def wait_until_up(self) -> None:
        """Wait until every PIN is up, or has ended as it should.

        Raises:
            TimeoutError: It did not happen within `time_limit`.
            RuntimeError: A PIN has failed, or the master ended before.
        """
        what = "all PINs to be up"

        def all_up() -> bool:
            rows = self._rows()
            if failed := [row["pin"] for row in rows if row["state"] == "failed"]:
                raise RuntimeError(f"PIN {failed[0]} has failed; {self._in_vain(what, self.time_limit)}")
            return bool(rows) and table.all_up(rows)

        self._until(all_up, what)

    def wait_for_respawn(self, pin: int, after: int | None = None) -> int:
        """Wait until a PIN is up in another process than before, and return its pid.

        Args:
            pin: Which one.
            after: The pid of before; by default that of the last `kill` of this PIN.

        Raises:
            TimeoutError: It did not happen within `time_limit`.
            RuntimeError: The master ended before.
            UsageError: Nobody has killed this PIN, and there is no `after`.
        """
        before = self._killed.get(pin) if after is None else after
        if before is None:
            raise UsageError(f"wait_for_respawn({pin}) needs a kill({pin}) before it, or the pid of before as `after`")
        return self._wait_for_worker(pin, before)

    def wait_for_log(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Wait until the log has `count` matches of a regular expression, and return all matches.

        Raises:
            TimeoutError: It did not happen within `time_limit`.
            RuntimeError: The master ended before.
        """
        return self._until(
            lambda: found if len(found := list(re.finditer(pattern, self.log))) >= count else [],
            f"{count} x {pattern!r} in the log",
        )

    def _wait_for_worker(self, pin: int, before: int | None) -> int:
        def pid() -> int | None:
            rows = {row["pin"]: row for row in self._rows()}
            if rows and pin not in rows:
                raise UsageError(f"there is no PIN {shown(pin)}; there are {', '.join(map(str, rows))}")
            row = rows.get(pin)
            return row["pid"] if row is not None and row["state"] == "running" and row["pid"] != before else None

        which = "a process" if before is None else f"another process than {before}"
        found = self._until(pid, f"{which} on PIN {pin}")
        assert found is not None
        return found

    def _rows(self) -> list[Reply]:
        """Return the workers of a status; nothing where the master does not answer."""
        reply = self._monitor.status()
        return [] if reply is None else reply["workers"]

    def _until(self, condition: Callable[[], T], what: str) -> T:
        deadline = time.monotonic() + self.time_limit
        while True:
            # First, so that what the master has left behind still counts.
            ended = self.exit_code is not None
            if result := condition():
                return result
            if ended:
                raise RuntimeError(f"the master ended with {self.exit_code}; {self._in_vain(what, self.time_limit)}")
            if time.monotonic() > deadline:
                raise TimeoutError(self._in_vain(what, self.time_limit))
            time.sleep(POLL_S)

    def _in_vain(self, what: str, limit_s: float) -> str:
        reply, lines = self._monitor.status(), self.log.splitlines()[-40:]
        state = [] if reply is None else ["the status is", table.summary(reply), *table.table(reply)]
        tail = ["the log ends with", *lines] if lines else ["there is no log"]
        return "\n".join([f"waited for {what} in vain, {limit_s} s at most", *state, *tail])

    # How it is started

    def _command(self, app: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "pyworkers", app, *options]

    def _write(self, app: str, source: str) -> None:
        module, colon, _ = app.partition(":")
        if not colon or not module:
            raise UsageError(f"expected an import string 'module:attribute', got {shown(app)}")
        path = self.directory.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))


def as_from_a_shell() -> None:
    """In the child before exec: have the signals as a foreground job has them, also where the tests run under nohup."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(signum, signal.SIG_DFL)
