"""The store against a model that is too simple to be wrong: every version of every key, for ever, in one list."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.kv.check import check
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    FUTURE_REVISION,
    KEY_NOT_FOUND,
    LEASE_NOT_FOUND,
    Command,
    Compact,
    CompactResult,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    KvError,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Result,
    Txn,
    TxnResult,
)


class RefusedError(Exception):
    """Undoes what a command has done so far."""


class Model:
    """Every version ever, in the order written; a deletion has version 0."""

    def __init__(self) -> None:
        self.versions: list[KeyValue] = []
        self.revision = 1
        self.compacted = -1

    def at(self, revision: int) -> dict[bytes, KeyValue]:
        newest = {kv.key: kv for kv in self.versions if kv.mod_revision <= revision}
        return {key: newest[key] for key in sorted(newest) if newest[key].version}

    def within(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        return [
            kv
            for kv in self.at(revision).values()
            if (
                kv.key == key
                if not range_end
                else kv.key >= key and (range_end in (ALL_FROM,) or kv.key < range_end)
            )
        ]

    def execute(self, command: Command) -> Result:
        error = check(command)
        if error is not None:
            return error
        before = copy.copy(self)
        before.versions = list(self.versions)
        try:
            if isinstance(command, Compact):
                return self.compact(command)
            if isinstance(command, LeaseGrant | LeaseRevoke | LeaseKeepAlive):
                raise NotImplementedError("this model has no leases")
            result: Result = self.run(command, before, self.revision + 1)
        except RefusedError as refused:
            self.versions, self.revision = before.versions, before.revision
            refusal: KvError = refused.args[0]
            return refusal
        return result

    def run(self, command: Operation, before: "Model", revision: int) -> Any:
        if isinstance(command, Put):
            return self.put(command, revision)
        if isinstance(command, DeleteRange):
            gone = self.within(command.key, command.range_end, revision)
            self.versions += [KeyValue(kv.key, 0, revision, 0, b"") for kv in gone]
            self.revision = revision if gone else self.revision
            return DeleteRangeResult(self.revision, len(gone), tuple(gone) if command.prev_kv else ())
        if isinstance(command, Range):
            return self.range(command, before.revision)
        assert isinstance(command, Txn)
        succeeded = all(before.compare(compare) for compare in command.compare)
        branch = command.success if succeeded else command.failure
        responses = tuple(self.run(operation, before, revision) for operation in branch)
        return TxnResult(self.revision, succeeded, responses)

    def put(self, command: Put, revision: int) -> PutResult:
        old = self.at(revision).get(command.key)
        if command.lease:
            raise RefusedError(LEASE_NOT_FOUND)
        value = command.value
        if command.ignore_value or command.ignore_lease:
            if old is None:
                raise RefusedError(KEY_NOT_FOUND)
            value = old.value if command.ignore_value else value
        if old is None:
            self.versions.append(KeyValue(command.key, revision, revision, 1, value))
        else:
            new = old._replace(mod_revision=revision, version=old.version + 1, value=value)
            self.versions.append(new)
        self.revision = revision
        return PutResult(revision, old if command.prev_kv else None)

    def range(self, command: Range, newest: int) -> RangeResult:
        if command.revision > newest:
            raise RefusedError(FUTURE_REVISION)
        if 0 < command.revision < self.compacted:
            raise RefusedError(COMPACTED)
        at = command.revision if command.revision > 0 else self.revision
        kvs = self.within(command.key, command.range_end, at)
        count = len(kvs)
        if command.count_only:
            return RangeResult(self.revision, (), False, count)
        low, high = command.min_mod_revision, command.max_mod_revision or 2**63
        kvs = [kv for kv in kvs if low <= kv.mod_revision <= high]
        low, high = command.min_create_revision, command.max_create_revision or 2**63
        kvs = [kv for kv in kvs if low <= kv.create_revision <= high]
        field = ("key", "version", "create_revision", "mod_revision", "value")[command.sort_target]
        kvs.sort(key=lambda kv: getattr(kv, field), reverse=command.sort_order == 2)
        cut = kvs[: command.limit] if command.limit > 0 else kvs
        if command.keys_only:
            cut = [kv._replace(value=b"") for kv in cut]
        return RangeResult(self.revision, tuple(cut), len(cut) < len(kvs), count)

    def compare(self, compare: Compare) -> bool:
        kvs = self.within(compare.key, compare.range_end, self.revision)
        if not kvs and compare.target == CompareTarget.VALUE:
            return False
        field = ("version", "create_revision", "mod_revision", "value", "lease")[compare.target]
        for kv in kvs or [KeyValue(b"", 0, 0, 0, b"")]:
            mine, theirs = getattr(kv, field), compare.operand
            order = (mine > theirs) - (mine < theirs)
            if order not in ((0,), (1,), (-1,), (-1, 1))[compare.result]:
                return False
        return True

    def compact(self, command: Compact) -> CompactResult:
        if command.revision <= self.compacted:
            raise RefusedError(COMPACTED)
        if command.revision > self.revision:
            raise RefusedError(FUTURE_REVISION)
        self.compacted = command.revision
        return CompactResult(self.revision)


# Few keys and small revisions, so that commands meet each other.
KEYS = st.sampled_from([b"a", b"b", b"ba", b"c", b"d"])
ENDS = st.sampled_from([b"", b"", b"b", b"c", b"e", ALL_FROM])
VALUES = st.sampled_from([b"", b"x", b"y"])
RARELY = st.sampled_from([False] * 5 + [True])
# 0 is the newest; the others are counted back from the store's own when the command is executed.
REVISIONS = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 6, 9, 14, -1])
FILTERS = st.sampled_from([0, 0, 0, 6, 12])

PUTS = st.builds(Put, KEYS, VALUES, st.sampled_from([0] * 15 + [9]), RARELY, RARELY, RARELY).map(
    lambda put: put._replace(value=b"") if put.ignore_value else put
)
# Most writes are plain ones, so that there is a history to speak of.
PLAIN_PUTS = st.tuples(KEYS, VALUES).map(lambda pair: Put(*pair))
DELETES = st.builds(DeleteRange, KEYS, ENDS, RARELY)
RANGES = st.builds(
    Range,
    KEYS,
    ENDS,
    st.integers(-1, 4),
    REVISIONS,
    st.integers(0, 2),
    st.integers(0, 4),
    st.booleans(),
    RARELY,
    RARELY,
    FILTERS,
    FILTERS,
    FILTERS,
    FILTERS,
)
COMPARES = st.one_of(
    st.builds(Compare, KEYS, st.just(3), st.sampled_from(CompareResult), VALUES, ENDS),
    st.builds(
        Compare, KEYS, st.sampled_from([0, 1, 2, 4]), st.sampled_from(CompareResult), st.integers(0, 6), ENDS
    ),
)


def transactions(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Txn]:
    branches = st.lists(operations, max_size=3).map(tuple)
    return st.builds(Txn, st.lists(COMPARES, max_size=2).map(tuple), branches, branches)


OPERATIONS: st.SearchStrategy[Operation] = st.recursive(
    st.one_of(PLAIN_PUTS, PUTS, DELETES, RANGES), transactions, max_leaves=8
)
COMMANDS = st.one_of(
    PLAIN_PUTS,
    PLAIN_PUTS,
    PLAIN_PUTS,
    PUTS,
    DELETES,
    RANGES,
    transactions(OPERATIONS),
    REVISIONS.map(Compact),
)


def near(command: Any, revision: int) -> Any:
    """The command with its revisions counted from the store's own, which no strategy knows."""
    if isinstance(command, Txn):
        success = tuple(near(operation, revision) for operation in command.success)
        failure = tuple(near(operation, revision) for operation in command.failure)
        return command._replace(success=success, failure=failure)
    if isinstance(command, Compact) or (isinstance(command, Range) and command.revision):
        return command._replace(revision=revision - command.revision)
    return command


@settings(max_examples=150)
@given(st.lists(COMMANDS, min_size=12, max_size=30), st.sets(st.integers(0, 29), max_size=3))
def test_the_store_does_what_the_model_does(commands: list[Command], snapshots: set[int]) -> None:
    model = Model()
    machine = KeyValueMachine(KvCodec())
    for number, drawn in enumerate(commands):
        command = near(drawn, model.revision)
        (result,) = machine.apply_batch([encode_command(command)], Position(1, number))
        assert result == model.execute(command), command
        if not isinstance(result, KvError | RangeResult):
            machine._store.require_invariants()
        if number in snapshots:
            restored = KeyValueMachine(KvCodec())
            restored.restore(machine.snapshot())
            restored._store.require_invariants()
            assert restored.digest() == machine.digest()
            machine = restored
    # At the end, every revision that may still be read.
    assert machine.revision == model.revision
    for revision in range(max(1, model.compacted), model.revision + 1):
        everything = Range(b"\0", ALL_FROM, revision=revision)
        assert machine.execute_query(everything) == model.execute(everything)


def test_the_model_can_tell_a_wrong_store() -> None:
    """A comparison that cannot fail shows nothing."""
    model, machine = Model(), KeyValueMachine(KvCodec())
    model.execute(Put(b"a", b"x"))
    machine.execute(Put(b"a", b"y"))
    assert machine.execute(Range(b"a")) != model.execute(Range(b"a"))
