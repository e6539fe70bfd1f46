"""A cluster that knows its clients: they end with it, and its logs can be shown."""

from pathlib import Path

import pytest

from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.testing.fixtures import PaxosCluster


def test_clients_end_with_the_cluster(tmp_path: Path) -> None:
    cluster = PaxosCluster(2, directory=tmp_path)
    client = cluster.client(timeout_s=0.2)
    assert client.endpoints == tuple(cluster.endpoints)
    assert client.timeout_s == 0.2
    cluster.close()
    with pytest.raises(PaxosRsmError):
        client.get("greeting")
    cluster.close()


def test_the_ends_of_the_logs_are_told(tmp_path: Path) -> None:
    cluster = PaxosCluster(2, directory=tmp_path)
    try:
        cluster["n1"].log_path.write_text("\n".join(f"line {number}" for number in range(100)))
        told = cluster.log_ends()
    finally:
        cluster.close()
    assert "the log of n1" in told
    assert "the log of n2" in told
    assert "line 99\n" in told
    assert "line 50\n" not in told
