"""3. Crashes and exit codes: what is started again, what is finished, and how a worker stops everybody.

PIN 0 fails in three ways, and is taken up again under the same PIN each time. In its fourth life it asks for the stop
of the whole instance, and ends with 10, which counts as a normal end here. PIN 1 waits, and is stopped.

    python -m pyworkers examples.exit_codes:app; echo "the master's exit code is $?"

You will see these lines among others, with a traceback before the third. The delays have a jitter, so they differ.

    worker ended unlucky pin=0 pid=... signal=SIGKILL after=0.0s; respawning now
    worker ended unlucky pin=0 pid=... exit=41 after=0.0s; respawning in 0.1s
    worker ended unlucky pin=0 pid=... exit=1 after=0.0s; respawning in 0.2s
    stopping reason=stop_all pin=0 pid=... workers=2
    worker ended unlucky pin=0 pid=... exit=10 after=0.0s; finished
    worker ended bystander pin=1 pid=... exit=143 after=0.3s; stopped
    all workers stopped; master exits code=7
"""

from __future__ import annotations

import mmap
import os
import signal

from pyworkers import App

# Cooperative: a stop waits for a checkpoint, so PIN 0 gets to its `return 10`.
app = App("exit_codes", normal_exit_codes=(0, 10), cooperative=True)

# Memory that the master and all workers share, so that it outlives each worker.
lives = mmap.mmap(-1, 1)


@app.worker(pins=0)
def unlucky() -> int:
    """Die by a signal, by an exit code, by an exception, and then end well."""
    lives[0] += 1
    if lives[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if lives[0] == 2:
        return 41
    if lives[0] == 3:
        raise ConnectionError("the other side hung up")
    app.stop_all(7)
    return 10


@app.worker(pins=1)
def bystander() -> None:
    """Wait. `app.sleep` is a checkpoint, too: a stop ends it at once."""
    app.sleep(3600)
