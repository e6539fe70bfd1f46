import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.codec.kv import (
    KvCodec,
    Request,
    command_from_request,
    decode_command,
    encode_command,
    encode_result,
    request_from_pb,
    response_from_bytes,
    result_to_pb,
)
from paxos_rsm.machines.kv.check import TXN_OPS_MAX, check
from paxos_rsm.machines.kv.machine import CommandCodec
from paxos_rsm.machines.kv.types import (
    BAD_COMMAND,
    INVALID_COMPARE,
    INVALID_SORT,
    KEY_NOT_FOUND,
    TOO_DEEP,
    TOO_MANY_OPS,
    Command,
    Compact,
    CompactResult,
    Compare,
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
    Result,
    Txn,
    TxnResult,
)

I64 = st.integers(-(2**63), 2**63 - 1)
# Around the lengths at which a varint grows: 127/128 and 16,383/16,384 bytes.
BYTES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"x" * size for size in (100, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 200)]
    ),
    st.sampled_from([b"y" * size for size in (16_250, 16_378, 16_383, 16_384, 20_000)]),
)
SMALL = st.binary(max_size=5)

PUTS = st.builds(Put, SMALL, SMALL, I64, st.booleans(), st.booleans(), st.booleans())
PLAIN_PUTS = st.tuples(BYTES, BYTES).map(lambda pair: Put(*pair))
RANGES = st.builds(
    Range,
    SMALL,
    SMALL,
    I64,
    I64,
    st.integers(0, 2),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    I64,
    I64,
    I64,
    I64,
)
PLAIN_RANGES = BYTES.map(Range)
DELETES = st.builds(DeleteRange, SMALL, SMALL, st.booleans())
COMPARES = st.one_of(
    st.builds(Compare, SMALL, st.just(int(CompareTarget.VALUE)), st.integers(0, 3), SMALL, SMALL),
    st.builds(Compare, SMALL, st.sampled_from([0, 1, 2, 4]), st.integers(0, 3), I64, SMALL),
)


def transactions(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Txn]:
    branches = st.lists(operations, max_size=3).map(tuple)
    return st.builds(Txn, st.lists(COMPARES, max_size=2).map(tuple), branches, branches)


OPERATIONS: st.SearchStrategy[Operation] = st.recursive(
    st.one_of(PUTS, RANGES, DELETES, st.none()), transactions, max_leaves=6
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    PUTS,
    PLAIN_PUTS,
    RANGES,
    PLAIN_RANGES,
    DELETES,
    transactions(OPERATIONS),
    st.builds(Compact, I64, st.booleans()),
)


def by_protobuf(data: bytes) -> Command | KvError:
    """What `decode_command` would give without its ways around protobuf."""
    try:
        message = pb.KvCommand.FromString(data)
    except Exception:
        return BAD_COMMAND
    kind = message.WhichOneof("request")
    return request_from_pb(getattr(message, kind)) if kind else BAD_COMMAND


# ---- commands --------------------------------------------------------------------------------------------------


@given(COMMANDS)
def test_what_is_encoded_decodes_to_the_same(command: Command) -> None:
    decoded = decode_command(encode_command(command))
    assert decoded == command
    assert type(decoded) is type(command)


# Commands whose lengths are of one byte and of two, and as long as they can be before they are of one more.
NEAR = [
    *(Put(b"k" * key, b"v" * value) for key in (1, 2, 127, 128) for value in (0, 1, 2, 118, 127, 128, 200)),
    *(Put(b"key", b"v" * value) for value in (119, 120, 121, 122, 16_370, 16_383, 16_384)),
    *(Range(b"k" * key) for key in (0, 1, 2, 60, *range(118, 132))),
]


@pytest.mark.parametrize(
    "command", NEAR, ids=lambda each: f"{type(each).__name__}-{len(each.key)}-{len(each[1])}"
)
def test_the_short_ways_agree_with_protobuf(command: Command) -> None:
    """On what they are made for, and where any byte but those of the key and the value is another."""
    data = encode_command(command)
    key_at = data.find(b"k")
    inside = {
        n
        for n, byte in enumerate(data)
        if byte in b"kv" and n not in (key_at, data.find(b"v"), len(data) - 1)
    }
    assert decode_command(data) == by_protobuf(data) == command
    for at in range(len(data) + 1):
        if at in inside:
            continue
        for byte in (*range(0x16), 0x7E, 0x7F, 0x80, 0x81, 0x82, 0xFE, 0xFF):
            changed = data[:at] + bytes((byte,)) + data[at + 1 :]
            assert decode_command(changed) == by_protobuf(changed), changed
            longer = data[:at] + bytes((byte,)) + data[at:]
            assert decode_command(longer) == by_protobuf(longer), longer
        assert decode_command(data[:at]) == by_protobuf(data[:at])


def test_requests_that_are_cut_while_the_command_around_them_is_whole() -> None:
    for value in (b"", b"v", b"v" * 0x80):
        body = pb.PutRequest(key=b"k", value=value).SerializeToString()
        for end in range(len(body) + 1):
            for last in (b"", b"\x80", b"\x12", b"\x12\x80", b"\x12\x80\x00"):
                cut = body[:end] + last
                data = b"\x12" + bytes((len(cut),) if len(cut) < 0x80 else (len(cut) - 0x80 | 0x80, 1)) + cut
                assert decode_command(data) == by_protobuf(data), data


def test_lengths_that_protobuf_reads_otherwise() -> None:
    """One byte of 0x80 or more is not a length by itself, though it may look like the right one."""
    for size in range(0x70, 0x110):
        for tags in (b"\x0a\x0a", b"\x12\x0a"):
            data = bytes((tags[0], size + 2 & 0xFF, tags[1], size & 0xFF)) + b"\x01" * size
            assert decode_command(data) == by_protobuf(data)
            assert decode_command(data + b"\x12\x80") == by_protobuf(data + b"\x12\x80")
    for key_bytes in range(0x70, 0x110):
        body = bytes((0x0A, key_bytes & 0xFF)) + b"k" * key_bytes + b"\x12\x01v"
        data = bytes((0x12, len(body) & 0x7F | 0x80, len(body) >> 7)) + body
        assert decode_command(data) == by_protobuf(data)


@given(
    st.one_of(
        st.binary(max_size=12),
        # Made of the bytes that the short ways look at.
        st.lists(st.sampled_from(b"\x0a\x12\x00\x01\x02\x03\x04\x05\x06\x07\x80\x81ab"), max_size=14).map(
            bytes
        ),
    )
)
def test_arbitrary_bytes_decode_as_protobuf_says_and_never_raise(data: bytes) -> None:
    assert decode_command(data) == by_protobuf(data)


def test_the_common_commands_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    puts = [encode_command(Put(b"k" * 100, bytes(size))) for size in (1, 20, 200, 16_000)]
    ranges = [encode_command(Range(b"k" * 100))]

    class Absent:
        class KvCommand:
            @staticmethod
            def FromString(data: bytes) -> object:
                raise LookupError("protobuf was asked")

    monkeypatch.setattr("paxos_rsm.codec.kv.pb", Absent)
    for data in puts + ranges:
        assert not isinstance(decode_command(data), KvError)
    with pytest.raises(LookupError):
        decode_command(b"\x1a\x00")


def test_garbage_and_what_a_later_version_may_say() -> None:
    assert decode_command(b"") == BAD_COMMAND
    assert decode_command(b"\xff" * 9) == BAD_COMMAND
    assert decode_command(b"\x52\x02\x0a\x00") == BAD_COMMAND  # a tenth kind of request
    later_op = pb.KvCommand(txn=pb.TxnRequest(success=[pb.RequestOp()])).SerializeToString()
    assert decode_command(later_op) == Txn((), (None,))
    assert check(Txn((), (None,))) == KEY_NOT_FOUND


def test_numbers_that_this_version_does_not_know_reach_the_check() -> None:
    def decoded(request: Request) -> Command:
        command = decode_command(command_from_request(request))
        assert not isinstance(command, KvError)
        return command

    sort = pb.RangeRequest(key=b"k", sort_target=pb.RangeRequest.SortTarget.ValueType(77))
    assert check(decoded(sort)) == INVALID_SORT
    for compare in (
        pb.Compare(key=b"k", target=pb.Compare.CompareTarget.ValueType(9)),
        pb.Compare(key=b"k", target=pb.Compare.CompareTarget.ValueType(-1)),
        pb.Compare(key=b"k", result=pb.Compare.CompareResult.ValueType(4)),
    ):
        assert check(decoded(pb.TxnRequest(compare=[compare]))) == INVALID_COMPARE


def test_an_operand_of_another_target_counts_as_zero() -> None:
    compare = pb.Compare(key=b"k", target=pb.Compare.VALUE, version=5)
    assert request_from_pb(pb.TxnRequest(compare=[compare])) == Txn((Compare(b"k", 3, 0, b""),))
    compare = pb.Compare(key=b"k", target=pb.Compare.MOD, value=b"x")
    assert request_from_pb(pb.TxnRequest(compare=[compare])) == Txn((Compare(b"k", 2, 0, 0),))


def test_transactions_nested_beyond_what_protobuf_takes_are_bad_and_what_check_takes_can_be_encoded() -> None:
    request = pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))])
    result: TxnResult = TxnResult(2, True, (RangeResult(2, (KeyValue(b"k", 2, 2, 1, b"v"),), False, 1),))
    seen = set()
    for _ in range(45):
        command = decode_command(command_from_request(request))
        error = command if isinstance(command, KvError) else check(command)
        seen.add(error)
        if error is None:
            assert response_from_bytes(encode_result(result)) == result_to_pb(result)
        request = pb.TxnRequest(success=[pb.RequestOp(request_txn=request)])
        result = TxnResult(2, True, (result,))
    assert seen == {None, TOO_DEEP}
    # What protobuf itself cannot take apart any more is no command.
    data = command_from_request(request)[1:]
    for _ in range(50):
        data = encode_nested(data)
    assert decode_command(b"\x22" + data) == BAD_COMMAND


def encode_nested(txn: bytes) -> bytes:
    """A length and a TxnRequest, within another one: below what protobuf lets a message be built of."""
    op = pb.RequestOp.DESCRIPTOR.fields_by_name["request_txn"].number << 3 | 2
    success = pb.TxnRequest.DESCRIPTOR.fields_by_name["success"].number << 3 | 2
    for tag in (op, success):
        body = bytes((tag,)) + txn
        txn = bytes((len(body) & 0x7F | 0x80, len(body) >> 7)) + body  # of two bytes, also where one would do
    return txn


def test_requests_are_wrapped_for_the_log_as_they_are() -> None:
    requests: list[Request] = [
        pb.RangeRequest(key=b"k"),
        pb.PutRequest(key=b"k", value=b"v"),
        pb.DeleteRangeRequest(key=b"k"),
        pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k"))]),
        pb.CompactionRequest(revision=3, physical=True),
    ]
    for request in requests:
        assert decode_command(command_from_request(request)) == request_from_pb(request)


def test_a_compaction_cannot_be_encoded_into_a_transaction() -> None:
    with pytest.raises(ValueError):
        encode_command(Txn((), (Compact(1),)))  # type: ignore[arg-type]


# ---- results ---------------------------------------------------------------------------------------------------

KV = KeyValue(b"k", 2, 3, 2, b"v", 7)
HEADER = pb.ResponseHeader(revision=9)
KV_PB = pb.KeyValue(key=b"k", create_revision=2, mod_revision=3, version=2, value=b"v", lease=7)


@pytest.mark.parametrize(
    ("result", "field", "response"),
    [
        (PutResult(9), "put", pb.PutResponse(header=HEADER)),
        (PutResult(9, KV), "put", pb.PutResponse(header=HEADER, prev_kv=KV_PB)),
        (RangeResult(9, (), False, 0), "range", pb.RangeResponse(header=HEADER)),
        (
            RangeResult(9, (KV, KV._replace(lease=0)), True, 5),
            "range",
            pb.RangeResponse(
                header=HEADER,
                kvs=[
                    KV_PB,
                    pb.KeyValue(key=b"k", create_revision=2, mod_revision=3, version=2, value=b"v"),
                ],
                more=True,
                count=5,
            ),
        ),
        (
            DeleteRangeResult(9, 1, (KV,)),
            "delete_range",
            pb.DeleteRangeResponse(header=HEADER, deleted=1, prev_kvs=[KV_PB]),
        ),
        (
            TxnResult(
                9,
                True,
                (
                    PutResult(9),
                    RangeResult(9, (KV,), False, 1),
                    DeleteRangeResult(9, 0),
                    TxnResult(9, False, ()),
                ),
            ),
            "txn",
            pb.TxnResponse(
                header=HEADER,
                succeeded=True,
                responses=[
                    pb.ResponseOp(response_put=pb.PutResponse(header=HEADER)),
                    pb.ResponseOp(response_range=pb.RangeResponse(header=HEADER, kvs=[KV_PB], count=1)),
                    pb.ResponseOp(response_delete_range=pb.DeleteRangeResponse(header=HEADER)),
                    pb.ResponseOp(response_txn=pb.TxnResponse(header=pb.ResponseHeader())),  # as etcd has it
                ],
            ),
        ),
        (CompactResult(9), "compact", pb.CompactionResponse(header=HEADER)),
    ],
)
def test_results_as_etcds_responses(result: Result, field: str, response: object) -> None:
    assert result_to_pb(result) == response
    message = pb.KvResult.FromString(encode_result(result))
    assert message.WhichOneof("response") == field
    assert getattr(message, field) == response
    # One that was kept in a snapshot is served equally.
    assert result_to_pb(encode_result(result)) == response


def test_errors_keep_code_and_words() -> None:
    error = KvError(11, "etcdserver: mvcc: required revision has been compacted")
    assert pb.KvResult.FromString(encode_result(error)).error == pb.KvError(code=11, message=error.message)
    assert result_to_pb(error) == error
    assert result_to_pb(encode_result(error)) == error


def test_the_server_fills_in_the_rest_of_the_header() -> None:
    response = result_to_pb(PutResult(9))
    assert not isinstance(response, KvError)
    assert response.header == pb.ResponseHeader(revision=9)
    response.header.member_id = 5
    assert response.header.revision == 9


@pytest.mark.parametrize("data", [b"\xff", b""])
def test_bytes_that_are_no_result(data: bytes) -> None:
    with pytest.raises(ValueError):
        response_from_bytes(data)


def test_the_codec_is_what_a_key_value_machine_is_given() -> None:
    codec: CommandCodec = KvCodec()
    assert codec.decode(encode_command(Range(b"k"))) == Range(b"k")
    assert codec.encode_result(PutResult(9)) == encode_result(PutResult(9))


@pytest.mark.parametrize("field", ["compare", "success", "failure"])
def test_a_transaction_of_very_many_operations_is_not_read_to_its_end(field: str) -> None:
    """Found by fuzzing: a request of 1 MB, of operations of two bytes each, held a server up for seconds."""
    request = pb.TxnRequest()
    operations = getattr(request, field)
    operations.extend([type(operations.add())()] * 50_000)
    command = request_from_pb(request)
    assert isinstance(command, Txn)
    assert len(getattr(command, field)) == TXN_OPS_MAX + 1
    assert check(command) == TOO_MANY_OPS
    assert decode_command(command_from_request(request)) == command
