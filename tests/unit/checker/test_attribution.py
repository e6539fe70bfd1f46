from typing import Any

from paxos_rsm.checker import Operation
from paxos_rsm.checker.attribution import ALL, Told, candidates, contradiction, meet, touched


def told(op: str, key: Any, given: Any, revision: int, **output: Any) -> Told:
    writes = op in ("put", "delete", "delete_range", "txn")
    answered = Operation(1, op, key, given, {"revision": revision, **output}, 0, 1)
    return Told(answered, revision, writes, revision)


def lost(key: str, value: str, op: str = "put") -> Operation:
    return Operation(9, op, key, value if op == "put" else None, None, 0, None, "unknown")


def kv(value: str, mod: int, version: int, create: int, **more: str) -> dict[str, Any]:
    return {"value": value, "mod_revision": mod, "version": version, "create_revision": create, **more}


def who(
    answers: list[Told], unknown: list[Operation], gaps: list[int], floor: int = 0
) -> dict[int, list[str]]:
    found, _ = candidates(answers, unknown, gaps, lambda call: floor)
    return {gap: sorted(f"{op.key}={op.input}" for op in ops) for gap, ops in found.items()}


def test_the_keys_that_an_operation_is_about() -> None:
    txn = {
        "compare": [{"key": "c", "target": "version", "value": 0}],
        "success": [{"op": "put", "key": "a", "input": "1"}],
        "failure": [{"op": "get", "key": "b"}],
    }
    assert touched(Operation(1, "txn", None, txn)) == {b"a", b"b", b"c"}
    assert touched(Operation(1, "put", "a", "1")) == {b"a"}
    assert touched(Operation(1, "range", "a", {"range_end": "b"})) == {ALL}
    assert meet(frozenset([b"a"]), frozenset([b"a", b"b"]))
    assert not meet(frozenset([b"a"]), frozenset([b"b"]))
    assert meet(frozenset([ALL]), frozenset([b"b"]))
    assert not meet(frozenset(), frozenset([ALL]))


def test_a_contradiction_needs_no_replay() -> None:
    write = told("put", "a", "1", 2)
    assert contradiction([write, told("get", "a", None, 3, kv=kv("1", 2, 1, 2))]) is None
    found = contradiction([write, told("get", "a", None, 3, kv=kv("2", 2, 1, 2))])
    assert found is not None
    assert "shows '2' of revision 2, which put" in found[0]
    later = told("put", "a", "3", 4)
    assert contradiction([write, later, told("get", "a", None, 3, kv=kv("1", 2, 1, 2))]) is None
    assert contradiction([write, later, told("get", "a", None, 4, kv=kv("1", 2, 1, 2))]) is not None
    deleted = told("delete", "a", None, 4, deleted=1)
    assert contradiction([write, deleted, told("get", "a", None, 9, kv=kv("1", 2, 1, 2))]) is not None


def test_a_transaction_may_show_what_it_has_put() -> None:
    requests = {"success": [{"op": "put", "key": "a", "input": "2"}, {"op": "get", "key": "a"}]}
    responses = [{"prev_kv": kv("1", 2, 1, 2)}, {"kv": kv("2", 3, 2, 2)}]
    txn = told("txn", None, requests, 3, succeeded=True, responses=responses)
    assert contradiction([told("put", "a", "1", 2), txn]) is None


def test_what_was_shown_of_a_revision_names_its_writer() -> None:
    seen = told("get", "a", None, 5, kv=kv("x", 3, 1, 3))
    assert who([seen], [lost("a", "x"), lost("a", "y"), lost("b", "x")], [3])[3] == ["a=x"]


def test_nobody_wrote_between_a_value_and_where_it_was_still_seen() -> None:
    seen = told("get", "a", None, 5, kv=kv("x", 2, 1, 2))
    unknown = [lost("a", "y"), lost("b", "z")]
    assert who([seen], unknown, [4]) == {4: ["b=z"]}
    assert who([seen], unknown, [6]) == {6: ["a=y", "b=z"]}


def test_whoever_called_too_late_did_not() -> None:
    assert who([], [lost("a", "x")], [3, 7], floor=5) == {3: [], 7: ["a=x"]}


def test_a_gap_with_one_candidate_has_it() -> None:
    seen = told("get", "a", None, 9, kv=kv("x", 3, 1, 3))
    assert who([seen], [lost("a", "x"), lost("b", "z")], [3, 4]) == {3: ["a=x"], 4: ["b=z"]}


def test_versions_tell_how_often_a_key_was_written() -> None:
    first, last = told("put", "a", "1", 2), told("get", "a", None, 8, kv=kv("9", 8, 3, 2))
    final = told("put", "a", "9", 8)
    unknown = [lost("a", "x"), lost("b", "y"), lost("c", "z")]
    # Version 3 at revision 8: one write of a between, and it was in one of the gaps.
    found, needs = candidates([first, final, last], unknown, [4, 5], lambda call: 0)
    assert needs[4][b"a"].need == 1
    assert len(found[4]) == 3
    # Version 2: nobody wrote it between.
    last.op.output["kv"]["version"] = 2
    assert who([first, final, last], unknown, [4, 5]) == {4: ["b=y", "c=z"], 5: ["b=y", "c=z"]}
    # Version 4: both gaps are its own.
    last.op.output["kv"]["version"] = 4
    unknown.append(lost("a", "w"))
    assert who([first, final, last], unknown, [4, 5]) == {4: ["a=w", "a=x"], 5: ["a=w", "a=x"]}


def test_a_key_that_is_absent_was_not_written() -> None:
    absent = told("get", "a", None, 5, kv=None)
    unknown = [lost("a", "x"), lost("b", "y")]
    assert who([absent], unknown, [3]) == {3: ["b=y"]}
    assert who([absent, told("delete", "a", None, 4, deleted=1)], unknown, [3]) == {3: ["a=x", "b=y"]}
    assert who([absent], [*unknown, lost("a", "", "delete")], [3])[3] == ["a=None", "a=x", "b=y"]
