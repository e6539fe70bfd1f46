"""Writes as payloads and back."""

import pytest

from paxos_rsm._proto import paxos_pb2, storage_pb2
from paxos_rsm.errors import UnknownEntry
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Noop
from paxos_rsm.storage.payloads import decode_write, encode_write

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


def test_a_record_of_a_later_kind_stops_the_server() -> None:
    with pytest.raises(UnknownEntry, match="Upgrade"):
        decode_write(b"\x92\x03\x01x")  # field 50, one byte long


def test_an_entry_of_a_later_kind_stops_the_server() -> None:
    payload = encode_write(WriteDecided(1, Noop()))
    kind = payload.index(b"\x08", 4)  # the field `kind` of the entry, after the slot
    with pytest.raises(UnknownEntry, match="Upgrade"):
        decode_write(payload[: kind + 1] + b"\x63" + payload[kind + 2 :])


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
    record = storage_pb2.LogRecord()
    record.decided.slot = 1
    record.decided.entry.kind, record.decided.entry.data = paxos_pb2.ENTRY_KIND_CONFIG, b"\xff\xff"
    with pytest.raises(ValueError, match="2 bytes are no Configuration"):
        decode_write(record.SerializeToString())


def test_bytes_that_are_no_record_are_told() -> None:
    with pytest.raises(ValueError, match="no LogRecord"):
        decode_write(b"\xff\xff\xff")
