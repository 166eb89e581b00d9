"""A worker's place as its handler sees it: who it is, and the marks that it leaves for the master in shared memory.

Outside a worker there is no place, and everything here is harmless.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator

from pyworkers._core.types import NEVER, Previous
from pyworkers._worker.binding import Assignment, Binding
from pyworkers.errors import PyworkersError


class Place:
    """One process's place, if it has any.

    Attributes:
        watched: Whether the master looks for hangs.
        probed: Whether the next checkpoint of the main thread is to leave a beat.
        shard: Of the instance, in its master, too: K and N; None where it runs all PINs, or none.
    """

    # So that what a worker writes at its start is on one page, which the kernel copies for it.
    __slots__ = ("_assignment", "_binding", "_inline_pin", "probed", "shard", "watched")

    def __init__(self) -> None:
        self.watched = self.probed = False
        self.shard: tuple[int, int] | None = None
        self._binding: Binding | None = None
        self._assignment: Assignment | None = None
        self._inline_pin: int | None = None

    def take(self, binding: Binding, assignment: Assignment) -> None:
        """Become that of this worker."""
        self._binding, self._assignment = binding, assignment
        # Detection of a hang starts with the first checkpoint, so that one is to leave a beat, unasked.
        self.watched = self.probed = binding.is_watched

    def leave(self) -> None:
        """Be in none."""
        self._assignment = self._binding = None

    @contextlib.contextmanager
    def inline(self, pin: int) -> Generator[None]:
        """While a handler runs for a debugger: know the PIN, and be harmless otherwise."""
        self._inline_pin = pin
        try:
            yield
        finally:
            self._inline_pin = None

    @property
    def pin(self) -> int | None:
        """The PIN, if this process holds one."""
        own = self._own()
        return self._inline_pin if own is None else own.pin

    @property
    def generation(self) -> int:
        """The number of this attempt; 0 outside of a worker.

        Raises:
            PyworkersError: It has none.
        """
        own = self._own()
        if own is None:
            return 0
        if isinstance(own.generation, PyworkersError):
            raise own.generation
        return own.generation

    @property
    def previous(self) -> Previous | None:
        """How the process before this one ended."""
        own = self._own()
        return None if own is None else own.previous

    def unit(self, label: str) -> None:
        """See `App.unit`."""
        if self._binding is not None and (own := self._own()) is not None:
            self._binding.cells.write_label(own.seat, str(label))

    def mark(self, done: int, total: int | None) -> None:
        """Note how many items of `track` are done."""
        if self._binding is not None and (own := self._own()) is not None:
            self._binding.cells.write_progress(own.seat, done, total)

    def beat(self) -> None:
        """In the main thread, at a checkpoint: answer the master's probe, if there was one."""
        if self.probed and self._binding is not None and (own := self._own()) is not None:
            self.probed = False
            self._binding.cells.write_beat(own.seat, time.monotonic())

    @contextlib.contextmanager
    def resting(self, *, proves: bool) -> Generator[None]:
        """During a wait, which proves life as long as it lasts, where it is the handler's: nobody has to wake it."""
        if not (proves and self.watched and self._binding is not None and (own := self._own()) is not None):
            yield
            return
        self._binding.cells.write_beat(own.seat, NEVER)
        try:
            yield
        finally:
            self._binding.cells.write_beat(own.seat, time.monotonic())

    def _own(self) -> Assignment | None:
        """Return the assignment, if it is this process's: a thread of the master may look while the master forks."""
        if self._binding is None or os.getpid() == self._binding.master:
            return None
        return self._assignment
