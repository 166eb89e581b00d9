"""The real systemd for tests: what it makes of a unit, and a manager of its own that runs it, in a container, too."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import PATIENCE_S, until
from pyworkers._posix import cgroups

MANAGER = "/usr/lib/systemd/systemd"
NOBODY = 65534

needs_systemd = pytest.mark.skipif(
    not Path(MANAGER).exists() or shutil.which("systemd-analyze") is None, reason="needs systemd (Debian: systemd)"
)


def complaints(unit: Path) -> str:
    """Return all that `systemd-analyze verify` has to say of a unit; it takes what it does not know for a warning."""
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return f"{done.stdout}{done.stderr}" + (f"exit {done.returncode}" if done.returncode else "")


def understood(text: str) -> dict[str, list[str]]:
    """Return what systemd has read from the text of a unit, by the names of its own dump."""
    with _world_readable() as directory:
        (directory / "units").mkdir()
        (directory / "units" / "it.service").write_text(text)
        (directory / "run").mkdir(mode=0o700)
        # "Don't run test mode as root."
        credentials = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if credentials:
            os.chown(directory / "run", NOBODY, NOBODY)
        done = subprocess.run(
            [MANAGER, "--test", "--user", "--unit=it.service", "--log-target=console", "--log-level=err"],
            env=_environment(directory),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            **credentials,  # type: ignore[call-overload]
        )
    _, _, dump = done.stdout.partition("-> Unit it.service:\n")
    found: dict[str, list[str]] = {}
    for line in dump.partition("-> Unit ")[0].splitlines():
        name, colon, value = line.lstrip().partition(": ")
        if colon:
            found.setdefault(name, []).append(value)
    assert found, done
    return found


class Manager:
    """A manager of systemd of our own, and what a person would ask it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, group: Path) -> None:
        """Start it in a mount namespace, in which the machine looks as if it had been booted by systemd."""
        script = (
            f"echo $$ >{group}/leaf/cgroup.procs && mkdir -p /run/systemd && mount -t tmpfs none /run/systemd &&"
            f" mkdir /run/systemd/system && exec {MANAGER} --user --unit=basic.target --log-target=console"
        )
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script],
                env=_environment(self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: self.ctl("is-system-running").returncode == 0 or self._ended(), "systemd to be running")
        if self._ended():
            pytest.skip(f"systemd does not run here: {(self.directory / 'log').read_text()[-300:]}")

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def ctl(self, *arguments: str, patience_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run systemctl."""
        assert self.process is not None
        # It refuses to speak where the machine was not booted by systemd, so it has to look from inside.
        return subprocess.run(
            ["nsenter", f"--target={self.process.pid}", "--mount", "systemctl", "--user", *arguments],
            env=_environment(self.directory),
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.ctl("show", unit, "--property", name, "--value").stdout.strip()

    def close(self) -> None:
        """End it, and what it runs."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.ctl("exit")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def manager() -> Iterator[Manager]:
    """Lend a manager; skips the test where there can be none."""
    group = _group()
    with _world_readable() as directory, contextlib.ExitStack() as stack:
        stack.callback(_remove, group)
        (directory / "units").mkdir()
        (directory / "run").mkdir(mode=0o700)
        made = Manager(directory)
        stack.callback(made.close)
        made.start(group)
        yield made


def _group() -> Path:
    """Return a new group in the hierarchy of version 2, which may be one beside that of version 1."""
    for place in cgroups.places(""):
        if place.version != 2:
            continue
        group = Path(place.point + place.group) / f"pyworkers-test-{os.getpid()}-{time.monotonic_ns()}"
        with contextlib.suppress(OSError):
            (group / "leaf").mkdir(parents=True)
            return group
    pytest.skip("cannot make a control group for systemd")


def _remove(group: Path) -> None:
    def removed() -> bool:
        directories = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
        for directory in [*directories, group]:
            with contextlib.suppress(OSError):
                for pid in (directory / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                directory.rmdir()
        return not group.exists()

    until(removed, f"the end of {group}")


@contextlib.contextmanager
def _world_readable() -> Iterator[Path]:
    """A directory that others can look into, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="pyworkers-") as name:
        os.chmod(name, 0o755)  # noqa: PTH101
        yield Path(name)


def _environment(directory: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory / "run"),
        "XDG_RUNTIME_DIR": str(directory / "run"),
        # The colon at the end adds the usual directories.
        "SYSTEMD_UNIT_PATH": f"{directory / 'units'}:",
    }
