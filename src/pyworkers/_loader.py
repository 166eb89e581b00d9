"""Import strings, `module:attribute`: finds the app, and tells apart what can go wrong on the way.

Three errors that look alike to Python: the module does not exist, the module exists but fails to import, the module
has no such attribute. A person needs a different line for each.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from pyworkers._core.types import shown
from pyworkers.app import App
from pyworkers.errors import AppImportError, PyworkersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(target: str, directory: str) -> App:
    """Import the app that `target` names, looking into `directory` first, as gunicorn and uvicorn do.

    Raises:
        AppImportError: One line that says what is wrong; its cause has the traceback.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        hint = f"'{_dotted(module_name) or 'module'}:{attribute or 'app'}'"
        raise AppImportError(f"expected an import string 'module:attribute', got '{target}'; did you mean {hint}?")
    if _dotted(module_name) != module_name:
        hint = f"'{_dotted(module_name)}:{attribute}'"
        raise AppImportError(f"'{module_name}' is a file, expected a module; did you mean {hint}?")
    if directory not in sys.path[:1]:
        sys.path.insert(0, directory)
    module = _import(module_name, target, directory)
    found: Any = module
    for name in attribute.split("."):
        found = _attribute(found, name, target, module_name)
    if not isinstance(found, App):
        raise AppImportError(f"'{target}' is not an App but {shown(found)}")
    return found


def _dotted(path: str) -> str:
    """Return the module's name for what may be the path of its file."""
    return path.removesuffix(".py").replace("/", ".").strip(".")


def _import(name: str, target: str, directory: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise AppImportError(
                f"cannot import app from '{target}': there is no module '{error.name}' in {directory} or on sys.path"
            ) from error
        raise AppImportError(_failed(name, error)) from error
    except PyworkersError as error:
        # A declaration that is wrong: its line already says all.
        raise AppImportError(f"{error} ({_place(error)})") from error
    except SystemExit as error:
        raise AppImportError(
            f"module '{name}' called sys.exit({error.code!r}) while it was imported ({_place(error)});"
            " put such calls under if __name__ == '__main__'"
        ) from error
    except Exception as error:
        raise AppImportError(_failed(name, error)) from error


def _failed(name: str, error: BaseException) -> str:
    return f"module '{name}' failed to import: {_said(error)}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({_place(error)})"


def _place(error: BaseException) -> str:
    """Return file and line of the user's code that the error comes from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if "importlib" not in frame.filename and not frame.filename.startswith(_HERE)]
    frame = (foreign or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


_HERE = __file__.removesuffix("_loader.py")


def _attribute(found: Any, name: str, target: str, module_name: str) -> Any:
    try:
        return getattr(found, name)
    except Exception as error:
        if not isinstance(error, AttributeError):
            raise AppImportError(f"cannot import app from '{target}': {_said(error)}") from error
        import difflib

        names: dict[str, object] = getattr(found, "__dict__", {})
        apps = [key for key, value in names.items() if isinstance(value, App)]
        guess = (apps or difflib.get_close_matches(name, names, n=1))[:1]
        hint = f"; did you mean '{guess[0]}'?" if guess else ""
        raise AppImportError(
            f"cannot import app from '{target}': module '{module_name}' has no attribute '{name}'{hint}"
        ) from None
