"""A real cron starts the instance each minute, and only one is ever alive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Bench, alive, until

CRON = shutil.which("cron") or "/usr/sbin/cron"
TABLE = Path("/etc/cron.d/pyworkers-test")


@pytest.mark.fire
@pytest.mark.skipif(
    not Path(CRON).exists() or os.geteuid() != 0, reason="needs root and cron (Debian: cron), to install a crontab"
)
def test_real_cron_keeps_a_single_instance(bench: Bench) -> None:
    """The second start finds the lock and leaves without a word; after a kill the next one starts."""
    bench.app(
        """
        app = App(lock_file=here / "lock")

        @app.on_start
        def note() -> None:
            with (here / "starts").open("a") as out:
                out.write(f"{os.getpid()}\\n")

        @app.worker(pins=0)
        def work() -> None:
            app.sleep(3600)
        """
    )
    command = f"cd {bench.directory} && {sys.executable} -m pyworkers shop:app >>out 2>>err; echo $? >>codes"
    TABLE.write_text(f"* * * * * root {command}\n")
    TABLE.chmod(0o644)
    daemon = subprocess.Popen([CRON, "-f"])
    master = 0
    try:
        master = int(until(lambda: bench.read("starts").strip(), "cron's first start", 100))
        # The next minute's start leaves with 0 and says nothing, for cron would mail it.
        until(lambda: bench.read("codes"), "cron's second start", 100)
        assert bench.read("codes") == "0\n"
        assert bench.read("starts").split() == [str(master)]
        assert alive(master)
        assert "already running" not in bench.read("err")
        os.kill(master, 9)
        until(lambda: len(bench.read("starts").split()) == 2, "cron's start after the kill", 100)
        master = int(bench.read("starts").split()[1])
    finally:
        TABLE.unlink()
        daemon.kill()
        daemon.wait()
        if master:
            os.kill(master, 15)
            until(lambda: not alive(master), "the last instance's end")
