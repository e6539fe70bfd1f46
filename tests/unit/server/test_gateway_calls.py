"""JSON to messages and back, and which methods there are."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import kv_pb2, lease_pb2, lock_pb2, watch_pb2
from paxos_rsm.server.gateway_calls import (
    HTTP_STATUS,
    ROUTES,
    THREAD_BYTES,
    Aborted,
    CallContext,
    find_methods,
    from_json,
    json_objects,
    timeout_s,
    to_json,
)
from paxos_rsm.server.rpc import StatusError, service_handler, stream_handler, unary_handler, watch_handler


async def parsed(text: str | bytes, message_type: Any = kv_pb2.RangeRequest) -> Any:
    return message_type.FromString(
        await from_json(message_type, text.encode() if isinstance(text, str) else text)
    )


async def test_requests_are_read_as_etcds_gateway_reads_them() -> None:
    request = await parsed('{"key": "Zm9v", "range_end": "AA==", "limit": "5", "sort_order": "DESCEND"}')
    assert request == kv_pb2.RangeRequest(
        key=b"foo", range_end=b"\0", limit=5, sort_order=kv_pb2.RangeRequest.DESCEND
    )
    numbers = await parsed('{"limit": 5, "sort_order": 2, "sort_target": "MOD", "keys_only": true}')
    assert numbers == kv_pb2.RangeRequest(
        limit=5, sort_order=kv_pb2.RangeRequest.DESCEND, sort_target=kv_pb2.RangeRequest.MOD, keys_only=True
    )
    # Also as protobuf itself would name the fields; unknown ones and nulls do not matter.
    assert (await parsed('{"rangeEnd": "AA==", "nokey": [{}], "key": null}')).range_end == b"\0"
    for empty in ("", " \n", "{}"):
        assert await parsed(empty) == kv_pb2.RangeRequest()
    lease = await parsed('{"TTL": "9223372036854775807", "ID": -1}', kv_pb2.LeaseGrantRequest)
    assert (lease.TTL, lease.ID) == (2**63 - 1, -1)


async def test_a_transaction_is_read_whole() -> None:
    text = json.dumps(
        {
            "compare": [{"target": "VALUE", "key": "YQ==", "value": "MQ==", "result": "NOT_EQUAL"}],
            "success": [{"request_put": {"key": "YQ==", "value": "Mg=="}}],
            "failure": [{"requestRange": {"key": "YQ=="}}, {"request_txn": {}}],
        }
    )
    txn = await parsed(text, kv_pb2.TxnRequest)
    assert txn.compare[0] == kv_pb2.Compare(
        target=kv_pb2.Compare.VALUE, key=b"a", value=b"1", result=kv_pb2.Compare.NOT_EQUAL
    )
    assert txn.success[0].request_put.value == b"2"
    assert [each.WhichOneof("request") for each in txn.failure] == ["request_range", "request_txn"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "nonsense",
        "[]",
        '"Zm9v"',
        "5",
        "null",
        '{"key": "foo!"}',
        '{"key": "Zm9"}',
        '{"key": "Zm-_"}',
        '{"key": 5}',
        '{"key": {}}',
        '{"limit": "many"}',
        '{"limit": 1.5}',
        '{"limit": 9223372036854775808}',
        '{"limit": 1' + "0" * 5_000 + "}",
        '{"sort_order": "SIDEWAYS"}',
        '{"sort_order": ["ASCEND"]}',
        '{"keys_only": "yes"}',
        '{"key": ["Zm9v"]}',
        "{} {}",
        b'{"key": "\xff"}',
        '{"a":' * 100_000,
        "[" * 100_000,
    ],
    ids=lambda text: repr(text[:30]),
)
async def test_what_is_no_request_is_refused_with_a_sentence(text: str | bytes) -> None:
    with pytest.raises(StatusError) as raised:
        await parsed(text)
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details.startswith("the request is not ")
    assert len(raised.value.details) < 300


async def test_nested_bytes_are_checked_too() -> None:
    with pytest.raises(StatusError, match="key is not base64"):
        await parsed('{"success": [{"request_put": {"key": "plain text"}}]}', kv_pb2.TxnRequest)


async def test_arbitrary_text_never_raises_anything_else() -> None:
    generator = random.Random(4)
    alphabet = [
        '"key"',
        '"compare"',
        '"success"',
        '"request_put"',
        ":",
        ",",
        "{",
        "}",
        "[",
        "]",
        '"Zm9v"',
        "1",
        "null",
        "-1e9",
        "true",
        " ",
        "\\",
        '"',
    ]
    for _ in range(3_000):
        text = "".join(generator.choices(alphabet, k=generator.randrange(1, 16)))
        for candidate in (text, "{" + text + "}"):
            with contextlib.suppress(StatusError):
                await parsed(candidate, kv_pb2.TxnRequest)


async def test_responses_are_written_as_etcds_gateway_writes_them() -> None:
    response = kv_pb2.RangeResponse(
        header=kv_pb2.ResponseHeader(cluster_id=2**63 + 1, revision=3),
        kvs=[kv_pb2.KeyValue(key=b"\xff\xfe", create_revision=2, value=b"", lease=7)],
        count=1,
    )
    assert await to_json(kv_pb2.RangeResponse, response.SerializeToString()) == {
        "header": {"cluster_id": "9223372036854775809", "revision": "3"},
        "kvs": [{"key": "//4=", "create_revision": "2", "lease": "7"}],
        "count": "1",
    }
    event = watch_pb2.WatchResponse(events=[watch_pb2.Event(type=watch_pb2.Event.DELETE)], created=True)
    assert await to_json(watch_pb2.WatchResponse, event.SerializeToString()) == {
        "created": True,
        "events": [{"type": "DELETE"}],
    }
    ttl = lease_pb2.LeaseTimeToLiveResponse(ID=1, TTL=-1, grantedTTL=5, keys=[b"k"])
    assert await to_json(lease_pb2.LeaseTimeToLiveResponse, ttl.SerializeToString()) == {
        "ID": "1",
        "TTL": "-1",
        "grantedTTL": "5",
        "keys": ["aw=="],
    }


async def test_the_loop_goes_on_while_much_is_translated() -> None:
    kvs = [kv_pb2.KeyValue(key=b"%d" % number, value=b"v" * 100) for number in range(30_000)]
    data = kv_pb2.RangeResponse(kvs=kvs).SerializeToString()
    assert len(data) > THREAD_BYTES
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    assert len((await to_json(kv_pb2.RangeResponse, data))["kvs"]) == 30_000
    turning.cancel()
    assert turns > 5


async def read_all(*chunks: bytes, bytes_max: int = 1_000) -> list[lock_pb2.LockRequest]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    found = [each async for each in json_objects(lock_pb2.LockRequest, body(), bytes_max)]
    return [lock_pb2.LockRequest.FromString(each) for each in found]


async def test_a_body_of_many_objects_may_be_cut_anywhere() -> None:
    body = '{"name": "YQ==", "x": "\u00e9}"}\n\n{"lease": "1"}{"lease": 2} '.encode()
    expected = [lock_pb2.LockRequest(name=b"a"), lock_pb2.LockRequest(lease=1), lock_pb2.LockRequest(lease=2)]
    assert await read_all(body) == expected
    assert await read_all(*(body[at : at + 1] for at in range(len(body)))) == expected
    for at in range(len(body)):
        assert await read_all(body[:at], body[at:]) == expected
    assert await read_all() == await read_all(b" \n ") == []


@pytest.mark.parametrize(
    "body", [b"{", b'{"lease": 1} x', b"{} [", b"[]", b'{"name": "?"}', b'{"a":1}\xff', b"{}\x1d", b"\x0c{}"]
)
async def test_a_body_that_ends_in_something_else_is_refused(body: bytes) -> None:
    with pytest.raises(StatusError):
        await read_all(body)


async def test_what_stands_before_one_that_is_nested_too_deep_is_read() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"lease": 1}{"x": ' + b"[" * 100_000 + b"}"

    objects = json_objects(lock_pb2.LockRequest, body(), 1 << 20)
    assert await anext(objects) == lock_pb2.LockRequest(lease=1).SerializeToString()
    with pytest.raises(StatusError, match="nested too deep"):
        await anext(objects)


async def test_an_object_has_a_largest_size() -> None:
    with pytest.raises(StatusError, match="longer than 1000 bytes"):
        await read_all(b'{"name": "', b"A" * 990, b"A" * 990)


async def test_many_small_objects_are_read_in_one_pass() -> None:
    assert len(await read_all(b'{"lease":1}' * 20_000, bytes_max=300_000)) == 20_000


def test_deadlines_are_grpcs() -> None:
    answers = {text: round(timeout_s(text), 12) for text in ("1H", "2M", "3S", "4m", "5u", "6n", "0S")}
    assert answers == {"1H": 3600, "2M": 120, "3S": 3, "4m": 0.004, "5u": 5e-6, "6n": 6e-9, "0S": 0}
    for wrong in ("", "S", "5", "5s", "-1S", "1.5S", "\u0665S", "123456789S"):
        with pytest.raises(StatusError, match="invalid Grpc-Timeout"):
            timeout_s(wrong)


def test_every_status_has_a_number_of_http() -> None:
    assert set(HTTP_STATUS) == set(grpc.StatusCode)


async def test_methods_are_found_where_they_are_with_their_kinds() -> None:
    async def unary(data: bytes, context: Any) -> bytes:
        return data

    async def stream(data: object, context: Any) -> None:
        await context.write(b"")

    handlers = [
        service_handler("etcdserverpb.KV", {"Range": unary_handler(unary)}),
        service_handler("paxos_rsm.v1.KV", {"Range": unary_handler(unary), "Put": unary_handler(unary)}),
        service_handler("paxos_rsm.v1.Watch", {"Watch": stream_handler(stream)}),
        service_handler("paxos_rsm.v1.Maintenance", {"Snapshot": watch_handler(stream)}),
    ]
    found = find_methods(handlers)
    assert set(found) == {"kv/range", "kv/put", "watch", "maintenance/snapshot"}
    assert found["kv/range"].request_type is kv_pb2.RangeRequest
    assert found["kv/range"].response_type is kv_pb2.RangeResponse
    kinds = {path: (each.takes_stream, each.gives_stream) for path, each in found.items()}
    assert kinds["kv/range"] == (False, False)
    assert kinds["watch"] == (True, True)
    assert kinds["maintenance/snapshot"] == (False, True)
    assert await found["kv/put"].behaviour(b"x", CallContext()) == b"x"
    assert len(ROUTES) == len(set(ROUTES))


async def test_a_context_has_what_the_services_ask_of_it() -> None:
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    context = CallContext(timeout_s=50, metadata={"HasLeader": "true"}, write=write)
    remaining = context.time_remaining()
    assert remaining is not None
    assert 0 < remaining <= 50
    assert CallContext().time_remaining() is None
    assert context.invocation_metadata() == (("hasleader", "true"),)
    assert await context.read() is grpc.aio.EOF
    await context.write(b"x")
    assert written == [b"x"]
    with pytest.raises(Aborted) as raised:
        await context.abort(grpc.StatusCode.ABORTED, "words")
    assert (raised.value.code, raised.value.details) == (grpc.StatusCode.ABORTED, "words")
    with pytest.raises(Aborted):
        await CallContext().write(b"")
