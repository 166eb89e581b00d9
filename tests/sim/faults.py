"""Faults to put into a copy of the core, one at a time, to see whether the simulation would find them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fault:
    """One slip of the pen.

    Attributes:
        what: What is wrong then, in a few words.
        module: Of `pyworkers._core`.
        right: The text that is there, exactly once.
        wrong: The text to put in its place.
    """

    what: str
    module: str
    right: str
    wrong: str

    def put_into(self, core: Path) -> None:
        """Put the fault into this copy of the core."""
        path = core / f"{self.module}.py"
        source = path.read_text()
        assert source.count(self.right) == 1, f"'{self.what}' does not fit {self.module}.py any more: renew it"
        path.write_text(source.replace(self.right, self.wrong))


FAULTS = (
    Fault("a rung is climbed after its instant, not at it", "slot", "rung.at <= now for", "rung.at < now for"),
    Fault("an event of an older attempt counts", "slot", "state.attempt != event.attempt", "state.attempt < 0"),
    Fault("a respawn follows an end in a stop", "slot", "if stopping or done:", "if done:"),
    Fault("a turn to be recycled is kept for ever", "turns", "state, Running | ClosedState)", "state, ClosedState)"),
    Fault("one restart too many is allowed", "tally", "len(restarts) >= self", "len(restarts) > self"),
    Fault("the window of restarts is closed at its end", "policy", "now - at < period", "now - at <= period"),
    Fault("a late master calls its workers hung", "watch", "None if late else watch.probed_at", "watch.probed_at"),
    Fault("a suspended worker is looked after", "slot", "watch.suspend(state.watch) if suspended", "state.watch if suspended"),
    Fault("a group is released one end too early", "groups", "and not self._live_count()", "and self._live_count() <= 1"),
    Fault("an exit that its group asked for counts as a restart", "slot", "if asked in (Purpose.GROUP, Purpose.RESTART, Purpose.LEASE):", "if asked is Purpose.RESTART:"),
    Fault("who ends normally in recycling is respawned", "slot", "done = normal and", "done = normal and not asked and"),
    Fault("a long life does not end a crash loop", "tally", "SHORT_LIFE_S:\n            self.short_lives = 0", "SHORT_LIFE_S:\n            pass"),
    Fault("permanent failure codes are ignored", "slot", "if code in self.plan.permanent_failure_codes:", "if False:"),
    Fault("a deadline that is put off is forgotten", "supervisor", "self._wakes.note(slot, self._slots)", "isinstance(before, LiveState) or self._wakes.note(slot, self._slots)"),
    Fault("two workers write their stacks at once", "turns", "if key not in self._holders:", "if key is None or key not in self._holders:"),
    Fault("a quick stop grants more time than was left", "states", "min(promised, now + stop_timeout)", "now + stop_timeout"),
    Fault("a failed PIN does not show in the exit code", "ending", "elif torn or failed:", "elif torn:"),
    Fault("a torn unit does not show in the exit code", "slot", "self.torn = self.torn or purpose is Purpose.STOP", "pass"),
    Fault("a suspended spare is assigned", "spares", "spare.state, Running) and not spare.state.suspended", "spare.state, Running)"),
    Fault("a spare of another handler is taken", "spares", "self._parked.get(slot.plan.handler, ())", "next(filter(None, self._parked.values()), ())"),
    Fault("spares are not dismissed", "spares", "if not open_pins[each]]", "if not any(open_pins.values())]"),
    Fault("what failed before counts after an operator's restart", "slot", "self._tally.forget()\n        self._doomed = False", "self._doomed = False"),
    Fault("a PIN that is added while its process leaves has two", "slot", "Purpose.STOP, Purpose.SCALE):\n                #", "Purpose.STOP,):\n                #"),
    Fault("a PIN that is taken away is followed by a new process", "slot", "purpose in (Purpose.STOP, Purpose.SCALE) or", "purpose in (Purpose.STOP,) or"),
    Fault("spares do not come back with the first PIN of their handler", "supervisor", "self._spares.recall(self._open_pins)", "self._spares.recall(Counter[int]())"),
    Fault("a group that an operator starts anew does not wait for its last worker", "groups", "effects += member.restart(now, NEVER)", "effects += member.restart(now, now)"),
    Fault("a spare that was abandoned is followed by a new one", "slot", "or isinstance(state, Abandoned)\n", "\n"),
)  # fmt: skip
