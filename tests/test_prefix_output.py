"""What workers print, with handler and PIN before each line: whole, in colour, complete, and never in the master's way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import Bench, Instance, alive, children, state, until

HEAD = r"\d\d:\d\d:\d\d "

SLEEPER = """
app = App("shop")

@app.worker(pins=range(3))
def sell(pin):
    print("open", flush=True)
    app.sleep(1000)
"""


def printer_of(master: Instance) -> int:
    """Return the process that prints: the only child that leads no process group."""

    def found() -> list[int]:
        return [pid for pid in children(master.pid) if alive(pid) and os.getpgid(pid) != pid]

    return until(found, "the process that prints")[0]


def run(bench: Bench, source: str, *arguments: str) -> tuple[list[str], list[str]]:
    """Run an app to its end, and return the lines of stdout and stderr, without their times and the log's."""
    bench.app(source)
    ended = bench.run("shop:app", "--prefix-output", *arguments)
    assert ended.returncode == 0, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if not re.match(r"\d{4}-", line)]
    return [re.sub(f"^{HEAD}", "", line) for line in ended.stdout.splitlines()], [
        re.sub(f"^{HEAD}", "", line) for line in errors
    ]


def test_lines_carry_handler_and_pin_and_keep_their_stream(bench: Bench) -> None:
    """Padded to the longest name; also what a worker has started."""
    out, err = run(
        bench,
        """
        import subprocess
        app = App()

        @app.worker(pins=[0, 12])
        def buy(pin):
            print(f"out {pin}")
            print(f"err {pin}", file=sys.stderr)
            subprocess.run(["sh", "-c", "echo from a shell; echo and its errors >&2"], check=True)

        @app.worker(pins=3)
        def sell():
            print()
        """,
    )

    assert Counter(out) == Counter(
        ["buy.0  | out 0", "buy.12 | out 12", "buy.0  | from a shell", "buy.12 | from a shell", "sell.3 | "]
    )
    assert Counter(err) == Counter(
        ["buy.0  | err 0", "buy.12 | err 12", "buy.0  | and its errors", "buy.12 | and its errors"]
    )


def test_lines_of_many_writers_stay_whole(bench: Bench) -> None:
    """In pieces without a newline, from all of them at once."""
    out, _ = run(
        bench,
        """
        app = App()

        @app.worker(pins=range(8))
        def sell(pin):
            for number in range(200):
                for part in (b"begin ", b"%d " % pin, b"%d " % number, b"end\\n"):
                    os.write(1, part)
        """,
    )

    assert len(out) == 1600
    for pin in range(8):
        mine = [line for line in out if line.startswith(f"sell.{pin}")]
        assert mine == [f"sell.{pin} | begin {pin} {number} end" for number in range(200)]


def test_tails_long_lines_and_bytes(bench: Bench) -> None:
    """Without a newline at the end; longer than any buffer; not text at all."""
    bench.app(
        """
        app = App()

        @app.worker(pins=0)
        def tail():
            os.write(1, b"one\\ntwo")
            os.kill(os.getpid(), signal.SIGKILL) if app.previous is None else None

        @app.worker(pins=1)
        def long():
            os.write(1, b"x" * 300_000 + b"\\nshort\\n")

        @app.worker(pins=2)
        def odd():
            os.write(1, bytes(byte for byte in range(256) if byte != 10) + b"\\n\\r\\n")
        """
    )
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--prefix-output", stdout=out.fileno())
    assert master.wait() == 0

    lines = (bench.directory / "out").read_bytes().split(b"\n")
    mine = {
        name: [line[9:].partition(b"| ")[2] for line in lines if line[9:].startswith(name)]
        for name in (b"tail.0", b"long.1", b"odd.2")
    }
    # Of two processes, no order is promised.
    assert sorted(mine[b"tail.0"]) == [b"one", b"one", b"two", b"two"]
    assert b"".join(mine[b"long.1"][:-1]) == b"x" * 300_000
    assert all(len(piece) <= 2 * 65536 for piece in mine[b"long.1"])
    assert mine[b"long.1"][-1] == b"short"
    assert mine[b"odd.2"] == [bytes(byte for byte in range(256) if byte != 10), b"\r"]
    assert sum(map(len, mine.values())) == len(lines) - 1


def test_output_of_dead_workers_is_not_lost(bench: Bench) -> None:
    """Each writes a pipe full, and is gone at once."""
    out, _ = run(
        bench,
        """
        app = App(backoff=(0.001, 0.001), restart="on-failure")

        @app.worker(pins=range(4))
        def sell(pin):
            attempt = 1 if app.previous is None else app.previous.attempt + 1
            os.write(1, b"".join(b"%d %d %03d\\n" % (pin, attempt, number) for number in range(500)))
            os.kill(os.getpid(), signal.SIGKILL) if attempt < 10 else None
        """,
    )

    said = Counter(line.partition("| ")[2] for line in out)
    assert said == Counter(
        f"{pin} {attempt} {number:03}" for pin in range(4) for attempt in range(1, 11) for number in range(500)
    )


def on_terminal(bench: Bench, source: str, done: Callable[[str], bool], **environment: str) -> str:
    """Run an app on a terminal until what is printed there is enough, and return that."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    bench.app(source)
    master = bench.start(
        None, "--prefix-output", stdout=terminal, stderr=terminal, env={"TERM": "xterm", "NO_COLOR": "", **environment}
    )
    text = ""

    def enough() -> bool:
        nonlocal text
        while select.select([controller], [], [], 0)[0]:
            text += os.read(controller, 65536).decode()
        return done(text)

    until(enough, "the output")
    assert master.stop() == 0
    os.close(terminal)
    os.close(controller)
    return text


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_pins_have_colours_on_a_terminal(environment: dict[str, str], coloured: bool, bench: Bench) -> None:
    """Each its own, and the line itself has none; unless somebody does not want them."""
    text = on_terminal(bench, SLEEPER, lambda text: text.count("open") == 3, **environment)

    for pin, colour in enumerate(("36", "33", "32")):
        name = f"{HEAD}sell\\.{pin} \\| "
        assert re.search(f"\x1b\\[{colour}m{name}\x1b\\[0mopen\r\n" if coloured else f"(?m)^{name}open\r\n", text), text
    assert ("\x1b[" in text) is coloured


def test_order_of_stdout_and_stderr_is_kept_where_they_are_one(bench: Bench) -> None:
    """As on a terminal, where both go the same way."""
    text = on_terminal(
        bench,
        """
        app = App()

        @app.worker(pins=0)
        def sell():
            for number in range(500):
                os.write(1 + number % 2, b"number %d\\n" % number)
            app.sleep(1000)
        """,
        lambda text: "number 499" in text,
    )

    assert [int(number) for number in re.findall(r"number (\d+)", text)] == list(range(500))


def test_flood_and_stalled_reader_never_delay_supervision(bench: Bench) -> None:
    """Nobody reads; the one that writes waits, and a hundred others die and are replaced meanwhile."""
    reader, writer = os.pipe()
    master = bench.start(
        """
        app = App(backoff=(0.001, 0.001))

        @app.worker(pins=0)
        def flood():
            while True:
                os.write(1, b"x" * 100 + b"\\n")
                with (here / "written").open("a") as out:
                    out.write("x")

        @app.worker(pins=range(1, 4))
        def crash(pin):
            print("here I am")
            sys.exit(5)
        """,
        "--prefix-output",
        stdout=writer,
    )
    os.close(writer)
    flooder = master.worker(0)
    until(lambda: len(bench.read("written")) > 1000, "the flood")
    begun = len(master.matches("worker ended crash"))
    master.await_log("worker ended crash", begun + 100)
    until(lambda: state(flooder) == "S", "the writer to wait")
    before = len(bench.read("written"))

    stopped_at = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - stopped_at < 8 + 2
    assert len(bench.read("written")) < before + 100_000
    os.close(reader)


def test_stop_waits_for_the_last_word(bench: Bench) -> None:
    """Ctrl-C reaches the whole group, and what on_worker_exit prints is still printed, before the master has ended."""
    bench.app(
        SLEEPER
        + """
@app.on_worker_exit
def leave(pin):
    time.sleep(0.2)
    print("last words")
"""
    )
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--prefix-output", stdout=out.fileno(), start_new_session=True)
    until(lambda: bench.read("out").count("open") == 3, "all to be open")
    printer = printer_of(master)
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
        os.kill(printer, signum)
    os.killpg(master.pid, signal.SIGINT)

    assert master.wait() == 0
    assert bench.read("out").count("last words") == 3
    assert not alive(printer)


def test_orphans_are_heard_and_the_printer_leaves_with_them(bench: Bench) -> None:
    """The master is killed: its workers finish a unit and say so; nobody holds the lock after that."""
    bench.app(
        """
        app = App("shop", lock_file=here / "lock")

        @app.worker(pins=range(2))
        def sell(pin):
            print("open", flush=True)
            while True:
                app.checkpoint()
                with app.critical():
                    time.sleep(0.5)
                    print("unit done", flush=True)
        """
    )
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--prefix-output", stdout=out.fileno())
    until(lambda: bench.read("out").count("open") == 2, "all to be open")
    printer = printer_of(master)
    assert str(bench.directory / "lock") not in {
        os.readlink(entry) for entry in Path(f"/proc/{printer}/fd").iterdir() if entry.is_symlink()
    }
    done = bench.read("out").count("unit done")
    master.process.kill()
    master.wait()

    until(lambda: not alive(printer), "the end of the printer")
    assert bench.read("out").count("unit done") >= done + 2


def test_printer_that_dies_costs_the_prefix_and_no_pin(bench: Bench) -> None:
    """Who comes after it writes where the master does, and a warning says why."""
    bench.app(SLEEPER)
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--prefix-output", stdout=out.fileno())
    until(lambda: bench.read("out").count("open") == 3, "all to be open")
    os.kill(printer_of(master), signal.SIGKILL)
    os.kill(master.worker(1), signal.SIGKILL)
    until(lambda: bench.read("out").splitlines()[-1] == "open", "a line without a prefix")

    assert len(master.matches("WARNING sell pin=1: output is not prefixed")) == 1
    assert master.stop() == 0


def test_reader_that_leaves_is_the_end_of_its_writers(bench: Bench) -> None:
    """`| head -1`: as without us, whoever writes on finds a broken pipe."""
    bench.app(
        """
        app = App(restart="never")

        @app.worker(pins=0)
        def sell():
            while True:
                os.write(1, b"line\\n")
        """
    )
    reader, writer = os.pipe()
    master = bench.start(None, "--prefix-output", stdout=writer)
    os.close(writer)
    assert b"sell.0 | line" in os.read(reader, 4096)
    os.close(reader)

    assert master.wait() == 1
    assert master.matches("BrokenPipeError")


def test_spare_has_the_name_of_its_seat_until_it_has_a_pin(bench: Bench) -> None:
    """Then that of the PIN, by the same pipe; and a notice has its own."""
    bench.app(
        """
        app = App(spares=1)

        @app.on_worker_warm
        def load():
            print("warm", flush=True)

        @app.on_failure
        def tell(record):
            print("failed", record.pin, flush=True)

        @app.worker(pins=4)
        def sell():
            print("open", flush=True)
            app.sleep(1000)
        """
    )
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--prefix-output", stdout=out.fileno())
    until(lambda: "sell.spare | warm" in bench.read("out") and "| open" in bench.read("out"), "both")
    (spare,) = master.await_log(r"worker started sell spare=0 pid=(\d+)")
    until(lambda: state(int(spare[1])) == "S", "the spare to wait")
    os.kill(master.worker(4), signal.SIGKILL)
    until(lambda: bench.read("out").count("sell.4     | open") == 2, "the line of who was a spare")
    until(lambda: "on_failure | failed 4" in bench.read("out"), "the notice")

    assert master.worker(4, 2) == int(spare[1])
    assert master.stop() == 0


def test_printer_leaves_when_descendants_do_not(bench: Bench) -> None:
    """A process that has escaped its worker keeps its pipe, and keeps nobody from the end."""
    bench.app(
        """
        import subprocess
        app = App()

        @app.worker(pins=0)
        def sell():
            print(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
        """
    )
    reader, writer = os.pipe()
    begun = time.monotonic()
    master = bench.start(None, "--prefix-output", stdout=writer)
    os.close(writer)
    assert master.wait() == 0
    assert time.monotonic() - begun < 8

    text = b""
    while chunk := os.read(reader, 4096):
        text += chunk
    os.close(reader)
    os.kill(int(text.partition(b"| ")[2]), signal.SIGKILL)


def test_off_it_costs_nothing(bench: Bench) -> None:
    """No process, no pipe, and workers have the master's own streams."""
    bench.app(SLEEPER)
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, stdout=out.fileno())
    until(lambda: bench.read("out").count("open") == 3, "all to be open")

    assert len(children(master.pid)) == 3
    assert {os.readlink(f"/proc/{pid}/fd/1") for pid in master.workers()} == {str(bench.directory / "out")}
    assert master.stop() == 0


def test_daemon_has_nothing_to_print_to(bench: Bench) -> None:
    """One line, code 2."""
    bench.app(SLEEPER)
    ended = bench.run("shop:app", "--prefix-output", "--daemon")

    assert ended.returncode == 2
    assert "--prefix-output and --daemon exclude each other" in ended.stderr


def test_many_workers_and_few_descriptors(bench: Bench) -> None:
    """The master has no descriptor more for them; the printer takes what it may have."""
    bench.app(
        """
        app = App()

        @app.worker(pins=range(100))
        def sell(pin):
            print("open", flush=True)
            print("open", flush=True, file=sys.stderr)
            app.sleep(1000)
        """
    )

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 1000))

    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--prefix-output", stdout=out.fileno(), preexec_fn=limited)
    until(lambda: bench.read("out").count("| open") == 100, "all to be open")
    assert len(list(Path(f"/proc/{master.pid}/fd").iterdir())) < 30
    with contextlib.suppress(subprocess.TimeoutExpired):
        assert master.stop() == 0
