"""gunicorn's settings. Paths are relative to the directory of the arena."""

from __future__ import annotations

import os

from gunicorn_worker import Working

bind = "unix:gunicorn.sock"
workers = int(os.environ["BENCHMARK_COUNT"])
worker_class = Working
preload_app = True
# No watch over hung workers: the others have none, either.
timeout = 0
control_socket_disable = True
