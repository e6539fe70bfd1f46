import pytest

from paxos_rsm.sim.failure import Broken, Failure, Result


@pytest.mark.parametrize(("rule", "told"), [("7", "rule 7: a hole"), ("liveness", "liveness: a hole")])
def test_what_is_broken_names_its_rule(rule: str, told: str) -> None:
    broken = Broken(rule, "a hole")
    assert str(broken) == told
    assert (broken.rule, broken.message) == (rule, "a hole")


def test_a_failure_says_when() -> None:
    assert str(Failure("7", "rule 7: a hole", 12, 3)) == "rule 7: a hole (after event 12, tick 3)"


def test_results_share_nothing() -> None:
    one, other = Result(1, 0, ""), Result(2, 0, "")
    one.fired["crash"] += 1
    one.trace.append("a line")
    assert not other.fired
    assert not other.trace
    assert other.failure is None
