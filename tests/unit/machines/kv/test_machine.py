from zlib import crc32

import pytest

from paxos_rsm.codec.kv import KvCodec, encode_command, encode_result, response_from_bytes
from paxos_rsm.errors import MachineFailed
from paxos_rsm.machines.base import BatchStateMachine, Position
from paxos_rsm.machines.kv.machine import CommandCodec, KeyValueMachine
from paxos_rsm.machines.kv.records import LEASE_BYTES, PACKED, RECORD_BYTES, Record, packed
from paxos_rsm.machines.kv.snapshots import HEADER, MAGIC, MORE
from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    BAD_COMMAND,
    EMPTY_KEY,
    FUTURE_REVISION,
    LEASE_PROVIDED,
    NO_SPACE,
    NOT_A_QUERY,
    VALUE_PROVIDED,
    Command,
    Compact,
    CompactResult,
    Compare,
    DeleteRange,
    DeleteRangeResult,
    KeyValue,
    KvError,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseRevoke,
    LeaseRevokeResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Result,
    SetQuota,
    SetQuotaResult,
    Txn,
    TxnResult,
)

AT = Position(7, 0)


@pytest.fixture
def machine() -> KeyValueMachine:
    return KeyValueMachine(KvCodec())


def apply(machine: KeyValueMachine, *commands: Command) -> list[Result]:
    return machine.apply_batch([encode_command(command) for command in commands], AT)


def test_a_batch_of_commands_gives_a_result_for_each(machine: KeyValueMachine) -> None:
    assert isinstance(machine, BatchStateMachine)
    assert apply(
        machine,
        Put(b"a", b"1"),
        Range(b"a"),
        Txn((Compare(b"a"),), (), (Put(b"b", b"2"),)),
        DeleteRange(b"a"),
        Compact(4),
    ) == [
        PutResult(2),
        RangeResult(2, (KeyValue(b"a", 2, 2, 1, b"1"),), False, 1),
        TxnResult(3, False, (PutResult(3),)),
        DeleteRangeResult(4, 1),
        CompactResult(4),
    ]
    assert (machine.revision, machine.compacted_revision, len(machine)) == (4, 4, 1)


def test_one_command_gives_its_result_in_bytes(machine: KeyValueMachine) -> None:
    assert machine.apply(encode_command(Put(b"a")), AT) == encode_result(PutResult(2))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xff\xff", BAD_COMMAND),
        (b"", BAD_COMMAND),
        (encode_command(Put(b"k", b"v" * 200))[:-1], BAD_COMMAND),
        (b"\x7a\x00", BAD_COMMAND),  # a kind of a later version
        (encode_command(Put(b"", b"v")), EMPTY_KEY),
        (encode_command(Put(b"a", b"v", ignore_value=True)), VALUE_PROVIDED),
        (encode_command(Put(b"a", lease=1, ignore_lease=True)), LEASE_PROVIDED),
        (encode_command(Range(b"a", revision=9)), FUTURE_REVISION),
    ],
)
def test_bad_commands_are_answered_and_change_nothing(
    machine: KeyValueMachine, data: bytes, error: KvError
) -> None:
    apply(machine, Put(b"a", b"1"))
    before = machine.digest()
    assert machine.apply_batch([data], AT) == [error]
    assert machine.apply(data, AT) == encode_result(error)
    assert machine.digest() == before


# ---- queries ---------------------------------------------------------------------------------------------------


def test_queries_answer_from_the_state_at_any_revision(machine: KeyValueMachine) -> None:
    apply(machine, Put(b"a", b"1"), Put(b"a", b"2"))
    past = machine.execute_query(Range(b"a", revision=2))
    assert past == RangeResult(3, (KeyValue(b"a", 2, 2, 1, b"1"),), False, 1)
    assert machine.query(encode_command(Range(b"a", revision=2))) == encode_result(past)
    both = Txn((Compare(b"a"),), (), (Range(b"a"), Txn((), (Range(b"b"),))))
    assert machine.execute_query(both) == TxnResult(
        3,
        False,
        (
            RangeResult(3, (KeyValue(b"a", 2, 3, 2, b"2"),), False, 1),
            TxnResult(3, True, (RangeResult(3, (), False, 0),)),
        ),
    )


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Put(b"a"), NOT_A_QUERY),
        (DeleteRange(b"a"), NOT_A_QUERY),
        (Compact(1), NOT_A_QUERY),
        (Txn((), (), (Txn((), (Put(b"a"),)),)), NOT_A_QUERY),  # also where that branch is not taken
        (Range(b""), EMPTY_KEY),
        (Range(b"a", revision=99), FUTURE_REVISION),
    ],
)
def test_a_query_changes_nothing(machine: KeyValueMachine, command: Command, error: KvError) -> None:
    apply(machine, Put(b"a", b"1"))
    before = machine.digest()
    assert machine.execute_query(command) == error
    assert response_from_bytes(machine.query(encode_command(command))) == error
    assert machine.digest() == before


def test_a_query_of_garbage_is_answered(machine: KeyValueMachine) -> None:
    assert response_from_bytes(machine.query(b"\xff")) == BAD_COMMAND


# ---- snapshots -------------------------------------------------------------------------------------------------


@pytest.fixture
def lived(machine: KeyValueMachine) -> KeyValueMachine:
    apply(machine, *(Put(b"key %d" % (n % 30), b"value %d" % n) for n in range(90)))
    apply(machine, DeleteRange(b"key 1", b"key 15"), Compact(60))
    apply(machine, Txn((), (Put(b"x"), Put(b"y", bytes(1000)))), DeleteRange(b"key 2"), Put(b"key 10"))
    return machine


def test_a_snapshot_restores_the_same_state(lived: KeyValueMachine) -> None:
    copy = KeyValueMachine(KvCodec())
    copy.restore(lived.snapshot())
    assert copy.digest() == lived.digest()
    assert list(copy.snapshot()) == list(lived.snapshot())
    for revision in range(60, lived.revision + 1):
        everything = Range(b"\0", ALL_FROM, revision=revision)
        assert copy.execute_query(everything) == lived.execute_query(everything)
    # And it goes on alike.
    for command in (Put(b"key 3", b"next"), DeleteRange(b"key 0"), Compact(80), Compact(94)):
        assert apply(copy, command) == apply(lived, command)
        assert copy.digest() == lived.digest()


def test_a_snapshot_is_of_the_moment_of_the_call(lived: KeyValueMachine) -> None:
    before = lived.digest()
    view = lived.snapshot()
    apply(lived, Put(b"key 3", b"later"), DeleteRange(b"x", ALL_FROM), Compact(90))
    copy = KeyValueMachine(KvCodec())
    copy.restore(view)
    assert copy.digest() == before != lived.digest()


def test_states_that_differ_only_in_their_history_have_different_digests() -> None:
    digests = set()
    for commands in (
        [Put(b"a", b"1"), Put(b"a", b"2")],
        [Put(b"a", b"1"), Put(b"a", b"2"), Compact(2)],
        [Put(b"a", b"1"), Put(b"a", b"2"), Compact(3)],
        [Put(b"a", b"0"), Put(b"a", b"2")],
        [Put(b"b", b"1"), Put(b"a", b"2")],
    ):
        machine = KeyValueMachine(KvCodec())
        apply(machine, *commands)
        digests.add(machine.digest())
    assert len(digests) == 5


def test_a_damaged_snapshot_is_refused_and_the_state_stays(lived: KeyValueMachine) -> None:
    apply(small := KeyValueMachine(KvCodec()), Put(b"a", b"1"), Put(b"a", b"2"), Compact(2))
    stream = b"".join(small.snapshot())
    before = lived.digest()
    for at in range(len(stream)):
        for broken in (stream[:at], stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]):
            with pytest.raises(MachineFailed, match="the snapshot of the key-value store cannot be restored"):
                lived.restore([broken])
    assert lived.digest() == before


def snapshot_of(revision: int, compacted: int, base: list[Record], log: list[Record]) -> bytes:
    """A snapshot of these records, sound or not, with the right checksum."""
    data = MAGIC + HEADER.pack(revision, compacted, 0, 0) + MORE.pack(0, 0, 0)
    for records in (base, log):
        data += packed(records) + bytes(PACKED.size)
    return data + crc32(data).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("revision", "compacted", "base", "log"),
    [
        (3, -1, [], []),  # a revision that nothing made
        (3, -1, [], [(b"a", 3, 3, 1, b"", 0)]),  # revision 2 is missing
        (3, 2, [], [(b"a", 2, 2, 1, b"", 0), (b"a", 2, 3, 2, b"", 0)]),  # the log goes below the compaction
        (2, -1, [], [(b"a", 1, 2, 1, b"", 0)]),  # made before it was written
        (2, -1, [], [(b"", 2, 2, 1, b"", 0)]),  # no key
        (3, -1, [], [(b"a", 2, 2, 1, b"", 0), (b"a", 0, 3, 0, b"left", 0)]),  # a deletion that has a value
        (2, 2, [(b"a", 2, 2, -1, b"", 0)], []),
        (2, 2, [(b"a", 3, 2, 1, b"", 0)], []),
        (1, -1, [(b"a", -5, -5, 1, b"", 0)], []),
        (1, -2, [], []),
        (2**63 - 1, 2**63 - 1, [], []),  # no revision would be left
    ],
)
def test_a_snapshot_of_what_cannot_be_is_refused(
    revision: int, compacted: int, base: list[Record], log: list[Record]
) -> None:
    """Found by fuzzing: with the right checksum, it was believed and broke the store's invariants."""
    with pytest.raises(MachineFailed, match="cannot be restored"):
        KeyValueMachine(KvCodec()).restore([snapshot_of(revision, compacted, base, log)])


def test_the_snapshots_that_are_made_by_hand_here_are_sound() -> None:
    machine = KeyValueMachine(KvCodec())
    base: list[Record] = [(b"a", 2, 2, 1, b"", 0)]
    machine.restore([snapshot_of(4, 2, base, [(b"b", 3, 3, 1, b"", 0), (b"b", 0, 4, 0, b"", 0)])])
    assert (machine.revision, machine.compacted_revision, len(machine)) == (4, 2, 1)


def test_an_empty_store_has_a_snapshot_too() -> None:
    machine, copy = KeyValueMachine(KvCodec()), KeyValueMachine(KvCodec())
    copy.restore(machine.snapshot())
    assert copy.digest() == machine.digest()


def test_any_codec_will_do() -> None:
    class Words:
        """put and get, in plain words."""

        def decode(self, data: bytes) -> Command | KvError:
            word, key, *value = data.split()
            return Put(key, value[0]) if word == b"put" else Range(key)

        def encode_result(self, result: Result) -> bytes:
            return repr(result).encode()

    codec: CommandCodec = Words()
    machine = KeyValueMachine(codec)
    assert machine.apply(b"put a 1", AT) == b"PutResult(revision=2, prev_kv=None)"
    assert b"value=b'1'" in machine.query(b"get a")


# ---- the quota -------------------------------------------------------------------------------------------------


def test_over_its_quota_the_store_refuses_what_would_grow_and_takes_what_shrinks(
    machine: KeyValueMachine,
) -> None:
    one = 1 + 1 + RECORD_BYTES
    assert apply(machine, SetQuota(2 * one), Put(b"a", b"1"), Put(b"b", b"2"), Put(b"c", b"3")) == [
        SetQuotaResult(1, 0),
        PutResult(2),
        PutResult(3),
        NO_SPACE,
    ]
    assert (machine.quota_bytes, machine.state_bytes, machine.is_over_quota) == (2 * one, 2 * one, True)
    in_a_branch_not_taken = Txn((), (Range(b"a"),), (Txn((), (Put(b"x"),)),))
    assert apply(machine, in_a_branch_not_taken, LeaseGrant(60, 1), Put(b"")) == [
        NO_SPACE,
        NO_SPACE,
        EMPTY_KEY,
    ]
    assert apply(
        machine, Txn((), (Range(b"a"), DeleteRange(b"b"))), Put(b"b"), Compact(4), Put(b"b", b"4")
    ) == [
        TxnResult(
            4, True, (RangeResult(3, (KeyValue(b"a", 2, 2, 1, b"1"),), False, 1), DeleteRangeResult(4, 1))
        ),
        NO_SPACE,
        CompactResult(4),
        PutResult(5),
    ]
    assert machine.is_over_quota
    assert apply(machine, SetQuota(0), Put(b"c", b"3")) == [SetQuotaResult(5, 2 * one), PutResult(6)]
    assert not machine.is_over_quota


def test_a_lease_that_ends_makes_room_though_nothing_may_be_put(machine: KeyValueMachine) -> None:
    apply(machine, LeaseGrant(60, 7), Put(b"a", b"1", 7))
    before = machine.state_bytes
    assert before == LEASE_BYTES + 2 + RECORD_BYTES
    apply(machine, SetQuota(1))
    assert apply(machine, LeaseKeepAlive(7), LeaseRevoke(7), Put(b"b")) == [
        LeaseKeepAliveResult(2, 7, 60),
        LeaseRevokeResult(3),
        NO_SPACE,
    ]
    # The deletion is a record too, until it is compacted.
    assert machine.state_bytes == 2 + RECORD_BYTES + 1 + RECORD_BYTES
    assert apply(machine, Compact(3), Put(b"b")) == [CompactResult(3), PutResult(4)]


def test_one_command_may_go_over_the_quota_and_no_other(machine: KeyValueMachine) -> None:
    apply(machine, SetQuota(400))
    both = Txn((), (Put(b"a", bytes(1000)), Put(b"b", bytes(1000))))
    assert isinstance(apply(machine, both)[0], TxnResult)
    assert machine.state_bytes == 2 * (1001 + RECORD_BYTES)
    assert apply(machine, both, Put(b"c")) == [NO_SPACE, NO_SPACE]
