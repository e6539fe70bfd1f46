"""Writes as payloads and back."""

import pytest

from paxos_rsm._proto import paxos_pb2, storage_pb2
from paxos_rsm.errors import InvariantViolation, UnknownEntry
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import (
    Write,
    WriteAccepted,
    WriteCompacted,
    WriteDecided,
    WriteDecidedThrough,
    WritePromise,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Noop
from paxos_rsm.storage.payloads import decode_write, encode_write, left_of
from paxos_rsm.storage.records import Head, Row

BALLOT = Ballot(2**63 - 1, 2**63 - 1)
GENESIS = ConfigChange(
    Configuration(
        1,
        (Member(11, 12, "n1", "http://127.0.0.1:2380", ("http://127.0.0.1:2379",)),),
        QuorumSizes.majority(1),
    )
)


@pytest.mark.parametrize(
    "write",
    [
        WritePromise(BALLOT),
        WriteAccepted(2**63 - 1, BALLOT, Batch(bytes(range(256)))),
        WriteAccepted(1, Ballot(1, 1), GENESIS),
        WriteAccepted(1, Ballot(1, 1), Batch(b"")),
        WriteDecided(7, Noop()),
        WriteDecided(1, GENESIS),
        WriteDecidedThrough(0),
        WriteDecidedThrough(2**63 - 1),
    ],
    ids=repr,
)
def test_every_write_comes_back(write: Write) -> None:
    assert decode_write(encode_write(write)) == write


@pytest.mark.parametrize("kind", [5, 255])
def test_a_record_of_a_later_kind_stops_the_server(kind: int) -> None:
    with pytest.raises(UnknownEntry, match="Upgrade"):
        decode_write(Row(kind, 1, 1, 1, b""))


def test_an_entry_of_a_later_kind_stops_the_server() -> None:
    row = encode_write(WriteDecided(1, Batch(b"")))
    assert row.payload[:2] == b"\x08\x02", "the field `kind` of the entry"
    with pytest.raises(UnknownEntry, match="Upgrade"):
        decode_write(row._replace(payload=b"\x08\x63" + row.payload[2:]))


def test_what_is_no_record_is_not_written() -> None:
    with pytest.raises(InvariantViolation, match="slot 4 is compacted"):
        encode_write(WriteCompacted(4))


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (WritePromise(NO_BALLOT), "no ballot"),
        (WritePromise(Ballot(2**63, 1)), "no ballot"),
        (WriteAccepted(1, Ballot(1, 0), Noop()), "no ballot"),
        (WriteAccepted(0, Ballot(1, 1), Noop()), "slot 0"),
        (WriteDecided(2**64 - 1, Noop()), "slot 18446744073709551615"),
        (WriteDecidedThrough(2**64 - 2), "slot 18446744073709551614"),
        (WriteDecided(1, ConfigChange(Configuration(1, (), QuorumSizes(0, 0, 0)))), "at least one member"),
    ],
)
def test_what_no_server_writes_is_told(write: Write, match: str) -> None:
    """Found by fuzzing: numbers beyond 63 bits were believed."""
    with pytest.raises(ValueError, match=match):
        decode_write(encode_write(write))


def test_a_configuration_that_does_not_parse_is_told() -> None:
    """Found by fuzzing: protobuf's own error came out of the recovery of a log."""
    entry = paxos_pb2.Entry(kind=paxos_pb2.ENTRY_KIND_CONFIG, data=b"\xff\xff")
    row = encode_write(WriteDecided(1, Noop()))._replace(payload=entry.SerializeToString())
    with pytest.raises(ValueError, match="2 bytes are no Configuration"):
        decode_write(row)


def test_bytes_that_are_no_entry_are_told() -> None:
    with pytest.raises(ValueError, match="3 bytes are no Entry"):
        decode_write(encode_write(WriteDecided(1, Noop()))._replace(payload=b"\xff\xff\xff"))


@pytest.mark.parametrize("write", [WritePromise(BALLOT), WriteDecidedThrough(7)])
def test_a_payload_where_none_belongs_is_told(write: Write) -> None:
    with pytest.raises(ValueError, match="1 bytes more"):
        decode_write(encode_write(write)._replace(payload=b"x"))


# ---- what a header alone still says --------------------------------------------------------------------------


def head(row: Row, length: int | None = None) -> Head:
    flags = row.kind << 16
    length = len(row.payload) if length is None else length
    return Head(5, 4, 77, flags, row.slot, row.round, row.node, 0, length, 0, 200)


def test_what_is_left_of_a_record() -> None:
    assert left_of(head(encode_write(WriteAccepted(9, BALLOT, Batch(b"x"))))) == (9, BALLOT)
    assert left_of(head(encode_write(WriteDecided(9, Noop())))) == (9, None)
    for write in (WritePromise(BALLOT), WriteDecidedThrough(9)):
        assert left_of(head(encode_write(write))) == write
        assert left_of(head(encode_write(write), length=1)) is None
    for kind in (0, 5, 255):
        assert left_of(head(Row(kind, 1, 1, 1, b""))) is None


@pytest.mark.parametrize("write", [WriteAccepted(0, BALLOT, Noop()), WritePromise(NO_BALLOT)])
def test_a_header_that_no_server_writes_is_told(write: Write) -> None:
    with pytest.raises(ValueError, match=r"no ballot|slot 0"):
        left_of(head(encode_write(write)))


# ---- version 1 -----------------------------------------------------------------------------------------------


def version_1(**fields: object) -> Row:
    return Row(0, 0, 0, 0, storage_pb2.LogRecord(**fields).SerializeToString())  # type: ignore[arg-type]


def test_records_of_version_1() -> None:
    ballot, entry = (
        paxos_pb2.Ballot(round=4, node=9),
        paxos_pb2.Entry(kind=paxos_pb2.ENTRY_KIND_BATCH, data=b"x"),
    )
    vote = paxos_pb2.SlotEntry(slot=3, ballot=ballot, entry=entry)
    assert decode_write(version_1(accepted=vote)) == WriteAccepted(3, Ballot(4, 9), Batch(b"x"))
    assert decode_write(version_1(promise=ballot)) == WritePromise(Ballot(4, 9))
    decided = paxos_pb2.SlotEntry(slot=3, entry=entry)
    assert decode_write(version_1(decided=decided)) == WriteDecided(3, Batch(b"x"))
    assert decode_write(version_1(decided_through=3)) == WriteDecidedThrough(3)
    with pytest.raises(ValueError, match="no ballot"):
        decode_write(version_1(promise=paxos_pb2.Ballot()))
    with pytest.raises(ValueError, match="no LogRecord"):
        decode_write(Row(0, 0, 0, 0, b"\xff\xff\xff"))
    with pytest.raises(UnknownEntry, match="Upgrade"):
        decode_write(Row(0, 0, 0, 0, b"\x92\x03\x01x"))  # field 50, one byte long
