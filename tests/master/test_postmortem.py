"""The stacks of a hung worker on their way into the log: whole lines, the user's code only, and when they are over."""

from __future__ import annotations

import pyworkers
from pyworkers._master.postmortem import QUIET_S, PostMortem

PACKAGE = pyworkers.__path__[0]

DUMP = f"""Thread 0x00007f70fe3bb000 (most recent call first):
  File "/app/shop.py", line 4 in beat
  File "/usr/lib/python3/threading.py", line 975 in run

Current thread 0x00007f70fe3bbb80 (most recent call first):
  File "{PACKAGE}/_worker/wakeups.py", line 80 in poll
  File "{PACKAGE}/app.py", line 220 in sleep
  File "/app/shop.py", line 8 in work
  File "{PACKAGE}/_declare.py", line 50 in call
  File "{PACKAGE}/_worker/boot.py", line 185 in _work
  File "<frozen runpy>", line 198 in _run_module_as_main
"""


def begun() -> PostMortem:
    made = PostMortem()
    made.begin()
    return made


def test_stack_ends_at_the_handler() -> None:
    """What lies beneath the handler is the same in every dump and is left out, per thread; what it calls is not."""
    lines = begun().feed(DUMP.encode(), 1.0)

    assert lines == [
        "Thread 0x00007f70fe3bb000 (most recent call first):",
        '  File "/app/shop.py", line 4 in beat',
        '  File "/usr/lib/python3/threading.py", line 975 in run',
        "Current thread 0x00007f70fe3bbb80 (most recent call first):",
        f'  File "{PACKAGE}/_worker/wakeups.py", line 80 in poll',
        f'  File "{PACKAGE}/app.py", line 220 in sleep',
        '  File "/app/shop.py", line 8 in work',
    ]


def test_dump_in_pieces_gives_the_same_lines() -> None:
    """A pipe delivers what it has: a line that is cut waits for its rest."""
    whole = begun().feed(DUMP.encode(), 1.0)
    pieces = begun()

    assert [line for byte in DUMP.encode() for line in pieces.feed(bytes([byte]), 1.0)] == whole


def test_dump_is_over_when_it_has_been_quiet() -> None:
    """It ends, once, a moment after the last byte; before the first byte it has no end."""
    dump = begun()
    assert dump.next_deadline() is None
    assert not dump.done(1e9)

    dump.feed(b"Current thread", 1.0)
    dump.feed(b" 0x1\n", 2.0)

    assert dump.next_deadline() == 2.0 + QUIET_S
    assert not dump.done(2.0 + QUIET_S - 0.001)
    assert dump.done(2.0 + QUIET_S)
    assert not dump.done(3.0)
    assert dump.next_deadline() is None


def test_next_dump_begins_afresh() -> None:
    """Half a line and a deadline of the one before are not the next one's."""
    dump = begun()
    dump.feed(b'Thread 0x1\n  File "' + f"{PACKAGE}/_declare.py".encode() + b'", line 1 in call\nhalf a li', 1.0)

    dump.begin()

    assert dump.next_deadline() is None
    assert dump.feed(b'  File "/app/shop.py", line 1 in f\n', 5.0) == ['  File "/app/shop.py", line 1 in f']
