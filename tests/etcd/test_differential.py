"""The same random operations to a real etcd and to us, through the same stub: equal answers, field by field.

A third answers too: the naive model of tests/model, which shows that it is etcd's rules that it tells. The three are in
lock step from their first revision on; each example begins by deleting every key and lease.

``ETCD_EXAMPLES=1000`` plays so many; ``HYPOTHESIS_PROFILE=explore`` others than last time. There is no shrinking: what
is reported is the one operation that was answered otherwise, and both answers.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paxos_rsm._proto import kv_pb2 as kv
from paxos_rsm._proto import lease_pb2 as lease
from paxos_rsm.codec.kv import encode_command, result_to_pb
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    Command,
    DeleteRange,
    KvError,
    LeaseKeepAlive,
    LeaseRevoke,
    Put,
    Txn,
)
from paxos_rsm.server.status_codes import code_of_number
from tests.etcd.stores import Answer, Store
from tests.model.commands import (
    COMPACTIONS,
    DELETES,
    GRANTS,
    KEEP_ALIVES,
    PLAIN_PUTS,
    PUTS,
    RANGES,
    REVOKES,
    TXNS,
    placed,
    weighted,
)
from tests.model.naive_store import NaiveStore

EXAMPLES = int(os.environ.get("ETCD_EXAMPLES", "60"))

# No lease may run out between two calls.
LONG_GRANTS = GRANTS.map(lambda grant: grant._replace(ttl_s=600) if grant.ttl_s < 60 else grant)

COMMANDS = weighted(
    (4, PLAIN_PUTS),
    (3, PUTS),
    (1, DELETES),
    (5, RANGES),
    (5, TXNS),
    (1, COMPACTIONS),
    (1, LONG_GRANTS),
    (1, REVOKES),
    (1, KEEP_ALIVES),
)


def survivable(command: Any) -> Any:
    """The command, or one like it that does not end a real etcd.

    In a transaction that deletes without an end, a put of what was deleted that keeps the value or the lease ends the
    process: it passes etcd's checks, and finds nothing to keep.
    """
    if isinstance(command, Txn) and any(
        isinstance(each, DeleteRange) and each.range_end == ALL_FROM for each in operations(command)
    ):
        return _keeping_nothing(command)
    return command


def operations(txn: Txn) -> Iterator[Any]:
    """Those of both branches, and of the transactions within."""
    for each in txn.success + txn.failure:
        if isinstance(each, Txn):
            yield from operations(each)
        else:
            yield each


def _keeping_nothing(operation: Any) -> Any:
    if isinstance(operation, Txn):
        success, failure = (tuple(map(_keeping_nothing, branch)) for branch in operation[1:])
        return Txn(operation.compare, success, failure)
    if isinstance(operation, Put):
        return operation._replace(ignore_value=False, ignore_lease=False)
    return operation


def request_of(command: Command) -> Any:
    """The request that a client sends for a command."""
    message = kv.KvCommand.FromString(encode_command(command))
    return getattr(message, str(message.WhichOneof("request")))


def expected_of(model: NaiveStore, command: Command) -> Answer:
    """What the model answers, as it comes off the wire."""
    result = result_to_pb(model.execute(command))
    if isinstance(result, KvError):
        return Answer(None, code_of_number(result.code).name, result.message)
    return Answer(result)


class LockStep:
    """One real etcd, one cluster of ours and one model, which have been told the same things."""

    def __init__(self, theirs: Store, ours: Store) -> None:
        self.theirs, self.ours, self.model = theirs, ours, NaiveStore()
        self.calls = 0

    def execute(self, command: Command) -> None:
        """The same command to all of them. Fails where two of the answers differ."""
        command = survivable(command)
        if isinstance(command, LeaseKeepAlive):
            theirs, ours = (store.keep_alive(command.id) for store in (self.theirs, self.ours))
        else:
            request = request_of(command)
            theirs, ours = self.theirs.call(request), self.ours.call(request)
        expected = expected_of(self.model, command)
        self.calls += 1
        told = f"{command}\netcd:  {theirs}\nours:  {ours}\nmodel: {expected}"
        assert ours == theirs, f"we answer otherwise than etcd:\n{told}"
        assert expected == theirs, f"the model answers otherwise than etcd:\n{told}"

    def begin(self) -> None:
        """Neither keys nor leases, but the revision goes on."""
        self.execute(DeleteRange(b"\0", b"\0"))
        for each in list(self.model.leases):
            self.execute(LeaseRevoke(each))

    def compare_leases(self) -> None:
        """LeaseLeases, and of each lease its time and its keys."""
        theirs, ours = (store.call(lease.LeaseLeasesRequest()).message for store in (self.theirs, self.ours))
        assert theirs.header == ours.header
        # etcd sorts them by what they have left.
        assert sorted(each.ID for each in theirs.leases) == sorted(each.ID for each in ours.leases)
        assert sorted(each.ID for each in ours.leases) == sorted(self.model.leases)
        for each in [*self.model.leases, 12345]:
            request = lease.LeaseTimeToLiveRequest(ID=each, keys=True)
            theirs = self.theirs.call(request).message
            ours = self.ours.call(request).message
            # What is left is asked at two moments.
            assert abs(theirs.TTL - ours.TTL) <= 10
            # etcd lists the keys in no order.
            for message in (theirs, ours):
                message.header.Clear()
                message.TTL = min(message.TTL, 0)
                message.keys[:] = sorted(message.keys)
            assert theirs == ours


def test_both_answer_alike(both: tuple[Store, Store], tell: Callable[[str], None]) -> None:
    step = LockStep(*both)

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        report_multiple_bugs=False,
    )
    @given(st.lists(COMMANDS, min_size=15, max_size=40))
    def play(commands: list[Command]) -> None:
        step.begin()
        for command in commands:
            step.execute(placed(command, step.model.revision))
        step.compare_leases()

    play()
    tell(f"etcd: {step.calls:,} random calls answered alike, up to revision {step.model.revision:,}")
