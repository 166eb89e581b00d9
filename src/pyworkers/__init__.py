"""Keeps Python functions running: one decorated file, one command, every PIN taken."""

from pyworkers._core.types import FailureRecord, Previous
from pyworkers.app import App
from pyworkers.errors import (
    AppImportError,
    DeclarationError,
    ExitCode,
    LockError,
    PyworkersError,
    Stop,
    UsageError,
)

__all__ = [
    "App",
    "AppImportError",
    "DeclarationError",
    "ExitCode",
    "FailureRecord",
    "LockError",
    "Previous",
    "PyworkersError",
    "Stop",
    "UsageError",
]
