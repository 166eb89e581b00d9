"""`status --watch` in a real terminal: what it shows, that it lives, and how it leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import PATIENCE_S, Bench, clean_environment, runtime_in, until
from pyworkers._client.watch import bar, frame

APP = """
app = App("shop", lock_file=here / "lock")
@app.worker(pins=0)
def crawl():
    for item in app.track(range(40)):
        app.unit(f"page {item}")
        while not (here / f"go.{item // 10}").exists():
            app.sleep(0.02)
    app.sleep(600)
@app.worker(pins=1)
def report():
    app.sleep(600)
"""


class Terminal:
    """A shell in a terminal of tmux, on a server of its own."""

    def __init__(self, bench: Bench, columns: int = 100, rows: int = 12) -> None:
        self.bench = bench
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "env PS1='$ ' sh")
        until(lambda: "$" in self.screen(), "the shell")

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self.bench.directory / "tmux"), *arguments]
        environment = {**clean_environment(), **runtime_in(self.bench.directory), "LC_ALL": "C.UTF-8"}
        environment.pop("NO_COLOR", None)
        return subprocess.run(
            command,
            env=environment,
            cwd=self.bench.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        ).stdout

    def screen(self, *options: str) -> str:
        return self.tmux("capture-pane", "-p", *options)

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def await_screen(self, pattern: str) -> str:
        def fitting() -> str:
            screen = self.screen()
            return screen if re.search(pattern, screen) else ""

        try:
            return until(fitting, pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen is\n{self.screen()}") from None


@pytest.fixture
def terminal(bench: Bench) -> Iterator[Terminal]:
    """A terminal in the bench's directory; its server ends with the test."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    made = Terminal(bench)
    yield made
    made.tmux("kill-server")


def watch(terminal: Terminal) -> None:
    """Start the app, and watch it."""
    instance = terminal.bench.start(APP)
    instance.await_log("worker started", 2)
    terminal.type("echo be''fore", "Enter")
    terminal.await_screen("before")
    terminal.type(f"{sys.executable} -m pyworkers status shop:app --watch; echo co''de=$?", "Enter")


def test_watch_is_live_and_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    """Bars grow; q brings back the screen of before, the cursor, the echo, and the code of status."""
    watch(terminal)
    screen = terminal.await_screen("page 0")
    assert "before" not in screen
    assert "shop (shop:app) running" in screen
    (terminal.bench.directory / "go.0").touch()
    screen = terminal.await_screen(r"crawl .* 10/40 25%")
    assert "█████░░░░░░░░░░░░░░░ 10/40 25%" in screen
    assert "page 10" in screen
    assert "\x1b[32mrunning" in terminal.screen("-e")
    assert terminal.tmux("display", "-p", "#{alternate_on} #{cursor_flag}").split() == ["1", "0"]

    terminal.type("q")
    screen = terminal.await_screen("code=0")
    assert "before" in screen
    assert "crawl" not in screen.replace("pyworkers", "")
    assert terminal.tmux("display", "-p", "#{alternate_on} #{cursor_flag}").split() == ["0", "1"]
    terminal.type("echo vis''ible", "Enter")
    assert "echo vis''ible" in terminal.await_screen("\nvisible")


@pytest.mark.parametrize("key", ["C-c", "C-d"])
def test_watch_ends_by_what_ends_programs(terminal: Terminal, key: str) -> None:
    """No traceback, and the screen of before."""
    watch(terminal)
    terminal.await_screen("page 0")
    terminal.type(key)
    screen = terminal.await_screen("code=0")
    assert "Traceback" not in screen
    assert "before" in screen


def test_watch_ends_with_the_instance(terminal: Terminal) -> None:
    """It says so on the screen of before, and leaves with the code of an instance that does not run."""
    watch(terminal)
    terminal.await_screen("page 0")
    terminal.bench.instances[0].stop()
    assert "has hung up" in terminal.await_screen("code=4")


def test_watch_that_is_terminated_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    """TERM from somewhere else is no reason to leave a mess."""
    watch(terminal)
    terminal.await_screen("page 0")
    pids = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if b"--watch" in _read(path)]
    (pid,) = [
        pid
        for pid in pids
        if _cwd(pid) == terminal.bench.directory and b"pyworkers" in _read(Path(f"/proc/{pid}/cmdline"))
    ]
    os.kill(pid, signal.SIGTERM)
    terminal.await_screen("code=143")
    assert terminal.tmux("display", "-p", "#{alternate_on} #{cursor_flag}").split() == ["0", "1"]


def test_watch_needs_a_terminal(bench: Bench) -> None:
    """In a pipe it would be noise."""
    bench.start(APP).await_log("worker started", 2)
    until(lambda: bench.run("status", "shop:app").returncode == 0, "the instance")
    assert "--watch needs a terminal" in bench.run("status", "shop:app", "--watch").stderr


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _cwd(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def _status(states: list[str]) -> dict[str, object]:
    row = {
        "handler": "crawl", "suspended": False, "pid": 7, "uptime": 1.0, "restarts": 0, "last_exit": None,
        "delay": None, "unit": "u" * 200, "done": None, "total": None,
    }  # fmt: skip
    workers = [{**row, "pin": pin, "state": state} for pin, state in enumerate(states)]
    return {
        "name": "shop", "app": None, "pid": 1, "started": 0.0, "uptime": 1.0, "state": "running", "workers": workers,
        "spares": [],
    }  # fmt: skip


def test_frame_fits_the_terminal_and_shows_what_is_down_first() -> None:
    """No line is longer, no more lines than there are, and what matters is among them."""
    lines = frame(_status(["running"] * 50 + ["failed", "finished"]), 60, 10, colour=False)

    assert len(lines) <= 10
    assert max(map(len, lines)) <= 60
    assert lines[3].startswith("50")
    assert lines[-1] == "... and 46 more that do not fit"


def test_frame_without_colour_is_plain() -> None:
    """NO_COLOR: nothing that a terminal would obey; a unit's name neither."""
    found = _status(["running"])
    found["workers"][0]["unit"] = "\x1b[2J"  # type: ignore[index]

    assert "\x1b" not in "".join(frame(found, 80, 24, colour=False))


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (None, None, ""),
        (7, None, "7"),
        (0, 0, "0"),
        (1, 2, "██████████░░░░░░░░░░ 1/2 50%"),
        (9, 3, "████████████████████ 9/3 100%"),
    ],
)
def test_bar(done: int | None, total: int | None, text: str) -> None:
    """More than all is all."""
    assert bar(done, total) == text
