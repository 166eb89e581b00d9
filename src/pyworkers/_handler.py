"""Leads what a standard logger takes to the journal. Loaded where `logging` is, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from pyworkers._logs import Journal, Line

# What every record has is not what somebody has put in as `extra`. The last two are told below, where there are such.
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "traceback", "stack"}
_FORMATTER = logging.Formatter()


class JournalHandler(logging.Handler):
    """Hands the records of a logger to a journal, a line each."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. A message that cannot be formatted is reported as logging does, and is no error here."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001  (the manner of logging.Handler.emit: a bad log call must not end the caller)
            self.handleError(record)
            return
        self._journal.put(record.levelno, text)


class FieldsHandler(logging.Handler):
    """Hands the records of a logger on with their tracebacks and their `extra` as fields of their own.

    Args:
        put: Takes a level, a text and the fields.
    """

    def __init__(self, put: Callable[[int, str, Mapping[str, object]], None]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, as above."""
        try:
            # What the master says of a worker comes as it is, with the facts behind it.
            said = record.args[0] if isinstance(record.args, tuple) and len(record.args) == 1 else None
            text = said if isinstance(said, Line) and record.msg == "%s" else record.getMessage()
            fields = {name: value for name, value in vars(record).items() if name not in _ORDINARY}
            if record.exc_info and record.exc_info[0] is not None:
                fields["traceback"] = _FORMATTER.formatException(record.exc_info)
            if record.stack_info:
                fields["stack"] = _FORMATTER.formatStack(record.stack_info)
        except Exception:  # noqa: BLE001  (as above)
            self.handleError(record)
            return
        self._put(record.levelno, text, fields)
