"""The process that serves the metrics of one instance by HTTP: `python -m pyworkers._metrics FD SOCKET NAME`.

Started by the master, with a listening socket of the master's: connections that come while it is replaced wait there.
It asks the control socket like anybody else, at each scrape, and holds nothing of the instance: it may have threads, be
slow, and be killed.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import wsgiref.simple_server
from collections.abc import Iterator, Sequence

from prometheus_client import Metric, exposition
from prometheus_client.registry import Collector, CollectorRegistry

from pyworkers._client.find import Found
from pyworkers._client.metrics import Family, absent, families
from pyworkers._client.wire import Wire
from pyworkers.errors import PyworkersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Its application has no types; typed by its use below.
_exposition: Any = exposition

PATIENCE_S = 10.0
"""For the whole request of a scraper, and for the next bytes of the answer to be read."""

REQUESTS_MAX = 16
"""At a time; the others wait to be accepted."""


class Status(Collector):
    """Makes the metrics of a fresh status at each scrape."""

    def __init__(self, socket_path: str, name: str) -> None:
        self._found = Found("", name, None, "", None, socket_path, 0, 0.0, alive=True)
        # One at a time: the master serves people, too.
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        return map(_metric, self._families())

    def _families(self) -> list[Family]:
        try:
            with self._lock:
                wire = Wire(self._found)
                try:
                    return families(wire.ask("status"))
                finally:
                    wire.close()
        except PyworkersError:
            return absent(self._found.name)


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.help, family.kind, family.unit)
    for sample in family.samples:
        metric.add_sample(family.sample_name, dict(sample.labels), sample.value)
    return metric


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    timeout = PATIENCE_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name of the base class)
        """Say nothing: a scrape each 15 seconds is no news."""


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = "pyworkers", 0
        self.setup_environ()
        self._room = threading.BoundedSemaphore(REQUESTS_MAX)

    def process_request(self, request: object, client_address: object) -> None:
        self._room.acquire()
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: who hangs up in the middle is no news either."""


def serve(listener: socket.socket, socket_path: str, name: str) -> None:
    """Serve for ever."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Status(socket_path, name))
    server = _Server(listener)
    server.set_app(_exposition.make_wsgi_app(registry))
    while True:
        # Not serve_forever, which wakes twice a second to see whether it should stop.
        server.handle_request()


def main(arguments: Sequence[str]) -> None:
    """Serve what the arguments say."""
    descriptor, socket_path, name = arguments
    serve(socket.socket(fileno=int(descriptor)), socket_path, name)


if __name__ == "__main__":
    main(sys.argv[1:])
