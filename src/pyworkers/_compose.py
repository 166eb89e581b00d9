"""The composition root: it builds, and everything else receives."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Mapping

from pyworkers import _audit
from pyworkers._instance import Instance
from pyworkers._origin import Beginning, beginning
from pyworkers._plan import Plan, plan
from pyworkers._sinks import complain
from pyworkers.app import App, declaration_of, runtime_of
from pyworkers.errors import ExitCode, PyworkersError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main(
    app: App,
    given: Mapping[str, object],
    only: int | None = None,
    *,
    begin: Beginning | None = None,
    inline: bool = False,
    leaving: bool = False,
) -> int:
    """Run the app and return the exit code, a plain int; an error becomes one line.

    Args:
        app: What to run.
        given: Checked values of flags.
        only: The one PIN to run; None for all.
        begin: How this program has begun; None where that is to be found out now.
        inline: Whether to run that PIN's handler in this very process.
        leaving: Whether this process ends after the run.
    """
    try:
        begin = beginning() if begin is None else begin
        try:
            with _closed(app):
                decided = plan(declaration_of(app), given, only)
                if begin.estate is not None:
                    from pyworkers._succession import refuse

                    # Not only in a check: before it takes over, the code may have changed once more.
                    refuse(decided, begin.estate, begin.origin.directory)
                if begin.errand is not None and begin.inherited is None:
                    return _check(decided, begin)
                return int(Instance(app, decided, begin).run(inline=inline, leaving=leaving))
        except PyworkersError as error:
            if begin.inherited is None:
                raise
            return go_on_without(error, given, begin)
    except PyworkersError as error:
        complain(error)
        return int(ExitCode.USAGE)


def go_on_without(error: PyworkersError, given: Mapping[str, object], begin: Beginning) -> int:
    """After a reload whose code has failed in the last moment: keep the workers that run, without any code."""
    from pyworkers._succession import stand_in

    assert begin.inherited is not None
    app, decided = stand_in(begin.inherited, given)
    return int(Instance(app, decided, begin, broken=str(error)).run(inline=False, leaving=True))


def _check(decided: Plan, begin: Beginning) -> NoReturn:
    """Find out for a master that runs whether this program could take over, tell it so, and leave.

    Not a line of a script that comes after its `app.run()` is to run beside the master, and no exit function.
    """
    assert begin.errand is not None
    if decided.instance.strict and (found := _audit.findings(decided.run.syslog)):
        raise UsageError(f"strict is on, and the fork-safety audit has found something: {found[0]}")
    begin.errand.prove()
    os._exit(ExitCode.OK)


@contextlib.contextmanager
def _closed(app: App) -> Generator[None]:
    """Take no registrations while the app runs, and no second run."""
    declaration = declaration_of(app)
    if runtime_of(app).place.pin is not None:
        raise UsageError("app.run() was called inside a worker; put it under if __name__ == '__main__'")
    if declaration.closed:
        raise UsageError("app.run() was called while the app runs already")
    threading: Any = sys.modules.get("threading")
    if threading is not None and threading.current_thread() is not threading.main_thread():
        raise UsageError("app.run() must be called in the main thread: only there can Python take signals")
    declaration.closed = True
    try:
        yield
    finally:
        declaration.closed = False
