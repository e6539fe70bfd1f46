"""One real etcd and one cluster of ours for the tests of a module; both are told the same things, in lock step.

These tests want etcd and etcdctl, of which `make test` must not depend: `make test-etcd` runs them (and says how to
install what is missing); elsewhere they are skipped where it is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.conftest import MEASURED
from tests.etcd.etcdctl import Etcdctl
from tests.etcd.real_etcd import HOW_TO_INSTALL, RealEtcd, etcd_path, etcdctl_path
from tests.etcd.stores import Store

FOLDER = Path(__file__).resolve().parent
TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real processes, and many calls to them."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.integration)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Has a line printed at the end of the run."""
    return lambda line: record_property(MEASURED, line)


@pytest.fixture(scope="module")
def real_etcd() -> Iterator[RealEtcd]:
    """One member of a real etcd."""
    if etcd_path() is None:
        pytest.skip(f"etcd is not installed; {HOW_TO_INSTALL}")
    with RealEtcd() as etcd:
        yield etcd


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Three servers of ours."""
    with LocalCluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def both(real_etcd: RealEtcd, cluster: LocalCluster) -> Iterator[tuple[Store, Store]]:
    """The real one and ours, at a follower, each still empty."""
    leader = cluster.wait_for_leader()
    follower = next(server for server in cluster if server.name != leader)
    theirs, ours = Store(real_etcd.endpoints[0]), Store(follower.endpoint)
    yield theirs, ours
    theirs.close()
    ours.close()


@pytest.fixture(scope="module")
def etcdctl(cluster: LocalCluster) -> Etcdctl:
    """etcd's own command, pointed at all of our servers."""
    path = etcdctl_path()
    if path is None:
        pytest.skip(f"etcdctl is not installed; {HOW_TO_INSTALL}")
    return Etcdctl(path, cluster.endpoints)
