"""10. After a crash: a database that refuses late writes, and a poison page that is skipped.

`app.generation` grows with each worker that is started, across masters, too. A worker claims its PIN with it, and all
that it writes carries it. So the database can refuse what a worker that has been replaced sent at last and comes late.
`app.previous` tells how the worker before this one ended, and which unit it was at: else a page that kills its worker
would kill the next one, too, and so on.

    python -m pyworkers examples.fencing:app

You will see these lines among others:

    worker ended convert pin=0 pid=... signal=SIGKILL after=0.0s unit='page 3' done=3/6; respawning now
    convert pin=0: skipping page 3 after signal=SIGKILL
    convert pin=0: refused: a late write
    worker ended convert pin=0 pid=... exit=0 after=0.0s; finished
"""

import contextlib
import os
import signal
import sqlite3
import tempfile

from pyworkers import App

app = App("fencing", lock_file="fencing.lock")  # the generations are kept beside it
directory = tempfile.TemporaryDirectory()
SCHEMA = """
CREATE TABLE claim (pin INTEGER PRIMARY KEY, generation INTEGER);
CREATE TABLE page (name TEXT PRIMARY KEY, pin INTEGER, generation INTEGER, state TEXT);
CREATE TRIGGER fence BEFORE INSERT ON page WHEN new.generation < (SELECT generation FROM claim WHERE pin = new.pin)
BEGIN SELECT RAISE(ABORT, 'a late write'); END;
"""
CLAIM = (
    "INSERT INTO claim VALUES (?, ?) ON CONFLICT (pin) DO UPDATE SET generation = max(generation, excluded.generation)"
)
STORE = "INSERT OR IGNORE INTO page VALUES (?, ?, ?, ?)"


@app.worker(pins=0)
def convert(pin: int) -> None:
    with contextlib.closing(sqlite3.connect(f"{directory.name}/pages.db", isolation_level=None)) as database:
        last = app.previous
        if last is None:
            database.executescript(SCHEMA)
        database.execute(CLAIM, (pin, app.generation))
        if last is not None and last.unit and last.cause.startswith("signal="):
            app.log.info("skipping %s after %s", last.unit, last.cause)
            database.execute(STORE, (last.unit, pin, app.generation, "skipped"))
            try:  # stands for what the worker before this one sent at last
                database.execute(STORE, (last.unit, pin, app.generation - 1, "converted"))
            except sqlite3.IntegrityError as error:
                app.log.info("refused: %s", error)
        (count,) = database.execute("SELECT count(*) FROM page").fetchone()
        for number in app.track(range(count, 6)):
            app.unit(f"page {number}")
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)  # stands for a library that crashes
            database.execute(STORE, (f"page {number}", pin, app.generation, "converted"))
