"""``--force-new-cluster``: the one server that is left goes on alone, when a majority of its cluster is lost for good.

Offline, before the server starts. What it does is what a leader would do that had heard this one server's promise and
took it for a quorum's (rule 5): every entry that was accepted here counts as decided, known to be or not; a slot in
which nothing was accepted becomes a no-op. The state that this comes to is the first of a new cluster:

- *Kept*: everything that is known here to be decided; and what was accepted here and not known to be decided, though
  whoever sent it may have been told that its outcome is unknown. etcd commits its whole log alike.
- *Lost*: what the others had decided without this server. It may have been acknowledged, and nobody can tell.
- *Ended*: all sessions. Exactly-once does not survive such a loss: clients are told so, instead of being answered from
  a table in which their last commands are missing. Leases stay, and run for their whole time again.

It is a **new cluster**: another id, and another incarnation in place of this one, so that no old member can be taken
for one of its own, nor this server for one of theirs; they are refused at the first word. Slots go on counting.
``storage/replacement.py`` writes it, and says what a loss of power leaves.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from paxos_rsm.codec.frames import FrameCodec, expire_frame
from paxos_rsm.config import ServerConfig
from paxos_rsm.errors import DirectoryUnusable, SnapshotDamaged
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.types import Batch, ConfigChange, Entry, Slot, split_frames
from paxos_rsm.replica.founding import restore_initial
from paxos_rsm.replica.snapshots import sound_snapshot
from paxos_rsm.storage.base import DrawBits
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import FileSystem, storage_error
from paxos_rsm.storage.identity import Identity, coming_identity
from paxos_rsm.storage.replacement import decide_replacement, finish_replacement, stage_snapshot
from paxos_rsm.storage.snapshots import SnapshotMeta

__all__ = ["Loss", "Survivor"]

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Loss:
    """What a server that goes on alone keeps, and what it cannot know of."""

    decided_slot: Slot
    """Known here to be decided, up to this one."""
    accepted_slots: tuple[Slot, ...]
    """Beyond that: what was accepted here, which is kept."""
    holes: tuple[Slot, ...]
    """Between those: nothing was accepted here."""
    others: tuple[Member, ...]
    """The members that are left behind."""

    def describe(self, directory: str) -> list[str]:
        """Sentences for whoever has to decide."""
        names = ", ".join(sorted(member.name or member.peer_url for member in self.others))
        kept = f"It keeps every slot up to {self.decided_slot}, which it knows to be decided"
        if self.accepted_slots:
            kept += (
                f", and {len(self.accepted_slots)} more that it has accepted ({_listed(self.accepted_slots)}): their "
                "clients may have been told that the outcome is unknown"
            )
        sentences = [f"{directory} is to go on as a new cluster of one, without {names}.", f"{kept}."]
        if self.holes:
            sentences.append(
                f"In slots {_listed(self.holes)} it has nothing, and what the others had there is lost."
            )
        sentences.append(
            "Lost is everything that the others decided without it, acknowledged or not; nobody can say how much. All "
            "sessions end, so clients start anew. The others are refused for good: never start them on the directories "
            "that they have, since two of them may still be a majority of the old cluster."
        )
        return sentences


class Survivor:
    """A data directory that is to go on alone. Holds its lock, from construction to the end of the ``with``."""

    def __init__(self, config: ServerConfig, files: FileSystem, draw_bits: DrawBits) -> None:
        """Opens the directory, as a start would; nothing else is changed before :meth:`force`.

        Raises DirectoryUnusable where there is none, or none that was ever part of a cluster, SnapshotDamaged where the
        state is not here, and all that :meth:`DataDirectory.open` raises.
        """
        self._config = config
        self._files = files
        self._draw_bits = draw_bits
        path = str(config.directory)
        try:
            identity = coming_identity(files, path)
        except OSError as error:
            raise storage_error(error, f"looking into the data directory {path}") from error
        if identity is None:
            raise DirectoryUnusable(
                f"there is no data directory at {path}, so there is nothing that could go on alone. Start on the "
                "directory of the server that is left (--data-dir), or restore a backup (`paxos-rsm snapshot restore`)"
            )
        self._directory = DataDirectory.open(
            path,
            files,
            cluster_id=identity.cluster_id,
            member_id=identity.member_id,
            name=config.name,
            draw_bits=draw_bits,
            segment_bytes=config.tuning.log_segment_bytes,
        )
        try:
            self._base = self._find_base()
            self.configuration = self._last_configuration()
        except BaseException:
            self._directory.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._directory.close()

    def _find_base(self) -> SnapshotMeta | None:
        base = sound_snapshot(self._directory.snapshots, self._directory.recovered.compacted_through)
        if base is None and self._directory.recovered.compacted_through:
            raise SnapshotDamaged(
                f"no snapshot in {self._directory.path} holds what its log was compacted for: the state is not here. "
                "Take the directory of another server that is left, or restore a backup (`paxos-rsm snapshot restore`)"
            )
        return base

    def _last_configuration(self) -> Configuration:
        found = self._base.configuration if self._base is not None else None
        for _, entry in self._entries():
            if isinstance(entry, ConfigChange):
                found = entry.configuration
        if found is None:
            raise DirectoryUnusable(
                f"the server of {self._directory.path} has never been part of a cluster that had formed, so there is "
                "nothing that could go on alone. Start it as it is, or give it an empty directory"
            )
        return found

    def _entries(self) -> Iterator[tuple[Slot, Entry | None]]:
        """Every slot after the base, up to the last in which anything was accepted; None where nothing was."""
        slots = self._directory.recovered.slots
        first = self._base.slot + 1 if self._base is not None else 1
        for slot in range(first, self._last_slot + 1):
            held = slots.get(slot)
            yield slot, held.entry if held is not None else None

    @property
    def _last_slot(self) -> Slot:
        recovered = self._directory.recovered
        based_on = self._base.slot if self._base is not None else 0
        return max(recovered.decided_through, based_on, max(recovered.slots, default=0))

    @property
    def path(self) -> str:
        """Of the directory."""
        return self._directory.path

    @property
    def is_alone(self) -> bool:
        """Whether it is the only member already: then there is nothing to force."""
        return {m.incarnation for m in self.configuration.members} == {self._directory.identity.incarnation}

    @property
    def loss(self) -> Loss:
        """What :meth:`force` would keep and lose."""
        decided = self._directory.recovered.decided_through
        beyond = [(slot, entry) for slot, entry in self._entries() if slot > decided]
        me = self._directory.identity
        return Loss(
            decided,
            tuple(slot for slot, entry in beyond if entry is not None),
            tuple(slot for slot, entry in beyond if entry is None),
            tuple(
                m
                for m in self.configuration.members
                if m.incarnation != me.incarnation and m.member_id != me.member_id
            ),
        )

    def force(self, machine: StateMachine) -> Identity:
        """Does it: the directory is that of a new cluster when this returns. ``machine`` is a fresh one.

        Raises MachineFailed where the machine does not take what the log holds, LogIOError, DiskFull.
        """
        directory, files = self._directory, self._files
        replayed = self._replay(machine)
        identity = Identity(
            self._draw(),
            directory.identity.member_id,
            directory.identity.name,
            self._draw(),
            joined=True,
            restored_from=directory.identity.restored_from,
        )
        slot = replayed.applied_slot
        meta = SnapshotMeta(identity.cluster_id, slot, slot, self._alone(identity))
        directory.log.close()
        try:
            try:
                stage_snapshot(files, directory.path, meta, replayed.snapshot())
            except BaseException:
                with contextlib.suppress(OSError):  # the next start clears it away
                    finish_replacement(files, directory.path)
                raise
            decide_replacement(files, directory.path, identity)
            finish_replacement(files, directory.path)
        except OSError as error:
            raise storage_error(error, f"making {directory.path} the directory of a new cluster") from error
        return identity

    def _replay(self, machine: StateMachine) -> SessionMachine:
        """The state that all entries come to, and in one slot more the end of all sessions."""
        sessions = SessionMachine(machine, FrameCodec())
        if self._base is not None:
            sessions.restore(self._directory.snapshots.read(self._base.slot)[1])
        elif not restore_initial(self._directory, machine):
            raise SnapshotDamaged(
                f"the state that {self._directory.path} began with does not hold, so the state is not here. Take the "
                "directory of another server that is left, or restore a backup (`paxos-rsm snapshot restore`)"
            )
        for slot, entry in self._entries():
            sessions.apply_slot(slot, split_frames(entry.data) if isinstance(entry, Batch) else ())
        ends = [expire_frame(each.session, each.last_seq) for each in sessions.sessions()]
        sessions.apply_slot(sessions.applied_slot + 1, ends)
        return sessions

    def _alone(self, identity: Identity) -> Configuration:
        before, config = self.configuration, self._config
        me = Member(
            identity.incarnation, identity.member_id, identity.name, config.peer_url, config.client_urls
        )
        gone = {*before.removed, *before.everybody, self._directory.identity.incarnation}
        return Configuration(
            identity.cluster_id, (me,), QuorumSizes.majority(1), tuple(sorted(gone)), before.changes
        )

    def _draw(self) -> int:
        number = 0
        while number == 0:
            number = self._draw_bits(63)
        return number


def _listed(slots: tuple[Slot, ...]) -> str:
    """``5, 6, 9``, or the first few and the last of many."""
    if len(slots) <= _NAMED:
        return ", ".join(map(str, slots))
    return f"{', '.join(map(str, slots[: _NAMED - 1]))} ... {slots[-1]}"
