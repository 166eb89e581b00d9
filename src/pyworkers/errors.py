"""The exceptions of pyworkers, and the exit codes of its master and workers: each documented here, once.

`PyworkersError` is what a program that embeds pyworkers catches. Its text is one line for a person: what was expected,
what was got, where, what to do.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What an exit code of ours means."""

    OK = 0
    """Master: all workers ended normally, or the stop was graceful, or `--if-running=exit` found another instance.
    Worker: a normal end, by default."""
    FAILED = 1
    """Master: a PIN has failed, or a worker did not leave the stop by TERM alone (a unit may be torn), or `on_stop`
    raised, or a daemon's worker ended before it was ever up.
    Worker: an exception, or a result that is no exit code."""
    USAGE = 2
    """Master: usage, a bad app, `on_start` raised, `strict` and the fork-safety audit has findings, or no memory for
    the master; no worker was started. The code of argparse and of the shell's builtins."""
    DOWN = 3
    """`status`: the instance runs, and some PIN that should be up is not. The code of LSB and systemctl."""
    NOT_RUNNING = 4
    """`status` and the other verbs: no such instance runs. The code of LSB and systemctl."""
    BUSY = 75
    """Master: another instance holds the lock (`--if-running=fail`, or `wait` ran out). EX_TEMPFAIL of sysexits.h."""
    CUT_BY_INT = 130
    """Master: a shard was stopped by INT before all of its PINs had ended, 128 + SIGINT.
    A verb: INT has ended its wait."""
    INTERRUPTED = 131
    """Worker: left by the interrupt, 128 + SIGQUIT as a shell counts."""
    STOPPED = 143
    """Worker: left at a checkpoint because it was asked to stop, 128 + SIGTERM.
    Master: a shard was asked to stop before all of its PINs had ended; engines take 0 for work that is done."""
    STOP_ALL = 254
    """Master: what `App.stop_all` sets by default, as the original's exitAll does."""


class PyworkersError(Exception):
    """The base of all errors that pyworkers raises on purpose."""


class DeclarationError(PyworkersError):
    """An app, a handler, a hook or an option is declared wrongly."""


class UsageError(PyworkersError):
    """The command line, a PYWORKERS_ variable, or the place of a call is wrong."""


class AppImportError(PyworkersError):
    """The app cannot be imported from its import string."""


class LockError(PyworkersError):
    """The lock file cannot be used."""


class NotRunningError(PyworkersError):
    """The instance that a verb is for does not run."""


class RefusedError(PyworkersError):
    """A running instance does not do what a verb asks for."""


class Stop(SystemExit):
    """Raised in a worker that is asked to stop, by a checkpoint or, where there is none, where the worker stands.

    A `SystemExit`, so that `except Exception` cannot eat it. Its `code` is 143, or 131 after the interrupt.
    """
