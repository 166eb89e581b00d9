"""The service manager hears how the instance stands: sd_notify(3) on a real socket, and s6's notification descriptor."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from helpers import Bench, Instance, alive, open_files, until
from pyworkers import _succession
from pyworkers._core import messages as m
from pyworkers._core.standing import Standing
from pyworkers._core.types import Attempt, Exited, Pin
from pyworkers._master.notify import RETRY_S, Notifier
from pyworkers._posix.notify import NotifyDescriptor, NotifySocket, manager_of

SLEEPERS = """
app = App("shop")

@app.worker(pins=range(3))
def sell(pin: int) -> None:
    app.sleep(1000)
"""


class Manager:
    """The service manager's end: a datagram socket, and what came in."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.socket.setblocking(False)
        self.messages: list[str] = []
        self.senders: list[int] = []

    @property
    def lines(self) -> list[str]:
        """All lines of all messages so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = self.socket.recvmsg(4096, 64)
                self.messages.append(data.decode())
                self.senders.append(int.from_bytes(ancillary[0][2][:4], "little"))
        return "\n".join(self.messages).splitlines()

    def await_line(self, line: str, count: int = 1) -> list[str]:
        """Wait until a line has come in so often, and return all."""
        with contextlib.suppress(AssertionError):
            until(lambda: self.lines.count(line) >= count, line)
        assert self.lines.count(line) >= count, self.lines
        return self.lines


@pytest.fixture
def manager(bench: Bench) -> Iterator[Manager]:
    """A manager that waits at a path."""
    it = Manager(str(bench.directory / "notify"))
    yield it
    it.socket.close()


def under(manager: Manager, **more: str) -> dict[str, str]:
    """Return the environment of a service."""
    return {"NOTIFY_SOCKET": manager.address, **more}


def test_ready_comes_when_every_pin_is_up(bench: Bench, manager: Manager) -> None:
    """Not before: here the last one waits for a file in its on_worker_start."""
    master = bench.start(
        SLEEPERS
        + """
@app.on_worker_start
def wait(pin: int) -> None:
    while pin == 2 and not (here / "go").exists():
        time.sleep(0.01)
""",
        env=under(manager),
    )
    lines = manager.await_line("STATUS=starting: 2 of 3 PINs up")
    assert "READY=1" not in lines

    (bench.directory / "go").touch()
    manager.await_line("READY=1")
    assert manager.messages[-1] == "READY=1\nSTATUS=3 of 3 PINs up"
    assert master.stop() == 0
    lines = manager.lines
    assert lines[lines.index("READY=1") :][1] == "STATUS=3 of 3 PINs up"
    assert lines.index("STATUS=stopping: 3 workers left") < lines.index("STATUS=all workers stopped")
    assert (lines.count("READY=1"), lines.count("STOPPING=1")) == (1, 1)
    assert set(manager.senders) == {master.pid}
    assert not any(line.startswith(("MAINPID", "WATCHDOG")) for line in lines)


def test_abstract_socket_of_the_manager(bench: Bench) -> None:
    """As systemd's own in a container: unix(7)."""
    manager = Manager(f"@pyworkers-{os.getpid()}-{time.monotonic_ns()}")
    master = bench.start(SLEEPERS, env=under(manager))

    manager.await_line("READY=1")
    assert master.stop() == 0
    manager.socket.close()


def test_pin_that_was_never_up_holds_ready_back_until_it_is_given_up(bench: Bench, manager: Manager) -> None:
    """The status names it meanwhile; the start is over when nobody is coming any more, for the others go on."""
    master = bench.start(
        """
        app = App(max_restarts=3, backoff=(0.3, 0.3))

        @app.on_worker_start
        def connect(pin: int) -> None:
            if pin == 1:
                sys.exit(5)

        @app.worker(pins=range(3))
        def sell(pin: int) -> None:
            app.sleep(1000)
        """,
        env=under(manager),
    )
    lines = manager.await_line("READY=1")

    # How many of the others were up by then is between them and the first look.
    late = re.compile(r"STATUS=starting: [0-2] of 3 PINs up; ended before up, and tried again: 1")
    assert any(map(late.fullmatch, lines)), lines
    assert manager.messages[-1] == "READY=1\nSTATUS=2 of 3 PINs up, 1 failed"
    assert master.matches("failed, for max_restarts is reached")
    assert master.stop() == 1


def test_instance_whose_every_pin_fails_is_never_ready(bench: Bench, manager: Manager) -> None:
    """Its end without READY is what a manager takes for a failed start."""
    master = bench.start(
        """
        app = App(restart="never")

        @app.worker(pins=0)
        def sell() -> None: ...

        @app.on_worker_start
        def connect() -> None:
            sys.exit(5)
        """,
        env=under(manager),
    )

    assert master.wait() == 1
    assert "READY=1" not in manager.lines
    assert manager.lines[-2:] == ["STATUS=all workers ended", "STOPPING=1"]


def test_short_work_was_ready_all_the_same(bench: Bench, manager: Manager) -> None:
    """All over within one turn of the loop or not: READY, then STOPPING, in two messages."""
    master = bench.start("app = App()\n@app.worker(pins=range(2))\ndef work(pin): ...", env=under(manager))

    assert master.wait() == 0
    assert [line for line in manager.lines if not line.startswith("STATUS")] == ["READY=1", "STOPPING=1"]
    assert not any("READY" in message and "STOPPING" in message for message in manager.messages)


def test_count_of_those_that_are_up_follows_them(bench: Bench, manager: Manager) -> None:
    """Down with a death that has a delay behind it, up with its successor."""
    master = bench.start(SLEEPERS.replace('"shop"', '"shop", backoff=(1, 1)'), env=under(manager))
    manager.await_line("STATUS=3 of 3 PINs up")
    for attempt in (1, 2):
        os.kill(master.worker(0, attempt), signal.SIGKILL)
    manager.await_line("STATUS=2 of 3 PINs up")
    manager.await_line("STATUS=3 of 3 PINs up", 2)

    assert master.stop() == 0
    assert manager.lines.count("READY=1") == 1


def test_crash_loop_does_not_keep_the_manager_busy(bench: Bench, manager: Manager) -> None:
    """Hundreds of deaths are a few lines, and the loop is not slower for them."""
    master = bench.start(
        """
        app = App(backoff=(0.001, 0.001))

        @app.worker(pins=0)
        def crash() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        @app.worker(pins=1)
        def sell() -> None:
            app.sleep(1000)
        """,
        env=under(manager),
    )
    manager.await_line("READY=1")
    begun = time.monotonic()
    master.await_log("worker ended crash", 300)
    seconds = time.monotonic() - begun

    assert len(manager.lines) < 10 + 4 * seconds
    assert master.stop() == 0


def test_watchdog_is_fed_at_half_of_its_time(bench: Bench, manager: Manager) -> None:
    """Only where it was meant for this process; nothing else makes the master tick."""
    bench.app(SLEEPERS)
    # WATCHDOG_PID is the pid after the fork, so a shell has to say it.
    command = 'export WATCHDOG_PID=$$; exec "$0" -m pyworkers shop:app'
    begun = time.monotonic()
    shell = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable],
        cwd=bench.directory,
        env={**os.environ, **under(manager, WATCHDOG_USEC="400000")},
        stderr=subprocess.DEVNULL,
    )
    try:
        manager.await_line("WATCHDOG=1", 6)
        seconds = time.monotonic() - begun
        beats = manager.lines.count("WATCHDOG=1")
    finally:
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(20) == 0

    assert beats <= seconds / 0.2 + 1
    assert seconds >= 5 * 0.2


def test_watchdog_of_another_process_is_not_fed(bench: Bench, manager: Manager) -> None:
    """sd_watchdog_enabled(3): the variables may have been inherited."""
    master = bench.start(SLEEPERS, env=under(manager, WATCHDOG_USEC="200000", WATCHDOG_PID="1"))
    manager.await_line("READY=1")
    switches = Path(f"/proc/{master.pid}/status")
    assert manager.await_line("STATUS=3 of 3 PINs up")
    before = re.findall(r"voluntary_ctxt_switches:\s+(\d+)", switches.read_text())
    assert not select.select([manager.socket], [], [], 1)[0]

    assert re.findall(r"voluntary_ctxt_switches:\s+(\d+)", switches.read_text()) == before
    assert "WATCHDOG=1" not in manager.lines
    assert master.stop() == 0


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        *(({"WATCHDOG_USEC": text}, None) for text in ("", "0", "-1", "1.5", "two", "9" * 30, "\u0663")),
    ],
)
def test_watchdog_variables(variables: dict[str, str], seconds: float | None) -> None:
    """What is no time is no watchdog, and no error."""
    told = manager_of({"NOTIFY_SOCKET": "/run/notify", **variables})

    assert told is not None
    assert told.watchdog_s == seconds
    assert manager_of(variables) is None


def test_workers_know_nothing_of_the_manager(bench: Bench, manager: Manager) -> None:
    """Neither variables nor descriptors: what they say would be said in the master's name."""
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    reader, writer = os.pipe()
    master = bench.start(
        SLEEPERS
        + f"""
@app.on_start
def prepare() -> None:
    (here / "master").write_text(str([name for name in {names!r} if name in os.environ]))

@app.on_worker_start
def look(pin: int) -> None:
    (here / f"worker.{{pin}}").write_text(str([name for name in {names!r} if name in os.environ]))

@app.on_stop
def finish() -> None:
    (here / "end").write_text(str([name for name in {names!r} if name in os.environ]))
""",
        f"--notify-fd={writer}",
        env=under(manager, WATCHDOG_USEC="9000000", WATCHDOG_PID="1"),
        pass_fds=(writer,),
    )
    manager.await_line("READY=1")
    # Its other pipes are for its workers; its sockets are for nobody else.
    name = os.readlink(f"/proc/self/fd/{writer}")
    sockets = {file for file in open_files(master.pid).values() if file.startswith("socket:")}
    assert sockets
    for pid in master.workers():
        assert not {name, *sockets}.intersection(open_files(pid).values())
    os.kill(master.worker(0), signal.SIGKILL)
    late = master.worker(0, 2)
    until(lambda: not {name, *sockets}.intersection(open_files(late).values()), "a late worker to let go of them")
    assert master.stop() == 0

    assert [bench.read(f"worker.{pin}") for pin in range(3)] == ["[]"] * 3
    assert bench.read("master") == bench.read("end") == str(list(names))
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("address", ["gone", "closed", "vsock:2:1"])
def test_manager_that_is_not_there_is_one_warning(address: str, bench: Bench) -> None:
    """However much there would be to say."""
    if address == "closed":
        Manager(str(bench.directory / "closed")).socket.close()
    where = address if ":" in address else str(bench.directory / address)
    master = bench.start(SLEEPERS, env={"NOTIFY_SOCKET": where, "WATCHDOG_USEC": "100000"})
    os.kill(master.worker(0), signal.SIGKILL)
    master.worker(0, 2)

    assert master.stop() == 0
    assert len(master.matches("WARNING cannot notify the service manager")) == 1, master.log


def test_daemon_tells_who_is_the_service_now(bench: Bench, manager: Manager) -> None:
    """By the process that the manager knows, which it trusts, and by the daemon itself."""
    bench.app(SLEEPERS)
    begun = bench.run("shop:app", "--daemon", f"--syslog={bench.directory}/none", env=under(manager))
    assert begun.returncode == 0, begun.stderr
    lines = manager.await_line("READY=1", 2)

    (pid,) = {int(line.partition("=")[2]) for line in lines if line.startswith("MAINPID=")}
    assert alive(pid)
    ready = [sender for message, sender in zip(manager.messages, manager.senders, strict=True) if "READY" in message]
    assert len(set(ready)) == 2
    assert pid in ready
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid), "the end of the daemon")
    assert "STOPPING=1" in manager.lines


# s6


def started_with_descriptor(bench: Bench, source: str) -> tuple[Instance, int]:
    """Return a master whose notification descriptor is a pipe, and our end of that."""
    reader, writer = os.pipe()
    master = bench.start(source, "--notify-fd", str(writer), pass_fds=(writer,))
    os.close(writer)
    return master, reader


def test_descriptor_gets_a_newline_and_is_let_go_of(bench: Bench) -> None:
    """Its reader sees the end right after it, while everybody lives."""
    master, reader = started_with_descriptor(bench, SLEEPERS)

    assert os.read(reader, 10) == b"\n"
    assert os.read(reader, 10) == b""
    assert len(master.workers()) == 3
    os.kill(master.worker(0), signal.SIGKILL)
    assert alive(master.worker(0, 2))
    assert master.stop() == 0
    os.close(reader)


def test_descriptor_of_a_failed_start_gets_nothing(bench: Bench) -> None:
    """Only its end."""
    master, reader = started_with_descriptor(
        bench,
        """
        app = App(restart="never")

        @app.worker(pins=0)
        def sell() -> None: ...

        @app.on_worker_start
        def connect() -> None:
            sys.exit(5)
        """,
    )

    assert os.read(reader, 10) == b""
    assert master.wait() == 1
    os.close(reader)


@pytest.mark.parametrize("number", ["77", "1", "-3", "three"])
def test_descriptor_that_is_not_open_is_refused(number: str, bench: Bench) -> None:
    """One line, code 2, and nothing is started."""
    bench.app(SLEEPERS)
    ended = bench.run("shop:app", f"--notify-fd={number}")

    assert ended.returncode == 2
    assert ended.stderr.startswith("pyworkers: error: --notify-fd")
    assert ended.stderr.count("\n") == 1


def test_descriptor_that_nobody_empties_blocks_nobody() -> None:
    """A full pipe is passed over."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    descriptor = NotifyDescriptor(writer)
    descriptor.tell()

    assert os.readlink(f"/proc/self/fd/{writer}") == os.devnull
    descriptor.close()
    os.close(reader)


# The notifier by itself


class Stand:
    """A notifier, its socket, and a standing that the test sets."""

    def __init__(self, manager: Manager, **options: float) -> None:
        self.warnings: list[str] = []
        self.now = Standing(3, 0, 3, (), 0, 0, 3, is_stopping=False, is_over=False)
        self.socket = NotifySocket(manager.address)
        self.notifier = Notifier(
            lambda: self.now, lambda _, line: self.warnings.append(line), manager=self.socket, **options
        )

    def up(self, count: int) -> None:
        """Let so many be up."""
        self.now = Standing(3, count, 3 - count, (), 0, 0, 3, is_stopping=False, is_over=False)
        self.notifier.notice(m.WorkerUp(Pin(0), Attempt(1)))


@pytest.fixture
def stand(manager: Manager) -> Iterator[Stand]:
    """One without a watchdog."""
    it = Stand(manager)
    yield it
    it.socket.close()


def test_storm_is_told_together_and_its_end_is_not_lost(stand: Stand, manager: Manager) -> None:
    """The first change at once, the others when the rest is over, and then nothing is due any more."""
    stand.notifier.attend(100.0)
    for moment in range(1, 20):
        stand.up(moment % 3)
        stand.notifier.attend(100.0 + moment / 100)
    assert manager.lines == ["STATUS=starting: 0 of 3 PINs up"]
    assert stand.notifier.next_deadline() == 100.5
    stand.notifier.attend(100.5)

    assert manager.lines == ["STATUS=starting: 0 of 3 PINs up", "STATUS=starting: 1 of 3 PINs up"]
    assert stand.notifier.next_deadline() == float("inf")


def test_ready_does_not_wait_for_the_rest_to_be_over(stand: Stand, manager: Manager) -> None:
    """Who is told of the start was waiting for it."""
    stand.notifier.attend(100.0)
    stand.up(3)
    stand.notifier.notice(m.Announce(up=True))
    stand.notifier.attend(100.01)

    assert "READY=1" in manager.lines


def test_full_queue_delays_what_is_said_and_loses_nothing(stand: Stand, manager: Manager) -> None:
    """READY above all; of the status, only the last matters."""
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            filler.sendto(b"filler", manager.address)
    stand.notifier.attend(100.0)
    stand.up(1)
    stand.notifier.attend(101.0)
    stand.up(3)
    stand.notifier.attend(102.0)
    assert stand.notifier.next_deadline() == 102.0 + RETRY_S
    assert set(manager.lines) == {"filler"}
    stand.notifier.attend(102.0 + RETRY_S)

    assert [line for line in manager.lines if line != "filler"] == [
        "STATUS=starting: 1 of 3 PINs up",
        "READY=1",
        "STATUS=3 of 3 PINs up",
    ]
    assert not stand.warnings
    filler.close()


def test_manager_that_dies_is_one_warning(stand: Stand, manager: Manager) -> None:
    """And nothing is due any more."""
    stand.notifier.attend(100.0)
    manager.socket.close()
    for moment in range(5):
        stand.up(moment % 3)
        stand.notifier.attend(101.0 + moment)

    assert len(stand.warnings) == 1
    assert stand.notifier.next_deadline() == float("inf")


def test_reload_is_told_with_its_time_and_ready_again(stand: Stand, manager: Manager) -> None:
    """systemd.service(5), Type=notify-reload: READY counts only after it."""
    stand.up(3)
    stand.notifier.attend(100.0)
    stand.notifier.reloading(100.25)
    stand.up(2)
    stand.notifier.attend(101.0)
    stand.up(3)
    stand.notifier.attend(102.0)
    assert manager.lines.count("READY=1") == 1
    assert manager.messages[1] == "RELOADING=1\nMONOTONIC_USEC=100250000"
    stand.notifier.reloaded()
    stand.notifier.attend(102.0)

    assert manager.lines[-1] == "READY=1"


def test_watchdog_is_the_only_clock(manager: Manager) -> None:
    """Fed at the first turn, then at each half."""
    stand = Stand(manager, watchdog_s=10.0)
    stand.notifier.attend(100.0)
    assert stand.notifier.next_deadline() == 105.0
    stand.notifier.attend(104.9)
    stand.notifier.attend(105.0)
    assert stand.notifier.next_deadline() == 110.0

    assert manager.lines.count("WATCHDOG=1") == 2
    stand.socket.close()


@pytest.mark.parametrize(("watchdog_s", "absence"), [(10.0, "3600000000"), (7200.0, "7200000000")])
def test_watchdog_is_patient_with_a_program_that_begins(manager: Manager, watchdog_s: float, absence: str) -> None:
    """It says nothing before its loop; from the first beat on, and where it could not begin, all is as it was."""
    stand = Stand(manager, watchdog_s=watchdog_s)
    stand.notifier.attend(100.0)
    stand.notifier.leaves(101.0)
    assert manager.lines
    assert manager.messages[-1] == f"WATCHDOG=1\nWATCHDOG_USEC={absence}"
    stand.notifier.is_back()
    stand.notifier.attend(101.5)
    stand.notifier.attend(101.5 + watchdog_s / 2)

    assert manager.lines
    assert manager.messages[-2:] == [f"WATCHDOG=1\nWATCHDOG_USEC={int(watchdog_s * 1e6)}", "WATCHDOG=1"]
    stand.socket.close()


def test_reload_says_nothing_of_a_watchdog_that_nobody_asked_for(stand: Stand, manager: Manager) -> None:
    """Nor is there a clock after it."""
    stand.notifier.attend(100.0)
    stand.notifier.leaves(101.0)
    stand.notifier.is_back()
    stand.notifier.attend(101.0)

    assert not any(line.startswith("WATCHDOG") for line in manager.lines)
    assert stand.notifier.next_deadline() == float("inf")


def test_program_that_cannot_be_executed_gives_the_watchdog_its_time_back(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that goes on instead is looked after as before."""
    stand = Stand(manager, watchdog_s=10.0)
    works: Any = mock.MagicMock()
    works.kernel.now.return_value = 100.0
    monkeypatch.setattr(_succession, "describe", mock.MagicMock())
    monkeypatch.setattr(_succession, "written", lambda _: b"")
    monkeypatch.setattr(_succession.reexec, "become", mock.Mock(side_effect=OSError("no such program")))
    with pytest.raises(OSError, match="no such program"):
        _succession.become(mock.MagicMock(), works, stand.notifier)
    stand.notifier.attend(100.0)

    assert [line for line in manager.lines if line.startswith("WATCHDOG_USEC=")] == [
        "WATCHDOG_USEC=3600000000",
        "WATCHDOG_USEC=10000000",
    ]
    stand.socket.close()


def test_reload_has_time_whatever_the_watchdog_allows(bench: Bench, manager: Manager) -> None:
    """An import that takes longer than that would end the instance; the workers of it would be gone, too."""
    master = bench.start(SLEEPERS, env=under(manager, WATCHDOG_USEC="400000"))
    manager.await_line("READY=1")
    assert bench.run("reload", "shop:app").returncode == 0
    lines = manager.await_line("WATCHDOG_USEC=400000")
    manager.await_line("WATCHDOG=1", lines.count("WATCHDOG=1") + 2)

    found = [index for index, line in enumerate(manager.lines) if line.startswith("WATCHDOG_USEC=")]
    assert [manager.lines[index] for index in found] == ["WATCHDOG_USEC=3600000000", "WATCHDOG_USEC=400000"]
    # Nothing that the program before would have had to say comes in between.
    between = manager.lines[found[0] + 1 : found[1]]
    assert between.count("WATCHDOG=1") == 1
    assert master.stop() == 0


def test_news_that_changes_nothing_is_no_news(stand: Stand, manager: Manager) -> None:
    """A look costs nothing to the manager where the words are the same."""
    stand.notifier.attend(100.0)
    stand.notifier.notice(m.WorkerExited(Pin(0), Attempt(1), Exited(1)))
    stand.notifier.attend(101.0)

    assert len(manager.lines) == 1
