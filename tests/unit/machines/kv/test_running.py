"""The running hash: what shows in it, and what must not."""

import random

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.base import CheckedStateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.running import STRIDE
from paxos_rsm.machines.kv.types import (
    Command,
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseKeepAlive,
    Put,
    SetQuota,
)


def machine_of(*commands: Command) -> KeyValueMachine:
    machine = KeyValueMachine(KvCodec())
    for command in commands:
        machine.execute(command)
    return machine


def test_equal_logs_give_equal_hashes_whatever_is_read_and_tidied_in_between() -> None:
    rnd = random.Random(3)
    one, other = machine_of(), machine_of()
    assert isinstance(one, CheckedStateMachine)
    view = other.snapshot()
    for _ in range(40):
        for _ in range(rnd.randrange(3 * STRIDE)):
            key = b"%d" % rnd.randrange(30)
            at = max(1, one.revision - rnd.randrange(20))
            commands: list[Command] = [Put(key, key), DeleteRange(key), Compact(at)]
            command = rnd.choice(commands)
            assert one.execute(command) == other.execute(command)
        one.tidy(1000)
        if rnd.random() < 0.3:
            restored = KeyValueMachine(KvCodec())
            restored.restore(one.snapshot())
            one = restored
        assert one.running_digest() == other.running_digest()
    view.close()


def test_whatever_a_server_does_otherwise_shows() -> None:
    before: list[Command] = [Put(b"a", b"1"), LeaseGrant(60, 7), Compact(2)]
    others: list[list[Command]] = [
        [],
        [Put(b"a", b"1")],
        [Put(b"b", b"1")],
        [Put(b"a", b"1"), Put(b"a", b"1")],
        [DeleteRange(b"a")],
        [DeleteRange(b"a"), Compact(3)],
        [LeaseGrant(60, 8)],
        [LeaseKeepAlive(7)],
        [SetQuota(10**6)],
    ]
    hashes = {machine_of(*before, *more).running_digest() for more in others}
    assert len(hashes) == 9


def test_of_values_a_sample_shows() -> None:
    """Each record is one of the sample or not; over as many as it skips, exactly one is."""
    plain = [Put(b"%d" % number, b"one") for number in range(STRIDE)]
    expected = machine_of(*plain).running_digest()
    others = [[*plain[:at], plain[at]._replace(value=b"two"), *plain[at + 1 :]] for at in range(STRIDE)]
    differ = [machine_of(*other).running_digest() != expected for other in others]
    assert differ.count(True) == 1


def test_it_is_of_what_came_since_the_last_time() -> None:
    one, other = machine_of(Put(b"a", b"x")), machine_of(Put(b"a", b"y"))
    assert one.running_digest() != other.running_digest()
    one.execute(Put(b"b"))
    other.execute(Put(b"b"))
    assert one.running_digest() == other.running_digest()
    assert one.digest() != other.digest()


def test_what_is_compacted_in_between_is_counted() -> None:
    one, other = machine_of(Put(b"a", b"x")), machine_of(Put(b"a", b"y"))
    for each in (one, other):
        each.execute(Put(b"a", b"z"))
        each.execute(Compact(3))
    assert one.running_digest() != other.running_digest()
