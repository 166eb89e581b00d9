"""The generations: numbers that only grow, one for each attempt of any PIN, so that a database can refuse a late write.

They grow across masters, crashes and power loss by a file beside the lock, which only the holder of the lock opens: it
holds the first number not yet given away. Three rules follow. A number is given out only after the end of its block
is on the disk: pwrite(2), fsync(2), then the number; what is left of a block when its master ends is skipped. The
file is never replaced, only overwritten in place, by one line of a fixed width. And a file that we do not understand
is never overwritten: any guess could be too low.

A torn write leaves no lower number. The line is shorter than a sector, which a disk writes whole or not at all. Where
only its beginning is written, higher digits of the new number stand before lower digits of the old one, and that is at
least the old number.

A full disk hinders the creation of the file and, on most file systems, nothing else: an overwrite of the same length
needs no new block. It needs one on btrfs, ZFS, bcachefs, F2FS and NILFS2, which write beside the old data, on XFS
while the file shares its blocks with a copy (cp --reflink), and on thin volumes after a snapshot. NFS may tell of a
full disk only at fsync(2). A failure of either call gives out nothing, and the next call tries both again.

fsync(2) is waited for, where the master waits for nothing else: once in `BLOCK` attempts, and never in a stop, which
starts nobody. A disk that stalls then stalls supervision until it answers.

On macOS fsync(2) leaves the data in the cache of the drive: there, what is said of power loss does not hold.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time

from pyworkers.errors import LockError

BLOCK = 1000
"""How many numbers are reserved by one fsync."""

END = 2**63
"""All numbers are below, so that they fit a signed column of 64 bits."""

_HEAD = "pyworkers generation: "
_LINE = _HEAD + "{:020d} is the first number not yet given away\n"
_SIZE = len(_LINE.format(0))
_RECORD = _LINE.format(0).encode().replace(b"0" * 20, rb"(\d{20})")
_EXAMPLE = _LINE.format(1_795_000_001_000).strip()
# Not just "restore it": the copy of a backup is older than the last numbers.
_REMEDY = "restore it with a number above all that were given out, or remove it once nothing compares with them"
_KINDS = {errno.ELOOP: "a symbolic link", errno.EISDIR: "a directory", errno.ENXIO: "a socket or a device"}


class Generations:
    """The numbers of one instance, for the master that holds its lock.

    Where the file is missing or empty, they begin at the milliseconds of the wall clock since 1970: a lock directory on
    a tmpfs, such as /run/lock, loses the file at a reboot. That is larger than all that were given out before, unless
    more than a thousand a second were used since the first, or the clock went back. The rest of a block, up to a
    thousand that each start of a master skips, is used, too. On a machine that boots without the right time, the lock
    file belongs into a directory that outlives the boot.

    The descriptor is close-on-exec. Workers inherit it across fork and never use it: the master hands them numbers.

    Args:
        path: Of the file; it is created where it is missing.

    Raises:
        LockError: It is something else than a file of ours, which a person has to look at.
        OSError: It cannot be opened, created or read; it names the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = _open(path)
        try:
            self._next = self._bound = _read(path, self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise

    def take(self) -> int:
        """Return the next number, from 1; every `BLOCK` of them waits for the disk once.

        Raises:
            OSError: The next block cannot be reserved; it names the file. No number is lost; the next call tries again.
        """
        if self._next == self._bound:
            try:
                self._reserve()
            except OSError as error:
                # pwrite(2) and fsync(2) know only a descriptor.
                error.filename = self.path
                raise
        number = self._next
        self._next += 1
        return number

    def close(self) -> None:
        """Give up this process's copy of the descriptor."""
        os.close(self._descriptor)

    def _reserve(self) -> None:
        bound = self._next + BLOCK
        if bound > END:
            raise OSError(errno.EOVERFLOW, f"no number below {END} is left")
        line = _LINE.format(bound).encode()
        if os.pwrite(self._descriptor, line, 0) < len(line):
            # write(2): the space ended on the way. If this was the first line, its beginning would stop the next
            # master. An older one is as long as this one.
            if os.fstat(self._descriptor).st_size < len(line):
                os.ftruncate(self._descriptor, 0)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # After a failure the kernel takes the page for clean, and the next fsync(2) would succeed without it: so each
        # try writes the line again before.
        os.fsync(self._descriptor)
        self._bound = bound


def _open(path: str) -> int:
    # O_NOFOLLOW and O_NONBLOCK as for the lock file: no link to a file of somebody's choice, no hanging at a FIFO.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if (kind := _KINDS.get(error.errno or 0)) is not None:
            raise _irregular(path, kind) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path, "a FIFO or a device")
    return descriptor


def _irregular(path: str, kind: str) -> LockError:
    # Its name follows from that of the lock file, so that is what can be changed.
    return LockError(
        f"cannot use generation file {path}: expected a regular file, got {kind}; remove it, or name another lock file"
    )


def _read(path: str, descriptor: int) -> int:
    """Return the first number not yet given away."""
    try:
        data = os.pread(descriptor, _SIZE + 1, 0)
        # A crash before the first line was on the disk leaves no byte, or on some file systems as many zeros.
        if data in (b"", bytes(_SIZE)):
            os.ftruncate(descriptor, 0)
            _sync_directory(path)
            return max(1, time.time_ns() // 1_000_000)
    except OSError as error:
        error.filename = path
        raise
    return _parse(path, data)


def _sync_directory(path: str) -> None:
    """Make the name of a new file durable, before it holds anything: fsync(2) of the file alone need not do that."""
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        # A directory that we may write but not read, or a file system that cannot sync one. A name that is lost with
        # the power costs no more than a missing file does.
        if error.errno not in (errno.EACCES, errno.EINVAL):
            raise


def _parse(path: str, data: bytes) -> int:
    head = _HEAD.encode()
    if not data.startswith(head) and not head.startswith(data):
        fault = f"expected '{_HEAD.strip()}', got {data[:32]!r}; move it away, or name another lock file"
    elif len(data) < _SIZE:
        fault = f"it is cut short, expected {_SIZE} bytes like '{_EXAMPLE}', got {len(data)}; {_REMEDY}"
    elif (found := re.fullmatch(_RECORD, data)) is None:
        fault = f"expected a line like '{_EXAMPLE}', got {data!r}; {_REMEDY}"
    elif not 0 < int(found[1]) <= END - BLOCK:
        fault = f"expected a number from 1 to {END - BLOCK}, got {int(found[1])}; {_REMEDY}"
    else:
        return int(found[1])
    raise LockError(f"cannot use generation file {path}: {fault}")
