import json
import re
from collections.abc import Iterator

import pytest

from paxos_rsm.testing import PortHolder
from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import run


@pytest.fixture
def members() -> Iterator[list[Member]]:
    found = [Member(1), Member(2)]
    with serving(*found):
        yield found


@pytest.fixture
def nobody() -> Iterator[str]:
    """An endpoint where no server is."""
    with PortHolder() as holder:
        yield f"127.0.0.1:{holder.take(1)[0]}"


def test_health_of_all(members: list[Member]) -> None:
    result = run("endpoint", "health", "--endpoints", ",".join(member.endpoint for member in members))
    assert result.exit_code == 0
    for line, member in zip(result.stdout.splitlines(), members, strict=True):
        pattern = rf"{member.endpoint} is healthy: successfully committed proposal: took = [\d.]+(ms|µs|s)"
        assert re.fullmatch(pattern, line)
        assert not member.asked[0].serializable


@pytest.mark.parametrize("line", [["endpoint", "health", "--cluster"], ["endpoint", "--cluster", "health"]])
def test_the_whole_cluster_by_way_of_one(members: list[Member], line: list[str]) -> None:
    result = run(*line, "--endpoints", members[1].endpoint, "-w", "json")
    assert result.exit_code == 0, result.stderr
    assert [row["endpoint"] for row in json.loads(result.stdout)] == [each.endpoint for each in members]


def test_health_without_a_leader_or_a_server(members: list[Member], nobody: str) -> None:
    members[1].no_leader = True
    endpoints = f"{members[0].endpoint},{members[1].endpoint},{nobody}"
    result = run("endpoint", "health", "--endpoints", endpoints)
    assert (result.exit_code, result.stderr) == (1, "Error: unhealthy cluster\n")
    lines = result.stdout.splitlines()
    assert " is healthy" in lines[0]
    assert lines[1] == (
        f"{members[1].endpoint} is unhealthy: failed to commit proposal: etcdserver: no leader"
    )
    assert lines[2].startswith(f"{nobody} is unhealthy: failed to commit proposal: ")
    assert lines[2].endswith("connection refused")
    rows = json.loads(run("endpoint", "health", "-w", "json", "--endpoints", endpoints).stdout)
    assert [row["health"] for row in rows] == [True, False, False]
    assert [row.get("error") is None for row in rows] == [True, False, False]
    fields = run("endpoint", "health", "-w", "fields", "--endpoints", endpoints).stdout
    assert f'"Endpoint" : "{members[1].endpoint}"\n"Health" : false\n"Took" : ' in fields
    assert '"Error" : etcdserver: no leader\n\n' in fields
    table = run("endpoint", "health", "-w", "table", "--endpoints", endpoints).stdout
    assert "etcdserver: no leader" in table


def test_status(members: list[Member]) -> None:
    result = run("endpoint", "status", "--cluster", "--endpoints", members[0].endpoint)
    assert result.stdout == "".join(
        f"{member.endpoint}, {member.number}, 3.5.0, 20 kB, {leads}, false, 3, 12, 11, \n"
        for member, leads in zip(members, ("true", "false"), strict=True)
    )
    shown = json.loads(run("endpoint", "status", "-w", "json", "--endpoints", members[0].endpoint).stdout)
    assert shown == [
        {
            "Endpoint": members[0].endpoint,
            "Status": {
                "header": {"cluster_id": 9, "member_id": 1, "revision": 5, "raft_term": 3},
                "version": "3.5.0",
                "dbSize": 20480,
                "leader": 1,
                "raftIndex": 12,
                "raftTerm": 3,
                "raftAppliedIndex": 11,
            },
        }
    ]
    fields = run("endpoint", "status", "-w", "fields", "--endpoints", members[0].endpoint).stdout
    assert fields.endswith(f'"Errors" : []\n"Endpoint" : "{members[0].endpoint}"\n\n')
    assert (
        "raft applied index"
        in run("endpoint", "status", "-w", "table", "--endpoints", members[0].endpoint).stdout
    )


def test_hashkv(members: list[Member]) -> None:
    endpoint = members[0].endpoint
    assert run("endpoint", "hashkv", "--endpoints", endpoint).stdout == f"{endpoint}, 77\n"
    rows = json.loads(run("endpoint", "hashkv", "--rev", "4", "-w", "json", "--endpoints", endpoint).stdout)
    assert (rows[0]["HashKV"]["hash"], rows[0]["HashKV"]["compact_revision"]) == (77, -1)
    assert [request.revision for request in members[0].asked] == [0, 4]
    fields = run("endpoint", "hashkv", "-w", "fields", "--endpoints", endpoint).stdout
    assert fields.endswith(f'"RaftTerm" : 3\n"Endpoint" : "{endpoint}"\n"Hash" : 77\n\n')
    assert "│   77 │" in run("endpoint", "hashkv", "-w", "table", "--endpoints", endpoint).stdout


@pytest.mark.parametrize("what", ["status", "hashkv"])
def test_one_that_does_not_answer_is_named_and_makes_it_an_error(
    members: list[Member], nobody: str, what: str
) -> None:
    result = run("endpoint", what, "--endpoints", f"{members[0].endpoint},{nobody}")
    assert result.exit_code == 1
    assert result.stdout.startswith(members[0].endpoint)
    assert result.stderr.startswith(f"Error: no answer from 1 of 2 endpoints ({nobody}: ")
    alone = run("endpoint", what, "--endpoints", nobody)
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert alone.stderr.startswith(f"Error: no server answers ({nobody}: connection refused)")


def test_a_cluster_that_nobody_names(nobody: str) -> None:
    result = run("endpoint", "status", "--cluster", "--dial-timeout", "100ms", "--endpoints", nobody)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: no server could be reached")
