"""Where a running instance can be found by its user: the runtime directory, and an entry there for each instance.

An entry says what a person calls the instance and where its socket is; it is removed at a proper end. One that is left
tells of a master that was killed. Nothing here proves that a master lives but its pid together with when it started.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping

from pyworkers._core.records import record
from pyworkers._posix.lockfile import started_ticks


@record
class Presence:
    """What an instance tells of itself.

    Attributes:
        app: `module:attribute` as it was given; None for `app.run()`.
        directory: Its working directory.
        lock_file: An absolute path.
    """

    name: str
    app: str | None
    directory: str
    lock_file: str | None


def directories() -> Iterator[str]:
    """Return where entries of this user may be, the first choice first.

    All of them, since a service or cron job has no XDG_RUNTIME_DIR, and the person who asks for its status has one.
    """
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "pyworkers")
    uid = os.geteuid()
    if uid == 0:
        yield "/run/pyworkers"
    yield f"/tmp/pyworkers-{uid}"  # noqa: S108  (its owner and mode are looked at before it is used)


def is_ours(directory: str) -> bool:
    """Whether a directory is there, ours, and nobody else can write to it."""
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def provide() -> str:
    """Return the runtime directory, and create it where it is missing.

    Raises:
        OSError: There is none that can be used.
    """
    for directory in directories():
        with contextlib.suppress(OSError):
            os.mkdir(directory, 0o700)
        if is_ours(directory):
            return directory
    raise FileNotFoundError(f"no directory of this user's alone among {', '.join(directories())}")


def socket_paths(presence: Presence) -> Iterator[str]:
    """Return where the instance's socket may be, the first choice first.

    Raises:
        OSError: There is no runtime directory, which is the second choice.
    """
    if presence.lock_file is not None:
        yield f"{presence.lock_file}.sock"
    name = re.sub(r"[^\w.-]", "_", presence.name)[:64]
    yield os.path.join(provide(), f"{name}.{os.getpid()}.sock")


def announce(presence: Presence, socket: str, started: float) -> str:
    """Leave an entry for this process, or anew, and return its path; entries that the same app has left behind go.

    Args:
        presence: What it tells.
        socket: The path of the control socket.
        started: When this process became a master, in seconds since the epoch.

    Raises:
        OSError: It cannot be written.
    """
    directory = provide()
    # The first fields are the same in all entries of one app in one directory: so nothing has to be parsed here.
    mine = {"name": presence.name, "app": presence.app, "directory": presence.directory}
    head = _object(mine)[:-1]
    for path in _entries(directory):
        with contextlib.suppress(OSError, ValueError):
            _remove_stale(path, head)
    pid = os.getpid()
    rest = {
        "lock_file": presence.lock_file,
        "socket": socket,
        "pid": pid,
        "started": round(started, 3),
        "ticks": started_ticks(pid) or 0,
    }
    path = os.path.join(directory, f"{pid}.json")
    draft = f"{path}.new"
    # Bytes: the codec of a text file may be still to be loaded, and no descriptor left for that.
    with open(draft, "wb") as file:
        file.write(f"{head}, {_object(rest)[1:]}\n".encode())
    os.replace(draft, path)
    return path


def entries() -> Iterator[str]:
    """Return the path of every entry of this user, of dead masters, too."""
    for directory in directories():
        if is_ours(directory):
            yield from _entries(directory)


def is_alive(pid: int, ticks: int) -> bool:
    """Whether this pid is still the process that started then."""
    return started_ticks(pid) == ticks


def _entries(directory: str) -> list[str]:
    return sorted(entry.path for entry in os.scandir(directory) if re.fullmatch(r"\d+\.json", entry.name))


def _remove_stale(path: str, head: str) -> None:
    with open(path, "rb") as file:
        text = file.read(65536).decode()
    ticks = re.search(r'"ticks": (\d+)}', text)
    pid = int(os.path.basename(path).partition(".")[0])
    if not text.startswith(head) or ticks is None or is_alive(pid, int(ticks[1])):
        return
    os.unlink(path)
    # What it had without a lock file; beside one, its successor has taken the place.
    for entry in os.scandir(os.path.dirname(path)):
        if entry.name.endswith(f".{pid}.sock"):
            os.unlink(entry.path)


def _object(fields: Mapping[str, str | float | None]) -> str:
    """Return JSON, without `json`, which is loaded for those who ask and not for all who may be asked."""
    return "{" + ", ".join(f"{_quoted(name)}: {_value(value)}" for name, value in fields.items()) + "}"


def _value(value: str | float | None) -> str:
    return "null" if value is None else _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    code = ord(char)
    if 32 <= code < 127 and char not in '"\\':
        return char
    if code < 0x10000:
        # Also a lone surrogate, which is a byte of a file's name (PEP 383).
        return f"\\u{code:04x}"
    # RFC 8259, section 7: beyond the first plane as two. No codec does it, for that may be still to be loaded.
    return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
