"""Our command and etcd's own, side by side against our servers: the same words, but for what is ours alone."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from paxos_rsm.cli.app import cli
from paxos_rsm.client import Client
from paxos_rsm.testing import LocalCluster
from tests.integration.command_line import TIMEOUT_S, environment

ETCDCTL = shutil.which("etcdctl")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(ETCDCTL is None, reason="etcdctl is not installed (Debian: apt install etcd-client)"),
]


def etcdctl(
    cluster: LocalCluster, *arguments: str, stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """The same line, for etcd's command."""
    return subprocess.run(
        [ETCDCTL or "", "--endpoints", ",".join(cluster.endpoints), *arguments],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        env={**environment(), "ETCDCTL_API": "3"},
        check=False,
    )


def ours(cluster: LocalCluster, *arguments: str, stdin: bytes = b"") -> Result:
    """The same line, for our command, in this process: there are many of them."""
    line = [*arguments, "--endpoints", ",".join(cluster.endpoints), "--command-timeout", "60s"]
    if "--" in arguments:
        raise ValueError("the endpoints would stand behind it")
    return CliRunner().invoke(cli, line, input=stdin)


LEASE = 0xFF
KEYS = {"a": b"1", "b/1": b'x\n\xff\x01\xc3\xa9"', "b/2": b"", "c d": b"4"}


def fill(client: Client) -> None:
    """Makes the store what it is at the beginning of each test, but for its revision."""
    client.delete(prefix="")
    for key, value in KEYS.items():
        client.put(key, value)
    client.put("a", "2")
    client.put("leased", "v", lease=LEASE)


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster.endpoints, timeout_s=60) as connected:
        if LEASE not in connected.leases():
            connected.grant(3600, id=LEASE)
        fill(connected)
        yield connected


READS = [
    ["get", "a"],
    ["get", "nothing"],
    ["get", "--prefix", "b/"],
    ["get", "--prefix", ""],
    ["get", "--from-key", "b/2"],
    ["get", "a", "c"],
    ["get", "--prefix", "", "--keys-only"],
    ["get", "--prefix", "", "--limit", "2"],
    ["get", "--prefix", "", "--order", "DESCEND"],
    ["get", "--prefix", "", "--sort-by", "MODIFY", "--order", "ASCEND"],
    ["get", "--prefix", "", "--sort-by", "VERSION"],
    ["get", "--prefix", "b/", "--hex"],
    ["get", "leased"],
    ["del", "nothing", "--prev-kv"],
    ["lease", "list"],
    ["member", "list"],
    ["alarm", "list"],
]


def normal(output: bytes, write_out: str) -> Any:
    """Without what differs with whom one asks, and when; and without the text that only ours shows."""
    if write_out == "simple":
        return output
    if write_out == "json":
        return [_normal_json(json.loads(line)) for line in output.splitlines()]
    differs = (b'"MemberID"', b'"RaftTerm"')
    return [line for line in output.splitlines() if not line.startswith(differs)]


def _normal_json(shown: Any) -> Any:
    if isinstance(shown, list):
        return [_normal_json(each) for each in shown]
    if not isinstance(shown, dict):
        return shown
    drop = {"key_text", "value_text", "member_id", "raft_term"}
    return {name: _normal_json(value) for name, value in shown.items() if name not in drop}


@pytest.mark.parametrize("line", READS, ids=" ".join)
@pytest.mark.parametrize("write_out", ["simple", "json", "fields"])
def test_reads(cluster: LocalCluster, client: Client, line: list[str], write_out: str) -> None:
    if line[0] == "alarm" and write_out != "simple":
        pytest.skip("etcdctl 3.4 prints an answer of its own making there, or none at all")
    theirs = etcdctl(cluster, *line, "-w", write_out)
    assert theirs.returncode == 0, theirs.stderr.decode()
    answer = ours(cluster, *line, "-w", write_out)
    assert answer.exit_code == 0, answer.stderr
    if line == ["member", "list"]:  # its header has no revision there; with us every header has
        shown = _without_header(answer.stdout_bytes, write_out)
        assert shown == _without_header(theirs.stdout, write_out)
        return
    assert normal(answer.stdout_bytes, write_out) == normal(theirs.stdout, write_out)


def _without_header(output: bytes, write_out: str) -> Any:
    if write_out == "json":
        return json.loads(output)["members"]
    return [
        line
        for line in output.splitlines()
        if not line.startswith((b'"MemberID"', b'"RaftTerm"', b'"Revision"'))
    ]


WRITES: list[tuple[list[str], bytes]] = [
    (["put", "n", "1"], b""),
    (["put", "a", "3", "--prev-kv"], b""),
    (["put", "n"], b"from\nstdin"),
    (["put", "leased", "w", "--ignore-lease", "--prev-kv"], b""),
    (["put", "leased", "--ignore-value", "--prev-kv"], b""),
    (["del", "a", "--prev-kv"], b""),
    (["del", "--prefix", "b/", "--prev-kv"], b""),
    (
        ["txn"],
        b'value("a") = "2"\nmod("a") > "0"\n\nput a "x y" --prev-kv\nget a\ndel b/1 --prev-kv\n\nget a\n\n',
    ),
    (["txn"], b'version("a") = "7"\n\nput a 1\n\nget --prefix b/\n\n'),
    # No comparison of leases: etcdctl 3.4 panics over any.
]


@pytest.mark.parametrize("write_out", ["simple", "json", "fields"])
@pytest.mark.parametrize("number", range(len(WRITES)))
def test_writes(cluster: LocalCluster, client: Client, number: int, write_out: str) -> None:
    """Each on keys that are alike: answers differ in revisions only."""
    line, stdin = WRITES[number]
    theirs = etcdctl(cluster, *line, "-w", write_out, stdin=stdin)
    assert theirs.returncode == 0, theirs.stderr.decode()
    fill(client)
    answer = ours(cluster, *line, "-w", write_out, stdin=stdin)
    assert answer.exit_code == 0, answer.stderr
    shown = _without_revisions(answer.stdout_bytes, write_out)
    assert shown == _without_revisions(theirs.stdout, write_out)


def _without_revisions(output: bytes, write_out: str) -> Any:
    if write_out == "json":
        return _no_revision(normal(output, write_out))
    shown = normal(output, write_out)
    return shown if write_out == "simple" else [line for line in shown if b'Revision"' not in line]


def _no_revision(shown: Any) -> Any:
    if isinstance(shown, list):
        return [_no_revision(each) for each in shown]
    if isinstance(shown, dict):
        return {name: _no_revision(value) for name, value in shown.items() if not name.endswith("revision")}
    return shown


REFUSED = [
    ["get", "a", "--rev", "1000000"],
    ["put", "k", "v", "--lease", "fe"],
    ["put", "absent", "--ignore-value"],
    ["lease", "revoke", "fe"],
    ["compaction", "1000000"],
    ["get", "--prefix", "a", "b"],
    ["lease", "revoke", "xyz"],
    ["lock"],
]


@pytest.mark.parametrize("line", REFUSED, ids=" ".join)
def test_what_is_refused_is_refused_alike(cluster: LocalCluster, client: Client, line: list[str]) -> None:
    """The same exit code; and where the servers refuse, in the same words."""
    theirs, answer = etcdctl(cluster, *line), ours(cluster, *line)
    assert answer.exit_code == theirs.returncode != 0
    assert answer.stdout == ""
    said = answer.stderr.removeprefix("Error: ").strip()
    if said.startswith("etcdserver: "):
        assert said in theirs.stderr.decode()
