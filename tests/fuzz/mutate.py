"""From real bytes to bad ones: edits of bytes, and edits of protobuf fields with the lengths around them kept right.

Everything is drawn from a ``Random``, so a seed gives the same inputs everywhere.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, TypeAlias

__all__ = [
    "BLOWN_FIELDS",
    "INTERESTING",
    "Field",
    "blown",
    "edit_bytes",
    "edit_fields",
    "fields_of",
    "join_fields",
    "mutated",
]

INTERESTING = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x3FFF,
    0x4000,
    0xFFFF,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 2,
    (1 << 64) - 1,
)
"""Numbers at which a length, a slot or an enumeration goes wrong."""

BLOWN_FIELDS = 30_000
FIELDS_MAX = 40
DEPTH_MAX = 160

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Edit: TypeAlias = Callable[[Random, bytes, bytes], bytes]


# ---- bytes ---------------------------------------------------------------------------------------------------


def _flip(rng: Random, data: bytes, _other: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _set(rng: Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return (
        data[:at] + rng.choice((b"\0", b"\1", b"\x7f", b"\x80", b"\xff", rng.randbytes(1))) + data[at + 1 :]
    )


def _truncate(rng: Random, data: bytes, _other: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _drop(rng: Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 1 + min(16, len(data) - at)) :]


def _insert(rng: Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randint(0, len(data))
    new = rng.randbytes(rng.randint(1, 8)) if rng.random() < 0.7 else bytes(rng.randint(1, 600))
    return data[:at] + new + data[at:]


def _repeat(rng: Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randrange(len(data))
    part = data[at : at + rng.randint(1, 40)]
    if rng.random() < 0.05:
        return data[:at] + part[:1] * 4_000 + data[at:]  # brackets, say
    return data[:at] + part * rng.randint(2, 5) + data[at + len(part) :]


def _splice(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _number(rng: Random, data: bytes, _other: bytes) -> bytes:
    """Puts a number at which a length goes wrong over 2, 4 or 8 bytes, in either order."""
    size = rng.choice((2, 4, 4, 8))
    at = rng.randrange(len(data))
    number = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.randrange(len(data) + 9)
    order = "big" if rng.random() < 0.5 else "little"
    new = (number % (1 << 8 * size)).to_bytes(size, "big" if order == "big" else "little")
    return data[:at] + new + data[at + size :]


_BYTE_EDITS: tuple[Edit, ...] = (_flip, _flip, _set, _truncate, _drop, _insert, _repeat, _splice, _number)


def edit_bytes(rng: Random, data: bytes, other: bytes) -> bytes:
    """One edit that knows nothing of what the bytes mean."""
    return rng.choice(_BYTE_EDITS)(rng, data, other) if data else rng.randbytes(rng.randint(0, 12))


# ---- protobuf ------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """One field of a message: an int where the wire type is VARINT, else the bytes of the value."""

    number: int
    wire_type: int
    value: int | bytes


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends. Raises IndexError, ValueError."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def fields_of(data: bytes) -> list[Field] | None:
    """The fields of a serialized message; None where it is none, or has too many to be edited one by one."""
    fields: list[Field] = []
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _read_varint(data, at)
            wire_type = tag & 7
            if wire_type == VARINT:
                value: int | bytes
                value, at = _read_varint(data, at)
            else:
                size = 8 if wire_type == FIXED64 else 4
                if wire_type == BYTES:
                    size, at = _read_varint(data, at)
                elif wire_type not in (FIXED32, FIXED64):
                    return None
                if at + size > end:
                    return None
                value, at = data[at : at + size], at + size
            if tag >> 3 == 0 or len(fields) == FIELDS_MAX:
                return None
            fields.append(Field(tag >> 3, wire_type, value))
    except (IndexError, ValueError):
        return None
    return fields


def join_fields(fields: Sequence[Field]) -> bytes:
    """The bytes of a message."""
    return b"".join([_joined(field) for field in fields])


def _joined(field: Field) -> bytes:
    tag = varint(field.number << 3 | field.wire_type)
    value = field.value
    if isinstance(value, int):
        return tag + varint(value)
    return tag + (varint(len(value)) if field.wire_type == BYTES else b"") + value


def edit_fields(rng: Random, data: bytes, other: bytes, depth: int = 0) -> bytes:
    """One edit of a field, here or in a message within; an edit of bytes where there are no fields."""
    fields = fields_of(data)
    if fields is None or (not fields and depth):
        return edit_bytes(rng, data, other)
    if not fields:
        return join_fields([_new_field(rng)])
    at = rng.randrange(len(fields))
    field = fields[at]
    if isinstance(field.value, bytes) and field.wire_type == BYTES and depth < 8 and rng.random() < 0.65:
        fields[at] = field._replace(value=edit_fields(rng, field.value, other, depth + 1))
    else:
        fields[at : at + 1] = _edited(rng, field, fields, other)
    return join_fields(fields)


def _edited(rng: Random, field: Field, fields: list[Field], other: bytes) -> list[Field]:
    """What stands instead of a field."""
    match rng.randrange(9):
        case 0:
            return []
        case 1:
            return [field] * rng.randint(2, 4)  # of a field that is single, the last counts
        case 2:
            return [field._replace(number=rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 15, 64, 99, (1 << 29) - 1)))]
        case 3:
            return [field, rng.choice(fields)]
        case 4:
            return [field, rng.choice(fields_of(other) or [_new_field(rng)])]
        case 5:
            return [field, _new_field(rng)]
        case 6 if isinstance(field.value, bytes):
            return [_nested(field, rng.choice((2, 3, 33, 99, 101, DEPTH_MAX)))]
        case _:
            if isinstance(field.value, int):
                near = field.value + rng.choice((-1, 1))
                return [field._replace(value=rng.choice((*INTERESTING, near)) % (1 << 64))]
            return [_new_field(rng)._replace(number=field.number)]


def _new_field(rng: Random) -> Field:
    number = rng.randint(1, 16)
    match rng.randrange(5):
        case 0 | 1:
            return Field(number, VARINT, rng.choice(INTERESTING))
        case 2:
            return Field(number, FIXED64, rng.randbytes(8))
        case 3:
            return Field(number, BYTES, b"")
        case _:
            return Field(number, BYTES, rng.randbytes(rng.randint(0, 12)))


def _nested(field: Field, depth: int) -> Field:
    """The field within itself, ``depth`` times."""
    for _ in range(depth):
        field = field._replace(wire_type=BYTES, value=_joined(field))
    return field


def blown(rng: Random, data: bytes) -> bytes:
    """A field, here or in a message within, many thousand times: lists that no honest sender makes."""
    fields = fields_of(data)
    if not fields:
        return data * (BLOWN_FIELDS // (len(data) + 1) + 1)
    at = rng.randrange(len(fields))
    field = fields[at]
    inner = fields_of(field.value) if isinstance(field.value, bytes) else None
    if inner and isinstance(field.value, bytes) and rng.random() < 0.7:
        fields[at] = field._replace(value=blown(rng, field.value))
        return join_fields(fields)
    if rng.random() < 0.5:
        field = field._replace(wire_type=BYTES, value=b"")
    fields[at : at + 1] = [field] * min(BLOWN_FIELDS, 1 + (1 << 20) // (len(_joined(field)) + 1))
    return join_fields(fields)


# ---- all of it -----------------------------------------------------------------------------------------------


def mutated(rng: Random, data: bytes, other: bytes, *, is_proto: bool) -> bytes:
    """One to four edits of ``data``; ``other`` is a second real input, to splice with."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        edit = edit_fields if is_proto and rng.random() < 0.6 else edit_bytes
        data = edit(rng, data, other)
    return data
