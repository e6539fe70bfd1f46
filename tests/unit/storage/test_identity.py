"""Who a directory belongs to: kept whole through any crash, and never guessed at."""

import dataclasses
from random import Random

import pytest

from paxos_rsm._proto import storage_pb2
from paxos_rsm.errors import IdentityMismatch, LogDamaged
from paxos_rsm.storage.identity import FORMAT_VERSION, Identity, read_identity, write_identity
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost

IDENTITY = Identity(0xC1, 0xA1, "n1", 2**63 - 1, 3)


def directory_of(identity: Identity) -> MemoryFiles:
    files = MemoryFiles()
    files.mkdir("/d")
    files.sync_directory("/")
    write_identity(files, "/d", identity)
    return files


def test_an_identity_comes_back() -> None:
    files = directory_of(IDENTITY)
    files.crash(Random(1), CrashMode.DROP)
    assert read_identity(files, "/d") == IDENTITY
    assert IDENTITY.format_version == FORMAT_VERSION


def test_there_may_be_none() -> None:
    files = MemoryFiles()
    files.mkdir("/d")
    assert read_identity(files, "/d") is None
    assert read_identity(files, "/none") is None


@pytest.mark.parametrize("mode", list(CrashMode))
@pytest.mark.parametrize("changes", range(6))
def test_replacing_it_leaves_the_old_or_the_new(changes: int, mode: CrashMode) -> None:
    for seed in range(20):
        files = directory_of(IDENTITY)
        files.power_off_after(changes)
        new = dataclasses.replace(IDENTITY, boot_count=4)
        is_done = False
        try:
            write_identity(files, "/d", new)
            is_done = True
        except PowerLost:
            pass
        files.crash(Random(seed), mode)
        assert read_identity(files, "/d") in ([new] if is_done else [IDENTITY, new])
        assert is_done == (changes == 5)


def test_every_flipped_bit_is_found() -> None:
    files = directory_of(IDENTITY)
    for bit in range(len(files.read("/d/identity")) * 8):
        files.flip("/d/identity", bit)
        with pytest.raises(LogDamaged, match=r"/d/identity is damaged.*add it anew"):
            read_identity(files, "/d")
        files.flip("/d/identity", bit)
    assert read_identity(files, "/d") == IDENTITY


def test_every_other_length_is_found() -> None:
    whole = directory_of(IDENTITY).read("/d/identity")
    for content in [*(whole[:length] for length in range(len(whole))), whole + b"\0", bytes(len(whole))]:
        files = directory_of(IDENTITY)
        files.create("/d/identity", 0).pwrite(content, 0)
        with pytest.raises(LogDamaged):
            read_identity(files, "/d")


def test_a_later_format_is_told() -> None:
    files = directory_of(dataclasses.replace(IDENTITY, format_version=FORMAT_VERSION + 1))
    with pytest.raises(IdentityMismatch, match=r"format 3.* or a newer one"):
        read_identity(files, "/d")


@pytest.mark.parametrize(
    "change",
    [
        {"incarnation": 0},
        {"incarnation": 2**63},
        {"cluster_id": 0},
        {"member_id": 2**64 - 1},
        {"boot_count": 2**64 - 1},  # the next start could not be counted
    ],
)
def test_an_identity_that_cannot_be_is_damage(change: dict[str, int]) -> None:
    """Found by fuzzing: the checksum was right, and nobody looked at the numbers."""
    files = directory_of(dataclasses.replace(IDENTITY, **change))  # type: ignore[arg-type]
    with pytest.raises(LogDamaged, match=r"which cannot be\. .*add it anew"):
        read_identity(files, "/d")


def test_it_is_the_message_of_the_proto() -> None:
    content = directory_of(IDENTITY).read("/d/identity")
    message = storage_pb2.Identity.FromString(content[28:])
    assert (message.cluster_id, message.name, message.boot_count) == (0xC1, "n1", 3)


def test_the_member_it_was_made_for() -> None:
    IDENTITY.check("/d", cluster_id=0xC1, member_id=0xA1, name="n1")


@pytest.mark.parametrize(
    ("cluster_id", "member_id", "name", "says"),
    [
        # The name is a part of the ids: it is what was wrong.
        (2, 12, "n2", "belongs to member n1, and this server was started as member n2"),
        (0xC2, 0xA1, "n1", "/d belongs to cluster c1, and this server was started as cluster c2"),
        (0xC1, 0xA2, "n1", "/d belongs to member id a1, and this server was started as member id a2"),
        (0xC1, 0xA1, "n2", "/d belongs to member n1, and this server was started as member n2"),
    ],
)
def test_another_member_is_told_what_to_do(cluster_id: int, member_id: int, name: str, says: str) -> None:
    with pytest.raises(IdentityMismatch, match=says) as caught:
        IDENTITY.check("/d", cluster_id=cluster_id, member_id=member_id, name=name)
    assert "--data-dir" in str(caught.value)
