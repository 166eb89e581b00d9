"""Linux's facts about memory: what a process has for itself, what the OOM killer took, and whom it shall take first.

Every function is harmless where the facts do not exist (no /proc, no control groups, another system): it then knows
nothing and says so, and raises nothing. None of them decides what too much memory is.
"""

from __future__ import annotations

import contextlib
import os
import re

from pyworkers._core.types import Pid
from pyworkers._posix import cgroups

# Compiled when first used: only `max_rss` has a use for them.
_RESIDENT = rb"(?m)^(?:VmRSS|HugetlbPages):\s+(\d+) kB$"
_PRIVATE = rb"(?m)^Private_(?:Clean|Dirty|Hugetlb):\s+(\d+) kB$"

_OOM_KILL = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_COUNTERS = {1: "memory.oom_control", 2: "memory.events"}
_VMSTAT = "/proc/vmstat"

_OWN_SCORE = "/proc/self/oom_score_adj"
_INVITATION = 100  # A tenth of the memory that there is: proc(5), oom_score_adj.
_SCORE_MAX = 1000


def private_bytes(pid: Pid, limit: int) -> int | None:
    """Return how many bytes of memory a process shares with nobody, or None where that cannot be found out.

    Pages that it has from the master and has not written to are shared, and do not count (fork(2), copy-on-write).
    Neither does what is swapped out. If all that is resident is at most `limit` bytes, that upper bound is returned:
    the sum of the private pages is a walk over all of them (0.2 ms at 50 MB, 3 ms at 1 GB), the bound is not.
    """
    try:
        # proc(5): the resident set leaves out the pages of hugetlbfs; status tells of them beside it, statm does not.
        resident = _total(_RESIDENT, f"/proc/{pid}/status")
        if resident is None or resident <= limit:
            return resident
        return _total(_PRIVATE, f"/proc/{pid}/smaps_rollup")
    except OSError:
        return None


def _total(field: bytes, path: str) -> int | None:
    # A zombie has a status, but no memory and no such fields.
    with open(path, "rb") as file:
        sizes: list[bytes] = re.findall(field, file.read())
    return sum(map(int, sizes)) * 1024 if sizes else None


class OomKills:
    """Counts what the kernel's OOM killer has killed in the control group of this process, and in groups beneath it.

    Children are in their parent's group unless somebody moves them. The kernel counts before it sends the SIGKILL,
    so that a kill is always counted when the death of its victim is reaped. Where no group has a counter, the one of
    the whole machine is read, which also counts the victims of others: a hint, no proof.

    Args:
        path: The file with the counter; None finds it.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path or _find_counter()
        self._seen = _read_counter(self._path)

    def new_count(self) -> int:
        """Return how many there were since the last call, or since construction."""
        count, before = _read_counter(self._path), self._seen
        if count is None:
            # Descriptors may be exhausted just now: the next call returns what this one could not see.
            return 0
        self._seen = count
        return 0 if before is None else max(count - before, 0)


def _find_counter() -> str:
    # In version 2 the root group has none.
    found = (place.path(_COUNTERS[place.version]) for place in cgroups.places("memory"))
    return next((path for path in found if _read_counter(path) is not None), _VMSTAT)


def _read_counter(path: str) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = _OOM_KILL.search(os.read(descriptor, 65536))
        finally:
            os.close(descriptor)
    except OSError:
        return None
    # Linux has the field since 4.13.
    return int(found[1]) if found else None


def worker_oom_score() -> bytes:
    """In the master, before the first fork: return what `invite_oom_killer` needs; empty where it is not known."""
    try:
        with open(_OWN_SCORE, "rb") as file:
            own = int(file.read())
    except OSError:
        return b""
    return b"%d" % min(own + _INVITATION, _SCORE_MAX)


def invite_oom_killer(pid: Pid, score: bytes) -> None:
    """In the master: let the kernel, when memory runs out, take this child rather than the master.

    To raise a score needs no privilege: proc(5). The child itself would need 23 page faults for it. If the master
    raised its own around the fork instead, the killer could choose it: a fork needs memory.
    """
    if not score:
        return
    # A child that runs as another user by now: see proc(5), /proc/PID, on its owner.
    with contextlib.suppress(OSError):
        descriptor = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
        try:
            os.write(descriptor, score)
        finally:
            os.close(descriptor)
