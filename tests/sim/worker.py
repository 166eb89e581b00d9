"""One process of the model: what it does as the kernel knows it, and what it was promised as an observer notes it.

Knows nothing of the core beyond its values. The notes are made from the events that went in and the effects that came
out, so that a state of the core which disagrees with them is a finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyworkers._core.messages import StopKind
from pyworkers._core.types import NEVER, Action, Attempt, ExitStatus, Pin, Purpose

# The contract's numbers, written a second time.
SPARE_REST_S = 0.05
SHORT_LIFE_S = 1.0
QUICK_STOP_S = 2.0
ABANDON_S = 1.0
LATE_S = 1.0
MEASURE_INTERVAL_S = 30.0
DUMP_TIMEOUT_S = 2.0
DUMP_TURN_S = 10.0

EPSILON_S = 1e-6
"""What sums of floats may be wrong by; instants here are below 1e9."""

FORCES = list(Action)


@dataclass(slots=True, eq=False)
class Worker:
    """One attempt of one PIN.

    Attributes:
        status: Set when it has ended; until it is `reaped`, the master does not know.
        pace: Seconds between two checkpoints; None while it passes none.
        next_at: Its next checkpoint.
        checkpoint_at: Its last one.
        beat_at: What its cell says: the first checkpoint of all, and the first after each probe.
        probed: Whether the next checkpoint leaves a beat.
        purpose: Why it was asked to leave; None while it was not.
        quiet_from: From when on its silence counts: it came up, went on, or the master was late.
        late_s: The lateness since then, each below what the master takes for a suspension: a second, or half of a
            shorter `hang_timeout`.
        looked_at: When it was looked at last, or might have been.
        dump_end_at: When a hung worker is ended, with its stacks or without.
        measure_at: When its memory is due to be taken.
        overdue: The rung that was reported just before it is climbed.
        oversize: What was too large, as it was measured.
    """

    pin: Pin
    attempt: Attempt
    spawned_at: float

    # The kernel's
    status: ExitStatus | None = None
    reaped: bool = False
    suspended: bool = False
    memory: int = 0
    pace: float | None = None
    next_at: float = NEVER
    checkpoint_at: float | None = None
    beat_at: float | None = None
    probed: bool = False
    left_s: float = NEVER

    # The observer's
    up_at: float | None = None
    acts: list[Action] = field(default_factory=list)
    overdue: Action | None = None
    purpose: Purpose | None = None
    interrupt_at: float = NEVER
    kill_at: float = NEVER
    abandon_at: float = NEVER
    hung: bool = False
    dump_at: float | None = None
    dump_end_at: float = NEVER
    dumped: bool = False
    probe_at: float | None = None
    quiet_from: float = NEVER
    late_s: float = 0.0
    looked_at: float = NEVER
    measure_at: float = NEVER
    oversize: int | None = None

    @property
    def killed(self) -> bool:
        """Whether KILL was sent."""
        return bool(self.acts) and self.acts[-1] is Action.KILL

    # The kernel's side

    def run_to(self, now: float) -> None:
        """Pass the checkpoints that lie in the time up to `now`."""
        if self.next_at > now or self.pace is None or self.status is not None:
            return
        first = self.next_at
        self.checkpoint_at = first + (now - first) // self.pace * self.pace
        self.next_at = self.checkpoint_at + self.pace
        if self.beat_at is None or self.probed:
            self.beat_at, self.probed = first, False

    def moved(self, pin: Pin, attempt: Attempt, now: float) -> Worker:
        """Return the process of this spare as a PIN's: it has its memory, and no past as a worker."""
        self.reaped = True
        return Worker(pin, attempt, now, status=self.status, memory=self.memory)

    def set_pace(self, pace: float | None, now: float) -> None:
        """Pass a checkpoint every `pace` seconds from now on, the first one now, or none any more."""
        self.run_to(now)
        self.pace, self.next_at = pace, NEVER if pace is None else now
        self.run_to(now)

    def suspend(self, now: float) -> None:
        """Stop running, as by SIGSTOP."""
        self.run_to(now)
        self.suspended = True
        self.left_s, self.next_at = self.next_at - now, NEVER

    def resume(self, now: float) -> None:
        """Go on where it was."""
        self.suspended = False
        self.next_at = now + self.left_s
        self.quiet_from, self.late_s, self.looked_at = now, 0.0, -NEVER

    # The observer's side

    def come_up(self, now: float, shrink: float) -> None:
        """Note that it is up, and from when on it is looked after."""
        self.up_at = self.quiet_from = self.looked_at = now
        self.measure_at = now + MEASURE_INTERVAL_S * shrink

    def ask(self, purpose: Purpose, now: float, stop_timeout: float) -> None:
        """Note that it was asked to leave, and by when it will be interrupted and killed."""
        self.purpose = purpose
        if purpose is Purpose.HANG:
            self.interrupt_at, self.kill_at = now, now + min(QUICK_STOP_S, stop_timeout)
        else:
            self.interrupt_at, self.kill_at = now + 0.8 * stop_timeout, now + stop_timeout

    def stop(self, kind: StopKind, now: float, stop_timeout: float) -> None:
        """Note that the instance stops, or stops harder."""
        if self.killed:
            if self.purpose is not Purpose.STOP:
                self.abandon_at = now + ABANDON_S
        elif self.purpose is None:
            self.ask(Purpose.STOP, now, stop_timeout)
        self.purpose = Purpose.STOP
        if kind is StopKind.QUICK:
            self.interrupt_at = min(self.interrupt_at, now)
            self.kill_at = min(self.kill_at, now + min(QUICK_STOP_S, stop_timeout))
        elif kind is StopKind.KILL:
            self.interrupt_at = self.kill_at = min(self.kill_at, now)

    def act(self, action: Action, now: float) -> None:
        """Note a rung, and check that it is not climbed too early, nor down."""
        assert self.purpose is not None, "a signal to a worker that nobody asked to leave"
        assert len(self.acts) <= 16, "a ladder without an end"
        assert not self.acts or FORCES.index(action) >= FORCES.index(self.acts[-1]), "down the ladder"
        assert not self.killed, "KILL again"
        # What a hung worker gets first needs no second line.
        first = action is not Action.TERMINATE and action not in self.acts
        told = self.purpose is Purpose.HANG and action is Action.INTERRUPT
        assert self.overdue is (action if first and not told else None), "an unexpected rung is reported, once"
        self.overdue = None
        if action is Action.INTERRUPT:
            assert now >= self.interrupt_at - EPSILON_S, f"QUIT too early, it is due at {self.interrupt_at}"
        elif action is Action.KILL:
            assert now >= self.kill_at - EPSILON_S, f"KILL too early, it is due at {self.kill_at}"
            self.abandon_at = now + ABANDON_S
        self.acts.append(action)
