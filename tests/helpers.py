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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pyworkers import testing
from pyworkers.testing._instance import as_from_a_shell

T = TypeVar("T")

PATIENCE_S = 40.0
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


def open_files(pid: int) -> dict[int, str]:
    """Return where the descriptors of a process lead, by number, while it sleeps; of one that has ended, none.

    Else there would be among them what it has open for a moment only, such as a file of /proc that it reads.
    """
    found: dict[int, str] = {}

    def looked() -> bool:
        found.clear()
        before = state(pid)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update({int(each.name): str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()})
        return before == state(pid) == "S" or not alive(pid)

    until(looked, f"process {pid} to sleep")
    return found


def clean_environment() -> dict[str, str]:
    """Return ours without what would change how Python buffers, for some tests are about just that."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def runtime_in(directory: Path) -> dict[str, str]:
    """Return the variable that keeps the entries of a test's instances apart from all others, in its own directory."""
    own = directory / ".runtime"
    own.mkdir(exist_ok=True)
    return {"XDG_RUNTIME_DIR": str(own)}


class Instance(testing.Instance):
    """One running master, with what only our own tests want to know of it: mostly what its log has to say.

    Args:
        directory: Where the app's module lies; the working directory of the master.
        arguments: After `python -m pyworkers`.
        popen: Arguments for `subprocess.Popen`; without them stdout and stderr go into the log.
    """

    def __init__(
        self, directory: Path, *arguments: str, env: Mapping[str, str | None] | None = None, **popen: object
    ) -> None:
        super().__init__(
            *arguments,
            directory=directory,
            env={"PYTHONUNBUFFERED": None, **runtime_in(directory), **(env or {})},
            time_limit=PATIENCE_S,
            **popen,
        )

    def matches(self, pattern: str) -> list[re.Match[str]]:
        """Return the log's matches of a pattern."""
        return list(re.finditer(pattern, self.log))

    def await_log(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Wait until the log has `count` matches."""
        return self.wait_for_log(pattern, count)

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
        self.send_signal(signum)


class Bench:
    """A directory with apps, and the instances that a test started there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.instances: list[Instance] = []

    def app(self, source: str, module: str = "shop") -> None:
        """Write a module; `App` is imported in it, and `here` is its directory as a Path."""
        head = "import os, signal, sys, threading, time\nfrom pathlib import Path\nfrom pyworkers import App, Stop\n"
        head += "here = Path(__file__).parent\n"
        path = self.directory / f"{module}.py"
        before = path.stat().st_mtime if path.exists() else 0.0
        path.write_text(head + textwrap.dedent(source))
        # What is cached of a module is good for its size and for the second of its time (PEP 552).
        os.utime(path, times=(max(time.time(), before + 2.0),) * 2)

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
            instance.close()
        # Daemons, and what workers forked: known by where they live.
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == directory:
                    os.kill(int(entry.name), signal.SIGKILL)
