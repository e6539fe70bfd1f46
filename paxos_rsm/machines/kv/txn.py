"""Transactions: conditions, one of two branches, all of it one step and one revision.

In three parts, each over the whole transaction with those nested in it, so that nothing is half done:

1. *plan*: every condition, of the nested transactions that are reached too, is evaluated against the state before
   the transaction. That is etcd's rule: a nested condition does not see what the operations before it write.
2. *refuse*: what the operations that were chosen would be refused with is found before the first of them runs.
3. *run*: the operations, in order, each seeing the effects of those before it. All writes have the one revision after
   that of the store; where none changes anything, the store keeps its revision.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias, Union

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.machines.kv.store import CREATE, LEASE, MOD, VALUE, VERSION, MultiVersionStore, Record
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    KEY_NOT_FOUND,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    KvError,
    OperationResult,
    Put,
    Range,
    Txn,
    TxnResult,
)

__all__ = ["execute_txn"]

Step: TypeAlias = Union[Range, Put, DeleteRange, "_Plan"]


class _Plan(NamedTuple):
    """A transaction whose conditions have been evaluated: only the branch that is taken."""

    succeeded: bool
    steps: list[Step]


_BY_VALUE = int(CompareTarget.VALUE)

_FIELDS: dict[int, int] = {
    CompareTarget.VERSION: VERSION,
    CompareTarget.CREATE: CREATE,
    CompareTarget.MOD: MOD,
    CompareTarget.VALUE: VALUE,
    CompareTarget.LEASE: LEASE,
}

_RELATIONS: dict[int, Callable[[int | bytes, int | bytes], bool]] = {
    CompareResult.EQUAL: lambda field, operand: field == operand,
    CompareResult.NOT_EQUAL: lambda field, operand: field != operand,
    CompareResult.GREATER: lambda field, operand: field > operand,  # type: ignore[operator]
    CompareResult.LESS: lambda field, operand: field < operand,  # type: ignore[operator]
}

_MISSING: Record = (b"", 0, 0, 0, b"", 0)


def execute_txn(store: MultiVersionStore, txn: Txn) -> TxnResult | KvError:
    """Executes a transaction that `check` has passed, or refuses it with nothing changed."""
    plan = _plan(store, txn)
    error = _error(store, plan)
    if error is not None:
        return error
    return _run(store, plan, store.revision + 1)


def _plan(store: MultiVersionStore, txn: Txn) -> _Plan:
    succeeded = all(_holds(store, compare) for compare in txn.compare)
    steps: list[Step] = []
    for operation in txn.success if succeeded else txn.failure:
        if isinstance(operation, Txn):
            steps.append(_plan(store, operation))
        elif operation is not None:
            steps.append(operation)
        else:
            raise InvariantViolation(
                "a transaction with an empty operation was not refused: a bug in paxos_rsm"
            )
    return _Plan(succeeded, steps)


def _holds(store: MultiVersionStore, compare: Compare) -> bool:
    """Whether a condition holds for every key of its range; where there is none, for one that is all zeros.

    A value is never equal nor unequal to anything where there is no key: there is no operand that could mean so.
    """
    records: Iterable[Record]
    if compare.range_end:
        records = list(store.scan(compare.key, compare.range_end))
    else:
        record = store.get(compare.key)
        records = () if record is None else (record,)
    if not records:
        if compare.target == _BY_VALUE:
            return False
        records = (_MISSING,)
    field, relation, operand = _FIELDS[compare.target], _RELATIONS[compare.result], compare.operand
    return all(relation(record[field], operand) for record in records)


def _error(store: MultiVersionStore, plan: _Plan) -> KvError | None:
    """What the transaction is refused with: in etcd's order, all puts before all ranges."""
    leaves = list(_leaves(plan))
    return _put_error(store, leaves) or _range_error(store, leaves)


def _put_error(store: MultiVersionStore, leaves: list[Range | Put | DeleteRange]) -> KvError | None:
    # `check` has seen to it that no key is put after it was deleted, but for deletes without an end (etcd's rule, see
    # check.py). A put that keeps the old value of such a key finds none; etcd itself does not survive this.
    deleted_from: bytes | None = None
    for step in leaves:
        if isinstance(step, Put):
            error = store.put_error(step, in_txn=True)
            keeps = step.ignore_value or step.ignore_lease
            if error is None and keeps and deleted_from is not None and step.key >= deleted_from:
                error = KEY_NOT_FOUND
            if error is not None:
                return error
        elif isinstance(step, DeleteRange) and step.range_end == ALL_FROM:
            deleted_from = step.key if deleted_from is None else min(step.key, deleted_from)
    return None


def _range_error(store: MultiVersionStore, leaves: list[Range | Put | DeleteRange]) -> KvError | None:
    for step in leaves:
        if isinstance(step, Range):
            # Here etcd compares a negative revision as it is.
            below = step.revision < 0 and step.revision < store.compacted_revision
            error = COMPACTED if below else store.revision_error(step.revision)
            if error is not None:
                return error
    return None


def _leaves(plan: _Plan) -> Iterator[Range | Put | DeleteRange]:
    """The operations of the plan in the order in which they run."""
    for step in plan.steps:
        if isinstance(step, _Plan):
            yield from _leaves(step)
        else:
            yield step


def _run(store: MultiVersionStore, plan: _Plan, revision: int) -> TxnResult:
    responses: list[OperationResult] = []
    for step in plan.steps:
        response: OperationResult | KvError
        if isinstance(step, Put):
            response = store.put(step, revision)
        elif isinstance(step, Range):
            response = store.range(step)
        elif isinstance(step, DeleteRange):
            response = store.delete_range(step, revision)
        else:
            response = _run(store, step, revision)
        if isinstance(response, KvError):
            raise InvariantViolation(
                f"a transaction was refused half-way ({response.message}): a bug in paxos_rsm, stop this server"
            )
        responses.append(response)
    return TxnResult(store.revision, plan.succeeded, tuple(responses))
