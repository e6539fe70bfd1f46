"""Watches over a real key-value machine: transcripts of what is written, and of what each watch is given."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Command, Compact, DeleteRange, Put, Txn
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.watch_hub import Event, Gate, HubWatch, WatchHub

COMPACTED = "etcdserver: mvcc: required revision has been compacted"


class Store:
    """A machine whose every ``turn`` is told to the hub, as a replica does."""

    def __init__(self) -> None:
        self.machine = KeyValueMachine(KvCodec())
        self._applied: list[Callable[[], None]] = []
        self._hub: WatchHub | None = None
        self.installing: Callable[[bool], None]

    def watch_install(self, installing: Callable[[bool], None]) -> None:
        self.installing = installing

    def watch_applied(self, applied: Callable[[], None]) -> None:
        self._applied.append(applied)

    def hub(self, **options: int) -> WatchHub:
        self._hub = WatchHub(cast(ReplicaHandle, self), self.machine, **options)
        return self._hub

    def turn(self, *commands: Command) -> int:
        """Applies commands in one turn of the replica; the revision then."""
        for command in commands:
            if isinstance(command, Compact) and self._hub is not None:
                self._hub.compacting(command.revision)
            self.machine.execute(command)
        for applied in self._applied:
            applied()
        return self.machine.revision

    def put(self, key: bytes, value: bytes = b"") -> int:
        return self.turn(Put(key, value))

    def delete(self, key: bytes, range_end: bytes = b"") -> int:
        return self.turn(DeleteRange(key, range_end))


class Watcher:
    """A sink that writes a transcript: ``2: put a=1``, ``5: del a``, ``ended compact=4``."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tuples: list[Sequence[Event]] = []
        self.on_events: Callable[[HubWatch], None] = lambda watch: None

    def events(self, watch: HubWatch, revision: int, events: Sequence[Event]) -> None:
        assert all(event.record[2] == revision for event in events)
        self.tuples.append(events)
        self.lines.append(f"{revision}: " + ", ".join(map(_line, events)))
        self.on_events(watch)

    def ended(self, watch: HubWatch, compact_revision: int, resume_revision: int, reason: str) -> None:
        self.lines.append(f"ended compact={compact_revision} resume={resume_revision} {reason}")


def _line(event: Event) -> str:
    key, _, _, _, value, _ = event.record
    line = f"del {key.decode()}" if event.is_deletion else f"put {key.decode()}={value.decode()}"
    return line if event.previous is None else f"{line} was {event.previous[4].decode()}"


async def settled(hub: WatchHub) -> None:
    """Until the hub has nothing left to do."""
    while hub._step_due:  # noqa: ASYNC110 (its turns are turns of this very loop)
        await asyncio.sleep(0)


@pytest.fixture
def store() -> Store:
    return Store()


# ---- the present ---------------------------------------------------------------------------------------------


async def test_a_watch_sees_what_comes_after_it(store: Store) -> None:
    hub, watcher = store.hub(), Watcher()
    store.put(b"k", b"before")
    hub.watch(watcher, b"k")
    store.put(b"k", b"1")
    store.put(b"other", b"x")
    store.put(b"k", b"2")
    store.delete(b"k")
    assert watcher.lines == ["3: put k=1", "5: put k=2", "6: del k"]


async def test_a_range_a_prefix_and_everything(store: Store) -> None:
    hub = store.hub()
    ranges = {"a..c": (b"a", b"c"), "b*": (b"b", b"c"), "from b": (b"b", b"\0"), "all": (b"\0", b"\0")}
    watchers = {name: Watcher() for name in ranges}
    for name, (key, range_end) in ranges.items():
        hub.watch(watchers[name], key, range_end)
    for key in (b"a", b"b", b"bb", b"c"):
        store.put(key)
    seen = {name: [line.split()[2] for line in watcher.lines] for name, watcher in watchers.items()}
    assert seen == {
        "a..c": ["a=", "b=", "bb="],
        "b*": ["b=", "bb="],
        "from b": ["b=", "bb=", "c="],
        "all": ["a=", "b=", "bb=", "c="],
    }


async def test_a_transaction_is_one_delivery_in_its_own_order(store: Store) -> None:
    hub, everything, one = store.hub(), Watcher(), Watcher()
    store.put(b"old", b"0")
    hub.watch(everything, b"\0", b"\0", with_previous=True)
    hub.watch(one, b"x")
    store.turn(
        Txn(success=(Put(b"z", b"1"), Put(b"x", b"2"), DeleteRange(b"old"), Put(b"a", b"3")), failure=())
    )
    assert everything.lines == ["3: put z=1, put x=2, del old was 0, put a=3"]
    assert one.lines == ["3: put x=2"]


async def test_filters_and_previous_values(store: Store) -> None:
    hub, puts, deletes, both = store.hub(), Watcher(), Watcher(), Watcher()
    hub.watch(puts, b"k", deletes=False)
    hub.watch(deletes, b"k", puts=False, with_previous=True)
    hub.watch(both, b"k", with_previous=True)
    store.put(b"k", b"1")
    store.put(b"k", b"2")
    store.delete(b"k")
    assert puts.lines == ["2: put k=1", "3: put k=2"]
    assert deletes.lines == ["4: del k was 2"]
    assert both.lines == ["2: put k=1", "3: put k=2 was 1", "4: del k was 2"]


async def test_watches_of_one_key_share_one_tuple_of_events(store: Store) -> None:
    hub = store.hub()
    watchers = [Watcher() for _ in range(1_000)]
    for watcher in watchers:
        hub.watch(watcher, b"k")
    store.put(b"k", b"1")
    assert len({id(watcher.tuples[0]) for watcher in watchers}) == 1


async def test_several_revisions_of_one_turn_come_one_by_one(store: Store) -> None:
    hub, watcher = store.hub(), Watcher()
    hub.watch(watcher, b"k")
    store.turn(Put(b"k", b"1"), Put(b"k", b"2"), Put(b"x", b""), Put(b"k", b"3"))
    assert watcher.lines == ["2: put k=1", "3: put k=2", "5: put k=3"]


async def test_a_start_in_the_future_waits_for_it(store: Store) -> None:
    hub, watcher = store.hub(), Watcher()
    watch = hub.watch(watcher, b"k", start_revision=4)
    for value in (b"2", b"3", b"4", b"5"):
        store.put(b"k", value)
    assert watcher.lines == ["4: put k=4", "5: put k=5"]
    assert watch.is_caught_up


# ---- the past ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_records", [1, 3, 1_000])
async def test_a_start_in_the_past_meets_the_present_without_a_gap(store: Store, slice_records: int) -> None:
    hub = store.hub(slice_records=slice_records, slice_deliveries=2)
    for number in range(20):
        store.put(b"k" if number % 2 else b"x", b"%d" % number)
    watchers = [Watcher() for _ in range(22)]
    watches = [hub.watch(each, b"k", start_revision=at) for at, each in enumerate(watchers, 1)]
    # While they are catching up, the store goes on.
    number = 20
    while hub._step_due and number < 60:
        store.put(b"k" if number % 2 else b"x", b"%d" % number)
        number += 1
        await asyncio.sleep(0)
    await settled(hub)
    store.put(b"k", b"last")
    every = [f"{value + 2}: put k={value}" for value in range(1, number, 2)] + [f"{number + 2}: put k=last"]
    for at, (watch, watcher) in enumerate(zip(watches, watchers, strict=True), 1):
        assert watcher.lines == [line for line in every if int(line.split(":")[0]) >= at], f"from {at} on"
        assert watch.is_caught_up
        assert watch.next_revision == number + 3


async def test_nothing_of_the_past_comes_before_the_call_has_returned(store: Store) -> None:
    hub, watcher = store.hub(), Watcher()
    store.put(b"k", b"1")
    told: list[HubWatch] = []
    watch = hub.watch(watcher, b"k", start_revision=1, caught_up=told.append)
    assert (watcher.lines, watch.is_caught_up, watch.next_revision) == ([], False, 1)
    await settled(hub)
    assert (watcher.lines, watch.is_caught_up, told) == (["2: put k=1"], True, [watch])


async def test_catching_up_leaves_the_loop_its_turns_and_the_present_its_speed(store: Store) -> None:
    hub, late, live = store.hub(slice_records=10), Watcher(), Watcher()
    for number in range(1_000):
        store.put(b"k", b"%d" % number)
    hub.watch(late, b"k", start_revision=1)
    hub.watch(live, b"now")
    turns = 0
    while hub._step_due:
        before = len(late.lines)
        await asyncio.sleep(0)
        turns += 1
        assert len(late.lines) - before <= 20
        store.put(b"now", b"")
        assert len(live.lines) == turns, "the present waits for nobody"
    assert len(late.lines) == 1_000
    assert turns >= 50


async def test_many_that_are_late_share_passes_over_the_log(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = store.hub(slice_records=10)
    for number in range(500):
        store.put(b"%d" % (number % 10))
    looked_at = 0
    changes = store.machine.changes

    def counted(first_revision: int, records_max: int) -> list[tuple[bytes, int, int, int, bytes, int]]:
        nonlocal looked_at
        found = changes(first_revision, records_max)
        looked_at += len(found)
        return found

    monkeypatch.setattr(store.machine, "changes", counted)
    watchers = []
    for number in range(400):
        watchers.append(Watcher())
        hub.watch(watchers[-1], b"%d" % (number % 10), start_revision=1)
        await asyncio.sleep(0)
    await settled(hub)
    assert {len(each.lines) for each in watchers} == {50}
    assert looked_at < 400 * 500 / 4


async def test_a_write_nobody_watches_is_not_even_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, watcher = store.hub(), Watcher()

    def never(*_: int) -> None:
        raise AssertionError("there are no watches")

    with monkeypatch.context() as patched:
        patched.setattr(store.machine, "changes", never)
        for _ in range(10):
            store.put(b"k")
    hub.watch(watcher, b"k").cancel()
    with monkeypatch.context() as patched:
        patched.setattr(store.machine, "changes", never)
        store.put(b"k")
    hub.watch(watcher, b"k")
    store.put(b"k")
    assert watcher.lines == ["13: put k="]
    assert len(hub) == 1


async def test_a_turn_with_much_to_give_is_cut(store: Store) -> None:
    hub, watcher = store.hub(slice_records=5), Watcher()
    hub.watch(watcher, b"k")
    store.turn(*(Put(b"k", b"%d" % number) for number in range(12)))
    assert len(watcher.lines) == 5
    assert hub.seen_revision == 6
    newer = Watcher()
    hub.watch(newer, b"k")  # from now on: revision 14, though the head is not there yet
    store.put(b"k", b"12")
    await settled(hub)
    assert watcher.lines == [f"{number + 2}: put k={number}" for number in range(13)]
    assert newer.lines == ["14: put k=12"]


# ---- cancelled -----------------------------------------------------------------------------------------------


async def test_a_watch_that_is_cancelled_is_given_nothing_more(store: Store) -> None:
    hub, live, late, twice = store.hub(), Watcher(), Watcher(), Watcher()
    store.put(b"k", b"1")
    for watch in (hub.watch(live, b"k"), hub.watch(late, b"k", start_revision=1)):
        watch.cancel()
        watch.cancel()

    def cancel_both(_: HubWatch) -> None:  # one is cancelled by the other, in the middle of one delivery
        for each in both:
            each.cancel()

    twice.on_events = live.on_events = cancel_both
    both = [hub.watch(twice, b"k"), hub.watch(live, b"k")]
    store.put(b"k", b"2")
    store.put(b"k", b"3")
    await settled(hub)
    assert (live.lines, late.lines, twice.lines) == ([], [], ["3: put k=2"])
    assert len(hub) == 0
    assert not hub._head.index


async def test_a_sink_may_watch_from_within(store: Store) -> None:
    hub, outer, inner = store.hub(), Watcher(), Watcher()

    def watch_more(watch: HubWatch) -> None:
        watch.cancel()
        hub.watch(inner, b"k", start_revision=2)

    outer.on_events = watch_more
    hub.watch(outer, b"k")
    store.put(b"k", b"1")
    await settled(hub)
    store.put(b"k", b"2")
    assert (outer.lines, inner.lines) == (["2: put k=1"], ["2: put k=1", "3: put k=2"])


async def test_a_sink_that_raises_is_ended_and_costs_nobody_else(store: Store) -> None:
    hub, bad, good = store.hub(), Watcher(), Watcher()

    def fail(_: HubWatch) -> None:
        raise RuntimeError("a bug")

    bad.on_events = fail
    hub.watch(bad, b"k")
    hub.watch(good, b"k")
    store.put(b"k", b"1")
    store.put(b"k", b"2")
    assert bad.lines == [
        "2: put k=1",
        "ended compact=0 resume=2 the server met a bug; its log has the details",
    ]
    assert good.lines == ["2: put k=1", "3: put k=2"]


async def test_a_bug_in_the_hub_costs_the_watches_and_not_the_replica(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, watcher, later = store.hub(), Watcher(), Watcher()
    hub.watch(watcher, b"k")
    with monkeypatch.context() as patched:
        patched.setattr(store.machine, "changes", lambda *_: 1 // 0)
        store.put(b"k", b"1")
    assert watcher.lines == ["ended compact=0 resume=2 the server met a bug; its log has the details"]
    hub.watch(later, b"k")
    store.put(b"k", b"2")
    assert later.lines == ["3: put k=2"]


# ---- compaction ----------------------------------------------------------------------------------------------


async def test_a_start_below_the_compaction_ends_and_one_at_it_does_not(store: Store) -> None:
    hub = store.hub()
    for value in (b"2", b"3", b"4", b"5"):
        store.put(b"k", value)
    store.turn(Compact(4))
    below, at, above = Watcher(), Watcher(), Watcher()
    hub.watch(below, b"k", start_revision=3)
    hub.watch(at, b"k", start_revision=4)
    hub.watch(above, b"k", start_revision=5)
    await settled(hub)
    assert below.lines == [f"ended compact=4 resume=0 {COMPACTED}"]
    assert at.lines == ["4: put k=4", "5: put k=5"]
    assert above.lines == ["5: put k=5"]


async def test_a_deletion_at_the_compaction_can_be_watched_from(store: Store) -> None:
    hub, watcher = store.hub(), Watcher()
    store.put(b"k", b"2")
    store.turn(DeleteRange(b"k"), Compact(3))
    hub.watch(watcher, b"k", start_revision=3)
    await settled(hub)
    assert watcher.lines == ["3: del k"]


async def test_where_the_compacted_revision_was_not_kept_the_next_one_is_named(store: Store) -> None:
    """A client that starts where it is told to must not be told the same again."""
    for value in (b"2", b"3"):
        store.put(b"k", value)
    store.turn(Compact(3))  # before there was a hub
    hub, watcher, again = store.hub(), Watcher(), Watcher()
    hub.watch(watcher, b"k", start_revision=3)
    hub.watch(again, b"k", start_revision=4)
    await settled(hub)
    store.put(b"k", b"4")
    assert watcher.lines == [f"ended compact=4 resume=0 {COMPACTED}"]
    assert again.lines == ["4: put k=4"]


async def test_an_empty_store_can_be_compacted_and_watched_from_its_start(store: Store) -> None:
    hub, watcher = store.hub(), Watcher()
    store.turn(Compact(1))
    store.put(b"k", b"2")
    hub.watch(watcher, b"k", start_revision=1)
    await settled(hub)
    assert watcher.lines == ["2: put k=2"]


async def test_a_turn_that_writes_and_compacts_loses_nothing(store: Store) -> None:
    """A server that has fallen behind applies many entries in one turn."""
    hub, watcher = store.hub(slice_records=2), Watcher()
    hub.watch(watcher, b"k", with_previous=True)
    store.turn(
        Put(b"k", b"1"), Put(b"k", b"2"), Put(b"k", b"3"), Put(b"k", b"4"), Compact(4), Put(b"k", b"5")
    )
    await settled(hub)
    assert watcher.lines == [
        "2: put k=1",
        "3: put k=2 was 1",
        "4: put k=3 was 2",
        "5: put k=4 was 3",
        "6: put k=5 was 4",
    ]


async def test_who_is_late_when_the_log_is_compacted_is_ended(store: Store) -> None:
    hub, late, later = store.hub(slice_records=2), Watcher(), Watcher()
    for value in range(2, 20):
        store.put(b"k", b"%d" % value)
    hub.watch(late, b"k", start_revision=2)
    await asyncio.sleep(0)
    hub.watch(later, b"k", start_revision=15)
    store.turn(Compact(15))
    await settled(hub)
    assert late.lines[:2] == ["2: put k=2", "3: put k=3"]
    assert late.lines[-1] == f"ended compact=15 resume=0 {COMPACTED}"
    assert later.lines == [f"{value}: put k={value}" for value in range(15, 20)]
    assert len(hub) == 1


# ---- gates ---------------------------------------------------------------------------------------------------


async def test_behind_a_full_gate_a_watch_waits_and_then_catches_up(store: Store) -> None:
    hub, slow, quick, gate = store.hub(), Watcher(), Watcher(), Gate()
    watch = hub.watch(slow, b"k", gate=gate)
    hub.watch(quick, b"k")
    store.put(b"k", b"1")
    gate.full = True
    for value in (b"2", b"3", b"4"):
        store.put(b"x")
        store.put(b"k", value)
    assert len(quick.lines) == 4
    assert slow.lines == ["2: put k=1"]
    assert list(gate.waiting) == [watch]
    assert (watch.next_revision, watch.is_caught_up) == (4, False)
    hub.open(gate)
    await settled(hub)
    assert slow.lines == quick.lines
    assert watch.is_caught_up
    assert not gate.waiting


async def test_a_gate_that_fills_again_and_again_loses_and_repeats_nothing(store: Store) -> None:
    hub, gate = store.hub(slice_records=7), Gate()
    watchers = [Watcher() for _ in range(5)]

    def shut(_: HubWatch) -> None:
        gate.full = True

    for number, watcher in enumerate(watchers):
        watcher.on_events = shut
        hub.watch(watcher, b"\0", b"\0" if number % 2 else b"z", start_revision=1 + number, gate=gate)
    for number in range(50):
        store.put(b"%d" % number)
        await asyncio.sleep(0)
    while gate.full or hub._step_due:
        hub.open(gate)
        await settled(hub)
    for number, watcher in enumerate(watchers):
        revisions = [int(line.split(":")[0]) for line in watcher.lines]
        assert revisions == list(range(max(2, 1 + number), 52))


async def test_who_has_nothing_to_come_does_not_wait_at_the_gate(store: Store) -> None:
    hub, watcher, gate = store.hub(), Watcher(), Gate()
    gate.full = True
    watch = hub.watch(watcher, b"k", deletes=False, gate=gate)
    store.put(b"x")
    store.delete(b"k")
    assert watch.is_caught_up
    assert not gate.waiting


async def test_a_watch_can_be_ended_where_it_stands(store: Store) -> None:
    hub, gate = store.hub(), Gate()
    waiting, live = Watcher(), Watcher()
    watch = hub.watch(waiting, b"k", gate=gate)
    other = hub.watch(live, b"k")
    gate.full = True
    store.put(b"k")
    store.put(b"k")
    hub.end(watch, "too slow")
    hub.end(other, "enough")
    hub.open(gate)
    await settled(hub)
    assert waiting.lines == ["ended compact=0 resume=2 too slow"]
    assert live.lines[-1] == "ended compact=0 resume=4 enough"
    assert len(hub) == 0


async def test_who_waits_at_a_gate_and_is_compacted_away_is_told(store: Store) -> None:
    hub, gate = store.hub(), Gate()
    opened, ended = Watcher(), Watcher()
    gate.full = True
    hub.watch(opened, b"k", gate=gate)
    watch = hub.watch(ended, b"k", gate=gate)
    for value in (b"2", b"3", b"4"):
        store.put(b"k", value)
    store.turn(Compact(3))
    hub.end(watch, "too slow")
    hub.open(gate)
    await settled(hub)
    assert opened.lines == ended.lines == [f"ended compact=3 resume=0 {COMPACTED}"]


# ---- a new state ---------------------------------------------------------------------------------------------


async def test_after_a_snapshot_watches_go_on_or_are_told_that_they_cannot(store: Store) -> None:
    hub, early, late = store.hub(), Watcher(), Watcher()
    gate = Gate()
    store.put(b"k", b"2")
    hub.watch(early, b"k", gate=gate)
    gate.full = True
    store.put(b"k", b"3")  # which `early` does not take
    hub.watch(late, b"k")
    newer = Store()
    for value in range(2, 9):
        newer.put(b"k", b"%d" % value)
    newer.turn(Compact(3))
    store.installing(True)
    store.machine.restore(newer.machine.snapshot())
    hub.open(gate)
    newest = Watcher()
    hub.watch(newest, b"k")
    await settled(hub)
    assert late.lines == newest.lines == []
    store.installing(False)
    await settled(hub)
    store.put(b"k", b"9")
    assert early.lines == [f"ended compact=4 resume=0 {COMPACTED}"]
    assert late.lines == [f"{value}: put k={value}" for value in range(4, 10)]
    assert newest.lines == ["9: put k=9"]
