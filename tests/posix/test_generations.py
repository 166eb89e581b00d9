"""The numbers that fence off late writes: they grow through every crash, and a bad file stops them with a clear line."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import PATIENCE_S
from pyworkers._posix.generations import BLOCK, END, Generations
from pyworkers.errors import LockError

LINE = "pyworkers generation: {:020d} is the first number not yet given away\n"
SIZE = len(LINE.format(0))
START = 1_795_000_000_000

HEAD = """
import errno, json, os, random, resource, signal, struct, sys
from pyworkers._posix.generations import BLOCK, Generations

path = sys.argv[1]
UNLIMITED = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def attempt(generations):
    try:
        return generations.take()
    except OSError as error:
        assert error.filename == path
        return errno.errorcode[error.errno]

def limit(size):
    # Python ignores SIGXFSZ, so a write beyond the limit is an error: setrlimit(2).
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, UNLIMITED))
"""

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (Debian: strace)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to be."""
    return tmp_path / "lock.generation"


def take(path: Path, count: int) -> list[int]:
    """Open the file as a new master does, take so many numbers, and leave."""
    generations = Generations(str(path))
    try:
        return [generations.take() for _ in range(count)]
    finally:
        generations.close()


def descriptors(path: Path) -> list[int]:
    """Return which descriptors of this process lead to the file."""
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if os.path.realpath(entry) == str(path)]


def run(source: str, path: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    """Run a script after HEAD in a process of its own, under the commands of the prefix."""
    command = [*prefix, sys.executable, "-c", HEAD + source, str(path)]
    # A tool that measures coverage would write files of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False)


def trace(source: str, path: Path, *options: str) -> list[tuple[str, str, str]]:
    """Run a script under strace; return its calls, each as name, file, and result or text, in their order."""
    out = path.with_name("trace")
    filters = ["-e", "trace=pwrite64,fsync,write", "-e", "signal=none", *options]
    done = run(source, path, "strace", "-o", str(out), "-y", "-s", "200", *filters)
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here (ptrace_scope)")
    assert done.returncode == 0, done.stderr
    calls: list[tuple[str, str, str]] = []
    for line in out.read_text().splitlines():
        if found := re.match(r'(\w+)\((\d+)<([^>]*)>(?:, "([^"]*)".*)?\) += (-?\d+(?: \w+)?)', line):
            name, descriptor, file, text, result = found.groups()
            digits = re.search(r"\d{20}", text or "")
            what = str(int(digits[0])) if digits else result if text is None else text.removesuffix("\\n")
            calls.append((name, "stdout" if descriptor == "1" else Path(file).name, what))
    return calls


# Growth


def test_numbers_are_consecutive_and_the_file_is_ahead(path: Path) -> None:
    """Each number is the last one plus one, across blocks, and below the bound that the file holds."""
    path.write_text(LINE.format(START))
    generations = Generations(str(path))

    for expected in range(START, START + 3 * BLOCK + 1):
        assert generations.take() == expected
        if expected % 97 == 0:
            assert LINE.format(START + ((expected - START) // BLOCK + 1) * BLOCK) == path.read_text()
    generations.close()


def test_new_master_goes_on_at_the_stored_bound(path: Path) -> None:
    """What was left of a block is skipped, whether much of it was used or nothing."""
    path.write_text(LINE.format(START))

    assert take(path, 1) == [START]
    assert take(path, 0) == []
    assert take(path, BLOCK) == list(range(START + BLOCK, START + 2 * BLOCK))
    assert take(path, 1) == [START + 2 * BLOCK]


@pytest.mark.parametrize("content", [None, b"", bytes(SIZE)], ids=["missing", "empty", "zeros"])
def test_first_number_is_the_milliseconds_of_the_clock(path: Path, content: bytes | None) -> None:
    """A file that is missing, or that a crash left without its first line, begins above all that a tmpfs has lost."""
    if content is not None:
        path.write_bytes(content)
    before = time.time_ns() // 1_000_000

    (first,) = take(path, 1)

    assert before <= first <= time.time_ns() // 1_000_000
    assert path.read_text() == LINE.format(first + BLOCK)


def test_file_is_made_for_reading_by_all_and_closed_for_programs(path: Path) -> None:
    """Mode 0644 under the usual mask, and the descriptor is not inherited across execve(2)."""
    mask = os.umask(0o022)
    try:
        generations = Generations(str(path))
    finally:
        os.umask(mask)

    (ours,) = descriptors(path)
    assert path.stat().st_mode & 0o7777 == 0o644
    assert not os.get_inheritable(ours)

    generations.close()
    assert descriptors(path) == []


# Crashes

KILLED = """
dice = random.Random(63)
for _ in range(200):
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        generations = Generations(path)
        while True:
            os.write(writer, struct.pack("=Q", generations.take()))
    os.close(writer)
    data = b""
    count = dice.choice([0, 1, dice.randrange(BLOCK), BLOCK, dice.randrange(3 * BLOCK)])
    while len(data) < 8 * count:
        data += os.read(reader, 8 * count - len(data))
    os.kill(pid, signal.SIGKILL)
    while more := os.read(reader, 65536):
        data += more
    os.close(reader)
    os.waitpid(pid, 0)
    print(json.dumps([number for (number,) in struct.iter_unpack("=Q", data)]))
"""


def test_numbers_grow_over_masters_killed_at_random(path: Path) -> None:
    """200 processes one after the other, each killed while it takes: nobody's number is repeated or undercut."""
    done = run(KILLED, path)

    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 200
    last = 0
    for numbers in rounds:
        for number in numbers:
            assert number > last
            last = number
    first = next(numbers[0] for numbers in rounds if numbers)
    assert last - first > 60 * BLOCK


@pytest.mark.parametrize(("old", "new"), [(1999, 2999), (9_999_999, 10_000_999), (START - 1, START + BLOCK - 1)])
def test_line_of_which_only_the_beginning_was_written_is_never_lower(path: Path, old: int, new: int) -> None:
    """Wherever a write over the old line is cut, the number that stands there is the old one or more."""
    for cut in range(SIZE + 1):
        path.write_text(LINE.format(new)[:cut] + LINE.format(old)[cut:])

        assert take(path, 1) >= [old]


# Failures of the disk

FAILING = """
generations = Generations(path)
seen = [attempt(generations) for _ in range(BLOCK - 1)][-1:]
limit(0)
seen += [attempt(generations) for _ in range(4)]
limit(UNLIMITED)
seen += [attempt(generations) for _ in range(2)]
print(json.dumps(seen))
"""


def test_failing_write_gives_out_nothing_and_loses_nothing(path: Path) -> None:
    """The block at hand is used to its end; then every call fails, until one can write: it goes on without a gap."""
    path.write_text(LINE.format(START))

    done = run(FAILING, path)

    end = START + BLOCK - 1
    assert json.loads(done.stdout) == [end - 1, end, "EFBIG", "EFBIG", "EFBIG", end + 1, end + 2]
    assert path.read_text() == LINE.format(START + 2 * BLOCK)


SHORT = """
generations = Generations(path)
limit(10)
seen = [attempt(generations), os.stat(path).st_size, attempt(generations)]
second = Generations(path)
limit(UNLIMITED)
print(json.dumps([*seen, attempt(generations) > 10**12]))
"""


@pytest.mark.parametrize("content", [b"", bytes(SIZE)], ids=["empty", "zeros"])
def test_first_line_that_does_not_fit_leaves_an_empty_file(path: Path, content: bytes) -> None:
    """A disk that fills up in the middle of the first line must not stop the next master for ever."""
    path.write_bytes(content)

    done = run(SHORT, path)

    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == ["ENOSPC", 0, "ENOSPC", True]


CUT = """
generations = Generations(path)
limit(30)
seen = [attempt(generations), open(path).read(), attempt(generations)]
limit(UNLIMITED)
print(json.dumps([*seen, attempt(generations)]))
"""


def test_later_line_that_does_not_fit_keeps_its_file(path: Path) -> None:
    """A write cut short over an older line is an error, leaves a whole line, and goes on as any other."""
    path.write_text(LINE.format(START))

    done = run(CUT, path)

    assert json.loads(done.stdout) == ["ENOSPC", LINE.format(START), "ENOSPC", START]
    assert path.read_text() == LINE.format(START + BLOCK)


ORDER = """
def say(word):
    os.write(1, f"{word}\\n".encode())

generations = Generations(path)
say("opened")
for count in range(2 * BLOCK + 1):
    number = generations.take()
    if count % BLOCK in (0, BLOCK - 1):
        say(number)
"""


@needs_strace
def test_block_is_on_the_disk_before_its_first_number(path: Path) -> None:
    """The name of a new file is synced before it holds anything; then one write and one fsync for 1000 numbers."""
    name = path.name

    calls = trace(ORDER, path)

    first = int(calls[4][2])
    expected = [("fsync", path.parent.name, "0"), ("write", "stdout", "opened")]
    for begin in (first, first + BLOCK, first + 2 * BLOCK):
        expected += [("pwrite64", name, str(begin + BLOCK)), ("fsync", name, "0"), ("write", "stdout", str(begin))]
        expected += [("write", "stdout", str(begin + BLOCK - 1))]
    assert calls == expected[:-1]


@needs_strace
def test_fsync_that_failed_is_tried_again_with_the_write(path: Path) -> None:
    """After EIO a second fsync alone would succeed without the data: the line is written anew, the number kept."""
    path.write_text(LINE.format(START))
    name = path.name
    source = "generations = Generations(path)\nfor _ in range(3): os.write(1, f'{attempt(generations)}\\n'.encode())"

    calls = trace(source, path, "-e", "inject=fsync:error=EIO:when=1")

    assert calls == [
        ("pwrite64", name, str(START + BLOCK)),
        ("fsync", name, "-1 EIO"),
        ("write", "stdout", "EIO"),
        ("pwrite64", name, str(START + BLOCK)),
        ("fsync", name, "0"),
        ("write", "stdout", str(START)),
        ("write", "stdout", str(START + 1)),
    ]


@needs_strace
@pytest.mark.parametrize(("error", "said"), [("EINVAL", "begun"), ("EIO", "Input/output error")])
def test_directory_that_cannot_be_synced(path: Path, error: str, said: str) -> None:
    """A file system without it does no harm; a failing disk is an error, before any number."""
    source = """
try:
    generations = Generations(path)
    os.write(1, b"begun" if generations.take() > 10**12 else b"low")
except OSError as error:
    os.write(1, f"{error.filename}: {error.strerror}".encode())
"""

    calls = trace(source, path, "-e", f"inject=fsync:error={error}:when=1")

    assert calls[0] == ("fsync", path.parent.name, f"-1 {error}")
    assert calls[-1][2] in (said, f"{path}: {said}")


UNREADABLE = """
directory = os.path.dirname(path)
os.chdir(directory)
if os.geteuid() == 0:
    os.chown(directory, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
os.chmod(".", 0o300)
try:
    print(Generations(os.path.basename(path)).take() > 10**12)
finally:
    os.chmod(".", 0o700)
"""


def test_directory_that_may_be_written_but_not_read_is_enough(path: Path) -> None:
    """Such a directory cannot be opened, so its sync is left out."""
    done = run(UNREADABLE, path)

    assert done.stdout == "True\n", done.stderr


# Bad files


def refusal(path: Path) -> str:
    """Return the one line with which the file is refused; it is left as it was."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LockError) as caught:
        Generations(str(path))
    said = str(caught.value)
    assert "\n" not in said
    assert f" generation file {path}: " in said
    assert (path.read_bytes() if path.is_file() else None) == before
    return said


REMEDY = "restore it with a number above all that were given out, or remove it once nothing compares with them"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"root:x:0:0\n", r"expected 'pyworkers generation:', got b'root:x:0:0\\n'; move it away, or name another"),
        (b"\0", r"expected 'pyworkers generation:', got b'\\x00'; move it away"),
        (b"\xff" * 5000, r"expected 'pyworkers generation:', got b'(\\xff){32}'; move it away"),
        (b"pyworkers lock: name=a", "expected 'pyworkers generation:', got b'pyworkers lock: name=a'; move it away"),
        (LINE.format(START)[:-1].encode(), f"cut short, expected 82 bytes like 'pyworkers .*', got 81; {REMEDY}"),
        (b"pywork", f"cut short, .*, got 6; {REMEDY}"),
        (
            LINE.format(START).replace("1795", "17g5").encode(),
            f"expected a line like '.*0179500.*', got b'.*; {REMEDY}",
        ),
        (LINE.format(START).replace("0179", "0-79").encode(), f"expected a line like .*; {REMEDY}"),
        (LINE.format(START).replace("given", "taken").encode(), f"expected a line like .*; {REMEDY}"),
        (LINE.format(START).encode() + b"\n", f"expected a line like .*; {REMEDY}"),
        (LINE.format(START).encode()[:40] + bytes(SIZE - 40), f"expected a line like .*; {REMEDY}"),
        (LINE.format(0).encode(), f"expected a number from 1 to {END - BLOCK}, got 0; {REMEDY}"),
        (LINE.format(END).encode(), f"expected a number from 1 to {END - BLOCK}, got {END}; {REMEDY}"),
        (LINE.format(10**20 - 1).encode(), f"expected a number .*, got {10**20 - 1}; {REMEDY}"),
    ],
)
def test_bad_content_is_refused_and_kept(path: Path, content: bytes, said: str) -> None:
    """What is not our line is never overwritten, and the error says what was expected, what was got, what to do."""
    path.write_bytes(content)

    assert re.search(said, refusal(path))


@given(
    st.binary(max_size=90)
    | st.builds(lambda at, new: LINE.format(START).encode()[:at] + new, st.integers(0, SIZE), st.binary(max_size=SIZE))
)
def test_any_content_is_refused_or_understood(content: bytes) -> None:
    """No bytes whatever make another exception, or a number outside of the range."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "lock.generation")
        path.write_bytes(content)
        try:
            (number,) = take(path, 1)
        except LockError:
            assert path.read_bytes() == content
        else:
            assert 0 < number < END
            assert content in (b"", bytes(SIZE), LINE.format(number).encode())


def test_numbers_end_below_two_to_the_63(path: Path) -> None:
    """The last block can be used; after it there is an error, now and for every later master."""
    path.write_text(LINE.format(END - BLOCK))
    generations = Generations(str(path))
    assert [generations.take() for _ in range(BLOCK)][-1] == END - 1

    with pytest.raises(OSError, match="no number below 9223372036854775808 is left") as caught:
        generations.take()
    generations.close()

    assert caught.value.errno == errno.EOVERFLOW
    assert f"got {END}; " in refusal(path)


def test_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    """A link is never followed, neither to a good file nor to one that would be created."""
    target = tmp_path / "target"
    path.symlink_to(target)

    assert "expected a regular file, got a symbolic link; remove it, or name another lock file" in refusal(path)
    assert not target.exists()
    target.write_text(LINE.format(START))
    assert "got a symbolic link" in refusal(path)
    assert target.read_text() == LINE.format(START)


def test_directory_fifo_and_socket_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a regular file will do, and none of the others makes us hang."""
    path.mkdir()
    assert "expected a regular file, got a directory; remove it" in refusal(path)
    path.rmdir()

    os.mkfifo(path)
    assert "expected a regular file, got a FIFO or a device; remove it" in refusal(path)
    path.unlink()

    # A socket's address has to be short, so it is bound from within its directory.
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
        assert "expected a regular file, got a socket or a device; remove it" in refusal(path)


def test_what_cannot_be_opened_is_the_systems_error_and_names_the_file(tmp_path: Path) -> None:
    """It is no file that a person has to look at: whoever needs no number can do without."""
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "none" / "lock")):
        Generations(str(tmp_path / "none" / "lock"))


def test_refused_file_leaves_no_descriptor_open(path: Path) -> None:
    """Who is refused does not carry it along."""
    path.write_text("something else")

    refusal(path)

    assert descriptors(path) == []
