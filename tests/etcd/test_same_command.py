"""One script of etcdctl commands against a real etcd and against us: the same words on stdout, the same exit codes.

What must differ is masked: ids of clusters, members and leases, and the term. Errors come on stderr among log lines
that hold times and addresses; of these only the last line, ``Error: ...``, is compared.
"""

import re
import shlex

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.etcd.etcdctl import Etcdctl, Said
from tests.etcd.real_etcd import RealEtcd

# Arguments, and what is written to stdin. In the order given, since each sees what those before it did.
SCRIPT: list[tuple[str, str]] = [
    ("get missing", ""),
    ("put k1 v1", ""),
    ("put k1 v2 --prev-kv", ""),
    ("put k2 v1", ""),
    ("put k3 v9", ""),
    ("put k4", "from stdin"),
    ("put other x", ""),
    ("put k1 --ignore-value", ""),
    ("put none --ignore-value", ""),
    ("put none --ignore-lease x", ""),
    ("put none x --lease 7b", ""),
    ("get k1", ""),
    ("get k1 --print-value-only", ""),
    ("get k1 -w json", ""),
    ("get k1 -w fields", ""),
    ("get k1 --hex", ""),
    ("get k1 k3", ""),
    ("get k --prefix", ""),
    ("get k --prefix --keys-only", ""),
    ("get k --prefix -w json --limit 2", ""),
    ("get k --prefix --limit 2 --sort-by KEY --order DESCEND", ""),
    ("get k --prefix --sort-by VALUE --order ASCEND", ""),
    ("get k --prefix --sort-by VERSION --order DESCEND", ""),
    ("get k --prefix --sort-by CREATE --order DESCEND", ""),
    ("get k --prefix --sort-by MODIFY --order ASCEND", ""),
    ("get k3 --from-key", ""),
    ("get --from-key ''", ""),
    ("get --prefix ''", ""),
    ("get k1 --rev 2", ""),
    ("get k1 --rev 3 -w json", ""),
    ("get k1 --rev 100", ""),
    ("get k --prefix --consistency s", ""),
    ("del k3", ""),
    ("del k3", ""),
    ("get k3 --rev 5", ""),
    ("txn", 'value("k1") = "v2"\n\nput t1 yes\nget k1\n\nput t1 no\n\n'),
    ("txn", 'value("k1") = "nothing"\n\nput t1 yes\n\nput t1 no\nget t1\ndel k2\n\n'),
    ("txn", 'version("k9") = "0"\nmod("k1") > "1"\ncreate("k1") < "90"\n\nput k9 made\n\n\n'),
    ("txn", "\nput d 1\nput d 2\n\n\n"),
    ("txn -w json", "\nget k9\n\n\n"),
    ("del k --prefix --prev-kv", ""),
    ("get k1 --rev 3", ""),
    ("put z 1", ""),
    ("put z 2", ""),
    ("compaction 12", ""),
    ("compaction 12", ""),
    ("compaction 1000", ""),
    ("get z --rev 3", ""),
    ("get z --rev 12", ""),
    ("compaction --physical 13", ""),
    ("lease timetolive 7b", ""),
    ("lease revoke 7b", ""),
    ("lease keep-alive --once 7b", ""),
    ("lease list", ""),
    ("alarm list", ""),
    ("alarm disarm", ""),
    ("del --from-key ''", ""),
    ("get --prefix '' --count-only -w fields", ""),
]

MASKS = [
    (re.compile(r'("(?:cluster_id|member_id|raft_term)":)\d+'), r"\1_"),
    (re.compile(r'("(?:ClusterID|MemberID|RaftTerm)" : )\d+'), r"\1_"),
]


def masked(said: Said) -> tuple[int, str, str]:
    """What can be compared."""
    out = said.out
    for pattern, mask in MASKS:
        out = pattern.sub(mask, out)
    errors = [line for line in said.err.splitlines() if line.startswith("Error:")]
    return said.code, out, errors[-1] if errors else ""


@pytest.fixture(scope="module")
def theirs(real_etcd: RealEtcd, etcdctl: Etcdctl) -> Etcdctl:
    """The same etcdctl, pointed at the real one."""
    return etcdctl.at(*real_etcd.endpoints)


@pytest.fixture(scope="module")
def ours(cluster: LocalCluster, etcdctl: Etcdctl) -> Etcdctl:
    """etcdctl at one server, one that follows."""
    leader = cluster.wait_for_leader()
    return etcdctl.at(*[server.endpoint for server in cluster if server.name != leader][:1])


def test_the_script_says_the_same(theirs: Etcdctl, ours: Etcdctl) -> None:
    differences = []
    for arguments, stdin in SCRIPT:
        words = shlex.split(arguments)
        expected, found = masked(theirs.run(*words, stdin=stdin)), masked(ours.run(*words, stdin=stdin))
        if found != expected:
            differences.append(f"etcdctl {arguments}\n  etcd: {expected}\n  ours: {found}")
    assert not differences, "\n".join(["", *differences])


def test_leases_say_the_same(theirs: Etcdctl, ours: Etcdctl) -> None:
    """Ids are drawn at random: each is told by a name."""
    told = []
    for ctl in (theirs, ours):
        (granted,) = ctl("lease", "grant", "300")
        lease = granted.split()[1]
        lines = [granted]
        for arguments in (
            ["put", "leased", "x", "--lease", lease],
            ["get", "leased", "--print-value-only"],
            ["lease", "list"],
            ["lease", "keep-alive", "--once", lease],
            ["lease", "timetolive", lease, "--keys"],
            ["put", "leased", "y", "--ignore-lease"],
            ["lease", "revoke", lease],
            ["get", "leased"],
        ):
            lines += ctl(*arguments)
        told.append(
            [re.sub(r"remaining\(\d+s\)", "remaining(_)", line).replace(lease, "LEASE") for line in lines]
        )
    assert told[0] == told[1]
    assert any("attached keys([leased])" in line for line in told[0])
