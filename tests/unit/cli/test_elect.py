import json

import pytest

from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run

Client = type[FakeClient]


def test_leads_until_it_is_interrupted_and_resigns(client: Client) -> None:
    client.interrupted = True
    result = run("elect", "--ttl", "3", "e", "me")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (5, "e/7b\nme\n", "Error: interrupted")
    assert ("election", {"name": b"e", "ttl_s": 3}) in client.calls
    assert not client.stored()


@pytest.mark.parametrize("line", [["elect", "e"], ["elect", "-l", "e"], ["elect", "e", "me", "--listen"]])
def test_listens(client: Client, line: list[str]) -> None:
    assert run(*line).stdout == "e/1\nme\ne/2\nyou\n"
    assert not client.stored()


def test_listens_in_json(client: Client) -> None:
    lines = run("elect", "e", "-w", "json").stdout.splitlines()
    shown = [json.loads(line) for line in lines]
    assert [(each["header"]["revision"], each["kvs"][0]["value_text"]) for each in shown] == [
        (11, "me"),
        (12, "you"),
    ]


def test_bad_usage(client: Client) -> None:
    assert run("elect").exit_code == 128
