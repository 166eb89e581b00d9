"""The command line: `python -m pyworkers [VERB] module:attribute [options]`. The only place that prints usage."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence

from pyworkers import _compose, _loader, _plan
from pyworkers._core.types import PIN_MAX
from pyworkers._options import OPTIONS
from pyworkers._origin import beginning
from pyworkers._settings import from_environment, from_text
from pyworkers._sinks import complain
from pyworkers._values import SYSLOG_DEFAULT
from pyworkers.app import declaration_of
from pyworkers.errors import AppImportError, ExitCode, PyworkersError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

VERBS = {
    "run": "run the app in the foreground until its workers have ended (this is the default)",
    "check": "import the app, print the map of its PINs, its options and the fork-safety audit, and fork nothing",
    "export": "systemd, cron, kubernetes or slurm: print what has the app run like this there",
}

OPERATIONS = {
    "status": "show every PIN, or tell the story of one; code 0 all that should be up are, 3 not all, 4 not running",
    "stop": "stop it, and return when it is gone",
    "restart": "restart PINs, or all of them at once, also failed and finished ones; return when they are up",
    "scale": "give the handler without pins so many of them: the lowest free are added, the highest removed",
    "stack": "show the Python stack of every thread of a worker, also of one that hangs",
    "reload": "try out the new code, and if it is good let its workers replace the others one at a time",
    "ping": "see whether its master answers",
}
"""What is asked of an instance that runs: the app is not imported."""

_EPILOG = """\
Signals to the master: TERM stops, workers leave at their next checkpoint; INT the same, a second INT kills at once;
QUIT interrupts now and kills after 2 seconds; HUP reloads; TTIN and TTOU add and remove a PIN of the handler without
pins; USR1 and USR2 go to every worker.

Exit codes: 0 all workers ended normally, or stopped gracefully; 1 a PIN has failed, a worker had to be interrupted or
killed in a stop, or on_stop raised; 2 usage, a bad app, on_start raised, or strict has findings, and no worker was
started; 75 another instance holds the lock; 143, by INT 130, a shard was stopped before its PINs had ended; or what
App.stop_all asked for.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Knows its width: else it is made for every option at every start, and loads shutil to find out."""

    def __init__(self, prog: str) -> None:
        columns = os.environ.get("COLUMNS", "")
        with contextlib.suppress(OSError):
            columns = columns if columns.isdecimal() else str(os.get_terminal_size().columns)
        super().__init__(prog, width=max(int(columns or 80) - 2, 40))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except AppImportError as error:
        if error.__cause__ is not None and _wants_debug(arguments):
            import traceback

            traceback.print_exception(error.__cause__)
        complain(error)
        return ExitCode.USAGE
    except PyworkersError as error:
        complain(error)
        return ExitCode.USAGE


def _run(arguments: list[str]) -> int:
    if arguments[:1] and arguments[0] in OPERATIONS:
        return _operate(arguments[0], arguments[1:])
    # An option whose value may be missing takes it only with "=", or it would swallow the import string.
    arguments = [f"--syslog={SYSLOG_DEFAULT}" if argument == "--syslog" else argument for argument in arguments]
    verb = arguments.pop(0) if arguments[:1] and arguments[0] in VERBS else "run"
    kind = _kind(arguments) if verb == "export" else None
    parser = _parser()
    if kind is not None:
        parser.add_argument("--shards", metavar="N", help="of slurm and kubernetes: divide the PINs into N shards")
        parser.add_argument("--kind", metavar="Job|StatefulSet", help="of kubernetes with --shards (default: Job)")
    parsed = parser.parse_args(arguments)
    texts: dict[str, str] = {name: text for name in OPTIONS if (text := getattr(parsed, name)) is not None}
    given = {name: from_text(OPTIONS[name], text, OPTIONS[name].flag) for name, text in texts.items()}
    # Before the import, so that a bad variable costs no start of the app, and the origin is as it was.
    begin = beginning(parsed.app)
    options = {**from_environment(os.environ), **given}
    only = None if parsed.only is None else _pin(parsed.only)
    if parsed.inline and only is None:
        raise UsageError("--inline needs --only PIN: one process can run one handler")
    if parsed.inline and options.get("lease") is not None:
        raise UsageError("--inline and --lease (or PYWORKERS_LEASE) exclude each other: nobody would renew the lease")
    if verb != "run" and (parsed.inline or only is not None):
        raise UsageError(f"--only and --inline go with run, not with {verb}")
    try:
        with begin.importing():
            app = _loader.load(parsed.app, os.getcwd())
    except AppImportError as error:
        if begin.inherited is None:
            raise
        return _compose.go_on_without(error, given, begin)
    if verb == "check":
        text, would_start = _plan.describe(declaration_of(app), given)
        print(text)  # noqa: T201  (that is what check is for)
        return ExitCode.OK if would_start else ExitCode.USAGE
    if kind is not None:
        from pyworkers._export.kinds import exported, requested

        request = requested(kind, parsed.shards, parsed.kind)
        print(exported(request, declaration_of(app), given, parsed.app, texts), end="")  # noqa: T201  (as above)
        return ExitCode.OK
    return _compose.main(app, given, only, begin=begin, inline=parsed.inline, leaving=True)


def _kind(arguments: list[str]) -> str:
    # Not loaded for a run.
    from pyworkers._export.kinds import taken_kind

    return taken_kind(arguments)


def _operate(verb: str, arguments: list[str]) -> int:
    from pyworkers._client import verbs

    parser = _Parser(
        prog=f"pyworkers {verb}",
        description=f"Of a running instance: {OPERATIONS[verb]}.",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    return verbs.main(verb, arguments, parser)


def _listed(verbs: Mapping[str, str]) -> str:
    return "\n".join(f"  {verb:<8}{what}" for verb, what in verbs.items())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pyworkers",
        usage="pyworkers [VERB] module:attribute [options]",
        description=(
            f"Keep the workers of an app running.\n\nverbs:\n{_listed(VERBS)}\n\n"
            f"verbs for an instance that runs (see pyworkers VERB --help):\n{_listed(OPERATIONS)}"
        ),
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("app", metavar="module:attribute", help="where the App is, such as crawler:app")
    for option in OPTIONS.values():
        if option.metavar is None:
            group = parser.add_mutually_exclusive_group()
            group.add_argument(option.flag, dest=option.name, action="store_const", const="true", help=option.help)
            no_flag = "--no-" + option.flag.removeprefix("--")
            group.add_argument(no_flag, dest=option.name, action="store_const", const="false", help=argparse.SUPPRESS)
        else:
            shown = f"[={option.metavar}]" if option.name == "syslog" else option.metavar
            parser.add_argument(option.flag, dest=option.name, metavar=shown, help=option.help)
    parser.add_argument("--only", metavar="PIN", help="run this PIN alone")
    parser.add_argument(
        "--inline", action="store_true", help="with --only: call the handler in this very process, for a debugger"
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        # Read only when asked: importlib.metadata costs more than the rest of our imports together.
        from importlib.metadata import version

        print(f"pyworkers {version('pyworkers')}")  # noqa: T201  (as above)
        parser.exit(ExitCode.OK)


def _pin(text: str) -> int:
    # isdecimal() says yes to ten-thousand digits, and to those of other scripts, too: PIN_MAX has ten.
    if text.isdecimal() and len(text) <= len(str(PIN_MAX)):
        return int(text)
    raise UsageError(f"--only must be a PIN, an int from 0 on, got '{text:.80}'")


def _wants_debug(arguments: Sequence[str]) -> bool:
    if "--debug" in arguments:
        return True
    try:
        return bool(
            from_environment({key: value for key, value in os.environ.items() if key == "PYWORKERS_DEBUG"}).get("debug")
        )
    except UsageError:
        return False
