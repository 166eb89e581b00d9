"""pyworkers, as its users write it."""

from __future__ import annotations

import os

from work import work

from pyworkers import App

app = App("ours", hang_timeout=float(os.environ.get("BENCHMARK_HANG_TIMEOUT", "0")) or None)
app.worker(pins=range(int(os.environ["BENCHMARK_COUNT"])))(work)
