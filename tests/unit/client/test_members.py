import socket

import pytest

from paxos_rsm._proto import admin_pb2 as pb
from paxos_rsm.client.members import ask_members
from tests.unit.client.conftest import StartServer
from tests.unit.client.fake_server import FakeCluster, FakeServer

LONG_S = 30.0


def member(server: FakeServer, *urls: str) -> pb.MemberStatus:
    return pb.MemberStatus(
        member_id=server.member_id, name=server.name, client_urls=urls or [f"http://{server.endpoint}"]
    )


async def three(start_server: StartServer) -> list[FakeServer]:
    servers = [await start_server() for _ in range(3)]
    for server in servers:
        server.members = [member(each) for each in servers]
    return servers


async def test_every_member_is_listed_by_name(start_server: StartServer) -> None:
    servers = await three(start_server)
    rows = await ask_members([server.endpoint for server in reversed(servers)], LONG_S)
    assert [(row.name, row.member_id, row.endpoint, row.error) for row in rows] == [
        (server.name, server.member_id, server.endpoint, "") for server in servers
    ]
    assert {row.leader for row in rows} == {"n1"}
    assert {row.cluster_id for row in rows} == {7}


async def test_one_endpoint_is_enough_to_see_them_all(start_server: StartServer) -> None:
    servers = await three(start_server)
    rows = await ask_members([servers[1].endpoint], LONG_S)
    assert [row.name for row in rows] == ["n1", "n2", "n3"]
    assert not any(row.error for row in rows)


@pytest.mark.parametrize("asked", [[0], [0, 1], [0, 1, 2], [2, 1, 0]])
async def test_who_does_not_answer_is_listed_with_the_reason(
    start_server: StartServer, asked: list[int]
) -> None:
    servers = await three(start_server)
    await servers[1].stop()
    rows = await ask_members([servers[n].endpoint for n in asked], LONG_S)
    assert [(row.name, row.member_id) for row in rows] == [("n1", 1), ("n3", 3), ("n2", 2)]
    silent = rows[-1]
    assert silent.error.startswith("UNAVAILABLE")
    assert (silent.endpoint, silent.role) == (servers[1].endpoint, "")


async def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        rows = await ask_members([f"127.0.0.1:{port}"], LONG_S)
    assert [(row.name, row.member_id, row.endpoint) for row in rows] == [("", 0, f"127.0.0.1:{port}")]
    assert "UNAVAILABLE" in rows[0].error


async def test_who_takes_too_long_is_given_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        rows = await ask_members([f"127.0.0.1:{deaf.getsockname()[1]}"], 0.2)
    assert rows[0].error == "no answer within 0.2 s"


async def test_a_member_at_two_addresses_is_one_row(start_server: StartServer) -> None:
    server = await start_server()
    other = f"localhost:{server.port}"
    server.members = [member(server, f"http://{server.endpoint}", f"http://{other}")]
    rows = await ask_members([server.endpoint, other], LONG_S)
    assert [(row.name, row.endpoint) for row in rows] == [("n1", server.endpoint)]


async def test_a_silent_member_with_two_addresses_is_one_row(start_server: StartServer) -> None:
    servers = await three(start_server)
    await servers[1].stop()
    urls = (f"http://{servers[1].endpoint}", f"http://localhost:{servers[1].port}")
    servers[0].members = [member(servers[0]), member(servers[1], *urls)]
    rows = await ask_members([servers[0].endpoint], LONG_S)
    assert [(row.name, bool(row.error)) for row in rows] == [("n1", False), ("n2", True)]


async def test_a_member_that_cannot_be_asked_is_listed_too(
    start_server: StartServer, cluster: FakeCluster
) -> None:
    server = await start_server()
    server.members = [
        member(server),
        pb.MemberStatus(member_id=2, name="n2"),
        pb.MemberStatus(member_id=3, name="n3", client_urls=["https://10.0.0.1:2379"]),
    ]
    rows = await ask_members([server.endpoint], LONG_S)
    assert [(row.name, row.endpoint) for row in rows] == [("n1", server.endpoint), ("n2", ""), ("n3", "")]
    assert all("no client URL" in row.error for row in rows[1:])


async def test_what_is_no_status_is_said_to_be_none(server: FakeServer) -> None:
    async def nonsense(request: bytes, context: object) -> bytes:
        return b"\xff\xff"

    await server.stop()
    server._status = nonsense  # type: ignore[method-assign]
    await server.start()
    rows = await ask_members([server.endpoint], LONG_S)
    assert "no paxos_rsm server" in rows[0].error
