"""2. Different tasks for different PINs: a range, a single PIN, a set, and a catch-all for the rest.

Each PIN has exactly one handler. An overlap, a gap or a PIN that is named twice is refused before anything starts.

    python -m pyworkers check examples.per_pin:app
    python -m pyworkers examples.per_pin:app

The first command prints the map of the PINs: download 0-2, resize 3, mail 4 and 6, and sweep 5 and 7. The second one
runs them. Each says a line such as `resize pin=3: resizing` and ends; then `all workers finished; master exits`.
"""

from __future__ import annotations

from pyworkers import App

app = App("per_pin", workers=8)


@app.worker(pins=range(3))
def download(pin: int) -> None:
    """Run on the PINs 0, 1 and 2."""
    app.log.info("downloading part %d", pin)


@app.worker(pins=3)
def resize() -> None:
    """Run on PIN 3. A handler that does not need its PIN need not take it."""
    app.log.info("resizing")


@app.worker(pins={4, 6}, stop_timeout=2)
def mail(pin: int) -> None:
    """Run on the PINs 4 and 6, with an option of its own."""
    app.log.info("mailing list %d", pin)


@app.worker()
def sweep() -> None:
    """Run on what is left of `range(workers)`: the PINs 5 and 7."""
    app.log.info("sweeping as pin %d", app.pin)
