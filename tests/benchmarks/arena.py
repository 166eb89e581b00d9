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

from benchmarks.work import REPORT

PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Report:
    """A worker has begun its work, at an instant in nanoseconds."""

    pid: int
    at: int


class Overdue(Exception):  # noqa: N818  (it is the contender's)
    """A contender has not done in time what is measured."""


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

    def launch(self, command: list[str], environ: Mapping[str, str]) -> Match:
        """Start a contender, in a session of its own."""
        log = self.directory / "log"
        with log.open("wb") as out:
            at = time.monotonic_ns()
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **environ, "BENCHMARK_ARENA": self.address},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return Match(self, process, at, log)

    def next_report(self, timeout_s: float) -> Report | None:
        """Return the next report, or None if none comes in time."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return None
        return Report(*REPORT.unpack(self._socket.recv(64)))

    def drain(self) -> None:
        """Forget what is still there."""
        while self.next_report(0) is not None:
            pass


class Match:
    """One contender that was launched.

    Attributes:
        pids: Its workers that have reported and were not killed since.
    """

    def __init__(self, arena: Arena, process: subprocess.Popen[bytes], launched_at: int, log: Path) -> None:
        self.arena = arena
        self.process = process
        self.launched_at = launched_at
        self.log = log
        self.pids: dict[int, None] = {}

    def reports(self, count: int, timeout_s: float = PATIENCE_S) -> list[Report]:
        """Wait for so many workers to begin."""
        found: list[Report] = []
        deadline = time.monotonic() + timeout_s
        while len(found) < count:
            report = self.arena.next_report(max(0.0, deadline - time.monotonic()))
            if report is None:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise Overdue(f"{len(found)} of {count} workers in {timeout_s:g} s; its log ends with\n{tail}")
            found.append(report)
            self.pids[report.pid] = None
        return found

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

    def end(self, signum: int, timeout_s: float = PATIENCE_S) -> float:
        """Send the master a signal, and return the seconds until it has ended."""
        at = time.monotonic_ns()
        self.process.send_signal(signum)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Overdue(f"the master has not ended in {timeout_s:g} s") from None
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
        while strays := [*filter(alive, self.pids), *self._heirs()]:
            for pid in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.arena.drain()

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
    return _field(pid, "smaps_rollup", "Pss:")


def switches(pid: int) -> float:
    """Return how often a process has been given a processor so far: proc(5), status."""
    return _field(pid, "status", "voluntary_ctxt_switches:") + _field(pid, "status", "nonvoluntary_ctxt_switches:")


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time that a process has used: schedstat is in nanoseconds, stat in ticks."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _field(pid: int, name: str, field: str) -> float:
    for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1])
    raise LookupError(f"no {field} in /proc/{pid}/{name}")
