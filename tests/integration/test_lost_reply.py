"""A reply is lost, the leader changes, and the client asks again at another server: it gets the first result.

Done by hand on the Session service, so that the very frame is sent again; the state machine is a counter, whose
results say how often, and in which order, it was added to.
"""

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import client_at
from tests.integration.conftest import NewCluster
from tests.integration.raw import Failed, RawSession
from tests.integration.waiting import eventually, leader_among, same_state


@pytest.fixture(scope="module")
def _counters(new_shared_cluster: NewCluster) -> LocalCluster:
    return new_shared_cluster(machine="examples.counter:Counter")


@pytest.fixture
def counters(_counters: LocalCluster) -> LocalCluster:
    """Three servers that count."""
    _counters.start()
    return _counters


def total_at(cluster: LocalCluster, name: str) -> int:
    """What the counter stands at, by a linearizable read at one server."""
    with client_at(cluster[name].endpoint) as client:
        return int(client.query(b""))


def lose_the_reply(cluster: LocalCluster, at: str, asked_of: str, *commands: bytes) -> tuple[int, int]:
    """Submits commands from 1 at ``at`` in a new session and never reads their results.

    Gives the session and the total before them, once ``asked_of`` has executed them.
    """
    before = total_at(cluster, asked_of)
    session = RawSession(cluster[at].endpoint)
    session.open()
    session.submit(1, *commands)
    wanted = before + sum(map(int, commands))
    eventually(lambda: total_at(cluster, asked_of) == wanted, "execution of what was submitted")
    number = session.session
    session.cut()
    return number, before


@pytest.mark.parametrize("at_the_leader", [True, False], ids=["leader", "follower"])
def test_a_frame_sent_again_elsewhere_gets_its_first_result(
    counters: LocalCluster, at_the_leader: bool
) -> None:
    leader = counters.wait_for_leader(everyone=True)
    follower, elsewhere = (name for name in counters.names if name != leader)
    session, before = lose_the_reply(counters, leader if at_the_leader else follower, elsewhere, b"5", b"6")
    with client_at(counters[elsewhere].endpoint) as other:
        other.submit(b"1000")  # so that an execution now would give another result than the first
    counters[leader].kill()
    eventually(lambda: leader_among([counters[follower], counters[elsewhere]]), "leader after the first")
    with RawSession(counters[elsewhere].endpoint) as again:
        assert again.open(session).next_seq == 3
        again.submit(1, b"5", b"6")
        assert again.results(1, 2) == [b"%d" % (before + 5), b"%d" % (before + 11)]
        again.submit(3, b"1", received_below=3)
        assert again.results(3, 1) == [b"%d" % (before + 1012)]
    assert total_at(counters, elsewhere) == before + 1012
    counters.start()
    assert total_at(counters, leader) == before + 1012
    eventually(lambda: same_state(counters), "equal states")


def test_frames_may_be_cut_otherwise_when_they_are_sent_again(counters: LocalCluster) -> None:
    leader = counters.wait_for_leader(everyone=True)
    first, other = (name for name in counters.names if name != leader)
    session, before = lose_the_reply(counters, first, other, *[b"1"] * 6)
    counters[leader].kill()
    eventually(lambda: leader_among([counters[first], counters[other]]), "leader after the first")
    with RawSession(counters[other].endpoint) as again:
        again.open(session)
        again.submit(1, *[b"1"] * 4)  # all known
        again.submit(5, *[b"1"] * 4)  # two known, two new
        assert again.results(1, 8) == [b"%d" % (before + number) for number in range(1, 9)]
    assert total_at(counters, other) == before + 8


def test_a_reply_lost_with_the_server_that_was_to_give_it(counters: LocalCluster) -> None:
    """The server dies while the commands are on their way: they are executed once, whether it had sent them or not."""
    for _ in range(4):
        leader = counters.wait_for_leader(everyone=True)
        before = total_at(counters, leader)
        elsewhere = next(name for name in counters.names if name != leader)
        session = RawSession(counters[leader].endpoint)
        session.open()
        session.submit(1, b"1", b"1", b"1")
        counters[leader].kill()
        number = session.session
        session.cut()
        with RawSession(counters[elsewhere].endpoint) as again:
            again.open(number)
            again.submit(1, b"1", b"1", b"1")
            assert again.results(1, 3) == [b"%d" % (before + each) for each in (1, 2, 3)]
        assert total_at(counters, elsewhere) == before + 3
        counters.start()


def test_a_session_that_is_closed_or_unknown_executes_nothing(counters: LocalCluster) -> None:
    before = total_at(counters, "n1")
    with RawSession(counters["n1"].endpoint) as session, pytest.raises(Failed) as told:
        session.open(session=(1 << 40) + 1)
    assert told.value.failure.session_expired
    assert total_at(counters, "n1") == before
