import json

import pytest

from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run

Client = type[FakeClient]


@pytest.fixture
def filled(client: Client) -> Client:
    run("put", "a", "1")
    client.calls.clear()
    return client


def test_prints_success_and_the_results(filled: Client) -> None:
    result = run("txn", stdin=b'value("a") = "1"\n\nput a 2\nget a\n\nput a 3\n\n')
    assert (result.exit_code, result.stdout) == (0, "SUCCESS\n\nOK\n\na\n2\n")
    result = run("txn", stdin=b'value("a") = "1"\n\nput a 2\n\ndel a --prev-kv\nput b ""\n\n')
    assert (result.exit_code, result.stdout) == (0, "FAILURE\n\n1\na\n2\n\nOK\n")
    assert [kv.value for kv in filled.stored().values()] == [b""]


def test_interactive_says_what_it_wants(filled: Client) -> None:
    result = run("txn", "-i", stdin=b"\r\nget a\r\n\r\n\r\n")
    headings = "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n"
    assert result.stdout == headings + "SUCCESS\n\na\n1\n"


def test_one_that_only_reads_is_a_query(filled: Client) -> None:
    assert run("txn", stdin=b"\nget a\n\n\n").exit_code == 0
    assert [name for name, _ in filled.calls] == ["client", "query", "close"]


def test_bytes_come_through(filled: Client) -> None:
    assert run("txn", stdin=b'\nput k \xff\nput l "\\xfe"\n\n\n').exit_code == 0
    assert (filled.stored()[b"k"].value, filled.stored()[b"l"].value) == (b"\xff", b"\xfe")


def test_as_json(filled: Client) -> None:
    shown = json.loads(run("txn", "-w", "json", stdin=b"\nput a 2\n\n\n").stdout)
    assert shown["succeeded"] is True
    assert shown["responses"] == [{"Response": {"ResponsePut": {"header": {"revision": 3}}}}]


@pytest.mark.parametrize("text", [b"", b"nonsense\n\n\n\n", b"\nfoo\n\n\n", b"\nput a 2\n\n"])
def test_what_cannot_be_read_exits_3_and_does_nothing(filled: Client, text: bytes) -> None:
    result = run("txn", stdin=text)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not filled.calls
