"""The facts behind a line of the master, for a log that keeps them in fields: the fields of its report, by their names.

A report that is new has its fields here without a word; what a reader of the text knows by another name is renamed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from pyworkers._core import messages as m
from pyworkers._core.typed import cast
from pyworkers._core.types import FIRST_SPARE, Exited, Pin, Signaled, Wear, is_spare
from pyworkers._master.reports import Seat, cause
from pyworkers._posix.process import signal_name

_KEYS = {
    "lifetime_s": "after",
    "silent_s": "silent",
    "delay_s": "delay",
    "live_count": "workers",
    "exit_code": "code",
    "given_up": "because",
}


def facts_of(about: object) -> Mapping[str, object]:
    """Return the fields of what a line is about: a report with its seat, or the fields themselves."""
    if isinstance(about, Mapping):
        return cast(Mapping[str, object], about)
    report, seat = cast(tuple[m.Report, Seat | None], about)
    facts: dict[str, object] = {"event": _event(type(report).__name__)}
    if seat is not None:
        facts |= {"handler": seat.handler, "pid": seat.pid}
    for name in report.__match_args__:
        _add(facts, name, getattr(report, name))
    if isinstance(report, m.WorkerEnded):
        assert seat is not None
        facts["cause"] = cause(report, oom=seat.oom)
        if report.follows is not m.Next.RESPAWN:
            del facts["delay"]
        if seat.trace is not None:
            found = {"unit": seat.trace.unit, "done": seat.trace.done_count, "total": seat.trace.total_count}
            facts |= {name: value for name, value in found.items() if value}
    return facts


def _add(facts: dict[str, object], name: str, value: object) -> None:
    key = _KEYS.get(name, name)
    match value:
        case None:
            return
        case Exited(code):
            facts["exit"] = code
        case Signaled(signum):
            facts["signal"] = signal_name(signum)
        case Wear(limit, measured):
            facts |= {"limit": limit.value, "reached": measured}
        case enum.Enum():
            facts[key] = value.name.lower()
        case int() if name == "pin" and is_spare(Pin(value)):
            facts["spare"] = value - FIRST_SPARE
        case str() | int() | float() | tuple():
            facts[key] = value
        case _:
            facts[key] = str(value)


def _event(name: str) -> str:
    """Return `worker_ended` for `WorkerEnded`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
