"""A kernel without processes: it keeps the same contract as the real one, and its time is the test's."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

from pyworkers._core.records import replace
from pyworkers._core.types import Exited, ExitStatus, Pid, Signaled
from pyworkers._posix.channel import Told
from pyworkers._posix.kernel import Wake


def _nothing() -> Wake:
    return Wake(signums=[], told=[], suspended=[], ended=[])


class FakeKernel:
    """Processes are entries in a dictionary; signals are remembered, and KILL ends.

    Attributes:
        time: What `now` returns; `wait` moves it.
        live: The children that have not ended.
        signals: What was sent to each child.
        scripts: Called by `wait`, one each, before it looks at what has happened.
        leaders: Those that lead a process group.
        memory: What a child's private memory is; None where it is not here.
        oom_kill_count: What `oom_kills` returns next.
        fail_forks: How many forks to come fail with EAGAIN.
        run_children: Whether a fork runs `child_main` at once and the child ends with its result.
    """

    def __init__(self, *, run_children: bool = False) -> None:
        self.time = 1000.0
        self.live: set[Pid] = set()
        self.leaders: set[Pid] = set()
        self.memory: dict[Pid, int] = {}
        self.oom_kill_count = 0
        self.signals: dict[Pid, list[int]] = {}
        self.scripts: list[Callable[[], None]] = []
        self.fail_forks = 0
        self.run_children = run_children
        self.timeouts: list[float | None] = []
        self._next_pid = 100
        self._wake = _nothing()

    def now(self) -> float:
        return self.time

    def fork(self, child_main: Callable[[], int], *, leader: bool) -> Pid:
        if self.fail_forks:
            self.fail_forks -= 1
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._next_pid += 1
        pid = Pid(self._next_pid)
        self.live.add(pid)
        if leader:
            self.leaders.add(pid)
        self.signals[pid] = []
        if self.run_children:
            self.end(pid, Exited(child_main()))
        return pid

    def send(self, pid: Pid, signum: int) -> None:
        if pid in self.live:
            self.signals[pid].append(signum)
            if signum == signal.SIGKILL:
                self.end(pid, Signaled(signum))

    def await_end(self, pid: Pid) -> None:
        assert signal.SIGKILL in self.signals[pid], "only who was sent a KILL is waited for"

    def private_bytes(self, pid: Pid, limit: int) -> int | None:
        return self.memory.get(pid)

    def oom_kills(self) -> int:
        count, self.oom_kill_count = self.oom_kill_count, 0
        return count

    def wait(self, timeout_s: float | None, _log_fd: int | None) -> Wake:
        self.timeouts.append(timeout_s)
        if self._wake == _nothing():
            # Only once there is somebody to whom something can happen.
            if self.scripts and self.live and timeout_s != 0:
                self.scripts.pop(0)()
            elif timeout_s is None:
                raise AssertionError("nothing will ever happen any more")
        if self._wake == _nothing():
            self.time += timeout_s or 0.0
        result, self._wake = self._wake, _nothing()
        return result

    # What a test does to it

    def end(self, pid: Pid, status: ExitStatus) -> None:
        """Let a child end."""
        self.live.discard(pid)
        self._wake.ended.append((pid, status))

    def tell(self, told: Told) -> None:
        """Let a child say something."""
        self._wake.told.append(told)

    def signal(self, signum: int) -> None:
        """Let the master get a signal."""
        self._wake.signums.append(signum)

    def suspend(self, pid: Pid, *, suspended: bool) -> None:
        """Let a child be stopped by a signal, or go on."""
        self._wake.suspended.append((pid, suspended))

    def dump(self, data: bytes) -> None:
        """Let a child write its stacks."""
        self._wake = replace(self._wake, dumped=data)
