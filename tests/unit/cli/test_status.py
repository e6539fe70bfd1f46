"""``status`` against Admin services in this process."""

import json
import socket
from collections.abc import Iterator, Mapping
from concurrent import futures

import grpc
import pytest

from paxos_rsm._proto import admin_pb2, admin_pb2_grpc, paxos_pb2
from paxos_rsm.cli.status import as_json, why_silent
from paxos_rsm.client.types import MemberStatus
from paxos_rsm.testing import PortHolder
from tests.unit.cli.helpers import run

FIELDS = [
    "name",
    "member_id",
    "endpoint",
    "role",
    "learner",
    "leader",
    "ballot",
    "decided_slot",
    "applied_slot",
    "compacted_slot",
    "snapshot_slot",
    "revision",
    "log_bytes",
    "memory_bytes",
    "error",
]


class Admin(admin_pb2_grpc.AdminServicer):
    """Answers as n1 of a cluster whose members listen on the given ports."""

    def __init__(self, name: str, ports: Mapping[str, int]) -> None:
        self._name = name
        self._ports = ports

    def TakeSnapshot(
        self, request: admin_pb2.TakeSnapshotRequest, context: object
    ) -> admin_pb2.TakeSnapshotResponse:
        raise NotImplementedError

    def Status(self, request: admin_pb2.StatusRequest, context: object) -> admin_pb2.StatusResponse:
        return admin_pb2.StatusResponse(
            name=self._name,
            member_id=int(self._name[1:]),
            role="leader" if self._name == "n1" else "follower",
            leader="n1",
            ballot=paxos_pb2.Ballot(round=3, node=2**62 + 1),
            decided_slot=12,
            applied_slot=11,
            compacted_slot=2,
            snapshot_slot=7,
            learner=self._name == "n2",
            revision=9,
            log_bytes=2048,
            memory_bytes=3 << 20,
            digest=b"\xab\xcd" if request.digest else b"",
            members=[
                admin_pb2.MemberStatus(
                    member_id=int(name[1:]), name=name, client_urls=[f"http://127.0.0.1:{port}"]
                )
                for name, port in self._ports.items()
            ],
        )


@pytest.fixture
def ports() -> Iterator[dict[str, int]]:
    """Three members, of which n1 and n2 run; n3 does not."""
    with PortHolder() as holder:
        found = dict(zip(("n1", "n2", "n3"), holder.take(3), strict=True))
        servers = []
        for name in ("n1", "n2"):
            server = grpc.server(futures.ThreadPoolExecutor(2))
            admin_pb2_grpc.add_AdminServicer_to_server(Admin(name, found), server)
            server.add_insecure_port(f"127.0.0.1:{found[name]}")
            server.start()
            servers.append(server)
        yield found
        for server in servers:
            server.stop(0).wait()


def test_json_shows_every_member_the_unreachable_too_by_way_of_any(ports: dict[str, int]) -> None:
    result = run("status", "-w", "json", "--endpoints", f"127.0.0.1:{ports['n2']}")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [list(row) for row in rows] == [FIELDS] * 3
    assert rows[0] == {
        "name": "n1",
        "member_id": 1,
        "endpoint": f"127.0.0.1:{ports['n1']}",
        "role": "leader",
        "learner": False,
        "leader": "n1",
        "ballot": {"round": 3, "node": 2**62 + 1},
        "decided_slot": 12,
        "applied_slot": 11,
        "compacted_slot": 2,
        "snapshot_slot": 7,
        "revision": 9,
        "log_bytes": 2048,
        "memory_bytes": 3 << 20,
        "error": None,
    }
    dead = {
        "name": "n3",
        "member_id": 3,
        "endpoint": f"127.0.0.1:{ports['n3']}",
        "error": "connection refused",
    }
    assert rows[2] == {**dict.fromkeys(FIELDS), **dead}


def test_a_member_without_a_vote_is_shown_as_one(ports: dict[str, int]) -> None:
    table = run("status", "-w", "table", "--endpoints", f"127.0.0.1:{ports['n1']}").stdout
    (row,) = [line for line in table.splitlines() if f"127.0.0.1:{ports['n2']}" in line]
    assert "learner" in row
    assert "follower" not in table


def test_a_member_that_was_asked_and_is_dead_has_one_row(ports: dict[str, int]) -> None:
    endpoints = ",".join(f"127.0.0.1:{port}" for port in reversed(ports.values()))
    rows = json.loads(run("status", "-w", "json", "--endpoints", endpoints).stdout)
    assert [row["name"] for row in rows] == ["n1", "n2", "n3"]


def test_an_endpoint_that_nobody_claims_has_a_row(ports: dict[str, int]) -> None:
    with PortHolder() as holder:
        nobody = f"127.0.0.1:{holder.take(1)[0]}"
        endpoints = f"127.0.0.1:{ports['n1']},{nobody}"
        rows = json.loads(run("status", "-w", "json", "--endpoints", endpoints).stdout)
    assert [(row["name"], row["member_id"]) for row in rows] == [
        ("n1", 1),
        ("n2", 2),
        ("n3", 3),
        (None, None),
    ]
    assert (rows[3]["endpoint"], rows[3]["error"]) == (nobody, "connection refused")


def test_digest_is_asked_for(ports: dict[str, int]) -> None:
    rows = json.loads(
        run("status", "--digest", "-w", "json", "--endpoints", f"127.0.0.1:{ports['n1']}").stdout
    )
    assert [row["digest"] for row in rows] == ["abcd", "abcd", None]


def test_table_is_the_default_and_shows_errors(ports: dict[str, int]) -> None:
    result = run("status", "--endpoints", f"127.0.0.1:{ports['n1']}")
    assert result.exit_code == 0
    assert "3.0001" in result.stdout  # the ballot, its node cut to four digits
    for word in ("leader", "learner", "unreachable", "connection refused", "2.0 KiB", "3.0 MiB"):
        assert word in result.stdout


def test_simple_is_a_line_for_each(ports: dict[str, int]) -> None:
    result = run("status", "-w", "simple", "--digest", "--endpoints", f"127.0.0.1:{ports['n1']}")
    lines = result.stdout.splitlines()
    assert lines[0] == f"n1 127.0.0.1:{ports['n1']} leader ballot 3 applied 11 revision 9 digest abcd"
    assert lines[2] == f"n3 127.0.0.1:{ports['n3']} unreachable: connection refused"


def test_fields_are_a_line_each(ports: dict[str, int]) -> None:
    output = run("status", "-w", "fields", "--endpoints", f"127.0.0.1:{ports['n1']}").stdout
    assert output.startswith('"Name" : "n1"\n"MemberId" : 1\n')
    assert output.count('"Error" : ') == 3


def test_a_member_that_was_added_and_has_yet_to_start_is_told_apart() -> None:
    told = "it advertises no client URL that this client can use"
    added = MemberStatus("", 7, "", error=told)
    assert as_json(added, None, False)["error"] == "it was added, and has yet to start"
    assert why_silent(MemberStatus("n7", 7, "", error=told)) == told
    assert (
        why_silent(MemberStatus("", 0, "h:1", error="UNAVAILABLE: connection refused"))
        == "connection refused"
    )


def test_nobody_there_is_a_bad_connection_and_still_a_row() -> None:
    with PortHolder() as holder:
        nobody = f"127.0.0.1:{holder.take(1)[0]}"
        result = run("status", "-w", "json", "--endpoints", nobody)
    assert result.exit_code == 2
    assert [row["error"] for row in json.loads(result.stdout)] == ["connection refused"]
    assert result.stderr.startswith(f"Error: no server answers ({nobody}: connection refused)")


def test_a_server_that_does_not_answer_costs_no_longer_than_the_dial_timeout() -> None:
    with socket.socket() as silent:  # connects, as a stopped process does, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        result = run("status", "--dial-timeout", "200ms", "-w", "json", "--endpoints", endpoint)
    assert result.exit_code == 2
    assert json.loads(result.stdout)[0]["error"] == "no answer within 0.2 s"


def test_another_kind_of_server_is_told_apart() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    result = run("status", "-w", "json", "--endpoints", f"127.0.0.1:{port}")
    server.stop(0).wait()
    assert json.loads(result.stdout)[0]["error"] == "not a paxos_rsm server"
