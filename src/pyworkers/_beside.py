"""What is beside the workers where somebody asks for it: a printer of output, metrics, a watch on files, leases.

Composition, like `_assembly`. Nothing of it is loaded where it is not asked for.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Generator, Sequence

from pyworkers._logs import WARNING
from pyworkers._plan import Plan
from pyworkers._roster import Roster
from pyworkers._worker import prologue
from pyworkers._worker.prologue import Inheritance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._leasing import Leasing
    from pyworkers._printer import Helper
    from pyworkers._reloading import Works


@contextlib.contextmanager
def printing(decided: Plan, handlers: Sequence[str]) -> Generator[Helper | None]:
    """Return the handle on what prints the output of workers, if anything is to; at the end, see it off."""
    if not decided.run.prefix_output:
        yield None
        return
    from pyworkers._printer import Helper

    names = [f"{handlers[place]}.{pin}" for pin, place in decided.assignment.items()]
    names += [f"{handlers[place]}.spare" for place in decided.spares().values()]
    helper = Helper(names, max(worker.stop_timeout for worker in decided.workers) + 1)
    try:
        yield helper
    finally:
        helper.finish()


@contextlib.contextmanager
def leased(decided: Plan, roster: Roster) -> Generator[Leasing | None]:
    """Return what keeps the rows of the PINs, where they are leased."""
    if decided.run.lease is None:
        yield None
        return
    from pyworkers._leasing import Leasing

    # All shards of an app share its rows, whatever their instances are called.
    app, shard = decided.instance.name, decided.shard
    app = app if shard is None else app.removesuffix(".{}-of-{}".format(*shard))
    names = {pin: roster.handlers[pin] for pin in decided.assignment}
    with contextlib.closing(Leasing(decided.run, app, names, roster.seats)) as leasing:
        yield leasing


@contextlib.contextmanager
def helpers(works: Works, inheritance: Inheritance) -> Generator[None]:
    """Let the loop keep the helpers that somebody asks for."""
    run = works.parts.plan.run
    with contextlib.ExitStack() as stack:
        if run.metrics_address is not None:
            stack.enter_context(_metrics_served(works, inheritance))
        if run.reload:
            stack.enter_context(_files_watched(works, inheritance))
        yield


@contextlib.contextmanager
def _files_watched(works: Works, inheritance: Inheritance) -> Generator[None]:
    """Let the loop keep the helper that watches the files of the app, and asks for a reload when one changes."""
    from pyworkers._master.helper import Helper

    begin, calls = works.parts.begin, prologue.helper_calls(inheritance)
    # It looks back, too, to when this program began to read its code.
    arguments = (str(os.getpid()), begin.origin.directory, repr(begin.begins[-1]), repr(begin.calm_at))
    main = functools.partial(prologue.run_program, calls, inheritance, "pyworkers._watcher", *arguments)
    where = f"directory={begin.origin.directory}"
    helper = Helper("file watcher", where, works.kernel, main, lambda: None, works.parts.journal.write)
    works.loop.keep(helper)
    try:
        yield
    finally:
        helper.close()


@contextlib.contextmanager
def _metrics_served(works: Works, inheritance: Inheritance) -> Generator[None]:
    """Let the loop keep the helper that serves the metrics, where there can be one."""
    from pyworkers._metering import Metering

    decided, listener, log = works.parts.plan, works.reception.listener, works.parts.journal.write
    address = decided.run.metrics_address or ""
    with contextlib.ExitStack() as stack:
        try:
            if listener is None:
                raise OSError("there is no control socket to get them from")  # noqa: TRY301
            arguments = (os.path.abspath(listener.path), decided.instance.name)
            metering = Metering(address, arguments, inheritance, works.kernel, log)
        except OSError as error:
            log(WARNING, f"no metrics address={address}: {error.strerror or error}")
        else:
            stack.callback(metering.close)
            works.loop.keep(metering.helper)
        yield
