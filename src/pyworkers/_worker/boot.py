"""A worker's life: the first lines after fork, the handler, its outcome as an exit code, and a clean end.

Runs in the child. What can be done before the fork is done there: see `prologue`, and `Runtime.bind`.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from pyworkers._core.records import record
from pyworkers._core.typed import cast
from pyworkers._core.types import Attempt, Pin
from pyworkers._logs import ERROR, WARNING, Journal
from pyworkers._posix import process, signals
from pyworkers._posix.channel import packed_up
from pyworkers._posix.signals import Call
from pyworkers._worker.binding import Assignment, Binding
from pyworkers._worker.outcome import code_of_exception, exit_code_of
from pyworkers._worker.prologue import TERM, Inheritance, settle_in
from pyworkers._worker.runtime import Runtime
from pyworkers.errors import ExitCode, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyworkers._posix.identity import Identity

PIN_VARIABLE = "PYWORKERS_WORKER_PIN"
HANDLER_VARIABLE = "PYWORKERS_WORKER_HANDLER"

PinFunction = Callable[[int], object]
"""A user's function, whether it was declared with the `pin` parameter or without."""


@record
class Ending:
    """What the end of a process needs, that of a worker or of a notice."""

    runtime: Runtime
    journal: Journal


@record
class Job:
    """All that the workers of one handler need to know; composed before the first fork.

    Attributes:
        handler_name: For logs.
        variable: The same for the environment, which cannot hold every name.
        title: What its workers are for ps(1), but for the PIN.
        handler: Runs the user's handler; an async one returns its coroutine.
        on_warm: The `on_worker_warm` functions.
        on_start: The `on_worker_start` functions.
        on_exit: The `on_worker_exit` functions.
        calls: What makes a process of the master's a worker of this handler; see `worker_calls`.
        leads_group: Whether it leads a process group, all of which ends with it (`kill_group`).
    """

    binding: Binding
    runtime: Runtime
    handler_name: str
    variable: str
    title: str
    handler: PinFunction
    is_async: bool
    on_warm: Sequence[Callable[[], object]]
    on_start: Sequence[PinFunction]
    on_exit: Sequence[PinFunction]
    calls: Sequence[Call]
    leads_group: bool
    journal: Journal


def run_worker(job: Job, assignment: Assignment, up: bytes, inheritance: Inheritance) -> int:
    """Live as the worker of a PIN, to which the master has bound the runtime, and return the exit code.

    Args:
        job: What it has in common with the other workers of its handler.
        assignment: What it has to itself.
        up: The record that says that it is up.
        inheritance: What it has from the master.
    """
    if (refusal := _become_worker(job, -1, inheritance)) is not None:
        return refusal
    job.journal.handler, job.journal.pin = job.handler_name, assignment.pin
    if inheritance.set_title is not None or inheritance.output is not None:
        _show(job, assignment.pin, inheritance)
    signals.unblock(inheritance.mask)
    code = _warm(job, inheritance) if job.on_warm else None
    if code is None:
        code = _work(job, assignment, up, inheritance)
    return _leave(job, assignment, inheritance, code)


def run_spare(job: Job, desk: int, up: bytes, inheritance: Inheritance) -> int:
    """Live as a spare until its assignment is read from the `desk`, then as a worker, and return the exit code."""
    if (refusal := _become_worker(job, desk, inheritance)) is not None:
        return refusal
    job.journal.handler = job.handler_name
    _show(job, None, inheritance)
    signals.unblock(inheritance.mask)
    assignment: Assignment | None = None
    code = _warm(job, inheritance) if job.on_warm else None
    if code is None:
        _rehearse(job)
        inheritance.channel.tell(up)
        told = job.runtime.park(desk)
        os.close(desk)
        code = ExitCode.STOPPED
        if told:
            assignment = Assignment.unpacked(told)
            job.binding.cells.grow(assignment.seat + 1)
            up = _take(job, assignment)
            _show(job, assignment.pin, inheritance)
            code = _work(job, assignment, up, inheritance)
    return _leave(job, assignment, inheritance, code)


def run_notice(
    functions: Sequence[Callable[[], object]], calls: Sequence[Call], inheritance: Inheritance, ending: Ending
) -> int:
    """Live as the short-lived process that tells a failure to the `on_failure` functions."""
    if inheritance.identity is not None and not _assume(inheritance.identity, ending.journal):
        return ExitCode.FAILED
    if not settle_in(calls, inheritance):
        return ExitCode.STOPPED
    inheritance.desks.become_worker()
    if inheritance.output is not None:
        inheritance.output.say_who("on_failure")
    if inheritance.set_title is not None:
        inheritance.set_title("pyworkers: on_failure")
    signals.unblock(inheritance.mask)
    code: int = ExitCode.OK
    for function in functions:
        code = _guarded(ending, "on_failure", code, function)
    return _end(ending, code)


def run_inline(handler: PinFunction, pin: int, *, is_async: bool) -> int:
    """Run a handler in this very process, for a debugger: what it raises is not caught."""
    result = handler(pin)
    if is_async:
        import asyncio

        result = asyncio.run(_awaited(result))
    return exit_code_of(result)


def run_async(runtime: Runtime, handler: PinFunction, pin: int) -> object:
    """Run an async handler in a loop of its own, where a stop of the runtime's cancels it, and return its result."""
    # Loaded before the fork where a handler is async.
    import asyncio

    async def main() -> object:
        task = asyncio.current_task()
        assert task is not None
        with runtime.inside_loop(asyncio.get_running_loop(), task):
            return await _awaited(handler(pin))

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        code = runtime.stop_code
        if code is None:
            raise
        raise Stop(code) from None


def _become_worker(job: Job, desk: int, inheritance: Inheritance) -> int | None:
    """Do what a worker does with or without a PIN; return None, or the code to leave with."""
    # First of all, for a change of user undoes what comes after it: prctl(2), PR_SET_PDEATHSIG.
    if inheritance.identity is not None and not _assume(inheritance.identity, job.journal):
        return ExitCode.FAILED
    alive = settle_in(job.calls, inheritance)
    if inheritance.desks.pipes:
        inheritance.desks.become_worker(desk)
    os.register_at_fork(after_in_child=job.runtime.unbind)
    return None if alive else ExitCode.STOPPED


def _assume(identity: Identity, journal: Journal) -> bool:
    try:
        identity.assume()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        journal.write(ERROR, f"cannot become {identity.name}: {why}; no worker starts as anybody else")
        journal.sink.flush()
        return False
    return True


def _take(job: Job, assignment: Assignment) -> bytes:
    """In a spare: do what the master does before it forks a worker, and return the record that says that it is up."""
    who = (assignment.pin, assignment.attempt)
    job.runtime.bind(job.binding, who, assignment)
    job.journal.handler, job.journal.pin = job.handler_name, assignment.pin
    os.environ[PIN_VARIABLE] = str(assignment.pin)
    return packed_up(*who)


def _show(job: Job, pin: Pin | None, inheritance: Inheritance) -> None:
    """Say to whoever looks from outside who this is, where that is wanted: to ps(1), and before each line of output."""
    if inheritance.set_title is not None:
        inheritance.set_title(f"{job.title} spare" if pin is None else f"{job.title} pin={pin}")
    if inheritance.output is not None:
        name = f"{job.handler_name}.{'spare' if pin is None else pin}"
        if not inheritance.output.say_who(name, pin, last=pin is not None):
            job.journal.write(WARNING, "output is not prefixed: the process that does it is gone")


def _rehearse(job: Job) -> None:
    """In a spare: do once what its assignment will ask for, with what means nothing to anybody.

    The pages that this writes to are copied now and not then (fork(2), copy-on-write): a third of the time from the
    death of a worker to the handler of the next.
    """
    assignment = Assignment.unpacked(Assignment(Pin(0), Attempt(0), 0, 0, None).packed())
    spare = job.runtime.who
    _take(job, assignment)
    del os.environ[PIN_VARIABLE]
    job.journal.pin = None
    job.runtime.place.leave()
    job.runtime.bind(job.binding, spare, None)


def _leave(job: Job, assignment: Assignment | None, inheritance: Inheritance, code: int) -> int:
    ending = Ending(job.runtime, job.journal)
    if assignment is not None:
        for function in job.on_exit:
            code = _guarded(ending, "on_worker_exit", code, functools.partial(function, assignment.pin))
    code = _end(ending, code)
    if job.leads_group and os.getppid() != inheritance.master:
        process.end_group()
    return code


def _warm(job: Job, inheritance: Inheritance) -> int | None:
    """Prepare for any PIN; return None, or the code to leave with."""
    try:
        try:
            job.runtime.prepare()
            for function in job.on_warm:
                function()
        finally:
            job.runtime.end()
        # As below.
        return None if process.die_with_parent(inheritance.master, TERM) else ExitCode.STOPPED
    except BaseException as error:  # noqa: BLE001  (as below)
        job.runtime.end()
        return code_of_exception(job.journal, "on_worker_warm", error)


def _work(job: Job, assignment: Assignment, up: bytes, inheritance: Inheritance) -> int:
    runtime, pin = job.runtime, assignment.pin
    what = "on_worker_start"
    try:
        try:
            if job.on_start:
                runtime.prepare()
                for function in job.on_start:
                    function(pin)
                # setuid in a hook has cleared the parent-death signal.
                if not process.die_with_parent(inheritance.master, TERM):
                    return ExitCode.STOPPED
            inheritance.channel.tell(up)
            what = f"handler {job.handler_name}"
            runtime.begin()
            return exit_code_of(run_async(runtime, job.handler, pin) if job.is_async else job.handler(pin))
        finally:
            runtime.end()
    except BaseException as error:  # noqa: BLE001  (whatever a handler raises becomes an exit code, here and nowhere else)
        runtime.end()
        return code_of_exception(job.journal, what, error)


async def _awaited(result: object) -> object:
    assert isinstance(result, Awaitable)
    return await cast(Awaitable[object], result)


def _end(ending: Ending, code: int) -> int:
    """Do what the interpreter does at its end, in its order, for os._exit will not."""
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        code = _guarded(ending, "threading", code, threading._shutdown)
    if atexit._ncallbacks():
        code = _guarded(ending, "atexit", code, atexit._run_exitfuncs)
    code = _guarded(ending, "flushing the standard streams", code, process.flush_standard_streams)
    ending.journal.sink.flush()
    return code


def _guarded(ending: Ending, step: str, code: int, function: Callable[[], object]) -> int:
    """Run a step of the end; what it raises is logged, and makes an end that was fine a failure."""
    try:
        with ending.runtime.step():
            function()
    except Stop:
        # The interrupt: this step is cut, the next one is not.
        return ending.runtime.stop_code or code
    except BaseException as error:  # noqa: BLE001  (the steps after it have to run)
        ending.journal.write(ERROR, f"{step} raised", error)
        return code or ExitCode.FAILED
    return code
