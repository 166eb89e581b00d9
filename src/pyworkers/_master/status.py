"""What `status` tells of each PIN and spare: the core's states and the executor's books, as plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyworkers._core.types import (
    FIRST_SPARE,
    NEVER,
    Abandoned,
    Backoff,
    Failed,
    Finished,
    Hung,
    Killing,
    Pin,
    ProcessState,
    Running,
    SlotState,
    Starting,
    Stopping,
    Waiting,
    is_spare,
)
from pyworkers._master.execute import Executor

NAMES: Mapping[type, str] = {
    Backoff: "backoff",
    Waiting: "waiting",
    Starting: "starting",
    Running: "running",
    Hung: "hung",
    Stopping: "stopping",
    Killing: "killing",
    Finished: "finished",
    Failed: "failed",
    Abandoned: "abandoned",
}

Row = dict[str, object]


class Status:
    """Makes the rows.

    Args:
        offset_s: What the wall clock shows more than the monotonic one.
    """

    def __init__(self, executor: Executor, offset_s: float) -> None:
        self._executor = executor
        self._offset_s = offset_s

    def workers(self, states: Mapping[Pin, SlotState], now: float, pins: Collection[Pin] | None = None) -> list[Row]:
        """Return a row for each PIN, or for these PINs, in their order."""
        return [
            self._worker(pin, state, now)
            for pin, state in states.items()
            if not is_spare(pin) and (pins is None or pin in pins)
        ]

    def spares(self, states: Mapping[Pin, SlotState], now: float) -> list[Row]:
        """Return a row for each spare."""
        return [
            {
                "handler": self._executor.handler(pin),
                "spare": pin - FIRST_SPARE,
                "state": NAMES[type(state)],
                "pid": self._executor.pid(pin) if isinstance(state, ProcessState) else None,
                "uptime": _uptime(state, now),
            }
            for pin, state in states.items()
            if is_spare(pin)
        ]

    def _worker(self, pin: Pin, state: SlotState, now: float) -> Row:
        executor, history = self._executor, self._executor.history
        row: Row = {
            "handler": executor.handler(pin),
            "pin": pin,
            "state": NAMES[type(state)],
            "suspended": isinstance(state, Starting | Running) and state.suspended,
            "pid": None,
            "started": None,
            "uptime": _uptime(state, now),
            "attempt": None,
            "restarts": history.restarts(pin),
            "last_exit": None,
            "delay": round(max(0.0, state.respawn_at - now), 3)
            if isinstance(state, Backoff) and state.respawn_at < NEVER
            else None,
            "unit": None,
            "done": None,
            "total": None,
            "checkpoint": None,
        }
        if (end := history.last_end(pin)) is not None:
            row["last_exit"] = {
                "cause": end.cause,
                "at": round(end.at + self._offset_s, 3),
                "after": round(end.lifetime_s, 3),
            }
        if isinstance(state, ProcessState):
            row["pid"], row["attempt"] = executor.pid(pin), state.attempt
            # A constant as long as the process lives, which the wall clock's now minus its age is not.
            row["started"] = round(state.spawned_at + self._offset_s, 3)
            trace, beat_at = executor.trace(pin), executor.beat(pin)
            row["unit"] = trace.unit or None
            if trace.done_count or trace.total_count is not None:
                row["done"], row["total"] = trace.done_count, trace.total_count
            if beat_at is not None:
                row["checkpoint"] = round(max(0.0, now - beat_at), 3)
        return row


def _uptime(state: SlotState, now: float) -> float | None:
    return round(now - state.spawned_at, 3) if isinstance(state, ProcessState) else None
