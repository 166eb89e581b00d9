"""Runs an app's policies over simulated time: the core that the master has, its clock, and workers that are a script.

Nothing is forked, nothing sleeps, and the same script gives the same timeline. Where the master's loop would wait,
time jumps to whatever is next.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat, tee
from signal import SIGKILL

from pyworkers._core import messages as m
from pyworkers._core.records import replace
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Action, Attempt, Exited, ExitStatus, Pin, Signaled, is_spare, shown
from pyworkers._master.reports import cause
from pyworkers._plan import Plan, plan
from pyworkers.app import App, declaration_of
from pyworkers.errors import ExitCode, UsageError
from pyworkers.testing._timeline import Life, SimulatedAttempt, Timeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ATTEMPTS_MAX = 100_000
"""More than that in one simulation is a mistake, such as a crash loop without any backoff."""


def _exactly(delay: float) -> float:
    return delay


def simulate(
    app: App,
    script: Mapping[Any, Life | Iterable[Life]],
    *,
    seconds: float = 3600.0,
    stop_after: float | None = None,
    jitter: Callable[[float], float] = _exactly,
) -> Timeline:
    """Run the app's policies over simulated time, in no time, and return what happened when.

    The options are those that the app has declared, with the PYWORKERS_ variables. Memory is not simulated, so that
    nothing reaches `max_rss`; spares take the places of workers, and are not shown.

    Args:
        app: What is run. None of its functions is called.
        script: How the attempts of a PIN, or by its name of each PIN of a handler, go: one `Life` for every attempt, or
            one after the other, and then `Life()`. A PIN's own beats its handler's; a PIN without one runs until it is
            stopped.
        seconds: The longest time to simulate, if the instance does not end before.
        stop_after: When the master gets a TERM; by default never.
        jitter: Turns a delay into the one that is used. By default they are exact; a real master takes at least half.

    Raises:
        UsageError: The app has no such PIN or handler, or there is no end of attempts.
        DeclarationError: The PINs of the handlers do not add up.

    Example:
        >>> app = App("shop", max_restarts=3)
        >>> @app.worker(pins=0)
        ... def sell() -> None: ...
        >>> timeline = simulate(app, {"sell": Life(exit=1, after=0.2)})
        >>> len(timeline.of("sell")), round(timeline.backoff("sell"), 3), timeline.exit_code
        (4, 0.3, 1)
    """
    declaration = declaration_of(app)
    decided = plan(declaration, {})
    names = [spec.name for spec in declaration.handlers]
    world = _World(decided, names, _lives(decided, names, script), jitter)
    world.run(seconds, math.inf if stop_after is None else stop_after)
    return world.timeline()


def _lives(decided: Plan, names: list[str], script: Mapping[Any, Life | Iterable[Life]]) -> dict[Pin, Iterator[Life]]:
    """Return the lives of each PIN: each has an iterator of its own."""
    for key in script:
        if key not in decided.assignment and key not in names:
            known = ", ".join(f"'{name}'" for name in names)
            raise UsageError(f"the script names {shown(key)}, which is no PIN and no handler; the handlers are {known}")
    shared: dict[str, Iterable[Life]] = {}
    lives: dict[Pin, Iterator[Life]] = {}
    for pin, place in decided.assignment.items():
        name = names[place]
        each = script.get(pin, script.get(name, Life()))
        if isinstance(each, Life):
            lives[pin] = repeat(each)
        elif pin in script:
            lives[pin] = iter(each)
        else:
            # Of an iterator each PIN of the handler gets all, also of one that has no end.
            shared[name], lives[pin] = tee(shared.get(name, each))
    return lives


class _Process:
    """A process that has not ended: its life, when it last proved that it reaches its checkpoints, and its end."""

    __slots__ = ("beat_at", "end_at", "life", "started_at", "status")

    def __init__(self, life: Life, now: float) -> None:
        self.life = life
        self.started_at = self.beat_at = now
        self.status = life.status
        self.end_at = math.inf if life.status is None else now + life.after

    def hangs(self, now: float) -> bool:
        return self.life.hang and now >= self.started_at + self.life.after

    def end(self, at: float, status: ExitStatus) -> None:
        """End then, unless it does so before."""
        if at < self.end_at:
            self.end_at, self.status = at, status


class _World:
    """Simulated time, the processes, and what the core says of them."""

    def __init__(
        self, decided: Plan, names: list[str], lives: dict[Pin, Iterator[Life]], jitter: Callable[[float], float]
    ) -> None:
        self._core = Supervisor(decided.slot_plans(), jitter, cut_codes=decided.cut_codes)
        self._now = 0.0
        self._names = {pin: names[place] for pin, place in decided.assignment.items()}
        self._lives = lives
        self._processes: dict[tuple[Pin, Attempt], _Process] = {}
        self._ends: list[tuple[float, Pin, Attempt]] = []
        self._attempts: dict[tuple[Pin, Attempt], SimulatedAttempt] = {}
        self._failed: dict[int, float] = {}
        self._exit_code: int | None = None

    def run(self, seconds: float, stop_at: float) -> None:
        """Go on until the instance has ended, or the time has."""
        self._feed(m.StartRequested())
        while self._exit_code is None:
            deadline = self._core.next_deadline()
            at = min(stop_at, self._ends[0][0] if self._ends else math.inf, math.inf if deadline is None else deadline)
            if at > seconds or at == math.inf:
                # Nothing will ever happen any more: then there is no later instant to name.
                self._now = seconds if seconds < math.inf else self._now
                return
            self._now = max(self._now, at)
            # The order of the master's loop: signals, ends, deadlines.
            if stop_at <= self._now:
                stop_at = math.inf
                self._feed(m.StopRequested(m.StopKind.GRACEFUL, "SIGTERM"))
            self._reap()
            deadline = self._core.next_deadline()
            if deadline is not None and deadline <= self._now:
                self._feed(m.DeadlineReached())

    def timeline(self) -> Timeline:
        """Return what has happened up to now."""
        return Timeline(tuple(self._attempts.values()), self._now, self._exit_code, dict(self._failed))

    def _reap(self) -> None:
        while self._ends and self._ends[0][0] <= self._now:
            _, pin, attempt = heapq.heappop(self._ends)
            # None where an earlier end was found since.
            process = self._processes.pop((pin, attempt), None)
            if process is not None and process.status is not None:
                self._feed(m.WorkerExited(pin, attempt, process.status))

    def _feed(self, event: m.Event) -> None:
        events = deque((event,))
        while events:
            for effect in self._core.handle(events.popleft(), self._now):
                events.extend(self._carry_out(effect))

    def _carry_out(self, effect: m.Effect) -> list[m.Event]:
        match effect:
            case m.Spawn(pin, attempt) | m.Assign(pin, attempt):
                return self._start(pin, attempt)
            case m.Act(pin, attempt, action):
                self._act(pin, attempt, action)
            case m.Finish(exit_code):
                self._exit_code = exit_code
            case m.WorkerEnded():
                self._note_end(effect)
            case m.GroupFailed(pins=pins):
                self._failed.update(dict.fromkeys(pins, self._now))
            case m.Look() | m.Probe() | m.Measure() | m.Dump():
                return self._look_after(effect)
            case _:
                pass
        return []

    def _look_after(self, effect: m.Look | m.Probe | m.Measure | m.Dump) -> list[m.Event]:
        pin, attempt = effect.pin, effect.attempt
        process = self._processes[pin, attempt]
        match effect:
            case m.Look():
                return [m.Looked(pin, attempt, process.beat_at)]
            case m.Probe():
                if not process.hangs(self._now):
                    process.beat_at = self._now
                return []
            case m.Measure():
                return [m.Measured(pin, attempt, None)]
            case m.Dump():
                return [m.Dumped(pin, attempt)]

    def _start(self, pin: Pin, attempt: Attempt) -> list[m.Event]:
        if not is_spare(pin):
            if len(self._attempts) >= ATTEMPTS_MAX:
                raise UsageError(f"{ATTEMPTS_MAX:,} attempts in {self._now} simulated seconds: simulate fewer")
            before = self._attempts.get((pin, Attempt(attempt - 1)))
            if before is not None and before.ended is not None:
                self._attempts[pin, Attempt(before.attempt)] = replace(before, delay=self._now - before.ended)
            self._attempts[pin, attempt] = SimulatedAttempt(self._names[pin], pin, attempt, self._now)
        life = Life() if is_spare(pin) else next(self._lives[pin], Life())
        if not isinstance(life, Life):
            raise UsageError(f"the script of PIN {pin} has {shown(life)} for attempt {attempt}, expected a Life")
        process = _Process(life, self._now)
        self._processes[pin, attempt] = process
        self._await_end(pin, attempt, process)
        return [m.Spawned(pin, attempt), m.WorkerUp(pin, attempt)]

    def _act(self, pin: Pin, attempt: Attempt, action: Action) -> None:
        process = self._processes.get((pin, attempt))
        if process is None:
            return
        leaves_at = self._now + process.life.leaves_after
        if action is Action.KILL:
            process.end(self._now, Signaled(SIGKILL))
        elif leaves_at == math.inf:
            return
        elif action is Action.INTERRUPT:
            process.end(self._now, Exited(ExitCode.INTERRUPTED))
        elif not process.hangs(self._now):
            process.end(leaves_at, Exited(ExitCode.STOPPED))
        self._await_end(pin, attempt, process)

    def _await_end(self, pin: Pin, attempt: Attempt, process: _Process) -> None:
        if process.end_at < math.inf:
            heapq.heappush(self._ends, (process.end_at, pin, attempt))

    def _note_end(self, report: m.WorkerEnded) -> None:
        if is_spare(report.pin):
            return
        key = report.pin, report.attempt
        self._attempts[key] = replace(
            self._attempts[key], ended=self._now, cause=cause(report, oom=False), follows=report.follows.value
        )
        if report.follows is m.Next.FAILED:
            self._failed[report.pin] = self._now
