"""Transactions: conditions, branches, one revision, all or nothing."""

import pytest

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.kv.check import check
from paxos_rsm.machines.kv.store import MultiVersionStore
from paxos_rsm.machines.kv.txn import execute_txn
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    FUTURE_REVISION,
    KEY_NOT_FOUND,
    LEASE_NOT_FOUND,
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    KvError,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)

EQUAL, GREATER, LESS, NOT_EQUAL = CompareResult
VERSION, CREATE, MOD, VALUE, LEASE = CompareTarget


@pytest.fixture
def store() -> MultiVersionStore:
    """a = 1 (created at 2, written at 2); b = 2 (created at 3, written at 4)."""
    store = MultiVersionStore()
    for key, value in [(b"a", b"1"), (b"b", b"-"), (b"b", b"2")]:
        store.put(Put(key, value))
    return store


def run(store: MultiVersionStore, txn: Txn) -> TxnResult:
    result = execute(store, txn)
    if not isinstance(result, TxnResult):
        raise TypeError(result)
    return result


def execute(store: MultiVersionStore, txn: Txn) -> TxnResult | KvError:
    """Only what `check` passes may be executed."""
    assert check(txn) is None
    result = execute_txn(store, txn)
    store.require_invariants()
    return result


def txn(*success: Operation) -> Txn:
    return Txn((), success)


# ---- conditions ------------------------------------------------------------------------------------------------


def holds(store: MultiVersionStore, *compares: Compare) -> bool:
    return run(store, Txn(compares)).succeeded


@pytest.mark.parametrize(
    ("target", "low", "same", "high"),
    [
        (VERSION, 1, 2, 3),
        (CREATE, 2, 3, 4),
        (MOD, 3, 4, 5),
        (VALUE, b"1z", b"2", b"2\0"),
        (LEASE, -1, 0, 1),
    ],
)
def test_every_target_and_every_result(
    store: MultiVersionStore, target: CompareTarget, low: int | bytes, same: int | bytes, high: int | bytes
) -> None:
    truth = {
        operand: {result for result in CompareResult if holds(store, Compare(b"b", target, result, operand))}
        for operand in (low, same, high)
    }
    assert truth == {low: {GREATER, NOT_EQUAL}, same: {EQUAL}, high: {LESS, NOT_EQUAL}}


@pytest.mark.parametrize("target", [VERSION, CREATE, MOD, LEASE])
def test_a_missing_key_counts_as_zero(store: MultiVersionStore, target: CompareTarget) -> None:
    assert holds(store, Compare(b"none", target, EQUAL, 0))
    assert holds(store, Compare(b"none", target, LESS, 1))
    assert not holds(store, Compare(b"none", target, GREATER, 0))
    assert not holds(store, Compare(b"none", target, NOT_EQUAL, 0))


@pytest.mark.parametrize("result", CompareResult)
@pytest.mark.parametrize("operand", [b"", b"x"])
def test_the_value_of_a_missing_key_compares_with_nothing(
    store: MultiVersionStore, result: CompareResult, operand: bytes
) -> None:
    assert not holds(store, Compare(b"none", VALUE, result, operand))
    assert not holds(store, Compare(b"x", VALUE, result, operand, ALL_FROM))


def test_a_condition_on_a_range_holds_for_every_key_of_it(store: MultiVersionStore) -> None:
    assert holds(store, Compare(b"a", MOD, LESS, 5, b"c"))
    assert not holds(store, Compare(b"a", MOD, LESS, 4, b"c"))
    assert holds(store, Compare(b"a", VERSION, GREATER, 0, ALL_FROM))
    assert holds(store, Compare(b"c", VERSION, EQUAL, 0, b"d"))  # nothing there: as one missing key
    assert not holds(store, Compare(b"c", VERSION, GREATER, 0, b"d"))


def test_all_conditions_must_hold_and_none_is_true(store: MultiVersionStore) -> None:
    good, bad = Compare(b"a", VALUE, EQUAL, b"1"), Compare(b"a", VALUE, EQUAL, b"2")
    assert holds(store)
    assert holds(store, good, good)
    assert not holds(store, good, bad)


def test_compare_and_swap(store: MultiVersionStore) -> None:
    swap = Txn((Compare(b"a", VALUE, EQUAL, b"1"),), (Put(b"a", b"2"),), (Range(b"a"),))
    assert run(store, swap) == TxnResult(5, True, (PutResult(5),))
    assert run(store, swap) == TxnResult(
        5, False, (RangeResult(5, (KeyValue(b"a", 2, 5, 2, b"2"),), False, 1),)
    )


# ---- one revision ----------------------------------------------------------------------------------------------


def test_all_writes_of_a_transaction_have_one_revision(store: MultiVersionStore) -> None:
    result = run(store, txn(Put(b"x"), Put(b"y"), DeleteRange(b"a"), txn(Put(b"z"))))
    assert result == TxnResult(
        5, True, (PutResult(5), PutResult(5), DeleteRangeResult(5, 1), TxnResult(5, True, (PutResult(5),)))
    )
    assert store.revision == 5
    assert {record[2] for record in store.scan(b"x", ALL_FROM)} == {5}


def test_a_transaction_that_changes_nothing_makes_no_revision(store: MultiVersionStore) -> None:
    assert run(store, txn()) == TxnResult(4, True, ())
    assert run(store, txn(Range(b"a"), DeleteRange(b"none"))).revision == 4
    assert run(store, txn(txn(Range(b"a")))).revision == 4
    assert store.revision == 4


def test_operations_see_what_those_before_them_did(store: MultiVersionStore) -> None:
    result = run(
        store, txn(Range(b"a"), Put(b"x", b"9"), Range(b"x"), DeleteRange(b"a"), Range(b"a"), Range(b"b"))
    )
    assert result.responses == (
        RangeResult(4, (KeyValue(b"a", 2, 2, 1, b"1"),), False, 1),
        PutResult(5),
        RangeResult(5, (KeyValue(b"x", 5, 5, 1, b"9"),), False, 1),
        DeleteRangeResult(5, 1),
        RangeResult(5, (), False, 0),
        RangeResult(5, (KeyValue(b"b", 3, 4, 2, b"2"),), False, 1),
    )


def test_a_delete_after_the_first_write_has_the_new_revision_also_where_it_deletes_nothing(
    store: MultiVersionStore,
) -> None:
    result = run(store, txn(DeleteRange(b"none"), Put(b"x"), DeleteRange(b"none")))
    assert result.responses == (DeleteRangeResult(4, 0), PutResult(5), DeleteRangeResult(5, 0))


def test_nested_conditions_are_those_before_the_transaction(store: MultiVersionStore) -> None:
    """As in etcd: the put of x does not show in the condition on it, but does in the range."""
    inner = Txn((Compare(b"x", VERSION, EQUAL, 0),), (Range(b"x"),), (Put(b"never"),))
    result = run(store, txn(Put(b"x", b"9"), inner))
    assert result.responses[1] == TxnResult(
        5, True, (RangeResult(5, (KeyValue(b"x", 5, 5, 1, b"9"),), False, 1),)
    )


def test_reads_at_a_revision_inside_a_transaction(store: MultiVersionStore) -> None:
    result = run(store, txn(Put(b"a", b"new"), Range(b"a", revision=4), Range(b"a", revision=-1)))
    old, new = result.responses[1:]
    assert isinstance(old, RangeResult)
    assert isinstance(new, RangeResult)
    assert old == RangeResult(5, (KeyValue(b"a", 2, 2, 1, b"1"),), False, 1)
    assert new.kvs == (KeyValue(b"a", 2, 5, 2, b"new"),)


def test_one_transaction_may_delete_a_key_and_write_it_again_where_etcd_lets_it(
    store: MultiVersionStore,
) -> None:
    run(store, txn(DeleteRange(b"a", ALL_FROM), Put(b"b", b"again")))
    assert list(store.scan(b"\0", ALL_FROM)) == [(b"b", 5, 5, 1, b"again", 0)]
    run(store, txn(txn(Put(b"b", b"and")), txn(DeleteRange(b"b"))))
    assert list(store.scan(b"\0", ALL_FROM)) == []
    # The past has the last of the two.
    old = store.range(Range(b"b", revision=5))
    assert isinstance(old, RangeResult)
    assert [kv.value for kv in old.kvs] == [b"again"]
    assert store.range(Range(b"b", revision=6)) == RangeResult(6, (), False, 0)


# ---- all or nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (Range(b"a", revision=5), FUTURE_REVISION),  # the one that this transaction would make
        (Range(b"a", revision=2), COMPACTED),
        (Range(b"a", revision=-1), COMPACTED),  # in a transaction it is compared as it is
        # All puts are looked at before all ranges; and of a put, the missing key before the missing lease.
        (txn(Range(b"a", revision=2), Put(b"b", lease=9)), LEASE_NOT_FOUND),
        (Put(b"none", lease=9, ignore_value=True), KEY_NOT_FOUND),
        (Put(b"b", lease=9), LEASE_NOT_FOUND),
        (Put(b"none", ignore_value=True), KEY_NOT_FOUND),
        (Put(b"none", ignore_lease=True), KEY_NOT_FOUND),
        (txn(Put(b"none", ignore_value=True)), KEY_NOT_FOUND),
        (txn(DeleteRange(b"b", ALL_FROM), Put(b"b", ignore_value=True)), KEY_NOT_FOUND),
        (
            txn(DeleteRange(b"z", ALL_FROM), DeleteRange(b"a", ALL_FROM), Put(b"b", ignore_lease=True)),
            KEY_NOT_FOUND,
        ),
    ],
)
def test_a_transaction_that_is_refused_changes_nothing(
    store: MultiVersionStore, operation: Operation, error: KvError
) -> None:
    store.compact(Compact(3))
    before = list(store.scan(b"\0", ALL_FROM))
    assert execute(store, txn(Put(b"a", b"changed"), operation)) == error
    assert list(store.scan(b"\0", ALL_FROM)) == before
    assert store.revision == 4


def test_a_negative_revision_is_the_newest_as_long_as_nothing_is_compacted(store: MultiVersionStore) -> None:
    assert run(store, txn(Range(b"a", revision=-1))).responses == run(store, txn(Range(b"a"))).responses


def test_only_the_branch_that_is_taken_can_be_refused(store: MultiVersionStore) -> None:
    fine = Txn((Compare(b"a", VERSION, EQUAL, 7),), (Put(b"none", ignore_value=True),), (Put(b"c"),))
    assert run(store, fine).revision == 5
    assert run(store, txn(Put(b"d"), Txn((), (), (Range(b"a", revision=99),)))).revision == 6


def test_a_put_below_a_delete_without_an_end_keeps_its_value(store: MultiVersionStore) -> None:
    run(store, txn(DeleteRange(b"b", ALL_FROM), Put(b"a", ignore_value=True)))
    assert store.get(b"a") == (b"a", 2, 5, 2, b"1", 0)


def test_what_was_not_checked_is_a_bug(store: MultiVersionStore) -> None:
    with pytest.raises(InvariantViolation):
        execute_txn(store, txn(None))
    with pytest.raises(InvariantViolation):
        execute_txn(store, txn(DeleteRange(b"a"), Put(b"a", ignore_value=True)))
