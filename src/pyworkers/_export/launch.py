"""What the exported texts are made of: how this very instance would be started here, and how long its stop takes."""

from __future__ import annotations

import math
import os
import pwd
import sys
from collections.abc import Mapping

from pyworkers._core.records import record
from pyworkers._declare import ON_STOP_S, Declaration
from pyworkers._options import OPTIONS
from pyworkers._plan import Plan
from pyworkers._settings import from_environment, without_password
from pyworkers.errors import UsageError

STOP_MARGIN_S = 2
"""Beyond `stop_timeout`: one second in which the last worker is reaped, and one for the end of the interpreter."""

_SEARCHED = "PYTHONPATH"


@record
class Launch:
    """How an instance is started, and what is to be known of it outside.

    Attributes:
        name: Of the instance.
        target: Its import string.
        flags: The options of the command line, a word each.
        variables: Those of the environment that it depends on.
        said: The options that flags and variables have set.
        lock_file: Where its lock is; None where it has none.
        seats: How many processes it keeps; the largest shard, where there are shards.
        stop_s: When after TERM nobody of it can be left, in whole seconds.
        interpreter: The absolute path of Python.
        directory: The directory it runs in.
        user: Who runs it; None for root.
        shards: How many there are to be, each started by the other system; None where it is one instance.
    """

    name: str
    target: str
    flags: tuple[str, ...]
    variables: Mapping[str, str]
    said: frozenset[str]
    lock_file: str | None
    seats: int
    stop_s: int
    interpreter: str
    directory: str
    user: str | None
    shards: int | None = None

    def command(self, program: str, *more: str) -> tuple[str, ...]:
        """Return the words of the command line, by this interpreter and with more options."""
        return (program, "-m", "pyworkers", self.target, *self.flags, *more)

    def refuse(self, kind: str, **why: str) -> None:
        """Raise UsageError where an option is set that has no place there, with why it has none."""
        for name, reason in why.items():
            if name in self.said:
                option = OPTIONS[name]
                raise UsageError(f"export {kind}: leave out {option.flag} (or {option.variable}): {reason}")


def launch(
    declaration: Declaration, decided: Plan, target: str, texts: Mapping[str, str], shards: int | None = None
) -> Launch:
    """Look at this process, and return how another system starts what it would run.

    Args:
        declaration: What the app declares.
        decided: The plan of the run.
        target: The import string.
        texts: Flags, by the name of the option, as they were written.
        shards: Into how many shards it is divided.

    Raises:
        UsageError: Something of it cannot stand in one line of text.
    """
    lease = decided.run.lease or ""
    if without_password(lease) != lease:
        raise UsageError(
            "export: leave the password out of --lease (or PYWORKERS_LEASE), for others can read what is exported:"
            " libpq takes it from PGPASSFILE or PGPASSWORD"
        )
    ours = {option.variable for option in OPTIONS.values()} | {_SEARCHED}
    made = Launch(
        name=decided.instance.name,
        target=target,
        flags=tuple(_word(name, text) for name, text in texts.items()),
        variables={name: os.environ[name] for name in sorted(ours) if name in os.environ},
        said=frozenset({*texts, *from_environment(os.environ)}),
        lock_file=decided.instance.lock_file,
        seats=math.ceil(len(decided.assignment) / (shards or 1)) + len(decided.spares()),
        stop_s=stop_s(decided, has_on_stop=bool(declaration.on_stop)),
        interpreter=sys.executable,
        directory=os.getcwd(),
        user=_user(os.geteuid()),
        shards=shards,
    )
    for text in (made.name, *made.command(made.interpreter), *made.variables.values(), made.directory):
        if not text.isprintable():
            raise UsageError(f"cannot export {text!r:.80}: expected text that can be printed in one line")
    return made


def stop_s(decided: Plan, *, has_on_stop: bool) -> int:
    """Return how many seconds to leave between TERM and KILL of the master."""
    longest_s = max(worker.stop_timeout for worker in decided.workers)
    return math.ceil(longest_s) + STOP_MARGIN_S + (ON_STOP_S if has_on_stop else 0)


def _word(name: str, text: str) -> str:
    option = OPTIONS[name]
    if option.metavar is not None:
        return f"{option.flag}={text}"
    return option.flag if text == "true" else "--no-" + option.flag.removeprefix("--")


def _user(uid: int) -> str | None:
    if uid == 0:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
