"""Becoming the single instance: taking the lock, waiting for it, and ending the orphans of a dead master.

Runs before there is any worker, so it may wait; a stop signal ends every wait.
"""

from __future__ import annotations

import contextlib
import enum
import math
import os
import select
import signal
import time
from collections.abc import Callable

from pyworkers._core import policy
from pyworkers._core.records import record
from pyworkers._logs import INFO, WARNING
from pyworkers._master.execute import SIGNAL_OF
from pyworkers._posix.lockfile import Holder, LockFile, Tenure
from pyworkers._posix.signals import STOPPING, MasterSignals
from pyworkers.errors import LockError

BLIND_RETRY_S = 0.25
"""Where the holder cannot be watched (another user's PID namespace, a kernel without pidfds), try again after this."""


class Entry(enum.Enum):
    """How it ended."""

    HELD = "held"
    BUSY = "busy"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


@record
class Gate:
    """What entering needs.

    Attributes:
        stop_timeout: In seconds, for the ladder of the orphans.
        log: Takes a level and a line.
    """

    lock: LockFile
    trapped: MasterSignals
    stop_timeout: float
    log: Callable[[int, str], None]


def enter(gate: Gate, wait_s: float) -> tuple[Entry, Tenure | None]:
    """Take the lock, and return how that ended, and for BUSY who has it.

    Args:
        gate: The lock and what goes with it.
        wait_s: How many seconds to wait for another instance; infinity for ever. Orphans are not waited for but
            ended.

    Raises:
        LockError: The lock cannot be had at all.
    """
    deadline = time.monotonic() + wait_s
    told = False
    orphans: tuple[Holder, ...] = ()
    while not gate.lock.acquire():
        tenure = gate.lock.tenure()
        if tenure is not None and any(holder.pid == os.getpid() for holder in tenure.holders):
            raise LockError(
                f"lock {gate.lock.path} is held by a descriptor that this process was started with, as by flock(1):"
                " drop that, or name another file"
            )
        if tenure is not None and not tenure.master_alive:
            if tenure.holders != orphans:
                orphans = tenure.holders
                gate.log(
                    WARNING,
                    f"lock {gate.lock.path} is held by what is left of {tenure.name} master={tenure.master}"
                    f" pids={','.join(str(holder.pid) for holder in orphans)}; ending them first",
                )
            if (stop := _end(orphans, gate)) is not None:
                return stop, None
        elif tenure is not None and time.monotonic() >= deadline:
            return Entry.BUSY, tenure
        else:
            if tenure is not None and not told:
                told = True
                gate.log(INFO, f"waiting: {held_by(gate.lock, tenure)}")
            if (stop := _watch([] if tenure is None else _watched(tenure), gate, deadline)) is not None:
                return stop, None
    return Entry.HELD, None


def held_by(lock: LockFile, tenure: Tenure) -> str:
    """Say who has the lock, to a person."""
    pids = [str(holder.pid) for holder in tenure.holders if holder.pid != tenure.master]
    others = f" and {len(pids)} other process{'es' if len(pids) > 1 else ''}" if pids else ""
    master = f"master pid {tenure.master}" if tenure.master is not None else "a process"
    return f"lock {lock.path} is held by {tenure.name}, {master}{others}"


def _watched(tenure: Tenure) -> list[int]:
    """Return a pidfd of the holder whose end is worth waking up for."""
    for holder in tenure.holders:
        if holder.pid == tenure.master and (pidfd := holder.open_pidfd()) is not None:
            return [pidfd]
    return []


def _stop(gate: Gate) -> Entry | None:
    """Return how it ends by the signals that have come; None where it goes on."""
    taken = gate.trapped.take()
    if signal.SIGINT in taken:
        return Entry.INTERRUPTED
    return Entry.STOPPED if any(signum in STOPPING for signum in taken) else None


def _watch(pidfds: list[int], gate: Gate, until: float) -> Entry | None:
    """Wait until one of them has ended, but not beyond `until`; return how it ends instead by a signal."""
    poller = select.poll()
    poller.register(gate.trapped.fileno(), select.POLLIN)
    for pidfd in pidfds:
        poller.register(pidfd, select.POLLIN)
    if not pidfds:
        until = min(until, time.monotonic() + BLIND_RETRY_S)
    left_s = max(0.0, until - time.monotonic())
    poller.poll(None if math.isinf(left_s) else min(math.ceil(left_s * 1000), 2**31 - 1))
    for pidfd in pidfds:
        os.close(pidfd)
    return _stop(gate)


def _end(holders: tuple[Holder, ...], gate: Gate) -> Entry | None:
    """Send the orphans down the ladder until they are gone; return how it ends instead by a signal."""
    pidfds = {pidfd for holder in holders if (pidfd := holder.open_pidfd()) is not None}
    try:
        if not pidfds:
            return _watch([], gate, math.inf)
        for rung in policy.stop_ladder(gate.stop_timeout, time.monotonic()):
            if (stop := _await_end(pidfds, gate, rung.at)) is not None:
                return stop
            for pidfd in pidfds:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfd, SIGNAL_OF[rung.action])
        return _await_end(pidfds, gate, time.monotonic() + policy.ABANDON_S)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _await_end(pidfds: set[int], gate: Gate, until: float) -> Entry | None:
    """Wait until all of them have ended, but not beyond `until`; return how it ends instead by a signal."""
    poller = select.poll()
    poller.register(gate.trapped.fileno(), select.POLLIN)
    for pidfd in pidfds:
        poller.register(pidfd, select.POLLIN)
    while pidfds and (left_s := until - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(math.ceil(left_s * 1000)):
            if descriptor in pidfds:
                poller.unregister(descriptor)
                pidfds.remove(descriptor)
                os.close(descriptor)
        if (stop := _stop(gate)) is not None:
            return stop
    return None
