"""What the tests of the storage share: small writes, a log in memory, and what it remembers as one value."""

from collections.abc import Iterable
from hashlib import sha256
from random import Random

from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Write, WriteAccepted
from paxos_rsm.paxos.types import Ballot, Batch
from paxos_rsm.storage.backup_format import END, SLICE_HEAD, BackupHead, encode_head, padding
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.headers import segment_name
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN, SegmentLog
from paxos_rsm.storage.snapshots import SnapshotInfo, SnapshotMeta, SnapshotStore

LOG = "/log"
OWNER = 0x5EED
FIRST = f"{LOG}/{segment_name(1)}"
SECOND = f"{LOG}/{segment_name(2)}"


def accepted(slot: int, data: bytes = b"value", round_: int = 1) -> WriteAccepted:
    """A vote of node 7."""
    return WriteAccepted(slot, Ballot(round_, 7), Batch(data))


def disk() -> MemoryFiles:
    """An empty disk with a durable directory for a log."""
    files = MemoryFiles()
    files.mkdir(LOG)
    files.sync_directory("/")
    return files


def open_log(
    files: MemoryFiles, *, create: bool = False, segment_bytes: int = SEGMENT_BYTES_MIN, owner: int = OWNER
) -> tuple[SegmentLog, Recovered]:
    return SegmentLog.open(
        files,
        LOG,
        owner=owner,
        draw_bits=Random(1).getrandbits,
        create=create,
        segment_bytes=segment_bytes,
    )


def new_log(segment_bytes: int = SEGMENT_BYTES_MIN) -> tuple[MemoryFiles, SegmentLog]:
    files = disk()
    return files, open_log(files, create=True, segment_bytes=segment_bytes)[0]


def replayed(writes: Iterable[Write]) -> Recovered:
    """What a log that holds these writes remembers."""
    recovered = Recovered()
    for write in writes:
        recovered.apply(write)
    return recovered


def configuration(cluster_id: int = 1) -> Configuration:
    """Of one member."""
    member = Member(7, 11, "n1", "http://n1:2380")
    return Configuration(cluster_id, (member,), QuorumSizes(1, 1, 1))


def snapshot_meta(slot: int, cluster_id: int = 1) -> SnapshotMeta:
    """Of the state as of ``slot``."""
    return SnapshotMeta(cluster_id, slot, 1, configuration(cluster_id))


def state(slot: int, slices: int = 5) -> list[bytes]:
    """Slices that only this slot has."""
    rng = Random(slot)
    return [rng.randbytes((900, 0, 40, 333)[at % 4]) for at in range(slices)]


def take(store: SnapshotStore, slot: int, slices: list[bytes] | None = None) -> SnapshotInfo:
    """A whole snapshot."""
    writer = store.begin(snapshot_meta(slot))
    for each in state(slot) if slices is None else slices:
        writer.write(each)
    return writer.finish()


def backup_bytes(slices: list[bytes], machine: str = "m:M") -> bytes:
    """A whole backup file."""
    state = b"".join(SLICE_HEAD.pack(len(each)) + each for each in slices) + END
    data = (
        encode_head(BackupHead(len(state), 0xC1, 0x31, 17, 9, machine, keys=3)) + state + padding(len(state))
    )
    return data + sha256(data).digest()
