"""What comes from backup files, which travel, and are restored by whoever has one."""

import hashlib
from random import Random

from paxos_rsm.errors import IdentityMismatch, SnapshotDamaged
from paxos_rsm.storage.backup_format import (
    CHECKSUM_BYTES,
    END,
    SLICE_HEAD,
    BackupHead,
    check_backup,
    encode_head,
    padding,
    read_slices,
)
from paxos_rsm.storage.memory import MemoryFiles
from tests.fuzz.target import Target, require


def _make_backup(rng: Random) -> tuple[tuple[BackupHead, list[bytes]], bytes]:
    slices = [rng.randbytes(rng.randint(1, 300)) for _ in range(rng.randint(0, 5))]
    state = b"".join(SLICE_HEAD.pack(len(each)) + each for each in slices) + END
    cluster, member, slot, revision = [rng.getrandbits(rng.randint(1, 63)) for _ in range(4)]
    keys = rng.choice((None, 0, 7))
    head = BackupHead(len(state), cluster, member, slot, revision, "module:Machine", keys)
    data = encode_head(head) + state + padding(len(state))
    return (head, slices), data + hashlib.sha256(data).digest()


def _mend(data: bytes) -> bytes:
    """With the right checksum at the end."""
    body = data[:-CHECKSUM_BYTES]
    return body + hashlib.sha256(body).digest()


def _read_backup(data: bytes) -> tuple[BackupHead, list[bytes]]:
    files = MemoryFiles()
    file = files.create("/backup", 0)
    file.pwrite(data, 0)
    backup = check_backup(file, "/backup")
    slices = list(read_slices(file, backup))
    require(sum(map(len, slices)) <= backup.head.bytes <= len(data), "more comes out than is in it")
    return backup.head, slices


TARGETS = (
    Target(
        "backup",
        ("storage.backup_format:_decode_head", "storage.backup_format:read_slices"),
        _make_backup,
        _read_backup,
        (SnapshotDamaged, IdentityMismatch),
        is_proto=False,
        mend=_mend,
        blows_up=False,
    ),
)
