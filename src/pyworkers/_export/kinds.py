"""The systems that an instance can be exported to, by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyworkers._core.records import record
from pyworkers._core.types import PINS_MAX
from pyworkers._declare import Declaration
from pyworkers._export import cron, indexed, kubernetes, slurm, systemd
from pyworkers._export.launch import Launch, launch
from pyworkers._plan import plan
from pyworkers.errors import UsageError

KINDS: Mapping[str, Callable[[Launch], str]] = {
    "systemd": systemd.export,
    "cron": cron.export,
    "kubernetes": kubernetes.export,
    "slurm": slurm.export,
}

OBJECTS: Mapping[str, Callable[[Launch], str]] = {"Job": indexed.export, "StatefulSet": kubernetes.export}
"""What Kubernetes can have the shards of an app as: the first, where nobody says."""


@record
class Request:
    """What is to be exported: how, and into how many shards; None for one instance."""

    export: Callable[[Launch], str]
    shards: int | None


def taken_kind(arguments: list[str]) -> str:
    """Take the first of the arguments away, which is one of the kinds.

    Raises:
        UsageError: It is not.
    """
    if arguments and arguments[0] in KINDS:
        return arguments.pop(0)
    raise UsageError(f"export needs one of {', '.join(KINDS)}, then module:attribute and options")


def requested(kind: str, shards: str | None, object_kind: str | None) -> Request:
    """Return what is asked for by the kind and the flags that export alone has.

    Raises:
        UsageError: They do not go together, or are not what they take.
    """
    if object_kind is not None and (kind != "kubernetes" or object_kind not in OBJECTS):
        raise UsageError(
            f"--kind goes with export kubernetes, and is one of {', '.join(OBJECTS)}, got '{object_kind:.80}'"
        )
    if shards is None:
        if kind == "slurm" or object_kind == "Job":
            raise UsageError(f"export {kind} needs --shards N: how many there are to be")
        return Request(KINDS[kind], None)
    if kind not in ("slurm", "kubernetes"):
        raise UsageError(
            f"--shards goes with export slurm and export kubernetes, not with export {kind}: use --shard K/N"
        )
    # As with a PIN: isdecimal() says yes to more than int() or a person does.
    if not (shards.isascii() and shards.isdecimal() and len(shards) <= 7 and 1 <= int(shards) <= PINS_MAX):
        raise UsageError(f"--shards must be an int of 1 to {PINS_MAX:,}, got '{shards:.80}'")
    return Request(OBJECTS[object_kind or "Job"] if kind == "kubernetes" else KINDS[kind], int(shards))


def exported(
    request: Request, declaration: Declaration, given: Mapping[str, object], target: str, texts: Mapping[str, str]
) -> str:
    """Return the text that starts, on that system, what `run` would start here with the same flags.

    Args:
        request: How it is exported.
        declaration: What the app declares.
        given: Checked values of flags.
        target: The import string.
        texts: The flags as they were written, by the name of the option.

    Raises:
        PyworkersError: It would not start here, or cannot be said there.
    """
    made = launch(declaration, plan(declaration, given), target, texts, request.shards)
    if made.shards is not None and "shard" in made.said:
        raise UsageError("leave out --shard (or PYWORKERS_SHARD): with --shards, each shard gets its own")
    return request.export(made)
