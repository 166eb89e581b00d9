"""The log of one run, on both sides of fork: what it takes, and how it meets the `logging` of the standard library.

`logging` is loaded only where the program asks for it; see `Journal`.
"""

from __future__ import annotations

import _thread
from collections.abc import Iterable
from types import CodeType, FunctionType

from pyworkers._core.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

    from typing_extensions import Self

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
"""The levels of `logging`, which is not loaded for their sake."""

LEVELS = {CRITICAL: "CRITICAL", ERROR: "ERROR", WARNING: "WARNING", INFO: "INFO", DEBUG: "DEBUG"}


class Line(str):
    """A line that knows what it is about, for a log that keeps the facts apart from the words.

    Attributes:
        about: What the composition can turn into fields.
    """

    __slots__ = ("about",)

    about: object

    def __new__(cls, text: str, about: object) -> Self:
        """Make one."""
        line = super().__new__(cls, text)
        line.about = about
        return line


class Sink(Protocol):
    """Takes lines, and keeps what it cannot write yet. In a child it begins with nothing kept, and with patience."""

    def emit(self, level: int, line: str) -> None:
        """Write the line, or keep it, or count it as dropped. Never raises."""
        ...

    def flush(self) -> None:
        """Write what was kept, as far as there is room."""
        ...

    def waiting(self) -> int | None:
        """Return the descriptor whose room `flush` waits for, or None where nothing was kept."""
        ...

    def become_master(self) -> None:
        """In the process that a daemon's master goes on in: have no more patience than before."""
        ...

    def dump_descriptor(self) -> int:
        """Return where C code may write a stack dump without blocking."""
        ...

    def close(self) -> None:
        """Give what was kept a last moment, and close the sink's own descriptor."""
        ...


class Journal:
    """The log of one run: where the lines of the master and of `App.log` go, in a worker with handler and PIN in front.

    `logging` is not loaded for it. It loads `threading`, and the functions that both run in every forked child take as
    long as the bare fork (measured: 250 instead of 570 microseconds, 61 page faults instead of 203). Where a program
    has loaded it anyway, or asks for `App.log`, lines go by way of the app's logger, to all the handlers that it has.

    Attributes:
        sink: What takes the lines.
        handler: The handler of this worker; None in the master.
        pin: Its PIN; None for a spare.
    """

    def __init__(self, sink: Sink, threshold: int = INFO) -> None:
        self.sink = sink
        # Two attributes and no pair: a worker sets them right after its fork, where to make an object costs pages.
        self.handler: str | None = None
        self.pin: int | None = None
        self._threshold = threshold
        self._logger: logging.Logger | None = None
        self._handler: logging.Handler | None = None
        self._before = (0, True)
        self._lock = _thread.allocate_lock()

    def write(self, level: int, line: str, error: BaseException | None = None) -> None:
        """Log a line, with the traceback of the error if there is one."""
        if self._logger is not None:
            self._logger.log(level, "%s", line, exc_info=error)
        elif level >= self._threshold:
            self.put(level, line if error is None else f"{line}\n{traceback_of(error)}")

    def put(self, level: int, text: str) -> None:
        """Hand a text to the sink, line by line."""
        prefix = ""
        if self.handler is not None:
            prefix = f"{self.handler} spare: " if self.pin is None else f"{self.handler} pin={self.pin}: "
        for line in text.split("\n"):
            self.sink.emit(level, prefix + line)

    def lead(self, logger: logging.Logger) -> None:
        """From here on take what is logged there, and log there what is written here."""
        # Threads may ask for the logger at once. And a stop may be raised anywhere in here, so each step can be done
        # twice: a logger takes the same handler once.
        with self._lock:
            if self._handler is None:
                self._before = logger.level, logger.propagate
                self._handler = self._new_handler()
            logger.setLevel(self._threshold)
            logger.propagate = False
            logger.addHandler(self._handler)
            self._logger = logger

    def _new_handler(self) -> logging.Handler:
        from pyworkers._handler import JournalHandler

        return JournalHandler(self)

    def close(self) -> None:
        """Leave the logger as it was, and close the sink."""
        if self._logger is not None and self._handler is not None:
            self._logger.removeHandler(self._handler)
            self._logger.setLevel(self._before[0])
            self._logger.propagate = self._before[1]
        self.sink.close()


def traceback_of(error: BaseException) -> str:
    """Return what `traceback` makes of it; it is loaded here, for the first failure of a process is mostly its last."""
    try:
        import traceback

        return "".join(traceback.format_exception(error)).rstrip("\n")
    except Exception:  # noqa: BLE001  (no descriptor may be left to read the module with, or no right to)
        places: list[str] = []
        step = error.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            places.append(f'  File "{code.co_filename}", line {step.tb_lineno}, in {code.co_name}\n')
            step = step.tb_next
        return f"Traceback (most recent call last):\n{''.join(places)}{type(error).__name__}: {error}"


def may_log(functions: Iterable[object]) -> bool:
    """Guess whether a program uses `App.log`: whether code in the modules of these functions names an attribute `log`.

    A wrong guess costs time: each worker then loads `logging` at its first line.
    """
    for function in functions:
        if isinstance(function, FunctionType):
            for thing in (function, *list(function.__globals__.values())):
                methods = list(vars(thing).values()) if type(thing) is type else [thing]
                if any(_names_log(each.__code__) for each in methods if type(each) is FunctionType):
                    return True
    return False


def _names_log(code: CodeType) -> bool:
    return "log" in code.co_names or any(_names_log(const) for const in code.co_consts if type(const) is CodeType)
