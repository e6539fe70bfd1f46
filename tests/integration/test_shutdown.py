"""SIGTERM ends a server in order: what is in flight is answered, the exit status is 0. Health and reflection."""

import asyncio
import itertools
import threading

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]

from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import check_written, client_at, writer
from tests.integration.conftest import NewCluster
from tests.integration.load import Load
from tests.integration.raw import Calls, Failed, RawKv, RawSession, StreamEnded, code_of, put_command
from tests.integration.waiting import eventually, leader_among, same_state

SERVICES = {
    "paxos_rsm.v1.Session",
    "paxos_rsm.v1.KV",
    "paxos_rsm.v1.Admin",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}
COMMANDS = 2_000


def count_answers(session: RawSession) -> int:
    """How many commands, from 1 on, are answered before the stream ends."""
    answered = 0
    while True:
        try:
            message = session.receive()
        except Failed:
            continue  # of one frame, which came too late: the results of earlier ones may still follow
        except StreamEnded:
            break
        if message.WhichOneof("message") == "results":
            answered = max(answered, message.results.first_seq + len(message.results.results) - 1)
    return answered


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_sigterm_drains(cluster: LocalCluster, role: str) -> None:
    leader = cluster.wait_for_leader(everyone=True)
    ended = leader if role == "leader" else next(name for name in cluster.names if name != leader)
    others = [server for server in cluster if server.name != ended]
    session = RawSession(cluster[ended].endpoint)
    session.open()
    kv = RawKv(cluster[ended].endpoint)
    kv.put(b"drain/before", role.encode())
    for seq in range(1, COMMANDS + 1):
        session.submit(seq, put_command(b"drain/%s/%d" % (role.encode(), seq), b"v"))
    session.results(1, 1)  # the server has begun with them
    reads = [kv.begin_get(b"drain/before") for _ in range(50)]
    assert reads[0].result().kvs[0].value == role.encode()
    assert cluster[ended].terminate(timeout_s=30) == 0
    answered = count_answers(session)
    # Whatever the server had taken is answered before the stream ends.
    session.cut()
    kv.close()
    assert "Traceback" not in cluster[ended].log()

    eventually(lambda: leader_among(others), "leader of the other two")
    with client_at(others[0].endpoint) as client:
        executed = client.range(prefix=f"drain/{role}/", limit=1).count
    assert executed == answered, (
        f"{executed} commands were executed and {answered} answered: some were in flight"
    )
    cluster.start()
    eventually(lambda: same_state(cluster), "equal states")


def test_every_server_restarted_in_turn_under_load(cluster: LocalCluster) -> None:
    with Load(writer("rolling", cluster.endpoints), pause_s=0.05) as load:
        for server in cluster:
            load.wait_for(20)
            assert server.terminate(timeout_s=30) == 0
            load.wait_for(20)
            server.start()
            cluster.wait_until(lambda: cluster.leader(everyone=True), "leader that all follow")
        load.wait_for(20)
    assert cluster.terminate(timeout_s=30) == {"n1": 0, "n2": 0, "n3": 0}  # and all of them at once
    cluster.start()
    asyncio.run(check_written(cluster["n1"].endpoint, {"rolling": load.of("rolling")}))


def test_health_follows_the_leader(cluster: LocalCluster) -> None:
    leader = cluster.wait_for_leader(everyone=True)
    left = next(server for server in cluster if server.name != leader)
    with Calls(left.endpoint) as calls:
        for service in ("", "paxos_rsm.v1.KV", "paxos_rsm.v1.Session"):
            assert calls.health(service) == "SERVING"
        with pytest.raises(grpc.RpcError) as unknown:
            calls.health("no.such.Service")
        assert code_of(unknown.value) is grpc.StatusCode.NOT_FOUND
        seen: list[str] = []
        watching = threading.Thread(target=watch_health, args=[left.endpoint, seen], daemon=True)
        watching.start()
        eventually(lambda: seen == ["SERVING"], "first word of a watch")
        for server in cluster:
            if server is not left:
                server.kill()
        eventually(lambda: calls.health() == "NOT_SERVING", "NOT_SERVING without a leader")
        cluster.start()
        eventually(lambda: calls.health() == "SERVING", "SERVING with a leader")
        eventually(lambda: "NOT_SERVING" in seen and seen[-1] == "SERVING", "watch that sees it all")
        assert all(one != other for one, other in itertools.pairwise(seen)), seen
        assert left.terminate(timeout_s=30) == 0
        eventually(lambda: seen[-1] == "NOT_SERVING", "word that the server stops")
        watching.join(30)
        assert not watching.is_alive(), "the watch did not end with the server"


def watch_health(endpoint: str, seen: list[str]) -> None:
    """Notes what a Watch of the health service says, until it ends."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

    with grpc.insecure_channel(endpoint) as channel:
        try:
            for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                seen += [health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)]
        except grpc.RpcError:
            return


def test_reflection_lists_the_services(cluster: LocalCluster) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    symbol = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="paxos_rsm.v1.KV"
    ).SerializeToString()
    with Calls(cluster["n1"].endpoint) as calls:
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        answers = [
            reflection_pb2.ServerReflectionResponse.FromString(answer)
            for answer in calls.stream(method, [asked, symbol])
        ]
    assert {service.name for service in answers[0].list_services_response.service} >= SERVICES
    assert answers[1].file_descriptor_response.file_descriptor_proto


def test_a_server_ends_when_its_parent_is_gone(new_cluster: NewCluster) -> None:
    """``--until-stdin-closes``, by which LocalCluster makes sure that nothing outlives it."""
    cluster = new_cluster(size=1)
    cluster.start()
    process = cluster["n1"]._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert cluster["n1"].wait(30) == 0
