"""The rooms and the doors between them: who may import whom, and how long a module and a function may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import pyworkers

ROOT = Path(pyworkers.__file__).parent
LINES_MAX = 350
FUNCTION_LINES_MAX = 60

CORE_STDLIB = {
    "__future__", "collections", "collections.abc", "enum", "functools", "heapq", "math", "typing",
    "typing_extensions",
}  # fmt: skip

# Each room, and the rooms whose modules it may import. "_core" stands for all of a room, "_core.types" for one module.
# What is loaded only for type checkers counts as well: a name that has to be known is a dependency.
ROOMS: dict[str, set[str]] = {
    "_core": {"_core"},
    "errors": {"_core.types", "_core.policy"},
    "_logs": {"_core.types", "_core.typed", "_core.policy", "errors", "_options", "_settings", "_handler"},
    "_sinks": {"_logs", "_posix.outlets"},
    "_handler": {"_logs"},
    "_structured": {"_core.types", "_logs", "_handler"},
    "_values": {"_core.types", "_core.typed", "_shards"},
    "_shards": {"_core.records", "_core.types", "_settings", "errors"},
    "_options": {"_core.records", "_values"},
    "_settings": {"_core.records", "_core.types", "_core.policy", "errors", "_logs", "_options", "_values"},
    "_lease": {"_lease", "_core.exchange", "_core.lease", "_core.records", "_core.types", "_core.typed", "_posix", "errors"},
    "_posix": {"_posix", "_core.records", "_core.types", "_core.typed", "errors"},
    "_worker": {"_worker", "_posix", "_core.records", "_core.types", "_core.typed", "errors", "_logs"},
    "_master": {"_master", "_core", "_posix", "errors", "_logs", "_lease.wire"},
    "_leasing": {"_shards", "_core.lease", "_core.rows", "_core.types", "_lease.wire", "_master.lease", "_posix", "_settings", "_worker"},
    "_declare": {"_core.scheduler", "_core.records", "_core.types", "_worker", "_settings", "errors"},
    "app": {"_core.scheduler", "_core.types", "_worker", "_settings", "errors", "_declare", "_compose"},
    "_audit": {"_core.types"},
    "_plan": {"_core.scheduler", "_core.records", "_core.types", "_core.typed", "_settings", "_shards", "errors", "_declare", "_audit"},
    "_export": {"_export", "_core.records", "_core.types", "_declare", "_options", "_plan", "_settings", "errors"},
    "_loader": {"_core.types", "app", "errors"},
    "_presence": {"_logs", "_posix"},
    "_metering": {"_master", "_posix", "_worker"},
    "_metrics": {"_client", "errors"},
    "_client": {"_client", "_core.records", "_core.typed", "_core.types", "_posix", "errors"},
    "_inline": {"_worker", "_plan", "app"},
    "_readiness": {"_core.standing", "_logs", "_posix", "_master.notify", "_settings", "errors"},
    "_printer": {"_core.types", "_posix"},
    "_assembly": {
        "_core", "_logs", "_options", "_posix", "_worker", "_master", "_declare", "app", "_plan", "errors", "_presence",
        "_beside", "_leasing", "_origin", "_readiness", "_reloading", "_roster", "_surroundings",
    },
    "_beside": {"_leasing", "_logs", "_master", "_plan", "_roster", "_worker", "_metering", "_printer", "_reloading"},
    "_watcher": set(),
    "_origin": {"_core.records", "_core.types", "_posix", "_succession", "errors"},
    "_reloading": {"_assembly", "_core", "_logs", "_master", "_posix", "_presence", "_roster", "_succession"},
    "_succession": {"_core", "_master", "_plan", "_posix", "_reloading", "_roster", "_settings", "app", "errors"},
    "_surroundings": {"_options", "_posix", "_worker"},
    "_roster": {"_core.records", "_core.types", "_plan", "_posix"},
    "_instance": {
        "_core.types", "errors", "_logs", "_sinks", "_posix", "_worker", "_master", "_declare", "app", "_plan", "_audit",
        "_assembly", "_inline", "_origin", "_readiness", "_structured",
    },
    "_compose": {"_audit", "_instance", "_origin", "_plan", "_sinks", "_succession", "app", "errors"},
    "cli": {
        "_client", "_core.types", "_compose", "_export", "_loader", "_origin", "_plan", "_options", "_settings", "_sinks",
        "_values", "app", "errors",
    },
    "testing": {
        "testing", "_core", "_posix", "_worker", "_master.reports", "_client", "_declare", "_settings", "_plan", "app",
        "errors",
    },
    "__init__": {"_core.types", "app", "errors"},
    "__main__": {"cli"},
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module, and how it is imported."""

    line: int
    module: str
    in_function: bool
    for_checkers: bool


def modules() -> list[str]:
    """Return the path of every module, relative to the package."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))


def parsed(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text())


def room_of(module: str) -> str:
    """Return the room that a module belongs to: its subpackage, or the module itself."""
    return module.split("/", maxsplit=1)[0].removesuffix(".py")


def imports(node: ast.AST, *, in_function: bool = False, for_checkers: bool = False) -> Iterator[Import]:
    """Yield all imports beneath a node; `from package import module` counts as one of the module."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from (Import(child.lineno, alias.name, in_function, for_checkers) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                assert level == 0, f"relative import in line {child.lineno}: say the whole name"
                assert source is not None
                for alias in names:
                    full = f"{source}.{alias.name}"
                    found = full if _is_module(full) else source
                    yield Import(child.lineno, found, in_function, for_checkers)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from imports(child, in_function=in_function, for_checkers=True)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from imports(child, in_function=True, for_checkers=for_checkers)
            case _:
                yield from imports(child, in_function=in_function, for_checkers=for_checkers)


def _is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def allowed(inner: str, doors: set[str]) -> bool:
    """Whether a module of ours, named without the package, is behind one of the doors."""
    return any(inner == door or inner.startswith(door + ".") for door in doors)


def test_every_module_has_a_room() -> None:
    """A new module or room is entered in the table of this test, on purpose."""
    assert {room_of(module) for module in modules()} == set(ROOMS)


@pytest.mark.parametrize("module", modules())
def test_imports_go_in_the_allowed_direction(module: str) -> None:
    """Each room imports only what its row of the table names."""
    room = room_of(module)
    ours = [found for found in imports(parsed(module)) if found.module.split(".")[0] == "pyworkers"]

    wrong = [
        f"line {found.line}: {found.module}"
        for found in ours
        if not allowed(found.module.removeprefix("pyworkers."), ROOMS[room])
    ]
    assert not wrong, f"{room} must not import these: {wrong}"


@pytest.mark.parametrize("module", [module for module in modules() if room_of(module) == "_core"])
def test_core_knows_no_operating_system(module: str) -> None:
    """The core imports only what computes: no os, signal, time, logging, threading, socket or random."""
    foreign = {found.module for found in imports(parsed(module)) if found.module.split(".")[0] != "pyworkers"}

    assert foreign <= CORE_STDLIB


EXTRAS = {"_metrics.py": {"prometheus_client"}, "_watcher.py": {"watchfiles"}}
"""What is the program of a helper may import what an extra brings."""


@pytest.mark.parametrize("module", modules())
def test_nothing_beyond_the_standard_library_is_imported(module: str) -> None:
    """The one runtime dependency is typing_extensions, and it is loaded by type checkers only."""
    for found in imports(parsed(module)):
        top = found.module.split(".")[0]
        if top == "psycopg":
            assert module == "_lease/postgres.py", f"line {found.line}: the one back end that knows it"
        elif top == "typing_extensions":
            assert found.for_checkers, f"line {found.line}: typing_extensions outside of TYPE_CHECKING"
        else:
            known = {"pyworkers", *sys.stdlib_module_names, *EXTRAS.get(module, ())}
            assert top in known, f"line {found.line}: {found.module}"


@pytest.mark.parametrize("module", modules())
def test_programs_of_helpers_are_imported_by_nobody(module: str) -> None:
    """They have threads and packages that a process which forks must not have."""
    assert not {"pyworkers." + name.removesuffix(".py") for name in EXTRAS} & {
        found.module for found in imports(parsed(module))
    }


@pytest.mark.parametrize("module", modules())
def test_compose_is_imported_only_at_the_top(module: str) -> None:
    """Only the command line imports the composition root, and App.run, inside the function."""
    found = [each for each in imports(parsed(module)) if each.module == "pyworkers._compose"]

    assert not found or module in {"app.py", "cli.py"}
    assert module != "app.py" or all(each.in_function for each in found)


@pytest.mark.parametrize("module", [module for module in modules() if module != "__main__.py"])
def test_nobody_imports_the_command_line(module: str) -> None:
    """The command line is the outermost layer: only __main__ imports it."""
    assert "pyworkers.cli" not in {found.module for found in imports(parsed(module))}


@pytest.mark.parametrize("module", modules())
def test_module_is_short(module: str) -> None:
    """A module over 350 lines has two rooms in it."""
    assert len((ROOT / module).read_text().splitlines()) <= LINES_MAX


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, source: list[str]) -> int:
    """Count a function's lines without docstring, blank lines and comments."""
    assert function.end_lineno is not None
    lines = range(function.lineno, function.end_lineno + 1)
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines = [line for line in lines if not docstring.lineno <= line <= docstring.end_lineno]  # type: ignore[assignment]
    return sum(not source[line - 1].strip().startswith("#") and bool(source[line - 1].strip()) for line in lines)


@pytest.mark.parametrize("module", modules())
def test_functions_are_short(module: str) -> None:
    """No function has more than 60 lines of code."""
    source = (ROOT / module).read_text().splitlines()
    functions = [node for node in ast.walk(parsed(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    assert {
        node.name: code_lines(node, source) for node in functions if code_lines(node, source) > FUNCTION_LINES_MAX
    } == {}


@pytest.mark.parametrize("module", modules())
def test_module_says_what_it_is_for(module: str) -> None:
    """Every module opens with its charter."""
    assert ast.get_docstring(parsed(module))


def test_import_of_the_package_is_lean() -> None:
    """`import pyworkers` loads nothing that only some runs need."""
    heavy = [
        "argparse", "asyncio", "concurrent", "ctypes", "email", "http", "importlib.metadata", "multiprocessing",
        "socket", "subprocess", "typing_extensions", "unittest", "uuid", "pyworkers._compose", "pyworkers.cli",
        "pyworkers._master", "pyworkers.testing",
    ]  # fmt: skip
    # What the interpreter itself (or a coverage tool in it) has loaded before is not our doing.
    code = f"import sys; old = set(sys.modules); import pyworkers; print(set({heavy!r}) & set(sys.modules) - old)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_start_loads_no_large_module_for_a_small_use() -> None:
    """What the master is made of does without modules that are larger than the use that it would have for them."""
    large = ["ast", "dataclasses", "inspect", "ipaddress", "pathlib", "typing", "typing_extensions", "urllib"]
    # These it needs, and what they load is not our doing.
    needed = "argparse, ctypes, logging, signal, socket"
    ours = "pyworkers.cli, pyworkers._compose"
    code = (
        f"import sys, {needed}; old = set(sys.modules); import {ours}; print(set({large!r}) & set(sys.modules) - old)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_public_names_are_listed() -> None:
    """What `__all__` promises is there, and nothing else in the package's top is public by accident."""
    submodules = {room for room in ROOMS if not room.startswith("_")}
    public = {name for name in vars(pyworkers) if not name.startswith("_")} - submodules

    assert sorted(pyworkers.__all__) == list(pyworkers.__all__)
    assert public == set(pyworkers.__all__)
