"""A multi-version store as simple as can be, to replay revisions on.

It has the semantics of etcd v3 and nothing else in common with the store it judges. Keys and values are compared as
bytes (text stands for its UTF-8), so that a history may write either.

Requests, as they stand in a history and inside a transaction::

    put           key  input: the value                          output: {"revision", "prev_kv"?}
    get           key  input: null or {"revision"}               output: {"revision", "kv"}
    delete        key                                            output: {"revision", "deleted", "prev_kv"?}
    range         key  input: {"range_end", "limit"?, "revision"?}  output: {"revision", "kvs", "more"?, "count"?}
    delete_range  key  input: {"range_end"}                      output: {"revision", "deleted", "prev_kvs"?}
    txn                input: {"compare", "success", "failure"}  output: {"revision", "succeeded", "responses"}

``range_end`` is the first key that is not meant; ``"\\0"`` is the end of all. A request of a transaction is
``{"op", "key", "input"}``, its response the output above (whose revision may be left out). A comparison is
``{"key", "target": "value" | "version" | "create" | "mod", "result": "=" | "!=" | "<" | ">", "value"}``.
What is not in an output is not checked.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from paxos_rsm.checker.history import freeze

__all__ = ["KeyValue", "Store", "comparable", "differs", "made_revision", "requests_of"]


class KeyValue(NamedTuple):
    """What a key holds."""

    value: Hashable
    create_revision: int
    mod_revision: int
    version: int


FIELDS = ("create_revision", "mod_revision", "version")
TARGETS = {"version": "version", "create": "create_revision", "mod": "mod_revision"}


def comparable(value: Any) -> Hashable:
    """A key or value, the same whether it was written as text or as bytes."""
    if type(value) is bytes or type(value) is int:
        return value
    return value.encode() if isinstance(value, str) else freeze(value)


def requests_of(op: str, given: Any) -> Iterator[tuple[str, Any, Any]]:
    """What a transaction may do, on either branch: (op, key, input)."""
    for branch in ("success", "failure"):
        for request in given.get(branch) or ():
            yield request["op"], request.get("key"), request.get("input")


def made_revision(op: str, given: Any, output: Mapping[str, Any]) -> bool:
    """Whether an operation that was answered so has made a revision. KeyError where the output does not tell."""
    if op == "put":
        return True
    if op in ("delete", "delete_range"):
        return bool(output["deleted"])
    if op != "txn":
        return False
    requests = given.get("success" if output["succeeded"] else "failure") or ()
    if any(request["op"] == "put" for request in requests):
        return True
    # Only then do the responses matter.
    return any(
        response["deleted"]
        for request, response in zip(requests, output.get("responses") or (), strict=True)
        if request["op"] in ("delete", "delete_range")
    )


class Store:
    """The newest state, with a way back: :meth:`mark` and :meth:`undo`."""

    def __init__(self) -> None:
        self.kvs: dict[Hashable, KeyValue] = {}
        self._undo: list[tuple[Hashable, KeyValue | None]] = []

    def mark(self) -> int:
        """A point to come back to."""
        return len(self._undo)

    def undo(self, mark: int) -> None:
        """Back to the state at ``mark``."""
        while len(self._undo) > mark:
            key, before = self._undo.pop()
            if before is None:
                del self.kvs[key]
            else:
                self.kvs[key] = before

    def apply(self, op: str, key: Any, given: Any, revision: int) -> dict[str, Any]:
        """Does what is asked as the revision ``revision``; the full output, with kvs as KeyValue by key."""
        name = comparable(key)
        if op == "put":
            return {"prev_kv": self._put(name, comparable(given), revision)}
        if op == "get":
            return {"kv": self.kvs.get(name)}
        if op == "delete":
            before = self._delete(name)
            return {"deleted": int(before is not None), "prev_kv": before}
        if op in ("range", "delete_range"):
            found = self._range(name, given["range_end"])
            if op == "delete_range":
                return {"deleted": len(found), "prev_kvs": [(each, self._delete(each)) for each in found]}
            limit = given.get("limit") or len(found)
            kvs = [(each, self.kvs[each]) for each in found[:limit]]
            return {"kvs": kvs, "count": len(found), "more": len(found) > limit}
        if op != "txn":
            raise ValueError(op)
        succeeded = all(self._holds(compare) for compare in given.get("compare") or ())
        requests = given.get("success" if succeeded else "failure") or ()
        return {
            "succeeded": succeeded,
            "responses": [
                self.apply(each["op"], each.get("key"), each.get("input"), revision) for each in requests
            ],
        }

    def _put(self, key: Hashable, value: Hashable, revision: int) -> KeyValue | None:
        before = self.kvs.get(key)
        self._undo.append((key, before))
        if before is None:
            self.kvs[key] = KeyValue(value, revision, revision, 1)
        else:
            self.kvs[key] = KeyValue(value, before.create_revision, revision, before.version + 1)
        return before

    def _delete(self, key: Hashable) -> KeyValue | None:
        before = self.kvs.pop(key, None)
        if before is not None:
            self._undo.append((key, before))
        return before

    def _range(self, start: Any, range_end: Any) -> list[Any]:
        end = comparable(range_end)
        endless = end == b"\0"
        return sorted(key for key in self.kvs if key >= start and (endless or key < end))  # type: ignore[operator]

    def _holds(self, compare: Mapping[str, Any]) -> bool:
        kv = self.kvs.get(comparable(compare["key"]))
        expected = comparable(compare["value"])
        if compare["target"] == "value":
            if kv is None:  # as in etcd: no value is neither equal nor different
                return False
            actual: Any = kv.value
        else:
            actual = 0 if kv is None else getattr(kv, TARGETS[compare["target"]])
        result = compare.get("result", "=")
        if result == "=":
            return bool(actual == expected)
        if result == "!=":
            return bool(actual != expected)
        return bool(actual < expected) if result == "<" else bool(actual > expected)


def differs(told: Mapping[str, Any], replayed: Mapping[str, Any]) -> str:
    """What an output tells that the replay does not say, in words; empty where it tells nothing else."""
    for field, actual in replayed.items():
        if field not in told:
            continue
        shown = told[field]
        if field in ("kv", "prev_kv"):
            problem = _kv_differs(shown, actual)
        elif field in ("kvs", "prev_kvs"):
            problem = _kvs_differ(shown, actual)
        elif field == "responses":
            problem = "" if len(shown) == len(actual) else f"{len(shown)} responses and not {len(actual)}"
            for one, other in zip(shown, actual, strict=False):
                problem = problem or differs(one or {}, other)
        else:
            problem = "" if shown == actual else f"{shown!r} and not {actual!r}"
        if problem:
            return f"{field}: {problem}"
    return ""


def _kv_differs(shown: Mapping[str, Any] | None, actual: KeyValue | None) -> str:
    if shown is None or actual is None:
        return "" if shown is None and actual is None else f"{_told(shown)} and not {_kept(actual)}"
    same = comparable(shown["value"]) == actual.value if "value" in shown else True
    if same and all(shown.get(field, getattr(actual, field)) == getattr(actual, field) for field in FIELDS):
        return ""
    return f"{_told(shown)} and not {_kept(actual)}"


def _kvs_differ(
    shown: Sequence[Mapping[str, Any]], actual: Sequence[tuple[Hashable, KeyValue | None]]
) -> str:
    keys, expected = [comparable(each["key"]) for each in shown], [key for key, _ in actual]
    if keys != expected:
        return f"the keys {keys!r} and not {expected!r}"
    return next(
        (
            f"{key!r}: {problem}"
            for each, (key, kv) in zip(shown, actual, strict=True)
            if (problem := _kv_differs(each, kv))
        ),
        "",
    )


def _told(shown: Mapping[str, Any] | None) -> str:
    if shown is None:
        return "nothing"
    revision = f" of revision {shown['mod_revision']}" if "mod_revision" in shown else ""
    version = f" (version {shown['version']})" if "version" in shown else ""
    return f"{shown.get('value')!r}{revision}{version}"


def _kept(actual: KeyValue | None) -> str:
    if actual is None:
        return "nothing"
    value = actual.value
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    return f"{value!r} of revision {actual.mod_revision} (version {actual.version})"
