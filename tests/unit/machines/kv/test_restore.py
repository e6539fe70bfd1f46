"""A store whose revision is raised when it is restored, as a client sees it."""

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.errors import ConfigError, MachineFailed
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.restore import bumped
from paxos_rsm.machines.kv.types import (
    COMPACTED,
    Compact,
    DeleteRange,
    LeaseGrant,
    Put,
    Range,
    RangeResult,
    SetQuota,
)


def store() -> KeyValueMachine:
    """At revision 6: ``a`` written twice, ``b`` deleted, ``c`` held by a lease."""
    machine = KeyValueMachine(KvCodec())
    machine.execute(Put(b"a", b"1"))
    machine.execute(Put(b"b", b"2"))
    machine.execute(Put(b"a", b"3"))
    machine.execute(DeleteRange(b"b"))
    machine.execute(LeaseGrant(60, 7))
    machine.execute(Put(b"c", b"4", lease=7))
    machine.execute(SetQuota(1 << 20))
    assert machine.revision == 6
    return machine


def restored(by: int, machine: KeyValueMachine | None = None) -> KeyValueMachine:
    found = bumped((machine or store()).snapshot(), by)
    again = KeyValueMachine(KvCodec())
    again.restore(found.slices)
    again._store.require_invariants()
    assert (again.revision, len(again)) == (found.revision, found.keys)
    return again


def read(machine: KeyValueMachine, key: bytes, revision: int = 0) -> RangeResult:
    found = machine.execute_query(Range(key, revision=revision))
    assert isinstance(found, RangeResult)
    return found


def test_new_changes_are_newer_than_anything_that_anybody_has_seen() -> None:
    machine = restored(1_000)
    assert machine.revision == 1_006
    [kv] = read(machine, b"a").kvs
    assert (kv.value, kv.create_revision, kv.mod_revision, kv.version) == (b"3", 2, 4, 2)
    machine.execute(Put(b"a", b"5"))
    [kv] = read(machine, b"a").kvs
    assert (kv.create_revision, kv.mod_revision, kv.version) == (2, 1_007, 3)


def test_the_old_revisions_are_gone() -> None:
    machine = restored(1_000)
    assert (machine.revision, machine.compacted_revision) == (1_006, 1_006)
    assert machine.execute_query(Range(b"a", revision=1_005)) == COMPACTED
    assert read(machine, b"a", 1_006).kvs[0].value == b"3"
    assert read(machine, b"b").kvs == ()
    assert machine.changes(1_007, 100) == []
    machine.execute(Put(b"b", b"6"))
    [kv] = read(machine, b"b").kvs
    assert (kv.create_revision, kv.version) == (1_007, 1)


def test_leases_and_the_quota_come_along() -> None:
    machine = restored(10)
    assert machine.quota_bytes == 1 << 20
    lease = machine.lease(7)
    assert lease is not None
    assert (lease.ttl_s, set(lease.keys)) == (60, {b"c"})
    assert [timer.timer for timer in machine.take_timers()] == [7]


def test_every_member_that_restores_it_gets_the_same_bytes() -> None:
    data = list(store().snapshot())
    one, other = [b"".join(bumped(data, 9).slices) for _ in range(2)]
    assert one == other
    first, second = restored(9), restored(9)
    for machine in (first, second):
        machine.execute(Put(b"z", b"1"))
    assert first.running_digest() == second.running_digest()


def test_one_that_was_compacted_before() -> None:
    machine = store()
    machine.execute(Compact(6))
    assert restored(1, machine).compacted_revision == 7


@pytest.mark.parametrize("by", [-1, 0, 1 << 62])
def test_a_rise_that_cannot_be_is_refused(by: int) -> None:
    with pytest.raises(ConfigError, match=f"a revision of 6 cannot be raised by {by}"):
        bumped(store().snapshot(), by)


def test_a_damaged_snapshot_is_refused() -> None:
    with pytest.raises(MachineFailed):
        bumped([b"garbage"], 1)
