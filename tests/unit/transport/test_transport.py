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
)
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch
from paxos_rsm.transport import Hello, Reason, TransportOptions
from paxos_rsm.transport import transport as module
from paxos_rsm.transport.frames import Packed, pack
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

BALLOT = Ballot(1, 1001)


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


async def test_forming_ends_the_streams_of_whom_it_does_not_name() -> None:
    a, b, c = make_peers(3)
    await start(a, b, c)
    a.transport.form(configuration_of(a.hello, b.hello, wiped(c.hello)))
    await until(lambda: a.down)
    assert a.down == [c.node]
    await until(lambda: c.refused)
    assert a.transport.connected() == {b.node}
    assert c.refused[0].reason is Reason.UNKNOWN_INCARNATION


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
