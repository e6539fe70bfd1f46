"""A backup: the state of a state machine, and nothing else, as one file that travels.

    head (512 bytes) | slices | zero bytes to the next 512 | SHA-256 of all before

The head is ``paxos_rsm snapshot 2`` and, on the next line, a JSON object (:class:`BackupHead`), then spaces and a
newline. A slice, as the state machine gave it, is a u32 length and so many bytes; after the last one comes a length of
END. Little-endian. Padded, because etcd's tools take a file for complete only where it has 32 bytes after a multiple
of 512. In version 1 the slices stand there without lengths: it can be restored into the key-value store, which does
not care how its snapshot is cut.

What is *not* in it: sessions, votes, promises, members, incarnations. A session is a promise of one cluster, named
by a slot of its log; in another log that number would be somebody else's (docs/adr). Hence a backup is of a state, and
can found any cluster.

It differs from the snapshots of a data directory (snapshot_format.py), which hold sessions and the configuration, name
a slot and are the business of one cluster alone.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from paxos_rsm.errors import IdentityMismatch, SnapshotDamaged
from paxos_rsm.storage.files import File

__all__ = [
    "BLOCK_BYTES",
    "CHECKSUM_BYTES",
    "END",
    "HEAD_BYTES",
    "SLICE_HEAD",
    "Backup",
    "BackupHead",
    "check_backup",
    "encode_head",
    "padding",
    "read_slices",
]

HEAD_BYTES = 512
BLOCK_BYTES = 512
CHECKSUM_BYTES = hashlib.sha256().digest_size

SLICE_HEAD = struct.Struct("<I")
END = SLICE_HEAD.pack(0xFFFF_FFFF)
_END_LENGTH = 0xFFFF_FFFF

_MAGIC = b"paxos_rsm snapshot "
_VERSION = 2
_READABLE = (1, _VERSION)
_READ_BYTES = 1 << 20
_NAME_CHARS_MAX = 200
_NUMBER_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class BackupHead:
    """What a backup says of itself. The ids are those of the cluster and the server that it came from."""

    bytes: int
    """Of the slices, their lengths and the END among them."""
    cluster_id: int
    member_id: int
    applied_slot: int
    revision: int
    """Of the key-value store; 0 of another state machine."""
    machine: str
    """``module:class`` of the state machine, cut off after 200 characters."""
    keys: int | None = None
    """That exist in the key-value store; None where nobody counted."""
    version: int = _VERSION


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup file that was read whole, and holds."""

    path: str
    size: int
    head: BackupHead
    sha256: str
    """The checksum at its end, in hexadecimal: what tells this backup from every other."""


def encode_head(head: BackupHead) -> bytes:
    """The first 512 bytes of a file."""
    told: dict[str, Any] = {**asdict(head), "machine": head.machine[:_NAME_CHARS_MAX]}
    del told["version"]
    text = json.dumps(told, ensure_ascii=True)
    while (
        len(text) >= HEAD_BYTES - len(_MAGIC) - 3
    ):  # a name in letters that JSON writes as six characters each
        told["machine"] = told["machine"][: len(told["machine"]) // 2]
        text = json.dumps(told, ensure_ascii=True)
    return (_MAGIC + b"%d\n" % _VERSION + text.encode()).ljust(HEAD_BYTES - 1) + b"\n"


def padding(state_bytes: int) -> bytes:
    """The zero bytes between the state and the checksum."""
    return bytes(-state_bytes % BLOCK_BYTES)


def check_backup(file: File, path: str) -> Backup:
    """Reads a whole backup, and keeps nothing of it.

    Raises SnapshotDamaged, which names the file, IdentityMismatch where a newer version wrote it, and OSError.
    """
    head = _decode_head(file.pread(HEAD_BYTES, 0), path)
    size = file.size()
    expected = HEAD_BYTES + head.bytes + len(padding(head.bytes)) + CHECKSUM_BYTES
    if size != expected:
        raise _damaged(
            path, f"it has {size} bytes, and its head speaks of {expected}: it was cut or added to"
        )
    hashed = hashlib.sha256()
    for at in range(0, size - CHECKSUM_BYTES, _READ_BYTES):
        hashed.update(file.pread(min(_READ_BYTES, size - CHECKSUM_BYTES - at), at))
    if hashed.digest() != file.pread(CHECKSUM_BYTES, size - CHECKSUM_BYTES):
        raise _damaged(path, "it does not match the checksum at its end")
    return Backup(path, size, head, hashed.hexdigest())


def read_slices(file: File, backup: Backup) -> Iterator[bytes]:
    """The slices of a backup that has been checked. Raises SnapshotDamaged, also on the way, and OSError.

    All of them have been there once this ends: a file that was changed since it was checked may show only here.
    """
    at, end = HEAD_BYTES, HEAD_BYTES + backup.head.bytes
    if backup.head.version == 1:
        for start in range(at, end, _READ_BYTES):
            yield file.pread(min(_READ_BYTES, end - start), start)
        return
    while True:
        head = file.pread(SLICE_HEAD.size, at)
        at += SLICE_HEAD.size
        length = SLICE_HEAD.unpack(head)[0] if len(head) == SLICE_HEAD.size else -1
        if length == _END_LENGTH and at == end:
            return
        if not 0 < length <= end - at:
            raise _damaged(backup.path, f"no slice begins at byte {at - SLICE_HEAD.size}")
        yield file.pread(length, at)
        at += length


def _decode_head(data: bytes, path: str) -> BackupHead:
    first, newline, rest = data.partition(b"\n")
    number = first.removeprefix(_MAGIC)
    if not newline or not first.startswith(_MAGIC) or not number.isdigit():
        raise _damaged(path, "it does not begin as a backup that `paxos-rsm snapshot save` has written")
    if len(number) > 9 or int(number) not in _READABLE:
        raise IdentityMismatch(
            f"the backup {path} has format {number[:20].decode()}, and this version of paxos_rsm knows the formats up "
            f"to {_VERSION}. Restore it with the version of paxos_rsm that wrote it, or a newer one"
        )
    try:
        told = json.loads(rest)
        head = BackupHead(**{**told, "version": int(number)})
    except (ValueError, TypeError, RecursionError):
        raise _damaged(path, "its head cannot be read") from None
    numbers = (head.bytes, head.cluster_id, head.member_id, head.applied_slot, head.revision, head.keys or 0)
    if (
        len(data) < HEAD_BYTES
        or not all(type(each) is int and 0 <= each <= _NUMBER_MAX for each in numbers)
        or type(head.machine) is not str
    ):
        raise _damaged(path, "its head cannot be read")
    return head


def _damaged(path: str, why: str) -> SnapshotDamaged:
    return SnapshotDamaged(
        f"the backup {path} is damaged: {why}. Nothing was restored from it; take another copy, or an older backup"
    )
