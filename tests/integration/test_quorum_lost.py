"""With a minority down everything goes on. With a majority down nothing is acknowledged, and that is said clearly.

A command that ran into its deadline meanwhile has been executed once or not at all when the majority is back, and
the error that its client got says which of these it could be.
"""

import asyncio
import time

import grpc
import pytest

from paxos_rsm.errors import DeadlineExceeded, Unavailable, UnknownOutcome
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import check_written, client_at, writer
from tests.integration.load import Load
from tests.integration.raw import (
    KV_SERVICES,
    Failed,
    RawKv,
    RawSession,
    StreamEnded,
    code_of,
    details_of,
    value_query,
)
from tests.integration.waiting import eventually, same_state, status_of

DEADLINE_S = 1.0
SLACK_S = 10.0
"""For a busy machine: far more than an answer takes, far less than waiting for a majority would."""

NO_LEADER = "etcdserver: no leader"
"""etcd's words, which its clients compare."""


def survivors(cluster: LocalCluster, role: str) -> tuple[str, list[str]]:
    """The one that is to stay (``leader`` or ``follower``), and the others."""
    leader = cluster.wait_for_leader(everyone=True)
    stays = leader if role == "leader" else next(name for name in cluster.names if name != leader)
    return stays, [name for name in cluster.names if name != stays]


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_minority_down_is_not_noticed(cluster: LocalCluster, role: str) -> None:
    down, up = survivors(cluster, role)
    cluster[down].kill()
    with client_at(*(cluster[name].endpoint for name in up)) as client:
        for number in range(50):
            client.put(f"minority/{role}/{number}", str(number))
        assert len(client.range(prefix=f"minority/{role}/")) == 50
    cluster.start()
    with client_at(cluster[down].endpoint) as client:
        assert len(client.range(prefix=f"minority/{role}/")) == 50


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_majority_down_acknowledges_nothing(cluster: LocalCluster, role: str) -> None:
    left, down = survivors(cluster, role)
    endpoint = cluster[left].endpoint
    key = f"majority/{role}"
    with client_at(endpoint) as client:
        client.put(f"{key}/before", "kept")
        for name in down:
            cluster[name].kill()
        began = time.monotonic()
        with pytest.raises((UnknownOutcome, Unavailable, DeadlineExceeded)) as told:
            client.put(key, "once", timeout_s=DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S + SLACK_S
        assert str(told.value)

        eventually(
            lambda: (status := status_of(cluster[left])) and not status.leader, "server without a leader"
        )
        check_refusals(endpoint, key)
        check_stale_read(endpoint, f"{key}/before")

        cluster.start()
        # The client's session goes on, in order: what was numbered before the next command is executed before it.
        client.put(f"{key}/after", "kept")
        found = client.get(key)
        assert found.version == (1 if isinstance(told.value, UnknownOutcome) else 0), told.value
        assert client.get(f"{key}/before").value == client.get(f"{key}/after").value == b"kept"
    eventually(lambda: same_state(cluster), "equal states")


def check_refusals(endpoint: str, key: str) -> None:
    """A server without a leader answers every kind of request with a clear error, before the deadline."""
    services = [RawKv(endpoint, service) for service in KV_SERVICES]
    # All at once: each waits a little, for an election that might be under way.
    calls = [
        call for kv in services for call in (kv.begin_put(key.encode(), b"no"), kv.begin_get(key.encode()))
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as refused:
            call.result()
        assert code_of(refused.value) is grpc.StatusCode.UNAVAILABLE
        assert details_of(refused.value) == NO_LEADER
    for kv in services:
        kv.close()
    with RawSession(endpoint) as session:
        with pytest.raises(Failed) as told:
            session.open()
        assert told.value.failure.code == grpc.StatusCode.UNAVAILABLE.value[0]
        with pytest.raises(StreamEnded) as ended:
            session.receive()
        assert ended.value.code is grpc.StatusCode.UNAVAILABLE
    with client_at(endpoint) as client:
        began = time.monotonic()
        with pytest.raises((Unavailable, DeadlineExceeded)):
            client.get(key, timeout_s=DEADLINE_S)
        # A session that cannot even be opened has numbered nothing: this error promises that nothing was executed.
        with pytest.raises((Unavailable, DeadlineExceeded)):
            client.put(key, "no", timeout_s=DEADLINE_S)
        assert time.monotonic() - began < 2 * DEADLINE_S + SLACK_S


def check_stale_read(endpoint: str, key: str) -> None:
    """A serializable read is answered without a majority, and says how old the last word of a leader is."""
    with client_at(endpoint) as client:
        assert client.get(key, serializable=True).value == b"kept"
    with RawSession(endpoint) as session:
        ages = []
        for _ in range(2):
            session.read(value_query(key.encode()), serializable=True)
            answer = session.read_results()
            assert not answer.HasField("failure")
            assert answer.applied_slot > 0
            ages.append(answer.leader_age_ms)
            time.sleep(0.2)  # not waited for anything: the age is to grow by it
        assert ages[1] == 2**32 - 1 or ages[1] > ages[0] > 0, ages


def test_nothing_is_acknowledged_while_a_majority_is_down(cluster: LocalCluster) -> None:
    left, down = survivors(cluster, "leader")
    with Load(writer("load", cluster.endpoints), pause_s=0.05) as load:
        load.wait_for(50)
        for name in down:
            cluster[name].kill()
        eventually(
            lambda: (status := status_of(cluster[left])) and not status.leader, "server without a leader"
        )
        count = len(load.acknowledged)
        time.sleep(1.0)  # not waited for anything: it is what must not happen meanwhile that counts
        assert len(load.acknowledged) == count
        cluster.start()
        load.wait_for(50)
    asyncio.run(check_written(cluster[left].endpoint, {"load": load.of("load")}))
