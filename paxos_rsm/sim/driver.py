"""How a simulated server works: what it is given, the turns that it takes, and their effects, in their order.

This is what ``replica/loop.py`` is in a process: it performs the effects of each turn and tells the replica when writes
are durable. Every effect is shown to the oracle before it is done. An armed server (server.py) loses its power between
any two of them.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from paxos_rsm.errors import DiskFull, LogIOError
from paxos_rsm.paxos.membership import Base, Configuration
from paxos_rsm.paxos.messages import Message
from paxos_rsm.paxos.ready import WriteCompacted
from paxos_rsm.paxos.types import Ballot, NodeId, Slot
from paxos_rsm.replica.comparison import Verdict
from paxos_rsm.replica.replica import Effects
from paxos_rsm.replica.snapshots import sound_snapshot
from paxos_rsm.sim.clock import SimClock
from paxos_rsm.sim.disk import SimDisk
from paxos_rsm.sim.executions import Executions, Watched
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.network import Network, Peer
from paxos_rsm.sim.oracle import DiskModel, Oracle
from paxos_rsm.sim.server_view import SNAPSHOTS, ServerView
from paxos_rsm.sim.snapshots import SimSnapshots
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import TICK_UNITS
from paxos_rsm.storage.memory import CrashMode, PowerLost
from paxos_rsm.storage.snapshots import SnapshotStore
from paxos_rsm.transport.handshake import PeerBook

__all__ = ["CHECK_TURNS", "TURNS_MAX", "Driver", "nothing"]

TURNS_MAX = 200
CHECK_TURNS = 64
"""The node's own invariants, which cost time in proportion to the log, are checked every so many turns."""

TICK, WRITTEN, CALLED, FILED = 1, 2, 3, 6
"""Kinds of events, for the record."""


class Driver(ServerView):
    """The half of a simulated server that works while it runs."""

    stage: Stage
    peer: Peer
    """Itself, as the network sees it."""
    node: NodeId
    boot_count: int
    life: int
    rotten: bool
    suspect: bool
    wrong: bool
    paused_until: int
    sync_units: int
    armed: int | None
    book: PeerBook
    clock: SimClock
    snapshots: SimSnapshots
    joins: bool
    _network: Network
    _oracle: Oracle
    _executions: Executions
    _random: Random
    _disk_random: Random
    _snapshot_random: Random
    _disk: SimDisk
    _model: DiskModel
    _watched: Watched
    _configuration: Configuration | None
    _has_pending: bool
    _turn_due: bool
    _turns: int
    _led: Ballot
    """In which it was last seen to lead."""

    def crash(self) -> None:
        """The machine loses its power."""
        raise NotImplementedError

    def stop(self, why: Exception) -> None:
        """It stops by itself, because of an error of its disk."""
        raise NotImplementedError

    def _leave_or_stay(self) -> None:
        """Where it was removed, and the others can do without it, it stops."""
        raise NotImplementedError

    # ---- inputs ----------------------------------------------------------------------------------------------

    def feed(self, action: Callable[..., Any], *args: Any) -> bool:
        """Gives the replica one input and lets it take its turn. Whether that had any effect."""
        try:
            action(*args)
            return self._turn()
        except PowerLost:
            self.crash()
        except (LogIOError, DiskFull) as error:
            self.stage.fire("stopped by its disk")
            self.stop(error)
        return True

    def receive(self, sender: NodeId, message: Message) -> None:
        """See :class:`~paxos_rsm.sim.network.Peer`."""
        lazy = self._network.world.lazy
        if lazy and self._random.random() < lazy:
            self.replica.receive(sender, (message,))
            if not self._turn_due:
                self._turn_due = True
                self.stage.schedule(self._random.randint(1, TICK_UNITS // 4), self._late_turn, self.life)
        else:
            self.feed(self.replica.receive, sender, (message,))

    def _late_turn(self, life: int) -> None:
        if life == self.life and self.up and not self._wait(self._late_turn, life):
            self._turn_due = False
            self.feed(nothing)

    def call(self, action: Callable[..., Any], *args: Any) -> None:
        """A client asks something of this server. What the server refuses is raised."""
        self.stage.event(CALLED, self.number)
        self.feed(action, *args)

    def _tick_later(self) -> None:
        of_all = self._network.world.tick_units
        units = of_all[(self.number - 1) % len(of_all)]
        self.stage.schedule(units, self._tick, self.life)

    def _tick(self, life: int) -> None:
        if life != self.life or not self.up or self._wait(self._tick, life):
            return
        if self.feed(self._ticks):
            self.stage.event(TICK, self.number, self.replica.node.decided_through)
        if self.up:
            self._leave_or_stay()

    def _ticks(self) -> None:
        self.replica.tick()
        if self.replica.differences:
            self._look_at_differences()
        if self._has_pending:
            for member in self._network.arrived(self.peer):
                self.replica.node.joined(member)
        self.snapshots.tick()

    def _look_at_differences(self) -> None:
        found, self.replica.differences = self.replica.differences, []
        configuration = self.replica.node.configuration
        for each in found:
            self.fire(f"states found {each.verdict.value}")
            self._oracle.flaws.judged(
                self.node, each, configuration.nodes if configuration is not None else ()
            )
            self.wrong |= each.verdict is Verdict.MINORITY

    def _wait(self, action: Callable[[int], None], life: int) -> bool:
        """Whether the process is paused; what was to happen then happens when it goes on."""
        if self.paused_until <= self.stage.now:
            return False
        self.stage.schedule(self.paused_until - self.stage.now, action, life)
        return True

    # ---- the disk --------------------------------------------------------------------------------------------

    def _write_later(self) -> None:
        delay = 1 + int(self._disk_random.random() * 2 * self.sync_units)
        self.stage.schedule(delay, self._written, self.life)

    def _written(self, life: int) -> None:
        if life == self.life and self.up and not self._wait(self._written, life):
            self.stage.event(WRITTEN, self.number)
            self.feed(self._durable)

    def _durable(self) -> None:
        batch, synced = self._disk.finish()
        if synced:
            self._oracle.synced(self._model)
        self._disk.go_on()
        if self.stage.trace is not None:
            self.stage.tell(f"n{self.number} has batch {batch} {'on disk' if synced else 'written'}")
        self.replica.durable(batch)

    # ---- snapshots -------------------------------------------------------------------------------------------

    def work_later(self) -> None:
        """See :class:`~paxos_rsm.sim.snapshots.Host`."""
        delay = 1 + int(self._snapshot_random.random() * 2 * self.sync_units)
        self.stage.schedule(delay, self._filed, self.life)

    def _filed(self, life: int) -> None:
        if life == self.life and self.up and not self._wait(self._filed, life):
            self.stage.event(FILED, self.number)
            self.feed(self._file)

    def _file(self) -> None:
        was_installing = self.snapshots.installing
        self.snapshots.step()
        if was_installing and not self.snapshots.installing:
            self.rotten = False
            if self.wrong:
                self.fire("rebuilt")
                self._expect_rebuilt()
            self.look_at_marks()
            self._look_at_configuration()

    def _expect_rebuilt(self) -> None:
        """A state that was found to be wrong is another's now, and nothing made of it is left."""
        self.wrong = False
        if len(self.snapshots.slots) != 1:
            raise Broken(
                "7",
                f"n{self.number} has taken the state of another for its own, which was wrong, and keeps snapshots of "
                f"before: those of slots {self.snapshots.slots}",
            )

    def look_at_marks(self) -> None:
        """A state has come to be what a snapshot, or an empty beginning, has made of it."""
        marks = self._watched.marks
        flaw = marks.flaw if marks is not None else 0
        self.suspect = bool(flaw)
        self._oracle.flaws.note(self.node, flaw)

    @property
    def can_go_wrong(self) -> bool:
        """Whether a state is here that has not gone wrong, and that the others could tell from one that has."""
        return (
            self._watched.marks is not None
            and hasattr(self._watched, "running_digest")
            and not (self.suspect or self.replica.node.log.held or self.replica.transfer.fetching)
        )

    def go_wrong(self, flaw: int) -> None:
        """A bit of its memory turns over."""
        marks = self._watched.marks
        if marks is not None:
            marks.flaw = flaw
            self.look_at_marks()
            self.stage.tell(f"n{self.number} has a state that is wrong")

    def serves(self, applied: Slot) -> None:
        """It answers a read: its state is here, and is right as far as it knows."""
        if self.replica.node.log.held:
            raise Broken(
                "8", f"n{self.number} serves a read at slot {applied}, and its state is wrong, or not there"
            )

    def stands_for(self, base: Base) -> None:
        """See :class:`~paxos_rsm.sim.snapshots.Host`."""
        self._oracle.stands_for(self.node, base, self.replica.machine.applied_slot)
        self.compare_digest()

    def fire(self, what: str) -> None:
        """See :class:`~paxos_rsm.sim.snapshots.Host`."""
        self.stage.fire(what)
        if self.stage.trace is not None:
            self.stage.tell(f"n{self.number}: {what}")

    def _expect_snapshot(self, through: Slot) -> None:
        """The log is told to forget: were the power to go now, there would be a snapshot that holds all of it."""
        disk = self.files.clone()
        disk.crash(self._disk_random, CrashMode.DROP)
        if sound_snapshot(SnapshotStore.open(disk, SNAPSHOTS), through) is None:
            raise Broken(
                "7",
                f"n{self.number} forgets the slots up to {through}, and no snapshot that is durable holds them",
            )

    # ---- turns -----------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        replica = self.replica
        changed = False
        for _ in range(TURNS_MAX):
            effects = replica.turn(self.clock.read_us())
            if effects:
                changed = True
                self._perform(effects)
            if effects.decided:
                self._apply(effects)
            elif replica.has_grants:
                replica.apply(effects)
            if not replica.needs_turn:
                break
        else:
            raise Broken("liveness", f"n{self.number} does not come to rest in {TURNS_MAX} turns")
        if replica.node.proposer.leading and replica.node.proposer.ballot != self._led:
            self._led = replica.node.proposer.ballot
            self._expect_no_lease()
        self._turns += 1
        if self._turns % CHECK_TURNS == 0:
            replica.node.check()
        return changed

    def _expect_no_lease(self) -> None:
        """It has come to lead: nobody whom it has replaced may be able to serve a read on a lease now (leases.py)."""
        for peer in self._network.peers.values():
            if isinstance(peer, Driver) and peer.up and peer is not self:
                node = peer.replica.node
                if node.proposer.ballot < self._led and node.reads.lease.is_valid_at(peer.clock.read_us()):
                    raise Broken(
                        "8",
                        f"n{self.number} leads in {self._led}, and n{peer.number} reads on a lease of "
                        f"{node.proposer.ballot}",
                    )

    def _perform(self, effects: Effects) -> None:
        if effects.batch:
            self.effect()
            for write in effects.writes:
                if type(write) is WriteCompacted:
                    self._expect_snapshot(write.slot)
            self._disk.submit(effects.batch, effects.writes, effects.sync)
        if effects.snapshot_tasks:
            self.snapshots.perform(effects.snapshot_tasks)
        messages = effects.messages
        if not messages:
            return
        if self.armed is not None:
            self._oracle.says(self.node, self.boot_count, self._model, messages)
            for envelope in messages:
                self.effect()
                self._network.send(self.peer, [envelope])
            return
        self._oracle.says(self.node, self.boot_count, self._model, messages)
        self._network.send(self.peer, messages)

    def effect(self) -> None:
        """An armed server loses its power after so many of these. Raises PowerLost."""
        if self.armed is not None:
            self.armed -= 1
            if self.armed < 0:
                raise PowerLost("the power goes between two effects")

    def _apply(self, effects: Effects) -> None:
        replica, executions, machine = self.replica, self._executions, self._watched
        if self.snapshots.installing:
            raise Broken("7", f"n{self.number} applies slots while its state is being replaced")
        digest_slots = self._network.world.digest_slots
        for slot, entry in effects.decided:
            self.effect()
            self._oracle.applies(self.node, replica.machine.applied_slot, slot, entry)
            executions.applies(slot, entry)
            machine.ran = 0
            replica.apply(Effects(decided=[(slot, entry)]))
            executions.applied(self.node, slot, machine.ran)
            if slot % digest_slots == 0:
                self.compare_digest()
        self._look_at_configuration()

    def compare_digest(self) -> None:
        """Equal applied slot, equal state."""
        machine = self.replica.machine
        digest = machine.digest()
        self.stage.mix(digest)
        self._executions.digest(self.node, machine.applied_slot, digest)

    def _look_at_configuration(self) -> None:
        configuration = self.replica.node.configuration
        if configuration is None or configuration is self._configuration:
            return
        is_first, self._configuration = self._configuration is None, configuration
        self._has_pending = any(not member.incarnation for member in configuration.members)
        self.book.form(configuration)
        if not is_first:
            self._network.formed(self.peer)
        elif not self.joins and self.node not in {*configuration.everybody, *configuration.removed}:
            raise Broken(
                "9", f"n{self.number} learns of a cluster that was formed with another incarnation of it"
            )


def nothing() -> None:
    """No input: just a turn."""
