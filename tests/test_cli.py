"""The command line: every bad input that it can see is one line and code 2 before anything forks; and what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from helpers import Bench
from pyworkers import cli

GOOD = """
    app = App("shop", stop_timeout=5)

    @app.worker(pins=range(2))
    def crawl(pin):
        (here / "forked").write_text("yes")
        return 40 + pin

    @app.worker(pins=4, stop_timeout=2)
    async def report():
        return 7
"""


def refused(bench: Bench, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run the command line; check that it refused in one line, forked nothing, and return that line."""
    done = bench.run(*arguments, env=env)

    assert done.returncode == 2, done
    assert done.stdout == ""
    assert re.fullmatch(r"pyworkers: error: [^\n]+\n", done.stderr), done.stderr
    assert not (bench.directory / "forked").exists()
    return done.stderr.removeprefix("pyworkers: error: ").rstrip("\n")


# Import strings


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("shop", "expected an import string 'module:attribute', got 'shop'; did you mean 'shop:app'?"),
        ("shop:", "did you mean 'shop:app'?"),
        (":app", "did you mean 'module:app'?"),
        (":", "expected an import string"),
        ("", "expected an import string"),
        ("shop.py:app", "'shop.py' is a file, expected a module; did you mean 'shop:app'?"),
        ("./shop.py:app", "did you mean 'shop:app'?"),
        ("inner/deep.py:app", "did you mean 'inner.deep:app'?"),
        ("shop.py", "did you mean 'shop:app'?"),
        ("nowhere:app", "cannot import app from 'nowhere:app': there is no module 'nowhere' in "),
        ("nowhere.deep:app", "there is no module 'nowhere' in "),
        ("shop.deep:app", "module 'shop.deep'"),
        (".shop:app", "'.shop'"),
        ("shop:ap", "cannot import app from 'shop:ap': module 'shop' has no attribute 'ap'; did you mean 'app'?"),
        ("shop:app.", "has no attribute ''"),
        ("shop:here", "'shop:here' is not an App but "),
        ("shop:App", "'shop:App' is not an App but "),
        ("shop:app.run", "'shop:app.run' is not an App but "),
        ("two\nlines:app", "there is no module"),
    ],
)
def test_bad_import_string_is_one_line(bench: Bench, target: str, words: str) -> None:
    """Each way in which an import string can be wrong has its own line, with the spelling to use."""
    bench.app(GOOD)

    assert words in refused(bench, target)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module_here", "module 'bad' failed to import: ModuleNotFoundError: No module named 'no_such_"),
        ("import bad.inner", "module 'bad' failed to import: ModuleNotFoundError: No module named 'bad.inner'"),
        ("def broken(:\n    pass", "module 'bad' failed to import: SyntaxError: "),
        ("1 / 0", "module 'bad' failed to import: ZeroDivisionError: division by zero ("),
        ("raise RuntimeError('two\\nlines')", "module 'bad' failed to import: RuntimeError: two lines ("),
        ("import sys; sys.exit(3)", "module 'bad' called sys.exit(3) while it was imported ("),
        ("import sys; sys.exit('good\\nbye')", "module 'bad' called sys.exit('good\\nbye') while it was imported ("),
        ("app = 5", "'bad:app' is not an App but 5 (int)"),
        ("def __getattr__(name):\n    raise RuntimeError('boom')", "RuntimeError"),
        ("from pyworkers import App\napp = App('two words')", "name of App must be "),
        ("from pyworkers import App\napp = App(stop_timeot=1)", "App has no option 'stop_timeot'"),
        (
            "from pyworkers import App\napp = App()\n@app.worker\ndef crawl(pin): ...",
            "@app.worker needs parentheses: write @app.worker(pins=...) above 'crawl'",
        ),
        (
            "from pyworkers import App\napp = App()\n@app.worker(pins=0)\ndef crawl(pin):\n    yield",
            "worker 'crawl' is a generator",
        ),
        ("from pyworkers import App\napp = App()\napp.worker(pins=[])(print)", "pins of worker 'print' are empty"),
    ],
)
def test_module_that_fails_is_one_line_with_its_place(bench: Bench, source: str, words: str) -> None:
    """A module that cannot be imported is one line which says why, and where in the user's code."""
    (bench.directory / "bad.py").write_text(source + "\n")

    line = refused(bench, "bad:app")

    assert words in line
    if "not an App" not in line and "__getattr__" not in source:
        assert re.search(r"bad\.py:\d+\)", line), line


def test_module_that_fails_importing_another_names_the_place(bench: Bench) -> None:
    """Where an import inside an import fails, the line tells the module asked for and the place that failed."""
    (bench.directory / "bad.py").write_text("import helper_of_bad\n")
    (bench.directory / "helper_of_bad.py").write_text("x = 1\nimport no_such_module_here\n")

    line = refused(bench, "bad:app")

    assert line.startswith("module 'bad' failed to import: ModuleNotFoundError")
    assert "helper_of_bad.py:2)" in line


def test_debug_shows_the_traceback_of_a_module_that_fails(bench: Bench) -> None:
    """With --debug or PYWORKERS_DEBUG, the traceback stands above the line."""
    (bench.directory / "bad.py").write_text("1 / 0\n")

    for done in (bench.run("bad:app", "--debug"), bench.run("bad:app", env={"PYWORKERS_DEBUG": "yes"})):
        assert done.returncode == 2
        assert done.stderr.startswith("Traceback (most recent call last)")
        assert done.stderr.splitlines()[-1].startswith("pyworkers: error: module 'bad' failed to import")


def test_current_directory_is_looked_into_first(bench: Bench) -> None:
    """The current directory comes before everything else on the path, as with gunicorn and uvicorn."""
    elsewhere = bench.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "shop.py").write_text("raise RuntimeError('the wrong one')\n")
    bench.app(GOOD)

    assert bench.run("check", "shop:app", env={"PYTHONPATH": str(elsewhere)}).returncode == 0


# The PINs


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "no worker is registered"),
        ("app.worker(pins=range(3))(a)\napp.worker(pins=[4, 2])(b)", "pins of worker 'b' overlap worker 'a' at 2"),
        ("app.worker()(a)\napp.worker()(b)", "workers 'a' and 'b' both have no pins"),
        ("app.worker()(a)", "worker 'a' has no pins, so it takes what is left of range(workers)"),
        ("app.worker(pins=0)(a)\napp.worker(pins=[])(b)", "pins of worker 'b' are empty"),
        ("app.worker(pins=-1)(a)", "pins of worker 'a' must not be negative, got -1"),
        ("app.worker(pins=[1, 1])(a)", "pins of worker 'a' name PIN 1 twice"),
        ("app.worker(pins=True)(a)", "pins of worker 'a' must be ints, got True (bool)"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check"])
def test_pins_that_do_not_add_up_are_one_line(bench: Bench, verb: str, source: str, words: str) -> None:
    """Whatever is wrong with the PINs is found before anything forks, by `check` as by `run`."""
    body = f"from pyworkers import App\napp = App('shop')\ndef a(): ...\ndef b(): ...\n{source}\n"
    (bench.directory / "shop.py").write_text(body)

    assert words in refused(bench, verb, "shop:app")


def test_uncovered_pins_are_one_line(bench: Bench) -> None:
    """PINs of `range(workers)` that no handler takes are named."""
    bench.app(GOOD)

    assert "no worker takes PINs 2, 3, 5 of range(6)" in refused(bench, "shop:app", "--workers", "6")


# Flags and variables


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "module:attribute"),
        (["run"], "module:attribute"),
        (["check"], "module:attribute"),
        (["shop:app", "other:app"], "unrecognized arguments: other:app"),
        (["shop:app", "--bogus"], "unrecognized arguments: --bogus"),
        (["shop:app", "--bo\ngus"], "unrecognized arguments"),
        (["shop:app", "--stop", "3"], "unrecognized arguments: --stop"),
        (["shop:app", "--stop-timeout"], "--stop-timeout"),
        (["shop:app", "--debug=1"], "--debug"),
        (["shop:app", "--debug", "--no-debug"], "not allowed with"),
        (["begin", "shop:app"], "unrecognized arguments: shop:app"),
        (["shop:app", "--workers", "0"], "--workers must be an int of 1 to 1,000,000, got '0'"),
        (["shop:app", "--workers", "many"], "--workers must be an int"),
        (["shop:app", "--name", "two words"], "--name must be "),
        (["shop:app", "--normal-exit-codes", "0,256"], "--normal-exit-codes must be exit codes of 0 to 255"),
        (["shop:app", "--permanent-failure-codes", "off"], "--permanent-failure-codes must be exit codes of 0 to 255"),
        (["shop:app", "--permanent-failure-codes", "0"], "exit code 0 is in normal_exit_codes and in permanent_"),
        (["shop:app", "--lock-file", ""], "--lock-file must be the path of a file"),
        (["shop:app", "--restart", "no"], "--restart must be one of on-failure, always, never, got 'no'"),
        (["shop:app", "--backoff", "2,1"], "--backoff must be two numbers"),
        (
            ["shop:app", "--max-restarts", "many"],
            "--max-restarts must be an int of 0 to 10,000, or None (as text: off)",
        ),
        (["shop:app", "--restart-period", "0"], "--restart-period must be a number of seconds, more than 0, got '0'"),
        (["shop:app", "--stop-timeout", "-1"], "--stop-timeout must be a number of seconds"),
        (["shop:app", "--stop-timeout", "nan"], "--stop-timeout must be a number of seconds"),
        (["shop:app", "--hang-timeout", "0"], "--hang-timeout must be a number of seconds from 0.1 on, or None"),
        (["shop:app", "--hang-timeout", "30s"], "--hang-timeout must be a number of seconds from 0.1 on, or None"),
        (["shop:app", "--max-runtime", "0.5"], "--max-runtime must be a number of seconds from 1 on, or None"),
        (["shop:app", "--max-rss", "300MB"], "--max-rss must be a number of bytes, such as 300_000_000 or "),
        (["shop:app", "--kill-group=0"], "--kill-group: ignored explicit argument '0'"),
        (["shop:app", "--worker-group", "two words"], "--worker-group must be 1 to 64 characters"),
        (["shop:app", "--strategy", "some"], "--strategy must be one of one, all, got 'some'"),
        (["shop:app", "--strategy", "all"], "worker 'crawl' has strategy 'all' but no group: name one by group=..."),
        (["shop:app", "--if-running", "leave"], "--if-running must be exit, fail, wait or wait:SECONDS"),
        (["shop:app", "--syslog=loghost"], "--syslog must be "),
        (["shop:app", "--inline"], "--inline needs --only PIN"),
        (["shop:app", "--only", "x"], "--only must be a PIN, an int from 0 on, got 'x'"),
        (["shop:app", "--only", "-1"], "--only"),
        (["shop:app", "--only", "9" * 5000], "--only"),
        (["shop:app", "--only", "3"], "--only 3: no handler has this PIN; there are 0-1,4"),
        (["shop:app", "--only", "3", "--inline"], "--only 3: no handler has this PIN"),
        (["shop:app", "--only", "0", "--inline", "--daemon"], "exclude each other"),
        (["check", "shop:app", "--only", "0"], "--only and --inline go with run"),
    ],
)
def test_bad_arguments_are_one_line(bench: Bench, arguments: list[str], words: str) -> None:
    """Every argument that is wrong is one line which names it."""
    bench.app(GOOD)

    assert words in refused(bench, *arguments)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PYWORKERS_WORKERS", "0"),
        ("PYWORKERS_NAME", "two words"),
        ("PYWORKERS_NORMAL_EXIT_CODES", "ok"),
        ("PYWORKERS_LOCK_FILE", ""),
        ("PYWORKERS_DEBUG", "perhaps"),
        ("PYWORKERS_PERMANENT_FAILURE_CODES", "256"),
        ("PYWORKERS_STRICT", "very"),
        ("PYWORKERS_RESTART", "sometimes"),
        ("PYWORKERS_BACKOFF", "1"),
        ("PYWORKERS_MAX_RESTARTS", "-1"),
        ("PYWORKERS_RESTART_PERIOD", "1m"),
        ("PYWORKERS_STOP_TIMEOUT", "8s"),
        ("PYWORKERS_COOPERATIVE", "None"),
        ("PYWORKERS_HANG_TIMEOUT", "soon"),
        ("PYWORKERS_MAX_RUNTIME", "1h"),
        ("PYWORKERS_MAX_RSS", "300MB"),
        ("PYWORKERS_KILL_GROUP", ""),
        ("PYWORKERS_GROUP", ""),
        ("PYWORKERS_STRATEGY", "both"),
        ("PYWORKERS_IF_RUNNING", "leave"),
        ("PYWORKERS_SYSLOG", "loghost"),
        ("PYWORKERS_DAEMON", "2"),
    ],
)
def test_bad_variable_is_one_line_before_the_app_is_imported(bench: Bench, variable: str, text: str) -> None:
    """A variable that is wrong is one line which names it, and the app is not even imported."""
    (bench.directory / "shop.py").write_text("open('forked', 'w').close()\n")

    assert refused(bench, "shop:app", env={variable: text}).startswith(f"{variable} must be ")


def test_bad_variable_in_app_run_is_one_line(bench: Bench) -> None:
    """`app.run()` refuses a bad variable as the command line does, and returns 2."""
    bench.app(GOOD + "\n    if __name__ == '__main__':\n        sys.exit(app.run())\n")

    done = subprocess.run(
        [sys.executable, "shop.py", "--not-ours"],
        cwd=bench.directory,
        env={**os.environ, "PYWORKERS_STOP_TIMEOUT": "8s"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == "pyworkers: error: PYWORKERS_STOP_TIMEOUT must be a number of seconds from 0 on, got '8s'\n"


# Lock files


def _missing(directory: Path) -> str:
    return str(directory / "no" / "a.lock")


def _symlink(directory: Path) -> str:
    (directory / "target").write_text("")
    (directory / "a.lock").symlink_to(directory / "target")
    return "a.lock"


def _directory(directory: Path) -> str:
    (directory / "a.lock").mkdir()
    return "a.lock"


def _foreign(directory: Path) -> str:
    (directory / "a.lock").write_text("precious\n")
    return "a.lock"


def _fifo(directory: Path) -> str:
    os.mkfifo(directory / "a.lock")
    return "a.lock"


def _below_a_file(directory: Path) -> str:
    (directory / "file").write_text("")
    return "file/a.lock"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_missing, "does not exist; create it first"),
        (_symlink, "it is a symbolic link"),
        (_directory, "it is a directory"),
        (_foreign, "it holds something else, and would be overwritten"),
        (_fifo, "it is not a regular file"),
        (_below_a_file, "is not a directory"),
    ],
)
def test_bad_lock_file_is_one_line_and_stays_untouched(bench: Bench, make, words: str) -> None:
    """A lock file that cannot be one is refused by a line which says why, and is left as it is."""
    bench.app(GOOD)
    path = make(bench.directory)

    line = refused(bench, "shop:app", f"--lock-file={path}")

    assert re.match(rf"cannot (open|use) lock file {re.escape(path)}: ", line)
    assert words in line
    if make is _foreign:
        assert bench.read("a.lock") == "precious\n"


# What is printed


def test_check_prints_the_map_the_options_and_the_audit(bench: Bench) -> None:
    """`check` shows PINs and options of each handler, those of instance and run, and the audit, and forks nothing."""
    bench.app(GOOD)
    done = bench.run("check", "shop:app", "--debug", "--if-running=wait:3", env={"PYWORKERS_BACKOFF": "0.5,2"})

    assert done.returncode == 0
    assert done.stderr == ""
    head, first, titles, crawl, report, second, instance, run, third, audit = done.stdout.splitlines()
    assert head == "shop: 3 PINs, 2 handlers"
    assert (first, second, third) == ("", "", "")
    assert titles.split() == ["PINs", "handler", "options"]
    assert crawl.split()[:2] == ["0-1", "crawl"]
    assert report.split()[:2] == ["4", "report"]
    assert "backoff=0.5,2.0" in crawl
    assert "stop_timeout=5.0" in crawl
    assert "stop_timeout=2.0" in report
    assert instance.startswith("instance ")
    assert "debug=True" in instance
    assert run.startswith("run ")
    assert "if_running=wait" in run
    assert audit == "fork-safety: nothing found"
    assert not (bench.directory / "forked").exists()


def test_check_prints_what_the_audit_finds(bench: Bench) -> None:
    """`check` ends with a line for each thing that the workers would share by mistake."""
    bench.app(
        """
        import random, sqlite3
        app = App("shop")
        dice = random.Random(1)
        database = sqlite3.connect("rows.db")

        @app.worker(pins=0)
        def crawl(): ...
        """
    )
    done = bench.run("check", "shop:app")

    assert (done.returncode, done.stderr) == (0, "")
    database, generator = done.stdout.splitlines()[-2:]
    assert database.startswith(f"fork-safety: database {bench.directory / 'rows.db'} would be shared by all workers; ")
    assert generator.startswith("fork-safety: generator shop.dice (random.Random) would draw the same in every worker")


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--strict"], 2)])
def test_check_fails_where_a_strict_run_would(bench: Bench, arguments: list[str], code: int) -> None:
    """A script that deploys asks check: with strict, findings are an exit code."""
    bench.app(
        """
        import random
        app = App()
        dice = random.Random(1)

        @app.worker(pins=0)
        def crawl(): ...
        """
    )

    done = bench.run("check", "shop:app", *arguments)

    assert done.returncode == code
    assert "fork-safety: generator shop.dice" in done.stdout


def test_check_touches_no_lock_file(bench: Bench) -> None:
    """`check` does not create the lock file."""
    bench.app(GOOD)

    assert bench.run("check", "shop:app", "--lock-file=a.lock").returncode == 0
    assert not (bench.directory / "a.lock").exists()


def test_version_is_printed(bench: Bench) -> None:
    """--version prints the version of the distribution."""
    done = bench.run("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"pyworkers {version('pyworkers')}\n", "")


def test_help_names_verbs_flags_signals_and_codes(bench: Bench) -> None:
    """--help lists every verb, every flag, the signals and the exit codes."""
    done = bench.run("--help")

    assert (done.returncode, done.stderr) == (0, "")
    words = [
        *cli.VERBS,
        *(option.flag for option in cli.OPTIONS.values()),
        "--only",
        "--inline",
        "--version",
        "TERM",
        "75",
    ]
    assert [word for word in words if word not in done.stdout] == []


# One PIN in this process


@pytest.mark.parametrize(("pin", "code"), [(0, 40), (1, 41), (4, 7)])
def test_inline_returns_the_handlers_code(bench: Bench, pin: int, code: int) -> None:
    """`--only PIN --inline` calls that PIN's handler, plain or async, and leaves with its code."""
    bench.app(GOOD)
    done = bench.run("shop:app", "--only", str(pin), "--inline")

    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_inline_runs_in_this_very_process(bench: Bench) -> None:
    """The handler and its hooks run in the main thread of the command's own process, with Python's own signals."""
    bench.app(
        """
        app = App("shop")

        def note(pin):
            print(pin, app.pin, os.getpid() == started, threading.current_thread() is threading.main_thread())

        started = os.getpid()
        app.on_worker_start(note)
        app.on_worker_exit(note)

        @app.worker(pins=range(3))
        def crawl(pin):
            note(pin)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            app.checkpoint()
            app.sleep(0)
        """
    )
    done = bench.run("shop:app", "--only", "2", "--inline")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 2 True True\n" * 3


def test_inline_shows_what_the_handler_raises(bench: Bench) -> None:
    """A debugger wants the exception as it is: it is not caught, and Python's code for it is 1."""
    bench.app(
        """
        app = App("shop")

        @app.worker(pins=0)
        def crawl():
            raise KeyError("lost")
        """
    )
    done = bench.run("shop:app", "--only", "0", "--inline")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'lost'"


def test_inline_as_a_worker_leaves_by_sys_exit(bench: Bench) -> None:
    """`sys.exit` in a handler is its exit code inline as well."""
    bench.app(
        """
        app = App("shop")

        @app.worker(pins=0)
        def crawl():
            sys.exit(9)
        """
    )

    assert bench.run("shop:app", "--only", "0", "--inline").returncode == 9


def test_only_runs_one_pin_under_the_master(bench: Bench) -> None:
    """`--only PIN` without --inline supervises that PIN alone."""
    bench.app(
        """
        app = App("shop")

        @app.worker(pins=range(3))
        def crawl(pin):
            print(f"pin {pin}", flush=True)
        """
    )
    done = bench.run("shop:app", "--only", "1")

    assert (done.returncode, done.stdout) == (0, "pin 1\n")


def test_verb_run_is_the_default(bench: Bench) -> None:
    """`run` may be said or left out."""
    bench.app(GOOD)

    assert bench.run("run", "shop:app", "--only", "4", "--inline").returncode == 7


def test_console_script_is_the_module() -> None:
    """`pyworkers` and `python -m pyworkers` are the same function."""
    (script,) = entry_points(group="console_scripts", name="pyworkers")
    assert script.load() is cli.main
