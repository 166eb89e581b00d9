"""An end that needs no interpreter: a timer that is a thread of C code, so that no Python code can hold it up.

Apart from `process`, because a plain import of the package needs this and not ctypes.
"""

from __future__ import annotations

import faulthandler
import os


class Watchdog:
    """The one such timer of this process."""

    __slots__ = ("_armed",)

    def __init__(self) -> None:
        self._armed = False

    def end_after(self, seconds: float, code: int, dump_descriptor: int) -> None:
        """End this process after a time, whatever the interpreter is doing. A second call does not put the end off.

        The stacks of all threads are written to `dump_descriptor` before it. Zero seconds is at once, with `code`.
        """
        if self._armed:
            return
        self._armed = True
        if seconds <= 0:
            os._exit(code)
        faulthandler.dump_traceback_later(seconds, exit=True, file=dump_descriptor)
