"""The program that `--reload` starts beside the master: it watches the files of the app, and sends HUP for a change.

A process of its own, for watchfiles has threads, and no thread may exist in a process that forks. The kernel ends it
with its master.
"""

from __future__ import annotations

import os
import signal
import sys

DEBOUNCE_MS = 200
"""An editor writes a file in several steps, and many files at once: one reload for all of them."""


def main(master: int, directory: str) -> None:
    """Watch until the master is gone."""
    from watchfiles import PythonFilter, watch

    for _ in watch(directory, watch_filter=PythonFilter(), debounce=DEBOUNCE_MS, step=50, raise_interrupt=False):
        if os.getppid() != master:
            return
        os.kill(master, signal.SIGHUP)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
