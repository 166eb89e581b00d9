"""Where spares wait for their assignment: a pipe for each, made before its fork.

Both ends stay open in the master until the assignment is written, so that a spare that has just died is no error: its
end will be collected like every other one.
"""

from __future__ import annotations

import os

from pyworkers._core.types import Pin


class Desks:
    """The pipes of the spares that were not assigned yet, by their seats."""

    def __init__(self) -> None:
        self._pipes: dict[Pin, tuple[int, int]] = {}

    def open(self, spare: Pin) -> int:
        """In the master, before the fork: return the descriptor that this seat's next process reads.

        Raises:
            OSError: There is no descriptor left.
        """
        self._close(spare)
        self._pipes[spare] = os.pipe()
        return self._pipes[spare][0]

    def hand(self, spare: Pin, data: bytes) -> None:
        """Write for the spare what it waits for: once, and less than a pipe holds, so this never blocks."""
        os.write(self._pipes[spare][1], data)
        self._close(spare)

    def become_worker(self, desk: int = -1) -> None:
        """In the child: keep that end of them, and nothing else."""
        for pair in self._pipes.values():
            for descriptor in pair:
                if descriptor != desk:
                    os.close(descriptor)
        self._pipes.clear()

    def close(self) -> None:
        """In the master, at the end."""
        for spare in list(self._pipes):
            self._close(spare)

    def _close(self, spare: Pin) -> None:
        for descriptor in self._pipes.pop(spare, ()):
            os.close(descriptor)
