"""gunicorn: its own synchronous worker, which reports before it waits for requests, and an application for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gunicorn.workers.sync import SyncWorker
from work import report


class Working(SyncWorker):
    def run(self) -> None:
        report()
        super().run()


def app(_environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []
