"""Backup files: what was put in comes out; what was changed, cut or made by a newer version does not."""

import hashlib

import pytest

from paxos_rsm.errors import IdentityMismatch, SnapshotDamaged
from paxos_rsm.storage.backup_format import (
    END,
    HEAD_BYTES,
    SLICE_HEAD,
    Backup,
    BackupHead,
    check_backup,
    encode_head,
    padding,
    read_slices,
)
from paxos_rsm.storage.memory import MemoryFiles
from tests.unit.storage.helpers import backup_bytes

SLICES = [b"one", b"\0" * 700, b"x"]


def read(data: bytes) -> tuple[Backup, list[bytes]]:
    file = MemoryFiles().create("/b", 0)
    file.pwrite(data, 0)
    backup = check_backup(file, "/b")
    return backup, list(read_slices(file, backup))


def sealed(data: bytes) -> bytes:
    """With the right checksum at the end."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


@pytest.mark.parametrize("slices", [[], [b"a"], SLICES, [b"\xff" * 4, END]])
def test_what_was_put_in_comes_out(slices: list[bytes]) -> None:
    data = backup_bytes(slices)
    backup, found = read(data)
    assert found == slices
    assert (backup.size, backup.sha256) == (len(data), data[-32:].hex())
    assert backup.head == BackupHead(
        sum(4 + len(each) for each in slices) + 4, 0xC1, 0x31, 17, 9, "m:M", keys=3
    )
    assert len(data) % 512 == 32


def test_every_flipped_bit_and_every_cut_is_found() -> None:
    data = backup_bytes(SLICES)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises((SnapshotDamaged, IdentityMismatch), match="/b"):
            read(bytes(changed))
    for size in range(len(data)):
        with pytest.raises(SnapshotDamaged, match="the backup /b is damaged: "):
            read(data[:size])
    with pytest.raises(SnapshotDamaged, match="it was cut or added to"):
        read(data + b"\0")


@pytest.mark.parametrize("version", [b"3", b"0", b"77777777777"])
def test_another_format_is_refused_and_named(version: bytes) -> None:
    data = backup_bytes(SLICES).replace(b"snapshot 2\n", b"snapshot %s\n" % version, 1)
    with pytest.raises(IdentityMismatch, match=rf"has format {version.decode()}, .* up to 2"):
        read(sealed(data))


def test_version_1_has_no_lengths() -> None:
    head = encode_head(BackupHead(6, 1, 2, 3, 4, "m:M")).replace(b"snapshot 2\n", b"snapshot 1\n", 1)
    head = head.replace(b', "keys": null', b" " * 14)
    backup, slices = read(sealed(head + b"state!" + padding(6) + bytes(32)))
    assert (backup.head.version, backup.head.keys, slices) == (1, None, [b"state!"])


@pytest.mark.parametrize(
    "state",
    [
        SLICE_HEAD.pack(0) + END,  # a slice is never empty
        SLICE_HEAD.pack(9) + b"short" + END,
        SLICE_HEAD.pack(1) + b"a",  # no end
        END + END,
    ],
)
def test_slices_that_do_not_add_up_are_refused_under_a_right_checksum(state: bytes) -> None:
    head = encode_head(BackupHead(len(state), 1, 2, 3, 4, "m:M"))
    with pytest.raises(SnapshotDamaged, match="no slice begins at byte"):
        read(sealed(head + state + padding(len(state)) + bytes(32)))


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"[]",
        b"{}",
        b'{"bytes": -1}',
        b"[" * 400,
        b'{"bytes":4,"cluster_id":1,"member_id":1,"applied_slot":1,"revision":1,"machine":7}',
        b'{"bytes":4,"cluster_id":true,"member_id":1,"applied_slot":1,"revision":1,"machine":""}',
        b'{"bytes":4,"cluster_id":1,"member_id":1,"applied_slot":1,"revision":1,"machine":"","more":1}',
    ],
)
def test_a_head_that_cannot_be_read_is_refused(told: bytes) -> None:
    head = (b"paxos_rsm snapshot 2\n" + told).ljust(HEAD_BYTES)
    with pytest.raises(SnapshotDamaged, match="its head cannot be read"):
        read(sealed(head + END + padding(4) + bytes(32)))


def test_a_head_has_its_length_whatever_the_machine_is_called() -> None:
    assert (
        len(encode_head(BackupHead(1, 2**64 - 1, 2**64 - 1, 2**63, 2**63, "\U0001f980" * 300, 9)))
        == HEAD_BYTES
    )
