"""What the clients of a simulated key-value store saw, judged from outside.

The oracle and the executions know the log. This check knows nothing but what clients called and were answered, in the
form in which real clusters are judged too (``paxos_rsm.checker``): so that it would also see what those two, which
look at the same log as the servers, might be blind to.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from paxos_rsm.checker import Operation, Verdict, check_revisions
from paxos_rsm.codec.kv import decode_command, response_from_bytes
from paxos_rsm.machines.kv.types import (
    Compact,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    KvError,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)
from paxos_rsm.sim.executions import Executions
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.kv_reference import Ended
from paxos_rsm.sim.workload import Asked

__all__ = ["judge", "operations"]

STEPS_MAX = 200_000


def judge(
    history: Iterable[Asked], executions: Executions, now: int, ended: Iterable[tuple[Ended, int]] = ()
) -> Verdict:
    """Replays a history by its revisions. Raises Broken where that is impossible; UNKNOWN is no pass.

    ``ended`` are the leases that have ended, by whatever it was, with the times at which they had: no client has
    deleted their keys.

    What a client never learned the log knows: its session has ended, so each of its commands was executed before that
    or never will be. Told so, the checker need not try every way in which they might have been.
    """
    told = (_told(asked, executions, now) for asked in history)
    asked = operations(asked for asked in told if asked is not None)
    result = check_revisions([*asked, *_ends(ended)], steps_max=STEPS_MAX, clock=lambda: 0.0)
    if result.verdict is Verdict.VIOLATION:
        raise Broken("linearizable", str(result))
    return result.verdict


def _told(asked: Asked, executions: Executions, now: int) -> Asked | None:
    """What was asked with the outcome that it had; None where it never had any."""
    if asked.returned_at is not None:
        return asked
    outcome = executions.outcome(asked.session, asked.seq)
    return None if outcome is None else asked._replace(result=outcome[1], returned_at=now)


def _ends(ended: Iterable[tuple[Ended, int]]) -> Iterator[Operation]:
    """The end of a lease, as if somebody had deleted its keys at some time before it was known."""
    for number, (each, at) in enumerate(ended, 1):
        if each.keys:
            deletes = [{"op": "delete", "key": key, "input": None} for key in each.keys]
            output = {
                "revision": each.revision,
                "succeeded": True,
                "responses": [{"revision": each.revision, "deleted": 1} for _ in each.keys],
            }
            given = {"compare": [], "success": deletes, "failure": []}
            yield Operation(-number, "txn", None, given, output, 0, at, "ok")


def operations(history: Iterable[Asked]) -> Iterator[Operation]:
    """The operations of a history, as the checker knows them; times are units of the simulation."""
    for number, asked in enumerate(history):
        command = decode_command(asked.request)
        if isinstance(command, KvError | Compact | LeaseGrant | LeaseRevoke | LeaseKeepAlive) or isinstance(
            asked.result, KvError
        ):
            continue  # answered with an error, or no operation on keys; for the ends of leases see _ends
        op, key, given = _request(command)
        known = asked.returned_at is not None
        # Each operation is a process of its own: a client has several in flight.
        yield Operation(
            number,
            op,
            key,
            given,
            _output(op, _result(asked)) if known else None,
            asked.called_at,
            asked.returned_at,
            "ok" if known else "unknown",
        )


def _request(command: Any) -> tuple[str, bytes | None, Any]:
    if isinstance(command, Put):
        return "put", command.key, command.value
    if isinstance(command, DeleteRange):
        if not command.range_end:
            return "delete", command.key, None
        return "delete_range", command.key, {"range_end": command.range_end}
    if isinstance(command, Range):
        if not command.range_end:
            return "get", command.key, None
        return "range", command.key, {"range_end": command.range_end}
    return "txn", None, _txn(command)


def _txn(txn: Txn) -> dict[str, Any]:
    return {
        "compare": [
            {"key": compare.key, "target": "version", "result": "=", "value": compare.operand}
            for compare in txn.compare
        ],
        **{
            branch: [dict(zip(("op", "key", "input"), _request(each), strict=True)) for each in requests]
            for branch, requests in (("success", txn.success), ("failure", txn.failure))
        },
    }


def _result(asked: Asked) -> Any:
    """A result as the machine gave it; of a query it is encoded, hence a message."""
    if type(asked.result) is not bytes:
        return asked.result
    response: Any = response_from_bytes(asked.result)
    if isinstance(response, KvError):
        raise Broken("linearizable", f"a query was answered with an error: {response}")
    kvs = tuple(
        KeyValue(kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease)
        for kv in response.kvs
    )
    return RangeResult(response.header.revision, kvs, response.more, response.count)


def _output(op: str, result: Any) -> dict[str, Any]:
    if isinstance(result, PutResult):
        return {"revision": result.revision, **_prev(result.prev_kv)}
    if isinstance(result, DeleteRangeResult):
        return {"revision": result.revision, "deleted": result.deleted}
    if isinstance(result, TxnResult):
        return {
            "revision": result.revision,
            "succeeded": result.succeeded,
            # A transaction reads single keys only (KvWorkload).
            "responses": [_output("get", each) for each in result.responses],
        }
    if isinstance(result, RangeResult):
        kvs = [_kv(kv) for kv in result.kvs]
        if op == "get":
            return {"revision": result.revision, "kv": kvs[0] if kvs else None}
        return {"revision": result.revision, "kvs": kvs, "count": result.count}
    raise Broken("linearizable", f"{result!r} is no result of the store")


def _prev(kv: KeyValue | None) -> dict[str, Any]:
    return {} if kv is None else {"prev_kv": _kv(kv)}


def _kv(kv: KeyValue) -> dict[str, Any]:
    return {
        "key": kv.key,
        "value": kv.value,
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
    }
