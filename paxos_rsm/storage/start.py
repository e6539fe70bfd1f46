"""Where the log starts, once slots have been dropped from its head; and the order in which they are dropped.

    magic, 16 bytes | u32 length of the payload | u32 CRC-32 of it, little-endian | payload: LogStart of storage.proto

The file is called ``start`` and lies beside the segments. There is none before the first compaction. From then on it
names the first segment that is still a part of the log, the slot up to which the log is compacted, and the promise as
the segments before that one left it. So nothing that a dropped segment said is lost: its entries are decided and in a
snapshot, its promise is here.

*The order.* Forgetting is the one thing a log does that no later write can mend, so each step is durable before the
next is taken, and a crash between any two leaves a server that boots and has both state and votes:

1. the snapshot of a slot >= the compacted one is complete under another name, and synced;
2. it gets its name, and the directory of snapshots is synced (snapshots.py). Only then may ``WriteCompacted`` be given
   to the log;
3. everything that was given to the log before is synced (segments.py);
4. ``start`` is written under another name, synced, renamed into place, and the log's directory synced. From here on
   the segments before the first one it names are no part of the log, whether they are there or not;
5. those segments are removed, in any order: a removal that a crash undid is done again by the next start.

A ``start`` that does not hold was damaged, for it is never written in place; the promise in it may be needed, so the
server refuses to vote.
"""

import contextlib
import struct
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from google.protobuf.message import DecodeError

from paxos_rsm._proto import storage_pb2
from paxos_rsm.codec.entries import ballot_from_pb, ballot_to_pb
from paxos_rsm.codec.messages import NUMBER_MAX
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Slot
from paxos_rsm.storage.files import File, FileSystem

__all__ = ["START_NAME", "WHOLE", "LogStart", "decode_start", "encode_start", "write_start"]

START_NAME = "start"
_TEMPORARY_NAME = "start.new"
_MAGIC = b"paxos_rsm start\n"
_LENGTH_AND_CRC = struct.Struct("<II")


class LogStart(NamedTuple):
    """Where a log starts. ``promised`` is what the segments before ``first_segment`` promised."""

    first_segment: int
    compacted_through: Slot
    promised: Ballot


WHOLE = LogStart(1, 0, NO_BALLOT)
"""The start of a log of which nothing was dropped."""


def encode_start(start: LogStart) -> bytes:
    """The bytes of the file."""
    payload = storage_pb2.LogStart(
        first_segment=start.first_segment,
        compacted_through=start.compacted_through,
        promised=ballot_to_pb(start.promised),
    ).SerializeToString(deterministic=True)
    return _MAGIC + _LENGTH_AND_CRC.pack(len(payload), crc32(payload)) + payload


def decode_start(data: bytes) -> LogStart | None:
    """What a whole file says; None where it does not hold, or says what no server writes."""
    head = len(_MAGIC) + _LENGTH_AND_CRC.size
    payload = data[head:]
    if not data.startswith(_MAGIC) or len(data) < head:
        return None
    if _LENGTH_AND_CRC.unpack_from(data, len(_MAGIC)) != (len(payload), crc32(payload)):
        return None
    try:
        message = storage_pb2.LogStart.FromString(payload)
    except DecodeError:
        return None
    start = LogStart(message.first_segment, message.compacted_through, ballot_from_pb(message.promised))
    is_ballot = all(0 < number <= NUMBER_MAX for number in start.promised) or start.promised == NO_BALLOT
    if not 0 < start.first_segment <= NUMBER_MAX or not 0 < start.compacted_through <= NUMBER_MAX:
        return None
    return start if is_ballot else None


def write_start(
    files: FileSystem, directory: str, start: LogStart, create: Callable[[str, int], File] | None = None
) -> None:
    """Puts ``start`` in place of whatever was there, durably and at once. Raises OSError.

    ``create`` makes the file, unless ``files`` should.
    """
    data = encode_start(start)
    make = create or files.create
    with contextlib.closing(make(f"{directory}/{_TEMPORARY_NAME}", len(data))) as file:
        file.pwrite(data, 0)
        file.fdatasync()
    files.rename(f"{directory}/{_TEMPORARY_NAME}", f"{directory}/{START_NAME}")
    files.sync_directory(directory)
