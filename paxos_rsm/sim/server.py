"""One simulated server: a data directory and a replica with its driver, which may die between any two effects.

This is what ``server/app.py`` is in a process: it opens the directory, makes the replica from what the log remembers,
and lets others see and ask; how it works while it runs is in ``driver.py``.

An *armed* server loses its power after so many more effects, or so many more operations of its disk: between a write
and the message that needed it, in the middle of a new segment, after half of a broadcast.
"""

import errno
import logging
from dataclasses import replace

from paxos_rsm.codec.entries import CHANGED_CONFIG, entry_to_kind
from paxos_rsm.codec.frames import FrameCodec
from paxos_rsm.errors import DiskFull, LogIOError, StorageError, UnknownEntry
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.membership import Base, Configuration, Member
from paxos_rsm.paxos.messages import Message
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import NO_BALLOT, ConfigChange, Entry, NodeId, Slot
from paxos_rsm.replica.forming import InitialCluster
from paxos_rsm.replica.founding import restore_initial
from paxos_rsm.replica.replica import Replica
from paxos_rsm.replica.snapshots import sound_snapshot
from paxos_rsm.sim.clock import SimClock
from paxos_rsm.sim.disk import SimDisk
from paxos_rsm.sim.driver import Driver, nothing
from paxos_rsm.sim.executions import Executions, Watched, watched
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.marks import Marks
from paxos_rsm.sim.network import Network, entries_of
from paxos_rsm.sim.oracle import DiskModel, Oracle
from paxos_rsm.sim.server_view import DIRECTORY, SNAPSHOTS, Copy
from paxos_rsm.sim.snapshots import SimSnapshots
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.workload import Workload
from paxos_rsm.storage.backup_format import BackupHead
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.memory import CrashMode, MemoryFiles, PowerLost
from paxos_rsm.storage.restore import restore_directory, write_backup
from paxos_rsm.transport.handshake import LEVEL, LEVEL_OF, Hello, PeerBook, Reason, Refusal

__all__ = ["CLUSTER_ID", "DIRECTORY", "SNAPSHOTS", "SimServer"]

CLUSTER_ID = 7
# What they say of damaged snapshots is for an operator.
for name in ("paxos_rsm.replica.snapshots", "paxos_rsm.replica.founding"):
    logging.getLogger(name).addHandler(logging.NullHandler())

BOOTED, DIED = 4, 5
"""Kinds of events, for the record."""

BEGINNING = 7
"""The mark of a state that was restored."""

CRASH_MODES = (CrashMode.DROP, CrashMode.KEEP, CrashMode.TEAR, CrashMode.SCATTER, CrashMode.MIXED)


class SimServer(Driver):
    """See the module's docstring. ``lost`` says why it will never come back; empty while it may."""

    def __init__(
        self,
        number: int,
        stage: Stage,
        network: Network,
        oracle: Oracle,
        executions: Executions,
        workload: Workload,
        *,
        joins: bool = False,
    ) -> None:
        self.number = number
        self.joins = joins
        """It is none of the first members: it was added, or will be, or was once and is added again."""
        self.wanted = not joins
        """Whether its operator wants it to run."""
        self.stage = stage
        self.peer = self
        self._network = network
        self._oracle = oracle
        self._executions = executions
        self._workload = workload
        self._random = stage.chance(f"server {number}")
        self._disk_random = stage.chance(f"disk {number}")
        self._snapshot_random = stage.chance(f"snapshots {number}")
        self._options_random = stage.chance(f"options {number}")
        self.clock = SimClock(stage, number, network.world.drift_percent)
        self.files = MemoryFiles()
        self.up = False
        self.life = 0
        self.lost = ""
        self.spoilt = False
        """Bits of its files have been flipped, or they were wiped: it may refuse to start, or be refused."""
        self.rotten = False
        """A snapshot of it was damaged or is lost: it may have to fetch another, and starts all the same."""
        self.suspect = False
        """Its state has gone wrong (marks.py), or its disk has that of one which has."""
        self.wrong = False
        """It has found that out, and nobody may ask its state."""
        self.paused_until = 0
        self.sync_units = network.world.sync_units
        self.armed: int | None = None
        self.book = PeerBook(set())
        self.node: NodeId = 0
        self.boot_count = 0
        self._models: dict[NodeId, DiskModel] = {}
        self._turn_due = False
        self._turns = 0
        self._led = NO_BALLOT
        self.is_old = number == network.world.old_server
        """Its version knows of no changes of the members."""
        self._told_ids: set[int] = set()
        self.member_id = 100 + number
        """Another whenever it is added again; see :func:`number_of`."""
        if network.world.restored and not joins:
            self._found()

    # ---- life ------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Starts on what the disk holds. Stays down where that cannot be; see ``lost``."""
        if self.up or self.lost or not self._knows_the_members():
            return
        world = self._network.world
        self.life += 1
        settings = world.settings_at_start(self._options_random)
        try:
            directory = DataDirectory.open(
                DIRECTORY,
                self.files,
                cluster_id=CLUSTER_ID,
                member_id=self.member_id,
                name=f"n{self.number}",
                draw_bits=self._random.getrandbits,
                segment_bytes=world.segment_bytes,
                joined=self.joins,
                repair=True,
                hold_us=settings.read_hold_us,
            )
            snapshot = sound_snapshot(directory.snapshots, directory.recovered.compacted_through)
            self.node, self.boot_count = directory.identity.incarnation, directory.identity.boot_count
            self._watched = self._machine(self.node)
            has_beginning = snapshot is not None or restore_initial(directory, self._watched)
        except PowerLost:
            self._lose_power()
            return
        except StorageError as error:
            self._cannot_start(error)
            return
        base = Base(snapshot.slot, snapshot.changed_in, snapshot.configuration) if snapshot else None
        self._look_at_disk(directory, base)
        self._member = replace(self.introduction, incarnation=self.node, learner=False)
        self.book = PeerBook(self._told_ids)
        if self.joins:
            self._initial = InitialCluster.of_joiner(CLUSTER_ID, self._member)
        else:
            self._initial = InitialCluster(CLUSTER_ID, sorted(self._told_ids), self._member, world.phase2)
        self._process = self._random.getrandbits(63) | 1
        self._make_replica(directory, base, settings, has_beginning)
        self._start(base)

    def _found(self) -> None:
        """Its operator makes its directory of a backup, as that of every first member."""
        self.stage.fire("founded on a backup")
        machine = self._machine(0, BEGINNING)
        name = f"{type(machine).__module__}:{type(machine).__qualname__}"
        head = BackupHead(0, CLUSTER_ID, self.member_id, 0, 0, name)
        restore_directory(
            self.files,
            DIRECTORY,
            lambda file: write_backup(file, head, machine.snapshot()),
            name=f"n{self.number}",
            member_id=self.member_id,
            cluster_id_of=lambda sha256: CLUSTER_ID,
            draw_bits=self._random.getrandbits,
        )

    def _machine(self, node: NodeId, beginning: int = 0) -> Watched:
        marks = Marks(beginning) if self._network.world.is_marked else None
        return watched(node, self._workload.machine(), self._executions, marks)

    def _knows_the_members(self) -> bool:
        """Whom it meets first: from its operator, or, where it joins, from a server that knows that it was added."""
        if not self.joins:
            self._told_ids = {100 + number for number in range(1, self._network.world.servers + 1)}
        elif not self._told_ids:
            configuration = self._network.describe(self.number)
            if configuration is None or configuration.by_member_id(self.member_id) is None:
                return False
            self._told_ids = {member.member_id for member in configuration.members}
        return True

    def _look_at_disk(self, directory: DataDirectory, base: Base | None) -> None:
        """What the disk has kept is what was written, and state and log meet."""
        found = directory.recovered
        model = self._models.setdefault(self.node, DiskModel(self.node))
        if self._oracle.recovered(model, found):
            self.stage.fire("unsynced writes lost")
        if found.unreadable:
            self.stage.fire("unreadable")
            if not self.spoilt:
                raise Broken(
                    "4", f"n{self.number} cannot read slots {sorted(found.unreadable)} of a sound disk"
                )
        if base is None and found.compacted_through:
            if not (self.rotten or self.spoilt or self.suspect):
                raise Broken(
                    "7",
                    f"the log of n{self.number} starts above slot {found.compacted_through}, and no snapshot reaches "
                    "as far",
                )
            self.stage.fire("state missing")
            self.rotten = True
        else:
            self.rotten = False
        self._model = model

    def _make_replica(
        self, directory: DataDirectory, base: Base | None, settings: Settings, has_beginning: bool
    ) -> None:
        world, found = self._network.world, directory.recovered
        self._disk = SimDisk(directory.log, self._model, self._oracle, self._write_later)
        node = Node(
            self.node,
            settings,
            self._random,
            promised=found.promised,
            votes=dict(found.slots),
            decided_through=found.decided_through,
            compacted_through=found.compacted_through,
            base=base,
            unreadable=found.unreadable,
            restored=bool(directory.identity.restored_from),
            missing=not has_beginning,
            hold_owed_us=directory.hold_owed_us,
        )
        self.clock.restart()
        machine = SessionMachine(self._watched, FrameCodec(), digest_slots=world.compared_slots)
        self.replica = Replica(node, machine, world.replica, self._nonce)
        self.snapshots = SimSnapshots(
            self, self.replica, directory.snapshots, CLUSTER_ID, self._snapshot_random
        )

    def _start(self, base: Base | None) -> None:
        self.up = True
        self._configuration: Configuration | None = None
        self._has_pending = False
        self._turn_due = False
        self.stage.event(BOOTED, self.number, self.boot_count)
        if self.stage.trace is not None:
            self.stage.tell(f"n{self.number} starts, boot {self.boot_count}, incarnation {self.node:x}")
        if base is not None:
            self.snapshots.restore(base)
        self.wrong = False
        self.look_at_marks()
        self.snapshots.resume()
        self.feed(self._look_at_configuration if base is not None else nothing)
        if not self.up:
            return
        self._network.came_up(self)
        forming = self._initial.complete()
        if forming is not None:
            self.feed(self.replica.meet, forming)
        self._tick_later()

    def _cannot_start(self, error: StorageError) -> None:
        if isinstance(error, DiskFull | LogIOError):
            self.stage.fire("cannot start now")
        elif self.spoilt:
            self.lost = str(error)
            self.stage.fire("damage found")
        else:
            raise Broken(
                "liveness", f"n{self.number} does not start on a sound directory: {error}"
            ) from error
        self.files.kill()
        self.stage.tell(f"n{self.number} does not start: {error}")

    def _nonce(self) -> int:
        return self._random.getrandbits(63) or 1

    def kill(self) -> None:
        """The process dies; what it wrote stays in the page cache."""
        self._die()
        self.files.kill()
        self.stage.tell(f"n{self.number} is killed")

    def crash(self) -> None:
        """The machine loses its power."""
        self._die()
        self._lose_power()

    def _die(self) -> None:
        if self.up:
            self.up = False
            self.stage.event(DIED, self.number)
            self._network.went_down(self)
        self.life += 1
        self.armed = None
        self.paused_until = 0

    def _lose_power(self) -> None:
        mode = self._disk_random.choice(CRASH_MODES)
        self.stage.fire(f"power loss: {mode.value}")
        self.files.crash(self._disk_random, mode)
        self.stage.tell(f"n{self.number} loses its power ({mode.value})")

    def copy(self) -> Copy:
        """A backup of its disk, as it is now."""
        return Copy(self.files.clone(), self._model.clone(), self.boot_count)

    def put_back(self, copy: Copy) -> None:
        """It dies, and starts on an old copy of its disk."""
        self.kill()
        self.stage.tell(f"n{self.number} gets an old copy of its disk")
        self.spoilt = True
        self.files = copy.files
        self._models[self.node] = copy.model
        self.boot()

    def stop(self, why: Exception) -> None:
        """It stops by itself, because of an error of its disk."""
        self._die()
        self.files.kill()
        self.stage.tell(f"n{self.number} stops: {why}")

    def refused(self, refusal: Refusal) -> None:
        """See :class:`~paxos_rsm.sim.network.Peer`."""
        named = self._oracle.configuration
        is_removed = named is not None and self.node in named.removed
        if not self.spoilt and not (is_removed and refusal.reason is Reason.REMOVED):
            raise Broken("9", f"n{self.number}, on its own directory, is refused: {refusal.message}")
        self.lost = refusal.message
        self.kill()

    def start_anew(self, member_id: int) -> None:
        """Its operator has added it again, and starts it with an empty directory: nobody has met it yet."""
        if self.up:
            self.kill()
        self.member_id = member_id
        self.files = MemoryFiles()
        self.lost = ""
        self.spoilt = self.rotten = self.suspect = False
        self.joins = self.wanted = True
        self._told_ids = set()
        self.boot()

    def _leave_or_stay(self) -> None:
        """Where it was removed, and the others can do without it, it stops."""
        if not self.replica.node.removed:
            self._tick_later()
            return
        named = self._oracle.configuration
        if named is None or self.node not in named.removed:
            raise Broken("10", f"n{self.number} stops as if it had been removed")
        self.stage.fire("removed and stopped")
        self.lost = "it was removed"
        self.kill()

    def understands(self, message: Message) -> bool:
        """See :class:`~paxos_rsm.sim.network.Peer`."""
        if not self.is_old:
            return True
        if type(message) in LEVEL_OF:
            raise Broken("12", f"n{self.number} is sent a message that its version does not know: {message}")
        if not any(map(_is_news, entries_of(message))):
            return True
        self.stage.fire("unknown entry")
        self.stop(UnknownEntry("an entry of a later version; it is not skipped"))
        return False

    def arm(self, effects: int, disk_operations: int | None = None) -> None:
        """It loses its power after so many more effects, or (where given) operations of its disk."""
        self.armed = effects
        if disk_operations is not None:
            self.files.power_off_after(disk_operations)

    # ---- what others see and ask --------------------------------------------------------------------------------

    def peer_up(self, member: Member) -> None:
        """See :class:`~paxos_rsm.sim.network.Peer`."""
        forming = self._initial.meet(member)
        if forming is not None and not self.formed:
            self.replica.meet(forming)
        self.feed(self.replica.peer_up, member.incarnation)

    def peer_down(self, node: NodeId) -> None:
        """See :class:`~paxos_rsm.sim.network.Peer`."""
        self.feed(self.replica.peer_down, node)

    def hello(self) -> Hello:
        """See :class:`~paxos_rsm.sim.network.Peer`."""
        return Hello(
            CLUSTER_ID,
            self._member,
            self.boot_count,
            self.replica.durable_promise,
            self.formed,
            process=self._process,
            joining=self.joins and not self.formed,
            level=0 if self.is_old else LEVEL,
        )

    def glance(self) -> None:
        """Somebody reads here: what is answered is no older than what had been applied anywhere by now (rule 8)."""
        if not self.up:
            return
        asked_at = self._oracle.applied_through

        def done(applied: Slot | None) -> None:
            if applied is not None:
                self.serves(applied)
                self._oracle.reads(self.node, asked_at, applied)

        self.feed(self.replica.read, done)

    def fail_next_sync(self) -> None:
        """The next sync reports an error, once."""
        self.files.fail("fdatasync", 1, errno.EIO)


def _is_news(entry: Entry) -> bool:
    """Whether an entry is of a kind that versions before changes of the members do not know."""
    return type(entry) is ConfigChange and entry_to_kind(entry)[0] == CHANGED_CONFIG
