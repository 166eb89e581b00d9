"""The decision machine on a stage: a clock that only tests move, and a world that answers as it was told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyworkers._core import messages as m
from pyworkers._core.messages import StopKind
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import FIRST_SPARE, Attempt, ExitStatus, Pin, Restart, SlotPlan

GRACEFUL = m.StopRequested(StopKind.GRACEFUL, "SIGTERM")
QUICK = m.StopRequested(StopKind.QUICK, "SIGQUIT")
KILL = m.StopRequested(StopKind.KILL, "test")
INTERRUPT = m.InterruptRequested("SIGINT")

START = 1000.0
"""When the clock of every stage starts."""


def spare_plan(number: int = 0, **options: Any) -> SlotPlan:
    """Return the plan of a spare: whatever ends it, another one follows."""
    pin = Pin(FIRST_SPARE + number)
    return SlotPlan(pin, normal_exit_codes=frozenset(), restart=Restart.ALWAYS, **options)


class Stage:
    """A supervisor, its clock, and a kernel in which every fork works unless told otherwise.

    Attributes:
        forks_fail: Whether forks fail from now on.
        beats: What a look finds, for each PIN; nothing where there is none.
        sizes: What a measurement finds, for each PIN; nothing where there is none.
    """

    def __init__(
        self,
        *plans: SlotPlan,
        jitter: Callable[[float], float] = lambda delay_s: delay_s,
        catch_all: SlotPlan | None = None,
        cut_codes: tuple[int, int] = (0, 0),
    ) -> None:
        self.core = Supervisor(plans or [SlotPlan(Pin(0))], jitter, catch_all, cut_codes)
        self.now = START
        self.history: list[tuple[float, m.Effect]] = []
        self.forks_fail = False
        self.beats: dict[int, float] = {}
        self.sizes: dict[int, int] = {}

    def feed(self, event: m.Event) -> list[m.Effect]:
        """Feed an event, give the world's answers, and return all effects in order."""
        effects: list[m.Effect] = []
        for effect in self.core.handle(event, self.now):
            effects.append(effect)
            self.history.append((self.now, effect))
            answer = self._answer(effect)
            if answer is not None:
                effects += self.feed(answer)
        return effects

    def _answer(self, effect: m.Effect) -> m.Event | None:
        match effect:
            case m.Spawn(pin, attempt) if self.forks_fail:
                return m.SpawnFailed(pin, attempt, "no memory")
            case m.Spawn(pin, attempt) | m.Assign(pin, attempt):
                return m.Spawned(pin, attempt)
            case m.Look(pin, attempt):
                return m.Looked(pin, attempt, self.beats.get(pin))
            case m.Measure(pin, attempt):
                return m.Measured(pin, attempt, self.sizes.get(pin))
            case _:
                return None

    def tick(self) -> list[m.Effect]:
        """Do what is due now."""
        return self.feed(m.DeadlineReached())

    def at(self, seconds: float) -> list[m.Effect]:
        """Set the clock to an instant since the start, without a stop on the way, and do what is due then."""
        self.now = START + seconds
        return self.tick()

    def advance(self, seconds: float) -> list[m.Effect]:
        """Move the clock, meeting every deadline on the way at its instant, and return the effects."""
        end, effects = self.now + seconds, []
        while (at := self.core.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            effects += self.tick()
        self.now = end
        return effects

    def start(self, *, up: bool = True) -> list[m.Effect]:
        """Start the instance and let every worker come up."""
        effects = self.feed(m.StartRequested()) + self.advance(0.0)
        for pin in self.core.snapshot() if up else ():
            effects += self.up(pin)
        return effects

    def up(self, pin: int = 0) -> list[m.Effect]:
        """Let the process of a PIN come up."""
        return self.feed(m.WorkerUp(Pin(pin), self.attempt(pin)))

    def exit(self, status: ExitStatus, pin: int = 0) -> list[m.Effect]:
        """Let the process of a PIN end."""
        return self.feed(m.WorkerExited(Pin(pin), self.attempt(pin), status))

    def suspend(self, pin: int = 0) -> list[m.Effect]:
        """Let the process of a PIN be stopped by a signal."""
        return self.feed(m.WorkerSuspended(Pin(pin), self.attempt(pin)))

    def resume(self, pin: int = 0) -> list[m.Effect]:
        """Let the process of a PIN go on."""
        return self.feed(m.WorkerResumed(Pin(pin), self.attempt(pin)))

    def state(self, pin: int = 0) -> Any:
        return self.core.snapshot()[Pin(pin)]

    def attempt(self, pin: int = 0) -> Attempt:
        return self.state(pin).attempt

    @property
    def wakes_in(self) -> float | None:
        """When the machine wants to be called again, since the start."""
        at = self.core.next_deadline()
        return None if at is None else round(at - START, 9)


def only(effects: list[m.Effect], *kinds: type) -> list[Any]:
    """Return the effects of these kinds."""
    return [effect for effect in effects if isinstance(effect, kinds)]


def acts(stage: Stage, pin: int = 0) -> list[tuple[float, str]]:
    """Return the rungs climbed for a PIN, with their instants since the start."""
    return [
        (round(at - START, 6), effect.action.value)
        for at, effect in stage.history
        if isinstance(effect, m.Act) and effect.pin == pin
    ]
