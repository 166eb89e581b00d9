"""The rows that one master holds, wants and gives back: `handle(event, now)` returns effects, as in the supervisor.

Each PIN of an app has one row in a database that all masters share, and a process on the PIN is allowed only while its
row is held. Four rules keep it from being held twice, and need clocks of about equal speed, but of no equal time:

- What a holder may believe begins when the last good renewal was *sent*, by its own clock. It does not depend on the
  answer of anybody: at two thirds of the TTL its workers are asked to leave, at five sixths none is left.
- What others may believe begins when they have *seen* a renewal: a row is free when its holder's last one is the same
  after all of the holder's TTL, by the watcher's own clock. The database compares no time, so that a step of its
  clock moves nothing. It only takes the row from exactly that renewal.
- An epoch, which grows with every change of hands, goes with all that a holder says of its row: what comes late is
  void.
- One request is under way at a time, and each has a number. What no answer was seen to is as good as not asked for: a
  row that was taken without our knowledge is ours to be taken again, and harms nobody but those who wait for it.

The rest of the TTL is for clocks that differ in speed and for the time that a kill takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyworkers._core.exchange import CLAIMS_MAX, Renewal, Reply, Request
from pyworkers._core.patience import Patience
from pyworkers._core.records import record
from pyworkers._core.types import NEVER, Pin

RENEW = 1 / 3
"""Of the TTL: renewals are this far apart. One may be lost without a trace, several where that is told at once."""

LOOK = 1 / 12
"""Who waits for rows looks this often."""

ANSWER = 1 / 4
"""How long an answer may take: who sent it is replaced then."""

STOP = 2 / 3
"""Workers are asked to leave this long after the last good renewal was sent."""

FENCE = 0.7
"""A worker leaves by itself after this: a little later, so that where its master lives, it is the master's doing."""

KILL = 5 / 6
"""None is left after this."""

# Events


@record
class Replied:
    """The answer to the request that is under way has come."""

    reply: Reply


@record
class RequestFailed:
    """The request that is under way has failed, or nobody can tell whether."""

    number: int


@record
class Vacated:
    """No process is left on these PINs."""

    pins: tuple[Pin, ...]
    done: bool = False
    wanted: bool = False


@record
class Hinted:
    """Somebody has given rows back: it may be worth a look."""


@record
class Elapsed:
    """Time has passed."""


Event = Replied | RequestFailed | Vacated | Hinted | Elapsed


# Effects


@record
class Ask:
    """Send this request, and answer with `Replied` or `RequestFailed`."""

    request: Request


@record
class Replace:
    """Whoever carries the requests does not answer: replace it. The request that was under way has failed."""


@record
class Extended:
    """These rows are held until `stop_at`; a process may be on their PINs."""

    pins: tuple[Pin, ...]
    stop_at: float


@record
class Granted:
    """This row is held from now on."""

    pin: Pin
    epoch: int


@record
class Revoked:
    """These rows are held no longer, or that is in doubt (`taken` tells): no process may be left at `kill_by`."""

    pins: tuple[Pin, ...]
    kill_by: float
    taken: bool


@record
class Done:
    """These PINs are done."""

    pins: tuple[Pin, ...]


@record
class Starved:
    """A PIN has waited for its row for longer than it should: said once."""

    pin: Pin


Effect = Ask | Replace | Extended | Granted | Revoked | Done | Starved


class Lease:
    """One master's part.

    Args:
        pins: Whose rows are wanted.
        owner: What no other master has ever been called.
        ttl: In seconds; that of others may differ.
        standby: Whether to leave a row that is free to others for a TTL, in case they want it.
        patience: How long a PIN may wait for its row, in seconds; see `Patience`.
    """

    def __init__(
        self, pins: Iterable[Pin], owner: str, ttl: float, *, standby: bool = False, patience: float = NEVER
    ) -> None:
        self.owner = owner
        self.ttl = ttl
        self._standby = standby
        self._patience = Patience(patience, ttl)
        # Since when each is wanted, which is the order of it, too. They are all from before the first event.
        self._wanted: dict[Pin, float] = dict.fromkeys(sorted(pins), -NEVER)
        self._claim: tuple[Pin, ...] | None = None
        self._epochs: dict[Pin, int] = {}
        self._good_at: dict[Pin, float] = {}
        self._earliest = NEVER
        self._giving: dict[Pin, tuple[int, bool]] = {}
        self._seen: dict[Renewal, tuple[float, float]] = {}
        self._number = 0
        self._asked: Request | None = None
        # Whether it was worth a look after the request that is under way was sent.
        self._hinted = False
        self._sent_at = -NEVER
        self._ask_at = -NEVER
        self._now = -NEVER

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and return what to do about it, in order. `now` counts while the machine sleeps, too."""
        assert now >= self._now, f"time went back from {self._now} to {now}"
        if self._now == -NEVER:
            self._patience.begin(now)
        self._now = now
        effects: list[Effect] = []
        match event:
            case Replied(reply):
                effects = self._learn(reply)
            case RequestFailed(number):
                if self._asked is not None and self._asked.number == number:
                    self._fail()
            case Vacated():
                self._vacate(event)
            case Hinted():
                self._hinted = self._asked is not None
                if self._wanted:
                    self._ask_at = now
            case Elapsed():
                pass
        return effects + self._meet_deadlines()

    def next_deadline(self) -> float:
        """Return the instant at which `Elapsed` is due, or `NEVER`."""
        at = self._earliest + self.ttl * STOP
        at = min(at, self._ask_at if self._asked is None else self._sent_at + self.ttl * ANSWER)
        return min(at, self._starves_at())

    def epoch(self, pin: Pin) -> int:
        """Return that of a row that is held."""
        return self._epochs[pin]

    @property
    def unsaid(self) -> Mapping[Pin, tuple[int, bool]]:
        """Rows that are to be given back, of which the database has not heard, with their epochs and whether done."""
        return self._giving

    @property
    def asked(self) -> Request | None:
        """The request that is under way."""
        return self._asked

    @property
    def wanted_count(self) -> int:
        """How many rows are wanted."""
        return len(self._wanted)

    def _learn(self, reply: Reply) -> list[Effect]:
        asked, now = self._asked, self._now
        if asked is None or reply.number != asked.number:
            return []
        self._asked = None
        effects: list[Effect] = []
        for pin in asked.give:
            if self._giving.get(pin) == asked.give[pin]:
                del self._giving[pin]
        lost = [pin for pin in asked.renew if pin not in reply.renewed and pin in self._good_at]
        if lost:
            effects.append(self._revoke(lost, taken=True))
        good = [pin for pin in reply.renewed if pin in self._good_at]
        # An answer that comes too late to be believed grants nothing and extends nothing: who was held up for so long
        # may hear of a renewal after its row has gone to somebody else. What was to be granted is asked for again.
        believed = now < self._sent_at + self.ttl * STOP
        granted = [pin for pin in sorted(reply.granted) if pin in self._wanted and believed]
        for pin in granted:
            self._epochs[pin] = reply.granted[pin]
            self._want_no_more(pin)
        for pin in good + granted:
            self._good_at[pin] = self._sent_at
        if believed and (good or granted):
            effects.append(Extended((*good, *granted), self._sent_at + self.ttl * STOP))
        # A PIN that was not wanted any more by the time that its row was granted.
        self._giving |= {
            pin: (epoch, False)
            for pin, epoch in reply.granted.items()
            if pin not in self._good_at and pin not in self._wanted
        }
        effects += [Granted(pin, reply.granted[pin]) for pin in granted]
        if done := tuple(pin for pin in sorted(reply.done) if pin in self._wanted):
            for pin in done:
                self._want_no_more(pin)
            effects.append(Done(done))
        self._seen = {renewal: self._seen.get(renewal, (now, ttl)) for renewal, ttl in reply.seen.items()}
        full = len(reply.granted) >= CLAIMS_MAX
        self._patience.answer(now, whole=believed and not full)
        self._recount()
        self._plan_next(more=full or self._hinted)
        self._hinted = False
        return effects

    def _vacate(self, event: Vacated) -> None:
        for pin in event.pins:
            self._want_no_more(pin)
            self._good_at.pop(pin, None)
            if event.wanted:
                self._wanted[pin] = self._now
                self._claim = None
            elif pin in self._epochs:
                # Also where it is not ours any more, for all we know: the database compares the epoch.
                self._giving[pin] = (self._epochs[pin], event.done)
        self._recount()
        self._ask_at = self._now

    def _revoke(self, pins: list[Pin], *, taken: bool) -> Revoked:
        kill_by = min(self._good_at[pin] for pin in pins) + self.ttl * KILL
        for pin in pins:
            del self._good_at[pin]
        return Revoked(tuple(sorted(pins)), kill_by, taken)

    def _meet_deadlines(self) -> list[Effect]:
        now, effects = self._now, list[Effect]()
        if self._earliest + self.ttl * STOP <= now:
            doubted = [pin for pin, at in self._good_at.items() if at + self.ttl * STOP <= now]
            effects.append(self._revoke(doubted, taken=False))
            self._recount()
        if self._starves_at() <= now:
            self._patience.say()
            effects.append(Starved(next(iter(self._wanted))))
        if self._asked is not None and self._sent_at + self.ttl * ANSWER <= now:
            self._fail()
            effects.append(Replace())
        if self._asked is None and self._ask_at <= now:
            effects += self._ask()
        return effects

    def _ask(self) -> list[Effect]:
        self._ask_at = NEVER
        if not (self._good_at or self._wanted or self._giving):
            return []
        self._number += 1
        self._sent_at = self._now
        if self._claim is None:
            self._claim = tuple(sorted(self._wanted))
        self._asked = Request(
            self._number,
            # All of them together, when the first is due: a look at what others hold costs no renewal.
            {pin: self._epochs[pin] for pin in self._good_at} if self._renews_at() <= self._now else {},
            self._claim,
            not self._standby,
            tuple(renewal for renewal, (at, ttl) in self._seen.items() if at + ttl <= self._now),
            dict(self._giving),
        )
        return [Ask(self._asked)]

    def _fail(self) -> None:
        """Ask again: at once where it was long in failing, for there may be rows to lose."""
        self._asked = None
        self._ask_at = max(self._now, self._sent_at + self.ttl * LOOK)

    def _plan_next(self, *, more: bool) -> None:
        """Choose when to ask next, after an answer."""
        at = self._renews_at()
        if self._wanted:
            at = min(at, self._now if more else self._sent_at + self.ttl * LOOK)
            at = min([at, *(at + ttl for at, ttl in self._seen.values() if at + ttl > self._now)])
        if self._giving:
            at = self._now
        self._ask_at = max(self._now, at)

    def _renews_at(self) -> float:
        return self._earliest + self.ttl * RENEW

    def _want_no_more(self, pin: Pin) -> None:
        if self._wanted.pop(pin, None) is not None:
            self._claim = None

    def _starves_at(self) -> float:
        """Return the instant at which a PIN will have waited for too long."""
        return self._patience.ends_at(next(iter(self._wanted.values()))) if self._wanted else NEVER

    def _recount(self) -> None:
        self._earliest = min(self._good_at.values(), default=NEVER)
