"""The store as this server's own services use it: through the log, after a read index, and as it is."""

import asyncio

import grpc
import pytest

from paxos_rsm.errors import UnknownOutcome
from paxos_rsm.machines.kv.types import DeleteRange, KeyValue, Put, Range
from paxos_rsm.server.local_kv import first_created, prefix_end
from paxos_rsm.server.rpc import StatusError
from tests.unit.server.recipes import Stage, staged, until

Code = grpc.StatusCode


class Caller:
    """A context: with a deadline, or without one."""

    def __init__(self, remaining_s: float | None = None) -> None:
        self.remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self.remaining_s


def refusal(error: pytest.ExceptionInfo[StatusError]) -> tuple[grpc.StatusCode, str]:
    return error.value.code, error.value.details


async def put(stage: Stage, key: bytes, value: bytes = b"") -> int:
    response = await stage.kv.execute(Put(key, value), Caller())  # type: ignore[arg-type]
    return int(response.header.revision)


async def test_what_is_written_is_seen_and_its_header_is_filled() -> None:
    async with staged() as stage:
        response = await stage.kv.execute(Put(b"a", b"1"), Caller())  # type: ignore[arg-type]
        assert (response.header.cluster_id, response.header.member_id) == (0xC1, 0x31)
        assert response.header.revision == stage.kv.revision == 2
        assert stage.kv.get(b"a") == KeyValue(b"a", 2, 2, 1, b"1", 0)
        assert stage.kv.get(b"b") is None


async def test_the_oldest_key_of_a_prefix_is_found_and_nothing_beside_it() -> None:
    async with staged() as stage:
        for key in (b"p0", b"p/z", b"p/a", b"p.", b"p/b"):
            await put(stage, key)
        assert [kv.key for kv in stage.kv.look(first_created(b"p/"))] == [b"p/z"]
        await stage.kv.execute(DeleteRange(b"p/z"), Caller())  # type: ignore[arg-type]
        assert [kv.key for kv in stage.kv.look(first_created(b"p/"))] == [b"p/a"]


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"\0", b"\1")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


async def test_what_the_store_refuses_has_etcds_words_and_no_better_code() -> None:
    async with staged() as stage:
        with pytest.raises(StatusError) as before_the_log:
            await put(stage, b"")
        with pytest.raises(StatusError) as too_large:
            await put(stage, b"a", b"v" * 100_000)
        with pytest.raises(StatusError) as after_it:
            await stage.kv.execute(Put(b"a", b"", lease=5), Caller())  # type: ignore[arg-type]
        with pytest.raises(StatusError) as read:
            stage.kv.look(Range(b"a", revision=99))
    assert refusal(before_the_log) == (Code.UNKNOWN, "etcdserver: key is not provided")
    assert refusal(too_large) == (Code.UNKNOWN, "etcdserver: request is too large")
    assert refusal(after_it) == (Code.UNKNOWN, "etcdserver: requested lease not found")
    assert refusal(read) == (Code.UNKNOWN, "etcdserver: mvcc: required revision is a future revision")


async def test_without_a_leader_or_a_server_it_is_unavailable() -> None:
    async with staged(leader=False) as stage:
        with pytest.raises(StatusError) as leaderless:
            await put(stage, b"a")
        with pytest.raises(StatusError) as unread:
            await stage.kv.read_index(Caller(0.05))  # type: ignore[arg-type]
        stage.calls.stopping = True
        with pytest.raises(StatusError) as stopping:
            await put(stage, b"a")
        with pytest.raises(StatusError) as too_late:
            await stage.kv.read_index(Caller())  # type: ignore[arg-type]
    assert refusal(leaderless) == refusal(unread) == (Code.UNAVAILABLE, "etcdserver: no leader")
    assert refusal(stopping) == refusal(too_late) == (Code.UNAVAILABLE, "etcdserver: server stopped")


async def test_who_stops_waiting_takes_nothing_back() -> None:
    async with staged() as stage:
        stage.replica.hold()
        future = await stage.kv.submit(Put(b"a", b"1"))
        waiting = asyncio.create_task(stage.kv.answer(future))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not future.done()
        stage.replica.release()
        assert (await stage.kv.answer(future)).header.revision == 2


async def test_an_outcome_that_nobody_knows_is_said_as_etcd_says_it() -> None:
    async with staged() as stage:
        await put(stage, b"before")
        stage.replica.submitted.clear()
        stage.replica.hold()
        future = await stage.kv.submit(Put(b"a", b"1"))
        await until(lambda: bool(stage.replica.submitted))
        stage.own.close()
        with pytest.raises(UnknownOutcome):
            await future
        with pytest.raises(StatusError) as unknown:
            await stage.kv.answer(future)
    words = "etcdserver: request timed out, possibly due to previous leader failure"
    assert refusal(unknown) == (Code.UNAVAILABLE, words)
