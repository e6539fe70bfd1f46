"""One record of the log: its bytes, and how a torn one is told from a damaged one.

A record starts at a multiple of 8 bytes and takes a multiple of 8. Little-endian::

     0  u32  magic                     no byte of it is zero
     4  u32  length of the payload, in bytes
     8  u64  number                    1, 2, 3...: dense over the whole log
    16  u64  durable_through           number of the last record known to be synced when this one was written
    24  u32  previous_crc              the checksum of the record before (of the first: the salted seed)
    28  u32  flags                     bits 0-7: the mask of the payload, 0 for none; bit 8: a mark, which says nothing;
                                       bits 16-23: the kind of what it says (payloads.py)
    32  u64  slot
    40  u64  round of the ballot
    48  u64  node of the ballot        each of the three is 0 where the kind has none
    56  u32  crc of bytes 0..55        so that all this can be believed, whatever became of the payload
    60  u32  end of the header         no byte of it is zero
    64       payload, then 0-7 bytes of padding
     .  u32  crc of bytes 0..55, payload and padding
     .  u32  end of the record         no byte of it is zero

That is version 2. Version 1 is read, and not written any more: its header ends after the flags, with the crc of bytes
0..31 at 32 and the payload at 40, which says all that the record does.

Both checksums are CRC-32 seeded with the log's salt, a secret that was drawn with it: a client cannot write a value
that would be taken for a record. CRC-32 finds every error burst of up to 32 bits, so every single flipped bit.

*Torn or damaged.* Only what was written since the last sync can be torn, and what a torn write leaves in a
preallocated file is zeros: from some byte on, or in whole 512-byte sectors. A record is laid out so that none of its
parts can be zero when it was written whole:

- its first part, up to a sector boundary, contains the magic; its last contains the end of the record. All lies at
  multiples of 8, so neither is ever split;
- if the boundary goes through the header, what follows contains the end of the header;
- a sector between is all payload and padding, and no payload of that length is written with 128 zero bytes in a
  row: one that has them is masked, by exclusive or with a pseudo-random stream drawn from the salt.

Hence a record whose checksum fails although its first and last bytes and each of its parts are non-zero was
written whole and has changed since: *damaged*. One flipped bit never makes a byte of the magic or of the ends zero,
nor empties a part, so it is never taken for a tear. The converse is weaker: a disk that zeroes a whole sector of the
very last group, after it was synced, leaves what a tear leaves; any later record tells (see recovery.py).

*What a damaged record still says.* Where only the payload or what follows it has changed, the header tells which slot
is lost and that a vote of which ballot was given there (:meth:`RecordFormat.head`); a promise has no payload to lose.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.storage.files import SECTOR_BYTES
from paxos_rsm.storage.headers import VERSION

__all__ = ["MARK", "NOTHING", "PAYLOAD_BYTES_MAX", "Head", "Record", "RecordFormat", "Row", "record_bytes"]

PAYLOAD_BYTES_MAX = 32 << 20
"""The longest payload. A record much longer than a segment gets a segment of its own."""

MARK = 0x100
"""The flag of a mark: a record without payload, which proves by its ``durable_through`` what lies before it."""

_MASK = 0xFF
_KIND_SHIFT = 16
_KNOWN_FLAGS = {1: MARK | _MASK, 2: MARK | _MASK | 0xFF << _KIND_SHIFT}

_MAGIC = 0xE67852D3
_HEADER_END = 0x9B5DA7C3
_RECORD_END = 0xB56ED99D
_MAGIC_BYTES = _MAGIC.to_bytes(4, "little")

_FIELDS = {1: struct.Struct("<IIQQII"), 2: struct.Struct("<IIQQIIQQQ")}
_TWO = struct.Struct("<II")
_TRAILER_BYTES = _TWO.size
_HEADER_BYTES = _FIELDS[VERSION].size + _TWO.size
_PADDING = tuple(b"\xa6" * count for count in range(8))

_ZERO_RUN = bytes(SECTOR_BYTES // 4)
_MASKED_BYTES_MIN = SECTOR_BYTES - 7  # shorter, and with its padding it cannot fill a sector
_MASK_BLOCK_BYTES = 4096
_CRC_PIECE_BYTES = 5 << 10


class Row(NamedTuple):
    """What a record says; payloads.py gives it meaning. In version 1 the payload says it all, and the rest is 0."""

    kind: int
    slot: int
    round: int
    node: int
    payload: bytes


NOTHING = Row(0, 0, 0, 0, b"")
"""What a mark says."""


class Head(NamedTuple):
    """The header of a record, whose own checksum holds, at ``start``. ``end``: where the record ends."""

    number: int
    durable_through: int
    previous_crc: int
    flags: int
    slot: int
    round: int
    node: int
    crc: int
    length: int
    start: int
    end: int

    @property
    def is_mark(self) -> bool:
        """Whether the record says nothing, but that all before it is durable."""
        return bool(self.flags & MARK)

    @property
    def kind(self) -> int:
        """That of the row."""
        return self.flags >> _KIND_SHIFT


class Record(NamedTuple):
    """A record whose checksums hold. ``end`` is where the next one starts."""

    number: int
    durable_through: int
    previous_crc: int
    is_mark: bool
    row: Row
    crc: int
    end: int


def record_bytes(payload_bytes: int) -> int:
    """How many bytes a record with a payload of this length takes."""
    return _HEADER_BYTES + payload_bytes + -payload_bytes % 8 + _TRAILER_BYTES


class RecordFormat:
    """Writes, reads and judges the records of one log, whose ``salt`` (64 bits) seeds its checksums.

    ``version`` is that of the segment that is read; only the newest is written.
    """

    def __init__(self, salt: int, version: int = VERSION) -> None:
        self._salt = salt.to_bytes(8, "little")
        self.seed = crc32(self._salt)
        self._fields = _FIELDS[version]
        self._known_flags = _KNOWN_FLAGS[version]
        self._header_bytes = self._fields.size + _TWO.size
        self._masks: dict[int, bytes] = {}

    def encode(
        self,
        parts: list[bytes],
        row: Row,
        number: int,
        durable_through: int,
        previous_crc: int,
        flags: int = 0,
    ) -> int:
        """Appends a record to ``parts``; :func:`record_bytes` says how long it is. Returns its checksum."""
        kind, slot, round_, node, payload = row
        flags |= kind << _KIND_SHIFT
        length = len(payload)
        if length >= _MASKED_BYTES_MIN and _ZERO_RUN in payload:
            payload, mask = self._masked(payload)
            flags |= mask
        fields = _FIELDS[VERSION].pack(
            _MAGIC, length, number, durable_through, previous_crc, flags, slot, round_, node
        )
        header_crc = crc32(fields, self.seed)
        padding = _PADDING[-length % 8]
        crc = crc32(padding, _crc32_in_one_go(payload, header_crc))
        parts.append(fields + _TWO.pack(header_crc, _HEADER_END))
        parts.append(payload)
        parts.append(padding + _TWO.pack(crc, _RECORD_END))
        return crc

    def read(self, data: bytes, at: int) -> Record | None:
        """The record that starts at ``at``; None where its checksums or its bounds do not hold."""
        head = self.head(data, at)
        if head is None or head.end > len(data):
            return None
        number, durable_through, previous_crc, flags, slot, round_, node, header_crc, length, _, end = head
        start = at + self._header_bytes
        crc, record_end = _TWO.unpack_from(data, end - _TRAILER_BYTES)
        if record_end != _RECORD_END or crc != crc32(
            memoryview(data)[start : end - _TRAILER_BYTES], header_crc
        ):
            return None
        payload = data[start : start + length]
        if flags & _MASK:
            payload = self._mask(payload, flags & _MASK)
        row = Row(flags >> _KIND_SHIFT, slot, round_, node, payload)
        return Record(number, durable_through, previous_crc, bool(flags & MARK), row, crc, end)

    def damage(self, data: bytes, at: int) -> str | None:
        """Why the bytes at ``at``, which are no valid record, are damaged; None where a torn write explains them.

        ``data`` is a whole segment, so that offsets are those of the file and sectors can be told.
        """
        end = at + self._header_bytes
        if end > len(data) or _lacks_a_part(data, at, end):
            return None
        head = self.head(data, at)
        if head is None:
            return "its header was written whole, and does not match its checksum any more"
        if head.end > len(data):
            return "it is longer than its segment"
        if _lacks_a_part(data, at, head.end):
            return None
        return "it was written whole, and does not match its checksum any more"

    def later(self, data: bytes, at: int, number: int) -> Iterator[tuple[int, Record]]:
        """The valid records with a number above ``number`` that start after ``at``, each with its offset."""
        while (at := data.find(_MAGIC_BYTES, at + 1)) >= 0:
            if at % 8 == 0 and (record := self.read(data, at)) is not None and record.number > number:
                yield at, record

    def head(self, data: bytes, at: int) -> Head | None:
        """The header at ``at``, where it is sound. Nothing is said of the record's payload, nor of its end."""
        if at + self._header_bytes > len(data):
            return None
        size = self._fields.size
        magic, length, number, durable_through, previous_crc, flags, *row = self._fields.unpack_from(data, at)
        header_crc, header_end = _TWO.unpack_from(data, at + size)
        if (
            magic != _MAGIC
            or header_end != _HEADER_END
            or length > PAYLOAD_BYTES_MAX
            or flags & ~self._known_flags
            or header_crc != crc32(data[at : at + size], self.seed)
        ):
            return None
        slot, round_, node = row or (0, 0, 0)
        end = at + self._header_bytes + length + -length % 8 + _TRAILER_BYTES
        return Head(
            number,
            durable_through,
            previous_crc,
            flags,
            slot,
            round_,
            node,
            header_crc,
            length,
            at,
            end,
        )

    def stored_crc(self, data: bytes, head: Head) -> int:
        """The checksum that stands at the end of a record, be it right or not."""
        return int(_TWO.unpack_from(data, head.end - _TRAILER_BYTES)[0])

    def _masked(self, payload: bytes) -> tuple[bytes, int]:
        """The payload without long runs of zeros, and the mask that does it: the first, but for a miracle."""
        for mask in range(1, _MASK + 1):
            masked = self._mask(payload, mask)
            if _ZERO_RUN not in masked:
                return masked, mask
        raise InvariantViolation(f"a payload of {len(payload)} bytes has a run of zeros under every mask")

    def _mask(self, payload: bytes, mask: int) -> bytes:
        block = self._masks.get(mask)
        if block is None:
            block = hashlib.shake_128(self._salt + bytes([mask])).digest(_MASK_BLOCK_BYTES)
            self._masks[mask] = block
        length = len(payload)
        stream = (block * (length // _MASK_BLOCK_BYTES + 1))[:length]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(stream, "little")).to_bytes(
            length, "little"
        )


def _crc32_in_one_go(data: bytes, value: int) -> int:
    """CRC-32 without giving up the interpreter lock.

    ``zlib.crc32`` gives it up for more than 5 KiB. To win it back from a busy event loop can take milliseconds
    (``sys.getswitchinterval``), which is more than the checksum of the longest entry does.
    """
    if len(data) <= _CRC_PIECE_BYTES:
        return crc32(data, value)
    view = memoryview(data)
    for at in range(0, len(data), _CRC_PIECE_BYTES):
        value = crc32(view[at : at + _CRC_PIECE_BYTES], value)
    return value


def _lacks_a_part(data: bytes, start: int, end: int) -> bool:
    """Whether ``data[start:end]`` starts or ends with a zero byte, or is zero all through one sector's part of it."""
    if data[start] == 0 or data[end - 1] == 0:
        return True
    while start < end:
        part_end = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if data.count(0, start, part_end) == part_end - start:
            return True
        start = part_end
    return False
