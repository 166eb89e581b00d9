"""Signals: the master's traps and wake-up pipe, and the mask around a fork.

A trap records its signal and nothing more. The byte that the interpreter's C handler writes into the wake-up pipe
only wakes the poll: a full pipe may lose bytes, the record is not lost. In the child, still blocked, the wake-up
descriptor goes first (it is inherited, and would write into the master's pipe), then every disposition is replaced.

The functions of `signal` convert to enums on each call, and dirty pages in every child that way; what runs between
fork and the handler uses the C functions beneath them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
from collections.abc import Callable, Generator, Iterable, Mapping
from types import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

# No stubs know this module; typed by its use below.
_signal: Any = importlib.import_module("_signal")

Trap = Callable[[int, FrameType | None], object] | int
"""What `signal.signal` takes: a function, SIG_DFL or SIG_IGN."""

# The C functions know these two by identity, and not the enums of `signal`.
DEFAULT: int = _signal.SIG_DFL
IGNORE: int = _signal.SIG_IGN

INTERRUPT, QUIT = signal.SIGINT, signal.SIGQUIT
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
MANAGED = frozenset(
    {
        *STOPPING,
        signal.SIGCHLD,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTTIN,
        signal.SIGTTOU,
    }
)
"""The signals that mean something to a master."""

# Real-time signals (signal(7)), because every other one has a meaning for somebody. None where there are no such.
_first: int | None = getattr(signal, "SIGRTMIN", None)
PROBE = None if _first is None else _first + 5
"""Asks a worker to prove that it reaches its checkpoints."""
DUMP = None if _first is None else _first + 6
"""Makes a worker write the stacks of its threads, without the help of its interpreter."""

LEASE = None if _first is None else _first + 7
"""Tells a worker that the time for which its PIN was leased is over, as far as it knows."""

WORKER = MANAGED | {signum for signum in (PROBE, DUMP, LEASE) if signum is not None}
"""The signals that mean something to a worker. Whoever started us may have blocked them: they are never left so."""

# Never ignored, whoever started us: without TERM there is no stop, and ignored SIGCHLD makes the kernel throw the
# statuses of our children away (waitpid(2), NOTES). What else was ignored stays so, as nohup(1) expects.
_ALWAYS = frozenset({signal.SIGTERM, signal.SIGCHLD})

# Plain numbers, as in `plain`.
_ALL = frozenset(map(int, signal.valid_signals()))
_BLOCK, _SETMASK = int(signal.SIG_BLOCK), int(signal.SIG_SETMASK)


class Interrupted(BaseException):
    """A stop signal arrived inside `MasterSignals.raising`; user code of the master's start must not swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def wakeup_pipe() -> tuple[int, int]:
    """Return both ends of a pipe for `signal.set_wakeup_fd`, which must block neither its writer nor its reader."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def drain(reader: int) -> None:
    """Read all that is in such a pipe: what the bytes say is recorded elsewhere."""
    with contextlib.suppress(BlockingIOError):
        while len(os.read(reader, 4096)) == 4096:
            pass


class EarlySignals:
    """What comes to a program that takes over a master, before it is one: recorded, and told again when it can hear.

    Until then its code is imported, which may start processes: they must not inherit a mask that blocks TERM.

    Args:
        mask: The one that the master was started with.
    """

    def __init__(self, mask: frozenset[int]) -> None:
        self._came: list[int] = []
        self._raises = False
        self._previous: dict[int, Trap | None] = {}
        for signum in MANAGED:
            if signal.getsignal(signum) != signal.SIG_IGN or signum in _ALWAYS:
                self._previous[signum] = signal.signal(signum, self._trap)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask - MANAGED)

    @contextlib.contextmanager
    def raising(self) -> Generator[None]:
        """Let a stop raise `Interrupted` inside the block, once, and at once if one has come already."""
        self._raises = True
        try:
            for signum in self._came:
                self._cut(signum)
            yield
        finally:
            self._raises = False

    def _trap(self, signum: int, _frame: FrameType | None) -> None:
        self._came.append(signum)
        self._cut(signum)

    def _cut(self, signum: int) -> None:
        if self._raises and signum in STOPPING:
            self._raises = False
            raise Interrupted(signum)

    def tell_again(self) -> None:
        """Send this process once more what has come. All that means something to a master stays blocked after it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED)
        for signum, previous in self._previous.items():
            signal.signal(signum, previous)
        for signum in self._came:
            os.kill(os.getpid(), signum)


class MasterSignals:
    """The master's traps, installed for the time of a `with` block, and what they have recorded.

    Args:
        mask: The one that the master was started with; None where it is the one of now.
    """

    def __init__(self, mask: frozenset[int] | None = None) -> None:
        self._mask = mask
        self._pending: list[int] = []
        self._raising: frozenset[int] = frozenset()
        self._previous: dict[int, Trap | None] = {}
        self._reader = self._writer = -1
        self._old_wakeup = -1
        self._children_changed = False
        self.inherited_mask: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        self._reader, self._writer = wakeup_pipe()
        # SIG_SETMASK below is the last step: a signal that was blocked so far finds its trap.
        found = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED))
        self.inherited_mask = found if self._mask is None else self._mask
        self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in MANAGED:
            previous = signal.getsignal(signum)
            self._previous[signum] = previous
            if previous != signal.SIG_IGN or signum in _ALWAYS:
                signal.signal(signum, self._trap)
        if signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL:
            # Many a program asks for the default, which Python does not have: a log without a reader would end us.
            self._previous[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.inherited_mask - MANAGED)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED)
        for signum, previous in self._previous.items():
            # None is a disposition that C code installed; Python cannot bring it back.
            if previous is not None:
                signal.signal(signum, previous)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._reader)
        os.close(self._writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.inherited_mask)

    def be_deaf_after(self) -> None:
        """After the block, ignore what would end a process that is about to end: a second TERM, a reload too late.

        Ignored, not trapped: as it ends, the interpreter gives up its traps before the process is gone.
        """
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            self._previous[signum] = signal.SIG_IGN

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a signal arrives."""
        return self._reader

    def descriptors(self) -> tuple[int, ...]:
        """Return what a child has no use for."""
        return (self._reader, self._writer)

    def take(self) -> list[int]:
        """Return the signals that have arrived since the last call, in their order, SIGCHLD left out."""
        drain(self._reader)
        taken = self._pending[:]
        # Not clear(): a trap may have appended since the copy.
        del self._pending[: len(taken)]
        return taken

    def hand_on(self) -> None:
        """With every signal blocked: send this process once more what nobody has taken, and ask for its children."""
        for signum in (*self.take(), signal.SIGCHLD):
            os.kill(os.getpid(), signum)

    def children_changed(self) -> bool:
        """Return whether a SIGCHLD has arrived since the last call."""
        changed, self._children_changed = self._children_changed, False
        return changed

    @contextlib.contextmanager
    def raising(self, signums: Iterable[int]) -> Generator[None]:
        """Let these signals raise `Interrupted` inside the block, at once if one has come already.

        Only around code of the user that runs in the master, where nothing of ours can be torn.
        """
        self._raising = frozenset(signums)
        try:
            for signum in self._pending:
                if signum in self._raising:
                    raise Interrupted(signum)
            yield
        finally:
            self._raising = frozenset()

    def _trap(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGCHLD:
            self._children_changed = True
            return
        self._pending.append(signum)
        if signum in self._raising:
            # TERM twice is TERM once, so that it does not cut the clean-up that the first one has begun. A person who
            # sends INT or QUIT again means it: user code may have swallowed the first.
            self._raising -= {signal.SIGTERM}
            raise Interrupted(signum)


def block() -> frozenset[int]:
    """Block every signal, and return the mask of before: around a fork, so that none runs in the wrong process."""
    return _signal.pthread_sigmask(_BLOCK, _ALL)  # type: ignore[no-any-return]  # a set, and not changed


Call = tuple[Callable[..., object], tuple[object, ...]]
"""A call of a C function that is made before the fork for a child to do: each Python function that a child enters, and
each object that it looks at, is on a page of the parent's that the kernel has to copy first."""


def child_calls(traps: Mapping[int, Trap]) -> list[Call]:
    """Return what a child does first, signals blocked: no signal writes into the pipe of the parent; its own traps."""
    return [(_signal.set_wakeup_fd, (-1,)), *((_signal.signal, (signum, trap)) for signum, trap in traps.items())]


def plain(traps: Mapping[int, Trap]) -> dict[int, Trap]:
    """Return the same by plain numbers: to look up a member of an enum is a call of Python code, each time."""
    return {int(signum): trap for signum, trap in traps.items()}


def install(traps: Mapping[int, Trap]) -> None:
    """Replace dispositions, quickly."""
    for signum, trap in traps.items():
        _signal.signal(signum, trap)


def unblock(mask: frozenset[int]) -> None:
    """Set the mask: in the master after a fork, in the child when its traps stand."""
    _signal.pthread_sigmask(_SETMASK, mask)
