"""What workers tell the master: fixed records on one pipe that all of them share.

pipe(7): writes of at most PIPE_BUF bytes are atomic, so records never mix, and the writer blocks while the pipe is
full, which only lasts until the master's next look. Anything else that lands in the pipe is dropped, never obeyed.
"""

from __future__ import annotations

import contextlib
import enum
import os
import struct

from pyworkers._core.records import record
from pyworkers._core.types import Attempt, Pin
from pyworkers._posix.signals import Call

_RECORD = struct.Struct("=2sBBIQ")
_MAGIC = b"pw"


class Word(enum.IntEnum):
    """What a worker can say."""

    UP = 1
    STOP_ALL = 2


_UP = int(Word.UP)


@record
class Told:
    """One record: which worker said it, what, and a number that goes with it (the exit code of `stop_all`)."""

    pin: Pin
    attempt: Attempt
    word: Word
    number: int = 0

    def packed(self) -> bytes:
        """Return what the worker writes."""
        return _RECORD.pack(_MAGIC, self.word, self.number, self.pin, self.attempt)


def packed_up(pin: Pin, attempt: Attempt) -> bytes:
    """Return what a worker writes that is up, without a `Told`: made between the forks of many."""
    return _RECORD.pack(_MAGIC, _UP, 0, pin, attempt)


class Channel:
    """Both ends of the pipe, until one side of a fork drops the end that it has no use for.

    Args:
        ends: Those of the program before this one, if there was one.
    """

    def __init__(self, ends: tuple[int, int] | None = None) -> None:
        self._reader, self._writer = self.ends = ends or os.pipe()
        os.set_blocking(self._reader, False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a worker has said something."""
        return self._reader

    def close(self) -> None:
        """In the master, at the end."""
        os.close(self._reader)
        os.close(self._writer)

    def child_calls(self) -> list[Call]:
        """Return what a child does: drop the reading end, so that a write fails once the master is gone."""
        return [(os.close, (self._reader,))]

    def tell(self, record: bytes) -> None:
        """In the worker: say a packed record to the master, if there is still one."""
        # No contextlib.suppress: this is on the way of every start, where each further function costs pages.
        try:
            os.write(self._writer, record)
        except BrokenPipeError:
            return

    def read(self) -> list[Told]:
        """In the master: return what was said since the last call."""
        # A multiple of the record's size, so that a full read ends on a boundary.
        size = 8192 * _RECORD.size
        chunks: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reader, size):
                chunks.append(chunk)
                if len(chunk) < size:
                    break
        return _parse(b"".join(chunks))


def _parse(data: bytes) -> list[Told]:
    told: list[Told] = []
    position = data.find(_MAGIC)
    while position >= 0 and position + _RECORD.size <= len(data):
        _, word, number, pin, attempt = _RECORD.unpack_from(data, position)
        if word in Word._value2member_map_ and attempt:
            told.append(Told(Pin(pin), Attempt(attempt), Word(word), number))
            position += _RECORD.size
        else:
            position += 1
        position = data.find(_MAGIC, position)
    return told
