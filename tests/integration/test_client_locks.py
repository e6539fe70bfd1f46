"""Locks and elections while leaders are killed: never two holders by fencing token, nothing left behind."""

import asyncio
import time
from collections.abc import Callable

from paxos_rsm import AsyncClient, ClientError, Compare, LeaseLost, Op
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.kills import LONG
from tests.integration.waiting import TIMEOUT_S

CONTENDERS = 12
TURNS = 3
KILLS = 2
TTL_S = 10


def client(cluster: LocalCluster) -> AsyncClient:
    return AsyncClient(cluster.endpoints, timeout_s=TIMEOUT_S)


async def kill_leaders(cluster: LocalCluster, times: int) -> None:
    for _ in range(times):
        leader = await asyncio.to_thread(cluster.wait_for_leader)
        cluster[leader].kill()
        await asyncio.sleep(1.0)
        await asyncio.to_thread(cluster[leader].start)
        await asyncio.sleep(1.0)


@LONG[0]
@LONG[1]
async def test_contenders_while_leaders_are_killed(cluster: LocalCluster) -> None:
    """Each holder writes, fenced by its own key: an overlap would be a write that was fenced off, or out of order."""
    inside = 0
    turns = 0

    async def contend(number: int) -> None:
        nonlocal inside, turns
        async with client(cluster) as kv:
            done = 0
            while done < TURNS:
                try:
                    async with kv.lock("locks/one", ttl_s=TTL_S) as lock:
                        inside += 1
                        alone = inside
                        token = lock.fencing_token
                        written = await kv.txn(
                            [Compare.create_revision(lock.key, "==", token)],
                            [Op.put("guarded", str(token)), Op.get("guarded")],
                        )
                        inside -= 1
                        if lock.held:
                            assert alone == 1, "two held it at once"
                            assert written, "it was held and its key was gone"
                            done += 1
                            turns += 1
                except LeaseLost:
                    continue  # an outage was longer than the lease

    async with client(cluster) as kv:
        async with kv.watch("guarded") as watch:
            killing = asyncio.create_task(kill_leaders(cluster, KILLS))
            await asyncio.gather(*(contend(number) for number in range(CONTENDERS)))
            await killing
            tokens: list[int] = []
            while len(tokens) < turns:
                event = await watch.next(timeout_s=TIMEOUT_S)
                assert event is not None
                tokens.append(int(event.value))
        assert tokens == sorted(set(tokens)), "whoever came later has the higher token"
        assert len(await kv.range(prefix="locks/")) == 0
        assert await kv.leases() == []


async def test_a_holder_that_dies_frees_it_within_its_lease(
    cluster: LocalCluster, tell: Callable[[str], None]
) -> None:
    async with client(cluster) as kv:
        dead = client(cluster)
        token = await dead.lock("locks/dead", ttl_s=2).acquire()
        waiting = asyncio.create_task(kv.lock("locks/dead", ttl_s=TTL_S).acquire())
        async with kv.watch(prefix="locks/dead/") as watch:
            while len(await kv.range(prefix="locks/dead/")) < 2:
                await watch.next(timeout_s=TIMEOUT_S)
        await dead.close()  # its lease is not revoked
        began = time.monotonic()
        async with asyncio.timeout(TIMEOUT_S):
            assert await waiting > token
        tell(f"a lock of 2 s was free {time.monotonic() - began:.1f} s after its holder died")


async def test_a_new_leader_is_elected_and_observed(cluster: LocalCluster) -> None:
    async with client(cluster) as kv:
        seen: list[bytes] = []

        async def observe() -> None:
            async for leader in kv.election("elections/e").observe():
                seen.append(leader.value)
                if leader.value == b"two":
                    return

        observer = asyncio.create_task(observe())
        async with client(cluster) as first, client(cluster) as second:
            one, two = first.election("elections/e", ttl_s=TTL_S), second.election("elections/e", ttl_s=TTL_S)
            await one.campaign("one")
            campaign = asyncio.create_task(two.campaign("two"))
            await kill_leaders(cluster, 1)
            assert one.leads
            await one.proclaim("one, still")
            async with asyncio.timeout(TIMEOUT_S):
                while b"one, still" not in seen:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await one.resign()
            await campaign
            await asyncio.wait_for(observer, TIMEOUT_S)
            await two.resign()
    assert seen == [b"one", b"one, still", b"two"]


async def test_cancelled_acquires_leave_nothing(cluster: LocalCluster) -> None:
    async with client(cluster) as kv, kv.lock("locks/busy", ttl_s=TTL_S):
        tasks = [asyncio.create_task(kv.lock("locks/busy", ttl_s=TTL_S).acquire()) for _ in range(20)]
        for delay, task in enumerate(tasks):
            await asyncio.sleep(0.003 * delay)
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError | ClientError) for each in done)

        # One that is cancelled does not wait until its lease is revoked: that is on its way when it returns.
        async def left() -> tuple[int, int]:
            return len(await kv.range(prefix="locks/busy/")), len(await kv.leases())

        async with asyncio.timeout(60):
            while await left() != (1, 1):  # noqa: ASYNC110 (nothing announces it)
                await asyncio.sleep(0.05)
