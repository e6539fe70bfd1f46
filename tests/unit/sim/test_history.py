"""Histories of simulated clients in the checker's words, and that an impossible one is told."""

from typing import Any

import pytest

from paxos_rsm.checker import Operation, Verdict
from paxos_rsm.codec.frames import commands_frame, register_frame
from paxos_rsm.codec.kv import encode_command, encode_result
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    COMPACTED,
    Command,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)
from paxos_rsm.paxos.types import Batch, join_frames
from paxos_rsm.sim.executions import Executions
from paxos_rsm.sim.history import judge, operations
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.workload import Asked, KvWorkload
from tests.unit.sim.helpers import broken, quiet

V = KeyValue(b"k", 2, 2, 1, b"v")
KV = {"key": b"k", "value": b"v", "create_revision": 2, "mod_revision": 2, "version": 1}


def asked(command: Command, result: Any, at: tuple[int, int | None] = (0, 1)) -> Asked:
    is_read = isinstance(command, Range) and type(result) is RangeResult
    told = encode_result(result) if is_read else result
    return Asked(1, is_read, encode_command(command), told, *at)


def only(command: Command, result: Any, returned_at: int | None = 1) -> Operation:
    (operation,) = operations([asked(command, result, (0, returned_at))])
    return operation


TXN = Txn(
    (Compare(b"k", CompareTarget.VERSION, operand=1),), (Put(b"k", b"v"),), (Range(b"k"), Put(b"j", b"w"))
)


@pytest.mark.parametrize(
    ("command", "result", "told"),
    [
        (Put(b"k", b"v"), PutResult(2), ("put", b"k", b"v", {"revision": 2})),
        (Put(b"k", b"v", prev_kv=True), PutResult(3, V), ("put", b"k", b"v", {"revision": 3, "prev_kv": KV})),
        (
            DeleteRange(b"k"),
            DeleteRangeResult(3, 1, (V,)),
            ("delete", b"k", None, {"revision": 3, "deleted": 1}),
        ),
        (
            DeleteRange(b"k", ALL_FROM),
            DeleteRangeResult(3, 2, ()),
            ("delete_range", b"k", {"range_end": ALL_FROM}, {"revision": 3, "deleted": 2}),
        ),
        (Range(b"k"), RangeResult(2, (V,), False, 1), ("get", b"k", None, {"revision": 2, "kv": KV})),
        (Range(b"k"), RangeResult(2, (), False, 0), ("get", b"k", None, {"revision": 2, "kv": None})),
        (
            Range(b"a", ALL_FROM),
            RangeResult(2, (V,), False, 1),
            ("range", b"a", {"range_end": ALL_FROM}, {"revision": 2, "kvs": [KV], "count": 1}),
        ),
        (
            TXN,
            TxnResult(3, False, (RangeResult(2, (V,), False, 1), PutResult(3))),
            (
                "txn",
                None,
                {
                    "compare": [{"key": b"k", "target": "version", "result": "=", "value": 1}],
                    "success": [{"op": "put", "key": b"k", "input": b"v"}],
                    "failure": [
                        {"op": "get", "key": b"k", "input": None},
                        {"op": "put", "key": b"j", "input": b"w"},
                    ],
                },
                {
                    "revision": 3,
                    "succeeded": False,
                    "responses": [{"revision": 2, "kv": KV}, {"revision": 3}],
                },
            ),
        ),
    ],
)
def test_operations_say_what_was_asked_and_answered(
    command: Command, result: Any, told: tuple[Any, ...]
) -> None:
    operation = only(command, result)
    assert (operation.op, operation.key, operation.input, operation.output) == told
    assert operation.status == "ok"
    unknown = only(command, None, None)
    assert (unknown.op, unknown.key, unknown.input) == told[:3]
    assert (unknown.status, unknown.output) == ("unknown", None)


def test_what_is_no_operation_on_keys_is_left_out() -> None:
    assert not list(operations([asked(Compact(1), None), asked(Compact(1), COMPACTED)]))
    assert not list(operations([Asked(1, False, b"\xff no command", None, 0, 1)]))


def test_what_is_no_answer_of_the_store_is_told() -> None:
    with broken("linearizable", "'nonsense' is no result of the store"):
        only(Put(b"k", b"v"), "nonsense")
    error = encode_command(Range(b"k")), encode_result(COMPACTED)
    with broken("linearizable", "a query was answered with an error"):
        list(operations([Asked(1, True, *error, 0, 1)]))


def test_a_possible_history_passes() -> None:
    history = [
        asked(Put(b"k", b"v"), PutResult(2), (0, 10)),
        asked(Range(b"k"), RangeResult(1, (), False, 0), (1, 5)),  # while the put is on its way
        asked(Range(b"k"), RangeResult(2, (V,), False, 1), (11, 12)),
    ]
    assert judge(history, Executions(KvWorkload()), 100) is Verdict.LINEARIZABLE
    assert judge([], Executions(KvWorkload()), 100) is Verdict.LINEARIZABLE


@pytest.mark.parametrize(
    "history",
    [
        [  # a read that does not see what was acknowledged before it was asked
            asked(Put(b"k", b"v"), PutResult(2), (0, 10)),
            asked(Range(b"k"), RangeResult(1, (), False, 0), (11, 12)),
        ],
        [  # a value that nobody wrote
            asked(Put(b"k", b"w"), PutResult(2), (0, 10)),
            asked(Range(b"k"), RangeResult(2, (V,), False, 1), (11, 12)),
        ],
        [  # one revision given twice
            asked(Put(b"k", b"v"), PutResult(2), (0, 10)),
            asked(Put(b"k", b"v"), PutResult(2), (0, 10)),
        ],
    ],
)
def test_an_impossible_one_does_not(history: list[Asked]) -> None:
    with broken("linearizable", "linearizable: "):
        judge(history, Executions(KvWorkload()), 100)


def test_whole_runs_are_judged_and_one_lost_write_is_seen() -> None:
    simulation = Simulation(3, events=800, changes=quiet(3, reads=0.5), history=True)
    assert simulation.run().failure is None
    history = simulation.history
    assert history is not None
    executions, now, ended = simulation.executions, simulation.stage.now, simulation.ended
    assert ended
    assert judge(history, executions, now, ended) is Verdict.LINEARIZABLE
    puts = [at for at, each in enumerate(history) if not each.is_read and isinstance(each.result, PutResult)]
    at = puts[len(puts) // 2]
    stale = history[at]._replace(result=PutResult(history[at].result.revision - 1))
    with broken("linearizable", "linearizable: "):
        judge([*history[:at], stale, *history[at + 1 :]], executions, now, ended)
    with broken("linearizable", "linearizable: "):
        judge(history, executions, now, [each for each in ended if not each[0].keys])


def test_what_a_client_never_learned_is_told_by_the_log() -> None:
    """A put in a session that ended: without the word that it was executed nobody could say who made revision 2."""
    entry = Batch(
        join_frames(
            [register_frame(1, 1000), commands_frame(1 << 16, 1, 0, [encode_command(Put(b"k", b"v"))])]
        )
    )
    executions = Executions(KvWorkload())
    ((run,),) = [executions.applies(1, entry)]
    executions.executes(9, Position(1, run.position), 0, run.commands, [PutResult(2)])
    put = Asked(1, False, encode_command(Put(b"k", b"v")), None, 0, None, run.session, 1)
    lost = Asked(1, False, encode_command(Put(b"k", b"lost")), None, 0, None, run.session, 2)
    seen = asked(Range(b"k"), RangeResult(2, (V,), False, 1), (5, 6))
    assert judge([put, lost, seen], executions, 100) is Verdict.LINEARIZABLE
    with broken("linearizable", "linearizable: "):
        judge([lost, seen], executions, 100)
