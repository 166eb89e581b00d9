"""A new program in the same process: how a reload keeps pid, children, lock and pipes.

execve(2): what survives is the pid, the children, the descriptors that are not close-on-exec, the signals that are
ignored, the mask and what is pending. Traps do not: so every signal is blocked from before the call until the new
program has traps of its own. What the old program knows goes to the new one in a file without a name, whose
descriptor an environment variable tells. A program that is only to be checked gets the same, and answers in a second
such file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping

from pyworkers._core.records import record
from pyworkers._core.types import Pid
from pyworkers._posix import lockfile, signals
from pyworkers.errors import UsageError

VARIABLE = "PYWORKERS_REEXEC"

_ANSWER_MAX = 65536
_PROOF = b"\npyworkers: checked\n"


@record
class Origin:
    """How this program was started, so that it can be started again.

    Attributes:
        environ: As it was then; what the program has changed since is its own.
    """

    executable: str
    arguments: tuple[str, ...]
    directory: str
    environ: Mapping[str, str]


@record
class Errand:
    """What this program was started for by the program before it.

    Attributes:
        state: The descriptor of what that one has written; it is closed once that is read.
        answer: The descriptor for the answer of a check; None where this program takes over.
    """

    state: int
    answer: int | None

    def read(self) -> bytes:
        """Return what the program before this one has written."""
        with os.fdopen(self.state, "rb") as file:
            file.seek(0)
            return file.read()

    def prove(self) -> None:
        """In a check: say that the new program has come as far as to the start of its workers."""
        assert self.answer is not None
        os.write(self.answer, _PROOF)


def origin() -> Origin:
    """Return how this program was started, before it changes anything."""
    return Origin(sys.executable, tuple(sys.orig_argv), _directory(), dict(os.environ))


def started() -> float:
    """Return when this process was started, by the wall clock; that of now where the kernel does not tell it."""
    now, ticks = time.time(), lockfile.started_ticks(os.getpid())
    if not sys.platform.startswith("linux") or ticks is None:
        return now
    return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _directory() -> str:
    """Return the working directory by the name that the shell has for it, where it has one.

    getcwd(3) follows symbolic links. Where `current` leads to another release by now, that one is meant.
    """
    told = os.environ.get("PWD", "")
    try:
        same = os.path.isabs(told) and os.path.samestat(os.stat(told), os.stat("."))
    except OSError:
        same = False
    return told if same else os.getcwd()


def errand() -> Errand | None:
    """Return, once, what this program was started for, where another one of ours has started it.

    Raises:
        UsageError: Somebody else has set the variable.
    """
    told = os.environ.pop(VARIABLE, None)
    if told is None:
        return None
    kind, _, numbers = told.partition(":")
    try:
        state, *others = [int(number) for number in numbers.split(":")]
        for descriptor in (state, *others):
            # What a worker executes is not to have it.
            os.set_inheritable(descriptor, False)
        answers: dict[str, list[int | None]] = {"check": [*others[:1]], "become": [None]}
        answer = answers[kind][0]
    except (ValueError, LookupError, OSError, OverflowError):
        raise UsageError(f"{VARIABLE} is a reload's own, got '{told:.80}': remove it from the environment") from None
    return Errand(state, answer)


def written(data: bytes) -> int:
    """Return the descriptor of a file without a name that holds this, at its end."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pyworkers")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


def start_check(begin: Origin, state: bytes) -> tuple[Pid, int]:
    """Start the program anew beside this one, to find out whether it could take over.

    Returns:
        The process, and the descriptor of its answer.

    Raises:
        OSError: It cannot be started.
    """
    told, answer = written(state), written(b"")
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, answer, 2),
    ]
    environ = {**begin.environ, VARIABLE: f"check:{told}:{answer}"}
    try:
        with _as_at_start(begin, (told, answer)):
            pid = os.posix_spawn(begin.executable, begin.arguments, environ, file_actions=actions, setsigmask=())
    except BaseException:
        os.close(answer)
        raise
    finally:
        os.close(told)
    return Pid(pid), answer


def answer_of_check(answer: int) -> str | None:
    """Close the answer of a check that has ended; return None where the program can take over, or why it cannot."""
    size = os.fstat(answer).st_size
    data = os.pread(answer, _ANSWER_MAX, max(0, size - _ANSWER_MAX))
    os.close(answer)
    if _PROOF in data:
        return None
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("pyworkers: error: ") if lines else "the program did not come to its app.run()"


def become(begin: Origin, state: bytes, kept: Iterable[int], hand_on: Callable[[], None]) -> None:
    """Replace the program of this process, which never returns if it succeeds.

    Every signal stays blocked in the new program until its traps stand.

    Args:
        begin: What to execute.
        state: What the new program has to know.
        kept: The descriptors that it is to have besides 0 to 2.
        hand_on: Is called with every signal blocked: what has come by then is to be pending, for it outlives execve(2).

    Raises:
        OSError: It cannot be executed; everything is as before.
    """
    told = written(state)
    mask = signals.block()
    try:
        hand_on()
        inherited = (told, *kept)
        with _as_at_start(begin, inherited):
            environ = {**begin.environ, VARIABLE: f"become:{':'.join(map(str, inherited))}"}
            os.execve(begin.executable, begin.arguments, environ)  # noqa: S606  (no shell is what we want)
    finally:
        os.close(told)
        signals.unblock(mask)


@contextlib.contextmanager
def _as_at_start(begin: Origin, inherited: Iterable[int]) -> Generator[None]:
    """Be in the directory of then, and let a new program inherit these descriptors."""
    # A descriptor, for the directory may be gone.
    here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.chdir(begin.directory)
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        yield
    finally:
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)
        os.fchdir(here)
        os.close(here)
