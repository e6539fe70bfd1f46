"""What becomes of changes that were asked for at a server, with a node that only remembers what it was asked."""

from dataclasses import replace
from typing import cast

import pytest

from paxos_rsm.errors import MembershipRefused
from paxos_rsm.paxos.changes import Change, PromoteMember, Reason, RemoveMember, UpdateMember
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.ready import ChangeAnswer
from paxos_rsm.replica.changes import Changes
from tests.unit.paxos.harness import members

PATIENCE = 5
REMOVE = RemoveMember(102)


class FakeNode:
    def __init__(self) -> None:
        self.asked: list[tuple[int, Change]] = []
        self.configuration: Configuration | None = members(3)

    def change(self, request_id: int, change: Change) -> None:
        self.asked.append((request_id, change))


class Stage:
    def __init__(self) -> None:
        self.node = FakeNode()
        self.changes = Changes(cast(Node, self.node), PATIENCE)
        self.done: list[Configuration | MembershipRefused] = []

    def ask(self, request_id: int, change: Change = REMOVE) -> None:
        self.changes.ask(request_id, change, self.done.append)

    def decide(self, *changes: int) -> Configuration:
        self.node.configuration = replace(members(3), changes=changes)
        self.changes.decided()
        return self.node.configuration


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_it_is_asked_again_until_it_is_decided(stage: Stage) -> None:
    stage.ask(7)
    for _ in range(2 * PATIENCE):
        stage.changes.tick()
    assert stage.node.asked == [(7, REMOVE)] * 3
    assert stage.done == []
    decided = stage.decide(5, 7)
    assert stage.done == [decided]
    for _ in range(2 * PATIENCE):
        stage.changes.tick()
    assert len(stage.node.asked) == 3


def test_a_refusal_is_the_end_and_no_leader_is_not(stage: Stage) -> None:
    stage.ask(7)
    stage.changes.answered([ChangeAnswer(7, "no leader", Reason.UNAVAILABLE)])
    assert stage.done == []
    stage.changes.answered([ChangeAnswer(7, "not there", Reason.MEMBER_NOT_FOUND), ChangeAnswer(8, "x", 2)])
    (refused,) = stage.done
    assert isinstance(refused, MembershipRefused)
    assert (str(refused), refused.reason) == ("not there", Reason.MEMBER_NOT_FOUND)
    stage.decide(7)
    assert len(stage.done) == 1


def test_one_that_the_leader_says_is_decided_waits_for_it_to_be_known_here(stage: Stage) -> None:
    stage.ask(7)
    stage.changes.answered([ChangeAnswer(7, "", Reason.DONE)])
    for _ in range(3 * PATIENCE):
        stage.changes.tick()
    assert len(stage.node.asked) == 1
    assert stage.done == []
    stage.decide(7)
    assert len(stage.done) == 1


def test_one_that_was_known_here_before_it_was_asked_is_done_at_the_leaders_word(stage: Stage) -> None:
    stage.decide(7)
    stage.ask(7)
    stage.changes.answered([ChangeAnswer(7, "", Reason.DONE)])
    stage.changes.decided()
    assert len(stage.done) == 1


def test_one_that_changes_nothing_is_done_once_nothing_is_to_be_done_here_either(stage: Stage) -> None:
    """No configuration ever names it: there was nothing to decide."""
    stage.ask(7, UpdateMember(102, peer_url="http://elsewhere:2380"))
    stage.ask(8, UpdateMember(109, peer_url="http://n9:2380"))
    stage.changes.answered([ChangeAnswer(7, "", Reason.DONE), ChangeAnswer(8, "", Reason.DONE)])
    stage.changes.decided()
    assert stage.done == []
    known = members(3)
    there = tuple(
        replace(m, peer_url="http://elsewhere:2380") if m.member_id == 102 else m for m in known.members
    )
    stage.node.configuration = replace(known, members=there)
    stage.changes.decided()
    assert stage.done == [stage.node.configuration]


def test_several_wait_at_once_and_one_may_be_forgotten(stage: Stage) -> None:
    stage.ask(7)
    stage.ask(8, PromoteMember(103))
    stage.ask(9)
    stage.changes.forget(8)
    stage.changes.forget(8)
    decided = stage.decide(7, 8, 9)
    assert stage.done == [decided, decided]
