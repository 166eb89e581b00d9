"""The table of options: how each is read from text, what it may be, what the help says.

One table serves the constructor of App, the decorator, the flags and the PYWORKERS_ variables, so that an option
cannot mean two things. Durations are in seconds; defaults are the business of `_settings`.
"""

from __future__ import annotations

import itertools
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from pyworkers._core.types import PINS_MAX

if TYPE_CHECKING:
    from typing_extensions import Never

SYSLOG_DEFAULT = "/dev/log"

SECONDS_MAX = 1e9
"""Some thirty years: as good as for ever, and far from what the clocks and polls beneath overflow at."""

Scope = Literal["instance", "worker", "run"]


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        parse: Turns text of a flag or a variable into a value; raises ValueError with what was expected.
        check: Returns the value in its final form; raises ValueError with what was expected.
        metavar: What the help shows for the value; None for a switch.
    """

    name: str
    scope: Scope
    parse: Callable[[str], object]
    check: Callable[[object], object]
    metavar: str | None
    help: str

    @property
    def flag(self) -> str:
        """The long flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "PYWORKERS_" + self.name.upper()


def _expected(what: str) -> Never:
    raise ValueError(what)


def _text(value: object) -> str:
    # It stands in log lines and in syslog's ident, where a space or a newline would end it.
    if isinstance(value, str) and re.fullmatch(r"[^\s\x00-\x1f\[\]]{1,64}", value):
        return value
    _expected("1 to 64 characters without spaces and brackets")


def _count(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= PINS_MAX:
        return value
    _expected(f"an int of 1 to {PINS_MAX:,}")


def _codes(value: object) -> frozenset[int]:
    if isinstance(value, int):
        value = (value,)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        # There are 256 of them: no need to read on.
        codes = list(itertools.islice(cast("Iterable[object]", value), 257))
        good = [code for code in codes if isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 255]
        if 1 <= len(codes) == len(good) <= 256:
            return frozenset(good)
    _expected("exit codes of 0 to 255, at least one")


def _path(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        path: object = os.fspath(cast("str | os.PathLike[str]", value))
        if isinstance(path, str) and path and "\0" not in path:
            return path
    _expected("the path of a file")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    _expected("True or False")


def _maybe_flag(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    _expected("True, False or None")


def _seconds(value: object) -> float:
    # Compared before it becomes a float, which an int may be too large for. NaN compares false.
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 <= cast("float", value) <= SECONDS_MAX:
        return float(value)
    _expected("a number of seconds from 0 on")


def _backoff(value: object) -> tuple[float, float]:
    if isinstance(value, tuple | list) and len(pair := cast("Sequence[object]", value)) == 2:
        try:
            first_s, cap_s = _seconds(pair[0]), _seconds(pair[1])
        except ValueError:
            pass
        else:
            if 0 < first_s <= cap_s:
                return (first_s, cap_s)
    _expected("two numbers of seconds, the first delay (more than 0) and the longest, such as 0.1 and 30")


def _if_running(value: object) -> tuple[str, float | None]:
    if isinstance(value, str):
        word, colon, limit = value.partition(":")
        if word in ("exit", "fail") and not colon:
            return (word, None)
        if word == "wait" and not colon:
            return (word, None)
        if word == "wait":
            try:
                return (word, _seconds(_number(limit)))
            except ValueError:
                pass
    _expected("exit, fail, wait or wait:SECONDS")


def _address(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        udp = re.fullmatch(r"[^\s:]+:(\d{1,5})", value)
        if value.startswith("/") or (udp is not None and 1 <= int(udp[1]) <= 65535):
            return value
    _expected("a socket's path from / on, or HOST:PORT")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _expected("a number of seconds from 0 on")


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        _expected(f"an int of 1 to {PINS_MAX:,}")


def _int_list(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        _expected("exit codes of 0 to 255, with commas between them")


def _number_list(text: str) -> tuple[object, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        _expected("two numbers of seconds with a comma between them, such as 0.1,30")


def _switch(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            _expected("1, true, yes, on or 0, false, no, off")


def _syslog(text: str) -> str | None:
    # In a variable, a switch is as natural as an address.
    try:
        return SYSLOG_DEFAULT if not text or _switch(text) else None
    except ValueError:
        return text


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("name", "instance", str, _text, "NAME", "the instance's name in logs (default: the module's)"),
        Option("workers", "instance", _int, _count, "N", "number of PINs where a handler has no pins of its own"),
        Option(
            "normal_exit_codes", "instance", _int_list, _codes, "CODE[,CODE...]",
            "exit codes that end a PIN for good (default: 0)",
        ),
        Option("lock_file", "instance", str, _path, "FILE", "allow a single instance, by a lock on this file"),
        Option("debug", "instance", _switch, _flag, None, "log at level DEBUG, and show tracebacks of a bad app"),
        Option(
            "backoff", "worker", _number_list, _backoff, "FIRST,MAX",
            "seconds between respawns of a worker that lives less than a second (default: 0.1,30)",
        ),
        Option(
            "stop_timeout", "worker", _number, _seconds, "SECONDS",
            "from the polite TERM to KILL; QUIT comes at 80 %% of it (default: 8)",
        ),
        Option(
            "cooperative", "worker", _switch, _maybe_flag, None,
            "stop workers only at their checkpoints (default: those that have any)",
        ),
        Option(
            "if_running", "run", str, _if_running, "exit|fail|wait[:SECONDS]",
            "what to do where the lock is taken: leave with 0 (default), leave with 75, or wait",
        ),
        Option("syslog", "run", _syslog, _address, "ADDRESS", f"log to syslog (default address: {SYSLOG_DEFAULT})"),
        Option("daemon", "run", _switch, _flag, None, "run in the background with --syslog; return when all are up"),
    )
}  # fmt: skip
