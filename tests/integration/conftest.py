"""Clusters for the tests, and what is told of them when one fails."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.conftest import MEASURED

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]

LOG_TAIL_LINES = 40
TIMEOUT_S = 300
"""Of a test that says nothing else: a net under what hangs, on a machine that does much else."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Clusters take longer to start than what a unit test takes."""
    for item in items:
        if str(item.path).startswith(f"{FOLDER}{os.sep}") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


class NewCluster(Protocol):
    """Makes a cluster that has not been started, and ends it after the test (or module)."""

    def __call__(self, size: int = 3, **options: Any) -> LocalCluster: ...


def _clusters(request: pytest.FixtureRequest) -> Iterator[NewCluster]:
    made: list[LocalCluster] = []
    failed_before = request.session.testsfailed

    def new_cluster(size: int = 3, **options: Any) -> LocalCluster:
        # A state machine that is named by `--machine examples...` must be found from wherever pytest runs.
        environment = {"PYTHONPATH": str(ROOT), **options.pop("environment", {})}
        cluster = LocalCluster(size, environment=environment, **options)
        made.append(cluster)
        return cluster

    yield new_cluster
    for cluster in made:
        if request.session.testsfailed > failed_before:
            for name, log in cluster.logs().items():
                tail = "\n".join(log.splitlines()[-LOG_TAIL_LINES:])
                sys.stdout.write(
                    f"---- the log of {name}, which {cluster[name].describe_end()}, ends\n{tail}\n"
                )
        cluster.close()


@pytest.fixture
def new_cluster(request: pytest.FixtureRequest) -> Iterator[NewCluster]:
    """For one test."""
    yield from _clusters(request)


@pytest.fixture(scope="module")
def new_shared_cluster(request: pytest.FixtureRequest) -> Iterator[NewCluster]:
    """For all the tests of a module."""
    yield from _clusters(request)


@pytest.fixture(scope="module")
def _shared(new_shared_cluster: NewCluster) -> LocalCluster:
    return new_shared_cluster()


@pytest.fixture
def cluster(_shared: LocalCluster) -> LocalCluster:
    """Three servers of the key-value machine that the module's tests share: all up, one leader that all follow."""
    _shared.start()
    return _shared


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Has a line printed at the end of the run: what was measured belongs in the output of every run."""
    return lambda line: record_property(MEASURED, line)
