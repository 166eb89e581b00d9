"""A reload as it is composed: what one program of a master writes down for the next, and how that one begins.

Loaded by the first reload, and by the program that one has started.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from pyworkers import _settings
from pyworkers._core import handover
from pyworkers._core.handover import Codec, HandoverError, Legacy
from pyworkers._core.heir import legacy_of
from pyworkers._core.records import record
from pyworkers._core.typed import cast
from pyworkers._core.types import Pid, Pin, is_spare
from pyworkers._master import estate
from pyworkers._master.estate import Books, Line
from pyworkers._plan import Plan
from pyworkers._posix import reexec
from pyworkers._posix.reexec import Origin
from pyworkers._roster import Past
from pyworkers.app import App, declaration_of
from pyworkers.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._master.notify import Notifier
    from pyworkers._reloading import Works


@record
class Kept:
    """The descriptors that go from one program to the next; the socket with its path, and that of its entry."""

    cells: int
    channel: tuple[int, int]
    dumps: tuple[int, int]
    lock: int | None
    socket: tuple[str, int, str | None] | None

    def numbers(self, lines: Iterable[Line]) -> tuple[int, ...]:
        """Return all of them, and those of the connections."""
        some = [] if self.lock is None else [self.lock]
        if self.socket is not None:
            some.append(self.socket[1])
        return (self.cells, *self.channel, *self.dumps, *some, *(line.descriptor for line in lines))


@record
class Estate:
    """All that one program leaves to the next.

    Attributes:
        lock_file: An absolute path.
        shard: K and N; None where this instance runs all PINs.
        mask: The signal mask that the master was started with.
        children: Those that are to be reaped: workers, and what else the master has forked.
        leaders: Those of them that lead a process group.
        started_at: When the master was started, on the monotonic clock.
        begins: When the next program begins, after those of this one and of a few before it, by the wall clock.
    """

    name: str
    lock_file: str | None
    shard: tuple[int, int] | None
    mask: frozenset[int]
    kept: Kept
    children: frozenset[Pid]
    leaders: frozenset[Pid]
    past: Past
    started_at: float
    begins: tuple[float, ...]
    legacy: Legacy
    books: Books
    lines: tuple[Line, ...]


CODEC = Codec((*handover.KINDS, *estate.KINDS, Past, Kept, Estate))


def written(left: Estate) -> bytes:
    """Return what the next program reads."""
    return json.dumps({"schema": CODEC.schema(), "estate": CODEC.pack(left)}).encode()


def read(data: bytes) -> Estate:
    """Return what the program before this one has written.

    Raises:
        UsageError: It is none of ours, or of a version that this one does not understand.
    """
    try:
        found = json.loads(data)
        if not isinstance(found, dict) or "estate" not in found:
            raise HandoverError("expected an object with schema and estate")
        document = cast("dict[str, object]", found)
        if document.get("schema") != CODEC.schema():
            raise UsageError(
                "this version of pyworkers cannot take over from the one that runs: stop the instance and start it"
            )
        left = CODEC.unpack(document["estate"])
        if not isinstance(left, Estate):
            raise HandoverError(f"expected an Estate, got {type(left).__name__}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"what a reload has handed over cannot be read: {error}") from None
    return left


def describe(works: Works) -> Estate:
    """Return what the next program has to know of this one, as it stands."""
    instance, legacy = works.parts.plan.instance, legacy_of(works.core)
    brood = works.kernel.brood
    listener, lock = works.reception.listener, works.parts.lock
    return Estate(
        name=instance.name,
        lock_file=_absolute(instance.lock_file, works.parts.begin.origin.directory),
        shard=works.parts.plan.shard,
        mask=works.parts.trapped.inherited_mask,
        kept=Kept(
            cells=works.roster.cells.fileno(),
            channel=works.channel.ends,
            dumps=works.dumps.ends,
            lock=None if lock is None else lock.fileno(),
            socket=None if listener is None else (listener.path, listener.fileno(), works.reception.entry),
        ),
        children=frozenset(brood.own),
        leaders=frozenset(brood.leaders),
        past=works.roster.past(slot.plan.pin for slot in legacy.slots),
        started_at=works.started_at,
        begins=works.parts.begin.next_begins,
        legacy=legacy,
        books=estate.books_of(works.executor),
        lines=() if works.loop.control is None else estate.lines_of(works.loop.control),
    )


def check(begin: Origin, works: Works) -> tuple[Pid, int]:
    """Start the program anew beside this one, and return the process and the descriptor of its answer."""
    return reexec.start_check(begin, written(describe(works)))


def become(begin: Origin, works: Works, notifier: Notifier | None) -> None:
    """Replace this program, and return only by an OSError."""
    # Once before anything is given up for it: what fails here costs nobody anything.
    written(describe(works))
    works.executor.stacks.give_up()
    works.loop.rest()
    left = describe(works)
    works.parts.journal.sink.flush()
    if notifier is not None:
        notifier.leaves(works.kernel.now())
    try:
        reexec.become(begin, written(left), left.kept.numbers(left.lines), works.parts.trapped.hand_on)
    finally:
        if notifier is not None:
            notifier.is_back()


def refuse(decided: Plan, left: Estate, directory: str) -> None:
    """Raise UsageError where a run, started in this directory, cannot take over, however good its code is."""
    if decided.instance.name != left.name:
        raise UsageError(
            f"the name cannot change by a reload, from {left.name} to {decided.instance.name}: stop the instance and"
            " start it"
        )
    wanted = _absolute(decided.instance.lock_file, directory)
    if wanted != left.lock_file:
        raise UsageError(
            f"lock_file cannot change by a reload, from {left.lock_file} to {wanted}: stop the instance and start it"
        )
    if decided.run.lease is not None:
        raise UsageError("leases cannot begin by a reload: stop the instance and start it")
    held = {slot.plan.pin for slot in left.legacy.slots if not is_spare(slot.plan.pin)}
    if decided.shard != left.shard or (left.shard is not None and held != set(decided.assignment)):
        # Whoever has one of them now does not reload in the same instant.
        raise UsageError(
            "the PINs of a shard cannot change by a reload, since another shard may have them: stop all and start them"
        )


def _absolute(path: str | None, directory: str) -> str | None:
    # Not of the directory of now: an on_start function may have gone to another one.
    return None if path is None else os.path.normpath(os.path.join(directory, path))


def stand_in(left: Estate, given: Mapping[str, object]) -> tuple[App, Plan]:
    """Return an app and a plan for a program that has workers, and no code: it names them, and can start none."""
    app = App(left.name)
    pins: dict[str, list[Pin]] = {}
    for pin, name in left.past.handlers:
        if not is_spare(pin):
            pins.setdefault(name, []).append(pin)
    for name, own in pins.items():

        def nobody() -> None:
            raise AssertionError("there is no code to run")

        nobody.__name__ = name
        app.worker(pins=own)(nobody)
    # Of the run, only where it logs to: what else was asked for may be what has failed.
    values = {**_settings.from_environment(os.environ), **given}
    values = {name: values[name] for name in ("daemon", "syslog", "log_format") if name in values}
    return app, Plan(
        _settings.instance_settings({"name": left.name, "lock_file": left.lock_file}),
        _settings.run_settings(values),
        {pin: place for place, own in enumerate(pins.values()) for pin in own},
        tuple(_settings.worker_settings({}) for _ in declaration_of(app).handlers),
        shard=left.shard,
    )
