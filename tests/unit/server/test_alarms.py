"""Which alarms stand."""

from dataclasses import replace

from paxos_rsm._proto import maintenance_pb2 as pb
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Put, SetQuota
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.server.alarms import alarm_text, alarms_of
from tests.unit.machines.helpers import Diary
from tests.unit.server.fakes import FakeReplica

ME = 0x31
THREE = Configuration(
    0xC1,
    (
        Member(2, 0x39, "n1", "http://a:2380"),
        Member(1, ME, "n2", "http://b:2380"),
        Member(3, 0x33, "n3", "http://c:2380", learner=True),
    ),
    QuorumSizes.majority(2),
)


def full() -> KeyValueMachine:
    machine = KeyValueMachine(KvCodec())
    machine.execute(Put(b"k", b"v"))
    machine.execute(SetQuota(1))
    return machine


def texts(machine: StateMachine, configuration: Configuration | None, *divergent: int) -> list[str]:
    status = FakeReplica().status()
    status = replace(status, configuration=configuration, divergent=frozenset(divergent))
    return [alarm_text(each).strip() for each in alarms_of(status, machine, ME)]


async def test_a_full_state_is_that_of_all_members() -> None:
    members = [f"memberID:{each} alarm:NOSPACE" for each in (0x31, 0x33, 0x39)]
    assert texts(full(), THREE) == members
    assert texts(full(), None) == members[:1]
    assert texts(KeyValueMachine(KvCodec()), THREE) == []
    assert texts(Diary(), THREE) == []


async def test_a_state_that_differs_is_one_members_whatever_the_machine() -> None:
    assert texts(Diary(), THREE, 2) == [f"memberID:{0x39} alarm:CORRUPT"]
    assert texts(full(), THREE, 3)[3:] == [f"memberID:{0x33} alarm:CORRUPT"]
    assert texts(Diary(), None, 3) == []


def test_it_is_written_as_etcd_writes_it() -> None:
    assert alarm_text(pb.AlarmMember(memberID=7, alarm=pb.NOSPACE)) == "memberID:7 alarm:NOSPACE "
