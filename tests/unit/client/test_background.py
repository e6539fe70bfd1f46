"""The loop behind a Client; that it ends with the Client is test_client.py's."""

import asyncio

import pytest

from paxos_rsm import AsyncClient, ClientError, Unavailable
from paxos_rsm.client.background import Background
from tests.unit.client.fake_server import FakeServer
from tests.unit.client.test_client import background_threads, in_thread


async def test_calls_are_run_on_the_loop_and_their_errors_come_back(server: FakeServer) -> None:
    def work() -> None:
        client = AsyncClient(server.endpoint, timeout_s=30)
        background = Background(client)
        assert background.run(client.put("k", "v")).revision == 2
        assert background.look(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            background.look(lambda: 1 // 0)

        def again() -> None:
            background.run(asyncio.sleep(0))

        with pytest.raises(ClientError, match="its own event loop"):
            background.look(again)
        background.stop()
        background.stop()
        assert background.stopped
        assert background_threads() == []
        with pytest.raises(Unavailable, match="closed"):
            background.run(client.put("k", "v"))

    await in_thread(work)


def test_one_that_was_never_used_has_no_thread() -> None:
    background = Background(AsyncClient("127.0.0.1:1"))
    background.stop()
    assert background.stopped
    assert background_threads() == []
