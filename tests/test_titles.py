"""Who is who for ps(1), where setproctitle is installed; and where it is not, or is broken."""

from __future__ import annotations

import importlib.machinery
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Bench, alive, children, state, until

if importlib.machinery.PathFinder.find_spec("setproctitle") is None:
    pytest.skip("setproctitle is not installed", allow_module_level=True)

APP = """
app = App("shop", spares=1, stop_timeout=5)

@app.worker(pins=range(3, 5))
def sell(pin):
    app.sleep(1000)

@app.on_failure
def tell(record):
    app.sleep(1000)
"""


def title(pid: int) -> str:
    """Return what ps(1) shows."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def name(pid: int) -> str:
    """Return what top(1) shows, and killall(1) takes."""
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def titles(master: int) -> list[str]:
    """Return those of a master and its children."""
    return sorted(title(pid) for pid in (master, *children(master)) if alive(pid))


def test_titles_say_who_is_who(bench: Bench) -> None:
    """Master, workers, spares, notices and the process that prints; a spare that gets a PIN has its title."""
    master = bench.start(APP, "--prefix-output")
    rest = ["pyworkers: master shop", "pyworkers: output", "pyworkers: worker shop sell pin=3"]
    calm = [*rest, "pyworkers: worker shop sell pin=4", "pyworkers: worker shop sell spare"]
    until(lambda: titles(master.pid) == calm, "all titles")
    (spare,) = master.await_log(r"worker started sell spare=0 pid=(\d+)")
    # Only one that is warm, and waits, gets a PIN.
    until(lambda: state(int(spare[1])) == "S", "the spare to wait")
    os.kill(master.worker(4), signal.SIGKILL)
    until(lambda: titles(master.pid) == sorted([*calm, "pyworkers: on_failure"]), "the same again, and a notice")

    until(lambda: title(int(spare[1])) == "pyworkers: worker shop sell pin=4", "the title of who was a spare")
    # With a blank in it, programs that read /proc/PID/stat by its blanks would miss the process.
    until(lambda: {name(pid) for pid in (master.pid, *children(master.pid))} == {"pyworkers"}, "names of one word")
    assert master.stop() == 0


def test_title_is_given_back(bench: Bench) -> None:
    """To a program that goes on after app.run()."""
    bench.app(
        """
        app = App("shop")

        def title():
            return Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0")

        def name():
            return Path("/proc/self/comm").read_text()

        @app.worker(pins=0)
        def sell():
            print(title())

        if __name__ == "__main__":
            before, name_before = title(), name()
            app.run()
            print(title() == before.replace(b"\\0", b" ") and name() == name_before)
        """
    )
    ended = subprocess.run([sys.executable, "shop.py"], cwd=bench.directory, capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines() == ["b'pyworkers: worker shop sell pin=0'", "True"]


def test_name_that_no_title_can_hold(bench: Bench) -> None:
    """A function may be called anything."""
    bench.app(
        """
        app = App("shop")

        def sell():
            print(ascii(Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").decode()))

        sell.__name__ = "a b\\udc80\\u00e9"
        app.worker(pins=0)(sell)
        """
    )

    assert bench.run("shop:app").stdout == "'pyworkers: worker shop a b\\\\udc80\\xe9 pin=0'\n"


def test_argument_that_is_no_text_costs_the_title_and_nothing_else(bench: Bench) -> None:
    """A file's name may be any bytes, and setproctitle cannot bring such an argument back."""
    bench.app("app = App()\n@app.worker(pins=0)\ndef sell():\n    print('sold')")
    command = [sys.executable.encode(), b"-m", b"pyworkers", b"shop:app", b"--lock-file", b"caf\xe9.lock"]
    ended = subprocess.run(command, cwd=bench.directory, capture_output=True, text=True, check=False, timeout=20)

    assert (ended.returncode, ended.stdout) == (0, "sold\n"), ended.stderr


@pytest.mark.parametrize("state", ["without its C part", "with one that cannot be loaded"])
def test_broken_setproctitle_is_no_error(state: str, bench: Bench) -> None:
    """Titles are a nicety."""
    package = bench.directory / "setproctitle"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('must not be loaded')")
    if state != "without its C part":
        (package / f"_setproctitle{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    bench.app("app = App()\n@app.worker(pins=0)\ndef sell():\n    print(Path('/proc/self/cmdline').read_bytes())")
    ended = bench.run("shop:app")

    assert ended.returncode == 0, ended.stderr
    assert "shop:app" in ended.stdout


@pytest.mark.parametrize("loads", ["", "import setproctitle"])
def test_no_logging_is_loaded_for_it(loads: str, bench: Bench) -> None:
    """Its C part alone; and the module itself where the program has it already."""
    bench.app(
        f"""
        {loads}
        app = App("shop")

        @app.worker(pins=0)
        def sell():
            print("logging" in sys.modules, Path("/proc/self/cmdline").read_bytes()[:16])
        """
    )

    assert bench.run("shop:app").stdout == f"{bool(loads)} b'pyworkers: worke'\n"
