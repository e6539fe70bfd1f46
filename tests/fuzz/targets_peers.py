"""What comes from other servers: messages, frames, pieces, the handshake."""

from random import Random
from typing import Any

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.entries import (
    configuration_from_pb,
    entry_from_kind,
    entry_from_pb,
    entry_to_kind,
    entry_to_pb,
)
from paxos_rsm.codec.messages import NUMBER_MAX, MalformedMessage, decode_message, encode_message
from paxos_rsm.errors import ConfigError, RefusedByCluster, UnknownEntry
from paxos_rsm.paxos.messages import Heartbeat, Message
from paxos_rsm.paxos.types import ConfigChange, Entry, join_frames, split_frames
from paxos_rsm.transport.describe import Description, decode_description, encode_description, join_identity
from paxos_rsm.transport.frames import (
    Assembler,
    Cutter,
    Packed,
    decode_frame,
    decode_hello,
    decode_reply,
    encode_hello,
    encode_hello_reply,
    encode_refusal_reply,
    pack,
)
from paxos_rsm.transport.handshake import TEXT_CHARS_MAX, Hello, PeerBook, Refusal, check_hello
from tests.fuzz import values
from tests.fuzz.target import Target, require

ASSEMBLED_BYTES_MAX = 4_096


# ---- messages ------------------------------------------------------------------------------------------------


def _check_message(message: Message) -> None:
    """What the rest of the server relies on: numbers below 2**63, and that it can be said again."""
    for name in ("slot", "first", "last", "decided_through", "compacted_through", "index"):
        number = getattr(message, name, 0)
        require(number is None or 0 <= number <= NUMBER_MAX, f"{name} is {number}")
    if not isinstance(message, Heartbeat) or len(message.reach) < 1_000:
        require(decode_message(encode_message(message)) == message, "it is another when it is said again")


def _make_message(rng: Random) -> tuple[Message, bytes]:
    message = values.message(rng)
    return message, encode_message(message)


def _decode_message(data: bytes) -> Message:
    message = decode_message(data)
    _check_message(message)
    return message


def _make_entry(rng: Random) -> tuple[Entry, bytes]:
    entry = values.entry(rng)
    return entry, entry_to_pb(entry).SerializeToString()


def _decode_entry(data: bytes) -> Entry:
    try:
        message = pb.Entry.FromString(data)
    except Exception:
        raise ConfigError("no Entry") from None
    entry = entry_from_pb(message)
    kind, rest = entry_to_kind(entry)
    require(entry_from_kind(kind, rest) == entry, "it is another when it is said again")
    if isinstance(entry, ConfigChange):
        entry.configuration.validate()
    return entry


def _make_configuration(rng: Random) -> tuple[Entry, bytes]:
    entry = ConfigChange(values.configuration(rng))
    return entry, entry_to_kind(entry)[1]


def _decode_configuration(data: bytes) -> Entry:
    entry = entry_from_kind(int(pb.ENTRY_KIND_CONFIG), data)
    require(isinstance(entry, ConfigChange), "a configuration is another entry")
    if isinstance(entry, ConfigChange):
        entry.configuration.validate()
        message = pb.Configuration.FromString(entry_to_kind(entry)[1])
        require(configuration_from_pb(message) == entry.configuration, "it is another when it is said again")
    return entry


def _make_batch(rng: Random) -> tuple[list[bytes], bytes]:
    frames = list(values.several(rng, values.blob, 6))
    return frames, join_frames(frames)


def _decode_batch(data: bytes) -> list[bytes]:
    frames = list(split_frames(data))
    require(join_frames(frames) == data, "the frames are not what the batch holds")
    return frames


# ---- frames --------------------------------------------------------------------------------------------------


def _make_frame(rng: Random) -> tuple[list[Message], bytes]:
    messages = list(values.several(rng, values.message, 4))
    return messages, b"".join([pack(message).data for message in messages])


def _decode_frame(data: bytes) -> list[Message]:
    messages = decode_frame(data, Assembler(ASSEMBLED_BYTES_MAX))
    for message in messages[:50]:
        _check_message(message)
    return messages


def _make_pieces(rng: Random) -> tuple[list[Message], bytes]:
    """Several frames of one stream, each after its length; some messages are cut into pieces."""
    messages: list[Message] = []
    frames: list[bytes] = []
    for at in range(rng.randint(1, 3)):
        message = values.message(rng)
        packed: Packed = pack(message)
        size = len(packed.data) - packed.body_at
        if not 0 < size <= ASSEMBLED_BYTES_MAX:
            continue
        messages.append(message)
        cutter = Cutter(packed, at + 1, rng.randint(size // 9 + 1, size + 1))
        while not cutter.done:
            frames.append(cutter.next_frame())
    return messages, join_frames(frames)


def _decode_pieces(data: bytes) -> list[Message]:
    assembler = Assembler(ASSEMBLED_BYTES_MAX)
    messages: list[Message] = []
    for frame in split_frames(data):
        messages += decode_frame(frame, assembler)
        kept = sum(map(len, assembler._parts))
        require(kept <= ASSEMBLED_BYTES_MAX, f"{kept} bytes are kept of a message of {ASSEMBLED_BYTES_MAX}")
    return messages


# ---- the handshake -------------------------------------------------------------------------------------------

_MINE = values.hello(Random(1))


def _check_hello(hello: Hello) -> None:
    for formed in (False, True):
        book = PeerBook({hello.member.member_id, _MINE.member.member_id})
        book.formed = formed
        book.hear(hello)
        found = check_hello(_MINE, hello, book)
        require(found is None or len(found.message) < 3 * TEXT_CHARS_MAX, "a refusal without an end")


def _make_hello(rng: Random) -> tuple[Hello, bytes]:
    hello = values.hello(rng)
    return hello, encode_hello(hello)


def _decode_hello(data: bytes) -> Hello:
    hello = decode_hello(data)
    _check_hello(hello)
    require(decode_hello(encode_hello(hello)) == hello, "it is another when it is said again")
    return hello


def _make_reply(rng: Random) -> tuple[Any, bytes]:
    if rng.random() < 0.5:
        hello = values.hello(rng)
        return hello, encode_hello_reply(hello)
    refusal = values.refusal(rng)
    return refusal, encode_refusal_reply(refusal)


def _decode_reply(data: bytes) -> Hello | Refusal:
    reply = decode_reply(data)
    if isinstance(reply, Refusal):
        require(len(reply.message) <= TEXT_CHARS_MAX, "a refusal without an end")
    else:
        _check_hello(reply)
    return reply


def _make_description(rng: Random) -> tuple[Description, bytes]:
    configuration = values.configuration(rng) if rng.random() < 0.8 else None
    cluster_id = values.number(rng) if configuration is None else configuration.cluster_id
    description = Description(cluster_id, configuration)
    return description, encode_description(description)


def _decode_description(data: bytes) -> Description:
    description = decode_description(data)
    require(
        decode_description(encode_description(description)) == description,
        "it is another when it is said again",
    )
    try:
        cluster_id, member_id = join_identity(description, "n1", "http://127.0.0.1:2380")
    except RefusedByCluster as error:
        require(len(str(error)) < 3 * TEXT_CHARS_MAX, "a refusal without an end")
    else:
        require(
            min(cluster_id, member_id) > 0 and max(cluster_id, member_id) <= NUMBER_MAX, "an id that is none"
        )
    return description


TARGETS = (
    Target(
        "peer-message",
        (
            "codec.messages:decode_message",
            "codec.messages:message_from_pb",
            "codec.entries:ballot_from_pb",
            "codec.changes:change_from_pb",
        ),
        _make_message,
        _decode_message,
        (MalformedMessage, UnknownEntry),
    ),
    Target(
        "peer-frame",
        ("transport.frames:decode_frame", "transport.frames:_parse_frame"),
        _make_frame,
        _decode_frame,
        (MalformedMessage, UnknownEntry),
    ),
    Target(
        "peer-pieces",
        ("transport.frames:decode_frame",),
        _make_pieces,
        _decode_pieces,
        (MalformedMessage, UnknownEntry, ValueError),
        is_joined=True,
        blows_up=False,
    ),
    Target(
        "peer-hello",
        (
            "transport.frames:decode_hello",
            "transport.handshake:hello_from_pb",
            "codec.entries:member_from_pb",
        ),
        _make_hello,
        _decode_hello,
        (MalformedMessage,),
    ),
    Target(
        "peer-reply",
        ("transport.frames:decode_reply", "transport.handshake:refusal_from_pb"),
        _make_reply,
        _decode_reply,
        (MalformedMessage,),
    ),
    Target(
        "peer-description",
        ("transport.describe:decode_description",),
        _make_description,
        _decode_description,
        (MalformedMessage,),
    ),
    Target(
        "entry",
        ("codec.entries:entry_from_pb", "codec.entries:entry_from_kind"),
        _make_entry,
        _decode_entry,
        (ConfigError, UnknownEntry),
    ),
    Target(
        "configuration",
        ("codec.entries:configuration_from_pb", "codec.entries:_configuration"),
        _make_configuration,
        _decode_configuration,
        (ConfigError,),
    ),
    Target("batch", ("paxos.types:split_frames",), _make_batch, _decode_batch, (ValueError,), is_proto=False),
)
