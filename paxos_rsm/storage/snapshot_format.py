"""One snapshot file: its bytes, and reading them without believing any that changed.

    magic, 8 bytes | u32 length | u32 CRC-32 of all three | SnapshotHeader of storage.proto, so many bytes
    chunk, again and again:   u32 length | u32 kind | u32 CRC-32 | data, at most 256 KiB
    end, a chunk as well:     of kind 3, with u64 bytes before it | u64 slices | SHA-256 of all bytes before it

Little-endian. A slice, as the state machine gave it, is one chunk of kind 2, or several of which all but the last are
of kind 1. The checksums are chained: each is seeded with the one before, the first with the header's, so a chunk that
is valid, but not of this file or not in this place, is found at once and not only by the hash at the end. Nothing may
follow the end. Hence the first so many valid chunks of a file that is not whole yet are known to be its first ones, and
a transfer that was cut short goes on after them.

Checksums and hashes of whole chunks give up the interpreter lock (``zlib`` and ``hashlib`` do, for more than a few
KiB), so that a thread that writes or reads a snapshot never holds it for more than some tens of microseconds.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from google.protobuf.message import DecodeError

from paxos_rsm._proto import storage_pb2
from paxos_rsm.codec.entries import configuration_from_pb, configuration_to_pb
from paxos_rsm.codec.messages import NUMBER_MAX
from paxos_rsm.errors import ConfigError, SnapshotDamaged
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.types import Slot
from paxos_rsm.storage.files import File

__all__ = [
    "CHUNK_BYTES_MAX",
    "END_BYTES",
    "SnapshotEncoder",
    "SnapshotMeta",
    "SnapshotScan",
    "decode_header",
    "encode_header",
    "has_end",
]

CHUNK_BYTES_MAX = 256 << 10
HEADER_BYTES_MAX = 16 << 20
"""Far above a configuration of any cluster; a longer one is damage, and is not read into memory."""

_MAGIC = b"\xd7paxsnp1"
_HEAD = struct.Struct("<8sI")
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<II")
_CHUNK_HEAD = struct.Struct("<III")
_END = struct.Struct("<QQ32s")

_MORE, _SLICE, _LAST = 1, 2, 3

END_BYTES = _CHUNK_HEAD.size + _END.size


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """What a snapshot is of: the state as of ``slot``, and the configuration that governs the next one."""

    cluster_id: int
    slot: Slot
    changed_in: Slot
    """The slot that decided the configuration."""
    configuration: Configuration


class _Head(NamedTuple):
    """``end`` is where the first chunk starts, ``crc`` what its checksum is seeded with."""

    meta: SnapshotMeta
    end: int
    crc: int


def encode_header(meta: SnapshotMeta) -> tuple[bytes, int]:
    """The first bytes of a file, and their checksum."""
    payload = storage_pb2.SnapshotHeader(
        cluster_id=meta.cluster_id,
        slot=meta.slot,
        changed_in=meta.changed_in,
        configuration=configuration_to_pb(meta.configuration),
    ).SerializeToString(deterministic=True)
    head = _HEAD.pack(_MAGIC, len(payload))
    crc = crc32(payload, crc32(head))
    return head + _CRC.pack(crc) + payload, crc


def decode_header(file: File) -> _Head | None:
    """The header of an open file; None where it does not hold, or says what no server writes. Raises OSError."""
    head = file.pread(_HEAD.size + _CRC.size, 0)
    if len(head) < _HEAD.size + _CRC.size:
        return None
    magic, length = _HEAD.unpack_from(head)
    if magic != _MAGIC or length > HEADER_BYTES_MAX:
        return None
    payload = file.pread(length, len(head))
    crc = crc32(payload, crc32(head[: _HEAD.size]))
    if len(payload) < length or _CRC.unpack_from(head, _HEAD.size) != (crc,):
        return None
    try:
        message = storage_pb2.SnapshotHeader.FromString(payload)
        configuration = configuration_from_pb(message.configuration)
    except (DecodeError, ConfigError):
        return None
    if not 0 < message.cluster_id <= NUMBER_MAX or not 0 < message.changed_in <= message.slot <= NUMBER_MAX:
        return None
    meta = SnapshotMeta(message.cluster_id, message.slot, message.changed_in, configuration)
    return _Head(meta, len(head) + length, crc)


class SnapshotEncoder:
    """The chunks of one file, whose header comes first; nothing here writes."""

    def __init__(self, meta: SnapshotMeta) -> None:
        self.header, self._crc = encode_header(meta)
        self._sha = hashlib.sha256(self.header)
        self._bytes = len(self.header)
        self._slices = 0

    def slice(self, data: bytes) -> Iterator[bytes]:
        """The bytes that one slice becomes, in pieces."""
        self._slices += 1
        last = max(0, len(data) - 1) // CHUNK_BYTES_MAX
        for at in range(last + 1):
            part = data[at * CHUNK_BYTES_MAX : (at + 1) * CHUNK_BYTES_MAX]
            yield from self._chunk(_SLICE if at == last else _MORE, part)

    def end(self) -> bytes:
        """The bytes after the last slice."""
        return b"".join(self._chunk(_LAST, _END.pack(self._bytes, self._slices, self._sha.digest())))

    def _chunk(self, kind: int, data: bytes) -> tuple[bytes, bytes]:
        head = _CHUNK.pack(len(data), kind)
        self._crc = crc32(data, crc32(head, self._crc))
        head += _CRC.pack(self._crc)
        self._sha.update(head)
        self._sha.update(data)
        self._bytes += len(head) + len(data)
        return head, data


def has_end(file: File, size: int) -> bool:
    """Whether a file of ``size`` bytes seems to end as one that is whole. Looks at its last bytes only."""
    if size < END_BYTES:
        return False
    data = file.pread(END_BYTES, size - END_BYTES)
    length, kind, _ = _CHUNK_HEAD.unpack_from(data)
    total, _, _ = _END.unpack_from(data, _CHUNK_HEAD.size)
    return bool((length, kind, total) == (_END.size, _LAST, size - END_BYTES))


class SnapshotScan:
    """One pass over an open file. ``offset`` is where the bytes end that hold so far; ``path`` is for errors.

    Raises SnapshotDamaged, which names the file and the offset, and OSError.
    """

    def __init__(self, file: File, path: str) -> None:
        self._file = file
        self._path = path
        self.offset = 0
        self.slices_read = 0
        head = decode_header(file)
        if head is None:
            raise self._damaged("its header does not match its checksum")
        self.meta = head.meta
        self._crc = head.crc
        self._sha = hashlib.sha256(file.pread(head.end, 0))
        self.offset = head.end

    def slices(self) -> Iterator[bytes]:
        """The slices, each as it was given; the last has been checked with all before it once this ends."""
        parts: list[bytes] = []
        while True:
            kind, data = self._next_chunk(is_open=bool(parts))
            if kind == _LAST:
                return
            parts.append(data)
            if kind == _SLICE:
                self.slices_read += 1
                yield parts[0] if len(parts) == 1 else b"".join(parts)
                parts = []

    def check(self) -> None:
        """Reads what is left, and keeps nothing."""
        kind = 0
        while kind != _LAST:
            is_open = kind == _MORE
            kind, _ = self._next_chunk(is_open)
            self.slices_read += kind == _SLICE

    def _next_chunk(self, is_open: bool) -> tuple[int, bytes]:
        """Kind and data of the chunk at ``offset``; ``is_open``: a slice goes on there."""
        at = self.offset
        head = self._file.pread(_CHUNK_HEAD.size, at)
        if len(head) < _CHUNK_HEAD.size:
            raise self._damaged("it is cut short")
        length, kind, crc = _CHUNK_HEAD.unpack(head)
        if length > CHUNK_BYTES_MAX or kind not in (_MORE, _SLICE, _LAST):
            raise self._damaged("no chunk stands there")
        data = self._file.pread(length, at + len(head))
        if len(data) < length:
            raise self._damaged("it is cut short")
        if crc != crc32(data, crc32(head[: _CHUNK.size], self._crc)):
            raise self._damaged("a chunk does not match its checksum")
        if kind == _LAST:
            self._check_end(data, is_open)
        self._sha.update(head)
        self._sha.update(data)
        self._crc = crc
        self.offset = at + len(head) + length
        return kind, data

    def _check_end(self, data: bytes, is_open: bool) -> None:
        expected = _END.pack(self.offset, self.slices_read, self._sha.digest())
        if is_open or data != expected:
            raise self._damaged("what stands before its end does not add up to what its end says")
        if self._file.size() != self.offset + END_BYTES:
            raise self._damaged("it goes on after its end")

    def _damaged(self, why: str) -> SnapshotDamaged:
        return damaged(self._path, self.offset, why)


def damaged(path: str, offset: int, why: str) -> SnapshotDamaged:
    """The error that names a damaged snapshot."""
    error = SnapshotDamaged(
        f"the snapshot {path} is damaged at byte {offset}: {why}. It is not used: an older snapshot, or that of "
        "another member, has the state"
    )
    error.offset, error.why = offset, why
    return error
