"""What of `typing` has to be there at run time, without `typing`: loading it takes longer than all of `_core`.

What annotations alone need is imported where it is needed, under TYPE_CHECKING, whose name type checkers know.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NewType, Protocol, cast

    from typing_extensions import dataclass_transform
else:
    Protocol = object

    def NewType(_name: str, kind: type) -> type:  # noqa: N802
        """Return the type itself: only type checkers tell the two apart."""
        return kind

    def cast(_kind: object, value: object) -> object:
        """Return the value."""
        return value

    def dataclass_transform(**_: object) -> object:
        """Return a decorator that does nothing."""
        return lambda function: function


__all__ = ["NewType", "Protocol", "cast", "dataclass_transform"]
