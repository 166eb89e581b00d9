"""`status --watch`: the table again and again, with a bar for what `app.track` tells, until q or Ctrl-C.

Plain ANSI on the terminal's second screen (ECMA-48 and what xterm adds to it), so that the first is as it was in the
end, whatever ends this.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Generator

from pyworkers._client import table
from pyworkers.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

    from pyworkers._client.wire import Reply

INTERVAL_S = 1.0
BAR_WIDTH = 20

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_COLOURS = {
    "running": "32",
    "starting": "36",
    "stopping": "33",
    "killing": "33",
    "backoff": "33",
    "waiting": "33",
    "finished": "2",
    "failed": "31",
    "hung": "31",
    "abandoned": "31",
    "suspended": "33",
}


def watch(ask: Callable[[], Reply]) -> Reply:
    """Show what `ask` returns until somebody has seen enough, and return the last of it.

    Raises:
        UsageError: There is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--watch needs a terminal; elsewhere, call status again and again")
    colour = "NO_COLOR" not in os.environ
    with _terminal():
        while True:
            begun = time.monotonic()
            reply = ask()
            _show(frame(reply, *os.get_terminal_size(), colour=colour))
            if _has_seen_enough(begun + INTERVAL_S):
                return reply


def frame(status: Reply, columns: int, rows: int, *, colour: bool) -> list[str]:
    """Return the lines of one picture, cut to the size of the terminal; what is down comes first where not all fits."""
    workers, spares = list(status["workers"]), list(status["spares"])
    room = max(1, rows - 4)
    hidden = len(workers) + len(spares) - room
    if hidden > 0:
        workers.sort(key=lambda row: (table.is_up(row), not table.is_wanted(row)))
        workers, spares = workers[:room], spares[: max(0, room - len(workers))]
    shown = {**status, "workers": workers, "spares": spares}
    head, *lines = table.table(shown, bar=bar)
    states = [table.state(row).split()[0] for row in workers] + [row["state"] for row in spares]
    lines = [_cut(line, columns) for line in lines]
    if colour:
        lines = [_painted(line, state) for line, state in zip(lines, states, strict=True)]
        head = f"\x1b[7m{_cut(head, columns):<{columns}}\x1b[0m"
    more = [f"... and {hidden} more that do not fit"[:columns]] if hidden > 0 else []
    return [_cut(table.summary(status), columns), "", head if colour else _cut(head, columns), *lines, *more]


def bar(done: int | None, total: int | None) -> str:
    """Return a progress bar; without a total, how many."""
    if done is None or not total:
        return table.progress(done, total)
    full = min(BAR_WIDTH, BAR_WIDTH * done // total)
    return f"{'█' * full}{'░' * (BAR_WIDTH - full)} {table.progress(done, total)}"


def _painted(line: str, state: str) -> str:
    return line.replace(state, f"\x1b[{_COLOURS.get(state, '0')}m{state}\x1b[0m", 1)


def _cut(line: str, columns: int) -> str:
    return line[:columns]


def _show(lines: list[str]) -> None:
    text = "\r\n".join(line + _END_OF_LINE for line in lines)
    sys.stdout.write(f"{_HOME}{text}{_END_OF_SCREEN}")
    sys.stdout.flush()


def _has_seen_enough(until: float) -> bool:
    """Wait for a key, but not beyond `until`; return whether it was one of those that end this."""
    while (left_s := until - time.monotonic()) > 0:
        ready, _, _ = select.select([sys.stdin], [], [], left_s)
        if not ready:
            return False
        keys = os.read(sys.stdin.fileno(), 64)
        # Nothing at all: the terminal is gone.
        if not keys or keys[:1] in b"qQ\x03\x04":
            return True
    return False


@contextlib.contextmanager
def _terminal() -> Generator[None]:
    """Have the second screen, and each key at once."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    handlers = {signum: signal.signal(signum, _leave) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        # Raw, so that Ctrl-C and Ctrl-Z are keys like q: nobody leaves without putting things right.
        tty.setraw(descriptor)
        sys.stdout.write(_ENTER)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _leave(signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)
