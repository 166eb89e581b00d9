"""The systems that an instance can be exported to, by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyworkers._declare import Declaration
from pyworkers._export import cron, kubernetes, systemd
from pyworkers._export.launch import Launch, launch
from pyworkers._plan import plan
from pyworkers.errors import UsageError

KINDS: Mapping[str, Callable[[Launch], str]] = {
    "systemd": systemd.export,
    "cron": cron.export,
    "kubernetes": kubernetes.export,
}


def taken_kind(arguments: list[str]) -> str:
    """Take the first of the arguments away, which is one of the kinds.

    Raises:
        UsageError: It is not.
    """
    if arguments and arguments[0] in KINDS:
        return arguments.pop(0)
    raise UsageError(f"export needs one of {', '.join(KINDS)}, then module:attribute and options")


def exported(
    kind: str, declaration: Declaration, given: Mapping[str, object], target: str, texts: Mapping[str, str]
) -> str:
    """Return the text that starts, on that system, what `run` would start here with the same flags.

    Args:
        kind: One of `KINDS`.
        declaration: What the app declares.
        given: Checked values of flags.
        target: The import string.
        texts: The flags as they were written, by the name of the option.

    Raises:
        PyworkersError: It would not start here, or cannot be said there.
    """
    return KINDS[kind](launch(declaration, plan(declaration, given), target, texts))
