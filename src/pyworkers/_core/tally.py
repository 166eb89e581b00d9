"""What counts against a PIN: short lives in a row, and restarts within the period; and the delay that follows."""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core import policy
from pyworkers._core.types import SlotPlan


class Tally:
    """That of one PIN.

    Attributes:
        short_lives: How many workers in a row have lived less than a second.
    """

    __slots__ = ("_jitter", "_plan", "_restarts", "short_lives")

    def __init__(self, plan: SlotPlan, jitter: Callable[[float], float]) -> None:
        self._plan = plan
        self._jitter = jitter
        self.short_lives = 0
        # The instants of restarts that count for the restart intensity, at most `max_restarts` of them.
        self._restarts: tuple[float, ...] = ()

    @property
    def restart_count(self) -> int:
        """How many restarts counted for the restart intensity when it was last asked about."""
        return len(self._restarts)

    def forget(self) -> None:
        """Begin anew."""
        self.short_lives, self._restarts = 0, ()

    def note_life(self, lifetime_s: float, *, asked: bool) -> None:
        """Note a life that is followed by another one. One that was `asked` to end is no short one."""
        if lifetime_s >= policy.SHORT_LIFE_S:
            self.short_lives = 0
        elif not asked:
            self.short_lives += 1

    def note_failed_fork(self) -> None:
        """Note that there was no life at all: never tried again at once, for the system has to recover first."""
        self.short_lives = max(self.short_lives + 1, 2)

    def may_restart(self, now: float) -> bool:
        """Whether the restart intensity allows one more, which counts from now on."""
        if self._plan.max_restarts is None:
            return True
        restarts = policy.recent(self._restarts, now, self._plan.restart_period)
        if len(restarts) >= self._plan.max_restarts:
            return False
        self._restarts = (*restarts, now)
        return True

    def delay_s(self) -> float:
        """Return how long to wait before the next one."""
        delay_s = policy.respawn_delay(self.short_lives, self._plan.backoff)
        return self._jitter(delay_s) if delay_s > 0 else 0.0
