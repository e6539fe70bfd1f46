"""Members that come and go in the simulation, and what its oracle says of changes that may not be."""

from dataclasses import replace
from typing import Any

import pytest

from paxos_rsm.errors import MembershipRefused
from paxos_rsm.paxos.changes import AddMember, Change, RemoveMember
from paxos_rsm.paxos.membership import Base, Configuration, Member
from paxos_rsm.paxos.messages import Accept, Promise
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import WriteAccepted, WriteCompacted
from paxos_rsm.paxos.types import Batch, ConfigChange
from paxos_rsm.sim.network import GRACE_TICKS
from paxos_rsm.sim.oracle import DiskModel
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.server_view import number_of
from paxos_rsm.sim.simulation import Simulation
from tests.unit.sim.helpers import answered, broken, follower, formed, play, the_leader, until
from tests.unit.sim.test_oracle import FIRST, GENESIS, NODES, Story, X, Y, ballot


def changing(servers: int = 3, **changes: Any) -> Simulation:
    """A cluster with a leader, a client, and servers that may be added."""
    simulation = formed(servers, change=0.01, **changes)
    (client,) = simulation.clients
    client.start()
    answered(simulation, client, 5)
    return simulation


def formed_of(simulation: Simulation) -> Configuration:
    configuration = simulation.oracle.configuration
    assert configuration is not None
    return configuration


def ask(simulation: Simulation, server: SimServer, change: Change) -> list[Configuration | MembershipRefused]:
    """Asks for a change; the answer, when there is one."""
    answers: list[Configuration | MembershipRefused] = []
    server.feed(server.replica.changes.ask, simulation.stage.now | 1, change, answers.append)
    return answers


def change(simulation: Simulation, what: Change) -> None:
    """Asks a follower, or whoever there is, for a change, and waits for it."""
    up = [server for server in simulation.servers.values() if server.formed]
    answers = ask(simulation, next((s for s in up if not s.leads), up[0]), what)
    until(simulation, lambda: bool(answers), f"an answer to {what}")
    assert isinstance(answers[0], Configuration)


def add(simulation: Simulation, number: int) -> SimServer:
    """Adds a server, which becomes a voter."""
    server = simulation.servers[number]
    change(simulation, AddMember(replace(server.introduction, promote=True)))

    def votes() -> bool:
        simulation.weather.start_added(
            formed_of(simulation)
        )  # again where it asked one that did not know yet
        return server.up and server.node in formed_of(simulation).nodes

    until(simulation, votes, f"n{number} votes", 1000)
    return server


def remove(simulation: Simulation, server: SimServer) -> None:
    change(simulation, RemoveMember(server.member_id))


class TestMembers:
    def test_from_one_to_three_and_back(self) -> None:
        simulation = changing(1)
        two, three = add(simulation, 2), add(simulation, 3)
        assert formed_of(simulation).quorum == QuorumSizes.majority(3)
        answered(simulation, simulation.clients[0], 5)
        for server in (simulation.servers[1], two):
            remove(simulation, server)
            until(simulation, lambda server=server: not server.up, "who was removed stops", 1000)  # type: ignore[misc]
            answered(simulation, simulation.clients[0], 5)
        assert formed_of(simulation).nodes == {three.node}
        assert simulation.stage.fired["removed and stopped"] + simulation.stage.fired["refused"] >= 2

    def test_the_leader_is_removed(self) -> None:
        simulation = changing()
        leader = the_leader(simulation)
        remove(simulation, leader)
        until(simulation, lambda: not leader.up, "it stops", 1000)
        assert leader.lost
        answered(simulation, simulation.clients[0], 5)
        assert len(formed_of(simulation).nodes) == 2

    def test_who_was_removed_while_it_was_down_is_refused(self) -> None:
        simulation = changing()
        server = follower(simulation)
        server.kill()
        remove(simulation, server)
        play(simulation, GRACE_TICKS)
        server.boot()
        until(simulation, lambda: bool(server.lost), "it is told", 1000)
        assert "was removed from the cluster" in server.lost

    def test_who_comes_back_is_another_member(self) -> None:
        simulation = changing()
        server = follower(simulation)
        before = server.node
        remove(simulation, server)
        until(simulation, lambda: not server.up, "it stops", 1000)
        member_id = 300 + server.number
        introduction = replace(server.introduction, member_id=member_id, promote=True)
        change(simulation, AddMember(introduction))
        simulation.weather.start_added(formed_of(simulation))
        until(simulation, lambda: server.node in formed_of(simulation).nodes, "it votes again", 1000)
        assert (server.member_id, number_of(member_id)) == (member_id, server.number)
        assert server.node != before
        assert before in formed_of(simulation).removed

    def test_one_that_nobody_has_added_waits(self) -> None:
        simulation = changing()
        spare = simulation.servers[4]
        spare.boot()
        assert not spare.up
        assert spare.life == 0

    def test_an_older_version_stops_and_does_not_skip(self) -> None:
        simulation = changing(old_server=2)
        old = simulation.servers[2]
        if old.leads:
            (other,) = [s for s in simulation.servers.values() if s.number == 1]
            other.feed(other.replica.node.campaign)
            until(simulation, lambda: not old.leads)
        before = old.replica.machine.applied_slot
        answers = ask(simulation, the_leader_of(simulation), AddMember(simulation.servers[4].introduction))
        until(simulation, lambda: bool(answers) and not old.up, "it is done, and n2 has stopped", 1000)
        assert simulation.stage.fired["unknown entry"] == 1
        assert not old.lost
        answered(simulation, simulation.clients[0], 3)
        old.is_old = False
        old.boot()
        until(simulation, lambda: old.replica.machine.applied_slot > before, "it goes on", 1000)
        assert old.configuration == formed_of(simulation)

    def test_stopping_as_if_it_had_been_removed_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation = changing()
        server = follower(simulation)
        monkeypatch.setattr(type(server.replica.node), "removed", property(lambda node: True))
        with broken("10", f"n{server.number} stops as if it had been removed"):
            server._leave_or_stay()


def the_leader_of(simulation: Simulation) -> SimServer:
    until(simulation, lambda: any(s.leads for s in simulation.servers.values()), "a leader")
    return next(s for s in simulation.servers.values() if s.leads)


# ---- what the oracle says --------------------------------------------------------------------------------------


def member(node: int, **changes: Any) -> Member:
    return replace(Member(node, 100 + node, f"n{node}", f"http://n{node}:2380"), **changes)


def configuration(*members: Member, request: int = 9, removed: tuple[int, ...] = ()) -> ConfigChange:
    voters = sum(not each.learner for each in members)
    return ConfigChange(Configuration(7, members, QuorumSizes.majority(voters), removed, (request,)))


A, B, C = NODES
THREE = tuple(member(node) for node in NODES)
FOUR = configuration(*THREE, member(4))
LEARNS = configuration(*THREE, member(4, learner=True))
TWO = configuration(member(A), member(B), removed=(C,))


@pytest.fixture
def story() -> Story:
    told = Story()
    told.disks[4] = DiskModel(4)
    told.promise(FIRST, [4])
    return told


class TestWhoCounts:
    def test_a_new_voter_counts_from_the_next_slot_on(self, story: Story) -> None:
        story.vote(2, FIRST, FOUR, [A, 4])
        assert 2 not in story.oracle.chosen
        story.vote(2, FIRST, FOUR, [B])
        assert story.oracle.configuration == FOUR.configuration
        story.vote(3, FIRST, X, [A, B])
        assert 3 not in story.oracle.chosen
        story.vote(3, FIRST, X, [4])
        assert story.oracle.chosen[3] == X

    def test_a_learner_does_not(self, story: Story) -> None:
        story.chosen(2, LEARNS)
        story.vote(3, FIRST, X, [A, 4])
        assert 3 not in story.oracle.chosen

    def test_nor_does_who_was_removed(self, story: Story) -> None:
        story.chosen(2, TWO)
        story.vote(3, FIRST, X, [A, C])
        assert 3 not in story.oracle.chosen
        story.vote(3, FIRST, X, [B])
        assert story.oracle.chosen[3] == X

    def test_votes_that_came_before_the_change_are_counted_anew(self, story: Story) -> None:
        story.vote(3, FIRST, X, [A, C])
        story.chosen(2, TWO)
        assert 3 not in story.oracle.chosen

    def test_a_quorum_of_a_leader_that_took_another_to_govern_is_void(self, story: Story) -> None:
        """In ballot 2 of B something else was proposed where ballot 3 then got a change chosen."""
        story.promise(ballot(2, B))
        story.says(B, Accept(ballot(2, B), 2, Y, 1))
        story.vote(3, ballot(2, B), X, [A, B])
        story.promise(ballot(3, A))
        story.vote(2, ballot(3, A), TWO, [A, B])
        assert story.oracle.chosen[2] == TWO
        assert 3 not in story.oracle.chosen

    def test_a_snapshot_names_what_governs_the_next_slot(self, story: Story) -> None:
        story.chosen(2, FOUR)
        story.oracle.applied_through = 2
        story.oracle.stands_for(A, Base(2, 2, FOUR.configuration), 2)
        for base in (Base(2, 1, GENESIS.configuration), Base(2, 1, FOUR.configuration)):
            with broken("10", "names a configuration of its own"):
                story.oracle.stands_for(A, base, 2)
        with broken("7", "its snapshot: 1"):
            story.oracle.stands_for(A, Base(1, 1, GENESIS.configuration), 2)


class TestChangesThatMayNotBe:
    @pytest.mark.parametrize(
        ("change", "rule", "says"),
        [
            (
                configuration(member(A), member(B), member(4), removed=(C,)),
                "10",
                "changes 2 voters in one change",
            ),
            (configuration(*THREE, member(4), member(5)), "10", "changes 2 voters in one change"),
            (
                configuration(member(A), member(B), removed=()),
                "9",
                "removes {3}, and says that () are removed",
            ),
            (configuration(*THREE[:2], member(9, member_id=103, learner=True)), "9", "makes another process"),
            (
                ConfigChange(replace(FOUR.configuration, quorum=QuorumSizes(4, 2, 2))),
                "10",
                "the quorums of 4 voters",
            ),
        ],
    )
    def test_each_is_told(self, story: Story, change: ConfigChange, rule: str, says: str) -> None:
        with broken(rule, says):
            story.vote(2, FIRST, change)

    def test_a_member_that_was_removed_comes_back(self, story: Story) -> None:
        story.chosen(2, TWO)
        with broken("9", "makes members of some that were removed"):
            story.vote(3, FIRST, configuration(*THREE, request=10, removed=(C,)))

    def test_a_request_that_is_carried_out_twice(self, story: Story) -> None:
        story.chosen(2, TWO)
        with broken("11", "carries out the request 9 again"):
            story.vote(3, FIRST, configuration(member(A), member(B), member(4), request=9, removed=(C,)))


class TestForgetting:
    def test_what_was_forgotten_is_not_covered(self, story: Story) -> None:
        story.chosen(2, X)
        story.writes(A, WriteCompacted(2))
        story.promise(ballot(2, B))
        story.says(A, Promise(ballot(2, B), 1, 2, (), (), compacted_through=2))
        story.says(A, Promise(ballot(2, B), 2, None, (), ((2, X),)))  # it was made before that was forgotten
        story.says(C, Promise(ballot(2, B), 2, None, (), ()))
        with broken("5", "1 covers slot 2 in its promise, and has forgotten its vote there"):
            story.says(A, Promise(ballot(2, B), 2, None, (), ()))

    def test_what_was_forgotten_is_written_no_more(self, story: Story) -> None:
        story.chosen(2, X)
        story.writes(A, WriteCompacted(2))
        assert story.disks[A].votes == {}
        assert story.disks[A].decided_through == story.disks[A].compacted_through == 2
        with broken("7", "gets an entry for slot 2, and has forgotten all up to 2"):
            story.writes(A, WriteAccepted(2, FIRST, X))

    def test_what_nobody_has_chosen_is_not_forgotten(self, story: Story) -> None:
        with broken("7", "forgets slots up to 5, and 1 are chosen"):
            story.writes(A, WriteCompacted(5))

    def test_a_log_does_not_start_lower_again(self, story: Story) -> None:
        story.chosen(2, X)
        story.writes(A, WriteCompacted(2))
        with broken("7", "starts above 2, and then above 1"):
            story.writes(A, WriteCompacted(1))


def test_a_batch_is_no_change() -> None:
    story = Story()
    story.chosen(2, Batch(b"z"))
    assert len(story.oracle.changes) == 1
