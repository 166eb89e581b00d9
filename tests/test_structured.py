"""The log as JSON: what each line of master and worker has in its fields, whatever is thrown at it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from helpers import Bench, Instance, until
from pyworkers._core import messages as m
from pyworkers._core.types import FIRST_SPARE, Attempt, Exited, Limit, Pin, Purpose, Signaled, Vanished, Wear
from pyworkers._handler import FieldsHandler
from pyworkers._logs import ERROR, INFO, WARNING, Line
from pyworkers._master.facts import facts_of
from pyworkers._master.reports import Seat, describe
from pyworkers._posix.cells import Trace
from pyworkers._sinks import StderrSink
from pyworkers._structured import Structure


def objects(text: str) -> list[dict[str, Any]]:
    """Return the object of each line, all of which have one."""
    return [json.loads(line, parse_constant=lambda word: pytest.fail(word)) for line in text.splitlines()]


def of_event(master: Instance, event: str) -> list[dict[str, Any]]:
    """Return the lines of a master that tell of this."""
    return [found for found in objects(master.log) if found.get("event") == event]


def test_life_of_a_worker_is_one_filter(bench: Bench) -> None:
    """By its pid: the master's lines about it, and its own."""
    master = bench.start(
        """
        app = App("shop")

        @app.worker(pins=[4])
        def sell(pin: int) -> None:
            app.log.info("open for %s", "business", extra={"shelf": 7, "pid": 1, "name_": "x"})
            for number in app.track(range(3)):
                app.unit(f"page {number}")
                app.sleep(1000)
        """,
        "--log-format=json",
    )
    master.await_log("open for business")
    master.await_log('"worker_started"')
    until(lambda: master.status()[0].unit == "page 0", "its first unit")
    os.kill(pid := of_event(master, "worker_started")[0]["pid"], signal.SIGKILL)
    master.await_log('"worker_started"', 2)
    assert master.stop() == 0

    # A worker may speak before its master does.
    lines = {found.get("event"): found for found in objects(master.log) if found["pid"] == pid}
    started, said, ended = (lines[event] for event in ("worker_started", None, "worker_ended"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", started["time"])
    who = {"name": "shop", "handler": "sell", "pin": 4}
    assert {key: started[key] for key in who} == {key: said[key] for key in who} == {key: ended[key] for key in who}
    assert (started["level"], started["attempt"]) == ("INFO", 1)
    assert (said["message"], said["shelf"], said["level"], said["name_"]) == ("open for business", 7, "INFO", "x")
    assert "event" not in said
    assert (ended["level"], ended["cause"], ended["signal"]) == ("WARNING", "signal=SIGKILL", "SIGKILL")
    assert (ended["unit"], ended["follows"], ended["delay"]) == ("page 0", "respawn", 0.0)
    assert isinstance(ended["after"], float)
    assert ended["message"].startswith("worker ended sell pin=4 pid=")
    over = objects(master.log)[-1]
    assert (over["event"], over["pid"], over["code"]) == ("all_ended", master.pid, 0)
    assert of_event(master, "stop_started")[0]["reason"] == "SIGTERM"


def test_messages_are_those_of_the_text(bench: Bench) -> None:
    """The same words in both formats, in master and worker, with and without `logging`."""
    source = """
    app = App("shop", restart="never")

    @app.worker(pins=range(2))
    def sell(pin: int) -> int:
        return 3 * pin
    """
    texts = []
    for arguments in ([], ["--log-format=json"]):
        master = bench.start(source, *arguments)
        assert master.wait() == 1
        texts.append(master.log)
    messages = [found["message"] for found in objects(texts[1])]
    heads = r"(?m)^\S+ \S+ \S+ [A-Z]+ "

    def blurred(lines: list[str]) -> Counter[str]:
        return Counter(re.sub(r"pid=\d+|after=\S+", "", line) for line in lines)

    assert blurred(re.sub(heads, "", texts[0]).splitlines()) == blurred(messages)


@pytest.mark.parametrize("logs", ["app.log.debug('x')", ""], ids=["with logging", "without"])
def test_traceback_is_a_field(logs: str, bench: Bench) -> None:
    """One object for the whole of it."""
    master = bench.start(
        f"""
        app = App("shop", restart="never")

        @app.worker(pins=0)
        def sell() -> None:
            {logs or "pass"}
            raise ValueError("two\\nlines \\u2028 and \\udc80")
        """,
        "--log-format=json",
    )
    assert master.wait() == 1

    (found,) = [each for each in objects(master.log) if "traceback" in each]
    assert found["message"] == "handler sell raised"
    assert (found["handler"], found["pin"], found["level"]) == ("sell", 0, "ERROR")
    assert found["traceback"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: two\nlines \u2028 and " in found["traceback"]
    assert "\u2028" not in master.log


def test_hostile_log_calls_cannot_break_a_line_or_forge_a_field(bench: Bench) -> None:
    """Whatever a handler logs, each line is an object, and who has said it stays true."""
    master = bench.start(
        """
        app = App("shop")

        class Odd:
            def __str__(self): raise RuntimeError("no")
            __repr__ = __str__

        loop = []
        loop.append(loop)

        @app.worker(pins=3)
        def sell(pin: int) -> None:
            forged = {"handler": "x", "pin": 99, "pid": 1, "level": "x", "time": 0, "event": "worker_ended"}
            app.log.info('"}\\n{"pin":9}\\n\\x00\\x1b[31m\\udc80', extra=forged)
            app.log.info("values", extra={"a": float("nan"), "b": Odd(), "c": loop, "d": {1, 2}, "e": b"x", "f": {"g": [1]},
                                          "h": float("inf"), "i": 10 ** 400, "j": None, "": 1})
            app.log.log(35, "odd level", stack_info=True)
            names = "cause exit signal attempt after delay unit spare traceback stack".split()
            app.log.info("all forged", extra={**dict.fromkeys(names, "x"), "free": 1})
            app.log.info("%d", "no number")
            app.log.warning("{'pin': 5}", {"not": "a field"})
        """,
        "--log-format=json",
    )
    assert master.wait() == 0

    lines = [line for line in master.log.splitlines() if line.startswith("{")]
    ours = [found for found in objects("\n".join(lines)) if found.get("handler") == "sell" and "event" not in found]
    forged = [found for found in objects("\n".join(lines)) if found["message"].startswith('"}')]
    (line,) = forged
    assert (line["handler"], line["pin"], line["level"], line["name"]) == ("sell", 3, "INFO", "shop")
    assert line["pid"] not in (1, master.pid)
    assert "event" not in line
    (plain,) = [found for found in ours if found["message"] == "all forged"]
    assert set(plain) == {"time", "level", "message", "name", "pid", "handler", "pin", "free"}
    assert line["message"] == '"}\n{"pin":9}\n\x00\x1b[31m\udc80'
    values = next(found for found in ours if found["message"] == "values")
    assert (values["a"], values["h"], values["f"], values["j"], values["i"]) == (
        "nan",
        "inf",
        {"g": [1]},
        None,
        10**400,
    )
    assert values["b"].startswith("a value that cannot be shown")
    assert [found["level"] for found in ours if found["message"] == "odd level"] == ["Level 35"]
    assert any("stack" in found for found in ours)


def test_syslog_gets_the_object_after_its_head(bench: Bench, tmp_path: Path) -> None:
    """RFC 3164 in front, as for the text."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log.sock"))
        server.settimeout(10)
        bench.app('app = App("shop")\n\n@app.worker(pins=4)\ndef sell() -> None:\n    app.log.info("sold")\n')
        ended = bench.run("shop:app", f"--syslog={tmp_path}/log.sock", "--log-format=json")
        lines = [server.recv(4096).decode() for _ in range(4)]

    assert (ended.returncode, ended.stderr) == (0, "")
    heads, bodies = zip(*(line.split(": ", 1) for line in lines), strict=True)
    assert all(re.fullmatch(r"<\d+>[A-Z][a-z]{2} [ \d]\d \S+ shop\[\d+\]", head) for head in heads)
    assert [found["pin"] for found in objects("\n".join(bodies))[:3]] == [4, 4, 4]


def test_variable_does_it_too_and_stacks_have_their_worker(bench: Bench) -> None:
    """PYWORKERS_LOG_FORMAT; each line of a post-mortem says whose it is."""
    master = bench.start(
        """
        app = App("shop", hang_timeout=0.3)

        @app.worker(pins=2)
        def sell() -> None:
            app.checkpoint()
            time.sleep(1000) if app.previous is None else None
        """,
        env={"PYWORKERS_LOG_FORMAT": "json"},
    )
    assert master.wait() == 0

    hung, *_ = of_event(master, "worker_hung")
    stacks = [found for found in objects(master.log) if found["message"].startswith("stack ")]
    assert len(stacks) > 1
    assert {(found["handler"], found["pin"], found["pid"]) for found in stacks} == {("sell", 2, hung["pid"])}
    assert of_event(master, "worker_ended")[0]["cause"] == "hang"


def test_dropped_lines_are_told_as_an_object(tmp_path: Path) -> None:
    """The sink's own words look like the others."""
    reader, writer = os.pipe()
    structure = Structure("shop", facts_of)
    sink = StderrSink("shop", writer, dress=structure.line)
    journal = structure.journal(sink, INFO)
    for number in range(3000):
        journal.write(INFO, f"line {number} {'x' * 50}")
    text = b""
    while sink.waiting() is not None:
        text += os.read(reader, 65536)
        sink.flush()
    journal.close()
    os.close(writer)
    while chunk := os.read(reader, 65536):
        text += chunk
    os.close(reader)

    found = objects(text.decode())
    assert [each["message"].split()[1] for each in found[:-1]] == [str(number) for number in range(len(found) - 1)]
    assert re.fullmatch(r"log lines dropped count=\d+; nobody took them in time", found[-1]["message"])
    assert found[-1]["level"] == "WARNING"


SEAT = Seat("sell", 77, Trace("page 4", 4, 100))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("report", "seat", "expected"),
    [
        (
            m.WorkerEnded(
                Pin(1), Attempt(2), Exited(41), 5.25, m.Next.RESPAWN, delay_s=0.5, is_failure=True
            ),
            SEAT,
            {
                "event": "worker_ended", "handler": "sell", "pid": 77, "pin": 1, "attempt": 2, "exit": 41, "after": 5.25, "short_lives": 0, "restart_count": 0,
                "follows": "respawn", "delay": 0.5, "is_failure": True, "cause": "exit=41", "unit": "page 4", "done": 4,
                "total": 100,
            },
        ),
        (
            m.WorkerEnded(
                Pin(1), Attempt(2), Signaled(signal.SIGKILL), 1.0, m.Next.FAILED, given_up=m.GivenUp.INTENSITY,
                purpose=Purpose.HANG,
            ),
            Seat("sell", None),
            {
                "event": "worker_ended", "handler": "sell", "pid": None, "pin": 1, "attempt": 2, "signal": "SIGKILL",
                "after": 1.0, "short_lives": 0, "restart_count": 0, "follows": "failed", "because": "intensity", "purpose": "hang", "is_failure": False,
                "cause": "hang",
            },
        ),
        (
            m.WorkerEnded(Pin(FIRST_SPARE), Attempt(1), Vanished(), 1.0, m.Next.STOPPED),
            Seat("sell", 5, oom=True),
            {
                "event": "worker_ended", "handler": "sell", "pid": 5, "spare": 0, "attempt": 1, "status": "Vanished()",
                "after": 1.0, "short_lives": 0, "restart_count": 0, "follows": "stopped", "is_failure": False, "cause": "oom-kill",
            },
        ),
        (
            m.WorkerRecycled(Pin(0), Attempt(1), Wear(Limit.MAX_RSS, 5e6)),
            Seat("sell", 5),
            {
                "event": "worker_recycled", "handler": "sell", "pid": 5, "pin": 0, "attempt": 1, "limit": "max_rss",
                "reached": 5e6,
            },
        ),
        (
            m.AllEnded(stopped=False, exit_code=1, failed=(Pin(0), Pin(3))),
            None,
            {"event": "all_ended", "stopped": False, "code": 1, "failed": (0, 3)},
        ),
        (
            m.StopStarted("SIGTERM", m.StopKind.GRACEFUL, 3),
            None,
            {"event": "stop_started", "reason": "SIGTERM", "kind": "graceful", "workers": 3},
        ),
    ],
)  # fmt: skip
def test_facts_of_a_report(report: m.Report, seat: Seat | None, expected: dict[str, object]) -> None:
    """The fields of the report, by the names that the text has for them."""
    assert facts_of((report, seat)) == expected
    level, line = describe(report, seat)
    assert objects(Structure("shop", facts_of).line(level, line, facts_of((report, seat))))


def test_line_is_a_line_wherever_text_is_taken() -> None:
    """And knows what it is about on its way through a logger."""
    line = Line("worker ended", {"pin": 3})
    put: list[tuple[object, ...]] = []
    handler = FieldsHandler(lambda *given: put.append(given))
    handler.handle(logging.LogRecord("shop", ERROR, __file__, 1, "%s", (line,), None))
    handler.handle(logging.LogRecord("shop", WARNING, __file__, 1, "%s and more", (line,), None))

    assert line == "worker ended"
    assert put == [(ERROR, line, {}), (WARNING, "worker ended and more", {})]
    assert isinstance(put[0][1], Line)
