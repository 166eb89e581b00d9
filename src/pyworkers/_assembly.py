"""Puts a master's loop together: the core with its plans, the kernel, and what a worker is made of.

Composition, like `_compose` above it: nothing is decided here. Every function that it hands to the master runs there,
but for what `boot` makes of it on the other side of fork.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Generator, Sequence

from pyworkers._core.records import record
from pyworkers._core.standing import standing_of
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Attempt, FailureRecord, Pid, Pin, Previous, is_spare
from pyworkers._logs import WARNING, Journal
from pyworkers._master.control import Control
from pyworkers._master.execute import Crew, Executor
from pyworkers._master.loop import Loop
from pyworkers._master.verbs import Facts, Verbs
from pyworkers._plan import Plan
from pyworkers._posix import signals, titles
from pyworkers._posix.cells import Cells
from pyworkers._posix.channel import Channel, Told, Word
from pyworkers._posix.desks import Desks
from pyworkers._posix.dumps import DumpPipe
from pyworkers._posix.generations import Generations
from pyworkers._posix.kernel import PosixKernel
from pyworkers._posix.rendezvous import Presence
from pyworkers._posix.sockets import Listener
from pyworkers._presence import Reception
from pyworkers._readiness import Readiness
from pyworkers._roster import Roster
from pyworkers._surroundings import environ_of_children, lines_buffered
from pyworkers._worker import boot, prologue
from pyworkers._worker.binding import Assignment, Binding
from pyworkers.app import App, declaration_of, runtime_of
from pyworkers.errors import LockError, PyworkersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._posix.identity import Identity
    from pyworkers._posix.sockets import Listener
    from pyworkers._printer import Helper


@record
class Parts:
    """What there is before the loop.

    Attributes:
        target: The import string, where there is one.
        generations: The numbers of attempts, or why there are none.
        spared: Children that only their owner may reap; None where this process adopts nobody.
        readiness: Tells whoever waits for the start.
        identity: Who workers become; None where they stay who the master is.
    """

    app: App
    plan: Plan
    target: str | None
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
        cells = stack.enter_context(contextlib.closing(Cells(len(handlers), len(decided.assignment))))
        channel = stack.enter_context(contextlib.closing(Channel()))
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        dumps = stack.enter_context(contextlib.closing(DumpPipe()))
        desks = stack.enter_context(contextlib.closing(Desks()))
        printer = stack.enter_context(_printing(parts))
        set_title = stack.enter_context(titles.titled(f"pyworkers: master {decided.instance.name}"))
        reception = stack.enter_context(contextlib.closing(Reception(_presence(parts), parts.journal.write)))
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
        roster = Roster(decided, [spec.name for spec in handlers], cells)
        workers = _Workers(parts, inheritance, roster, _jobs(parts, cells, inheritance), desks)
        stack.callback(workers.release)
        crew = Crew(
            worker_main=workers.main,
            assign=workers.assign,
            release=workers.release,
            notice_main=workers.notice_main() if declaration_of(parts.app).on_failure else None,
            handlers=roster.handlers,
            leaders=roster.leaders,
            add=roster.add,
            clear=roster.clear,
            trace=roster.trace,
            beat=roster.beat,
            announce=parts.readiness.announce,
            log=parts.journal.write,
        )
        core = Supervisor(decided.slot_plans(), _jittered, roster.catch_all)
        kernel = PosixKernel(parts.trapped, channel, dumps, parts.spared)
        executor = Executor(kernel, crew)
        if printer is not None:
            printer.start(kernel, inheritance.mask, set_title)
        notifier = parts.readiness.notifier(functools.partial(standing_of, core), parts.journal.write)
        machine = _Machine(core, kernel, executor, Loop(core, kernel, executor, parts.journal, notifier))
        if reception.listener is not None:
            stack.callback(_answer(parts, machine, reception.listener, inheritance).close)
        if decided.run.metrics_address is not None:
            stack.enter_context(_metrics_served(parts, machine, reception.listener, inheritance))
        yield machine.loop


@record
class _Machine:
    """What decides, and what carries that out."""

    core: Supervisor
    kernel: PosixKernel
    executor: Executor
    loop: Loop


def _answer(parts: Parts, machine: _Machine, listener: Listener, inheritance: prologue.Inheritance) -> Control:
    """Let the loop answer who asks by the control socket."""
    kernel, log = machine.kernel, parts.journal.write
    verbs = Verbs(_facts(parts), machine.core, machine.executor, machine.loop.feed, kernel.now)
    control = Control(listener, kernel, verbs, inheritance.connections, log)
    machine.loop.attend(control)
    return control


@contextlib.contextmanager
def _metrics_served(
    parts: Parts, machine: _Machine, listener: Listener | None, inheritance: prologue.Inheritance
) -> Generator[None]:
    """Let the loop keep the helper that serves the metrics, where there can be one."""
    # Loaded only for this.
    from pyworkers._metering import Metering

    address, log = parts.plan.run.metrics_address or "", parts.journal.write
    with contextlib.ExitStack() as stack:
        try:
            if listener is None:
                raise OSError("there is no control socket to get them from")  # noqa: TRY301
            arguments = (os.path.abspath(listener.path), parts.plan.instance.name)
            metering = Metering(address, arguments, inheritance, machine.kernel, log)
        except OSError as error:
            log(WARNING, f"no metrics address={address}: {error.strerror or error}")
        else:
            stack.callback(metering.close)
            machine.loop.keep(metering.helper)
        yield


def _dropped(parts: Parts, *ends: DumpPipe | Listener | None) -> tuple[int, ...]:
    """Return the master's descriptors that a child has no use for."""
    opened = (end.fileno() for end in ends if end is not None)
    return (*parts.trapped.descriptors(), *parts.readiness.descriptors(), *opened)


@contextlib.contextmanager
def _printing(parts: Parts) -> Generator[Helper | None]:
    """Return the handle on what prints the output of workers, if anything is to; at the end, see it off."""
    decided = parts.plan
    if not decided.run.prefix_output:
        yield None
        return
    from pyworkers._printer import Helper

    handlers = declaration_of(parts.app).handlers
    names = [f"{handlers[place].name}.{pin}" for pin, place in decided.assignment.items()]
    names += [f"{handlers[place].name}.spare" for place in decided.spares().values()]
    helper = Helper(names, max(worker.stop_timeout for worker in decided.workers) + 1)
    try:
        yield helper
    finally:
        helper.finish()


def _presence(parts: Parts) -> Presence:
    instance = parts.plan.instance
    lock_file = None if instance.lock_file is None else os.path.abspath(instance.lock_file)
    return Presence(instance.name, parts.target, os.getcwd(), lock_file)


def _facts(parts: Parts) -> Facts:
    presence = _presence(parts)
    stop_timeout = max(worker.stop_timeout for worker in parts.plan.workers)
    return Facts(presence.name, presence.app, os.getpid(), presence.lock_file, stop_timeout)


def _jobs(parts: Parts, cells: Cells, inheritance: prologue.Inheritance) -> tuple[boot.Job, ...]:
    """Return what the workers of each handler need to know; made once, so that a respawn makes nothing of it."""
    app, decided, declaration = parts.app, parts.plan, declaration_of(parts.app)
    traps = runtime_of(app).traps(declaration.on_signal)
    return tuple(
        boot.Job(
            binding=Binding(
                handler=place,
                master=inheritance.master,
                cooperative=worker.cooperative,
                stop_timeout=worker.stop_timeout,
                is_watched=worker.hang_timeout is not None,
                functions=declaration.on_signal,
                cells=cells,
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
            on_start=declaration.on_worker_start,
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

    def main(self, pin: Pin, attempt: Attempt, previous: Previous | None) -> Callable[[], int]:
        """Return that of the PIN's next worker, or of the spare's next process. The fork is to follow at once.

        To bind the runtime, to set the environment, to pack the first word are the master's part, which does so all
        the time: its children need 110 page faults less.
        """
        job, up = self.jobs[self.roster.places[pin]], Told(pin, attempt, Word.UP).packed()
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
        return Assignment(pin, attempt, self.roster.seats[pin], self._generation(), previous)

    def _generation(self) -> int | PyworkersError:
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
