"""1. One handler on several workers, each of which ends normally when its share is done.

The handler has no `pins`, so it takes every PIN of `range(workers)`. A PIN is the worker's number, from 0; here it
says which share of the numbers is its own. A worker that returns is finished and is not started again.

    python -m pyworkers examples.one_handler:app

You will see, for each PIN, the lines `worker started add_squares pin=0 pid=...`, `sum of squares is 112761` and
`worker ended add_squares pin=0 pid=... exit=0 after=0.0s; finished`, and at last `all workers finished; master exits`.
The sums are 112761, 106161 and 109428 for the PINs 0, 1 and 2. Try `--workers 5`: the shares adapt.
"""

from __future__ import annotations

from pyworkers import App

NUMBERS = 100

app = App("one_handler", workers=3)


@app.worker()
def add_squares(pin: int) -> None:
    """Add the squares of every third number, from this worker's PIN on."""
    app.log.info("sum of squares is %d", sum(number**2 for number in app.track(range(pin, NUMBERS, 3))))
