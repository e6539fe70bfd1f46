"""The replica's step: from a frame to its results, once, whatever is lost on the way."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from paxos_rsm.codec.frames import decode_frame
from paxos_rsm.errors import (
    InvalidArgument,
    InvariantViolation,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
)
from paxos_rsm.machines.frames import Frame
from paxos_rsm.paxos import messages as m
from paxos_rsm.paxos.changes import RemoveMember
from paxos_rsm.paxos.ready import WriteAccepted
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, split_frames
from paxos_rsm.replica.replica import Effects, Replica
from tests.unit.replica.harness import SETTINGS, Client, Servers


@pytest.fixture
def servers() -> Servers:
    servers = Servers()
    servers.elect()
    return servers


def follower(servers: Servers) -> int:
    return next(n for n, s in servers.servers.items() if s.up and not s.replica.node.proposer.leading)


def leader(servers: Servers) -> int:
    return next(n for n, s in servers.servers.items() if s.up and s.replica.node.proposer.leading)


def assert_executed_once(servers: Servers, *commands: bytes) -> None:
    for number, server in servers.servers.items():
        if server.up:
            assert servers.journal(number) == list(commands), f"server {number}"


@pytest.mark.parametrize("where", [leader, follower])
def test_a_frame_is_answered_by_the_server_that_its_client_is_attached_to(
    servers: Servers, where: Callable[[Servers], int]
) -> None:
    client = servers.open(where(servers))
    client.submit(1, b"a", b"b")
    servers.run(2)
    assert client.sink.answers == {1: b"1", 2: b"2"}
    assert_executed_once(servers, b"a", b"b")


def test_frames_of_one_turn_share_one_entry(servers: Servers) -> None:
    number = leader(servers)
    client = servers.open(number)
    slots = servers[number].node.decided_through
    for i in range(10):
        client.handle.submit(_frame(client, i + 1, b"%d" % i), i + 1, 1)
    servers.turn(number)
    servers.deliver_all()
    assert len(client.sink.answers) == 10
    assert servers[number].node.decided_through == slots + 1


def _frame(client: Client, seq: int, command: bytes) -> bytes:
    from paxos_rsm.codec.frames import commands_frame

    return commands_frame(client.sink.session, seq, 0, [command])


def test_nothing_is_said_of_a_vote_before_its_write_is_durable(servers: Servers) -> None:
    number = leader(servers)
    others = [n for n in servers.servers if n != number]
    client = servers.open(number)
    servers.slow_disks = set(servers.servers)
    client.submit(1, b"a")
    assert client.sink.answers == {}
    written = [w for n in others for e in servers.servers[n].unsynced for w in e.writes]
    assert any(isinstance(w, WriteAccepted) for w in written)
    servers.sync(others[0])
    servers.turn(others[0])
    servers.deliver_all()
    assert client.sink.answers == {}, "one vote of three decided"
    servers.sync(number)
    servers.turn(number)
    servers.deliver_all()
    assert client.sink.answers == {1: b"1"}


def test_the_promise_that_hello_tells_is_the_durable_one(servers: Servers) -> None:
    number = follower(servers)
    replica = servers[number]
    before = replica.durable_promise
    assert before == replica.node.acceptor.promised
    servers.slow_disks = {number}
    higher = Ballot(before.round + 1, leader(servers))
    replica.receive(higher.node, [m.Prepare(higher, 1)])
    servers.turn(number)
    assert (replica.node.acceptor.promised, replica.durable_promise) == (higher, before)
    servers.sync(number)
    assert replica.durable_promise == higher


def test_a_frame_lost_on_its_way_to_the_leader_is_sent_again(servers: Servers) -> None:
    client = servers.open(follower(servers))
    servers.lossy = {m.Forward}
    client.submit(1, b"a")
    client.submit(2, b"b")
    assert client.sink.answers == {}
    servers.lossy = set()
    servers.run(15)
    assert client.sink.answers == {1: b"1", 2: b"2"}
    assert_executed_once(servers, b"a", b"b")


def test_a_gap_is_mended_from_where_it_is(servers: Servers) -> None:
    client = servers.open(follower(servers))
    client.submit(1, b"a")
    servers.lossy = {m.Forward}
    client.submit(2, b"b")
    servers.lossy = set()
    client.submit(3, b"c")
    servers.run(2)
    assert client.sink.answers == {1: b"1", 2: b"2", 3: b"3"}
    assert_executed_once(servers, b"a", b"b", b"c")


def test_a_command_in_flight_at_a_dead_leader_is_executed_once_by_the_next(servers: Servers) -> None:
    old = leader(servers)
    client = servers.open(follower(servers))
    client.submit(1, b"a", deliver=False)
    servers.stop(old)
    servers.elect()
    servers.run(5)
    assert client.sink.answers == {1: b"1"}
    assert_executed_once(servers, b"a")


def test_a_retry_at_another_server_after_a_lost_reply_gets_the_first_result(servers: Servers) -> None:
    old = leader(servers)
    client = servers.open(old)
    client.submit(1, b"a")
    servers.run(2)
    assert servers.journal(follower(servers)) == [b"a"]
    servers.stop(old)
    servers.elect()
    again = servers.open(follower(servers), client.sink.session)
    assert again.sink.session == client.sink.session
    again.submit(1, b"a")
    servers.run(2)
    assert again.sink.answers == {1: b"1"}
    assert_executed_once(servers, b"a")


def test_a_session_opened_again_elsewhere_is_known_there_even_when_apply_lags(servers: Servers) -> None:
    number = follower(servers)
    client = servers.open(leader(servers))
    servers.lossy = {m.Accept, m.Decide}
    again = Client(servers, number, client.sink.session)
    servers.turn(number)
    servers.deliver_all()
    servers.lossy = set()
    servers.run(4)
    assert again.sink.session == client.sink.session
    assert again.sink.errors == []


def test_an_unknown_session_is_told_so(servers: Servers) -> None:
    client = servers.open(follower(servers), 12345 << 16)
    assert [type(e) for _, e in client.sink.errors] == [SessionExpired]


def test_the_newest_stream_of_a_session_wins(servers: Servers) -> None:
    number = leader(servers)
    first = servers.open(number)
    second = servers.open(number, first.sink.session)
    assert [type(e) for _, e in first.sink.errors] == [Unavailable]
    with pytest.raises(Unavailable):
        first.submit(1, b"a")
    second.submit(1, b"a")
    servers.run(1)
    assert second.sink.answers == {1: b"1"}


def test_limits_refuse_before_anything_is_sent() -> None:
    servers = Servers(frame_bytes_max=100, pending_bytes_max=150)
    servers.elect()
    client = servers.open(leader(servers))
    with pytest.raises(InvalidArgument):
        client.submit(1, b"x" * 101)
    servers.slow_disks = set(servers.servers)
    client.submit(1, b"x" * 70)
    with pytest.raises(ResourceExhausted):
        client.submit(2, b"x" * 70)
    servers.slow_disks = set()
    for number in servers.servers:
        servers.sync(number)
        servers.turn(number)
    servers.deliver_all()
    client.submit(2, b"y" * 70)
    servers.run(2)
    assert client.sink.answers == {1: b"1", 2: b"2"}
    assert servers[leader(servers)].local.pending_bytes == 0


def test_an_idle_session_lives_while_it_is_attached_and_expires_when_it_is_not() -> None:
    servers = Servers(session_timeout_ms=4_000)  # 160 ticks of 25 ms
    number = servers.elect()
    stays = servers.open(number)
    goes = servers.open(follower(servers))
    goes.submit(1, b"a")
    goes.handle.close()
    servers.run(800)
    assert servers[number].machine.session(goes.sink.session) is None
    assert servers[number].machine.session(stays.sink.session) is not None
    again = servers.open(number, goes.sink.session)
    assert [type(e) for _, e in again.sink.errors] == [SessionExpired]
    assert_executed_once(servers, b"a")


@pytest.mark.parametrize("where", [leader, follower])
def test_a_read_sees_every_write_answered_before_it(
    servers: Servers, where: Callable[[Servers], int]
) -> None:
    writer = servers.open(leader(servers))
    reader = where(servers)
    seen: list[bytes] = []
    for i in range(1, 6):
        writer.submit(i, b"%d" % i)
        assert i in writer.sink.answers
        servers[reader].read(lambda _: seen.append(servers[reader].query(b"")))
        servers.turn(reader)
        servers.deliver_all()
        assert seen[-1].split()[-1] == b"%d" % i


def test_a_deposed_leader_answers_no_read(servers: Servers) -> None:
    old = leader(servers)
    servers.cut = {(a, b) for a in servers.servers for b in servers.servers if old in (a, b) and a != b}
    done: list[int | None] = []
    servers[old].read(done.append)
    servers.turn(old)
    servers.deliver_all()
    assert done == []
    servers.run(60)
    assert done == [None], "no leader: the read is refused, not answered"


def test_without_a_quorum_nothing_is_acknowledged_and_all_goes_on_when_it_returns(servers: Servers) -> None:
    number = leader(servers)
    client = servers.open(number)
    servers.cut = {(a, b) for a in servers.servers for b in servers.servers if number in (a, b) and a != b}
    client.submit(1, b"a")
    servers.run(60)
    assert client.sink.answers == {}
    servers.cut = set()
    servers.run(60)
    assert client.sink.answers == {1: b"1"}
    assert_executed_once(servers, b"a")


def test_a_session_that_is_ended_is_forgotten_by_all(servers: Servers) -> None:
    client = servers.open(follower(servers))
    client.submit(1, b"a")
    servers.run(2)
    client.handle.end()
    servers.turn(client.number)
    servers.deliver_all()
    servers.run(2)
    assert [s.replica.machine.session_count for s in servers.servers.values()] == [0, 0, 0]


def test_what_a_lost_link_has_swallowed_is_sent_by_the_way_around_as_soon_as_that_is_known() -> None:
    """A follower whose link to the leader is cut in silence does not wait for its patience to run out."""
    servers = Servers(3, resend_ticks=1000)
    leader = servers.elect()
    far, near = (n for n in servers.servers if n != leader)
    client = servers.open(far)
    servers.cut = {(far, leader), (leader, far)}
    client.submit(1, b"a")
    assert not client.sink.answers
    servers.run(3 * SETTINGS.election_ticks)
    assert client.sink.answers == {1: b"1"}
    assert servers[far].leader == servers[near].leader


def test_what_a_broken_stream_has_swallowed_goes_out_when_the_same_way_is_open_again() -> None:
    """The streams to the leader break with a frame in them, and stand again before anything else has changed."""
    servers = Servers(3, resend_ticks=1000)
    leader = servers.elect()
    client = servers.open(far := follower(servers))
    way = servers[far].node.way
    servers.lossy = {m.Forward}
    client.submit(1, b"a")
    servers.lossy = set()
    servers[far].peer_down(leader)
    servers.turn(far)
    servers[far].peer_up(leader)
    servers.turn(far)
    assert not client.sink.answers
    servers.run(2)
    assert client.sink.answers == {1: b"1"}
    assert servers[far].node.way == way


def frames_in_the_log(replica: Replica, first: int) -> list[tuple[int, int]]:
    """Each frame of commands or question from a slot on: its first sequence number, and how many commands it has."""
    frames = []
    for slot in range(first, replica.node.decided_through + 1):
        entry = replica.node.log.slots[slot].entry
        for data in split_frames(entry.data) if isinstance(entry, Batch) else ():
            frame = decode_frame(data)
            assert isinstance(frame, Frame)
            if frame.first_seq:
                frames.append((frame.first_seq, len(frame.commands)))
    return frames


def test_what_waits_in_the_leaders_own_queue_comes_into_the_log_once_however_long_it_waits() -> None:
    """A slow disk: what is only late must not make the queue longer still."""
    servers = Servers(1, resend_ticks=2, session_timeout_ms=200)
    servers.elect()
    client = servers.open(1)
    first = servers[1].node.decided_through + 1
    servers.slow_disks = {1}
    for seq in range(1, 10):
        client.submit(seq, b"x")
    servers.run(SETTINGS.election_ticks - 1)
    assert servers[1].node.proposer.leading
    assert not client.sink.answers
    servers.slow_disks = set()
    servers.sync(1)
    servers.run(2)
    assert len(client.sink.answers) == 9
    assert frames_in_the_log(servers[1], first) == [(seq, 1) for seq in range(1, 10)]


def test_what_the_leader_has_no_room_for_waits_in_order_and_is_offered_again() -> None:
    servers = Servers(1, replace(SETTINGS, waiting_bytes_max=60, window_slots=1))
    servers.elect()
    client = servers.open(1)
    first = servers[1].node.decided_through + 1
    servers.slow_disks = {1}
    for seq in range(1, 10):
        client.submit(seq, b"x")  # each turn comes to rest, though something waits
    assert not servers[1].needs_turn
    servers.slow_disks = set()
    servers.sync(1)
    servers.run(2)
    assert len(client.sink.answers) == 9
    assert frames_in_the_log(servers[1], first) == [(seq, 1) for seq in range(1, 10)]


def test_a_leader_whose_disk_stalls_is_replaced_though_the_others_can_decide_without_it() -> None:
    servers = Servers(3, stall_ticks=2 * SETTINGS.election_ticks)
    old = servers.elect()
    client = servers.open(next(n for n in servers.servers if n != old))
    servers.slow_disks = {old}
    client.submit(1, b"a")
    assert client.sink.answers == {1: b"1"}, "a quorum holds it on disk, without the leader"
    servers.run(2 * SETTINGS.election_ticks)
    assert servers[old].node.proposer.leading, "it is given time: a short stall costs nobody anything"
    servers.run(4 * SETTINGS.election_ticks)
    assert not servers[old].node.proposer.leading
    assert servers[old].leader is not None
    client.submit(2, b"b")
    servers.run(1)
    assert client.sink.answers == {1: b"1", 2: b"2"}
    servers.slow_disks = set()
    servers.sync(old)
    servers.run(SETTINGS.election_ticks)
    assert servers.journal(old) == [b"a", b"b"]


def test_a_follower_whose_disk_stalls_changes_nothing() -> None:
    servers = Servers(3, stall_ticks=SETTINGS.election_ticks)
    leader = servers.elect()
    slow = next(n for n in servers.servers if n != leader)
    client = servers.open(leader)
    servers.slow_disks = {slow}
    for seq in range(1, 30):
        client.submit(seq, b"x")
        servers.run(1)
    assert servers[leader].node.proposer.leading
    assert len(client.sink.answers) == 29


def test_a_batch_that_is_not_what_frames_make_stops_the_server_with_a_sentence(servers: Servers) -> None:
    replica = servers[servers.elect()]
    slot = replica.machine.applied_slot + 1
    with pytest.raises(InvariantViolation, match=f"slot {slot} holds a batch"):
        replica.apply(Effects(decided=[(slot, Batch(b"\0\0\0\x09cut"))]))


def test_a_session_does_not_expire_while_its_server_waits_to_send_a_lost_frame_again() -> None:
    """Found by the simulator: who waits for longer than the session lives lets it die with its client attached."""
    servers = Servers(3, resend_ticks=10_000, session_timeout_ms=4_000)
    servers.elect()
    client = servers.open(follower(servers))
    servers.lossy = {m.Forward}
    client.submit(1, b"a")
    servers.lossy = set()
    servers.run(4 * 4_000 // 25)
    assert client.sink.answers == {1: b"1"}
    assert not client.sink.errors


def test_who_was_removed_hears_only_what_a_power_cut_does_not_take_back(servers: Servers) -> None:
    """It may stop for it, and what is marked decided is what nothing else waits for (paxos/changes.py)."""
    first = leader(servers)
    gone, other = (n for n in servers.servers if n != first)
    servers.cut = {(a, b) for a in servers.servers for b in servers.servers if gone in (a, b)}
    servers[first].changes.ask(7, RemoveMember(100 + gone), lambda _: None)
    servers.run(3)
    replica = servers[other]
    configuration = replica.node.configuration
    assert configuration is not None
    assert configuration.removed == (gone,)
    replica.receive(gone, [m.Heartbeat(NO_BALLOT, False, False, 1, 0, frozenset([gone]), NO_BALLOT)])
    effects = replica.turn()
    assert effects.batch
    assert effects.sync
    assert [e for e in effects.messages if e.to == gone] == []
    replica.durable(effects.batch)
    (told,) = [e.message for e in replica.turn().messages if e.to == gone]
    assert isinstance(told, m.Heartbeat)
    assert told.decided_through == replica.node.decided_through


def test_no_tick_asks_the_machine_while_its_state_is_being_replaced(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread restores it then, and a machine of the user's need not bear two at once."""
    replica = servers[follower(servers)]
    asked: list[str] = []

    def note(name: str) -> Callable[..., list[object]]:
        def called(*_: object) -> list[object]:
            asked.append(name)
            return []

        return called

    for name in ("take_timers", "is_armed", "sessions", "digests"):
        monkeypatch.setattr(replica.machine, name, note(name))
    replica.hold(True)
    for _ in range(3 * replica.settings.compare_ticks):
        replica.tick()
    assert asked == []
    replica.hold(False)
    replica.tick()
    assert asked == ["take_timers"]
