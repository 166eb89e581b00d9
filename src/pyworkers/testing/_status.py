"""How an instance is, by its own word: what it answers on its control socket."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pyworkers._client import find
from pyworkers._client.wire import Wire
from pyworkers._core.records import record
from pyworkers.errors import NotRunningError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyworkers._client.wire import Reply


@record
class WorkerStatus:
    """How one PIN is.

    Attributes:
        state: One of starting, running, hung, stopping, killing, backoff, finished and failed; abandoned is a process
            that even KILL does not end.
        pid: Of its process, if it has one.
        restarts: How many processes it has had after the first.
        cause: How the last one that has ended did so, as of a `FailureRecord`; None where none has.
        unit: What the process has told `App.unit` last.
        done: How many items of `App.track` it has done.
        total: Of how many.
    """

    handler: str
    pin: int
    state: str
    pid: int | None
    restarts: int
    cause: str | None
    unit: str | None
    done: int | None
    total: int | None


def worker_status(row: Reply) -> WorkerStatus:
    """Return what a row of a status says."""
    last: dict[str, Any] | None = row["last_exit"]
    names = ("handler", "pin", "state", "pid", "restarts", "unit", "done", "total")
    return WorkerStatus(cause=None if last is None else last["cause"], **{name: row[name] for name in names})


class Monitor:
    """Asks one master, on one connection that is kept.

    Args:
        pid: The master's.
        directories: Where its entry may be.
    """

    def __init__(self, pid: int, directories: Iterable[str]) -> None:
        self._paths = [os.path.join(directory, f"{pid}.json") for directory in directories]
        self._wire: Wire | None = None

    def status(self) -> Reply | None:
        """Return the master's answer, or None where nobody answers: not yet, or not any more."""
        try:
            if self._wire is None:
                path = next(path for path in self._paths if os.path.exists(path))
                self._wire = Wire(find.read(path))
            return self._wire.ask("status")
        except (StopIteration, FileNotFoundError, NotRunningError):
            self.close()
            return None

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
