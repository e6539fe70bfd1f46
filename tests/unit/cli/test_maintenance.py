import json

from paxos_rsm._proto import maintenance_pb2
from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import run


def test_alarms() -> None:
    member = Member(1)
    with serving(member):
        assert run("alarm", "list", "--endpoints", member.endpoint).stdout == "memberID:255 alarm:CORRUPT \n"
        shown = json.loads(run("alarm", "list", "-w", "json", "--endpoints", member.endpoint).stdout)
        assert shown["alarms"] == [{"memberID": 255, "alarm": 2}]


def test_no_alarm_of_ours_can_be_disarmed_and_it_is_said_how_each_ends() -> None:
    member = Member(1)
    member.alarms.append(maintenance_pb2.AlarmMember(memberID=7, alarm=maintenance_pb2.NOSPACE))
    with serving(member):
        done = run("alarm", "disarm", "--endpoints", member.endpoint)
        assert (done.exit_code, done.stdout) == (0, "")
        assert done.stderr == (
            "memberID:255 alarm:CORRUPT still stands: it ends by itself once that member has taken the state of the "
            "others\n"
            "memberID:7 alarm:NOSPACE still stands: it ends by itself once deletions and a compaction have made room\n"
        )
        shown = json.loads(run("alarm", "disarm", "-w", "json", "--endpoints", member.endpoint).stdout)
        assert shown.get("alarms", []) == []
        assert shown["header"]["member_id"] == 1


def test_what_a_server_disarms_is_printed() -> None:
    member = Member(1)
    member.alarms.append(maintenance_pb2.AlarmMember(memberID=7, alarm=maintenance_pb2.NOSPACE))
    member.disarms = True
    with serving(member):
        done = run("alarm", "disarm", "--endpoints", member.endpoint)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == "memberID:255 alarm:CORRUPT \nmemberID:7 alarm:NOSPACE \n"
        disarm = maintenance_pb2.AlarmRequest.DEACTIVATE
        asked = [(each.memberID, each.alarm) for each in member.asked if each.action == disarm]
        assert asked == [(255, maintenance_pb2.CORRUPT), (7, maintenance_pb2.NOSPACE)], "each by its name"
        again = run("alarm", "disarm", "--endpoints", member.endpoint)
        assert (again.exit_code, again.output) == (0, ""), "there is none left"


def test_defrag() -> None:
    members = [Member(1), Member(2)]
    with serving(*members):
        done = run("defrag", "--cluster", "--endpoints", members[0].endpoint)
        assert done.exit_code == 0
        assert done.stdout == "".join(
            f"Finished defragmenting etcd member[{member.endpoint}]\n" for member in members
        )
        members[1].no_leader = True
        part = run("defrag", "--cluster", "--endpoints", members[0].endpoint)
        assert part.exit_code == 1
        assert part.stdout == f"Finished defragmenting etcd member[{members[0].endpoint}]\n"
        assert part.stderr == (
            f"Failed to defragment etcd member[{members[1].endpoint}] (etcdserver: server stopped)\n"
            "Error: 1 of 2 servers did not do it\n"
        )
        rows = json.loads(run("defrag", "-w", "json", "--endpoints", members[0].endpoint).stdout)
        assert rows == [{"endpoint": members[0].endpoint, "error": None}]
