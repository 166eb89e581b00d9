"""How the master and its helper talk: one value after the other on a socket, each with its length before it.

Both are the same program in the same Python, so marshal serves: it is a built-in, and quick with 100,000 PINs.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Callable

from pyworkers._core.exchange import Reply, Request
from pyworkers._core.records import record
from pyworkers._core.typed import cast
from pyworkers._core.types import Pin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LENGTH = struct.Struct("=I")


@record
class Hello:
    """Whose rows they are, and where: what the master says first.

    Attributes:
        url: Of the database.
        app: The name under which all masters know the app.
        owner: What no other master has ever been called.
        ttl: In seconds.
        run: What the engine or the user calls this run; None where normal ends are not kept.
        attempt: What the engine calls its job, and how often it has started this master again in that; None for one
            that no engine has. Attempts of two jobs say nothing of each other, also where the user calls both one run.
        names: The handler of each PIN.
    """

    url: str
    app: str
    owner: str
    ttl: float
    run: str | None
    attempt: tuple[str, int] | None
    names: dict[Pin, str]


@record
class Ready:
    """The helper is there: what its start has taken is nobody's answer."""


@record
class Failed:
    """The request could not be carried out, or nobody can tell."""

    number: int
    reason: str


@record
class Hint:
    """Somebody has given rows back."""


@record
class Unable:
    """The helper cannot work at all, and ends."""

    reason: str


Message = Hello | Ready | Request | Reply | Failed | Hint | Unable

_KINDS: tuple[Callable[..., object], ...] = (Hello, Ready, Request, Reply, Failed, Hint, Unable)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


def packed(message: Message) -> bytes:
    """Return what is sent."""
    old: Any = message
    fields: list[Any] = [getattr(old, name) for name in old.__match_args__]
    data = marshal.dumps((_NUMBERS[type(message)], *fields))
    return LENGTH.pack(len(data)) + data


def unpacked(data: bytes) -> Message:
    """Return what was packed, without its length."""
    kind, *fields = marshal.loads(data)  # noqa: S302  (from our own other half, by a socket pair)
    return cast(Message, _KINDS[kind](*fields))


def split(data: bytes) -> tuple[list[Message], bytes]:
    """Return the messages that are there as a whole, and the rest."""
    messages: list[Message] = []
    position = 0
    while position + LENGTH.size <= len(data):
        (length,) = LENGTH.unpack_from(data, position)
        end = position + LENGTH.size + length
        if end > len(data):
            break
        messages.append(unpacked(data[position + LENGTH.size : end]))
        position = end
    return messages, data[position:]
