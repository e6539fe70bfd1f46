"""The reference agrees with the store on drawn commands, and each of its rules is told once by example."""

import random

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    FUTURE_REVISION,
    Command,
    Compact,
    CompactResult,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)
from paxos_rsm.sim.kv_reference import KvReference, NotModelled


def drawn(rnd: random.Random, revision: int) -> Command:
    key = b"k%d" % rnd.randrange(4)
    end = rnd.choice([b"", b"", ALL_FROM, b"k3"])
    kind = rnd.randrange(6)
    if kind < 2:
        return Put(key, b"v%d" % rnd.randrange(3), prev_kv=rnd.random() < 0.5)
    if kind == 2:
        return DeleteRange(key, end, prev_kv=rnd.random() < 0.5)
    if kind == 3:
        return Range(key, end)
    if kind == 4:
        return Compact(rnd.randint(0, revision + 1))
    target = rnd.choice([CompareTarget.VERSION, CompareTarget.CREATE, CompareTarget.MOD, CompareTarget.VALUE])
    operand = b"v1" if target is CompareTarget.VALUE else rnd.randint(0, revision)
    compare = Compare(key, target, rnd.choice(list(CompareResult)), operand, end)
    inner = Txn((Compare(b"k1", operand=0),), (Put(b"k1", b"inner"),), ())
    success: tuple[Operation, ...] = (Put(b"k0", b"t"), Range(b"k0"), inner, Range(b"k", ALL_FROM))
    return Txn((compare,), success, (DeleteRange(b"k", ALL_FROM), Range(key)))


@pytest.mark.parametrize("seed", range(30))
def test_it_says_what_the_store_says(seed: int) -> None:
    rnd = random.Random(seed)
    store, reference = KeyValueMachine(KvCodec()), KvReference()
    for _ in range(100):
        command = drawn(rnd, store.revision)
        assert reference.execute(command) == store.execute(command)


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


@pytest.mark.parametrize("command", [Put(b"a", lease=1), Range(b"a", revision=1), Txn((), (None,), ())])
def test_what_it_does_not_know_it_says(command: Command) -> None:
    with pytest.raises(NotModelled):
        KvReference().execute(command)
