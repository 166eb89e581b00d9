"""Every option from every source: code, variable, flag; good values and bad ones; and which source wins."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pyworkers import App, DeclarationError, UsageError, cli
from pyworkers._options import OPTIONS
from pyworkers._plan import plan
from pyworkers._settings import InstanceSettings, RunSettings, WorkerSettings, from_environment, from_text, run_settings
from pyworkers._values import SYSLOG_DEFAULT
from pyworkers.app import declaration_of

HUGE = Fraction(10**400)
"""A number of seconds that no float holds."""

IN_CODE = [name for name, option in OPTIONS.items() if option.scope != "run"]
PER_WORKER = [name for name, option in OPTIONS.items() if option.scope == "worker"]

GOOD_IN_CODE: list[tuple[str, object, object]] = [
    ("name", "crawler", "crawler"),
    ("name", "crawler-2.eu/west", "crawler-2.eu/west"),
    ("name", "x" * 64, "x" * 64),
    ("workers", None, None),
    ("workers", 1, 1),
    ("workers", 1_000_000, 1_000_000),
    ("normal_exit_codes", 3, frozenset({3})),
    ("normal_exit_codes", (0, 255), frozenset({0, 255})),
    ("normal_exit_codes", range(3), frozenset({0, 1, 2})),
    ("normal_exit_codes", {7}, frozenset({7})),
    ("normal_exit_codes", iter([1, 1]), frozenset({1})),
    ("permanent_failure_codes", (), frozenset()),
    ("permanent_failure_codes", 125, frozenset({125})),
    ("permanent_failure_codes", [2, 3], frozenset({2, 3})),
    ("lock_file", None, None),
    ("lock_file", "run/a.lock", "run/a.lock"),
    ("lock_file", Path("run") / "a.lock", "run/a.lock"),
    ("strict", True, True),
    ("strict", False, False),
    ("debug", True, True),
    ("debug", False, False),
    ("restart", "on-failure", "on-failure"),
    ("restart", "always", "always"),
    ("restart", "never", "never"),
    ("backoff", (1, 2), (1.0, 2.0)),
    ("backoff", [0.5, 0.5], (0.5, 0.5)),
    ("max_restarts", None, None),
    ("max_restarts", 0, 0),
    ("max_restarts", 10_000, 10_000),
    ("restart_period", 1, 1.0),
    ("restart_period", 0.001, 0.001),
    ("stop_timeout", 0, 0.0),
    ("stop_timeout", 2.5, 2.5),
    ("stop_timeout", Fraction(1, 2), 0.5),
    ("cooperative", None, None),
    ("cooperative", True, True),
    ("cooperative", False, False),
    ("hang_timeout", None, None),
    ("hang_timeout", 0.1, 0.1),
    ("hang_timeout", 30, 30.0),
    ("max_runtime", None, None),
    ("max_runtime", 1, 1.0),
    ("max_runtime", Fraction(3, 2), 1.5),
    ("max_rss", None, None),
    ("max_rss", 1, 1),
    ("max_rss", 300_000_000, 300_000_000),
    ("max_rss", "4096", 4096),
    ("max_rss", "300K", 300 * 2**10),
    ("max_rss", "300M", 300 * 2**20),
    ("max_rss", "2G", 2 * 2**30),
    ("max_rss", "1T", 2**40),
    ("kill_group", True, True),
    ("kill_group", False, False),
    ("group", None, None),
    ("group", "pair", "pair"),
    ("strategy", "one", "one"),
    ("strategy", "all", "all"),
    ("spares", 0, 0),
    ("spares", 1, 1),
    ("spares", 1000, 1000),
]

BESIDE: dict[str, dict[str, Any]] = {"strategy": {"group": "pair"}}
"""What an option needs beside it, in code."""

BAD_IN_CODE: list[tuple[str, object]] = [
    *(("name", value) for value in ("", "x" * 65, "two words", "two\nlines", "a[1]", "nul\0", "tab\t", 5, b"crawler")),
    *(("workers", value) for value in (0, -1, 1_000_001, 2.0, "2", True, [2])),
    *(
        ("normal_exit_codes", value)
        for value in (None, (), -1, 256, True, (True,), "0", b"0", (0, "1"), 1.0, (0, 1.5), object())
    ),
    *(("lock_file", value) for value in ("", "nul\0", b"a.lock", 5, True)),
    *(("permanent_failure_codes", value) for value in (None, -1, 256, True, "125", (1, "2"), 1.0, object())),
    *(("strict", value) for value in (None, 0, 1, "yes")),
    *(("debug", value) for value in (None, 0, 1, "yes")),
    *(("restart", value) for value in (None, True, "", "On-Failure", "on_failure", "on-failure ", "sometimes")),
    *(
        ("backoff", value)
        for value in (
            None, 1, (1,), (1, 2, 3), (2, 1), (0, 1), (-1, 1), (1, math.inf), (math.nan, 1), ("1", "2"), "12", (True, 2),
            {1, 2}, (1, HUGE),
        )
    ),
    *(("stop_timeout", value) for value in (None, -0.1, math.inf, math.nan, "8", True, 1j, 2e9, HUGE)),
    *(("cooperative", value) for value in (0, 1, "yes", "None")),
    *(("max_restarts", value) for value in (-1, 10_001, 1.0, "5", True, math.inf, (5, 60))),
    *(("restart_period", value) for value in (None, 0, -1, "60", True, math.inf, math.nan, HUGE)),
    *(("hang_timeout", value) for value in (0, 0.09, -1, "30", "off", True, False, math.inf, math.nan, HUGE)),
    *(("max_runtime", value) for value in (0, 0.9, -1, "3600", "1h", True, math.inf, math.nan, HUGE)),
    *(
        ("max_rss", value)
        for value in (
            0, -1, 1.5, 3e8, True, 2**63, "", "off", "M", "0", "0M", "-1", "1.5G", "300m", "300MB", "300 M", "8388608T",
            b"300M", "9" * 16,
        )
    ),
    *(("kill_group", value) for value in (None, 0, 1, "yes")),
    *(("group", value) for value in ("", "two words", "a[1]", "x" * 65, 5, True, ("a", "b"))),
    *(("strategy", value) for value in (None, "", "one_for_all", "ALL", True)),
    *(("spares", value) for value in (None, -1, 1001, 1.0, "1", True, False, (1,), math.inf)),
]  # fmt: skip

GOOD_AS_TEXT: list[tuple[str, str, object]] = [
    ("name", "crawler", "crawler"),
    ("workers", "4", 4),
    ("normal_exit_codes", "0", frozenset({0})),
    ("normal_exit_codes", "0,254", frozenset({0, 254})),
    ("normal_exit_codes", " 1 , 2 ", frozenset({1, 2})),
    ("lock_file", "run/a.lock", "run/a.lock"),
    ("permanent_failure_codes", "125", frozenset({125})),
    ("permanent_failure_codes", "2, 3", frozenset({2, 3})),
    ("permanent_failure_codes", "", frozenset()),
    ("strict", "on", True),
    ("strict", "off", False),
    *(("debug", text, True) for text in ("1", "true", "YES", "on")),
    *(("debug", text, False) for text in ("0", "false", "No", "off")),
    *(("restart", text, text) for text in ("on-failure", "always", "never")),
    ("backoff", "0.5,4", (0.5, 4.0)),
    ("max_restarts", "5", 5),
    ("max_restarts", "0", 0),
    ("max_restarts", "off", None),
    ("restart_period", "0.5", 0.5),
    ("stop_timeout", "2", 2.0),
    ("stop_timeout", "1e-3", 0.001),
    ("cooperative", "true", True),
    ("cooperative", "false", False),
    ("hang_timeout", "30", 30.0),
    ("hang_timeout", "0.1", 0.1),
    ("hang_timeout", "off", None),
    ("max_runtime", "3600", 3600.0),
    ("max_runtime", "off", None),
    ("max_rss", "300M", 300 * 2**20),
    ("max_rss", "4096", 4096),
    ("max_rss", "off", None),
    ("kill_group", "1", True),
    ("kill_group", "0", False),
    ("group", "pair", "pair"),
    ("group", "off", None),
    ("strategy", "one", "one"),
    ("strategy", "all", "all"),
    ("spares", "0", 0),
    ("spares", "3", 3),
    ("if_running", "exit", ("exit", None)),
    ("if_running", "fail", ("fail", None)),
    ("if_running", "wait", ("wait", None)),
    ("if_running", "wait:2.5", ("wait", 2.5)),
    ("if_running", "wait:0", ("wait", 0.0)),
    ("shard", "0/1", "0/1"),
    ("shard", "slurm/8", "slurm/8"),
    ("shard", "env:MY_RANK/3", "env:MY_RANK/3"),
    ("lease", "postgresql://db/jobs", "postgresql://db/jobs"),
    ("lease", "postgres://", "postgres://"),
    ("lease_ttl", "2", 2.0),
    ("lease_wait", "0", 0.0),
    ("lease_wait", "off", None),
    ("run_id", "4711_a", "4711_a"),
    ("standby", "0", False),
    ("syslog", "", SYSLOG_DEFAULT),
    ("syslog", "on", SYSLOG_DEFAULT),
    ("syslog", "0", None),
    ("syslog", "/run/log.sock", "/run/log.sock"),
    ("syslog", "loghost:514", "loghost:514"),
    ("daemon", "1", True),
    ("daemon", "0", False),
    ("metrics_address", "127.0.0.1:9100", "127.0.0.1:9100"),
    ("metrics_address", "metrics.example:1", "metrics.example:1"),
    ("metrics_address", "[::1]:9100", "[::1]:9100"),
    ("metrics_address", ":65535", ":65535"),
    ("metrics_address", "off", None),
    ("reload", "1", True),
    ("reload", "0", False),
    ("notify_fd", "3", 3),
    ("notify_fd", "off", None),
    ("log_format", "text", "text"),
    ("log_format", "json", "json"),
    ("prefix_output", "1", True),
    ("prefix_output", "0", False),
    *(("user", text, text) for text in ("nobody", "0", "4294967294", "www-data", "svc_app$", "o.neil", "j\u00f6rg")),
    *(("unix_group", text, text) for text in ("nogroup", "0", "65534")),
    *(("umask", text, "0027") for text in ("27", "027", "0027", "0o027")),
    ("umask", "0", "0000"),
]

BAD_AS_TEXT: list[tuple[str, str]] = [
    *(("name", text) for text in ("", "two words", "x" * 65, "a]")),
    *(("workers", text) for text in ("", "0", "-1", "1.5", "many", "9" * 5000)),
    *(("normal_exit_codes", text) for text in ("", "256", "-1", "0,", "0;1", "ok")),
    ("lock_file", ""),
    *(("permanent_failure_codes", text) for text in ("256", "-1", "0,", "125;126", "fatal", "off")),
    *(("strict", text) for text in ("", "2", "very")),
    *(("debug", text) for text in ("", "2", "maybe")),
    *(("restart", text) for text in ("", "Always", "on_failure", "no", "off")),
    *(("backoff", text) for text in ("", "1", "1,2,3", "2,1", "0,1", "a,b", "nan,nan", "1,inf")),
    *(("stop_timeout", text) for text in ("", "-1", "8s", "inf", "nan", "1e400")),
    *(("cooperative", text) for text in ("", "None", "perhaps")),
    *(("max_restarts", text) for text in ("", "-1", "10001", "1.5", "None", "5/60", "9" * 5000)),
    *(("restart_period", text) for text in ("", "0", "-1", "1m", "inf", "nan", "off")),
    *(("hang_timeout", text) for text in ("", "0", "0.01", "-1", "30s", "inf", "nan", "None", "on")),
    *(("max_runtime", text) for text in ("", "0", "0.5", "-1", "1h", "inf", "nan", "None")),
    *(("max_rss", text) for text in ("", "0", "-1", "300m", "300MB", "1.5G", "M", "None", "9999999T")),
    *(("kill_group", text) for text in ("", "2", "None")),
    *(("group", text) for text in ("", "two words", "a[1]", "x" * 65)),
    *(("strategy", text) for text in ("", "One", "one_for_all", "off")),
    *(("spares", text) for text in ("", "-1", "1001", "1.5", "one", "off", "None", "9" * 5000)),
    *(
        ("if_running", text)
        for text in ("", "leave", "wait:", "wait:-1", "wait:nan", "wait:inf", "exit:1", "fail:", "EXIT")
    ),
    *(
        ("shard", text)
        for text in (
            "",
            "2",
            "/8",
            "2/",
            "8/8",
            "-1/8",
            "0/0",
            "0/1000001",
            "lsf/8",
            "slurm",
            "slurm/0",
            "env:/8",
            "env:1/8",
            "1/2/3",
            "\N{ARABIC-INDIC DIGIT ONE}/8",
            "1 /8",
            "0/8\n",
        )
    ),
    *(("lease", text) for text in ("", "off", "db/jobs", "mysql://db/jobs", "postgresql:db")),
    *(("lease_ttl", text) for text in ("", "1.9", "nan", "off", "-2")),
    *(("lease_wait", text) for text in ("", "-1", "nan", "long")),
    *(("run_id", text) for text in ("", "two words", "x" * 65)),
    *(("standby", text) for text in ("", "hot")),
    *(("syslog", text) for text in ("loghost", "loghost:", ":514", "loghost:syslog", "log host:1", "loghost:65536")),
    *(("daemon", text) for text in ("", "yes please")),
    *(
        ("metrics_address", text)
        for text in ("", "9100", ":", ":0", ":65536", "a b:1", "::1:9100", "[::1]", "h:x", "é:1")
    ),
    *(("notify_fd", text) for text in ("", "0", "2", "-3", "+3", "3.0", "1_0", "\u0663", "stderr", "9" * 5000)),
    *(("reload", text) for text in ("", "2", "always")),
    *(("log_format", text) for text in ("", "JSON", "yaml", "off")),
    *(("prefix_output", text) for text in ("", "2", "colour")),
    *(
        ("user", text)
        for text in ("", "-1", "+1", "4294967295", "99999999999", "a b", "a:b", "x" * 300, "a/b", "nul\0")
    ),
    *(("unix_group", text) for text in ("", "-1", "4294967295", "a b", "a,b")),
    *(("umask", text) for text in ("", "8", "1000", "-1", "u=rwx", "0x1f", "0o", "none")),
]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS.values():
        monkeypatch.delenv(option.variable, raising=False)


def decided(app: App, given: dict[str, object] | None = None) -> dict[str, Any]:
    """Return all options of a run of an app with one handler."""
    found = plan(declaration_of(app), given or {})
    merged: dict[str, Any] = {}
    for settings in (found.instance, found.workers[0], found.run):
        merged |= {name: getattr(settings, name) for name in type(settings).__slots__}
    return merged


def app_with(options: dict[str, Any] | None = None, worker_options: dict[str, Any] | None = None) -> App:
    app = App(**{"name": "test", **(options or {})})

    @app.worker(pins=0, **(worker_options or {}))
    def handler() -> None: ...

    return app


# In code


@pytest.mark.parametrize(("name", "value", "expected"), GOOD_IN_CODE)
def test_app_takes_good_values(name: str, value: object, expected: object) -> None:
    """What stands on App is what the run gets, in its final form."""
    if name == "workers" and value is not None:
        app = App("test", workers=value)  # type: ignore[arg-type]
        app.worker()(lambda: None)
    else:
        app = app_with({name: value, **BESIDE.get(name, {})})

    assert decided(app)[name] == expected


@pytest.mark.parametrize(("name", "value"), BAD_IN_CODE)
def test_app_refuses_bad_values_in_one_line(name: str, value: object) -> None:
    """A bad value on App is refused at construction, by a line that names the option and the value."""
    with pytest.raises(DeclarationError) as caught:
        # None stands for the default of `name` alone.
        App(**{"name": "test", name: value})  # type: ignore[arg-type]

    text = str(caught.value)
    assert text.startswith(f"{name} of App must be ")
    assert f"({type(value).__name__})" in text
    assert "\n" not in text
    assert len(text) < 250


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in BAD_IN_CODE if name in PER_WORKER])
def test_decorator_refuses_bad_values_in_one_line(name: str, value: object) -> None:
    """A bad value on a decorator is refused where it is written, by a line that names the handler."""
    with pytest.raises(DeclarationError) as caught:
        app_with(worker_options={name: value})

    assert str(caught.value).startswith(f"{name} of @app.worker of 'handler' must be ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["stop_timeut", "pins", "if_running", "shard", "daemon", "syslog", "restart_policy"])
def test_app_refuses_unknown_options_and_names_the_known(name: str) -> None:
    """An option that App does not have is refused by a line that lists those it has."""
    with pytest.raises(
        DeclarationError, match=f"^App has no option '{name}'; its options are name, workers, .*stop_timeout"
    ):
        App("test", **{name: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["workers", "lock_file", "name", "stop_timeut", "daemon"])
def test_decorator_refuses_unknown_options_and_names_the_known(name: str) -> None:
    """An option that a handler does not have, though the instance may, is refused by a line that names the handler."""
    with pytest.raises(DeclarationError, match=f"^@app.worker of 'handler' has no option '{name}'; its options are "):
        app_with(worker_options={name: 1})


def test_endless_exit_codes_are_refused() -> None:
    """There are 256 exit codes: an iterable of more values is refused, not read to its end."""

    def flood() -> Any:
        for _ in range(100_000):
            yield 0
        pytest.fail("read on and on")

    with pytest.raises(DeclarationError):
        App("test", normal_exit_codes=flood())


def test_name_defaults_to_the_module() -> None:
    """Without a name, an app is called after the module that makes it."""
    assert decided_name({"__name__": "shop.crawler"}) == "shop.crawler"
    assert decided_name({"__name__": "__main__", "__file__": "/srv/jobs/nightly.py"}) == "nightly"
    assert decided_name({"__name__": "__main__"}) == "app"


def decided_name(module: dict[str, Any]) -> str:
    namespace = {"App": App, **module}
    exec("app = App()", namespace)
    return str(declaration_of(namespace["app"]).options["name"])


def test_defaults_are_those_of_the_contract() -> None:
    """With nothing said, each option has its documented default."""
    assert WorkerSettings() == WorkerSettings(
        restart="on-failure", backoff=(0.1, 30.0), max_restarts=None, restart_period=60.0, stop_timeout=8.0,
        cooperative=None, hang_timeout=None, max_runtime=None, max_rss=None, kill_group=True, group=None,
        strategy="one", spares=0,
    )  # fmt: skip
    assert InstanceSettings(name="x") == InstanceSettings(
        name="x", workers=None, normal_exit_codes=frozenset({0}), permanent_failure_codes=frozenset(), lock_file=None,
        strict=False, debug=False,
    )  # fmt: skip
    assert run_settings({}) == RunSettings(
        if_running="exit", wait_s=None, shard=None, lease=None, lease_ttl=30.0, lease_wait=None, run_id=None,
        standby=False, syslog=None, daemon=False, metrics_address=None, reload=False, notify_fd=None,
        log_format="text",
    )  # fmt: skip
    assert decided(app_with()) == {
        "name": "test", "workers": None, "normal_exit_codes": frozenset({0}), "permanent_failure_codes": frozenset(),
        "lock_file": None, "strict": False, "debug": False,
        "restart": "on-failure", "backoff": (0.1, 30.0), "max_restarts": None, "restart_period": 60.0,
        "stop_timeout": 8.0, "cooperative": None, "hang_timeout": None, "max_runtime": None, "max_rss": None,
        "kill_group": True, "group": None, "strategy": "one", "spares": 0,
        "if_running": "exit", "wait_s": None, "shard": None, "lease": None, "lease_ttl": 30.0, "lease_wait": None,
        "run_id": None, "standby": False, "syslog": None, "daemon": False, "metrics_address": None, "reload": False,
        "notify_fd": None, "log_format": "text", "prefix_output": False, "user": None,
        "unix_group": None, "umask": None,
    }  # fmt: skip


# As text


@pytest.mark.parametrize("source", ["variable", "flag"])
@pytest.mark.parametrize(("name", "text", "expected"), GOOD_AS_TEXT)
def test_text_is_read(name: str, text: str, expected: object, source: str) -> None:
    """A flag and a variable read the same text as the same value."""
    option = OPTIONS[name]
    if source == "variable":
        assert from_environment({option.variable: text, "PYWORKERS_OTHER": "x"}) == {name: expected}
    else:
        assert from_text(option, text, option.flag) == expected


@pytest.mark.parametrize(("name", "text"), BAD_AS_TEXT)
def test_bad_text_is_refused_in_one_line(name: str, text: str) -> None:
    """Text that an option does not take is refused by a line that names the flag or the variable, and the text."""
    option = OPTIONS[name]
    with pytest.raises(UsageError) as by_flag:
        from_text(option, text, option.flag)
    with pytest.raises(UsageError) as by_variable:
        from_environment({option.variable: text})

    for source, caught in ((option.flag, by_flag), (option.variable, by_variable)):
        assert str(caught.value).startswith(f"{source} must be ")
        assert repr(text)[:40] in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250


def test_every_option_is_covered_here() -> None:
    """A new option comes with good and bad values, in code and as text."""
    assert {name for name, *_ in GOOD_IN_CODE} == {name for name, _ in BAD_IN_CODE} == set(IN_CODE)
    assert {name for name, *_ in GOOD_AS_TEXT} == {name for name, _ in BAD_AS_TEXT} == set(OPTIONS)
    assert set(PRECEDENCE) == set(OPTIONS)


# Precedence: what code says, what the variable says (text), what the flag says (text), what the decorator says. No two
# sources that follow each other say the same.
PRECEDENCE: dict[str, tuple[Any, str, str, Any]] = {
    "name": ("code", "variable", "flag", None),
    "workers": (1, "2", "3", None),
    "normal_exit_codes": (1, "2", "3", None),
    "lock_file": ("code.lock", "variable.lock", "flag.lock", None),
    "permanent_failure_codes": (1, "2", "3", None),
    "strict": (False, "1", "0", None),
    "debug": (False, "1", "0", None),
    "restart": ("always", "never", "on-failure", "always"),
    "backoff": ((1, 2), "3,4", "5,6", (7, 8)),
    "max_restarts": (None, "0", "3", None),
    "restart_period": (1, "2", "3", 4),
    "stop_timeout": (1, "2", "3", 4),
    "cooperative": (None, "1", "0", True),
    "hang_timeout": (1, "2", "off", 3),
    "max_runtime": (1, "2", "off", 3),
    "max_rss": ("1K", "2M", "off", 3),
    "kill_group": (True, "0", "1", False),
    "group": ("code", "variable", "off", "handler"),
    "strategy": ("one", "all", "one", "all"),
    "spares": (0, "1", "2", 3),
    "if_running": (None, "fail", "wait:3", None),
    "shard": (None, "1/2", "2/3", None),
    "lease": (None, "postgresql://variable", "postgres://flag", None),
    "lease_ttl": (None, "2", "3", None),
    "lease_wait": (None, "2", "3", None),
    "run_id": (None, "variable", "flag", None),
    "standby": (None, "1", "0", None),
    "syslog": (None, "/variable", "/flag", None),
    "daemon": (None, "1", "0", None),
    "metrics_address": (None, ":9100", ":9101", None),
    "reload": (None, "1", "0", None),
    "notify_fd": (None, "3", "4", None),
    "log_format": (None, "json", "text", None),
    "prefix_output": (None, "1", "0", None),
    "user": (None, "1", "2", None),
    "unix_group": (None, "1", "2", None),
    "umask": (None, "022", "077", None),
}


def flags(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return what the real command line makes of these flags."""
    seen: dict[str, object] = {}
    monkeypatch.setattr(cli._loader, "load", lambda *_: None)
    monkeypatch.setattr(cli._compose, "main", lambda _app, given, _only, **_: seen.update(given) or 0)
    assert cli.main(["shop:app", *arguments]) == 0
    return seen


@pytest.mark.parametrize("name", OPTIONS)
def test_flag_beats_variable_beats_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over a variable, and a variable over what stands on App."""
    option, (in_code, variable, flag, _) = OPTIONS[name], PRECEDENCE[name]
    if name == "workers":
        app = App("test", workers=in_code)
        app.worker()(lambda: None)
    else:
        app = app_with({} if option.scope == "run" else {name: in_code, **BESIDE.get(name, {})})
    if name == "standby":
        monkeypatch.setenv("PYWORKERS_LEASE", "postgresql://")
    only_code = decided(app)[name]
    monkeypatch.setenv(option.variable, variable)
    with_variable = decided(app)[name]
    word = option.flag if option.metavar is None and flag == "1" else f"--no-{option.flag[2:]}"
    given = flags([word] if option.metavar is None else [f"{option.flag}={flag}"], monkeypatch)
    with_flag = decided(app, given)[name]

    def final(text: str) -> Any:
        value = from_text(option, text, "test")
        return value[0] if name == "if_running" else value  # type: ignore[index]

    if option.scope != "run":
        assert only_code == option.check(in_code)
    assert with_variable == final(variable)
    assert with_flag == final(flag)
    assert with_flag != with_variable != only_code


@pytest.mark.parametrize("name", PER_WORKER)
def test_decorator_beats_flag_variable_and_app(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands at a handler wins over all, and the handler beside it gets the default."""
    option, (in_code, variable, flag, at_handler) = OPTIONS[name], PRECEDENCE[name]
    app = app_with({name: in_code}, {name: at_handler, **BESIDE.get(name, {})})
    app.worker(pins=1)(lambda: None)
    monkeypatch.setenv(option.variable, variable)

    found = plan(declaration_of(app), {name: from_text(option, flag, "test")})

    assert getattr(found.workers[0], name) == option.check(at_handler)
    assert getattr(found.workers[1], name) == from_text(option, flag, "test")


def test_daemon_implies_syslog_but_keeps_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon logs to the default syslog, or to the address that was given."""
    assert run_settings(flags(["--daemon"], monkeypatch)).syslog == SYSLOG_DEFAULT
    assert run_settings(flags(["--daemon", "--syslog=/run/x"], monkeypatch)).syslog == "/run/x"
    assert run_settings(flags(["--syslog"], monkeypatch)) == RunSettings(syslog=SYSLOG_DEFAULT)


def test_variables_are_read_at_the_run_not_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set after the app was made still counts."""
    app = app_with()
    monkeypatch.setenv("PYWORKERS_STOP_TIMEOUT", "3")

    assert decided(app)["stop_timeout"] == 3.0
    assert os.environ["PYWORKERS_STOP_TIMEOUT"] == "3"
