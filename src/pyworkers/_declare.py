"""What an app has declared, and the checks of a declaration: each mistake is refused where it is written.

Holds values and looks at signatures; it registers nothing itself and runs nothing.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType

from pyworkers._core.records import record
from pyworkers._core.scheduler import AssignmentError, Claim, claim
from pyworkers._core.types import FailureRecord, shown
from pyworkers._settings import declared
from pyworkers._worker.binding import RESERVED
from pyworkers.errors import DeclarationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    Result = int | None
    Handler = (
        Callable[[int], Result]
        | Callable[[], Result]
        | Callable[[int], Coroutine[Any, Any, Result]]
        | Callable[[], Coroutine[Any, Any, Result]]
    )
    """A handler takes its PIN or nothing, and returns None or an exit code."""

    PlainFunction = Callable[[], object]
    PinFunction = Callable[[int], object]
    FailureFunction = Callable[[FailureRecord], object]

# The flags of a code object, as `inspect` names them.
_VARIABLE_ARGUMENTS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x20, 0x80, 0x200

ON_STOP_S = 10
"""What the functions of `on_stop` get on top of a stop, since nothing bounds them: as long as docker waits in all."""


@record
class WorkerSpec:
    """One registered handler: the function, its claim on PINs, and its own options."""

    function: Callable[..., object]
    name: str
    takes_pin: bool
    is_async: bool
    claim: Claim
    options: dict[str, object]

    def call(self, pin: int) -> object:
        """Call the function the way it was declared."""
        return self.function(pin) if self.takes_pin else self.function()


class Declaration:
    """All that an app declares; `App` fills it, `_compose` reads it.

    Attributes:
        options: Checked values, of the instance and as defaults of the workers.
        closed: Whether it runs, so that nothing can be registered any more.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.handlers: list[WorkerSpec] = []
        self.on_start: list[PlainFunction] = []
        self.on_worker_warm: list[PlainFunction] = []
        self.on_worker_start: list[PinFunction] = []
        self.on_worker_exit: list[PinFunction] = []
        self.on_stop: list[PlainFunction] = []
        self.on_failure: list[FailureFunction] = []
        self.on_signal: dict[int, list[PlainFunction]] = {}
        self.closed = False

    def add_worker(
        self, function: Callable[..., object], pins: int | Iterable[int] | None, options: Mapping[str, object]
    ) -> None:
        """Register a handler, or raise DeclarationError."""
        name = name_of(function)
        what = f"worker '{name}'"
        self._check_open(what)
        checked = declared(options, ("worker",), f"@app.worker of '{name}'")
        try:
            claimed = claim(name, pins)
        except AssignmentError as error:
            raise DeclarationError(str(error)) from None
        takes_pin = _takes(function, what, "pin")
        self.handlers.append(WorkerSpec(function, name, takes_pin, _is_async(function), claimed, checked))

    def add_hook(self, hooks: list[Any], function: Callable[..., object], kind: str, parameter: str = "") -> None:
        """Register a function that is called with its one parameter, if it has any, or raise DeclarationError."""
        what = f"{kind} function '{name_of(function)}'"
        self._check_open(what)
        if _is_async(function):
            raise DeclarationError(f"{what} is async; it must be a plain function")
        takes = _takes(function, what, parameter)
        hooks.append(function if takes == bool(parameter) else _without_argument(function))

    def check_signal(self, signum: object) -> None:
        """Raise DeclarationError where a signal cannot have functions."""
        if not isinstance(signum, int) or isinstance(signum, bool):
            raise DeclarationError("on_signal takes one signal: write @app.on_signal(signal.SIGUSR1)")
        if signum not in signal.valid_signals() or signum in RESERVED:
            raise DeclarationError(f"on_signal cannot have signal {signum!r}: it is reserved or does not exist")

    def add_signal(self, signum: int, function: PlainFunction) -> None:
        """Register a function of a signal, or raise DeclarationError."""
        functions = self.on_signal.get(int(signum), [])
        self.add_hook(functions, function, "on_signal")
        self.on_signal[int(signum)] = functions

    def _check_open(self, what: str) -> None:
        if self.closed:
            raise DeclarationError(f"cannot register {what}: the app runs already; register at import")


def _without_argument(function: Callable[[], object]) -> PinFunction:
    return lambda _argument: function()


def calling_module() -> str:
    """Return the name of the module that called our caller; under `__main__`, the script's stem."""
    module = sys._getframe(2).f_globals
    name = str(module.get("__name__", "app"))
    if name == "__main__":
        name = os.path.splitext(os.path.basename(module.get("__file__") or "app"))[0]
    # What a file is called need not be fit for a log line.
    return re.sub(r"[^\w.-]", "_", name)[:64]


def name_of(function: object) -> str:
    """Return what logs and errors call a function."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _plain(function: object) -> FunctionType | None:
    """Return a function whose code object tells all there is to know of it; None for everything else.

    What a decorator has made tells more in its dictionary (`__wrapped__`, `__signature__`), and objects that can be
    called are of many kinds. Those are for `inspect`, which would be a tenth of all that an import of ours loads.
    """
    return function if type(function) is FunctionType and not function.__dict__ else None


def _codes(function: object) -> tuple[object, object]:
    """Return where a function's kind can be told: itself, and for an object that can be called its `__call__`."""
    return function, type(function).__call__


def _is_async(function: object) -> bool:
    if (plain := _plain(function)) is not None:
        return bool(plain.__code__.co_flags & _COROUTINE)
    import inspect

    return any(inspect.iscoroutinefunction(each) for each in _codes(function))


def _is_generator(function: object) -> bool:
    if (plain := _plain(function)) is not None:
        return bool(plain.__code__.co_flags & (_GENERATOR | _ASYNC_GENERATOR))
    import inspect

    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in _codes(function))


def _takes(function: object, what: str, parameter: str) -> bool:
    """Return whether the function takes its one parameter, and refuse one that can be called in neither way."""
    if not callable(function):
        raise DeclarationError(f"{what} must be a function, got {shown(function)}")
    if _is_generator(function):
        raise DeclarationError(f"{what} is a generator, whose body would never run; it must be a plain function")
    for count in (1, 0) if parameter else (0,):
        if _can_take(function, count):
            return bool(count)
    import inspect

    allowed = f"({parameter}) or nothing" if parameter else "nothing"
    raise DeclarationError(f"{what} must take {allowed}, its signature is {inspect.signature(function)}")


def _can_take(function: Callable[..., object], count: int) -> bool:
    """Return whether the function can be called with so many arguments; yes, where it does not tell."""
    if (plain := _plain(function)) is not None:
        code = plain.__code__
        needed = code.co_argcount - len(plain.__defaults__ or ())
        takes_any = bool(code.co_flags & _VARIABLE_ARGUMENTS)
        keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        keywords_given = all(name in (plain.__kwdefaults__ or ()) for name in keywords)
        return needed <= count and (count <= code.co_argcount or takes_any) and keywords_given
    import inspect

    try:
        signature = inspect.signature(function)
    except ValueError:
        # A builtin that does not tell.
        return True
    try:
        signature.bind(*(0,) * count)
    except TypeError:
        return False
    return True
