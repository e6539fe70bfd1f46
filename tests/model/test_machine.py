"""The key-value machine, driven as the log drives it, answers what the naive model answers: everything, always.

A few hundred examples by default; ``MODEL_EXAMPLES=10000`` (``make model``) plays as many. The examples are the same in
every run; ``HYPOTHESIS_PROFILE=explore`` draws new ones.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paxos_rsm.codec.kv import KvCodec, encode_command, response_from_bytes, result_to_pb
from paxos_rsm.machines.base import Position, Timeout, Timer
from paxos_rsm.machines.kv.check import is_read_only
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import (
    BAD_COMMAND,
    NOT_A_QUERY,
    Command,
    KvError,
    LeaseGrant,
    LeaseGrantResult,
    LeaseKeepAliveResult,
    Put,
    Range,
    Result,
    Txn,
)
from tests.forms import of_form
from tests.model.commands import (
    COMPACTIONS,
    DELETES,
    DISTANCES,
    GRANTS,
    KEEP_ALIVES,
    LEASE_IDS,
    PLAIN_PUTS,
    PUTS,
    QUOTAS,
    RANGES,
    REVOKES,
    TXNS,
    placed,
    weighted,
)
from tests.model.naive_store import Event, NaiveStore

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", of_form(200, 600)))
STEPS = 30

# Nothing between them in a frame is different from one by one; few in it, so that a failure stays small.
FRAMES = st.lists(
    weighted((4, PUTS), (1, DELETES), (2, TXNS), (1, GRANTS), (1, REVOKES)), min_size=2, max_size=5
)

BAD_BYTES = st.sampled_from([b"", b"\x00", b"\xff" * 7, b"\x12\x05\x0a\x09", b"\x3a\x02"])


class MachineBesideModel(RuleBasedStateMachine):
    """Both are given the same commands; every rule compares what they answer."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = KeyValueMachine(KvCodec())
        self.model = NaiveStore()
        self.slot = 0
        # Of each lease: the timers that it was given, oldest first. The last one counts.
        self.timers: dict[int, list[Timer]] = {}
        self.views: list[tuple[Iterator[bytes], NaiveStore, bytes]] = []

    @initialize()
    def grant_one(self) -> None:
        """Most puts of PLAIN_PUTS that name a lease name this one."""
        self.execute(LeaseGrant(60, 7))

    # ---- commands ----------------------------------------------------------------------------------------

    def execute(self, *drawn: Any) -> None:
        """Commands as one frame. Their revisions are placed by the model, which is ahead of the machine here."""
        self.slot += 1
        frame: list[Command] = []
        expected: list[Result] = []
        armed: list[int] = []
        for each in drawn:
            command = placed(each, self.model.revision)
            result = self.model.execute(command)
            if isinstance(result, LeaseGrantResult) or (
                isinstance(result, LeaseKeepAliveResult) and result.ttl_s
            ):
                armed.append(command.id)
            frame.append(command)
            expected.append(result)
        results = self.machine.apply_batch([encode_command(each) for each in frame], Position(self.slot, 0))
        for command, result, answer in zip(frame, results, expected, strict=True):
            same(result, answer, command)
        self.take_timers([lease for lease in armed if lease in self.model.leases])

    def take_timers(self, armed: Sequence[int]) -> None:
        """What was granted or renewed is armed: each once, in the order in which it was done last."""
        timers = self.machine.take_timers()
        last = [lease for at, lease in enumerate(armed) if lease not in armed[at + 1 :]]
        assert [timer.timer for timer in timers] == last
        for timer in timers:
            assert timer.duration_ms == self.model.leases[timer.timer] * 1000
            before = self.timers.setdefault(timer.timer, [])
            assert timer.armed not in [each.armed for each in before]
            before.append(timer)

    @rule(command=PUTS)
    def put(self, command: Command) -> None:
        self.execute(command)

    @rule(commands=st.lists(PLAIN_PUTS, min_size=2, max_size=6))
    def write(self, commands: list[Command]) -> None:
        """So that there is a history to speak of."""
        self.execute(*commands)

    @rule(command=DELETES)
    def delete(self, command: Command) -> None:
        self.execute(command)

    @rule(command=TXNS)
    def txn(self, command: Command) -> None:
        self.execute(command)

    @rule(command=TXNS)
    def ask_a_txn(self, command: Txn) -> None:
        self.query(placed(command, self.model.revision))

    @rule(command=RANGES)
    def range_by_the_log(self, command: Command) -> None:
        self.execute(command)

    @rule(command=RANGES)
    def ask_a_range(self, command: Command) -> None:
        self.query(placed(command, self.model.revision))

    @rule(command=COMPACTIONS)
    def compact(self, command: Command) -> None:
        self.execute(command)

    @rule(commands=FRAMES)
    def frame(self, commands: list[Command]) -> None:
        self.execute(*commands)

    @rule(data=BAD_BYTES)
    def garbage(self, data: bytes) -> None:
        self.slot += 1
        assert self.machine.apply_batch([data], Position(self.slot, 0)) == [BAD_COMMAND]
        assert self.machine.query(data) == self.machine.encode_result(BAD_COMMAND)

    def query(self, command: Command) -> None:
        """Asks without the log: what would write is refused, unless it is refused for what it is."""
        answer = self.machine.execute_query(command)
        if is_read_only(command):
            same(answer, self.model.execute(command), command)
        else:
            refused = copy.deepcopy(self.model).execute(command)
            assert answer in (NOT_A_QUERY, refused)
            assert isinstance(answer, KvError)

    # ---- the size of the state ---------------------------------------------------------------------------

    @rule(command=QUOTAS)
    def set_quota(self, command: Command) -> None:
        self.execute(command)

    @rule(records_max=st.integers(0, 4))
    def tidy(self, records_max: int) -> None:
        """What nobody sees; how much a frame drops by itself depends on how much there is."""
        self.machine.tidy(records_max)

    # ---- leases ------------------------------------------------------------------------------------------

    @rule(command=GRANTS)
    def grant(self, command: Command) -> None:
        self.execute(command)

    @rule(command=KEEP_ALIVES)
    def keep_alive(self, command: Command) -> None:
        self.execute(command)

    @rule(command=REVOKES)
    def revoke(self, command: Command) -> None:
        self.execute(command)

    @rule(leases=st.lists(LEASE_IDS, min_size=1, max_size=3), stale=st.booleans())
    def time_out(self, leases: list[int], stale: bool) -> None:
        """A time-out counts where it is of the last arming of a lease that is there: not before, not twice."""
        timeouts = []
        for lease in leases:
            known = self.timers.get(lease, [])
            if not known or (stale and len(known) < 2):
                timeouts.append(Timeout(lease, 0))
                continue
            timeouts.append(Timeout(lease, known[0 if stale else -1].armed))
            if not stale and lease in self.model.leases:
                self.model.end(lease)
        self.slot += 1
        self.machine.time_out(timeouts, Position(self.slot, 0))

    # ---- snapshots ---------------------------------------------------------------------------------------

    @rule()
    def restore(self) -> None:
        """Goes on with a machine that was restored; its leases are all armed again, as they were."""
        restored = KeyValueMachine(KvCodec())
        restored.restore(self.machine.snapshot())
        assert restored.digest() == self.machine.digest()
        armed = restored.take_timers()
        assert sorted(armed) == sorted(self.timers[lease][-1] for lease in self.model.leases)
        self.machine = restored

    @precondition(lambda self: len(self.views) < 2)
    @rule()
    def take_a_view(self) -> None:
        """A snapshot that is read later, when the machine has gone on."""
        self.views.append((self.machine.snapshot(), copy.deepcopy(self.model), self.machine.digest()))

    @precondition(lambda self: self.views)
    @rule()
    def read_a_view(self) -> None:
        view, model, digest = self.views.pop(0)
        restored = KeyValueMachine(KvCodec())
        restored.restore(view)
        assert restored.digest() == digest
        same_state(restored, model)

    # ---- changes -----------------------------------------------------------------------------------------

    @rule(distance=DISTANCES, records_max=st.integers(1, 5))
    def watch(self, distance: int, records_max: int) -> None:
        same_changes(self.machine, self.model, self.model.revision + 1 - max(0, distance), records_max)

    # ---- always ------------------------------------------------------------------------------------------

    @invariant()
    def the_same_at_a_glance(self) -> None:
        assert self.machine.revision == self.model.revision
        assert self.machine.compacted_revision == self.model.compacted
        assert self.machine.lease_ids() == sorted(self.model.leases)
        assert self.machine.quota_bytes == self.model.quota
        assert self.machine.state_bytes == self.model.state_bytes()
        assert self.machine.is_over_quota == (0 < self.model.quota <= self.model.state_bytes())
        self.machine._store.require_invariants()

    def teardown(self) -> None:
        same_state(self.machine, self.model)


def same(result: Any, expected: Result, command: Command) -> None:
    """Equal, of the same types, and it survives the wire."""
    assert result == expected, command
    assert type(result) is type(expected), command
    message = result_to_pb(result)
    encoded = KeyValueMachine(KvCodec()).encode_result(result)
    assert response_from_bytes(encoded) == message, command


def same_state(machine: KeyValueMachine, model: NaiveStore) -> None:
    """Every revision that may be read, the leases, and every change since the compaction."""
    for revision in model.readable():
        everything = Range(b"\0", b"\0", revision=revision)
        same(machine.execute_query(everything), model.execute(everything), everything)
    assert len(machine) == len(model.within(b"\0", b"\0", model.revision))
    assert machine.lease_ids() == sorted(model.leases)
    for each, ttl_s in model.leases.items():
        lease = machine.lease(each)
        assert lease is not None
        assert (lease.ttl_s, lease.keys) == (ttl_s, model.keys_of(each))
    same_changes(machine, model, max(1, model.compacted + 1), 3)


def same_changes(machine: KeyValueMachine, model: NaiveStore, first_revision: int, records_max: int) -> None:
    """Page by page: every change once and in order, whole revisions, and what each has replaced."""
    expected: list[Event] = [event for event in model.events if event[2] >= first_revision]
    found: list[Any] = []
    following = first_revision
    while True:
        try:
            page = machine.changes(following, records_max)
        except ValueError:
            assert following <= model.compacted
            return
        assert following > model.compacted
        if not page:
            break
        assert len(page) <= records_max or len({record[2] for record in page}) == 1
        found += page
        following = page[-1][2] + 1
    assert found == expected
    for record in found:
        assert machine.previous(record) == model.replaced(record), record


def test_the_comparison_can_fail() -> None:
    """One that cannot shows nothing: a machine that has missed one write is told from the model, everywhere."""
    play: Any = MachineBesideModel()
    play.execute(Put(b"a", b"x"), LeaseGrant(60, 7))
    play.machine.execute(Put(b"a", b"y"))
    for wrong in (
        lambda: play.execute(Put(b"b")),
        lambda: play.query(Range(b"a")),
        play.the_same_at_a_glance,
        lambda: play.watch(2, 1),
        play.teardown,
    ):
        with pytest.raises(AssertionError):
            wrong()


# Until the last example: to shrink a failure takes longer than to find it.
pytestmark = pytest.mark.timeout(600 + EXAMPLES)

TestMachineBesideModel = MachineBesideModel.TestCase
TestMachineBesideModel.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
