"""What the system allows this process to have: how many processes, and how many descriptors.

A limit that is reached while the instance runs is waited out. One that is lower than what the instance needs is better
named beforehand: a failed fork(2) says EAGAIN, whichever it was.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from pyworkers._core.records import record, replace
from pyworkers._posix import cgroups

_RESERVE = 16
"""The descriptors that a master still opens, for its pipes and for what it reads now and then."""

# capabilities(7): with either of them RLIMIT_NPROC does not bind, and neither does it bind root (getrlimit(2)).
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 21, 24


@record
class Limit:
    """One limit, and what an administrator calls it."""

    value: int
    name: str


def shortages(process_count: int, descriptor_count: int) -> Iterator[str]:
    """Say which limits are lower than so many processes in all, and so many more descriptors."""
    process_limit = min(_of_processes(), default=None, key=lambda limit: limit.value)
    if process_limit is not None and process_limit.value < process_count:
        yield f"{process_count} processes are needed, and {process_limit.name} allows {process_limit.value}"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_count() + _RESERVE + descriptor_count
    if soft != resource.RLIM_INFINITY and soft < needed:
        yield f"{needed} descriptors are needed, and RLIMIT_NOFILE (ulimit -n) allows {soft}"


def _open_count() -> int:
    try:
        # That of the listing itself is among them.
        return len(os.listdir("/dev/fd")) - 1
    except OSError:
        return 0


def _of_processes() -> Iterator[Limit]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and not _is_exempt():
        yield Limit(soft, "RLIMIT_NPROC (ulimit -u)")
    for name in ("pid_max", "threads-max"):
        if (value := _number(f"/proc/sys/kernel/{name}")) is not None:
            yield Limit(value, f"kernel.{name}")
    for place in cgroups.places("pids"):
        # A group is bound by those above it, too.
        while True:
            path = place.path("pids.max")
            # `max` is no number, and no limit.
            if (value := _number(path)) is not None:
                yield Limit(value, path)
            if not place.group:
                break
            place = replace(place, group=place.group.rpartition("/")[0])  # noqa: PLW2901  (upwards)


def _is_exempt() -> bool:
    if os.getuid() == 0:
        return True
    try:
        with open("/proc/self/status") as file:
            status = file.read()
    except OSError:
        return False
    effective = int(status.partition("CapEff:\t")[2].partition("\n")[0] or "0", 16)
    return bool(effective & (1 << _CAP_SYS_ADMIN | 1 << _CAP_SYS_RESOURCE))


def _number(path: str) -> int | None:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
