"""The reference agrees with the store on drawn commands, and each of its rules is told once by example."""

import random

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.base import Position, Timeout
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    FUTURE_REVISION,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    Command,
    Compact,
    CompactResult,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    LeaseGrant,
    LeaseGrantResult,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseRevoke,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    SetQuota,
    Txn,
    TxnResult,
)
from paxos_rsm.sim.kv_reference import TTL_MAX_S, Ended, KvReference, NotModelled


def drawn(rnd: random.Random, revision: int) -> Command:
    key = b"k%d" % rnd.randrange(4)
    end = rnd.choice([b"", b"", ALL_FROM, b"k3"])
    kind = rnd.randrange(9)
    if kind < 2:
        lease = rnd.choice([0, 1, 2])
        return Put(key, b"v%d" % rnd.randrange(3), lease, prev_kv=rnd.random() < 0.5)
    if kind == 2:
        return DeleteRange(key, end, prev_kv=rnd.random() < 0.5)
    if kind == 3:
        return Range(key, end)
    if kind == 4:
        return Compact(rnd.randint(0, revision + 1))
    if kind == 5:
        lease, ttl_s = rnd.randint(1, 2), rnd.choice([0, 3, TTL_MAX_S + 1])
        commands: list[Command] = [
            LeaseGrant(ttl_s, lease),
            LeaseGrant(9, lease),
            LeaseKeepAlive(lease),
            LeaseRevoke(lease),
        ]
        return rnd.choice(commands)
    if kind == 6:
        return SetQuota(rnd.choice([0, 1, 2000, 5000, 9000]))
    target = rnd.choice([CompareTarget.VERSION, CompareTarget.CREATE, CompareTarget.MOD, CompareTarget.VALUE])
    operand = b"v1" if target is CompareTarget.VALUE else rnd.randint(0, revision)
    compare = Compare(key, target, rnd.choice(list(CompareResult)), operand, end)
    inner = Txn((Compare(b"k1", operand=0),), (Put(b"k1", b"inner"),), ())
    success: tuple[Operation, ...] = (
        Put(b"k0", b"t", rnd.choice([0, 0, 1])),
        Range(b"k0"),
        inner,
        Range(b"k", ALL_FROM),
    )
    return Txn((compare,), success, (DeleteRange(b"k", ALL_FROM), Range(key)))


@pytest.mark.parametrize("seed", range(30))
def test_it_says_what_the_store_says(seed: int) -> None:
    rnd = random.Random(seed)
    store, reference = KeyValueMachine(KvCodec()), KvReference()
    for _ in range(100):
        command = drawn(rnd, store.revision)
        assert reference.execute(command) == store.execute(command)
        timeouts = [Timeout(lease, rnd.randint(1, 9)) for lease in (1, 2)]
        if rnd.random() < 0.2:
            reference.time_out(timeouts)
            store.time_out(timeouts, Position(1, 0))
        assert reference.revision == store.revision
        assert sorted(reference.leases) == store.lease_ids()


def test_a_lease_by_example() -> None:
    reference = KvReference()
    assert reference.execute(Put(b"a", lease=7)) == LEASE_NOT_FOUND
    assert reference.execute(LeaseGrant(1, 7)) == LeaseGrantResult(1, 7, 2)
    assert reference.execute(LeaseGrant(1, 7)) == LEASE_EXISTS
    reference.execute(Put(b"b", lease=7))
    reference.execute(Put(b"a", lease=7))
    assert reference.execute(LeaseKeepAlive(7)) == LeaseKeepAliveResult(3, 7, 2)
    assert reference.execute(Txn((), (Put(b"c"), Put(b"d", lease=8)))) == LEASE_NOT_FOUND
    reference.time_out([Timeout(7, 1)])
    assert reference.leases == {7: (2, 2)}
    reference.time_out([Timeout(7, 2), Timeout(8, 3)])
    assert reference.ended == [Ended(7, 4, [b"a", b"b"])]
    assert reference.execute(Range(b"a", ALL_FROM)) == RangeResult(4, (), False, 0)
    assert reference.execute(LeaseKeepAlive(7)) == LeaseKeepAliveResult(4, 7, 0)
    assert reference.execute(LeaseRevoke(7)) == LEASE_NOT_FOUND


def test_revisions_by_example() -> None:
    reference = KvReference()
    assert reference.execute(DeleteRange(b"a")) == DeleteRangeResult(1, 0)
    assert reference.execute(Put(b"a", b"1")) == PutResult(2)
    assert reference.execute(Put(b"a", b"2", prev_kv=True)) == PutResult(3, KeyValue(b"a", 2, 2, 1, b"1"))
    assert reference.execute(DeleteRange(b"a")) == DeleteRangeResult(4, 1)
    assert reference.execute(Put(b"a", b"3")) == PutResult(5)
    new = KeyValue(b"a", 5, 5, 1, b"3")
    assert reference.execute(Range(b"a")) == RangeResult(5, (new,), False, 1)
    absent = Compare(b"b", CompareTarget.VERSION, CompareResult.EQUAL, 0)
    twice = Txn((absent,), (Put(b"b"), Put(b"c")), ())
    assert reference.execute(twice) == TxnResult(6, True, (PutResult(6), PutResult(6)))
    assert reference.execute(twice) == TxnResult(6, False, ())
    assert reference.execute(Compact(7)) == FUTURE_REVISION
    assert reference.execute(Compact(5)) == CompactResult(6)
    assert reference.execute(Compact(5)) == COMPACTED


@pytest.mark.parametrize(
    "command", [Put(b"a", ignore_lease=True), Range(b"a", revision=1), Txn((), (None,), ())]
)
def test_what_it_does_not_know_it_says(command: Command) -> None:
    with pytest.raises(NotModelled):
        KvReference().execute(command)
