"""One run of the fleet under fire, from its start to the verdict."""

from __future__ import annotations

import random
import re
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.fleet import PINS, STOP_TIMEOUT_S
from chaos.plan import Shot
from chaos.siege import Siege, Target, child_of
from chaos.verdict import Record, faults_between, faults_of_log, faults_of_records, records_of
from helpers import Bench, Instance, bench_in, children, until

STOPPED_COUNT = 3
"""So many workers are suspended when the last master is told to stop: only KILL ends them."""

PATIENCE_S = 60.0
"""How long the return of everybody after the last shot may take on a loaded machine."""

SLACK_S = 5.0
"""How much later than promised a stop may end on a loaded machine."""


@dataclass(slots=True)
class Outcome:
    """What has come of a run.

    Attributes:
        violations: Each fact that must not be.
        table: What happened how often.
    """

    violations: list[str] = field(default_factory=list[str])
    table: Counter[str] = field(default_factory=Counter[str])


def besiege(directory: Path, seed: int, plan: Sequence[Shot]) -> Outcome:
    """Run the fleet in the directory, fire the plan at it, stop it, and judge what is left."""
    shutil.copy(Path(__file__).with_name("fleet.py"), directory / "shop.py")
    # The workers that SIGABRT ends would each leave a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    outcome = Outcome()
    with bench_in(directory) as bench:

        def start() -> Instance:
            return bench.start(None, "--if-running=wait", env={"CHAOS_SEED": str(seed)})

        siege = Siege(directory / "lock", start)
        until(lambda: everybody_since(bench, 0.0), "the first attempt of each PIN", PATIENCE_S)
        siege.fire(plan)
        outcome.violations += siege.violations
        outcome.violations += [
            f"master {each.pid} ended by itself with {each.process.returncode}" for each in siege.ended()
        ]
        if not outcome.violations:
            outcome.violations += finish(bench, siege, random.Random(seed))
        outcome.violations += judge(bench, siege)
        outcome.table = tabulate(bench, siege)
    return outcome


def finish(bench: Bench, siege: Siege, dice: random.Random) -> Iterator[str]:
    """After the last shot: all PINs come back, the master is as it was, a stop is bounded, and nobody is left."""
    ceasefire = time.monotonic()
    try:
        # A reload that came to nothing leaves the PIN at which it was seen to whoever looks after the instance.
        until(lambda: bench.run("restart", "shop:app").returncode == 0, "a restart", PATIENCE_S)
        until(lambda: everybody_since(bench, ceasefire), "the return of every PIN", PATIENCE_S)
        siege.await_looks()
    except AssertionError as error:
        yield f"after the last shot: {error}; {pins_of(bench)}"
        return
    siege.check_descriptors()
    yield from siege.violations
    try:
        yield from stop(bench, siege, dice)
    except TimeoutError as error:
        yield f"the stop is not bounded: {error}"


def stop(bench: Bench, siege: Siege, dice: random.Random) -> Iterator[str]:
    """Stop the heir and the master, some of whose workers stand still, and see that they leave nobody."""
    master = siege.master()
    assert master is not None
    for heir in siege.heirs():
        if (code := heir.stop()) != 0:
            yield f"heir {heir.pid} left with {code} at TERM while it waited for the lock"
    workers = [child for pid in children(master.pid) if (child := child_of(master.pid, pid)) is not None]
    for worker in dice.sample(workers, min(STOPPED_COUNT, len(workers))):
        worker.send(signal.SIGSTOP)
    began = time.monotonic()
    code = master.stop(STOP_TIMEOUT_S + 60)
    took_s = time.monotonic() - began
    if took_s > STOP_TIMEOUT_S + 1 + SLACK_S:
        yield f"the stop took {took_s:.1f} s, and {STOP_TIMEOUT_S + 1} s are promised"
    # The suspended ones were killed, so a unit of theirs may be torn.
    if code not in (0, 1):
        yield f"the master left with {code}"
    yield from left_over(bench, workers)


def left_over(bench: Bench, workers: Sequence[Target]) -> Iterator[str]:
    """Say who is left when the last master has gone."""
    yield from (f"worker {worker.pid} has outlived its master" for worker in workers if worker.lives())
    for record in records_of(bench.read("attempts")):
        if record.word == "begin" and lives(record):
            yield f"{record} is still there"
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == bench.directory:
                yield f"pid {entry.name} is left: {(entry / 'cmdline').read_bytes()!r}"
        except OSError:
            continue


def lives(record: Record) -> bool:
    """Whether the process of this attempt, and not a later one of the same pid, is there and no zombie."""
    try:
        status = Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return status[0] not in "ZX" and int(status[19]) == record.started


def everybody_since(bench: Bench, instant: float) -> bool:
    """Whether each PIN has a live attempt, or has begun one since the instant."""
    latest = pins_of(bench)
    return all(pin in latest and (latest[pin].instant > instant or lives(latest[pin])) for pin in PINS)


def pins_of(bench: Bench) -> dict[int, Record]:
    """Return the latest begin of each PIN."""
    whole, _, _ = bench.read("attempts").rpartition("\n")
    return {record.pin: record for record in records_of(whole) if record.word == "begin"}


def judge(bench: Bench, siege: Siege) -> Iterator[str]:
    """Say what does not hold of the records and the logs."""
    records = records_of(bench.read("attempts"))
    logs = {each.pid: each.log for each in siege.masters}
    yield from faults_of_records(records)
    for master, log in logs.items():
        yield from faults_of_log(master, log, killed=master in siege.killed)
    yield from faults_between(records, logs, siege.killed)


def tabulate(bench: Bench, siege: Siege) -> Counter[str]:
    """Count what has happened."""
    records = records_of(bench.read("attempts"))
    begins = [record for record in records if record.word == "begin"]
    table = Counter(siege.fired)
    table["exit by itself"] = sum(record.word.startswith("exit=") for record in records)
    table["faults"] = table.total()
    table["shots at nobody"] = siege.missed
    table["attempts"] = len(begins)
    table["ends that Python saw"] = sum(record.word == "end" for record in records)
    table["generations"] = len({record.generation for record in begins})
    table["masters that had workers"] = len({record.master for record in begins})
    logs = "".join(each.log for each in siege.masters)
    for words in ("suspended", "resumed", "hung", "recycled", "has not left"):
        table[f"log: worker {words}"] = len(re.findall(rf" worker {words} ", logs))
    table["log: group restarting"] = logs.count(" group restarting ")
    table["log: orphans ended by an heir"] = logs.count("; ending them first")
    return table
