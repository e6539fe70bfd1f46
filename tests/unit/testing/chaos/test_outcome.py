"""What a run came to: the worst of its checks, and no pass where something was not shown."""

import json

import pytest

from paxos_rsm.testing.chaos.outcome import Check
from tests.unit.testing.chaos.samples import occurrences, sample

OK = Check("a", "ok", "")
BAD = Check("b", "violation", "")
OPEN = Check("c", "unknown", "")


@pytest.mark.parametrize(
    ("checks", "word", "status"),
    [
        ([OK], "ok", 0),
        ([OK, BAD], "violation", 1),
        ([OK, OPEN], "unknown", 4),
        ([OPEN, BAD], "violation", 1),
        ([], "unknown", 4),
    ],
)
def test_as_bad_as_the_worst_check(checks: list[Check], word: str, status: int) -> None:
    result = sample(checks=checks)
    assert (result.word, result.exit_status) == (word, status)
    assert result.headline()


def test_what_the_machine_could_not_do_is_no_pass_unless_allowed() -> None:
    skipped = {fault.number: "this machine lacks disk" for fault in sample().plan.faults}
    result = sample(occurrences=[], skipped=skipped, missing=("disk",))
    assert (result.word, result.exit_status) == ("incomplete", 4)
    assert result.not_shown == {"leader-kill": "this machine lacks disk"}
    assert "leader-kill" in result.headline()
    result.allow_missing = True
    assert (result.word, result.exit_status) == ("ok", 0)


def test_a_kind_that_struck_at_least_once_was_shown() -> None:
    assert sample(skipped={0: "nobody led"}).not_shown == {}


def test_a_violation_is_one_also_where_faults_are_missing() -> None:
    assert sample(checks=[BAD], occurrences=[], skipped={0: "why"}, allow_missing=True).exit_status == 1


def test_missed_goals_do_not_make_a_run_wrong_but_are_told() -> None:
    slow = occurrences(1)
    assert slow[0].gap is not None
    assert sample().missed_goals == {}
    late = occurrences(1, "follower-kill")
    result = sample(occurrences=late)
    assert list(result.missed_goals) == ["follower-kill"]
    assert result.word == "ok"


def test_json() -> None:
    told = json.loads(json.dumps(sample().to_json()))
    assert told["verdict"] == "ok"
    assert told["seed"] == 7
    (row,) = told["gaps"]
    assert (row["kind"], row["count"], row["median_ms"], row["max_ms"]) == ("leader-kill", 3, 310.0, 320.0)
    assert row["gaps_ms"] == [300.0, 310.0, 320.0]
    assert [fault["gap_ms"] for fault in told["faults"]] == [300.0, 310.0, 320.0]
