"""The history of a PIN in words, for somebody who has never seen the app: what happened, and why what followed did.

Every delay is told with the arithmetic that led to it, in the numbers of the PIN's own options.
"""

from __future__ import annotations

from collections.abc import Callable

from pyworkers._core import messages as m
from pyworkers._core import policy
from pyworkers._core.types import Purpose, Restart, SlotPlan
from pyworkers._master.history import Entry
from pyworkers._master.reports import cause, describe, trace_of

Fact = dict[str, object]

_ASKED = {
    Purpose.STOP: "since the instance was stopped",
    Purpose.HANG: "since it was hung",
    Purpose.RECYCLE: "since it had reached a limit",
    Purpose.GROUP: "with its group",
    Purpose.RESTART: "since an operator wanted a restart",
    Purpose.SCALE: "since an operator wanted fewer PINs",
    Purpose.LEASE: "since its lease was lost",
}

_GIVEN_UP: dict[m.GivenUp, Callable[[SlotPlan], str]] = {
    m.GivenUp.NO_RESTART: lambda _plan: "restart is 'never', and this end was abnormal",
    m.GivenUp.PERMANENT: lambda _plan: "its exit code is one of permanent_failure_codes",
    m.GivenUp.INTENSITY: lambda plan: (
        f"it was restarted {plan.max_restarts} times in {_s(plan.restart_period)}, and max_restarts allows no more"
    ),
    m.GivenUp.GROUP: lambda plan: f"another PIN of its group '{plan.group}' was given up",
}


def told(entry: Entry, plan: SlotPlan) -> Fact:
    """Return one fact: which kind of it, and in words what it was and, where something did, what followed from it."""
    report, pid = entry.report, entry.seat.pid
    match report:
        case m.WorkerStarted(attempt=attempt):
            return {"event": "started", "what": f"started pid={pid}, attempt {attempt}", "then": None}
        case m.WorkerEnded(lifetime_s=lifetime_s):
            asked = "" if report.purpose is None else f", {_ASKED[report.purpose]}"
            why = cause(report, oom=entry.seat.oom)
            return {
                "event": "ended",
                "what": f"ended {why} after {_s(lifetime_s)}{asked}; pid={pid}{trace_of(entry.seat)}",
                "then": _what_follows(report, plan),
                "cause": why,
                "after": round(lifetime_s, 3),
            }
        case m.SpawnDelayed(reason=reason, delay_s=delay_s):
            then = f"tried again in {_s(delay_s)}: never at once, and later each time, up to {_s(plan.backoff[1])}"
            return {"event": "delayed", "what": f"could not be forked: {reason}", "then": then}
        case _:
            return {"event": "noted", "what": describe(report, entry.seat)[1], "then": None}


def policy_of(plan: SlotPlan) -> str:
    """Return how this PIN is restarted, in one sentence."""
    normal = " or ".join(str(code) for code in sorted(plan.normal_exit_codes))
    which = {
        Restart.ON_FAILURE: f"restarted after every end but that by exit code {normal}",
        Restart.ALWAYS: "restarted after every end",
        Restart.NEVER: "never restarted",
    }[plan.restart]
    most = "" if plan.max_restarts is None else f", at most {plan.max_restarts} times in {_s(plan.restart_period)}"
    first_s, longest_s = plan.backoff
    return (
        f"{which}{most}; at once, but when it lives less than {_s(policy.SHORT_LIFE_S)} for the second time in a row"
        f" after {_s(first_s)}, doubling up to {_s(longest_s)}"
    )


def _what_follows(report: m.WorkerEnded, plan: SlotPlan) -> str:
    match report.follows:
        case m.Next.FINISHED:
            return "a normal end: nothing follows"
        case m.Next.STOPPED:
            return "nothing follows"
        case m.Next.FAILED:
            assert report.given_up is not None
            return f"given up: {_GIVEN_UP[report.given_up](plan)}"
        case m.Next.GROUP:
            return f"the next one waits until all of its group '{plan.group}' have ended; {_delay(report, plan)}"
        case m.Next.LEASE:
            return "the next one waits until the lease of the PIN is held again"
        case m.Next.RESPAWN:
            return f"the next one follows {_delay(report, plan)}"


def _delay(report: m.WorkerEnded, plan: SlotPlan) -> str:
    counted = ""
    if plan.max_restarts is not None and report.purpose in (None, Purpose.HANG):
        counted = f"; restart {report.restart_count} of at most {plan.max_restarts} in {_s(plan.restart_period)}"
    if report.purpose in (Purpose.RECYCLE, Purpose.GROUP, Purpose.RESTART):
        return f"at once, for it was asked to leave{counted}"
    if report.short_lives == 0:
        return f"at once, for this one has lived {_s(policy.SHORT_LIFE_S)} or more{counted}"
    if report.short_lives == 1:
        return f"at once, for this is the first short life (less than {_s(policy.SHORT_LIFE_S)}){counted}"
    full_s = policy.respawn_delay(report.short_lives, plan.backoff)
    return (
        f"in {_s(report.delay_s)}: short life number {report.short_lives} in a row makes"
        f" {_arithmetic(report.short_lives, plan)}{_s(full_s)}, less a random part of up to half{counted}"
    )


def _arithmetic(short_lives: int, plan: SlotPlan) -> str:
    first_s, longest_s = plan.backoff
    if short_lives == 2:
        return ""
    times = "once" if short_lives == 3 else f"{short_lives - 2} times"
    full = f"{_s(first_s)} doubled {times}"
    if policy.respawn_delay(short_lives, plan.backoff) < longest_s:
        return f"{full} = "
    return f"{full}, but at most "


def _s(seconds: float) -> str:
    """Return seconds as a person writes them."""
    return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
