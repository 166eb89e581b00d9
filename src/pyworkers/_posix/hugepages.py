"""Makes the children of a large process cheap: what it has loaded by then is gathered into huge pages.

fork(2) copies an entry of the page table for each page that there is, and the end of the child takes every one of them
back: 15 ms and 15 ms at 1 GB, of which a master waits for both before it has replaced a worker. A huge page takes one
entry for 512 pages. Who writes to one later, in the master or in a child, has that one in small pages again, and
copies the one page that it writes to, as ever (Linux since 5.8).

Harmless where none of that exists: it then does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator

_SETTINGS = "/sys/kernel/mm/transparent_hugepage"

# linux/mman.h; Linux has it since 6.1: madvise(2).
_MADV_COLLAPSE = 25

# A huge page has no holes, so what is not there yet would be made: at most this share of it.
_HOLES_SHARE = 1 / 8

# Documentation/admin-guide/mm/pagemap.rst, bit 63: the page is in memory.
_PRESENT = 1 << 63
_ENTRY_SIZE = 8


def gather(patience_s: float, settings: str = _SETTINGS) -> int:
    """Put this process's own memory into huge pages, and return how many bytes were; before the first fork.

    A gigabyte takes from a quarter of a second to two, as fast as the machine finds the pages. An administrator's
    `never` is heeded, which madvise(2) itself would not do.

    Args:
        patience_s: How long at most.
        settings: The directory of the kernel's switches for huge pages.
    """
    deadline = time.monotonic() + patience_s
    size = count = 0
    with contextlib.suppress(OSError):
        with open(f"{settings}/enabled") as file:
            if "[never]" in file.read():
                return 0
        with open(f"{settings}/hpage_pmd_size") as file:
            size = int(file.read())
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start in _dense_ranges(size):
            if time.monotonic() > deadline:
                break
            if madvise(start, size, _MADV_COLLAPSE) == 0:
                count += 1
            elif ctypes.get_errno() in (errno.ENOMEM, errno.EBUSY):
                # There is no huge page to be had, or the control group may not have it.
                break
    return count * size


def _dense_ranges(size: int) -> Iterator[int]:
    """Yield where the aligned ranges of this size begin that are mostly in memory."""
    page_size = os.sysconf("SC_PAGE_SIZE")
    page_count = size // page_size
    with open("/proc/self/maps") as file:
        lines = file.readlines()
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for begin, end in _own_memory(lines):
            for start in range(-(-begin // size) * size, end - size + 1, size):
                entries = os.pread(pagemap, page_count * _ENTRY_SIZE, start // page_size * _ENTRY_SIZE)
                present_count = sum(map(_PRESENT.__le__, memoryview(entries).cast("Q")))
                if present_count >= page_count * (1 - _HOLES_SHARE):
                    yield start
    finally:
        os.close(pagemap)


def _own_memory(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each mapping that is private, writable, and of no file: proc(5), /proc/PID/maps."""
    for line in lines:
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        # Not the stacks of threads and the like, which have names of their own.
        if permissions == "rw-p" and inode == "0" and (not name or name[0].startswith(("[heap]", "[anon"))):
            begin, end = addresses.split("-")
            yield int(begin, 16), int(end, 16)
