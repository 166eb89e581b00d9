"""The real kernel behind the master's loop: one poll on its pipes, fork with every signal blocked, reaping."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Sequence

from pyworkers._core.records import record
from pyworkers._core.types import ExitStatus, Pid
from pyworkers._posix import memory, process, signals
from pyworkers._posix.channel import Channel, Told
from pyworkers._posix.dumps import DumpPipe

# poll(2) takes an int of milliseconds.
_TIMEOUT_MAX_MS = 2**31 - 1


@record
class Wake:
    """What a wait has brought.

    Attributes:
        signums: Signals to the master, in their order.
        told: Records of workers.
        suspended: Children that were stopped by a signal (True), or go on (False).
        ended: Children that were reaped.
        dumped: Stacks that a worker has written.
        ready: Descriptors that somebody has asked to be watched, and what poll(2) says of them.
    """

    signums: list[int]
    told: list[Told]
    suspended: list[tuple[Pid, bool]]
    ended: list[tuple[Pid, ExitStatus]]
    dumped: bytes = b""
    ready: Sequence[tuple[int, int]] = ()


class PosixKernel:
    """Forks and reaps children, and waits for them.

    Args:
        trapped: The master's signals.
        channel: What its workers write to.
        dumps: Where hung workers write their stacks; None where nobody is watched.
        spared: Children that only their owner may reap; None where this process adopts nobody.
    """

    def __init__(
        self,
        trapped: signals.MasterSignals,
        channel: Channel,
        dumps: DumpPipe | None = None,
        spared: frozenset[Pid] | None = None,
    ) -> None:
        self._signals = trapped
        self._channel = channel
        self._dumps = dumps
        self._brood = process.Brood(spared=spared)
        self._oom_kills = memory.OomKills()
        self._oom_score = memory.worker_oom_score()
        # Forked, and not yet of more interest to the OOM killer than the master is.
        self._uninvited: list[Pid] = []
        # A look at who was suspended that was put off, so that who has ended is replaced first.
        self._look_owed = False
        self._poller = select.poll()
        for source in (trapped, channel, dumps):
            if source is not None:
                self._poller.register(source.fileno(), select.POLLIN)
        self._watched: set[int] = set()

    def now(self) -> float:
        """Return seconds on a clock that stands still while the machine sleeps: time(7), CLOCK_MONOTONIC."""
        return time.monotonic()

    def fork(self, child_main: Callable[[], int], *, leader: bool) -> Pid:
        """Start a child; every signal stays blocked in it until it unblocks them."""
        mask = signals.block()
        try:
            pid = process.fork(child_main)
            self._brood.own.add(pid)
            if leader:
                self._brood.leaders.add(pid)
        finally:
            signals.unblock(mask)
        self._uninvited.append(pid)
        return pid

    @property
    def brood(self) -> process.Brood:
        """The children that are to be reaped."""
        return self._brood

    def adopt(self, pid: Pid) -> None:
        """Reap this child, too, which was started by other means; its end is told like that of every other one."""
        self._brood.own.add(pid)

    def send(self, pid: Pid, signum: int) -> None:
        """Send a signal to a child that has not been reaped."""
        if pid in self._brood.own:
            process.send(pid, signum)

    def await_end(self, pid: Pid) -> None:
        """Wait until a child is gone that was sent a KILL, and reap it."""
        if pid in self._brood.own:
            process.await_end(pid, self._brood)

    def private_bytes(self, pid: Pid, limit: int) -> int | None:
        """Return a child's private memory, or any number up to `limit` that is not below it; None where unknown."""
        return memory.private_bytes(pid, limit)

    def oom_kills(self) -> int:
        """Return how many processes of our control group the kernel has killed for want of memory since the last call.

        Where the group has no counter, that of the whole machine is taken.
        """
        return self._oom_kills.new_count()

    def watch(self, descriptor: int, events: int) -> None:
        """From here on wake for these events of a descriptor, as poll(2) names them; hanging up is always one."""
        self._watched.add(descriptor)
        self._poller.register(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Wake for it no more, before it is closed."""
        if descriptor in self._watched:
            self._watched.remove(descriptor)
            self._poller.unregister(descriptor)

    def wait(self, timeout_s: float | None, log_fd: int | None) -> Wake:
        """Wait for a signal, a record, a dump, room in the log, or the time, and return what there is.

        Children are collected before the channel is read: what a worker said before it ended is then always there.
        """
        self._invite_oom_killer()
        suspended = process.suspensions() if self._look_owed else []
        self._look_owed = False
        timeout_ms = None if timeout_s is None else min(math.ceil(timeout_s * 1000), _TIMEOUT_MAX_MS)
        if suspended:
            timeout_ms = 0
        if log_fd is not None:
            self._poller.register(log_fd, select.POLLOUT)
        polled = self._poller.poll(timeout_ms)
        if log_fd is not None:
            self._poller.unregister(log_fd)
        signums = self._signals.take()
        ended = process.collect(self._brood)
        if self._signals.children_changed():
            if ended:
                self._look_owed = True
            else:
                suspended += process.suspensions()
        dumped = b""
        if self._dumps is not None and any(found[0] == self._dumps.fileno() for found in polled):
            dumped = self._dumps.read()
        ready = [found for found in polled if found[0] in self._watched] if self._watched else ()
        return Wake(signums, self._channel.read(), suspended, ended, dumped, ready)

    def _invite_oom_killer(self) -> None:
        """For all children of a turn at once: between two forks, it would cost each of them 20 page faults."""
        for pid in self._uninvited:
            # Its pid may be somebody else's by now.
            if pid in self._brood.own:
                memory.invite_oom_killer(pid, self._oom_score)
        self._uninvited.clear()
