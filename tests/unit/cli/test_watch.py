import json
import sys

import pytest

from paxos_rsm.cli.failures import BadInput
from paxos_rsm.cli.watch import Request, parse_line
from paxos_rsm.client import KeyValue, WatchEvent
from paxos_rsm.errors import Compacted
from tests.unit.cli.fake_client import FakeClient, FakeWatch
from tests.unit.cli.helpers import run

Client = type[FakeClient]

BEFORE = KeyValue(b"a", b"0", 1, 2, 2)
PUT = WatchEvent("put", KeyValue(b"a", b"1", 2, 2, 3), 3, BEFORE)
DELETE = WatchEvent("delete", KeyValue(b"a", b"", 0, 0, 4), 4)
PROGRESS = WatchEvent("progress", KeyValue(b"", b"", 0, 0, 0), 9)


def test_prints_what_comes(client: Client) -> None:
    client.batches = [[PUT], [DELETE, PROGRESS]]
    result = run("watch", "a", "--prev-kv", "--rev", "3", "--progress-notify")
    assert result.stdout == "PUT\na\n0\na\n1\nDELETE\na\n\nprogress notify: 9\n"
    options = {"start_revision": 3, "prev_kv": True, "progress": True}
    assert ("watch", {"key": b"a", "end": None, **options}) in client.calls


@pytest.mark.parametrize(
    ("line", "bounds"),
    [
        (["a"], (b"a", None)),
        (["a", "c"], (b"a", b"c")),
        (["--prefix", "a"], (b"a", b"b")),
        (["--prefix", ""], (b"\0", b"\0")),
        (["--from-key", "a"], (b"a", b"\0")),
    ],
)
def test_bounds(client: Client, line: list[str], bounds: tuple[bytes, bytes | None]) -> None:
    assert run("watch", *line).exit_code == 0
    asked = next(arguments for what, arguments in client.calls if what == "watch")
    assert (asked["key"], asked["end"]) == bounds


def test_what_came_together_is_one_response_in_json(client: Client) -> None:
    client.batches = [[PUT, DELETE]]
    shown = json.loads(run("watch", "a", "-w", "json").stdout)
    assert (shown["Header"]["revision"], shown["Header"]["member_id"]) == (4, 22)
    assert [event.get("type", 0) for event in shown["Events"]] == [0, 1]
    assert shown["Events"][0]["prev_kv"]["value_text"] == "0"


def test_runs_a_command_for_each(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    client.batches = [[PUT, DELETE]]
    names = ("EVENT_TYPE", "KEY", "VALUE", "REVISION")
    code = f"import os; print(*(os.environ['PAXOS_RSM_WATCH_' + n] for n in {names}), os.environ['ETCD_WATCH_KEY'])"
    result = run("watch", "a", "--", sys.executable, "-c", code)
    assert result.exit_code == 0, result.stderr
    assert capfd.readouterr().out == 'PUT a 1 3 "a"\nDELETE a  4 "a"\n'


def test_a_command_that_fails_ends_the_watch(client: Client) -> None:
    client.batches = [[PUT], [DELETE]]
    result = run("watch", "a", "--", sys.executable, "-c", "raise SystemExit(3)")
    assert (result.exit_code, result.stdout) == (1, "PUT\na\n0\na\n1\n")
    assert result.stderr.endswith("ended with exit code 3\n")


def test_what_is_compacted_is_an_error(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def next_batch(self: FakeWatch) -> list[WatchEvent]:
        raise Compacted("compacted", compact_revision=7)

    monkeypatch.setattr(FakeWatch, "next_batch", next_batch)
    assert (run("watch", "a").exit_code, run("watch", "a").stderr) == (1, "Error: compacted\n")
    monkeypatch.setattr(FakeWatch, "resume_revision", 0)
    interactive = run("watch", "-i", stdin=b"watch a\nprogress\n")
    assert (interactive.exit_code, interactive.stderr) == (1, "Error: compacted\n")


def test_interactive(client: Client) -> None:
    client.batches = [[PUT]]
    result = run("watch", "-i", stdin=b"watch a --rev 3\n\nwatch b c\nprogress\n")
    assert (result.exit_code, result.stderr) == (0, "")
    printed = ["PUT", "a", "0", "a", "1"]
    assert sorted(result.stdout.splitlines()) == sorted([*printed, *printed, "progress notify: 1"])
    asked = [arguments for what, arguments in client.calls if what == "watch"]
    assert [(each["key"], each["end"], each["start_revision"]) for each in asked] == [
        (b"a", None, 3),
        (b"b", b"c", 0),
    ]


def test_a_line_that_cannot_be_read_is_told_of_and_the_rest_goes_on(client: Client) -> None:
    client.batches = [[PUT]]
    result = run("watch", "-i", stdin=b"foo\nwatch a\nprogress\n")
    assert result.exit_code == 3
    assert "PUT\na\n" in result.stdout
    assert result.stderr == "Error: Invalid command foo (only support watch and progress)\n"


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("progress", None),
        ("watch a", Request(b"a", b"")),
        ("watch 'a b' --prefix --rev 3", Request(b"a b", b"a c", 3)),
        (
            'watch a c --prev-kv --progress-notify -- echo "x y" -n',
            Request(b"a", b"c", 0, True, True, ("echo", "x y", "-n")),
        ),
    ],
)
def test_lines(line: str, request_: Request | None) -> None:
    assert parse_line(line) == request_


@pytest.mark.parametrize(
    "line", ["get a", "watch", "watch a --nonsense", "watch 'a", "watch -i", "watch --help"]
)
def test_bad_lines(line: str) -> None:
    with pytest.raises(BadInput):
        parse_line(line)


@pytest.mark.parametrize("line", [[], ["-i", "a"], ["a", "b", "--prefix"], ["--", "a"]])
def test_bad_usage(client: Client, line: list[str]) -> None:
    assert run("watch", *line).exit_code == 128
    assert not client.calls
