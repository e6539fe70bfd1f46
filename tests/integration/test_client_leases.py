"""Leases of the client against real servers: they live while the client does, and end when it does not."""

import asyncio
import time

import pytest

from paxos_rsm import AsyncClient, Client, LeaseLost
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.waiting import TIMEOUT_S

TTL_S = 4


def client(cluster: LocalCluster) -> AsyncClient:
    return AsyncClient(cluster.endpoints, timeout_s=TIMEOUT_S)


@LONG[0]
@LONG[1]
async def test_it_lives_on_while_leaders_are_killed(cluster: LocalCluster) -> None:
    async with client(cluster) as kv:
        async with kv.lease(3 * TTL_S) as lease:
            await kv.put("mine", "x", lease=lease)
            began = time.monotonic()
            for _ in range(2):
                leader = await asyncio.to_thread(cluster.wait_for_leader)
                cluster[leader].kill()
                await kv.put("other", "y")
                await asyncio.to_thread(cluster[leader].start)
            while time.monotonic() < began + 4 * TTL_S:
                await asyncio.sleep(0.1)
                lease.check()
            assert await kv.get("mine")
            told = await kv.time_to_live(lease, keys=True)
            assert (told.granted_ttl_s, told.keys) == (3 * TTL_S, (b"mine",))
            assert lease.id in await kv.leases()
        assert not await kv.get("mine")


async def test_it_ends_with_its_client(cluster: LocalCluster) -> None:
    async with client(cluster) as other, other.watch("mine", leave_out="put") as watch:
        kv = client(cluster)
        lease = await kv.lease(TTL_S).grant()
        await kv.put("mine", "x", lease=lease)
        await kv.close()
        assert lease.lost.is_set()
        event = await watch.next(timeout_s=TIMEOUT_S)
        assert event is not None
        assert event.key == b"mine"
        assert await other.keep_alive_once(lease) == 0
        assert not await other.time_to_live(lease)


async def test_one_that_is_cut_off_knows_before_its_key_is_gone(new_cluster: NewCluster) -> None:
    """The client counts from the sending of what was acknowledged, the servers from what they applied."""
    cluster = new_cluster(proxied_clients=True)
    await asyncio.to_thread(cluster.start)
    direct = [server.direct_endpoint for server in cluster]
    async with (
        AsyncClient(direct, timeout_s=TIMEOUT_S) as other,
        other.watch("mine", leave_out="put") as watch,
    ):
        kv = client(cluster)
        lease = await kv.lease(TTL_S).grant()
        await kv.put("mine", "x", lease=lease)
        lost_at: list[float] = []
        lease.when_lost(lambda: lost_at.append(time.monotonic()))
        await asyncio.sleep(TTL_S)
        assert lease.alive, "it was kept alive"
        for name in cluster.names:
            cluster.links.cut("clients", name)
            cluster.links.cut(name, "clients")
        event = await watch.next(timeout_s=TIMEOUT_S)
        gone_at = time.monotonic()
        assert event is not None
        assert lost_at
        assert lost_at[0] <= gone_at
        with pytest.raises(LeaseLost, match="no keep-alive"):
            lease.check()
        cluster.links.heal_all(held="drop")
        await kv.close()


@LONG[0]
@LONG[1]
async def test_for_threads_too(cluster: LocalCluster) -> None:
    def work() -> None:
        with Client(cluster.endpoints, timeout_s=TIMEOUT_S) as kv:
            with kv.lease(TTL_S) as lease:
                kv.put("mine", "x", lease=lease)
                assert 0 < lease.remaining() <= TTL_S
                assert not lease.lost.wait(1.5 * TTL_S)
                kv.revoke(lease)
                assert lease.lost.wait(TIMEOUT_S)
            assert not kv.get("mine")

    await asyncio.to_thread(work)
