"""Real instances for tests: write an app to a file, run it through the real command line, watch and shoot at it.

Nothing here waits by hope: every wait polls a condition, is bounded, and says what it waited for when it fails.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 20.0
"""How long a condition may take on a loaded machine before a test gives up."""


def until(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Poll until the condition is truthy, and return what it returned."""
    deadline = time.monotonic() + patience_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s} s in vain for {what}"
        time.sleep(0.005)  # a bounded poll on a condition
    return result


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """Return the state letter of proc(5), or an empty string where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def clean_environment() -> dict[str, str]:
    """Return ours without what would change how Python buffers, for some tests are about just that."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def runtime_in(directory: Path) -> dict[str, str]:
    """Return the variable that keeps the entries of a test's instances apart from all others, in its own directory."""
    own = directory / ".runtime"
    own.mkdir(exist_ok=True)
    return {"XDG_RUNTIME_DIR": str(own)}


def as_from_a_shell() -> None:
    """In a child before exec: have the signals as a foreground job has them, also where the suite runs under nohup."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)


class Instance:
    """One running master, with its log in a file.

    Args:
        directory: Where the app's module lies; the working directory of the master.
        arguments: After `python -m pyworkers`.
        stderr: Where the log goes instead of the file `log`.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        **popen: object,
    ) -> None:
        self.directory = directory
        self.log_path = directory / f"log.{time.monotonic_ns()}"
        environment = {**clean_environment(), **runtime_in(directory), **(env or {})}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pyworkers", *arguments],
                cwd=directory,
                env=environment,
                stdout=log if stdout is None else stdout,
                stderr=log if stderr is None else stderr,
                **{"stdin": subprocess.DEVNULL, "preexec_fn": as_from_a_shell, **popen},  # type: ignore[call-overload]
            )

    @property
    def pid(self) -> int:
        """The master's pid."""
        return self.process.pid

    @property
    def log(self) -> str:
        """All that was logged so far."""
        return self.log_path.read_text(errors="replace")

    def matches(self, pattern: str) -> list[re.Match[str]]:
        """Return the log's matches of a pattern."""
        return list(re.finditer(pattern, self.log))

    def await_log(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Wait until the log has `count` matches."""

        def enough() -> list[re.Match[str]]:
            found = self.matches(pattern)
            if len(found) < count and self.process.poll() is not None:
                found = self.matches(pattern)
                assert len(found) >= count, f"master ended with {self.process.returncode}; log:\n{self.log}"
            return found if len(found) >= count else []

        try:
            return until(enough, f"{count} x {pattern!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; log:\n{self.log[-4000:]}") from None

    def started(self, pin: int) -> list[int]:
        """Return the pids that the log says were started on a PIN, in order."""
        return [int(found[1]) for found in self.matches(rf"worker started \S+ pin={pin} pid=(\d+)")]

    def worker(self, pin: int, attempt: int = 1) -> int:
        """Wait for the nth process of a PIN and return its pid."""
        return int(self.await_log(rf"worker started \S+ pin={pin} pid=(\d+)", attempt)[attempt - 1][1])

    def workers(self) -> list[int]:
        """Return the pids of the master's live children."""
        return [pid for pid in children(self.pid) if alive(pid)]

    def signal(self, signum: int = signal.SIGTERM) -> None:
        """Send a signal to the master."""
        self.process.send_signal(signum)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the master's end and return its exit code."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the master has not ended in {patience_s} s; log:\n{self.log[-4000:]}") from None

    def stop(self, patience_s: float = PATIENCE_S) -> int:
        """Send TERM, and return the master's exit code."""
        self.signal()
        return self.wait(patience_s)

    def clean_up(self) -> None:
        """Leave no process behind, whatever state the test left it in."""
        pids = {int(found[1]) for found in self.matches(r"worker started \S+ pin=\d+ pid=(\d+)")}
        pids = {pid for pid in pids if self._is_ours(pid)} | set(children(self.pid))
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in pids), f"the end of {pids}")

    def _is_ours(self, pid: int) -> bool:
        # Thousands of workers later, a pid from the log is somebody else's: perhaps of another test, so ask where it lives.
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").readlink() == self.directory
        return False


class Bench:
    """A directory with apps, and the instances that a test started there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.instances: list[Instance] = []

    def app(self, source: str, module: str = "shop") -> None:
        """Write a module; `App` is imported in it, and `here` is its directory as a Path."""
        head = "import os, signal, sys, threading, time\nfrom pathlib import Path\nfrom pyworkers import App, Stop\n"
        head += "here = Path(__file__).parent\n"
        (self.directory / f"{module}.py").write_text(head + textwrap.dedent(source))

    def start(self, source: str | None = None, *arguments: str, **options: object) -> Instance:
        """Run `shop:app`, from `source` where it is given, with further arguments."""
        if source is not None:
            self.app(source)
        instance = Instance(self.directory, "shop:app", *arguments, **options)  # type: ignore[arg-type]
        self.instances.append(instance)
        return instance

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end, and return what it printed."""
        return subprocess.run(
            [sys.executable, "-m", "pyworkers", *arguments],
            cwd=self.directory,
            env={**clean_environment(), **runtime_in(self.directory), **(env or {})},
            preexec_fn=as_from_a_shell,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def read(self, name: str) -> str:
        """Return a file that the app wrote, or an empty string."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / name).read_text()
        return ""

    def await_text(self, name: str, text: str, count: int = 1) -> str:
        """Wait until a file that the app writes holds the text."""
        until(lambda: self.read(name).count(text) >= count, f"{count} x {text!r} in {name}")
        return self.read(name)


@contextlib.contextmanager
def bench_in(directory: Path) -> Iterator[Bench]:
    """Lend a bench and clean up after it."""
    bench = Bench(directory)
    try:
        yield bench
    finally:
        for instance in bench.instances:
            instance.clean_up()
        # Daemons, and what workers forked: known by where they live.
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == directory:
                    os.kill(int(entry.name), signal.SIGKILL)
