"""The lock of a single instance: an flock(2) that the workers inherit.

An flock belongs to the open file description, so it is held until the last process that inherited the descriptor is
gone: a new instance cannot start beside the workers of a dead master. Three rules follow. Never LOCK_UN, which would
take it from all of them: only close. Never unlink: two instances could hold locks on two files of one name. And
close-on-exec (open(2), the default since PEP 446), so that what a worker executes does not hold it.

The lock is the truth; what the file says is a hint for people, except that it names the master of an instance that
detached after it took the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time

from pyworkers._core.records import record
from pyworkers._core.types import Pid
from pyworkers.errors import LockError

_HEADER = "pyworkers lock"
_RECORD = rb"name=(?P<name>.*) master=(?P<pid>\d{1,10}) started=(?P<started>\d{1,20}) "


@record
class Holder:
    """A process that has the locked open file description, and when it started, in clock ticks after boot."""

    pid: Pid
    started: int

    def open_pidfd(self) -> int | None:
        """Return a pidfd of this very process, or None where it is gone or the kernel has none: pidfd_open(2)."""
        if not hasattr(os, "pidfd_open"):
            return None
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if started_ticks(self.pid) == self.started:
            return pidfd
        # The pid has been given to somebody else meanwhile.
        os.close(pidfd)
        return None


@record
class Tenure:
    """Who holds a lock that we could not get.

    Attributes:
        name: Of the instance, as the file tells.
        master: The pid that the file tells, if it tells any.
        master_alive: Whether the master is among the holders; True where this cannot be found out.
        holders: All of them, as far as /proc shows.
    """

    name: str
    master: Pid | None
    master_alive: bool
    holders: tuple[Holder, ...]


class LockFile:
    """An open lock file. It is locked once `acquire` has returned True, until every copy of it is closed.

    Args:
        path: Of the file.
        kept: The descriptor of the program before this one, which holds the lock.
    """

    def __init__(self, path: str, kept: int | None = None) -> None:
        """Open the file, and create it where it is missing.

        Raises:
            LockError: It cannot be opened or created, or it is not a lock file of ours.
        """
        self.path = path
        self._descriptor = _open(path) if kept is None else kept

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def acquire(self) -> bool:
        """Try to take the lock; never waits."""
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError as error:
                # ENOLCK, EOPNOTSUPP: some network file systems have no locks.
                raise LockError(f"cannot lock {self.path}: {os.strerror(error.errno or 0)}") from error
            if self._in_place():
                return True
            # Somebody removed or replaced the file: a lock on the old one keeps nobody out.
            os.close(self._descriptor)
            self._descriptor = _open(self.path)

    def sign(self, name: str) -> None:
        """As its holder: write who holds it; in the process that stays, after it detached.

        Raises:
            OSError: The disk is full, or a quota.
        """
        pid = os.getpid()
        since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        text = (
            f"{_HEADER}: name={' '.join(name.split())} master={pid} started={started_ticks(pid) or 0} since={since}\n"
            f"The master and its workers hold an flock(2) on this file; if process {pid} is gone, its last workers\n"
            "are still finishing (fuser(1) names them). Do not remove the file: it is never stale.\n"
        )
        data = text.encode(errors="replace")
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def close(self) -> None:
        """Give up this process's copy."""
        os.close(self._descriptor)

    def tenure(self) -> Tenure | None:
        """Find out who holds the lock, or return None where that is changing just now."""
        seen = self._look()
        if seen is None or seen.master_alive:
            return seen
        # /proc is not read in one instant, and the verdict that a master is dead is paid with the lives of others: it
        # has to be the same twice.
        return seen if self._look() == seen else None

    def _look(self) -> Tenure | None:
        found = re.search(_RECORD, os.pread(self._descriptor, 4096, 0))
        name = found["name"].decode(errors="replace") if found else "another program"
        master = Pid(int(found["pid"])) if found else None
        holders, takers = _scan(os.fstat(self._descriptor))
        if not holders:
            # Of another user, or in another PID namespace: whoever it is, we cannot judge him.
            return Tenure(name, master, True, ()) if self._is_taken() else None
        signed = Holder(master, int(found["started"])) if found and master else None
        pids = {holder.pid for holder in holders}
        # The kernel remembers who called flock. That process is alive, or the one that signed after detaching is: or
        # else only their children are left. A master that has not signed yet is its own taker. Zero stands for a
        # process that this PID namespace cannot name.
        # And only a file that we signed can have children of ours.
        alive = signed is None or bool(takers & pids) or signed in holders or 0 in takers
        return Tenure(name, master, alive, holders)

    def _is_taken(self) -> bool:
        try:
            probe = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return True
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(probe)

    def _in_place(self) -> bool:
        ours = os.fstat(self._descriptor)
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(ours, there)


def _open(path: str) -> int:
    # O_NOFOLLOW: in a directory that others can write to, a link would let them choose the file that we write.
    # O_NONBLOCK: opening a FIFO must not hang.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        raise LockError(f"cannot open lock file {path}: {reason(path, error)}") from error
    try:
        _check(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: str, descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise LockError(f"cannot use lock file {path}: it is not a regular file; name another path")
    head = os.pread(descriptor, len(_HEADER), 0)
    if head and head != _HEADER.encode():
        raise LockError(f"cannot use lock file {path}: it holds something else, and would be overwritten")


def reason(path: str, error: OSError) -> str:
    """Say why a file at `path` cannot be opened or created, and what to do."""
    from pathlib import Path

    parent = Path(path).absolute().parent
    match error.errno:
        case errno.ELOOP:
            return "it is a symbolic link, which is never followed; name the file itself"
        case errno.EISDIR:
            return "it is a directory; name a file in it"
        case errno.ENOENT:
            return f"directory {parent} does not exist; create it first"
        case errno.ENOTDIR:
            return f"{parent} is not a directory"
        case errno.EACCES | errno.EPERM:
            return f"permission denied to user {os.geteuid()}; check the owner and mode of it and of {parent}"
        case _:
            return os.strerror(error.errno or 0)


def _scan(target: os.stat_result) -> tuple[tuple[Holder, ...], set[Pid]]:
    """Return who has the locked description, and who took the lock, as far as /proc shows."""
    holders: list[Holder] = []
    takers: set[Pid] = set()
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self/fdinfo") else ():
        if not entry.name.isdigit():
            continue
        try:
            taker = _taker(entry.path, target)
        except OSError:
            # It ended while we looked, or belongs to another user.
            continue
        started = started_ticks(int(entry.name))
        if taker is not None and started is not None:
            holders.append(Holder(Pid(int(entry.name)), started))
            takers.add(taker)
    return tuple(holders), takers


def _taker(process: str, target: os.stat_result) -> Pid | None:
    """Return who took the flock on `target` that this process has a descriptor of, or None where it has none.

    proc(5), /proc/PID/fdinfo: the lock line stands at descriptors of the very description that holds the lock, so
    that whoever merely reads the file is not taken for a holder.
    """
    for entry in os.scandir(f"{process}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if not os.path.samestat(entry.stat(), target):
                continue
            with open(f"{process}/fdinfo/{entry.name}", "rb") as file:
                info = file.read()
            if lock := re.search(rb"FLOCK +\w+ +WRITE (\d+)", info):
                return Pid(int(lock[1]))
    return None


def started_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot: with the pid, it names a process for good."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            status = file.read()
    except OSError:
        return None
    # proc(5): field 22; field 2 is in parentheses and may hold anything, so count from the last of them.
    fields = status.rpartition(b")")[2].split()
    return None if fields[0] in b"ZX" else int(fields[19])
