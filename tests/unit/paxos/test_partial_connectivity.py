"""The three cases of the OmniPaxos paper (Ng, Haridi, Carbone, EuroSys 2023, section 2), and links that flap.

Messages take up to a quarter of an election time-out. A case is resolved when the leader that it calls for has decided
a frame that was handed in after the links went.
"""

import pytest

from tests.forms import of_form
from tests.unit.paxos.delays import DelayedCluster, T

DELAY_MAX = T // 4
RESOLVED = 4 * T


def led_by(leader: int, count: int, seed: int) -> DelayedCluster:
    """A cluster that ``leader`` has led for a random time."""
    cluster = DelayedCluster(count, seed, DELAY_MAX)
    cluster.introduce()
    cluster.nodes[leader].election.stand_at = 0
    cluster.until_led(RESOLVED)
    assert cluster.leader() == leader
    for _ in range(cluster.random.randint(0, 3 * T)):
        cluster.tick()
    return cluster


def hand_in(cluster: DelayedCluster) -> None:
    """A client at every server, and a tick."""
    for node in cluster.nodes.values():
        node.propose([b"x"])
    cluster.tick()


def until_decided(cluster: DelayedCluster, leader: int) -> int:
    """Ticks until ``leader`` leads and has decided something new."""
    start, known = cluster.now, max(node.log.max_slot for node in cluster.nodes.values())
    node = cluster.nodes[leader]
    while not (node.proposer.leading and node.decided_through > known):
        assert cluster.now - start <= 10 * RESOLVED, "never resolved"
        hand_in(cluster)
    return cluster.now - start


@pytest.mark.parametrize("old", [2, 5])
def test_quorum_loss(old: int) -> None:
    """Five servers, all reach only 1; the old leader lives on elsewhere. 1 takes over."""
    worst = 0
    for seed in range(of_form(20, 60)):
        cluster = led_by(old, 5, seed)
        cluster.only(*((1, n) for n in (2, 3, 4, 5)))
        worst = max(worst, until_decided(cluster, 1))
    assert worst <= RESOLVED


def test_constrained_election() -> None:
    """Only 1 has a quorum of links, but its log is behind; the leader is cut off. 1 wins, and catches up."""
    worst = 0
    for seed in range(of_form(30, 100)):
        cluster = led_by(2, 5, seed)
        cluster.only(*((a, b) for a in (2, 3, 4, 5) for b in (2, 3, 4, 5) if a != b))
        for _ in range(T):
            hand_in(cluster)
        assert cluster.nodes[1].decided_through < cluster.nodes[2].decided_through
        cluster.only((1, 3), (1, 4), (1, 5))
        worst = max(worst, until_decided(cluster, 1))
    assert worst <= RESOLVED


@pytest.mark.parametrize("leader", [1, 2, 3])
def test_chained(leader: int) -> None:
    """2-1-3, with 2 and 3 cut: whoever leads goes on, the far end learns, and nobody prepares a ballot."""
    for seed in range(of_form(15, 50)):
        cluster = led_by(leader, 3, seed)
        ballots = set(cluster.ballots)
        cluster.only((1, 2), (1, 3))
        for _ in range(8 * T):
            hand_in(cluster)
        assert cluster.ballots == ballots
        decided = [node.decided_through for node in cluster.nodes.values()]
        assert min(decided) > 3 * T, f"seed {seed}: {decided}"


def test_chained_without_a_leader() -> None:
    """2-1-3 from the start: one of them comes to lead, and there is no endless exchange of leadership."""
    for seed in range(of_form(20, 60)):
        cluster = DelayedCluster(3, seed, DELAY_MAX)
        cluster.introduce()
        cluster.only((1, 2), (1, 3))
        for node in cluster.nodes.values():
            node.election.stand_at = cluster.now + cluster.random.randint(1, T)
        cluster.until_led(RESOLVED)
        for _ in range(2 * T):  # ballots that were prepared before may still come through
            hand_in(cluster)
        ballots = set(cluster.ballots)
        assert len(ballots) <= 4
        for _ in range(8 * T):
            hand_in(cluster)
        assert cluster.ballots == ballots
        assert min(node.decided_through for node in cluster.nodes.values()) > 3 * T


def test_a_deposed_end_of_the_chain_does_not_fight_for_its_place() -> None:
    """2 leads; cut from both, it does not notice that 3 takes over; then 2-1-3. 1 refuses 2, which cannot hear 3."""
    for seed in range(of_form(15, 50)):
        cluster = led_by(2, 3, seed)
        cluster.only((1, 3))
        while not cluster.nodes[3].proposer.leading:
            cluster.nodes[2].proposer.decided_at = cluster.nodes[2].election._linked_at = cluster.now
            cluster.nodes[1].election.stand_at = 1 << 40
            cluster.tick()
        assert cluster.nodes[2].proposer.leading
        cluster.only((1, 2), (1, 3))
        led = list(cluster.led)
        for _ in range(6 * T):
            hand_in(cluster)
        assert cluster.led == led
        assert not cluster.nodes[2].proposer.leading


@pytest.mark.parametrize(
    ("leader", "cut"), [(2, [(2, 1), (2, 3)]), (2, [(1, 2), (3, 2)]), (1, [(1, 2), (2, 3)])]
)
def test_one_way_links(leader: int, cut: list[tuple[int, int]]) -> None:
    """The leader can receive but not send, or send but not receive; or a ring of one-way links."""
    for seed in range(of_form(15, 50)):
        cluster = led_by(leader, 3, seed)
        cluster.cut = set(cut)
        start, known = cluster.now, max(node.log.max_slot for node in cluster.nodes.values())
        while max(node.decided_through for node in cluster.nodes.values()) <= known:
            hand_in(cluster)
            assert cluster.now - start <= RESOLVED


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("told", [False, True], ids=["silence", "broken streams"])
def test_a_server_whose_links_flap_changes_no_leader(count: int, told: bool) -> None:
    """Whether its peers are told that the streams broke or only miss its heartbeats."""
    for seed in range(of_form(8, 25)):
        cluster = led_by(1, count, seed)
        ballots = set(cluster.ballots)
        flapping = {(a, b) for a in cluster.nodes for b in cluster.nodes if count in (a, b)}
        up = True
        for _ in range(12 * T):
            if cluster.random.random() < 0.15:
                up = not up
                cluster.cut = set() if up else flapping
                if told:
                    for a, b in flapping:
                        node = cluster.nodes[a]
                        (node.peer_up if up else node.peer_down)(b)
            hand_in(cluster)
        assert cluster.ballots == ballots


def test_a_flapping_link_to_the_leader_changes_no_leader() -> None:
    for seed in range(of_form(8, 25)):
        cluster = led_by(1, 3, seed)
        ballots = set(cluster.ballots)
        for _ in range(12 * T):
            if cluster.random.random() < 0.15:
                cluster.cut = set() if cluster.cut else {(1, 3), (3, 1)}
                for a, b in ((1, 3), (3, 1)):
                    (cluster.nodes[a].peer_down if cluster.cut else cluster.nodes[a].peer_up)(b)
            hand_in(cluster)
        assert cluster.ballots == ballots


def test_a_leader_with_a_small_phase_2_quorum_stays_though_too_few_are_left_to_elect_one() -> None:
    """Flexible quorums: five servers of which two decide. Three are enough to go on, not to elect (that takes four)."""
    cluster = DelayedCluster(5, 0, DELAY_MAX, phase2=2)
    cluster.introduce()
    cluster.nodes[1].election.stand_at = 0
    cluster.until_led(RESOLVED)
    ballots = set(cluster.ballots)
    cluster.down = {4, 5}
    for _ in range(10 * T):
        hand_in(cluster)
    assert cluster.nodes[1].proposer.leading
    assert cluster.ballots == ballots
    assert cluster.nodes[2].decided_through > 3 * T
