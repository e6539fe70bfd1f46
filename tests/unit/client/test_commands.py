from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.commands import (
    compact_command,
    delete_command,
    delete_result,
    get_query,
    get_result,
    lease_id,
    open_result,
    prefix_end,
    put_result,
    put_with_command,
    range_bounds,
    range_query,
    range_request,
    range_result,
    to_bytes,
)
from paxos_rsm.client.reads import Answer
from paxos_rsm.client.types import GetResult, GrantResult, KeyValue, PutResult
from paxos_rsm.errors import ClientError, Compacted, InvalidArgument, OutOfRange, ResourceExhausted

HEADER = pb.ResponseHeader(cluster_id=1, member_id=2, revision=42, raft_term=3)
STORED = pb.KeyValue(key=b"k", value=b"v", version=3, create_revision=5, mod_revision=9, lease=7)


def result(**response: Any) -> bytes:
    return pb.KvResult(**response).SerializeToString()


def test_text_is_utf_8() -> None:
    assert to_bytes("grüße") == "grüße".encode()
    assert to_bytes(b"\xff") == b"\xff"

    class Name(bytes):
        pass

    assert type(to_bytes(Name(b"x"))) is bytes


@pytest.mark.parametrize("given", [None, 1, bytearray(b"x"), ["x"], "\ud800"])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="a value"):
        to_bytes(given, "a value")


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=6))
def test_the_end_of_a_prefix_is_behind_all_that_start_with_it_and_nothing_else(
    prefix: bytes, key: bytes
) -> None:
    end = prefix_end(prefix)
    assert key.startswith(prefix) == (key >= prefix and (end == b"\0" or key < end))


@pytest.mark.parametrize(
    ("key", "end", "prefix", "bounds"),
    [
        (None, None, None, None),
        ("a", None, None, (b"a", b"")),
        ("a", "c", None, (b"a", b"c")),
        ("a", b"\0", None, (b"a", b"\0")),
        (None, None, "a", (b"a", b"b")),
        (None, None, b"a\xff", (b"a\xff", b"b")),
        (None, None, b"\xff\xff", (b"\xff\xff", b"\0")),
        (None, None, "", (b"\0", b"\0")),
    ],
)
def test_range_bounds(key: Any, end: Any, prefix: Any, bounds: tuple[bytes, bytes] | None) -> None:
    assert range_bounds(key, end, prefix) == bounds


@pytest.mark.parametrize(
    ("key", "end", "prefix"), [("a", None, "a"), (None, "b", "a"), ("a", "b", "a"), (None, "b", None)]
)
def test_contradictions_are_refused(key: Any, end: Any, prefix: Any) -> None:
    with pytest.raises(InvalidArgument):
        range_bounds(key, end, prefix)


def test_requests_say_what_was_asked() -> None:
    asked = pb.KvCommand.FromString(get_query(b"k", 7, True)).range
    assert (asked.key, asked.range_end, asked.revision, asked.serializable) == (b"k", b"", 7, True)

    request = range_request(
        (b"a", b"b"), limit=5, revision=6, sort_by="mod_revision", descending=True, keys_only=True
    )
    asked = pb.KvCommand.FromString(range_query(request)).range
    assert (asked.key, asked.range_end, asked.limit, asked.revision) == (b"a", b"b", 5, 6)
    assert (asked.sort_order, asked.sort_target) == (pb.RangeRequest.DESCEND, pb.RangeRequest.MOD)
    assert (asked.keys_only, asked.count_only, asked.serializable) == (True, False, False)

    assert range_request((b"a", b"b")).sort_order == pb.RangeRequest.NONE
    only_descending = range_request((b"a", b"b"), descending=True)
    assert (only_descending.sort_order, only_descending.sort_target) == (
        pb.RangeRequest.DESCEND,
        pb.RangeRequest.KEY,
    )
    assert range_request((b"a", b"b"), sort_by="value").sort_order == pb.RangeRequest.ASCEND

    delete = pb.KvCommand.FromString(delete_command((b"a", b"b"))).delete_range
    assert (delete.key, delete.range_end) == (b"a", b"b")
    assert pb.KvCommand.FromString(compact_command(9)).compact.revision == 9


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, "1", 1.5])
def test_numbers_that_do_not_fit_are_refused(number: Any) -> None:
    with pytest.raises(InvalidArgument, match="revision="):
        compact_command(number)
    with pytest.raises(InvalidArgument, match="revision="):
        get_query(b"k", number, False)
    with pytest.raises(InvalidArgument, match="limit="):
        range_request((b"a", b"b"), limit=number)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="sort_by='size' is not one of key, version"):
        range_request((b"a", b"b"), sort_by="size")  # type: ignore[arg-type]


def test_results_are_read() -> None:
    assert put_result(result(put=pb.PutResponse(header=HEADER))) == PutResult(42, None)
    before = KeyValue(b"k", b"v", 3, 5, 9, 7)
    assert put_result(result(put=pb.PutResponse(header=HEADER, prev_kv=STORED))) == PutResult(42, before)

    there = Answer(result(range=pb.RangeResponse(header=HEADER, kvs=[STORED], count=1)), 11, 12)
    assert get_result(b"k", there) == GetResult(b"k", b"v", 3, 5, 9, 42, 11, 12, 7)
    missing = Answer(result(range=pb.RangeResponse(header=HEADER)), 11, 12)
    assert get_result(b"k", missing) == GetResult(b"k", None, 0, 0, 0, 42, 11, 12)

    many = range_result(
        Answer(result(range=pb.RangeResponse(header=HEADER, kvs=[STORED], count=5, more=True)), 11, 12)
    )
    assert list(many) == [before]
    assert (many.count, many.more, many.revision, many.applied_slot, many.leader_age_ms) == (
        5,
        True,
        42,
        11,
        12,
    )
    assert delete_result(result(delete_range=pb.DeleteRangeResponse(header=HEADER, deleted=3))) == 3


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (3, "etcdserver: key is not provided", InvalidArgument),
        (11, "etcdserver: mvcc: required revision has been compacted", Compacted),
        (11, "etcdserver: mvcc: required revision is a future revision", OutOfRange),
        (8, "etcdserver: mvcc: database space exceeded", ResourceExhausted),
        (5, "etcdserver: requested lease not found", InvalidArgument),
    ],
)
def test_what_the_store_refuses_is_raised_in_its_words(
    code: int, message: str, error: type[ClientError]
) -> None:
    with pytest.raises(error) as caught:
        put_result(result(error=pb.KvError(code=code, message=message)))
    assert type(caught.value) is error
    assert str(caught.value) == message


@pytest.mark.parametrize("raw", [b"", b"\xff\xff", b"17", result(put=pb.PutResponse(header=HEADER))])
def test_another_state_machine_is_told_from_the_store(raw: bytes) -> None:
    with pytest.raises(ClientError, match="another state machine"):
        open_result(raw, "range")


def test_a_put_with_a_lease_and_flags() -> None:
    made = pb.KvCommand.FromString(put_with_command(b"k", b"v", True, 7, False, False)).put
    assert made == pb.PutRequest(key=b"k", value=b"v", prev_kv=True, lease=7)
    made = pb.KvCommand.FromString(put_with_command(b"k", b"", False, 0, True, True)).put
    assert made == pb.PutRequest(key=b"k", ignore_value=True, ignore_lease=True)


def test_what_names_a_lease() -> None:
    assert lease_id(7) == lease_id(GrantResult(7, 60)) == 7
    for wrong in (-1, 2**63, "7", None, True):
        with pytest.raises(InvalidArgument, match="a lease is"):
            lease_id(wrong)  # type: ignore[arg-type]
