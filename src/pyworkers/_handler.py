"""Leads what a standard logger takes to the journal. Loaded where `logging` is, and nowhere else."""

from __future__ import annotations

import logging

from pyworkers._logs import Journal


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
