"""Who a data directory belongs to: one small file, replaced whole, that a server reads before anything else.

    magic, 20 bytes | u32 length of the payload | u32 CRC-32 of it, little-endian | payload: Identity of storage.proto

The *incarnation* is drawn at random when the directory is made and never changes: it is the name under which this
member promises and votes, and a directory made anew has another (rule 9). The *boot count* goes up durably before a
server says anything, so that its peers notice an old copy of the directory. A boot count of zero means that no server
has ever got that far: only then may a log be missing.

The file is written under another name, synced, renamed, and the directory synced: at any moment the old or the new one
is there, whole. So one that does not hold was damaged, and is not guessed at.
"""

import contextlib
import struct
from dataclasses import dataclass, replace
from zlib import crc32

from google.protobuf.message import DecodeError

from paxos_rsm._proto import storage_pb2
from paxos_rsm.errors import IdentityMismatch, LogDamaged
from paxos_rsm.storage.files import FileSystem

__all__ = [
    "FORMAT_VERSION",
    "IDENTITY_NAME",
    "NEXT_IDENTITY_NAME",
    "Identity",
    "coming_identity",
    "read_identity",
    "write_identity",
]

FORMAT_VERSION = 2
"""Of the whole data directory. Raised with every change that an older version would misread.

1: the log never starts late, records carry everything in their payload. 2: snapshots, ``start``, records of version 2.
"""
_READABLE = (1, FORMAT_VERSION)

IDENTITY_NAME = "identity"
NEXT_IDENTITY_NAME = "identity.next"
"""Who the directory is to belong to: see replacement.py."""
_TEMPORARY_NAME = "identity.new"
_MAGIC = b"paxos_rsm identity\n\0"
_LENGTH_AND_CRC = struct.Struct("<II")
_NUMBER_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a data directory belongs to. ``incarnation`` is 63 random bits and not zero."""

    cluster_id: int
    member_id: int
    name: str
    incarnation: int
    boot_count: int = 0
    format_version: int = FORMAT_VERSION
    joined: bool = False
    """Its ids are not those of ``--initial-cluster``: a cluster that ran told it, or it was made a cluster alone."""
    restored_from: str = ""
    """The SHA-256, in hexadecimal, of the backup that it began with (initial.py); empty: it began with nothing."""
    hold_us: int = 0
    """How long this process, or one before it, may promise a leader to promise nobody else (paxos/leases.py)."""

    def started(self, hold_us: int) -> "Identity":
        """What the file says once another process of this member has started, which may hold for ``hold_us``.

        The hold never becomes shorter: the next start may come before what an earlier process held for is over, too.
        """
        return replace(
            self,
            boot_count=self.boot_count + 1,
            format_version=FORMAT_VERSION,
            hold_us=max(hold_us, self.hold_us),
        )

    def check(self, directory: str, *, cluster_id: int, member_id: int, name: str) -> None:
        """Raises IdentityMismatch unless this is the member that the server was started as.

        Of one that has joined only the name can be told from the flags of a later start.
        """
        if self.joined:
            cluster_id, member_id = self.cluster_id, self.member_id
        for what, found, wanted in (
            ("member", self.name, name),
            ("cluster", f"{self.cluster_id:x}", f"{cluster_id:x}"),
            ("member id", f"{self.member_id:x}", f"{member_id:x}"),
        ):
            if found != wanted:
                raise IdentityMismatch(
                    f"the data directory {directory} belongs to {what} {found}, and this server was started as {what} "
                    f"{wanted}. Start it with the --name, --initial-cluster (where that is not given: the address for "
                    "its peers) and --initial-cluster-token that the directory was made with, or give it a directory "
                    "of its own (--data-dir)"
                )


def coming_identity(files: FileSystem, directory: str) -> Identity | None:
    """Who the next start will find the directory to belong to. Raises as :func:`read_identity` does."""
    coming = read_identity(files, directory, NEXT_IDENTITY_NAME)
    return read_identity(files, directory) if coming is None else coming


def read_identity(files: FileSystem, directory: str, name: str = IDENTITY_NAME) -> Identity | None:
    """The identity in a data directory; None where there is none.

    Raises LogDamaged where the file does not hold or names nobody, IdentityMismatch where a newer version wrote it, and
    OSError.
    """
    path = f"{directory}/{name}"
    try:
        data = files.read(path)
    except FileNotFoundError:
        return None
    message = _decode(data)
    if message is None:
        raise LogDamaged(
            f"{path} is damaged: it does not match its checksum, so it cannot be told under which incarnation this "
            "member has voted. Restore the file from a copy of this very directory, or remove this member from the "
            "cluster and add it anew with an empty data directory"
        )
    if message.format_version not in _READABLE:
        raise IdentityMismatch(
            f"the data directory {directory} has format {message.format_version}, and this version of paxos_rsm knows "
            f"the formats up to {FORMAT_VERSION}. Start the version of paxos_rsm that wrote it, or a newer one"
        )
    numbers = (message.incarnation, message.cluster_id, message.member_id)
    if not all(0 < number <= _NUMBER_MAX for number in numbers) or message.boot_count > _NUMBER_MAX:
        raise LogDamaged(
            f"{path} names incarnation {message.incarnation} of member {message.member_id} in cluster "
            f"{message.cluster_id}, started {message.boot_count} times, which cannot be. Restore the file from a copy "
            "of this very directory, or remove this member from the cluster and add it anew with an empty data "
            "directory"
        )
    return Identity(
        cluster_id=message.cluster_id,
        member_id=message.member_id,
        name=message.name,
        incarnation=message.incarnation,
        boot_count=message.boot_count,
        format_version=message.format_version,
        joined=message.joined,
        restored_from=message.restored_from,
        hold_us=message.hold_us,
    )


def write_identity(files: FileSystem, directory: str, identity: Identity, name: str = IDENTITY_NAME) -> None:
    """Puts ``identity`` in place of whatever was there, durably and at once. Raises OSError."""
    payload = storage_pb2.Identity(
        format_version=identity.format_version,
        cluster_id=identity.cluster_id,
        member_id=identity.member_id,
        name=identity.name,
        incarnation=identity.incarnation,
        boot_count=identity.boot_count,
        joined=identity.joined,
        restored_from=identity.restored_from,
        hold_us=identity.hold_us,
    ).SerializeToString(deterministic=True)
    data = _MAGIC + _LENGTH_AND_CRC.pack(len(payload), crc32(payload)) + payload
    with contextlib.closing(files.create(f"{directory}/{_TEMPORARY_NAME}", len(data))) as file:
        file.pwrite(data, 0)
        file.fdatasync()
    files.rename(f"{directory}/{_TEMPORARY_NAME}", f"{directory}/{name}")
    files.sync_directory(directory)


def _decode(data: bytes) -> storage_pb2.Identity | None:
    start = len(_MAGIC) + _LENGTH_AND_CRC.size
    payload = data[start:]
    if not data.startswith(_MAGIC) or len(data) < start:
        return None
    if _LENGTH_AND_CRC.unpack_from(data, len(_MAGIC)) != (len(payload), crc32(payload)):
        return None
    try:
        return storage_pb2.Identity.FromString(payload)
    except DecodeError:
        return None
