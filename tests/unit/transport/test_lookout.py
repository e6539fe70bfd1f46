"""The sentences of a server that finds nobody; when they are said is in test_transport."""

from paxos_rsm.transport.lookout import SHOWN_MAX, finds_nobody, has_not_formed, is_not_called, is_not_reached
from tests.unit.transport.helpers import hello_of


def test_who_finds_nobody_is_told_how_to_come_back() -> None:
    text = finds_nobody(hello_of(3, 23).member, ["n1 (http://h1:1)", "n2 (http://h2:1)"])
    assert "no other member has been reached for 30 s: n1 (http://h1:1), n2 (http://h2:1)" in text
    assert "`paxos-rsm member list`" in text
    assert "`paxos-rsm member add n3 --peer-urls http://127.0.0.1:23`" in text
    assert text.endswith("--initial-cluster-state existing")


def test_many_are_not_all_named() -> None:
    text = has_not_formed([f"http://h{i}:1" for i in range(SHOWN_MAX + 2)])
    assert f"http://h{SHOWN_MAX - 1}:1 and 2 more. Start" in text
    assert f"http://h{SHOWN_MAX}:1" not in text


def test_one_stream_of_two() -> None:
    assert "`paxos-rsm member update n2 --peer-urls URL`" in is_not_reached("n2", "http://h2:1")
    me = hello_of(3, 23).member
    assert "looks for this server at http://127.0.0.1:23. See that it listens there" in is_not_called(
        me, "n1"
    )
