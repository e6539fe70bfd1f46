"""Watches of a server, fed from its own applied state.

::

    replica: a turn has applied something
        |
        v
    machine.changes(first not looked at) --> the index: whose range? --> sink.events(watch, revision, events)

**Cohorts.** Watches that are equally far form a cohort: an index and a *cursor*, the first revision not looked at
yet. One pass over the store's log serves all of a cohort. The *head* is the cohort of those that have come to the
present; a turn of the replica that has applied something moves it on at once. Watches that start in the past wait as
*arrivals* until a cohort is made of them; it runs through the log slice by slice, in turn with the other cohorts,
and when its cursor meets the head's its watches move over. Nothing can fall between the two: both take from the one
log, and a watch takes only what is at or above its own next revision.

**Slices.** A turn of the event loop looks at so many records and makes so many deliveries at most, up to the end of a
revision; what is left comes in the next turn. A cohort that is far behind never holds up the head, nor anything else.

**Gates.** Watches whose events go the same way (one client's stream) share a :class:`Gate`. While it is full, a watch
that would be given something leaves its cohort instead and waits at the gate, holding nothing but the revision it
has come to; when the gate is opened again it catches up from the store's log. So a reader that is slow costs no memory,
and nobody else's time.

**Compaction** takes the log away up to a revision. What the head has not looked at by then is given out first, and
the records of the compacted revision itself are kept: a watch may start there, as in etcd, where it is the revision
that a client is told to start from. A watch that needs something older is ended.

**Cost.** A server without watches does nothing. With watches, a written key costs one look-up of the key and one for
each length of a watched prefix; watches that share a range and its filters are given one tuple of events, so that it
can be encoded once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.store import KEY, MOD, VERSION, Record
from paxos_rsm.machines.kv.types import COMPACTED
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.rpc import BUG
from paxos_rsm.server.watch_index import Group, WatchIndex

__all__ = ["Event", "Gate", "HubWatch", "WatchHub", "WatchSink"]

log = logging.getLogger(__name__)

SLICE_RECORDS = 1_000
SLICE_DELIVERIES = 2_000
"""About 1 ms of records that nobody watches, about 5 ms of deliveries."""
COHORTS_MAX = 16
"""Of those far behind. Whoever comes then waits, and becomes one cohort with all that wait: one pass serves them."""


class Event(NamedTuple):
    """One change of one key."""

    record: Record
    """As the store has it; a deletion has version 0."""
    previous: Record | None
    """What it replaced; None where there was nothing, where it is compacted, or where nobody asked."""

    @property
    def is_deletion(self) -> bool:
        """Whether the key is gone."""
        return not self.record[VERSION]


class WatchSink(Protocol):
    """Whoever watches. Its methods are called on the event loop and must neither block nor raise.

    They may make and cancel watches, this one included.
    """

    def events(self, watch: "HubWatch", revision: int, events: Sequence[Event]) -> None:
        """All that the watch sees of one revision, in the order of the transaction; revisions come in order, once."""
        ...

    def ended(self, watch: "HubWatch", compact_revision: int, resume_revision: int, reason: str) -> None:
        """No more will come, and nobody asked for that. Not called after ``cancel``.

        ``compact_revision`` above 0: what came next is compacted, start there at the earliest. Otherwise nothing is
        missed by one who starts at ``resume_revision``.
        """
        ...


class Gate:
    """The way out that some watches share. Whoever owns it sets ``full``, and has it opened by the hub."""

    __slots__ = ("full", "waiting")

    def __init__(self) -> None:
        self.full = False
        """While it is, its watches are given nothing."""
        self.waiting: dict[HubWatch, None] = {}
        """Watches that have something to come and were turned away."""


class HubWatch:
    """One watch. Made by :meth:`WatchHub.watch`."""

    __slots__ = (
        "_caught_up",
        "_cohort",
        "_hub",
        "_next",
        "active",
        "deletes",
        "gate",
        "key",
        "puts",
        "range_end",
        "sink",
        "with_previous",
    )

    def __init__(
        self,
        hub: "WatchHub",
        sink: WatchSink,
        key: bytes,
        range_end: bytes,
        next_revision: int,
        *,
        puts: bool,
        deletes: bool,
        with_previous: bool,
        gate: Gate | None,
        caught_up: "Callable[[HubWatch], None] | None",
    ) -> None:
        self.sink = sink
        self.key = key
        self.range_end = range_end
        self.puts = puts
        self.deletes = deletes
        self.with_previous = with_previous
        self.gate = gate
        self.active = True
        """Neither cancelled nor ended."""
        self._hub = hub
        self._next = next_revision
        self._caught_up = caught_up
        self._cohort: _Cohort | None = None

    @property
    def next_revision(self) -> int:
        """The first revision that has not been looked at for this watch; to start there is to miss nothing."""
        cohort = self._cohort
        return self._next if cohort is None else max(self._next, cohort.cursor)

    @property
    def is_caught_up(self) -> bool:
        """Whether it has been given everything up to ``WatchHub.seen_revision``."""
        return self._cohort is self._hub._head

    def cancel(self) -> None:
        """Nothing more is called for this watch. May be called twice, and from within the sink."""
        self._hub._remove(self)


@dataclass(slots=True, eq=False)
class _Cohort:
    cursor: int
    """The first revision not looked at yet."""
    index: WatchIndex[HubWatch] = field(default_factory=WatchIndex)


class WatchHub:
    """All the watches of a server. Belongs to the event loop."""

    def __init__(
        self,
        replica: ReplicaHandle,
        machine: KeyValueMachine,
        *,
        slice_records: int = SLICE_RECORDS,
        slice_deliveries: int = SLICE_DELIVERIES,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._machine = machine
        self._slice_records = slice_records
        self._slice_deliveries = slice_deliveries
        self._head = _Cohort(machine.revision + 1)
        self._lagging: deque[_Cohort] = deque()
        # Of those that start in the past: just come, and too far behind for a cohort to be free.
        self._arrivals: dict[HubWatch, None] = {}
        self._far: dict[HubWatch, None] = {}
        # What the last compaction would have taken of its own revision.
        self._compacted_at = 0
        self._compacted_records: list[Record] = []
        self._watches = 0
        self._step_due = False
        self._suspended = False
        replica.watch_applied(self._applied)
        replica.watch_install(self._installing)

    # ---- for whoever watches -----------------------------------------------------------------------------

    def watch(
        self,
        sink: WatchSink,
        key: bytes,
        range_end: bytes = b"",
        start_revision: int = 0,
        puts: bool = True,
        deletes: bool = True,
        with_previous: bool = False,
        *,
        gate: Gate | None = None,
        caught_up: Callable[[HubWatch], None] | None = None,
    ) -> HubWatch:
        """Watches a key, or a range as etcd writes it, from ``start_revision`` on; 0 is what comes after this call.

        Nothing of the past is delivered before this call has returned. ``caught_up`` is called whenever the watch has
        come to the present after having been behind.
        """
        now = self._machine.revision
        first = start_revision if start_revision > 0 else 1 if start_revision else now + 1
        watch = HubWatch(
            self,
            sink,
            key,
            range_end,
            first,
            puts=puts,
            deletes=deletes,
            with_previous=with_previous,
            gate=gate,
            caught_up=caught_up,
        )
        self._watches += 1
        if first > now and not self._suspended:
            self._settle_head()
            self._join(self._head, watch)
        else:
            self._arrivals[watch] = None
            self._ask_step()
        return watch

    @property
    def seen_revision(self) -> int:
        """Watches that are caught up have been given everything up to here."""
        self._settle_head()
        return self._head.cursor - 1

    def __len__(self) -> int:
        """Watches that are active."""
        return self._watches

    def open(self, gate: Gate) -> None:
        """There is room again: the watches that wait at the gate go on from where they have come to."""
        gate.full = False
        if gate.waiting:
            self._arrivals.update(gate.waiting)
            gate.waiting.clear()
            self._ask_step()

    def end(self, watch: HubWatch, reason: str) -> None:
        """Ends a watch, and tells its sink from where another one would miss nothing."""
        resume = watch.next_revision
        compacted = self._machine.compacted_revision
        if resume < self._oldest_revision():
            self._end(watch, compacted if resume < compacted else compacted + 1, 0, COMPACTED.message)
        else:
            self._end(watch, 0, resume, reason)

    # ---- for the machine ---------------------------------------------------------------------------------

    def compacting(self, revision: int) -> None:
        """To be called right before the store drops its log up to ``revision``: watches that are not late must not
        miss what the same turn has written and compacts.
        """
        try:
            while self._head.index and self._head.cursor <= min(revision, self._machine.revision):
                self._advance(self._head)
            if revision > self._machine.compacted_revision:
                found = self._machine.changes(revision, 1)
                self._compacted_records = [record for record in found if record[MOD] == revision]
                self._compacted_at = revision
        except Exception as error:
            self._give_up(error)

    def _installing(self, begins: bool) -> None:
        """The machine's state is being replaced by that of a snapshot: nobody is told anything before it has been."""
        self._suspended = begins
        if not begins:
            self.reset()

    def reset(self) -> None:
        """The machine's state was replaced, by a newer one of the same history: every watch finds its place anew.

        Those whose next revision the new state still has go on without a gap; the others end as compacted.
        """
        everyone = [watch for cohort in (self._head, *self._lagging) for watch in cohort.index]
        for watch in everyone:
            watch._next, watch._cohort = watch.next_revision, None
            self._arrivals[watch] = None
        self._lagging.clear()
        self._compacted_at, self._compacted_records = 0, []
        self._head = _Cohort(self._machine.revision + 1)
        self._ask_step()

    # ---- turns -------------------------------------------------------------------------------------------

    def _applied(self) -> None:
        """Called after every turn of the replica that has applied something."""
        head = self._head
        if self._suspended or not head.index:
            return
        try:
            self._advance(head)
        except Exception as error:
            self._give_up(error)
        if head.cursor <= self._machine.revision:
            self._ask_step()

    def _ask_step(self) -> None:
        if not self._step_due:
            self._step_due = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        """One slice of the head where it is behind, and one of the cohort whose turn it is."""
        self._step_due = False
        if self._suspended:
            return
        try:
            self._settle_head()
            head = self._head
            if head.cursor <= self._machine.revision:
                self._advance(head)
            # Whoever is nearly there needs one slice; behind them the others take turns.
            for _ in range(self._admit()):
                self._advance_lagging()
            if self._lagging:
                self._advance_lagging()
            behind = self._head.index and self._head.cursor <= self._machine.revision
        except Exception as error:
            self._give_up(error)
            return
        if behind or self._lagging or self._arrivals or self._far:
            self._ask_step()

    def _settle_head(self) -> None:
        """A head without watches is always at the present."""
        if not self._head.index:
            self._head.cursor = self._machine.revision + 1

    def _advance_lagging(self) -> None:
        """One slice of the first cohort that is behind; then it is the next one's turn."""
        cohort = self._lagging[0]
        self._advance(cohort)
        self._lagging.popleft()
        if cohort.cursor >= self._head.cursor:
            self._catch_up(cohort)
        elif cohort.index:
            self._lagging.append(cohort)

    def _admit(self) -> int:
        """Makes cohorts of those that have come: first one of all that are nearly there (1, else 0), then one of the
        others.
        """
        arrivals, self._arrivals = self._arrivals, {}
        near_revision = self._head.cursor - self._slice_records
        near = []
        for watch in arrivals:
            if watch._next >= near_revision:
                near.append(watch)
            else:
                self._far[watch] = None
        if near:
            self._lagging.appendleft(self._cohort_of(near))
        if self._far and len(self._lagging) < COHORTS_MAX:
            far, self._far = self._far, {}
            self._lagging.append(self._cohort_of(far))
        return int(bool(near))

    def _cohort_of(self, watches: Iterable[HubWatch]) -> _Cohort:
        cohort = _Cohort(min(watch._next for watch in watches))
        for watch in watches:
            self._join(cohort, watch)
        return cohort

    def _join(self, cohort: _Cohort, watch: HubWatch) -> None:
        watch._cohort = cohort
        cohort.index.add(watch, watch.key, watch.range_end)

    def _catch_up(self, cohort: _Cohort) -> None:
        """Moves the watches of a cohort that has met the head over to it."""
        for watch in list(cohort.index):
            if watch._cohort is not cohort:
                continue  # one that was told before has cancelled this one
            self._take_out(watch)
            self._join(self._head, watch)
            if watch._caught_up is not None:
                try:
                    watch._caught_up(watch)
                except Exception as error:
                    self._sink_failed(watch, watch.next_revision, error)

    # ---- deliveries --------------------------------------------------------------------------------------

    def _advance(self, cohort: _Cohort) -> None:
        """Looks at one slice of what is ahead of a cohort."""
        machine = self._machine
        if cohort.cursor <= machine.compacted_revision:
            self._pass_compaction(cohort)
        records = machine.changes(cohort.cursor, self._slice_records)
        deliveries, at, count = 0, 0, len(records)
        while at < count and deliveries < self._slice_deliveries:
            revision = records[at][MOD]
            end = at + 1
            while end < count and records[end][MOD] == revision:
                end += 1
            deliveries += self._deliver(cohort, revision, records[at:end])
            cohort.cursor = revision + 1
            at = end
        if not records:
            cohort.cursor = machine.revision + 1

    def _pass_compaction(self, cohort: _Cohort) -> None:
        """Moves a cohort behind the compacted revision; the watches that need more than what was kept end."""
        compacted = self._machine.compacted_revision
        oldest = self._oldest_revision()
        for watch in list(cohort.index):
            if watch.active and watch.next_revision < oldest:
                told = compacted if watch.next_revision < compacted else compacted + 1
                self._end(watch, told, 0, COMPACTED.message)
        if oldest == compacted:
            cohort.cursor = compacted
            self._deliver(cohort, compacted, self._compacted_records)
        cohort.cursor = compacted + 1

    def _oldest_revision(self) -> int:
        """The oldest that a watch can be given."""
        compacted = self._machine.compacted_revision
        return compacted if self._compacted_at == compacted else compacted + 1

    def _deliver(self, cohort: _Cohort, revision: int, records: list[Record]) -> int:
        """Gives one revision to whom it concerns; how many that were."""
        groups = cohort.index.groups
        if len(records) == 1:
            found = groups(records[0][KEY])
            return sum(self._deliver_to(cohort, group, revision, records) for group in found) if found else 0
        # A transaction: what each group sees of it, in order.
        seen: dict[int, tuple[Group[HubWatch], list[Record]]] = {}
        for record in records:
            for group in groups(record[KEY]):
                seen.setdefault(id(group), (group, []))[1].append(record)
        return sum(self._deliver_to(cohort, group, revision, wanted) for group, wanted in seen.values())

    def _deliver_to(
        self, cohort: _Cohort, group: Group[HubWatch], revision: int, records: list[Record]
    ) -> int:
        made: dict[tuple[bool, bool, bool], tuple[Event, ...]] = {}
        for watch in tuple(group):
            # Others of the group may have been cancelled by a sink meanwhile, or are ahead of their cohort.
            if watch._cohort is not cohort or watch._next > revision:
                continue
            wanted = (watch.puts, watch.deletes, watch.with_previous)
            events = made.get(wanted)
            if events is None:
                events = made[wanted] = self._events(records, *wanted)
            if not events:
                continue
            gate = watch.gate
            if gate is not None and gate.full:
                self._take_out(watch)
                watch._next = revision
                gate.waiting[watch] = None
                continue
            watch._next = revision + 1
            try:
                watch.sink.events(watch, revision, events)
            except Exception as error:
                self._sink_failed(watch, revision, error)
        return len(group) + 1

    def _events(
        self, records: list[Record], puts: bool, deletes: bool, with_previous: bool
    ) -> tuple[Event, ...]:
        previous = self._machine.previous
        return tuple(
            Event(record, previous(record) if with_previous else None)
            for record in records
            if (puts if record[VERSION] else deletes)
        )

    # ---- ends --------------------------------------------------------------------------------------------

    def _take_out(self, watch: HubWatch) -> None:
        """Out of wherever it is."""
        cohort = watch._cohort
        if cohort is not None:
            watch._next = watch.next_revision
            watch._cohort = None
            cohort.index.discard(watch, watch.key, watch.range_end)
            return
        self._arrivals.pop(watch, None)
        self._far.pop(watch, None)
        if watch.gate is not None:
            watch.gate.waiting.pop(watch, None)

    def _remove(self, watch: HubWatch) -> None:
        if watch.active:
            watch.active = False
            self._watches -= 1
            self._take_out(watch)

    def _end(self, watch: HubWatch, compact_revision: int, resume_revision: int, reason: str) -> None:
        if not watch.active:
            return
        self._remove(watch)
        try:
            watch.sink.ended(watch, compact_revision, resume_revision, reason)
        except Exception as error:
            log.error("a watch could not be told of its end", exc_info=error)

    def _sink_failed(self, watch: HubWatch, revision: int, error: Exception) -> None:
        """A sink that raises has lost an event: it gets no more, rather than some without that one."""
        log.error("whoever watches failed for a reason that nobody foresaw", exc_info=error)
        self._end(watch, 0, revision, BUG)

    def _give_up(self, error: Exception) -> None:
        """A bug in here must cost the watches, not the replica whose turn this is."""
        log.error("watches failed for a reason that nobody foresaw", exc_info=error)
        everyone = [watch for cohort in (self._head, *self._lagging) for watch in cohort.index]
        everyone += [*self._arrivals, *self._far]
        self._head = _Cohort(self._machine.revision + 1)
        self._lagging.clear()
        for watch in everyone:
            self._end(watch, 0, watch.next_revision, BUG)
