from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos_rsm.checker import Operation, Recorder, read_history, write_history
from paxos_rsm.checker.history import Status, freeze, operation_from_json, operation_to_json, validate
from paxos_rsm.errors import HistoryError

LINE = (
    '{"process": 3, "op": "put", "key": "k1", "input": "a", "output": null, "call": 12.5, "return": 13.25,'
    ' "status": "ok"}'
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text().filter(lambda name: name != "base64"), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    call = draw(st.floats(0, 1e9) | st.integers(0, 10**12))
    statuses: list[Status] = ["ok", "fail", "unknown"]
    status = draw(st.sampled_from(statuses))
    return_ = call + draw(st.integers(0, 1000)) if status != "unknown" else None
    process = draw(st.integers() | st.text())
    return Operation(process, "op", draw(values), draw(values), draw(values), call, return_, status)


@settings(max_examples=40)
@given(st.lists(operations(), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, history: list[Operation]) -> None:
    path = tmp_path_factory.mktemp("history") / "h.jsonl"
    assert write_history(history, path) == len(history)
    assert read_history(path) == history
    assert read_history(path.read_text().splitlines()) == history


def test_the_form_of_a_line() -> None:
    expected = Operation(3, "put", "k1", "a", None, 12.5, 13.25, "ok")
    assert read_history(["", LINE, "  \n"]) == [expected]
    assert operation_from_json({"process": "c", "op": "get", "call": 1, "status": "unknown"}) == Operation(
        "c", "get", None, None, None, 1, None, "unknown"
    )


def test_bytes_are_text_where_they_are_text_and_base64_where_not() -> None:
    op = Operation(1, "put", b"k", b"v\xc3\xa4", {"kv": (b"\xff\x00", [bytearray(b"a")])}, 0, 1)
    document = operation_to_json(op)
    assert (document["key"], document["input"]) == ("k", "vä")
    assert document["output"] == {"kv": [{"base64": "/wA="}, ["a"]]}
    again = operation_from_json(document)
    assert again.output == {"kv": (b"\xff\x00", ("a",))}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"op": "get", "call": 1, "status": "ok"}', "has no 'process'"),
        (LINE.replace("return", "returned"), "unknown member 'returned'"),
        (LINE.replace("13.25", "12.25"), "before its call"),
        (LINE.replace("13.25", "null"), "it is ok and has no return"),
        (LINE.replace("13.25", '"soon"'), "the return is 'soon'"),
        (LINE.replace("12.5", "NaN"), "the call is nan"),
        (LINE.replace("12.5", "true"), "the call is True"),
        (LINE.replace('"ok"', '"okay"'), "write ok, fail or unknown"),
        (LINE.replace('"put"', '""'), "name what was called"),
        (LINE.replace("3,", "1.5,", 1), "the process is 1.5"),
        (LINE.replace('"a"', '{"base64": "?"}'), "bad base64"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(f"{LINE}\n\n{line}\n")
    with pytest.raises(HistoryError) as caught:
        read_history(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert words in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(HistoryError, match="not UTF-8"):
        read_history(path)
    with pytest.raises(OSError, match="No such file"):
        read_history(tmp_path / "none")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "JSON cannot hold"),
        ({"base64": "a"}, "stands for bytes"),
        ({1: 2}, "names that are text"),
        ({"a": 1, b"a": 2}, "different names"),
        (float("nan"), "finite numbers"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, value: object, words: str) -> None:
    with pytest.raises(HistoryError, match=words):
        write_history([Operation(1, "put", "k", value, None, 0, 1)], tmp_path / "h.jsonl")


def test_a_return_before_its_call() -> None:
    with pytest.raises(HistoryError, match="get on 'k' by process 1: it returned at 1, before its call at 2"):
        validate(Operation(1, "get", "k", None, None, 2, 1))


def test_a_recorder() -> None:
    times = iter(range(100))
    recorder = Recorder(lambda: next(times))
    first = recorder.call(1, "put", "k", "a")
    second, third, fourth = (recorder.call(2, "put", "k", name) for name in "bcd")
    recorder.ok(first, "done")
    recorder.fail(second)
    recorder.unknown(third)
    assert recorder.operations == [
        Operation(1, "put", "k", "a", "done", 0, 4, "ok"),
        Operation(2, "put", "k", "b", None, 1, 5, "fail"),
        Operation(2, "put", "k", "c", None, 2, None, "unknown"),
        Operation(2, "put", "k", "d", None, 3, None, "unknown"),
    ]
    assert fourth.status == "unknown"


@given(values, values)
def test_frozen_values_are_hashable_and_equal_where_the_values_are(one: object, other: object) -> None:
    assert hash(freeze(one)) == hash(freeze(one))
    assert freeze(one) == freeze(one)
    if one != other:
        assert freeze(one) != freeze(other)
    assert freeze([1, {"a": [2]}, bytearray(b"x"), {3}]) == freeze((1, {"a": (2,)}, b"x", frozenset([3])))
