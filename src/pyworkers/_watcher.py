"""The program that `--reload` starts beside the master: it watches the files of the app, and sends HUP for a change.

A process of its own, for watchfiles has threads, and no thread may exist in a process that forks. The kernel ends it
with its master. It sees what changes from its start on; what has changed before, since the program that runs began to
read its code, it looks for once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

from watchfiles import Change, PythonFilter, watch

DEBOUNCE_MS = 200
"""An editor writes a file in several steps, and many files at once: one reload for all of them."""


TICK_S = 0.01
"""What the kernel takes the times of files from is behind the clock by so much at most."""


class Look:
    """The one look at what has changed before the watch stood: to watchfiles, an event for which it stops.

    It asks for that at each of its steps, the first of which comes when its watch stands: so there is no gap.

    Args:
        master: Who hears of it.
        since: By the wall clock.
        at: When to look, by that; not before the first step.
    """

    def __init__(self, master: int, directory: str, since: float, at: float) -> None:
        self._master = master
        self._directory = directory
        self._since = since
        self._at: float | None = at

    def is_set(self) -> bool:
        """Return whether the master is gone; look, if that is due."""
        if self._at is not None and time.time() >= self._at:
            self._at = None
            if has_changed(self._directory, self._since):
                return not tell(self._master)
        return False


def has_changed(directory: str, since: float) -> bool:
    """Return whether a file that is watched was written, or came by its name, since then."""
    chosen = PythonFilter()
    for path in _files(directory, frozenset(chosen.ignore_dirs)):
        # Not st_mtime, which comes along with a file that is renamed or unpacked.
        with contextlib.suppress(OSError):
            if chosen(Change.modified, path) and os.stat(path).st_ctime >= since - TICK_S:
                return True
    return False


def _files(directory: str, ignored: frozenset[str]) -> Iterator[str]:
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in ignored]
        for name in names:
            yield os.path.join(place, name)


def tell(master: int) -> bool:
    """Ask for a reload; return whether the master is still there."""
    if os.getppid() != master:
        return False
    os.kill(master, signal.SIGHUP)
    return True


def main(master: int, directory: str, look: Look) -> None:
    """Watch until the master is gone."""
    changes = watch(
        directory,
        watch_filter=PythonFilter(),
        debounce=DEBOUNCE_MS,
        step=50,
        stop_event=look,
        rust_timeout=0,
        raise_interrupt=False,
    )
    for _ in changes:
        if not tell(master):
            return


if __name__ == "__main__":
    parent, here = int(sys.argv[1]), sys.argv[2]
    main(parent, here, Look(parent, here, float(sys.argv[3]), float(sys.argv[4])))
