"""What is refused whatever the state, in etcd's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.machines.kv.check import TXN_DEPTH_MAX, TXN_OPS_MAX, _Intervals, check, is_read_only
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    DUPLICATE_KEY,
    EMPTY_KEY,
    INVALID_COMPARE,
    INVALID_SORT,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    TOO_DEEP,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    Command,
    Compact,
    Compare,
    DeleteRange,
    KvError,
    Operation,
    Put,
    Range,
    Txn,
)


def txn(*success: Operation, failure: tuple[Operation, ...] = ()) -> Txn:
    return Txn((), success, failure)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Range(b""), EMPTY_KEY),
        (Range(b"", b"z"), EMPTY_KEY),
        (Put(b"", b"v"), EMPTY_KEY),
        (DeleteRange(b"", ALL_FROM), EMPTY_KEY),
        (txn(Put(b"")), EMPTY_KEY),
        (txn(failure=(Range(b""),)), EMPTY_KEY),
        (txn(txn(DeleteRange(b""))), EMPTY_KEY),
        (Txn((Compare(b""),)), EMPTY_KEY),
        (Put(b"k", b"v", ignore_value=True), VALUE_PROVIDED),
        (Put(b"k", lease=1, ignore_lease=True), LEASE_PROVIDED),
        (txn(Put(b"k", b"v", ignore_value=True)), VALUE_PROVIDED),
        (Range(b"k", sort_order=3), INVALID_SORT),
        (Range(b"k", sort_target=5), INVALID_SORT),
        (Range(b"k", sort_order=-1), INVALID_SORT),
        (txn(Range(b"k", sort_target=-1)), INVALID_SORT),
        (Txn((Compare(b"k", target=5),)), INVALID_COMPARE),
        (Txn((Compare(b"k", result=4),)), INVALID_COMPARE),
        (Txn((Compare(b"k", result=-1),)), INVALID_COMPARE),
        (txn(None), KEY_NOT_FOUND),  # an operation that is not there: the word is etcd's
    ],
)
def test_malformed_commands(command: Command, error: KvError) -> None:
    assert check(command) == error


@pytest.mark.parametrize(
    "command",
    [
        Range(b"k", b"a"),
        Range(b"\0", ALL_FROM, limit=-1, revision=-1),
        Put(b"k", lease=9),  # whether there is such a lease depends on the state
        Put(b"k", ignore_value=True, ignore_lease=True),
        DeleteRange(b"k"),
        Compact(-1),
        Txn(),
        txn(Range(b"a"), Put(b"a"), failure=(Put(b"a"),)),
    ],
)
def test_commands_that_pass(command: Command) -> None:
    assert check(command) is None


# ---- how many operations ---------------------------------------------------------------------------------------


def puts(count: int, prefix: bytes = b"k") -> tuple[Put, ...]:
    return tuple(Put(prefix + b"%d" % n) for n in range(count))


def test_128_operations_pass_and_129_do_not() -> None:
    most, compares = TXN_OPS_MAX, (Compare(b"k"),) * TXN_OPS_MAX
    assert most == 128
    assert check(Txn(compares, puts(most), puts(most))) is None  # of each kind, not in all
    assert check(Txn((*compares, Compare(b"k")))) == TOO_MANY_OPS
    assert check(txn(*puts(most + 1))) == TOO_MANY_OPS
    assert check(txn(failure=puts(most + 1))) == TOO_MANY_OPS


def test_a_nested_transaction_has_what_is_left_over() -> None:
    assert check(txn(txn(*puts(127)))) is None
    assert check(txn(txn(*puts(128)))) == TOO_MANY_OPS
    assert check(txn(txn(*puts(126)), Put(b"a"))) is None
    assert check(txn(txn(*puts(127)), Put(b"a"))) == TOO_MANY_OPS


def test_transactions_nest_only_so_deep() -> None:
    command = Txn()
    for _ in range(TXN_DEPTH_MAX - 1):
        command = txn(command)
    assert check(command) is None
    assert check(txn(command)) == TOO_DEEP


# ---- one key, twice --------------------------------------------------------------------------------------------

PUT = Put(b"abc")
DEL_KEY = DeleteRange(b"abc")
DEL_RANGE = DeleteRange(b"a", b"b")
DEL_BESIDE = DeleteRange(b"abb", b"abc")


@pytest.mark.parametrize(
    "operations",
    [
        (PUT, PUT),
        (PUT, Put(b"abd"), PUT),
        (PUT, DEL_KEY),
        (DEL_KEY, PUT),
        (DEL_RANGE, PUT),
        (DEL_BESIDE, DEL_RANGE, DeleteRange(b"x"), PUT),
        (PUT, txn(PUT)),
        (txn(PUT), txn(failure=(PUT,))),
        (PUT, txn(DEL_RANGE)),
        (PUT, txn(failure=(DEL_RANGE,))),
        (DEL_RANGE, txn(PUT)),
        (DEL_RANGE, txn(failure=(txn(PUT),))),
        (txn(DEL_RANGE), txn(PUT)),
        (txn(PUT, PUT),),
        (txn(failure=(PUT, DEL_KEY)),),
    ],
)
def test_one_key_is_written_once(operations: tuple[Operation, ...]) -> None:
    assert check(txn(*operations)) == DUPLICATE_KEY
    assert check(txn(failure=operations)) == DUPLICATE_KEY


@pytest.mark.parametrize(
    "operations",
    [
        (PUT, DEL_BESIDE),
        (PUT, DeleteRange(b"abc\0")),
        (DEL_KEY, DEL_RANGE),
        (PUT, Range(b"abc")),
        (txn(PUT, failure=(PUT,)),),  # only one of the two is taken
        (txn(PUT), txn(DEL_RANGE)),  # etcd's rule, in this order only
        (DeleteRange(b"a", ALL_FROM), PUT),  # etcd's rule: deletes without an end are not seen
        (DeleteRange(b"z", b"a"), PUT),  # deletes nothing
    ],
)
def test_what_is_not_a_duplicate(operations: tuple[Operation, ...]) -> None:
    assert check(txn(*operations)) is None


KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(byte % 4 for byte in key))


@given(st.lists(st.tuples(KEYS, KEYS)), st.lists(st.tuples(KEYS, KEYS)), KEYS)
def test_joined_intervals_hold_what_each_of_them_holds(
    one: list[tuple[bytes, bytes]], other: list[tuple[bytes, bytes]], key: bytes
) -> None:
    joined, added = _Intervals(), _Intervals()
    for start, end in one:
        joined.add(start, end)
    for start, end in other:
        added.add(start, end)
    joined.add_all(added)
    assert (key in joined) == any(start <= key < end for start, end in one + other)


# ---- queries ---------------------------------------------------------------------------------------------------


def test_what_can_be_asked_as_a_query() -> None:
    assert is_read_only(Range(b"a"))
    assert is_read_only(Txn())
    assert is_read_only(txn(Range(b"a"), txn(failure=(Range(b"b"),))))
    assert not is_read_only(PUT)
    assert not is_read_only(DEL_KEY)
    assert not is_read_only(Compact(1))
    assert not is_read_only(txn(Range(b"a"), failure=(PUT,)))
    assert not is_read_only(txn(txn(failure=(DEL_KEY,))))
    assert not is_read_only(txn(None))
