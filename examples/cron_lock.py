"""6. A single instance that cron keeps alive: the lock makes a second start harmless.

This line of a crontab starts the app every minute. While it runs, each further start leaves at once, without a word
and with code 0, so that cron has nothing to mail. After a crash or a reboot the next minute brings it back.

    * * * * * cd $HOME/project && .venv/bin/python -m pyworkers examples.cron_lock:app --daemon

Try it by hand: start it in one terminal, and again in a second one.

    python -m pyworkers examples.cron_lock:app
    python -m pyworkers examples.cron_lock:app --if-running=fail; echo $?

The first one runs until you stop it. The second one says `already running: lock cron_lock.lock is held by cron_lock,
master pid ... and 2 other processes` and leaves with 75. The lock is free again when the last worker is gone. Never
remove the file: a lock on a removed file keeps nobody out.
"""

from __future__ import annotations

from pyworkers import App

app = App("cron_lock", workers=2, lock_file="cron_lock.lock")


@app.worker()
def poll(pin: int) -> None:
    """Look for work, and wait a while, without end."""
    while True:
        app.log.info("looking into queue %d", pin)
        app.sleep(60)
