"""A real PostgreSQL in a directory of its own, on a host of the tests or on this machine alone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import psycopg
import psycopg.sql
import pytest

from engines.hosts import REQUIRED, Hosts
from helpers import until

CONFIGURATION = """\
unix_socket_directories = '{root}'
listen_addresses = '{address}'
fsync = off
max_connections = 200
"""


def binaries() -> Path:
    """Return where Debian keeps the programs of the newest server; skip where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and os.environ.get(REQUIRED):
        pytest.fail(f"needs postgresql, and {REQUIRED} is set")
    if not found:
        pytest.skip("needs postgresql")
    if os.geteuid() != 0:
        pytest.skip("needs root, to become the user postgres")
    return found[-1].parent


class Statement(NamedTuple):
    """One that the server has logged: when it ended, in seconds of some epoch, and how many milliseconds it took."""

    ended_s: float
    took_ms: float


class Server:
    """One server, up from the beginning.

    Attributes:
        url: How the tests reach it, from anywhere on this machine.
        remote: How hosts reach it, where it is on one.
    """

    def __init__(self, root: Path, hosts: Hosts | None = None) -> None:
        self._root, self._hosts = root, hosts
        self._binaries = binaries()
        address = "" if hosts is None else hosts.address(0)
        shutil.chown(root, "postgres")
        self._run("initdb", "-D", f"{root}/data", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8")
        with (root / "data" / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION.format(root=root, address=address))
        with (root / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.77.0.0/24 trust\n")
        self.url = f"postgresql://postgres@/postgres?host={root}"
        self.remote = f"postgresql://postgres@{address}/postgres"
        self.start()

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        until(self._started, "a PostgreSQL that starts")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` hangs up on everybody."""
        self._run("pg_ctl", "-D", f"{self._root}/data", "-m", mode, "-w", "stop")

    def kill(self) -> None:
        """End it as a loss of power would."""
        pid = int((self._root / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists(), "the end of PostgreSQL")

    def query(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Carry a statement out, and return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """While nobody else can read or write a table."""
        with psycopg.connect(self.url) as connection:
            connection.execute(
                psycopg.sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(psycopg.sql.Identifier(table))
            )
            yield

    def statements(self, text: str) -> list[Statement]:
        """Return those that hold this text, in order; see log_min_duration_statement."""
        head = r"(?m)^(\S+ \S+) \S+ \[\d+\] LOG:  duration: ([0-9.]+) ms +execute [^:]*:"
        found = re.findall(rf"{head}[^\n]*\n?[^\n]*{re.escape(text)}", self.log())
        return [Statement(datetime.fromisoformat(ended).timestamp(), float(took)) for ended, took in found]

    def log(self) -> str:
        """Return what it has logged."""
        return (self._root / "log").read_text()

    def close(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(AssertionError):
            self.stop("immediate")

    def _started(self) -> bool:
        # After a kill, the old server's processes may still hold its memory for a moment.
        done = self._try("pg_ctl", "-D", f"{self._root}/data", "-w", "-l", f"{self._root}/log", "start")
        return done.returncode == 0

    def _run(self, *command: str) -> None:
        done = self._try(*command)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}"

    def _try(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = ["runuser", "-u", "postgres", "--", str(self._binaries / program), *arguments]
        if self._hosts is not None:
            command = self._hosts.command(0, *command)
        # pg_ctl leaves its stdout to the server, which would keep a pipe open.
        with tempfile.TemporaryFile() as errors:
            done = subprocess.run(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=60,
                check=False,
            )
            errors.seek(0)
            done.stderr = errors.read()
        return done


@contextlib.contextmanager
def server(hosts: Hosts | None = None) -> Iterator[Server]:
    """Lend a server, on host 0 where there are hosts, and remove it after use."""
    binaries()
    # A short path, for sockets in it: unix(7).
    root = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        with contextlib.closing(Server(root, hosts)) as lent:
            yield lent
    finally:
        shutil.rmtree(root)
