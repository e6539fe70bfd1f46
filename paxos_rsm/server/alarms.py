"""What is wrong with members, as etcd's alarms say it. None of them is set or cleared by hand: each is a fact.

NOSPACE
    the state has grown to its quota, and puts are refused. The state is one, so all members have it; it ends when
    deletions and a compaction have made room.
CORRUPT
    a member's state is not that of a majority (replica/comparison.py), as this server knows. It ends when that member
    has taken another's.
"""

from collections.abc import Iterator

from paxos_rsm._proto import maintenance_pb2 as pb
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.replica.api import ReplicaStatus

__all__ = ["alarm_text", "alarms_of"]


def alarms_of(status: ReplicaStatus, machine: StateMachine, member_id: int) -> list[pb.AlarmMember]:
    """The alarms that stand, by kind and member; ``member_id`` is this server's."""
    return list(_alarms(status, machine, member_id))


def _alarms(status: ReplicaStatus, machine: StateMachine, member_id: int) -> Iterator[pb.AlarmMember]:
    members = status.configuration.members if status.configuration is not None else ()
    if isinstance(machine, KeyValueMachine) and machine.is_over_quota:
        for each in sorted({member.member_id for member in members} or {member_id}):
            yield pb.AlarmMember(memberID=each, alarm=pb.NOSPACE)
    for each in sorted(member.member_id for member in members if member.incarnation in status.divergent):
        yield pb.AlarmMember(memberID=each, alarm=pb.CORRUPT)


def alarm_text(alarm: pb.AlarmMember) -> str:
    """As etcd lists it among the errors of its status."""
    return f"memberID:{alarm.memberID} alarm:{pb.AlarmType.Name(alarm.alarm)} "
