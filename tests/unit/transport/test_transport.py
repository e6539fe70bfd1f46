import asyncio
import logging
from dataclasses import replace

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    Envelope,
    Heartbeat,
    Message,
    Promise,
    ReadRequest,
    SnapshotChunk,
    StateDigest,
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch
from paxos_rsm.transport import Hello, Reason, TransportOptions
from paxos_rsm.transport import transport as module
from paxos_rsm.transport.frames import Packed, pack
from paxos_rsm.transport.handshake import LEVEL
from tests.unit.transport.helpers import (
    Peer,
    close,
    configuration_of,
    free_ports,
    hello_of,
    make_peer,
    make_peers,
    start,
    until,
    url_of,
)
from tests.unit.transport.raw import Wire

BALLOT = Ballot(1, 1001)


@pytest.fixture
def soon_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams with those who are no members any more are not kept for five seconds."""
    monkeypatch.setattr(module, "REMOVED_GRACE_S", 0.5)


def restarted(peer: Peer, members: list[Peer], **changes: object) -> Peer:
    """A new process of the same server; ``changes`` are to its Hello."""
    hello = replace(peer.hello, boot_count=peer.hello.boot_count + 1)
    hello = replace(hello, **changes)  # type: ignore[arg-type]
    return make_peer(hello, [each.hello for each in members])


def wiped(hello: Hello) -> Hello:
    member = replace(hello.member, incarnation=hello.member.incarnation + 50_000)
    return replace(hello, member=member, boot_count=1, formed=False)


async def test_three_servers_meet_and_talk() -> None:
    peers = make_peers(3)
    await start(*peers)
    for peer in peers:
        others = sorted((each for each in peers if each is not peer), key=lambda each: each.node)
        assert sorted(peer.up, key=lambda member: member.incarnation) == [o.hello.member for o in others]
        message = ReadRequest(peer.hello.member.member_id)
        peer.transport.send([Envelope(other.node, message) for other in others])
    await until(lambda: all(len(peer.received) == 2 for peer in peers))
    for peer in peers:
        assert sorted(peer.received, key=lambda each: each[0]) == [
            (other.node, ReadRequest(other.hello.member.member_id)) for other in peers if other is not peer
        ]
    await close(*peers)
    assert not any(peer.down or peer.refused for peer in peers)


async def test_a_message_to_several_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = make_peers(3)
    await start(*peers)
    packed: list[Message] = []

    def counting(message: Message) -> Packed:
        packed.append(message)
        return pack(message)

    monkeypatch.setattr(module, "pack", counting)
    beat = Heartbeat(BALLOT, True, True, 0, 0, frozenset({1001}), BALLOT)
    equal = Heartbeat(BALLOT, True, True, 0, 0, frozenset({1001}), BALLOT)
    others = [peer.node for peer in peers[1:]]
    peers[0].transport.send([Envelope(n, m) for m in (beat, equal) for n in (*others, 4242, peers[0].node)])
    await until(lambda: all(len(peer.received) == 2 for peer in peers[1:]))
    assert len(packed) == 2
    assert packed[0] is beat
    assert packed[1] is equal


async def test_a_message_for_a_stranger_is_dropped_unread() -> None:
    (peer,) = make_peers(1)
    await peer.transport.start()
    peer.transport.send([Envelope(4242, ReadRequest(2**70))])  # would not even encode


async def test_what_a_peer_does_not_understand_is_not_sent_to_it() -> None:
    new, newer, old = (hello_of(number, port) for number, port in enumerate(free_ports(3), 1))
    old = replace(old, level=0)
    peers = [make_peer(hello, [new, newer, old]) for hello in (new, newer, old)]
    await start(*peers)
    others = [peer.node for peer in peers[1:]]
    digest, read = StateDigest(((64, bytes(16)),)), ReadRequest(1)
    peers[0].transport.send([Envelope(node, message) for node in others for message in (digest, read)])
    await until(lambda: peers[1].received and peers[2].received)
    assert [[message for _, message in peer.received] for peer in peers[1:]] == [[digest, read], [read]]


async def test_who_finds_nobody_says_so_and_what_that_may_mean(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ALONE_S", 0.05)
    caplog.set_level(logging.WARNING)
    peers = make_peers(2)
    pending = replace(hello_of(3).member, incarnation=0, name="")
    configuration = configuration_of(*(peer.hello for peer in peers))
    configuration = replace(configuration, members=(*configuration.members, pending))
    peers[0].transport.form(configuration)
    await start(*peers)
    await asyncio.sleep(0.1)
    assert "reached" not in caplog.text
    await close(peers[1])
    await until(lambda: "no other member has been reached" in caplog.text)
    assert f"n2 ({peers[1].hello.member.peer_url}). Start them" in caplog.text
    assert "Where 'n1' (id 1) is not in it" in caplog.text
    assert "`paxos-rsm member add n1 --peer-urls http://127.0.0.1:" in caplog.text


async def test_who_is_alone_by_right_does_not_complain(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster of one, to which a member was added that has yet to come."""
    monkeypatch.setattr(module, "ALONE_S", 0.02)
    (peer,) = make_peers(1)
    pending = replace(hello_of(3, free_ports(1)[0]).member, incarnation=0, name="", learner=True)
    alone = configuration_of(peer.hello)
    peer.transport.form(replace(alone, members=(*alone.members, pending)))
    await peer.transport.start()
    looks = 0
    look = peer.transport._look_out

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    peer.transport._look_out = counted  # type: ignore[method-assign]
    peer.transport._look_out()
    await until(lambda: looks > 4)
    assert caplog.text == ""


async def test_two_with_one_stream_between_them_say_so_both(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One was added, and started without saying that it is to listen where it was said to be."""
    monkeypatch.setattr(module, "ALONE_S", 0.05)
    caplog.set_level(logging.WARNING)
    here, deaf = (hello_of(number, port) for number, port in enumerate(free_ports(2), 1))
    peers = [make_peer(here, [here, deaf]), make_peer(deaf, [here, deaf], listens=False)]
    for peer in peers:
        peer.transport.form(configuration_of(here, deaf))
        await peer.transport.start()
    at = deaf.member.peer_url
    unreached = f"member 'n2' is connected to this server, and has not been reached at {at}"
    uncalled = f"which reaches it: it looks for this server at {at}. See that it listens there"
    await until(lambda: unreached in caplog.text and uncalled in caplog.text)
    assert "no other member" not in caplog.text


async def test_a_cluster_that_does_not_form_says_who_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ALONE_S", 0.05)
    peers = make_peers(3)
    await start(*peers[:2])
    await until(lambda: "the cluster has not formed" in caplog.text)
    missing = peers[2].hello.member.peer_url
    assert all(f"not connected is {missing}. Start" in each.message for each in caplog.records)


async def test_whose_place_was_taken_is_not_looked_for_at_our_own_address() -> None:
    """A machine that was replaced under its old address reads of its predecessor in the log."""
    ours, other = make_peers(2)
    predecessor = replace(hello_of(9).member, peer_url=ours.hello.member.peer_url, name="gone")
    before = configuration_of(other.hello)
    ours.transport.form(replace(before, members=(*before.members, predecessor)))
    await start(ours, other)
    assert [each.member_id for each in ours.transport.stats()] == [2]
    ours.transport.form(configuration_of(ours.hello, other.hello))
    moved = replace(predecessor, member_id=10, peer_url=hello_of(10, free_ports(1)[0]).member.peer_url)
    ours.transport.form(replace(before, members=(*before.members, moved)))
    assert [each.member_id for each in ours.transport.stats()] == [2, 10]


async def test_what_all_members_understand_is_known_while_all_are_up() -> None:
    hellos = [hello_of(number, port) for number, port in enumerate(free_ports(3), 1)]
    peers = [make_peer(hello, hellos) for hello in hellos]
    first = peers[0].transport
    await start(*peers)
    assert first.least_level() == 0, "it is not known who the members are"
    for peer in peers:
        peer.transport.form(configuration_of(*hellos))
    assert first.least_level() == LEVEL
    await close(peers[2])
    await until(lambda: first.least_level() == 0)
    old = restarted(peers[2], peers, level=0)
    await old.transport.start()
    await until(lambda: len(peers[0].up) == 3)
    assert first.least_level() == 0
    await close(old)
    await restarted(old, peers, level=7).transport.start()
    await until(lambda: first.least_level() == LEVEL)
    first.form(configuration_of(hellos[0]))
    assert first.least_level() == LEVEL, "it is alone"


async def test_large_and_small_messages_arrive_whole_and_in_order() -> None:
    options = TransportOptions(frame_bytes_max=20_000, piece_bytes_max=10_000)
    a, b = make_peers(2, options)
    await start(a, b)
    sent = [Accept(BALLOT, slot, Batch(bytes([slot]) * (slot * 7_919 % 40_000)), 0) for slot in range(1, 200)]
    for message in sent:
        a.transport.send([Envelope(b.node, message)])
        if message.slot % 10 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(b.received) == len(sent))
    assert [message for _, message in b.received] == sent


async def test_a_message_too_large_for_any_peer_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    a, b = make_peers(2, TransportOptions(message_bytes_max=300_000))
    await start(a, b)
    for _ in range(3):
        a.transport.send(
            [Envelope(b.node, Accept(BALLOT, 1, Batch(bytes(300_001)), 0)), Envelope(b.node, ReadRequest(1))]
        )
    await until(lambda: len(b.received) == 3)
    assert all(message == ReadRequest(1) for _, message in b.received)
    (said,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert said.startswith("a message (Accept) of 3000")


async def test_a_chunk_of_a_snapshot_is_as_large_as_a_piece_and_no_larger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = make_peers(2)
    await start(a, b)
    piece = TransportOptions().piece_bytes_max
    largest = SnapshotChunk(2**63 - 1, 2**63 - 1, 2**62, bytes(piece))
    a.transport.send([Envelope(b.node, replace(largest, data=bytes(piece + 64))), Envelope(b.node, largest)])
    await until(lambda: b.received)
    assert b.received == [(a.node, largest)]
    assert sum("a message (SnapshotChunk) of" in record.message for record in caplog.records) == 1


async def test_a_peer_is_down_when_both_streams_are_gone() -> None:
    a, b, c = make_peers(3)
    await start(a, b, c)
    await c.transport.close()
    await until(lambda: a.down and b.down)
    assert a.down == b.down == [c.node]
    assert a.transport.connected() == {b.node}
    again = restarted(c, [a, b, c])
    await again.transport.start()
    await until(lambda: all(len(peer.transport.connected()) == 2 for peer in (a, b, again)))
    assert [member.incarnation for member in a.up].count(c.node) == 2
    assert a.down == [c.node]


async def test_a_restart_that_was_not_noticed_is_told_where_the_addresses_changed() -> None:
    a, b = make_peers(2)
    await start(a, b)
    moved = replace(b.hello.member, client_urls=("http://127.0.0.1:1",))
    a.transport._stream_up(replace(b.hello, member=moved), module._Way.IN)
    assert a.up == [b.hello.member, moved]
    a.transport._stream_up(replace(b.hello, member=moved), module._Way.IN)
    assert len(a.up) == 2


# ---- refusals, end to end --------------------------------------------------------------------------------


async def test_another_cluster_is_refused_both_ways_and_nobody_stops() -> None:
    a, b = make_peers(2)
    b.hello = replace(b.hello, cluster_id=5)
    for peer in (a, b):
        await peer.transport.start()
    await until(lambda: a.refused and b.refused)
    for peer in (a, b):
        assert [refusal.reason for refusal in peer.refused] == [Reason.WRONG_CLUSTER]
        assert not peer.refused[0].fatal
        assert not peer.up


async def test_a_wiped_server_is_told_to_stop_by_a_formed_cluster() -> None:
    a, b, c = make_peers(3)
    configuration = configuration_of(a.hello, b.hello, c.hello)
    for peer in (a, b):
        peer.hello = replace(peer.hello, formed=True)
        peer.transport.form(configuration)
    await start(a, b)
    stranger = make_peer(wiped(c.hello), [a.hello, b.hello, c.hello])
    await stranger.transport.start()
    await until(lambda: stranger.refused)
    assert stranger.refused[0].reason is Reason.UNKNOWN_INCARNATION
    assert stranger.refused[0].fatal
    assert "add this server as a new one" in stranger.refused[0].message
    assert c.node not in a.transport.connected()
    assert not a.refused
    assert not stranger.transport.connected() & {stranger.node}
    assert a.transport.connected() == {b.node}


@pytest.mark.parametrize("by", [Promise(BALLOT, 1, None, (), ()), Accepted(BALLOT, (1,))])
async def test_an_old_copy_of_a_directory_is_told_to_stop(by: Message) -> None:
    a, b = make_peers(2)
    await start(a, b)
    b.transport.send([Envelope(a.node, by)])
    await until(lambda: a.received)
    await b.transport.close()
    await until(lambda: a.down)
    old = restarted(b, [a, b], promised=NO_BALLOT)
    await old.transport.start()
    await until(lambda: old.refused)
    assert old.refused[0].reason is Reason.ROLLED_BACK
    assert old.refused[0].fatal
    await close(old)
    good = restarted(b, [a, b], promised=BALLOT)
    await good.transport.start()
    await until(lambda: a.transport.connected() and good.transport.connected())


async def test_the_same_identity_on_two_hosts_one_is_told_to_stop() -> None:
    """A copy of a directory that is in use: started later, it has the higher boot count; the first one ends."""
    a, b = make_peers(2)
    await start(a, b)
    port = free_ports(1)[0]
    copied = replace(b.hello, boot_count=2, member=replace(b.hello.member, peer_url=url_of(port)))
    copy = make_peer(copied, [a.hello, copied])
    await copy.transport.start()
    await until(lambda: b.refused or copy.refused)
    (refusal,) = b.refused or copy.refused
    assert refusal.reason is Reason.ROLLED_BACK
    assert refusal.fatal


@pytest.mark.usefixtures("soon_parted")
async def test_forming_ends_the_streams_of_whom_it_does_not_name() -> None:
    a, b, c = make_peers(3)
    await start(a, b, c)
    a.transport.form(configuration_of(a.hello, b.hello, wiped(c.hello)))
    await until(lambda: a.down)
    assert a.down == [c.node]
    await until(lambda: c.refused)
    assert a.transport.connected() == {b.node}
    assert c.refused[0].reason is Reason.UNKNOWN_INCARNATION


# ---- a cluster that changes --------------------------------------------------------------------------------


def formed(
    peer: Peer, *hellos: Hello, pending: tuple[Hello, ...] = (), removed: tuple[int, ...] = ()
) -> None:
    """It learns of a configuration."""
    configuration = configuration_of(*hellos)
    added = tuple(replace(hello.member, incarnation=0, learner=True) for hello in pending)
    peer.hello = replace(peer.hello, formed=True, joining=False)
    peer.transport.form(replace(configuration, members=configuration.members + added, removed=removed))


def dialed(peer: Peer) -> dict[int, str]:
    return {each.member_id: each.url for each in peer.transport.stats()}


async def test_who_is_added_is_looked_for_and_met_before_the_configuration_names_it() -> None:
    (a, b), (port,) = make_peers(2), free_ports(1)
    joiner = make_peer(replace(hello_of(4, port), joining=True), [a.hello, b.hello])
    for peer in (a, b):
        formed(peer, a.hello, b.hello)
    await start(a, b)
    await joiner.transport.start()
    await until(lambda: len(joiner.refused) == 2)
    assert [(refusal.reason, refusal.fatal) for refusal in joiner.refused] == [
        (Reason.NOT_A_MEMBER, False),
        (Reason.NOT_A_MEMBER, True),  # nobody else is there to know it
    ]
    for peer in (a, b):
        formed(peer, a.hello, b.hello, pending=(joiner.hello,))
    await until(lambda: joiner.transport.connected() == {a.node, b.node})
    await until(lambda: all(joiner.node in peer.transport.connected() for peer in (a, b)))
    assert a.transport.arrived() == b.transport.arrived() == [joiner.hello.member]
    assert joiner.hello.member in a.up
    a.transport.send([Envelope(joiner.node, ReadRequest(1))])
    joiner.transport.send([Envelope(a.node, ReadRequest(2))])
    await until(lambda: joiner.received and a.received)
    for peer in (a, b, joiner):
        formed(peer, a.hello, b.hello, joiner.hello)
        assert not peer.transport.arrived()
    a.transport.send([Envelope(joiner.node, ReadRequest(3))])
    await until(lambda: len(joiner.received) == 2)
    assert not a.down


@pytest.mark.usefixtures("soon_parted")
async def test_a_joiner_stops_once_nobody_knows_it_any_more() -> None:
    (a, b), (port,) = make_peers(2), free_ports(1)
    joiner = make_peer(replace(hello_of(4, port), joining=True), [a.hello, b.hello])
    formed(a, a.hello, b.hello, pending=(joiner.hello,))
    formed(b, a.hello, b.hello)  # has yet to learn of it
    await start(a, b)
    await joiner.transport.start()
    await until(lambda: joiner.refused and joiner.transport.connected() == {a.node})
    assert [refusal.fatal for refusal in joiner.refused] == [False]
    formed(a, a.hello, b.hello)
    await until(lambda: len(joiner.refused) == 2)
    assert joiner.refused[1].reason is Reason.NOT_A_MEMBER
    assert joiner.refused[1].fatal
    assert not joiner.transport.connected()


@pytest.mark.usefixtures("soon_parted")
async def test_who_is_removed_is_told_so_and_not_looked_for_any_more() -> None:
    a, b, c = make_peers(3)
    for peer in (a, b, c):
        formed(peer, a.hello, b.hello, c.hello)
    await start(a, b, c)
    for peer in (a, b):
        formed(peer, a.hello, b.hello, removed=(c.node,))
    await until(lambda: len(c.refused) == 2)
    assert {refusal.reason for refusal in c.refused} == {Reason.REMOVED}
    # As long as only one knows, the vote of the one that is removed may be needed for the other to learn it.
    assert [refusal.fatal for refusal in c.refused] == [False, True]
    await until(lambda: a.down and b.down and not c.transport.connected())
    assert dialed(a) == {2: b.hello.member.peer_url}
    assert a.transport.connected() == {b.node}
    # The one that was not there to see it has it from the configuration.
    await close(b, c)
    again, returned = restarted(b, [a, b, c]), restarted(c, [a, b, c])
    formed(again, a.hello, b.hello, removed=(c.node,))
    await again.transport.start()
    await returned.transport.start()
    await until(lambda: len(returned.refused) == 2)
    assert {refusal.reason for refusal in returned.refused} == {Reason.REMOVED}
    assert not returned.up


async def test_a_member_that_moves_is_looked_for_where_it_is() -> None:
    a, b = make_peers(2)
    for peer in (a, b):
        formed(peer, a.hello, b.hello)
    await start(a, b)
    await close(b)
    await until(lambda: a.down)
    moved = replace(b.hello, boot_count=2, member=replace(b.hello.member, peer_url=url_of(free_ports(1)[0])))
    elsewhere = make_peer(moved, [a.hello, moved])
    await elsewhere.transport.start()
    await until(lambda: elsewhere.transport.connected())
    assert not a.transport.connected()
    formed(a, a.hello, moved)
    await until(lambda: a.transport.connected() == {b.node})
    assert dialed(a) == {2: moved.member.peer_url}
    for _ in range(3):  # nothing has changed: nothing is done
        formed(a, a.hello, moved)
    await asyncio.sleep(0.05)
    assert a.transport.connected() == {b.node}
    assert len([member for member in a.up if member.incarnation == b.node]) == 2


async def test_the_address_of_a_living_stream_changes() -> None:
    """The stream to the old one ends, and there is one to the new one; the peer is never down meanwhile."""
    a, b = make_peers(2)
    for peer in (a, b):
        formed(peer, a.hello, b.hello)
    await start(a, b)
    wire = Wire(free_ports(1)[0], int(b.hello.member.peer_url.rpartition(":")[2]))
    await wire.start()
    try:
        formed(a, a.hello, replace(b.hello, member=replace(b.hello.member, peer_url=url_of(wire.port))))
        await until(lambda: wire.connections and a.transport.connected() == {b.node})
        assert not a.down
    finally:
        await close(a, b)
        await wire.close()


async def test_some_are_dialed_elsewhere_than_they_say() -> None:
    port, other = free_ports(2)
    mine, theirs, added = hello_of(1, port), hello_of(2, 2222), hello_of(3, 3333)
    peer = make_peer(
        mine, [mine, theirs], dial=lambda member: url_of(other) if member.name == "n3" else member.peer_url
    )
    formed(peer, mine, theirs, added)
    assert dialed(peer) == {2: url_of(2222), 3: url_of(other)}


@pytest.mark.usefixtures("soon_parted")
async def test_forming_before_the_start_and_again() -> None:
    a, b, c = make_peers(3)
    stale = make_peer(a.hello, [a.hello])  # was started with a list that names nobody
    for peer in (stale, b, c):
        formed(peer, a.hello, b.hello)
        formed(peer, a.hello, b.hello, c.hello)
        formed(peer, a.hello, b.hello, c.hello)
    await start(stale, b, c)
    formed(stale, a.hello, c.hello, removed=(b.node,))
    await until(lambda: stale.transport.connected() == {c.node})


async def test_an_address_that_is_none_does_not_stop_who_reads_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = make_peers(2)
    bad = hello_of(3)
    bad = replace(bad, member=replace(bad.member, peer_url="https://h:1"))
    formed(a, a.hello, b.hello, bad)
    assert dialed(a) == {2: b.hello.member.peer_url}
    assert any("member 'n3' (id 3) cannot be looked for" in message for message in caplog.messages)
    formed(a, a.hello, replace(b.hello, member=replace(b.hello.member, peer_url="")))
    assert dialed(a) == {2: b.hello.member.peer_url}


async def test_a_server_that_was_away_while_all_others_were_replaced_is_found_by_them() -> None:
    a, b, c = make_peers(3)
    formed(a, a.hello, hello_of(8, 1), hello_of(9, 1))  # whom it knows is gone
    for peer in (b, c):
        formed(peer, a.hello, b.hello, c.hello, removed=(1_008, 1_009))
    for peer in (a, b, c):
        await peer.transport.start()
    await until(lambda: a.transport.connected() == {b.node, c.node})
    a.transport.send([Envelope(b.node, ReadRequest(1))])
    await until(lambda: b.received)
    formed(a, a.hello, b.hello, c.hello, removed=(1_008, 1_009))
    assert dialed(a) == {2: b.hello.member.peer_url, 3: c.hello.member.peer_url}
    assert a.transport.connected() == {b.node, c.node}


# ---- starting and ending ---------------------------------------------------------------------------------


async def test_a_port_in_use_is_a_configuration_error() -> None:
    (a,) = make_peers(1)
    await a.transport.start()
    other = make_peer(a.hello, [a.hello])
    with pytest.raises(
        ConfigError, match=r"cannot listen for peers on http://127.0.0.1:\d+: Address already"
    ):
        await other.transport.start()
    await other.transport.close()


async def test_an_address_of_another_machine_is_a_configuration_error() -> None:
    hello = hello_of(1)
    elsewhere = make_peer(replace(hello, member=replace(hello.member, peer_url="http://192.0.2.1:2380")), [])
    with pytest.raises(ConfigError, match="Cannot assign requested address"):
        await elsewhere.transport.start()


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="queue_bytes_max"):
        make_peer(hello_of(1), [], TransportOptions(queue_bytes_max=1))


async def test_close_without_start_and_twice() -> None:
    (peer,) = make_peers(1)
    await peer.transport.close()
    await peer.transport.close()


async def test_nothing_is_told_after_close() -> None:
    a, b = make_peers(2)
    await start(a, b)
    b.transport.send([Envelope(a.node, ReadRequest(1))] * 100)
    await a.transport.close()
    told = len(a.received)
    await until(lambda: b.down)
    assert len(a.received) == told
    assert not a.down
