"""The log as JSON: one object a line, with what the text has as key=value in fields of their own.

Loaded for `--log-format json` alone, before the first fork.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping

from pyworkers._core.types import shown
from pyworkers._logs import LEVELS, Journal, Line, Sink, traceback_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

# ASCII alone: what some readers take for the end of a line (U+2028) is escaped, and so is what is no UTF-8.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

_RESERVED = frozenset({
    "time", "level", "name", "message", "pid", "handler", "pin", "spare",
    "event", "cause", "exit", "signal", "attempt", "after", "delay", "unit",
})  # fmt: skip
"""What these say is the master's to say, also in a line that has none of it."""


class Structure:
    """What makes one line out of what is known.

    Args:
        name: The instance's name.
        explain: Returns the facts behind what a `Line` is about.
    """

    def __init__(self, name: str, explain: Callable[[object], Mapping[str, object]]) -> None:
        self._name = name
        self.explain = explain

    def journal(self, sink: Sink, threshold: int) -> JsonJournal:
        """Return a log that is made of such lines."""
        return JsonJournal(sink, threshold, self)

    def line(
        self,
        level: int,
        message: str,
        facts: Mapping[str, object] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> str:
        """Return the object. `facts` are ours, and may name the pid of whom the line is about; `extra` beats nothing.

        A value that JSON does not have becomes a string.
        """
        now = time.time()
        instant = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        fields: dict[str, object] = {
            "time": f"{instant}.{int(now % 1 * 1000):03d}Z",
            # A level that is not one of ours can only have come by way of a logger.
            "level": LEVELS.get(level) or sys.modules["logging"].getLevelName(level),
            "message": message,
            "name": self._name,
            "pid": os.getpid(),
            **(facts or {}),
        }
        for key, value in (extra or {}).items():
            if key not in _RESERVED:
                fields.setdefault(str(key), value)
        body = ",".join([f"{_encode(key)}:{_value(value)}" for key, value in fields.items()])
        return f"{{{body}}}"


def _value(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return _encode(str(value))
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return _encode(str(value))
    except Exception:  # noqa: BLE001  (a user's own class may raise what it likes; the line shall be written all the same)
        return _encode(shown(value))


class JsonJournal(Journal):
    """The log of one run, as JSON.

    Args:
        sink: Takes whole lines.
        structure: Makes them.
    """

    def __init__(self, sink: Sink, threshold: int, structure: Structure) -> None:
        super().__init__(sink, threshold)
        self._structure = structure

    def write(self, level: int, line: str, error: BaseException | None = None) -> None:
        """Log a line, with the traceback of the error in a field of its own."""
        if self._logger is not None:
            super().write(level, line, error)
        elif level >= self._threshold:
            self.put_fields(level, line, {} if error is None else {"traceback": traceback_of(error)})

    def put(self, level: int, text: str) -> None:
        """Hand a text to the sink, as one object."""
        self.put_fields(level, text, {})

    def put_fields(self, level: int, text: str, extra: Mapping[str, object]) -> None:
        """Hand a text with further fields to the sink."""
        who = {} if self.handler is None else {"handler": self.handler, "pin": self.pin}
        about: Mapping[str, object] = self._structure.explain(text.about) if isinstance(text, Line) else {}
        self.sink.emit(level, self._structure.line(level, text, {**who, **about}, extra))

    def _new_handler(self) -> logging.Handler:
        from pyworkers._handler import FieldsHandler

        return FieldsHandler(self.put_fields)
