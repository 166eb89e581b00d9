"""A process beside the workers, which supervision does not need: started again when it ends, and waited for by nobody.

It has no PIN and no say. What goes wrong with it is a line of the log, once for each reason, and never an end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from pyworkers._core.types import ExitStatus, Pid
from pyworkers._logs import INFO, WARNING
from pyworkers._master.needs import Kernel
from pyworkers._master.reports import status_of

RETRY_S = 5.0
"""Until the next start of one that could not start, or has lived for less than this: nobody's work waits for it."""


class Helper:
    """One such process, and its successors.

    Args:
        what: It is called so in the log.
        where: A fact that tells it from others of its kind, as `key=value`.
        main: What it runs.
        prepare: Is called before each fork, in the master; raises OSError where the helper cannot be of use now.
        log: Takes a level and a line.
    """

    def __init__(
        self,
        what: str,
        where: str,
        kernel: Kernel,
        main: Callable[[], int],
        prepare: Callable[[], object],
        log: Callable[[int, str], None],
    ) -> None:
        self._what = what
        self._where = where
        self._kernel = kernel
        self._main = main
        self._prepare = prepare
        self._log = log
        self._pid: Pid | None = None
        self._started_at = 0.0
        self._due_at: float | None = kernel.now()
        self._told = ""

    def next_deadline(self) -> float | None:
        """Return the instant at which `attend` is due, or None."""
        return self._due_at

    def attend(self, now: float) -> None:
        """Start it, where that is due."""
        if self._due_at is None or now < self._due_at:
            return
        try:
            self._prepare()
            self._pid = self._kernel.fork(self._main, leader=False)
        except OSError as error:
            self._due_at = now + RETRY_S
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            if why != self._told:
                self._told = why
                self._log(WARNING, f"{self._what} cannot start {self._where}: {why}; trying again without a word")
            return
        self._due_at, self._started_at, self._told = None, now, ""
        self._log(INFO, f"{self._what} started {self._where} pid={self._pid}")

    def take_note(self, pid: Pid, status: ExitStatus, now: float) -> None:
        """Replace it, if it is the one that has ended."""
        if pid != self._pid:
            return
        lifetime_s = now - self._started_at
        delay_s = 0.0 if lifetime_s >= RETRY_S else RETRY_S
        self._pid, self._due_at = None, now + delay_s
        then = f"respawning in {delay_s:.1f}s" if delay_s else "respawning now"
        how = f"{self._where} pid={pid} {status_of(status)} after={lifetime_s:.1f}s"
        self._log(WARNING, f"{self._what} ended {how}; {then}")

    def rest(self, now: float) -> None:
        """End it for now; `attend` starts the next one."""
        self.close()
        self._due_at = now

    def close(self) -> None:
        """After the last worker: end it, and leave no child behind."""
        pid, self._pid, self._due_at = self._pid, None, None
        if pid is not None:
            self._kernel.send(pid, signal.SIGKILL)
            self._kernel.await_end(pid)
