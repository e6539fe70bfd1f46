import json

import pytest

from paxos_rsm._proto.maintenance_pb2 import MoveLeaderRequest
from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import run


@pytest.mark.parametrize("which", [(), ("n255",), ("ff",)])
def test_the_leader_is_found_by_way_of_any(which: tuple[str, ...]) -> None:
    leader, other = Member(1), Member(255)
    with serving(leader, other):
        result = run("move-leader", *which, "--endpoints", other.endpoint)
        assert result.stdout == "Leadership transferred from 1 to ff\n"
        assert leader.asked == [MoveLeaderRequest(targetID=255)]
        assert other.asked == []


def test_other_forms() -> None:
    with serving(leader := Member(1), Member(255)):
        command = ("move-leader", "--endpoints", leader.endpoint)
        assert json.loads(run(*command, "-w", "json").stdout)["header"]["member_id"] == 1
        assert '"RaftTerm" : 3' in run(*command, "-w", "fields").stdout
        assert run(*command, "-w", "table").stdout == "Leadership transferred from 1 to ff\n"


def test_nobody_to_hand_over_to() -> None:
    with serving(leader := Member(1)):
        result = run("move-leader", "--endpoints", leader.endpoint)
        assert result.exit_code == 1
        assert "no other voter that answers" in result.stderr
        assert run("move-leader", "n9", "--endpoints", leader.endpoint).exit_code == 1
