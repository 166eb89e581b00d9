"""5. Lifecycle hooks: what runs where, and why a database connection is opened in on_worker_start.

A connection that is opened before the fork would be shared by all workers, and break: each worker opens its own.
PIN 1 fails once, and its successor goes on at the first item that has no row.

    python -m pyworkers examples.lifecycle_hooks:app

You will see, besides the lines of the master, `write pin=0: connected` and `write pin=0: closed` of each worker, a
traceback of PIN 1, `failure pin=1 exit=1 attempt=1` (from on_failure), and at last `12 rows` (from on_stop).
"""

import contextlib
import sqlite3
import tempfile

from pyworkers import App, FailureRecord

app = App("lifecycle_hooks", workers=3)
directory = tempfile.TemporaryDirectory()
connections: dict[int, sqlite3.Connection] = {}


@app.on_start  # in the master, before the first fork: close what you open here
def create() -> None:
    with contextlib.closing(sqlite3.connect(f"{directory.name}/rows.db")) as database:
        database.execute("CREATE TABLE done (pin INTEGER, item INTEGER)")


@app.on_worker_start  # in each worker, before its handler
def connect(pin: int) -> None:
    connections[pin] = sqlite3.connect(f"{directory.name}/rows.db", timeout=30)
    app.log.info("connected")


@app.worker()
def write(pin: int) -> None:
    (start,) = connections[pin].execute("SELECT count(*) FROM done WHERE pin = ?", (pin,)).fetchone()
    for item in app.track(range(start, 4)):
        if pin == 1 and item == 2 and start == 0:
            raise OSError("PIN 1 fails once, between two items")
        with connections[pin] as database:
            database.execute("INSERT INTO done VALUES (?, ?)", (pin, item))


@app.on_worker_exit  # in each worker, on every way out that Python sees: not after kill -9
def disconnect(pin: int) -> None:
    connections[pin].close()
    app.log.info("closed")


@app.on_failure  # in a short-lived process of its own, for each failure: send a mail here, if you like
def tell(record: FailureRecord) -> None:
    app.log.info("failure pin=%d %s attempt=%d", record.pin, record.cause, record.attempt)


@app.on_stop  # in the master, after the last worker is gone
def count() -> None:
    with contextlib.closing(sqlite3.connect(f"{directory.name}/rows.db")) as database:
        app.log.info("%d rows", *database.execute("SELECT count(*) FROM done").fetchone())
