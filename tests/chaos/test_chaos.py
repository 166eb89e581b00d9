"""Short sieges as tests, and the proof that the judge sees what it is there for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.fleet import PINS
from chaos.plan import planned
from chaos.run import besiege
from chaos.verdict import Record, faults_between, faults_of_log, faults_of_records, records_of

FIRST = Record(pin=3, pid=100, started=5000, master=90, generation=7, instant=1.5, word="begin")
SECOND = replace(FIRST, pid=101, started=5001, generation=8, instant=2.5)
LINES = {
    record: f"3 {record.pid} {record.started} 90 {record.generation} {record.instant:.6f} begin\n"
    for record in (FIRST, SECOND)
}

HEAD = "2026-01-02 03:04:05,678 shop[90] "
STARTED = HEAD + "INFO worker started units pin=3 pid=100\n"
KILLED = (
    HEAD + "WARNING worker ended units pin=3 pid=100 signal=SIGKILL after=1.0s unit='a; b' done=2; respawning now\n"
)
STARTED_AGAIN = HEAD + "INFO worker started units pin=3 pid=101\n"
STOPPING = HEAD + "INFO stopping reason=SIGTERM workers=1\n"
STOPPED = HEAD + "INFO worker ended units pin=3 pid=101 exit=143 after=2.0s; stopped\n"
STORY = STARTED + KILLED + STARTED_AGAIN + STOPPING + STOPPED


@pytest.mark.fire
@pytest.mark.parametrize("seed", range(int(os.environ.get("FIRE_SIEGES", "1"))))
def test_ten_seconds_of_chaos_break_nothing(tmp_path: Path, seed: int) -> None:
    """G1 to G4, G7, G8: workers and masters die and stand still at random, and every promise of the verdict is kept."""
    outcome = besiege(tmp_path, seed, planned(seed, 10))

    assert outcome.violations == []
    assert outcome.table["faults"] >= 100
    assert outcome.table["masters that had workers"] >= 2
    assert outcome.table["attempts"] >= 2 * len(PINS)


# The plan and the judge


def test_plan_of_a_seed_is_the_same_each_time() -> None:
    """A run can be repeated by its seed and its length, and another seed is another plan."""
    assert planned(5, 120) == planned(5, 120) != planned(6, 120)


@pytest.mark.parametrize("seed", range(20))
def test_plan_of_two_minutes_has_two_thousand_faults_and_several_masters_die(seed: int) -> None:
    """What a siege promises: each suspension counts twice, for it ends."""
    plan = planned(seed, 120)

    assert len(plan) + sum(shot.signum.name == "SIGSTOP" for shot in plan) > 2000
    assert sum(shot.target == "master" and shot.signum.name == "SIGKILL" for shot in plan) >= 2


def test_records_are_read_as_they_were_written() -> None:
    """One line is one record."""
    assert records_of("".join(LINES.values())) == [FIRST, SECOND]


def test_torn_record_is_no_record() -> None:
    """Half a line is never judged by its half."""
    with pytest.raises(ValueError, match="torn"):
        records_of(LINES[FIRST] + LINES[SECOND][:-10])


def test_judge_is_content_with_a_plain_story() -> None:
    """Two attempts of one PIN after each other, a kill and a stop between."""
    records = [FIRST, replace(FIRST, instant=1.6, word="exit=3"), SECOND]
    log = STORY.replace("signal=SIGKILL", "exit=3")

    assert list(faults_of_records(records)) == []
    assert list(faults_of_log(90, log, killed=False)) == []
    assert list(faults_between(records, {90: log}, killed=())) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda: [FIRST, SECOND, replace(SECOND, word="not-alone")], "two live attempts of pin 3"),
        (lambda: [FIRST, replace(SECOND, generation=6)], "the generation did not grow"),
        (lambda: [FIRST, replace(SECOND, pin=4, generation=7)], "one generation twice"),
        (lambda: [FIRST, replace(SECOND, master=91), replace(SECOND, pin=4, generation=9)], "has had a successor"),
    ],
)
def test_judge_sees_what_is_wrong_with_attempts(change: Callable[[], list[Record]], fault: str) -> None:
    """A PIN has one live attempt, generations grow and are unique, and a master that is gone starts nobody."""
    assert [fault in found for found in faults_of_records(change())] == [True]


@pytest.mark.parametrize(
    ("log", "killed", "fault"),
    [
        (STARTED + STARTED_AGAIN + STOPPING + STOPPED, False, "started a worker beside pid=100"),
        (STORY.replace("respawning now", "finished"), False, "started a worker of a PIN that is finished"),
        (STARTED + KILLED, False, "owes a respawn"),
        (STARTED, False, "never told of the end"),
        (STARTED_AGAIN + KILLED, True, "tells of an end without its start"),
        (STARTED + KILLED.replace("respawning now", "well"), True, "does not say what follows"),
        (STOPPING + STARTED, True, "started a worker in its stop"),
        (STORY + "Traceback (most recent call last):\n", False, "has failed"),
    ],
)
def test_judge_sees_what_is_wrong_with_a_story(log: str, killed: bool, fault: str) -> None:
    """On each PIN start and end come in turn, and every end says what follows, which then comes."""
    assert [fault in found for found in faults_of_log(90, log, killed=killed)] == [True]


@pytest.mark.parametrize("log", [STARTED, STARTED + KILLED, STARTED + KILLED + STARTED_AGAIN])
def test_judge_expects_nothing_more_of_a_killed_master(log: str) -> None:
    """Who was killed owes nobody an end or a successor."""
    assert list(faults_of_log(90, log, killed=True)) == []


def test_judge_allows_a_killed_master_one_turn_that_it_could_not_tell_of() -> None:
    """It dies between its forks and the log once; two starts of a PIN are one too many, and one is if it lives on."""
    assert list(faults_between([FIRST, SECOND], {90: STARTED}, killed=[90])) == []
    assert list(faults_between([FIRST, replace(SECOND, pin=4)], {90: ""}, killed=[90])) == []
    assert len(list(faults_between([FIRST, SECOND], {90: ""}, killed=[90]))) == 1
    assert len(list(faults_between([FIRST, SECOND], {90: STARTED}, killed=[]))) == 1


def test_judge_sees_an_exit_code_that_is_not_the_worker_s_own() -> None:
    """G2: a status is reported as it was."""
    records = [FIRST, replace(FIRST, word="exit=3")]

    assert list(faults_between(records, {90: STORY}, killed=())) == []
    assert len(list(faults_between(records, {90: STORY.replace("signal=SIGKILL", "exit=4")}, killed=()))) == 1
