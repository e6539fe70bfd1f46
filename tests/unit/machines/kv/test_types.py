import pytest

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.machines.kv import types
from paxos_rsm.machines.kv.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    KeyValue,
    KvError,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
)

# As they stand in etcd's api/v3rpc/rpctypes: clients compare code and words.
ETCD_ERRORS = {
    "EMPTY_KEY": (3, "etcdserver: key is not provided"),
    "KEY_NOT_FOUND": (3, "etcdserver: key not found"),
    "VALUE_PROVIDED": (3, "etcdserver: value is provided"),
    "LEASE_PROVIDED": (3, "etcdserver: lease is provided"),
    "TOO_MANY_OPS": (3, "etcdserver: too many operations in txn request"),
    "DUPLICATE_KEY": (3, "etcdserver: duplicate key given in txn request"),
    "INVALID_SORT": (3, "etcdserver: invalid sort option"),
    "REQUEST_TOO_LARGE": (3, "etcdserver: request is too large"),
    "COMPACTED": (11, "etcdserver: mvcc: required revision has been compacted"),
    "FUTURE_REVISION": (11, "etcdserver: mvcc: required revision is a future revision"),
    "LEASE_EXISTS": (9, "etcdserver: lease already exists"),
    "LEASE_TTL_TOO_LARGE": (11, "etcdserver: too large lease TTL"),
    "NO_SPACE": (8, "etcdserver: mvcc: database space exceeded"),
    "LEASE_NOT_FOUND": (5, "etcdserver: requested lease not found"),
}


@pytest.mark.parametrize("name", ETCD_ERRORS)
def test_errors_are_etcds_to_the_letter(name: str) -> None:
    assert getattr(types, name) == ETCD_ERRORS[name]


def test_errors_that_are_ours_do_not_speak_in_etcds_name() -> None:
    ours = {
        name: value
        for name, value in vars(types).items()
        if isinstance(value, KvError) and name not in ETCD_ERRORS
    }
    assert len(ours) == 5
    for error in ours.values():
        assert error.message.startswith("paxos_rsm: ")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SortOrder, pb.RangeRequest.SortOrder),
        (SortTarget, pb.RangeRequest.SortTarget),
        (CompareResult, pb.Compare.CompareResult),
        (CompareTarget, pb.Compare.CompareTarget),
    ],
)
def test_numbers_are_those_of_the_proto(ours: type, theirs: object) -> None:
    assert {each.name: int(each) for each in ours} == dict(theirs.items())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Range, pb.RangeRequest),
        (Put, pb.PutRequest),
        (DeleteRange, pb.DeleteRangeRequest),
        (Txn, pb.TxnRequest),
        (KeyValue, pb.KeyValue),
    ],
)
def test_fields_are_those_of_the_proto_in_its_order(ours: type, theirs: type) -> None:
    assert list(ours._fields) == [field.name for field in theirs.DESCRIPTOR.fields]  # type: ignore[attr-defined]


def test_what_is_not_said_is_what_protobuf_leaves_out() -> None:
    assert Range(b"k") == (b"k", b"", 0, 0, 0, 0, False, False, False, 0, 0, 0, 0)
    assert Put(b"k") == (b"k", b"", 0, False, False, False)
    assert Compare(b"k") == (b"k", 0, 0, 0, b"")
