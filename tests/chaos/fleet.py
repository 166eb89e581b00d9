"""The instance that is shot at: 20 PINs of every kind, each of which proves that it is alone.

It is copied into the directory of a run. Two witnesses stand in that directory. `attempts` has a line for what each
attempt did, appended by one write(2), so that lines never mix and stand in the order of the deeds. `live.PIN` is locked
by each attempt of the PIN for as long as it lives: an flock(2) on a description of its own, which nobody inherits, for
these workers fork nobody. The kernel gives it up before the process can be reaped, so whoever cannot have it is not
alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import sys
import time
from pathlib import Path

from pyworkers import App

HERE = Path(__file__).parent
STOP_TIMEOUT_S = 2.0
PINS = range(20)

app = App(lock_file=HERE / "lock", backoff=(0.01, 0.1), stop_timeout=STOP_TIMEOUT_S)


def note(pin: int, word: str) -> None:
    """Append a line about this attempt: `pin pid started master generation instant word`."""
    # proc(5): field 22; field 2 is in parentheses and may hold anything.
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    master = os.environ["PYWORKERS_WORKER_MASTER_PID"]
    line = f"{pin} {os.getpid()} {started} {master} {app.generation} {time.monotonic():.6f} {word}\n"
    records = os.open(HERE / "attempts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(records, line.encode())
    os.close(records)


@app.on_worker_start
def begin(pin: int) -> None:
    """Prove that this attempt is alone, and count it."""
    seat = os.open(HERE / f"live.{pin}", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(pin, "not-alone")
    number = int(os.pread(seat, 20, 0) or b"0") + 1
    os.pwrite(seat, b"%d" % number, 0)
    note(pin, "begin")


def dice_of(pin: int) -> random.Random:
    """Return the dice of this attempt: the nth attempt of a PIN draws the same in each run of a seed."""
    number = (HERE / f"live.{pin}").read_text()
    return random.Random(f"{os.environ['CHAOS_SEED']} {pin} {number}")


@app.on_worker_exit
def end(pin: int) -> None:
    """Say that this attempt left by a way that Python sees."""
    note(pin, "end")


@app.worker(pins=range(4))
def units(pin: int) -> None:
    """Cooperative, in units of some milliseconds, or so long that an orphan outlives its master for a while."""
    while True:
        app.checkpoint()
        time.sleep((0.005, 0.005, 0.3, 1.0)[pin])


@app.worker(pins=range(4, 8))
def sleeping(pin: int) -> None:
    """Cooperative, in a wait."""
    app.sleep(3600)


@app.worker(pins=range(8, 11))
def blocking(pin: int) -> None:
    """Without a checkpoint."""
    time.sleep(3600)


@app.worker(pins=range(11, 13))
async def awaiting(pin: int) -> None:
    """In a loop of asyncio."""
    await asyncio.sleep(3600)


@app.worker(pins=range(13, 16), group="crew", strategy="all")
def together(pin: int) -> None:
    """All of them start again when one fails."""
    app.sleep(3600)


@app.worker(pins=16, hang_timeout=0.5)
def hanging(pin: int) -> None:
    """Reaches its checkpoints for a while, and then none any more."""
    app.sleep(dice_of(pin).uniform(0, 4))
    time.sleep(3600)


@app.worker(pins=17, max_runtime=1)
def ageing() -> None:
    """Is recycled every second."""
    while True:
        app.sleep(0.01)


@app.worker(pins=range(18, 20), restart="always")
def leaving(pin: int) -> int:
    """Ends by itself, by any way, with any code."""
    dice = dice_of(pin)
    app.sleep(dice.uniform(0, 0.5))
    code, way = dice.randrange(256), dice.randrange(3)
    note(pin, f"exit={code}")
    if way == 0:
        os._exit(code)
    if way == 1:
        sys.exit(code)
    return code
