"""How the master of a running instance reloads: what that needs of all that the loop is made of.

Composition, like `_assembly`. What only a reload needs is loaded by it (`_succession`).
"""

from __future__ import annotations

import os

from pyworkers._core.records import record
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Phase, Pid
from pyworkers._logs import ERROR
from pyworkers._master.execute import Executor
from pyworkers._master.loop import Loop
from pyworkers._master.reload import Means, Reload
from pyworkers._master.verbs import reload_told
from pyworkers._posix import reexec
from pyworkers._posix.channel import Channel
from pyworkers._posix.dumps import DumpPipe
from pyworkers._posix.kernel import PosixKernel
from pyworkers._presence import Reception
from pyworkers._roster import Roster

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._assembly import Parts
    from pyworkers._master.control import Answer
    from pyworkers._master.notify import Notifier
    from pyworkers._succession import Estate


@record
class Works:
    """All that a loop is made of.

    Attributes:
        started_at: When the master was started, on the monotonic clock: before the first of its programs.
    """

    parts: Parts
    roster: Roster
    channel: Channel
    dumps: DumpPipe
    reception: Reception
    kernel: PosixKernel
    core: Supervisor
    executor: Executor
    loop: Loop
    started_at: float


def reloading(works: Works, notifier: Notifier | None) -> Reload:
    """Return what reloads this instance, after having taken over what the program before it has left."""
    left = works.parts.begin.inherited
    answers = None if left is None else _take_over(works, left)
    log, broken = works.parts.journal.write, works.parts.broken
    told = None if answers is None else [reload_told(each, os.getpid()) for each in answers]
    reload = Reload(works.kernel, _means(works, notifier), log, notifier, told)
    if left is not None and notifier is not None:
        # The program before this one has said so; until the end of the roll this one must not say that all is ready.
        notifier.reloading(works.kernel.now())
        notifier.is_back()
    if broken is not None:
        others = "the workers go on with the code that they run, and nobody is replaced"
        log(ERROR, f"reload failed: {broken}; {others}: mend it and reload again")
        reload.ended_in(broken)
    return reload


def _take_over(works: Works, left: Estate) -> list[Answer]:
    from pyworkers._master import estate

    now = works.kernel.now()
    works.kernel.brood.own.update(left.children | works.parts.begin.children)
    works.kernel.brood.leaders.update(left.leaders)
    estate.restore(works.executor, left.books, now)
    return [] if works.loop.control is None else estate.take_up(works.loop.control, left.lines, now)


def _means(works: Works, notifier: Notifier | None) -> Means:
    begin = works.parts.begin.origin
    answers: list[int] = []

    def check() -> Pid:
        from pyworkers import _succession

        pid, answer = _succession.check(begin, works)
        works.kernel.adopt(pid)
        answers.append(answer)
        return pid

    def become() -> None:
        from pyworkers import _succession

        _succession.become(begin, works, notifier)

    def refusal() -> str | None:
        if works.parts.plan.run.lease is not None:
            return "leases are not handed over to new code: stop the instance and start it"
        if works.parts.readiness.is_waited_for:
            return "somebody waits for the end of the start (--daemon, --notify-fd): try again when all are up"
        return "the instance is stopping" if works.core.phase is Phase.STOPPING else None

    return Means(check, lambda: reexec.answer_of_check(answers.pop()), become, refusal)
