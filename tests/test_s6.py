"""The real s6 keeps an instance: it starts it again after a kill, stops it by TERM, and has its log."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import PATIENCE_S, Bench, alive, children, runtime_in, until

pytestmark = pytest.mark.skipif(shutil.which("s6-svscan") is None, reason="needs s6 (Debian: s6)")

APP = """
    app = App("shop", lock_file=here / "lock")

    @app.on_start
    def note() -> None:
        with (here / "starts").open("a") as out:
            out.write(f"{os.getpid()}\\n")

    @app.worker(pins=range(2))
    def work(pin) -> None:
        print("work on", pin)
        app.sleep(3600)
"""


class Service:
    """A service directory under a scan directory of its own."""

    def __init__(self, directory: Path, app: Path) -> None:
        self.directory = directory / "scan" / "shop"
        self.log = directory / "messages" / "current"
        run = f"#!/bin/sh\nexec 2>&1\ncd '{app}' || exit 111\nexec '{sys.executable}' -m pyworkers shop:app\n"
        self._script("run", run)
        self._script("log/run", f"#!/bin/sh\nexec s6-log t '{self.log.parent}'\n")

    def _script(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def control(self, *arguments: str) -> int:
        """Run s6-svc with a time limit, and return its exit code."""
        return subprocess.run(["s6-svc", *arguments, str(self.directory)], timeout=PATIENCE_S, check=False).returncode

    def state(self, field: str) -> str:
        """Return a field of s6-svstat."""
        done = subprocess.run(
            ["s6-svstat", "-o", field, str(self.directory)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout.strip()

    def text(self) -> str:
        """Return what s6-log has written."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text()
        return ""


@pytest.fixture
def service(bench: Bench) -> Iterator[Service]:
    """A service that s6-svscan keeps; it and all that it has started are gone after the test."""
    bench.app(APP)
    made = Service(bench.directory, bench.directory)
    environment = {**os.environ, **runtime_in(bench.directory)}
    scanner = subprocess.Popen(["s6-svscan", str(made.directory.parent)], stdin=subprocess.DEVNULL, env=environment)
    try:
        yield made
    finally:
        # The services get TERM and CONT, their loggers the end of their input: s6-svscan(8), SIGTERM.
        scanner.terminate()
        try:
            scanner.wait(PATIENCE_S)
        finally:
            scanner.kill()


def masters(bench: Bench) -> list[int]:
    """Return the pids of all masters that had the lock, in order."""
    return [int(line) for line in bench.read("starts").split()]


def test_s6_starts_an_instance_again_that_was_killed(service: Service, bench: Bench) -> None:
    """The next one has the PINs when the last worker of the first one is gone."""
    bench.await_text("starts", "\n")
    (first,) = masters(bench)
    assert service.state("pid") == str(first)
    until(lambda: service.text().count("worker started work") == 2, "two workers in the log of s6")
    workers = children(first)

    os.kill(first, signal.SIGKILL)

    bench.await_text("starts", "\n", 2)
    assert not any(alive(pid) for pid in workers)
    second = masters(bench)[1]
    assert service.state("pid") == str(second)
    until(lambda: service.text().count("worker started work") == 4, "two more workers in the log of s6")


def test_s6_stops_an_instance_by_term(service: Service, bench: Bench) -> None:
    """It leaves in good order, s6 sees an exit code of 0, and its log is whole."""
    until(lambda: service.text().count("work on") == 2, "what two workers print")
    (master,) = masters(bench)
    workers = children(master)

    # Send TERM, want it down, and wait for that.
    assert service.control("-wd", "-T", "20000", "-d") == 0

    assert (service.state("up"), service.state("exitcode")) == ("false", "0")
    assert not any(alive(pid) for pid in [master, *workers])
    until(lambda: "all workers stopped; master exits" in service.text(), "the last line in the log of s6")
    assert service.text().count("exit=143") == 2


def test_logger_that_is_replaced_loses_nothing(service: Service, bench: Bench) -> None:
    """s6 keeps the pipe between the two: what is logged meanwhile waits in it, and the master minds nothing."""
    until(lambda: service.text().count("worker started work") == 2, "two workers in the log of s6")
    (master,) = masters(bench)
    subprocess.run(["s6-svc", "-wD", "-d", str(service.directory / "log")], timeout=PATIENCE_S, check=True)
    victim = children(master)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in children(master) and len(children(master)) == 2, "its successor")
    assert f"pid={victim} signal=SIGKILL" not in service.text()

    subprocess.run(["s6-svc", "-u", str(service.directory / "log")], timeout=PATIENCE_S, check=True)

    until(lambda: f"pid={victim} signal=SIGKILL" in service.text(), "the death in the log of s6")
    assert masters(bench) == [master]
