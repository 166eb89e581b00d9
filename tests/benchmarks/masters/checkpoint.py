"""A worker that times its own checkpoint, and writes what it found into the file BENCHMARK_RESULT."""

from __future__ import annotations

import os
from pathlib import Path

from micro import checkpoint_ns

from pyworkers import App

app = App("checkpoint", hang_timeout=float(os.environ["BENCHMARK_HANG_TIMEOUT_S"]) or None)


@app.worker(pins=0)
def measure() -> None:
    app.checkpoint()  # the first one begins the watch
    ours, theirs = checkpoint_ns(app, rounds=60)
    Path(os.environ["BENCHMARK_RESULT"]).write_text(f"{ours} {theirs}")
