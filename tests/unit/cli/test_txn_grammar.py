import pytest

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.cli.failures import BadInput
from paxos_rsm.cli.txn_grammar import parse_compare, parse_operation, read_txn

C = pb.Compare


def read(text: str) -> pb.TxnRequest:
    return read_txn(iter(text.split("\n")[:-1]))


@pytest.mark.parametrize(
    ("line", "compare"),
    [
        ('mod("k") > "0"', C(key=b"k", target=C.MOD, result=C.GREATER, mod_revision=0)),
        ('m("k") = "7"', C(key=b"k", target=C.MOD, result=C.EQUAL, mod_revision=7)),
        ('create("k") < "7"', C(key=b"k", target=C.CREATE, result=C.LESS, create_revision=7)),
        ('c("k") != "7"', C(key=b"k", target=C.CREATE, result=C.NOT_EQUAL, create_revision=7)),
        ('ver("k") = "-1"', C(key=b"k", target=C.VERSION, result=C.EQUAL, version=-1)),
        ('version("k")="1"', C(key=b"k", target=C.VERSION, result=C.EQUAL, version=1)),
        (r'val("k") = "a \"b\"\xff"', C(key=b"k", target=C.VALUE, result=C.EQUAL, value=b'a "b"\xff')),
        ('  value( "a b" )  ==  ""  ', C(key=b"a b", target=C.VALUE, result=C.EQUAL, value=b"")),
        ('lease("k") = "ff"', C(key=b"k", target=C.LEASE, result=C.EQUAL, lease=255)),
    ],
)
def test_comparisons(line: str, compare: pb.Compare) -> None:
    assert parse_compare(line) == compare


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mod(k) > 0", 'malformed comparison: mod(k) > 0: write it as mod("key") > "0"'),
        ('mod("k") > 0', "malformed comparison"),
        ("nonsense", "malformed comparison: nonsense"),
        ('size("k") > "0"', "unknown target size"),
        ('mod("k") ~ "0"', "unknown operator ~"),
        ('mod("k") > "x"', "its value is not a whole number"),
        ('mod("k") > "9223372036854775808"', "its value is not a whole number"),
        ('lease("k") = "xyz"', "its value is not a lease"),
        (r'mod("\q") > "0"', "an escape that is none"),
    ],
)
def test_what_is_no_comparison_is_said(line: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_compare(line)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("line", "operation"),
    [
        ("put a b", pb.RequestOp(request_put=pb.PutRequest(key=b"a", value=b"b"))),
        (
            r'put "a b" "x\n" --prev-kv --lease=ff',
            pb.RequestOp(request_put=pb.PutRequest(key=b"a b", value=b"x\n", prev_kv=True, lease=255)),
        ),
        (
            "put a --ignore-value",
            pb.RequestOp(request_put=pb.PutRequest(key=b"a", ignore_value=True)),
        ),
        ("get a", pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))),
        (
            "get --prefix a --limit 3 --order DESCEND --sort-by MODIFY",
            pb.RequestOp(
                request_range=pb.RangeRequest(
                    key=b"a",
                    range_end=b"b",
                    limit=3,
                    sort_order=pb.RangeRequest.DESCEND,
                    sort_target=pb.RangeRequest.MOD,
                )
            ),
        ),
        (
            "get a --rev 3 --consistency s --keys-only",
            pb.RequestOp(
                request_range=pb.RangeRequest(key=b"a", revision=3, serializable=True, keys_only=True)
            ),
        ),
        (
            "get a c --count-only",
            pb.RequestOp(request_range=pb.RangeRequest(key=b"a", range_end=b"c", count_only=True)),
        ),
        (
            "del a --from-key --prev-kv",
            pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"a", range_end=b"\0", prev_kv=True)),
        ),
    ],
)
def test_operations(line: str, operation: pb.RequestOp) -> None:
    assert parse_operation(line) == operation


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("foo a", "begins with none of get, put, del"),
        ("put a", "put takes KEY and VALUE here"),
        ("put a b --ignore-value", "put takes KEY and VALUE here"),
        ("put a 'b", "a quote is not closed"),
        ("get", "Missing argument 'KEY'"),
        ("get a --nonsense", "No such option"),
        ("get a b --prefix", "RANGE_END cannot be used"),
        ("del", "Missing argument 'KEY'"),
        ("get --help", "--help is not for here"),
    ],
)
def test_what_is_no_operation_is_said(line: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_operation(line)
    assert words in caught.value.message
    assert caught.value.message.startswith(f"invalid txn request: {line}")
    assert caught.value.exit_code == 3


def test_three_sections_with_an_empty_line_after_each() -> None:
    txn = read('mod("a") > "0"\nval("b") = "c"\n\nput a 1\nget a\n\ndel a\n\n')
    assert (len(txn.compare), len(txn.success), len(txn.failure)) == (2, 2, 1)
    assert read("\n\n\n") == pb.TxnRequest()
    assert len(read("\nput a 1\n \n\t\n").success) == 1


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("", "compares"),
        ('mod("a") > "0"\n', "compares"),
        ("\nput a 1\n", "success requests"),
        ("\nput a 1\n\nput a 2\n", "failure requests"),
    ],
)
def test_input_that_was_cut_off_is_no_transaction(text: str, section: str) -> None:
    with pytest.raises(BadInput, match=f"ended within the {section}: each"):
        read(text)
