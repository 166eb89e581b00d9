"""4. A long loop whose units of work are atomic: no stop and no other signal tears one in two.

Each worker moves money between two accounts, in two steps with a pause between them. `app.track` has a checkpoint
before each item: there a stop is raised and the USR1 function runs, not where the signal happens to arrive. The two
steps are in `app.critical`, so that not even the interrupt cuts them, which comes when a stop takes too long. What
arrives meanwhile is dispatched on leaving the block.

    python -m pyworkers examples.atomic_units:app

It runs until you stop it, by Ctrl-C or TERM. You will see a line `the accounts add up to 1000` of each worker when it
leaves, and `all workers stopped; master exits`. Send USR1 to the master, by `kill -USR1 PID`, and each worker says
`20 transfers so far, the accounts add up to 1000`. Kill a worker by `kill -9 PID`, and the master says where it was:
`worker ended transfer pin=0 ... signal=SIGKILL after=2.1s unit='transfer 37' done=36/1000000; respawning now`.
"""

from __future__ import annotations

import signal
import time

from pyworkers import App

app = App("atomic_units", workers=2)
accounts = {"giro": 1000, "savings": 0}
transfers: list[int] = []


@app.worker()
def transfer() -> None:
    """Move 1 to and fro; the sum is wrong only between the two steps."""
    for number in app.track(range(1_000_000)):
        app.unit(f"transfer {number + 1}")
        giver, taker = ("savings", "giro") if number % 2 else ("giro", "savings")
        with app.critical():
            accounts[giver] -= 1
            time.sleep(0.05)
            accounts[taker] += 1
            transfers.append(number)


@app.on_signal(signal.SIGUSR1)
def tell() -> None:
    """Say how far this worker is; never inside a transfer."""
    app.log.info("%d transfers so far, the accounts add up to %d", len(transfers), sum(accounts.values()))


@app.on_worker_exit
def add_up() -> None:
    """Say that nothing was torn."""
    app.log.info("the accounts add up to %d", sum(accounts.values()))
