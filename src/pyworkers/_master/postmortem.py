"""Collects the stacks of one worker at a time, and finds out when there are no more to come.

Nothing in the stream says that it is over, since C code writes it while the worker's interpreter may be stuck. So it is
over when the pipe has been quiet for a moment; what never comes at all is the core's business, which has a deadline.
"""

from __future__ import annotations

import os

QUIET_S = 0.1

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
# A worker's stack ends in the way from the master's loop to the handler, which is the same in every dump.
_BENEATH_HANDLER = tuple(f'  File "{_PACKAGE}/{module}"' for module in ("_declare.py", "_worker/boot.py"))


class PostMortem:
    """The dump that is under way."""

    def __init__(self) -> None:
        self._quiet_at: float | None = None
        self._rest = b""
        self._beneath = False

    def begin(self) -> None:
        """From here on, what comes is another worker's."""
        self._quiet_at = None
        self._rest = b""
        self._beneath = False

    def feed(self, data: bytes, now: float) -> list[str]:
        """Take what was written, and return the lines that are complete and tell something about the user's code."""
        if not data:
            return []
        self._quiet_at = now + QUIET_S
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [text for line in lines if self._tells(text := line.decode(errors="backslashreplace"))]

    def next_deadline(self) -> float | None:
        """Return when it will be over, if nothing more comes until then; None where nothing has come yet."""
        return self._quiet_at

    def done(self, now: float) -> bool:
        """Return, once, whether it is over."""
        if self._quiet_at is None or now < self._quiet_at:
            return False
        self._quiet_at = None
        return True

    def _tells(self, line: str) -> bool:
        if not line.startswith("  "):
            self._beneath = False
        elif line.startswith(_BENEATH_HANDLER):
            self._beneath = True
        return bool(line) and not self._beneath
