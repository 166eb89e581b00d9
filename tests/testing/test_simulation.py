"""`simulate`: the real core over simulated time says what a real master does, and nothing of it is left to chance."""

from __future__ import annotations

import itertools
import math
import re
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Bench
from pyworkers import App, DeclarationError, UsageError
from pyworkers.testing import Life, SimulatedAttempt, Timeline, simulate


def app_with(pins: object = 0, **options: object) -> App:
    """Return an app with one handler, `sell`."""
    app = App("shop")

    @app.worker(pins=pins, **options)  # type: ignore[arg-type]
    def sell() -> None:
        raise AssertionError("no function is called")

    return app


def facts(timeline: Timeline, who: int | str = 0) -> list[tuple[float, float | None, str | None, str | None]]:
    """Return start, end, cause and what follows of each attempt."""
    rounded = [(each, each.ended if each.ended is None else round(each.ended, 6)) for each in timeline.of(who)]
    return [(round(each.started, 6), ended, each.cause, each.follows) for each, ended in rounded]


def test_crash_loop_backs_off_and_gives_up() -> None:
    """At once, then 0.1 s doubling; after the allowed restarts the PIN has failed."""
    timeline = simulate(app_with(max_restarts=4), {"sell": Life(exit=1, after=0.2)})

    assert [round(each.delay, 9) for each in timeline.of(0) if each.delay is not None] == [0, 0.1, 0.2, 0.4]
    assert facts(timeline) == [
        (0, 0.2, "exit=1", "respawn"),
        (0.2, 0.4, "exit=1", "respawn"),
        (0.5, 0.7, "exit=1", "respawn"),
        (0.9, 1.1, "exit=1", "respawn"),
        (1.5, 1.7, "exit=1", "failed"),
    ]
    assert timeline.backoff("sell") == pytest.approx(0.7)
    assert timeline.failed == {0: pytest.approx(1.7)}
    assert (timeline.exit_code, timeline.seconds) == (1, pytest.approx(1.7))
    assert [each.attempt for each in timeline.attempts] == [1, 2, 3, 4, 5]


def test_timeline_reads_as_a_story() -> None:
    """A line for each attempt, and one for the instance."""
    timeline = simulate(app_with(max_restarts=1), {0: [Life(signal=signal.SIGSEGV, after=2), Life(exit=41)]})

    assert str(timeline).splitlines() == [
        "0.000 sell pin=0 attempt=1 signal=SIGSEGV after=2.000s; respawn in 0.000s",
        "2.000 sell pin=0 attempt=2 exit=41 after=0.000s; failed",
        "2.000 the instance ended with 1, failed=0",
    ]
    running = simulate(app_with(), {}, seconds=5)
    assert str(running) == "0.000 sell pin=0 attempt=1 runs\n5.000 the instance still runs"
    assert running.of(0) == (SimulatedAttempt("sell", 0, 1, 0.0),)


def test_jitter_is_the_callers() -> None:
    """Delays are exact without it."""
    timeline = simulate(app_with(max_restarts=3), {0: Life(exit=1)}, jitter=lambda delay: delay / 2)

    assert [each.delay for each in timeline.attempts] == [0, 0.05, pytest.approx(0.1), None]


def test_script_is_one_life_after_the_other_and_then_a_healthy_one() -> None:
    """A PIN's own beats its handler's, of which each PIN gets all, also of one without an end."""
    app = app_with(range(3))
    timeline = simulate(
        app,
        {
            "sell": itertools.chain([Life(exit=1, after=1)], itertools.repeat(Life(exit=2, after=2))),
            2: iter([Life(exit=3, after=3)]),
        },
        seconds=8,
    )

    assert facts(timeline, 0) == facts(timeline, 1)
    assert [each.cause for each in timeline.of(1)] == ["exit=1", "exit=2", "exit=2", "exit=2", None]
    assert facts(timeline, 2) == [(0, 3, "exit=3", "respawn"), (3, None, None, None)]
    assert timeline.exit_code is None
    assert timeline.seconds == 8


@pytest.mark.parametrize(
    ("options", "life", "ends", "code"),
    [
        ({}, Life(exit=0, after=1), ["finished"], 0),
        ({"restart": "never"}, Life(exit=1, after=1), ["failed"], 1),
        ({"restart": "always", "max_restarts": 2}, Life(exit=0, after=1), ["respawn", "respawn", "failed"], 1),
    ],
)
def test_restart_option_decides(options: dict[str, object], life: Life, ends: list[str], code: int) -> None:
    """The three words, each as the README has it."""
    timeline = simulate(app_with(**options), {0: life})

    assert ([each.follows for each in timeline.attempts], timeline.exit_code) == (ends, code)


def test_permanent_failure_codes_of_the_app_count() -> None:
    """Options of the instance are the app's, too."""
    app = App("shop", permanent_failure_codes=78)
    app.worker(pins=0)(lambda: None)

    timeline = simulate(app, {0: [Life(exit=1, after=1), Life(exit=78, after=1)]})

    assert [each.follows for each in timeline.attempts] == ["respawn", "failed"]


def test_hang_is_found_in_time() -> None:
    """Never earlier than `hang_timeout` after its last checkpoint, and at most half of it later."""
    timeline = simulate(app_with(hang_timeout=10), {0: [Life(hang=True, after=33)]}, seconds=100)

    first, second = timeline.attempts
    assert first.ended is not None
    assert 33 + 10 <= first.ended <= 33 + 15
    assert (first.cause, first.follows) == ("hang", "respawn")
    assert (second.started, second.ended) == (first.ended, None)


def test_hang_in_c_code_takes_a_kill() -> None:
    """Two seconds after the interrupt."""
    script = {0: [Life(hang=True, leaves_after=math.inf)]}
    polite = simulate(app_with(hang_timeout=10), {0: [Life(hang=True)]}, seconds=100).attempts[0]
    stubborn = simulate(app_with(hang_timeout=10), script, seconds=100).attempts[0]

    assert polite.ended is not None
    assert (stubborn.ended, stubborn.cause) == (polite.ended + 2, "hang")


@pytest.mark.parametrize(
    ("leaves_after", "ended", "cause", "code"),
    [(0, 60, "exit=143", 0), (3, 63, "exit=143", 0), (9, 66.4, "exit=131", 1), (math.inf, 68, "signal=SIGKILL", 1)],
)
def test_stop_climbs_the_ladder(leaves_after: float, ended: float, cause: str, code: int) -> None:
    """TERM at once, QUIT at 80 % of `stop_timeout`, KILL at its end; the exit code says whether a unit may be torn."""
    timeline = simulate(app_with(), {0: Life(leaves_after=leaves_after)}, stop_after=60)

    assert facts(timeline) == [(0, ended, cause, "stopped")]
    assert timeline.exit_code == code


def test_worker_that_ends_by_itself_during_the_stop_does_so() -> None:
    """Whichever end comes first."""
    timeline = simulate(app_with(), {0: Life(exit=0, after=62, leaves_after=3)}, stop_after=60)

    assert facts(timeline) == [(0, 62, "exit=0", "finished")]


def test_stop_of_a_shard_has_the_code_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a real instance: 143 where there was work left, 0 where there was none."""
    monkeypatch.setenv("PYWORKERS_SHARD", "0/2")

    assert simulate(app_with(), {}, stop_after=60).exit_code == 143
    assert simulate(app_with(), {0: Life(exit=0, after=60, leaves_after=3)}, stop_after=59).exit_code == 0


def test_stop_in_a_backoff_respawns_nobody() -> None:
    """The instance ends at once."""
    timeline = simulate(app_with(backoff=(10, 10)), {0: Life(exit=1)}, stop_after=5)

    assert (len(timeline.attempts), timeline.exit_code, timeline.seconds) == (2, 0, 5)


def test_old_workers_are_recycled_one_at_a_time() -> None:
    """By `max_runtime`, each only when the successor of the one before is up."""
    timeline = simulate(app_with(range(3), max_runtime=100), {"sell": Life(leaves_after=2)}, seconds=150)

    firsts = [each for each in timeline.attempts if each.attempt == 1]
    assert [each.ended for each in firsts] == [102, 104, 106]
    assert {each.delay for each in firsts} == {0}


def test_group_restarts_together_and_fails_together() -> None:
    """The others leave when one fails, and all start when the last has left."""
    app = App("shop", group="feed", strategy="all", max_restarts=1)
    app.worker(pins=range(2))(lambda: None)
    timeline = simulate(app, {0: Life(exit=1, after=5), 1: Life(leaves_after=2)})

    assert facts(timeline, 0) == [(0, 5, "exit=1", "group"), (7, 12, "exit=1", "failed")]
    assert facts(timeline, 1) == [(0, 7, "exit=143", "group"), (7, 14, "exit=143", "failed")]
    assert timeline.of(0)[0].delay == 2
    assert timeline.failed == {0: 12, 1: 14}


def test_pins_that_fail_with_their_group_while_they_wait_are_told() -> None:
    """They have no attempt that could say so."""
    app = App("shop", group="feed", strategy="all", permanent_failure_codes=143)
    app.worker(pins=range(2))(lambda: None)
    timeline = simulate(app, {0: Life(exit=1, after=1), 1: Life(leaves_after=3)})

    assert facts(timeline, 0) == [(0, 1, "exit=1", "group")]
    assert facts(timeline, 1) == [(0, 4, "exit=143", "failed")]
    assert timeline.failed == {0: 4, 1: 4}


def test_worker_that_hangs_does_not_hear_term() -> None:
    """The interrupt ends it, at 80 % of `stop_timeout`."""
    timeline = simulate(app_with(), {0: Life(hang=True, after=5)}, stop_after=60)

    assert facts(timeline) == [(0, 66.4, "exit=131", "stopped")]
    assert facts(simulate(app_with(), {0: Life(hang=True, after=5)}, stop_after=4)) == [(0, 4, "exit=143", "stopped")]


def test_spares_take_over_and_are_not_shown() -> None:
    """Whoever dies is replaced at once, and the end of the PINs is that of the instance."""
    timeline = simulate(
        app_with(range(2), spares=1), {0: [Life(signal=9, after=5), Life(exit=0, after=5)], 1: Life(exit=0)}
    )

    assert facts(timeline, 0) == [(0, 5, "signal=SIGKILL", "respawn"), (5, 10, "exit=0", "finished")]
    assert {each.pin for each in timeline.attempts} == {0, 1}
    assert (timeline.exit_code, timeline.seconds) == (0, 10)


def test_real_master_tells_the_same_story(bench: Bench) -> None:
    """The ends, what follows them and the delays, which are between half of the simulated ones and all of them."""
    source = """
    app = App("shop", backoff=(0.2, 0.5), max_restarts=5)

    @app.worker(pins=0)
    def sell():
        return 41
    """
    instance = bench.start(source)
    assert instance.wait() == 1
    told = re.findall(r"worker ended sell pin=0 pid=\d+ (\S+) after=\S+; (\w+)(?: in (\d\.\d)s)?", instance.log)
    app = app_with(backoff=(0.2, 0.5), max_restarts=5)
    timeline = simulate(app, {"sell": Life(exit=41)})

    follows = {"respawning": "respawn", "failed,": "failed", "failed": "failed"}
    assert [(cause, follows[next_]) for cause, next_, _ in told] == [
        (each.cause, each.follows) for each in timeline.attempts
    ]
    for (_, _, delay), each in zip(told, timeline.attempts, strict=True):
        # The log shows tenths.
        assert (each.delay or 0) / 2 - 0.051 <= float(delay or 0) <= (each.delay or 0) + 0.051
    assert timeline.exit_code == 1


def test_mistakes_are_refused() -> None:
    """Each with one line."""
    app = app_with(range(2))
    for script, message in [
        ({"buy": Life()}, "the script names 'buy' (str), which is no PIN and no handler; the handlers are 'sell'"),
        ({2: Life()}, "the script names 2 (int), which is no PIN"),
        ({0: "exit"}, "the script of PIN 0 has 'e' (str) for attempt 1, expected a Life"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)):
            simulate(app, script)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="has no pins"):
        simulate(app_with(None), {})
    for options, message in [
        ({"exit": 1, "signal": 9}, "a Life has one of exit, signal and hang"),
        ({"hang": True, "signal": 9}, "a Life has one of exit, signal and hang"),
        ({"after": 3}, "what happens after 3 s?"),
        ({"exit": 256}, "an exit code of 0 to 255, got 256"),
        ({"signal": 0}, "got 0 (int)"),
        ({"exit": 1, "after": -1}, "after of a Life is a number of seconds from 0 on, got -1"),
        ({"exit": 1, "after": math.nan}, "after of a Life"),
        ({"leaves_after": -1}, "leaves_after of a Life"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)):
            Life(**options)  # type: ignore[arg-type]


def test_loop_without_an_end_is_given_up() -> None:
    """A simulated hour of it would take a real one."""
    with pytest.raises(UsageError, match=r"100,000 attempts in .* simulated seconds"):
        simulate(app_with(restart="always"), {0: Life(exit=0, after=1)}, seconds=math.inf)


def test_instance_to_which_nothing_happens_is_no_loop_without_an_end() -> None:
    """Where there is no limit either, it ends with the last thing that has happened."""
    timeline = simulate(app_with(), {0: [Life(exit=1, after=3)]}, seconds=math.inf)

    assert (timeline.seconds, timeline.exit_code) == (3, None)


@pytest.mark.parametrize("life", [Life(), Life(exit=1, after=0.2), Life(signal=9), Life(hang=True, leaves_after=2.0)])
def test_life_is_shown_as_it_is_written(life: Life) -> None:
    """So that the message of a test that fails can be pasted."""
    again = eval(repr(life))

    assert (repr(again), again.status) == (repr(life), life.status)


lives = st.one_of(
    st.builds(
        Life,
        exit=st.sampled_from([0, 1, 78]),
        after=st.floats(0, 40),
        leaves_after=st.sampled_from([0.0, 3.0, math.inf]),
    ),
    st.builds(Life, signal=st.just(9), after=st.floats(0, 40)),
    st.builds(Life, hang=st.just(True), after=st.floats(0, 40), leaves_after=st.sampled_from([0.0, math.inf])),
    st.builds(Life, leaves_after=st.sampled_from([0.0, 3.0, math.inf])),
)


@given(
    script=st.dictionaries(st.integers(0, 2), st.lists(lives, max_size=6)),
    options=st.fixed_dictionaries(
        {},
        optional={
            "restart": st.sampled_from(["always", "never", "on-failure"]),
            "max_restarts": st.integers(0, 3),
            "hang_timeout": st.just(5),
            "max_runtime": st.just(30),
            "spares": st.just(1),
            "stop_timeout": st.sampled_from([0, 1, 8]),
        },
    ),
    stop_after=st.one_of(st.none(), st.floats(0, 200)),
)
def test_any_script_gives_a_timeline_that_can_be(
    script: dict[int, list[Life]], options: dict[str, object], stop_after: float | None
) -> None:
    """A PIN has one process at a time; all have ended where the instance has; the same again is the same."""
    app = app_with(range(3), **options)
    timeline = simulate(app, script, seconds=300, stop_after=stop_after)

    assert timeline == simulate(app, script, seconds=300, stop_after=stop_after)
    for pin in range(3):
        for before, after in itertools.pairwise(timeline.of(pin)):
            assert before.ended is not None
            assert before.ended <= after.started
            assert before.delay == after.started - before.ended
            assert before.follows == "respawn"
    if stop_after is not None:
        assert timeline.exit_code is not None
        assert timeline.seconds <= stop_after + 8 + 1
    if timeline.exit_code is not None:
        assert all(each.ended is not None for each in timeline.attempts)
        assert timeline.exit_code == 0 or timeline.failed or stop_after is not None
