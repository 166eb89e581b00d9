"""Where the contenders meet: each is launched with the same work, and its workers report here.

The clock is CLOCK_MONOTONIC, which all processes of a machine share. A worker reads it when its own code begins, so
that no figure depends on when this process gets to read the report.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.micro import compiled
from benchmarks.reports import REPORT, WARM

SETTLED_S = 1.05
"""Who dies younger than a second is in a crash loop, and many contenders slow that."""


@dataclass(frozen=True, slots=True)
class Report:
    """A worker has begun its work, at an instant in nanoseconds; `place` is its PIN or a constant of `reports`."""

    pid: int
    at: int
    place: int


class Overdue(Exception):  # noqa: N818  (it is the contender's)
    """A contender has not done in time what is measured."""


def patience_s(count: int) -> float:
    """Return how long to wait for so many workers."""
    return 20 + 0.05 * count


class Arena:
    """The socket of the reports, and a directory for logs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = str(directory / "arena")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(self.address)

    def __enter__(self) -> Arena:  # noqa: PYI034  (Self is of 3.11)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def launch(self, command: list[str], environ: Mapping[str, str], count: int) -> Match:
        """Start a contender of so many workers, in a session of its own."""
        log = self.directory / "log"
        with log.open("wb") as out:
            at = time.monotonic_ns()
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**compiled(self.directory), **environ, "BENCHMARK_ARENA": self.address},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return Match(self, process, at, log, patience_s(count))

    def next_report(self, timeout_s: float) -> Report | None:
        """Return the next report, or None if none comes in time."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return None
        return Report(*REPORT.unpack(self._socket.recv(REPORT.size)))

    def drain(self) -> None:
        """Forget what is still there."""
        while self.next_report(0) is not None:
            pass


class Match:
    """One contender that was launched.

    Attributes:
        pids: Its workers that have reported and were not killed since, and when each has; the oldest comes first.
        warm: Its processes that are ready to begin.
    """

    def __init__(
        self, arena: Arena, process: subprocess.Popen[bytes], launched_at: int, log: Path, patience_s: float
    ) -> None:
        self.arena = arena
        self.process = process
        self.launched_at = launched_at
        self.log = log
        self.patience_s = patience_s
        self.pids: dict[int, int] = {}
        self.warm: set[int] = set()

    def reports(self, count: int) -> list[Report]:
        """Wait for so many workers to begin."""
        found: list[Report] = []
        deadline = time.monotonic() + self.patience_s
        while len(found) < count:
            report = self.next_report(deadline - time.monotonic())
            if report is None:
                raise Overdue(f"{len(found)} of {count} workers in {self.patience_s:g} s{self._last_line()}")
            if report.place != WARM:
                found.append(report)
        return found

    def next_report(self, timeout_s: float) -> Report | None:
        """Take note of the next report, and return it; None if none comes in time."""
        report = self.arena.next_report(max(0.0, timeout_s))
        if report is None:
            return None
        if report.place == WARM:
            self.warm.add(report.pid)
        else:
            self.warm.discard(report.pid)
            self.pids[report.pid] = report.at
        return report

    def await_spares(self, count: int) -> None:
        """Wait until so many processes are warm, and wait for a PIN."""
        deadline = time.monotonic() + self.patience_s
        while len(self.warm) < count:
            if self.next_report(deadline - time.monotonic()) is None:
                raise Overdue(f"{len(self.warm)} of {count} spares in {self.patience_s:g} s{self._last_line()}")
        # From the report to the wait.
        time.sleep(0.01)

    def settle(self, pids: Iterable[int]) -> None:
        """Wait until all of these are old enough to die."""
        youngest = max(self.pids[pid] for pid in pids)
        time.sleep(max(0.0, SETTLED_S - (time.monotonic_ns() - youngest) / 1e9))

    def kill(self, pids: Iterable[int], signum: int = signal.SIGKILL) -> int:
        """Kill workers, and return the instant before the first."""
        targets = list(pids)
        for pid in targets:
            self.pids.pop(pid, None)
        at = time.monotonic_ns()
        for pid in targets:
            os.kill(pid, signum)
        return at

    def oldest(self) -> int:
        """Return the worker that has been there for longest."""
        return next(iter(self.pids))

    def end(self, signum: int) -> float:
        """Send the master a signal, and return the seconds until it has ended."""
        at = time.monotonic_ns()
        self.process.send_signal(signum)
        try:
            self.process.wait(self.patience_s)
        except subprocess.TimeoutExpired:
            raise Overdue(f"the master has not ended in {self.patience_s:g} s") from None
        return (time.monotonic_ns() - at) / 1e9

    def survivors(self, patience_s: float) -> int:
        """Return how many workers live on, after they had some time to leave."""
        deadline = time.monotonic() + patience_s
        while (count := sum(map(alive, self.pids))) and time.monotonic() < deadline:
            time.sleep(0.01)
        return count

    def clean_up(self) -> None:
        """Kill whatever is left of it."""
        # The master first, which would replace its workers.
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + self.patience_s
        while (strays := [*filter(alive, self.pids), *self._heirs()]) and time.monotonic() < deadline:
            for pid in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.arena.drain()

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"; its log ends with: {lines[-1][:200]}" if lines else ""

    def _heirs(self) -> list[int]:
        """Return who has its environment: some put their workers into other sessions, and not all have reported."""
        mark = b"BENCHMARK_ARENA=" + os.fsencode(self.arena.address)
        found: list[int] = []
        for entry in Path("/proc").glob("[0-9]*"):
            # A zombie's is empty.
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pss_kb(pid: int) -> float:
    """Return a process's share of the memory: proc(5), smaps_rollup."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def anonymous_kb(pid: int) -> float:
    """Return how much memory a process has that is no file's: whoever else shares a page of it changes nothing."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Anonymous:")


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def switches(pid: int) -> float:
    """Return how often the threads of a process have been given a processor so far: proc(5), status."""
    fields = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")
    return sum(_field(thread / "status", field) for thread in _threads(pid) for field in fields)


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time that a process has used: schedstat is in nanoseconds, stat in ticks."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in _threads(pid)) / 1e9


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _field(path: Path, field: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1])
    raise LookupError(f"no {field} in {path}")
