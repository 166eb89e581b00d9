"""The clock that counts while the machine sleeps, too, and a timer on it: time(7), CLOCK_BOOTTIME.

What was granted for a time is over after it, also for a machine that was suspended meanwhile. `time.monotonic` stands
still then.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AVAILABLE = sys.platform.startswith("linux")

# Linux alone has it, and the stubs of other systems do not know it.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", 7)
_TIMER_ABSTIME = 1
_AGAIN_S = 0.25

# Looked up before the first fork: a child that resolves anything dirties pages of its own.
_libc: Any = ctypes.CDLL(None, use_errno=True) if AVAILABLE else None


def now() -> float:
    """Return seconds since the machine was started."""
    return time.clock_gettime(_CLOCK)


class _SigEvent(ctypes.Structure):
    """`struct sigevent`, of which the rest is padding: sigevent(3type)."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_char * 44),
    )


_SIGEV_THREAD_ID = 4


class _Spec(ctypes.Structure):
    """`struct itimerspec`: interval and value, each in seconds and nanoseconds."""

    _fields_ = (("interval", ctypes.c_long * 2), ("value", ctypes.c_long * 2))


class Timer:
    """A timer that sends a signal to the main thread: timer_create(2). It is neither inherited nor executed.

    Any other thread could take a signal to the process, and the main one would go on with the call that it is in.

    Raises:
        OSError: The kernel has no timer left.
    """

    def __init__(self, signum: int) -> None:
        self._id = ctypes.c_void_p()
        # The main thread has the process's number.
        event = _SigEvent(None, signum, _SIGEV_THREAD_ID, os.getpid())
        _check(_libc.timer_create(_CLOCK, ctypes.byref(event), ctypes.byref(self._id)))

    def set(self, at: float) -> None:
        """Send the signal at this instant, or now where it has passed, and not at the one that was set before.

        It is sent again and again from then on, because one that falls between Python's check of its flags and a
        blocking call does not wake that call.
        """
        # Zero would disarm it.
        seconds, rest = divmod(max(at, 0.001), 1.0)
        spec = _Spec((0, int(_AGAIN_S * 1e9)), (int(seconds), int(rest * 1e9)))
        _check(_libc.timer_settime(self._id, _TIMER_ABSTIME, ctypes.byref(spec), None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, "timer_create(2) has failed")
