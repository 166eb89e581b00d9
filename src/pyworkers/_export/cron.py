"""A line of a crontab that keeps an instance alive: crontab(5)."""

from __future__ import annotations

import os
import shlex

from pyworkers._export.launch import Launch
from pyworkers.errors import UsageError

LENGTH_MAX = 998
"""As long as a command may be in Vixie's cron and Debian's, which cut it off there or refuse the table."""


def export(launch: Launch) -> str:
    """Return a crontab's text.

    Raises:
        UsageError: There are characters in it that not every cron reads alike, or too many; or an option that has no
            place there.
    """
    launch.refuse("cron", notify_fd="nobody waits for that")
    more: list[str] = []
    if launch.lock_file is None:
        # Else there would be one instance more each minute.
        more.append(f"--lock-file={os.path.join(launch.directory, launch.name.replace('/', '-'))}.lock")
    if "shard" in launch.said and "if_running" not in launch.said:
        # Else a shard that runs would be a failure, and a mail, each minute.
        more.append("--if-running=exit")
    if "daemon" not in launch.said:
        more.append("--daemon")
    words = launch.command(launch.interpreter, *more)
    settings = [f"{name}={shlex.quote(text)}" for name, text in launch.variables.items()]
    command = f"cd {shlex.quote(launch.directory)} && {' '.join([*settings, shlex.join(words)])}"
    if "\\" in command:
        raise UsageError(f"export cron: a backslash means different things to different crons; leave it out: {command}")
    # crontab(5): the first % ends the command, and what follows is its standard input.
    command = command.replace("%", "\\%")
    if len(command.encode()) > LENGTH_MAX:
        raise UsageError(
            f"export cron: a command has at most {LENGTH_MAX} bytes, got {len(command.encode())}: {command}"
        )
    return f"{_HEAD}* * * * * {command}\n"


_HEAD = """\
# For crontab -e: each minute, start the instance unless it runs. It says nothing then, so that cron mails nothing.
"""
