"""A child's first lines: calls of C functions that the master has made ready, done with every signal blocked.

The order is the point of it: the traps stand before anything is unblocked, so that no signal is lost and none runs the
master's trap in the wrong process. Nearly all of them are C functions, since each Python function that a child enters,
and each object that it looks at, is on a page of the master's that the kernel has to copy then.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence

from pyworkers._core.records import record
from pyworkers._core.types import Pid
from pyworkers._posix import process, signals
from pyworkers._posix.channel import Channel
from pyworkers._posix.desks import Desks
from pyworkers._posix.signals import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyworkers._posix.handover import Handover
    from pyworkers._posix.identity import Identity
    from pyworkers._posix.titles import SetTitle

TERM = int(signal.SIGTERM)


@record
class Inheritance:
    """What every child of the master gets from it, and what of that it has to drop.

    Attributes:
        mask: The signal mask that user code shall see: the one that the master was started with.
        null: A descriptor of /dev/null, the child's stdin.
        dropped: The master's own descriptors.
        connections: More of them, which come and go: those of the control socket.
        output: Where its stdout and stderr are handed to; None where they stay what they are.
        set_title: Sets the process's title; None where nothing can.
        identity: Who it is to become; None where it stays who the master is.
    """

    master: Pid
    mask: frozenset[int]
    null: int
    dropped: tuple[int, ...]
    connections: set[int]
    channel: Channel
    desks: Desks
    output: Handover | None = None
    set_title: SetTitle | None = None
    identity: Identity | None = None


def worker_calls(traps: Mapping[int, signals.Trap], inheritance: Inheritance, *, leads_group: bool) -> Sequence[Call]:
    """In the master, once: return the calls that make a child of it a worker, in the order in which they are done."""
    # Before any code of the user, such as the destructors among the exit calls: all of the group can be ended at once.
    return _child_calls(traps, inheritance, TERM, [(os.setpgid, (0, 0))] if leads_group else [])


def notice_calls(inheritance: Inheritance) -> Sequence[Call]:
    """In the master, once: return those that make a child of it the teller of a failure."""
    return _plain_calls(inheritance, [signal.SIGINT])


def helper_calls(inheritance: Inheritance) -> Sequence[Call]:
    """In the master, once: return those that make a child of it a helper, which `run_program` makes another program.

    What stops the master may be sent to its whole process group: a helper stays until the master ends it. Ignored, and
    not trapped: of the two only that outlives execve(2).
    """
    return _plain_calls(inheritance, signals.STOPPING)


def _plain_calls(inheritance: Inheritance, ignored: Iterable[int]) -> Sequence[Call]:
    """Return those of a child that is no worker: what it does not ignore ends it, and so does the master's end."""
    traps: dict[int, signals.Trap] = dict.fromkeys(signals.MANAGED, signals.DEFAULT)
    traps.update(dict.fromkeys(ignored, signals.IGNORE))
    return _child_calls(signals.plain(traps), inheritance, int(signal.SIGKILL), [])


def _child_calls(
    traps: Mapping[int, signals.Trap], inheritance: Inheritance, death_signal: int, own: Sequence[Call]
) -> Sequence[Call]:
    return (
        *signals.child_calls(traps),
        *process.parent_death_calls(death_signal),
        *((os.close, (descriptor,)) for descriptor in inheritance.dropped),
        *inheritance.channel.child_calls(),
        (os.dup2, (inheritance.null, 0)),
        *own,
        *_exit_calls(),
    )


def settle_in(calls: Sequence[Call], inheritance: Inheritance) -> bool:
    """Cut what ties this process to the master, with every signal blocked; return whether the master still lives."""
    for function, arguments in calls:
        function(*arguments)
    if inheritance.connections:
        # Or whoever is at the other end would wait for an answer as long as this process lives.
        for descriptor in inheritance.connections:
            os.close(descriptor)
    # After the call that asks for its death: see `process.die_with_parent`.
    return os.getppid() == inheritance.master


def run_program(calls: Sequence[Call], inheritance: Inheritance, module: str, *arguments: str) -> int:
    """In a child that is no worker: become another program of ours; return only where the master is dead."""
    if not settle_in(calls, inheritance):
        return 0
    signals.unblock(inheritance.mask)
    # It finds what the master finds, however that came to its path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)  # noqa: S606  (no shell is wanted)
    raise AssertionError("execve(2) returns only by an error")


def _exit_calls() -> Sequence[Call]:
    """Return the calls that make the exit functions of a child its own.

    Inherited ones would remove the master's temporary directory; a bare os._exit would lose what a
    multiprocessing.Queue of the worker still holds. What the standard library registers for itself at import is
    registered anew, because those modules are loaded already; it runs after the worker's own.
    """
    loaded: dict[str, Any] = sys.modules
    calls: list[Call] = [(atexit._clear, ())]
    if (logging := loaded.get("logging")) is not None:
        calls.append((atexit.register, (logging.shutdown,)))
    if (weakref := loaded.get("weakref")) is not None:
        calls.append((weakref.finalize._registry.clear, ()))
        calls.append((setattr, (weakref.finalize, "_registered_with_atexit", False)))
    if (util := loaded.get("multiprocessing.util")) is not None:
        calls.append((util._finalizer_registry.clear, ()))
        calls.append((util._run_after_forkers, ()))
        calls.append((atexit.register, (util._exit_function,)))
    if (children := loaded.get("multiprocessing.process")) is not None:
        calls.append((setattr, (children, "_children", set[object]())))
    return calls
