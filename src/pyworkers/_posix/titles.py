"""What ps(1) and top(1) show of a process, by way of setproctitle where that is installed.

Its C part alone is loaded. The package around it loads `logging` for two debug lines, and what that and `threading` do
in every forked child takes longer than the fork: see `pyworkers._logs.Journal`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from importlib.machinery import PathFinder

from pyworkers._core.typed import cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SetTitle = Callable[[str], None]

NAME = "pyworkers"
"""What /proc/PID/comm says: one word. setproctitle puts the beginning of the title there, and who reads /proc/PID/stat
by its blanks does not find a process that has one in its name: Slurm's proctrack/linuxproc sends it no TERM.
"""


@contextlib.contextmanager
def titled(title: str) -> Generator[SetTitle | None]:
    """In the master, before the first fork: have this title, and return what sets another one in a child.

    None where setproctitle is not installed. It finds its memory at the first call, which is made here.
    """
    module = _load()
    if module is None:
        yield None
        return
    # First, for already the other one changes it.
    name_before: str = module.getthreadtitle()
    try:
        before: str = module.getproctitle()
    except UnicodeDecodeError:
        # An argument that is no text, which it cannot bring back.
        yield None
        return
    set_title = cast(SetTitle, module.setproctitle)
    set_name = cast(SetTitle, module.setthreadtitle)

    def set_both(title: str) -> None:
        set_title(title)
        set_name(NAME)

    set_both(printable(title))
    try:
        yield set_both
    finally:
        set_title(before)
        set_name(name_before)


def printable(title: str) -> str:
    """Return it without what no title can hold: a function's name may be any string."""
    return title.encode(errors="backslashreplace").decode()


def _load() -> Any:
    if "setproctitle" in sys.modules:
        # Loaded by the program itself, so that it costs nothing any more.
        return sys.modules["setproctitle"]
    package = PathFinder.find_spec("setproctitle")
    places = None if package is None else package.submodule_search_locations
    spec = PathFinder.find_spec("_setproctitle", list(places)) if places else None
    if spec is None or spec.loader is None:
        return None
    try:
        module = spec.loader.create_module(spec)
        assert module is not None
        spec.loader.exec_module(module)
    except ImportError:
        # Made for another Python, or for another C library.
        return None
    return module
