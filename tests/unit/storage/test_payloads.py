"""Writes as payloads and back."""

import pytest

from paxos_rsm.errors import UnknownEntry
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Noop
from paxos_rsm.storage.payloads import decode_write, encode_write

BALLOT = Ballot(2**64 - 1, 2**63 - 1)
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
        WritePromise(NO_BALLOT),
        WriteAccepted(2**64 - 1, BALLOT, Batch(bytes(range(256)))),
        WriteAccepted(1, Ballot(1, 1), GENESIS),
        WriteAccepted(1, Ballot(1, 1), Batch(b"")),
        WriteDecided(7, Noop()),
        WriteDecided(1, GENESIS),
        WriteDecidedThrough(0),
        WriteDecidedThrough(2**63),
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


def test_bytes_that_are_no_record_are_told() -> None:
    with pytest.raises(ValueError, match="no LogRecord"):
        decode_write(b"\xff\xff\xff")
