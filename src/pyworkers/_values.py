"""What the values of options may be: each check takes a value of code, each parser the text of a flag or a variable.

A check returns the value in its final form; both raise ValueError with what was expected.
"""

from __future__ import annotations

import contextlib
import itertools
import numbers
import os
import re
from collections.abc import Callable, Iterable, Sequence

from pyworkers._core.typed import cast
from pyworkers._core.types import PINS_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Never

SYSLOG_DEFAULT = "/dev/log"

SECONDS_MAX = 1e9
"""Some thirty years: as good as for ever, and far from what the clocks and polls beneath overflow at."""

RESTARTS_MAX = 10_000
"""As many instants the master keeps for one PIN at most."""

SPARES_MAX = 1000
"""More processes that only wait would be a mistake."""

TTL_LEAST = 2.0
"""Its sixths are to be far above what a database takes to answer; the shortest lease of etcd."""

_NOTHING = "None (as text: off)"


def _expected(what: str) -> Never:
    raise ValueError(what)


def check_text(value: object) -> str:
    # It stands in log lines and in syslog's ident, where a space or a newline would end it.
    if isinstance(value, str) and re.fullmatch(r"[^\s\x00-\x1f\[\]]{1,64}", value):
        return value
    _expected("1 to 64 characters without spaces and brackets")


def check_count(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= PINS_MAX:
        return value
    _expected(f"an int of 1 to {PINS_MAX:,}")


def check_codes(value: object) -> frozenset[int]:
    if isinstance(value, int):
        value = (value,)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        # There are 256 of them: no need to read on.
        codes = list(itertools.islice(cast(Iterable[object], value), 257))
        good = [code for code in codes if isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 255]
        if len(codes) == len(good) <= 256:
            return frozenset(good)
    _expected("exit codes of 0 to 255")


def check_some_codes(value: object) -> frozenset[int]:
    try:
        codes = check_codes(value)
    except ValueError:
        codes = None
    return codes or _expected("exit codes of 0 to 255, at least one")


def check_path(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        path: object = os.fspath(cast(str | os.PathLike[str], value))
        if isinstance(path, str) and path and "\0" not in path:
            return path
    _expected("the path of a file")


def check_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    _expected("True or False")


def check_maybe_flag(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    _expected("True, False or None")


def check_seconds(value: object) -> float:
    # Compared before it becomes a float, which an int may be too large for. NaN compares false.
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 <= cast(float, value) <= SECONDS_MAX:
        return float(value)
    _expected("a number of seconds from 0 on")


def check_maybe_seconds(least: float) -> Callable[[object], float | None]:
    def check(value: object) -> float | None:
        if value is None:
            return None
        with contextlib.suppress(ValueError):
            if (seconds := check_seconds(value)) >= least:
                return seconds
        _expected(f"a number of seconds from {least:g} on, or {_NOTHING}")

    return check


def check_period(value: object) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := check_seconds(value)) > 0:
            return seconds
    _expected("a number of seconds, more than 0")


def check_restarts(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= RESTARTS_MAX:
        return value
    _expected(f"an int of 0 to {RESTARTS_MAX:,}, or {_NOTHING}")


def check_spares(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SPARES_MAX:
        return value
    _expected(f"an int of 0 to {SPARES_MAX:,}")


def parse_spare_count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        _expected(f"an int of 0 to {SPARES_MAX:,}")


def check_size(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,15})([KMGT]?)", value)):
        value = int(found[1]) << 10 * " KMGT".index(found[2] or " ")
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
        return value
    _expected('a number of bytes, such as 300_000_000 or "300M" (with K, M, G or T), or ' + _NOTHING)


def check_one_of(*words: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        _expected(f"one of {', '.join(words)}")

    return check


def check_group(value: object) -> str | None:
    return None if value is None else check_text(value)


def check_backoff(value: object) -> tuple[float, float]:
    if isinstance(value, tuple | list) and len(pair := cast(Sequence[object], value)) == 2:
        try:
            first_s, cap_s = check_seconds(pair[0]), check_seconds(pair[1])
        except ValueError:
            pass
        else:
            if 0 < first_s <= cap_s:
                return (first_s, cap_s)
    _expected("two numbers of seconds, the first delay (more than 0) and the longest, such as 0.1 and 30")


def check_if_running(value: object) -> tuple[str, float | None]:
    if isinstance(value, str):
        word, colon, limit = value.partition(":")
        if word in ("exit", "fail") and not colon:
            return (word, None)
        if word == "wait" and not colon:
            return (word, None)
        if word == "wait":
            try:
                return (word, check_seconds(parse_number(limit)))
            except ValueError:
                pass
    _expected("exit, fail, wait or wait:SECONDS")


def check_shard(value: object) -> str | None:
    if value is None:
        return None
    # Not loaded for a run of all PINs.
    from pyworkers import _shards

    return _shards.check(value)


def check_lease(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and re.match(r"postgres(ql)?://", value):
        return value
    _expected("the URL of a database, such as postgresql://host/name")


def check_ttl(value: object) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := check_seconds(value)) >= TTL_LEAST:
            return seconds
    _expected(f"a number of seconds from {TTL_LEAST:g} on")


def check_run_id(value: object) -> str | None:
    return None if value is None else check_text(value)


def check_address(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        udp = re.fullmatch(r"[^\s:]+:(\d{1,5})", value)
        if value.startswith("/") or (udp is not None and 1 <= int(udp[1]) <= 65535):
            return value
    _expected("a socket's path from / on, or HOST:PORT")


def check_place(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        # Without a host, all of this machine's.
        place = re.fullmatch(r"(?:\[[0-9a-fA-F:.%\w]+\]|[\w.-]*):(\d{1,5})", value, re.ASCII)
        if place is not None and 1 <= int(place[1]) <= 65535:
            return value
    _expected("HOST:PORT, such as 127.0.0.1:9100")


def check_descriptor(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 3 <= value < 2**31:
        return value
    _expected(f"the number of an open descriptor from 3 on, or {_NOTHING}")


def check_account(value: object) -> str | None:
    # Whether there is one of that name is for the machine to say on which it runs, and not for this text.
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"[^\s\x00:,/+-][^\s\x00:,/]{0,255}", value):
        number = _as_number(value)
        # The last number is nobody: setresuid(2) takes it for "as it is".
        if number is None or number < 2**32 - 1:
            return value
    _expected("a name, or a number from 0 on")


def _as_number(text: str) -> int | None:
    """Return what is written in decimal digits, and not what else int() takes: +4, 1_0, digits of other scripts."""
    return int(text) if text.isascii() and text.isdecimal() else None


def check_umask(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and (found := re.fullmatch(r"(?:0o)?0*([0-7]{1,3})", value)):
        return found[1].zfill(4)
    _expected("a mode in octal, such as 027")


def parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _expected("a number of seconds from 0 on")


def parse_maybe(parse: Callable[[str], object]) -> Callable[[str], object]:
    def parse_or_off(text: str) -> object:
        if text == "off":
            return None
        try:
            return parse(text)
        except ValueError:
            # The option's check will say what it takes, and it takes no such text.
            return text

    return parse_or_off


def parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        _expected(f"an int of 1 to {PINS_MAX:,}")


def parse_descriptor(text: str) -> int | str | None:
    if text == "off":
        return None
    number = _as_number(text[:11])
    return text if number is None else number


def parse_int_list(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        _expected("exit codes of 0 to 255, with commas between them")


def parse_number_list(text: str) -> tuple[object, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        _expected("two numbers of seconds with a comma between them, such as 0.1,30")


def parse_switch(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            _expected("1, true, yes, on or 0, false, no, off")


def parse_syslog(text: str) -> str | None:
    # In a variable, a switch is as natural as an address.
    try:
        return SYSLOG_DEFAULT if not text or parse_switch(text) else None
    except ValueError:
        return text
