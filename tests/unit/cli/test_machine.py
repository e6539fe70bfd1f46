import json

import pytest

from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run

Client = type[FakeClient]


class Echo:
    """Another state machine."""

    def apply(self, command: bytes, at: object) -> bytes:
        return b"did " + command

    def query(self, request: bytes) -> bytes:
        return request * 2


@pytest.fixture(autouse=True)
def _another_machine(client: Client) -> None:
    client.machine = Echo()


def test_submit(client: Client) -> None:
    assert run("submit", "increment").stdout == "did increment\n"
    assert run("submit", stdin=b"\x00\n").stdout_bytes == b"did \x00\n\n"
    assert ("submit", {"command": b"\x00\n"}) in client.calls


def test_query(client: Client) -> None:
    assert run("query", "total").stdout == "totaltotal\n"
    assert ("query", {"request": b"total", "serializable": False}) in client.calls
    run("query", "total", "--consistency", "s")
    assert ("query", {"request": b"total", "serializable": True}) in client.calls


def test_json_says_where_it_had_to_use_base64(client: Client) -> None:
    assert json.loads(run("query", "a", "-w", "json").stdout) == {"result": "aa"}
    shown = json.loads(run("query", "-w", "json", stdin=b"\xff").stdout)
    assert shown == {"result": "//8=", "result_encoding": "base64"}


def test_fields(client: Client) -> None:
    assert run("query", "a", "-w", "fields").stdout == '"Result" : "aa"\n'
