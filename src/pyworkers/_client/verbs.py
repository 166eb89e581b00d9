"""`pyworkers status`, `stop` and the others: asks the master of a running instance, and never imports the app."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from pyworkers._client import metrics, openmetrics, table
from pyworkers._client.find import find
from pyworkers._client.story import story
from pyworkers._client.wire import Wire
from pyworkers._core.types import PIN_MAX, PINS_MAX
from pyworkers.errors import ExitCode, NotRunningError, RefusedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from pyworkers._client.wire import Reply

MARGIN_S = 5.0
"""Beyond what the master promises: hooks at its end, and a machine under load."""

CHANGING = ("stop", "restart", "scale")
"""Verbs after which something is not as it was."""

POLL_S = 0.05
"""Between two looks at whether what was asked for has come about."""


def main(verb: str, arguments: Sequence[str], parser: argparse.ArgumentParser) -> int:
    """Run one verb, and return the exit code; the parser knows how to complain.

    Raises:
        PyworkersError: One line for a person.
    """
    _describe(verb, parser)
    # Intermixed, or an option before the PINs would take their place.
    parsed = parser.parse_intermixed_args(list(arguments))
    if parsed.lock_file is not None and parsed.app is not None and parsed.app.isdecimal():
        # No app, then: what stands in its place is the first PIN, or the number of PINs.
        parsed = parser.parse_intermixed_args(["-", *arguments])
        parsed.app = None
    if parsed.app is None and parsed.lock_file is None:
        raise UsageError(f"{verb} needs the app, such as crawler:app, or its --lock-file")
    try:
        wire = Wire(find(parsed.app, parsed.lock_file, anywhere=verb not in CHANGING))
        try:
            return VERBS[verb](wire, parsed)
        finally:
            wire.close()
    except KeyboardInterrupt:
        goes_on = f"; the master goes on with the {verb}" if verb in {*CHANGING, "reload"} else ""
        return _tell(f"interrupted{goes_on}", ExitCode.CUT_BY_INT)
    except NotRunningError as error:
        if verb == "status" and parsed.openmetrics:
            # That it does not run is what some are waiting to be told.
            sys.stdout.write(openmetrics.text(metrics.absent(str(parsed.app or parsed.lock_file))))
        return _tell(error, ExitCode.NOT_RUNNING)
    except RefusedError as error:
        return _tell(error, ExitCode.FAILED)
    except BrokenPipeError:
        # `status | head`: whoever reads has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK


def _tell(error: Exception | str, code: int) -> int:
    print(f"pyworkers: {error}", file=sys.stderr)  # noqa: T201  (that is what a verb is for)
    return code


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (as above)


def _describe(verb: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", nargs="?", metavar="module:attribute", help="the app, as it was started, or its name")
    parser.add_argument("--lock-file", metavar="FILE", help="the lock file of the instance, instead of the app")
    if verb == "status":
        parser.add_argument("pins", nargs="?", type=_pin, metavar="PIN", help="tell the story of this PIN")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print what the master says, as JSON on one line")
        form.add_argument("--openmetrics", action="store_true", help="print it as OpenMetrics has it, for Prometheus")
        form.add_argument("--watch", action="store_true", help="show it each second until q or Ctrl-C")
    if verb == "stack":
        parser.add_argument("pins", nargs="?", type=_pin, metavar="PIN", help="whose")
    if verb == "restart":
        parser.add_argument("pins", nargs="*", type=_pin, metavar="PIN", help="which (default: all)")
    if verb == "scale":
        parser.add_argument("count", nargs="?", type=_count, metavar="N", help="how many PINs the handler shall have")
    if verb == "stop":
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--quick", action="store_const", dest="kind", const="quick", help="as QUIT does")
        group.add_argument("--kill", action="store_const", dest="kind", const="kill", help="KILL all workers at once")


def _pin(text: str) -> int:
    if text.isdecimal() and len(text) <= len(str(PIN_MAX)):
        return int(text)
    raise UsageError(f"a PIN is an int from 0 on, got '{text:.80}'")


def _count(text: str) -> int:
    if text.isdecimal() and len(text) <= len(str(PINS_MAX)):
        return int(text)
    raise UsageError(f"the number of PINs is an int from 1 on, got '{text:.80}'")


def _status(wire: Wire, parsed: argparse.Namespace) -> int:
    if parsed.pins is not None and (parsed.watch or parsed.openmetrics):
        raise UsageError("--watch and --openmetrics tell of all PINs: they go without one")
    if parsed.watch:
        from pyworkers._client.watch import watch

        return _code(watch(lambda: wire.ask("status")))
    if parsed.pins is not None:
        reply = wire.ask("history", pin=parsed.pins)
        _say(json.dumps(reply) if parsed.json else "\n".join(story(reply)))
        return _code({"workers": [reply["worker"]]})
    reply = wire.ask("status")
    if parsed.json:
        _say(json.dumps(reply))
    elif parsed.openmetrics:
        sys.stdout.write(openmetrics.text(metrics.families(reply)))
    else:
        _say("\n".join([table.summary(reply), *table.reloaded(reply), *table.table(reply)]))
    return _code(reply)


def _code(reply: Reply) -> int:
    return ExitCode.OK if table.all_up(reply["workers"]) else ExitCode.DOWN


def _ping(wire: Wire, _parsed: argparse.Namespace) -> int:
    begun = time.perf_counter()
    reply = wire.ask("ping")
    _say(f"{reply['name']} master pid {reply['pid']} answers in {1000 * (time.perf_counter() - begun):.1f} ms")
    return ExitCode.OK


def _stop(wire: Wire, parsed: argparse.Namespace) -> int:
    reply = wire.ask("stop", kind=parsed.kind or "graceful")
    timeout_s = reply["timeout"] + MARGIN_S
    if wire.await_end(timeout_s):
        return ExitCode.OK
    raise RefusedError(f"master pid {reply['pid']} is still there after {timeout_s:.0f} s")


def _stack(wire: Wire, parsed: argparse.Namespace) -> int:
    if parsed.pins is None:
        raise UsageError("stack needs a PIN: whose stacks?")
    reply = wire.ask("stack", pin=parsed.pins)
    _say("\n".join([f"{reply['handler']} pin={reply['pin']} pid={reply['pid']}", *reply["stack"]]))
    return ExitCode.OK


def _restart(wire: Wire, parsed: argparse.Namespace) -> int:
    before = {row["pin"]: row["restarts"] for row in wire.ask("status")["workers"]}
    reply = wire.ask("restart", **({"pins": parsed.pins} if parsed.pins else {}))
    pins = reply["pins"]

    def settled(row: Reply) -> bool:
        # Who ended normally instead of being asked has finished; whoever started anew may be in a crash loop; and when
        # a lease is to be had is for others to say.
        renewed = row["restarts"] > before[row["pin"]]
        return row["state"] in ("finished", "failed", "waiting") or (renewed and row["state"] in ("running", "backoff"))

    rows = _await(wire, pins, settled, reply["timeout"] + MARGIN_S)
    _say("\n".join(table.table({"workers": rows, "spares": [], "started": time.time(), "uptime": 0.0})))
    return _code({"workers": rows})


def _scale(wire: Wire, parsed: argparse.Namespace) -> int:
    if parsed.count is None:
        raise UsageError("scale needs the number of PINs that the handler shall have")
    reply = wire.ask("scale", count=parsed.count)
    changes = [f"{what} PINs {','.join(map(str, reply[what]))}" for what in ("added", "removed") if reply[what]]
    _say(f"{reply['count']} PINs: {'; '.join(changes) or 'as before'}")
    rows = _await(wire, reply["added"], table.is_up, reply["timeout"] + MARGIN_S)
    return _code({"workers": rows})


def _await(wire: Wire, pins: list[int], settled: Callable[[Reply], bool], timeout_s: float) -> list[Reply]:
    """Ask again and again until all of these PINs have settled, or the time is up; return their last rows.

    Time is up for none that starts: there is no telling how long `on_worker_start` may take.
    """
    deadline = time.monotonic() + timeout_s
    while pins:
        rows: list[Reply] = wire.ask("status", pins=pins)["workers"]
        waiting = [row for row in rows if not settled(row)]
        if not waiting:
            return rows
        if time.monotonic() > deadline and all(row["state"] != "starting" for row in waiting):
            late = ", ".join(f"PIN {row['pin']} is {row['state']}" for row in waiting)
            _tell(f"not up after {timeout_s:.0f} s: {late}", ExitCode.DOWN)
            return rows
        time.sleep(POLL_S)
    return []


def _reload(wire: Wire, _parsed: argparse.Namespace) -> int:
    # A master that does not answer at all is found out before the wait that has no limit.
    wire.ask("ping")
    reply = wire.ask("reload", endless=True)
    _say(f"master pid {reply['pid']} runs the new code, and so do its workers")
    return ExitCode.OK


VERBS: Mapping[str, Callable[[Wire, argparse.Namespace], int]] = {
    "status": _status,
    "stop": _stop,
    "restart": _restart,
    "scale": _scale,
    "stack": _stack,
    "reload": _reload,
    "ping": _ping,
}
