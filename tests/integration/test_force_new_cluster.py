"""Two of three are lost for good, and the one that is left goes on alone."""

import subprocess

from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.clients import client_at
from tests.integration.command_line import command, environment, run
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.waiting import eventually, same_state, status_of

FORCE = "--force-new-cluster"


def forced(server: LocalServer, *more: str) -> "subprocess.CompletedProcess[bytes]":
    """The server with --force-new-cluster in the foreground, which has to end by itself."""
    return subprocess.run(
        command("server", *server.flags, FORCE, *more),
        capture_output=True,
        timeout=60,
        env=environment(),
        check=False,
    )


def leads(server: LocalServer) -> bool:
    status = status_of(server)
    return status is not None and status.role == "leader"


def lost(new_cluster: NewCluster) -> LocalCluster:
    """Three servers that have written something; n1 is left, and stopped."""
    cluster = new_cluster(3)
    cluster.start()
    with client_at(*cluster.endpoints) as client:
        for number in range(50):
            client.put(f"key/{number:02d}", f"value {number}")
    applied = max(answer.applied_slot for answer in cluster.statuses().values())
    eventually(lambda: cluster["n1"].status().applied_slot >= applied, "n1 up to date")
    cluster.kill()
    return cluster


def test_the_one_that_is_left_goes_on_alone(new_cluster: NewCluster) -> None:
    cluster = lost(new_cluster)
    server = cluster["n1"]
    told = forced(server)
    assert told.returncode == 1
    assert b"without n2, n3" in told.stderr
    assert b"Lost is everything that the others decided without it" in told.stderr
    assert b"Error: nothing was changed." in told.stderr
    before = list(server.flags)
    server.flags += [FORCE, "--yes"]
    server.start()
    eventually(lambda: leads(server), "n1 leading alone")
    status = server.status()
    assert [member.name for member in status.members] == ["n1"]
    with client_at(server.endpoint) as client:
        assert client.get("key/49").value == b"value 49"
        client.put("key/new", "n")
    # The same flags again, as a supervisor would give them: nothing is forced twice.
    server.kill()
    server.start()
    eventually(lambda: leads(server), "n1 leading again")
    assert server.status().cluster_id == status.cluster_id
    assert "nothing is forced" in server.log()
    # And without them, as it is to be run from then on.
    server.terminate()
    server.flags[:] = before
    server.start()
    eventually(lambda: leads(server), "n1 leading without the flags")
    assert (server.status().cluster_id, server.status().incarnation) == (
        status.cluster_id,
        status.incarnation,
    )
    with client_at(server.endpoint) as client:
        assert client.get("key/new").value == b"n"


@LONG[0]
@LONG[1]
def test_the_others_are_refused_when_they_come_back(new_cluster: NewCluster) -> None:
    cluster = lost(new_cluster)
    server, other = cluster["n1"], cluster["n2"]
    server.flags += [FORCE, "--yes"]
    server.start()
    eventually(lambda: leads(server), "n1 leading alone")
    other.start()
    eventually(
        lambda: f"to cluster {server.status().cluster_id:x}" in other.log() + server.log(),
        "word that they are of different clusters",
    )
    assert other.status().role != "leader"
    with client_at(server.endpoint) as client:
        client.put("key/new", "n")
    assert [member.name for member in server.status().members] == ["n1"]


@LONG[0]
@LONG[1]
def test_it_grows_again(new_cluster: NewCluster) -> None:
    cluster = lost(new_cluster)
    server = cluster["n1"]
    server.flags += [FORCE, "--yes"]
    server.start()
    eventually(lambda: leads(server), "n1 leading alone")
    cluster.remove("n2")
    cluster.remove("n3")
    other = cluster.add("n4")
    added = run(cluster, "member", "add", "n4", "--peer-urls", other.peer_url)
    assert added.returncode == 0, added.stderr
    other.start()
    eventually(lambda: same_state(cluster), "state that both have")
    with client_at(other.endpoint) as client:
        assert client.get("key/49").value == b"value 49"
        client.put("key/new", "n")


def test_where_there_is_nothing_it_makes_nothing(new_cluster: NewCluster) -> None:
    cluster = new_cluster(1)
    result = forced(cluster["n1"], "--yes")
    assert result.returncode == 1
    assert b"there is no data directory at" in result.stderr
    assert not cluster["n1"].data_dir.exists()
