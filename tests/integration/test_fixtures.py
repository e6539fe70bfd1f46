"""The fixtures that users get, used as they would use them; and in a pytest of its own, with workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.counter import Counter
from paxos_rsm.testing import InProcessCluster
from paxos_rsm.testing.fixtures import PaxosCluster
from tests.integration.conftest import ROOT

TIMEOUT_S = 60.0

USER_TESTS = '''
import pytest

from paxos_rsm.machines.base import SimpleMachine


class Last(SimpleMachine):
    """Remembers the last command."""

    last = b""

    def apply(self, command, at):
        self.last, before = command, self.last
        return before

    def query(self, request):
        return self.last

    def dump(self):
        return self.last

    def load(self, state):
        self.last = state


def remember(cluster, what):
    client = cluster.client(timeout_s=60)
    client.submit(what)
    assert client.query(b"") == what


@pytest.mark.paxos_cluster(servers=1, machine=Last)
def test_one(paxos_cluster):
    remember(paxos_cluster, b"one")


@pytest.mark.paxos_cluster(servers=1, machine="test_users:Last")
def test_other(paxos_cluster):
    remember(paxos_cluster, b"other")


@pytest.mark.paxos_cluster(servers=1)
def test_that_fails(paxos_cluster):
    print(*(server.pid for server in paxos_cluster), file=open("pids", "w"))
    assert not paxos_cluster.endpoints
'''


@pytest.mark.paxos_cluster(servers=3, machine="examples.counter:Counter")
def test_processes(paxos_cluster: PaxosCluster, tmp_path: Path) -> None:
    client = paxos_cluster.client(timeout_s=TIMEOUT_S)
    assert client.submit(b"5") == b"5"
    leader = paxos_cluster.wait_for_leader()
    paxos_cluster[leader].kill()
    assert client.submit(b"2") == b"7"
    paxos_cluster[leader].start()
    assert paxos_cluster.wait_for_leader(everyone=True) != ""
    assert client.query(b"") == b"7"
    assert paxos_cluster.directory.is_relative_to(tmp_path)


@pytest.mark.paxos_cluster(machine=Counter)
async def test_in_process(paxos_cluster_inprocess: InProcessCluster, tmp_path: Path) -> None:
    async with paxos_cluster_inprocess as cluster, cluster.client(timeout_s=TIMEOUT_S) as client:
        assert await client.submit(b"5") == b"5"
        leader = await cluster.wait_for_leader()
        await cluster[leader].stop()
        assert await client.submit(b"2") == b"7"
        await cluster[leader].start()
        assert await cluster.wait_for_leader(everyone=True) in cluster.names
        # The one that was away has caught up once it answers a read of its own.
        async with type(client)([cluster[leader].endpoint], timeout_s=TIMEOUT_S) as there:
            assert await there.query(b"") == b"7"
        assert cluster[leader].machine.total == 7
        assert cluster.directory.is_relative_to(tmp_path)


def test_in_the_tests_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(USER_TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "paxos_rsm.testing.pytest_plugin",
        "--strict-markers",
        "-n",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "---- the log of n1, which" in done.stdout
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 1
    assert not Path(f"/proc/{pids[0]}").exists()
