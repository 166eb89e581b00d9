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
from pyworkers._posix.lockfile import started_ticks

_UNTIL = struct.Struct("=d")
_WHO = struct.Struct("=q")
_CELL = _UNTIL.size + _WHO.size
_PID_BITS = 22
"""Linux has no larger pids (PID_MAX_LIMIT). The rest tells when the process started: one write for both."""


@record
class Occupant:
    """A process that has signed a cell, when it started, in clock ticks after boot, and until when it may be there."""

    pid: Pid
    started: int
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

    @classmethod
    def create(cls, seats: int) -> Deadlines:
        """Return new memory for so many PINs."""
        descriptor = os.memfd_create("pyworkers-lease")
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
        started = (started_ticks(pid) or 0) if pid else 0
        _WHO.pack_into(self._memory, seat * _CELL + _UNTIL.size, started << _PID_BITS | pid)

    def occupants(self) -> list[Occupant]:
        """In the helper: return who has signed."""
        cells = struct.iter_unpack("=dq", self._memory)
        return [Occupant(Pid(who % (1 << _PID_BITS)), who >> _PID_BITS, until) for until, who in cells if who]

    def end(self, occupant: Occupant) -> bool:
        """In the helper: kill this process, if it is still there, and return whether it is.

        A pid that is signed here may belong to somebody else by now. So take hold of the process first (pidfd_open(2)),
        and then look when it started. Not whether it has the memory: execve(2) takes that away, and the timer, too, so
        that nothing else ends a worker that has executed another program while its master is held up.
        """
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(occupant.pid)
            try:
                if started_ticks(occupant.pid) == occupant.started:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return True
            finally:
                os.close(pidfd)
        return False
