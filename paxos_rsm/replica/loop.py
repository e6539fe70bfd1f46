"""The one loop: asyncio around the synchronous replica.

Whatever happens (a frame from a peer, a batch on disk, a tick, a client's frame) changes the replica at once and asks
for a turn; the turn runs when the loop comes round, so that everything that came meanwhile is one turn: one entry,
one write to the log, one frame to each peer. Nothing here is awaited on the data path, and the loop never waits for
the disk: the storage thread takes batches and says when they are durable.

Any error out of a turn stops the replica: it says nothing more to anybody, and ``failed`` tells the server why.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from paxos_rsm.errors import MachineFailed, MembershipRefused, RefusedByCluster, Unavailable
from paxos_rsm.paxos.changes import Change
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import Envelope, Message
from paxos_rsm.paxos.types import Ballot, NodeId, Slot
from paxos_rsm.replica.api import ReplicaStatus, SessionHandle, SessionSink
from paxos_rsm.replica.comparison import Verdict, told
from paxos_rsm.replica.forming import InitialCluster
from paxos_rsm.replica.replica import Effects, Replica
from paxos_rsm.replica.snapshots import SnapshotKeeper
from paxos_rsm.storage.base import LogWriter

__all__ = ["HAS_STEADY_CLOCK", "Network", "ReplicaLoop", "clock_us"]

log = logging.getLogger(__name__)

REPLAY_SLOTS = 256
TICKS_AT_ONCE_MAX = 2
PAUSE_TICKS_MIN = 10
"""A tick that comes so late says that this process was stopped, or its machine was."""
PAUSE_FORGOTTEN_S = 1.0
"""After a pause: until then, what is heard may have lain in a socket since before it."""
REBUILDS_MAX = 3
"""A state that goes wrong more often is not the victim of chance."""
NO_AGE_MS = (1 << 32) - 1

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
HAS_STEADY_CLOCK = hasattr(time, "CLOCK_BOOTTIME")
"""Whether there is a clock here that goes on while the machine sleeps: what leases on reads need."""


def clock_us() -> int:
    """What leases go by (paxos/leases.py): it goes on while this process, or the machine, is stopped. Microseconds."""
    return time.clock_gettime_ns(_CLOCK) // 1_000


class Network(Protocol):
    """The streams to the peers, as the loop sees them."""

    async def start(self) -> None:
        """Listens and connects."""
        ...

    def send(self, envelopes: list[Envelope]) -> None:
        """Queues messages; never blocks, drops what has no stream."""
        ...

    def form(self, configuration: Configuration) -> None:
        """These are the members now, and who was removed is one no more."""
        ...

    def least_level(self) -> int:
        """What all members understand (transport/handshake.py); 0 while it is not known of one."""
        ...

    def arrived(self) -> list[Member]:
        """Processes that say they are members which have yet to join."""
        ...

    async def close(self) -> None:
        """Ends every stream."""
        ...


class ReplicaLoop:
    """A running replica; implements :class:`~paxos_rsm.replica.api.ReplicaHandle`.

    ``writer`` and ``network`` are set by whoever builds it, made with this object's ``on_...`` methods as their
    callbacks, before :meth:`start`.
    """

    writer: LogWriter
    network: Network

    def __init__(
        self,
        replica: Replica,
        initial: InitialCluster,
        log_bytes: Callable[[], int],
        snapshots: SnapshotKeeper | None = None,
    ) -> None:
        """Without ``snapshots`` the log grows for ever, and a peer that needs one does not get it."""
        self.replica = replica
        self.snapshots = snapshots
        if snapshots is not None:
            snapshots.ask_turn, snapshots.fail = self._ask_turn, self._fail
            snapshots.on_installing = self._installing
        self._log_bytes = log_bytes
        self._initial = initial
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._turn_due = False
        self._running = False
        self._stopped = False
        self._ticked_at = 0.0
        self._last_tick_at = self._loop.time()
        self._paused_s = 0.0
        self._woke_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._read: asyncio.Future[int] | None = None
        self._leader_watchers: list[Callable[[bool], None]] = []
        self._applied_watchers: list[Callable[[], None]] = []
        self._install_watchers: list[Callable[[bool], None]] = []
        self._leader: tuple[NodeId, Ballot] | None = None
        self._moved: list[asyncio.Event] = []
        """Of those that wait for another leader."""
        self._configuration: Configuration | None = None
        self._rebuilds = 0
        self._disk_full = False

    # ---- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restores the snapshot, replays the log after it into the state machine, then joins the others."""
        base = self.replica.node.decided_through and self.replica.node.log.released_through
        if self.snapshots is not None:
            if base and not self.replica.node.log.held:
                await self.snapshots.restore(base)
            self.snapshots.resume()
        effects = self.replica.turn(clock_us())
        decided = effects.decided
        for first in range(0, len(decided), REPLAY_SLOTS):
            self.replica.apply(Effects(decided=decided[first : first + REPLAY_SLOTS]))
            await asyncio.sleep(0)
        effects.decided = []
        self._perform(effects)
        self._look_at_configuration()
        await self.network.start()
        self._running = True
        forming = self._initial.complete()
        if forming is not None:
            self.replica.meet(forming)
        self._ticked_at = self._loop.time()
        self._schedule_tick()
        self._ask_turn()

    async def stop(self) -> None:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.stop`."""
        if self._stopped:
            return
        self._stopped = True
        self.replica.local.stopping = True
        self._halt()
        if self.snapshots is not None:
            await self.snapshots.close()
        await self.network.close()
        await asyncio.to_thread(self.writer.close)
        if not self.failed.done():
            self.failed.cancel()

    def _halt(self) -> None:
        """No more turns: nothing is said or written from here on."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: BaseException) -> None:
        """Stops at once, and says why."""
        self._halt()
        if not self.failed.done():
            self.failed.set_exception(error)
            # Whoever waits gets it; nobody waiting must not turn into a warning.
            self.failed.exception()

    # ---- turns -----------------------------------------------------------------------------------------------

    def _ask_turn(self) -> None:
        if self._running and not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        # Reads that come from here on need an index of their own: this turn takes that of the ones before (rule 8).
        self._read = None
        if not self._running:
            return
        try:
            effects = self.replica.turn(clock_us())
            self._perform(effects)
            if effects.decided or self.replica.has_grants:
                self.replica.apply(effects)
            if effects.decided:
                for applied in self._applied_watchers:
                    applied()
                self._look_at_configuration()
        except Exception as error:
            self._fail(error)
            return
        if self.replica.needs_turn:
            self._ask_turn()
        leader = self.replica.leader
        if leader != self._leader:
            self._look_at_leader(leader)

    def _look_at_leader(self, leader: tuple[NodeId, Ballot] | None) -> None:
        had_leader, self._leader = self._leader is not None, leader
        for moved in self._moved:
            moved.set()
        if had_leader != (leader is not None):
            for changed in self._leader_watchers:
                changed(leader is not None)

    def _perform(self, effects: Effects) -> None:
        if effects.batch:
            self.writer.submit(effects.batch, effects.writes, effects.sync)
        if effects.messages:
            self.network.send(effects.messages)
        if effects.snapshot_tasks and self.snapshots is not None:
            self.snapshots.perform(effects.snapshot_tasks)

    def _look_at_configuration(self) -> None:
        """The members have changed, or are known for the first time."""
        configuration = self.replica.node.configuration
        if configuration is None or configuration is self._configuration:
            return
        is_first, self._configuration = self._configuration is None, configuration
        log.info("the members are %s", ", ".join(map(_shown, configuration.members)))
        self.network.form(configuration)
        me = self.replica.node.me
        if (
            is_first
            and self._initial.is_founder
            and me not in configuration.everybody | {*configuration.removed}
        ):
            raise RefusedByCluster(
                "the cluster was formed with another incarnation of this member: this data directory is not the one "
                "that took part. Remove the old member from the cluster and add this server as a new one"
            )

    def _leave(self) -> None:
        """Stops where this server was removed, once the others can do without it."""
        if self.replica.node.removed:
            raise RefusedByCluster(
                "this server was removed from the cluster and takes no part in it any more; its data directory is of "
                "no more use. To bring it back, add it as a new member and start it with an empty one"
            )

    def _look_at_differences(self) -> None:
        """States differ, or do no more: says it, and stops where that happens to this server again and again."""
        found, self.replica.differences = self.replica.differences, []
        members = self._configuration.members if self._configuration is not None else ()
        names = {member.incarnation: member.name for member in members}
        for each in found:
            log.log(logging.INFO if each.verdict is Verdict.EQUAL else logging.ERROR, "%s", told(each, names))
            self._rebuilds += each.verdict is Verdict.MINORITY
            if self._rebuilds > REBUILDS_MAX:
                raise MachineFailed(
                    f"the state of this server has differed from that of the others {self._rebuilds} times since it "
                    "was started, and was rebuilt each time: its memory or its processor is not to be trusted, or its "
                    "version of the state machine is another one. Start it elsewhere, or remove the member"
                )

    # ---- ticks -----------------------------------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        tick_s = self.replica.settings.tick_ms / 1000
        self._timer = self._loop.call_later(tick_s, self._tick)

    def _tick(self) -> None:
        if not self._running:
            return
        tick_s = self.replica.settings.tick_ms / 1000
        now = self._loop.time()
        due = int((now - self._ticked_at) / tick_s)
        # After a pause the messages that wait are heard before time goes on: it does not all pass at once.
        ticks = max(1, min(due, TICKS_AT_ONCE_MAX))
        if now - self._last_tick_at >= PAUSE_TICKS_MIN * tick_s:
            self._paused_s = self._pause_s(now) + now - self._last_tick_at
            self._woke_at = now
        self._last_tick_at = now
        self._ticked_at = now if due > TICKS_AT_ONCE_MAX else self._ticked_at + ticks * tick_s
        try:
            for _ in range(ticks):
                self.replica.tick()
            self._leave()
            if self.replica.differences:
                self._look_at_differences()
            for member in self.network.arrived():
                self.replica.node.joined(member)
            if self.snapshots is not None:
                self.snapshots.tick()
        except Exception as error:
            self._fail(error)
            return
        self._ask_turn()
        self._schedule_tick()

    # ---- what the storage thread and the network report --------------------------------------------------------

    def on_durable(self, batch: int) -> None:
        """Called by the storage thread."""
        self._from_thread(self._durable, batch)

    def on_storage_failure(self, error: BaseException) -> None:
        """Called by the storage thread, once: the log cannot be written any more."""
        self._from_thread(self._fail, error)

    def on_storage_full(self, is_full: bool) -> None:
        """Called by the storage thread: the log waits for space on the disk, or does no more."""
        self._from_thread(self._full, is_full)

    def _full(self, is_full: bool) -> None:
        self._disk_full = is_full
        if not is_full:
            log.info("there is space for the log again: this server votes as before")
            return
        log.error(
            "no space left for the log: until there is, this server neither votes nor leads. Free some space on its "
            "disk, and it goes on by itself"
        )
        if self._running:
            self.replica.node.resign()
            self._ask_turn()

    def _from_thread(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            log.debug("the loop is closed; a word of the storage thread is dropped")

    def _durable(self, batch: int) -> None:
        if not self._running:
            return
        try:
            self.replica.durable(batch)
        except Exception as error:
            self._fail(error)
            return
        self._ask_turn()

    def on_messages(self, sender: NodeId, messages: Sequence[Message]) -> None:
        """Called by the network, on the loop."""
        if not self._running:
            return
        try:
            self.replica.receive(sender, messages)
        except Exception as error:
            self._fail(error)
            return
        self._ask_turn()

    def on_peer_up(self, member: Member) -> None:
        """Called by the network: both sides have shown who they are."""
        forming = self._initial.meet(member)
        if forming is not None and self._configuration is None:
            self.replica.meet(forming)
        self.replica.peer_up(member.incarnation)
        self._ask_turn()

    def on_peer_down(self, node: NodeId) -> None:
        """Called by the network: the last stream to a peer has broken."""
        self.replica.peer_down(node)
        self._ask_turn()

    def on_failed(self, error: BaseException) -> None:
        """Called by the network: a peer will not work with this server for good, or sent what must stop it."""
        self._fail(error)

    # ---- for the services --------------------------------------------------------------------------------------

    def attach(self, sink: SessionSink, session: int = 0, timeout_ms: int = 0) -> SessionHandle:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.attach`."""
        if not self._running:
            raise Unavailable("this server is stopping; use another one")
        handle = self.replica.attach(sink, session, timeout_ms)
        self._ask_turn()
        return _Attached(handle, self._ask_turn)

    def read(self) -> "asyncio.Future[int]":
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.read`."""
        if self._read is None:
            shared = self._read = self._loop.create_future()

            def done(applied: Slot | None) -> None:
                if shared.done():
                    return
                if applied is None:
                    shared.set_exception(
                        Unavailable("there is no leader to confirm a read; retry, or at another server")
                    )
                    shared.exception()
                else:
                    shared.set_result(applied)

            self.replica.read(done)
            self._ask_turn()
        return self._read

    async def change(self, change: Change) -> Configuration:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.change`."""
        if not self._running:
            raise Unavailable("this server is stopping; use another one")
        request_id = secrets.randbits(63) | 1
        answer: asyncio.Future[Configuration | MembershipRefused] = self._loop.create_future()

        def done(outcome: Configuration | MembershipRefused) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.replica.changes.ask(request_id, change, done)
        self._ask_turn()
        try:
            outcome = await answer
        finally:
            self.replica.changes.forget(request_id)
        if isinstance(outcome, MembershipRefused):
            raise outcome
        return outcome

    async def hand_over(self, to: NodeId | None = None) -> NodeId | None:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.hand_over`."""
        node = self.replica.node
        heir = node.hand_over(to) if self._running else None
        if heir is None:
            return None
        self._ask_turn()
        election_s = node.settings.election_ticks * self.replica.settings.tick_ms / 1000
        deadline = self._loop.time() + 2 * election_s
        moved = asyncio.Event()
        self._moved.append(moved)
        try:
            async with asyncio.timeout_at(deadline):
                while (leader := node.leader) is None or leader[0] == node.me:
                    await moved.wait()
                    moved.clear()
        except TimeoutError:
            return None
        finally:
            self._moved.remove(moved)
        return leader[0]

    def query(self, request: bytes) -> bytes:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.query`."""
        # Held: the state is wrong, or being replaced, or not here since the start (an empty one would be asked).
        if self.replica.node.log.held:
            raise Unavailable("this server is replacing its state by a snapshot; retry, or at another server")
        return self.replica.query(request)

    def encode_result(self, result: Any) -> bytes:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.encode_result`."""
        return self.replica.encode_result(result)

    def timer_remaining_ms(self, timer: int, armed: int) -> int | None:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.timer_remaining_ms`."""
        return self.replica.timer_remaining_ms(timer, armed)

    def watch_applied(self, applied: Callable[[], None]) -> None:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.watch_applied`."""
        self._applied_watchers.append(applied)

    async def take_snapshot(self) -> tuple[Slot, int]:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.take_snapshot`."""
        if self.snapshots is None or not self._running:
            raise Unavailable("this server takes no snapshots now; use another one")
        info = await self.snapshots.take()
        return (info.slot, info.bytes) if info is not None else (self.replica.transfer.newest, 0)

    def watch_install(self, installing: Callable[[bool], None]) -> None:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.watch_install`."""
        self._install_watchers.append(installing)
        if self.replica.node.log.held:
            installing(True)  # since the start: the state is to come from a peer

    def _installing(self, begins: bool) -> None:
        for installing in self._install_watchers:
            installing(begins)
        if not begins:
            for applied in self._applied_watchers:
                applied()
            self._look_at_configuration()

    def watch_leader(self, changed: Callable[[bool], None]) -> None:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.watch_leader`."""
        self._leader_watchers.append(changed)
        changed(self._leader is not None)

    def status(self) -> ReplicaStatus:
        """See :meth:`paxos_rsm.replica.api.ReplicaHandle.status`."""
        replica = self.replica
        node = replica.node
        leader = replica.leader
        return ReplicaStatus(
            role=node.role,
            leader=leader[0] if leader else 0,
            ballot=self.ballot,
            promised=node.acceptor.promised,
            decided_slot=node.decided_through,
            applied_slot=replica.machine.applied_slot,
            compacted_slot=node.compacted_through,
            snapshot_slot=replica.transfer.newest,
            leader_age_ms=self._leader_age_ms(),
            log_bytes=self._log_bytes(),
            sessions=replica.machine.session_count,
            configuration=node.configuration,
            reachable=node.election.reach(),
            divergent=replica.divergent,
            disk_full=self._disk_full,
        )

    @property
    def ballot(self) -> Ballot:
        """See :attr:`paxos_rsm.replica.api.ReplicaHandle.ballot`."""
        leader = self.replica.leader
        return leader[1] if leader else self.replica.node.acceptor.promised

    def _leader_age_ms(self) -> int:
        """How old the leader's last word is, a pause of this process included.

        Ticks stand still in a process that is paused, and what it hears first when it wakes was said while it slept:
        a leader that was stopped still believes that it leads. So the pause counts until there has been time to hear
        what happened meanwhile.
        """
        ticks = self.replica.node.leader_age_ticks
        if ticks is None:
            return NO_AGE_MS
        now = self._loop.time()
        age_s = ticks * self.replica.settings.tick_ms / 1000 + now - self._last_tick_at + self._pause_s(now)
        return min(int(age_s * 1000), NO_AGE_MS)

    def _pause_s(self, now: float) -> float:
        """How long this process was paused of late."""
        return self._paused_s if now - self._woke_at < PAUSE_FORGOTTEN_S else 0.0

    @property
    def durable_promise(self) -> Ballot:
        """The promise that is on disk: what this server says of itself when it opens a stream."""
        return self.replica.durable_promise

    @property
    def applied_slot(self) -> Slot:
        """The last slot that the local state machine has applied."""
        return self.replica.machine.applied_slot


def _shown(member: Member) -> str:
    """A member as an operator knows it."""
    what = f"{member.name} ({member.peer_url})" if member.incarnation else f"one to come ({member.peer_url})"
    return f"{what}, a learner" if member.learner and member.incarnation else what


class _Attached:
    """A session handle whose every word asks for a turn."""

    __slots__ = ("_ask_turn", "_handle")

    def __init__(self, handle: SessionHandle, ask_turn: Callable[[], None]) -> None:
        self._handle = handle
        self._ask_turn = ask_turn

    @property
    def session(self) -> int:
        return self._handle.session

    def submit(self, frame: bytes, first_seq: int, count: int) -> None:
        self._handle.submit(frame, first_seq, count)
        self._ask_turn()

    def close(self) -> None:
        self._handle.close()

    def end(self) -> None:
        self._handle.end()
        self._ask_turn()
