"""Tells the service manager how the instance stands: ready, reloading, stopping, a line of status, and that it lives.

A look at the standing is due when something has happened that may have changed it, and never by time alone. News of a
storm is told together: see `REST_S`. The one clock is the watchdog's, where the manager has asked for it.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable

from pyworkers._core import messages as m
from pyworkers._core.standing import Standing
from pyworkers._logs import WARNING
from pyworkers._master.reports import standing_line
from pyworkers._posix.notify import NotifyDescriptor, NotifySocket

REST_S = 0.5
"""How long a change of the status waits after the one before it: a crash loop must not keep the manager busy."""

RETRY_S = 0.1
"""When to try again where the manager's queue is full: it holds 10 messages by default, net.unix.max_dgram_qlen."""

ABSENCE_S = 3600.0
"""How long a program may take to begin that replaces this one: as a start has it in the manifest of Kubernetes."""

BEAT_MIN_S = 0.01
"""A watchdog that wants to hear more often than this would have the master do nothing else."""


class Notifier:
    """What is said to whom, and when.

    Args:
        standing: Returns how the instance stands.
        log: Takes a level and a line.
        manager: The service manager's socket, if there is one.
        descriptor: What gets a newline when all PINs are up, if anything does.
        watchdog_s: The manager wants to hear that we live at least so often; None where it does not care.
        is_daemon: Whether this is not the process that the manager has started.
    """

    def __init__(
        self,
        standing: Callable[[], Standing],
        log: Callable[[int, str], None],
        *,
        manager: NotifySocket | None = None,
        descriptor: NotifyDescriptor | None = None,
        watchdog_s: float | None = None,
        is_daemon: bool = False,
    ) -> None:
        self._standing = standing
        self._log = log
        self._manager = manager
        self._descriptor = descriptor
        # sd_watchdog_enabled(3) recommends the half.
        self._beat_s = math.inf if watchdog_s is None else max(watchdog_s / 2, BEAT_MIN_S)
        self._beat_at = math.inf if watchdog_s is None else -math.inf
        self._watchdog_s = watchdog_s
        # What the next beat has to say as well.
        self._with_beat = ""
        self._is_daemon = is_daemon
        self._is_ready = self._is_reloading = self._is_stopping = False
        self._status = ""
        self._changed = True
        self._rest_until = -math.inf
        self._owed: deque[str] = deque()
        self._retry_at = math.inf

    def notice(self, happened: m.Event | m.Effect) -> None:
        """Take note of what may have changed the standing."""
        if isinstance(happened, m.Announce | m.StopStarted | m.AllEnded):
            # Somebody waits for just this.
            self._changed, self._rest_until = True, -math.inf
        elif isinstance(happened, m.WorkerUp | m.WorkerExited | m.SpawnFailed):
            self._changed = True

    def next_deadline(self) -> float:
        """Return the instant at which `attend` is due; infinity for never."""
        return min(self._rest_until if self._changed else math.inf, self._retry_at, self._beat_at)

    def attend(self, now: float) -> None:
        """Say what there is to say by now."""
        if self._changed and now >= self._rest_until:
            self._look(now)
        if now >= self._beat_at:
            self._beat_at = now + self._beat_s
            self._say(f"WATCHDOG=1{self._with_beat}", now)
            self._with_beat = ""
        if now >= self._retry_at:
            self._flush(now)

    def reloading(self, now: float) -> None:
        """Say that a reload begins: no READY until `reloaded`, or until another notifier says it.

        Type=notify-reload of systemd.service(5) tells by the time which READY belongs to it.
        """
        self._is_reloading, self._is_ready = True, False
        self._say(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}", now)

    def reloaded(self) -> None:
        """In the same process: the reload is over, and READY is said as soon as it is true."""
        self._is_reloading, self._changed, self._rest_until = False, True, -math.inf

    def leaves(self, now: float) -> None:
        """Just before another program takes the place of this one: it imports its code before it can say a word."""
        if self._watchdog_s is not None and self._manager is not None:
            self._say(f"WATCHDOG=1{_watchdog_of(max(self._watchdog_s, ABSENCE_S))}", now)

    def is_back(self) -> None:
        """In the program that has taken over, or where none could: the watchdog's time is what it was, from now on."""
        if self._watchdog_s is not None and self._manager is not None:
            self._with_beat, self._beat_at = _watchdog_of(self._watchdog_s), -math.inf

    def _look(self, now: float) -> None:
        self._changed, self._rest_until = False, now + REST_S
        standing = self._standing()
        lines: list[str] = []
        if standing.is_started and not (self._is_ready or self._is_reloading):
            self._is_ready = True
            lines.append("READY=1")
            if self._is_daemon:
                lines.append(f"MAINPID={os.getpid()}")
            if self._descriptor is not None:
                self._descriptor.tell()
        if (status := standing_line(standing)) != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self._say("\n".join(lines), now)
        if (standing.is_stopping or standing.is_over) and not self._is_stopping:
            self._is_stopping = True
            # By itself: in one message it would win over READY.
            self._say("STOPPING=1", now)

    def _say(self, message: str, now: float) -> None:
        last = self._owed[-1] if self._owed else ""
        if message.startswith("STATUS=") and last.startswith("STATUS="):
            self._owed.pop()
        if message not in self._owed:
            self._owed.append(message)
        self._flush(now)

    def _flush(self, now: float) -> None:
        self._retry_at = math.inf
        try:
            while self._manager is not None and self._owed:
                if not self._manager.send(self._owed[0]):
                    self._retry_at = now + RETRY_S
                    return
                self._owed.popleft()
        except OSError as error:
            self._log(WARNING, f"cannot notify the service manager: {os.strerror(error.errno or 0)}; it hears no more")
            self._manager, self._beat_at = None, math.inf
        self._owed.clear()


def _watchdog_of(seconds: float) -> str:
    """Return the line that sets the watchdog's time: sd_notify(3)."""
    return f"\nWATCHDOG_USEC={round(seconds * 1e6)}"
