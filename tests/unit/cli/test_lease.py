import asyncio
import json
from typing import Any

import pytest

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm._proto import lease_pb2
from paxos_rsm.cli import lease as lease_module
from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run

Client = type[FakeClient]


def test_grant_prints_its_number(client: Client) -> None:
    result = run("lease", "grant", "100", "--id", "ff")
    assert (result.exit_code, result.stdout) == (0, "lease 00000000000000ff granted with TTL(100s)\n")
    number = int(run("lease", "grant", "5").stdout.split()[1], 16)
    assert 0 < number < 2**63
    assert client.machine.lease_ids() == sorted([255, number])
    again = run("lease", "grant", "100", "--id", "ff")
    assert (again.exit_code, again.stderr) == (1, "Error: etcdserver: lease already exists\n")


def test_grant_as_json(client: Client) -> None:
    shown = json.loads(run("lease", "grant", "100", "--id", "ff", "-w", "json").stdout)
    assert shown == {
        "cluster_id": 11,
        "member_id": 22,
        "revision": 1,
        "raft_term": 33,
        "ID": 255,
        "TTL": 100,
        "Error": "",
    }


def test_global_options_may_stand_after_the_group_too(client: Client) -> None:
    shown = run("lease", "-w", "fields", "grant", "100", "--id", "ff").stdout
    assert shown.endswith('"ID" : 255\n"TTL" : 100\n')


def test_revoke_takes_the_keys_with_it(client: Client) -> None:
    run("lease", "grant", "100", "--id", "ff")
    run("put", "k", "v", "--lease", "ff")
    assert run("lease", "revoke", "ff").stdout == "lease 00000000000000ff revoked\n"
    assert not client.stored()
    gone = run("lease", "revoke", "ff")
    assert (gone.exit_code, gone.stderr) == (1, "Error: etcdserver: requested lease not found\n")


def test_keep_alive_once(client: Client) -> None:
    run("lease", "grant", "100", "--id", "ff")
    result = run("lease", "keep-alive", "ff", "--once")
    assert (result.exit_code, result.stdout) == (0, "lease 00000000000000ff keepalived with TTL(100)\n")
    shown = json.loads(run("lease", "keep-alive", "ff", "--once", "-w", "json").stdout)
    assert (shown["ID"], shown["TTL"], shown["member_id"]) == (255, 100, 22)
    gone = run("lease", "keep-alive", "fe", "--once")
    assert (gone.exit_code, gone.stderr) == (1, "Error: etcdserver: requested lease not found\n")


def test_keep_alive_goes_on_until_it_is_gone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    run("lease", "grant", "90", "--id", "ff")
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            revoke = pb.KvCommand(lease_revoke=pb.LeaseRevokeRequest(ID=255))
            await FakeClient(()).submit(revoke.SerializeToString())

    monkeypatch.setattr(asyncio, "sleep", sleep)
    result = run("lease", "keep-alive", "ff")
    assert result.exit_code == 0
    assert result.stdout == "lease 00000000000000ff keepalived with TTL(90)\n" * 3 + (
        "lease 00000000000000ff expired or revoked.\n"
    )
    assert pauses == [30.0, 30.0, 30.0]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a server was asked; it has one lease."""
    requests: list[Any] = []

    async def ask_any(settings: object, method: str, request: Any, answer_type: type) -> Any:
        requests.append((method, request))
        if method == "Lease/LeaseLeases":
            return lease_pb2.LeaseLeasesResponse(leases=[lease_pb2.LeaseStatus(ID=255)])
        keys = [b"a", b"b"] if request.keys else []
        return lease_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=7, grantedTTL=9, keys=keys)

    monkeypatch.setattr(lease_module, "ask_any", ask_any)
    return requests


def test_time_to_live(asked: list[Any]) -> None:
    line = "lease 00000000000000ff granted with TTL(9s), remaining(7s)"
    assert run("lease", "timetolive", "ff").stdout == f"{line}\n"
    assert run("lease", "timetolive", "ff", "--keys").stdout == f"{line}, attached keys([a b])\n"
    assert [request.keys for _, request in asked] == [False, True]


def test_list(asked: list[Any]) -> None:
    assert run("lease", "list").stdout == "found 1 leases\n00000000000000ff\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["lease", "grant"], "Missing argument 'TTL'"),
        (["lease", "grant", "soon"], "'soon' is not a valid integer"),
        (["lease", "grant", "0"], "not in the range"),
        (["lease", "revoke", "xyz"], "'xyz' is no lease"),
        (["lease", "timetolive"], "Missing argument 'LEASE'"),
        (["lease", "renew"], "No such command 'renew'"),
    ],
)
def test_bad_usage(client: Client, line: list[str], words: str) -> None:
    result = run(*line)
    assert result.exit_code == 128
    assert words in result.stderr
    assert not client.calls
