"""Waits, collects, feeds the core in a fixed order, carries out what it decides, until it says that it is over.

The order of one turn: records of workers, then signals, then exits, then leases, then deadlines, then the control
socket, then the log. Exits before timers, so that a worker that left at the edge of its time is not killed; a stop
before all that follows from an exit, so that nobody is replaced, or told of as failed, who was stopped; what may be
held before what is forked; and nobody's questions before all that. After the first fork nothing but `Finish` ends the
loop.
"""

from __future__ import annotations

import math
from collections import deque

from pyworkers._core import messages as m
from pyworkers._core.supervisor import Supervisor
from pyworkers._logs import Journal
from pyworkers._master.control import Control
from pyworkers._master.execute import Executor
from pyworkers._master.helper import Helper
from pyworkers._master.needs import Kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._master.lease import Keeper
    from pyworkers._master.notify import Notifier

STOP_GRACE_S = 1.0
FINISH_GRACE_S = 10.0
"""How long `on_failure` functions may go on after the last worker: a stop is bounded, a natural end has time."""


class Loop:
    """One master's life, from the first fork to the last reap.

    Attributes:
        control: What serves the control socket, if there is one.
    """

    def __init__(
        self, core: Supervisor, kernel: Kernel, executor: Executor, log: Journal, notifier: Notifier | None = None
    ) -> None:
        self._core = core
        self._kernel = kernel
        self._executor = executor
        self._log = log
        self._notifier = notifier
        self._finish: m.Finish | None = None
        self.control: Control | None = None
        self._helpers: list[Helper] = []
        self._keeper: Keeper | None = None

    def attend(self, control: Control) -> None:
        """From here on serve the control socket, too."""
        self.control = control

    def keep(self, helper: Helper) -> None:
        """From here on keep a process beside the workers, too."""
        self._helpers.append(helper)

    def hold(self, keeper: Keeper) -> None:
        """From here on keep the rows of the PINs, too."""
        self._keeper = keeper

    def rest(self) -> None:
        """Before another program may take the place of this one: end what is beside the workers; it can come again."""
        for helper in self._helpers:
            helper.rest(self._kernel.now())

    def run(self) -> int:
        """Run until no process is left, and return the exit code."""
        self.feed(m.StartRequested())
        while True:
            for event in self._executor.meet_deadline(self._kernel.now()):
                self.feed(event)
            self._executor.speak()
            if self._notifier is not None:
                self._notifier.attend(self._kernel.now())
            reload = self._executor.reload
            if reload is not None and reload.passed and self._finish is None and not self._executor.stacks.busy:
                reload.take_over()
            if self._finish is not None and self._all_said():
                if reload is not None:
                    reload.close()
                return self._finish.exit_code
            for helper in self._helpers:
                helper.attend(self._kernel.now())
            self._turn()

    def _all_said(self) -> bool:
        """Whether everybody was told of the end, or there is no time left for it; what was not said then is logged."""
        idle = self._executor.notices.idle and (self._keeper is None or self._keeper.idle)
        if idle:
            self._executor.report_untold()
            if self._keeper is not None:
                self._keeper.report_unsaid()
        return idle

    def _turn(self) -> None:
        wake = self._kernel.wait(self._timeout(), self._log.sink.waiting())
        if self._log.sink.waiting() is not None:
            self._log.sink.flush()
        events = self._executor.translate(wake)
        if self._keeper is not None:
            events = self._keeper.precede(events)
        for event in events:
            self.feed(event)
        for event in () if self._keeper is None else self._keeper.attend(wake):
            self.feed(event)
        deadline = self._core.next_deadline()
        if deadline is not None and deadline <= self._kernel.now():
            self.feed(m.DeadlineReached())
        if self.control is not None:
            self.control.serve(wake.ready, self._kernel.now())
        for helper in self._helpers:
            for pid, status in wake.ended:
                helper.take_note(pid, status, self._kernel.now())

    def _timeout(self) -> float | None:
        deadlines = [self._core.next_deadline(), self._executor.next_deadline()]
        sides = (self.control, self._notifier, self._keeper, *self._helpers)
        deadlines += [side.next_deadline() for side in sides if side is not None]
        deadline = min((at for at in deadlines if at is not None), default=math.inf)
        return None if deadline == math.inf else max(0.0, deadline - self._kernel.now())

    def feed(self, event: m.Event) -> list[m.Effect]:
        """Let the core decide on an event, carry that out, and go on with what came of it; return the decision.

        All effects first, then their news: whatever the master touches after a fork costs it a page fault, so many
        forks in a row are to have as little as possible between them.
        """
        events = deque((event,))
        decision: list[m.Effect] | None = None
        while events:
            event = events.popleft()
            effects = self._core.handle(event, self._kernel.now())
            decision = effects if decision is None else decision
            if self._notifier is not None:
                for happened in (event, *effects):
                    self._notifier.notice(happened)
            for effect in effects:
                # An isinstance that fails asks for more, each a page fault between two forks.
                if type(effect) is m.Finish:
                    self._finish = effect
                    grace_s = STOP_GRACE_S if effect.stopped else FINISH_GRACE_S
                    self._executor.notices.close(self._kernel.now(), grace_s=grace_s)
                    if self._keeper is not None:
                        self._keeper.leave(grace_s)
                elif (news := self._executor.carry_out(effect)) is not None:
                    events.append(news)
        return decision or []
