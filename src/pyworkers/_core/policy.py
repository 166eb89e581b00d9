"""Arithmetic: how long to wait before a respawn, and when each rung of the stop ladder is due.

Pure functions of their arguments. Nothing here knows a slot, and no number stands without its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyworkers._core.types import Action, Rung

SHORT_LIFE_S = 1.0
"""A worker that lived less than this counts as short-lived: supervisord's `startsecs` and Twisted's `threshold`."""

STRAGGLER_DELAYS_S = (0.25, 0.5, 1.0, 2.0)
"""A signal is sent again after these, because one that falls between Python's check of its signal flags and a blocking
call does not wake that call (measured: 4 in 20,000). To the worker, TERM twice is TERM once."""

INTERRUPT_AT = 0.8
"""The share of `stop_timeout` after which a worker that has not left is interrupted."""

QUICK_STOP_S = 2.0
"""From the interrupt of a quick stop to KILL."""

ABANDON_S = 1.0
"""How long to wait for a process after KILL; then it is reported, not waited for, so that a stop stays bounded."""


LATE_S = 1.0
"""A deadline that is met later than this says that the master itself was suspended, or the machine overloaded."""

MEASURE_INTERVAL_S = 30.0
"""Between two looks at a worker's memory: a leak is slow, and the kernel walks all its pages for it."""

SPARE_REST_S = 0.05
"""How long after a spare was given to a PIN the next one is forked. A fork at once would compete with the process that
has just taken the PIN, for a processor and for the pages that both have from the master: its handler began 0.8 ms later
(measured on two cores). Whatever is forked now would not be warm before that either."""

CANARY_S = 0.5
"""How long the first worker of each handler has to live, after a reload, before others are replaced: what is wrong with
new code mostly shows at once, and until then it costs one PIN."""

DUMP_TIMEOUT_S = 2.0
"""How long a hung worker may take to write its stacks; then it is replaced without."""

DUMP_TURN_S = 10.0
"""How long it may wait for its turn before that: time for the stacks of a hundred that answer. What hangs one worker
often hangs them all, and the last must not wait for minutes."""


def runtime_limit(max_runtime: float, jitter: Callable[[float], float]) -> float:
    """Return the seconds after which a worker is recycled: up to a tenth early, so that not all of them go at once."""
    return max_runtime * 0.8 + jitter(max_runtime * 0.2)


def recent(restarts: Sequence[float], now: float, period: float) -> tuple[float, ...]:
    """Return the instants of those restarts that are not older than `period` seconds."""
    return tuple(at for at in restarts if now - at < period)


def respawn_delay(short_lives: int, backoff: tuple[float, float]) -> float:
    """Return the seconds to wait before a respawn, after this many short lives in a row.

    The first respawn is immediate; then `backoff[0]`, doubling up to `backoff[1]`.
    """
    if short_lives <= 1:
        return 0.0
    first_s, cap_s = backoff
    # 2.0 ** 1024 overflows, and a crash loop of a day gets there.
    return min(cap_s, first_s * 2.0 ** min(short_lives - 2, 64))


def stop_ladder(stop_timeout: float, now: float) -> tuple[Rung, ...]:
    """Return the rungs of a graceful stop: TERM now, QUIT at 80 % of `stop_timeout`, KILL at its end."""
    interrupt_at = now + stop_timeout * INTERRUPT_AT
    kill_at = now + stop_timeout
    return (
        *_repeated(Action.TERMINATE, now, interrupt_at),
        *_repeated(Action.INTERRUPT, interrupt_at, kill_at),
        Rung(kill_at, Action.KILL),
    )


def quick_ladder(now: float, kill_by: float) -> tuple[Rung, ...]:
    """Return the rungs of a quick stop: QUIT now, KILL two seconds later, but never after `kill_by`."""
    kill_at = min(now + QUICK_STOP_S, kill_by)
    return (*_repeated(Action.INTERRUPT, now, kill_at), Rung(kill_at, Action.KILL))


def _repeated(action: Action, start: float, end: float) -> tuple[Rung, ...]:
    instants = (start, *(start + delay_s for delay_s in STRAGGLER_DELAYS_S))
    return tuple(Rung(at, action) for at in instants if at < end)
