"""`pyworkers status`, `stop` and the others: asks the master of a running instance, and never imports the app."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from pyworkers._client import table
from pyworkers._client.find import find
from pyworkers._client.wire import Wire
from pyworkers.errors import ExitCode, NotRunningError, RefusedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from pyworkers._client.wire import Reply

MARGIN_S = 5.0
"""Beyond what the master promises: hooks at its end, and a machine under load."""


def main(verb: str, arguments: Sequence[str], parser: argparse.ArgumentParser) -> int:
    """Run one verb, and return the exit code; the parser knows how to complain.

    Raises:
        PyworkersError: One line for a person.
    """
    _describe(verb, parser)
    parsed = parser.parse_args(list(arguments))
    if parsed.app is None and parsed.lock_file is None:
        raise UsageError(f"{verb} needs the app, such as crawler:app, or its --lock-file")
    try:
        wire = Wire(find(parsed.app, parsed.lock_file))
        try:
            return VERBS[verb](wire, parsed)
        finally:
            wire.close()
    except NotRunningError as error:
        return _tell(error, ExitCode.NOT_RUNNING)
    except RefusedError as error:
        return _tell(error, ExitCode.FAILED)
    except BrokenPipeError:
        # `status | head`: whoever reads has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK


def _tell(error: Exception, code: int) -> int:
    print(f"pyworkers: {error}", file=sys.stderr)  # noqa: T201  (that is what a verb is for)
    return code


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (as above)


def _describe(verb: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", nargs="?", metavar="module:attribute", help="the app, as it was started, or its name")
    parser.add_argument("--lock-file", metavar="FILE", help="the lock file of the instance, instead of the app")
    if verb == "status":
        parser.add_argument("--json", action="store_true", help="print what the master says, as JSON on one line")
    if verb == "stop":
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--quick", action="store_const", dest="kind", const="quick", help="as QUIT does")
        group.add_argument("--kill", action="store_const", dest="kind", const="kill", help="KILL all workers at once")


def _status(wire: Wire, parsed: argparse.Namespace) -> int:
    reply = wire.ask("status")
    if parsed.json:
        _say(json.dumps(reply))
    else:
        _say("\n".join([table.summary(reply), *table.table(reply)]))
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


VERBS: Mapping[str, Callable[[Wire, argparse.Namespace], int]] = {
    "status": _status,
    "stop": _stop,
    "ping": _ping,
}
