"""Commands that connect, without servers."""

import pytest

from paxos_rsm.cli import connect
from tests.unit.cli.fake_client import FakeClient


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    """What the commands talk to instead of servers; empty at first."""

    async def dial(*args: object) -> None:
        pass

    FakeClient.reset()
    monkeypatch.setattr("paxos_rsm.client.AsyncClient", FakeClient)
    monkeypatch.setattr(connect, "dial", dial)
    return FakeClient
