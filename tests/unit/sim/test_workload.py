"""What clients ask of the store, and that a wrong answer is seen."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from paxos_rsm.codec.kv import decode_command, encode_command, encode_result
from paxos_rsm.machines.base import BatchStateMachine, Position, Timeout
from paxos_rsm.machines.kv.types import (
    Compact,
    DeleteRange,
    KeyValue,
    LeaseGrant,
    LeaseGrantResult,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseRevoke,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
)
from paxos_rsm.sim.kv_reference import Ended
from paxos_rsm.sim.workload import KvWorkload
from tests.unit.sim.helpers import broken


def commands(seed: int, count: int) -> list[bytes]:
    rnd, workload = Random(seed), KvWorkload()
    return [workload.command(rnd, 1, number) for number in range(count)]


def values(command: Any) -> list[bytes]:
    """Every value that a command may write."""
    if isinstance(command, Put):
        return [command.value]
    if isinstance(command, Txn):
        return [value for each in (*command.success, *command.failure) for value in values(each)]
    return []


def test_commands_are_drawn_from_chance_and_nothing_else() -> None:
    assert commands(1, 50) == commands(1, 50)
    assert commands(1, 50) != commands(2, 50)
    rnd, workload = Random(1), KvWorkload()
    assert workload.query(Random(3)) == KvWorkload().query(Random(3))
    assert [workload.command(rnd, 1, n) for n in range(50)] == commands(1, 50)


def test_every_kind_is_drawn_and_each_value_is_written_by_one_command() -> None:
    workload, rnd = KvWorkload(), Random(1)
    drawn = {
        (client, number): decode_command(workload.command(rnd, client, number))
        for client in range(3)
        for number in range(400)
    }
    assert {type(command) for command in drawn.values()} == {
        Put,
        DeleteRange,
        Txn,
        Range,
        Compact,
        LeaseGrant,
        LeaseKeepAlive,
        LeaseRevoke,
    }
    for (client, number), command in drawn.items():
        assert set(values(command)) <= {b"%d/%d" % (client, number)}
    keys = {command.key for command in drawn.values() if isinstance(command, Put)}
    assert keys == {b"k%d" % n for n in range(8)}
    few = KvWorkload(keys=2)
    found = [decode_command(few.command(rnd, 1, number)) for number in range(200)]
    assert {command.key for command in found if isinstance(command, Put)} == {b"k0", b"k1"}


def test_queries_are_reads_of_one_key_or_all() -> None:
    workload, rnd = KvWorkload(), Random(1)
    queries = [decode_command(workload.query(rnd)) for _ in range(200)]
    assert {type(query) for query in queries} == {Range}
    assert len({query.range_end for query in queries if isinstance(query, Range)}) == 2


def test_what_the_store_answers_is_right() -> None:
    workload, rnd = KvWorkload(), Random(7)
    machine = workload.machine()
    assert isinstance(machine, BatchStateMachine)
    for number in range(600):
        command = workload.command(rnd, 1, number)
        (result,) = machine.apply_batch([command], Position(number + 1, 0))
        workload.executed(command, result)
        query = workload.query(rnd)
        workload.queried(query, machine.query(query))


def with_a_lease(ttl_s: int) -> tuple[KvWorkload, Callable[[int], None]]:
    """A workload with a lease of one key, granted at 1000 where a second has 100 units; and its clock, to be set."""
    workload, now = KvWorkload(), [1000]
    workload.clock, workload.units_per_s = lambda: now[0], 100.0
    grant, put = LeaseGrant(ttl_s, 1), Put(b"k", b"v", 1)
    workload.executed(encode_command(grant), LeaseGrantResult(1, 1, ttl_s))
    workload.executed(encode_command(put), PutResult(2))

    def set_clock(at: int) -> None:
        now[0] = at

    return workload, set_clock


def test_a_lease_that_ends_early_is_told() -> None:
    workload, set_clock = with_a_lease(3)
    set_clock(1299)
    with broken("lease", "lease 1 of 3 s, arming 1 at 1000, has run out at 1299: that is 2.99 s"):
        workload.timed_out([Timeout(1, 1)])


def test_a_lease_that_ends_in_time_takes_its_keys_with_it() -> None:
    workload, set_clock = with_a_lease(3)
    workload.timed_out([Timeout(1, 7)])
    assert workload.leases == 1
    set_clock(1300)
    workload.timed_out([Timeout(1, 1)])
    assert workload.leases == 0
    assert workload.ended == [(Ended(1, 3, [b"k"]), 1300)]
    workload.executed(encode_command(Range(b"k")), RangeResult(3, (), False, 0))


def test_a_lease_that_is_kept_alive_begins_anew() -> None:
    workload, set_clock = with_a_lease(3)
    set_clock(1250)
    workload.executed(encode_command(LeaseKeepAlive(1)), LeaseKeepAliveResult(2, 1, 3))
    set_clock(1400)
    with broken("lease", "arming 2 at 1250"):
        workload.timed_out([Timeout(1, 2)])


def test_machines_are_apart() -> None:
    workload = KvWorkload()
    one, other = workload.machine(), workload.machine()
    empty = one.digest()
    one.apply(encode_command(Put(b"k", b"v")), Position(1, 0))
    assert one.digest() != other.digest() == empty


@pytest.mark.parametrize(
    "wrong",
    [PutResult(3), PutResult(1), PutResult(2, KeyValue(b"k", 1, 1, 1, b"")), RangeResult(2, (), False, 0)],
)
def test_a_wrong_result_is_told(wrong: Any) -> None:
    put = encode_command(Put(b"k", b"v"))
    KvWorkload().executed(put, PutResult(2))
    with broken("11", "it should be PutResult(revision=2, prev_kv=None)"):
        KvWorkload().executed(put, wrong)


def test_a_wrong_answer_to_a_query_is_told() -> None:
    workload = KvWorkload()
    get = encode_command(Range(b"k"))
    workload.queried(get, encode_result(RangeResult(1, (), False, 0)))
    workload.executed(encode_command(Put(b"k", b"v")), PutResult(2, None))
    with broken("11", "was answered"):
        workload.queried(get, encode_result(RangeResult(1, (), False, 0)))


def test_what_the_reference_does_not_know_passes() -> None:
    workload = KvWorkload()
    workload.executed(encode_command(Range(b"k", revision=1)), "anything")
    workload.queried(encode_command(Range(b"k", limit=1)), b"anything")
    workload.executed(b"\xff no command", "anything")
    workload.executed(encode_command(Put(b"k", b"v")), PutResult(2, None))


def test_compactions_stay_behind_what_was_executed() -> None:
    workload, rnd = KvWorkload(), Random(1)
    put = encode_command(Put(b"k", b"v"))
    for revision in range(2, 102):
        workload.executed(put, PutResult(revision, None))
    found = [decode_command(workload.command(rnd, 1, number)) for number in range(2000)]
    compacted = [command.revision for command in found if isinstance(command, Compact)]
    assert compacted
    assert all(80 < revision <= 101 for revision in compacted)
