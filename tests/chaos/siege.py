"""Carries out a plan: shoots at the workers and the master of an instance, and keeps an heir waiting for its lock.

Nobody is hit by mistake: a pid becomes a pidfd first, and is then looked at again, so that the signal reaches the very
process that was aimed at, or nobody.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import select
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.plan import Shot
from helpers import Instance, alive, children, state, until

LOOK_EVERY_S = 0.25
"""Between two looks at the master's zombies and descriptors."""

ZOMBIE_S = 3.0
"""A child may be dead for so long before its master, suspensions not counted, has reaped it on a loaded machine."""

LOOKS = 8
"""So many looks at a master's descriptors, of which the most frequent number counts.

A log or a list may be open in one, and in the course of a reload there are fewer."""

SETTLED_S = 2.0
"""A master has taken over and started everybody after this."""


@dataclass(frozen=True, slots=True)
class Target:
    """A process, by a descriptor that means it and nobody who comes after it: pidfd_open(2)."""

    pid: int
    pidfd: int

    def lives(self) -> bool:
        """Whether it has not ended; a zombie has."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return not poller.poll(0)

    def send(self, signum: int) -> bool:
        """Send the signal, and return whether there was somebody to take it."""
        lived = self.lives()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signum)
            return lived
        return False

    def close(self) -> None:
        """Give the descriptor up."""
        os.close(self.pidfd)


def child_of(master: int, pid: int) -> Target | None:
    """Return the target for a child of the master, or None where it is none any more."""
    try:
        target = Target(pid, os.pidfd_open(pid))
    except OSError:
        return None
    with contextlib.suppress(OSError):
        # proc(5): field 4; field 2 is in parentheses and may hold anything.
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if parent == master and target.lives():
            return target
    target.close()
    return None


class Siege:
    """One run of a plan.

    Args:
        lock: The instance's lock file; it tells who the master is.
        start: Starts an instance that waits for the lock.

    Attributes:
        masters: All instances that were ever started.
        killed: The pids of those that were killed.
        fired: How many faults of each kind have hit somebody.
        missed: How many found nobody.
        violations: What did not hold while it lasted.
    """

    def __init__(self, lock: Path, start: Callable[[], Instance]) -> None:
        self._lock = lock
        self._start = start
        self._orphans: list[Target] = []
        self._held: list[tuple[float, int, str, Target]] = []
        self._zombies: dict[int, float] = {}
        self._looked_at = 0.0
        self._signed: dict[int, float] = {}
        self._descriptors: dict[int, list[int]] = {}
        self.masters = [start(), start()]
        self.killed: set[int] = set()
        self.fired: Counter[str] = Counter()
        self.missed = 0
        self.violations: list[str] = []

    def ended(self) -> list[Instance]:
        """Return the instances that have ended, though nobody has killed them."""
        return [each for each in self.masters if each.pid not in self.killed and each.process.poll() is not None]

    def fire(self, plan: Sequence[Shot]) -> None:
        """Fire all shots of the plan, until an instance ends by itself, and end every suspension."""
        begun = time.monotonic()
        for shot in plan:
            self._pass_until(begun + shot.at_s)
            if self.ended():
                break
            if shot.target == "master":
                self._shoot_master(shot)
            else:
                self._shoot_worker(shot)
        while self._held:
            self._pass_until(self._held[0][0])

    def master(self) -> Instance | None:
        """Return who the lock file says is the master, if it is one of ours and lives."""
        found = re.search(r" master=(\d+) ", self._lock.read_text()) if self._lock.exists() else None
        pid = int(found[1]) if found else 0
        return next((each for each in self.masters if each.pid == pid and alive(pid)), None)

    def heirs(self) -> list[Instance]:
        """Return who lives and is not the master."""
        master = self.master()
        return [each for each in self.masters if each is not master and alive(each.pid)]

    def look(self) -> None:
        """See whether the master leaves anybody unreaped, and count its descriptors."""
        now, master = time.monotonic(), self.master()
        passed_s = now - self._looked_at
        if passed_s < LOOK_EVERY_S or master is None:
            return
        self._looked_at = now
        if state(master.pid) in ("T", ""):
            return
        dead = [pid for pid in children(master.pid) if state(pid) == "Z"]
        # A look that comes late says nothing about the time since the one before.
        self._zombies = {pid: self._zombies.get(pid, 0.0) + min(passed_s, 2 * LOOK_EVERY_S) for pid in dead}
        self.violations += [
            f"pid {pid} is a zombie of master {master.pid} for {dead_s:.1f} s"
            for pid, dead_s in self._zombies.items()
            if dead_s > ZOMBIE_S
        ]
        if now - self._signed.setdefault(master.pid, now) > SETTLED_S:
            counts = self._descriptors.setdefault(master.pid, [])
            if len(counts) < LOOKS:
                counts.append(len(descriptors(master.pid)))

    def await_looks(self) -> None:
        """Wait until the master's descriptors were counted often enough."""

        def looked() -> bool:
            self.look()
            master = self.master()
            return master is not None and len(self._descriptors.get(master.pid, ())) == LOOKS

        until(looked, "looks at the last master's descriptors", 60)

    def check_descriptors(self) -> None:
        """See whether the master has as many descriptors as it had at its beginning."""
        master = self.master()
        assert master is not None
        before = statistics.mode(self._descriptors[master.pid])
        try:
            until(lambda: len(descriptors(master.pid)) == before, "the master's descriptors", 5)
        except AssertionError:
            now = descriptors(master.pid)
            self.violations.append(f"master {master.pid} had {before} descriptors and has {len(now)}: {now}")

    def _pass_until(self, instant: float) -> None:
        """Let the time pass, ending suspensions as they become due: the instants are the input here."""
        while True:
            due = min(instant, self._held[0][0] if self._held else instant)
            while (left_s := due - time.monotonic()) > 0:
                self.look()
                time.sleep(min(left_s, LOOK_EVERY_S))
            if not self._held or self._held[0][0] > time.monotonic():
                return
            _, _, who, target = heapq.heappop(self._held)
            # Whoever was killed meanwhile is not missed.
            self.fired[f"SIGCONT to a {who}"] += target.send(signal.SIGCONT)
            target.close()

    def _shoot_worker(self, shot: Shot) -> None:
        """Shoot at one of the master's children, or of those that dead masters have left: the next who lives."""
        for orphan in [orphan for orphan in self._orphans if not orphan.lives()]:
            self._orphans.remove(orphan)
            orphan.close()
        master = self.master()
        own = sorted(children(master.pid)) if master is not None else []
        count = len(own) + len(self._orphans)
        for step in range(count):
            place = (int(shot.aim * count) + step) % count
            if place >= len(own):
                orphan = self._orphans[place - len(own)]
                self._shoot(Target(orphan.pid, os.dup(orphan.pidfd)), "worker", shot)
                return
            if master is not None and (target := child_of(master.pid, own[place])) is not None:
                self._shoot(target, "worker", shot)
                return
        self.missed += 1

    def _shoot_master(self, shot: Shot) -> None:
        # While nobody has signed the lock, the one who is about to take over is as good as any.
        master = self.master() or min(self.heirs(), key=lambda each: each.pid)
        target = Target(master.pid, os.pidfd_open(master.pid))
        if shot.signum == signal.SIGKILL:
            self._orphans += [child for pid in children(master.pid) if (child := child_of(master.pid, pid)) is not None]
            self.killed.add(master.pid)
        self._shoot(target, "master", shot)
        if shot.signum == signal.SIGKILL:
            master.process.wait()
            self.masters.append(self._start())

    def _shoot(self, target: Target, who: str, shot: Shot) -> None:
        hit = target.send(shot.signum)
        self.fired[f"{shot.signum.name} to a {who}"] += hit
        self.missed += not hit
        if hit and shot.signum == signal.SIGSTOP:
            heapq.heappush(self._held, (time.monotonic() + shot.held_s, target.pidfd, who, target))
        else:
            target.close()


def descriptors(pid: int) -> list[str]:
    """Return what the descriptors of a process stand for, in the order of their numbers."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = str(entry.readlink())
    return [found[number] for number in sorted(found)]
