"""A master that wakes up much too late: its deadlines of an hour are due at once, and that proves nothing.

Its clock stands still while the machine sleeps. It does not while only the master is suspended (SIGSTOP, a debugger,
the freezer of a container), and then jumps, as far as the core can see.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel
from pyworkers._core.supervisor import DEADLINES_PER_WAKE, Supervisor
from pyworkers._core.types import Exited, Pid, Pin, SlotPlan
from pyworkers._logs import Journal
from pyworkers._master.execute import Crew, Executor
from pyworkers._master.loop import Loop
from pyworkers._posix.cells import Trace
from pyworkers._posix.channel import Channel, Told, Word
from pyworkers._posix.kernel import PosixKernel
from pyworkers._posix.signals import PROBE, MasterSignals
from pyworkers._sinks import StderrSink

HOUR_S = 3600.0


class Stage:
    """A loop in simulated time; each script of `run` is what happens while it waits."""

    def __init__(self, *plans: SlotPlan) -> None:
        self.kernel = FakeKernel()
        self.lines: list[str] = []
        self.beat_at: float | None = None
        crew = Crew(
            worker_main=lambda _pin, _attempt, _previous: lambda: 0,
            assign=lambda _spare, _pin, _attempt, _previous: None,
            release=lambda: None,
            notice_main=None,
            handlers={plan.pin: "work" for plan in plans},
            leaders=frozenset(),
            add=lambda _pins: None,
            clear=lambda _pin: None,
            trace=lambda _pin: Trace(),
            beat=lambda _pin: self.beat_at,
            announce=lambda _up: None,
            log=lambda _level, line: self.lines.append(line),
        )
        core = Supervisor(plans, jitter=lambda delay_s: delay_s)
        self.journal = Journal(StderrSink("test"))
        self.executor = Executor(self.kernel, crew)
        self.loop = Loop(core, self.kernel, self.executor, self.journal)

    def run(self, *scripts: Callable[[], None]) -> int:
        self.kernel.scripts = list(scripts)
        try:
            return self.loop.run()
        finally:
            self.journal.close()

    def says(self, pid: Pid, word: Word, number: int = 0) -> None:
        """Let a worker say something."""
        self.kernel.tell(Told(*self.executor._by_pid[pid], word, number))

    def live(self) -> list[Pid]:
        return sorted(self.kernel.live)

    def up(self) -> None:
        """All say that they are up, and have passed a checkpoint."""
        for pid in self.live():
            self.says(pid, Word.UP)
        self.beat_at = self.kernel.time

    def beat(self) -> None:
        """All pass a checkpoint."""
        self.beat_at = self.kernel.time

    def sleep(self) -> None:
        """The master is suspended for an hour."""
        self.kernel.time += HOUR_S

    def pass_time(self) -> None:
        """Nothing happens until the next deadline."""

    def end_all(self) -> None:
        for pid in self.live():
            self.kernel.end(pid, Exited(0))

    def count(self, words: str) -> int:
        return sum(words in line for line in self.lines)

    def sent(self, signum: int) -> list[Pid]:
        """Return who has got the signal and lives."""
        return [pid for pid in self.live() if signum in self.kernel.signals[pid]]


@pytest.mark.parametrize("asked", [False, True], ids=["before the probe", "after the probe"])
def test_late_master_calls_nobody_hung(*, asked: bool) -> None:
    """G6: a probe whose answer nobody has looked for in an hour is asked again; what then stays silent is hung."""
    stage = Stage(*(SlotPlan(Pin(pin), hang_timeout=10) for pin in range(3)))
    probes: list[int] = []

    def look() -> None:
        assert stage.count("hung") == 0
        probes.append(stage.kernel.signals[stage.live()[0]].count(PROBE))

    # At half of hang_timeout comes the look that probes; then the master sleeps, and looks at once.
    before = [stage.pass_time, look] if asked else []
    stage.run(
        *(stage.up, *before, stage.sleep, look, stage.beat, look),
        *(stage.pass_time, stage.pass_time, stage.pass_time, stage.pass_time, stage.end_all),
    )

    assert probes == ([1, 2, 3] if asked else [1, 2])
    assert stage.count("worker hung work") == 3


def test_late_master_recycles_one_pin_of_a_handler_at_a_time() -> None:
    """G6: four PINs whose max_runtime has long passed are asked one after the other, two handlers side by side."""
    stage = Stage(*(SlotPlan(Pin(pin), max_runtime=100, handler=pin // 4) for pin in range(8)))
    asked: list[int] = []

    def leave() -> None:
        asked.append(len(stage.sent(signal.SIGTERM)))
        for pid in stage.sent(signal.SIGTERM):
            stage.kernel.end(pid, Exited(143))

    def come_up() -> None:
        for pid in stage.live()[-2:]:
            stage.says(pid, Word.UP)

    stage.run(stage.up, stage.sleep, *[leave, come_up] * 4, stage.end_all)

    assert asked == [2, 2, 2, 2]
    assert stage.count("worker recycled") == 8


def test_late_master_respawns_at_once_all_that_is_due() -> None:
    """G6: backoffs that ended in the meantime are not waited for again, however many they are."""
    count = 2 * DEADLINES_PER_WAKE + 1
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(count + 1)))
    woken_at: list[float] = []

    def crash() -> None:
        for pid in stage.live()[1:]:
            stage.kernel.end(pid, Exited(1))

    def sleep() -> None:
        stage.sleep()
        woken_at.append(stage.kernel.time)

    def end() -> None:
        assert len(stage.live()) == count + 1
        # What the fake adds is the timeout that was asked for before the sleep: the rest of a backoff.
        assert stage.kernel.time == pytest.approx(woken_at[0] + 0.1)
        stage.end_all()

    stage.run(stage.up, crash, crash, sleep, end)

    assert stage.count("respawning in 0.1s") == count
    assert stage.count("worker started") == 3 * count + 1


def test_stop_after_a_long_sleep_is_as_gentle_as_any() -> None:
    """G6: what was due before the stop does not shorten its ladder: TERM first."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=10, max_runtime=100))

    def sleep_and_stop() -> None:
        stage.sleep()
        stage.kernel.signal(signal.SIGTERM)

    def leave() -> None:
        assert [signum for signum in stage.kernel.signals[Pid(101)] if signum != PROBE] == [signal.SIGTERM]
        stage.kernel.end(Pid(101), Exited(143))

    assert stage.run(stage.up, sleep_and_stop, leave) == 0


def test_clock_of_the_master_is_the_one_that_stands_still() -> None:
    """time(7), CLOCK_MONOTONIC: neither jumps of the wall clock nor the machine's sleep are in it."""
    channel = Channel()
    with MasterSignals() as trapped:
        kernel = PosixKernel(trapped, channel, None)

        before, now, after = (
            time.clock_gettime(time.CLOCK_MONOTONIC),
            kernel.now(),
            time.clock_gettime(time.CLOCK_MONOTONIC),
        )
    channel.close()

    assert before <= now <= after
