"""Where log lines go: stderr and syslog, blocked, broken, gone and back."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import Bench, state, until
from pyworkers._handler import JournalHandler
from pyworkers._logs import Journal
from pyworkers._sinks import BACKLOG_MAX, StderrSink, SyslogSink

CRASH_LOOP = """
app = App(backoff=(0.001, 0.001))

@app.worker(pins=range(20))
def crash(pin: int) -> None:
    with (here / "deaths").open("a") as out:
        out.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def read_all(descriptor: int) -> str:
    """Read what a pipe holds now."""
    os.set_blocking(descriptor, False)
    chunks = []
    while select.select([descriptor], [], [], 0)[0] and (chunk := os.read(descriptor, 65536)):
        chunks.append(chunk)
    return b"".join(chunks).decode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe; whoever still has an end at the end closes it."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_line_has_time_name_pid_level(pipe: tuple[int, int]) -> None:
    """One write for a line, in the documented form."""
    sink = StderrSink("shop", pipe[1])
    sink.emit(logging.WARNING, "worker ended")
    sink.close()

    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} shop\[{os.getpid()}\] WARNING worker ended\n", read_all(pipe[0])
    )


def test_inherited_description_stays_blocking(pipe: tuple[int, int]) -> None:
    """O_NONBLOCK belongs to the description: the shell's and the workers' stderr must not get it."""
    sink = StderrSink("shop", pipe[1])

    assert os.get_blocking(pipe[1])
    assert not os.get_blocking(sink.dump_descriptor())
    assert fcntl.fcntl(sink.dump_descriptor(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    sink.close()


def test_stalled_reader_gets_what_fits_and_the_count_of_the_rest(pipe: tuple[int, int]) -> None:
    """G6: never blocked, order kept, and dropped lines are counted exactly."""
    sink = StderrSink("shop", pipe[1])
    for number in range(5000):
        sink.emit(logging.INFO, f"line {number} {'x' * 50}")
    assert sink.waiting() is not None

    text = ""
    while sink.waiting() is not None:
        text += read_all(pipe[0])
        sink.flush()
    text += read_all(pipe[0])
    sink.close()

    numbers = [int(found) for found in re.findall(r"line (\d+)", text)]
    (dropped,) = re.findall(r"WARNING log lines dropped count=(\d+);", text)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + int(dropped) == 5000
    assert len(text) > BACKLOG_MAX
    assert all(line.count("shop[") == 1 for line in text.splitlines())


def test_patient_worker_loses_nothing_to_a_slow_reader(pipe: tuple[int, int]) -> None:
    """A worker waits for room, so a burst reaches a reader that merely is slow."""
    sink = StderrSink("shop", pipe[1])
    child = os.fork()
    if child == 0:
        for number in range(4000):
            sink.emit(logging.INFO, f"line {number} {'x' * 50}")
        sink.flush()
        os._exit(0)
    os.close(pipe[1])
    sink.close()
    text = ""
    while chunk := os.read(pipe[0], 4096):
        text += chunk.decode()
    os.waitpid(child, 0)

    assert [int(found) for found in re.findall(r"line (\d+)", text)] == list(range(4000))


def test_broken_pipe_and_full_disk_are_survived(pipe: tuple[int, int]) -> None:
    """G6: lines that nobody can take are counted; nothing is raised, and nothing is waited for."""
    sink = StderrSink("shop", pipe[1])
    os.close(pipe[0])
    sink.emit(logging.INFO, "into the void")
    assert sink.waiting() is None
    sink.close()

    full = os.open("/dev/full", os.O_WRONLY)
    sink = StderrSink("shop", full)
    sink.emit(logging.INFO, "no space left on device")
    assert sink.waiting() is None
    sink.close()
    os.close(full)


def test_regular_file_shares_its_offset(tmp_path: Path) -> None:
    """`2>log` without append: master and workers must not overwrite each other."""
    with (tmp_path / "log").open("wb", buffering=0) as log:
        sink = StderrSink("shop", log.fileno())
        sink.emit(logging.INFO, "one")
        log.write(b"two\n")
        sink.emit(logging.INFO, "three")
        sink.close()

    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()] == ["one", "two", "three"]


def test_stderr_on_a_stream_socket() -> None:
    """As under systemd, where stderr is a socket: written without blocking, too."""
    ours, theirs = socket.socketpair()
    sink = StderrSink("shop", theirs.fileno())
    for number in range(20_000):
        sink.emit(logging.INFO, f"line {number}")
    assert sink.waiting() is not None
    assert ours.recv(65536).count(b"\n") > 10
    ours.close()
    sink.close()
    theirs.close()


@pytest.mark.timeout(120)
def test_instance_with_a_stalled_reader_goes_on_and_stops(bench: Bench) -> None:
    """G6: 1,000 deaths behind `| reader that has stopped reading` are all respawned, and a stop still ends in time."""
    reader, writer = os.pipe()
    master = bench.start(CRASH_LOOP, stderr=writer)
    os.close(writer)
    until(lambda: len(bench.read("deaths")) >= 1000, "1,000 deaths", 50)

    text = ""

    def dropped() -> list[str]:
        nonlocal text
        text += read_all(reader)
        return re.findall(r"log lines dropped count=(\d+)", text)

    assert until(dropped, "the count of dropped lines")
    # The reader stalls again, and the master is stopped against it.
    deaths = len(bench.read("deaths"))
    until(lambda: len(bench.read("deaths")) >= deaths + 300, "300 more deaths")
    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 8 + 1
    os.close(reader)


def test_master_on_a_terminal_logs_to_it(bench: Bench) -> None:
    """A terminal gets the lines, and its flags stay what they were."""
    controller, terminal = pty.openpty()
    bench.app("app = App()\n\n@app.worker(pins=0)\ndef work(): ...\n")
    master = bench.start(None, stderr=terminal)

    assert master.wait() == 0
    assert os.get_blocking(terminal)
    assert b"all workers finished; master exits" in os.read(controller, 65536)
    os.close(terminal)
    os.close(controller)


# syslog


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The receiving end of a syslog daemon, at a path of its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "dev-log"))
        server.settimeout(10)
        yield str(tmp_path / "dev-log"), server


def test_syslog_line_is_rfc_3164(daemon: tuple[str, socket.socket]) -> None:
    """Priority with facility daemon, timestamp, ident[pid]: as syslog(3) writes it."""
    sink = SyslogSink("shop", daemon[0])
    sink.emit(logging.WARNING, "worker ended crawl pin=4")
    sink.emit(logging.INFO, "next")
    sink.close()

    line = daemon[1].recv(4096).decode()
    assert re.fullmatch(
        rf"<28>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d shop\[{os.getpid()}\]: worker ended crawl pin=4", line
    )
    assert daemon[1].recv(4096).startswith(b"<30>")


def test_syslog_daemon_that_was_restarted_is_found_again(tmp_path: Path, daemon: tuple[str, socket.socket]) -> None:
    """G6: gone, lines are counted; back, the count comes first."""
    path, first = daemon
    sink = SyslogSink("shop", path)
    sink.emit(logging.INFO, "one")
    first.recv(4096)
    first.close()
    Path(path).unlink()
    sink.emit(logging.INFO, "lost")
    assert sink.waiting() is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(path)
        second.settimeout(10)
        sink.emit(logging.INFO, "two")
        assert second.recv(4096).endswith(b": two")
        assert b"log lines dropped count=1" in second.recv(4096)
    sink.close()


def test_syslog_daemon_that_does_not_read_blocks_nobody(daemon: tuple[str, socket.socket]) -> None:
    """A full socket is waited for by poll, not by send."""
    sink = SyslogSink("shop", daemon[0])
    for number in range(3000):
        sink.emit(logging.INFO, f"line {number} {'x' * 50}")
    assert sink.waiting() is not None

    got = []
    while sink.waiting() is not None:
        got.append(daemon[1].recv(4096))
        sink.flush()
    daemon[1].setblocking(False)
    while select.select([daemon[1]], [], [], 0)[0]:
        got.append(daemon[1].recv(4096))
    sink.close()
    (dropped,) = re.findall(rb"dropped count=(\d+)", b"\n".join(got))
    assert len(got) - 1 + int(dropped) == 3000


def test_syslog_over_udp_and_over_a_stream(tmp_path: Path) -> None:
    """HOST:PORT is UDP; a path with a stream socket works as with syslog(3)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        sink = SyslogSink("shop", f"127.0.0.1:{server.getsockname()[1]}")
        sink.emit(logging.INFO, "by udp")
        assert server.recv(4096).endswith(b": by udp")
        sink.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "stream"))
        server.listen()
        sink = SyslogSink("shop", str(tmp_path / "stream"))
        sink.emit(logging.INFO, "by stream")
        sink.close()
        with server.accept()[0] as connection:
            assert connection.recv(4096).endswith(b": by stream\0")


def test_oversized_line_is_cut_for_a_datagram(daemon: tuple[str, socket.socket]) -> None:
    """What no datagram can hold arrives shortened instead of not at all."""
    sink = SyslogSink("shop", daemon[0])
    sink.emit(logging.INFO, "x" * 60_000)
    sink._patience_s = 0
    assert daemon[1].recv(70_000).endswith(b"x")
    sink.close()


def test_message_that_cannot_be_formatted_is_no_error(
    pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad log call tells on itself the way logging does."""
    journal = Journal(StderrSink("shop", pipe[1]))
    JournalHandler(journal).handle(logging.LogRecord("shop", logging.INFO, __file__, 1, "%d", ("no number",), None))
    journal.close()

    assert "Logging error" in capsys.readouterr().err


def test_missing_syslog_falls_back_to_stderr_with_one_warning(bench: Bench) -> None:
    """Where there is no daemon, logs go to stderr, and one line says so."""
    bench.app("app = App()\n\n@app.worker(pins=0)\ndef work(): ...\n")

    finished = bench.run("shop:app", f"--syslog={bench.directory}/none")

    assert finished.returncode == 0
    assert finished.stderr.count("no syslog at") == 1
    assert "worker ended work" in finished.stderr


def test_second_instance_without_syslog_says_nothing(bench: Bench) -> None:
    """Cron mails each line that a job prints, and would do so each minute."""
    first = bench.start("app = App(lock_file=here / 'lock')\n\n@app.worker(pins=0)\ndef work(): app.sleep(3600)\n")
    first.await_log("worker started")

    second = bench.run("shop:app", f"--syslog={bench.directory}/none")

    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_app_log_reaches_syslog_with_handler_pin_and_pid(bench: Bench, tmp_path: Path) -> None:
    """A worker's line carries who said it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log.sock"))
        server.settimeout(10)
        bench.app(
            """
            app = App("shop")

            @app.worker(pins=4)
            def sell() -> None:
                app.log.debug("not shown")
                app.log.info("sold %d", 3)
            """
        )
        finished = bench.run("shop:app", f"--syslog={tmp_path}/log.sock")
        lines = [server.recv(4096).decode() for _ in range(4)]

    assert (finished.returncode, finished.stderr) == (0, "")
    pid = re.findall(r"worker started sell pin=4 pid=(\d+)", "\n".join(lines))[0]
    assert any(line.endswith(f"shop[{pid}]: sell pin=4: sold 3") for line in lines)


RSYSLOG = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"


@pytest.mark.skipif(not Path(RSYSLOG).exists(), reason="rsyslog is not installed (Debian: rsyslog)")
def test_real_syslog_daemon_at_dev_log(bench: Bench) -> None:
    """A real rsyslogd, at /dev/log where the machine has none, files our lines under ident, pid and facility."""
    ours = os.geteuid() == 0 and not Path("/dev/log").exists()
    address = "/dev/log" if ours else f"{bench.directory}/log.sock"
    config = bench.directory / "rsyslog.conf"
    config.write_text(
        f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{address}" CreatePath="on")\n'
        f'template(name="t" type="string" string="%syslogfacility-text%.%syslogseverity-text% %syslogtag%%msg%\\n")\n'
        f'*.* action(type="omfile" file="{bench.directory}/messages" template="t")\n'
    )
    daemon = subprocess.Popen([RSYSLOG, "-n", "-f", str(config), "-i", str(bench.directory / "rsyslog.pid")])
    try:
        until(lambda: Path(address).exists(), "rsyslogd")
        bench.app("app = App('shop')\n\n@app.worker(pins=4)\ndef sell():\n    app.log.warning('sold out')\n")
        flag = "--syslog" if ours else f"--syslog={address}"
        assert bench.run("shop:app", flag).stderr == ""
        text = bench.await_text("messages", "all workers finished; master exits")
    finally:
        daemon.terminate()
        daemon.wait(20)
        if ours:
            Path("/dev/log").unlink(missing_ok=True)

    assert re.search(r"^daemon\.info shop\[\d+\]: worker started sell pin=4 pid=\d+$", text, re.MULTILINE)
    assert re.search(r"^daemon\.warning shop\[\d+\]: sell pin=4: sold out$", text, re.MULTILINE)


@pytest.mark.skipif(not Path(RSYSLOG).exists(), reason="rsyslog is not installed (Debian: rsyslog)")
def test_real_syslog_daemon_that_is_restarted_hears_the_rest(bench: Bench) -> None:
    """By its socket and by UDP: the instance goes on meanwhile, finds the next daemon, and loses only what was in between."""
    address = f"{bench.directory}/log.sock"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = bench.directory / "rsyslog.conf"
    config.write_text(
        'module(load="imuxsock" SysSock.Use="off")\nmodule(load="imudp")\n'
        f'input(type="imuxsock" Socket="{address}" CreatePath="on")\n'
        f'input(type="imudp" Address="127.0.0.1" Port="{port}")\n'
        f'*.* action(type="omfile" file="{bench.directory}/messages")\n'
    )

    @contextlib.contextmanager
    def daemon(nth: int) -> Iterator[None]:
        process = subprocess.Popen([RSYSLOG, "-n", "-f", str(config), "-i", str(bench.directory / f"pid.{nth}")])
        try:
            until(lambda: bench.read(f"pid.{nth}") and Path(address).exists(), "rsyslogd")
            yield
        finally:
            process.terminate()
            process.wait(20)

    bench.app("app = App(lock_file=here / os.environ['LOCK'])\n\n@app.worker(pins=0)\ndef sell(): app.sleep(3600)\n")
    with daemon(1):
        instances = [
            bench.start(None, "--name", name, f"--syslog={where}", env={"LOCK": name})
            for name, where in (("by-socket", address), ("by-udp", f"127.0.0.1:{port}"))
        ]
        for name in ("by-socket", "by-udp"):
            until(
                lambda name=name: re.search(rf"{name}\[.*worker started", bench.read("messages")),
                "the first daemon's line",
            )  # type: ignore[misc]
    for instance in instances:
        instance.signal(signal.SIGHUP)
    with daemon(2):
        for instance, name in zip(instances, ("by-socket", "by-udp"), strict=True):
            assert instance.stop() == 0
            until(
                lambda name=name: re.search(rf"{name}\[.*master exits", bench.read("messages")),
                "the next daemon's line",
            )  # type: ignore[misc]


# The idle master


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (Debian: strace)")
def test_idle_instance_makes_no_system_call(bench: Bench) -> None:
    """Idle costs nothing: no tick, no poll with a timeout; strace sees the master sleep through."""
    work = "def work(pin):\n    (here / f'up.{pin}').touch()\n    app.sleep(3600)\n"
    master = bench.start(f"app = App()\n\n@app.worker(pins=range(5))\n{work}")
    until(lambda: len(list(bench.directory.glob("up.*"))) == 5, "five workers")
    master.await_log("worker started", 5)
    # What they said when they came up has woken it: it sleeps again when it has heard them.
    until(lambda: state(master.pid) == "S", "the master to sleep")
    trace = bench.directory / "trace"
    with subprocess.Popen(["strace", "-o", str(trace), "-p", str(master.pid)], stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        if b"attached" not in tracer.stderr.readline():
            pytest.skip("strace may not attach here (ptrace_scope)")
        # The one duration that is the fact itself; `nox -s fire` watches for ten seconds.
        with pytest.raises(subprocess.TimeoutExpired):
            tracer.wait(2)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)

    calls = [
        line for line in trace.read_text().splitlines() if "restart_syscall" not in line and "detached" not in line
    ]
    assert [call for call in calls if not call.startswith("poll(")] == []
    assert len(calls) <= 1
    assert master.stop() == 0


UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}
"""Where a run is measured for its coverage, each of its Pythons loads more, and opens more, than the program does."""

SILENT = """
app = App(lock_file=here / "lock")

@app.worker(pins=0)
def work() -> None:
    (here / "loaded").write_text(str(sorted({"logging", "threading", "socket"} & sys.modules.keys())))
"""


def silent(source: str) -> str:
    """Return the source for a module that imports nothing but `App`, as a program file does not: the bench's head does."""
    return "import sys\nfrom pathlib import Path\nfrom pyworkers import App\nhere = Path(__file__).parent\n" + source


@pytest.mark.parametrize("arguments", [(), ("--if-running=wait", "--debug")])
def test_program_that_does_not_ask_for_it_loads_neither_logging_nor_threading(bench: Bench, arguments) -> None:
    """Their at-fork functions would run in each child; the master's own lines do without."""
    (bench.directory / "shop.py").write_text(silent(SILENT))

    finished = bench.run("shop:app", *arguments, env=UNMEASURED)

    assert finished.returncode == 0
    assert bench.read("loaded") == "[]"
    assert len(re.findall(r"\S+ \S+ shop\[\d+\] INFO worker \w+ work pin=0 pid=\d+", finished.stderr)) == 2


@pytest.mark.parametrize(
    "use",
    [
        "app.log.info('said')",
        "helper()",
        "Helper().log_it()",
        "[app.log.info(word) for word in ['said']]",
    ],
)
def test_program_that_asks_for_the_logger_has_it_before_the_fork(bench: Bench, use: str) -> None:
    """Once in the master, and not in each worker; found in helpers, classes and nested code."""
    (bench.directory / "shop.py").write_text(
        silent(
            f"""
app = App()

def helper() -> None:
    app.log.info("said")

class Helper:
    def log_it(self) -> None:
        app.log.info("said")

@app.on_start
def look() -> None:
    (here / "loaded").write_text(str("logging" in sys.modules))

@app.worker(pins=0)
def work() -> None:
    {use}
"""
        )
    )

    finished = bench.run("shop:app")

    assert bench.read("loaded") == "True"
    assert re.search(r"\] INFO work pin=0: said\n", finished.stderr)


def test_logger_that_nobody_has_foreseen_works_all_the_same(bench: Bench) -> None:
    """A wrong guess costs the worker the import; level, prefix and traceback are as ever."""
    (bench.directory / "shop.py").write_text(
        silent(
            """
app = App()

@app.worker(pins=0)
def work() -> None:
    assert "logging" not in sys.modules
    log = getattr(app, "lo" + "g")
    log.debug("not said")
    log.info("said")
    raise ValueError("odd")
"""
        )
    )

    finished = bench.run("shop:app", "--restart=never")

    assert finished.returncode == 1
    assert re.search(r"\] INFO work pin=0: said\n", finished.stderr)
    assert "not said" not in finished.stderr
    assert re.search(r"\] ERROR work pin=0: handler work raised\n.*\] ERROR work pin=0: Traceback", finished.stderr)
    assert re.search(r"\] ERROR work pin=0: ValueError: odd\n", finished.stderr)


def test_error_of_a_program_without_logging_is_told_with_its_traceback(bench: Bench) -> None:
    """In the worker, and in the master's hooks."""
    (bench.directory / "shop.py").write_text(
        silent(
            """
app = App(restart="never")

@app.worker(pins=0)
def work() -> None:
    raise ValueError("odd")

@app.on_stop
def stop() -> None:
    raise LookupError("lost")
"""
        )
    )

    finished = bench.run("shop:app")

    assert re.search(r"\] ERROR work pin=0: handler work raised\n.*\] ERROR work pin=0: Traceback", finished.stderr)
    assert re.search(r"\] ERROR work pin=0: ValueError: odd\n", finished.stderr)
    assert re.search(r"\] ERROR on_stop raised\n.*\] ERROR Traceback \(most recent call last\):\n", finished.stderr)
    assert re.search(r"\] ERROR LookupError: lost\n", finished.stderr)


def test_handlers_of_the_app_s_own_logger_get_the_master_s_lines(bench: Bench) -> None:
    """Who has loaded logging can lead all lines to where he wants them, before he ever asks for `app.log`."""
    bench.app(
        """
import logging

app = App("shop")
lines = logging.getLogger("pyworkers.shop")
lines.addHandler(logging.FileHandler(here / "lines"))

@app.worker(pins=0)
def work() -> None:
    return None
"""
    )

    assert bench.run("shop:app").returncode == 0
    assert bench.read("lines").startswith("worker started work pin=0 pid=")
    assert bench.read("lines").endswith("all workers finished; master exits\n")


def test_error_is_told_where_no_descriptor_is_left_to_load_the_traceback_with(bench: Bench) -> None:
    """The line, the place and the error are in the log, and the worker ends cleanly all the same."""
    (bench.directory / "shop.py").write_text(
        silent(
            """
import os
app = App(restart="never")

@app.worker(pins=0)
def work() -> None:
    assert "traceback" not in sys.modules
    taken = []
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))

@app.on_worker_exit
def leave(pin: int) -> None:
    os.write(2, b"left\\n")
"""
        )
    )

    finished = bench.run("shop:app", env=UNMEASURED)

    assert finished.returncode == 1
    assert re.search(r"\] ERROR work pin=0: handler work raised\n", finished.stderr)
    assert re.search(r'\] ERROR work pin=0:   File ".*shop.py", line \d+, in work\n', finished.stderr)
    assert re.search(r"\] ERROR work pin=0: OSError: \[Errno 24\] Too many open files", finished.stderr)
    assert "left\n" in finished.stderr


def test_threads_that_ask_for_the_logger_at_once_get_one_handler(bench: Bench) -> None:
    """Each line comes once, and none is lost to a logger that leads nowhere yet."""
    (bench.directory / "shop.py").write_text(
        silent(
            """
import threading
sys.setswitchinterval(1e-6)
app = App()

@app.worker(pins=range(5))
def work(pin: int) -> None:
    barrier = threading.Barrier(8)

    def talk(number: int) -> None:
        barrier.wait()
        getattr(app, "lo" + "g").info("said %d", number)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
        )
    )

    finished = bench.run("shop:app")

    said = re.findall(r"work pin=(\d): said (\d)\n", finished.stderr)
    assert sorted(said) == [(str(pin), str(number)) for pin in range(5) for number in range(8)]


def test_logging_that_on_start_has_loaded_gets_the_master_s_lines(bench: Bench) -> None:
    """What was loaded late is led all the same, before the first worker is there."""
    (bench.directory / "shop.py").write_text(
        silent(
            """
app = App("shop")

@app.on_start
def start() -> None:
    import logging
    logging.getLogger("pyworkers.shop").addHandler(logging.FileHandler(here / "lines"))

@app.worker(pins=0)
def work() -> None:
    return None
"""
        )
    )

    assert bench.run("shop:app").returncode == 0
    assert bench.read("lines").startswith("worker started work pin=0 pid=")
