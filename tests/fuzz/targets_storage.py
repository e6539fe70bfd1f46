"""What comes from the disk besides the log's records: where the log starts, and snapshots, which peers send too."""

import struct
from random import Random
from typing import Any
from zlib import crc32

from paxos_rsm.errors import SnapshotDamaged
from paxos_rsm.paxos.types import NO_BALLOT
from paxos_rsm.storage.files import File
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.storage.snapshot_format import (
    SnapshotEncoder,
    SnapshotMeta,
    SnapshotScan,
    decode_header,
    encode_header,
    has_end,
)
from paxos_rsm.storage.snapshots import SnapshotStore, snapshot_slot
from paxos_rsm.storage.start import LogStart, decode_start, encode_start
from tests.fuzz import values
from tests.fuzz.target import Answered, Target, require

DIRECTORY = "/snapshots"
_START_HEAD = 16
_SNAPSHOT_HEAD = 12


# ---- where the log starts ------------------------------------------------------------------------------------


def _make_start(rng: Random) -> tuple[LogStart, bytes]:
    promised = values.ballot(rng) if rng.random() < 0.8 else NO_BALLOT
    start = LogStart(values.number(rng), values.number(rng), promised)
    return start, encode_start(start)


def _mend_start(data: bytes) -> bytes:
    payload = data[_START_HEAD + 8 :]
    return data[:_START_HEAD] + struct.pack("<II", len(payload), crc32(payload)) + payload


def _decode_start(data: bytes) -> LogStart:
    start = decode_start(data)
    if start is None:
        raise Answered("None")
    require(decode_start(encode_start(start)) == start, "it is another when it is written again")
    return start


# ---- snapshots -----------------------------------------------------------------------------------------------


def _meta(rng: Random) -> SnapshotMeta:
    slot = values.number(rng)
    return SnapshotMeta(values.number(rng), slot, values.number(rng, 1, slot), values.configuration(rng))


def _make_header(rng: Random) -> tuple[SnapshotMeta, bytes]:
    meta = _meta(rng)
    return meta, encode_header(meta)[0]


def _mend_header(data: bytes) -> bytes:
    payload = data[_SNAPSHOT_HEAD + 4 :]
    head = data[:8] + struct.pack("<I", len(payload))
    return head + struct.pack("<I", crc32(payload, crc32(head))) + payload


def _decode_header(data: bytes) -> SnapshotMeta:
    file = MemoryFiles().create("/snapshot", len(data))
    file.pwrite(data, 0)
    head = decode_header(file)
    if head is None:
        raise Answered("None")
    require(head.end <= len(data), "a header beyond its file")
    require(0 < head.meta.changed_in <= head.meta.slot, f"slot {head.meta.slot}")
    return head.meta


def _make_snapshot(rng: Random) -> tuple[Any, bytes]:
    """A whole file, as a peer sends it."""
    meta = _meta(rng)
    slices = [values.blob(rng) for _ in range(rng.choice((0, 1, 3, 8)))]
    encoder = SnapshotEncoder(meta)
    parts = [encoder.header]
    for each in slices:
        parts += encoder.slice(each)
    return (meta, slices), b"".join([*parts, encoder.end()])


def _fetch_snapshot(data: bytes) -> Any:
    """What was fetched in two goes is refused, or is what stands in it; what is cut off is taken up where it holds."""
    files = MemoryFiles()
    store = SnapshotStore.open(files, DIRECTORY)
    file = MemoryFiles().create("/snapshot", len(data))
    file.pwrite(data, 0)
    head = decode_header(file)
    slot = head.meta.slot if head is not None else 1
    cut = crc32(data) % (len(data) + 1)
    fetch = store.fetch(slot, len(data))
    require(fetch.write(0, data[:cut]), "bytes in their place are not taken")
    fetch.close()
    fetch = SnapshotStore.open(files, DIRECTORY).fetch(slot, len(data))
    # What is not there yet is zero in the file that was made for it; so it may be sound where what comes is not.
    require(not any(data[cut : fetch.offset]) or not _is_sound(file), "more is there than was fetched")
    require(fetch.write(fetch.offset, data[fetch.offset :]), "bytes in their place are not taken")
    try:
        info = fetch.finish()
    except SnapshotDamaged:
        require(files.names(DIRECTORY) == [], "something is left of what was refused")
        raise
    require(has_end(file, len(data)), "a whole snapshot without an end")
    meta, slices = SnapshotStore.open(files, DIRECTORY).read(info.slot)
    return meta, list(slices)


def _is_sound(file: File) -> bool:
    try:
        SnapshotScan(file, "/snapshot").check()
    except SnapshotDamaged:
        return False
    return True


def _make_name(rng: Random) -> tuple[int, bytes]:
    slot = values.number(rng)
    return slot, f"{slot:019d}.snapshot".encode()


def _decode_name(data: bytes) -> int:
    slot = snapshot_slot(data.decode("utf-8", "surrogateescape"))
    if slot is None:
        raise Answered("None")
    require(f"{slot:019d}.snapshot".encode() == data, "two names for one snapshot")
    return slot


TARGETS = (
    Target(
        "log-start",
        ("storage.start:decode_start",),
        _make_start,
        _decode_start,
        is_proto=False,
        proto_from=_START_HEAD + 8,
        mend=_mend_start,
        blows_up=False,
    ),
    Target(
        "snapshot-header",
        ("storage.snapshot_format:decode_header",),
        _make_header,
        _decode_header,
        is_proto=False,
        proto_from=_SNAPSHOT_HEAD + 4,
        mend=_mend_header,
    ),
    Target(
        "snapshot-file",
        (
            "storage.snapshot_format:decode_header",
            "storage.snapshot_format:has_end",
            "storage.snapshot_format:SnapshotScan._next_chunk",
        ),
        _make_snapshot,
        _fetch_snapshot,
        (SnapshotDamaged,),
        is_proto=False,
        blows_up=False,
    ),
    Target("snapshot-name", ("storage.snapshots:snapshot_slot",), _make_name, _decode_name, is_proto=False),
)
