"""One server's replica: protocol, sessions and state machine, as one synchronous step.

Nothing here waits, knows a clock, or does I/O: inputs are method calls, and after each turn the driver takes the
:class:`Effects`, does them, and says when writes are durable. The asyncio loop of ``loop.py`` is one driver; a
simulator is another.

The order of a turn::

    inputs (messages, ticks, frames, reads, durable)  ->  turn()  ->  Effects  ->  apply(effects)

``turn`` decides what leaves and what is written; ``apply`` then feeds the state machine, answers the sessions
attached here and serves the reads that have become possible. Messages and writes are handed over before the state
machine runs, so that the others' work and the disk's overlap with it.

**What waits for the disk** is kept in one place, ``_held``: what a Ready wants said only after its writes goes there
with the number of the last batch that must be durable, and comes out by :meth:`Replica.durable`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from paxos_rsm.errors import InvariantViolation, SessionExpired, Unavailable
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.log import entry_bytes
from paxos_rsm.paxos.membership import Base, Configuration
from paxos_rsm.paxos.messages import Envelope, FetchSnapshot, Message, SnapshotChunk, StateDigest
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.ready import Write, WriteCompacted, WriteDecidedThrough
from paxos_rsm.paxos.types import Ballot, Batch, Entry, NodeId, Slot, split_frames
from paxos_rsm.replica.api import SessionHandle, SessionSink
from paxos_rsm.replica.changes import Changes
from paxos_rsm.replica.comparison import Comparison, Difference, Verdict
from paxos_rsm.replica.expiry import Expiry
from paxos_rsm.replica.local_sessions import LocalSession, LocalSessions, expired_sentence
from paxos_rsm.replica.timers import Timers
from paxos_rsm.replica.transfer import PART_BYTES, SnapshotTask, Transfer

__all__ = ["Effects", "Replica", "ReplicaSettings"]

ReadDone = Callable[[Slot | None], None]
"""Told the applied slot that answers a read, or None where no leader could be asked."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Limits and times of a replica."""

    tick_ms: int = 25
    resend_ticks: int = 40
    """A frame of which nothing has come for so long is asked after; a read is asked again."""
    stall_ticks: int = 60
    """A leader whose disk has not answered for so long gives up its place."""
    frame_bytes_max: int = 1_600_000
    pending_bytes_max: int = 64 << 20
    session_timeout_ms: int = 60_000
    snapshot_log_bytes: int = 64 << 20
    """Of entries applied, after which a snapshot is due; or as many as the last snapshot had, where that is more."""
    snapshot_rate_bytes_per_s: int = 32 << 20
    """How fast a snapshot is sent to peers that need one."""
    compare_ticks: int = 40
    """Between two looks at whether the others' states are the same as this one's."""
    snapshot_part_bytes: int = PART_BYTES
    """How much of one is asked for and sent at once: the same on all servers."""


@dataclass(slots=True)
class Effects:
    """What one turn asks of its driver: hand ``writes`` to the log as batch ``batch``, send ``messages``, then apply.

    ``batch`` is 0 where there is nothing to write. ``sync`` says whether the batch must be reported durable.
    """

    batch: int = 0
    writes: list[Write] = field(default_factory=list)
    sync: bool = False
    messages: list[Envelope] = field(default_factory=list)
    decided: list[tuple[Slot, Entry]] = field(default_factory=list)
    snapshot_tasks: list[SnapshotTask] = field(default_factory=list)
    """What is to be done with snapshot files, in this order, after all that earlier turns have asked for."""

    def __bool__(self) -> bool:
        return bool(self.batch or self.messages or self.decided or self.snapshot_tasks)


_UNSYNCED = frozenset([WriteDecidedThrough, WriteCompacted])
"""Writes that nothing waits for, but where ``Ready.with_marks`` says so."""

TAIL_SHARE = 4
"""One part in so many of the log that makes a snapshot due stays in it: for peers that are only a little behind."""
LOST_COMPARISONS = 20
"""So long a server waits for those that are known to have the right state, before it takes that of another."""
LATE_SHARE = 4
"""So many times that log is kept, at most, for peers that are further behind, or are being sent a snapshot."""
COMPACT_SLOTS = 20_000
"""Forgotten in a turn: some milliseconds' work."""


class _Read:
    __slots__ = ("asked_at", "waiting")

    def __init__(self, waiting: list[ReadDone], asked_at: int) -> None:
        self.waiting = waiting
        self.asked_at = asked_at


class Replica:
    """See the module's docstring."""

    def __init__(
        self, node: Node, machine: SessionMachine, settings: ReplicaSettings, nonce: Callable[[], int]
    ) -> None:
        self.node = node
        self.machine = machine
        self.settings = settings
        self.local = LocalSessions(
            settings.frame_bytes_max,
            settings.pending_bytes_max,
            settings.session_timeout_ms,
            settings.tick_ms,
        )
        self._nonce = nonce
        self._expiry = Expiry(settings.tick_ms)
        self._timers = Timers(settings.tick_ms)
        self.changes = Changes(node, settings.resend_ticks)
        self.transfer = Transfer(
            settings.snapshot_rate_bytes_per_s * settings.tick_ms // 1000,
            settings.resend_ticks,
            settings.snapshot_part_bytes,
        )
        self.comparison = Comparison(node.me)
        self.differences: list[Difference] = []
        """What was found, for the driver to say; it takes them out."""
        self._rebuild_from: tuple[NodeId, ...] = ()
        """This state is wrong, and theirs is right: a snapshot of one of them is to take its place."""
        self._rebuilder_seen_at = 0
        self._bytes_applied = 0
        """Of entries, since the state was that of a snapshot."""
        self._bytes_at_snapshot = 0
        self._snapshot_bytes = 0
        self._compact_to: Slot = 0
        """The newest snapshot lets the log start above this slot; the turns get there in steps."""
        self._batch = 0
        self._durable = 0
        self._must_be_durable = 0
        self._held: deque[tuple[int, int, list[Envelope]]] = deque()
        """By the number of the write that each waits for, and the tick since which it does."""
        self.durable_promise = node.acceptor.promised
        """What is on disk of the acceptor's promise; the one in memory may be ahead."""
        self._promises: deque[tuple[int, Ballot]] = deque()
        self._released: list[Envelope] = []
        self._now = 0
        self._way: tuple[NodeId, Ballot, NodeId] | None = None
        """By which what waits here was last sent to the leader."""
        self._full = False
        """This server leads, and took only a part of what waits here: the rest goes in later turns."""
        # Reads: those of this turn, those that must be asked (again), those on their way, those waiting for apply.
        self._new_reads: list[ReadDone] = []
        self._reads: dict[int, _Read] = {}
        self._next_read = 0
        self._granted: list[tuple[Slot, list[ReadDone]]] = []
        self._unled_ticks = 0
        self._again = False

    # ---- inputs ----------------------------------------------------------------------------------------------

    def receive(self, sender: NodeId, messages: Sequence[Message]) -> None:
        """What a peer says."""
        step = self.node.step
        for message in messages:
            kind = type(message)
            if kind is SnapshotChunk:
                self.transfer.chunk(sender, message)  # type: ignore[arg-type]
            elif kind is FetchSnapshot:
                self.transfer.asked(sender, message)  # type: ignore[arg-type]
            elif kind is StateDigest:
                self.comparison.heard(sender, message)  # type: ignore[arg-type]
            else:
                step(sender, message)

    def durable(self, batch: int) -> None:
        """Every batch up to ``batch`` is on disk: what waited for it may be said, and own votes count."""
        self._durable = max(self._durable, batch)
        while self._promises and self._promises[0][0] <= batch:
            self.durable_promise = self._promises.popleft()[1]
        me = self.node.me
        while self._held and self._held[0][0] <= self._durable:
            for envelope in self._held.popleft()[2]:
                if envelope.to == me:
                    self.node.step(me, envelope.message)
                else:
                    self._released.append(envelope)

    def meet(self, forming: Configuration) -> None:
        """All initial members are known."""
        self.node.meet(forming)

    def peer_up(self, node: NodeId) -> None:
        """A peer's streams stand: what it was sent before may be lost."""
        self.node.peer_up(node)
        self.comparison.peer_up(node)
        leader = self.node.leader
        if leader is not None and leader[0] == node:
            self.local.resend_all()

    def peer_down(self, node: NodeId) -> None:
        """A peer's streams have broken."""
        self.node.peer_down(node)
        self.transfer.lost(node)
        if self._way is not None and self._way[2] == node:
            # What was under way there is lost: it goes out again even where the same way is open again at once.
            self._way = None

    def tick(self) -> None:
        """Time goes on by one tick."""
        self._now += 1
        self.node.tick()
        self.transfer.tick()
        self.changes.tick()
        if not self._now % self.settings.compare_ticks:
            self._compare()
        if self._held and self._now - self._held[0][1] > self.settings.stall_ticks:
            # The others can decide without this disk, but what waits for it grows, and another server can do better.
            self.node.resign()
        # What waits in this server's own queue is not lost: it is sure to be proposed, or the way changes.
        mine = self.node.proposer.leading and self.node.way == self._way
        self.local.tick(self.settings.resend_ticks, mine)
        expired = self._expiry.tick(self.node.proposer.leading, self.machine)
        leader = self.node.leader
        run_out: list[bytes] = []
        if not self.node.log.held:
            # While it is, a thread may be replacing the state: nothing asks the machine. Timers only run longer here.
            run_out = self._timers.tick(
                leader[1] if leader else None, self.node.proposer.leading, self.machine
            )
        if expired or run_out:
            self.node.propose(expired + run_out)
        for read_id in [
            n for n, r in self._reads.items() if self._now - r.asked_at >= self.settings.resend_ticks
        ]:
            self._new_reads += self._reads.pop(read_id).waiting
        self._unled_ticks = 0 if self.node.leader is not None else self._unled_ticks + 1
        if self._new_reads and self._unled_ticks >= self.settings.resend_ticks:
            waiting, self._new_reads = self._new_reads, []
            for done in waiting:
                done(None)

    def attach(self, sink: SessionSink, session: int = 0, timeout_ms: int = 0) -> SessionHandle:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.attach`."""
        if session == 0:
            return self.local.register(sink, self._nonce(), timeout_ms)
        handle = self.local.resume(sink, session)
        # Its registration may not have been applied here yet: only a state as new as this moment can tell.
        self.read(lambda applied: self._resumed(handle, applied))
        return handle

    def _resumed(self, handle: LocalSession, applied: Slot | None) -> None:
        if handle.closed:
            return
        if applied is None:
            self.local.fail(
                handle, Unavailable("there is no leader; open the session again, here or elsewhere")
            )
            return
        info = self.machine.session(handle.session)
        if info is None:
            self.local.fail(handle, SessionExpired(expired_sentence(handle.session)))
        else:
            handle.last_seq, handle.timeout_ms = info.last_seq, info.timeout_ms
            handle.sink.opened(handle.session, info.last_seq + 1)

    def read(self, done: ReadDone) -> None:
        """Calls ``done(applied_slot)`` once the local state is at least as new as this call (rule 8).

        ``done(None)``: there has been no leader for ``resend_ticks``.
        """
        self._new_reads.append(done)

    # ---- the turn --------------------------------------------------------------------------------------------

    def turn(self, clock_us: int | None = None) -> Effects:
        """What all the inputs since the last turn come to.

        ``clock_us``: read after all of them, from a clock that no pause stops; needed where reads are leased.
        """
        node = self.node
        self._again = False
        self._compact()
        way = node.way
        if way is not None and way != self._way:
            self._way = way
            self.local.resend_all()
        if self.local.outgoing:
            taken = node.propose(self.local.outgoing)
            self._full = way is not None and taken < len(self.local.outgoing)
            if way is None:
                # It stays with its session, and goes out again when there is a leader.
                self._way = None
                self.local.outgoing = []
            else:
                del self.local.outgoing[:taken]
        if self._new_reads and (way is not None or node.reads.quorum.are_on):
            self._next_read += 1
            self._reads[self._next_read] = _Read(self._new_reads, self._now)
            self._new_reads = []
            node.read(self._next_read)
        ready = node.ready(clock_us)
        if ready.change_replies:
            self.changes.answered(ready.change_replies)
        self.changes.decided()
        if ready.fetch_snapshot is not None:
            if self._rebuild_from:
                self._fetch_state(ready.fetch_snapshot[0])
            else:
                self.transfer.want(*ready.fetch_snapshot)
        effects = Effects(writes=ready.writes, messages=ready.messages, decided=ready.decided)
        if self.transfer.has_output:
            messages, effects.snapshot_tasks = self.transfer.take()
            effects.messages += messages
        if ready.writes or ready.with_marks:
            self._batch += 1
            effects.batch = self._batch
            effects.sync = ready.with_marks or any(type(w) not in _UNSYNCED for w in ready.writes)
            if effects.sync:
                self._must_be_durable = self._batch
                if node.acceptor.promised != (
                    self._promises[-1][1] if self._promises else self.durable_promise
                ):
                    self._promises.append((self._batch, node.acceptor.promised))
        if ready.messages_after_writes:
            self._held.append((self._must_be_durable, self._now, ready.messages_after_writes))
            if self._must_be_durable <= self._durable:
                # Nothing to wait for. Own votes that this brings back are for the next turn.
                self.durable(self._durable)
                self._again = True
        if self._released:
            effects.messages += self._released
            self._released = []
        for grant in ready.reads:
            read = self._reads.pop(grant.read_id, None)
            if read is None:
                continue
            if grant.index is None:
                self._new_reads += read.waiting
            else:
                self._granted.append((grant.index, read.waiting))
        return effects

    def apply(self, effects: Effects) -> None:
        """Feeds the state machine, and answers whoever waits here for what it did."""
        applied = self.local.applied
        for slot, entry in effects.decided:
            try:
                frames = list(split_frames(entry.data)) if type(entry) is Batch else ()
            except ValueError as error:
                raise InvariantViolation(
                    f"slot {slot} holds a batch that is not what frames make: {error}. This is a bug in paxos_rsm, or "
                    "something else speaks to its peer port"
                ) from error
            for outcome in self.machine.apply_slot(slot, frames):
                applied(outcome)
            self._bytes_applied += entry_bytes(entry)
        if self._granted and not self.node.log.held:
            self._serve_reads()

    def _serve_reads(self) -> None:
        at = self.machine.applied_slot
        later: list[tuple[Slot, list[ReadDone]]] = []
        granted, self._granted = self._granted, later
        for index, waiting in granted:
            if index > at:
                later.append((index, waiting))
                continue
            for done in waiting:
                done(at)

    # ---- snapshots -------------------------------------------------------------------------------------------

    @property
    def snapshot_is_due(self) -> bool:
        """Whether the log has grown by so much that a snapshot should be taken, or a peer needs a newer one.

        None is taken while one is being sent, as long as that can be: what the peer needs next must stay in the log.
        """
        transfer = self.transfer
        if self.node.log.held or transfer.fetching or self.machine.applied_slot <= transfer.newest:
            return False
        due = max(self.settings.snapshot_log_bytes, self._snapshot_bytes)
        if transfer.newest < transfer.wanted_from <= self.machine.applied_slot:
            return True
        return self._bytes_applied >= (LATE_SHARE * due if transfer.sending else due)

    def begin_snapshot(self) -> tuple[Base, Iterator[bytes]]:
        """The state as of now, in slices that later slots do not change, and what it stands for. Between turns only."""
        slices = self.machine.snapshot()
        self._bytes_at_snapshot = self._bytes_applied
        return self.node.base(self.machine.applied_slot), slices

    def snapshot_taken(self, slot: Slot, size: int) -> None:
        """The snapshot of ``slot``, of so many bytes, is durable: the log may start later."""
        self.transfer.newest = max(self.transfer.newest, slot)
        self._snapshot_bytes = size
        self._bytes_applied -= self._bytes_at_snapshot
        self._compact_to = self._compact_through(slot)
        self._compact()

    def _compact(self) -> None:
        """A step towards the log that the newest snapshot allows."""
        if self._compact_to > self.node.compacted_through:
            self.node.compact(min(self._compact_to, self.node.compacted_through + COMPACT_SLOTS))

    def _compact_through(self, slot: Slot) -> Slot:
        """Up to where the log is of no use any more: below a tail, and below what peers may still want."""
        log, limit = self.node.log, max(self.settings.snapshot_log_bytes, self._snapshot_bytes)
        wanted = [peer.decided_through for peer in self.node.election.peers.values()]
        sent = self.transfer.keep_above()
        if sent is not None:
            wanted.append(sent)
        late = min([through for through in wanted if through >= log.compacted_through], default=slot)
        tail, most = limit // TAIL_SHARE, LATE_SHARE * limit
        size = 0
        for through in range(min(slot, log.released_through), log.compacted_through, -1):
            size += entry_bytes(log.slots[through].entry)
            if size > most or (size > tail and through <= late):
                return through
        return log.compacted_through

    def started_from(self, slot: Slot, size: int) -> None:
        """At a start: the state machine has restored the snapshot of ``slot``, of so many bytes."""
        self.transfer.newest, self._snapshot_bytes = slot, size

    def hold(self, held: bool) -> None:
        """Nothing is applied, and no linearizable read is served, while a snapshot is put in the place of the state."""
        self.node.hold(held)

    def installed(self, base: Base, size: int) -> None:
        """The state machine has restored a snapshot, which is durable: the log goes on from there."""
        if self.machine.applied_slot != base.slot:
            raise InvariantViolation(
                f"a snapshot of slot {base.slot} left the state machine at slot {self.machine.applied_slot} (rule 7)"
            )
        self.node.install(base)
        self.transfer.newest = max(self.transfer.newest, base.slot)
        self._snapshot_bytes, self._bytes_applied = size, 0
        if self._rebuild_from:
            self._rebuild_from = ()
            self.comparison.rebuilt()
        self.transfer.finished()
        self.local.restored(base.slot, self.machine.kept_results)
        if self._granted:
            self._serve_reads()

    # ---- states that differ ----------------------------------------------------------------------------------

    @property
    def divergent(self) -> frozenset[NodeId]:
        """Whose state is not that of a majority, as far as is known here; where there is none, all that differ."""
        found = self.comparison.standing
        match found.verdict:
            case Verdict.MINORITY:
                return frozenset({self.node.me})
            case Verdict.UNDECIDED:
                return frozenset({self.node.me, *found.others})
            case _:
                return frozenset(found.others)

    def _compare(self) -> None:
        """Tells the others what the state has come to, and looks at what they have told."""
        configuration = self.node.configuration
        if configuration is None or self.node.log.held or self.transfer.fetching:
            return
        self.comparison.observe(self.machine.digests())
        self._released += self.comparison.messages(configuration.everybody - {self.node.me})
        found = self.comparison.judge(configuration.nodes)
        if found is None:
            return
        self.differences.append(found)
        if found.verdict is Verdict.MINORITY:
            self._rebuild_from, self._rebuilder_seen_at = found.others, self._now
            self.node.hold(True)
            self.transfer.drop()
            self._compact_to = 0  # What it stood on is dropped, too.
            self._fetch_state()

    def _fetch_state(self, anybody: NodeId | None = None) -> None:
        """Asks one of those whose state is right for a snapshot that takes no slot back; again where none comes.

        Where none of them was to be heard for long, they may be members no more: then ``anybody`` has to do.
        """
        able = [node for node in self._rebuild_from if node in self.node.election.reach()]
        patience = LOST_COMPARISONS * self.settings.compare_ticks
        if able:
            self._rebuilder_seen_at = self._now
            self.transfer.want(able[self.transfer.begun % len(able)], self.machine.applied_slot)
        elif anybody is not None and self._now - self._rebuilder_seen_at > patience:
            self.transfer.want(anybody, self.machine.applied_slot)

    # ---- views -----------------------------------------------------------------------------------------------

    @property
    def needs_turn(self) -> bool:
        """Whether another turn would do something at once."""
        return (
            self._again
            or self.transfer.has_output
            or (bool(self.local.outgoing) and not self._full)
            or self._compact_to > self.node.compacted_through
        )

    @property
    def leader(self) -> tuple[NodeId, Ballot] | None:
        """Who leads, as far as this server knows."""
        return self.node.leader

    @property
    def has_grants(self) -> bool:
        """Whether reads have been granted that ``apply`` may be able to serve."""
        return bool(self._granted)

    @property
    def reads_waiting(self) -> int:
        """Reads that have not been granted yet, in groups."""
        return len(self._reads) + len(self._granted) + bool(self._new_reads)

    def timer_remaining_ms(self, timer: int, armed: int) -> int | None:
        """What is left of a timer of the state machine since that arming; None where it has just been armed."""
        return self._timers.remaining_ms(timer, armed)

    def query(self, request: bytes) -> bytes:
        """Asks the state machine, as it is now."""
        return self.machine.query(request)

    def encode_result(self, result: Any) -> bytes:
        """The bytes of a result that a sink was given."""
        return self.machine.encode_result(result)
