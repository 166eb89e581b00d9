"""The lines of the control socket: what a request is, and how a reply is written. One JSON object each, UTF-8."""

from __future__ import annotations

from pyworkers._core.typed import cast

VERSION = 1
"""Of the protocol: `v` of each request and reply."""

Reply = dict[str, object]


class BadRequestError(Exception):
    """A request, or an argument of its verb, is not what was expected; the text is the reply's."""


def parse(line: bytes) -> dict[str, object]:
    """Return the request in a line.

    Raises:
        BadRequestError: It is none; the text says what was expected.
    """
    # Loaded for the first who asks.
    import json

    try:
        found = json.loads(line.decode(), parse_int=_short_int, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BadRequestError("a request is UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"a request is one JSON object on one line: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise BadRequestError(f"a request is a JSON object, got {type(found).__name__}")
    request = cast("dict[str, object]", found)
    if request.pop("v", None) != VERSION:
        raise BadRequestError(f'a request has "v": {VERSION}, the version of the protocol')
    return request


def encode(reply: Reply) -> bytes:
    """Return a reply as its line."""
    import json

    return json.dumps({"v": VERSION, **reply}, separators=(",", ":")).encode() + b"\n"


def refusal(error: str) -> Reply:
    """Return the reply that says why not."""
    return {"ok": False, "error": error}


def _short_int(text: str) -> int:
    # int() takes quadratic time; no number of ours is longer than that of a PIN.
    if len(text) > 20:
        raise ValueError("a number of more than 20 digits")
    return int(text)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
