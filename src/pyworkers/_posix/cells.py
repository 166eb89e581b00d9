"""Memory that the master and its workers share: a cell for each PIN, and one for each handler.

memfd_create(2) and mmap(2), MAP_SHARED: inherited across fork, and it outlives the process that wrote it, which is the
point: the master reads what a dead worker was at. A cell has one writer, the PIN's live worker, so it needs no lock;
a worker killed in the middle of a write leaves at worst a garbled label.

A file, if one without a name, so that it can grow: cells are added behind the others, and who has mapped fewer goes on
with those. It also outlives an execve(2) of the master, which a mapping does not.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct

from pyworkers._core.records import record

_PROGRESS = struct.Struct("=QQ")
_BEAT = struct.Struct("=d")
_LABEL = struct.Struct("=H")
_LABEL_AT = _PROGRESS.size + _BEAT.size
CELL_SIZE = 256
LABEL_MAX = CELL_SIZE - _LABEL_AT - _LABEL.size
"""The longest label in bytes of UTF-8; a longer one is cut."""

_NO_TOTAL = 2**64 - 1


@record
class Trace:
    """What a worker was at: the label of its unit, and how many items of `track` it has done, of how many."""

    unit: str = ""
    done_count: int = 0
    total_count: int | None = None


class Cells:
    """The shared memory of one instance.

    Args:
        seats: How many cells there are, at the least.
        file: The one of the program before this one, if there was one.
    """

    def __init__(self, seats: int, file: int | None = None) -> None:
        made = _unnamed_file() if file is None else file
        self._file: int | None = made
        try:
            self._memory = self._mapped(seats)
        except OSError:
            # setrlimit(2), RLIMIT_FSIZE: also such a file may be too large. Then what there is has to do.
            os.close(made)
            self._file = None
            self._memory = mmap.mmap(-1, seats * CELL_SIZE)

    def fileno(self) -> int:
        """Return the descriptor of the file.

        Raises:
            OSError: There is none: no file may be so large here.
        """
        if self._file is None:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return self._file

    def close(self) -> None:
        """In the master, at the end."""
        self._memory.close()
        if self._file is not None:
            os.close(self._file)

    def grow(self, seats: int) -> None:
        """Have cells for so many seats, at the least; what there is stays where it is.

        In the master, and in a spare that was forked when there were fewer.

        Raises:
            OSError: There is no memory for them; nothing has changed.
        """
        if seats * CELL_SIZE > len(self._memory):
            before, self._memory = self._memory, self._mapped(seats)
            before.close()

    def _mapped(self, seats: int) -> mmap.mmap:
        size = -(-(seats * CELL_SIZE) // mmap.PAGESIZE) * mmap.PAGESIZE
        if self._file is None:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        # Never shrunk: whoever has mapped more would be ended by SIGBUS.
        if size > os.fstat(self._file).st_size:
            os.ftruncate(self._file, size)
        return mmap.mmap(self._file, size)

    def is_cooperative(self, handler: int) -> bool:
        """Whether a worker of the handler with this seat has ever reached a checkpoint."""
        return self._memory[handler * CELL_SIZE] != 0

    def mark_cooperative(self, handler: int) -> None:
        """In the worker: note the handler's first checkpoint, for all its workers to come."""
        self._memory[handler * CELL_SIZE] = 1

    def clear(self, seat: int) -> None:
        """In the master, before a fork: the cell now belongs to the PIN's next attempt."""
        at = seat * CELL_SIZE
        _PROGRESS.pack_into(self._memory, at, 0, _NO_TOTAL)
        _BEAT.pack_into(self._memory, at + _PROGRESS.size, 0.0)
        _LABEL.pack_into(self._memory, at + _LABEL_AT, 0)

    def write_label(self, seat: int, label: str) -> None:
        """In the worker: name the unit at work."""
        at = seat * CELL_SIZE + _LABEL_AT
        data = label.encode(errors="replace")
        if len(data) > LABEL_MAX:
            # No half of a character at the end.
            data = data[:LABEL_MAX].decode(errors="ignore").encode()
        # Length zero while the text changes: a reader sees no label rather than half of two.
        _LABEL.pack_into(self._memory, at, 0)
        self._memory[at + _LABEL.size : at + _LABEL.size + len(data)] = data
        _LABEL.pack_into(self._memory, at, len(data))

    def write_progress(self, seat: int, done: int, total: int | None) -> None:
        """In the worker: mark how many items are done."""
        _PROGRESS.pack_into(self._memory, seat * CELL_SIZE, done, _NO_TOTAL if total is None else total)

    def write_beat(self, seat: int, at: float) -> None:
        """In the worker: prove that it reaches checkpoints, at an instant of the monotonic clock; NEVER: it waits."""
        # Eight bytes on an eight-byte boundary: no reader sees half of them.
        _BEAT.pack_into(self._memory, seat * CELL_SIZE + _PROGRESS.size, at)

    def read_beat(self, seat: int) -> float | None:
        """In the master: return when the PIN's latest attempt last did, or None."""
        (at,) = _BEAT.unpack_from(self._memory, seat * CELL_SIZE + _PROGRESS.size)
        return at or None

    def read(self, seat: int) -> Trace:
        """In the master: return what the PIN's latest attempt was at."""
        at = seat * CELL_SIZE
        done, total = _PROGRESS.unpack_from(self._memory, at)
        (length,) = _LABEL.unpack_from(self._memory, at + _LABEL_AT)
        text = at + _LABEL_AT + _LABEL.size
        label = self._memory[text : text + min(length, LABEL_MAX)].decode(errors="replace")
        return Trace(label, done, None if total == _NO_TOTAL else total)


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pyworkers-cells")
    import tempfile

    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor
