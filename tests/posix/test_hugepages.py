"""Huge pages, as a real kernel makes them of a real process's memory, and as its children share them."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import Bench, until
from pyworkers._core.types import Pid
from pyworkers._posix import hugepages
from pyworkers._posix.memory import private_bytes

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
MB = 1024 * 1024
PR_SET_THP_DISABLE = 41


def can_gather() -> bool:
    """Whether this system has madvise(2) with MADV_COLLAPSE, and a huge page for us."""
    if not SETTINGS.exists() or "[never]" in (SETTINGS / "enabled").read_text():
        return False
    size = int((SETTINGS / "hpage_pmd_size").read_text())
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.write(bytes(len(area)))
        begin = ctypes.c_char.from_buffer(area)
        done = madvise(-(-ctypes.addressof(begin) // size) * size, size, 25)
        del begin
    return bool(done == 0)


pytestmark = pytest.mark.skipif(not can_gather(), reason="needs Linux 6.1, and huge pages that it may have")


def facts(pid: int | str = "self") -> dict[str, int]:
    """Return the sums of the kernel's account of a process's memory, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(size) * 1024 for name, size in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", text)}


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """32 MB that are not there yet."""
    with mmap.mmap(-1, 32 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        yield area


def fill(area: mmap.mmap, page_step: int = 1) -> None:
    """Write to each nth page."""
    for start in range(0, len(area), page_step * mmap.PAGESIZE):
        area[start] = 1


def test_what_is_there_is_gathered(memory: mmap.mmap) -> None:
    """All of it but its edges, and with the same bytes in it; more calls change nothing."""
    fill(memory)
    memory[5 * MB : 5 * MB + 4] = b"here"
    before = facts()["AnonHugePages"]
    gathered = hugepages.gather(60.0)

    assert gathered >= 28 * MB
    assert facts()["AnonHugePages"] - before >= 28 * MB
    assert memory[5 * MB : 5 * MB + 4] == b"here"
    assert hugepages.gather(60.0) == gathered


@pytest.mark.parametrize("page_step", [2, 16])
def test_what_is_sparse_stays_as_it_is(page_step: int, memory: mmap.mmap) -> None:
    """A huge page has no holes: the memory of such a process would be a multiple of what it was."""
    hugepages.gather(60.0)
    fill(memory, page_step)
    before = facts()["Rss"]
    hugepages.gather(60.0)

    assert facts()["Rss"] - before < 4 * MB


def test_never_is_heeded(memory: mmap.mmap, tmp_path: Path) -> None:
    """The kernel itself would do it all the same: madvise(2)."""
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    (tmp_path / "hpage_pmd_size").write_text((SETTINGS / "hpage_pmd_size").read_text())
    fill(memory)

    assert hugepages.gather(60.0, str(tmp_path)) == 0
    assert hugepages.gather(60.0) > 0


def test_no_more_time_is_taken_than_there_is(memory: mmap.mmap) -> None:
    """Who has none gets nothing."""
    fill(memory)

    assert hugepages.gather(-1.0) == 0


@pytest.mark.parametrize("missing", ["the switches", "the size"])
def test_system_without_huge_pages(missing: str, tmp_path: Path) -> None:
    """Nothing is done, and nothing is raised."""
    if missing == "the size":
        (tmp_path / "enabled").write_text("[always] madvise never\n")

    assert hugepages.gather(60.0, str(tmp_path)) == 0


def test_process_that_may_not_have_them() -> None:
    """prctl(2), PR_SET_THP_DISABLE: the kernel refuses each."""
    program = f"""if True:
        import ctypes
        from pyworkers._posix import hugepages
        data = [bytes(1000) for _ in range(32_000)]
        assert ctypes.CDLL(None).prctl({PR_SET_THP_DISABLE}, *map(ctypes.c_ulong, (1, 0, 0, 0))) == 0
        print(hugepages.gather(60.0))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "0\n"


def test_workers_share_what_the_master_has_loaded(bench: Bench) -> None:
    """Also the successor of one that was killed, after another has written to all that there is."""
    app = """
        app = App("large")
        data = [bytes(1000) for _ in range(48_000)]

        @app.worker(pins=range(2))
        def work(pin):
            if pin == 0:
                # A reference count is in each object.
                (here / "touched").write_text(str(sum(map(len, data + data))))
            app.sleep(3600)
    """
    master = bench.start(app)
    until(lambda: bench.read("touched") == "96000000", "the worker that touches everything")

    def shared(pid: int) -> int:
        return facts(pid)["AnonHugePages"]

    until(lambda: shared(master.worker(1)) >= 32 * MB, "the other worker to share huge pages")
    assert shared(master.pid) >= 32 * MB
    os.kill(master.worker(1), signal.SIGKILL)
    successor = master.worker(1, 2)
    until(lambda: shared(successor) >= 32 * MB, "its successor to share them")
    # What is shared is nobody's own: `max_rss` does not count it.
    assert (private := private_bytes(Pid(successor), 0)) is not None
    assert private < 16 * MB
    assert master.stop() == 0
