"""The real loop over a fake kernel: order of a turn, translation, endurance, in simulated time."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel
from pyworkers._core.notices import NOTICE_TIMEOUT_S
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Attempt, Exited, FailureRecord, Pid, Pin, Signaled, SlotPlan
from pyworkers._logs import Journal
from pyworkers._master.execute import Crew, Executor
from pyworkers._master.loop import Loop
from pyworkers._posix.cells import Trace
from pyworkers._posix.channel import Told, Word
from pyworkers._sinks import StderrSink


class Stage:
    """A loop with everything around it under the test's control."""

    def __init__(self, pins: int = 2, *, notices: bool = False) -> None:
        self.kernel = FakeKernel()
        self.lines: list[tuple[int, str]] = []
        self.announced: list[bool] = []
        self.told: list[FailureRecord] = []
        crew = Crew(
            worker_main=lambda _pin, _attempt, _previous: lambda: 0,
            assign=lambda _spare, _pin, _attempt, _previous: None,
            release=lambda: None,
            notice_main=self.notice if notices else None,
            handlers={Pin(pin): f"h{pin}" for pin in range(pins)},
            leaders=frozenset(),
            add=lambda _pins: None,
            clear=lambda _pin: None,
            beat=lambda _pin: None,
            trace=lambda _pin: Trace(),
            announce=self.announced.append,
            log=lambda level, line: self.lines.append((level, line)),
        )
        self.executor = Executor(self.kernel, crew)
        core = Supervisor([SlotPlan(Pin(pin)) for pin in range(pins)], jitter=lambda delay_s: delay_s)
        self.journal = Journal(StderrSink("test"))
        self.loop = Loop(core, self.kernel, self.executor, self.journal)

    def notice(self, record: FailureRecord):
        self.told.append(record)
        return lambda: 0

    def says(self, pid: Pid, word: Word, number: int = 0) -> None:
        """Let a worker say something."""
        self.kernel.tell(Told(*self.executor._by_pid[pid], word, number))

    def run(self, *scripts) -> int:
        """Run to the end; each script is one thing that happens."""
        self.kernel.scripts = list(scripts)
        try:
            return self.loop.run()
        finally:
            self.journal.close()

    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def newest(self) -> Pid:
        return max(self.kernel.live)

    def end_all(self, code: int = 0) -> None:
        for pid in sorted(self.kernel.live):
            self.kernel.end(pid, Exited(code))


def test_normal_ends_end_the_loop_with_zero() -> None:
    """Two workers, two normal ends, no third fork."""
    stage = Stage()

    assert stage.run(stage.end_all) == 0
    assert stage.text().count("worker started") == 2
    assert stage.lines[-1] == (logging.INFO, "all workers finished; master exits")


def test_idle_loop_waits_without_a_timeout() -> None:
    """No tick: with every worker up the wait has no end of its own."""
    stage = Stage()
    stage.run(stage.end_all)

    assert stage.kernel.timeouts[-1] is None


def test_failed_fork_is_waited_for_and_tried_again() -> None:
    """EAGAIN is reported with the time of the next try, which happens then."""
    stage = Stage(pins=1)
    stage.kernel.fail_forks = 3

    assert stage.run(stage.end_all) == 0
    tries = [line for level, line in stage.lines if level == logging.ERROR]
    assert [line.rpartition(" in ")[2] for line in tries] == ["0.1s", "0.2s", "0.4s"]
    assert all(line.startswith("cannot fork h0 pin=0: Resource temporarily unavailable") for line in tries)
    assert stage.kernel.time == pytest.approx(1000.7)


def test_stop_that_arrives_with_a_death_respawns_nobody() -> None:
    """Both in one wake-up: the stop is seen before the respawn is carried out."""
    stage = Stage(pins=1)

    def both() -> None:
        stage.kernel.end(stage.newest(), Signaled(signal.SIGKILL))
        stage.kernel.signal(signal.SIGTERM)

    assert stage.run(both) == 0
    assert stage.text().count("worker started") == 1


def test_exit_at_the_edge_of_its_time_is_not_killed() -> None:
    """Exits are fed before deadlines: who left in time is not sent a KILL."""
    stage = Stage(pins=1)

    def leave_late() -> None:
        stage.kernel.time = 1000.0 + 100
        stage.kernel.end(stage.newest(), Exited(143))

    pids: list[Pid] = []

    def stop() -> None:
        pids.append(stage.newest())
        stage.kernel.signal(signal.SIGTERM)

    assert stage.run(stop, leave_late) == 0
    assert stage.kernel.signals[pids[0]] == [signal.SIGTERM]


def test_ladder_is_climbed_in_simulated_time() -> None:
    """TERM now and to stragglers, QUIT at 6.4 s, KILL at 8 s, and code 1."""
    stage = Stage(pins=1)

    assert stage.run(lambda: stage.kernel.signal(signal.SIGTERM)) == 1
    (sent,) = stage.kernel.signals.values()
    assert sent == [signal.SIGTERM] * 5 + [signal.SIGQUIT] * 4 + [signal.SIGKILL]
    assert stage.kernel.time == pytest.approx(1008.0)


def test_record_of_a_worker_that_has_ended_is_heard_before_its_end() -> None:
    """stop_all, then exit: the instance stops, and with the code."""
    stage = Stage()

    def last_words() -> None:
        pid = stage.newest()
        stage.says(pid, Word.STOP_ALL, 9)
        stage.kernel.end(pid, Exited(1))

    assert stage.run(last_words, stage.end_all) == 9
    assert stage.text().count("worker started") == 2


def test_record_of_a_stranger_is_ignored() -> None:
    """Noise, and a word of who sat there before, stop nothing in the name of who sits there now."""
    stage = Stage(pins=1)

    assert stage.run(lambda: stage.kernel.tell(Told(Pin(0), Attempt(2), Word.STOP_ALL, 9)), stage.end_all) == 0


def test_announcement_comes_once_all_are_up() -> None:
    """Whoever waits for the start is told once."""
    stage = Stage()

    def up() -> None:
        for pid in sorted(stage.kernel.live):
            stage.says(pid, Word.UP)

    stage.run(up, stage.end_all)
    assert stage.announced == [True]


def test_usr1_goes_to_every_live_worker() -> None:
    """The user's own signals are passed on."""
    stage = Stage()
    stage.run(lambda: stage.kernel.signal(signal.SIGUSR1), stage.end_all)

    assert list(stage.kernel.signals.values()) == [[signal.SIGUSR1]] * 2


def test_failures_are_told_one_at_a_time_and_a_hanging_one_is_killed() -> None:
    """on_failure runs in a child of its own; after its time it is killed, and the next one is told."""
    stage = Stage(pins=1, notices=True)
    worker: list[Pid] = []

    def crash() -> None:
        worker.append(stage.newest())
        stage.kernel.end(worker[0], Exited(41))

    def jump() -> None:
        stage.kernel.time += NOTICE_TIMEOUT_S

    assert stage.run(crash, jump, stage.end_all) == 0
    assert stage.told[0] == FailureRecord(0, worker[0], "h0", "exit=41", 0.0, 1)
    assert "on_failure has not returned in time" in stage.text()


def test_failures_that_nobody_was_told_of_are_counted() -> None:
    """A stop does not wait for a queue of notices; the log says how many came to nothing."""
    stage = Stage(pins=3, notices=True)

    def crash_all() -> None:
        for pid in sorted(stage.kernel.live):
            stage.kernel.end(pid, Exited(1))

    def stop() -> None:
        stage.kernel.signal(signal.SIGTERM)

    def leave() -> None:
        for pid in [pid for pid, sent in stage.kernel.signals.items() if sent and pid in stage.kernel.live]:
            stage.kernel.end(pid, Exited(143))

    def jump() -> None:
        stage.kernel.time += NOTICE_TIMEOUT_S

    assert stage.run(crash_all, stop, leave, jump) == 0
    assert len(stage.told) == 1
    assert "on_failure was not told of all failures count=2" in stage.text()
