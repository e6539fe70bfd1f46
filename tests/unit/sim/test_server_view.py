"""What a simulated server says of itself."""

from paxos_rsm.sim.server_view import SNAPSHOTS, number_of
from tests.unit.sim.helpers import calm, follower, formed, the_leader, until


def test_before_it_has_ever_run_it_knows_nothing() -> None:
    server = calm().servers[1]
    assert (server.formed, server.leads, server.knows_genesis, server.configuration) == (
        False,
        False,
        False,
        None,
    )
    assert (server.decided_on_disk, server.forgotten_through) == (0, 0)
    assert server.describe() == "n1 is down (not started)"


def test_what_it_is_at() -> None:
    simulation = formed()
    simulation.clients[0].start()  # a mark is durable with the next thing that is synced
    leader, other = the_leader(simulation), follower(simulation)
    assert (leader.leads, other.leads) == (True, False)
    assert other.configuration == simulation.oracle.configuration
    until(simulation, lambda: other.knows_genesis, "the mark is durable")
    assert other.decided_on_disk >= 1
    assert other.describe().startswith(f"n{other.number}: follower, follows ")


def test_what_will_be_forgotten_is_what_its_newest_snapshot_holds() -> None:
    simulation = formed()
    server = follower(simulation)
    assert server.forgotten_through == 0
    server.feed(server.snapshots.take)
    until(simulation, lambda: not server.snapshots.busy)
    (path,) = server.files.paths(SNAPSHOTS)
    assert server.forgotten_through == int(path.rpartition("/")[2].partition(".")[0]) > 0


def test_an_operator_says_who_it_is() -> None:
    server = calm().servers[2]
    member = server.introduction
    assert (member.incarnation, member.member_id, member.name, member.learner) == (0, 102, "n2", True)
    assert number_of(member.member_id) == number_of(member.member_id + 300) == 2
