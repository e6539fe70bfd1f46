"""A cluster inside of a test: what can be done with it, and what it says when something is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.counter import Counter
from paxos_rsm.errors import ConfigError, MachineFailed, PaxosRsmError
from paxos_rsm.machines.base import Position
from paxos_rsm.testing import InProcessCluster, LocalClusterError

TIMEOUT_S = 60.0


class Fails(Counter):
    """Raises on command."""

    def apply(self, command: bytes, at: Position) -> bytes:
        if command == b"fail":
            raise ValueError("as it was told")
        return super().apply(command, at)


async def test_servers_come_and_go_and_keep_what_they_know(tmp_path: Path) -> None:
    async with InProcessCluster(1, machine=Counter, directory=tmp_path) as cluster:
        assert cluster.names == ["n1"]
        assert len(cluster) == 1
        server = cluster["n1"]
        assert cluster.endpoints == [server.endpoint]
        async with cluster.client(timeout_s=TIMEOUT_S) as client:
            assert await client.submit(b"5") == b"5"
            assert server.machine.total == 5
            before = server.machine
            await server.restart()
            assert await client.submit(b"3") == b"8"
        assert server.machine is not before
        assert await cluster.wait_for_leader() == "n1"
        with pytest.raises(LocalClusterError, match="n1 has been started and not been stopped since"):
            await server.start()
        await server.stop()
        assert not server.running
        await server.stop()
    assert (tmp_path / "n1").is_dir()
    await cluster.close()


async def test_without_a_machine_it_is_the_key_value_store() -> None:
    cluster = InProcessCluster(1)
    async with cluster, cluster.client(timeout_s=TIMEOUT_S) as client:
        await client.put("greeting", "hello")
        assert (await client.get("greeting")).value == b"hello"
        assert cluster.directory.is_dir()
    assert not cluster.directory.exists()


async def test_a_machine_may_be_named(tmp_path: Path) -> None:
    async with InProcessCluster(1, machine="examples.counter:Counter", directory=tmp_path) as cluster:
        assert isinstance(cluster["n1"].machine, Counter)


async def stop_by_itself(directory: Path, and_then: Callable[[], None]) -> None:
    """Has the only server execute what its machine raises on."""
    async with InProcessCluster(1, machine=Fails, directory=directory) as cluster:
        async with cluster.client(timeout_s=0.5) as client:
            with pytest.raises(PaxosRsmError):
                await client.submit(b"fail")
        and_then()


async def test_a_server_that_stops_by_itself_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(LocalClusterError, match=r"n1 stopped by itself: .*as it was told") as failed:
        await stop_by_itself(tmp_path, lambda: None)
    assert isinstance(failed.value.__cause__, MachineFailed)


async def test_a_test_that_fails_by_itself_keeps_its_error(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyError("of the test")

    with pytest.raises(KeyError, match="of the test") as failed:
        await stop_by_itself(tmp_path, fail)
    assert "n1 stopped by itself" in failed.value.__notes__[0]


async def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalClusterError, match="it needs one at least"):
        InProcessCluster(0, directory=tmp_path)
    with pytest.raises(ConfigError, match="7 is no machine"):
        InProcessCluster(1, machine=7, directory=tmp_path)  # type: ignore[arg-type]
    cluster = InProcessCluster(1, directory=tmp_path)
    with pytest.raises(LocalClusterError, match="n1 has not been started"):
        _ = cluster["n1"].machine
    with pytest.raises(LocalClusterError, match="no leader within 0 s: "):
        await cluster.wait_for_leader(0)
    await cluster.close()
