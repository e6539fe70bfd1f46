"""Calls beside the session go to whichever server answers."""

import asyncio
import random

import grpc
import pytest

from paxos_rsm._proto import lease_pb2 as pb
from paxos_rsm.client.calls import Calls
from paxos_rsm.errors import ClientError, InvalidArgument, Unavailable
from tests.unit.client.calls import LONG_S
from tests.unit.client.conftest import StartServer
from tests.unit.client.fake_server import FakeServer

METHOD = "/paxos_rsm.v1.Lease/LeaseLeases"


def calls(*servers: FakeServer) -> Calls:
    made = Calls([server.endpoint for server in servers], random.Random(1))
    made.ring._order = [server.endpoint for server in servers]
    return made


async def ask(asked: Calls, method: str = METHOD, timeout_s: float = LONG_S) -> pb.LeaseLeasesResponse:
    return await asked.ask(method, pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse, timeout_s)


async def test_the_next_server_is_asked_where_one_is_down(start_server: StartServer) -> None:
    one, two = await start_server(), await start_server()
    await one.stop()
    asked = calls(one, two)
    assert await ask(asked) == pb.LeaseLeasesResponse()
    assert asked.ring.current == two.endpoint, "and it is asked first from then on"


async def test_a_server_that_does_not_answer_is_left_after_a_while(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start_server(), await start_server()

    async def never(data: bytes, context: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr(one.leases, "leases", never)
    await one.stop()
    await one.start()
    monkeypatch.setattr("paxos_rsm.client.calls.ATTEMPT_S", 0.1)
    await ask(calls(one, two))
    with pytest.raises(
        Unavailable, match=r"no server answered within 0\.3 s; the last one tried: .*DEADLINE"
    ):
        await ask(calls(one), timeout_s=0.3)


async def test_what_a_server_says_is_raised(server: FakeServer) -> None:
    with pytest.raises(InvalidArgument, match=r"does not offer /paxos_rsm\.v1\.Lease/Nothing"):
        await ask(calls(server), "/paxos_rsm.v1.Lease/Nothing")

    async def refuse(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "a bug")

    server.leases.leases = refuse  # type: ignore[method-assign]
    await server.stop()
    await server.start()
    with pytest.raises(ClientError, match="a bug"):
        await ask(calls(server))


async def test_an_answer_that_is_none_is_an_error(server: FakeServer) -> None:
    async def garble(data: bytes, context: object) -> bytes:
        return b"\xff" * 3

    server.leases.leases = garble  # type: ignore[method-assign]
    await server.stop()
    await server.start()
    with pytest.raises(ClientError, match="a server sent 3 bytes that are no LeaseLeasesResponse"):
        await ask(calls(server))


async def test_close_ends_what_is_asked(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    began = asyncio.Event()

    async def never(data: bytes, context: object) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr(server.leases, "leases", never)
    await server.stop()
    await server.start()
    asked = calls(server)
    task = asyncio.create_task(ask(asked))
    await asyncio.wait_for(began.wait(), 20)
    await asked.close()
    with pytest.raises(Unavailable, match="closed"):
        await task
    with pytest.raises(Unavailable, match="closed"):
        await ask(asked)
