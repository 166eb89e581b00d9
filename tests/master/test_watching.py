"""The master looks after its workers, over a fake kernel in simulated time: hangs, memory, suspension, OOM kills."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel
from pyworkers._core import policy
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.types import Attempt, Exited, FailureRecord, Pid, Pin, Previous, Signaled, SlotPlan
from pyworkers._logs import Journal
from pyworkers._master.execute import Crew, Executor
from pyworkers._master.loop import Loop
from pyworkers._posix.cells import Trace
from pyworkers._posix.channel import Told, Word
from pyworkers._posix.signals import DUMP, PROBE
from pyworkers._sinks import StderrSink

H = 10.0


class Stage:
    """A loop whose workers' beats, memory and stacks are the test's."""

    def __init__(self, *plans: SlotPlan) -> None:
        self.kernel = FakeKernel()
        self.lines: list[str] = []
        self.beats: dict[Pin, float] = {}
        self.previous: list[Previous | None] = []
        self.told: list[FailureRecord] = []
        crew = Crew(
            worker_main=self.worker_main,
            assign=lambda _spare, _pin, _attempt, _previous: None,
            release=lambda: None,
            notice_main=self.notice_main,
            handlers={plan.pin: "work" for plan in plans},
            leaders=frozenset({plans[0].pin}),
            add=lambda _pins: None,
            clear=lambda pin: self.beats.pop(pin, None),
            trace=lambda _pin: Trace(unit="page 7"),
            beat=self.beats.get,
            announce=lambda _up: None,
            log=lambda _level, line: self.lines.append(line),
        )
        core = Supervisor(plans, jitter=lambda delay_s: delay_s)
        self.journal = Journal(StderrSink("test"))
        self.executor = Executor(self.kernel, crew)
        self.loop = Loop(core, self.kernel, self.executor, self.journal)

    def worker_main(self, _pin: Pin, _attempt: Attempt, previous: Previous | None):
        self.previous.append(previous)
        return lambda: 0

    def notice_main(self, record: FailureRecord):
        self.told.append(record)
        return lambda: 0

    def run(self, *scripts) -> int:
        """Run to the end; each script is one thing that happens while there is a worker."""
        self.kernel.scripts = list(scripts)
        try:
            return self.loop.run()
        finally:
            self.journal.close()

    def says(self, pid: Pid, word: Word, number: int = 0) -> None:
        """Let a worker say something."""
        self.kernel.tell(Told(*self.executor._by_pid[pid], word, number))

    def newest(self) -> Pid:
        return max(self.kernel.live)

    def up(self) -> None:
        for pid in sorted(self.kernel.live):
            self.says(pid, Word.UP)

    def beat(self) -> None:
        for pin in range(9):
            self.beats[Pin(pin)] = self.kernel.time

    def pass_time(self) -> None:
        """Nothing happens until the next deadline."""

    def end_all(self, code: int = 0) -> None:
        for pid in sorted(self.kernel.live):
            self.kernel.end(pid, Exited(code))

    def signals(self, pid: Pid) -> list[int]:
        return self.kernel.signals[pid]


def test_hung_worker_is_probed_dumped_interrupted_and_replaced() -> None:
    """The way of a hang through the shell: probe, dump, its stacks in the log, QUIT, and what the next one is told."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=H))

    def hang_ends() -> None:
        assert stage.signals(Pid(101)) == [PROBE, DUMP]
        stage.kernel.dump(b'Thread 0x1\n  File "shop.py", line 3 in work\n')

    def interrupted() -> None:
        assert stage.signals(Pid(101)) == [PROBE, DUMP, signal.SIGQUIT]
        stage.kernel.end(Pid(101), Exited(131))

    assert (
        stage.run(
            stage.up,
            stage.beat,  # then half of hang_timeout passes: the look that probes
            stage.pass_time,  # half of it again: nothing yet
            stage.pass_time,  # all of it
            hang_ends,
            stage.pass_time,  # the pipe is quiet
            interrupted,
            stage.end_all,
            stage.end_all,
        )
        == 0
    )
    log = "\n".join(stage.lines)
    assert 'stack work pin=0 pid=101:   File "shop.py", line 3 in work' in log
    assert "worker ended work pin=0 pid=101 exit=131 cause=hang" in log
    assert stage.previous == [None, Previous("hang", 1, "page 7")]
    assert [record.cause for record in stage.told] == ["hang"]


def test_suspended_worker_is_no_hang() -> None:
    """What the kernel tells of a stop and a continuation reaches the core and the log."""
    stage = Stage(SlotPlan(Pin(0), hang_timeout=H))

    def suspend() -> None:
        stage.kernel.suspend(Pid(101), suspended=True)
        stage.kernel.suspend(Pid(999), suspended=True)

    def resume() -> None:
        stage.kernel.time += 100 * H
        stage.kernel.suspend(Pid(101), suspended=False)

    assert stage.run(stage.up, stage.beat, stage.pass_time, suspend, resume, stage.pass_time, stage.end_all) == 0
    log = "\n".join(stage.lines)
    assert "worker suspended work pin=0 pid=101; it keeps its PIN" in log
    assert "worker resumed work pin=0 pid=101" in log
    assert "hung" not in log


def test_large_worker_is_recycled() -> None:
    """Its private memory is taken when it is due, and beyond max_rss it is asked to leave; that is no failure."""
    stage = Stage(SlotPlan(Pin(0), max_rss=5 << 20))
    stage.kernel.memory = {Pid(101): 6 << 20}

    def leave() -> None:
        assert stage.signals(Pid(101)) == [signal.SIGTERM]
        stage.kernel.end(Pid(101), Exited(143))

    begun = stage.kernel.time
    assert stage.run(stage.up, stage.pass_time, leave, stage.end_all) == 0
    assert stage.kernel.time >= begun + policy.MEASURE_INTERVAL_S
    assert "worker recycled work pin=0 pid=101 max_rss reached=6.0M; asking it to leave" in stage.lines
    assert stage.told == []
    assert stage.previous[1] == Previous("exit=143", 1, "page 7")


def test_oom_kills_are_laid_to_as_many_ends_as_there_were() -> None:
    """Two SIGKILLs in one wake-up and one OOM kill: one of the two is told as that, and a later one is not."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(2)))

    def kill_both() -> None:
        stage.kernel.oom_kill_count = 1
        for pid in sorted(stage.kernel.live):
            stage.kernel.end(pid, Signaled(signal.SIGKILL))

    def kill_newest() -> None:
        stage.kernel.end(stage.newest(), Signaled(signal.SIGKILL))

    def end(code: int) -> None:
        stage.kernel.end(stage.newest(), Exited(code))

    stage.run(stage.up, kill_both, lambda: end(0), lambda: end(0), kill_newest, stage.end_all, stage.end_all)

    assert [record.cause for record in stage.told][:2] == ["oom-kill", "signal=SIGKILL"]
    assert sum("cause=oom-kill" in line for line in stage.lines) == 1


def test_oom_kill_may_be_reaped_a_little_later_and_not_much_later() -> None:
    """A large process takes a while to end; after two seconds its victim was nobody of ours."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(3)))
    killed = Signaled(signal.SIGKILL)

    def strike() -> None:
        stage.kernel.oom_kill_count = 3
        stage.kernel.end(Pid(101), killed)

    def reap_another() -> None:
        stage.kernel.time += 1.9
        stage.kernel.end(Pid(102), killed)

    def reap_too_late() -> None:
        stage.kernel.time += 0.2
        stage.kernel.end(Pid(103), killed)

    stage.run(stage.up, strike, reap_another, reap_too_late, stage.end_all, stage.end_all, stage.end_all)

    assert [record.cause for record in stage.told] == ["oom-kill", "oom-kill", "signal=SIGKILL"]


def test_kill_of_ours_is_no_oom_kill() -> None:
    """Who was killed for not leaving in time was not killed for memory, whatever happened beside it."""
    stage = Stage(SlotPlan(Pin(0), max_runtime=100.0, stop_timeout=1.0))

    def strike() -> None:
        stage.kernel.oom_kill_count = 1

    # Asked by TERM, interrupted, and then killed, each with its repetitions; the kernel of the test ends it then.
    stage.run(stage.up, strike, *[stage.pass_time] * 8, stage.end_all)

    assert signal.SIGKILL in stage.signals(Pid(101))
    assert stage.previous[1] == Previous("signal=SIGKILL", 1, "page 7")


def test_leaders_of_groups_are_forked_as_such() -> None:
    """The kernel is told whose process group is to end with it; the process that tells failures leads none."""
    stage = Stage(*(SlotPlan(Pin(pin)) for pin in range(2)))

    stage.run(stage.up, lambda: stage.kernel.end(Pid(102), Exited(1)), *[stage.end_all] * 3)

    assert stage.kernel.leaders == {Pid(101)}
