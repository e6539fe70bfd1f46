"""One key of a multi-version store, with etcd's revisions, as a model.

Each key is checked by itself, though the revisions are those of the whole store: between two writes of one key, the
others may have used up any number of them. Transactions, ranges, and what the revisions say across keys are for
``revisions.py``, which reads the same operations.

``put``
    input: the value; output: ``{"revision": 7}``, with ``"prev_kv"`` where it was asked for.
``get``
    output: ``{"revision": 9, "kv": {"value": "a", "create_revision": 3, "mod_revision": 7, "version": 2}}``; ``kv``
    is null where there is none. The revision is that of the header.
``delete``
    output: ``{"revision": 8, "deleted": 1}``, with ``"prev_kv"`` where it was asked for.

Members of a ``kv`` that are not there are not checked. A put of unknown outcome has an unknown revision; the first read
that shows it tells. So a get may narrow what is known of a state, and leaves it as it is otherwise.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from paxos_rsm.checker.history import Operation, freeze
from paxos_rsm.checker.model import ANY, ILLEGAL, UNSEEN, Mark, Model, short
from paxos_rsm.errors import HistoryError

__all__ = ["KV"]

ABSENT = Mark("absent")


class _State(NamedTuple):
    """What is known of the key. ``create`` and ``mod`` are None where only an unknown write could tell."""

    value: Hashable
    create: int | None
    mod: int | None
    version: int
    floor: int
    """The revision of the last write, or the lowest that it may have."""


class KV(Model):
    """A key with revisions: put, get and delete."""

    name = "kv"
    operations = frozenset({"put", "get", "delete"})
    reads = frozenset({"get"})

    def init(self) -> Hashable:
        return _State(ABSENT, 0, 0, 0, 0)

    def validate(self, op: Operation) -> None:
        super().validate(op)
        if op.status != "ok":
            return
        if op.op == "get" and op.input is not None:
            raise HistoryError(
                f"get of {op.key!r} by process {op.process}, called at {op.call}: its input is {op.input!r}: this model"
                " knows reads of the newest revision only; check reads of older ones with revisions"
            )
        output = op.output
        fields = {"put": ("revision",), "get": ("kv",), "delete": ("revision", "deleted")}[op.op]
        missing = [field for field in fields if not isinstance(output, Mapping) or field not in output]
        wrong = missing or [
            field for field in ("revision", "deleted") if not isinstance(output.get(field, 0), int)
        ]
        for each in (output.get("kv"), output.get("prev_kv")) if not wrong else ():
            if each is not None and (not isinstance(each, Mapping) or "value" not in each):
                wrong = ["kv"]
        if wrong:
            raise HistoryError(
                f"{op.op} of {op.key!r} by process {op.process}, called at {op.call}: its output is {output!r}: give an"
                f" object with {' and '.join(fields)} (see paxos_rsm.checker.kv)"
            )

    def step(self, state: Any, op: Operation) -> Any:
        if op.op == "get":
            return self._get(state, op.output) if op.status == "ok" else state
        if op.status != "ok":
            return self._unknown(state, op)
        output = op.output
        if op.op == "delete" and not output["deleted"]:
            return state if state.value is ABSENT and output["revision"] >= state.floor else ILLEGAL
        if "prev_kv" in output:
            state = self._shown(state, output["prev_kv"])
        if state is ILLEGAL or output["revision"] <= state.floor:
            return ILLEGAL
        if op.op == "put":
            return self._put(state, _value(op.input), output["revision"])
        if state.value is ABSENT:
            return ILLEGAL
        return _State(ABSENT, 0, 0, 0, output["revision"])

    def _unknown(self, state: _State, op: Operation) -> Hashable:
        if op.op == "delete":
            return state if state.value is ABSENT else _State(ABSENT, 0, 0, 0, state.floor + 1)
        if op.output is None:
            return self._put(state, _value(op.input), None)
        # A read has told its revision (see prepare): too late for this state, it has no effect any more.
        revision: int = op.output["revision"]
        return self._put(state, _value(op.input), revision) if revision > state.floor else state

    @staticmethod
    def _put(state: _State, value: Hashable, revision: int | None) -> _State:
        floor = state.floor + 1 if revision is None else revision
        if state.value is ABSENT:
            return _State(value, revision, revision, 1, floor)
        return _State(value, state.create, revision, state.version + 1, floor)

    def _get(self, state: _State, output: Mapping[str, Any]) -> Any:
        header = output.get("revision")
        shown = self._shown(state, output["kv"])
        if shown is ILLEGAL or (header is not None and header < shown.floor):
            return ILLEGAL
        return shown

    @staticmethod
    def _shown(state: _State, kv: Mapping[str, Any] | None) -> Any:
        """``state`` with what ``kv`` tells of it; ILLEGAL where it tells otherwise."""
        if kv is None or state.value is ABSENT:
            return state if kv is None and state.value is ABSENT else ILLEGAL
        if _value(kv["value"]) != state.value or kv.get("version", state.version) != state.version:
            return ILLEGAL
        create, mod = kv.get("create_revision", state.create), kv.get("mod_revision", state.mod)
        if mod != state.mod and (state.mod is not None or mod < state.floor):
            return ILLEGAL
        if create != state.create and state.create is not None:
            return ILLEGAL
        first = state.version == 1
        if create is not None and mod is not None and ((create == mod) != first or create > mod):
            return ILLEGAL
        return _State(state.value, create, mod, state.version, state.floor if mod is None else mod)

    def possible(self, state: Any, op: Operation) -> bool:
        """Revisions only grow: an answer that tells of one below what is reached comes too late."""
        output = op.output
        if op.op == "put" or (op.op == "delete" and output["deleted"]):
            return bool(output["revision"] > state.floor)
        if output.get("revision", state.floor) < state.floor:
            return False
        kv = output.get("kv")
        return kv is None or kv.get("mod_revision", state.floor) >= state.floor

    def prepare(self, ops: Sequence[Operation]) -> Sequence[Operation | None]:
        """Unknown puts that a read has seen get their revision, if their value is unlike all others.

        Those whose value nobody has seen are made one kind; or left out, where nothing tells how often the key was
        written and no delete needs it to be there: then nobody could tell that they took effect.
        """
        if all(op.status == "ok" for op in ops):
            return ops
        puts = Counter(_value(op.input) for op in ops if op.op == "put")
        seen: dict[Hashable, set[int | None]] = {}
        counted = any(op.op == "delete" for op in ops)
        for op in ops:
            if op.status == "ok":
                for kv in (op.output.get("kv"), op.output.get("prev_kv")):
                    if kv is not None:
                        seen.setdefault(_value(kv["value"]), set()).add(kv.get("mod_revision"))
                        counted = counted or "version" in kv or "create_revision" in kv
        prepared: list[Operation | None] = []
        for op in ops:
            if op.status == "ok" or op.op != "put":
                prepared.append(op)
            elif counted or _value(op.input) in seen:
                prepared.append(self._prepared(op, puts, seen))
            else:
                prepared.append(None)
        return prepared

    @staticmethod
    def _prepared(op: Operation, puts: Counter[Hashable], seen: dict[Hashable, set[int | None]]) -> Operation:
        value = _value(op.input)
        revisions = seen.get(value)
        output = None
        if revisions is None:
            value = UNSEEN
        elif puts[value] == 1 and len(revisions) == 1 and None not in revisions:
            output = {"revision": next(iter(revisions))}
        return Operation(op.process, op.op, op.key, value, output, op.call, None, "unknown")

    def identity(self, op: Operation) -> Hashable:
        return (op.op, None if op.op == "delete" else _value(op.input))

    def needs(self, op: Operation) -> Hashable:
        """A write is never blind: the version tells how many came before it."""
        if op.status != "ok" or op.op == "put" or op.output.get("deleted"):
            return ANY
        kv = op.output.get("kv")
        return ABSENT if kv is None else _value(kv["value"])

    def sets(self, op: Operation) -> Hashable:
        return ABSENT if op.op == "delete" else _value(op.input)

    def describe_state(self, state: Any) -> str:
        if state.value is ABSENT:
            return f"absent since revision {state.floor}" if state.floor else "absent"
        mod = f"{state.floor} or later" if state.mod is None else state.mod
        return f"{short(state.value)} (revision {mod}, version {state.version})"


def _value(value: Any) -> Hashable:
    return value if type(value) in (str, bytes, int) else freeze(value)
