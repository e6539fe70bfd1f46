"""The payload of a record: one write of the protocol as a serialized LogRecord, and back.

The records are those of ``storage.proto``. A record of a kind that this version does not know stops the server
(rule 12): it may hold a vote.
"""

from google.protobuf.message import DecodeError

from paxos_rsm._proto import paxos_pb2, storage_pb2
from paxos_rsm.codec.entries import ballot_from_pb, entry_from_pb, entry_to_kind
from paxos_rsm.errors import UnknownEntry
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import Entry

__all__ = ["decode_write", "encode_write"]


def encode_write(write: Write) -> bytes:
    """The payload that says ``write``."""
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
    it is no LogRecord at all.
    """
    try:
        record = storage_pb2.LogRecord.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"{len(payload)} bytes are no LogRecord: {error}") from error
    match record.WhichOneof("record"):
        case "accepted":
            vote = record.accepted
            return WriteAccepted(vote.slot, ballot_from_pb(vote.ballot), entry_from_pb(vote.entry))
        case "promise":
            return WritePromise(ballot_from_pb(record.promise))
        case "decided":
            return WriteDecided(record.decided.slot, entry_from_pb(record.decided.entry))
        case "decided_through":
            return WriteDecidedThrough(record.decided_through)
        case _:
            raise UnknownEntry(
                "the log holds a record of a kind that is unknown to this version of paxos_rsm; it is not skipped. "
                "Upgrade this server to the version that wrote it"
            )


def _kind_and_data(entry: Entry) -> tuple[paxos_pb2.EntryKind.ValueType, bytes]:
    kind, data = entry_to_kind(entry)
    return paxos_pb2.EntryKind.ValueType(kind), data
