"""Where Linux keeps the control groups of this process: cgroups(7).

Nothing is known where there are none, and nothing is raised.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pyworkers._core.records import record

# cgroups(7), /proc/PID/cgroup; proc(5), /proc/PID/mountinfo.
_MEMBERSHIP = re.compile(r"^\d+:(?P<controllers>[^:]*):(?P<path>.*)$", re.MULTILINE)
_MOUNT = re.compile(r"^\d+ \d+ \S+ (?P<root>\S+) (?P<point>\S+) .* - (?P<kind>cgroup2?) ", re.MULTILINE)


@record
class Place:
    """Where a group of ours may be.

    Attributes:
        point: Where its hierarchy is mounted.
        group: Its path beneath that, empty or with a leading slash.
        version: Of the hierarchy, 1 or 2.
    """

    point: str
    group: str
    version: int

    def path(self, name: str) -> str:
        """Return the path of a file of the group."""
        return f"{self.point}{self.group}/{name}"


def places(controller: str) -> Iterator[Place]:
    """Yield where our group with this controller may be, the likeliest first.

    Version 2 has a membership without a controller, version 1 one for each. Both may be mounted, and only one of them
    has the controller: a mount without it has no files of the controller's names.
    """
    groups: dict[str, str] = {}
    for member in _MEMBERSHIP.finditer(_read("/proc/self/cgroup")):
        groups.update(dict.fromkeys(member["controllers"].split(","), member["path"]))
    for mount in _MOUNT.finditer(_read("/proc/self/mountinfo")):
        version = 2 if mount["kind"] == "cgroup2" else 1
        # What is mounted may be a part of the hierarchy, as in a container, and the membership tell of all of it.
        group = groups.get("" if version == 2 else controller, "").removeprefix(mount["root"].rstrip("/"))
        yield Place(mount["point"], group.rstrip("/"), version)
        yield Place(mount["point"], "", version)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read())
    except OSError:
        return ""
