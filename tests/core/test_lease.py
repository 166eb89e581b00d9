"""What a master may believe of its rows, and when it says what to the database: every instant of it."""

from __future__ import annotations

from typing import Any

import pytest

from pyworkers._core import lease as c
from pyworkers._core.types import NEVER, Pin

TTL = 12.0
START = 5000.0


class Desk:
    """A lease, a clock that only the test moves, and a database that answers as it is told to."""

    def __init__(self, count: int = 1, **options: Any) -> None:
        self.lease = c.Lease([Pin(pin) for pin in range(count)], "me", TTL, **options)
        self.now = START
        self.asked: c.Request | None = None

    def feed(self, event: c.Event) -> list[c.Effect]:
        effects = self.lease.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, c.Ask):
                self.asked = effect.request
        return effects

    def at(self, seconds: float) -> list[c.Effect]:
        """Move the clock, meeting every deadline on the way at its instant."""
        effects: list[c.Effect] = []
        end = START + seconds
        while (at := self.lease.next_deadline()) <= end:
            self.now = max(self.now, at)
            effects += self.feed(c.Elapsed())
        self.now = end
        return effects

    def reply(self, **fields: Any) -> list[c.Effect]:
        assert self.asked is not None
        known: dict[str, Any] = {"renewed": frozenset(self.asked.renew), "granted": {}, "done": frozenset(), "seen": {}}
        return self.feed(c.Replied(c.Reply(self.asked.number, **{**known, **fields})))

    def fail(self) -> list[c.Effect]:
        assert self.asked is not None
        return self.feed(c.RequestFailed(self.asked.number))

    def take(self, *pins: int, epoch: int = 1) -> list[c.Effect]:
        """Ask for the first time, and get these rows."""
        self.feed(c.Elapsed())
        return self.reply(granted={Pin(pin): epoch for pin in pins})


def kinds(effects: list[c.Effect], *wanted: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, wanted)]


def test_first_request_claims_all() -> None:
    desk = Desk(3)
    (ask,) = desk.feed(c.Elapsed())

    assert ask == c.Ask(c.Request(1, {}, (Pin(0), Pin(1), Pin(2)), fresh=True, expired=(), give={}))


def test_granted_row_is_good_from_when_it_was_asked_for() -> None:
    """Not from when the answer came, which may have been under way for long."""
    desk = Desk()
    desk.feed(c.Elapsed())
    desk.now += 2.0
    effects = desk.reply(granted={Pin(0): 7})

    assert effects == [c.Extended((Pin(0),), START + 8.0), c.Granted(Pin(0), 7)]
    assert desk.lease.epoch(Pin(0)) == 7


def test_rows_are_renewed_together_at_a_third_of_the_ttl() -> None:
    desk = Desk(2)
    desk.take(0, 1)
    desk.at(3.999)
    assert desk.asked.number == 1
    (ask,) = kinds(desk.at(4.0), c.Ask)

    assert ask.request.renew == {Pin(0): 1, Pin(1): 1}
    desk.now += 1.0
    assert desk.reply() == [c.Extended((Pin(0), Pin(1)), START + 4.0 + 8.0)]
    desk.at(7.999)
    assert desk.asked.number == 2


def test_workers_are_stopped_at_two_thirds_and_dead_at_five_sixths() -> None:
    """Counted from when the last good renewal was sent, whatever was tried since then."""
    desk = Desk()
    desk.take(0)
    desk.at(4.0)
    desk.fail()
    effects = desk.at(7.999)
    assert kinds(effects, c.Revoked) == []

    assert kinds(desk.at(8.0), c.Revoked) == [c.Revoked((Pin(0),), START + 10.0, taken=False)]


def test_failed_request_is_repeated_soon_and_a_slow_one_at_once() -> None:
    """The first fails at once, a twelfth of the TTL passes; the second is long in failing."""
    desk = Desk()
    desk.take(0)
    desk.at(4.0)
    assert desk.fail() == []
    (ask,) = kinds(desk.at(5.0), c.Ask)
    assert ask.request.number == 3
    desk.now += 2.0
    (ask,) = desk.fail()
    assert ask.request.number == 4


def test_helper_that_does_not_answer_is_replaced() -> None:
    desk = Desk()
    desk.feed(c.Elapsed())
    effects = desk.at(3.0)

    assert [type(effect) for effect in effects] == [c.Replace, c.Ask]


def test_late_answer_to_a_request_that_was_given_up_changes_nothing() -> None:
    desk = Desk()
    desk.feed(c.Elapsed())
    first = desk.asked
    desk.fail()
    desk.at(1.0)
    assert first is not None
    late = c.Reply(first.number, frozenset(), {Pin(0): 1}, frozenset(), {})

    assert desk.feed(c.Replied(late)) == []
    assert desk.asked.claim == (Pin(0),)


def test_answer_that_comes_too_late_to_be_believed_grants_nothing() -> None:
    """The master was suspended for as long as the row would have been good for."""
    desk = Desk()
    desk.feed(c.Elapsed())
    desk.now += 8.0
    effects = desk.reply(granted={Pin(0): 1})

    assert kinds(effects, c.Granted, c.Extended) == []
    assert kinds(effects, c.Ask)[0].request.claim == (Pin(0),)


def test_renewal_that_is_heard_of_too_late_extends_nothing() -> None:
    """A master that was held up all the while: its row may have gone to somebody else by now."""
    desk = Desk()
    desk.take(0)
    desk.at(4.0)
    desk.now = START + 13.0
    effects = desk.reply()

    assert kinds(effects, c.Extended, c.Revoked) == [c.Revoked((Pin(0),), START + 14.0, taken=False)]


def test_row_that_somebody_else_has_is_lost_at_once() -> None:
    desk = Desk(2)
    desk.take(0, 1)
    desk.at(4.0)
    effects = desk.reply(renewed=frozenset({Pin(1)}))

    assert effects == [c.Revoked((Pin(0),), START + 10.0, taken=True), c.Extended((Pin(1),), START + 12.0)]


def test_lost_row_is_wanted_again_only_when_its_worker_has_ended() -> None:
    desk = Desk()
    desk.take(0)
    for _ in range(40):
        desk.at(desk.now - START + 0.25)
        if desk.lease._asked is not None:
            desk.fail()
    assert desk.asked.claim == ()

    (ask,) = kinds(desk.feed(c.Vacated((Pin(0),), wanted=True)), c.Ask)
    assert ask.request == c.Request(desk.asked.number, {}, (Pin(0),), fresh=True, expired=(), give={})


def test_renewal_counts_as_expired_after_a_ttl_since_it_was_seen() -> None:
    """The holder's TTL, which is not ours; and since the answer, not since the question."""
    desk = Desk()
    other = ("other", 17)
    desk.feed(c.Elapsed())
    desk.now += 0.5
    desk.reply(seen={other: 5.0})
    for _ in range(100):
        desk.at(min(desk.lease.next_deadline() - START, 5.499))
        if desk.now >= START + 5.499:
            break
        assert desk.asked.expired == ()
        desk.reply(seen={other: 5.0})
    desk.at(5.5)

    assert desk.asked.expired == (other,)


def test_another_renewal_begins_anew() -> None:
    desk = Desk()
    desk.feed(c.Elapsed())
    desk.reply(seen={("other", 17): 5.0})
    desk.at(1.0)
    desk.reply(seen={("other", 18): 5.0})
    desk.at(5.5)

    assert desk.asked.expired == ()


def test_who_waits_looks_twelve_times_in_a_ttl_and_at_once_when_told() -> None:
    desk = Desk()
    desk.feed(c.Elapsed())
    desk.reply()
    assert desk.lease.next_deadline() == START + 1.0

    assert kinds(desk.feed(c.Hinted()), c.Ask)


def test_hint_during_a_request_is_followed_by_another() -> None:
    """The rows may have been given back after the request has looked at them."""
    desk = Desk()
    desk.feed(c.Elapsed())
    assert desk.feed(c.Hinted()) == []

    assert kinds(desk.reply(), c.Ask)
    assert kinds(desk.reply(), c.Ask) == []


def test_hint_is_nothing_to_who_has_all_it_wants() -> None:
    desk = Desk()
    desk.take(0)

    assert desk.feed(c.Hinted()) == []


def test_full_answer_is_followed_by_the_next_question() -> None:
    desk = Desk(c.CLAIMS_MAX + 1)
    effects = desk.take(*range(c.CLAIMS_MAX))

    (ask,) = kinds(effects, c.Ask)
    assert ask.request.claim == (Pin(c.CLAIMS_MAX),)
    assert ask.request.renew == {}


def test_row_is_given_back_until_the_database_has_heard_of_it() -> None:
    desk = Desk()
    desk.take(0, epoch=4)
    (ask,) = desk.feed(c.Vacated((Pin(0),), done=True))
    assert ask.request.give == {Pin(0): (4, True)}
    desk.fail()
    assert desk.lease.unsaid
    desk.at(1.0)
    desk.reply()

    assert not desk.lease.unsaid
    assert desk.lease.next_deadline() == NEVER


def test_row_that_comes_when_it_is_wanted_no_more_is_given_back() -> None:
    """The instance was stopped meanwhile."""
    desk = Desk()
    desk.feed(c.Elapsed())
    desk.feed(c.Vacated((Pin(0),)))
    effects = desk.reply(granted={Pin(0): 3})

    assert kinds(effects, c.Granted) == []
    assert kinds(effects, c.Ask)[0].request.give == {Pin(0): (3, False)}


def test_done_pin_is_asked_for_no_more() -> None:
    desk = Desk(2)
    desk.feed(c.Elapsed())
    effects = desk.reply(done=frozenset({Pin(1)}))

    assert effects == [c.Done((Pin(1),))]
    desk.at(1.0)
    assert desk.asked.claim == (Pin(0),)


def test_standby_takes_nothing_that_is_fresh() -> None:
    """Rows that nobody holds are to it like those of others: it watches them for a TTL."""
    desk = Desk(standby=True)
    desk.feed(c.Elapsed())
    assert desk.asked.fresh is False
    free = ("", 0)
    while desk.now < START + TTL:
        desk.reply(seen={free: TTL})
        desk.at(desk.lease.next_deadline() - START)

    assert desk.asked.expired == (free,)


def test_starved_is_said_once() -> None:
    desk = Desk(patience=10.0)
    desk.feed(c.Elapsed())
    effects: list[c.Effect] = []
    for _ in range(30):
        if desk.lease._asked is not None:
            desk.reply()
        effects += desk.at(desk.now - START + 0.5)

    assert kinds(effects, c.Starved) == [c.Starved(Pin(0))]


def test_patience_counts_from_the_first_answer() -> None:
    """What the start of a helper takes, and what a request takes that fails, is nobody's holding a row."""
    desk = Desk(patience=0.0)
    desk.feed(c.Elapsed())
    desk.fail()
    effects = desk.at(2.0)
    effects += desk.reply(seen={("other", 17): TTL})

    assert kinds(effects, c.Starved) == [c.Starved(Pin(0))]
    assert desk.now == START + 2.0


def test_rows_that_come_one_answer_after_the_other_need_no_patience() -> None:
    """An answer that is full says nothing of the other rows."""
    desk = Desk(c.CLAIMS_MAX + 2, patience=0.0)
    effects = desk.take(*range(c.CLAIMS_MAX))
    assert kinds(effects, c.Starved) == []

    effects = desk.reply(granted={Pin(c.CLAIMS_MAX): 1})
    assert kinds(effects, c.Starved) == [c.Starved(Pin(c.CLAIMS_MAX + 1))]


@pytest.mark.parametrize(("patience", "at"), [(0.0, TTL), (TTL, TTL), (30.0, 30.0)])
def test_database_that_never_answers_is_waited_for_as_long_as_patience_and_a_ttl(patience: float, at: float) -> None:
    """The longer one of the two."""
    desk = Desk(patience=patience)
    desk.feed(c.Elapsed())
    effects = desk.at(at - 0.001)
    assert kinds(effects, c.Starved) == []

    assert kinds(desk.at(at), c.Starved) == [c.Starved(Pin(0))]


def test_patience_begins_anew_when_a_row_is_lost() -> None:
    desk = Desk(patience=10.0)
    desk.take(0)
    desk.at(8.0)
    desk.feed(c.Vacated((Pin(0),), wanted=True))

    assert kinds(desk.at(17.9), c.Starved) == []
    assert kinds(desk.at(18.0), c.Starved) == [c.Starved(Pin(0))]


def test_time_does_not_go_back() -> None:
    desk = Desk()
    desk.feed(c.Elapsed())
    desk.now -= 1.0

    with pytest.raises(AssertionError, match="time went back"):
        desk.feed(c.Elapsed())
