import pytest

from paxos_rsm.checker import Result, Verdict


@pytest.mark.parametrize("verdict", Verdict)
def test_only_linearizable_is_a_pass(verdict: Verdict) -> None:
    result = Result(verdict=verdict, reason="")
    expected = verdict.value == "linearizable"
    assert result.ok is expected
    assert bool(result) is expected
    assert bool(verdict) is expected


def test_there_are_three_verdicts() -> None:
    assert [verdict.value for verdict in Verdict] == ["linearizable", "violation", "unknown"]
