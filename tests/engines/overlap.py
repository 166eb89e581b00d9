"""What workers write about their lives, on whatever host they are, and what that proves: had a PIN two of them at once?

Both sides are here: `Diary` is for handlers, which find this module by `PYTHONPATH`, and the rest for the tests. A line
is `boottime host pid pin epoch start|beat|end`; CLOCK_BOOTTIME is the same one for all namespaces of a kernel, and goes
on while a machine is suspended: clock_gettime(2).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

BEAT_S = 0.05


class Diary:
    """A process's notes on its life with a PIN, from `with` to its end, in a file that all processes append to.

    Args:
        path: The file; each line is one write with O_APPEND, so that no two of them mix: open(2).
        epoch: The number of the attempt, where there is one.
    """

    def __init__(self, path: str | os.PathLike[str], pin: int, epoch: int = 0) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._who = f"{os.uname().nodename} {os.getpid()} {pin} {epoch}"

    def __enter__(self):
        self._write("start")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("end")
        os.close(self._descriptor)

    def beat(self) -> None:
        """Note that the process lives; at least every `BEAT_S`."""
        self._write("beat")

    def _write(self, word: str) -> None:
        at = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(self._descriptor, f"{at:.6f} {self._who} {word}\n".encode())


def live(app, path: str | os.PathLike[str], epoch: int = 0, seconds: float = math.inf) -> None:
    """Be a handler: keep a diary for so long, with a checkpoint at each beat."""
    until = time.monotonic() + seconds
    with Diary(path, app.pin, epoch) as diary:
        while time.monotonic() < until:
            app.checkpoint()
            diary.beat()
            app.sleep(BEAT_S)


@dataclass(frozen=True)
class Life:
    """What one process has written on one PIN.

    Attributes:
        first: When its first line was written, on CLOCK_BOOTTIME.
        last: When its last one was.
        ended: Whether that says so: a process that was killed says nothing.
    """

    host: str
    pid: int
    pin: int
    epoch: int
    first: float
    last: float
    ended: bool


@dataclass(frozen=True)
class Overlap:
    """Two processes that had a PIN at the same time."""

    older: Life
    newer: Life

    @property
    def seconds(self) -> float:
        """For how long, at least: between two lines of one process nobody knows."""
        return min(self.older.last, self.newer.last) - self.newer.first


class Book:
    """The file that the diaries are in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lives(self) -> list[Life]:
        """Return all lives, in the order of their beginnings."""
        return lives(self.path.read_text().splitlines(keepends=True) if self.path.exists() else ())

    def of(self, pin: int) -> list[Life]:
        """Return the lives with this PIN, likewise."""
        return [life for life in self.lives() if life.pin == pin]

    def living(self, silence_s: float = 10 * BEAT_S) -> list[Life]:
        """Return those that have neither ended nor been silent for so long, likewise."""
        since = time.clock_gettime(time.CLOCK_BOOTTIME) - silence_s
        return [life for life in self.lives() if not life.ended and life.last > since]

    def holders(self, pins: Collection[int]) -> dict[int, Life] | None:
        """Return the one living holder of each of these PINs, or None as long as one of them has none or several."""
        found = [life for life in self.living() if life.pin in pins]
        return {life.pin: life for life in found} if sorted(life.pin for life in found) == sorted(pins) else None

    def overlaps(self) -> list[Overlap]:
        """Return every time that a PIN had two processes."""
        return overlaps(self.lives())


def lives(lines: Iterable[str]) -> list[Life]:
    """Return the lives that lines tell of, in the order of their beginnings; a last line without an end is left out."""
    found: dict[tuple[str, str, str], int] = {}
    made: list[Life] = []
    for line in lines:
        if not line.endswith("\n"):
            break
        at, host, pid, pin, epoch, word = line.split()
        key, instant = (host, pid, pin), float(at)
        # A pid that comes again is another process.
        if word == "start":
            found[key] = len(made)
            made.append(Life(host, int(pid), int(pin), int(epoch), instant, instant, ended=False))
        else:
            life = made[found[key]]
            made[found[key]] = Life(*(host, life.pid, life.pin, life.epoch, life.first, instant), ended=word == "end")
    return sorted(made, key=lambda life: life.first)


def overlaps(told: Iterable[Life]) -> list[Overlap]:
    """Return every pair of lives with one PIN of which the older one wrote a line after the newer one's first.

    That is stricter than to compare beats within some length of time, and lets a successor begin at once.
    """
    found: list[Overlap] = []
    latest: dict[int, list[Life]] = {}
    for life in sorted(told, key=lambda life: life.first):
        # Who has written nothing since can overlap with nobody who comes later.
        alive = [older for older in latest.get(life.pin, ()) if older.last > life.first]
        found += [Overlap(older, life) for older in alive]
        latest[life.pin] = [*alive, life]
    return found
