"""Processes: fork, the parent-death signal, reaping by own pids, the standard streams.

Every function says which side of a fork may call it where that matters. Nothing here decides what a death means.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import sys
from collections.abc import Callable

from pyworkers._core.typed import Protocol
from pyworkers._core.types import Exited, ExitStatus, Pid, Signaled, Vanished
from pyworkers._posix import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_DUMPABLE = 4
PR_GET_CHILD_SUBREAPER = 37

# macOS has waitid(2) since Python 3.13. Without it nobody can be peeked at, and no process group is ended.
_PEEK = os.WEXITED | os.WNOHANG | os.WNOWAIT if hasattr(os, "waitid") else 0


class _Prctl(Protocol):
    def __call__(self, option: int, arg2: int, arg3: int, arg4: int, arg5: int, /) -> int: ...


def _find_prctl() -> _Prctl | None:
    if not sys.platform.startswith("linux"):
        return None
    # Looked up before the first fork: a child that imports or resolves anything dirties pages of its own.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    return prctl


_prctl = _find_prctl()


def fork(child_main: Callable[[], int]) -> Pid:
    """Fork, and in the child run `child_main` and leave with the code that it returns.

    The caller has blocked every signal; `child_main` unblocks them when its own traps stand.

    Raises:
        OSError: fork(2) failed with EAGAIN or ENOMEM; there is no child.
    """
    pid = os.fork()
    if pid:
        return Pid(pid)
    # Pessimistic until proven: whatever happens below, not a line of the caller's stack runs in the child.
    code = 1
    try:
        code = child_main()
    except BaseException as error:  # noqa: BLE001  (the last resort: a defect of ours must not end in silence)
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End this process, whatever a trap raises on the way: an exception here would go on in the parent's stack."""
    while True:
        with contextlib.suppress(BaseException):
            signals.block()
            os._exit(code)


def die_with_parent(parent: Pid, signum: int) -> bool:
    """In the child: ask for `signum` when the parent's forking thread ends, and return whether the parent lives.

    prctl(2), PR_SET_PDEATHSIG: the setting is lost when credentials change, so it is armed again after user code that
    may call setuid. The parent may have died before the call: only the comparison after it closes that window, and it
    compares with the saved pid, since an orphan goes to a subreaper as often as to process 1.
    """
    for function, arguments in parent_death_calls(signum):
        function(*arguments)
    return os.getppid() == parent


def parent_death_calls(signum: int) -> list[signals.Call]:
    """Return how a child asks for it; that the parent lives is still to be seen then, as above."""
    return [] if _prctl is None else [(_prctl, (PR_SET_PDEATHSIG, int(signum), 0, 0, 0))]


def allow_dump() -> None:
    """In the child, after a change of user: be a process of that user in /proc, too.

    proc(5): else /proc/self is root's, and with it /dev/stderr; nor is there a core dump, or a debugger.
    """
    if _prctl is not None:
        _prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def adopts() -> bool:
    """Whether orphans become children of this process: as process 1, or as a subreaper (prctl(2))."""
    if os.getpid() == 1:
        return True
    answer = ctypes.c_int(0)
    if _prctl is not None:
        _prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer), 0, 0, 0)
    return bool(answer.value)


def children() -> frozenset[Pid] | None:
    """Return the children of this process: proc(5), /proc/PID/task/TID/children. None where the kernel has no such."""
    try:
        lists = [_text(f"/proc/self/task/{thread}/children") for thread in os.listdir("/proc/self/task")]
    except OSError:
        return None
    return frozenset(Pid(int(pid)) for text in lists for pid in text.split())


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


class Brood:
    """The children of this process.

    Attributes:
        own: Workers and the like, which `collect` takes out when they have ended.
        leaders: Those of them that lead a process group, none of which is to survive its leader.
        spared: Children of somebody else, which only their owner may reap: the `subprocess` calls of hooks. None
            where this process adopts nobody, or cannot tell: whoever is not ours is somebody's then.
    """

    def __init__(self, spared: frozenset[Pid] | None = None) -> None:
        self.own: set[Pid] = set()
        self.leaders: set[Pid] = set()
        self.spared = spared


def collect(brood: Brood) -> list[tuple[Pid, ExitStatus]]:
    """Reap every own process that has ended, and return how each ended. Adopted strangers are reaped without a word.

    waitpid(-1) would steal the statuses of the `subprocess` calls of hooks. So peek at who ended (waitid(2), WNOWAIT)
    and collect that pid if it is ours, or adopted. If it is neither, it stands before ours until its owner collects
    it, so ask for each of our own once. Without WUNTRACED a stopped process is no exit.
    """
    ended: list[tuple[Pid, ExitStatus]] = []
    while brood.own or brood.spared is not None:
        try:
            found = os.waitid(os.P_ALL, 0, _PEEK) if _PEEK else None
        except ChildProcessError:
            # No child at all is left, so whoever we still count has been collected by somebody else.
            found = None
        else:
            if found is None and _PEEK:
                break
        if found is not None and found.si_pid in brood.own:
            ended.append((Pid(found.si_pid), _bury(Pid(found.si_pid), brood) or Vanished()))
        elif found is not None and brood.spared is not None and found.si_pid not in brood.spared:
            _reap(Pid(found.si_pid))
        else:
            ended += _sweep(brood)
            break
    return ended


def _sweep(brood: Brood) -> list[tuple[Pid, ExitStatus]]:
    if brood.spared is not None:
        for pid in (children() or frozenset()) - brood.spared - brood.own:
            _reap(pid)
    candidates = [pid for pid in sorted(brood.own) if _may_have_ended(pid, brood)]
    return [(pid, status) for pid in candidates if (status := _bury(pid, brood)) is not None]


def _bury(pid: Pid, brood: Brood) -> ExitStatus | None:
    """Reap one of our own, and end what is left of its process group.

    As long as it is not reaped, its pid, and with it the name of its group, can belong to nobody else (setpgid(2)).
    """
    if pid in brood.leaders and _PEEK:
        # ESRCH: it ended before it led a group. EPERM: all that is left of the group has changed its user.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    status = _reap(pid)
    if status is not None:
        brood.own.discard(pid)
        brood.leaders.discard(pid)
    return status


def _may_have_ended(pid: Pid, brood: Brood) -> bool:
    try:
        return not _PEEK or os.waitid(os.P_PID, pid, _PEEK) is not None
    except ChildProcessError:
        # Somebody else has collected it, so that its pid names nobody, or anybody.
        brood.leaders.discard(pid)
        return True


def _reap(pid: Pid) -> ExitStatus | None:
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return Vanished()
    if reaped == 0:
        return None
    if os.WIFSIGNALED(status):
        return Signaled(os.WTERMSIG(status))
    return Exited(os.WEXITSTATUS(status))


def await_end(pid: Pid, brood: Brood) -> None:
    """Reap an own process that was sent a KILL; wait a second at most, for it may hang in a call of the kernel's."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll(1000)
        finally:
            os.close(pidfd)
    _bury(pid, brood)


def suspensions() -> list[tuple[Pid, bool]]:
    """Return which children were stopped by a signal, or go on, since the last call, and whether they are stopped.

    waitid(2), WSTOPPED and WCONTINUED: nobody else in this process asks for these, and no exit is taken with them.
    """
    changed: list[tuple[Pid, bool]] = []
    with contextlib.suppress(ChildProcessError):
        while _PEEK and (found := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)) is not None:
            changed.append((Pid(found.si_pid), found.si_code != os.CLD_CONTINUED))
    return changed


def send(pid: Pid, signum: int) -> None:
    """Send a signal to a child that has not been reaped; until then its pid cannot belong to anybody else."""
    # ESRCH cannot be news, since only reaping ends a process for us; EPERM is a worker that changed its user.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def catches(pid: Pid, signum: int) -> bool:
    """Whether a process has a trap for a signal; yes, where it does not tell. What it has executed has none."""
    try:
        found = re.search(r"^SigCgt:\s*([0-9a-f]+)$", _text(f"/proc/{pid}/status"), re.MULTILINE)
    except OSError:
        return True
    return found is None or bool(int(found[1], 16) >> (signum - 1) & 1)


def condition(pid: Pid) -> str:
    """Return what the kernel says that a process is doing: proc(5), the `State` of its status."""
    try:
        found = re.search(r"^State:\s*(.*)$", _text(f"/proc/{pid}/status"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found is not None else "unknown"


def end_group() -> None:
    """In an orphaned worker, as its last act: end its process group, itself included, for no master will."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)


def open_standard_streams() -> None:
    """Fill the descriptors 0 to 2 with /dev/null where they are closed, so that no file of ours lands on them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def flush_standard_streams() -> None:
    """Write out what Python holds back for stdout and stderr.

    Raises:
        OSError: The stream's other end is gone, or the disk is full.
    """
    for stream in (sys.stdout, sys.stderr):
        # What stands in for a stream need not be a whole file, and may have been closed.
        flush = getattr(stream, "flush", None)
        if flush is not None and not getattr(stream, "closed", False):
            flush()


def detach(ready: Callable[[], int]) -> None:
    """Become a daemon as daemon(7) tells: fork, setsid(2), fork; the directory and the mask stay as they are.

    Runs `ready` in the process that the caller's shell waits for, and leaves there with the code that it returns.
    Returns in the daemon, whose standard streams are /dev/null.
    """
    with contextlib.suppress(OSError):
        flush_standard_streams()
    if os.fork():
        os._exit(ready())
    os.setsid()
    # Not a session leader any more, so that opening a terminal never makes it the controlling one.
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)


def signal_name(signum: int) -> str:
    """Return `SIGTERM` for 15; a real-time signal without a name of its own becomes `SIG35`."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"SIG{signum}"
