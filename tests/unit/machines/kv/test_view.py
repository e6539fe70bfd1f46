"""Snapshots and hashes of a store that goes on: what a view shows, what it holds on to, and for how long."""

import gc
import random
from collections.abc import Iterator

import pytest

from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.records import Record
from paxos_rsm.machines.kv.store import TIDY_RECORDS, MultiVersionStore
from paxos_rsm.machines.kv.types import ALL_FROM, Compact, DeleteRange, LeaseGrant, LeaseKeepAlive, Put, Range
from paxos_rsm.machines.kv.view import BATCH_RECORDS
from paxos_rsm.machines.slices import SLICE_BYTES

AT = Position(1, 0)


@pytest.fixture
def machine() -> KeyValueMachine:
    return KeyValueMachine(KvCodec())


def flat(batches: Iterator[list[Record]]) -> list[Record]:
    return [record for batch in batches for record in batch]


def restored(slices: Iterator[bytes]) -> KeyValueMachine:
    copy = KeyValueMachine(KvCodec())
    copy.restore(slices)
    copy._store.require_invariants()
    return copy


def shaken(machine: KeyValueMachine, rnd: random.Random, commands: int) -> None:
    """Anything may happen to some hundred keys; half of the compactions are at the newest revision."""
    for _ in range(commands):
        key = b"%03d" % rnd.randrange(300)
        kind = rnd.random()
        if kind < 0.7:
            machine.execute(Put(key, b"%d" % rnd.randrange(1000)))
        elif kind < 0.9:
            machine.execute(DeleteRange(key, rnd.choice([b"", key + b"\xff"])))
        else:
            back = rnd.choice([0, rnd.randrange(1, 200)])
            machine.execute(Compact(max(1, machine.revision - back)))


@pytest.mark.parametrize("seed", range(8))
def test_views_taken_at_any_time_and_read_at_any_pace_show_their_moment(
    machine: KeyValueMachine, seed: int
) -> None:
    rnd = random.Random(seed)
    open_views: list[tuple[Iterator[bytes], list[bytes], bytes, bytes]] = []
    read = 0
    for _ in range(60):
        shaken(machine, rnd, 25)
        if len(open_views) < 4:
            view = machine.snapshot()
            open_views.append((view, [], b"".join(machine.snapshot()), machine.digest()))
        slices, so_far, whole, digest = one = rnd.choice(open_views)
        for _ in range(rnd.randrange(4)):
            data = next(slices, None)
            if data is None:
                assert b"".join(so_far) == whole
                assert restored(iter(so_far)).digest() == digest
                open_views.remove(one)
                read += 1
                break
            so_far.append(data)
        machine._store.require_invariants()
    assert read > 5


def test_the_walk_over_keys_misses_none_that_come_and_go_around_it(machine: KeyValueMachine) -> None:
    """More keys than one batch has, of both kinds, and changes right at the place where it stands."""
    keys = [b"%05d" % number for number in range(4 * BATCH_RECORDS)]
    machine.apply_batch([encode_command(Put(key, b"v")) for key in keys], AT)
    machine.execute(Compact(machine.revision))
    with_dead = machine.view()
    machine.execute(DeleteRange(keys[10], keys[3 * BATCH_RECORDS]))
    expected = flat(machine.view().base())
    assert [record[0] for record in expected] == keys
    view = machine.view()
    found: list[Record] = []
    for batch in view.base():
        found += batch
        last = batch[-1][0]
        machine.execute(DeleteRange(last + b"\0", last + b"5"))
        machine.execute(Put(last + b"\0" * 3, b"new"))
        machine.execute(Put(last, b"again"))
        machine.execute(Compact(machine.revision))
    assert found == expected == flat(with_dead.base())


def test_what_a_view_shows_is_kept_until_it_is_closed_or_let_go(machine: KeyValueMachine) -> None:
    store = machine._store

    def versions() -> int:
        return len(store._newest) + sum(map(len, store._older.values()))

    for round_ in range(4):
        for number in range(10):
            machine.execute(Put(b"%d" % number, b"%d" % round_))
        view = machine.snapshot()
        machine.execute(DeleteRange(b"5", ALL_FROM))
        machine.execute(Compact(machine.revision))
        assert not machine.tidy(1000)
        assert versions() > 5
        if round_ % 2:
            view.close()
            assert list(view) == []
        else:
            next(view)
            del view
            gc.collect()
        assert store.is_untidy, "nothing was kept for the view"
        assert machine.tidy(1000)
        assert not machine.tidy(1000)
        assert versions() == len(machine) == 5


def test_a_closed_view_gives_nothing_of_a_store_that_may_have_dropped_it(machine: KeyValueMachine) -> None:
    machine.execute(Put(b"a"))
    view = machine.view()
    view.close()
    view.close()
    with pytest.raises(InvariantViolation, match="after it was closed"):
        next(view.log())


def test_a_view_outlives_the_store_that_is_replaced(machine: KeyValueMachine) -> None:
    machine.execute(Put(b"a", b"1"))
    view, digest = machine.snapshot(), machine.digest()
    machine.restore(KeyValueMachine(KvCodec()).snapshot())
    machine.execute(Put(b"b", b"2"))
    assert restored(view).digest() == digest


def test_leases_that_change_do_not_show(machine: KeyValueMachine) -> None:
    for lease in (3, 1, 2):
        machine.execute(LeaseGrant(60, lease))
    view, digest = machine.snapshot(), machine.digest()
    machine.execute(LeaseKeepAlive(1))
    machine.execute(LeaseGrant(60, 4))
    copy = restored(view)
    assert copy.digest() == digest != machine.digest()
    assert sorted(copy.take_timers()) == [(1, 2, 60_000), (2, 3, 60_000), (3, 1, 60_000)]


def test_where_the_next_slice_takes_long_there_are_empty_ones(machine: KeyValueMachine) -> None:
    """A walk over keys that came after the compaction gives nothing, however many they are."""
    machine.execute(Put(b"a"))
    machine.execute(Compact(2))
    commands = [encode_command(Put(b"k%06d" % number)) for number in range(20 * BATCH_RECORDS)]
    machine.apply_batch(commands, AT)
    slices = list(machine.snapshot())
    assert slices.count(b"") >= 20
    assert max(map(len, slices)) <= SLICE_BYTES
    assert restored(iter(slices)).digest() == machine.digest()


# ---- what compactions leave behind -----------------------------------------------------------------------------


def test_a_compaction_of_very_much_is_done_at_once_to_see_and_bit_by_bit_in_memory() -> None:
    store = MultiVersionStore()
    count = 3 * TIDY_RECORDS
    for number in range(count):
        store.put(Put(b"hot" if number % 2 else b"%06d" % number, b"v"))
    before = store.state_bytes
    store.compact(Compact(store.revision))
    assert store.is_untidy
    assert store.state_bytes == before - (count // 2 - 1) * (3 + 1 + 300)
    with pytest.raises(ValueError, match="compacted"):
        store.changes(store.revision, 1)
    assert len(store._older[b"hot"]) > 1
    steps = 0
    while store.tidy(1000):
        store.require_invariants()
        steps += 1
    assert steps == -(-2 * TIDY_RECORDS // 1000)
    assert (len(store._log), store._older) == (0, {})


def test_frames_drop_faster_than_they_write(machine: KeyValueMachine) -> None:
    commands = [encode_command(Put(b"%d" % (number % 7))) for number in range(2 * TIDY_RECORDS)]
    machine.apply_batch(commands, AT)
    machine.execute(Compact(machine.revision))
    frames = 0
    while machine._store.is_untidy:
        machine.apply_batch(commands[:100], AT)
        frames += 1
    assert frames == -(-TIDY_RECORDS // 1100)


def test_what_is_read_does_not_depend_on_what_is_tidied(machine: KeyValueMachine) -> None:
    for number in range(40):
        machine.execute(Put(b"%d" % (number % 5), b"%d" % number))
        if number % 6 == 0:
            machine.execute(DeleteRange(b"%d" % (number % 5)))
    view = machine.view()
    machine.execute(Compact(machine.revision - 10))

    def answers() -> list[object]:
        first = machine.compacted_revision
        ranges = [Range(b"\0", ALL_FROM, revision=at) for at in range(first, machine.revision + 1)]
        counts = [each._replace(limit=2) for each in ranges]
        read: list[object] = [machine.execute_query(each) for each in ranges + counts]
        changes = machine.changes(first + 1, 1000)
        return [*read, changes, [machine.previous(each) for each in changes], machine.digest()]

    untidy = answers()
    assert machine._store.is_untidy
    view.close()
    assert machine.tidy(1000)
    assert answers() == untidy
