"""A worker's life in a real instance: start, outcome, respawn, environment, streams, hooks."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Bench, alive, clean_environment, until

SLEEPERS = """
app = App()

@app.worker(pins=range(3))
def sleeper(pin: int) -> None:
    (here / f"up.{pin}.{os.getpid()}").touch()
    time.sleep(3600)
"""


def test_killed_worker_is_replaced_under_its_pin(bench: Bench) -> None:
    """G2: an abnormal end is answered by a new process on the same PIN, and only there."""
    master = bench.start(SLEEPERS)
    victim = master.worker(1)

    os.kill(victim, signal.SIGKILL)

    successor = master.worker(1, attempt=2)
    assert successor != victim
    assert len(master.started(0)) == len(master.started(2)) == 1
    line = master.await_log(r"worker ended .*")[0][0]
    assert f"worker ended sleeper pin=1 pid={victim} signal=SIGKILL after=" in line
    assert line.endswith("; respawning now")
    assert master.stop() == 0


def test_master_ends_when_all_workers_ended_normally(bench: Bench) -> None:
    """Normal ends are not respawned, and after the last one the master leaves with 0."""
    master = bench.start(
        """
        app = App(normal_exit_codes=(0, 41))

        @app.worker(pins=0)
        def nothing() -> None: ...

        @app.worker(pins=1)
        def zero(pin: int) -> int:
            return 0

        @app.worker(pins=2)
        def by_code() -> int:
            return 41

        @app.worker(pins=3)
        def by_exit() -> None:
            sys.exit(41)

        @app.worker(pins=4)
        def by_os_exit() -> None:
            os._exit(41)
        """
    )

    assert master.wait() == 0
    assert len(master.matches("worker started")) == 5
    assert len(master.matches("; finished")) == 5
    assert master.log.rstrip().endswith("all workers finished; master exits")


OUTCOMES = {
    "return 7": "exit=7",
    "return True": "exit=1",
    "return 256": "exit=1",
    "return 'done'": "exit=1",
    "sys.exit(3)": "exit=3",
    "sys.exit('no such queue')": "exit=1",
    "sys.exit(256)": "exit=1",
    "sys.exit(-1)": "exit=255",
    "os._exit(9)": "exit=9",
    "raise ValueError('bad page')": "exit=1",
    "raise KeyboardInterrupt": "exit=1",
    "os.abort()": "signal=SIGABRT",
}


@pytest.mark.parametrize("how", OUTCOMES)
def test_abnormal_outcome_is_named_and_respawned(bench: Bench, how: str) -> None:
    """Whatever way out a handler takes, the log names it and the PIN is taken up again."""
    master = bench.start(
        f"""
        app = App()

        @app.worker(pins=0)
        def once():
            marker = here / "second"
            if marker.exists():
                return 0
            marker.touch()
            {how}
        """
    )

    assert master.wait() == 0
    assert f" {OUTCOMES[how]} after=" in master.matches("worker ended .*respawning now")[0][0]
    assert len(master.started(0)) == 2


def test_exception_of_a_handler_is_logged_with_its_pin(bench: Bench) -> None:
    """A traceback reaches the log, each line with handler and PIN."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=4)
        def crash(pin: int) -> None:
            if not (here / "second").exists():
                (here / "second").touch()
                raise ValueError("bad page")
        """
    )

    assert master.wait() == 0
    pid = master.started(4)[0]
    assert master.matches(rf"shop\[{pid}\] ERROR crash pin=4: ValueError: bad page")
    assert master.matches(rf"shop\[{pid}\] ERROR crash pin=4:   File .*shop.py")


def test_worker_knows_who_it_is(bench: Bench) -> None:
    """Environment, app.pin, stdin and directory are as promised; option variables are not inherited."""
    master = bench.start(
        """
        app = App("crawler")

        @app.worker(pins=2)
        def crawl() -> None:
            names = {key: value for key, value in os.environ.items() if key.startswith("PYWORKERS_")}
            (here / "seen").write_text(f"{sorted(names.items())} {app.pin} {sys.stdin.read()!r} {os.getcwd()}")
        """,
        env={"PYWORKERS_STOP_TIMEOUT": "5"},
        stdin=subprocess.PIPE,
    )
    assert master.process.stdin is not None
    with master.process.stdin as stdin:
        stdin.write(b"what the master was given\n")

    assert master.wait() == 0
    assert bench.read("seen") == (
        f"[('PYWORKERS_WORKER_HANDLER', 'crawl'), ('PYWORKERS_WORKER_MASTER_PID', '{master.pid}'),"
        f" ('PYWORKERS_WORKER_NAME', 'crawler'), ('PYWORKERS_WORKER_PIN', '2')] 2 '' {bench.directory}"
    )


PRINTER = """
app = App()

print("from the module, unflushed", end="|")

@app.on_start
def start() -> None:
    print("from on_start, unflushed", end="|")

@app.worker(pins=range(3))
def say(pin: int) -> None:
    print(f"line of {pin}")
    print(f"rest of {pin}", end="|")
"""


@pytest.mark.parametrize("target", ["pipe", "file", "terminal"])
def test_stdout_is_neither_lost_nor_doubled(bench: Bench, target: str) -> None:
    """G5: what master and workers print is there exactly once, whatever stdout is."""
    bench.app(PRINTER)
    command = [sys.executable, "-m", "pyworkers", "shop:app"]
    where = {
        "cwd": bench.directory,
        "env": clean_environment(),
        "stderr": subprocess.PIPE,
        "timeout": 20,
    }
    if target == "terminal":
        controller, terminal = pty.openpty()
        subprocess.run(command, check=True, **where, stdout=terminal)
        os.close(terminal)
        printed = os.read(controller, 65536).decode()
        os.close(controller)
    elif target == "file":
        with (bench.directory / "out").open("w") as out:
            subprocess.run(command, check=True, **where, stdout=out)
        printed = bench.read("out")
    else:
        printed = bench.run("shop:app").stdout

    parts = ["from the module, unflushed|", "from on_start, unflushed|"]
    parts += [f"{what} of {pin}" for pin in range(3) for what in ("line", "rest")]
    assert {part: printed.count(part) for part in parts} == dict.fromkeys(parts, 1)


def test_hooks_run_on_their_side_and_in_order(bench: Bench) -> None:
    """on_start before the first fork, on_worker_start and _exit in the worker, on_stop after the last reap."""
    bench.app(
        """
        app = App()

        def note(what: str) -> None:
            with (here / "order").open("a") as out:
                out.write(f"{what} {os.getpid() == master}\\n")

        master = os.getpid()

        @app.on_start
        def start() -> None:
            note("start")

        @app.on_worker_start
        def worker_start(pin: int) -> None:
            note(f"worker_start {pin}")

        @app.on_worker_exit
        def worker_exit() -> None:
            note("worker_exit")

        @app.on_stop
        def stop() -> None:
            note("stop")

        @app.worker(pins=6)
        def work() -> None:
            note("work")
        """
    )

    assert bench.run("shop:app").returncode == 0
    assert bench.read("order").splitlines() == [
        "start True",
        "worker_start 6 False",
        "work False",
        "worker_exit False",
        "stop True",
    ]


def test_hooks_that_run_subprocesses_keep_their_exit_statuses(bench: Bench) -> None:
    """G2: the master never reaps what is not its own: not in hooks, and not a helper that lives through the run."""
    bench.app(
        """
        import subprocess

        app = App()
        codes = []

        def run(code: int) -> None:
            codes.append(subprocess.run([sys.executable, "-c", f"raise SystemExit({code})"]).returncode)

        @app.on_start
        def start() -> None:
            global helper
            helper = subprocess.Popen([sys.executable, "-c", "raise SystemExit(5)"])
            run(3)

        @app.on_worker_start
        def worker_start(pin: int) -> None:
            run(4)
            (here / f"codes.{pin}").write_text(str(codes))

        @app.worker(pins=range(3))
        def work(pin: int) -> None:
            if not (here / f"second.{pin}").exists():
                (here / f"second.{pin}").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        @app.on_stop
        def stop() -> None:
            run(6)
            codes.append(helper.wait())
            (here / "codes").write_text(str(codes))
        """
    )

    finished = bench.run("shop:app")

    assert finished.returncode == 0, finished.stderr
    assert bench.read("codes") == "[3, 6, 5]"
    assert [bench.read(f"codes.{pin}") for pin in range(3)] == ["[3, 4]"] * 3


def test_on_worker_exit_runs_on_every_way_out_that_python_sees(bench: Bench) -> None:
    """A return, an exception, sys.exit and a stop all pass through on_worker_exit."""
    master = bench.start(
        """
        app = App()

        @app.on_worker_exit
        def bye(pin: int) -> None:
            with (here / "byes").open("a") as out:
                out.write(f"{pin}\\n")

        @app.worker(pins=range(4))
        def leave(pin: int) -> None:
            if pin == 1 and not (here / "second").exists():
                (here / "second").touch()
                raise ValueError
            if pin == 2:
                sys.exit()
            if pin == 3:
                (here / "ready").touch()
                time.sleep(3600)
        """
    )
    until(lambda: bench.read("byes").count("\n") == 4 and (bench.directory / "ready").exists(), "the byes")

    assert master.stop() == 0
    assert sorted(bench.read("byes").split()) == ["0", "1", "1", "2", "3"]


@pytest.mark.parametrize("hook", ["on_worker_start", "on_worker_exit"])
def test_worker_hook_that_raises_makes_the_worker_fail(bench: Bench, hook: str) -> None:
    """What a hook raises is logged, and the worker does not count as ended normally."""
    master = bench.start(
        f"""
        app = App()

        @app.{hook}
        def broken(pin: int) -> None:
            if not (here / "second").exists():
                (here / "second").touch()
                raise RuntimeError("no database")

        @app.worker(pins=0)
        def work() -> None: ...
        """
    )

    assert master.wait() == 0
    assert master.matches("RuntimeError: no database")
    assert master.matches(r"worker ended work pin=0 pid=\d+ exit=1 .*respawning now")


def test_on_start_that_raises_starts_nothing(bench: Bench) -> None:
    """A bad app is code 2, a traceback, and no fork."""
    bench.app(
        """
        app = App()

        @app.on_start
        def broken() -> None:
            raise RuntimeError("no config")

        @app.worker(pins=0)
        def work() -> None: ...
        """
    )

    finished = bench.run("shop:app")

    assert finished.returncode == 2
    assert "RuntimeError: no config" in finished.stderr
    assert "worker started" not in finished.stderr


def test_on_start_that_never_returns_can_be_stopped(bench: Bench) -> None:
    """G3: TERM ends the start, too."""
    master = bench.start(
        """
        app = App()

        @app.on_start
        def slow() -> None:
            (here / "here").touch()
            while True:
                try:
                    time.sleep(3600)
                except Exception:
                    pass

        @app.worker(pins=0)
        def work() -> None: ...
        """
    )
    until((bench.directory / "here").exists, "on_start")

    assert master.stop() == 0
    assert master.matches("stopped in on_start function=slow reason=SIGTERM")


def test_on_stop_that_raises_is_a_failure(bench: Bench) -> None:
    """The exit status reports that on_stop did not do its work."""
    bench.app(
        """
        app = App()

        @app.on_stop
        def broken() -> None:
            raise RuntimeError("not flushed")

        @app.worker(pins=0)
        def work() -> None: ...
        """
    )

    finished = bench.run("shop:app")

    assert finished.returncode == 1
    assert "RuntimeError: not flushed" in finished.stderr


def test_on_failure_is_told_of_each_abnormal_end(bench: Bench) -> None:
    """A record for each, in a process that is no worker, with an exception of one function kept from the next."""
    master = bench.start(
        """
        app = App()

        @app.on_failure
        def broken(record) -> None:
            raise RuntimeError("no mail server")

        @app.on_failure
        def tell(record) -> None:
            with (here / "told").open("a") as out:
                who = (app.pin, os.environ.get("PYWORKERS_WORKER_PIN"), os.environ.get("PYWORKERS_WORKER_HANDLER"))
                out.write(f"{record.pin} {record.handler} {record.cause} {record.attempt} {os.getppid()} {who}\\n")

        @app.worker(pins=7)
        def work() -> None:
            attempt = len(list(here.glob("run.*")))
            (here / f"run.{attempt}").touch()
            if attempt == 0:
                os.kill(os.getpid(), signal.SIGSEGV)
            if attempt == 1:
                os._exit(41)
        """
    )

    assert master.wait() == 0
    assert bench.read("told").splitlines() == [
        f"7 work signal=SIGSEGV 1 {master.pid} (None, None, None)",
        f"7 work exit=41 2 {master.pid} (None, None, None)",
    ]
    assert len(master.matches("RuntimeError: no mail server")) == 2


def test_on_failure_that_hangs_delays_nobody(bench: Bench) -> None:
    """Supervision goes on beside a function that never returns, and a stop ends it."""
    master = bench.start(
        """
        app = App()

        @app.on_failure
        def hang(record) -> None:
            (here / "hook").write_text(str(os.getpid()))
            while True:
                try:
                    time.sleep(3600)
                except BaseException:
                    pass

        @app.worker(pins=0)
        def work() -> None:
            time.sleep(3600)
        """
    )
    os.kill(master.worker(0), signal.SIGKILL)
    os.kill(master.worker(0, attempt=2), signal.SIGKILL)
    hook = int(until(lambda: bench.read("hook"), "the hook"))

    master.worker(0, attempt=3)
    assert master.stop() == 0
    assert not alive(hook)


def test_stop_all_stops_the_instance_with_its_code(bench: Bench) -> None:
    """The original's exitAll: one worker ends all, and the master's exit code says why."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=range(3))
        def work(pin: int) -> None:
            if pin == 2:
                app.stop_all(77)
                os._exit(0)
            time.sleep(3600)
        """
    )

    assert master.wait() == 77
    assert master.matches(r"stopping reason=stop_all pin=2 pid=\d+")


def test_atexit_threads_and_queues_belong_to_the_worker(bench: Bench) -> None:
    """G5: the worker's exit functions and threads run, those that it inherited do not."""
    bench.app(
        """
        import atexit, multiprocessing, tempfile, weakref

        app = App()
        inherited = tempfile.TemporaryDirectory(dir=here)
        queue = multiprocessing.Queue()
        atexit.register(lambda: (here / f"inherited.{os.getpid() == master}").touch())
        master = os.getpid()

        class Thing: ...

        @app.worker(pins=0)
        def feed() -> None:
            for number in range(2000):
                queue.put(number)

        @app.worker(pins=1)
        def take() -> None:
            total = sum(queue.get(timeout=20) for _ in range(2000))
            (here / "total").write_text(str(total))
            assert Path(inherited.name).is_dir()
            atexit.register(lambda: (here / "own").touch())
            thing = Thing()
            weakref.finalize(thing, lambda: (here / "finalized").touch())
            globals()["thing"] = thing
            threading.Thread(target=lambda: (time.sleep(0.2), (here / "thread").touch())).start()
        """
    )

    finished = bench.run("shop:app")

    assert finished.returncode == 0, finished.stderr
    assert bench.read("total") == str(sum(range(2000)))
    names = {path.name for path in bench.directory.iterdir()}
    assert {"own", "finalized", "thread", "inherited.True"} <= names
    assert "inherited.False" not in names


def test_run_from_a_script_returns_the_code_and_never_falls_through(bench: Bench) -> None:
    """G10: only the master goes on after app.run(), with its signals restored."""
    bench.app(
        """
        app = App()

        @app.worker(pins=range(3))
        def work(pin: int) -> int:
            return 0

        if __name__ == "__main__":
            before = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
            code = app.run()
            after = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
            print("after", code, before == after)
            print("again", app.run())
        """
    )

    finished = subprocess.run(
        [sys.executable, "shop.py"], cwd=bench.directory, capture_output=True, text=True, timeout=20, check=False
    )

    assert finished.stdout.splitlines() == ["after 0 True", "again 0"], finished.stderr
    assert "shop[" in finished.stderr


def test_run_inside_a_worker_is_refused(bench: Bench) -> None:
    """A worker that calls app.run() gets an error instead of a second master."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=0)
        def work() -> None:
            (here / "code").write_text(str(app.run()))
        """
    )

    assert master.wait() == 0
    assert bench.read("code") == "2"
    assert master.matches("app.run.. was called inside a worker")


def test_post_mortem_names_the_unit_and_the_progress(bench: Bench) -> None:
    """The master's line says what the dead worker was at."""
    master = bench.start(
        """
        app = App()

        @app.worker(pins=0)
        def work() -> None:
            if (here / "second").exists():
                return
            (here / "second").touch()
            for page in app.track(["a", "b", "c"]):
                app.unit(f"page {page}")
                if page == "c":
                    os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    assert master.wait() == 0
    assert master.matches(r"signal=SIGKILL after=\S+ unit='page c' done=2/3; respawning now")


def test_no_descriptor_of_the_master_reaches_what_a_worker_executes(bench: Bench) -> None:
    """Lock, pipes and log are close-on-exec: what a worker executes has its three streams and nothing else."""
    bench.app(
        """
        import subprocess

        app = App(lock_file=here / "lock")

        @app.worker(pins=0)
        def work() -> None:
            listing = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True).stdout
            (here / "fds").write_text(" ".join(listing.split()))
        """
    )

    assert bench.run("shop:app").returncode == 0
    # ls itself opens the directory, as 3.
    assert bench.read("fds") == "0 1 2 3"


def test_closed_standard_streams_are_no_harm(bench: Bench) -> None:
    """Started with nothing open, as some daemons start their children, an instance runs and locks as ever."""
    bench.app(
        """
        app = App(lock_file=here / "lock")

        @app.worker(pins=0)
        def work() -> None:
            (here / "stdin").write_text(os.readlink("/proc/self/fd/0"))
        """
    )
    command = f"exec {sys.executable} -m pyworkers shop:app <&- >&- 2>&-"

    assert subprocess.run(["sh", "-c", command], cwd=bench.directory, timeout=20, check=False).returncode == 0
    assert bench.read("stdin") == "/dev/null"
    assert Path(bench.directory / "lock").read_text().startswith("pyworkers lock: name=shop master=")


def test_process_that_a_worker_forks_is_a_plain_process(bench: Bench) -> None:
    """A multiprocessing child of a cooperative worker ends by terminate(), and is no worker itself."""
    bench.app(
        """
        import multiprocessing

        app = App()

        def helper(pipe) -> None:
            app.checkpoint()
            pipe.send(app.pin)
            time.sleep(3600)

        @app.worker(pins=3)
        def work() -> None:
            app.checkpoint()
            context = multiprocessing.get_context("fork")
            ours, theirs = context.Pipe()
            child = context.Process(target=helper, args=(theirs,))
            child.start()
            seen = ours.recv()
            child.terminate()
            child.join(10)
            (here / "seen").write_text(f"{seen} {child.exitcode} {app.pin}")
        """
    )

    assert bench.run("shop:app").returncode == 0
    assert bench.read("seen") == "None -15 3"


def test_threads_and_exit_functions_of_on_failure_run(bench: Bench) -> None:
    """A report that a background thread sends is sent: a notice ends as a worker does."""
    master = bench.start(
        """
        import atexit

        app = App()

        @app.on_failure
        def tell(record) -> None:
            atexit.register((here / "atexit").touch)
            threading.Thread(target=lambda: (time.sleep(0.2), (here / "thread").touch())).start()

        @app.worker(pins=0)
        def work() -> None:
            if not (here / "second").exists():
                (here / "second").touch()
                os._exit(1)
        """
    )

    assert master.wait() == 0
    assert (bench.directory / "thread").exists()
    assert (bench.directory / "atexit").exists()


@pytest.mark.parametrize(
    "how",
    [
        "sys.stdout.close()",
        "sys.stdout = type('Tee', (), {'write': len, 'flush': lambda self: None})()",
        "sys.stdout = None",
    ],
)
def test_strange_stdout_is_no_harm(bench: Bench, how: str) -> None:
    """A module that closes or replaces stdout has workers that end normally."""
    bench.app(f"app = App()\n{how}\n\n@app.worker(pins=0)\ndef work(): ...\n")

    finished = bench.run("shop:app")

    assert finished.returncode == 0, finished.stderr
    assert "; finished" in finished.stderr


def test_name_of_a_script_that_is_unfit_for_logs_is_made_fit(bench: Bench) -> None:
    """A default must never be refused."""
    path = bench.directory / "my app [1].py"
    path.write_text("from pyworkers import App\nprint(App())\n")

    finished = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=20, check=True)

    assert "<App 'my_app__1_'" in finished.stdout


def test_code_that_runs_in_the_master_meanwhile_is_in_no_worker(bench: Bench) -> None:
    """A filter of the app's logger and a thread of the master see no PIN, and a wait there ends when it is over."""
    master = bench.start(
        """
        import logging

        app = App("shop")
        seen = set()

        class Look(logging.Filter):
            def filter(self, record):
                (here / "seen").open("a").write(f"{app.pin} {os.environ.get('PYWORKERS_WORKER_PIN')}\\n")
                return True

        @app.on_start
        def start() -> None:
            app.log.addFilter(Look())
            threading.Thread(target=tick, daemon=True).start()

        def tick() -> None:
            master = os.getpid()
            while True:
                app.sleep(0.01)
                (here / "ticks").open("a").write(f"{app.pin} {os.getpid() == master}\\n")

        @app.worker(pins=range(3))
        def work(pin) -> None:
            app.sleep(3600)

        @app.on_stop
        def stop() -> None:
            (here / "stopped").write_text(f"{app.pin} {os.environ.get('PYWORKERS_WORKER_PIN')}")
        """,
        env={"PYWORKERS_WORKER_PIN": "77"},
    )
    for attempt in range(1, 4):
        for pin in range(3):
            os.kill(master.worker(pin, attempt), signal.SIGTERM)
    master.await_log("worker started", 12)
    before = bench.read("ticks").count("\n")
    until(lambda: bench.read("ticks").count("\n") > before + 5, "five more ticks")
    assert master.stop() == 0

    assert set(bench.read("seen").splitlines()) <= {"None None", "None 77"}
    assert "None None" in bench.read("seen").splitlines()
    assert set(bench.read("ticks").splitlines()) == {"None True"}
    assert bench.read("stopped") == "None 77"


def test_name_that_the_environment_cannot_hold_ends_nobody(bench: Bench) -> None:
    """In a C locale a handler may be called what no variable can say: it is spelled out there, and runs."""
    bench.app(
        """
        app = App()

        @app.worker(pins=0)
        def größe() -> None:
            (here / "variable").write_text(ascii(os.environ["PYWORKERS_WORKER_HANDLER"]))
        """
    )

    finished = bench.run("shop:app", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})

    assert finished.returncode == 0
    assert bench.read("variable") == r"'gr\\xf6\xdfe'".replace(r"\xdf", r"\\xdf")
