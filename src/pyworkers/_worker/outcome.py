"""How a worker's end becomes an exit code: a handler's result, or what was raised."""

from __future__ import annotations

from pyworkers._logs import ERROR, Journal
from pyworkers.errors import ExitCode


def exit_code_of(result: object) -> int:
    """Return the exit code that a handler's result means.

    Raises:
        TypeError: It is no exit code.
    """
    if result is None:
        return ExitCode.OK
    if isinstance(result, int) and not isinstance(result, bool) and 0 <= result <= 255:
        return result
    raise TypeError(f"a handler returns None or an exit code of 0 to 255, got {result!r:.80} ({type(result).__name__})")


def code_of_exception(journal: Journal, what: str, error: BaseException) -> int:
    """Return the exit code that an exception means, and log it unless it is an exit."""
    if not isinstance(error, SystemExit):
        journal.write(ERROR, f"{what} raised", error)
        return ExitCode.FAILED
    if error.code is not None and not isinstance(error.code, int):
        journal.write(ERROR, f"{what} exits: {error.code}")
    return code_of_exit(error)


def code_of_exit(error: SystemExit) -> int:
    """Return the exit code that it asks for."""
    code = error.code
    if code is None:
        return ExitCode.OK
    if isinstance(code, int):
        # What exit(3) leaves of it; but 256 must not become the 0 of a normal end.
        return code & 0xFF or (ExitCode.FAILED if code else ExitCode.OK)
    return ExitCode.FAILED
