"""What a record says: one write of the protocol as a row of the log, and back.

A promise, and how far all is decided, are said by the row's numbers alone. A vote and a decided entry have the entry as
their payload, so that its loss leaves known which slot it was and which ballot was voted in. In version 1 of the
records the payload was a LogRecord of ``storage.proto``, which said everything; such rows have no kind.

A row of a kind that this version does not know stops the server (rule 12): it may hold a vote. One that says what no
server writes (no slot, no ballot, a configuration that is none) is damage, although its checksums hold: whatever was
meant, it cannot be trusted.
"""

from google.protobuf.message import DecodeError

from paxos_rsm._proto import paxos_pb2, storage_pb2
from paxos_rsm.codec.entries import ballot_from_pb, entry_from_pb, entry_to_kind
from paxos_rsm.codec.messages import NUMBER_MAX
from paxos_rsm.errors import ConfigError, InvariantViolation, UnknownEntry
from paxos_rsm.paxos.ready import (
    Write,
    WriteAccepted,
    WriteCompacted,
    WriteDecided,
    WriteDecidedThrough,
    WritePromise,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Entry, Slot
from paxos_rsm.storage.records import Head, Row

__all__ = ["Lost", "decode_write", "encode_write", "left_of"]

_LOG_RECORD, _PROMISE, _ACCEPTED, _DECIDED, _DECIDED_THROUGH = range(5)

Lost = tuple[Slot, Ballot | None]
"""A slot whose entry cannot be read any more, and the ballot that was voted in; None: it was learned as decided."""


def encode_write(write: Write) -> Row:
    """The row that says ``write``. Raises InvariantViolation for a WriteCompacted, which is no record."""
    match write:
        case WriteAccepted(slot, ballot, entry):
            return Row(_ACCEPTED, slot, *ballot, _payload(entry))
        case WritePromise(ballot):
            return Row(_PROMISE, 0, *ballot, b"")
        case WriteDecided(slot, entry):
            return Row(_DECIDED, slot, *NO_BALLOT, _payload(entry))
        case WriteDecidedThrough(slot):
            return Row(_DECIDED_THROUGH, slot, *NO_BALLOT, b"")
        case WriteCompacted(slot):
            raise InvariantViolation(f"that slot {slot} is compacted was to be written as a record")


def decode_write(row: Row) -> Write:
    """The write that a row says.

    Raises UnknownEntry where it, or the entry in it, is of a kind that this version does not know, and ValueError where
    it is not a row of its kind, or says what no server writes.
    """
    kind, slot, round_, node, payload = row
    if kind == _ACCEPTED:
        return WriteAccepted(_slot(slot), _ballot(Ballot(round_, node)), _entry(payload))
    if kind == _DECIDED:
        return WriteDecided(_slot(slot), _entry(payload))
    if kind == _LOG_RECORD:
        return _decode_version_1(payload)
    write = _without_payload(kind, slot, round_, node)
    if write is None:
        raise _unknown()
    if payload:
        raise ValueError(f"it has {len(payload)} bytes more than a row of kind {kind}")
    return write


def left_of(head: Head) -> Write | Lost | None:
    """What a record still says whose header is all that holds: the whole write, or what is lost; None: neither.

    Raises ValueError where it says what no server writes.
    """
    _, _, _, _, slot, round_, node, *_ = head
    if head.kind == _ACCEPTED:
        return _slot(slot), _ballot(Ballot(round_, node))
    if head.kind == _DECIDED:
        return _slot(slot), None
    return _without_payload(head.kind, slot, round_, node) if head.length == 0 else None


def _without_payload(kind: int, slot: int, round_: int, node: int) -> Write | None:
    if kind == _PROMISE:
        return WritePromise(_ballot(Ballot(round_, node)))
    if kind == _DECIDED_THROUGH:
        return WriteDecidedThrough(_slot(slot, lowest=0))
    return None


def _decode_version_1(payload: bytes) -> Write:
    try:
        record = storage_pb2.LogRecord.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"{len(payload)} bytes are no LogRecord: {error}") from error
    match record.WhichOneof("record"):
        case "accepted":
            vote = record.accepted
            return WriteAccepted(
                _slot(vote.slot), _ballot(ballot_from_pb(vote.ballot)), _entry_from_pb(vote.entry)
            )
        case "promise":
            return WritePromise(_ballot(ballot_from_pb(record.promise)))
        case "decided":
            return WriteDecided(_slot(record.decided.slot), _entry_from_pb(record.decided.entry))
        case "decided_through":
            return WriteDecidedThrough(_slot(record.decided_through, lowest=0))
        case _:
            raise _unknown()


def _payload(entry: Entry) -> bytes:
    # Filled in place: handing one message to the constructor of another copies an entry twice over.
    message = paxos_pb2.Entry()
    kind, message.data = entry_to_kind(entry)
    message.kind = paxos_pb2.EntryKind.ValueType(kind)
    return message.SerializeToString()


def _entry(payload: bytes) -> Entry:
    try:
        return _entry_from_pb(paxos_pb2.Entry.FromString(payload))
    except DecodeError as error:
        raise ValueError(f"{len(payload)} bytes are no Entry: {error}") from error


def _entry_from_pb(message: paxos_pb2.Entry) -> Entry:
    try:
        return entry_from_pb(message)
    except ConfigError as error:
        raise ValueError(f"it holds a configuration that is none: {error}") from error


def _slot(number: int, lowest: int = 1) -> Slot:
    if lowest <= number <= NUMBER_MAX:
        return number
    raise ValueError(f"it names slot {number}; slots are numbered from {lowest} to {NUMBER_MAX}")


def _ballot(ballot: Ballot) -> Ballot:
    if 0 < ballot.round <= NUMBER_MAX and 0 < ballot.node <= NUMBER_MAX:
        return ballot
    raise ValueError(f"it names {ballot.round}.{ballot.node}, which is no ballot")


def _unknown() -> UnknownEntry:
    return UnknownEntry(
        "the log holds a record of a kind that is unknown to this version of paxos_rsm; it is not skipped. "
        "Upgrade this server to the version that wrote it"
    )
