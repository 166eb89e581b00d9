"""8. Workers that hang and workers that grow old: how each of them is replaced.

With `hang_timeout`, a worker that does not reach its next checkpoint in time is replaced, and the log has the stack of
each of its threads. Here PIN 0 waits for itself in its third page; its successor leaves that page out. With
`max_runtime` a worker is asked to leave at its next checkpoint when it is about that old, never two of a handler at
a time. That is no failure, and no unit is torn. `max_rss="300M"` does the same for one that has grown.

    python -m pyworkers examples.hang_and_age:app

It runs until you stop it. You will see these lines among others:

    worker hung fetch pin=0 pid=... silent=1.0s; its stacks follow, then it is replaced
    stack fetch pin=0 pid=...:   File ".../examples/hang_and_age.py", line 34 in store
    worker ended fetch pin=0 pid=... exit=131 cause=hang after=1.7s unit='page 3'; respawning now
    fetch pin=0: leaving out page 3
    worker recycled resize pin=1 pid=... max_runtime reached=2.0s; asking it to leave
    worker ended resize pin=1 pid=... exit=143 after=2.0s; respawning now
"""

from __future__ import annotations

import threading

from pyworkers import App

app = App("hang_and_age")
lock = threading.Lock()


def store(page: int) -> None:
    """Store a page; the mistake is in the third one, which takes a lock that it holds already."""
    with lock:
        if page == 3:
            lock.acquire()


@app.worker(pins=0, hang_timeout=1)
def fetch() -> None:
    """Work on one page after the other; leave out the one that the worker before this one hung at."""
    page = 0
    if app.previous is not None and app.previous.cause == "hang":
        app.log.info("leaving out %s", app.previous.unit)
        page = int(app.previous.unit.removeprefix("page "))
    while True:
        app.sleep(0.1)  # a checkpoint
        page += 1
        app.unit(f"page {page}")
        store(page)


@app.worker(pins=[1, 2], max_runtime=2)
def resize() -> None:
    """Stand for the use of a library that leaks: a new process is a cure."""
    while True:
        app.sleep(0.1)
