"""Reload: the new code is tried out in a program beside this one, and only then takes the place of this one.

Nothing changes while it is tried out, and nothing has changed where it cannot start: the log says why. If it can, this
master executes it in its own place, keeps pid, lock, pipes and workers, and hands over what it knows of them; it is the
new program's core that then replaces the workers, one at a time (`_core.roll`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from pyworkers._core import messages as m
from pyworkers._core.records import record
from pyworkers._core.typed import Protocol
from pyworkers._core.types import Pid
from pyworkers._logs import ERROR, INFO

CHECK_TIMEOUT_S = 60.0
"""For the import of the new code: as long as docker and Kubernetes let a container try to start, about."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._master.notify import Notifier

Told = Callable[[str | None], None]
"""Is told that the new code has taken over and every worker was replaced (None), or why that is not so."""


class Prober(Protocol):
    """What is needed of the kernel."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def send(self, pid: Pid, signum: int) -> None:
        """Send a signal to a child."""
        ...

    def await_end(self, pid: Pid) -> None:
        """Wait until a process is gone that was sent a KILL, and reap it; not for long, whatever holds it up."""
        ...


@record
class Means:
    """How it is done, which is composed elsewhere.

    Attributes:
        check: Starts the new code beside this program; raises OSError.
        answer: Returns what came of the check that has ended: None, or why not.
        become: Replaces this program, and returns only by an OSError.
        refusal: Returns why there can be no reload now, or None.
    """

    check: Callable[[], Pid]
    answer: Callable[[], str | None]
    become: Callable[[], None]
    refusal: Callable[[], str | None]


class Reload:
    """The reload that is under way in this program, if any.

    Args:
        notifier: Tells a service manager, if there is one.
        asked: Who wants to hear how the reload ends that has brought this program; None where none has.

    Attributes:
        checking: The process that tries out the new code.
        passed: Whether it can take over.
    """

    def __init__(
        self,
        kernel: Prober,
        means: Means,
        log: Callable[[int, str], None],
        notifier: Notifier | None = None,
        asked: Iterable[Told] | None = None,
    ) -> None:
        self._kernel = kernel
        self._means = means
        self._log = log
        self._notifier = notifier
        self._deadline: float | None = None
        self._again = False
        self.checking: Pid | None = None
        self.passed = False
        # Of two that overlap each has its own end: the code that is tried out, and the workers that are replaced.
        self._rolls = asked is not None
        self._told_of_roll = list(asked or ())
        self._told_of_check: list[Told] = []

    def request(self, reason: str, told: Told | None = None) -> None:
        """Begin one; while the code is being tried out, try it once more after that, for it may have changed."""
        if told is not None:
            self._told_of_check.append(told)
        self._log(INFO, f"reloading reason={reason}; trying out the new code")
        if self._notifier is not None:
            self._notifier.reloading(self._kernel.now())
        if self.checking is not None:
            self._again = True
        else:
            self._begin()

    def ended(self, pid: Pid) -> None:
        """Take the end of a child, which may be the one that tries out the code."""
        if pid != self.checking:
            return
        self.checking = None
        late = self._deadline is None
        self._deadline = None
        why = self._means.answer()
        if self._again:
            self._begin()
        elif why is None:
            self.passed = True
        else:
            self._refuse(f"the new code took longer than {CHECK_TIMEOUT_S:.0f} s to import" if late else why)

    def next_deadline(self) -> float | None:
        """Return the instant at which `meet_deadline` is due, or None."""
        return self._deadline

    def meet_deadline(self, now: float) -> None:
        """End what takes too long; its end is then what refuses the reload."""
        if self._deadline is not None and self.checking is not None and now >= self._deadline:
            self._deadline = None
            self._kernel.send(self.checking, signal.SIGKILL)

    def take_over(self) -> None:
        """Let the new code have this process; return only where that fails."""
        self.passed = False
        if (why := self._means.refusal()) is not None:
            self._refuse(why)
            return
        try:
            self._means.become()
        except OSError as error:
            self._refuse(f"cannot execute the new program: {error.strerror}")
        except Exception as error:  # noqa: BLE001  (as above)
            self._refuse(f"cannot hand over to the new program: {type(error).__name__}: {error}")

    def close(self) -> None:
        """At the end of the loop: leave nobody behind who tries out code that nobody wants."""
        if self.checking is not None:
            self._kernel.send(self.checking, signal.SIGKILL)
            self._kernel.await_end(self.checking)

    def rolled(self, how: m.RollEnded | m.RollHalted) -> None:
        """Take the end of the replacement of the workers."""
        self.ended_in(None if isinstance(how, m.RollEnded) else f"halted at pin={how.pin}: its worker did not come up")

    def ended_in(self, why: str | None) -> None:
        """Tell all who wait for it how the reload has ended that has brought this program."""
        self._rolls = False
        self._tell(self._told_of_roll, why)

    def _tell(self, asked: list[Told], why: str | None) -> None:
        if self._notifier is not None and not (self._rolls or self.passed or self.checking is not None):
            self._notifier.reloaded()
        now, asked[:] = asked[:], []
        for told in now:
            told(why)

    def _begin(self) -> None:
        self._again = self.passed = False
        why = self._means.refusal()
        if why is None:
            try:
                self.checking = self._means.check()
                self._deadline = self._kernel.now() + CHECK_TIMEOUT_S
            except OSError as error:
                why = f"cannot start a check of the new code: {error.strerror}"
            except Exception as error:  # noqa: BLE001  (what is loaded now may be of another version, which must end nobody)
                why = f"cannot start a check of the new code: {type(error).__name__}: {error}"
        if why is not None:
            self._refuse(why)

    def _refuse(self, why: str) -> None:
        self._log(ERROR, f"reload refused: {why}; nothing changes")
        self._tell(self._told_of_check, why)
