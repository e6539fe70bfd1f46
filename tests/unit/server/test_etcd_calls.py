"""What the services in etcd's words share. What it says on the wire is in test_kv_service.py; here is the rest."""

import asyncio
from typing import Any

import grpc
import pytest

from paxos_rsm.codec.kv import decode_command
from paxos_rsm.errors import Unavailable
from paxos_rsm.machines.kv.types import EMPTY_KEY, KvError
from paxos_rsm.server.etcd_calls import status_of
from paxos_rsm.server.rpc import StatusError
from tests.unit.server.fakes import FakeReplica, etcd_calls, get, put

Code = grpc.StatusCode


class Caller:
    """The context of a call, as far as it is asked."""

    def __init__(self, remaining_s: float | None = None) -> None:
        self.remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self.remaining_s


CALLER: Any = Caller()


def told(raised: "pytest.ExceptionInfo[StatusError]") -> tuple[grpc.StatusCode, str]:
    return raised.value.code, raised.value.details


async def test_a_change_is_answered_by_the_log_and_a_read_sees_it() -> None:
    calls, own = etcd_calls(FakeReplica())
    response: Any = calls.response(await calls.submit(put(b"k", b"v"), CALLER))
    assert (response.header.revision, response.header.member_id) == (2, 0x31)
    found: Any = calls.response(await calls.query(get(b"k"), CALLER))
    assert [kv.value for kv in found.kvs] == [b"v"]
    own.close()


async def test_a_serializable_query_asks_no_leader() -> None:
    replica = FakeReplica(leader=False)
    calls, own = etcd_calls(replica)
    assert calls.response(await calls.query(get(b"k"), CALLER, serializable=True)).header.revision == 1
    with pytest.raises(StatusError) as raised:
        await calls.query(get(b"k"), CALLER)
    assert told(raised) == (Code.UNAVAILABLE, "etcdserver: no leader")
    assert replica.reads_asked == 0
    own.close()


async def test_without_a_leader_a_caller_with_little_time_is_told_before_it_is_over() -> None:
    calls, own = etcd_calls(FakeReplica(leader=False), leaderless_ms=3_600_000)
    caller: Any = Caller(0.05)
    async with asyncio.timeout(30):
        with pytest.raises(StatusError) as raised:
            await calls.submit(put(b"k", b"v"), caller)
    assert told(raised) == (Code.UNAVAILABLE, "etcdserver: no leader")
    own.close()


async def test_what_the_log_does_not_answer_in_time_is_unknown() -> None:
    replica = FakeReplica()
    calls, own = etcd_calls(replica, request_timeout_ms=50)
    await calls.submit(put(b"k", b"v"), CALLER)
    replica.hold()
    for asked in (calls.submit(put(b"k", b"w"), CALLER), calls.read_index(CALLER)):
        with pytest.raises(StatusError) as raised:
            await asked
        assert told(raised) == (Code.UNAVAILABLE, "etcdserver: request timed out")
    replica.release()
    await calls.read_index(CALLER)
    own.close()


async def test_what_was_never_handed_on_in_time_is_not_executed() -> None:
    replica = FakeReplica()
    replica.hold()  # no session opens
    calls, own = etcd_calls(replica, request_timeout_ms=50)
    with pytest.raises(StatusError):
        await calls.submit(put(b"k", b"v"), CALLER)
    replica.release()
    await calls.read_index(CALLER)
    assert own.in_flight == 0
    assert replica.submitted == []
    own.close()


async def test_all_the_readers_of_an_index_are_told_why_there_is_none() -> None:
    replica = FakeReplica()
    calls, own = etcd_calls(replica)
    replica.hold()
    readers = [asyncio.create_task(calls.read_index(CALLER)) for _ in range(3)]
    await asyncio.sleep(0)
    for read in replica._reads:
        read.set_exception(Unavailable("no leader confirms"))
    for reader in readers:
        with pytest.raises(StatusError) as raised:
            await reader
        assert told(raised) == (Code.UNAVAILABLE, "etcdserver: request timed out")
    own.close()


async def test_a_reader_who_leaves_does_not_cancel_what_others_share() -> None:
    replica = FakeReplica()
    calls, own = etcd_calls(replica)
    replica.hold()
    one = asyncio.create_task(calls.read_index(CALLER))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert not any(read.cancelled() for read in replica._reads)
    own.close()


async def test_refusals_come_in_order() -> None:
    calls, own = etcd_calls(FakeReplica(), request_bytes_max=10)
    calls.refuse(None, 10)
    for error, size_bytes, expected in (
        (EMPTY_KEY, 11, EMPTY_KEY.message),
        (None, 11, "etcdserver: request is too large"),
    ):
        with pytest.raises(StatusError, match=expected):
            calls.refuse(error, size_bytes)
    calls.stopping = True
    with pytest.raises(StatusError, match="etcdserver: server stopped"):
        calls.refuse(None)
    own.close()


def test_an_error_of_the_store_is_the_status_that_it_names() -> None:
    status = status_of(KvError(11, "words"))
    assert (status.code, status.details) == (Code.OUT_OF_RANGE, "words")
    assert not isinstance(decode_command(get(b"k")), KvError)
