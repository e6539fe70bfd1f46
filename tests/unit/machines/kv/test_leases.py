"""The table of leases, and what the store makes of it."""

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.errors import MachineFailed
from paxos_rsm.machines.base import Position, TimedStateMachine, Timeout, Timer
from paxos_rsm.machines.kv.leases import LEASE_TTL_MAX_S, LEASE_TTL_MIN_S, Leases
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    LEASE_TTL_TOO_LARGE,
    LEASE_WITHOUT_ID,
    Compact,
    DeleteRange,
    KvError,
    LeaseGrant,
    LeaseGrantResult,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseRevoke,
    LeaseRevokeResult,
    Put,
    Range,
    RangeResult,
    Txn,
)

AT = Position(9, 0)


@pytest.fixture
def machine() -> KeyValueMachine:
    return KeyValueMachine(KvCodec())


def keys(machine: KeyValueMachine) -> list[bytes]:
    found = machine.execute_query(Range(b"\0", ALL_FROM))
    assert isinstance(found, RangeResult)
    return [kv.key for kv in found.kvs]


def held(machine: KeyValueMachine, lease: int) -> list[bytes]:
    found = machine.lease(lease)
    assert found is not None
    return found.keys


def test_a_lease_is_granted_once_and_with_a_time_of_at_least_two_seconds(machine: KeyValueMachine) -> None:
    assert isinstance(machine, TimedStateMachine)
    assert machine.execute(LeaseGrant(60, 7)) == LeaseGrantResult(1, 7, 60)
    assert machine.execute(LeaseGrant(60, 7)) == LEASE_EXISTS
    assert machine.execute(LeaseGrant(0, 8)) == LeaseGrantResult(1, 8, LEASE_TTL_MIN_S)
    assert machine.execute(LeaseGrant(-5, -9)) == LeaseGrantResult(1, -9, LEASE_TTL_MIN_S)
    assert machine.execute(LeaseGrant(LEASE_TTL_MAX_S, 10)) == LeaseGrantResult(1, 10, LEASE_TTL_MAX_S)
    assert machine.execute(LeaseGrant(LEASE_TTL_MAX_S + 1, 11)) == LEASE_TTL_TOO_LARGE
    assert machine.execute(LeaseGrant(60, 0)) == LEASE_WITHOUT_ID
    assert machine.lease_ids() == [-9, 7, 8, 10]
    assert machine.revision == 1


def test_a_key_goes_with_its_lease_and_all_keys_in_one_revision(machine: KeyValueMachine) -> None:
    machine.execute(LeaseGrant(60, 7))
    for key in (b"b", b"a", b"c"):
        machine.execute(Put(key, b"v", lease=7))
    machine.execute(Put(b"free", b"v"))
    assert held(machine, 7) == [b"a", b"b", b"c"]
    assert machine.execute(LeaseRevoke(7)) == LeaseRevokeResult(6)
    assert keys(machine) == [b"free"]
    assert [(each[0], each[2], each[3]) for each in machine.changes(6, 9)] == [
        (b"a", 6, 0),
        (b"b", 6, 0),
        (b"c", 6, 0),
    ]
    assert machine.execute(LeaseRevoke(7)) == LEASE_NOT_FOUND


def test_a_lease_without_keys_ends_without_a_revision(machine: KeyValueMachine) -> None:
    machine.execute(LeaseGrant(60, 7))
    assert machine.execute(LeaseRevoke(7)) == LeaseRevokeResult(1)


def test_a_key_belongs_to_the_lease_of_its_newest_version(machine: KeyValueMachine) -> None:
    for lease in (7, 8):
        machine.execute(LeaseGrant(60, lease))
    machine.execute(Put(b"k", b"1", lease=7))
    machine.execute(Put(b"k", b"2", lease=8))
    assert (held(machine, 7), held(machine, 8)) == ([], [b"k"])
    machine.execute(Put(b"k", b"3", ignore_lease=True))
    assert held(machine, 8) == [b"k"]
    machine.execute(Put(b"k", b"4"))
    assert held(machine, 8) == []
    machine.execute(Put(b"k", b"5", lease=7))
    machine.execute(DeleteRange(b"k"))
    assert held(machine, 7) == []
    machine.execute(LeaseRevoke(7))
    machine.execute(LeaseRevoke(8))
    assert keys(machine) == []


def test_a_put_with_a_lease_that_is_not_there_is_refused_whole(machine: KeyValueMachine) -> None:
    assert machine.execute(Put(b"k", b"1", lease=7)) == LEASE_NOT_FOUND
    txn = Txn((), (Put(b"a", b"1"), Put(b"k", b"1", lease=7)))
    assert machine.execute(txn) == LEASE_NOT_FOUND
    assert keys(machine) == []


def test_keeping_alive_arms_it_again_and_of_one_that_is_gone_says_zero(machine: KeyValueMachine) -> None:
    machine.execute(LeaseGrant(60, 7))
    assert machine.take_timers() == [Timer(7, 1, 60_000)]
    assert machine.take_timers() == ()
    assert machine.execute(LeaseKeepAlive(7)) == LeaseKeepAliveResult(1, 7, 60)
    assert machine.execute(LeaseKeepAlive(8)) == LeaseKeepAliveResult(1, 8, 0)
    assert machine.take_timers() == [Timer(7, 2, 60_000)]


def test_timers_are_taken_in_the_order_of_their_last_arming_and_none_of_a_lease_that_is_gone(
    machine: KeyValueMachine,
) -> None:
    for lease in (1, 2, 3):
        machine.execute(LeaseGrant(60, lease))
    machine.execute(LeaseKeepAlive(1))
    machine.execute(LeaseRevoke(2))
    assert machine.take_timers() == [Timer(3, 3, 60_000), Timer(1, 4, 60_000)]


def test_a_time_out_ends_the_lease_unless_it_was_renewed(machine: KeyValueMachine) -> None:
    machine.execute(LeaseGrant(60, 7))
    machine.execute(Put(b"k", b"v", lease=7))
    machine.execute(LeaseKeepAlive(7))
    machine.time_out([Timeout(7, 1)], AT)
    assert machine.is_armed(7)
    assert keys(machine) == [b"k"]
    machine.time_out([Timeout(7, 2), Timeout(99, 1)], AT)
    assert not machine.is_armed(7)
    assert keys(machine) == []


def test_a_time_out_of_an_older_lease_of_the_same_id_is_void(machine: KeyValueMachine) -> None:
    machine.execute(LeaseGrant(60, 7))
    machine.execute(LeaseRevoke(7))
    machine.execute(LeaseGrant(60, 7))
    machine.time_out([Timeout(7, 1)], AT)
    assert machine.is_armed(7)


def test_several_time_outs_are_a_revision_each(machine: KeyValueMachine) -> None:
    for lease in (1, 2):
        machine.execute(LeaseGrant(60, lease))
        machine.execute(Put(b"%d" % lease, lease=lease))
    machine.time_out([Timeout(2, 2), Timeout(1, 1)], AT)
    assert [(each[0], each[2]) for each in machine.changes(4, 9)] == [(b"2", 4), (b"1", 5)]


def test_a_restored_machine_has_the_leases_their_keys_and_all_timers(machine: KeyValueMachine) -> None:
    for lease in (7, -8):
        machine.execute(LeaseGrant(60, lease))
    machine.execute(Put(b"old", b"1", lease=7))
    machine.execute(Put(b"k", b"1", lease=7))
    machine.execute(Put(b"gone", b"1", lease=7))
    machine.execute(
        DeleteRange(b"gone")
    )  # by a machine that restores this, too: the log says that it was there
    machine.execute(Compact(3))
    machine.execute(Put(b"k", b"2", lease=-8))
    machine.execute(LeaseKeepAlive(7))
    machine.take_timers()
    copy = KeyValueMachine(KvCodec())
    copy.execute(LeaseGrant(60, 99))
    copy.restore(machine.snapshot())
    assert copy.digest() == machine.digest()
    assert copy.lease_ids() == [-8, 7]
    assert (held(copy, 7), held(copy, -8)) == ([b"old"], [b"k"])
    assert copy.take_timers() == [Timer(-8, 2, 60_000), Timer(7, 3, 60_000)]
    # And goes on as the first does, also with the numbers of its armings.
    for each in (machine, copy):
        each.execute(LeaseKeepAlive(-8))
        each.time_out([Timeout(7, 3)], AT)
    assert copy.digest() == machine.digest()


def test_what_a_lease_does_shows_in_the_digest(machine: KeyValueMachine) -> None:
    seen = {machine.digest()}
    for command in (LeaseGrant(60, 7), LeaseKeepAlive(7), LeaseGrant(61, 8), LeaseRevoke(7)):
        machine.execute(command)
        seen.add(machine.digest())
    assert len(seen) == 5


def test_a_snapshot_whose_key_names_a_lease_that_is_not_there_is_refused(machine: KeyValueMachine) -> None:
    machine.execute(LeaseGrant(60, 7))
    machine.execute(Put(b"k", b"v", lease=7))
    machine._store.leases = Leases()
    with pytest.raises(MachineFailed, match="held by lease 7, which is not there"):
        KeyValueMachine(KvCodec()).restore(machine.snapshot())


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 60, 1)],
        [(8, 60, 1), (7, 60, 1)],
        [(7, 60, 1), (7, 60, 1)],
        [(7, 1, 1)],
        [(7, LEASE_TTL_MAX_S + 1, 1)],
        [(7, 60, 0)],
        [(7, 60, 4)],
    ],
)
def test_rows_that_cannot_be_are_refused(rows: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="lease"):
        Leases.from_view(3, rows)


def test_the_view_of_a_table_makes_the_same_table() -> None:
    table = Leases()
    for lease, ttl_s in ((5, 60), (3, 9), (4, 2)):
        assert not isinstance(table.grant(lease, ttl_s), KvError)
    table.renew(5)
    copy = Leases.from_view(table.armings, [row for _, row in sorted(table.view().items())])
    assert (copy.view(), copy.armings, len(copy)) == (table.view(), 4, 3)
