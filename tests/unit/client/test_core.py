"""What the views of a client share: where the servers are, and the end."""

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from paxos_rsm import AsyncClient, InvalidArgument, Member, Unavailable
from paxos_rsm._proto import cluster_pb2
from tests.unit.client.conftest import StartServer
from tests.unit.client.fake_server import FakeServer


def listed(server: FakeServer, *urls: str, name: str = "") -> cluster_pb2.ClusterMember:
    return cluster_pb2.ClusterMember(
        ID=server.member_id,
        name=name or server.name,
        peerURLs=["http://127.0.0.1:1"],
        clientURLs=urls or [f"http://{server.endpoint}"],
    )


async def test_members_and_their_endpoints(start_server: StartServer) -> None:
    one, two = await start_server(), await start_server()
    one.member_list.members = [listed(two), listed(one, f"http://{one.endpoint}", "https://127.0.0.1:9")]
    async with AsyncClient(one.endpoint, timeout_s=30) as kv:
        members = await kv.members()
        assert members[0] == Member(
            1, "n1", ("http://127.0.0.1:1",), (f"http://{one.endpoint}", "https://127.0.0.1:9")
        )
        assert [member.name for member in members] == ["n1", "n2"]
        assert kv.endpoints == (one.endpoint,), "to look is not to change"
        assert await kv.refresh_endpoints() == kv.endpoints
        assert set(kv.endpoints) == {one.endpoint, two.endpoint}
        await kv.put("k", "v")
        await one.stop()
        assert (await kv.get("k")).value == b"v", "it knows where to go"


async def test_what_was_given_stays(start_server: StartServer) -> None:
    one = await start_server()
    one.member_list.members = [listed(one, "http://10.255.255.1:2379")]
    async with AsyncClient(one.endpoint, timeout_s=30) as kv:
        assert await kv.refresh_endpoints() == ("10.255.255.1:2379", one.endpoint)
        await kv.put("k", "v")


async def test_endpoints_are_refreshed_with_a_connection(start_server: StartServer) -> None:
    one, two = await start_server(), await start_server()
    one.member_list.members = two.member_list.members = [listed(one), listed(two)]
    async with AsyncClient(one.endpoint, timeout_s=30, refresh_endpoints_s=1000) as kv:
        await kv.put("k", "v")
        refresher = kv._core._refresher
        if refresher is not None:
            await refresher
        assert set(kv.endpoints) == {one.endpoint, two.endpoint}
        one.end_streams()
        two.end_streams()
        await kv.put("k", "v")
        assert one.member_list.asked + two.member_list.asked == 1, "not with every connection"
    with pytest.raises(InvalidArgument, match="refresh_endpoints_s"):
        AsyncClient(one.endpoint, refresh_endpoints_s=-1)


async def test_close_leaves_nothing_behind(server: FakeServer) -> None:
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    loop.set_debug(True)
    tracemalloc.start()
    before = asyncio.all_tasks()
    try:
        kv = AsyncClient(server.endpoint, timeout_s=30)
        watch = kv.watch(prefix="")
        await watch.start()
        lease = await kv.lease(60).grant()
        lock = kv.lock("l", ttl_s=60)
        await lock.acquire()
        waiting = asyncio.create_task(kv.lock("l", ttl_s=60).acquire())
        consumer = asyncio.create_task(kv.watch("nothing").next())
        await server.watch.until(lambda: len(server.watch.creates) == 3)
        await kv.close()
        await kv.close()
        for task in (waiting, consumer):
            with pytest.raises(Unavailable):
                await task
        assert lease.lost.is_set()
        assert not lock.held
        with pytest.raises(Unavailable, match="closed"):
            await kv.put("k", "v")
        del kv, watch, lease, lock, waiting, consumer, task
        gc.collect()
        left = [
            task for task in asyncio.all_tasks() - before if task.get_name().startswith("paxos_rsm client")
        ]
        assert left == []
        assert complaints == []
    finally:
        loop.set_debug(False)
        tracemalloc.stop()


async def test_a_client_that_was_never_used_has_nothing_to_close() -> None:
    kv = AsyncClient("127.0.0.1:1")
    await kv.close()
    with pytest.raises(Unavailable, match="closed"):
        await kv.members()
    with pytest.raises(Unavailable, match="closed"):
        await kv.watch("k").start()
