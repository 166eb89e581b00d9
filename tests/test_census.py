"""The main job, on a small library: rows, errors, resumption, and a few shots. The real one is under fire elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Bench, until

EXAMPLE = Path(__file__).parent.parent / "examples" / "stdlib_census.py"
COUNT = 300


@pytest.fixture
def library(bench: Bench) -> Path:
    """A directory of modules, one of which does not parse, beside a copy of the example that counts it."""
    shutil.copy(EXAMPLE, bench.directory)
    root = bench.directory / "library"
    for number in range(COUNT):
        path = root / f"package{number % 7}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"class A:\n    def one(self):\n        return {number}\n\n\n" + "def two():\n    pass\n" * number
        )
    (root / "broken.py").write_text("def broken(:\n")
    (root / "site-packages").mkdir()
    (root / "site-packages" / "other.py").write_text("")
    (bench.directory / "shop.py").write_text(
        "from pathlib import Path\nimport stdlib_census as census\ncensus.LIBRARY = Path('library')\napp = census.app\n"
    )
    return root


def rows(bench: Bench) -> list[tuple[object, ...]]:
    """Return the table."""
    connection = sqlite3.connect(bench.directory / "stdlib_census.db")
    try:
        return connection.execute("SELECT * FROM module ORDER BY path").fetchall()
    finally:
        connection.close()


def test_census_counts_every_file_and_prints_the_largest(bench: Bench, library: Path) -> None:
    """A row a file, an error where a file does not parse, ten lines at the end, code 0."""
    finished = bench.run("shop:app")

    assert finished.returncode == 0, finished.stderr
    found = rows(bench)
    assert len(found) == COUNT + 1
    assert ("broken.py", 1, 0, 0, "", "SyntaxError") in found
    assert ("package4/module4.py", 13, 5, 1, "two (2)", "") in found
    lines = finished.stdout.splitlines()
    assert lines[0] == f"{COUNT + 1} modules of the standard library; the ten largest:"
    assert lines[1].split() == [
        "603",
        "lines",
        "300",
        "functions",
        "1",
        "classes",
        "package5/module299.py,",
        "longest:",
        "two",
        "(2)",
    ]
    assert len(lines) == 12
    assert lines[-1] == "1 files do not parse, and say so in their rows"


def test_census_resumes_after_the_death_of_everybody(bench: Bench, library: Path) -> None:
    """Workers and master are killed in the middle; the next run completes the same table."""
    undisturbed = subprocess.run(
        [sys.executable, "-m", "pyworkers", "shop:app"],
        cwd=bench.directory,
        env={**os.environ, "CENSUS_DB": "calm.db"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    master = bench.start(None)
    for pin in range(3):
        os.kill(master.worker(pin), signal.SIGKILL)
    until((bench.directory / "stdlib_census.db").exists, "the database")
    master.process.kill()
    master.process.wait()

    assert bench.run("shop:app").returncode == 0
    calm = sqlite3.connect(bench.directory / "calm.db")
    assert rows(bench) == calm.execute("SELECT * FROM module ORDER BY path").fetchall()
    calm.close()
    assert undisturbed.stdout.count(b"\n") == 12
