"""A unit of systemd: systemd.service(5), systemd.unit(5), systemd.exec(5). Its lines are known from version 244 on."""

from __future__ import annotations

import re

from pyworkers._export.launch import Launch
from pyworkers.errors import ExitCode

SEATS_MANY = 1000
"""From so many processes on, the 15 % of all that systemd gives to a unit by default (TasksMax=) may be too few."""


def export(launch: Launch) -> str:
    """Return the text of a unit.

    Raises:
        UsageError: It has an option that has no place in a unit.
    """
    launch.refuse("systemd", daemon="systemd has it in the background", notify_fd="systemd has a socket for that")
    # Another instance that somebody has started by hand is no success: systemd tells of it, and tries again.
    more = ("--if-running=fail",) if launch.lock_file is not None and "if_running" not in launch.said else ()
    facts = {
        "name": re.sub(r"[^\w:.-]", "-", launch.name, flags=re.ASCII),
        "user": f"User={_plain(launch.user)}\n" if launch.user is not None else "",
        "directory": _directory(launch.directory),
        "environment": "".join(f"Environment={_quoted(f'{key}={text}')}\n" for key, text in launch.variables.items()),
        "command": _command(launch.command(launch.interpreter, *more)),
        "tasks": "TasksMax=infinity\n" if launch.seats >= SEATS_MANY else "",
        "clean": f"SuccessExitStatus={ExitCode.STOPPED:d}\n" if "shard" in launch.said else "",
        "codes": f"{ExitCode.USAGE:d} {ExitCode.STOP_ALL:d}",
        "stop_s": launch.stop_s,
    }
    return _UNIT.format_map(facts)


_UNIT = """\
# /etc/systemd/system/{name}.service; then: systemctl daemon-reload && systemctl enable --now {name}
[Unit]
Description={name}, kept running by pyworkers
After=network.target
# Try for ever, at the pace of RestartSec=: what is missing may come back after an hour.
StartLimitIntervalSec=0

[Service]
# Started means that every PIN is up, however long that takes.
Type=notify
TimeoutStartSec=infinity
WatchdogSec=60
{user}WorkingDirectory={directory}
{environment}ExecStart={command}
# From systemd 253 on, Type=notify-reload instead of this line makes a reload wait for its end.
ExecReload=/bin/kill -HUP $MAINPID
SyslogIdentifier={name}
{tasks}
# Not after a usage error or a bad app, nor after App.stop_all: no restart helps there.
Restart=on-failure
RestartSec=5
RestartPreventExitStatus={codes}
{clean}
# TERM to the master alone, which stops its workers; KILL to all that is left once its own time has run out.
KillMode=mixed
TimeoutStopSec={stop_s}
# A worker that was killed for want of memory is replaced: no reason to stop the others.
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"""


def _command(words: tuple[str, ...]) -> str:
    # systemd.service(5), "Command lines": with this prefix, a dollar stands for itself, also in the path.
    prefix = ":" if any("$" in word for word in words) else ""
    return prefix + " ".join(word if re.fullmatch(_SAFE, word) else _quoted(word) for word in words)


_SAFE = r"[\w@+=:,./-]+"


def _directory(path: str) -> str:
    # It stands unquoted, where a backslash at the end would go on with the next line, and a space be lost.
    return _plain(path) + ("/." if path[-1] in "\\ " else "")


def _quoted(text: str) -> str:
    """Quote a word as systemd.syntax(7) has it."""
    return '"' + _plain(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _plain(text: str) -> str:
    """Return a text in which no specifier is expanded: systemd.unit(5)."""
    return text.replace("%", "%%")
