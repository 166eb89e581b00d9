"""Who a worker is for the kernel: its user, groups and umask, where the master is root and its workers are not to be.

Looked up once, in the master: a name server may be slow, and a child must not load anything.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping

from pyworkers._core.records import record
from pyworkers._posix import process
from pyworkers.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pwd

ROOT = 0


@record
class Identity:
    """What a child is to become.

    Attributes:
        name: For people.
        user: The number of the user; None where it stays.
        group: That of the group.
        groups: All that it is in.
        umask: The file mode creation mask; None where it stays.
        environ: The variables that tell it who it is; None for one that would tell it wrong.
    """

    name: str
    user: int | None
    group: int | None
    groups: tuple[int, ...]
    umask: int | None
    environ: Mapping[str, str | None]

    def assume(self) -> None:
        """In the child, before any code of the user's: become it, for good.

        The parent-death signal has to be armed after this: prctl(2), PR_SET_PDEATHSIG.

        Raises:
            OSError: The kernel refuses; the child is still somebody else, in part or in whole.
        """
        if self.umask is not None:
            os.umask(self.umask)
        if self.group is not None:
            # While there is the right to it. All three ids, so that there is no way back: setresuid(2).
            os.setgroups(self.groups)
            os.setresgid(self.group, self.group, self.group)
            if self.user is not None:
                os.setresuid(self.user, self.user, self.user)
            process.allow_dump()


def identity_of(user: str | None, group: str | None, umask: str | None) -> Identity | None:
    """Return what workers are to become, or None where they stay what the master is.

    Args:
        user: A name or a number.
        group: Likewise; by default the user's own.
        umask: In octal.

    Raises:
        UsageError: There is no such user or group, or this process must not become it.
    """
    mask = None if umask is None else int(umask, 8)
    if user is None and group is None:
        return None if mask is None else Identity("", None, None, (), mask, {})
    entry = _entry(str(os.geteuid()) if user is None else user)
    number = entry.pw_uid if entry is not None else None if user is None else int(user)
    gid = _gid(group) if group is not None else None if entry is None else entry.pw_gid
    if gid is None:
        raise UsageError(f"--user {user} is not in the user database, which would name its group: give --group, too")
    if (number, gid) == (os.geteuid(), os.getegid()) or (user is None and gid == os.getegid()):
        # As where the unit of a service manager has done it already.
        return None if mask is None else Identity("", None, None, (), mask, {})
    if os.geteuid() != ROOT:
        flag = "--group" if user is None else "--user"
        raise UsageError(f"{flag} needs a master that was started as root, and this one is user {os.geteuid()}")
    groups = (gid,) if entry is None else tuple(os.getgrouplist(entry.pw_name, gid))
    name = f"user {user}" if user is not None else f"group {group}"
    return Identity(name, None if user is None else number, gid, groups, mask, {} if user is None else _environ(entry))


def _entry(user: str) -> pwd.struct_passwd | None:
    import pwd

    try:
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except KeyError:
        if _is_number(user):
            return None
        raise UsageError(f"--user {user} is no user of this system") from None


def _gid(group: str) -> int:
    import grp

    try:
        return int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"--group {group} is no group of this system") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _environ(entry: pwd.struct_passwd | None) -> Mapping[str, str | None]:
    # systemd.exec(5), User=: these four. Of a number that has no name, they would be root's.
    if entry is None:
        return dict.fromkeys(("HOME", "USER", "LOGNAME", "SHELL"))
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}


def lend_streams(identity: Identity) -> None:
    """In the master: let children open /dev/stdout and /dev/stderr again, where these are pipes.

    proc(5), /proc/PID/fd: that asks for the right to the file anew. Of a terminal or a file the owner is somebody
    else's affair.
    """
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(stream).st_mode) and os.readlink(f"/proc/self/fd/{stream}").startswith("pipe:"):
                os.fchown(stream, -1 if identity.user is None else identity.user, -1)
