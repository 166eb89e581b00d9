"""7. An async handler: each worker runs an event loop of its own, and is stopped by cancelling its task.

The handler calls `app.checkpoint`, so a stop waits for the end of a batch; without a checkpoint it would cancel the
task at the next await. Other libraries see an ordinary asyncio program.

    python -m pyworkers examples.async_handler:app

It runs until you stop it, by Ctrl-C or TERM. You will see `batch 1: ['page 0 of pin 0', 'page 1 of pin 0']` and more
of its kind of each worker, and when it stops, `fetch pin=0: left after 14 whole batches` (or how many there were),
`worker ended fetch pin=0 pid=... exit=143 after=1.5s; stopped` and `all workers stopped; master exits`.
"""

from __future__ import annotations

import asyncio

from pyworkers import App

app = App("async_handler", workers=2)


async def download(page: int, pin: int) -> str:
    """Stand for something that waits for the network."""
    await asyncio.sleep(0.05)
    return f"page {page} of pin {pin}"


@app.worker()
async def fetch(pin: int) -> None:
    """Download two pages at a time."""
    begun = ended = 0
    try:
        while True:
            app.checkpoint()
            # A stop that is due cancels the task here, at the first await after the checkpoint.
            await asyncio.sleep(0.05)
            begun += 1
            pages = await asyncio.gather(download(2 * ended, pin), download(2 * ended + 1, pin))
            ended += 1
            app.log.info("batch %d: %s", ended, pages)
    finally:
        app.log.info("left after %d %s batches", ended, "whole" if begun == ended else "torn")
