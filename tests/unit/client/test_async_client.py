"""What a user calls, against a store with etcd's rules of revisions."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from paxos_rsm import (
    AsyncClient,
    Compare,
    GetResult,
    InvalidArgument,
    KeyValue,
    Op,
    OutOfRange,
    PutResult,
    Unavailable,
)
from paxos_rsm.client.async_client import IN_FLIGHT_MAX
from paxos_rsm.errors import ClientError
from tests.unit.client.conftest import StartServer
from tests.unit.client.fake_server import FakeCluster, FakeServer


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


async def test_put_and_get(kv: AsyncClient) -> None:
    assert await kv.put("k", "grüße") == PutResult(2)
    found = await kv.get("k")
    assert (found.key, found.value) == (b"k", "grüße".encode())
    assert (found.version, found.create_revision, found.mod_revision, found.revision) == (1, 2, 2, 2)
    assert (found.applied_slot, found.leader_age_ms) == (2, 3)
    replaced = await kv.put(b"k", b"\xff", prev_kv=True)
    assert replaced == PutResult(3, KeyValue(b"k", "grüße".encode(), 1, 2, 2))
    assert await kv.put("other", "", prev_kv=True) == PutResult(4, None)


async def test_get_is_always_an_object(kv: AsyncClient) -> None:
    missing = await kv.get("k")
    assert missing == GetResult(b"k", None, 0, 0, 0, 1, 0, 3)
    assert not missing
    await kv.put("k", "")
    assert (await kv.get("k")).value == b""
    assert await kv.get("k")


async def test_a_stale_read_says_how_stale(kv: AsyncClient, server: FakeServer) -> None:
    await kv.put("k", "v")
    found = await kv.get("k", serializable=True)
    assert (found.applied_slot, found.leader_age_ms) == (2, 3)
    listed = await kv.range(prefix="k", serializable=True)
    assert (listed.applied_slot, listed.leader_age_ms) == (2, 3)
    assert [read.serializable for read in server.reads] == [True, True]


async def test_range(kv: AsyncClient) -> None:
    for name in ("a1", "a2", "a3", "b1"):
        await kv.put(name, name.upper())
    assert [each.key for each in await kv.range(prefix="a")] == [b"a1", b"a2", b"a3"]
    assert [each.key for each in await kv.range("a2", "b1")] == [b"a2", b"a3"]
    assert [each.value for each in await kv.range("a2")] == [b"A2"]
    assert len(await kv.range()) == 4
    assert len(await kv.range("a2", b"\0")) == 3
    first = await kv.range(prefix="a", limit=2)
    assert (len(first), first.count, first.more, first.revision) == (2, 3, True, 5)
    assert [each.key for each in await kv.range(prefix="a", limit=1, descending=True)] == [b"a3"]
    assert [each.value for each in await kv.range(prefix="a", keys_only=True)] == [b""] * 3
    counted = await kv.range(prefix="a", count_only=True)
    assert (counted.count, len(counted)) == (3, 0)
    assert not counted.kvs


async def test_delete(kv: AsyncClient) -> None:
    for name in ("a1", "a2", "b1", "b2"):
        await kv.put(name, "x")
    assert await kv.delete("a1") == 1
    assert await kv.delete("a1") == 0
    assert await kv.delete("b1", "b2") == 1
    assert await kv.delete(prefix="a") == 1
    with pytest.raises(InvalidArgument, match="prefix=''"):
        await kv.delete()
    assert await kv.delete(prefix="") == 1


async def test_what_was_deleted(kv: AsyncClient) -> None:
    await kv.put("a1", "1")
    await kv.put("a2", "2")
    gone = await kv.delete(prefix="a", prev_kv=True)
    assert gone == gone.deleted == 2
    assert gone.revision == 4
    assert [(each.key, each.value) for each in gone.prev_kvs] == [(b"a1", b"1"), (b"a2", b"2")]
    assert (await kv.delete("a1")).prev_kvs == ()


async def test_ranges_by_revision(kv: AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await kv.put(name, "1")  # created at 2, 3, 4
    await kv.put("a", "2")  # modified at 5
    assert [each.key for each in await kv.range(min_mod_revision=4)] == [b"a", b"c"]
    assert [each.key for each in await kv.range(max_mod_revision=3)] == [b"b"]
    assert [each.key for each in await kv.range(min_create_revision=3)] == [b"b", b"c"]
    assert [each.key for each in await kv.range(max_create_revision=2)] == [b"a"]


async def test_a_transaction_in_words(kv: AsyncClient) -> None:
    done = await kv.txn().when(Compare.missing("k")).then(Op.put("k", "v")).otherwise(Op.get("k")).commit()
    assert done
    again = await kv.txn().when(Compare.missing("k")).then(Op.put("k", "v")).otherwise(Op.get("k")).commit()
    assert not again
    (got,) = again.responses
    assert isinstance(got, GetResult)
    assert got.value == b"v"


async def test_compare_and_swap(kv: AsyncClient) -> None:
    assert await kv.compare_and_swap("k", None, "one")
    assert not await kv.compare_and_swap("k", None, "two")
    assert not await kv.compare_and_swap("k", "other", "two")
    assert await kv.compare_and_swap("k", "one", "two")
    assert (await kv.get("k")).value == b"two"


async def test_many_swaps_at_once_lose_none(kv: AsyncClient) -> None:
    await kv.put("n", "0")

    async def increment() -> None:
        while True:
            now = (await kv.get("n")).value
            if now is not None and await kv.compare_and_swap("n", now, str(int(now) + 1)):
                return

    await asyncio.gather(*(increment() for _ in range(20)))
    assert (await kv.get("n")).value == b"20"


async def test_txn(kv: AsyncClient, cluster: FakeCluster) -> None:
    await kv.put("job", "mine")
    done = await kv.txn(
        [Compare.value("job", "==", "mine"), Compare.missing("lock")],
        [Op.put("lock", "me"), Op.get("job"), Op.delete("job")],
        [Op.get("lock")],
    )
    assert done.succeeded
    assert done.revision == 3
    put, got, count = done.responses
    assert isinstance(put, PutResult)
    assert isinstance(got, GetResult)
    assert got.value == b"mine"
    assert count == 1
    executed = len(cluster.executed)
    seen = await kv.txn([Compare.exists("job")], [], [Op.range(prefix="lo")])
    assert not seen
    assert len(cluster.executed) == executed, "it only reads, so it does not go through the log"


async def test_revisions_out_of_range_and_compaction(kv: AsyncClient) -> None:
    await kv.put("k", "v")
    with pytest.raises(OutOfRange, match=r"^etcdserver: mvcc: required revision is a future revision$"):
        await kv.get("k", revision=99)
    await kv.compact(2)
    with pytest.raises(OutOfRange, match=r"^etcdserver: mvcc: required revision has been compacted$"):
        await kv.compact(2)


async def test_what_the_store_refuses(kv: AsyncClient) -> None:
    with pytest.raises(InvalidArgument, match=r"^etcdserver: key is not provided$"):
        await kv.put("", "v")
    assert (await kv.put("k", "v")).revision == 2


async def test_another_state_machine(kv: AsyncClient, cluster: FakeCluster) -> None:
    assert await kv.submit(b"raw:x") == b"1 raw:x"
    assert await kv.query(b"raw:") == b"1"
    assert await kv.query(b"raw:", serializable=True) == b"1"
    with pytest.raises(InvalidArgument, match="bytes, not str"):
        await kv.submit("raw:x")  # type: ignore[arg-type]
    cluster.store.apply = lambda command: b"17"  # type: ignore[method-assign]
    with pytest.raises(ClientError, match="another state machine"):
        await kv.put("k", "v")


async def test_ten_thousand_puts_at_once(kv: AsyncClient, server: FakeServer, cluster: FakeCluster) -> None:
    done = await asyncio.gather(*(kv.put(f"k{n}", b"x") for n in range(10_000)))
    assert [each.revision for each in done] == list(range(2, 10_002))
    assert len(server.frames) <= 60, "pipelined, in full frames"
    assert len(cluster.executed) == 10_000


async def test_calls_take_effect_in_the_order_they_were_made(kv: AsyncClient) -> None:
    async with asyncio.TaskGroup() as group:
        for n in range(500):
            group.create_task(kv.put("k", str(n)))
    assert (await kv.get("k")).value == b"499"


async def test_a_time_out_of_asyncio_takes_nothing_with_it(kv: AsyncClient, server: FakeServer) -> None:
    await kv.put("k", "1")
    server.working.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await kv.put("k", "2")
    server.working.set()
    assert (await kv.put("k", "3", prev_kv=True)).revision in (3, 4)


async def test_time_outs_of_a_call_and_of_the_client(server: FakeServer) -> None:
    server.working.clear()
    async with AsyncClient(server.endpoint, timeout_s=0.1) as kv:
        loop = asyncio.get_running_loop()
        call = asyncio.create_task(kv.put("k", "v", timeout_s=30))
        began = loop.time()
        with pytest.raises(ClientError):
            await kv.get("k")
        assert loop.time() - began < 20
        assert not call.done()
        server.working.set()
        assert (await call).revision == 2


async def test_no_limit(kv: AsyncClient) -> None:
    assert (await kv.put("k", "v", timeout_s=math.inf)).revision == 2


@pytest.mark.parametrize("timeout_s", [0, -1, math.nan, "5"])
async def test_time_outs_that_are_none(kv: AsyncClient, timeout_s: Any) -> None:
    with pytest.raises(InvalidArgument, match="timeout_s="):
        await kv.get("k", timeout_s=timeout_s)
    with pytest.raises(InvalidArgument, match="timeout_s="):
        AsyncClient("a:1", timeout_s=timeout_s)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoints": ""},
        {"endpoints": []},
        {"endpoints": "nowhere"},
        {"endpoints": "https://a:1"},
        {"in_flight_max": 0},
        {"in_flight_max": IN_FLIGHT_MAX + 1},
        {"cluster_id": -1},
        {"cluster_id": 2**64},
        {"session_timeout_s": 0},
        {"session_timeout_s": -1.0},
        {"session_timeout_s": 2.0**32},
    ],
)
def test_arguments_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        AsyncClient(**({"endpoints": "a:1"} | wrong))


async def test_the_session_time_out_is_asked_for(server: FakeServer, cluster: FakeCluster) -> None:
    async with AsyncClient(server.endpoint, session_timeout_s=12.5) as kv:
        await kv.put("k", "v")
    assert cluster.session_timeouts_ms == [12_500]


async def test_a_closed_client_says_so(server: FakeServer) -> None:
    kv = AsyncClient(server.endpoint)
    await kv.put("k", "v")
    await kv.close()
    await kv.close()
    with pytest.raises(Unavailable, match="closed"):
        await kv.get("k")


async def test_failover_is_nothing_that_a_user_sees(start_server: StartServer, cluster: FakeCluster) -> None:
    servers = [await start_server() for _ in range(3)]
    async with AsyncClient([server.endpoint for server in servers], timeout_s=30) as kv:
        for n in range(12):
            await kv.put("k", str(n))
            if n % 3 == 2:
                busy = next(server for server in servers if server._ends)
                await busy.stop()
                await busy.start()
        assert (await kv.get("k")).version == 12
    assert len(cluster.sessions) == 1


async def test_status(kv: AsyncClient) -> None:
    (row,) = await kv.status()
    assert (row.name, row.role, row.error) == ("n1", "follower", "")
