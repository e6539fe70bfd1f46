from typing import get_args

import pytest
from google.protobuf.message import Message as ProtobufMessage
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec import messages as codec
from paxos_rsm.codec.messages import MalformedMessage, decode_message, encode_message, length_prefix
from paxos_rsm.errors import PaxosRsmError, UnknownEntry
from paxos_rsm.paxos.messages import Accept, Accepted, Heartbeat, Message, Promise, SnapshotChunk
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, Noop
from tests.unit.codec.strategies import NUMBER_MAX, entries, messages, messages_by_type

BALLOT = pb.Ballot(round=3, node=7)
NOOP = pb.Entry(kind=pb.ENTRY_KIND_NOOP)


def test_there_is_a_strategy_for_every_message() -> None:
    assert set(messages_by_type) == set(get_args(Message))


@pytest.mark.parametrize("kind", messages_by_type, ids=lambda kind: kind.__name__)
def test_round_trip(kind: type) -> None:
    @given(messages_by_type[kind])
    def check(message: Message) -> None:
        assert decode_message(encode_message(message)) == message

    check()


@given(messages_by_type[Accept])
def test_an_accept_made_by_hand_is_what_protobuf_would_read(message: Accept) -> None:
    parsed = pb.PeerMessage.FromString(encode_message(message))
    assert decode_message(parsed.SerializeToString()) == message
    known = pb.PeerMessage()
    known.CopyFrom(parsed)
    known.DiscardUnknownFields()
    assert known.SerializeToString() == parsed.SerializeToString()


@given(messages_by_type[SnapshotChunk])
def test_a_chunk_made_by_hand_is_what_protobuf_would_read(message: SnapshotChunk) -> None:
    parsed = pb.PeerMessage.FromString(encode_message(message))
    assert decode_message(parsed.SerializeToString()) == message
    chunk = pb.SnapshotChunk(slot=message.slot, size=message.size, offset=message.offset, data=message.data)
    assert parsed == pb.PeerMessage(snapshot_chunk=chunk)


@given(entries)
def test_the_bytes_of_an_entry_do_not_depend_on_the_message(entry: object) -> None:
    by_hand = pb.PeerMessage.FromString(encode_message(Accept(Ballot(1, 1), 1, entry, 0)))  # type: ignore[arg-type]
    promise = Promise(Ballot(1, 1), 1, None, (), ((1, entry),))  # type: ignore[arg-type]
    by_protobuf = pb.PeerMessage.FromString(encode_message(promise))
    assert by_hand.accept.entry == by_protobuf.promise.decided[0].entry


def test_a_large_entry_passes() -> None:
    message = Accept(Ballot(2, 9), 5, Batch(bytes(range(256)) * 10_000), 4)
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63 - 1, 2**64 - 1])
def test_length_prefix_is_protobufs_varint(number: int) -> None:
    # A field of type uint64 is tag and varint: the same bytes but for the wire type in the tag.
    scalar = pb.CatchUp(first=number).SerializeToString() or b"\x08\x00"
    assert length_prefix(1, number)[1:] == scalar[1:]


def test_a_number_beyond_64_bits_cannot_be_sent() -> None:
    with pytest.raises(ValueError):
        encode_message(Accepted(Ballot(1, 1), (2**64,)))


def test_the_absence_of_a_ballot_is_not_no_ballot() -> None:
    beat = Heartbeat(NO_BALLOT, False, False, 0, 0, frozenset(), NO_BALLOT)
    assert decode_message(encode_message(beat)) == beat
    with pytest.raises(MalformedMessage, match="lacks its ballot"):
        decode_message(pb.PeerMessage(heartbeat=pb.Heartbeat(round=1)).SerializeToString())


def slot_entry(**fields: object) -> pb.SlotEntry:
    return pb.SlotEntry(**fields)  # type: ignore[arg-type]


BAD_CONFIGURATION = pb.Configuration(cluster_id=1, phase1_quorum=1, phase2_quorum=1)  # without members


def digest_at(slot: int, size: int = 16) -> pb.StateDigest.Pair:
    return pb.StateDigest.Pair(slot=slot, digest=bytes(size))


MALFORMED: dict[str, ProtobufMessage] = {
    "nothing": pb.PeerMessage(),
    "prepare without ballot": pb.PeerMessage(prepare=pb.Prepare(first=1)),
    "prepare with an empty ballot": pb.PeerMessage(prepare=pb.Prepare(ballot=pb.Ballot(), first=1)),
    "prepare from slot 0": pb.PeerMessage(prepare=pb.Prepare(ballot=BALLOT)),
    "prepare with the highest round": pb.PeerMessage(
        prepare=pb.Prepare(ballot=pb.Ballot(round=2**64 - 1, node=1), first=1)
    ),
    "prepare of nobody": pb.PeerMessage(prepare=pb.Prepare(ballot=pb.Ballot(round=1), first=1)),
    "promise without ballot": pb.PeerMessage(promise=pb.Promise(first=1)),
    "promise through 2**64-1": pb.PeerMessage(promise=pb.Promise(ballot=BALLOT, first=1, last=2**64 - 1)),
    "promise with a vote without ballot": pb.PeerMessage(
        promise=pb.Promise(ballot=BALLOT, first=1, accepted=[slot_entry(slot=1, entry=NOOP)])
    ),
    "promise with a decision without entry": pb.PeerMessage(
        promise=pb.Promise(ballot=BALLOT, first=1, decided=[slot_entry(slot=1)])
    ),
    "promise with damage in slot 2**64-1": pb.PeerMessage(
        promise=pb.Promise(ballot=BALLOT, first=1, unreadable=[1, 2**64 - 1])
    ),
    "accept without ballot": pb.PeerMessage(accept=pb.Accept(slot=1, entry=NOOP)),
    "accept in slot 0": pb.PeerMessage(accept=pb.Accept(ballot=BALLOT, entry=NOOP)),
    "accept in slot 2**64-1": pb.PeerMessage(accept=pb.Accept(ballot=BALLOT, slot=2**64 - 1, entry=NOOP)),
    "accept without entry": pb.PeerMessage(accept=pb.Accept(ballot=BALLOT, slot=1)),
    "accept with an entry without kind": pb.PeerMessage(
        accept=pb.Accept(ballot=BALLOT, slot=1, entry=pb.Entry(data=b"x"))
    ),
    "accept with an impossible configuration": pb.PeerMessage(
        accept=pb.Accept(
            ballot=BALLOT,
            slot=1,
            entry=pb.Entry(kind=pb.ENTRY_KIND_CONFIG, data=BAD_CONFIGURATION.SerializeToString()),
        )
    ),
    "accept with bytes for a configuration": pb.PeerMessage(
        accept=pb.Accept(ballot=BALLOT, slot=1, entry=pb.Entry(kind=pb.ENTRY_KIND_CONFIG, data=b"\xff"))
    ),
    "accept with watermark 2**64-1": pb.PeerMessage(
        accept=pb.Accept(ballot=BALLOT, slot=1, entry=NOOP, decided_through=2**64 - 1)
    ),
    "accepted without ballot": pb.PeerMessage(accepted=pb.Accepted(slots=[1])),
    "accepted in slot 0": pb.PeerMessage(accepted=pb.Accepted(ballot=BALLOT, slots=[4, 0])),
    "accepted in slot 2**64-1": pb.PeerMessage(accepted=pb.Accepted(ballot=BALLOT, slots=[2**64 - 1])),
    "nack without ballots": pb.PeerMessage(nack=pb.Nack()),
    "nack without promise": pb.PeerMessage(nack=pb.Nack(refused=BALLOT)),
    "decide without ballot": pb.PeerMessage(decide=pb.Decide(decided_through=4)),
    "heartbeat without promise": pb.PeerMessage(heartbeat=pb.Heartbeat(ballot=BALLOT)),
    "heartbeat of half a ballot": pb.PeerMessage(
        heartbeat=pb.Heartbeat(ballot=pb.Ballot(node=3), promised=BALLOT)
    ),
    "heartbeat reply without ballot": pb.PeerMessage(heartbeat_reply=pb.HeartbeatReply(round=2)),
    "catch-up from slot 0": pb.PeerMessage(catch_up=pb.CatchUp(last=3)),
    "catch-up through 2**64-1": pb.PeerMessage(catch_up=pb.CatchUp(first=1, last=2**64 - 1)),
    "catch-up reply without promise": pb.PeerMessage(catch_up_reply=pb.CatchUpReply()),
    "catch-up reply with slot 0": pb.PeerMessage(
        catch_up_reply=pb.CatchUpReply(promised=BALLOT, entries=[slot_entry(entry=NOOP)])
    ),
    "fetch of the snapshot of slot 2**64-1": pb.PeerMessage(fetch_snapshot=pb.FetchSnapshot(slot=2**64 - 1)),
    "fetch of a snapshot from 2**64-1": pb.PeerMessage(
        fetch_snapshot=pb.FetchSnapshot(slot=1, offset=2**64 - 1)
    ),
    "chunk of a snapshot without a slot": pb.PeerMessage(snapshot_chunk=pb.SnapshotChunk(size=1, data=b"x")),
    "chunk beyond the end of its snapshot": pb.PeerMessage(
        snapshot_chunk=pb.SnapshotChunk(slot=1, size=9, offset=8, data=b"xy")
    ),
    "chunk of 2**64-1 bytes": pb.PeerMessage(
        snapshot_chunk=pb.SnapshotChunk(slot=1, size=2**64 - 1, data=b"x")
    ),
    "no chunk at 2**64-1": pb.PeerMessage(snapshot_chunk=pb.SnapshotChunk(slot=1, offset=2**64 - 1)),
    "no digests": pb.PeerMessage(state_digest=pb.StateDigest()),
    "more digests than are kept": pb.PeerMessage(
        state_digest=pb.StateDigest(pairs=[digest_at(slot) for slot in range(1, 258)])
    ),
    "digest at slot 0": pb.PeerMessage(state_digest=pb.StateDigest(pairs=[digest_at(0)])),
    "digest at slot 2**64-1": pb.PeerMessage(state_digest=pb.StateDigest(pairs=[digest_at(2**64 - 1)])),
    "digest of 15 bytes": pb.PeerMessage(state_digest=pb.StateDigest(pairs=[digest_at(1, 15)])),
    "digests that descend": pb.PeerMessage(state_digest=pb.StateDigest(pairs=[digest_at(2), digest_at(1)])),
    "two digests of a slot": pb.PeerMessage(state_digest=pb.StateDigest(pairs=[digest_at(2), digest_at(2)])),
    "read reply at 2**64-1": pb.PeerMessage(read_reply=pb.ReadReply(read_id=1, index=2**64 - 1)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_no_server_sends_is_malformed(name: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_message(MALFORMED[name].SerializeToString())


def test_the_highest_numbers_are_taken() -> None:
    accept = Accept(Ballot(NUMBER_MAX, NUMBER_MAX), NUMBER_MAX, Noop(), NUMBER_MAX)
    assert decode_message(encode_message(accept)) == accept


@pytest.mark.parametrize(
    "message",
    [
        pb.PeerMessage(accepted=pb.Accepted(ballot=BALLOT, slots=[1, 2, 3])),
        pb.PeerMessage(heartbeat=pb.Heartbeat(ballot=BALLOT, promised=BALLOT, reach=[1, 2, 3])),
        pb.PeerMessage(forward=pb.Forward(frames=[b"a", b"b", b"c"])),
        pb.PeerMessage(
            promise=pb.Promise(
                ballot=BALLOT, first=1, accepted=[slot_entry(slot=1, ballot=BALLOT, entry=NOOP)] * 3
            )
        ),
        pb.PeerMessage(
            catch_up_reply=pb.CatchUpReply(promised=BALLOT, entries=[slot_entry(slot=1, entry=NOOP)] * 3)
        ),
    ],
    ids=lambda message: message.WhichOneof("message"),
)
def test_more_items_than_any_server_sends(message: pb.PeerMessage, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_message(message.SerializeToString())
    monkeypatch.setattr(codec, "ITEMS_MAX", 2)
    with pytest.raises(MalformedMessage, match="the most are 2"):
        decode_message(message.SerializeToString())


@pytest.mark.parametrize("kind", [5, 77, -1])
def test_an_entry_of_a_later_version_passes_through(kind: int) -> None:
    entry = pb.Entry(kind=kind, data=b"from the future")  # type: ignore[arg-type]
    accept = pb.PeerMessage(accept=pb.Accept(ballot=BALLOT, slot=1, entry=entry))
    with pytest.raises(UnknownEntry, match="Upgrade this server"):
        decode_message(accept.SerializeToString())


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = encode_message(Accepted(Ballot(1, 2), (3,))) + length_prefix(900, 4) + b"more"
    assert decode_message(later) == Accepted(Ballot(1, 2), (3,))


@given(st.binary(max_size=200))
def test_garbage_is_malformed_and_nothing_else(data: bytes) -> None:
    try:
        decode_message(data)
    except (MalformedMessage, UnknownEntry):
        pass


@given(messages, st.data())
def test_a_damaged_message_is_malformed_and_nothing_else(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode_message(message))
    if encoded:
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] ^= data.draw(st.integers(1, 255))
        del encoded[data.draw(st.integers(at, len(encoded))) :]
    try:
        decode_message(bytes(encoded))
    except (MalformedMessage, UnknownEntry):
        pass


def test_malformed_is_one_of_ours() -> None:
    assert issubclass(MalformedMessage, PaxosRsmError)
