"""What the helper that serves the metrics is made of. Composition; loaded only where they are asked for."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from pyworkers._master.helper import Helper
from pyworkers._master.needs import Kernel
from pyworkers._posix.signals import Call
from pyworkers._posix.tcp import Place
from pyworkers._worker import prologue
from pyworkers._worker.prologue import Inheritance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Metering:
    """A place where the metrics are served, and the process that does so.

    The master listens, and the helper takes what comes: so a taken port is the master's to tell of, and nobody finds
    the door closed while a helper is replaced.
    """

    def __init__(
        self,
        address: str,
        arguments: tuple[str, ...],
        inheritance: Inheritance,
        kernel: Kernel,
        log: Callable[[int, str], None],
    ) -> None:
        """Look the address up; `arguments` are those of the helper's program.

        Raises:
            OSError: There is no such host.
        """
        self._place = Place(address)
        self._inheritance = inheritance
        main = functools.partial(_main, self._place, arguments, prologue.helper_calls(inheritance), inheritance)
        self.helper = Helper("metrics helper", f"address={address}", kernel, main, self._listen, log)

    def _listen(self) -> None:
        # No worker may keep the port from the next instance.
        self._inheritance.connections.add(self._place.listen())

    def close(self) -> None:
        """After the loop."""
        self.helper.close()
        self._place.close()


def _main(place: Place, arguments: tuple[str, ...], calls: Sequence[Call], inheritance: Inheritance) -> int:
    """In the child: become another program, which shares nothing with the master but the socket and the log's end."""
    # A copy, since the original is closed with what every child has to close.
    listener = os.dup(place.listen())
    os.set_inheritable(listener, True)
    return prologue.run_program(calls, inheritance, "pyworkers._metrics", str(listener), *arguments)
