"""A view sees its own keys only, and gives them the names that it knows."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paxos_rsm import AsyncClient, Client, Compare, GetResult, InvalidArgument, Op, RangeResult, TxnResult
from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.namespace import ROOT, Namespace
from tests.unit.client.fake_server import FakeServer
from tests.unit.client.test_client import in_thread


@pytest_asyncio.fixture
async def kv(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, timeout_s=30) as kv:
        yield kv


async def names(kv: AsyncClient) -> list[bytes]:
    return [each.key for each in await kv.range()]


async def test_keys_go_out_and_come_back(kv: AsyncClient) -> None:
    view = kv.namespace("app/")
    await kv.put("app", "outside")
    await kv.put("app/", "nobody's")
    await kv.put("app0", "outside")
    await view.put("a", "1")
    replaced = await view.put("a", "2", prev_kv=True)
    assert replaced.prev is not None
    assert (replaced.prev.key, replaced.prev.value) == (b"a", b"1")
    assert (await view.get("a")).key == b"a"
    assert (await kv.get("app/a")).value == b"2"
    await view.put("b", "3")
    await view.put("c", "4")
    assert await names(view) == [b"a", b"b", b"c"]
    assert [each.key for each in await view.range(prefix="")] == [b"a", b"b", b"c"]
    assert [each.key for each in await view.range("b", b"\0")] == [b"b", b"c"]
    assert [each.key for each in await view.range("a", "c")] == [b"a", b"b"]
    assert [each.key for each in await view.range(prefix="b")] == [b"b"]
    gone = await view.delete("b", b"\0", prev_kv=True)
    assert [each.key for each in gone.prev_kvs] == [b"b", b"c"]
    assert await view.delete(prefix="") == 1
    assert await names(kv) == [b"app", b"app/", b"app0"]


async def test_a_prefix_that_ends_with_the_highest_byte(kv: AsyncClient) -> None:
    view = kv.namespace(b"a\xff")
    await kv.put("b", "outside")
    await view.put(b"\xff", "1")
    assert await names(view) == [b"\xff"]
    edge = kv.namespace(b"\xff")
    await edge.put("k", "2")
    assert await names(edge) == [b"k"]


async def test_views_within_views(kv: AsyncClient) -> None:
    inner = kv.namespace("a/").namespace("b/")
    await inner.put("k", "v")
    assert await names(kv) == [b"a/b/k"]
    assert await names(kv.namespace("a/")) == [b"b/k"]
    assert await inner.compare_and_swap("k", "v", "w")
    assert not await inner.compare_and_swap("k", None, "w")


async def test_transactions_to_any_depth(kv: AsyncClient) -> None:
    view = kv.namespace("app/")
    await kv.put("k", "not this one")
    await view.put("k", "1")
    done = await view.txn(
        [Compare.value("k", "==", "1"), Compare.exists("k")],
        [
            Op.get("k"),
            Op.txn([Compare.missing("x")], [Op.put("x", "2"), Op.range(prefix="")], []),
            Op.delete("k", prev_kv=True),
        ],
    )
    got, inner, gone = done.responses
    assert isinstance(got, GetResult)
    assert (got.key, got.value) == (b"k", b"1")
    assert isinstance(inner, TxnResult)
    assert inner
    found = inner.responses[1]
    assert isinstance(found, RangeResult)
    assert [each.key for each in found] == [b"k", b"x"]
    assert gone == 1
    assert await names(kv) == [b"app/x", b"k"]
    assert await view.txn([Compare.value("x", "==", "2").for_prefix()], [Op.get("x")])


async def test_keys_of_leases(kv: AsyncClient) -> None:
    view = kv.namespace("app/")
    lease = await kv.grant(60)
    await kv.put("outside", "", lease=lease)
    await kv.put("app/", "", lease=lease)
    await view.put("inside", "", lease=lease)
    assert (await view.time_to_live(lease, keys=True)).keys == (b"inside",)
    assert (await kv.time_to_live(lease, keys=True)).keys == (b"app/", b"app/inside", b"outside")


@pytest.mark.parametrize("call", ["put", "get", "range", "delete"])
async def test_no_key_is_none(kv: AsyncClient, call: str) -> None:
    view = kv.namespace("app/")
    with pytest.raises(InvalidArgument, match="etcdserver: key is not provided"):
        await getattr(view, call)("")
    with pytest.raises(InvalidArgument, match="has a prefix"):
        view.namespace("")


async def test_a_view_does_not_close_the_client(kv: AsyncClient, server: FakeServer) -> None:
    async with kv.namespace("app/") as view:
        await view.put("k", "v")
    assert (await kv.get("app/k")).value == b"v"
    assert view.endpoints == kv.endpoints
    assert server.streams == 1


async def test_for_threads(server: FakeServer) -> None:
    def work() -> None:
        client = Client(server.endpoint, timeout_s=30)
        with client.namespace("a/").namespace("b/") as view:
            assert view.put("k", "v").revision == 2
            assert [each.key for each in view.scan()] == [b"k"]
        assert client.get("a/b/k").value == b"v"
        client.close()

    await in_thread(work)


def test_the_root_translates_nothing() -> None:
    txn = pb.TxnRequest()
    assert ROOT.txn(txn) is txn
    assert ROOT.bounds((b"", b"\0")) == (b"", b"\0")
    assert ROOT.key("") == b""
    assert ROOT.strip((b"k",)) == (b"k",)
    assert Namespace(b"p").key(b"k") == b"pk"
    original = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k"))])
    assert Namespace(b"p").txn(original).success[0].request_put.key == b"pk"
    assert original.success[0].request_put.key == b"k", "it is its caller's"
