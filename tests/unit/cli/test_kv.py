import json
import sys

import pytest

from paxos_rsm.cli.kv import Bounds, bounds_of
from paxos_rsm.errors import OutOfRange, UnknownOutcome
from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run

Client = type[FakeClient]


@pytest.fixture
def filled(client: Client) -> Client:
    for key, value in (("a", "1"), ("b/1", "2"), ("b/2", "3"), ("c", "4")):
        assert run("put", key, value).exit_code == 0
    client.calls.clear()
    return client


# ---- put -------------------------------------------------------------------------------------------------


def test_put_prints_ok(client: Client) -> None:
    result = run("put", "greeting", "hello")
    assert (result.exit_code, result.stdout) == (0, "OK\n")
    assert ("put", {"key": b"greeting", "value": b"hello", "prev_kv": False}) in client.calls
    assert client.calls[-1] == ("close", {})


def test_put_takes_the_value_from_standard_input_as_it_is(client: Client) -> None:
    assert run("put", "k", stdin=b"\x00\xff\n").stdout == "OK\n"
    assert client.kvs[b"k"].value == b"\x00\xff\n"
    assert run("put", "k", "").stdout == "OK\n"
    assert client.kvs[b"k"].value == b""


def test_put_of_a_value_with_a_dash(client: Client) -> None:
    assert run("put", "--", "temperature", "-5").exit_code == 0
    assert client.kvs[b"temperature"].value == b"-5"


def test_put_prints_what_was_there_before(client: Client) -> None:
    assert run("put", "--prev-kv", "k", "old").stdout == "OK\n"
    assert run("put", "--prev-kv", "k", "new").stdout == "OK\nk\nold\n"
    assert json.loads(run("put", "k", "x", "-w", "json").stdout) == {"revision": 4}
    shown = json.loads(run("put", "--prev-kv", "k", "y", "-w", "json").stdout)
    assert (shown["revision"], shown["prev_kv"]["value"]) == (5, "x")
    assert json.loads(run("put", "--prev-kv", "n", "y", "-w", "json").stdout) == {
        "revision": 6,
        "prev_kv": None,
    }


@pytest.mark.skipif(sys.platform != "linux", reason="arguments are bytes on Linux only")
def test_an_argument_that_is_no_utf8_comes_through(client: Client) -> None:
    run("put", b"k\xff".decode("utf-8", "surrogateescape"), "v")
    assert list(client.kvs) == [b"k\xff"]
    assert run("get", b"k\xff".decode("utf-8", "surrogateescape")).stdout_bytes == b"k\xff\nv\n"


# ---- get -------------------------------------------------------------------------------------------------


def test_get_prints_key_then_value_and_nothing_where_it_is_missing(filled: Client) -> None:
    assert run("get", "a").stdout == "a\n1\n"
    missing = run("get", "nothing")
    assert (missing.exit_code, missing.stdout, missing.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("line", "output"),
    [
        (["--prefix", "b/"], "b/1\n2\nb/2\n3\n"),
        (["b/", "c"], "b/1\n2\nb/2\n3\n"),
        (["--from-key", "b/2"], "b/2\n3\nc\n4\n"),
        (["--prefix", "--keys-only"], "a\nb/1\nb/2\nc\n"),
        (["--from-key", "", "--keys-only"], "a\nb/1\nb/2\nc\n"),
        (["--prefix", "b/", "--print-value-only"], "2\n3\n"),
        (["--prefix", "b/", "--count-only"], "2\n"),
        (["--prefix", "--limit", "1"], "a\n1\n"),
    ],
)
def test_get_of_many(filled: Client, line: list[str], output: str) -> None:
    assert run("get", *line).stdout == output


def test_get_hands_its_options_on(filled: Client) -> None:
    run("get", "a", *("--rev", "3", "--order", "descend", "--sort-by", "MODIFY", "--consistency", "s"))
    assert filled.calls[1] == (
        "range",
        {
            "key": b"a",
            "end": None,
            "prefix": None,
            "limit": 0,
            "revision": 3,
            "sort_by": "mod_revision",
            "descending": True,
            "serializable": True,
            "keys_only": False,
            "count_only": False,
        },
    )
    run("get", "a")
    assert filled.calls[-2][1]["serializable"] is False
    assert (filled.calls[-2][1]["sort_by"], filled.calls[-2][1]["descending"]) == (None, False)


def test_get_as_json(filled: Client) -> None:
    shown = json.loads(run("get", "a", "-w", "json").stdout)
    kv = {"key": "a", "value": "1", "create_revision": 2, "mod_revision": 2, "version": 1, "lease": 0}
    assert shown == {"revision": 5, "count": 1, "more": False, "kvs": [kv]}
    run("put", "bin", stdin=b"\x00\xff")
    binary = json.loads(run("get", "bin", "-w", "json").stdout)["kvs"][0]
    assert (binary["value"], binary["value_encoding"], "key_encoding" in binary) == ("AP8=", "base64", False)
    keys = json.loads(run("get", "--prefix", "b/", "--keys-only", "-w", "json").stdout)["kvs"]
    assert ["value" in kv for kv in keys] == [False, False]
    counted = json.loads(run("get", "--prefix", "b/", "--count-only", "-w", "json").stdout)
    assert counted == {"revision": 6, "count": 2, "more": False}
    stale = json.loads(run("get", "a", "--consistency", "s", "-w", "json").stdout)
    assert (stale["applied_slot"], stale["leader_age_ms"]) == (7, 20)


def test_get_as_a_table(filled: Client) -> None:
    output = run("get", "--prefix", "b/", "-w", "table").stdout
    assert "create revision" in output
    assert "b/2" in output
    assert "value" not in run("get", "--prefix", "b/", "--keys-only", "-w", "table").stdout


# ---- which keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "bounds"),
    [
        (("k", None, False, False), {"key": b"k"}),
        (("k", "l", False, False), {"key": b"k", "end": b"l"}),
        (("k", None, True, False), {"prefix": b"k"}),
        (("", None, True, False), {"prefix": b""}),
        ((None, None, True, False), {"prefix": b""}),
        (("k", None, False, True), {"key": b"k", "end": b"\0"}),
        (("", None, False, True), {"prefix": b""}),
    ],
)
def test_bounds(arguments: tuple[str | None, str | None, bool, bool], bounds: Bounds) -> None:
    assert bounds_of(*arguments) == bounds


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["get"], "Missing argument 'KEY'"),
        (["get", "--prefix", "--from-key", "a"], "cannot be used together"),
        (["get", "--prefix", "a", "b"], "RANGE_END cannot be used"),
        (["get", "a", "--keys-only", "--print-value-only"], "nothing to print"),
        (["get", "a", "--rev", "-1"], "--rev"),
        (["del"], "Missing argument 'KEY'"),
        (["del", "--prefix"], "Missing argument 'KEY'"),
        (["cas", "k", "new"], "2 arguments were given"),
        (["cas", "--absent", "k", "old", "new"], "3 arguments were given"),
        (["put"], "Missing argument 'KEY'"),
        (["compaction", "now"], "'now' is not a valid integer"),
    ],
)
def test_what_means_nothing_is_bad_usage(client: Client, line: list[str], words: str) -> None:
    result = run(*line)
    assert result.exit_code == 128
    assert words in result.stderr
    assert not client.calls


# ---- del, cas, compaction --------------------------------------------------------------------------------


def test_del_prints_the_count(filled: Client) -> None:
    assert run("del", "a").stdout == "1\n"
    assert run("del", "a").stdout == "0\n"
    assert run("del", "b/", "c").stdout == "2\n"
    assert list(filled.kvs) == [b"c"]


def test_del_prints_what_was_there(filled: Client) -> None:
    assert run("del", "--prefix", "--prev-kv", "b/").stdout == "2\nb/1\n2\nb/2\n3\n"
    shown = json.loads(run("del", "--prev-kv", "c", "-w", "json").stdout)
    assert (shown["deleted"], [kv["value"] for kv in shown["prev_kvs"]]) == (1, ["4"])
    assert json.loads(run("del", "c", "-w", "json").stdout) == {"deleted": 0, "revision": 7}


def test_cas(client: Client) -> None:
    assert run("cas", "--absent", "owner", "me").stdout == "OK\n"
    assert run("cas", "owner", "me", "you").stdout == "OK\n"
    assert client.kvs[b"owner"].value == b"you"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["cas", "owner", "me", "you"], "Error: nothing was written: 'owner' does not hold 'me'\n"),
        (["cas", "--absent", "owner", "you"], "Error: nothing was written: 'owner' is there already\n"),
    ],
)
def test_cas_that_does_not_match_exits_1_with_a_sentence(
    client: Client, line: list[str], sentence: str
) -> None:
    run("put", "owner", "nobody")
    result = run(*line)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", sentence)
    assert json.loads(run(*line, "-w", "json").stdout) == {"succeeded": False}
    assert client.kvs[b"owner"].value == b"nobody"


def test_compaction(client: Client) -> None:
    assert run("compaction", "5").stdout == "compacted revision 5\n"
    assert json.loads(run("compaction", "5", "-w", "json").stdout) == {"compacted": 5}
    assert ("compact", {"revision": 5}) in client.calls


# ---- what goes wrong -------------------------------------------------------------------------------------


def test_what_the_servers_refuse_is_one_line_in_their_words(client: Client) -> None:
    client.failure = OutOfRange("etcdserver: mvcc: required revision has been compacted")
    result = run("get", "a", "--rev", "1")
    sentence = "Error: etcdserver: mvcc: required revision has been compacted\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", sentence)


def test_an_unknown_outcome_is_an_error_that_says_so(client: Client) -> None:
    client.failure = UnknownOutcome("it may have been executed")
    assert run("put", "a", "b").stderr == "Error: it may have been executed\n"


def test_settings_reach_the_client(client: Client) -> None:
    run("get", "a", "--endpoints", "http://a:1,b:2", "--command-timeout", "250ms")
    assert client.calls[0] == ("client", {"endpoints": ("a:1", "b:2"), "timeout_s": 0.25})
