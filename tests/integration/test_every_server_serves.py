"""Every server takes every request; and any other machine can be served in place of the key-value store.

How fast that is by way of a follower is measured by benchmarks/follower_latency.py.
"""

import grpc
import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import client_at
from tests.integration.conftest import NewCluster
from tests.integration.raw import (
    KV_SERVICES,
    RawKv,
    RawSession,
    code_of,
    details_of,
    put_command,
    value_query,
    value_result,
)
from tests.integration.waiting import eventually, same_state


def test_a_write_at_one_server_is_read_at_every_other_at_once(cluster: LocalCluster) -> None:
    clients = {server.name: client_at(server.endpoint) for server in cluster}
    try:
        for round_number in range(10):
            for name, client in clients.items():
                value = f"{name} in round {round_number}".encode()
                client.put("serves/key", value)
                for other, reader in clients.items():
                    assert reader.get("serves/key").value == value, (
                        f"{other} read what was there before {name} wrote"
                    )
    finally:
        for client in clients.values():
            client.close()


@pytest.mark.parametrize("service", KV_SERVICES)
def test_unary_calls_are_served_everywhere_under_both_names(cluster: LocalCluster, service: str) -> None:
    calls = {server.name: RawKv(server.endpoint, service) for server in cluster}
    try:
        for name, kv in calls.items():
            revision = kv.put(b"serves/unary", name.encode()).header.revision
            for other in calls.values():
                answer = other.get(b"serves/unary")
                assert [found.value for found in answer.kvs] == [name.encode()]
                assert answer.kvs[0].mod_revision == revision
                assert answer.header.revision >= revision
                assert answer.header.cluster_id == calls["n1"].get(b"x").header.cluster_id
                assert answer.header.raft_term >= 1
        assert len({kv.get(b"serves/unary").header.member_id for kv in calls.values()}) == len(calls)
    finally:
        for kv in calls.values():
            kv.close()


def test_commands_of_one_session_take_effect_in_order_at_every_server(cluster: LocalCluster) -> None:
    count = 200
    for server in cluster:
        key = f"order/{server.name}".encode()
        with client_at(server.endpoint) as client:
            client.put(key, b"")
        with RawSession(server.endpoint) as session:
            session.open()
            for number in range(1, count + 1):
                session.submit(number, put_command(key, b"%d" % number))
            session.results(1, count)
            session.read(value_query(key))
            assert value_result(session.read_results().results[0]) == b"%d" % count


def test_any_other_machine_is_served_by_three_processes(new_cluster: NewCluster) -> None:
    cluster = new_cluster(machine="examples.counter:Counter")
    cluster.start()
    clients = [client_at(server.endpoint) for server in cluster]
    try:
        total = 0
        for _ in range(5):
            for client in clients:
                total += 7
                assert client.submit(b"7") == b"%d" % total
                assert [reader.query(b"") for reader in clients] == [b"%d" % total] * 3
        assert b"error" in clients[0].submit(b"seven")
        assert clients[1].query(b"") == b"%d" % total
    finally:
        for client in clients:
            client.close()
    eventually(lambda: same_state(cluster), "equal states")
    # The key-value service says why it does not serve, rather than that it does not exist.
    with RawKv(cluster["n1"].endpoint) as kv, pytest.raises(grpc.RpcError) as refused:
        kv.put(b"k", b"v")
    assert code_of(refused.value) is grpc.StatusCode.UNIMPLEMENTED
    assert "examples.counter:Counter" in details_of(refused.value)
