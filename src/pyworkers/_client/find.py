"""Finds an instance by what a person calls it, without importing the app, and tells what is left of a dead one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable

from pyworkers._core.records import record, replace
from pyworkers._posix import rendezvous
from pyworkers._posix.lockfile import LockFile
from pyworkers.errors import LockError, NotRunningError, UsageError


@record
class Found:
    """One instance, as its entry tells.

    Attributes:
        entry: The path of that; empty where the instance was named by its lock file.
        pid: Of the master; 0 where that is not known.
    """

    entry: str
    name: str
    app: str | None
    directory: str
    lock_file: str | None
    socket: str
    pid: int
    started: float
    alive: bool


def find(target: str | None, lock_file: str | None, *, anywhere: bool = True) -> Found:
    """Return the one running instance of that app, name or lock file.

    Args:
        target: An import string, which is preferred in this directory, or a name.
        lock_file: Names the instance without a target.
        anywhere: Whether an import string may mean the app of that name in another directory, which is another app
            perhaps: good enough to look at it, and not to stop it.

    Raises:
        UsageError: There are several.
        NotRunningError: There is none; its text says what is known of the last one.
    """
    candidates = _candidates(target, lock_file)
    alive = [found for found in candidates if found.alive]
    here = [found for found in alive if found.directory == os.getcwd()]
    if not (here or anywhere) and alive and alive[0].app == target:
        raise NotRunningError(
            f"{target} is not running in this directory, but in {alive[0].directory}, pid={alive[0].pid}:"
            " go there, or say which by its name or --lock-file"
        )
    alive = here or alive
    if len(alive) == 1:
        return alive[0]
    if alive:
        several = ", ".join(f"{found.name} pid={found.pid} in {found.directory}" for found in alive)
        raise UsageError(
            f"{len(alive)} instances run: {several}; say which by its name or --lock-file, or from its directory"
        )
    dead = max(candidates, key=lambda found: (found.directory == os.getcwd(), found.started), default=None)
    if lock_file is not None:
        # Its entry may be where we do not look, and the one that was found here that of a master before it.
        path = os.path.abspath(lock_file)
        nobody = Found("", f"the instance of {path}", None, os.getcwd(), path, "", 0, 0.0, alive=True)
        return replace(dead or nobody, socket=f"{path}.sock", alive=True)
    raise NotRunningError(f"{target or lock_file} is not running" if dead is None else obituary(dead))


def obituary(found: Found) -> str:
    """Say what is known of a master that is gone without a proper end."""
    where = "" if found.directory == os.getcwd() else f" in {found.directory}"
    what = f"{found.name}{where} is not running"
    if found.pid:
        what += f": its master pid {found.pid}, started {_when(found.started)}, was killed or has crashed"
        if (since := _last_sign(found)) > found.started + 1:
            what += f"; its last sign of life was {_when(since)}"
    return what + _orphans(found)


def _candidates(target: str | None, lock_file: str | None) -> list[Found]:
    known = list(_known())
    if lock_file is not None:
        path = os.path.realpath(lock_file)
        return [found for found in known if found.lock_file and os.path.realpath(found.lock_file) == path]
    by_app = [found for found in known if found.app == target]
    return by_app or [found for found in known if found.name == target]


def _known() -> Iterable[Found]:
    for path in rendezvous.entries():
        # Somebody else's file, a torn one, or one that has just been removed.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            yield read(path)


def read(path: str) -> Found:
    """Return what an entry tells.

    Raises:
        OSError, ValueError, KeyError, TypeError: It is none, or none any more.
    """
    with open(path, encoding="utf-8") as file:
        entry = json.load(file)
    return Found(
        entry=path,
        name=str(entry["name"]),
        app=entry["app"],
        directory=str(entry["directory"]),
        lock_file=entry["lock_file"],
        socket=str(entry["socket"]),
        pid=int(entry["pid"]),
        started=float(entry["started"]),
        alive=rendezvous.is_alive(int(entry["pid"]), int(entry["ticks"])),
    )


def _last_sign(found: Found) -> float:
    paths = [found.entry, found.socket]
    if found.lock_file is not None:
        paths += [found.lock_file, f"{found.lock_file}.generation"]
    signs = [0.0]
    for path in paths:
        with contextlib.suppress(OSError):
            signs.append(os.stat(path).st_mtime)
    return max(signs)


def _orphans(found: Found) -> str:
    """Say who is left of an instance whose master is gone: its lock tells."""
    if found.lock_file is None or not os.path.exists(found.lock_file):
        return ""
    try:
        lock = LockFile(found.lock_file)
    except LockError:
        return ""
    try:
        tenure = None if lock.acquire() else lock.tenure()
    finally:
        lock.close()
    if tenure is None or not tenure.holders:
        return ""
    pids = ",".join(str(holder.pid) for holder in tenure.holders)
    if tenure.master_alive:
        return f"; lock {found.lock_file} is held by pids={pids}"
    return f"; workers of it are still finishing and hold the lock {found.lock_file}: pids={pids}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
