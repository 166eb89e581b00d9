"""Workers of a root master that are not root: who they are, what they can still do, and that none is root by mistake."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import Bench, alive, state, until
from pyworkers._posix.identity import identity_of
from pyworkers.errors import UsageError

if os.geteuid() != 0:
    pytest.skip("only root can become somebody else", allow_module_level=True)

NOBODY = pwd.getpwnam("nobody")
STRANGER = next(uid for uid in range(54321, 60000) if all(entry.pw_uid != uid for entry in pwd.getpwall()))

# What a worker needs is loaded here: the user that it becomes may have no right to read the standard library.
WHO = """
import json, traceback

def who():
    umask = os.umask(0)
    os.umask(umask)
    try:
        os.setuid(0)
        back = True
    except PermissionError:
        back = False
    names = ("HOME", "USER", "LOGNAME", "SHELL", "PATH")
    return {
        "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "umask": umask, "back": back,
        "environ": {name: os.environ.get(name) for name in names},
    }

def say(where):
    print(json.dumps([where, who()]), flush=True)
"""

SLEEPERS = (
    WHO
    + """
app = App("shop")

@app.worker(pins=range(2))
def sell(pin):
    say("worker")
    app.sleep(1000)
"""
)


def told(text: str) -> dict[str, Any]:
    """Return what was said, by where."""
    return dict(json.loads(line) for line in text.splitlines())


@pytest.mark.parametrize("spelling", ["name", "number"])
def test_workers_are_the_user_and_the_master_stays_root(spelling: str, bench: Bench) -> None:
    """All ids, the groups, the variables; in every place where code of the user's runs; and there is no way back."""
    user = "nobody" if spelling == "name" else str(NOBODY.pw_uid)
    bench.app(
        WHO
        + """
app = App("shop", restart="never", spares=1)

@app.on_start
def start(): say("start")

@app.on_worker_warm
def warm(): say("warm")

@app.on_worker_start
def up(pin): say("up")

@app.worker(pins=0)
def sell():
    say("worker")
    return 5

@app.on_worker_exit
def leave(pin): say("exit")

@app.on_failure
def tell(record): say("failure")

@app.on_stop
def stop(): say("stop")
"""
    )
    ended = bench.run(
        "shop:app", "--user", user, "--umask", "027", env={"HOME": "/root", "USER": "root", "SHELL": "/x"}
    )
    assert ended.returncode == 1, ended.stderr
    said = told(ended.stdout)

    assert set(said) == {"start", "warm", "up", "worker", "exit", "failure", "stop"}
    for where in ("warm", "up", "worker", "exit", "failure"):
        found = said[where]
        assert found["uids"] == [NOBODY.pw_uid] * 3, where
        assert found["gids"] == [NOBODY.pw_gid] * 3, where
        assert set(found["groups"]) == set(os.getgrouplist("nobody", NOBODY.pw_gid)), where
        assert found["umask"] == 0o027, where
        assert not found["back"], where
        assert found["environ"] == {
            "HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody", "SHELL": NOBODY.pw_shell,
            "PATH": os.environ["PATH"],
        }, where  # fmt: skip
    for where in ("start", "stop"):
        assert said[where]["uids"] == [0] * 3
        assert said[where]["umask"] != 0o027
        assert said[where]["environ"]["HOME"] == "/root"


def test_group_beats_that_of_the_user(bench: Bench) -> None:
    """By name; alone, it changes the group and not the user."""
    other = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, NOBODY.pw_gid))
    bench.app(WHO + 'app = App()\n@app.worker(pins=0)\ndef sell(): say("worker")\n')
    both = told(bench.run("shop:app", "--user=nobody", f"--group={other.gr_name}").stdout)["worker"]
    alone = told(bench.run("shop:app", env={"PYWORKERS_GROUP": str(other.gr_gid)}).stdout)["worker"]

    assert (both["uids"], both["gids"]) == ([NOBODY.pw_uid] * 3, [other.gr_gid] * 3)
    assert other.gr_gid in both["groups"]
    assert (alone["uids"], alone["gids"]) == ([0] * 3, [other.gr_gid] * 3)
    assert alone["environ"]["USER"] == os.environ.get("USER")


def test_number_without_a_name_has_no_home(bench: Bench) -> None:
    """And no groups but the one that it needs to be given."""
    bench.app(WHO + 'app = App()\n@app.worker(pins=0)\ndef sell(): say("worker")\n')
    found = told(bench.run("shop:app", f"--user={STRANGER}", "--group=54321", env={"HOME": "/root"}).stdout)["worker"]

    assert (found["uids"], found["gids"], found["groups"]) == ([STRANGER] * 3, [54321] * 3, [54321])
    assert [found["environ"][name] for name in ("HOME", "USER", "LOGNAME", "SHELL")] == [None] * 4


def test_umask_alone_is_for_workers_only(bench: Bench) -> None:
    """Nobody changes who he is."""
    bench.app(
        WHO + 'app = App()\n@app.on_stop\ndef stop(): say("stop")\n@app.worker(pins=0)\ndef sell(): say("worker")\n'
    )
    said = told(bench.run("shop:app", "--umask=0").stdout)

    assert (said["worker"]["umask"], said["worker"]["uids"]) == (0, [0] * 3)
    assert said["stop"]["umask"] != 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--user=nosuchuser"], "--user nosuchuser is no user of this system"),
        (["--group=nosuchgroup"], "--group nosuchgroup is no group of this system"),
        ([f"--user={STRANGER}"], f"--user {STRANGER} is not in the user database, which would name its group"),
        (["--user=nobody", "--only=0", "--inline"], "--inline runs the handler in this very process"),
        (["--umask=8"], "--umask must be a mode in octal"),
    ],
)
def test_what_cannot_be_is_one_line_and_code_2(arguments: list[str], line: str, bench: Bench) -> None:
    """Before anything is started."""
    bench.app(SLEEPERS + '\n@app.on_start\ndef start(): (here / "started").touch()\n')
    ended = bench.run("shop:app", *arguments)

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"pyworkers: error: {line}")
    assert ended.stderr.count("\n") == 1
    assert not (bench.directory / "started").exists()


def in_child(function: Callable[[], str], uid: int) -> str:
    """Return what a function returns in a process of that user."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writer, function().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


def test_who_is_not_root_can_only_stay_who_he_is() -> None:
    """An error that says so; but no error where there is nothing to change, as under a unit with User= of its own."""

    def attempt(user: str | None, group: str | None) -> str:
        try:
            return repr(identity_of(user, group, None))
        except UsageError as error:
            return str(error)

    me = str(STRANGER)
    assert in_child(lambda: attempt("nobody", None), STRANGER) == (
        f"--user needs a master that was started as root, and this one is user {STRANGER}"
    )
    assert in_child(lambda: attempt(None, "0"), STRANGER).startswith("--group needs a master that was started as root")
    assert in_child(lambda: attempt("0", None), STRANGER).startswith("--user needs a master")
    assert in_child(lambda: attempt(me, me), STRANGER) == "None"


def test_no_worker_is_root_where_the_kernel_refuses(bench: Bench) -> None:
    """Here the master has given up the right to change its user; the handler is never called."""
    bench.app(
        WHO
        + """
import ctypes

@(app := App("shop", max_restarts=1, backoff=(0.01, 0.01), spares=1)).on_start
def give_up():
    # capset(2): no CAP_SETUID and no CAP_SETGID, now and for good.
    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
    class Data(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = Header(0x20080522, 0), (Data * 2)()
    assert libc.capget(ctypes.byref(header), data) == 0
    for name in ("effective", "permitted", "inheritable"):
        setattr(data[0], name, getattr(data[0], name) & ~(1 << 6 | 1 << 7))
    assert libc.capset(ctypes.byref(header), data) == 0

@app.on_worker_warm
def warm(): say("warm")

@app.worker(pins=0)
def sell(): say("worker")

@app.on_failure
def tell(record): say("failure")
"""
    )
    ended = bench.run("shop:app", "--user=nobody")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ERROR cannot become user nobody: Operation not permitted; no worker starts as anybody else" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "worker ended sell pin=0" in ended.stderr


def test_streams_can_be_opened_again(bench: Bench) -> None:
    """/dev/stderr and /dev/stdout are what many a logger is told to open; with prefixed output, too."""
    for arguments in ([], ["--prefix-output"]):
        bench.app(
            """
            app = App()

            @app.worker(pins=0)
            def sell():
                for name in ("stdout", "stderr"):
                    with open(f"/dev/{name}", "w") as stream:
                        stream.write(f"by {name}\\n")
            """
        )
        ended = bench.run("shop:app", "--user=nobody", *arguments)

        assert ended.returncode == 0, ended.stderr
        assert "by stdout\n" in ended.stdout
        assert "by stderr\n" in ended.stderr


def test_terminal_and_file_keep_their_owner(bench: Bench) -> None:
    """Only a pipe is lent."""
    bench.app(SLEEPERS)
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--user=nobody", stdout=out.fileno())
    until(lambda: bench.read("out").count("worker") == 2, "both")

    assert (bench.directory / "out").stat().st_uid == 0
    assert master.log_path.stat().st_uid == 0
    assert master.stop() == 0


def test_everything_else_works_for_another_user(bench: Bench) -> None:
    """Respawn, spares, marks in shared memory, USR1, stop_all, the log."""
    bench.app(
        """
        app = App("shop", spares=1, lock_file=here / "lock")

        @app.on_worker_warm
        def warm():
            app.log.info("warm as %d", os.getuid())

        @app.on_signal(signal.SIGUSR1)
        def leave():
            app.log.info("told in generation %d after %s", app.generation, app.previous.cause)
            app.stop_all(7)

        @app.worker(pins=0)
        def sell():
            for number in app.track(range(1000)):
                app.unit(f"page {number}")
                app.sleep(1000 if number else 0)
        """
    )
    master = bench.start(None, "--user=nobody")
    master.await_log(f"warm as {NOBODY.pw_uid}", 2)
    (spare,) = master.await_log(r"worker started sell spare=0 pid=(\d+)")
    until(lambda: state(int(spare[1])) == "S", "the spare to wait")
    until(lambda: "page 1" in [row.unit for row in master.status()], "the second page")
    os.kill(master.worker(0), signal.SIGKILL)
    assert master.worker(0, 2) == int(spare[1])
    assert master.matches("unit='page 1' done=1/1000")
    master.await_log("spare=0", 2)
    master.signal(signal.SIGUSR1)

    assert master.wait() == 7
    assert master.matches(r"told in generation \d+ after signal=SIGKILL")


def test_hang_of_another_user_leaves_its_stacks(bench: Bench) -> None:
    """The probe, the dump and the interrupt reach it."""
    bench.app(
        """
        app = App("shop", hang_timeout=0.3)

        @app.worker(pins=0)
        def sell():
            app.checkpoint()
            if app.previous is None:
                time.sleep(1000)
        """
    )
    master = bench.start(None, "--user=nobody")

    assert master.wait() == 0
    assert master.matches(r'stack sell pin=0 pid=\d+:   File ".*shop\.py", line \d+ in sell')
    assert master.matches("cause=hang")


def test_master_that_dies_takes_them_along(bench: Bench) -> None:
    """The parent-death signal is armed after the change that clears it; the successor can end them, too."""
    bench.app(SLEEPERS)
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--user=nobody", stdout=out.fileno())
    until(lambda: bench.read("out").count("worker") == 2, "both")
    workers = master.workers()
    master.process.kill()
    master.wait()

    until(lambda: not any(alive(pid) for pid in workers), "the end of the workers", 8)


def test_it_is_a_process_of_the_user_in_proc(bench: Bench) -> None:
    """So that a debugger or a core dump of the user's works as for any other process of his."""
    bench.app(SLEEPERS)
    with (bench.directory / "out").open("wb") as out:
        master = bench.start(None, "--user=nobody", stdout=out.fileno())
    until(lambda: bench.read("out").count("worker") == 2, "both")

    assert {Path(f"/proc/{pid}/stat").stat().st_uid for pid in master.workers()} == {NOBODY.pw_uid}
    invited = int(Path(f"/proc/{master.pid}/oom_score_adj").read_text()) + 100
    scores = [Path(f"/proc/{pid}/oom_score_adj") for pid in master.workers()]
    until(lambda: all(int(score.read_text()) == invited for score in scores), "the invitation of the OOM killer")
    assert master.stop() == 0
