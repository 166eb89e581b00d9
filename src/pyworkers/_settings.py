"""Every option: its name, its default with the precedent, how it is read from text, what it may be.

One table serves the constructor of App, the decorator, the flags and the PYWORKERS_ variables, so that an option
cannot mean two things. Durations are in seconds.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from pyworkers._core.types import PINS_MAX
from pyworkers.errors import DeclarationError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Never


class WorkerOptions(TypedDict, total=False):
    """What can be said of one handler; said on App, it is the default for all of them."""

    backoff: tuple[float, float]
    stop_timeout: float
    cooperative: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The options of one handler, complete."""

    # The first respawn is immediate; then 0.1 s, systemd's RestartSec=, doubling to the 30 s of einhorn.
    backoff: tuple[float, float] = (0.1, 30.0)
    # Below the 10 s after which docker stop and supervisord (stopwaitsecs) kill the master itself.
    stop_timeout: float = 8.0
    # None finds out: a handler that calls checkpoint() is stopped there, any other where it stands.
    cooperative: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSettings:
    """The options of the instance, complete."""

    # The importing module, as celery and flask name an app.
    name: str
    # How many PINs there are for the catch-all; None where every PIN is named. Not the number of CPUs, which in a
    # container is the host's.
    workers: int | None = None
    # The original's normalExitCode.
    normal_exit_codes: frozenset[int] = frozenset({0})
    # Off, as in the original: whoever wants a single instance says where the lock is.
    lock_file: str | None = None
    # Off: level INFO. The original's debug also meant the foreground, which is our default.
    debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How this one run is meant; not the app's business, so only flags and variables say it."""

    # The original's rule, made for cron: a second instance leaves quietly.
    if_running: Literal["exit", "fail", "wait"] = "exit"
    # How long `wait` waits; None is for ever, as flock(1) does without --timeout.
    wait_s: float | None = None
    # The address of the syslog daemon; None logs to stderr, as every supervisor of containers expects.
    syslog: str | None = None
    daemon: bool = False


SYSLOG_DEFAULT = "/dev/log"

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
        codes = list(cast("Iterable[object]", value))
        numbers_only = [code for code in codes if isinstance(code, int) and not isinstance(code, bool)]
        if codes and len(numbers_only) == len(codes) and all(0 <= code <= 255 for code in numbers_only):
            return frozenset(numbers_only)
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
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        seconds = float(value)
        if math.isfinite(seconds) and 0 <= seconds <= 1e9:
            return seconds
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
    if isinstance(value, str) and (value.startswith("/") or re.fullmatch(r"[^\s:]+:\d{1,5}", value)):
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


def checked(option: Option, value: object, source: str) -> object:
    """Return the option's value in its final form.

    Raises:
        DeclarationError: The value is not what the option takes; `source` says in the text where it stands.
    """
    try:
        return option.check(value)
    except ValueError as error:
        raise DeclarationError(f"{source} must be {error}, got {value!r:.80} ({type(value).__name__})") from None


def declared(given: Mapping[str, object], scopes: Collection[str], where: str) -> dict[str, object]:
    """Check options that stand in code, at `where` ("App" or "@app.worker of 'crawl'").

    Raises:
        DeclarationError: One is unknown or has a bad value.
    """
    known = [option.name for option in OPTIONS.values() if option.scope in scopes]
    for name in given:
        if name not in known:
            raise DeclarationError(f"{where} has no option '{name}'; its options are {', '.join(known)}")
    return {name: checked(OPTIONS[name], value, f"{name} of {where}") for name, value in given.items()}


def from_text(option: Option, text: str, source: str) -> object:
    """Return the option's value from a flag or a variable.

    Raises:
        UsageError: The text is not what the option takes.
    """
    try:
        return option.check(option.parse(text))
    except ValueError as error:
        raise UsageError(f"{source} must be {error}, got {text!r:.80}") from None


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the options that PYWORKERS_ variables set.

    Raises:
        UsageError: A variable's text is not what its option takes.
    """
    return {
        option.name: from_text(option, environ[option.variable], option.variable)
        for option in OPTIONS.values()
        if option.variable in environ
    }


def instance_settings(values: Mapping[str, Any]) -> InstanceSettings:
    """Pick the instance's options out of checked values."""
    return InstanceSettings(**_picked(values, InstanceSettings))


def worker_settings(values: Mapping[str, Any]) -> WorkerSettings:
    """Pick one handler's options out of checked values."""
    return WorkerSettings(**_picked(values, WorkerSettings))


def run_settings(values: Mapping[str, Any]) -> RunSettings:
    """Pick the options of the run out of checked values."""
    if_running, wait_s = values.get("if_running", ("exit", None))
    daemon = bool(values.get("daemon", False))
    syslog = values.get("syslog")
    return RunSettings(
        if_running=if_running,
        wait_s=wait_s,
        daemon=daemon,
        syslog=SYSLOG_DEFAULT if daemon and syslog is None else syslog,
    )


def _picked(values: Mapping[str, Any], record: type[InstanceSettings | WorkerSettings]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(record) if field.name in values}
