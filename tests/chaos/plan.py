"""Which faults come when, drawn from one seed: the same seed and length give the same plan.

A plan aims by a number from 0 to 1, which becomes somebody at the instant of the shot: who lives then is not the
plan's to say.
"""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass

RATE = 18.0
"""Shots at workers a second; each suspension is two faults, for it ends."""

KINDS = {signal.SIGKILL: 40, signal.SIGSTOP: 25, signal.SIGTERM: 20, signal.SIGABRT: 15}
"""How often which signal hits a worker."""

MASTER_STOPPED_EVERY_S = 3.0
MASTER_RELOADED_EVERY_S = 3.0
"""The reloaded code is the same; most rolls halt early, at a worker that is shot while it is new."""
MASTER_KILLED_EVERY_S = 9.0

LAST_KILL_AT = 0.75
"""After this share of the time the master lives on, so that the last one has some history before it is measured."""


@dataclass(frozen=True, slots=True, order=True)
class Shot:
    """One fault.

    Attributes:
        at_s: Seconds after the beginning.
        target: `worker` or `master`.
        aim: Where among those who live, from 0 to 1.
        held_s: How long a SIGSTOP lasts until the SIGCONT.
    """

    at_s: float
    target: str
    signum: signal.Signals
    aim: float
    held_s: float

    def __str__(self) -> str:
        held = f" for {self.held_s:.3f} s" if self.held_s else ""
        return f"{self.at_s:9.3f} {self.signum.name} to a {self.target} at {self.aim:.3f}{held}"


def planned(seed: int, seconds: float, *, rate: float = RATE) -> list[Shot]:
    """Return the shots of a run of so many seconds, in their order."""
    dice = random.Random(seed)
    shots: list[Shot] = []

    def shoot(target: str, every_s: float, until_s: float, kinds: dict[signal.Signals, int], held_s: float) -> None:
        at_s = dice.expovariate(1 / every_s)
        while at_s < until_s:
            signum = dice.choices(list(kinds), list(kinds.values()))[0]
            aim, held = dice.random(), dice.uniform(0.005, held_s)
            shots.append(Shot(at_s, target, signum, aim, held if signum == signal.SIGSTOP else 0.0))
            at_s += dice.expovariate(1 / every_s)

    shoot("worker", 1 / rate, seconds, KINDS, 1.5)
    shoot("master", MASTER_STOPPED_EVERY_S, seconds, {signal.SIGSTOP: 1}, 0.5)
    shoot("master", MASTER_RELOADED_EVERY_S, seconds, {signal.SIGHUP: 1}, 0.5)
    shoot("master", MASTER_KILLED_EVERY_S, seconds * LAST_KILL_AT, {signal.SIGKILL: 1}, 0.0)
    # However short a run is, its master dies once.
    shots.append(Shot(seconds * LAST_KILL_AT, "master", signal.SIGKILL, 0.0, 0.0))
    return sorted(shots)
