"""Reading the log back: everything that was acknowledged, or LogDamaged; never less in silence.

A log that was compacted starts at the segment that ``start`` names (start.py); what lies before it is left over.

Records are read in order, each of which must have the next number and name the checksum of the one before. The log
ends at the first place where no such record stands. What that place means is the heart of the matter (DESIGN.md
section 6; Alagappan et al., *Protocol-Aware Recovery for Consensus-Based Storage*, FAST 2018):

1. **A later segment exists.** It was made only after everything before it had been synced, and its header says with
   which record it starts. A log that ends before that record is damaged.
2. **The segment is sealed.** A next one was durable, and is missing: damaged.
3. **A later record of the segment is valid and says that the missing one was synced** (its ``durable_through`` is
   not below): damaged.
4. Otherwise the missing record belongs to the last group, of which nobody can tell whether its sync was
   acknowledged, unless by the record itself: one that **was written whole and has changed since** (records.py says how
   that is seen) is damaged; so is one whose checksums hold and which does not follow the one before.
5. Only **what a torn write leaves** is left: dropped, with all that follows it. Valid records after it are
   no proof of damage: the system writes pages out in any order.

*An entry lost, and nothing else.* Where a record is damaged by one of these and its header is sound, nothing more is
lost than the entry in it: the header says which slot that was and which ballot was voted in. Such a slot is
*unreadable* (``Recovered.unreadable``): the record stays where it is, the log goes on after it, and what was decided
there is fetched from peers. What the next record names as the checksum before it is believed then. A damaged header, a
promise that may be lost with it, or a record of version 1 is still LogDamaged; so is everything unless ``repair`` is
asked for.

What is kept is not durable yet, not even what can be read: the process may have died before its sync, or because its
sync failed, after which the system takes lost pages for clean. So :class:`Tail` says what has to be written once more
and synced before anything is believed: the records that no later one proves synced, as they are, and zeros over what
was dropped, so that nothing of it can ever be taken for a part of the log.

A header or a segment's length that does not hold is damage without further question: both were durable before the
segment had its name. So is a segment that is missing in the middle.
"""

from dataclasses import dataclass

from paxos_rsm.errors import IdentityMismatch, LogDamaged
from paxos_rsm.paxos.ready import WriteAccepted, WriteDecided
from paxos_rsm.paxos.types import Ballot, Slot
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.files import FileSystem
from paxos_rsm.storage.headers import (
    HEADER_BYTES,
    RECORDS_START,
    SEAL_BYTES,
    SEAL_START,
    SegmentHeader,
    decode_header,
    segment_name,
    segment_sequence,
)
from paxos_rsm.storage.payloads import decode_write, left_of
from paxos_rsm.storage.records import Head, Record, RecordFormat
from paxos_rsm.storage.start import START_NAME, WHOLE, LogStart, decode_start

__all__ = ["SegmentContent", "Tail", "damaged", "has_segments", "read_log", "segment_sequences"]

WHAT_TO_DO = (
    "Votes that this server has given may be lost, so it does not start. Restore the disk to what it was, or remove "
    "this member from the cluster and add it anew with an empty data directory; do not edit or delete the file"
)


@dataclass(slots=True)
class SegmentContent:
    """What compaction has to know of one segment.

    ``promised`` is the promise as the segments before left it, ``newest_slot`` the highest slot that a vote or a
    decided entry in it speaks of, ``end`` the bytes that it has in use.
    """

    sequence: int
    promised: Ballot
    newest_slot: Slot
    end: int


@dataclass(slots=True)
class Tail:
    """Where and how a log goes on after its recovery.

    ``end`` is the offset in the last segment at which the next record goes, ``rewrite`` what has to be written at
    ``rewrite_start`` and synced before. ``contents`` are those of all segments, the last one included; ``left_over``
    the segments that a compaction had yet to remove.
    """

    header: SegmentHeader
    start: LogStart
    end: int
    next_number: int
    previous_crc: int
    ends_in_mark: bool
    rewrite: bytes
    rewrite_start: int
    torn_bytes: int
    contents: list[SegmentContent]
    left_over: list[int]


def damaged(path: str, offset: int, number: int | None, why: str) -> LogDamaged:
    """The error that names a damaged place of the log and what to do about it."""
    record = "" if number is None else f", record {number}"
    return LogDamaged(f"the log is damaged in {path} at byte {offset}{record}: {why}. {WHAT_TO_DO}")


def has_segments(files: FileSystem, directory: str) -> bool:
    """Whether a log was ever made here."""
    return bool(segment_sequences(files, directory))


def read_log(
    files: FileSystem, directory: str, owner: int, *, repair: bool = False
) -> tuple[Recovered, Tail] | None:
    """Reads the log in ``directory``; None where there is none. Writes nothing.

    ``repair``: a lost entry makes its slot unreadable, and is not LogDamaged.

    Raises LogDamaged, IdentityMismatch (it is not the log of the incarnation ``owner``), UnknownEntry (a newer version
    wrote it), InvariantViolation (a bug wrote it), and OSError.
    """
    start = _read_start(files, directory)
    everything = segment_sequences(files, directory)
    if start is None and not everything:
        return None
    first = start.first_segment if start is not None else 1
    sequences = [sequence for sequence in everything if sequence >= first]
    if not sequences:
        raise damaged(
            f"{directory}/{segment_name(first)}",
            0,
            None,
            f"the segment is missing, and {START_NAME} names it",
        )
    for at, sequence in enumerate(sequences, first):
        if sequence != at:
            path = f"{directory}/{segment_name(at)}"
            raise damaged(path, 0, None, f"the segment is missing, while {segment_name(sequence)} exists")
    headers = [_read_header(files, directory, sequence, owner) for sequence in sequences]
    left_over = [sequence for sequence in everything if sequence < first]
    return _Reader(files, directory, headers, start or WHOLE, repair).read(left_over)


class _Reader:
    """One pass over the segments."""

    def __init__(
        self,
        files: FileSystem,
        directory: str,
        headers: list[SegmentHeader],
        start: LogStart,
        repair: bool,
    ) -> None:
        self._files = files
        self._directory = directory
        self._headers = headers
        self._format = RecordFormat(headers[0].salt, headers[0].version)
        self._start = start
        self._repair = repair
        self._recovered = Recovered(
            start.promised, decided_through=start.compacted_through, compacted_through=start.compacted_through
        )
        self._contents: list[SegmentContent] = []
        is_whole = start.first_segment == 1
        self._next_number = 1 if is_whole else headers[0].first_number
        self._previous_crc = self._format.seed if is_whole else headers[0].previous_crc
        self._believes_any_crc = (
            False  # the record before cannot be read, so nobody knows what its checksum was
        )
        self._ends_in_mark = False
        self._proven = 0  # every record up to this number was synced, as a later one says

    def read(self, left_over: list[int]) -> tuple[Recovered, Tail]:
        for header, following in zip(self._headers, self._headers[1:], strict=False):
            self._read_full(header, following)
        return self._recovered, self._read_last(self._headers[-1], left_over)

    def _read_full(self, header: SegmentHeader, following: SegmentHeader) -> None:
        """Reads a segment that another follows: none of its records may be missing."""
        path, data = self._load(header)
        at = RECORDS_START
        while self._next_number < following.first_number:
            end = self._next(path, data, at, is_proven=True)
            if end is None:
                why = self._format.damage(data, at) or "it is missing"
                why += f", although {segment_name(following.sequence)} goes on after it"
                raise damaged(path, at, self._next_number, why)
            at = end
        self._proven = self._next_number - 1
        self._contents[-1].end = at

    def _read_last(self, header: SegmentHeader, left_over: list[int]) -> Tail:
        """Reads the last segment, and decides what its end means."""
        path, data = self._load(header)
        if any(data[SEAL_START : SEAL_START + SEAL_BYTES]):
            missing = segment_name(header.sequence + 1)
            raise damaged(
                path, SEAL_START, None, f"it was sealed, and the segment after it, {missing}, is missing"
            )
        at = RECORDS_START
        unproven: list[tuple[int, int]] = []  # numbers and offsets of records that no later one proves synced
        while (end := self._next(path, data, at, is_proven=False)) is not None:
            unproven.append((self._next_number - 1, at))
            at = end
            if self._proven >= unproven[0][0]:
                unproven = [each for each in unproven if each[0] > self._proven]
        self._check_end(path, data, at)
        self._contents[-1].end = at
        used = len(data.rstrip(b"\0"))
        torn_bytes = max(0, used - at)
        start = unproven[0][1] if unproven else at
        return Tail(
            header=header,
            start=self._start,
            end=at,
            next_number=self._next_number,
            previous_crc=self._previous_crc,
            ends_in_mark=self._ends_in_mark,
            rewrite=data[start:at] + bytes(torn_bytes),
            rewrite_start=start,
            torn_bytes=torn_bytes,
            contents=self._contents,
            left_over=left_over,
        )

    def _next(self, path: str, data: bytes, at: int, *, is_proven: bool) -> int | None:
        """Replays the next record, which stands at ``at``. Returns where it ends; None where it does not stand there.

        ``is_proven``: it was synced, so that only damage can have changed it.
        """
        record = self._format.read(data, at)
        if record is not None:
            return self._take(path, at, record)
        head = self._format.head(data, at) if self._repair else None
        if head is None or head.end > len(data) or not self._follows(head):
            return None
        if not is_proven and not self._is_damaged(data, at):
            return None
        try:
            left = left_of(head)
        except ValueError as error:
            raise damaged(path, at, head.number, str(error)) from error
        if left is None and not head.is_mark:
            return None
        if isinstance(left, tuple):
            self._recovered.lose(*left)
            self._contents[-1].newest_slot = max(self._contents[-1].newest_slot, left[0])
        elif left is not None:
            self._recovered.apply(left)
        self._step(head, self._format.stored_crc(data, head))
        self._believes_any_crc = True
        return head.end

    def _is_damaged(self, data: bytes, at: int) -> bool:
        """Whether the record that should stand at ``at``, in the last segment, was not only torn."""
        if self._format.damage(data, at) is not None:
            return True
        number = self._next_number
        return any(record.durable_through >= number for _, record in self._format.later(data, at, number))

    def _check_end(self, path: str, data: bytes, at: int) -> None:
        """Raises LogDamaged unless what follows the last record was never acknowledged."""
        number = self._next_number
        why = self._format.damage(data, at)
        if why is not None:
            raise damaged(path, at, number, why)
        for offset, record in self._format.later(data, at, number):
            if record.durable_through >= number:
                why = (
                    f"it is missing, although record {record.number} at byte {offset} says that it was synced"
                )
                raise damaged(path, at, number, why)

    def _take(self, path: str, at: int, record: Record) -> int:
        """Replays a record that must be the next one. Returns where it ends."""
        if not self._follows(record):
            why = f"record {record.number} stands there, which does not follow the one before"
            raise damaged(path, at, self._next_number, why)
        if not record.is_mark:
            try:
                write = decode_write(record.row)
            except ValueError as error:
                raise damaged(path, at, record.number, str(error)) from error
            self._recovered.apply(write)
            if isinstance(write, WriteAccepted | WriteDecided):
                content = self._contents[-1]
                content.newest_slot = max(content.newest_slot, write.slot)
        self._step(record, record.crc)
        return record.end

    def _follows(self, record: Record | Head) -> bool:
        is_chained = self._believes_any_crc or record.previous_crc == self._previous_crc
        return record.number == self._next_number and is_chained

    def _step(self, record: Record | Head, crc: int) -> None:
        """A record is behind us."""
        self._next_number += 1
        self._previous_crc = crc
        self._believes_any_crc = False
        self._ends_in_mark = record.is_mark
        self._proven = max(self._proven, record.durable_through)

    def _load(self, header: SegmentHeader) -> tuple[str, bytes]:
        """The path and the bytes of a segment, which must begin where the one before ends."""
        path = f"{self._directory}/{segment_name(header.sequence)}"
        self._format = RecordFormat(header.salt, header.version)
        is_chained = self._believes_any_crc or header.previous_crc == self._previous_crc
        if header.first_number != self._next_number or not is_chained:
            why = f"it starts with record {header.first_number} and does not follow the segment before"
            raise damaged(path, 0, self._next_number, why)
        self._contents.append(
            SegmentContent(header.sequence, self._recovered.promised, newest_slot=0, end=RECORDS_START)
        )
        data = self._files.read(path)
        if len(data) < header.capacity:
            raise damaged(
                path, len(data), None, f"it is shorter than the {header.capacity} bytes it was made with"
            )
        return path, data[: header.capacity]


def segment_sequences(files: FileSystem, directory: str) -> list[int]:
    """The numbers of the segments that lie in a directory, in order. Raises OSError."""
    try:
        names = files.names(directory)
    except FileNotFoundError:
        return []
    return sorted(sequence for name in names if (sequence := segment_sequence(name)) is not None)


def _read_start(files: FileSystem, directory: str) -> LogStart | None:
    """Where the log starts; None where nothing was ever dropped. Raises LogDamaged where that cannot be read."""
    path = f"{directory}/{START_NAME}"
    try:
        data = files.read(path)
    except FileNotFoundError:
        return None
    start = decode_start(data)
    if start is None:
        raise damaged(
            path, 0, None, "it does not match its checksum, and holds the promise of what was dropped"
        )
    return start


def _read_header(files: FileSystem, directory: str, sequence: int, owner: int) -> SegmentHeader:
    """The header of a segment. Raises LogDamaged where it does not hold, IdentityMismatch where it is another's."""
    path = f"{directory}/{segment_name(sequence)}"
    file = files.open(path)
    try:
        header = decode_header(file.pread(HEADER_BYTES, 0))
    finally:
        file.close()
    if header is None:
        raise damaged(path, 0, None, "its header does not match its checksum")
    if header.capacity < RECORDS_START:
        raise damaged(path, 0, None, f"its header says that it is {header.capacity} bytes long")
    if header.sequence != sequence:
        raise damaged(path, 0, None, f"it is {segment_name(header.sequence)} under another name")
    if header.owner != owner:
        raise IdentityMismatch(
            f"{path} belongs to another member: it was written by the incarnation {header.owner}, and the identity "
            f"file beside the log says {owner}. Put back the files that belong together; do not mix data directories"
        )
    return header
