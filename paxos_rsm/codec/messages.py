"""The messages between servers as bytes, and back.

``encode_message`` makes the bytes of a ``PeerMessage``, once, for all the peers that a message goes to;
``decode_message`` reads them. A message is small but for the entries it carries, and an entry is opaque
bytes. So the one message of the hot path that carries an entry, Accept, is put together by hand: protobuf
serializes its small fields, and the entry's bytes are joined to them without passing through a protobuf
object, which would copy them twice more. That is plain protobuf on the wire, where fields may come in any
order.

What comes in is not trusted. Bytes that do not parse, a message without a kind, an absent ballot where one is
needed, a slot or ballot beyond 63 bits, more slots than any server would name: each is a
:class:`MalformedMessage` and nothing else, and the stream that brought it ends. Numbers stay below 2**63 so
that "the next one" always exists and still fits 64 bits. One error passes through:
:class:`~paxos_rsm.errors.UnknownEntry`, a well-formed entry of a kind that a later version wrote, which stops
the server (rule 12).
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from google.protobuf.message import DecodeError

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.changes import change_from_pb, change_to_pb
from paxos_rsm.codec.entries import ballot_to_pb, entry_from_pb, entry_to_kind, entry_to_pb
from paxos_rsm.errors import ConfigError, PaxosRsmError
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    CatchUpReply,
    ChangeReply,
    ChangeRequest,
    Decide,
    FetchSnapshot,
    Forward,
    HandOver,
    Heartbeat,
    HeartbeatReply,
    Message,
    Nack,
    Prepare,
    Promise,
    ReadReply,
    ReadRequest,
    SnapshotChunk,
    StateDigest,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Entry, Slot

__all__ = [
    "NUMBER_MAX",
    "MalformedMessage",
    "decode_message",
    "encode_message",
    "length_prefix",
    "message_from_pb",
    "read_ballot",
]

NUMBER_MAX = (1 << 63) - 1
"""The highest slot, round or node that may be named."""

ITEMS_MAX = 1 << 20
"""Slots or entries in one message: far above what a window or a chunk holds, far below what would hurt."""

DIGEST_BYTES = 16
DIGESTS_MAX = 256
"""In one StateDigest: as many as a server keeps."""

REFUSAL_CHARS_MAX = 1_000
"""Of the sentence that says why a change was refused."""

BYTES = 2  # protobuf's wire type of bytes and embedded messages


class MalformedMessage(PaxosRsmError):
    """A peer sent what no server of this protocol sends; its stream is ended, this server goes on."""


# ---- to bytes --------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    """A number as protobuf writes it: 7 bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def length_prefix(field: int, length: int) -> bytes:
    """What stands before ``length`` bytes of bytes field or embedded message number ``field``."""
    return _varint(field << 3 | BYTES) + _varint(length)


_ENTRY_HEAD = {
    int(kind): _varint(pb.Entry.KIND_FIELD_NUMBER << 3) + _varint(kind)
    for kind in pb.EntryKind.values()
    if kind
}


def _accept(message: Accept) -> bytes:
    fixed = pb.Accept(slot=message.slot, decided_through=message.decided_through)
    ballot = fixed.ballot
    ballot.round, ballot.node = message.ballot
    head = fixed.SerializeToString()
    kind, data = entry_to_kind(message.entry)
    entry_head = _ENTRY_HEAD[kind] + length_prefix(pb.Entry.DATA_FIELD_NUMBER, len(data))
    entry_prefix = length_prefix(pb.Accept.ENTRY_FIELD_NUMBER, len(entry_head) + len(data))
    length = len(head) + len(entry_prefix) + len(entry_head) + len(data)
    prefix = length_prefix(pb.PeerMessage.ACCEPT_FIELD_NUMBER, length)
    return b"".join((prefix, head, entry_prefix, entry_head, data))


def _accepted(message: Accepted) -> bytes:
    out = pb.PeerMessage()
    ballot = out.accepted.ballot
    ballot.round, ballot.node = message.ballot
    out.accepted.slots.extend(message.slots)
    return out.SerializeToString()


def _heartbeat(message: Heartbeat) -> bytes:
    out = pb.PeerMessage()
    beat = out.heartbeat
    # Assigned even where it is zero: that makes it present, and an absent ballot is refused.
    ballot = beat.ballot
    ballot.round, ballot.node = message.ballot
    promised = beat.promised
    promised.round, promised.node = message.promised
    beat.leading = message.leading
    beat.leader_alive = message.leader_alive
    beat.decided_through = message.decided_through
    beat.round = message.round
    beat.reach.extend(sorted(message.reach))
    beat.hold_us = message.hold_us
    return out.SerializeToString()


def _heartbeat_reply(message: HeartbeatReply) -> bytes:
    reply = pb.HeartbeatReply(ballot=ballot_to_pb(message.ballot), round=message.round, held=message.held)
    return pb.PeerMessage(heartbeat_reply=reply).SerializeToString()


def _prepare(message: Prepare) -> bytes:
    prepare = pb.Prepare(ballot=ballot_to_pb(message.ballot), first=message.first)
    if message.given_up != NO_BALLOT:
        prepare.given_up.CopyFrom(ballot_to_pb(message.given_up))
    return pb.PeerMessage(prepare=prepare).SerializeToString()


def _decided_to_pb(decided: Iterable[tuple[Slot, Entry]]) -> list[pb.SlotEntry]:
    return [pb.SlotEntry(slot=slot, entry=entry_to_pb(entry)) for slot, entry in decided]


def _promise(message: Promise) -> bytes:
    accepted = [
        pb.SlotEntry(slot=slot, ballot=ballot_to_pb(ballot), entry=entry_to_pb(entry))
        for slot, ballot, entry in message.accepted
    ]
    promise = pb.Promise(
        ballot=ballot_to_pb(message.ballot),
        first=message.first,
        last=message.last,
        accepted=accepted,
        decided=_decided_to_pb(message.decided),
        compacted_through=message.compacted_through,
        unreadable=message.unreadable,
    )
    return pb.PeerMessage(promise=promise).SerializeToString()


def _nack(message: Nack) -> bytes:
    nack = pb.Nack(refused=ballot_to_pb(message.refused), promised=ballot_to_pb(message.promised))
    return pb.PeerMessage(nack=nack).SerializeToString()


def _decide(message: Decide) -> bytes:
    decide = pb.Decide(ballot=ballot_to_pb(message.ballot), decided_through=message.decided_through)
    return pb.PeerMessage(decide=decide).SerializeToString()


def _catch_up(message: CatchUp) -> bytes:
    return pb.PeerMessage(catch_up=pb.CatchUp(first=message.first, last=message.last)).SerializeToString()


def _catch_up_reply(message: CatchUpReply) -> bytes:
    reply = pb.CatchUpReply(
        promised=ballot_to_pb(message.promised),
        entries=_decided_to_pb(message.entries),
        decided_through=message.decided_through,
        compacted_through=message.compacted_through,
    )
    return pb.PeerMessage(catch_up_reply=reply).SerializeToString()


def _forward(message: Forward) -> bytes:
    out = pb.PeerMessage()
    out.forward.hops = message.hops
    out.forward.frames.extend(message.frames)
    return out.SerializeToString()


def _read_request(message: ReadRequest) -> bytes:
    request = pb.ReadRequest(read_id=message.read_id, hops=message.hops, accepted=message.accepted)
    return pb.PeerMessage(read_request=request).SerializeToString()


def _read_reply(message: ReadReply) -> bytes:
    reply = pb.ReadReply(read_id=message.read_id, index=message.index)
    return pb.PeerMessage(read_reply=reply).SerializeToString()


def _change_request(message: ChangeRequest) -> bytes:
    change = change_to_pb(message.change)
    request = pb.ChangeRequest(request_id=message.request_id, change=change, hops=message.hops)
    return pb.PeerMessage(change_request=request).SerializeToString()


def _change_reply(message: ChangeReply) -> bytes:
    reply = pb.ChangeReply(request_id=message.request_id, refusal=message.refusal, reason=message.reason)
    return pb.PeerMessage(change_reply=reply).SerializeToString()


def _hand_over(message: HandOver) -> bytes:
    return pb.PeerMessage(hand_over=pb.HandOver(ballot=ballot_to_pb(message.ballot))).SerializeToString()


def _fetch_snapshot(message: FetchSnapshot) -> bytes:
    fetch = pb.FetchSnapshot(slot=message.slot, offset=message.offset)
    return pb.PeerMessage(fetch_snapshot=fetch).SerializeToString()


def _snapshot_chunk(message: SnapshotChunk) -> bytes:
    # By hand as an Accept is: the data is joined, and not copied through protobuf objects.
    head = pb.SnapshotChunk(slot=message.slot, size=message.size, offset=message.offset).SerializeToString()
    data_prefix = length_prefix(pb.SnapshotChunk.DATA_FIELD_NUMBER, len(message.data))
    length = len(head) + len(data_prefix) + len(message.data)
    prefix = length_prefix(pb.PeerMessage.SNAPSHOT_CHUNK_FIELD_NUMBER, length)
    return b"".join((prefix, head, data_prefix, message.data))


def _state_digest(message: StateDigest) -> bytes:
    pairs = [pb.StateDigest.Pair(slot=slot, digest=digest) for slot, digest in message.pairs]
    return pb.PeerMessage(state_digest=pb.StateDigest(pairs=pairs)).SerializeToString()


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    Accept: _accept,
    Accepted: _accepted,
    CatchUp: _catch_up,
    CatchUpReply: _catch_up_reply,
    ChangeReply: _change_reply,
    ChangeRequest: _change_request,
    Decide: _decide,
    FetchSnapshot: _fetch_snapshot,
    Forward: _forward,
    HandOver: _hand_over,
    Heartbeat: _heartbeat,
    HeartbeatReply: _heartbeat_reply,
    Nack: _nack,
    Prepare: _prepare,
    Promise: _promise,
    ReadReply: _read_reply,
    ReadRequest: _read_request,
    SnapshotChunk: _snapshot_chunk,
    StateDigest: _state_digest,
}


def encode_message(message: Message) -> bytes:
    """The serialized ``PeerMessage``. Raises ValueError for a number that 64 bits cannot hold."""
    return _ENCODERS[type(message)](message)


# ---- from bytes ------------------------------------------------------------------------------------------


def _slot(number: int, what: str) -> Slot:
    """A slot that holds an entry: from 1 on."""
    if not 0 < number <= NUMBER_MAX:
        raise MalformedMessage(f"{what} is slot {number}; slots are numbered from 1 to {NUMBER_MAX}")
    return number


def _watermark(number: int, what: str) -> Slot:
    """A slot up to which something holds: 0 is none."""
    if number > NUMBER_MAX:
        raise MalformedMessage(f"{what} is slot {number}; the highest is {NUMBER_MAX}")
    return number


def _offset(number: int, what: str) -> int:
    """A place in a file, or its size, in bytes."""
    if number > NUMBER_MAX:
        raise MalformedMessage(f"{what} speaks of byte {number} of a file; the highest is {NUMBER_MAX}")
    return number


def _slots(numbers: Any, what: str) -> tuple[Slot, ...]:
    if len(numbers) > ITEMS_MAX:
        raise MalformedMessage(f"{what} names {len(numbers)} slots; the most are {ITEMS_MAX}")
    found = tuple(numbers)
    if found:
        _slot(min(found), what)
        _slot(max(found), what)
    return found


def _ballot(message: pb.Ballot, what: str) -> Ballot:
    """A ballot that a proposer uses: an absent one, too, has round 0."""
    ballot = Ballot(message.round, message.node)
    if 0 < ballot.round <= NUMBER_MAX and 0 < ballot.node <= NUMBER_MAX:
        return ballot
    raise MalformedMessage(f"{what} is {ballot.round}.{ballot.node}, which is no ballot")


def read_ballot(owner: Any, field: str) -> Ballot:
    """The ballot in ``field`` of a protobuf message, which may be ``NO_BALLOT`` but not absent."""
    message: pb.Ballot = getattr(owner, field)
    if message.round or message.node:
        return _ballot(message, field)
    if not owner.HasField(field):
        raise MalformedMessage(f"a message lacks its ballot {field}")
    return NO_BALLOT


def _entry(owner: pb.Accept | pb.SlotEntry) -> Entry:
    message = owner.entry
    if not message.kind:
        raise MalformedMessage("an entry is absent or has no kind")
    try:
        return entry_from_pb(message)
    except ConfigError as error:
        raise MalformedMessage(f"an entry holds a configuration that is none: {error}") from None


def _decided(entries: Any, what: str) -> tuple[tuple[Slot, Entry], ...]:
    if len(entries) > ITEMS_MAX:
        raise MalformedMessage(f"{what} holds {len(entries)} entries; the most are {ITEMS_MAX}")
    return tuple((_slot(each.slot, what), _entry(each)) for each in entries)


def _accept_from(m: pb.Accept) -> Accept:
    ballot, slot = _ballot(m.ballot, "the ballot of an Accept"), _slot(m.slot, "an Accept")
    return Accept(ballot, slot, _entry(m), _watermark(m.decided_through, "the watermark of an Accept"))


def _accepted_from(m: pb.Accepted) -> Accepted:
    return Accepted(_ballot(m.ballot, "the ballot of an Accepted"), _slots(m.slots, "an Accepted"))


def _heartbeat_from(m: pb.Heartbeat) -> Heartbeat:
    if len(m.reach) > ITEMS_MAX:
        raise MalformedMessage(f"a Heartbeat names {len(m.reach)} nodes; the most are {ITEMS_MAX}")
    return Heartbeat(
        read_ballot(m, "ballot"),
        m.leading,
        m.leader_alive,
        _watermark(m.decided_through, "the watermark of a Heartbeat"),
        m.round,
        frozenset(m.reach),
        read_ballot(m, "promised"),
        m.hold_us,
    )


def _heartbeat_reply_from(m: pb.HeartbeatReply) -> HeartbeatReply:
    return HeartbeatReply(read_ballot(m, "ballot"), m.round, m.held)


def _prepare_from(m: pb.Prepare) -> Prepare:
    ballot, first = _ballot(m.ballot, "the ballot of a Prepare"), _slot(m.first, "the start of a Prepare")
    return Prepare(ballot, first, read_ballot(m, "given_up") if m.HasField("given_up") else NO_BALLOT)


def _promise_from(m: pb.Promise) -> Promise:
    ballot, first = _ballot(m.ballot, "the ballot of a Promise"), _slot(m.first, "the start of a Promise")
    last = _watermark(m.last, "the end of a Promise") if m.HasField("last") else None
    if len(m.accepted) > ITEMS_MAX:
        raise MalformedMessage(f"a Promise holds {len(m.accepted)} entries; the most are {ITEMS_MAX}")
    accepted = tuple(
        (_slot(each.slot, "a Promise"), _ballot(each.ballot, "the ballot of a vote"), _entry(each))
        for each in m.accepted
    )
    decided = _decided(m.decided, "a Promise")
    compacted = _watermark(m.compacted_through, "the compacted part of a Promise")
    return Promise(
        ballot, first, last, accepted, decided, compacted, _slots(m.unreadable, "a Promise's list of damage")
    )


def _nack_from(m: pb.Nack) -> Nack:
    return Nack(_ballot(m.refused, "the ballot of a Nack"), _ballot(m.promised, "the promise of a Nack"))


def _decide_from(m: pb.Decide) -> Decide:
    ballot = _ballot(m.ballot, "the ballot of a Decide")
    return Decide(ballot, _watermark(m.decided_through, "the watermark of a Decide"))


def _catch_up_from(m: pb.CatchUp) -> CatchUp:
    return CatchUp(_slot(m.first, "the start of a CatchUp"), _watermark(m.last, "the end of a CatchUp"))


def _catch_up_reply_from(m: pb.CatchUpReply) -> CatchUpReply:
    return CatchUpReply(
        read_ballot(m, "promised"),
        _decided(m.entries, "a CatchUpReply"),
        _watermark(m.decided_through, "the watermark of a CatchUpReply"),
        _watermark(m.compacted_through, "the compacted part of a CatchUpReply"),
    )


def _forward_from(m: pb.Forward) -> Forward:
    if len(m.frames) > ITEMS_MAX:
        raise MalformedMessage(f"a Forward holds {len(m.frames)} frames; the most are {ITEMS_MAX}")
    return Forward(tuple(m.frames), m.hops)


def _read_request_from(m: pb.ReadRequest) -> ReadRequest:
    return ReadRequest(m.read_id, m.hops, m.accepted)


def _read_reply_from(m: pb.ReadReply) -> ReadReply:
    return ReadReply(m.read_id, _watermark(m.index, "the index of a ReadReply"))


def _change_request_from(m: pb.ChangeRequest) -> ChangeRequest:
    if not m.request_id:
        raise MalformedMessage("a ChangeRequest has no id")
    try:
        return ChangeRequest(m.request_id, change_from_pb(m.change), m.hops)
    except ConfigError as error:
        raise MalformedMessage(f"a ChangeRequest asks for what is no change: {error}") from None


def _change_reply_from(m: pb.ChangeReply) -> ChangeReply:
    return ChangeReply(m.request_id, m.refusal[:REFUSAL_CHARS_MAX], m.reason)


def _hand_over_from(m: pb.HandOver) -> HandOver:
    return HandOver(_ballot(m.ballot, "the ballot of a HandOver"))


def _fetch_snapshot_from(m: pb.FetchSnapshot) -> FetchSnapshot:
    return FetchSnapshot(_watermark(m.slot, "a FetchSnapshot"), _offset(m.offset, "a FetchSnapshot"))


def _snapshot_chunk_from(m: pb.SnapshotChunk) -> SnapshotChunk:
    what, data = "a SnapshotChunk", m.data
    slot, size, offset = _watermark(m.slot, what), _offset(m.size, what), _offset(m.offset, what)
    if data and not (slot and offset + len(data) <= size):
        raise MalformedMessage(
            f"{what} has bytes {offset} to {offset + len(data)} of the {size} of the snapshot of slot {slot}"
        )
    return SnapshotChunk(slot, size, offset, data)


def _state_digest_from(m: pb.StateDigest) -> StateDigest:
    if not 0 < len(m.pairs) <= DIGESTS_MAX:
        raise MalformedMessage(
            f"a StateDigest holds {len(m.pairs)} digests; they are from 1 to {DIGESTS_MAX}"
        )
    pairs = tuple((_slot(pair.slot, "a StateDigest"), pair.digest) for pair in m.pairs)
    if any(len(digest) != DIGEST_BYTES for _, digest in pairs):
        raise MalformedMessage(f"a StateDigest has one that is not of {DIGEST_BYTES} bytes")
    if any(one >= other for (one, _), (other, _) in pairwise(pairs)):
        raise MalformedMessage("a StateDigest has slots that do not ascend")
    return StateDigest(pairs)


_DECODERS: dict[str, Callable[[Any], Message]] = {
    "accept": _accept_from,
    "accepted": _accepted_from,
    "catch_up": _catch_up_from,
    "catch_up_reply": _catch_up_reply_from,
    "change_reply": _change_reply_from,
    "change_request": _change_request_from,
    "decide": _decide_from,
    "fetch_snapshot": _fetch_snapshot_from,
    "forward": _forward_from,
    "hand_over": _hand_over_from,
    "heartbeat": _heartbeat_from,
    "heartbeat_reply": _heartbeat_reply_from,
    "nack": _nack_from,
    "prepare": _prepare_from,
    "promise": _promise_from,
    "read_reply": _read_reply_from,
    "read_request": _read_request_from,
    "snapshot_chunk": _snapshot_chunk_from,
    "state_digest": _state_digest_from,
}


def message_from_pb(message: pb.PeerMessage) -> Message:
    """A message from its protobuf form. Raises MalformedMessage; UnknownEntry for a later version's entry."""
    kind = message.WhichOneof("message")
    decoder = None if kind is None else _DECODERS.get(kind)
    if kind is None or decoder is None:
        raise MalformedMessage("a message has no kind that this version knows")
    return decoder(getattr(message, kind))


def decode_message(data: bytes) -> Message:
    """A message from a serialized ``PeerMessage``. Raises as :func:`message_from_pb` does."""
    try:
        message = pb.PeerMessage.FromString(data)
    except DecodeError:
        raise MalformedMessage(f"{len(data)} bytes are not a PeerMessage") from None
    return message_from_pb(message)
