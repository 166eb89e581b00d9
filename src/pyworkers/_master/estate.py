"""What the shell of a master leaves to the next program: who sits where, and what it knows of them."""

from __future__ import annotations

from collections.abc import Iterable

from pyworkers._core import messages as m
from pyworkers._core.records import record
from pyworkers._core.types import Attempt, FailureRecord, Pid, Pin, Previous
from pyworkers._master.control import PATIENCE_S, Answer, Control
from pyworkers._master.execute import Executor
from pyworkers._master.history import Entry, History, LastEnd
from pyworkers._master.reports import Seat
from pyworkers._posix.cells import Trace
from pyworkers._posix.sockets import Peer


@record
class Worker:
    """A process that has not been reaped, and the PIN or spare's seat where it sits."""

    pid: Pid
    pin: Pin
    attempt: Attempt


@record
class Chronicle:
    """What has happened on one PIN."""

    pin: Pin
    entries: tuple[Entry, ...]
    start_count: int
    last_end: LastEnd | None


@record
class Books:
    """All of it.

    Attributes:
        latest: The latest process of each PIN, for the log; most of them are among the workers.
        previous: How the last one of each PIN ended.
        killed: The PINs whose worker was sent SIGKILL by us.
        notice: The process that tells a failure, if there is one.
        untold: The failures that are still to be told.
        dropped_count: How many were not told.
    """

    workers: tuple[Worker, ...]
    latest: tuple[tuple[Pin, Pid], ...]
    previous: tuple[tuple[Pin, Previous], ...]
    killed: frozenset[Pin]
    notice: Pid | None
    untold: tuple[FailureRecord, ...]
    dropped_count: int
    history: tuple[Chronicle, ...]


@record
class Line:
    """A connection of the control socket: who it is, and what is to be read and written, byte for byte (latin-1).

    Attributes:
        busy: Whether it waits for an answer.
        done: Whether it ends when all is written.
    """

    descriptor: int
    pid: Pid
    uid: int
    inbox: str
    outbox: str
    busy: bool
    done: bool


KINDS: tuple[type, ...] = (
    Books, Worker, Line, Chronicle, Entry, LastEnd, Seat, Trace,
    m.WorkerStarted, m.WorkerEnded, m.SpawnDelayed, m.SuspensionNoted, m.WorkerHung, m.WorkerRecycled, m.WorkerOverdue,
    m.WorkerAbandoned, m.Next, m.GivenUp,
)  # fmt: skip
"""What there is of this room in what is handed over."""


def lines_of(control: Control) -> tuple[Line, ...]:
    """Return the connections that a control socket leaves."""
    return tuple(
        Line(
            each.descriptor,
            each.peer.pid,
            each.peer.uid,
            each.inbox.decode("latin-1"),
            each.outbox.decode("latin-1"),
            each.busy,
            each.done,
        )
        for each in control._connections.values()
    )


def take_up(control: Control, lines: Iterable[Line], now: float) -> list[Answer]:
    """Let a control socket go on with these, and return the answers that are waited for."""
    answers: list[Answer] = []
    for line in lines:
        connection = control.connection(line.descriptor, Peer(line.pid, line.uid), now)
        connection.inbox, connection.outbox = line.inbox.encode("latin-1"), line.outbox.encode("latin-1")
        connection.busy, connection.done = line.busy, line.done
        if connection.inbox or connection.outbox:
            connection.due_at = now + PATIENCE_S
        if line.busy:
            answers.append(control._answer_to(connection))
        control._settle(connection)
    return answers


def books_of(executor: Executor) -> Books:
    """Return what an executor leaves."""
    notices = executor.notices
    return Books(
        tuple(Worker(pid, pin, attempt) for pid, (pin, attempt) in executor._by_pid.items()),
        tuple(executor._by_pin.items()),
        tuple(executor._previous.items()),
        frozenset(executor._killed),
        executor._notice_pid,
        tuple(notices._waiting),
        notices.dropped_count,
        chronicles_of(executor.history),
    )


def restore(executor: Executor, books: Books, now: float) -> None:
    """Let an executor that has done nothing yet go on where that one was."""
    executor._by_pid.update({worker.pid: (worker.pin, worker.attempt) for worker in books.workers})
    executor._by_pin.update(books.latest)
    executor._previous.update(books.previous)
    executor._killed.update(books.killed)
    executor._notice_pid = books.notice
    executor.notices.restore(books.untold, books.dropped_count, now, busy=books.notice is not None)
    for chronicle in books.history:
        executor.history.keep(chronicle.pin, chronicle.entries, chronicle.start_count, chronicle.last_end)


def chronicles_of(history: History) -> tuple[Chronicle, ...]:
    """Return what a history has kept."""
    return tuple(
        Chronicle(pin, tuple(entries), history._starts.get(pin, 0), history._ends.get(pin))
        for pin, entries in history._entries.items()
    )
