"""11. Warm spares: when a worker dies, a process that is ready already takes its PIN.

Each process here needs two seconds to get ready. With `spares=1` a third one has done that and waits. When a PIN is
due, it takes that PIN at once, and another one gets ready in the background. It costs the memory of a process.

    python -m pyworkers examples.warm_spares:app

It runs until you stop it. When the spare is ready, end the worker of PIN 0 by `kill -9`. You will see these lines among
others, all within some milliseconds, and the pid of the third one is that of the spare:

    worker ended answer pin=0 pid=... signal=SIGKILL after=4.6s done=1/225; respawning now
    answer pin=0: 100 is the sum of 47 and 53
    worker started answer pin=0 pid=...
    worker started answer spare=0 pid=...
"""

from __future__ import annotations

import time

from pyworkers import App

app = App("warm_spares", workers=2, spares=1)
primes: list[int] = []


@app.on_worker_warm  # in each process, before it has a PIN; what depends on the PIN belongs into on_worker_start
def load() -> None:
    """Stand for a model that takes long to load, and that cannot be loaded once, in the master, for all."""
    time.sleep(2)
    primes.extend(number for number in range(2, 1000) if all(number % prime for prime in range(2, number)))
    app.log.info("ready")


@app.worker()
def answer(pin: int) -> None:
    """Answer one question after the other, the first one at once."""
    for number in app.track(range(100 + pin * 2, 1000, 4)):
        half = next(prime for prime in reversed(primes) if prime <= number / 2 and number - prime in primes)
        app.log.info("%d is the sum of %d and %d", number, half, number - half)
        app.sleep(2)
