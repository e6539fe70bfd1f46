"""Before all initial members have met there is no cluster; and who has lost its directory is not a member any more."""

import time

import grpc
import pytest

from paxos_rsm import Client
from paxos_rsm.errors import DeadlineExceeded, Unavailable
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import client_at
from tests.integration.conftest import NewCluster
from tests.integration.disks import log_on_disk
from tests.integration.processes import check_one_sentence, ended_server
from tests.integration.raw import Calls, RawKv, code_of, details_of
from tests.integration.waiting import eventually, leader_among, same_state, status_now, status_of

ELECTION_TIMEOUT_MS = 200


def test_no_command_before_all_have_met(new_cluster: NewCluster) -> None:
    cluster = new_cluster(options={"election-timeout": ELECTION_TIMEOUT_MS, "heartbeat-interval": 25})
    first = [cluster["n1"], cluster["n2"]]
    for server in first:
        server.start()
    for server in first:
        eventually(lambda server=server: status_of(server), "status")  # type: ignore[misc]
        with RawKv(server.endpoint) as kv:
            with pytest.raises(grpc.RpcError) as refused:
                kv.put(b"k", b"early", timeout_s=10.0)
            assert code_of(refused.value) is grpc.StatusCode.UNAVAILABLE
            assert details_of(refused.value) == "etcdserver: no leader"
        with Client([server.endpoint]) as client:
            with pytest.raises((Unavailable, DeadlineExceeded)):
                client.put("k", "early", timeout_s=0.5)
            with pytest.raises((Unavailable, DeadlineExceeded)):
                client.get("k", timeout_s=0.5)
    time.sleep(
        5 * ELECTION_TIMEOUT_MS / 1000
    )  # not waited for anything: nobody may have stood for election meanwhile
    for server in first:
        with Calls(server.endpoint) as calls:
            assert calls.health() == "NOT_SERVING"
        status = status_now(server)
        assert (status.role, status.leader, status.ballot.round) == ("forming", "", 0)
        assert status.decided_slot == status.applied_slot == 0
    for server in first:
        server.kill()
        assert log_on_disk(server).is_empty
        server.start()

    cluster["n3"].start()
    eventually(lambda: leader_among(cluster), "leader once all have met")
    with client_at(*cluster.endpoints) as client:
        client.put("k", "v")
        assert client.get("k").version == 1, "a write from before the cluster was formed has been executed"


@pytest.fixture(scope="module")
def formed(new_shared_cluster: NewCluster) -> LocalCluster:
    return new_shared_cluster()


def test_a_wiped_directory_is_refused_with_what_to_do(formed: LocalCluster) -> None:
    formed.start()
    leader = formed.wait_for_leader(everyone=True)
    wiped = next(name for name in formed.names if name != leader)
    with client_at(formed[leader].endpoint) as client:
        client.put("kept", "yes")
        formed[wiped].kill()
        formed[wiped].wipe()
        before = formed[wiped].log()
        formed[wiped].start()
        sentence = check_one_sentence(ended_server(formed[wiped], before))
        assert wiped in sentence
        assert "wiped" in sentence
        assert "remove the old member" in sentence
        assert "add this server as a new one" in sentence
        # The others go on as if nothing had happened.
        client.put("kept", "still")
        others = [server for server in formed if server.name != wiped]
        eventually(lambda: leader_among(others), "leader of the other two")
        assert all(len([m for m in status_now(server).members if m.name == wiped]) == 1 for server in others)
        # Again: it is refused again, and not only the first time.
        before = formed[wiped].log()
        formed[wiped].start()
        check_one_sentence(ended_server(formed[wiped], before))


def test_a_leader_that_was_wiped_is_refused_too(new_cluster: NewCluster) -> None:
    cluster = new_cluster()
    cluster.start()
    leader = cluster.wait_for_leader(everyone=True)
    with client_at(*cluster.endpoints) as client:
        for number in range(20):
            client.put(f"k{number}", "v")
        cluster[leader].kill()
        cluster[leader].wipe()
        before = cluster[leader].log()
        cluster[leader].start()
        check_one_sentence(ended_server(cluster[leader], before))
        assert len(client.range(prefix="k")) == 20
        client.put("after", "v")
    others = [server for server in cluster if server.name != leader]
    eventually(lambda: leader_among(others), "leader of the other two")
    eventually(lambda: same_state(cluster), "equal states")
