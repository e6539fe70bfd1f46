"""The members of a cluster, changed by etcd's own command; and what is refused, beside a real etcd."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message

from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm._proto import maintenance_pb2
from paxos_rsm.testing.cluster import LocalCluster
from tests.etcd.etcdctl import Etcdctl
from tests.etcd.real_etcd import HOW_TO_INSTALL, RealEtcd, etcdctl_path
from tests.integration.raw import Calls, code_of, details_of

TIMEOUT_S = 30.0


@pytest.fixture
def growing() -> Iterator[LocalCluster]:
    """One server of ours, and what it becomes."""
    with LocalCluster(1) as cluster:
        yield cluster


@pytest.fixture
def ctl(growing: LocalCluster) -> Etcdctl:
    """etcd's command, pointed at the one."""
    path = etcdctl_path()
    if path is None:
        pytest.skip(f"etcdctl is not installed; {HOW_TO_INSTALL}")
    return Etcdctl(path, growing.endpoints)


def refused(ctl: Etcdctl, *arguments: str) -> str:
    """The last words of a command that fails."""
    said = ctl.run(*arguments)
    assert said.code != 0, said.out
    return said.err.splitlines()[-1].removeprefix("Error: ")


def test_etcdctl_grows_a_cluster_moves_its_leader_and_shrinks_it(growing: LocalCluster, ctl: Etcdctl) -> None:
    def listed() -> dict[str, list[str]]:
        return {line.split(", ")[2]: line.split(", ") for line in ctl("member", "list")}

    def until_voter(name: str) -> str:
        def votes() -> str | None:
            member = listed().get(name)
            return member[0] if member is not None and member[-1] == "false" else None

        return growing.wait_until(votes, f"voter {name}", TIMEOUT_S)

    ctl("put", "a", "1")
    # With a vote, once it has caught up: what it prints is what a server is started with.
    two = growing.add("n2")
    lines = ctl("member", "add", "n2", f"--peer-urls={two.peer_url}")
    assert "added to cluster" in lines[0] or "added as learner to cluster" in lines[0]
    assert 'ETCD_NAME="n2"' in lines
    initial = {f"n1={growing['n1'].peer_url}", f"n2={two.peer_url}"}
    (printed,) = [line for line in lines if line.startswith("ETCD_INITIAL_CLUSTER=")]
    assert set(printed.partition("=")[2].strip('"').split(",")) == initial
    assert 'ETCD_INITIAL_CLUSTER_STATE="existing"' in lines
    assert refused(ctl, "member", "add", "n9", f"--peer-urls={two.peer_url}") == (
        "etcdserver: Peer URLs already exists"
    )
    two.start()
    until_voter("n2")
    # As a learner, until somebody promotes it.
    three = growing.add("n3")
    ctl("member", "add", "n3", f"--peer-urls={three.peer_url}", "--learner")
    pending = listed()[""]
    assert pending[1:] == ["unstarted", "", three.peer_url, "", "true"]
    assert "in sync with leader" in refused(ctl, "member", "promote", pending[0])
    three.start()
    growing.wait_until(lambda: "n3" in listed(), "n3 among the members", TIMEOUT_S)
    number = listed()["n3"][0]
    growing.wait_until(lambda: ctl.run("member", "promote", number).code == 0, "promotion", TIMEOUT_S)
    assert listed()["n3"][-1] == "false"
    assert refused(ctl, "member", "promote", number) == "etcdserver: can only promote a learner member"
    # Another leader.
    everywhere = ctl.at(*growing.endpoints)
    assert growing.wait_for_leader() == "n1"
    (line,) = everywhere("move-leader", number)
    assert line == f"Leadership transferred from {listed()['n1'][0]} to {number}"
    assert growing.wait_for_leader() == "n3"
    assert refused(everywhere, "move-leader", "1") == "etcdserver: bad leader transferee"
    # Another address, and one less.
    two.kill()
    updated = ctl("member", "update", listed()["n2"][0], "--peer-urls=http://127.0.0.1:9")
    assert "updated in cluster" in updated[0]
    assert listed()["n2"][3] == "http://127.0.0.1:9"
    assert "removed from cluster" in ctl("member", "remove", listed()["n2"][0])[0]
    assert sorted(listed()) == ["n1", "n3"]
    assert refused(ctl, "member", "remove", "abcdef") == "etcdserver: member not found"
    assert ctl("get", "a", "--print-value-only") == ["1"]


NOBODY = 1
"""The id of no member."""

ALIKE: list[tuple[str, Message]] = [
    ("Cluster/MemberRemove", pb.MemberRemoveRequest(ID=NOBODY)),
    ("Cluster/MemberUpdate", pb.MemberUpdateRequest(ID=NOBODY, peerURLs=["http://127.0.0.1:9"])),
    ("Cluster/MemberPromote", pb.MemberPromoteRequest(ID=NOBODY)),
    ("Cluster/MemberPromote", pb.MemberPromoteRequest()),
    ("Cluster/MemberAdd", pb.MemberAddRequest()),
    ("Cluster/MemberAdd", pb.MemberAddRequest(peerURLs=["nonsense"])),
    ("Cluster/MemberAdd", pb.MemberAddRequest(peerURLs=["http://127.0.0.1"])),
    ("Cluster/MemberAdd", pb.MemberAddRequest(peerURLs=["http://127.0.0.1:9/path"], isLearner=True)),
    ("Maintenance/MoveLeader", maintenance_pb2.MoveLeaderRequest()),
    ("Maintenance/MoveLeader", maintenance_pb2.MoveLeaderRequest(targetID=NOBODY)),
]


def call(endpoint: str, method: str, request: Message) -> tuple[str, str]:
    """How it ends: code and words."""
    with Calls(endpoint.removeprefix("http://")) as calls:
        try:
            calls.unary(f"/etcdserverpb.{method}", request.SerializeToString())
        except grpc.RpcError as error:
            return code_of(error).name, details_of(error)
    return "OK", ""


def me(endpoint: str) -> pb.ClusterMember:
    """The only member."""
    with Calls(endpoint.removeprefix("http://")) as calls:
        data = calls.unary("/etcdserverpb.Cluster/MemberList", b"")
    (member,) = pb.MemberListResponse.FromString(data).members
    return member


def test_what_is_refused_is_refused_alike(real_etcd: RealEtcd, growing: LocalCluster) -> None:
    theirs, ours = real_etcd.endpoints[0], growing["n1"].endpoint
    for method, request in ALIKE:
        assert call(ours, method, request) == call(theirs, method, request), (method, request)
    # The words are alike; the code is the one that etcd declares, and 3.4 does not send.
    last = [call(at, "Cluster/MemberRemove", pb.MemberRemoveRequest(ID=me(at).ID)) for at in (theirs, ours)]
    words = "etcdserver: re-configuration failed due to not enough started members"
    assert last == [("UNKNOWN", words), ("FAILED_PRECONDITION", words)]
    for at in (theirs, ours):
        promoted = call(at, "Cluster/MemberPromote", pb.MemberPromoteRequest(ID=me(at).ID))
        assert promoted == ("FAILED_PRECONDITION", "etcdserver: can only promote a learner member")
        exists = call(at, "Cluster/MemberAdd", pb.MemberAddRequest(peerURLs=me(at).peerURLs))
        assert exists == ("FAILED_PRECONDITION", "etcdserver: Peer URLs already exists")
        moved = call(at, "Maintenance/MoveLeader", maintenance_pb2.MoveLeaderRequest(targetID=me(at).ID))
        assert moved == ("OK", "")
