"""What must follow the end of a worker: the contract's restart rules, written a second time and told from outside.

A seat knows what an observer can know of one PIN, or of one spare: who sits there, who is due when, what was given up
and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyworkers._core import messages as m
from pyworkers._core.messages import GivenUp, Next
from pyworkers._core.types import (
    NEVER,
    Abandoned,
    Exited,
    ExitStatus,
    Failed,
    Finished,
    Pin,
    Purpose,
    Restart,
    Retired,
    SlotPlan,
    is_spare,
)
from sim.worker import SHORT_LIFE_S, Worker


@dataclass(slots=True, eq=False)
class Seat:
    """One PIN, or one spare.

    Attributes:
        due: Where no worker is there and one is to come: when; never, while it waits for its group.
        over: The closed state that it must be in; None while it is open.
        restarts: When each restart was granted that counts for `max_restarts`.
        restart_count: How many of them counted at the last one.
        retiring: Whether an operator has taken the PIN away.
        missed: Whether a worker of it has ended, or it was given up, before it was ever up.
        turn: Whether it is in recycling: from the first TERM until its successor is up, or none follows.
    """

    plan: SlotPlan
    flock: Flock | None = None
    worker: Worker | None = None
    attempts: int = 0
    due: float = NEVER
    over: type | None = None
    short_lives: int = 0
    restarts: list[float] = field(default_factory=list)
    restart_count: int = 0
    retiring: bool = False
    ever_up: bool = False
    missed: bool = False
    turn: bool = False

    @property
    def spare(self) -> bool:
        """Whether this is the seat of a spare, which no PIN counts."""
        return is_spare(self.plan.pin)

    def close(self, how: type) -> None:
        """Note that no worker is there, and that none will follow."""
        assert self.over is None, "closed twice"
        self.over, self.turn = how, False

    def renew(self, now: float, due: float) -> None:
        """Note that an operator wants it started anew: nothing that was counts, and where nobody is, one is due."""
        self.short_lives, self.restarts, self.restart_count, self.retiring = 0, [], 0, False
        if self.worker is None:
            if self.over is not Abandoned:
                self.over, self.due, self.missed = None, due, False
        elif self.worker.purpose is None:
            self.worker.ask(Purpose.RESTART, now, self.plan.stop_timeout)
        elif self.worker.purpose in (Purpose.STOP, Purpose.SCALE):
            self.worker.purpose = Purpose.RESTART

    def retire(self, now: float) -> None:
        """Note that an operator has taken the PIN away."""
        self.retiring = True
        if self.worker is None:
            self.over, self.due = None, NEVER
            self.close(Retired)
        elif self.worker.purpose is None:
            self.worker.ask(Purpose.SCALE, now, self.plan.stop_timeout)
        else:
            self.worker.purpose = Purpose.SCALE


@dataclass(slots=True, eq=False)
class Flock:
    """The PINs of one group.

    Attributes:
        restart_at: While a restart of the group waits for its last old worker: when the new ones are due at the least.
        old: The workers that this restart, or the last one, has to outlive.
    """

    name: str
    seats: list[Seat]
    restart_at: float | None = None
    failed: bool = False
    old: list[Worker] = field(default_factory=list)

    def living(self) -> list[Worker]:
        """Return the workers of the group that were not reaped."""
        return [seat.worker for seat in self.seats if seat.worker is not None]

    def leave(self, now: float) -> None:
        """Note that every worker of the group that is not on its way out already is asked to leave."""
        self.old = self.living()
        for seat in self.seats:
            if seat.worker is None:
                seat.due = NEVER
            elif seat.worker.purpose is None:
                seat.worker.ask(Purpose.GROUP, now, seat.plan.stop_timeout)

    def renew(self, now: float) -> None:
        """Note that an operator wants all of the group started anew, when the last that lives has ended."""
        self.failed, self.restart_at, self.old = False, now, self.living()
        for seat in self.seats:
            if not seat.retiring:
                seat.renew(now, NEVER)
        self.go_on(now)

    def go_on(self, now: float) -> None:
        """Note that all of the group are due where a restart has waited for the last end."""
        if self.restart_at is not None and not self.living():
            for member in self.seats:
                member.due = max(now, self.restart_at)
            self.restart_at = None


def delay_of(seat: Seat, shrink: float) -> float:
    """Return the backoff that the short lives so far have earned."""
    if seat.short_lives <= 1:
        return 0.0
    first_s, longest_s = seat.plan.backoff
    return float(min(longest_s, first_s * 2.0 ** min(seat.short_lives - 2, 64))) * shrink


def end(seat: Seat, status: ExitStatus, now: float, shrink: float, *, stopping: bool) -> list[m.Effect]:
    """Note the end of a seat's worker, and return the reports that must follow from it."""
    worker, flock = seat.worker, seat.flock
    assert worker is not None
    seat.worker, worker.reaped = None, True
    purpose = Purpose.HANG if worker.purpose is None and worker.hung else worker.purpose
    asked = purpose in (Purpose.RECYCLE, Purpose.GROUP, Purpose.RESTART)
    stopping = stopping or purpose is Purpose.SCALE
    lifetime_s, delay_s = now - worker.spawned_at, 0.0
    follows, given_up = _verdict(seat, status, purpose, now, stopping=stopping)
    reports: list[m.Effect] = []
    renewed = purpose is Purpose.RESTART and follows in (Next.RESPAWN, Next.GROUP)
    seat.missed = seat.missed or not (seat.ever_up or renewed or purpose is Purpose.SCALE)
    if follows in (Next.RESPAWN, Next.GROUP):
        if lifetime_s >= SHORT_LIFE_S:
            seat.short_lives = 0
        elif not asked:
            seat.short_lives += 1
        if not asked:
            delay_s = delay_of(seat, shrink)
        seat.due = now + delay_s
    else:
        seat.close(Failed if follows is Next.FAILED else Retired if purpose is Purpose.SCALE else Finished)
    normal = isinstance(status, Exited) and status.code in seat.plan.normal_exit_codes
    is_failure = not (normal or asked or stopping) or given_up not in (None, GivenUp.GROUP)
    reports.append(
        m.WorkerEnded(
            seat.plan.pin,
            worker.attempt,
            status,
            lifetime_s,
            follows,
            delay_s,
            purpose,
            given_up,
            is_failure,
            seat.short_lives,
            seat.restart_count,
        )
    )
    if flock is not None and purpose is Purpose.SCALE:
        flock.go_on(now)
    elif flock is not None and not stopping:
        reports += _tell(flock, seat, follows, now)
    return reports


def _verdict(
    seat: Seat, status: ExitStatus, purpose: Purpose | None, now: float, *, stopping: bool
) -> tuple[Next, GivenUp | None]:
    plan = seat.plan
    code = status.code if isinstance(status, Exited) else None
    normal = code in plan.normal_exit_codes
    if stopping:
        return (Next.FINISHED if normal else Next.STOPPED), None
    if normal and plan.restart is not Restart.ALWAYS:
        return Next.FINISHED, None
    if seat.flock is not None and seat.flock.failed:
        return Next.FAILED, GivenUp.GROUP
    if code in plan.permanent_failure_codes:
        return Next.FAILED, GivenUp.PERMANENT
    again = Next.RESPAWN if seat.flock is None else Next.GROUP
    if purpose in (Purpose.GROUP, Purpose.RESTART):
        return again, None
    if plan.restart is Restart.NEVER:
        return Next.FAILED, GivenUp.NO_RESTART
    if purpose is not Purpose.RECYCLE and plan.max_restarts is not None:
        if sum(now - at < plan.restart_period for at in seat.restarts) >= plan.max_restarts:
            return Next.FAILED, GivenUp.INTENSITY
        seat.restarts = [*seat.restarts, now][-plan.max_restarts - 1 :]
        seat.restart_count = sum(now - at < plan.restart_period for at in seat.restarts)
        if len(seat.restarts) > plan.max_restarts:
            assert seat.restarts[-1] - seat.restarts[0] >= plan.restart_period, "more restarts than are allowed"
    return again, None


def _tell(flock: Flock, seat: Seat, follows: Next, now: float) -> list[m.Effect]:
    reports: list[m.Effect] = []
    pin, live_count = seat.plan.pin, len(flock.living())
    if follows is Next.FAILED and not flock.failed:
        flock.failed = True
        pins: list[Pin] = []
        for member in flock.seats:
            if member.worker is None and member.over is None:
                member.close(Failed)
                member.missed = not member.ever_up
                pins.append(member.plan.pin)
        flock.leave(now)
        reports.append(m.GroupFailed(pin, flock.name, live_count, tuple(pins)))
    elif follows is Next.GROUP:
        due, seat.due = seat.due, NEVER
        if flock.restart_at is None:
            # A failed fork is owed its backoff, whoever fails after it.
            due = max([due, *(member.due for member in flock.seats if member.due < NEVER)])
            flock.leave(now)
            reports.append(m.GroupRestarted(pin, flock.name, live_count))
        flock.restart_at = max(due, flock.restart_at or 0.0)
    flock.go_on(now)
    return reports
