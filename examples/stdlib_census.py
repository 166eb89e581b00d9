"""A census of Python's standard library: the main job on real input, resumable, and indifferent to any crash.

Four PINs share the .py files of the running Python's standard library. Each parses its files, one transaction a file,
with a checkpoint between two files, and ends normally when its share is done. A fifth PIN waits until every file has
its row, and prints the ten largest modules.

    python -m pyworkers examples.stdlib_census:app

The rows are in `stdlib_census.db` (or where CENSUS_DB says). Kill any worker with `kill -9` as often as you like: its
successor goes on with the first file that has no row. Run it again, and it finds nothing left to do.
"""

from __future__ import annotations

import ast
import os
import sqlite3
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from pyworkers import App

PARSERS = 4
LIBRARY = Path(sysconfig.get_path("stdlib"))
DATABASE = os.environ.get("CENSUS_DB", "stdlib_census.db")

SCHEMA = """
CREATE TABLE IF NOT EXISTS module (
    path TEXT PRIMARY KEY, lines INTEGER, functions INTEGER, classes INTEGER, longest TEXT, error TEXT
) WITHOUT ROWID
"""
Row = tuple[str, int, int, int, str, str]

app = App("census")
library: list[str] = []


def files() -> list[str]:
    """Return the library's files, always in the same order; installed packages are not part of it."""
    found: list[str] = []
    for directory, inner, names in os.walk(LIBRARY):
        inner[:] = [name for name in inner if name not in {"site-packages", "dist-packages"}]
        place = Path(directory).relative_to(LIBRARY)
        found += [str(place / name) for name in names if name.endswith(".py")]
    return sorted(found)


def connect() -> sqlite3.Connection:
    """Open the database: each worker for itself, for a connection must not cross a fork."""
    return sqlite3.connect(DATABASE, timeout=60)


@app.on_start
def prepare() -> None:
    """Do once what every worker would repeat: list the files, and create the table."""
    library.extend(files())
    database = connect()
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(SCHEMA)
    database.close()


def survey(path: str) -> Row:
    """Parse one file; one that does not parse gives a row that says so."""
    source = (LIBRARY / path).read_bytes()
    lines = source.count(b"\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        return path, lines, 0, 0, "", type(error).__name__
    found = list(_functions(tree))
    classes = sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
    longest = max(found, key=lambda function: (function[1], function[0]), default=("", 0))
    return path, lines, len(found), classes, f"{longest[0]} ({longest[1]})" if found else "", ""


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@app.worker(pins=range(PARSERS))
def parse(pin: int) -> None:
    """Write a row for each file of this PIN's share that has none yet."""
    database = connect()
    done = {path for (path,) in database.execute("SELECT path FROM module")}
    share = [path for path in library[pin::PARSERS] if path not in done]
    for path in app.track(share):
        app.unit(path)
        with database:
            database.execute("INSERT INTO module VALUES (?, ?, ?, ?, ?, ?)", survey(path))
    database.close()


@app.worker(pins=PARSERS)
def report() -> None:
    """Wait for the others' rows, and print the ten largest modules."""
    database = connect()
    while (count := database.execute("SELECT count(*) FROM module").fetchone()[0]) < len(library):
        app.sleep(0.1)
    print(f"{count} modules of the standard library; the ten largest:")
    rows = database.execute(
        "SELECT path, lines, functions, classes, longest FROM module ORDER BY lines DESC, path LIMIT 10"
    )
    for path, lines, functions, classes, longest in rows:
        print(f"{lines:7,} lines {functions:5} functions {classes:4} classes  {path}, longest: {longest}")
    failed = database.execute("SELECT count(*) FROM module WHERE error <> ''").fetchone()[0]
    print(f"{failed} files do not parse, and say so in their rows")
    database.close()
