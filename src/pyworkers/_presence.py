"""An instance's presence: its control socket, and the entry by which that is found.

Composition: nothing here is needed to keep workers running, so whatever goes wrong is one line of the log, and never an
end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from pyworkers._logs import WARNING
from pyworkers._posix import rendezvous
from pyworkers._posix.rendezvous import Presence
from pyworkers._posix.sockets import Listener


class Reception:
    """The socket of this process, if there could be one, and the entry that leads to it.

    Args:
        presence: What the instance tells of itself.
        log: Takes a level and a line.
        started: When this process became a master, in seconds since the epoch.
        kept: What the program before this one had: the socket's path and descriptor, and the entry.

    Attributes:
        listener: None where the instance cannot be asked anything.
        entry: The path of the entry, if there is one.
    """

    def __init__(
        self,
        presence: Presence,
        log: Callable[[int, str], None],
        started: float,
        kept: tuple[str, int, str | None] | None = None,
    ) -> None:
        self.listener: Listener | None
        self.entry: str | None = None
        if kept is not None:
            self.listener, self.entry = Listener(*kept[:2]), kept[2]
            if self.entry is not None:
                # The new program may be in another directory: `current` leads to the next release by now.
                with contextlib.suppress(OSError):
                    self.entry = rendezvous.announce(presence, self.listener.path, started)
            return
        self.listener, why = _listen(presence)
        if self.listener is None:
            log(WARNING, f"no control socket: {why}; status and other verbs will not find this instance")
            return
        try:
            self.entry = rendezvous.announce(presence, self.listener.path, started)
        except OSError as error:
            if presence.lock_file is None:
                log(WARNING, f"no entry in the runtime directory: {_said(error)}; verbs will not find this instance")

    def close(self) -> None:
        """At a proper end: leave no trace."""
        if self.entry is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.entry)
        if self.listener is not None:
            self.listener.close()


def _listen(presence: Presence) -> tuple[Listener | None, str]:
    """Return the socket, or why there is none at the first choice."""
    first: str | None = None
    paths = rendezvous.socket_paths(presence)
    while True:
        path = ""
        try:
            path = next(paths)
            return Listener(path), ""
        except StopIteration:
            return None, first or ""
        except OSError as error:
            first = first or f"{path or 'runtime directory'}: {_said(error)}"


def _said(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
