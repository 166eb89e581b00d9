"""multiprocessing, as its documentation suggests: Process objects, and a wait for their sentinels."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from work import work

context = multiprocessing.get_context("fork")
processes: dict[int, BaseProcess] = {}


def body() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    work()


def spawn() -> None:
    process = context.Process(target=body)
    process.start()
    processes[process.sentinel] = process


def stop(*_: object) -> None:
    for process in processes.values():
        process.terminate()
    for process in processes.values():
        process.join()
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
for _ in range(int(sys.argv[1])):
    spawn()
while True:
    for sentinel in wait(list(processes)):
        process = processes.pop(sentinel)
        process.join()
        process.close()
        spawn()
