from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.messages import MalformedMessage
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.types import NO_BALLOT, Ballot
from paxos_rsm.transport.handshake import (
    STRANGERS_MAX,
    Hello,
    PeerBook,
    Reason,
    Refusal,
    check_hello,
    hello_from_pb,
    hello_to_pb,
    refusal_from_pb,
    refusal_to_pb,
)
from tests.unit.codec.strategies import nodes, promises, texts
from tests.unit.transport.helpers import configuration_of, hello_of

ME, N2, N3 = hello_of(1), hello_of(2), hello_of(3)


def book(formed: bool = False) -> PeerBook:
    known = PeerBook({1, 2, 3})
    if formed:
        known.form(configuration_of(ME, N2, N3))
    return known


def refusal_of(theirs: Hello, known: PeerBook) -> Refusal:
    refusal = check_hello(ME, theirs, known)
    assert refusal is not None
    return refusal


def wiped(hello: Hello) -> Hello:
    """The same server with an empty data directory."""
    member = replace(hello.member, incarnation=hello.member.incarnation + 50_000)
    return replace(hello, member=member, formed=False, boot_count=1, process=hello.process + 500)


def restarted(hello: Hello, **changes: object) -> Hello:
    """The same directory, started once more."""
    again = replace(hello, boot_count=hello.boot_count + 1, process=hello.process + 100)
    return replace(again, **changes)  # type: ignore[arg-type]


# ---- who is taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("formed", [False, True])
def test_a_member_is_taken(formed: bool) -> None:
    assert check_hello(ME, N2, book(formed)) is None
    assert check_hello(ME, replace(N2, formed=True), book(formed)) is None


def test_a_restarted_member_is_taken() -> None:
    known = book(formed=True)
    known.hear(replace(N2, promised=Ballot(4, 1001)))
    assert check_hello(ME, restarted(N2, promised=Ballot(4, 1001)), known) is None


def test_before_the_cluster_has_formed_a_wiped_member_is_taken() -> None:
    known = book()
    known.hear(N2)
    assert check_hello(ME, wiped(N2), known) is None


# ---- who is not ------------------------------------------------------------------------------------------


def test_another_cluster() -> None:
    refusal = refusal_of(replace(N2, cluster_id=78), book())
    assert refusal.reason is Reason.WRONG_CLUSTER
    assert "cluster 4e" in refusal.message
    assert "cluster 4d" in refusal.message
    assert "--initial-cluster" in refusal.message


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ("ab" * 32, f"was restored from the backup {'ab' * 32}; 'n1' at "),
        ("", "began empty; 'n1' at "),
    ],
)
def test_a_cluster_that_was_restored_from_another_backup(theirs: str, words: str) -> None:
    mine = replace(ME, restored_from="cd" * 32)
    refusal = check_hello(mine, replace(N2, cluster_id=78, restored_from=theirs), book())
    assert refusal is not None
    assert (refusal.reason, refusal.fatal) == (Reason.WRONG_CLUSTER, False)
    assert words in refusal.message
    assert f"of cluster 4d, was restored from the backup {'cd' * 32}" in refusal.message
    assert "of cluster 4e" in refusal.message
    assert "from one and the same backup file" in refusal.message
    same = check_hello(mine, replace(N2, cluster_id=78, restored_from="cd" * 32), book())
    assert same is not None
    assert "--initial-cluster-token" in same.message


@pytest.mark.parametrize(
    ("we_are_formed", "they_are_formed", "fatal"),
    [(False, False, False), (False, True, False), (True, True, False), (True, False, True)],
)
def test_only_an_outsider_stops_on_the_word_of_another_cluster(
    we_are_formed: bool, they_are_formed: bool, fatal: bool
) -> None:
    """A server in service must not stop because a stranger was started under the address of its peer."""
    theirs = replace(N2, cluster_id=78, formed=they_are_formed)
    refusal = refusal_of(theirs, book(we_are_formed))
    assert refusal.fatal is fatal
    # Its place may be taken: by itself, whose directory was wiped.
    assert ("To join the cluster that runs: `paxos-rsm member add n2" in refusal.message) is fatal
    assert refusal.message.endswith("whose directory is lost, remove that one first") is fatal


def test_no_common_version() -> None:
    refusal = refusal_of(replace(N2, versions=(2, 3)), book())
    assert refusal.reason is Reason.VERSION
    assert "versions 2, 3" in refusal.message
    assert not refusal.fatal
    assert check_hello(ME, replace(N2, versions=(1, 2)), book()) is None
    assert refusal_of(replace(N2, versions=()), book()).reason is Reason.VERSION


def test_a_server_under_our_own_name() -> None:
    refusal = refusal_of(replace(ME, process=99), book())
    assert refusal.reason is Reason.NOT_A_MEMBER
    assert "two servers were started under one name" in refusal.message


@pytest.mark.parametrize("formed", [False, True])
def test_not_a_member(formed: bool) -> None:
    refusal = refusal_of(hello_of(4), book(formed))
    assert refusal.reason is Reason.NOT_A_MEMBER
    assert "`paxos-rsm member add n4 --peer-urls http://127.0.0.1:1`" in refusal.message
    assert "--initial-cluster-state existing" in refusal.message
    assert refusal.fatal is formed


def test_one_that_was_just_added_is_not_stopped_by_who_has_yet_to_learn_of_it() -> None:
    refusal = refusal_of(replace(hello_of(4), joining=True), book(formed=True))
    assert refusal.reason is Reason.NOT_A_MEMBER
    assert not refusal.fatal


@pytest.mark.parametrize("formed", [False, True])
def test_who_has_learned_of_a_configuration_may_know_one_that_we_do_not(formed: bool) -> None:
    """We may have been away while every member was replaced: refused, the new ones could never tell us."""
    known, later = book(formed), replace(hello_of(4), formed=True)
    assert check_hello(ME, later, known) is None
    known.hear(later)
    assert known.allows(later.member.incarnation)
    assert not known.is_member(4)
    assert refusal_of(replace(later, process=99), known).reason is Reason.ROLLED_BACK
    known.form(configuration_of(ME, N2))  # not the one that it knows
    assert known.allows(later.member.incarnation)
    known.form(configuration_of(ME, later))
    assert known.named(4) == later.member.incarnation
    known.form(configuration_of(ME, N3))
    assert refusal_of(later, known).reason is Reason.REMOVED
    assert not known.allows(later.member.incarnation)


def test_a_stranger_whose_removal_is_learned_of_is_refused_from_then_on() -> None:
    known, stranger = book(formed=True), replace(hello_of(4), formed=True)
    known.hear(stranger)
    known.form(replace(configuration_of(ME, N2, N3), removed=(stranger.member.incarnation,)))
    assert not known.allows(stranger.member.incarnation)
    assert refusal_of(stranger, known).reason is Reason.REMOVED


def test_strangers_are_few() -> None:
    known = book(formed=True)
    for number in range(4, 4 + STRANGERS_MAX):
        stranger = replace(hello_of(number), formed=True)
        assert check_hello(ME, stranger, known) is None
        known.hear(stranger)
    assert refusal_of(replace(hello_of(999), formed=True), known).reason is Reason.NOT_A_MEMBER
    assert check_hello(ME, replace(hello_of(4), formed=True), known) is None


def test_a_wiped_directory_meets_a_formed_cluster() -> None:
    refusal = refusal_of(wiped(N2), book(formed=True))
    assert refusal.reason is Reason.UNKNOWN_INCARNATION
    assert refusal.fatal
    assert "wiped" in refusal.message
    assert (
        "remove the old member with `paxos-rsm member remove 2` and add this server as a new one: "
        in refusal.message
    )
    assert "`paxos-rsm member add n2 --peer-urls http://127.0.0.1:1`" in refusal.message
    assert "with an empty data directory and --initial-cluster-state existing" in refusal.message


def test_an_unknown_incarnation_that_is_formed_may_know_a_later_configuration() -> None:
    refusal = refusal_of(replace(wiped(N2), formed=True), book(formed=True))
    assert refusal.reason is Reason.UNKNOWN_INCARNATION
    assert not refusal.fatal


def test_a_boot_count_that_went_backwards() -> None:
    known = book()
    known.hear(replace(N2, boot_count=7))
    refusal = refusal_of(replace(N2, boot_count=6, process=99), known)
    assert refusal.reason is Reason.ROLLED_BACK
    assert refusal.fatal
    assert "started 6 times, after 7 times before" in refusal.message


def test_a_second_process_with_the_same_boot_count() -> None:
    known = book()
    known.hear(N2)
    refusal = refusal_of(replace(N2, process=99), known)
    assert refusal.reason is Reason.ROLLED_BACK
    assert refusal.fatal
    assert "another process" in refusal.message


@pytest.mark.parametrize("by_message", [False, True])
def test_a_promise_that_was_forgotten(by_message: bool) -> None:
    known = book()
    known.hear(N2 if by_message else replace(N2, promised=Ballot(5, 1001)))
    if by_message:
        known.hear_promise(N2.member.incarnation, Ballot(5, 1001))
    refusal = refusal_of(restarted(N2, promised=Ballot(4, 1003)), known)
    assert refusal.reason is Reason.ROLLED_BACK
    assert refusal.fatal
    assert "forgotten a promise" in refusal.message


def test_a_hello_that_younger_messages_have_overtaken_is_no_roll_back() -> None:
    """Two streams: what was written on one may be read after what was written later on the other."""
    known = book()
    known.hear(N2)
    known.hear_promise(N2.member.incarnation, Ballot(5, 1001))
    assert check_hello(ME, N2, known) is None
    known.hear(N2)
    assert check_hello(ME, restarted(N2), known) is not None  # and the higher promise is not forgotten by it


def test_the_promise_of_a_stranger_is_not_kept() -> None:
    known = book()
    known.hear_promise(12345, Ballot(5, 1001))
    assert known.rolled_back(restarted(N2)) is None


def test_a_removed_incarnation() -> None:
    known = book(formed=True)
    known.form(configuration_of(ME, N3))
    for formed in (False, True):
        refusal = refusal_of(replace(N2, formed=formed), known)
        assert refusal.reason is Reason.REMOVED
        assert refusal.fatal
        assert "`paxos-rsm member add n2 --peer-urls http://127.0.0.1:1`" in refusal.message


def test_who_is_added_again_is_not_removed() -> None:
    known = book(formed=True)
    known.form(configuration_of(ME, N3))
    known.form(configuration_of(ME, N2, N3))
    assert check_hello(ME, N2, known) is None


def test_a_replaced_incarnation_is_removed_and_the_new_one_is_taken() -> None:
    known = book(formed=True)
    known.form(configuration_of(ME, wiped(N2), N3))
    assert refusal_of(N2, known).reason is Reason.REMOVED
    assert check_hello(ME, wiped(N2), known) is None


def test_the_configuration_carries_on_who_was_removed() -> None:
    """A server that has just started has seen no other configuration."""
    known = PeerBook({1, 3})
    known.form(replace(configuration_of(ME, N3), removed=(N2.member.incarnation,)))
    assert known.is_removed(N2.member.incarnation)
    refusal = refusal_of(replace(N2, formed=True), known)
    assert refusal.reason is Reason.REMOVED
    assert refusal.fatal


def pending(*hellos: Hello) -> Configuration:
    """Of ME and N2, and of learners that have yet to join."""
    added = tuple(replace(hello.member, incarnation=0, learner=True) for hello in hellos)
    configuration = configuration_of(ME, N2)
    return replace(configuration, members=configuration.members + added)


def test_a_member_that_has_yet_to_join_is_taken_whoever_comes_under_its_id() -> None:
    known, joiner = PeerBook({1, 2}), replace(hello_of(4), joining=True)
    known.form(pending(joiner))
    assert known.is_member(4)
    assert known.is_pending(4)
    assert not known.is_pending(2)
    assert not known.is_pending(3)
    for comer in (joiner, wiped(joiner)):
        assert check_hello(ME, comer, known) is None
        known.hear(comer)
        assert known.allows(comer.member.incarnation)
    assert not known.allows(joiner.member.incarnation)  # its directory is gone
    assert not known.allows(0)


def test_a_member_that_has_joined_is_the_one_that_was_named() -> None:
    known, joiner = PeerBook({1, 2}), replace(hello_of(4), joining=True)
    known.form(pending(joiner))
    known.hear(joiner)
    known.form(configuration_of(ME, N2, joiner))
    assert not known.is_pending(4)
    assert check_hello(ME, joiner, known) is None
    assert known.allows(joiner.member.incarnation)
    refusal = refusal_of(wiped(joiner), known)
    assert refusal.reason is Reason.UNKNOWN_INCARNATION
    assert refusal.fatal
    assert "`paxos-rsm member remove 4`" in refusal.message


def test_another_one_than_came_first_may_be_named() -> None:
    known, joiner = PeerBook({1, 2}), replace(hello_of(4), joining=True)
    known.form(pending(joiner))
    known.hear(joiner)
    known.form(configuration_of(ME, N2, wiped(joiner)))
    assert not known.allows(joiner.member.incarnation)
    assert refusal_of(joiner, known).reason is Reason.UNKNOWN_INCARNATION


def test_a_member_that_was_removed_before_it_came_is_not_taken() -> None:
    known, joiner = PeerBook({1, 2}), replace(hello_of(4), joining=True)
    known.form(pending(joiner))
    known.hear(joiner)
    known.form(configuration_of(ME, N2))
    assert not known.allows(joiner.member.incarnation)
    assert refusal_of(joiner, known).reason is Reason.NOT_A_MEMBER


def test_an_old_copy_of_a_directory_that_has_yet_to_join_is_not_taken() -> None:
    known, joiner = PeerBook({1, 2}), replace(hello_of(4), joining=True, boot_count=3)
    known.form(pending(joiner))
    known.hear(joiner)
    assert refusal_of(replace(joiner, boot_count=2, process=99), known).reason is Reason.ROLLED_BACK


def test_a_server_that_joins_takes_the_formed_ones() -> None:
    """It knows the members from what it was told before it started, and no incarnation."""
    known, mine = PeerBook({1, 2, 4}), replace(hello_of(4), joining=True)
    for theirs in (ME, N2, N3):
        assert check_hello(mine, replace(theirs, formed=True), known) is None


def test_long_names_do_not_make_long_sentences() -> None:
    long = replace(hello_of(4), member=replace(hello_of(4).member, name="n" * 4_096, peer_url="u" * 4_096))
    assert len(refusal_of(long, book(formed=True)).message) < 2_000
    assert len(refusal_of(replace(long, cluster_id=5), book(formed=True)).message) < 2_000


# ---- the book --------------------------------------------------------------------------------------------


def test_the_book_of_a_forming_cluster_keeps_one_incarnation_a_member() -> None:
    known = book()
    for incarnation in range(10, 1000):
        known.hear(replace(N2, member=replace(N2.member, incarnation=incarnation)))
    assert len(known._heard) == 1


def test_what_was_heard_before_forming_is_kept_for_the_members() -> None:
    known = book()
    known.hear(replace(N2, boot_count=5))
    known.form(configuration_of(ME, N2, N3))
    assert refusal_of(replace(N2, process=99), known).reason is Reason.ROLLED_BACK


def test_which_streams_may_live_on() -> None:
    known = book()
    assert known.allows(12345)
    known.form(configuration_of(ME, N2))
    assert known.allows(N2.member.incarnation)
    assert not known.allows(12345)
    assert known.named(2) == N2.member.incarnation
    assert known.named(3) is None
    assert not known.is_member(3)


# ---- on the wire -----------------------------------------------------------------------------------------

ids = nodes
hellos = st.builds(
    Hello,
    ids,
    st.builds(Member, ids, ids, texts, texts, st.lists(texts, max_size=2).map(tuple)),
    ids,
    promises,
    st.booleans(),
    st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple),
    st.integers(1, 2**64 - 1),
    st.booleans(),
)


@given(hellos)
def test_hello_round_trip(hello: Hello) -> None:
    assert hello_from_pb(pb.Hello.FromString(hello_to_pb(hello).SerializeToString())) == hello


@given(st.builds(Refusal, st.sampled_from(Reason), texts, st.booleans()))
def test_refusal_round_trip(refusal: Refusal) -> None:
    assert refusal_from_pb(pb.Refusal.FromString(refusal_to_pb(refusal).SerializeToString())) == refusal


def test_a_reason_of_a_later_version_keeps_its_sentence() -> None:
    later = pb.Refusal(reason=99, message="too loud", fatal=True)  # type: ignore[arg-type]
    assert refusal_from_pb(later) == Refusal(Reason.UNSPECIFIED, "too loud", True)


def test_reasons_have_the_numbers_of_the_wire() -> None:
    assert {f"REASON_{reason.name}": int(reason) for reason in Reason} == dict(pb.Refusal.Reason.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_id": 0},
        {"cluster_id": 2**64 - 1},
        {"boot_count": 0},
        {"process": 0},
        {"member": Member(0, 2, "n2", "")},
        {"member": Member(2, 0, "n2", "")},
        {"member": Member(2**63, 2, "n2", "")},
        {"member": Member(2, 2, "n" * 5_000, "")},
        {"member": Member(2, 2, "n2", "", ("x",) * 300)},
        {"member": Member(2, 2, "n2", "", ("x" * 5_000,))},
        {"versions": (1,) * 300},
        {"promised": Ballot(2**64 - 1, 1)},
        {"promised": Ballot(0, 3)},
    ],
)
def test_a_hello_that_makes_no_sense_is_malformed(changes: dict[str, object]) -> None:
    hello = replace(N2, **changes)  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage):
        hello_from_pb(hello_to_pb(hello))


def test_a_hello_without_a_promise_is_malformed() -> None:
    message = hello_to_pb(replace(N2, promised=NO_BALLOT))
    hello_from_pb(message)
    message.ClearField("promised")
    with pytest.raises(MalformedMessage):
        hello_from_pb(message)
