"""A range of any size, page by page, at one revision."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paxos_rsm import AsyncClient, Compacted, InvalidArgument, KeyValue, RangeResult, ResourceExhausted
from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client import scan
from paxos_rsm.client.scan import FIRST_LIMIT, Pages, ScanOptions
from tests.unit.client.fake_server import FakeServer

ALL = (b"\0", b"\0")


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


def limits(server: FakeServer) -> list[tuple[int, int]]:
    asked = [pb.KvCommand.FromString(request).range for read in server.reads for request in read.requests]
    return [(request.limit, request.revision) for request in asked]


async def test_every_key_once_at_one_revision(kv: AsyncClient, server: FakeServer) -> None:
    for n in range(300):
        await kv.put(f"k{n:03}", str(n))
    seen = []
    scan = kv.scan(prefix="k")
    assert scan.revision == 0
    async for each in scan:
        seen.append(each.key)
        if len(seen) == 20:
            await kv.delete("k250")
            await kv.put("k2505", "new")
    assert seen == [b"k%03d" % n for n in range(300)]
    assert scan.revision == 301
    assert limits(server) == [(16, 0), (128, 301), (1000, 301)]


async def test_backwards_and_keys_only_and_small_pages(kv: AsyncClient, server: FakeServer) -> None:
    for n in range(30):
        await kv.put(f"k{n:02}", "value")
    found = [each async for each in kv.scan("k05", "k25", descending=True, keys_only=True, page=7)]
    assert [each.key for each in found] == [b"k%02d" % n for n in reversed(range(5, 25))]
    assert {each.value for each in found} == {b""}
    assert [limit for limit, _ in limits(server)] == [7, 7, 7]
    assert [each.key async for each in kv.scan("k07")] == [b"k07"]
    assert [each async for each in kv.scan("nothing")] == []


async def test_at_an_older_revision(kv: AsyncClient) -> None:
    await kv.put("a", "1")
    await kv.put("a", "2")
    assert [each.value async for each in kv.scan(revision=2)] == [b"1"]


async def test_large_values_make_small_pages(kv: AsyncClient, server: FakeServer) -> None:
    for n in range(40):
        await kv.put(f"k{n:02}", b"x" * 60_000)
    assert len([each async for each in kv.scan(prefix="k")]) == 40
    assert [limit for limit, _ in limits(server)] == [16, 8, 8, 8]


async def test_a_stale_beginning_goes_on_at_its_revision(kv: AsyncClient, server: FakeServer) -> None:
    for n in range(20):
        await kv.put(f"k{n:02}", "x")
    assert len([each async for each in kv.scan(serializable=True)]) == 20
    assert [read.serializable for read in server.reads] == [True, False]


async def test_a_revision_that_is_compacted_meanwhile(kv: AsyncClient) -> None:
    for n in range(40):
        await kv.put(f"k{n:02}", "x")
    pages = kv.scan(prefix="k")
    assert len(await pages.next_page()) == FIRST_LIMIT
    await kv.put("k", "y")
    await kv.compact(42)
    with pytest.raises(Compacted, match="has been compacted"):
        await pages.next_page()


async def test_within_a_namespace(kv: AsyncClient) -> None:
    view = kv.namespace("app/")
    for n in range(40):
        await view.put(f"k{n:02}", "x")
    await kv.put("app", "outside")
    await kv.put("app0", "outside")
    assert [each.key async for each in view.scan()] == [b"k%02d" % n for n in range(40)]
    assert [each.key async for each in view.scan("k10", b"\0", descending=True)] == [
        b"k%02d" % n for n in reversed(range(10, 40))
    ]


async def test_no_room_for_a_page_asks_for_less(kv: AsyncClient, server: FakeServer) -> None:
    for n in range(40):
        await kv.put(f"k{n:02}", "x")
    server.read_failures.extend([(8, "too much waits")] * 10_000)
    pages = kv.scan(timeout_s=0.1)
    with pytest.raises(ResourceExhausted, match="too much waits"):
        await pages.next_page()
    server.read_failures.clear()
    await kv.get("k00")  # the session has paused, too
    assert [each.key for each in await pages.next_page()] == [b"k00"]


def page(*keys: bytes, more: bool = True) -> RangeResult:
    return RangeResult(tuple(KeyValue(key, b"", 1, 1, 1) for key in keys), 99, more, 7)


def test_pages_shrink_to_one_key_and_no_further() -> None:
    pages = Pages(ScanOptions(ALL))
    assert [pages.shrink() for _ in range(3)] == [True, True, False]
    assert pages.limit == 1
    pages.took(page(b"a"), b"a", 10)
    assert pages.limit == scan.GROWTH_MAX
    pages.took(page(b"b"), b"b", 10 * scan.PAGE_BYTES)
    assert pages.limit == 1
    pages.took(page(b"c", more=False), b"c", 10)
    assert pages.done


@pytest.mark.parametrize("wrong", [0, -1, "7", True])
def test_pages_that_are_none(wrong: object) -> None:
    with pytest.raises(InvalidArgument, match="page="):
        Pages(ScanOptions(ALL, page=wrong))  # type: ignore[arg-type]
