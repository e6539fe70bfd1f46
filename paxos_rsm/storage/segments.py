"""The slot log on disk: append-only segments, group commit, nothing ever forgotten in silence.

The log is a directory of segment files (headers.py), each of which holds records (records.py), each of which holds one
write of the protocol (payloads.py). :meth:`SegmentLog.append` encodes a group of writes into one piece and hands it to
the system with one write; :meth:`SegmentLog.sync` makes all that was appended durable with one fdatasync. Reading it
back, and what is believed then, is told in recovery.py.

What every reader of this file must know:

- *A record names what was synced before it* (``durable_through``), so each group proves the one before it. An orderly
  close leaves a mark, a record of nothing, which proves the last one.
- *A record never spans two segments; a group may.* Rolling to the next segment: sync the full one; make the next under
  another name, with its header, sync it, give it its name, sync the directory; write and sync the seal of the full
  one. Only then is anything written to the new one. So whatever stands in a later segment proves all before it.
- *Segments are allocated whole, and zeros are written ahead of the records*, so that a sync need not touch the file
  system's own journal for every group: measured on ext4, 135 µs instead of 190 for a group of 4 kB. The zeros go with
  the next sync. They cost a second write of each byte, in runs of 256 kB.
- *Any error is final.* A failed sync is told once by the system and the bytes may be gone (files.py), so after the
  first error the log refuses every call with that error until the server is started again.
- *A full disk is waited out* where whoever owns the log says so (``wait_for_space``). Space is taken only when a file
  is made, before anything is written to it, and all that was written before is durable by then: so trying again is
  trying for the first time. A write into space that was allocated, and is not there, is an error like any other.
- *A segment of an older version* is read and never written to: the log goes on in a new one.
- *Dropping segments* once a snapshot has their content follows the order that start.py tells. A segment goes when every
  slot that it speaks of is compacted, and it is not the last. Removing one of 64 MiB takes the system some 20 ms, so no
  group of writes waits for more than one.

Not here: threads (writer.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from paxos_rsm.errors import ConfigError, InvariantViolation, LogDamaged, LogIOError, StorageError
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteCompacted, WriteDecided, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Slot
from paxos_rsm.storage.base import DrawBits, Recovered
from paxos_rsm.storage.files import File, FileSystem, is_no_space, storage_error
from paxos_rsm.storage.headers import (
    RECORDS_START,
    SEAL_START,
    VERSION,
    SegmentHeader,
    encode_header,
    encode_seal,
    segment_name,
)
from paxos_rsm.storage.payloads import encode_write
from paxos_rsm.storage.records import MARK, NOTHING, PAYLOAD_BYTES_MAX, RecordFormat, Row, record_bytes
from paxos_rsm.storage.recovery import WHAT_TO_DO, SegmentContent, Tail, read_log
from paxos_rsm.storage.start import WHOLE, LogStart, write_start

__all__ = ["SEGMENT_BYTES", "SEGMENT_BYTES_MIN", "SegmentLog"]

SEGMENT_BYTES = 64 << 20
"""The length of a segment, unless a record is longer."""
SEGMENT_BYTES_MIN = 16 << 10
_ZEROS_AHEAD = bytes(256 << 10)
_TEMPORARY = ".new"


class SegmentLog:
    """A :class:`paxos_rsm.storage.base.LogStorage` in a directory of segments; see the module's docstring.

    Always holds: records up to ``durable_through`` are durable; ``promised`` never goes down.
    """

    def __init__(
        self, files: FileSystem, directory: str, segment_bytes: int, recovered: Recovered, tail: Tail
    ) -> None:
        self._files = files
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._promised = recovered.promised
        self._start = tail.start
        self._contents = tail.contents
        self._left_over = tail.left_over
        self._header = tail.header
        self._format = RecordFormat(tail.header.salt)
        self._next_number = tail.next_number
        self._previous_crc = tail.previous_crc
        self._durable_through = tail.next_number - 1
        self._end = tail.end
        self._zeros_end = tail.end
        self._ends_in_mark = tail.ends_in_mark
        self._file: File | None = None
        self._failure: StorageError | None = None
        self.wait_for_space: Callable[[], bool] = _never
        """Asked where the disk is full, again and again: waits a while, and says whether to try once more."""

    @classmethod
    def open(
        cls,
        files: FileSystem,
        directory: str,
        *,
        owner: int,
        draw_bits: DrawBits,
        create: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        repair: bool = False,
    ) -> tuple["SegmentLog", Recovered]:
        """Opens the log in ``directory`` and says what it remembered, all of which is durable then.

        ``owner`` is the incarnation of the member; ``create`` allows a log that is not there to be made;
        ``segment_bytes`` is the length of new segments; ``repair``: entries that cannot be read any more are told by
        ``Recovered.unreadable``, and are no reason to refuse.

        Raises LogDamaged, IdentityMismatch, UnknownEntry, InvariantViolation (see recovery.py), LogIOError, DiskFull.
        """
        if segment_bytes < SEGMENT_BYTES_MIN:
            raise ConfigError(
                f"a segment of {segment_bytes} bytes is too short; at least {SEGMENT_BYTES_MIN} are needed"
            )
        try:
            found = read_log(files, directory, owner, repair=repair)
        except OSError as error:
            raise storage_error(error, f"reading the log in {directory}") from error
        if found is None and not create:
            raise LogDamaged(
                f"the log is missing from {directory}, and this member has used it before. {WHAT_TO_DO}"
            )
        recovered, tail = found or (Recovered(), _new_log(owner, draw_bits(64), segment_bytes))
        log = cls(files, directory, segment_bytes, recovered, tail)
        try:
            with log._io("opening"):
                if found is None:
                    log._file = log._make_segment(tail.header)
                else:
                    log._make_durable(tail)
                    while log._left_over:
                        log._remove_one()
        except BaseException:
            log.close()
            raise
        return log, recovered

    @property
    def bytes_on_disk(self) -> int:
        """The bytes that the log's segments have in use, without what is allocated ahead."""
        return sum(content.end for content in self._contents[:-1]) + self._end

    @property
    def compacted_through(self) -> Slot:
        """The slot up to which nothing is held here any more."""
        return self._start.compacted_through

    def append(self, writes: Sequence[Write]) -> None:
        """Hands the writes to the system, in order, in one piece (two where a segment is full).

        Nothing is durable yet, except what comes before a ``WriteCompacted``. Raises LogIOError and DiskFull, after
        which the log is of no more use, and InvariantViolation, with nothing written, where a promise would go down or
        an entry is beyond all bounds.
        """
        self._check()
        rows = self._encode(writes)
        with self._io("writing"):
            first = 0
            for at, write in enumerate(writes):
                if isinstance(write, WriteCompacted):
                    self._append(writes[first:at], rows[first:at])
                    self._compact(write.slot)
                    first = at + 1
            self._append(writes[first:], rows[first:])
            if self._left_over:
                self._remove_one()

    def sync(self) -> None:
        """Returns once everything appended is durable. Raises LogIOError and DiskFull; see the class."""
        self._check()
        with self._io("syncing"):
            self._sync()

    def close(self) -> None:
        """Leaves a mark that proves everything before it, syncs, and closes the file. Closing twice is allowed.

        After an error it only closes the file. Raises LogIOError and DiskFull.
        """
        file, has_failed = self._file, self._failure is not None
        if file is None:
            return
        try:
            if not has_failed:
                with self._io("closing"):
                    self._sync()
                    self._leave_mark()
        finally:
            file.close()
            self._file = None
            if self._failure is None:
                self._failure = LogIOError("the log is closed")

    # ---------------------------------------------------------------------------------- inside

    def _encode(self, writes: Sequence[Write]) -> list[Row]:
        """The rows of the writes, none of which may lower the promise or be beyond all bounds."""
        promised = self._promised
        rows: list[Row] = []
        for write in writes:
            if isinstance(write, WriteAccepted | WritePromise):
                if write.ballot < promised:
                    raise InvariantViolation(
                        f"a write of ballot {write.ballot} was given to the log after a promise of {promised} (rule 3)"
                    )
                promised = write.ballot
            row = NOTHING if isinstance(write, WriteCompacted) else encode_write(write)
            if len(row.payload) > PAYLOAD_BYTES_MAX:
                raise InvariantViolation(
                    f"a write of {len(row.payload)} bytes was given to the log, which takes {PAYLOAD_BYTES_MAX} at "
                    "most; entries have to be bounded before they are proposed"
                )
            rows.append(row)
        return rows

    def _append(self, writes: Sequence[Write], rows: Sequence[Row]) -> None:
        parts: list[bytes] = []
        end = self._end
        for write, row in zip(writes, rows, strict=True):
            size = record_bytes(len(row.payload))
            if end + size > self._header.capacity or self._header.version != VERSION:
                self._write(parts, end)
                self._roll(size)
                parts, end = [], self._end
            self._previous_crc = self._format.encode(
                parts, row, self._next_number, self._durable_through, self._previous_crc
            )
            self._next_number += 1
            end += size
            if isinstance(write, WriteAccepted | WritePromise):
                self._promised = write.ballot
            if isinstance(write, WriteAccepted | WriteDecided):
                content = self._contents[-1]
                content.newest_slot = max(content.newest_slot, write.slot)
        if parts:
            self._ends_in_mark = False
            self._write(parts, end)

    def _write(self, parts: list[bytes], end: int) -> None:
        """Writes the parts, which reach up to ``end``, and zeros ahead where the last ones are used up."""
        file = self._open_file()
        if parts:
            file.pwrite(b"".join(parts), self._end)
        self._end = end
        if end > self._zeros_end:
            zeros_end = min(end + len(_ZEROS_AHEAD), self._header.capacity)
            file.pwrite(_ZEROS_AHEAD[: zeros_end - end], end)
            self._zeros_end = zeros_end

    def _sync(self) -> None:
        last = self._next_number - 1
        if self._durable_through < last:
            self._open_file().fdatasync()
            self._durable_through = last

    def _leave_mark(self) -> None:
        """Proves what was synced last. Without it, if the segment is full: the next group will prove it."""
        fits = self._end + record_bytes(0) <= self._header.capacity and self._header.version == VERSION
        if fits and self._next_number > 1 and not self._ends_in_mark:
            parts: list[bytes] = []
            self._previous_crc = self._format.encode(
                parts, NOTHING, self._next_number, self._durable_through, self._previous_crc, MARK
            )
            self._next_number += 1
            self._ends_in_mark = True
            self._write(parts, self._end + record_bytes(0))
            self._sync()

    def _compact(self, through: Slot) -> None:
        """Forgets the slots up to ``through``, in the order that start.py tells; what is to go, goes later."""
        if through <= self._start.compacted_through:
            return
        self._sync()
        dropped = 0
        while dropped < len(self._contents) - 1 and self._contents[dropped].newest_slot <= through:
            dropped += 1
        first = self._contents[dropped]
        start = LogStart(first.sequence, through, first.promised)
        write_start(self._files, self._directory, start, self._create)
        self._start = start
        self._left_over += [content.sequence for content in self._contents[:dropped]]
        del self._contents[:dropped]

    def _remove_one(self) -> None:
        """Removes a segment that is no part of the log any more."""
        self._files.remove(self._path(self._left_over.pop(0)))

    def _roll(self, record_size: int) -> None:
        """Goes on in a new segment, long enough for a record of this size."""
        self._sync()
        full = self._open_file()
        header = self._header._replace(
            sequence=self._header.sequence + 1,
            capacity=max(self._segment_bytes, RECORDS_START + record_size),
            first_number=self._next_number,
            previous_crc=self._previous_crc,
            version=VERSION,
        )
        self._file = self._make_segment(header)
        try:
            full.pwrite(encode_seal(header.sequence), SEAL_START)
            full.fdatasync()
        finally:
            full.close()
        self._contents[-1].end = self._end
        self._contents.append(
            SegmentContent(header.sequence, self._promised, newest_slot=0, end=RECORDS_START)
        )
        self._header = header
        self._end = self._zeros_end = RECORDS_START

    def _make_segment(self, header: SegmentHeader) -> File:
        """A new segment, durable with its name."""
        path = self._path(header.sequence)
        file = self._create(path + _TEMPORARY, header.capacity)
        try:
            file.pwrite(encode_header(header), 0)
            file.fdatasync()
            self._files.rename(path + _TEMPORARY, path)
            self._files.sync_directory(self._directory)
        except BaseException:
            file.close()
            raise
        return file

    def _create(self, path: str, size: int) -> File:
        """A new file with its space: what is written so far is durable, and needs none."""
        while True:
            try:
                return self._files.create(path, size)
            except OSError as error:
                with suppress(OSError):  # a part of it may take the space that somebody now frees
                    self._files.remove(path)
                if not is_no_space(error) or not self.wait_for_space():
                    raise

    def _make_durable(self, tail: Tail) -> None:
        """Makes durable what recovery believed, and empty what it dropped; finishes a roll that was cut short."""
        sequence = tail.header.sequence
        self._file = self._files.open(self._path(sequence))
        if tail.rewrite:
            self._file.pwrite(tail.rewrite, tail.rewrite_start)
        self._file.fdatasync()
        self._files.sync_directory(self._directory)
        if sequence > tail.start.first_segment:
            full = self._files.open(self._path(sequence - 1))
            try:
                full.pwrite(encode_seal(sequence), SEAL_START)
                full.fdatasync()
            finally:
                full.close()

    def _path(self, sequence: int) -> str:
        return f"{self._directory}/{segment_name(sequence)}"

    def _open_file(self) -> File:
        if self._file is None:
            raise LogIOError("the log is closed")
        return self._file

    def _check(self) -> None:
        """Raises the error that ended the log, if one did."""
        if self._failure is not None:
            raise type(self._failure)(f"the log takes no more: {self._failure}") from self._failure

    @contextmanager
    def _io(self, doing: str) -> Iterator[None]:
        """Makes whatever goes wrong inside final."""
        what = f"{doing} the log in {self._directory}"
        try:
            yield
        except OSError as error:
            self._failure = storage_error(error, what)
            raise self._failure from error
        except BaseException as error:
            self._failure = LogIOError(f"{what} was cut short: {error!r}")
            raise


def _never() -> bool:
    return False


def _new_log(owner: int, salt: int, segment_bytes: int) -> Tail:
    """The tail of a log without any record, whose first segment has yet to be made."""
    seed = RecordFormat(salt).seed
    header = SegmentHeader(1, segment_bytes, owner, salt, first_number=1, previous_crc=seed)
    return Tail(
        header=header,
        start=WHOLE,
        end=RECORDS_START,
        next_number=1,
        previous_crc=seed,
        ends_in_mark=False,
        rewrite=b"",
        rewrite_start=RECORDS_START,
        torn_bytes=0,
        contents=[SegmentContent(1, NO_BALLOT, newest_slot=0, end=RECORDS_START)],
        left_over=[],
    )
