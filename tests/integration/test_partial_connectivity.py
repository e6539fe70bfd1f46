"""The three cases of the OmniPaxos paper (Ng, Haridi, Carbone, EuroSys 2023, section 2) on five real servers.

A case is resolved when a write that was handed in after the links went is acknowledged, at the server that has to take
over (quorum-loss, constrained election) or at every server that reaches a quorum (chained): within four election
time-outs, and what was measured is told. From then on leadership stays where it is, which is watched for some more.

The election time-out is longer than the default, so that what a busy machine adds is small beside it; the same cases
with every delay that the protocol allows are in ``tests/unit/paxos/test_partial_connectivity.py``.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import client_at
from tests.integration.conftest import NewCluster
from tests.integration.waiting import TIMEOUT_S, eventually, same_state, status_of

ELECTION_TIMEOUT_MS = 1_000
RESOLVED = 4
"""Election time-outs."""
STABLE = 2
"""Election time-outs for which leadership is watched afterwards."""


@pytest.fixture(scope="module")
def _five(new_shared_cluster: NewCluster) -> LocalCluster:
    # The default is 10 heartbeats a time-out as well.
    return new_shared_cluster(5, proxied=True, options={"election-timeout": ELECTION_TIMEOUT_MS})


@pytest.fixture
def five(_five: LocalCluster) -> Iterator[LocalCluster]:
    """Five servers, all up, whose links are as new."""
    _five.start()
    yield _five
    _five.links.heal_all()


def write_at(cluster: LocalCluster, name: str, value: str) -> float:
    """A write at this server alone; gives when it was acknowledged."""
    with client_at(cluster[name].endpoint) as client:
        client.put(f"partial/{name}", value)
    return time.monotonic()


def time_outs_to_write(
    cluster: LocalCluster, names: Sequence[str], cut: Callable[[], None]
) -> dict[str, float]:
    """Cuts links, then writes at each of these servers at once; when each was acknowledged, in election time-outs."""
    with ThreadPoolExecutor(len(names)) as pool:
        clients_ready = threading.Barrier(len(names) + 1, timeout=TIMEOUT_S)

        def write(name: str) -> float:
            with client_at(cluster[name].endpoint) as client:
                client.put(f"partial/{name}", "before")
                clients_ready.wait()
                links_gone.wait(TIMEOUT_S)
                client.put(f"partial/{name}", "after")
            return time.monotonic()

        links_gone = threading.Event()
        writes = {name: pool.submit(write, name) for name in names}
        clients_ready.wait()
        cut()
        cut_at = time.monotonic()
        links_gone.set()
        return {name: (done.result() - cut_at) * 1000 / ELECTION_TIMEOUT_MS for name, done in writes.items()}


def leads(cluster: LocalCluster) -> dict[str, int]:
    """Who says that it leads, and the round of its ballot."""
    answers = [status_of(server) for server in cluster]
    return {each.name: each.ballot.round for each in answers if each is not None and each.role == "leader"}


def check_stable(cluster: LocalCluster, name: str) -> str:
    """One server leads, at the end in the ballot in which it did at first. Gives its name."""
    first = eventually(lambda: leads(cluster) if len(leads(cluster)) == 1 else None, "one leader")
    until = time.monotonic() + STABLE * ELECTION_TIMEOUT_MS / 1000
    while time.monotonic() < until:
        write_at(cluster, name, "stable")
        assert leads(cluster) == first, f"leadership was exchanged: {first}, then {leads(cluster)}"
    return next(iter(first))


def check_healed(cluster: LocalCluster) -> None:
    """With the links back all have the same."""
    cluster.links.heal_all()
    cluster.wait_for_leader(everyone=True)
    eventually(lambda: same_state(cluster), "equal states")


def told(case: str, measured: dict[str, float]) -> str:
    """A line for the output of the test."""
    each = ", ".join(f"{name} {time_outs:.2f}" for name, time_outs in measured.items())
    return f"{case}, election time-outs to the next acknowledged write: {each} (goal {RESOLVED})"


def test_quorum_loss(five: LocalCluster, tell: Callable[[str], None]) -> None:
    """All reach only the hub; the old leader lives on elsewhere. The hub takes over, and stays."""
    old = five.wait_for_leader(everyone=True)
    hub = next(name for name in five.names if name != old)
    measured = time_outs_to_write(five, [hub], lambda: five.links.quorum_loss(hub))
    tell(told(f"quorum-loss ({hub} is left)", measured))
    assert measured[hub] <= RESOLVED
    assert check_stable(five, hub) == hub
    check_healed(five)


def test_constrained_election(five: LocalCluster, tell: Callable[[str], None]) -> None:
    """The leader is cut off and the others reach only the hub, whose log is behind. The hub wins, and catches up."""
    old = five.wait_for_leader(everyone=True)
    hub = next(name for name in five.names if name != old)
    with client_at(five[hub].endpoint) as client:
        client.put("partial/hub", "before")
    five.links.isolate(hub)
    with client_at(five[old].endpoint) as client:
        for number in range(20):
            client.put("partial/elsewhere", str(number))
    behind = five[hub].status().applied_slot
    assert behind < five[old].status().applied_slot
    assert five.leader() == old

    began = time.monotonic()
    five.links.constrained(hub, old)
    done = write_at(five, hub, "after")
    measured = {hub: (done - began) * 1000 / ELECTION_TIMEOUT_MS}
    tell(told(f"constrained election ({hub} is left, and behind)", measured))
    assert measured[hub] <= RESOLVED
    assert check_stable(five, hub) == hub
    with client_at(five[hub].endpoint) as client:
        assert client.get("partial/elsewhere").value == b"19"
    check_healed(five)


def test_chained(five: LocalCluster, tell: Callable[[str], None]) -> None:
    """The leader and one other lose each other: no exchange of leadership, and writes go on at both and all others."""
    leader, between, far, *_ = sorted(
        five.names, key=lambda name: name != five.wait_for_leader(everyone=True)
    )
    ballot = leads(five)[leader]
    names = five.names
    measured = time_outs_to_write(five, names, lambda: five.links.chained(leader, between, far))
    tell(told(f"chained ({leader}-{between}-{far}, {leader} leads)", measured))
    assert max(measured.values()) <= RESOLVED
    assert check_stable(five, far) == leader
    assert leads(five) == {leader: ballot}
    check_healed(five)


def test_chain_of_five(five: LocalCluster, tell: Callable[[str], None]) -> None:
    """All five in a row, the leader at an end: one of the three that still reach a quorum takes over, and stays.

    Nothing is asked of the ends: they reach no quorum, and one may be too far from the leader for the one hop over
    which servers hand on what clients send.
    """
    chain = sorted(five.names, key=lambda name: name != five.wait_for_leader(everyone=True))
    measured = time_outs_to_write(five, chain[1:4], lambda: five.links.chained(*chain))
    tell(told(f"chain of five ({'-'.join(chain)}, {chain[0]} led)", measured))
    assert max(measured.values()) <= RESOLVED
    assert check_stable(five, chain[2]) in chain[1:4]
    check_healed(five)
