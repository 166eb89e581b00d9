"""A process beside the workers: when it is started, started again, told of, and ended."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel
from pyworkers._core.types import Exited, Signaled
from pyworkers._logs import INFO, WARNING
from pyworkers._master.helper import RETRY_S, Helper


class Stage:
    """A helper over a kernel without processes, with what it has logged."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.lines: list[tuple[int, str]] = []
        self.fault: OSError | None = None
        self.helper = Helper(
            "usher", "door=1", self.kernel, lambda: 0, self.prepare, lambda *line: self.lines.append(line)
        )

    def prepare(self) -> None:
        if self.fault is not None:
            raise self.fault

    def turn(self, after_s: float = 0.0) -> None:
        """Let time pass, and the helper attend to its deadline as the loop does."""
        self.kernel.time += after_s
        due = self.helper.next_deadline()
        if due is not None and due <= self.kernel.time:
            self.helper.attend(self.kernel.time)

    def end(self, status: Exited | Signaled) -> None:
        """Let the process end."""
        (pid,) = self.kernel.live
        self.kernel.end(pid, status)
        for ended, how in self.kernel.wait(0.0, None).ended:
            self.helper.take_note(ended, how, self.kernel.time)

    @property
    def is_running(self) -> bool:
        return bool(self.kernel.live)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_it_is_started_at_once_and_has_no_deadline_then(stage: Stage) -> None:
    """Idle costs nothing."""
    stage.turn()

    assert stage.is_running
    assert stage.helper.next_deadline() is None
    assert stage.lines == [(INFO, "usher started door=1 pid=101")]
    stage.turn(1000)
    assert stage.kernel.live == {101}


def test_one_that_lived_is_replaced_at_once(stage: Stage) -> None:
    """It was killed by somebody; one line for the end, one for the start."""
    stage.turn()
    stage.kernel.time += RETRY_S
    stage.end(Signaled(signal.SIGKILL))
    stage.turn()

    assert stage.kernel.live == {102}
    assert stage.lines[1:] == [
        (WARNING, "usher ended door=1 pid=101 signal=SIGKILL after=5.0s; respawning now"),
        (INFO, "usher started door=1 pid=102"),
    ]


def test_one_that_dies_young_waits(stage: Stage) -> None:
    """A crash loop costs next to nothing."""
    stage.turn()
    stage.end(Exited(1))
    assert stage.lines[-1] == (WARNING, "usher ended door=1 pid=101 exit=1 after=0.0s; respawning in 5.0s")

    stage.turn(RETRY_S - 0.1)
    assert not stage.is_running
    stage.turn(0.2)
    assert stage.is_running


def test_reason_that_lasts_is_told_once(stage: Stage) -> None:
    """And another one anew; the same one, too, after it has run in between."""
    busy = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    for fault in (busy, busy, OSError("no such thing"), None):
        stage.fault = fault
        stage.turn(RETRY_S)
    assert [line for _, line in stage.lines] == [
        "usher cannot start door=1: Address already in use; trying again without a word",
        "usher cannot start door=1: no such thing; trying again without a word",
        "usher started door=1 pid=101",
    ]

    stage.fault = busy
    stage.end(Exited(0))
    stage.turn(RETRY_S)
    assert "Address already in use" in stage.lines[-1][1]


def test_failed_fork_is_tried_again(stage: Stage) -> None:
    """As any other reason."""
    stage.kernel.fail_forks = 1
    stage.turn()
    assert not stage.is_running
    stage.turn(RETRY_S)
    assert stage.is_running
    assert len(stage.lines) == 2


def test_end_of_somebody_else_is_none_of_its_business(stage: Stage) -> None:
    """Workers come and go."""
    stage.turn()
    worker = stage.kernel.fork(lambda: 0, leader=True)
    stage.helper.take_note(worker, Exited(0), stage.kernel.time)

    assert stage.helper.next_deadline() is None
    assert len(stage.lines) == 1


def test_close_ends_it_for_good(stage: Stage) -> None:
    """By KILL: it holds nothing that could be torn."""
    stage.turn()
    stage.helper.close()

    assert not stage.is_running
    assert stage.kernel.signals[101] == [signal.SIGKILL]  # type: ignore[index]
    assert stage.helper.next_deadline() is None
    stage.helper.close()
