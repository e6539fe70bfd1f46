import base64
import json
import sys
from typing import Any

import pytest

from paxos_rsm.cli.kv import bounds_of
from paxos_rsm.errors import OutOfRange, UnknownOutcome
from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run

Client = type[FakeClient]

HEADER = {"cluster_id": 11, "member_id": 22, "raft_term": 33}


def as_json(*line: str, stdin: bytes | None = None) -> Any:
    """What a command prints with ``-w json``, its header checked and but for its revision taken out."""
    result = run(*line, "-w", "json", stdin=stdin)
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    header = shown.pop("header")
    assert {name: header[name] for name in HEADER} == HEADER
    return {"revision": header["revision"], **shown}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


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
    assert client.stored()[b"greeting"].value == b"hello"
    assert client.calls[-1] == ("close", {})


def test_put_takes_the_value_from_standard_input_as_it_is(client: Client) -> None:
    assert run("put", "k", stdin=b"\x00\xff\n").stdout == "OK\n"
    assert client.stored()[b"k"].value == b"\x00\xff\n"
    assert run("put", "k", "").stdout == "OK\n"
    assert client.stored()[b"k"].value == b""


def test_put_of_a_value_with_a_dash(client: Client) -> None:
    assert run("put", "--", "temperature", "-5").exit_code == 0
    assert client.stored()[b"temperature"].value == b"-5"


def test_put_prints_what_was_there_before(client: Client) -> None:
    assert run("put", "--prev-kv", "k", "old").stdout == "OK\n"
    assert run("put", "--prev-kv", "k", "new").stdout == "OK\nk\nold\n"
    assert as_json("put", "k", "x") == {"revision": 4}
    shown = as_json("put", "--prev-kv", "k", "y")
    assert (shown["revision"], shown["prev_kv"]["value_text"]) == (5, "x")
    assert as_json("put", "--prev-kv", "n", "y") == {"revision": 6}
    assert run("put", "--prev-kv", "--hex", "n", "z").stdout == "OK\n\\x6e\n\\x79\n"


def test_put_and_its_lease(client: Client) -> None:
    assert "lease 00000000000000ff granted" in run("lease", "grant", "100", "--id", "ff").stdout
    assert run("put", "k", "v", "--lease", "ff").stdout == "OK\n"
    assert run("put", "k", "w", "--ignore-lease").stdout == "OK\n"
    assert (client.stored()[b"k"].lease, client.stored()[b"k"].value) == (255, b"w")
    assert run("put", "k", "--ignore-value").stdout == "OK\n"
    assert (client.stored()[b"k"].lease, client.stored()[b"k"].value) == (0, b"w")
    refused = run("put", "k", "v", "--lease", "0xfe")
    assert (refused.exit_code, refused.stderr) == (1, "Error: etcdserver: requested lease not found\n")
    absent = run("put", "n", "--ignore-value")
    assert (absent.exit_code, absent.stderr) == (1, "Error: etcdserver: key not found\n")


@pytest.mark.skipif(sys.platform != "linux", reason="arguments are bytes on Linux only")
def test_an_argument_that_is_no_utf8_comes_through(client: Client) -> None:
    run("put", b"k\xff".decode("utf-8", "surrogateescape"), "v")
    assert list(client.stored()) == [b"k\xff"]
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
        (["--prefix", "--keys-only"], "a\n\nb/1\n\nb/2\n\nc\n\n"),
        (["--from-key", "", "--keys-only"], "a\n\nb/1\n\nb/2\n\nc\n\n"),
        (["--prefix", "b/", "--print-value-only"], "2\n3\n"),
        (["--prefix", "b/", "--count-only"], "2\n"),
        (["--prefix", "--limit", "1"], "a\n1\n"),
        (["--prefix", "b/", "--order", "descend"], "b/2\n3\nb/1\n2\n"),
        (["--prefix", "", "--sort-by", "MODIFY", "--order", "DESCEND", "--limit", "1"], "c\n4\n"),
        (["--prefix", "b/", "--rev", "3"], "b/1\n2\n"),
        (["a", "--hex"], "\\x61\n\\x31\n"),
    ],
)
def test_get_of_many(filled: Client, line: list[str], output: str) -> None:
    assert run("get", *line).stdout == output


def test_get_hands_its_options_on(filled: Client) -> None:
    run("get", "a", *("--rev", "3", "--order", "descend", "--sort-by", "modify", "--consistency", "s"))
    assert filled.calls[1] == (
        "range",
        {
            "key": b"a",
            "end": None,
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


@pytest.mark.parametrize(
    ("line", "paged"),
    [
        (["--prefix", "b/"], True),
        (["b/", "c", "--order", "DESCEND", "--sort-by", "key"], True),
        (["--from-key", "b", "--keys-only"], True),
        (["a"], False),
        (["--prefix", "b/", "--limit", "1"], False),
        (["--prefix", "b/", "--count-only"], False),
        (["--prefix", "b/", "--rev", "4"], False),
        (["--prefix", "b/", "--consistency", "s"], False),
        (["--prefix", "b/", "--sort-by", "VALUE"], False),
    ],
)
def test_what_nothing_bounds_is_read_in_pages(filled: Client, line: list[str], paged: bool) -> None:
    assert run("get", *line).exit_code == 0
    assert ("scan" in [what for what, _ in filled.calls]) is paged
    shown = as_json("get", "--prefix", "b/")
    assert (shown["revision"], shown["count"], "more" in shown) == (5, 2, False)


def test_get_as_json(filled: Client) -> None:
    kv: dict[str, Any] = {"key": "YQ==", "key_text": "a", "value": "MQ==", "value_text": "1"}
    kv |= {"create_revision": 2, "mod_revision": 2, "version": 1}
    assert as_json("get", "a") == {"revision": 5, "count": 1, "kvs": [kv]}
    run("put", "bin", stdin=b"\x00\xff")
    binary = as_json("get", "bin")["kvs"][0]
    assert (binary["value"], "value_text" in binary, binary["key_text"]) == ("AP8=", False, "bin")
    keys = as_json("get", "--prefix", "b/", "--keys-only")["kvs"]
    assert ["value" in kv for kv in keys] == [False, False]
    assert as_json("get", "--prefix", "b/", "--count-only") == {"revision": 6, "count": 2}
    stale = as_json("get", "a", "--consistency", "s")
    assert (stale["applied_slot"], stale["leader_age_ms"]) == (7, 20)


def test_get_as_fields(filled: Client) -> None:
    lines = run("get", "a", "-w", "fields").stdout.splitlines()
    assert lines[:5] == [
        '"ClusterID" : 11',
        '"MemberID" : 22',
        '"Revision" : 5',
        '"RaftTerm" : 33',
        '"Key" : "a"',
    ]
    assert lines[-2:] == ['"More" : false', '"Count" : 1']


def test_get_as_a_table(filled: Client) -> None:
    output = run("get", "--prefix", "b/", "-w", "table").stdout
    assert "create revision" in output
    assert "b/2" in output
    assert "value" not in run("get", "--prefix", "b/", "--keys-only", "-w", "table").stdout


# ---- which keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "bounds"),
    [
        (("k", None, False, False), (b"k", b"")),
        (("k", "l", False, False), (b"k", b"l")),
        (("k", None, True, False), (b"k", b"l")),
        (("", None, True, False), (b"\0", b"\0")),
        ((None, None, True, False), (b"\0", b"\0")),
        (("k", None, False, True), (b"k", b"\0")),
        (("", None, False, True), (b"\0", b"\0")),
    ],
)
def test_bounds(arguments: tuple[str | None, str | None, bool, bool], bounds: tuple[bytes, bytes]) -> None:
    assert bounds_of(*arguments) == bounds


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["get"], "Missing argument 'KEY'"),
        (["get", "--prefix", "--from-key", "a"], "cannot be used together"),
        (["get", "--prefix", "a", "b"], "RANGE_END cannot be used"),
        (["get", "a", "--keys-only", "--print-value-only"], "nothing to print"),
        (["get", "a", "--print-value-only", "-w", "json"], "is for -w simple"),
        (["get", "a", "--rev", "-1"], "--rev"),
        (["del"], "Missing argument 'KEY'"),
        (["del", "--prefix"], "Missing argument 'KEY'"),
        (["cas", "k", "new"], "2 arguments were given"),
        (["cas", "--absent", "k", "old", "new"], "3 arguments were given"),
        (["put"], "Missing argument 'KEY'"),
        (["put", "k", "v", "--lease", "xyz"], "'xyz' is no lease"),
        (["put", "k", "v", "--ignore-value"], "give none"),
        (["put", "k", "v", "--ignore-lease", "--lease", "1"], "give no --lease"),
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
    assert list(filled.stored()) == [b"c"]


def test_del_prints_what_was_there(filled: Client) -> None:
    assert run("del", "--prefix", "--prev-kv", "b/").stdout == "2\nb/1\n2\nb/2\n3\n"
    shown = as_json("del", "--prev-kv", "c")
    assert (shown["deleted"], [kv["value_text"] for kv in shown["prev_kvs"]]) == (1, ["4"])
    assert as_json("del", "c") == {"revision": 7}


def test_cas(client: Client) -> None:
    assert run("cas", "--absent", "owner", "me").stdout == "OK\n"
    assert run("cas", "owner", "me", "you").stdout == "OK\n"
    assert client.stored()[b"owner"].value == b"you"
    assert run("cas", "owner", "you", "me", "-w", "fields").stdout == '"Succeeded" : true\n'


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
    assert client.stored()[b"owner"].value == b"nobody"


def test_compaction(filled: Client) -> None:
    assert run("compaction", "3").stdout == "compacted revision 3\n"
    assert as_json("compaction", "4", "--physical") == {"revision": 5}
    assert [(each.compact.revision, each.compact.physical) for each in filled.commands()] == [
        (3, False),
        (4, True),
    ]
    again = run("compaction", "3")
    sentence = "Error: etcdserver: mvcc: required revision has been compacted\n"
    assert (again.exit_code, again.stderr) == (1, sentence)


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
