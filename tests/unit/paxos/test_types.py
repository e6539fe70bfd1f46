"""Ballots in order, and frames side by side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.paxos.types import NO_BALLOT, Ballot, are_frames, join_frames, split_frames


def test_ballots_are_ordered_by_round_then_by_node() -> None:
    ordered = [NO_BALLOT, Ballot(1, 2), Ballot(1, 9), Ballot(2, 1), Ballot(10, 1)]
    mixed = [ordered[i] for i in (3, 0, 4, 2, 1)]
    assert sorted(mixed) == ordered


@given(st.lists(st.binary(max_size=300)))
def test_frames_come_back_as_they_were(frames: list[bytes]) -> None:
    assert list(split_frames(join_frames(frames))) == frames


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.data())
def test_a_batch_that_is_cut_off_is_told(frames: list[bytes], data: st.DataObject) -> None:
    whole = join_frames(frames)
    ends = {len(join_frames(frames[:count])) for count in range(len(frames) + 1)}
    at = data.draw(st.integers(0, len(whole) - 1).filter(lambda n: n not in ends))
    with pytest.raises(ValueError, match="cut off"):
        list(split_frames(whole[:at]))
    assert are_frames(whole)
    assert not are_frames(whole[:at])


@given(st.binary(max_size=12))
def test_what_is_taken_for_frames_can_be_split(data: bytes) -> None:
    try:
        frames = list(split_frames(data))
    except ValueError:
        assert not are_frames(data)
    else:
        assert are_frames(data)
        assert join_frames(frames) == data
