"""A listening TCP socket: tcp(7). By the C module beneath `socket`, which is not loaded for this."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# No stubs know this module; typed by its use below.
_socket: Any = importlib.import_module("_socket")

_BACKLOG = 64


class Place:
    """Where to listen, looked up once: that may take as long as a name server does.

    Attributes:
        address: HOST:PORT, as it was given.
    """

    def __init__(self, address: str) -> None:
        """Look it up.

        Raises:
            OSError: There is no such host.
        """
        self.address = address
        host, _, port = address.rpartition(":")
        # As bytes, or Python would load the tables of international names for them.
        name = host.removeprefix("[").removesuffix("]").encode() or None
        found = _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE)
        self._family, _, _, _, self._name = found[0]
        self._socket: Any = None

    def listen(self) -> int:
        """Return the descriptor of a socket that listens there; the same one, once there is one.

        Raises:
            OSError: The port is taken, or not for us.
        """
        if self._socket is None:
            made = _socket.socket(self._family, _socket.SOCK_STREAM)
            try:
                made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                made.bind(self._name)
                made.listen(_BACKLOG)
            except BaseException:
                made.close()
                raise
            self._socket = made
        return int(self._socket.fileno())

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()
