"""Where spares wait for their assignment: a pipe for each, made before its fork.

Both ends stay open in the master until the assignment is written, so that a spare that has just died is no error: its
end will be collected like every other one.
"""

from __future__ import annotations

import os

from pyworkers._core.types import Pin


class Desks:
    """The pipes of the spares that were not assigned yet.

    Attributes:
        pipes: Both ends of each, by the spares' seats.
    """

    def __init__(self) -> None:
        self.pipes: dict[Pin, tuple[int, int]] = {}

    def open(self, spare: Pin) -> int:
        """In the master, before the fork: return the descriptor that this seat's next process reads.

        Raises:
            OSError: There is no descriptor left.
        """
        self._close(spare)
        self.pipes[spare] = os.pipe()
        return self.pipes[spare][0]

    def hand(self, spare: Pin, data: bytes) -> None:
        """Write for the spare what it waits for: once, and less than a pipe holds, so this never blocks."""
        os.write(self.pipes[spare][1], data)
        self._close(spare)

    def become_worker(self, desk: int = -1) -> None:
        """In the child: keep that end of them, and nothing else."""
        for pair in self.pipes.values():
            for descriptor in pair:
                if descriptor != desk:
                    os.close(descriptor)
        self.pipes.clear()

    def close(self) -> None:
        """In the master, at the end."""
        for spare in list(self.pipes):
            self._close(spare)

    def _close(self, spare: Pin) -> None:
        for descriptor in self.pipes.pop(spare, ()):
            os.close(descriptor)
