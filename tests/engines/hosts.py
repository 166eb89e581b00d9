"""Several hosts on one machine: namespaces of network and host name, and a switch from which a cable can be pulled.

They share the kernel, its clock, the files and the process numbers; nothing of the machine's own network is touched.
Needs root and iproute2. Host 0 is for servers, and all have addresses of 10.77.0.0/24, whatever else runs here: the
switch is in a namespace, too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import alive, until

REQUIRED = "ENGINES_REQUIRED"
"""Where this variable is set, what is missing is a failure: nobody may take a skipped test for one that has passed."""

_serials = itertools.count()


def need(*programs: str) -> None:
    """Skip the test where this user or machine has not what it takes, and say what that is."""
    missing = [program for program in programs if shutil.which(program) is None]
    why = f"needs {', '.join(missing)}" if missing else "needs root" if os.geteuid() != 0 else ""
    if not why and subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], check=False).returncode:
        why = "may not make namespaces here: unshare(1)"
    if why and os.environ.get(REQUIRED):
        pytest.fail(f"{why}, and {REQUIRED} is set")
    if why:
        pytest.skip(why)


class Hosts:
    """So many hosts beside host 0.

    Args:
        directory: For the file that has their names, n0, n1 and so on.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self.count = count
        self._prefix = f"pyworkers-{os.getpid()}-{next(_serials)}"
        self._names = directory / "hosts"
        lines = [f"{self.address(number)} n{number}" for number in range(count + 1)]
        self._names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def set_up(self) -> None:
        """Make them, all cables in their places."""
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "br0", "up")
        for number in range(self.count + 1):
            space = self.namespace(number)
            _ip("netns", "add", space)
            peer = ("peer", "name", f"p{number}", "netns", self._switch)
            _ip("link", "add", "e0", "netns", space, "type", "veth", *peer)
            _ip("-n", space, "address", "add", f"{self.address(number)}/24", "dev", "e0")
            for link in ("lo", "e0"):
                _ip("-n", space, "link", "set", link, "up")
            self.heal(number)
            _ip("-n", self._switch, "link", "set", f"p{number}", "up")

    @property
    def _switch(self) -> str:
        return f"{self._prefix}-switch"

    def namespace(self, number: int) -> str:
        """Return the name of a host's network namespace, for ip-netns(8) and tc(8)."""
        return f"{self._prefix}-{number}"

    @staticmethod
    def address(number: int) -> str:
        """Return a host's address."""
        return f"10.77.0.{10 + number}"

    def command(self, number: int, *command: str) -> list[str]:
        """Return the command line that runs a command on a host."""
        # Not `ip netns exec`, which mounts /sys anew: it hides /sys/fs/cgroup, which slurmd insists on.
        enter = ("nsenter", f"--net=/run/netns/{self.namespace(number)}", "unshare", "--uts", "--mount")
        become = 'mount --bind "$0" /etc/hosts && hostname "$1" && shift && exec "$@"'
        return [*enter, "sh", "-c", become, str(self._names), f"n{number}", *command]

    def cut(self, number: int) -> None:
        """Pull a host's cable at the switch: its link stays up, and every packet is lost without a word."""
        _ip("-n", self._switch, "link", "set", f"p{number}", "nomaster")

    def heal(self, number: int) -> None:
        """Put it back."""
        _ip("-n", self._switch, "link", "set", f"p{number}", "master", "br0")

    def pids(self, number: int) -> list[int]:
        """Return the processes on a host."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace(number)).split()]

    def power_off(self, number: int) -> None:
        """Kill every process on a host."""

        def is_empty() -> bool:
            pids = [pid for pid in self.pids(number) if alive(pid)]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        until(is_empty, f"the end of all on host {number}")

    def remove(self) -> None:
        """Leave nothing of them, whatever there is."""
        made = {path.name for path in Path("/run/netns").glob("*")}
        for number in range(self.count + 1):
            if self.namespace(number) in made:
                self.power_off(number)
        for space in made & {*map(self.namespace, range(self.count + 1)), self._switch}:
            _ip("netns", "delete", space)


@contextlib.contextmanager
def hosts_in(directory: Path, count: int) -> Iterator[Hosts]:
    """Lend hosts, and remove them after use."""
    hosts = Hosts(directory, count)
    try:
        hosts.set_up()
        yield hosts
    finally:
        hosts.remove()


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
