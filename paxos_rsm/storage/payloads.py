"""The payload of a record: one write of the protocol as a serialized LogRecord, and back.

The records are those of ``storage.proto``. A record of a kind that this version does not know stops the server
(rule 12): it may hold a vote. One that says what no server writes (no slot, no ballot, a configuration that is none)
is damage, although its checksums hold: whatever was meant, it cannot be trusted.
"""

from google.protobuf.message import DecodeError

from paxos_rsm._proto import paxos_pb2, storage_pb2
from paxos_rsm.codec.entries import ballot_from_pb, entry_from_pb, entry_to_kind
from paxos_rsm.codec.messages import NUMBER_MAX
from paxos_rsm.errors import ConfigError, UnknownEntry
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import Ballot, Entry, Slot

__all__ = ["decode_write", "encode_write"]


def encode_write(write: Write) -> bytes:
    """The payload that says ``write``; none for a WriteCompacted, which is no record."""
    # Filled in place: handing one message to the constructor of another copies an entry twice over at each level.
    record = storage_pb2.LogRecord()
    match write:
        case WriteAccepted(slot, ballot, entry):
            vote = record.accepted
            vote.slot = slot
            vote.ballot.round, vote.ballot.node = ballot
            vote.entry.kind, vote.entry.data = _kind_and_data(entry)
        case WritePromise(ballot):
            record.promise.SetInParent()
            record.promise.round, record.promise.node = ballot
        case WriteDecided(slot, entry):
            record.decided.slot = slot
            record.decided.entry.kind, record.decided.entry.data = _kind_and_data(entry)
        case WriteDecidedThrough(slot):
            record.decided_through = slot
    return record.SerializeToString()


def decode_write(payload: bytes) -> Write:
    """The write that a payload says.

    Raises UnknownEntry where it, or the entry in it, is of a kind that this version does not know, and ValueError where
    it is no LogRecord at all, or says what no server writes.
    """
    try:
        record = storage_pb2.LogRecord.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"{len(payload)} bytes are no LogRecord: {error}") from error
    match record.WhichOneof("record"):
        case "accepted":
            vote = record.accepted
            return WriteAccepted(_slot(vote.slot), _ballot(vote.ballot), _entry(vote.entry))
        case "promise":
            return WritePromise(_ballot(record.promise))
        case "decided":
            return WriteDecided(_slot(record.decided.slot), _entry(record.decided.entry))
        case "decided_through":
            return WriteDecidedThrough(_slot(record.decided_through, lowest=0))
        case _:
            raise UnknownEntry(
                "the log holds a record of a kind that is unknown to this version of paxos_rsm; it is not skipped. "
                "Upgrade this server to the version that wrote it"
            )


def _slot(number: int, lowest: int = 1) -> Slot:
    if lowest <= number <= NUMBER_MAX:
        return number
    raise ValueError(f"it names slot {number}; slots are numbered from {lowest} to {NUMBER_MAX}")


def _ballot(message: paxos_pb2.Ballot) -> Ballot:
    ballot = ballot_from_pb(message)
    if 0 < ballot.round <= NUMBER_MAX and 0 < ballot.node <= NUMBER_MAX:
        return ballot
    raise ValueError(f"it names {ballot.round}.{ballot.node}, which is no ballot")


def _entry(message: paxos_pb2.Entry) -> Entry:
    try:
        return entry_from_pb(message)
    except ConfigError as error:
        raise ValueError(f"it holds a configuration that is none: {error}") from error


def _kind_and_data(entry: Entry) -> tuple[paxos_pb2.EntryKind.ValueType, bytes]:
    kind, data = entry_to_kind(entry)
    return paxos_pb2.EntryKind.ValueType(kind), data
