import json

from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import run


def test_alarms() -> None:
    member = Member(1)
    with serving(member):
        assert run("alarm", "list", "--endpoints", member.endpoint).stdout == "memberID:255 alarm:CORRUPT \n"
        shown = json.loads(run("alarm", "list", "-w", "json", "--endpoints", member.endpoint).stdout)
        assert shown["alarms"] == [{"memberID": 255, "alarm": 2}]


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
