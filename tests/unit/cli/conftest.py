"""Commands that connect, without servers."""

import importlib
import pkgutil

import pytest

from paxos_rsm import cli
from paxos_rsm.cli import connect, direct
from tests.unit.cli.fake_client import FakeClient

# Commands are loaded when they are first called for: one loaded under a fixture would keep what that put there.
for module in pkgutil.iter_modules(cli.__path__):
    if module.name != "__main__":
        importlib.import_module(f"paxos_rsm.cli.{module.name}")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    """What the commands talk to instead of servers; empty at first."""

    async def dial(*args: object) -> None:
        pass

    async def ask(endpoint: str, method: str, request: object, answer_type: type, timeout_s: float) -> object:
        if method != "Admin/Status":
            raise NotImplementedError(method)
        answer = answer_type(cluster_id=11, member_id=22)
        answer.ballot.round = 33
        return answer

    FakeClient.reset()
    monkeypatch.setattr("paxos_rsm.client.AsyncClient", FakeClient)
    monkeypatch.setattr(connect, "dial", dial)
    monkeypatch.setattr(direct, "dial", dial)
    monkeypatch.setattr(direct, "ask", ask)
    return FakeClient
