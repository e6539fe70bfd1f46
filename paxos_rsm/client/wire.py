"""The messages whose encoding costs per command or per query, made by hand.

Everything else goes through the generated classes. These few are nothing but lengths in front of bytes that
exist already; to build them from parts is several times as fast as to fill a message and serialize it, and
what comes out is the same (tests/unit/client/test_wire.py holds it against the generated classes).

The numbers are those of session.proto and kv.proto: a tag is ``field number * 8 + wire type``, with wire type
0 for a varint and 2 for what has a length.
"""

__all__ = [
    "COMMAND_OVERHEAD_BYTES",
    "FRAME_HEAD_BYTES_MAX",
    "put_command",
    "read_message",
    "submit_message",
    "varint",
]

FRAME_HEAD_BYTES_MAX = 3 * 11
"""``session``, ``first_seq`` and ``received_below``: a tag and at most ten bytes each."""

COMMAND_OVERHEAD_BYTES = 6
"""What a command of less than 2**35 bytes takes in a frame beyond itself: a tag and its length."""

CLIENT_SUBMIT = b"\x12"
CLIENT_READ = b"\x1a"
SUBMIT_FRAME = b"\x0a"
FRAME_SESSION = b"\x08"
FRAME_FIRST_SEQ = b"\x10"
FRAME_RECEIVED_BELOW = b"\x18"
FRAME_COMMAND = b"\x22"
READ_ID = b"\x08"
READ_SERIALIZABLE = b"\x10\x01"
READ_REQUEST = b"\x1a"
READ_CLUSTER_ID = b"\x20"
COMMAND_PUT = b"\x12"
PUT_KEY = b"\x0a"
PUT_VALUE = b"\x12"
PUT_PREV_KV = b"\x20\x01"

SHORT_END = 0x800

_SHORT = [bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(SHORT_END)]


def varint(number: int) -> bytes:
    """``number`` (not negative) as protobuf writes it, seven bits a byte."""
    if number < SHORT_END:
        return _SHORT[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def put_command(key: bytes, value: bytes, prev_kv: bool) -> bytes:
    """A serialized ``KvCommand{put}`` of the common kind; commands.py makes those with a lease or flags."""
    put = PUT_KEY + varint(len(key)) + key
    if value:
        put += PUT_VALUE + varint(len(value)) + value
    if prev_kv:
        put += PUT_PREV_KV
    return COMMAND_PUT + varint(len(put)) + put


def submit_message(session: int, first_seq: int, received_below: int, commands: list[bytes]) -> bytes:
    """A serialized ``ClientMessage{submit}`` whose frame holds ``commands``."""
    parts = [
        FRAME_SESSION,
        varint(session),
        FRAME_FIRST_SEQ,
        varint(first_seq),
        FRAME_RECEIVED_BELOW,
        varint(received_below),
    ]
    for command in commands:
        parts += (FRAME_COMMAND, varint(len(command)), command)
    frame = b"".join(parts)
    head = SUBMIT_FRAME + varint(len(frame))
    return b"".join((CLIENT_SUBMIT, varint(len(head) + len(frame)), head, frame))


def read_message(read_id: int, serializable: bool, cluster_id: int, requests: list[bytes]) -> bytes:
    """A serialized ``ClientMessage{read}``."""
    parts = [READ_ID, varint(read_id)]
    if serializable:
        parts.append(READ_SERIALIZABLE)
    for request in requests:
        parts += (READ_REQUEST, varint(len(request)), request)
    if cluster_id:
        parts += (READ_CLUSTER_ID, varint(cluster_id))
    read = b"".join(parts)
    return b"".join((CLIENT_READ, varint(len(read)), read))
