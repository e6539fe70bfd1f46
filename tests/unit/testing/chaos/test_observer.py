"""Who leads is who says so with the highest ballot; changes are written down, what stays is not."""

from pathlib import Path

import pytest

from paxos_rsm._proto import admin_pb2, paxos_pb2
from paxos_rsm.testing.chaos.observer import DOWN, Observer
from paxos_rsm.testing.chaos.recorder import Recorder


def said(role: str, ballot: int) -> admin_pb2.StatusResponse:
    return admin_pb2.StatusResponse(role=role, ballot=paxos_pb2.Ballot(round=ballot, node=1))


@pytest.fixture
def observer(tmp_path: Path) -> Observer:
    return Observer({"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}, Recorder(tmp_path))


def test_the_highest_ballot_leads(observer: Observer) -> None:
    seen = [observer.leader]
    for name, answer in (
        ("n1", said("leader", 3)),
        ("n2", said("leader", 4)),  # n1 does not know yet
        ("n1", said("follower", 4)),
        ("n2", None),
    ):
        observer._take(name, answer)
        seen.append(observer.leader)
    assert seen == [None, "n1", "n2", "n2", None]
    assert len(observer.leader_changes) == 1
    assert observer.roles["n2"] == DOWN


def test_the_same_leader_again_is_no_change(observer: Observer) -> None:
    observer._take("n1", said("leader", 3))
    observer._take("n1", None)
    observer._take("n1", said("leader", 3))
    assert observer.leader_changes == []


def test_only_changes_are_written_down(observer: Observer) -> None:
    for _ in range(5):
        observer._take("n1", said("follower", 3))
    observer._take("n1", said("candidate", 4))
    told = [(event["server"], event["role"], event["round"]) for event in observer._recorder.of("role")]
    assert told == [("n1", "follower", 3), ("n1", "candidate", 4)]


def test_what_falls_into_a_time(observer: Observer) -> None:
    observer.leader_changes = [100.0, 200.0, 300.0]
    observer.stalls = [(150.0, 30.0), (250.0, 80.0)]
    assert observer.changes_within(150, 300) == 2
    assert observer.longest_stall_ms(100, 200) == 30.0
    assert observer.longest_stall_ms(300, 400) == 0.0


async def test_servers_that_are_not_there_are_down(observer: Observer) -> None:
    observer.start()
    assert await observer.states() == {"n1": None, "n2": None}
    await observer.close()
    await observer.close()
