"""Throws the dice: long random histories of many instances, each from its start to its end, all from one seed.

Whatever happens is drawn from `random.Random`, so the same seed and the same core give the same history.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyworkers._core.messages import StopKind
from pyworkers._core.records import replace
from pyworkers._core.types import Attempt, ExitStatus, Pin, Restart, SlotPlan
from sim.ledger import Step
from sim.worker import Worker
from sim.world import ABNORMAL, NORMAL, PERMANENT, World, plan_of, spare_plans

SIDES_S = (0.0, 0.0, 0.0, 0.0, 0.0, -0.001, 0.001, 0.1, 0.9, 1.0, 5.0)
PAUSES_S = (0.0, 0.01, 0.1, 0.3, 1.0, 2.5)
FROZEN_S = (0.5, 0.9, 1.5, 12.0, 600.0)
PACES_S = (0.01, 0.15, 0.38, 1.9, 9.5)

WIDE_EVERY = 100
"""One instance in so many has more PINs than deadlines are met in one go."""

CATCH_ALL = 2
"""The handler that can be scaled, where there is such a one."""

LONG_EVERY = 50
"""One instance in so many has limits that nobody reaches, and lives for thousands of events."""


class Violation(Exception):  # noqa: N818  (it is the core's error, not ours)
    """A history in which something did not hold; its text is all that it takes to see why.

    Attributes:
        event_number: Which event of the instance it was.
    """

    def __init__(self, seed: int, instance: int, world: World, error: Exception) -> None:
        self.event_number = world.event_count
        plans = "\n".join(f"  {seat.plan}" for seat in world.seats.values())
        steps = "\n".join(map(_shown, world.trace))
        where = traceback.format_tb(error.__traceback__)[-1].rstrip()
        super().__init__(
            f"violation: {type(error).__name__}: {error}\n{where}\n{plans}\n{steps}\n"
            f"seed {seed}, instance {instance}, event {world.event_count};"
            f" again: python -m sim --seed {seed} --instance {instance}"
        )


def _shown(step: Step) -> str:
    number, now, event, effects = step
    return "\n".join([f"{number:6} {now:12.6f} {event}", *(f"{'':21}-> {effect}" for effect in effects)])


@dataclass(frozen=True, slots=True)
class Nature:
    """What kind of life an instance has: how many events it has before it is stopped, and how its workers end."""

    peace: int
    abnormal: int
    normal: int
    permanent: int


def histories(seed: int, first: int = 0) -> Iterator[Counter[str]]:
    """Run one instance after the other, and yield what has happened in each; `events` counts its events.

    Raises:
        Violation: Something did not hold.
    """
    instance = first
    while True:
        dice = random.Random(f"{seed}/{instance}")
        chaos = Chaos(dice, instance)
        try:
            chaos.run()
        except Exception as error:
            raise Violation(seed, instance, chaos.world, error) from error
        chaos.world.counts["events"] = chaos.world.event_count
        chaos.world.counts["instances"] = 1
        yield chaos.world.counts
        instance += 1


def share(seed: int, events: int, first: int) -> tuple[Counter[str], str | None]:
    """Run instances until there were that many events; return what has happened, and the violation, if there was one."""
    counts: Counter[str] = Counter()
    try:
        for happened in histories(seed, first):
            counts += happened
            if counts["events"] >= events:
                break
    except Violation as violation:
        counts["events"] += violation.event_number
        return counts, str(violation)
    return counts, None


class Chaos:
    """One instance and its bad luck."""

    def __init__(self, dice: random.Random, instance: int) -> None:
        self.dice = dice
        if instance % WIDE_EVERY == 5:
            plans, self.nature = self._plans(dice.randint(70, 150)), Nature(600, 20, 1, 1)
        elif instance % LONG_EVERY == 15:
            plans, self.nature = self._plans(dice.randint(3, 8), endless=True), Nature(3000, 1, 0, 0)
        else:
            plans = self._plans(dice.randint(1, 6), endless=dice.random() < 0.3)
            self.nature = Nature(dice.choice((10, 60, 150, 300)), 20, dice.choice((1, 6)), dice.choice((0, 1, 4)))
        catch_all = None
        if dice.random() < 0.6:
            catch_all = replace(self._plan(0, dice.choice((None, None, "all")), endless=False), handler=CATCH_ALL)
            free = [pin for pin in range(200) if pin not in {plan.pin for plan in plans}]
            plans += [replace(catch_all, pin=Pin(pin)) for pin in dice.sample(free, dice.choice((1, 1, 2, 3)))]
        self.world = World(plans, dice.choice((0.5, 0.75, 1.0)), catch_all)
        self.world.on_fork = self._cast
        self.statuses = [status for status, weight in self._weights() for _ in range(weight)]

    def _weights(self) -> list[tuple[ExitStatus, int]]:
        nature = self.nature
        return [
            *((status, nature.abnormal) for status in ABNORMAL),
            *((status, nature.normal) for status in NORMAL),
            *((status, nature.permanent) for status in PERMANENT),
        ]

    def _plans(self, pin_count: int, *, endless: bool = False) -> list[SlotPlan]:
        dice = self.dice
        pins = dice.sample(range(200), pin_count)
        plans: list[SlotPlan] = []
        while len(plans) < pin_count:
            size = min(dice.choice((1, 1, 1, 2, 3, 4)), pin_count - len(plans))
            group = f"g{len(plans)}" if dice.random() < 0.8 and size > 1 else None
            for _ in range(size):
                plans.append(self._plan(pins[len(plans)], group, endless=endless))
        return plans + self._spares(sorted({plan.handler for plan in plans}), pin_count)

    def _spares(self, handlers: list[int], pin_count: int) -> list[SlotPlan]:
        dice = self.dice
        if dice.random() < 0.4:
            return []
        most = max(2, pin_count // 10)
        wanted = [handler for handler in handlers for _ in range(dice.randint(0, most))]
        return spare_plans(wanted, dice.choice)

    def _plan(self, pin: int, group: str | None, *, endless: bool) -> SlotPlan:
        while True:
            plan = plan_of(pin, self.dice.choice, group)
            # Without limits nobody is given up, and the instance lives for long.
            if not endless or (plan.max_restarts is None and plan.restart is not Restart.NEVER):
                return plan

    def _cast(self, worker: Worker) -> None:
        worker.memory = self.dice.choice((0, 0, 1000, 1001))

    def run(self) -> None:
        """Live through the instance, from the start to the end."""
        world, dice = self.world, self.dice
        if dice.random() < 0.5:
            self._moods()
        world.start()
        world.meet()
        while world.finish is None and world.event_count < self.nature.peace:
            self._move()
        if world.finish is None and dice.random() < 0.05 and len(world.seats) < 10:
            world.rest()
        self._end_it()
        for worker in list(world.abandoned):
            world.end(worker, dice.choice(self.statuses))
        self._stop()
        self._stray()
        assert world.finish is not None
        world.counts[f"exit code {world.finish.exit_code}"] += 1

    def _end_it(self) -> None:
        """Stop the instance, once or more; workers that were asked leave, or do not care."""
        world, dice = self.world, self.dice
        obedience = dice.choice((0.0, 0.2, 0.5, 0.9))
        end = world.event_count + dice.choice((0, 10, 50))
        while world.finish is None and world.event_count < end:
            if dice.random() < 0.2:
                self._stop()
            if dice.random() < obedience:
                self._end_of_one_that_leaves()
            else:
                self._move()
        if not world.stops:
            self._stop()
        for worker in world.living():
            if dice.random() < obedience:
                world.end(worker, dice.choice(self.statuses))
        world.rest()

    def _move(self) -> None:
        dice = self.dice
        if dice.random() < 0.2 and any(worker.up_at is None for worker in self.world.living()):
            self._come_up()
            return
        dice.choices(MOVES, cum_weights=WEIGHTS)[0](self)

    # One move each

    def _someone(self, fits: Callable[[Worker], bool] = lambda _worker: True) -> Worker | None:
        """Return a worker that has not ended, and fits; where there is none, let time go on."""
        fitting = [worker for worker in self.world.living() if worker.status is None and fits(worker)]
        if not fitting:
            self._deadline()
            return None
        return self.dice.choice(fitting)

    def _deadline(self) -> None:
        self.world.to_deadline(self.dice.choice(SIDES_S))
        if self.dice.random() < 0.9:
            # The loop's order: exits before deadlines. An end between the two is seen with the next wake only.
            self.world.reap_all()
        if self.dice.random() < 0.95:
            self.world.meet()
        elif (deadline := self.world.core.next_deadline()) is not None and deadline <= self.world.now:
            self.world.meet_some()

    def _pause(self) -> None:
        self.world.pass_time(self.dice.choice(PAUSES_S))

    def _edge(self) -> None:
        if worker := self._someone(lambda worker: bool(self.world.seats[worker.pin].restarts)):
            self.world.to_edge_of_window(self.world.seats[worker.pin], self.dice.choice(SIDES_S))
            self.world.end(worker, self.dice.choice(ABNORMAL))

    def _freeze(self) -> None:
        self.world.freeze(self.dice.choice(FROZEN_S))
        self.world.counts["machine suspended"] += 1
        self.world.meet()

    def _master_late(self) -> None:
        self.world.pass_time(self.dice.choice(FROZEN_S))
        self.world.counts["master suspended"] += 1
        self.world.meet()

    def _come_up(self) -> None:
        # Its word may still be on the way when it is suspended.
        if worker := self._someone(lambda worker: worker.up_at is None):
            self.world.come_up(worker)
            if not worker.suspended and self.dice.random() < 0.7:
                self.world.set_pace(worker, self.dice.choice(PACES_S))

    def _end(self) -> None:
        if worker := self._someone():
            self.world.end(worker, self.dice.choice(self.statuses), reap=self.dice.random() < 0.8)

    def _end_of_one_that_leaves(self) -> None:
        if worker := self._someone(lambda worker: worker.purpose is not None):
            self.world.end(worker, self.dice.choice(self.statuses))

    def _end_of_many(self) -> None:
        for worker in self.world.living():
            if worker.status is None and self.dice.random() < 0.7:
                self.world.end(worker, self.dice.choice(self.statuses), reap=False)
        self.world.reap_all()

    def _beat(self) -> None:
        if worker := self._someone(lambda worker: not worker.suspended):
            self.world.set_pace(worker, self.dice.choice(PACES_S))

    def _fall_silent(self) -> None:
        if worker := self._someone(lambda worker: worker.pace is not None):
            self.world.set_pace(worker, None)
            for _ in range(self.dice.choice((0, 3, 6))):
                self._deadline()

    def _grow(self) -> None:
        if worker := self._someone():
            self.world.grow(worker, self.dice.choice((0, 1000, 1001, 10**9)))

    def _suspend(self) -> None:
        if worker := self._someone():
            self.world.suspend(worker)

    def _resume(self) -> None:
        if worker := self._someone(lambda worker: worker.suspended or self.dice.random() < 0.1):
            # Now and then by the dozen, as from somebody who leans on a key.
            for _ in range(100 if self.dice.random() < 0.03 else 1):
                self.world.resume(worker)

    def _dumped(self) -> None:
        if worker := self._someone(lambda worker: not worker.hung or self.world.dumping(worker)):
            self.world.dumped(worker)

    def _dumped_in_time(self) -> None:
        if worker := self._someone(self.world.dumping):
            self.world.dumped(worker)

    def _moods(self) -> None:
        dice, world = self.dice, self.world
        share = dice.choice((0.0, 0.0, 0.0, 0.0, 0.3, 0.6, 1.0))
        world.fork_fails = lambda: dice.random() < share
        world.blind = dice.random() < 0.2
        world.answers = dice.choice((1, 1, 2))

    def _stop(self) -> None:
        dice, world = self.dice, self.world
        if dice.random() < 0.3:
            world.interrupt()
        else:
            kind = dice.choice((StopKind.GRACEFUL, StopKind.GRACEFUL, StopKind.QUICK, StopKind.KILL))
            world.stop(kind, dice.choice((None, None, None, 0, 254)))

    def _forward(self) -> None:
        self.world.forward(10)

    def _restart(self) -> None:
        dice, world = self.dice, self.world
        pins = [seat.plan.pin for seat in world.wanted()]
        if dice.random() < 0.3 or not pins:
            world.restart(None)
        else:
            wanted = dice.sample(pins, min(len(pins), dice.choice((1, 1, 2, 3))))
            world.restart([*wanted, *([Pin(777)] if dice.random() < 0.1 else [])])

    def _scale(self) -> None:
        if self.dice.random() < 0.5:
            self.world.scale(self.dice.choice((-1, 1)), relative=True)
        else:
            self.world.scale(self.dice.randint(0, 5), relative=False)

    def _stray(self) -> None:
        dice, world = self.dice, self.world
        status = dice.choice(self.statuses)
        if world.gone and dice.random() < 0.8:
            gone = dice.choice(world.gone)
            pin, attempt = gone.pin, gone.attempt
        else:
            pin, attempt = dice.choice([*world.seats, Pin(-1)]), Attempt(10**9)
        world.stray(pin, attempt, dice.randrange(9), status)

    def _again(self) -> None:
        if worker := self._someone():
            self.world.again(worker)

    def _start_again(self) -> None:
        self.world.start()


WEIGHTED: dict[Callable[[Chaos], object], int] = {
    Chaos._deadline: 40,
    Chaos._pause: 10,
    Chaos._edge: 2,
    Chaos._freeze: 1,
    Chaos._master_late: 1,
    Chaos._come_up: 10,
    Chaos._end: 10,
    Chaos._end_of_one_that_leaves: 12,
    Chaos._end_of_many: 1,
    Chaos._beat: 3,
    Chaos._fall_silent: 6,
    Chaos._grow: 2,
    Chaos._suspend: 2,
    Chaos._resume: 4,
    Chaos._dumped: 1,
    Chaos._dumped_in_time: 6,
    Chaos._moods: 3,
    Chaos._restart: 2,
    Chaos._scale: 2,
    Chaos._forward: 1,
    Chaos._stray: 3,
    Chaos._again: 1,
    Chaos._start_again: 1,
}
MOVES = list(WEIGHTED)
WEIGHTS = [sum(list(WEIGHTED.values())[: place + 1]) for place in range(len(WEIGHTED))]
