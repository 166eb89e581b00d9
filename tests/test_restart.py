"""The restart policy in a real instance: who is followed by a new worker, how soon, how often, and with which code."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

import pytest

from helpers import Bench, Instance, until

TELL = """
def nth(pin):
    with (here / f"runs.{pin}").open("a") as out:
        out.write("x")
    return (here / f"runs.{pin}").stat().st_size

def until(name):
    while not (here / name).exists():
        app.sleep(0.01)

@app.on_failure
def tell(record):
    with (here / "told").open("a") as out:
        out.write(f"{record.pin} {record.cause} {record.attempt}\\n")
"""
"""What the apps below share: how often a PIN has run, a wait for a file, and a list of what on_failure was told."""


def start(bench: Bench, options: str, body: str, *arguments: str, env: dict[str, str] | None = None) -> Instance:
    """Start an app with these options, `TELL`, and one handler on PIN 0, beside one on PIN 9 that awaits `go`."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    source = f"app = App({options})\n{TELL}\n@app.worker(pins=0)\ndef work(pin):\n{lines}\n"
    source += "@app.worker(pins=9, restart='on-failure')\ndef bystander():\n    until('go')\n"
    return bench.start(source, *arguments, env=env)


def let_go(bench: Bench) -> None:
    """End the bystander."""
    (bench.directory / "go").touch()


def last_line(master: Instance) -> str:
    """Return the level and the text of the log's last line."""
    return master.log.rstrip().splitlines()[-1].partition("] ")[2]


def test_on_failure_is_the_default_and_replaces_only_who_failed(bench: Bench) -> None:
    """Said or not said: a failure is followed by a new worker, a normal end by none, and the end is a good one."""
    app = """
        @app.worker(pins=0, restart="on-failure")
        def said(pin):
            return 3 if nth(pin) == 1 else 0

        @app.worker(pins=1)
        def unsaid(pin):
            return 3 if nth(pin) == 1 else 0

        @app.worker(pins=2)
        def good(pin):
            nth(pin)
        """
    bench.app(f"app = App()\n{TELL}")
    with (bench.directory / "shop.py").open("a") as out:
        out.write("\n".join(line.removeprefix("        ") for line in app.splitlines()))

    master = bench.start()

    assert master.wait() == 0
    assert [len(bench.read(f"runs.{pin}")) for pin in range(3)] == [2, 2, 1]
    assert sorted(bench.read("told").splitlines()) == ["0 exit=3 1", "1 exit=3 1"]


def test_always_replaces_also_who_ended_normally(bench: Bench) -> None:
    """A normal end under always is INFO, no failure to tell of, and backs off like any short life."""
    master = start(
        bench,
        "restart='always', backoff=(0.4, 0.4)",
        """
with (here / "begun").open("a") as out:
    out.write(f"{time.monotonic()}\\n")
if nth(pin) == 3:
    os._exit(7)
""",
    )
    # Failures are told in their order: had a normal end been told of, it would stand before this one.
    bench.await_text("told", "0 exit=7 3")
    master.worker(0, attempt=5)

    ends = [found[1] for found in master.matches(r"((?:INFO|WARNING) worker ended work .*)")]
    begun = [float(line) for line in bench.read("begun").splitlines()]
    assert bench.read("told") == "0 exit=7 3\n"
    assert [end.split()[0] for end in ends[:4]] == ["INFO", "INFO", "WARNING", "INFO"]
    assert [end.rpartition("; ")[2].split(" in ")[0] for end in ends[:4]] == ["respawning now", *3 * ["respawning"]]
    # The delay is 0.4 s with a jitter that takes half of it at most.
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(begun[1:]))
    assert master.stop() == 0


def test_never_gives_up_after_the_first_failure(bench: Bench) -> None:
    """Each abnormal end is the last of its PIN, the others go on, and the last line and the code name the failed."""
    bench.app(
        f"""
app = App(restart="never")
{TELL}
@app.worker(pins=3)
def by_code(pin):
    return 41

@app.worker(pins=1)
def by_signal(pin):
    os.kill(os.getpid(), signal.SIGSEGV)

@app.worker(pins=0)
def good(pin):
    until("go")

@app.worker(pins=2)
def by_exception(pin):
    raise ValueError
"""
    )
    master = bench.start()
    master.await_log(r"ERROR worker ended by_code pin=3 pid=\d+ exit=41 after=\S+; failed, for restart=never")
    master.await_log(r"ERROR worker ended by_signal pin=1 pid=\d+ signal=SIGSEGV after=\S+; failed, for restart=never")
    master.await_log(r"ERROR worker ended by_exception pin=2 pid=\d+ exit=1 after=\S+; failed, for restart=never")
    assert master.process.poll() is None
    let_go(bench)

    assert master.wait() == 1
    assert last_line(master) == "ERROR all workers ended failed=1,2,3; master exits code=1"
    assert [len(master.started(pin)) for pin in range(4)] == [1, 1, 1, 1]
    assert sorted(bench.read("told").splitlines()) == ["1 signal=SIGSEGV 1", "2 exit=1 1", "3 exit=41 1"]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_restart_intensity_gives_up_after_exactly_so_many_restarts(bench: Bench, most: int) -> None:
    """The failure after the last restart allowed is the last, is told of like the others, and fails this PIN alone."""
    master = start(bench, f"max_restarts={most}, backoff=(0.001, 0.001)", "return 9")
    master.await_log(r"ERROR worker ended work pin=0 pid=\d+ exit=9 after=\S+; failed, for max_restarts is reached")
    bench.await_text("told", "\n", most + 1)
    assert master.process.poll() is None
    let_go(bench)

    assert master.wait() == 1
    assert len(master.started(0)) == most + 1
    assert len(master.matches("WARNING worker ended work .*; respawning")) == most
    assert bench.read("told").splitlines() == [f"0 exit=9 {attempt}" for attempt in range(1, most + 2)]
    assert last_line(master) == "ERROR all workers ended failed=0; master exits code=1"


def test_restart_intensity_forgets_what_is_older_than_the_period(bench: Bench) -> None:
    """A restart that is older than restart_period does not count; the next one does again."""
    master = start(bench, "max_restarts=1, restart_period=2", "if nth(pin) == 2:\n    time.sleep(2.1)\nreturn 9")
    let_go(bench)

    assert master.wait() == 1
    assert len(master.started(0)) == 3


def test_restart_intensity_counts_normal_ends_under_always(bench: Bench) -> None:
    """Who is replaced after normal ends, too, can fail by them; the one that has cost the PIN is told of."""
    master = start(bench, "restart='always', max_restarts=2, backoff=(0.001, 0.001)", "return 0")
    let_go(bench)

    assert master.wait() == 1
    assert len(master.started(0)) == 3
    assert master.matches(
        r"ERROR worker ended work pin=0 pid=\d+ exit=0 after=\S+; failed, for max_restarts is reached"
    )
    assert bench.read("told") == "0 exit=0 3\n"


@pytest.mark.parametrize("restart", ["on-failure", "always"])
@pytest.mark.parametrize("how", ["return 78", "sys.exit(78)", "os._exit(78)"])
def test_permanent_failure_code_is_followed_by_nobody(bench: Bench, how: str, restart: str) -> None:
    """However the code came about and whatever the policy: failed at once, told, and the others go on."""
    master = start(bench, f"permanent_failure_codes=(77, 78), restart={restart!r}", how)
    master.await_log(
        r"ERROR worker ended work pin=0 pid=\d+ exit=78 after=\S+; failed, for this is a permanent failure code"
    )
    bench.await_text("told", "\n")
    assert master.process.poll() is None
    let_go(bench)

    assert master.wait() == 1
    assert len(master.started(0)) == 1
    assert bench.read("told") == "0 exit=78 1\n"
    assert last_line(master) == "ERROR all workers ended failed=0; master exits code=1"


def test_permanent_failure_code_comes_at_any_attempt(bench: Bench) -> None:
    """Other failures before it are restarted as ever, and it is told of with its own attempt."""
    master = start(
        bench,
        "permanent_failure_codes=9",
        "if nth(pin) == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\nsys.exit(9)",
    )
    let_go(bench)

    # A death by signal 9 is no exit code 9.
    assert master.wait() == 1
    assert len(master.started(0)) == 2
    assert bench.read("told").splitlines() == ["0 signal=SIGKILL 1", "0 exit=9 2"]


def test_graceful_stop_of_an_instance_with_a_failed_pin_exits_with_1(bench: Bench) -> None:
    """A stop in good order does not make up for a PIN that was given up."""
    master = start(bench, "restart='never'", "return 3")
    master.await_log("failed, for restart=never")

    assert master.stop() == 1
    assert last_line(master) == "ERROR all workers stopped failed=0; master exits code=1"


@pytest.mark.parametrize("code", [77, 0])
def test_code_of_stop_all_wins_over_a_failed_pin(bench: Bench, code: int) -> None:
    """Who asks for a code gets it, 0 included; the last line still names the failed PIN."""
    bench.app(
        f"""
app = App(restart="never")
{TELL}
@app.worker(pins=0)
def bad(pin):
    return 3

@app.worker(pins=1)
def last(pin):
    until("go")
    app.stop_all({code})
    app.sleep(3600)
"""
    )
    master = bench.start()
    master.await_log("failed, for restart=never")
    let_go(bench)

    assert master.wait() == code
    assert last_line(master).startswith("ERROR all workers stopped failed=0; master exits")


def test_stop_during_backoff_under_always_ends_with_0(bench: Bench) -> None:
    """An instance that only ever backs off between normal ends has no failure to report."""
    master = start(bench, "restart='always', backoff=(60, 60)", "return 0")
    master.await_log(r"worker ended work .*; respawning in \d+\.\ds")

    assert master.stop() == 0
    assert len(master.started(0)) == 2


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("normal_exit_codes=(0, 3), permanent_failure_codes=(3, 4)", []),
        ("normal_exit_codes=(0, 3)", ["--permanent-failure-codes=5,3"]),
        ("", ["--permanent-failure-codes=3", "--normal-exit-codes=3"]),
    ],
)
def test_code_that_is_normal_and_a_failure_is_refused_in_one_line(
    bench: Bench, options: str, arguments: list[str]
) -> None:
    """An exit code can mean one thing, wherever the two lists come from."""
    bench.app(f"app = App({options})\n\n@app.worker(pins=0)\ndef work(): ...\n")

    finished = bench.run("shop:app", *arguments)

    assert finished.returncode == 2
    assert finished.stderr.splitlines() == [
        "pyworkers: error: exit code 3 is in normal_exit_codes and in permanent_failure_codes: it can only be in one"
    ]


ELSEWHERE = {
    "restart": ("never", "failed, for restart=never", 1),
    "max_restarts": ("1", "failed, for max_restarts is reached", 2),
    "permanent_failure_codes": ("7,9", "failed, for this is a permanent failure code", 1),
}


@pytest.mark.parametrize("source", ["flag", "variable"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_policy_can_be_set_from_outside(bench: Bench, name: str, source: str) -> None:
    """A flag and a variable say the same as the code."""
    text, reason, starts = ELSEWHERE[name]
    if source == "flag":
        master = start(bench, "", "return 9", f"--{name.replace('_', '-')}={text}")
    else:
        master = start(bench, "", "return 9", env={f"PYWORKERS_{name.upper()}": text})
    let_go(bench)

    assert master.wait() == 1
    assert master.matches(reason)
    assert len(master.started(0)) == starts


@pytest.mark.parametrize("source", ["flag", "variable"])
@pytest.mark.parametrize(("name", "text"), [("restart_period", "0.001"), ("max_restarts", "off")])
def test_limit_of_the_code_can_be_lifted_from_outside(bench: Bench, name: str, text: str, source: str) -> None:
    """A period that is shorter than any life, or no limit at all: either way the PIN never fails."""
    # Each life is longer than the shortest period above.
    body = "time.sleep(0.01)\nreturn 0 if nth(pin) == 4 else 9"
    options = "max_restarts=1, restart_period=60, backoff=(0.001, 0.001)"
    if source == "flag":
        master = start(bench, options, body, f"--{name.replace('_', '-')}={text}")
    else:
        master = start(bench, options, body, env={f"PYWORKERS_{name.upper()}": text})
    let_go(bench)

    assert master.wait() == 0
    assert len(master.started(0)) == 4


def test_worker_that_a_stop_ends_has_not_failed_under_never(bench: Bench) -> None:
    """The stop's own 143 is no abnormal end, whatever the policy."""
    master = start(bench, "restart='never'", "(here / 'up').touch()\ntime.sleep(3600)")
    until((bench.directory / "up").exists, "the worker at work")

    assert master.stop() == 0
    assert last_line(master) == "INFO all workers stopped; master exits"


def test_worker_that_a_person_ends_has_failed_under_never(bench: Bench) -> None:
    """A TERM from outside is an abnormal end like any other."""
    master = start(bench, "restart='never'", "(here / 'up').touch()\napp.sleep(3600)")
    until((bench.directory / "up").exists, "the worker at work")

    os.kill(master.worker(0), signal.SIGTERM)

    master.await_log("exit=143 .*; failed, for restart=never")
    assert master.stop() == 1
