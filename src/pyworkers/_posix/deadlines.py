"""Memory that tells until when each PIN may have a process: one cell for each, on the clock of `boottime`.

memfd_create(2), so that three kinds of processes share it: the master, which writes the deadlines; the workers, each
of which reads its own and signs its cell; and the helper that renews the leases, which is another program and ends
whoever has outstayed. Each field has one writer, and eight bytes on an eight-byte boundary are never read by halves.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct

from pyworkers._core.records import record
from pyworkers._core.types import Pid

_UNTIL = struct.Struct("=d")
_PID = struct.Struct("=q")
_CELL = _UNTIL.size + _PID.size
_NAME = "pyworkers-lease"


@record
class Occupant:
    """A process that has signed a cell, and until when it may be there."""

    pid: Pid
    until: float


class Deadlines:
    """The shared memory of one instance.

    Args:
        descriptor: Of the memory; it is closed by `close`.

    Raises:
        OSError: It cannot be mapped.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        self._inode = os.fstat(descriptor).st_ino

    @classmethod
    def create(cls, seats: int) -> Deadlines:
        """Return new memory for so many PINs."""
        descriptor = os.memfd_create(_NAME)
        os.ftruncate(descriptor, max(1, seats) * _CELL)
        return cls(descriptor)

    def close(self) -> None:
        """In the master, at the end."""
        self._memory.close()
        os.close(self.descriptor)

    def extend(self, seat: int, until: float) -> None:
        """In the master: allow a process on this PIN until then."""
        _UNTIL.pack_into(self._memory, seat * _CELL, until)

    def until(self, seat: int) -> float:
        """In the worker: return until when it may be there. In the master: what it has allowed."""
        (until,) = _UNTIL.unpack_from(self._memory, seat * _CELL)
        return float(until)

    def sign(self, seat: int, pid: int) -> None:
        """In the worker: say that it is there. In the master, with 0: nobody is."""
        _PID.pack_into(self._memory, seat * _CELL + _UNTIL.size, pid)

    def occupants(self) -> list[Occupant]:
        """In the helper: return who has signed."""
        cells = struct.iter_unpack("=dq", self._memory)
        return [Occupant(Pid(pid), until) for until, pid in cells if pid]

    def end(self, pid: Pid) -> bool:
        """In the helper: kill this process, if it is one that shares this memory, and return whether it is.

        A pid that is signed here may belong to somebody else by now. So take hold of the process first (pidfd_open(2)),
        and then look whether the memory is mapped there.
        """
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if self._is_mapped_by(pid):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return True
            finally:
                os.close(pidfd)
        return False

    def _is_mapped_by(self, pid: Pid) -> bool:
        with open(f"/proc/{pid}/maps") as maps:
            # The inode is the fifth field, the name the sixth: proc(5).
            lines = [line.split(maxsplit=5) for line in maps if _NAME in line]
        return any(int(line[4]) == self._inode for line in lines)
