"""A real cron starts the instance each minute by the line that `export` prints, and only one is ever alive."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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
    # A directory as crontab(5) warns of: a bare percent sign would end the command.
    bench.directory = bench.directory / "50% off"
    bench.directory.mkdir()
    bench.app(
        """
        app = App()

        @app.on_start
        def note() -> None:
            with (here / "starts").open("a") as out:
                out.write(f"{os.getpid()}\\n")

        @app.worker(pins=0)
        def work() -> None:
            app.sleep(3600)
        """,
        # cron sets no runtime directory, so that others find it, too: by a name that is nobody else's.
        module="nightly",
    )
    (line,) = re.findall(r"(?m)^\* \* \* \* \* (.*)", bench.run("export", "cron", "nightly:app").stdout)
    # A table of the system's says who runs the command.
    TABLE.write_text(f"* * * * * root {line} >>out 2>>err; echo $? >>codes\n")
    TABLE.chmod(0o644)
    daemon = subprocess.Popen([CRON, "-f"])
    master = 0
    try:
        master = int(until(lambda: bench.read("starts").strip(), "cron's first start", 100))
        # The next minute's start leaves with 0 and says nothing, for cron would mail it; so does the first one, when the
        # daemon is up.
        until(lambda: bench.read("codes").count("\n") == 2, "cron's second start", 100)
        assert bench.read("codes") == "0\n0\n"
        assert bench.read("starts").split() == [str(master)]
        assert alive(master)
        # The first one may have found no syslog to log to; it says so once.
        assert bench.read("out") == ""
        assert bench.read("err").count("no syslog") == bench.read("err").count("\n") <= 1
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
