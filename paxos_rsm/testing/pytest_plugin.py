"""pytest's fixtures for clusters; pytest finds them through the entry point of the package.

::

    @pytest.mark.paxos_cluster(servers=3, machine="bank:Bank")
    def test_bank(paxos_cluster):                       # servers in processes of their own
        with paxos_cluster.client() as client:
            client.submit(b"open anna")
        paxos_cluster[paxos_cluster.wait_for_leader()].kill()

    @pytest.mark.paxos_cluster(machine=Bank)
    async def test_inside(paxos_cluster_inprocess):     # servers in this process, in the loop of the test
        async with paxos_cluster_inprocess as cluster, cluster.client() as client:
            await client.submit(b"open anna")

Each test has a cluster of its own, under ``tmp_path``, on free ports: any number of them run side by side. The first
is started when the test begins. The second is started by its ``async with``, because only the test knows its event
loop: so it works with pytest-asyncio, with anyio and with ``asyncio.run`` alike.

This module imports nothing but pytest: whoever does not ask for a cluster does not pay for it.
"""

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from paxos_rsm.testing.fixtures import PaxosCluster
    from paxos_rsm.testing.in_process import InProcessCluster

__all__ = ["paxos_cluster", "paxos_cluster_inprocess", "pytest_configure"]

MARK = "paxos_cluster"


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(servers=3, machine=None, **options): what the fixtures paxos_cluster and paxos_cluster_inprocess are "
        "to be: how many servers, of which state machine (a class, or 'module:Class'; None: the key-value store); "
        "options are those of paxos_rsm.testing.LocalCluster and InProcessCluster",
    )


def _marked(request: pytest.FixtureRequest, cluster: type) -> tuple[int, Any, dict[str, Any]]:
    """How many servers, of what, and what else the mark says; UsageError where ``cluster`` would not take it."""
    mark = request.node.get_closest_marker(MARK)
    if mark is None:
        return 3, None, {}
    if mark.args:
        raise pytest.UsageError(
            f"{request.node.nodeid}: @pytest.mark.{MARK} takes its arguments by name: servers=..., machine=..."
        )
    options = dict(mark.kwargs)
    servers, machine = options.pop("servers", 3), options.pop("machine", None)
    if not isinstance(servers, int) or isinstance(servers, bool) or servers < 1:
        raise pytest.UsageError(
            f"{request.node.nodeid}: @pytest.mark.{MARK} has servers={servers!r}; give how many, at least 1"
        )
    known = [name for name in inspect.signature(cluster).parameters if name not in ("size", "machine")]
    for name in options:
        if name not in known:
            raise pytest.UsageError(
                f"{request.node.nodeid}: @pytest.mark.{MARK} has {name}, which {request.fixturename} does not know; "
                f"it takes servers, machine, {', '.join(known)}"
            )
    return servers, machine, options


def _name_of(machine: Any, test: str) -> str | None:
    """As another process is told of a machine. Raises UsageError where it could not find it."""
    if machine is None or isinstance(machine, str):
        return machine
    module, name = machine.__module__, machine.__qualname__
    if module == "__main__" or "." in name or getattr(sys.modules.get(module), name, None) is not machine:
        raise pytest.UsageError(
            f"{test}: servers in other processes cannot import {module}:{name}; move the class to a module, at its top "
            "level, or use paxos_cluster_inprocess"
        )
    return f"{module}:{name}"


@pytest.fixture
def paxos_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[PaxosCluster]":
    """A cluster of server processes that all follow one leader; see the mark for what it is made of.

    It is a :class:`paxos_rsm.testing.LocalCluster`: ``endpoints``, ``cluster["n1"].kill()``, ``stop()``, ``cont()``,
    ``restart()``; and ``client()`` gives a :class:`paxos_rsm.Client` of it, which is closed after the test. No process
    outlives the test. Where that fails, the ends of the servers' logs are shown.
    """
    from paxos_rsm.testing.fixtures import PaxosCluster

    servers, machine, options = _marked(request, PaxosCluster)
    # What the tests can import, the servers can: the folder that pytest was started in, and what it added.
    paths = os.pathsep.join(dict.fromkeys(os.path.abspath(each) for each in sys.path))
    environment = {"PYTHONPATH": paths, **options.pop("environment", {})}
    options.setdefault("directory", tmp_path / "paxos_cluster")
    cluster = PaxosCluster(
        servers, machine=_name_of(machine, request.node.nodeid), environment=environment, **options
    )
    failed_before = request.session.testsfailed
    try:
        cluster.start()
        yield cluster
    finally:
        if request.session.testsfailed > failed_before:
            sys.stdout.write(cluster.log_ends())
        cluster.close()


@pytest.fixture
def paxos_cluster_inprocess(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[InProcessCluster]":
    """A cluster in this process, to be started by ``async with``; see the mark for what it is made of.

    It is a :class:`paxos_rsm.testing.InProcessCluster`: ``endpoints``, ``client()``, ``cluster["n1"].machine``,
    ``await cluster["n1"].stop()``, ``start()``, ``restart()``.
    """
    from paxos_rsm.testing.in_process import InProcessCluster

    servers, machine, options = _marked(request, InProcessCluster)
    options.setdefault("directory", tmp_path / "paxos_cluster_inprocess")
    cluster = InProcessCluster(servers, machine=machine, **options)
    yield cluster
    cluster.let_go()
    left = [server.name for server in cluster if server.running]
    if left:
        pytest.fail(
            f"{', '.join(left)} still run: start the cluster by `async with paxos_cluster_inprocess as cluster`, or "
            "await its close() before the test ends"
        )
