"""Whose stacks are asked for: one process at a time, since all write into one pipe.

A hung one goes first, since it waits to be replaced. The stacks of a hung worker go into the log, those that an
operator wants to see to whoever asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pyworkers._core import policy
from pyworkers._core.types import Attempt, Pin
from pyworkers._logs import Line
from pyworkers._master.postmortem import PostMortem

Tell = Callable[[list[str]], None]
"""Takes the lines; none where there was no answer."""


class _Ask:
    """One wish. Without `tell`, it is the core's, about a hung worker, and `who` is what the log calls that."""

    __slots__ = ("attempt", "lines", "pin", "tell", "until", "who")

    def __init__(self, pin: Pin, attempt: Attempt, tell: Tell | None = None, who: Line | None = None) -> None:
        self.pin = pin
        self.attempt = attempt
        self.tell = tell
        self.who = who
        self.lines: list[str] = []
        self.until = 0.0


class Stacks:
    """The wish that is under way, and those that wait.

    Args:
        ask: Makes a process write, and returns whether there was one to ask.
        log: Takes a line.
    """

    def __init__(self, ask: Callable[[Pin, Attempt], bool], log: Callable[[Line], None]) -> None:
        self._ask = ask
        self._log = log
        self._postmortem = PostMortem()
        self._current: _Ask | None = None
        self._waiting: deque[_Ask] = deque()
        self._hung: Line | None = None

    def of_hung(self, pin: Pin, attempt: Attempt, who: Line, now: float) -> None:
        """Log the stacks of a hung worker, now: the core has made sure that there is one at a time."""
        if self._current is not None and self._current.tell is not None:
            self._current.lines = []
            self._waiting.appendleft(self._current)
        self._hung = who
        self._begin(_Ask(pin, attempt, who=who), now)

    def of_asked(self, pin: Pin, attempt: Attempt, tell: Tell, now: float) -> None:
        """Tell the stacks of a worker, when it is its turn."""
        self._waiting.append(_Ask(pin, attempt, tell))
        self._go_on(now)

    def feed(self, data: bytes, now: float) -> None:
        """Take what was written."""
        for line in self._postmortem.feed(data, now):
            if self._current is not None and self._current.tell is not None:
                self._current.lines.append(line)
            elif self._hung is not None:
                self._log(Line(f"stack {self._hung}: {line}", self._hung.about))

    def next_deadline(self) -> float | None:
        """Return the instant at which `meet_deadline` is due, or None."""
        if self._current is None:
            return None
        quiet_at = self._postmortem.next_deadline()
        return self._current.until if quiet_at is None else min(quiet_at, self._current.until)

    def meet_deadline(self, now: float) -> tuple[Pin, Attempt] | None:
        """Go on with the next one; return whose stacks the core has waited for, if they are in the log now."""
        current, dumped = self._current, None
        if current is None:
            return None
        complete = self._postmortem.done(now)
        if not complete and now < current.until:
            return None
        self._current = None
        if current.tell is not None:
            current.tell(current.lines)
        elif complete:
            dumped = (current.pin, current.attempt)
        self._go_on(now)
        return dumped

    @property
    def busy(self) -> bool:
        """Whether the stacks of a hung worker are on their way into the log."""
        return self._current is not None and self._current.tell is None

    def give_up(self) -> None:
        """Tell all who have asked that there is no answer."""
        waiting = [*([] if self._current is None else [self._current]), *self._waiting]
        self._current = None
        self._waiting.clear()
        for wish in waiting:
            if wish.tell is not None:
                wish.tell([])

    def _go_on(self, now: float) -> None:
        while self._current is None and self._waiting:
            self._begin(self._waiting.popleft(), now)

    def _begin(self, wish: _Ask, now: float) -> None:
        self._postmortem.begin()
        self._current = wish
        wish.until = now + policy.DUMP_TIMEOUT_S
        if not self._ask(wish.pin, wish.attempt):
            self._current = None
            if wish.tell is not None:
                wish.tell([])
