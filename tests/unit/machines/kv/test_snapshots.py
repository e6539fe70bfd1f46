"""The format of snapshots: this version's, and the one before it."""

from zlib import crc32

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.errors import MachineFailed
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.records import PACKED, Record, packed
from paxos_rsm.machines.kv.snapshots import HEADER, LEASE, MAGIC, MAGIC_2, MORE
from paxos_rsm.machines.kv.types import ALL_FROM, Compact, LeaseGrant, Put, Range, SetQuota

BASE: list[Record] = [(b"b", 2, 3, 1, b"1", 0), (b"a", 2, 4, 2, b"2", 7)]
LOG: list[Record] = [(b"b", 2, 5, 2, b"3", 0), (b"c", 6, 6, 1, b"4", 7)]
END = bytes(PACKED.size)


def sealed(data: bytes) -> list[bytes]:
    return [data + crc32(data).to_bytes(4, "big")]


def of_version_2() -> bytes:
    """As that version wrote it: of the keys at the compaction, those that were written again since came last."""
    head = MAGIC_2 + HEADER.pack(6, 4, 5, 1) + LEASE.pack(7, 60, 5)
    return head + packed(BASE[1:] + BASE[:1]) + END + packed(LOG) + END


def test_the_version_before_is_read_and_written_again_as_this_one() -> None:
    machine = KeyValueMachine(KvCodec())
    machine.restore(sealed(of_version_2()))
    machine._store.require_invariants()
    assert [kv.key for kv in machine.execute_query(Range(b"\0", ALL_FROM)).kvs] == [b"a", b"b", b"c"]  # type: ignore[union-attr]
    lease = machine.lease(7)
    assert lease is not None
    assert lease.keys == [b"a", b"c"]
    assert (machine.quota_bytes, machine.revision, machine.compacted_revision) == (0, 6, 4)
    stream = b"".join(machine.snapshot())
    assert stream.startswith(MAGIC)
    again = KeyValueMachine(KvCodec())
    again.restore([stream])
    assert again.digest() == machine.digest()


def test_equal_states_give_equal_bytes_whatever_is_left_to_tidy_up() -> None:
    machines = [KeyValueMachine(KvCodec()) for _ in range(2)]
    held = machines[0].snapshot()
    for machine in machines:
        for number in range(50):
            machine.execute(Put(b"%d" % (number % 9), b"%d" % number))
        machine.execute(LeaseGrant(60, 9))
        machine.execute(LeaseGrant(60, 3))
        machine.execute(Compact(40))
    first, second = (b"".join(machine.snapshot()) for machine in machines)
    assert first == second
    assert machines[0]._store.is_untidy is not machines[1]._store.is_untidy
    held.close()


def test_the_quota_and_the_running_hash_are_in_it() -> None:
    machine, copy = KeyValueMachine(KvCodec()), KeyValueMachine(KvCodec())
    machine.execute(SetQuota(5000))
    for number in range(40):
        machine.execute(Put(b"%d" % number))
        machine.running_digest() if number == 20 else None
        if number == 30:
            machine.execute(Compact(machine.revision))
    copy.restore(machine.snapshot())
    assert (copy.quota_bytes, copy.state_bytes) == (5000, machine.state_bytes)
    assert copy.is_over_quota == machine.is_over_quota is True
    for each in (machine, copy):
        each.execute(SetQuota(0))
        each.execute(Put(b"next"))
    assert copy.running_digest() == machine.running_digest()


def test_more_that_is_not_counted_than_there_is_cannot_be() -> None:
    data = MAGIC + HEADER.pack(1, -1, 0, 0) + MORE.pack(0, 1, 0) + END + END
    with pytest.raises(MachineFailed, match="1 changes are to be counted, and it has 0"):
        KeyValueMachine(KvCodec()).restore(sealed(data))


@pytest.mark.parametrize("magic", [b"paxos_rsm key-value 1\n", b"paxos_rsm key-value 4\n", bytes(len(MAGIC))])
def test_any_other_version_is_refused(magic: bytes) -> None:
    with pytest.raises(MachineFailed, match="not one of this version"):
        KeyValueMachine(KvCodec()).restore(sealed(magic + bytes(200)))
