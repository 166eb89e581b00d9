"""An end that needs no interpreter: a timer that is a thread of C code, so that no Python code can hold it up.

Apart from `process`, because a plain import of the package needs this and not ctypes.
"""

from __future__ import annotations

import faulthandler
import math
import os
import time


class Watchdog:
    """The one such timer of this process."""

    __slots__ = ("_end_at",)

    def __init__(self) -> None:
        self._end_at = math.inf

    def end_after(self, seconds: float, code: int, dump_descriptor: int) -> None:
        """End this process after a time, whatever the interpreter is doing. A second call never puts the end off.

        The stacks of all threads are written to `dump_descriptor` before it. Zero seconds is at once, with `code`.
        """
        end_at = time.monotonic() + seconds
        if end_at >= self._end_at:
            return
        self._end_at = end_at
        if seconds <= 0:
            os._exit(code)
        faulthandler.dump_traceback_later(seconds, exit=True, file=dump_descriptor)
