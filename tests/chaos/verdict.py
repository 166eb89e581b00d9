"""Judges a run by what it has left: the workers' own records, and the logs of all masters that there were.

What it knows of a master: whether it was killed, and what it has said. A master that was killed may have forked
workers of one turn, of each PIN one, that it could not tell of, and owes nobody a successor; one that was not owes each
PIN an unbroken story.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_RECORD = re.compile(r"(\d+) (\d+) (\d+) (\d+) (\d+) (\d+\.\d+) (\S+)")
_STARTED = re.compile(r" worker started (?P<handler>\S+) pin=(?P<pin>\d+) pid=(?P<pid>\d+)$")
_ENDED = re.compile(
    r" worker ended (?P<handler>\S+) pin=(?P<pin>\d+) pid=(?P<pid>\d+) (?P<cause>\S+).* after=.*; (?P<follows>.+)$"
)
_FOLLOWS = re.compile(r"respawning|finished|failed|stopped")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of an attempt.

    Attributes:
        started: When its process started, in clock ticks after boot: with the pid, it names the attempt.
        master: The pid of the master that has forked it.
        instant: Seconds on the monotonic clock.
        word: `begin`, `end`, `exit=CODE` or `not-alone`.
    """

    pin: int
    pid: int
    started: int
    master: int
    generation: int
    instant: float
    word: str


def records_of(text: str) -> list[Record]:
    """Return the records in their order.

    Raises:
        ValueError: A line is none.
    """
    records: list[Record] = []
    for line in text.splitlines():
        found = _RECORD.fullmatch(line)
        if found is None:
            raise ValueError(f"a torn record: {line!r}")
        pin, pid, started, master, generation, instant, word = found.groups()
        numbers = int(pin), int(pid), int(started), int(master), int(generation)
        records.append(Record(*numbers, float(instant), word))
    return records


def faults_of_records(records: Iterable[Record]) -> Iterator[str]:
    """Say what does not hold of the attempts themselves: each is alone, each has a larger generation."""
    latest: dict[int, Record] = {}
    given: dict[int, Record] = {}
    masters: list[int] = []
    for record in records:
        if record.word == "not-alone":
            yield f"two live attempts of pin {record.pin}: {record} beside {latest.get(record.pin)}"
        if record.word != "begin":
            continue
        before = latest.get(record.pin)
        if before is not None and record.generation <= before.generation:
            yield f"the generation did not grow from {before} to {record}"
        if record.generation in given:
            yield f"one generation twice: {given[record.generation]} and {record}"
        if record.master in masters[:-1]:
            yield f"a worker of a master that has had a successor: {record}"
        if record.master not in masters:
            masters.append(record.master)
        latest[record.pin] = given[record.generation] = record


def faults_of_log(master: int, log: str, *, killed: bool) -> Iterator[str]:
    """Say what does not hold of one master's story: on each PIN, start and end in turn, and a reason to go on."""
    last: dict[str, re.Match[str]] = {}
    stopping = False
    for line in log.splitlines():
        stopping = stopping or f"[{master}] INFO stopping" in line
        found = _STARTED.search(line) or _ENDED.search(line)
        if found is not None:
            yield from (
                f"master {master} {fault}: {line!r}" for fault in _faults_of_step(last.get(found["pin"]), found)
            )
            last[found["pin"]] = found
            if stopping and found.re is _STARTED:
                yield f"master {master} started a worker in its stop: {line!r}"
        elif "Traceback" in line or " raised" in line:
            yield f"master {master} or a worker of it has failed: {line!r}"
    if killed:
        return
    for found in last.values():
        if found.re is _STARTED:
            yield f"master {master} never told of the end after {found.string!r}"
        elif found["follows"].startswith("respawning") and not stopping:
            yield f"master {master} owes a respawn after {found.string!r}"


def _faults_of_step(before: re.Match[str] | None, found: re.Match[str]) -> Iterator[str]:
    """Say what is wrong with a PIN's start or end, after what was told of the PIN before."""
    running = before if before is not None and before.re is _STARTED else None
    if found.re is _STARTED:
        if running is not None:
            yield f"started a worker beside pid={running['pid']}"
        elif before is not None and not before["follows"].startswith("respawning"):
            yield f"started a worker of a PIN that is {before['follows']}"
    elif running is None or running["pid"] != found["pid"]:
        yield "tells of an end without its start"
    elif not _FOLLOWS.match(found["follows"]):
        yield "does not say what follows"


def faults_between(records: Iterable[Record], logs: Mapping[int, str], killed: Iterable[int]) -> Iterator[str]:
    """Say where records and logs do not tell the same: a start that nobody told of, another exit code."""
    told: Counter[tuple[int, int, int]] = Counter()
    causes: dict[tuple[int, int, int], list[str]] = {}
    for master, log in logs.items():
        for line in log.splitlines():
            if found := _STARTED.search(line):
                told[master, int(found["pin"]), int(found["pid"])] += 1
            elif found := _ENDED.search(line):
                causes.setdefault((master, int(found["pin"]), int(found["pid"])), []).append(found["cause"])
    untold: Counter[tuple[int, int]] = Counter()
    for record in records:
        who = record.master, record.pin, record.pid
        if record.word == "begin":
            told[who] -= 1
            if told[who] < 0:
                untold[record.master, record.pin] += 1
        # Its own code, or the signal that it met on the way out; 131 is the interrupt of a stop.
        elif record.word.startswith("exit=") and not any(
            cause in (record.word, "exit=131") or cause.startswith("signal=")
            for cause in causes.get(who, [record.word])
        ):
            yield f"{record} was reported as {causes[who]}"
    for (master, pin), count in untold.items():
        # Who dies between its forks and their lines tells of none of a turn, which has no PIN twice.
        if count > (master in set(killed)):
            yield f"master {master} did not tell of {count} workers of pin {pin} that it has started"
