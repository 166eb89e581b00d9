"""The pipe through which a hung worker's stacks reach the log.

faulthandler's C code writes them in the trap of a real-time signal, so that it works while the worker holds the GIL in
a call that does not return. It is registered once, in the master, and inherited across fork: signal(7).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os

from pyworkers._posix import signals


class DumpPipe:
    """Both ends of the pipe, and the trap that writes to it.

    Args:
        ends: Those of the program before this one, if there was one.
    """

    def __init__(self, ends: tuple[int, int] | None = None) -> None:
        # The writer blocks while the pipe is full, which lasts until the master's next look: a dump is not cut.
        self._reader, self._writer = self.ends = ends or os.pipe()
        os.set_blocking(self._reader, False)
        if signals.DUMP is not None:
            faulthandler.register(signals.DUMP, file=self._writer, all_threads=True)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a worker has written."""
        return self._reader

    def close(self) -> None:
        """In the master, at the end."""
        if signals.DUMP is not None:
            faulthandler.unregister(signals.DUMP)
        os.close(self._reader)
        os.close(self._writer)

    def read(self) -> bytes:
        """In the master: return what was written since the last call, as far as it fits one read."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self._reader, 65536)
        return b""
