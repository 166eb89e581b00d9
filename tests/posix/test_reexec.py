"""A new program in the same process, and a check of it beside: what they get, and what is left where they fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyworkers._posix import reexec
from pyworkers._posix.reexec import Origin
from pyworkers.errors import UsageError


def descriptors() -> dict[str, str]:
    """Return what this process has open."""
    return {link.name: os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], list[Any]]:
    """Runs a program that prints JSON, one value a line."""

    def run(text: str) -> list[Any]:
        head = "import json, os, signal, sys\nfrom pyworkers._posix import reexec\n"
        tail = "def tell(*values):\n    print(json.dumps(values), flush=True)\n"
        program = tmp_path / "program.py"
        program.write_text(head + tail + textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, program.name, "an argument"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert not done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_program_begins_again_with_what_it_was_told_and_what_it_keeps(run: Callable[[str], list[Any]]) -> None:
    """Same pid, arguments, directory and environment of before; the state, a pipe, a pending signal, all blocked."""
    first, second = run(
        """
        found = reexec.errand()
        begin = reexec.origin()
        here = (os.getpid(), sys.argv, os.getcwd(), os.environ.get("MINE"), reexec.VARIABLE in os.environ)
        if found is None:
            tell(*here)
            signal.signal(signal.SIGUSR1, lambda *_: None)
            reader, writer = os.pipe()
            os.write(writer, b"kept")
            os.environ["MINE"] = "changed"
            os.chdir("/")
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            os.kill(os.getpid(), signal.SIGUSR1)
            reexec.become(begin, str(reader).encode(), [reader], lambda: None)
        reader = int(found.read())
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        tell(*here, os.read(reader, 4).decode(), os.get_inheritable(reader), signal.SIGUSR1 in signal.sigpending(),
             signal.SIGTERM in blocked and signal.SIGCHLD in blocked, len(os.listdir("/proc/self/fd")))
        """
    )

    assert second[:5] == first
    assert first[3:] == [None, False]
    # 0 to 2, the reader, and the one that lists them.
    assert second[5:] == ["kept", False, True, True, 5]


def test_g3_signal_that_was_trapped_and_not_taken_is_the_new_programs(run: Callable[[str], list[Any]]) -> None:
    """What has come before every signal was blocked, but nobody has looked at, is pending in the new program."""
    ((pending,),) = run(
        """
        from pyworkers._posix.signals import MasterSignals
        begin, found = reexec.origin(), reexec.errand()
        if found is None:
            with MasterSignals() as trapped:
                os.kill(os.getpid(), signal.SIGTERM)
                reexec.become(reexec.origin(), b"", [], trapped.hand_on)
        tell(sorted(signal.Signals(signum).name for signum in signal.sigpending()))
        """
    )

    assert pending == ["SIGCHLD", "SIGTERM"]


def test_program_that_cannot_be_executed_leaves_everything_as_it_was(run: Callable[[str], list[Any]]) -> None:
    """No descriptor, no signal, no directory, no inheritable pipe is left behind."""
    ((error, before, after),) = run(
        """
        def state():
            reader_inheritable = os.get_inheritable(reader)
            return [os.getcwd(), reader_inheritable, sorted(os.listdir("/proc/self/fd")),
                    sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))]

        reader, writer = os.pipe()
        begin = reexec.origin()
        os.chdir("/tmp")
        before = state()
        try:
            reexec.become(reexec.Origin("/no/such/python", begin.arguments, begin.directory, {}), b"state", [reader], lambda: None)
        except OSError as problem:
            tell(type(problem).__name__, before, state())
        """
    )

    assert error == "FileNotFoundError"
    assert after == before


@pytest.mark.parametrize(
    "value", ["", "x", "3:4", "check", "check:0", "become:", "become:99", "check:-1:0", "become:0:99999999999999999999"]
)
def test_variable_of_somebody_else_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """G11: state handed over gets one clear error, and is asked for once."""
    monkeypatch.setenv(reexec.VARIABLE, value)

    with pytest.raises(UsageError, match=r"PYWORKERS_REEXEC is a reload's own, got '.*': remove it"):
        reexec.errand()
    assert reexec.errand() is None


CHECKED = """
import os, sys
from pyworkers._posix import reexec
errand = reexec.errand()
assert errand.read() == b"the state"
{}
"""


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("print('noise'); errand.prove(); sys.exit(3)", None),
        ("sys.exit(0)", "the program did not come to its app.run()"),
        ("print('pyworkers: error: cannot import it', file=sys.stderr); sys.exit(2)", "cannot import it"),
        ("raise ValueError('on two\\n lines')", "lines"),
        ("os.kill(os.getpid(), 9)", "the program did not come to its app.run()"),
        ("print('x' * 200_000, file=sys.stderr); print('the last', file=sys.stderr)", "the last"),
    ],
)
def test_check_answers_for_the_new_program(tmp_path: Path, body: str, answer: str | None) -> None:
    """It may take over if it says so itself; else the last line that it has written says why not."""
    (tmp_path / "program.py").write_text(CHECKED.format(body))
    before = descriptors()
    begin = Origin(sys.executable, (sys.executable, "program.py"), str(tmp_path), dict(os.environ))
    pid, descriptor = reexec.start_check(begin, b"the state")
    os.waitpid(pid, 0)

    assert reexec.answer_of_check(descriptor) == answer
    assert descriptors() == before


def test_check_has_no_blocked_signal_and_nothing_of_ours(tmp_path: Path) -> None:
    """It is a program like any other: what the master blocks or has open is not its business."""
    (tmp_path / "program.py").write_text(
        "import os, signal, sys\n"
        "links = [os.readlink(f'/proc/self/fd/{name}') for name in sorted(os.listdir('/proc/self/fd'))[:-1]]\n"
        "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), *links, file=sys.stderr)\n"
    )
    begin = Origin(sys.executable, (sys.executable, "program.py"), str(tmp_path), dict(os.environ))
    reader, writer = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pid, descriptor = reexec.start_check(begin, b"the state")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.waitpid(pid, 0)
    ours = os.readlink(f"/proc/self/fd/{reader}")
    os.close(reader)
    os.close(writer)
    answer = reexec.answer_of_check(descriptor)

    assert answer is not None
    assert answer.startswith("[] /dev/null /dev/null ")
    assert answer.count("/memfd:pyworkers") == 3
    assert ours not in answer
