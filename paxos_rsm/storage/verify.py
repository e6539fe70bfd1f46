"""Reading a data directory without starting a server on it: what stands in each file, what is damaged, what that means.

:func:`verify` looks at every file by itself, so that damage in one does not hide that in another, and then lets the
recovery say what a start would make of it all. It takes the directory's lock, so that nobody writes meanwhile, and
changes nothing else. Snapshots are read from end to end, which a start does not do before it needs them.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from paxos_rsm.errors import (
    DirectoryUnusable,
    IdentityMismatch,
    InvariantViolation,
    LogDamaged,
    SnapshotDamaged,
    UnknownEntry,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Slot
from paxos_rsm.storage.base import Recovered
from paxos_rsm.storage.directory import LOG_NAME, SNAPSHOTS_NAME, lock_directory
from paxos_rsm.storage.files import FileSystem, storage_error
from paxos_rsm.storage.headers import RECORDS_START, SegmentHeader, decode_header, segment_sequence
from paxos_rsm.storage.identity import IDENTITY_NAME, NEXT_IDENTITY_NAME, Identity, read_identity
from paxos_rsm.storage.initial import INITIAL_NAME, read_initial
from paxos_rsm.storage.payloads import left_of
from paxos_rsm.storage.records import Head, RecordFormat
from paxos_rsm.storage.recovery import read_log
from paxos_rsm.storage.snapshot_format import SnapshotScan
from paxos_rsm.storage.snapshots import snapshot_slot
from paxos_rsm.storage.start import START_NAME, WHOLE, LogStart, decode_start

__all__ = ["FileReport", "Report", "Verdict", "verify"]


class Verdict(Enum):
    """What a start would make of a directory."""

    SOUND = "sound"
    """Everything that was acknowledged is there."""
    REPAIRABLE = "repairable"
    """Nothing that this server has promised or voted is in doubt; some of what it knew has to come from its peers."""
    REFUSED = "refused"
    """No server starts on it, for votes may be lost, or it belongs elsewhere."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file. ``problem`` is a phrase ("its header does not match its checksum"); None: it is what was written.

    ``name`` is relative to the directory, ``bytes`` the length of the file, ``content`` what stands in it,
    ``offset`` where the first damage is.
    """

    name: str
    bytes: int
    content: str
    problem: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole directory. ``meaning`` are sentences, the most important one first.

    ``promised``, ``decided_through``, ``compacted_through`` and ``unreadable`` are what the log says, where it can be
    read; ``snapshot`` is the slot of the newest one that is sound, 0 for none.
    """

    path: str
    verdict: Verdict
    meaning: tuple[str, ...]
    files: tuple[FileReport, ...]
    identity: Identity | None = None
    promised: Ballot = NO_BALLOT
    decided_through: Slot = 0
    compacted_through: Slot = 0
    unreadable: tuple[Slot, ...] = ()
    snapshot: Slot = 0

    @property
    def first_problem(self) -> FileReport | None:
        """The first file that is not what was written."""
        return next((file for file in self.files if file.problem is not None), None)


def verify(files: FileSystem, path: str | os.PathLike[str]) -> Report:
    """Reads the whole data directory at ``path``, and changes nothing.

    Raises DirectoryUnusable where there is none or it may not be read, DirectoryLocked where a server uses it, and
    LogIOError.
    """
    directory = os.path.abspath(path)
    with _io(directory):
        try:
            names = files.names(directory)
        except FileNotFoundError:
            names = []
        if IDENTITY_NAME not in names and LOG_NAME not in names:
            raise DirectoryUnusable(
                f"there is no data directory at {directory}: it has neither the file {IDENTITY_NAME} nor the directory "
                f"{LOG_NAME}. Name the directory that a server was given by --data-dir"
            )
        lock = lock_directory(files, directory)
        try:
            return _Verifier(files, directory).report()
        finally:
            lock.release()


class _Verifier:
    """One pass over a directory that nobody else uses."""

    def __init__(self, files: FileSystem, directory: str) -> None:
        self._files = files
        self._directory = directory
        self._log = f"{directory}/{LOG_NAME}"
        self._reports: list[FileReport] = []
        self._refusals: list[str] = []
        self._snapshot: Slot = 0
        self._damaged_snapshots = 0
        self._initial_problem: str | None = None

    def report(self) -> Report:
        identity = self._identity()
        if identity is not None and NEXT_IDENTITY_NAME in self._names(self._directory):
            return self._half_replaced(identity)
        start = self._start()
        self._initial(identity, start)
        self._segments(start)
        self._snapshots()
        recovered = self._recovered(identity)
        verdict, meaning = self._judge(recovered)
        if recovered is None:
            return Report(
                self._directory, verdict, meaning, tuple(self._reports), identity, snapshot=self._snapshot
            )
        return Report(
            self._directory,
            verdict,
            meaning,
            tuple(self._reports),
            identity,
            recovered.promised,
            recovered.decided_through,
            recovered.compacted_through,
            tuple(sorted(recovered.unreadable)),
            self._snapshot,
        )

    # ---- one file after the other ----------------------------------------------------------------------------

    def _identity(self) -> Identity | None:
        try:
            identity = read_identity(self._files, self._directory)
        except (LogDamaged, IdentityMismatch) as error:
            self._refusals.append(str(error))
            size = len(self._files.read(f"{self._directory}/{IDENTITY_NAME}"))
            self._reports.append(FileReport(IDENTITY_NAME, size, "", "it cannot be read", 0))
            return None
        if identity is None:
            self._refusals.append(
                f"{self._directory}/{IDENTITY_NAME} is missing, so it cannot be told under which incarnation this "
                "member has voted"
            )
            self._reports.append(FileReport(IDENTITY_NAME, 0, "", "it is missing"))
            return None
        content = (
            f"member {identity.name} ({identity.member_id:x}) of cluster {identity.cluster_id:x}, incarnation "
            f"{identity.incarnation:x}, started {identity.boot_count} times, format {identity.format_version}"
        )
        size = len(self._files.read(f"{self._directory}/{IDENTITY_NAME}"))
        self._reports.append(FileReport(IDENTITY_NAME, size, content))
        return identity

    def _half_replaced(self, identity: Identity) -> Report:
        """A directory in which --force-new-cluster was cut short: what stands there is neither the old nor the new."""
        path = f"{self._directory}/{NEXT_IDENTITY_NAME}"
        size = len(self._files.read(path))
        try:
            coming = read_identity(self._files, self._directory, NEXT_IDENTITY_NAME)
        except (LogDamaged, IdentityMismatch) as error:
            self._reports.append(FileReport(NEXT_IDENTITY_NAME, size, "", "it cannot be read", 0))
            return Report(self._directory, Verdict.REFUSED, (str(error),), tuple(self._reports), identity)
        cluster = f"{coming.cluster_id:x}" if coming is not None else "?"
        self._reports.append(
            FileReport(NEXT_IDENTITY_NAME, size, f"the same member, in the new cluster {cluster}")
        )
        meaning = f"this directory becomes that of the new cluster {cluster}: the next start of a server finishes it"
        return Report(self._directory, Verdict.REPAIRABLE, (meaning,), tuple(self._reports), identity)

    def _initial(self, identity: Identity | None, start: LogStart) -> None:
        """The state before slot 1, where the directory began with one that may still be needed."""
        if identity is None or not identity.restored_from or start.compacted_through:
            return
        path = f"{self._directory}/{INITIAL_NAME}"
        size, content, problem = 0, "the state that slot 1 goes on from", None
        try:
            with contextlib.closing(self._files.open(path)) as file:
                size = file.size()
            backup = read_initial(self._files, self._directory, identity.restored_from).backup
            content += f", the backup {backup.sha256}"
        except FileNotFoundError:
            problem = "it is missing"
        except SnapshotDamaged:
            problem = "it is not the backup that this directory was restored from, or is damaged"
        self._initial_problem = problem
        self._reports.append(FileReport(INITIAL_NAME, size, content, problem))

    def _start(self) -> LogStart:
        """Where the log starts; where that cannot be read, as if at its beginning."""
        name = f"{LOG_NAME}/{START_NAME}"
        try:
            data = self._files.read(f"{self._directory}/{name}")
        except FileNotFoundError:
            return WHOLE
        start = decode_start(data)
        if start is None:
            self._reports.append(FileReport(name, len(data), "", "it does not match its checksum", 0))
            return WHOLE
        through, first = start.compacted_through, start.first_segment
        content = f"the log is compacted through slot {through}, and starts in segment {first}"
        self._reports.append(FileReport(name, len(data), content))
        return start

    def _segments(self, start: LogStart) -> None:
        names = [name for name in self._names(self._log) if segment_sequence(name) is not None]
        headers = {name: self._header(name) for name in names}
        for at, name in enumerate(names):
            is_left_over = (segment_sequence(name) or 0) < start.first_segment
            data = self._files.read(f"{self._log}/{name}")
            header = headers[name]
            if is_left_over:
                self._add_segment(name, data, "left over from a compaction, and no part of the log")
            elif header is None:
                self._add_segment(name, data, "", "its header does not match its checksum", 0)
            else:
                self._segment(name, data, header, headers[names[at + 1]] if at + 1 < len(names) else None)

    def _segment(
        self, name: str, data: bytes, header: SegmentHeader, following: SegmentHeader | None
    ) -> None:
        """Walks the records of one segment by themselves, past entries that cannot be read."""
        walk = _Walk(data, header, is_last=following is None)
        walk.run()
        problem, offset = walk.problem, walk.offset
        if problem is None and len(data) < header.capacity:
            problem, offset = f"it is shorter than the {header.capacity} bytes it was made with", len(data)
        if problem is None and following is not None and walk.next_number < following.first_number:
            problem, offset = f"record {walk.next_number} is missing", walk.end
        self._add_segment(name, data, walk.content(), problem, offset)

    def _add_segment(
        self, name: str, data: bytes, content: str, problem: str | None = None, offset: int | None = None
    ) -> None:
        self._reports.append(FileReport(f"{LOG_NAME}/{name}", len(data), content, problem, offset))

    def _header(self, name: str) -> SegmentHeader | None:
        with contextlib.closing(self._files.open(f"{self._log}/{name}")) as file:
            return decode_header(file.pread(RECORDS_START, 0))

    def _snapshots(self) -> None:
        folder = f"{self._directory}/{SNAPSHOTS_NAME}"
        for name in self._names(folder):
            path = f"{folder}/{name}"
            slot = snapshot_slot(name)
            with contextlib.closing(self._files.open(path)) as file:
                size = file.size()
                if slot is None:
                    what = (
                        "put aside, for it is damaged"
                        if name.endswith(".damaged")
                        else "not whole, and not used"
                    )
                    self._reports.append(FileReport(f"{SNAPSHOTS_NAME}/{name}", size, what))
                    continue
                try:
                    scan = SnapshotScan(file, path)
                    scan.check()
                    problem = None if scan.meta.slot == slot else f"it is that of slot {scan.meta.slot}"
                    content, offset = f"the state as of slot {slot}, {scan.slices_read} slices", 0
                except SnapshotDamaged as error:
                    content, problem, offset = f"the state as of slot {slot}", error.why, error.offset
            report = FileReport(
                f"{SNAPSHOTS_NAME}/{name}", size, content, problem, offset if problem else None
            )
            self._reports.append(report)
            if problem is None:
                self._snapshot = max(self._snapshot, slot)
            else:
                self._damaged_snapshots += 1

    def _names(self, directory: str) -> list[str]:
        try:
            return self._files.names(directory)
        except FileNotFoundError:
            return []

    # ---- all of it -------------------------------------------------------------------------------------------

    def _recovered(self, identity: Identity | None) -> Recovered | None:
        """What a start would find in the log; None where it would refuse."""
        if identity is None:
            return None
        try:
            found = read_log(self._files, self._log, identity.incarnation, repair=True)
        except (LogDamaged, IdentityMismatch, UnknownEntry, InvariantViolation) as error:
            self._refusals.append(str(error))
            return None
        if found is not None:
            return found[0]
        if identity.boot_count:
            self._refusals.append(f"the log is missing from {self._log}, and this member has used it before")
            return None
        return Recovered()

    def _judge(self, recovered: Recovered | None) -> tuple[Verdict, tuple[str, ...]]:
        if recovered is None or self._refusals:
            return Verdict.REFUSED, tuple(self._refusals)
        meaning: list[str] = []
        if recovered.unreadable:
            some = ", ".join(map(str, sorted(recovered.unreadable)[:10]))
            more = len(recovered.unreadable) - 10
            meaning.append(
                f"the entries of {len(recovered.unreadable)} slots cannot be read ({some}"
                f"{f' and {more} more' if more > 0 else ''}): what was decided there has to come from the other members"
            )
        if recovered.compacted_through > self._snapshot:
            meaning.append(
                f"the log is compacted through slot {recovered.compacted_through}, and no sound snapshot reaches that "
                "far: the state has to come from the other members"
            )
        elif self._initial_problem is not None:
            if not self._snapshot and recovered.is_empty:
                return Verdict.REFUSED, (
                    "the state that this member is to begin with is not there: restore it again",
                )
            has_it = (
                f"the snapshot of slot {self._snapshot} has a"
                if self._snapshot
                else "the other members have the"
            )
            meaning.append(f"the state that slot 1 goes on from does not hold; {has_it} state")
        elif self._damaged_snapshots:
            what = (
                f"an older one, of slot {self._snapshot},"
                if self._snapshot
                else "the log, which begins with slot 1,"
            )
            meaning.append(f"snapshots are damaged: {self._damaged_snapshots}; {what} has the state")
        if meaning:
            meaning.append("No promise and no vote is in doubt: a server may start on this directory")
            return Verdict.REPAIRABLE, tuple(meaning)
        meaning.append("everything that this server has acknowledged is there")
        if any(file.problem is not None for file in self._reports):
            meaning.append(
                "what is damaged was mended since: what it held stands in the directory a second time"
            )
        return Verdict.SOUND, tuple(meaning)


class _Walk:
    """The records of one segment."""

    def __init__(self, data: bytes, header: SegmentHeader, *, is_last: bool) -> None:
        self._data = data
        self._is_last = is_last
        self._format = RecordFormat(header.salt, header.version)
        self._first = self.next_number = header.first_number
        self._slots: tuple[Slot, Slot] | None = None
        self._lost: list[Slot] = []
        self.end = RECORDS_START
        self.problem: str | None = None
        self.offset: int | None = None

    def run(self) -> None:
        """Goes as far as records follow one another; what stands after the last may be torn, or is damaged."""
        while True:
            record = self._format.read(self._data, self.end)
            if record is not None and record.number == self.next_number:
                self._saw(record.row.slot)
                self.end = record.end
            else:
                head = self._format.head(self._data, self.end)
                if head is None or not self._pass_over(head):
                    break
            self.next_number += 1
        if self.problem is None and (why := self._format.damage(self._data, self.end)) is not None:
            self.problem, self.offset = why, self.end

    def _pass_over(self, head: Head) -> bool:
        """Whether a record of which only the header holds was damaged, and can be left behind."""
        if head.number != self.next_number or head.end > len(self._data):
            return False
        if self._is_last and not self._is_damaged():
            return False
        if self.problem is None:
            self.problem, self.offset = f"record {head.number} does not match its checksum", self.end
        with contextlib.suppress(ValueError):
            if isinstance(left_of(head), tuple):
                self._lost.append(head.slot)
        self.end = head.end
        return True

    def _is_damaged(self) -> bool:
        """As recovery.py judges: it was written whole, or a later record says that it was synced."""
        if self._format.damage(self._data, self.end) is not None:
            return True
        later = self._format.later(self._data, self.end, self.next_number)
        return any(record.durable_through >= self.next_number for _, record in later)

    def _saw(self, slot: Slot) -> None:
        if slot:
            low, high = self._slots or (slot, slot)
            self._slots = min(low, slot), max(high, slot)

    def content(self) -> str:
        """What stands in the segment, in words."""
        if self.next_number == self._first:
            return "no records"
        text = f"records {self._first} to {self.next_number - 1}"
        if self._slots is not None:
            text += ", slots {} to {}".format(*self._slots)
        if self._lost:
            text += f"; {len(self._lost)} of them cannot be read"
        return text


@contextlib.contextmanager
def _io(directory: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, f"verifying the data directory {directory}") from error
