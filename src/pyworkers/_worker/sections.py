"""The two contexts around code that a stop must not cut, or may cut: thin, so that they cost no generator."""

from __future__ import annotations

from types import TracebackType

from pyworkers._core.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


class Guard(Protocol):
    """What the contexts need of the runtime."""

    def enter_critical(self) -> None:
        """Begin a section that nothing cuts."""
        ...

    def leave_critical(self, *, failing: bool) -> None:
        """End it."""
        ...

    def enter_interruptible(self) -> None:
        """Begin a section that a stop may cut anywhere."""
        ...

    def leave_interruptible(self) -> None:
        """End it."""
        ...


class Critical:
    """`with app.critical():` see `App.critical`."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: Guard) -> None:
        self._runtime = runtime

    def __enter__(self) -> None:
        self._runtime.enter_critical()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._runtime.leave_critical(failing=kind is not None)
        return False


class Interruptible:
    """`with app.interruptible():` see `App.interruptible`."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: Guard) -> None:
        self._runtime = runtime

    def __enter__(self) -> None:
        self._runtime.enter_interruptible()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._runtime.leave_interruptible()
        return False
