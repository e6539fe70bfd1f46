"""Fake servers for each test, and nothing left behind by the client: no task, no warning, no unread exception."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from paxos_rsm.client import stream as stream_module
from paxos_rsm.client.patience import Patience
from paxos_rsm.client.session import Session, SessionSettings
from tests.unit.client.calls import LONG_S, Caller, Connect
from tests.unit.client.fake_server import FakeCluster, FakeServer

StartServer = Callable[..., Awaitable[FakeServer]]

HERE = f"{Path(__file__).parent}{os.sep}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever a client leaves open fails the test that left it."""
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.filterwarnings("error"))


@pytest_asyncio.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeCluster]:
    """A cluster; at the end, that its clients kept to the rules."""
    # On a busy machine gRPC takes longer to end an operation. One that is abandoned is complained of in a later test.
    monkeypatch.setattr(stream_module, "OPERATIONS_END_S", LONG_S)
    loop = asyncio.get_running_loop()
    unread: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unread.append(context))
    before = asyncio.all_tasks()
    cluster = FakeCluster()
    yield cluster
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        # gRPC's own, which are on their way out. They wait for its threads, which a busy machine may not let run.
        _, left = await asyncio.wait(left, timeout=LONG_S)
    assert cluster.offences == []
    assert not left, "the client left tasks behind"
    assert unread == []


@pytest_asyncio.fixture
async def start_server(cluster: FakeCluster) -> AsyncIterator[StartServer]:
    """Starts servers of the cluster (or of another); stops them at the end."""
    servers: list[FakeServer] = []

    async def start(of: FakeCluster | None = None) -> FakeServer:
        number = len(servers) + 1
        server = FakeServer(of or cluster, f"n{number}", number)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest_asyncio.fixture
async def server(start_server: StartServer) -> FakeServer:
    """The one server of tests that need no more."""
    return await start_server()


@pytest_asyncio.fixture
async def connect(cluster: FakeCluster) -> AsyncIterator[Connect]:
    """Makes a session with the given servers; closes it at the end."""
    opened: list[Session] = []

    def make(*servers: FakeServer, **settings: Any) -> Caller:
        # What hangs must fail here, not be healed by the last resort.
        chosen = SessionSettings(
            **({"patience": Patience(connect_s=LONG_S, silent_s=LONG_S, stuck_s=LONG_S)} | settings)
        )
        session = Session([server.endpoint for server in servers], chosen)
        session.ring._order = [server.endpoint for server in servers]
        opened.append(session)
        return Caller(session)

    yield make
    for session in opened:
        await session.close()
