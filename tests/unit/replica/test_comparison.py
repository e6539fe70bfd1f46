import pytest

from paxos_rsm.paxos.messages import StateDigest
from paxos_rsm.replica.comparison import KEPT_MAX, PAIRS_MAX, PATIENCE, Comparison, Difference, Verdict

ME, B, C, D, E = 1, 2, 3, 4, 5
THREE = frozenset({ME, B, C})


def digests(through: int, *, wrong_from: int = 1 << 60, how: int = 1) -> list[tuple[int, bytes]]:
    """At slots 64, 128, ... up to ``through``; from ``wrong_from`` on another state's."""
    return [
        (slot, (slot if slot < wrong_from else slot + (how << 64)).to_bytes(16, "big"))
        for slot in range(64, through + 1, 64)
    ]


def comparison(mine: list[tuple[int, bytes]], **theirs: list[tuple[int, bytes]]) -> Comparison:
    found = Comparison(ME)
    found.observe(mine)
    for name, pairs in theirs.items():
        found.heard("abcde".index(name) + 1, StateDigest(tuple(pairs)))
    return found


def test_equal_states_are_nothing_to_speak_of() -> None:
    same = comparison(digests(640), b=digests(512), c=digests(1024))
    assert same.judge(THREE) is None
    assert comparison(digests(640)).judge(THREE) is None
    assert comparison([], b=digests(64)).judge(THREE) is None


def test_whom_a_majority_contradicts_is_the_minority_and_learns_the_first_slot() -> None:
    found = comparison(digests(640, wrong_from=256), b=digests(512), c=digests(1024))
    assert found.judge(THREE) == Difference(Verdict.MINORITY, (B, C), 256, 192)
    assert found.judge(THREE) is None, "it is said once"
    assert found.standing.verdict is Verdict.MINORITY
    found.rebuilt()
    found.observe(digests(640)[-1:])
    assert found.judge(THREE) is None


def test_whom_a_majority_agrees_with_names_who_does_not() -> None:
    found = comparison(digests(640), b=digests(640), c=digests(640, wrong_from=320))
    assert found.judge(THREE) == Difference(Verdict.MAJORITY, (C,), 320, 256)


def test_the_first_slot_is_known_as_far_as_both_remember() -> None:
    found = comparison(digests(640, wrong_from=64)[5:], b=digests(640), c=digests(640))
    assert found.judge(THREE) == Difference(Verdict.MINORITY, (B, C), 384, 0)


def test_who_has_taken_anothers_state_agrees_again() -> None:
    found = comparison(digests(640), b=digests(640), c=digests(640, wrong_from=320))
    assert found.judge(THREE) is not None
    found.observe(digests(768))
    found.heard(C, StateDigest(tuple(digests(768)[-1:])))
    assert found.judge(THREE) == Difference(Verdict.EQUAL, (), 0, 0)
    found.heard(B, StateDigest(tuple(digests(768)[-1:])))
    assert found.judge(THREE) is None


@pytest.mark.parametrize("voters", [frozenset({ME, B}), THREE], ids=["two members", "one of three is down"])
def test_where_nobody_can_tell_it_is_said_and_not_at_once(voters: frozenset[int]) -> None:
    found = comparison(digests(640), b=digests(640, wrong_from=640))
    assert [found.judge(voters) for _ in range(PATIENCE - 1)] == [None] * (PATIENCE - 1)
    assert found.judge(voters) == Difference(Verdict.UNDECIDED, (B,), 640, 576)
    found.heard(C, StateDigest(tuple(digests(640))))
    if voters == THREE:
        assert found.judge(voters) == Difference(Verdict.MAJORITY, (B,), 640, 576)


def test_a_majority_is_one_of_all_that_vote() -> None:
    five = frozenset({ME, B, C, D, E})
    wrong = digests(640, wrong_from=640)
    assert comparison(wrong, b=digests(640), c=digests(640)).judge(five) is None
    found = comparison(wrong, b=digests(640), c=digests(640), d=digests(640), e=wrong)
    assert found.judge(five) == Difference(Verdict.MINORITY, (B, C, D), 640, 576)
    # All of them differ, each in another way: nobody is right.
    parts = {name: digests(640, wrong_from=640, how=2 + n) for n, name in enumerate("bcde")}
    parted = comparison(wrong, **parts)
    assert {parted.judge(five) for _ in range(PATIENCE)} == {
        None,
        Difference(Verdict.UNDECIDED, (B, C, D, E), 640, 576),
    }


def test_who_does_not_vote_has_no_say_and_may_be_wrong_all_the_same() -> None:
    voters = frozenset({B, C, D})
    learner = comparison(digests(640, wrong_from=128), b=digests(640), c=digests(640))
    assert learner.judge(voters) == Difference(Verdict.MINORITY, (B, C), 128, 64)
    voter = comparison(digests(640), b=digests(640, wrong_from=128), c=digests(640, wrong_from=128))
    assert voter.judge(frozenset({ME, D, E})) is None, "neither is in the configuration"


def test_what_is_new_is_told_once_and_all_that_there_is_to_who_has_just_come() -> None:
    found = comparison(digests(64 * (PAIRS_MAX + 8)))
    first = found.messages({B, C})
    assert [each.to for each in first] == [B, C]
    assert first[0].message == StateDigest(tuple(digests(64 * (PAIRS_MAX + 8))[-PAIRS_MAX:]))
    assert first[0].message is first[1].message
    assert found.messages({B, C}) == []
    found.observe(digests(64 * (PAIRS_MAX + 9)))
    found.peer_up(C)
    new, everything = found.messages({B, C})
    assert new.message == StateDigest(tuple(digests(64 * (PAIRS_MAX + 9))[-1:]))
    assert everything.message == StateDigest(tuple(digests(64 * (PAIRS_MAX + 9))[-PAIRS_MAX:]))
    assert Comparison(ME).messages({B}) == []


def test_what_is_kept_of_a_peer_is_bounded() -> None:
    found = comparison(digests(64 * 3), b=digests(64 * (KEPT_MAX + 3), wrong_from=64))
    assert found.judge(THREE) is None, "the slots that both have had are forgotten"
