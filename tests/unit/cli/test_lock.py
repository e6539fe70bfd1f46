import json
import sys

import pytest

from paxos_rsm.errors import LeaseLost
from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run

Client = type[FakeClient]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_exit_code_of_the_command_is_ours(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print(os.environ['ETCD_LOCK_KEY'], os.environ['PAXOS_RSM_LOCK_REV']); sys.exit(7)"
    result = run("lock", "--ttl", "5", "l", *python(code))
    assert (result.exit_code, result.stdout, result.stderr) == (7, "", "")
    assert capfd.readouterr().out == "l/7b 2\n"
    assert ("lock", {"name": b"l", "ttl_s": 5}) in client.calls
    assert [what for what, _ in client.calls[-2:]] == ["released", "close"]


def test_a_command_that_is_not_there_releases(client: Client) -> None:
    result = run("lock", "l", "no-such-command-anywhere")
    assert result.exit_code == 1
    assert result.stderr == "Error: no-such-command-anywhere: No such file or directory\n"
    assert not client.stored()


def test_a_lock_that_is_lost_ends_the_command(client: Client) -> None:
    client.lost = LeaseLost("the lease of the lock has ended")
    result = run("lock", "l", *python("import time; time.sleep(600)"))
    assert (result.exit_code, result.stderr) == (1, "Error: the lease of the lock has ended\n")


def test_without_a_command_it_prints_the_key_and_holds_until_it_is_interrupted(client: Client) -> None:
    client.interrupted = True
    result = run("lock", "l")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (5, "l/7b\n\n", "Error: interrupted")
    assert ("released", {}) in client.calls
    assert not client.stored()
    shown = json.loads(run("lock", "l", "-w", "json").stdout)
    assert shown["kvs"][0]["key_text"] == "l/7b"
    assert shown["header"]["member_id"] == 22


@pytest.mark.parametrize("line", [["lock"], ["lock", "--ttl", "0", "l"], ["lock", "l", "--nonsense"]])
def test_bad_usage(client: Client, line: list[str]) -> None:
    assert run(*line).exit_code == 128
    assert not client.calls
