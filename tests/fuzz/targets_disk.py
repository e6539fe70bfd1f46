"""What comes from the disk: rows of the log, segments, whole logs, the identity."""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any
from zlib import crc32

from paxos_rsm._proto import paxos_pb2, storage_pb2
from paxos_rsm.codec.entries import ballot_to_pb, entry_to_pb
from paxos_rsm.errors import IdentityMismatch, InvariantViolation, LogDamaged, UnknownEntry
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WritePromise
from paxos_rsm.paxos.types import join_frames, split_frames
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.headers import (
    HEADER_BYTES,
    RECORDS_START,
    VERSION,
    SegmentHeader,
    decode_header,
    encode_header,
    segment_name,
    segment_sequence,
)
from paxos_rsm.storage.identity import IDENTITY_NAME, Identity, read_identity, write_identity
from paxos_rsm.storage.memory import CrashMode, MemoryFiles
from paxos_rsm.storage.payloads import decode_write, encode_write, left_of
from paxos_rsm.storage.records import PAYLOAD_BYTES_MAX, RecordFormat, Row
from paxos_rsm.storage.recovery import read_log
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN, SegmentLog
from tests.fuzz import values
from tests.fuzz.target import Answered, Target, require

LOG = "/log"
OWNER = 0x5EED
IMAGES = 32
FLIPS_MAX = 4
"""CRC-32 finds every three flipped bits of a record this long, and so few never look like a torn sector."""


def _disk(contents: dict[str, bytes]) -> MemoryFiles:
    """A disk with these files in one directory, all of it durable."""
    files = MemoryFiles()
    files.mkdir(LOG)
    files.sync_directory("/")
    for name, data in contents.items():
        file = files.create(f"{LOG}/{name}", len(data))
        file.pwrite(data, 0)
        file.fdatasync()
        file.close()
    files.sync_directory(LOG)
    return files


def _open(files: MemoryFiles, *, create: bool = False) -> tuple[SegmentLog, Recovered]:
    return SegmentLog.open(
        files,
        LOG,
        owner=OWNER,
        draw_bits=Random(1).getrandbits,
        create=create,
        segment_bytes=SEGMENT_BYTES_MIN,
    )


# ---- one row -------------------------------------------------------------------------------------------------


_ROW = struct.Struct("<BQQQ")


def _row_bytes(row: Row) -> bytes:
    return _ROW.pack(*row[:4]) + row.payload


def _row(data: bytes) -> Row:
    """The row of any bytes, few of them included."""
    kind, slot, round_, node = _ROW.unpack(data[: _ROW.size].ljust(_ROW.size, b"\0"))
    return Row(kind, slot, round_, node, data[_ROW.size :])


def _make_write(rng: Random) -> tuple[Write, bytes]:
    write = values.write(rng)
    if rng.random() < 0.2:
        return write, _row_bytes(Row(0, 0, 0, 0, _version_1(write)))
    return write, _row_bytes(encode_write(write))


def _version_1(write: Write) -> bytes:
    """The payload that said it all."""
    record = storage_pb2.LogRecord()
    match write:
        case WriteAccepted(slot, ballot, entry):
            record.accepted.CopyFrom(
                paxos_pb2.SlotEntry(slot=slot, ballot=ballot_to_pb(ballot), entry=entry_to_pb(entry))
            )
        case WritePromise(ballot):
            record.promise.CopyFrom(ballot_to_pb(ballot))
        case WriteDecided(slot, entry):
            record.decided.CopyFrom(paxos_pb2.SlotEntry(slot=slot, entry=entry_to_pb(entry)))
        case _:
            record.decided_through = write.slot
    return record.SerializeToString()


def _decode_write(data: bytes) -> Write:
    write = decode_write(_row(data))
    slot = getattr(write, "slot", 0)
    require(0 <= slot <= values.NUMBER_MAX, f"slot {slot}")
    require(decode_write(encode_write(write)) == write, "it is another when it is written again")
    return write


_FORMAT = RecordFormat(0x1234)


def _make_record(rng: Random) -> tuple[Any, bytes]:
    payload = rng.randbytes(rng.randint(0, 900)) if rng.random() < 0.7 else bytes(rng.randint(0, 2_000))
    parts: list[bytes] = []
    slot, round_, node = [values.counter(rng) for _ in range(3)]
    row = Row(rng.getrandbits(8), slot, round_, node, payload)
    _FORMAT.encode(
        parts, row, values.number(rng), values.watermark(rng), rng.getrandbits(32), rng.choice((0, 256))
    )
    data = b"".join(parts)
    return _FORMAT.read(data, 0), data


def _mend_record(data: bytes) -> bytes:
    if len(data) < 72:
        return data
    head = crc32(data[:56], _FORMAT.seed)
    length = int.from_bytes(data[4:8], "little")
    end = 64 + length + -length % 8
    body = data[64:end]
    data = data[:56] + struct.pack("<I", head) + data[60:]
    if end + 8 <= len(data):
        data = data[:end] + struct.pack("<I", crc32(body, head)) + data[end + 4 :]
    return data


def _decode_record(data: bytes) -> Any:
    record = _FORMAT.read(data, 0)
    for offset, later in _FORMAT.later(data, 0, 0):
        require(0 < offset < later.end <= len(data), "a record beyond its segment")
    head = _FORMAT.head(data, 0)
    if head is not None and head.end <= len(data):
        require(0 <= _FORMAT.stored_crc(data, head) < 1 << 32, "a checksum of more than 32 bits")
        with suppress(ValueError):
            left_of(head)
    if record is None:
        raise Answered("torn" if _FORMAT.damage(data, 0) is None else "damaged")
    require(
        record.end <= len(data) and len(record.row.payload) <= PAYLOAD_BYTES_MAX,
        "a record beyond its segment",
    )
    return record


def _make_header(rng: Random) -> tuple[SegmentHeader, bytes]:
    sequence, capacity, owner, salt, first = [values.counter(rng) for _ in range(5)]
    header = SegmentHeader(
        sequence, capacity, owner, salt, first, rng.getrandbits(32), rng.choice((1, VERSION))
    )
    return header, encode_header(header)


def _mend_header(data: bytes) -> bytes:
    return data[: HEADER_BYTES - 4] + struct.pack("<I", crc32(data[: HEADER_BYTES - 4]))


def _decode_header(data: bytes) -> SegmentHeader:
    header = decode_header(data)
    if header is None:
        raise Answered("None")
    require(encode_header(header) == data[:HEADER_BYTES], "it is another when it is written again")
    return header


# ---- the identity --------------------------------------------------------------------------------------------

_IDENTITY_HEAD = 20


def _identity(data: bytes) -> Identity | None:
    return read_identity(_disk({IDENTITY_NAME: data}), LOG)


def _make_identity(rng: Random) -> tuple[Identity, bytes]:
    name, boots = values.text(rng), rng.randint(0, 2**40)
    restored = rng.choice(("", "ab" * 32))
    identity = Identity(
        values.number(rng), values.number(rng), name, values.number(rng), boots, restored_from=restored
    )
    files = _disk({})
    write_identity(files, LOG, identity)
    return identity, files.read(f"{LOG}/{IDENTITY_NAME}")


def _mend_identity(data: bytes) -> bytes:
    payload = data[_IDENTITY_HEAD + 8 :]
    return data[:_IDENTITY_HEAD] + struct.pack("<II", len(payload), crc32(payload)) + payload


def _decode_identity(data: bytes) -> Identity | None:
    identity = _identity(data)
    if identity is not None:
        require(0 < identity.incarnation <= values.NUMBER_MAX, f"incarnation {identity.incarnation}")
        files = _disk({})
        write_identity(files, LOG, identity)
        require(read_identity(files, LOG) == identity, "it is another when it is written again")
    return identity


# ---- a whole log, damaged ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    """A log that was written and synced. ``counts[n]`` is how many writes the first n records hold."""

    contents: dict[str, bytes]
    writes: tuple[Write, ...]
    counts: tuple[int, ...]
    used: dict[str, int]

    @cache  # noqa: B019 (there are IMAGES of them, for as long as the process lives)
    def replayed(self, records: int) -> Recovered:
        """What the first so many records say."""
        recovered = Recovered()
        for write in self.writes[: self.counts[records]]:
            recovered.apply(write)
        return recovered

    def __hash__(self) -> int:
        return id(self)


@cache
def _image(number: int) -> _Image:
    """One of a few logs of every shape: of one to four segments, closed in order or not, opened several times."""
    rng = Random(number)
    files = _disk({})
    writes: list[Write] = []
    counts = [0]
    log, _ = _open(files, create=True)
    history = values.history(rng, rng.choice((1, 3, 10, 40, 60)), rng.choice((10, 300, 900)))
    while history:
        group, history = history[: (size := rng.randint(1, 6))], history[size:]
        log.append(group)
        log.sync()
        counts += range(len(writes) + 1, len(writes) + len(group) + 1)
        writes += group
        if rng.random() < 0.15 or (not history and rng.random() < 0.5):
            log.close()
            counts += [len(writes)] * (log._next_number - len(counts))
            if history:
                log, _ = _open(files)
    contents = {name: files.read(f"{LOG}/{name}") for name in files.names(LOG)}
    used = {name: len(data.rstrip(b"\0")) for name, data in contents.items()}
    return _Image(contents, tuple(writes), tuple(counts), used)


_CASE = struct.Struct(">H")
_EDIT = struct.Struct(">BII")
_FLIP_KINDS = 5
_KINDS = 13
_TOLD_BY_ITSELF = {*range(_FLIP_KINDS), 6, 10}
"""Flips, a file cut short, a file removed: the seal and the header's length tell, unless something else is done too."""


def _make_case(rng: Random) -> tuple[Recovered | None, bytes]:
    """Which log, and what happens to it: an edit is what, where, and with which number."""
    number = rng.randrange(IMAGES)
    only_flips = rng.random() < 0.5
    edits = [
        _EDIT.pack(
            rng.randrange(_FLIP_KINDS if only_flips else _KINDS), rng.getrandbits(32), rng.getrandbits(32)
        )
        for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 3, FLIPS_MAX)))
    ]
    image = _image(number)
    real = image.replayed(len(image.counts) - 1) if not edits else None
    return real, _CASE.pack(number) + b"".join(edits)


def _place(image: _Image, names: Sequence[str], where: int) -> tuple[str, int]:
    """A file and an offset in it: mostly where something stands, and mostly among the records."""
    name = names[where % len(names)]
    where //= len(names)
    used, at = image.used[name], where >> 3
    match where & 7:
        case 0:
            return name, at % len(image.contents[name])
        case 1:
            return name, at % (HEADER_BYTES + 8)
        case 2:
            return name, 4096 + at % 24
        case 3:
            return name, max(RECORDS_START, used - 1 - at % 120)
        case _:
            return name, RECORDS_START + at % max(1, used - RECORDS_START)


def _edit(image: _Image, contents: dict[str, bytes], kind: int, where: int, value: int) -> None:
    names = sorted(contents)
    if not names:
        return
    name, at = _place(image, sorted(image.contents), where)
    data = contents.get(name, b"")
    match kind:
        case 5:
            new = data[:at] + bytes((value & 0xFF,)) + data[at + 1 :]
        case 6:
            new = data[:at]
        case 7:
            size = value % 1_500
            new = data[:at] + bytes(min(size, max(0, len(data) - at))) + data[at + size :]
        case 8:
            new = data[:at] + bytes(value % 40) + data[at:]
        case 9:
            new = data[:at] + data[at + value % 40 :]
        case 10:
            contents.pop(name, None)
            return
        case 11:
            new = contents[names[value % len(names)]]
        case 12:
            new = (
                data[:at]
                + struct.pack("<I", values.INTERESTING_32[value % len(values.INTERESTING_32)])
                + data[at + 4 :]
            )
        case _:
            if at >= len(data):
                return
            new = data[:at] + bytes((data[at] ^ 1 << value % 8,)) + data[at + 1 :]
    contents[name] = new


def _recover_case(case: bytes) -> Recovered | None:
    """Damage is told, or what is there is what was written: all of it after a few flipped bits, else a first part."""
    if len(case) < _CASE.size:
        raise Answered("no case")
    image = _image(_CASE.unpack_from(case)[0] % IMAGES)
    contents = dict(image.contents)
    rest = case[_CASE.size :]
    edits = [_EDIT.unpack_from(rest, at) for at in range(0, len(rest) - _EDIT.size + 1, _EDIT.size)][:8]
    for kind, where, value in edits:
        _edit(image, contents, kind % _KINDS, where, value)
    files = _disk(contents)
    try:
        found = read_log(files, LOG, OWNER)
    except LogDamaged:
        _repair_case(image, files, edits)
        raise
    if found is None:
        require(not contents, "a log is taken for none")
        raise Answered("no log")
    recovered, tail = found
    kinds = {kind % _KINDS for kind, _, _ in edits}
    if kinds <= _TOLD_BY_ITSELF:
        whole = all(len(contents.get(name, b"")) >= len(data) for name, data in image.contents.items())
        require(whole, "a part of the log is missing, and nobody has noticed")
    records = tail.next_number - 1
    everything = len(image.counts) - 1
    require(records <= everything and recovered == image.replayed(records), "what was read was never written")
    if len(edits) <= FLIPS_MAX and kinds <= set(range(_FLIP_KINDS)):
        lost = everything - records
        require(recovered == image.replayed(everything), f"the last {lost} records are gone without a word")
    log, opened = _open(files)
    require(opened == recovered, "opening a log reads another than reading it")
    log.close()
    files.crash(Random(1), CrashMode.DROP)
    again = read_log(files, LOG, OWNER)
    require(again is not None and again[0] == recovered, "what a start believed was not durable")
    return recovered


def _repair_case(image: _Image, files: MemoryFiles, edits: list[tuple[int, int, int]]) -> None:
    """After a few flipped bits: the promise stands, and each slot is there as it was or named as unreadable."""
    if len(edits) > FLIPS_MAX or any(kind % _KINDS >= _FLIP_KINDS for kind, _, _ in edits):
        return
    try:
        found = read_log(files, LOG, OWNER, repair=True)
    except LogDamaged:
        return
    require(found is not None, "a log is taken for none")
    recovered = found[0] if found is not None else Recovered()
    real = image.replayed(len(image.counts) - 1)
    require(recovered.promised == real.promised, "the promise has gone down")
    require(recovered.decided_through == real.decided_through, "what is decided has gone down")
    require(
        recovered.slots.keys() | recovered.unreadable == real.slots.keys(), "a slot is gone without a word"
    )
    require(not recovered.slots.keys() & recovered.unreadable, "a slot is there and unreadable")
    for slot, held in recovered.slots.items():
        require(held == real.slots[slot], f"slot {slot} is another")


# ---- a whole log whose rows are wrong, and its checksums right -----------------------------------------------


def _make_rows(rng: Random) -> tuple[Recovered, bytes]:
    history = values.history(rng, rng.randint(0, 8), 60)
    recovered = Recovered()
    for write in history:
        recovered.apply(write)
    return recovered, join_frames(_row_bytes(encode_write(write)) for write in history)


def _recover_rows(data: bytes) -> Recovered:
    header = SegmentHeader(1, RECORDS_START + 2 * len(data) + (64 << 10), OWNER, 5, 1, RecordFormat(5).seed)
    form = RecordFormat(header.salt)
    parts: list[bytes] = [encode_header(header).ljust(RECORDS_START, b"\0")]
    crc = header.previous_crc
    for number, each in enumerate(list(split_frames(data))[:1_000], 1):
        crc = form.encode(parts, _row(each), number, number - 1, crc)
    segment = b"".join(parts)
    header = header._replace(capacity=len(segment) + 512)
    files = _disk({segment_name(1): encode_header(header) + segment[HEADER_BYTES:] + bytes(512)})
    found = read_log(files, LOG, OWNER)
    require(found is not None, "a log is taken for none")
    recovered, _ = found or (Recovered(), None)
    require(
        recovered.decided_through == 0 or recovered.decided_through in recovered.slots,
        "decided, and not there",
    )
    return recovered


def _make_name(rng: Random) -> tuple[int, bytes]:
    sequence = rng.randint(0, 10**16 - 1)
    return sequence, segment_name(sequence).encode()


def _decode_name(data: bytes) -> int:
    sequence = segment_sequence(data.decode("utf-8", "surrogateescape"))
    if sequence is None:
        raise Answered("None")
    require(segment_name(sequence).encode() == data, "two names for one segment")
    return sequence


TARGETS = (
    Target(
        "log-row",
        (
            "storage.payloads:decode_write",
            "storage.payloads:_decode_version_1",
            "storage.payloads:_entry",
            "storage.payloads:_entry_from_pb",
        ),
        _make_write,
        _decode_write,
        (UnknownEntry, ValueError),
        is_proto=False,
        proto_from=_ROW.size,
    ),
    Target(
        "log-rows",
        ("storage.payloads:decode_write", "storage.recovery:_Reader._take"),
        _make_rows,
        _recover_rows,
        (LogDamaged, UnknownEntry, InvariantViolation, ValueError),
        is_joined=True,
        blows_up=False,
    ),
    Target(
        "log-record",
        (
            "storage.records:RecordFormat.read",
            "storage.records:RecordFormat.head",
            "storage.records:RecordFormat.stored_crc",
            "storage.records:RecordFormat._mask",
        ),
        _make_record,
        _decode_record,
        is_proto=False,
        mend=_mend_record,
    ),
    Target(
        "segment-header",
        ("storage.headers:decode_header",),
        _make_header,
        _decode_header,
        is_proto=False,
        mend=_mend_header,
        blows_up=False,
    ),
    Target("segment-name", ("storage.headers:segment_sequence",), _make_name, _decode_name, is_proto=False),
    Target(
        "recovery",
        ("storage.recovery:read_log", "storage.recovery:_read_header"),
        _make_case,
        _recover_case,
        (LogDamaged, IdentityMismatch),
        is_proto=False,
        blows_up=False,
    ),
    Target(
        "identity",
        ("storage.identity:read_identity", "storage.identity:_decode"),
        _make_identity,
        _decode_identity,
        (LogDamaged, IdentityMismatch),
        is_proto=False,
        proto_from=_IDENTITY_HEAD + 8,
        mend=_mend_identity,
        blows_up=False,
    ),
)
