"""Puts a master's loop together: the core with its plans, the kernel, and what a worker is made of.

Composition, like `_compose` above it: nothing is decided here. Every function that it hands to the master runs there,
but for what `boot` makes of it on the other side of fork.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence

from pyworkers._beside import helpers, leased, printing
from pyworkers._core.heir import Heir
from pyworkers._core.records import record
from pyworkers._core.standing import standing_of
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Attempt, FailureRecord, Pid, Pin, Previous, is_spare
from pyworkers._declare import ON_STOP_S
from pyworkers._logs import Journal
from pyworkers._master.control import Control
from pyworkers._master.execute import Crew, Executor, unleased
from pyworkers._master.loop import Loop
from pyworkers._master.verbs import Facts, Verbs
from pyworkers._origin import Beginning
from pyworkers._plan import Plan
from pyworkers._posix import signals, titles
from pyworkers._posix.channel import Channel, packed_up
from pyworkers._posix.desks import Desks
from pyworkers._posix.dumps import DumpPipe
from pyworkers._posix.generations import Generations
from pyworkers._posix.kernel import PosixKernel
from pyworkers._posix.lockfile import LockFile
from pyworkers._posix.rendezvous import Presence
from pyworkers._posix.sockets import Listener
from pyworkers._presence import Reception
from pyworkers._readiness import Readiness
from pyworkers._reloading import Works, reloading
from pyworkers._roster import Roster
from pyworkers._surroundings import environ_of_children, lines_buffered
from pyworkers._worker import boot, prologue
from pyworkers._worker.binding import Assignment, Binding
from pyworkers.app import App, declaration_of, runtime_of
from pyworkers.errors import LockError, PyworkersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._leasing import Leasing
    from pyworkers._posix.identity import Identity
    from pyworkers._posix.sockets import Listener


@record
class Parts:
    """What there is before the loop.

    Attributes:
        begin: How this program has begun, and what it has to take over.
        broken: Why there is no code to run, in a program that has taken over; None where there is.
        lock: The lock, where there is one.
        generations: The numbers of attempts, or why there are none.
        spared: Children that only their owner may reap; None where this process adopts nobody.
        readiness: Tells whoever waits for the start.
        identity: Who workers become; None where they stay who the master is.
    """

    app: App
    plan: Plan
    begin: Beginning
    broken: str | None
    lock: LockFile | None
    trapped: signals.MasterSignals
    journal: Journal
    generations: Generations | PyworkersError
    spared: frozenset[Pid] | None
    readiness: Readiness
    identity: Identity | None


@contextlib.contextmanager
def assembled(parts: Parts) -> Generator[Loop]:
    """Return the loop, and take down what it needed after it."""
    decided = parts.plan
    handlers = declaration_of(parts.app).handlers
    if any(spec.is_async for spec in handlers):
        # Loaded once, here, instead of once in each worker.
        importlib.import_module("asyncio")
    with contextlib.ExitStack() as stack:
        stack.enter_context(environ_of_children(decided.instance.name, parts.identity))
        stack.enter_context(lines_buffered())
        left = parts.begin.inherited
        names = [spec.name for spec in handlers]
        roster = Roster(decided, names) if left is None else Roster(decided, names, left.kept.cells, left.past)
        stack.callback(roster.cells.close)
        channel = stack.enter_context(contextlib.closing(Channel(None if left is None else left.kept.channel)))
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        dumps = stack.enter_context(contextlib.closing(DumpPipe(None if left is None else left.kept.dumps)))
        desks = stack.enter_context(contextlib.closing(Desks()))
        printer = stack.enter_context(printing(decided, names))
        set_title = stack.enter_context(titles.titled(f"pyworkers: master {decided.instance.name}"))
        reception = _reception(parts)
        stack.callback(reception.close)
        inheritance = prologue.Inheritance(
            master=Pid(os.getpid()),
            mask=parts.trapped.inherited_mask - signals.WORKER,
            null=null,
            dropped=_dropped(parts, dumps, reception.listener),
            connections=set(),
            channel=channel,
            desks=desks,
            output=None if printer is None else printer.handover,
            set_title=set_title,
            identity=parts.identity,
        )
        leasing = stack.enter_context(leased(decided, roster))
        workers = _Workers(parts, inheritance, roster, _jobs(parts, roster, inheritance, leasing), desks, leasing)
        stack.callback(workers.release)
        core = _core(parts, roster)
        kernel = PosixKernel(parts.trapped, channel, dumps, parts.spared)
        executor = Executor(kernel, _crew(parts, roster, workers))
        if printer is not None:
            printer.start(kernel, inheritance.mask, set_title)
        notifier = parts.readiness.notifier(functools.partial(standing_of, core), parts.journal.write)
        loop = Loop(core, kernel, executor, parts.journal, notifier)
        if leasing is not None:
            loop.hold(leasing.begin(kernel, inheritance.connections, parts.journal.write))
        works = Works(
            parts, roster, channel, dumps, reception, kernel, core, executor, loop,
            started_at=kernel.now() if left is None else left.started_at,
        )  # fmt: skip
        if reception.listener is not None:
            stack.callback(_answer(works, reception.listener, inheritance.connections).close)
        stack.enter_context(helpers(works, inheritance))
        executor.reload = reloading(works, notifier)
        yield loop


def _crew(parts: Parts, roster: Roster, workers: _Workers) -> Crew:
    return Crew(
        worker_main=workers.main,
        assign=workers.assign,
        release=workers.release,
        notice_main=workers.notice_main() if declaration_of(parts.app).on_failure else None,
        handlers=roster.handlers,
        leaders=roster.leaders,
        add=roster.add,
        clear=roster.clear if parts.broken is None else _no_code(parts.broken),
        trace=roster.trace,
        beat=roster.beat,
        announce=parts.readiness.announce,
        vacate=unleased if workers.leasing is None else workers.leasing.vacate,
        log=parts.journal.write,
    )


def _answer(works: Works, listener: Listener, connections: set[int]) -> Control:
    """Let the loop answer who asks by the control socket."""
    kernel, loop = works.kernel, works.loop
    verbs = Verbs(_facts(works.parts), works.core, works.executor, loop.feed, kernel.now, works.started_at)
    control = Control(listener, kernel, verbs, connections, works.parts.journal.write)
    loop.attend(control)
    return control


def _dropped(parts: Parts, *ends: DumpPipe | Listener | None) -> tuple[int, ...]:
    """Return the master's descriptors that a child has no use for."""
    opened = (end.fileno() for end in ends if end is not None)
    return (*parts.trapped.descriptors(), *parts.readiness.descriptors(), *opened)


def _core(parts: Parts, roster: Roster) -> Supervisor:
    left, decided = parts.begin.inherited, parts.plan
    cut_codes = decided.cut_codes
    if left is None:
        return Supervisor(decided.slot_plans(), _jittered, roster.catch_all, cut_codes)
    if parts.broken is not None:
        before = [slot.plan for slot in left.legacy.slots]
        return Heir(before, _jittered, left.legacy, rolling=False, cut_codes=cut_codes)
    return Heir(decided.slot_plans(), _jittered, left.legacy, catch_all=roster.catch_all, cut_codes=cut_codes)


def _no_code(why: str) -> Callable[[Pin], None]:
    def refuse(_pin: Pin) -> None:
        raise OSError(errno.ENOEXEC, f"there is no code to run: {why}")

    return refuse


def _presence(parts: Parts) -> Presence:
    instance = parts.plan.instance
    lock_file = None if instance.lock_file is None else os.path.abspath(instance.lock_file)
    # The app may have gone elsewhere since; who looks for it compares with getcwd(3), which follows links.
    directory = os.path.realpath(parts.begin.origin.directory)
    return Presence(instance.name, parts.begin.target, directory, lock_file)


def _reception(parts: Parts) -> Reception:
    left, now = parts.begin.inherited, time.time()
    if left is None:
        return Reception(_presence(parts), parts.journal.write, now)
    started = now - (time.monotonic() - left.started_at)
    return Reception(_presence(parts), parts.journal.write, started, left.kept.socket)


def _facts(parts: Parts) -> Facts:
    presence = _presence(parts)
    left = parts.begin.inherited
    plans = parts.plan.workers if left is None or parts.broken is None else [slot.plan for slot in left.legacy.slots]
    stop_timeout = max(plan.stop_timeout for plan in plans)
    if declaration_of(parts.app).on_stop:
        stop_timeout += ON_STOP_S
    return Facts(presence.name, presence.app, os.getpid(), presence.lock_file, stop_timeout)


def _jobs(
    parts: Parts, roster: Roster, inheritance: prologue.Inheritance, leasing: Leasing | None
) -> tuple[boot.Job, ...]:
    """Return what the workers of each handler need to know; made once, so that a respawn makes nothing of it."""
    app, decided, declaration = parts.app, parts.plan, declaration_of(parts.app)
    traps = runtime_of(app).traps(declaration.on_signal)
    on_start: Sequence[boot.PinFunction] = declaration.on_worker_start
    if leasing is not None:
        fence = leasing.fence(runtime_of(app), parts.journal.sink.dump_descriptor())
        traps.update(fence.traps())
        on_start = (fence.begin, *on_start)
    return tuple(
        boot.Job(
            binding=Binding(
                handler=roster.flags[place],
                master=inheritance.master,
                cooperative=worker.cooperative,
                stop_timeout=worker.stop_timeout,
                is_watched=worker.hang_timeout is not None,
                functions=declaration.on_signal,
                cells=roster.cells,
                channel=inheritance.channel,
                dump_descriptor=parts.journal.sink.dump_descriptor(),
            ),
            runtime=runtime_of(app),
            handler_name=spec.name,
            variable=spec.name.encode(sys.getfilesystemencoding(), "backslashreplace").decode(errors="replace"),
            title=titles.printable(f"pyworkers: worker {decided.instance.name} {spec.name}"),
            # Where that is the same, one Python function less for a child to enter.
            handler=spec.function if spec.takes_pin else spec.call,
            is_async=spec.is_async,
            on_warm=declaration.on_worker_warm,
            on_start=on_start,
            on_exit=declaration.on_worker_exit,
            calls=prologue.worker_calls(traps, inheritance, leads_group=worker.kill_group),
            leads_group=worker.kill_group,
            journal=parts.journal,
        )
        for place, (spec, worker) in enumerate(zip(declaration.handlers, decided.workers, strict=True))
    )


@record
class _Workers:
    """Makes the function that a forked process runs, and tells a spare what it has waited for."""

    parts: Parts
    inheritance: prologue.Inheritance
    roster: Roster
    jobs: Sequence[boot.Job]
    desks: Desks
    leasing: Leasing | None

    def main(self, pin: Pin, attempt: Attempt, previous: Previous | None) -> Callable[[], int]:
        """Return that of the PIN's next worker, or of the spare's next process. The fork is to follow at once.

        To bind the runtime, to set the environment, to pack the first word are the master's part, which does so all
        the time: its children need 110 page faults less.
        """
        job, up = self.jobs[self.roster.places[pin]], packed_up(pin, attempt)
        if is_spare(pin):
            desk = self.desks.open(pin)
            self.release()
            os.environ[boot.HANDLER_VARIABLE] = job.variable
            job.runtime.bind(job.binding, (pin, attempt), None)
            return functools.partial(boot.run_spare, job, desk, up, self.inheritance)
        os.environ[boot.PIN_VARIABLE], os.environ[boot.HANDLER_VARIABLE] = str(pin), job.variable
        assignment = self._assignment(pin, attempt, previous)
        job.runtime.bind(job.binding, (pin, attempt), assignment)
        # Not a lambda, which would be one more Python function for the child to enter.
        return functools.partial(boot.run_worker, job, assignment, up, self.inheritance)

    def notice_main(self) -> Callable[[FailureRecord], Callable[[], int]]:
        """Return what makes the function that a process runs which tells of a failure: it is no worker."""
        functions, calls = declaration_of(self.parts.app).on_failure, prologue.notice_calls(self.inheritance)
        ending = boot.Ending(runtime_of(self.parts.app), self.parts.journal)

        def main(record: FailureRecord) -> Callable[[], int]:
            self.release()
            tellers = [functools.partial(function, record) for function in functions]
            return functools.partial(boot.run_notice, tellers, calls, self.inheritance, ending)

        return main

    def release(self) -> None:
        """Undo in this process what `main` has done to it."""
        runtime_of(self.parts.app).release()
        for variable in (boot.PIN_VARIABLE, boot.HANDLER_VARIABLE):
            os.environ.pop(variable, None)

    def assign(self, spare: Pin, pin: Pin, attempt: Attempt, previous: Previous | None) -> None:
        """Let this spare be the PIN's next worker."""
        self.desks.hand(spare, self._assignment(pin, attempt, previous).packed())

    def _assignment(self, pin: Pin, attempt: Attempt, previous: Previous | None) -> Assignment:
        return Assignment(pin, attempt, self.roster.seats[pin], self._generation(pin), previous)

    def _generation(self, pin: Pin) -> int | PyworkersError:
        if self.leasing is not None:
            return self.leasing.epoch(pin)
        generations = self.parts.generations
        if not isinstance(generations, Generations):
            return generations
        try:
            return generations.take()
        except OSError as error:
            # A worker that does not ask for it can do its work on a full disk; for one that does, no number is better
            # than a wrong one.
            return LockError(f"app.generation has no number: {error.filename}: {os.strerror(error.errno or 0)}")


def _jittered(delay_s: float) -> float:
    # Not from `random`, which reseeds itself after every fork of a program that has loaded it: 45 pages of each child.
    return delay_s * (0.5 + int.from_bytes(os.urandom(4), "big") / 2**33)
