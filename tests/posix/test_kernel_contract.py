"""What the master may expect of a kernel: the real one and the fake one pass the same tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "master"))
from fake_kernel import FakeKernel
from helpers import alive, state, until
from pyworkers._core.types import Attempt, Exited, ExitStatus, Pid, Pin, Signaled, Vanished
from pyworkers._master.needs import Kernel
from pyworkers._posix import process
from pyworkers._posix.channel import Channel, Told, Word
from pyworkers._posix.kernel import PosixKernel, Wake
from pyworkers._posix.signals import MasterSignals


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A channel between us and children."""
    made = Channel()
    yield made
    made.close()


@pytest.fixture
def real(channel: Channel) -> Iterator[PosixKernel]:
    """The kernel of this machine."""
    with MasterSignals() as trapped:
        yield PosixKernel(trapped, channel, None)


@pytest.fixture(params=["real", "fake"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """One of the two."""
    if request.param == "fake":
        return FakeKernel(run_children=True)
    real: PosixKernel = request.getfixturevalue("real")
    return real


def test_child_that_was_killed_is_awaited(real: PosixKernel) -> None:
    """And reaped: no wait tells of it again. Whoever was reaped before is nobody to wait for."""
    pid = real.fork(_sleep, leader=False)
    real.send(pid, signal.SIGKILL)

    real.await_end(pid)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert real.wait(0.0, None).ended == []
    real.await_end(pid)


def _sleep() -> int:
    time.sleep(60)
    return 0


def collect(kernel: Kernel, count: int) -> dict[Pid, ExitStatus]:
    """Wait until so many children have ended."""
    ended: dict[Pid, ExitStatus] = {}
    deadline = time.monotonic() + 20
    while len(ended) < count and time.monotonic() < deadline:
        found = kernel.wait(1.0, None).ended
        assert not set(ended) & {pid for pid, _ in found}, "reported twice"
        ended.update(found)
    return ended


@pytest.mark.parametrize("code", [0, 1, 41, 255])
def test_exit_code_of_a_child_is_reported_once(kernel: Kernel, code: int) -> None:
    """What child_main returns is the exit status, and it comes exactly once."""
    pid = kernel.fork(lambda: code, leader=False)

    assert collect(kernel, 1) == {pid: Exited(code)}
    assert kernel.wait(0.0, None).ended == []


def test_many_ends_are_all_reported(kernel: Kernel) -> None:
    """SIGCHLD coalesces; statuses do not get lost."""
    codes = {kernel.fork(lambda code=number: code, leader=False): number for number in range(50)}

    assert collect(kernel, 50) == {pid: Exited(code) for pid, code in codes.items()}


def test_killed_child_is_signaled_not_exited() -> None:
    """Death by signal keeps its signal, with both kernels."""
    fake = FakeKernel()
    pid = fake.fork(lambda: 0, leader=False)
    fake.send(pid, signal.SIGKILL)
    assert collect(fake, 1) == {pid: Signaled(signal.SIGKILL)}


def test_real_killed_child_is_signaled_not_exited(real: PosixKernel) -> None:
    """The same with a process."""
    pid = real.fork(lambda: time.sleep(3600) or 0, leader=False)
    real.send(pid, signal.SIGKILL)
    assert collect(real, 1) == {pid: Signaled(signal.SIGKILL)}


def test_send_to_a_child_that_was_reported_does_nothing(kernel: Kernel) -> None:
    """After its end was reported a pid belongs to nobody we know."""
    pid = kernel.fork(lambda: 0, leader=False)
    collect(kernel, 1)

    kernel.send(pid, signal.SIGKILL)


def test_wait_returns_when_its_time_is_over(kernel: Kernel) -> None:
    """Nothing happens, and the clock has moved by the timeout."""
    before = kernel.now()

    assert kernel.wait(0.02, None) == Wake(signums=[], told=[], suspended=[], ended=[])
    assert kernel.now() >= before + 0.02


def test_signal_ends_the_wait(real: PosixKernel) -> None:
    """A signal that arrives before or during the wait is returned by it, in order, SIGCHLD left out."""
    for signum in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGCHLD):
        os.kill(os.getpid(), signum)

    assert real.wait(None, None).signums == [signal.SIGUSR2, signal.SIGUSR1]


def test_child_of_somebody_else_is_never_reaped(real: PosixKernel) -> None:
    """A Popen that has ended stands before our own child; ours is found, and its status stays with its owner."""
    stranger = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
    pids = [real.fork(lambda: 3, leader=False), real.fork(lambda: 4, leader=False)]

    assert collect(real, 2) == {pids[0]: Exited(3), pids[1]: Exited(4)}
    assert stranger.wait(20) == 7


def test_status_that_somebody_else_took_is_vanished(real: PosixKernel) -> None:
    """A child that other code has waited for is reported as gone, never waited for without end."""
    pid = real.fork(lambda: 3, leader=False)
    os.waitpid(pid, 0)

    assert collect(real, 1) == {pid: Vanished()}


def test_what_a_child_said_comes_with_or_before_its_end(real: PosixKernel, channel: Channel) -> None:
    """Collected first, read second: a record is never later than the exit of who wrote it."""

    def child() -> int:
        channel.tell(Told(Pin(2), Attempt(3), Word.UP).packed())
        channel.tell(Told(Pin(2), Attempt(3), Word.STOP_ALL, 77).packed())
        return 0

    for _ in range(100):
        real.fork(child, leader=False)
        told = []
        ended: list[tuple[Pid, ExitStatus]] = []
        while not ended:
            wake = real.wait(None, None)
            records, ended = wake.told, wake.ended
            told += records
        assert told == [Told(Pin(2), Attempt(3), Word.UP), Told(Pin(2), Attempt(3), Word.STOP_ALL, 77)]


def test_what_a_child_says_while_we_collect_comes_with_its_end(
    real: PosixKernel, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where word and end fall between the two system calls, in whichever order they are made."""
    reader, writer = os.pipe()

    def child() -> int:
        os.read(reader, 1)
        channel.tell(Told(Pin(2), Attempt(3), Word.UP).packed())
        return 0

    pid = real.fork(child, leader=False)
    collect_now = process.collect

    def collect_when_it_has_ended(own: set[Pid]) -> list[tuple[Pid, ExitStatus]]:
        os.write(writer, b"x")
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return collect_now(own)

    monkeypatch.setattr(process, "collect", collect_when_it_has_ended)
    wake = real.wait(0.0, None)
    told, ended = wake.told, wake.ended
    os.close(reader)
    os.close(writer)

    assert ended == [(pid, Exited(0))]
    assert [record.word for record in told] == [Word.UP]


@pytest.mark.parametrize(
    "noise", [b"", b"pw", b"garbage" * 999, b"pw\x09" + bytes(12) + b"\x01", b"pw\x01" + bytes(13)]
)
def test_noise_in_the_channel_is_dropped(channel: Channel, noise: bytes) -> None:
    """G11: control messages that nobody of us wrote have no effect, and hide none that follows."""
    os.write(channel._writer, noise)
    channel.tell(Told(Pin(2), Attempt(3), Word.UP).packed())

    assert channel.read() == [Told(Pin(2), Attempt(3), Word.UP)]


def test_fork_leaves_no_signal_blocked_and_no_trap_in_the_wrong_process(real: PosixKernel) -> None:
    """All signals are blocked across the fork, and the master's mask is what it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def child() -> int:
        return 0 if signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGTERM, signal.SIGCHLD} else 1

    pid = real.fork(child, leader=False)
    assert collect(real, 1) == {pid: Exited(0)}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_child_that_raises_says_so_and_is_code_1(real: PosixKernel, capfd: pytest.CaptureFixture[str]) -> None:
    """The last resort: a defect of ours in a child is no silent end, and not a line of the parent runs in it."""

    def broken() -> int:
        raise RuntimeError("defect")

    pid = real.fork(broken, leader=False)
    assert collect(real, 1) == {pid: Exited(1)}
    assert "RuntimeError: defect" in capfd.readouterr().err


def test_trap_that_raises_at_the_very_end_does_not_let_the_child_escape(real: PosixKernel) -> None:
    """G5: not even an exception out of the last line of the child goes on in the parent's stack."""

    def child() -> int:
        leave, calls = os._exit, []

        def torn(code: int) -> None:
            calls.append(code)
            if len(calls) < 3:
                raise SystemExit(131)
            leave(code)

        os._exit = torn  # type: ignore[assignment]
        return 7

    pid = real.fork(child, leader=False)
    assert collect(real, 1) == {pid: Exited(7)}


def test_sweep_without_waitid_finds_the_same(real: PosixKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no waitid(2), each own pid is asked instead."""
    monkeypatch.setattr(process, "_PEEK", 0)
    pids: list[Pid] = [real.fork(_returning(code), leader=False) for code in (3, 4)]

    assert collect(real, 2) == {pids[0]: Exited(3), pids[1]: Exited(4)}


def _returning(code: int) -> Callable[[], int]:
    return lambda: code


def test_suspension_and_continuation_are_told_and_are_no_end(real: PosixKernel) -> None:
    """A child that is stopped by a signal and goes on is reported as that, once each, and never as ended."""
    pid = real.fork(lambda: time.sleep(3600) or 0, leader=False)
    told: list[tuple[Pid, bool]] = []

    def told_of(count: int) -> bool:
        wake = real.wait(0.05, None)
        assert wake.ended == []
        told.extend(wake.suspended)
        return len(told) >= count

    os.kill(pid, signal.SIGSTOP)
    until(lambda: told_of(1), "the suspension")
    os.kill(pid, signal.SIGCONT)
    until(lambda: told_of(2), "the continuation")
    real.wait(0.05, None)
    os.kill(pid, signal.SIGKILL)

    assert told == [(pid, True), (pid, False)]
    assert collect(real, 1) == {pid: Signaled(signal.SIGKILL)}


@pytest.mark.parametrize("stranger_first", [False, True])
def test_group_of_a_leader_ends_with_it(real: PosixKernel, *, stranger_first: bool) -> None:
    """What a leader has forked does not survive it, also where a stranger's zombie hides the leader from the peek."""
    reader, writer = os.pipe()
    stranger = subprocess.Popen(["true"]) if stranger_first else None
    if stranger is not None:
        until(lambda: state(stranger.pid) == "Z", "the stranger's end")

    def child() -> int:
        os.setpgid(0, 0)
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(3600)
        os.write(writer, grandchild.to_bytes(4, "little"))
        return 5

    pid = real.fork(child, leader=True)
    grandchild = int.from_bytes(os.read(reader, 4), "little")

    assert collect(real, 1) == {pid: Exited(5)}
    until(lambda: not alive(grandchild), "the end of the grandchild")
    if stranger is not None:
        assert stranger.wait(5) == 0
    os.close(reader)
    os.close(writer)


def test_group_of_a_child_that_leads_none_survives_it(real: PosixKernel) -> None:
    """Only leaders are followed: nobody else's process group is touched."""
    reader, writer = os.pipe()

    def child() -> int:
        os.setpgid(0, 0)
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(3600)
        os.write(writer, grandchild.to_bytes(4, "little"))
        return 0

    pid = real.fork(child, leader=False)
    grandchild = int.from_bytes(os.read(reader, 4), "little")
    try:
        assert collect(real, 1) == {pid: Exited(0)}
        assert alive(grandchild)
    finally:
        os.kill(grandchild, signal.SIGKILL)
        os.close(reader)
        os.close(writer)
