"""What all children of a master find around them, set in the master for the time of its loop, and undone after it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Mapping

from pyworkers._options import OPTIONS
from pyworkers._worker import boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyworkers._posix.identity import Identity


@contextlib.contextmanager
def environ_of_children(name: str, identity: Identity | None) -> Generator[None]:
    """Set what all children shall see in the environment: here, where no code of the user runs meanwhile."""
    # The option variables go: an instance that a worker starts must not inherit them.
    # So do those of a worker that has started us: ours set their own.
    # And what the service manager tells the master alone: a child that took itself for it would speak in its name.
    theirs = (boot.PIN_VARIABLE, boot.HANDLER_VARIABLE, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    personal: Mapping[str, str | None] = {} if identity is None else identity.environ
    names = (*(option.variable for option in OPTIONS.values()), *theirs, *personal)
    gone = {variable: os.environ.pop(variable, None) for variable in names}
    ours = {"PYWORKERS_WORKER_NAME": name, "PYWORKERS_WORKER_MASTER_PID": str(os.getpid())}
    ours |= {variable: value for variable, value in personal.items() if value is not None}
    before = {**{variable: os.environ.get(variable) for variable in ours}, **gone}
    os.environ.update(ours)
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


@contextlib.contextmanager
def lines_buffered() -> Generator[None]:
    """Let what children print appear by lines, as on a terminal."""
    # Not every object that stands in for stdout can do it; it may be closed, or its other end gone.
    reconfigure: Any = getattr(sys.stdout, "reconfigure", None)
    before = getattr(sys.stdout, "line_buffering", False)
    if reconfigure is None or before:
        yield
        return
    with contextlib.suppress(OSError, ValueError):
        reconfigure(line_buffering=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            reconfigure(line_buffering=False)
