"""The version that was landed before, beside this one: in one cluster, under load, and upgraded server by server.

The older version comes out of the repository's own history. What it promised then it must be held to now: that it can
be upgraded without a pause, and that nothing is lost or done twice meanwhile.
"""

import asyncio
import itertools
import random
import subprocess
import tarfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest

from paxos_rsm.checker import Recorder, check, models
from paxos_rsm.client import AsyncClient
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.identity import FORMAT_VERSION, read_identity
from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.clients import DEADLINE_S, at_each_server, check_written, writer
from tests.integration.conftest import ROOT, NewCluster
from tests.integration.kills import LONG
from tests.integration.load import Load, Worker
from tests.integration.waiting import eventually, same_state

BEFORE = "3268c8f867b1428b541211303b943d5b6da0eac1"
"""What the issue before this one ended with: format 1 of the data directory, no snapshots, no change of members."""
BEFORE_FORMAT = 1

KEYS = 4
MOVES_MAX = 12
CHECK_S = 60


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it was."""
    git = ["git", "-C", str(ROOT)]
    if subprocess.run(
        [*git, "cat-file", "-e", f"{BEFORE}^{{commit}}"], capture_output=True, check=False
    ).returncode:
        pytest.skip(
            f"NO TEST OF MIXED VERSIONS: commit {BEFORE[:12]} is not in this clone, or there is no git; fetch the "
            "whole history (git fetch --unshallow) to run it"
        )
    archive = subprocess.run([*git, "archive", BEFORE, "paxos_rsm"], capture_output=True, check=True).stdout
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def run_from(server: LocalServer, folder: Path) -> None:
    """From its next start on the server runs the package in ``folder``."""
    # Without the working directory, which is that of this version, in front of everything.
    server.environment |= {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def format_of(server: LocalServer) -> int:
    """Of its data directory: it tells which version has started on it last."""
    identity = read_identity(RealFiles(), str(server.data_dir))
    assert identity is not None
    return identity.format_version


def recording(name: str, endpoints: Sequence[str], recorder: Recorder) -> Worker:
    """Reads and writes a few keys, and records what it was told."""

    async def work(load: Load) -> None:
        chance = random.Random(name)
        async with AsyncClient(endpoints, timeout_s=DEADLINE_S) as client:
            for number in itertools.count():
                if load.stopping:
                    return
                key = f"shared/{chance.randrange(KEYS)}"
                if chance.random() < 0.5:
                    value = f"{name} {number}"
                    called = recorder.call(name, "write", key, value)
                    await client.put(key, value)
                    recorder.ok(called)
                else:
                    called = recorder.call(name, "read", key)
                    found = (await client.get(key)).value
                    recorder.ok(called, found.decode() if found is not None else None)
                await load.note(name, number)

    return work


def under_load(cluster: LocalCluster, recorder: Recorder) -> tuple[Load, list[str]]:
    """Clients at each server, whose every answer is checked afterwards; and the names of those that write."""
    places = at_each_server(cluster)
    writers = [writer(f"writer-{name}", at, in_flight=2) for name, at in places.items()]
    recorders = [recording(f"recorder-{name}", at, recorder) for name, at in places.items()]
    return Load(*writers, *recorders), [f"writer-{name}" for name in places]


def check_all(cluster: LocalCluster, load: Load, writers: Sequence[str], recorder: Recorder) -> None:
    """Nothing acknowledged is lost, nothing was done twice, and what was read and written happened in one order."""
    for server in cluster:
        asyncio.run(check_written(server.endpoint, {name: load.of(name) for name in writers}))
    result = check(recorder.operations, models.Register, timeout_s=CHECK_S)
    assert result, result
    assert result.operations > 50


def clock_ms() -> float:
    return time.monotonic() * 1000


def test_one_older_server_among_newer_ones(new_cluster: NewCluster, older: Path) -> None:
    cluster = new_cluster(3)
    run_from(cluster["n1"], older)
    cluster.start()
    recorder = Recorder(clock_ms)
    load, writers = under_load(cluster, recorder)
    with load:
        load.wait_for(1, *writers)
        led = []
        # Whoever leads is restarted, in order or by SIGKILL, until the older server and a newer one have led.
        for move in range(MOVES_MAX):
            leader = cluster.wait_for_leader(everyone=True)
            led.append(leader)
            cluster[leader].restart(kill=bool(move % 2))
            cluster.wait_until(lambda: cluster.leader(everyone=True), "leader that all follow")
            load.wait_for(1, *writers)
            if "n1" in led and len(set(led)) > 1:
                break
    assert "n1" in led, f"the older server never came to lead: {led}"
    assert len(set(led)) > 1, f"no newer server ever came to lead: {led}"
    assert (format_of(cluster["n1"]), format_of(cluster["n2"])) == (BEFORE_FORMAT, FORMAT_VERSION)
    check_all(cluster, load, writers, recorder)


@LONG[0]
@LONG[1]
def test_a_cluster_is_upgraded_server_by_server(new_cluster: NewCluster, older: Path) -> None:
    cluster = new_cluster(3)
    for server in cluster:
        run_from(server, older)
    cluster.start()
    recorder = Recorder(clock_ms)
    load, writers = under_load(cluster, recorder)
    with load:
        load.wait_for(1, *writers)
        for server in cluster:
            assert format_of(server) == BEFORE_FORMAT
            assert server.terminate() == 0
            run_from(server, ROOT)
            server.start()
            cluster.wait_until(lambda: cluster.leader(everyone=True), "leader that all follow")
            load.wait_for(1, *writers)
            assert format_of(server) == FORMAT_VERSION
    # Only now: the state is hashed in another way than before.
    eventually(lambda: same_state(cluster), "equal states")
    check_all(cluster, load, writers, recorder)
    # There is no way back on the same directory, and it is said, not tried.
    server = cluster["n1"]
    server.terminate()
    run_from(server, older)
    server.start()
    assert server.wait() == 1
    assert f"has format {FORMAT_VERSION}" in server.log()
    run_from(server, ROOT)
    server.start()
    cluster.wait_until(lambda: cluster.leader(everyone=True), "leader that all follow")
