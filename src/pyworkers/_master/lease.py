"""Between the master's loop and the helper that keeps its rows: what `_core.lease` decides is carried out here.

The decisions are on the clock that counts while the machine sleeps (`boottime`), the loop is on the monotonic one, and
this is where the one becomes the other.
"""

from __future__ import annotations

import select
import signal
from collections.abc import Callable, Iterable, Mapping

from pyworkers._core import lease as c
from pyworkers._core import messages as m
from pyworkers._core.exchange import Reply
from pyworkers._core.records import record
from pyworkers._core.rows import RowDone, RowGranted, RowLapsed, RowRevoked, RowsAnswered, Vacate
from pyworkers._core.typed import Protocol
from pyworkers._core.types import NEVER, Pid, Pin
from pyworkers._lease import wire
from pyworkers._logs import ERROR, INFO, WARNING
from pyworkers._master.needs import Watcher
from pyworkers._posix import boottime
from pyworkers._posix.companion import Companion
from pyworkers._posix.deadlines import Deadlines
from pyworkers._posix.kernel import Wake
from pyworkers.errors import ExitCode

START_S = 30.0
"""How long a helper may take to be there: a Python that starts and loads psycopg, on a machine that does much else."""

RESTART_S = 1.0
"""After a helper has ended, and before the next one is started: whatever has ended it may take as long."""


class Parent(Watcher, Protocol):
    """And for a child that was started by other means."""

    def adopt(self, pid: Pid) -> None:
        """Reap this child, too."""
        ...

    def send(self, pid: Pid, signum: int) -> None:
        """Send a signal to a child that has not been reaped."""
        ...

    def await_end(self, pid: Pid) -> None:
        """Wait until a child is gone that was sent a KILL, and reap it."""
        ...


@record
class Terms:
    """What the keeper needs besides.

    Attributes:
        seats: Where the cell of each PIN is.
        connections: The descriptors that a child has to close; kept up to date here.
        log: Takes a level and a line.
    """

    hello: wire.Hello
    seats: Mapping[Pin, int]
    connections: set[int]
    log: Callable[[int, str], None]


class Keeper:
    """Keeps the rows, on the master's one poll."""

    def __init__(self, decided: c.Lease, deadlines: Deadlines, kernel: Parent, terms: Terms) -> None:
        self._decided = decided
        self._deadlines = deadlines
        self._kernel = kernel
        self._terms = terms
        self._helper: Companion | None = None
        self._start_at = -NEVER
        # Until when a helper that was started has to be there; NEVER once it is.
        self._ready_by = NEVER
        self._inbox = b""
        self._vacated: list[Vacate] = []
        self._trouble: str | None = None
        self._is_up = False
        self._waited_for = 0
        self._close_at = NEVER

    def epoch(self, pin: Pin) -> int:
        """Return that of a row that is held: the number of every worker of the PIN until it is lost."""
        return self._decided.epoch(pin)

    def vacate(self, effect: Vacate) -> None:
        """Take note that no process is left on a PIN; `attend` does the rest, for all of them together."""
        self._deadlines.sign(self._terms.seats[effect.pin], 0)
        self._vacated.append(effect)

    def next_deadline(self) -> float | None:
        """Return the instant on the loop's clock at which `attend` is due, or None."""
        if self._vacated:
            return -NEVER
        at = min(self._decided.next_deadline(), self._close_at, self._ready_by)
        if self._helper is None:
            at = min(at, self._start_at)
        return None if at == NEVER else at - boottime.now() + self._kernel.now()

    def attend(self, wake: Wake | None) -> list[m.Event]:
        """Take what the helper has said, and whatever is due; return what the core has to hear of it."""
        now, events = boottime.now(), list[m.Event]()
        helper = self._helper
        if helper is not None and wake is not None:
            if any(descriptor == helper.fileno() for descriptor, _ in wake.ready):
                events += self._listen(helper, now)
            if self._helper is helper and any(pid == helper.pid for pid, _ in wake.ended):
                events += self._lose("it has ended", now)
        if now >= self._ready_by:
            events += self._lose("it has not started in time", now)
        if self._helper is None and now >= self._start_at and self._close_at == NEVER:
            self._start(now)
        for done, wanted in ((False, False), (True, False), (False, True)):
            if pins := tuple(each.pin for each in self._vacated if (each.done, each.wanted) == (done, wanted)):
                events += self._feed(c.Vacated(pins, done, wanted), now)
        self._vacated.clear()
        return events + self._feed(c.Elapsed(), now)

    def precede(self, events: Iterable[m.Event]) -> list[m.Event]:
        """Put before the end of a worker whether its time was over: a master that is held up asks nobody to leave.

        Before `attend`, since an answer that was waiting for the master, too, would put the deadline off.
        """
        preceded: list[m.Event] = []
        for event in events:
            if isinstance(event, m.WorkerExited) and self._has_lapsed(event.pin):
                preceded.append(RowLapsed(event.pin))
            preceded.append(event)
        return preceded

    def _has_lapsed(self, pin: Pin) -> bool:
        seat = self._terms.seats.get(pin)
        return seat is not None and self._deadlines.until(seat) <= boottime.now()

    def leave(self, grace_s: float) -> None:
        """Let what is unsaid be said for so long, once the last worker has ended."""
        self._close_at = boottime.now() + grace_s

    @property
    def idle(self) -> bool:
        """Whether the database knows all that it has to know, or there is no time left to tell it."""
        if self._vacated:
            return False
        # A row that is granted to a master that has left is nobody's for a TTL. The answer tells what to give back.
        asked = self._decided.asked
        claims = asked is not None and asked.claim
        return not (self._decided.unsaid or claims) or boottime.now() >= self._close_at

    def report_unsaid(self) -> None:
        """Say what the database was not told."""
        if done := [pin for pin, (_, done) in self._decided.unsaid.items() if done]:
            line = f"the lease database was not told that these are done: {_listed(done)}; others may run them"
            self._terms.log(ERROR, line)

    def close(self) -> None:
        """At the end of the loop, when no worker is left that it would have to watch: leave no child behind."""
        if self._helper is not None:
            self._hang_up(self._helper)
            self._kernel.send(self._helper.pid, signal.SIGKILL)
            self._kernel.await_end(self._helper.pid)

    def _feed(self, event: c.Event, now: float) -> list[m.Event]:
        events: list[m.Event] = []
        for effect in self._decided.handle(event, now):
            events += self._carry_out(effect, now)
        return events

    def _carry_out(self, effect: c.Effect, now: float) -> list[m.Event]:
        match effect:
            case c.Ask(request):
                if self._helper is None or self._ready_by != NEVER:
                    return self._feed(c.RequestFailed(request.number), now)
                self._send(self._helper, request)
            case c.Replace():
                return self._lose("it does not answer", now)
            case c.Extended(pins, stop_at):
                until = stop_at + self._decided.ttl * (c.FENCE - c.STOP)
                for pin in pins:
                    self._deadlines.extend(self._terms.seats[pin], until)
            case c.Granted(pin):
                return [RowGranted(pin)]
            case c.Done(pins):
                self._terms.log(INFO, f"done before in this run: {_listed(pins)}")
                return [RowDone(pin) for pin in pins]
            case c.Revoked(pins, kill_by, taken):
                why = "somebody else has it" if taken else "no renewal in time"
                self._terms.log(WARNING, f"lease lost {_listed(pins)}: {why}; stopping workers")
                kill_by += self._kernel.now() - now
                return [RowRevoked(pin, kill_by) for pin in pins]
            case c.Starved(pin):
                why = f"no lease for pin={pin} within lease_wait"
                return [m.StopRequested(m.StopKind.GRACEFUL, why, ExitCode.BUSY)]
        return []

    def _listen(self, helper: Companion, now: float) -> list[m.Event]:
        messages, self._inbox = wire.split(self._inbox + helper.read())
        events: list[m.Event] = []
        for message in messages:
            match message:
                case Reply():
                    self._recover()
                    events += self._feed(c.Replied(message), now)
                    if not self._is_up:
                        self._is_up = True
                        events.append(RowsAnswered())
                    self._tell_waiting(message)
                case wire.Failed(number, reason):
                    self._complain(f"lease database: {reason}")
                    events += self._feed(c.RequestFailed(number), now)
                case wire.Ready():
                    self._ready_by = NEVER
                    events += self._feed(c.Hinted(), now)
                case wire.Hint():
                    events += self._feed(c.Hinted(), now)
                case wire.Unable(reason):
                    events.append(m.StopRequested(m.StopKind.GRACEFUL, f"lease: {reason}", ExitCode.USAGE))
                case _:
                    raise AssertionError(message)
        if helper.hung_up:
            return events + self._lose("it has ended", now)
        self._kernel.unwatch(helper.fileno())
        self._kernel.watch(helper.fileno(), select.POLLIN | (select.POLLOUT if helper.flush() else 0))
        return events

    def _send(self, helper: Companion, message: wire.Message) -> None:
        if helper.send(wire.packed(message)):
            self._kernel.unwatch(helper.fileno())
            self._kernel.watch(helper.fileno(), select.POLLIN | select.POLLOUT)

    def _start(self, now: float) -> None:
        try:
            helper = Companion("pyworkers._lease", self._deadlines.descriptor)
        except OSError as error:
            self._start_at = now + RESTART_S
            self._complain(f"cannot start the lease helper: {error.strerror}")
            return
        self._kernel.adopt(helper.pid)
        self._kernel.watch(helper.fileno(), select.POLLIN)
        self._terms.connections.add(helper.fileno())
        self._helper, self._inbox, self._ready_by = helper, b"", now + START_S
        self._send(helper, self._terms.hello)

    def _lose(self, why: str, now: float) -> list[m.Event]:
        """Do without the helper for a while; what it was asked has failed."""
        if self._helper is not None:
            self._complain(f"lease helper pid={self._helper.pid}: {why}")
            self._kernel.send(self._helper.pid, signal.SIGKILL)
            self._hang_up(self._helper)
        self._helper, self._ready_by, self._start_at = None, NEVER, now + RESTART_S
        asked = self._decided.asked
        return self._feed(c.Elapsed() if asked is None else c.RequestFailed(asked.number), now)

    def _hang_up(self, helper: Companion) -> None:
        self._kernel.unwatch(helper.fileno())
        self._terms.connections.discard(helper.fileno())
        helper.close()

    def _complain(self, trouble: str) -> None:
        """Say it once: a database that is down for an hour is told of in two lines."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._terms.log(WARNING, f"{trouble}; trying again")

    def _recover(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._terms.log(INFO, "lease database answers again")

    def _tell_waiting(self, reply: Reply) -> None:
        """Say for how many PINs it waits, when that has changed."""
        waiting = self._decided.wanted_count
        if waiting and waiting != self._waited_for:
            owners = sorted({owner for owner, _ in reply.seen if owner})
            by = f" held by {owners[0]}" + (" and others" if owners[1:] else "") if owners else ""
            self._terms.log(INFO, f"waiting for the lease of {waiting} PINs{by}")
        self._waited_for = waiting


def _listed(pins: Iterable[Pin]) -> str:
    pins = tuple(pins)
    more = f",... ({len(pins)} in all)" if len(pins) > 20 else ""
    return "pins=" + ",".join(str(pin) for pin in pins[:20]) + more
