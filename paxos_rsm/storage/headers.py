"""What stands at the head of a segment file, and how segments are named.

A segment is a file of fixed length, allocated and zero when it is made::

        0   header, 56 bytes: who the log belongs to, and which record comes first
     4096   seal, 16 bytes: zero while this is the last segment; "goes on in segment n" once that one is durable
     8192   records, one after the other; then zeros

Header and seal stand in blocks of their own, so that nothing written later touches the header again. A segment gets its
name by a rename, after its header is durable, so under that name a header that does not hold is always damage. The
seal is what tells that a last segment is missing: every other one is missed by its number.
"""

import struct
from typing import NamedTuple
from zlib import crc32

__all__ = [
    "HEADER_BYTES",
    "RECORDS_START",
    "SEAL_BYTES",
    "SEAL_START",
    "VERSION",
    "SegmentHeader",
    "decode_header",
    "encode_header",
    "encode_seal",
    "segment_name",
    "segment_sequence",
]

_HEADER = struct.Struct("<8sQQQQQI")
_CRC = struct.Struct("<I")
_SEAL = struct.Struct("<8sQ")

VERSION = 2
"""Of the records in a segment that is made now."""
_MAGICS = {1: b"\xd7paxlog1", 2: b"\xd7paxlog2"}
_VERSIONS = {magic: version for version, magic in _MAGICS.items()}
_SEAL_MAGIC = b"\xd7goes on"

HEADER_BYTES = _HEADER.size + _CRC.size
SEAL_START = 4096
SEAL_BYTES = _SEAL.size
RECORDS_START = 8192

_SUFFIX = ".log"
_DIGITS = 16


class SegmentHeader(NamedTuple):
    """Who a segment belongs to and where it stands in the log.

    ``sequence`` counts segments from 1, ``capacity`` is the length of the file in bytes, ``owner`` the incarnation of
    the member, ``salt`` 64 random bits of the log, ``first_number`` the number of its first record, ``previous_crc``
    the checksum of the record before that, ``version`` the format of the records (records.py).
    """

    sequence: int
    capacity: int
    owner: int
    salt: int
    first_number: int
    previous_crc: int
    version: int = VERSION


def encode_header(header: SegmentHeader) -> bytes:
    """The header's bytes."""
    fields = _HEADER.pack(_MAGICS[header.version], *header[:-1])
    return fields + _CRC.pack(crc32(fields))


def decode_header(data: bytes) -> SegmentHeader | None:
    """The header in the first bytes of ``data``; None where it does not hold."""
    if len(data) < HEADER_BYTES:
        return None
    magic, *fields = _HEADER.unpack_from(data)
    version = _VERSIONS.get(magic)
    if version is None or _CRC.unpack_from(data, _HEADER.size) != (crc32(data[: _HEADER.size]),):
        return None
    return SegmentHeader(*fields)._replace(version=version)


def encode_seal(next_sequence: int) -> bytes:
    """The seal that says in which segment the log goes on. Any part of it says that it does go on."""
    return _SEAL.pack(_SEAL_MAGIC, next_sequence)


def segment_name(sequence: int) -> str:
    """The file name of a segment: names sort as the segments do."""
    return f"{sequence:0{_DIGITS}d}{_SUFFIX}"


def segment_sequence(name: str) -> int | None:
    """The segment that a file name stands for; None for any other file."""
    digits = name.removesuffix(_SUFFIX)
    if name == digits or len(digits) != _DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)
