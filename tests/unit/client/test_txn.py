from typing import Any

import pytest

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.txn import Compare, Op, TxnBuilder, TxnResult, swap_command, txn_command, txn_result
from paxos_rsm.client.types import GetResult, KeyValue, PutResult, RangeResult
from paxos_rsm.errors import ClientError, InvalidArgument

HEADER = pb.ResponseHeader(revision=42)
STORED = pb.KeyValue(key=b"k", value=b"v", version=3, create_revision=5, mod_revision=9)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (
            Compare.value("k", "==", "v"),
            pb.Compare(key=b"k", result=pb.Compare.EQUAL, target=pb.Compare.VALUE, value=b"v"),
        ),
        (
            Compare.version("k", ">", 3),
            pb.Compare(key=b"k", result=pb.Compare.GREATER, target=pb.Compare.VERSION, version=3),
        ),
        (
            Compare.create_revision("k", "<", 3),
            pb.Compare(key=b"k", result=pb.Compare.LESS, target=pb.Compare.CREATE, create_revision=3),
        ),
        (
            Compare.mod_revision("k", "!=", 3),
            pb.Compare(key=b"k", result=pb.Compare.NOT_EQUAL, target=pb.Compare.MOD, mod_revision=3),
        ),
        (
            Compare.exists("k"),
            pb.Compare(key=b"k", result=pb.Compare.GREATER, target=pb.Compare.CREATE, create_revision=0),
        ),
        (
            Compare.missing("k"),
            pb.Compare(key=b"k", result=pb.Compare.EQUAL, target=pb.Compare.CREATE, create_revision=0),
        ),
    ],
)
def test_conditions(compare: Compare, message: pb.Compare) -> None:
    assert compare.message == message


@pytest.mark.parametrize("relation", ["=", "<=", "", None, []])
def test_relations_that_are_none(relation: Any) -> None:
    with pytest.raises(InvalidArgument, match="==, !=, >, <"):
        Compare.value("k", relation, "v")


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 1.0, "1", None, True])
def test_numbers_that_are_none(number: Any) -> None:
    with pytest.raises(InvalidArgument, match="64 bits"):
        Compare.version("k", "==", number)


def test_operations() -> None:
    assert Op.put("k", "v", prev_kv=True).message.request_put == pb.PutRequest(
        key=b"k", value=b"v", prev_kv=True
    )
    assert Op.get("k").message.request_range == pb.RangeRequest(key=b"k")
    found = Op.range(prefix="k", limit=2, keys_only=True).message.request_range
    assert found == pb.RangeRequest(key=b"k", range_end=b"l", limit=2, keys_only=True)
    assert Op.delete("a", "c").message.request_delete_range == pb.DeleteRangeRequest(key=b"a", range_end=b"c")
    for incomplete in (Op.delete, Op.range):
        with pytest.raises(InvalidArgument, match="prefix=''"):
            incomplete()


def test_a_transaction_that_only_reads_is_told() -> None:
    assert txn_command([Compare.exists("a")], [Op.get("a")], [Op.range(prefix="")])[1]
    assert txn_command([], [], [])[1]
    assert not txn_command([], [Op.get("a")], [Op.put("a", "b")])[1]
    assert not txn_command([], [Op.delete("a")], [])[1]


def test_the_command_has_it_all_in_order() -> None:
    conditions = [Compare.exists("a"), Compare.missing("b")]
    success, failure = [Op.put("a", "1"), Op.delete("b")], [Op.get("a")]
    txn = pb.KvCommand.FromString(txn_command(conditions, success, failure)[0]).txn
    assert list(txn.compare) == [each.message for each in conditions]
    assert list(txn.success) == [each.message for each in success]
    assert list(txn.failure) == [each.message for each in failure]


@pytest.mark.parametrize(
    ("compares", "success"), [([Op.get("a")], []), ([], [Compare.exists("a")]), (["a"], []), ([True], [])]
)
def test_what_is_no_condition_or_operation_is_refused(compares: Any, success: Any) -> None:
    with pytest.raises(InvalidArgument, match="Compare"):
        txn_command(compares, success, [])


def test_swap() -> None:
    txn = pb.KvCommand.FromString(swap_command("k", "old", "new")).txn
    assert list(txn.compare) == [Compare.value("k", "==", "old").message]
    assert list(txn.success) == [Op.put("k", "new").message]
    txn = pb.KvCommand.FromString(swap_command("k", None, "new")).txn
    assert list(txn.compare) == [Compare.missing("k").message]


def answer(succeeded: bool, *responses: pb.ResponseOp) -> bytes:
    txn = pb.TxnResponse(header=HEADER, succeeded=succeeded, responses=responses)
    return pb.KvResult(txn=txn).SerializeToString()


def test_the_result_follows_the_branch_that_was_taken() -> None:
    success = [Op.put("a", "1"), Op.get("k"), Op.get("x"), Op.range(prefix=""), Op.delete("a")]
    found = pb.ResponseOp(response_range=pb.RangeResponse(header=HEADER, kvs=[STORED], count=1))
    raw = answer(
        True,
        pb.ResponseOp(response_put=pb.PutResponse(header=HEADER, prev_kv=STORED)),
        found,
        pb.ResponseOp(response_range=pb.RangeResponse(header=HEADER)),
        found,
        pb.ResponseOp(response_delete_range=pb.DeleteRangeResponse(deleted=2)),
    )
    result = txn_result(raw, success, [])
    kv = KeyValue(b"k", b"v", 3, 5, 9)
    assert result
    assert result.succeeded
    assert result.revision == 42
    assert result.responses == (
        PutResult(42, kv),
        GetResult(b"k", b"v", 3, 5, 9, 42),
        GetResult(b"x", None, 0, 0, 0, 42),
        RangeResult((kv,), 1, False, 42),
        2,
    )
    other = txn_result(answer(False, found), success, [Op.get("k")])
    assert not other
    assert isinstance(other.responses[0], GetResult)


def test_an_answer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ClientError, match="0 operations of a transaction with 1"):
        txn_result(answer(True), [Op.get("k")], [])
    with pytest.raises(ClientError, match="does not know"):
        txn_result(answer(True, pb.ResponseOp()), [Op.get("k")], [])


def test_conditions_on_ranges_and_leases() -> None:
    assert Compare.lease("k", "==", 7).message == pb.Compare(
        target=pb.Compare.LEASE, result=pb.Compare.EQUAL, key=b"k", lease=7
    )
    one = Compare.mod_revision("k", "<", 9)
    assert one.up_to("m").message.range_end == b"m"
    assert one.for_prefix().message.range_end == b"l"
    assert one.message.range_end == b"", "it has not changed itself"
    with pytest.raises(InvalidArgument, match="a lease is"):
        Compare.lease("k", "==", -1)


def test_every_field_of_the_operations() -> None:
    put = Op.put("k", lease=7, ignore_value=True, ignore_lease=True).message.request_put
    assert put == pb.PutRequest(key=b"k", lease=7, ignore_value=True, ignore_lease=True)
    found = Op.range(
        prefix="k", min_mod_revision=1, max_mod_revision=2, min_create_revision=3, max_create_revision=4
    ).message.request_range
    assert (found.min_mod_revision, found.max_mod_revision) == (1, 2)
    assert (found.min_create_revision, found.max_create_revision) == (3, 4)
    assert Op.delete("k", prev_kv=True).message.request_delete_range.prev_kv


def test_a_transaction_within_a_transaction() -> None:
    inner = Op.txn([Compare.exists("a")], [Op.get("a")], [Op.range(prefix="")])
    assert txn_command([], [inner], [])[1], "it only reads"
    writing = Op.txn([], [], [Op.put("a", "1")])
    assert not txn_command([], [inner, writing], [])[1]
    sent = pb.KvCommand.FromString(txn_command([], [inner], [])[0]).txn.success[0].request_txn
    assert list(sent.compare) == [Compare.exists("a").message]
    answered = pb.TxnResponse(
        header=HEADER,
        succeeded=True,
        responses=[pb.ResponseOp(response_range=pb.RangeResponse(header=HEADER, kvs=[STORED], count=1))],
    )
    (result,) = txn_result(answer(True, pb.ResponseOp(response_txn=answered)), [inner], []).responses
    assert isinstance(result, TxnResult)
    assert result
    assert isinstance(result.responses[0], GetResult)


def test_the_builder_puts_together_what_it_is_given() -> None:
    seen: list[Any] = []

    def run(*given: Any) -> str:
        seen.append(given)
        return "done"

    builder = TxnBuilder(run)
    one, two = Compare.exists("a"), Compare.exists("b")
    put, get, delete = Op.put("a", "1"), Op.get("a"), Op.delete("b")
    builder.when(one).when(two).then(put, delete).otherwise(get)
    assert builder.commit(timeout_s=3) == "done"
    assert seen == [([one, two], [put, delete], [get], 3)]
