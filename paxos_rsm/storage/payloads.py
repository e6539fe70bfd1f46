"""The payload of a record: one write of the protocol as a serialized LogRecord, and back.

The records are those of ``storage.proto``. A record of a kind that this version does not know stops the server
(rule 12): it may hold a vote.
"""

from google.protobuf.message import DecodeError

from paxos_rsm._proto import paxos_pb2, storage_pb2
from paxos_rsm.codec.entries import ballot_from_pb, ballot_to_pb, entry_from_pb, entry_to_pb
from paxos_rsm.errors import UnknownEntry
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise

__all__ = ["decode_write", "encode_write"]


def encode_write(write: Write) -> bytes:
    """The payload that says ``write``."""
    match write:
        case WriteAccepted(slot, ballot, entry):
            vote = paxos_pb2.SlotEntry(slot=slot, ballot=ballot_to_pb(ballot), entry=entry_to_pb(entry))
            record = storage_pb2.LogRecord(accepted=vote)
        case WritePromise(ballot):
            record = storage_pb2.LogRecord(promise=ballot_to_pb(ballot))
        case WriteDecided(slot, entry):
            record = storage_pb2.LogRecord(decided=paxos_pb2.SlotEntry(slot=slot, entry=entry_to_pb(entry)))
        case WriteDecidedThrough(slot):
            record = storage_pb2.LogRecord(decided_through=slot)
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
