"""A server that is behind the log of the others takes a snapshot, with the sessions that are attached to it."""

import pytest

from paxos_rsm.errors import SessionExpired
from paxos_rsm.machines.sessions import registration_slot
from paxos_rsm.paxos.ready import WriteCompacted
from paxos_rsm.paxos.types import Slot
from paxos_rsm.replica.comparison import Difference, Verdict
from paxos_rsm.replica.replica import Replica
from tests.unit.replica.harness import Client, Servers


def behind(commands: int = 30, **settings: int) -> tuple[Servers, int, int]:
    """Three servers, of which one has missed what the leader's log does not hold any more."""
    servers = Servers(3, **({"snapshot_log_bytes": 400} | settings))
    leader = servers.elect()
    late = next(n for n in servers.servers if n != leader)
    client = servers.open(leader)
    for other in servers.servers:
        servers.cut |= {(late, other), (other, late)}
        servers[other].peer_down(late)
        servers[late].peer_down(other)
    for seq in range(1, commands + 1):
        client.submit(seq, b"%d" % seq)
        servers.run()
    servers.servers[leader].take_snapshot()
    servers.run()
    return servers, leader, late


def _is_due(replica: Replica) -> bool:
    return replica.snapshot_is_due


def heal(servers: Servers, ticks: int = 60) -> None:
    servers.cut = set()
    for number in servers.servers:
        for other in servers.servers:
            if other != number:
                servers[number].peer_up(other)
    servers.run(ticks)


def test_a_server_that_is_behind_catches_up_by_snapshot_and_goes_on_with_the_log() -> None:
    servers, leader, late = behind()
    assert servers[leader].node.compacted_through > servers[late].node.decided_through
    heal(servers)
    client = servers.open(leader)
    client.submit(1, b"after")
    servers.run(5)
    assert servers.journal(late) == servers.journal(leader)
    assert servers.journal(late)[-1] == b"after"
    assert servers.servers[late].snapshots
    assert not servers[late].transfer.fetching


def test_a_client_of_the_late_server_gets_what_was_executed_meanwhile() -> None:
    """Its commands came into the log by way of others, in slots that this server never applies one by one."""
    servers = Servers(3, snapshot_log_bytes=400)
    leader = servers.elect()
    late = next(n for n in servers.servers if n != leader)
    client = servers.open(late)
    client.submit(1, b"first")
    servers.run(3)
    client.submit(2, b"second", deliver=False)
    sent = [each for each in servers.wire if each[0] == late]
    assert sent
    for other in servers.servers:
        servers.cut |= {(other, late)}
        servers[late].peer_down(other)
    servers.deliver_all()
    for other in servers.servers:
        servers.cut |= {(late, other)}
        servers[other].peer_down(late)
    busy = servers.open(leader)
    for seq in range(1, 31):
        busy.submit(seq, b"%d" % seq)
        servers.run()
    servers.servers[leader].take_snapshot()
    assert b"second" in servers.journal(leader)
    assert 2 not in client.sink.answers
    heal(servers)
    assert client.sink.answers[2] == b"2"
    client.submit(3, b"third")
    servers.run(5)
    assert servers.journal(leader).count(b"second") == 1
    assert client.sink.answers[3] == b"33"


def test_a_session_that_ended_meanwhile_is_told_so_and_one_that_is_younger_than_the_snapshot_is_not() -> None:
    servers, leader, late = behind()
    server = servers.servers[late]
    newest: Slot = servers[leader].transfer.newest
    ended, younger = 2 << 16 | 9, (newest + 5) << 16
    assert registration_slot(younger) > newest
    waiting: list[int] = []
    server.install = lambda slot, data: waiting.append(slot)  # type: ignore[method-assign]
    heal(servers, 10)
    clients = {number: Client(servers, late, number) for number in (ended, younger)}
    del server.install
    server.install(waiting[0], bytes(server.fetched))
    assert [type(error) for _, error in clients[ended].sink.errors] == [SessionExpired]
    assert clients[younger].sink.errors == []


def test_nothing_is_applied_and_no_read_is_served_while_the_state_is_replaced() -> None:
    servers, leader, late = behind()
    server, replica = servers.servers[late], servers[late]
    tasks: list[int] = []
    server.install = lambda slot, data: tasks.append(slot)  # type: ignore[method-assign]
    heal(servers)
    assert tasks
    replica.hold(True)
    answered: list[int | None] = []
    replica.read(answered.append)
    servers.turn(late)
    servers.run(3)
    assert answered == []
    before = replica.machine.applied_slot
    servers.run(10)
    assert replica.machine.applied_slot == before
    del server.install
    server.install(tasks[0], bytes(server.fetched))
    servers.turn(late)
    servers.run(40)
    assert answered
    assert answered[0] is not None
    assert answered[0] > before
    assert servers.journal(late) == servers.journal(leader)


def test_a_snapshot_is_due_when_the_log_has_grown_and_not_again_at_once() -> None:
    servers = Servers(1, snapshot_log_bytes=2_000)
    servers.elect()
    client = servers.open(1)
    replica, seq = servers[1], 0
    while not replica.snapshot_is_due:
        seq += 1
        client.submit(seq, bytes(100))
        servers.run()
    assert 5 <= seq <= 20
    servers.servers[1].take_snapshot()
    assert not _is_due(replica)
    assert replica.node.compacted_through > 0
    kept = sum(
        len(state.entry.data) for state in replica.node.log.slots.values() if hasattr(state.entry, "data")
    )
    assert kept < 2_000
    for more in range(seq + 1, 4 * seq):
        client.submit(more, bytes(100))
        servers.run()
    assert replica.snapshot_is_due


def long_log(monkeypatch: pytest.MonkeyPatch) -> tuple[Servers, Replica]:
    """A server whose log is to be compacted two slots a turn, from 40 of them and more."""
    monkeypatch.setattr("paxos_rsm.replica.replica.COMPACT_SLOTS", 2)
    servers = Servers(1, snapshot_log_bytes=400)
    servers.elect()
    client = servers.open(1)
    for seq in range(1, 40):
        client.submit(seq, bytes(20))
        servers.run()
    return servers, servers[1]


def test_a_long_log_is_compacted_in_steps_and_what_comes_goes_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers, replica = long_log(monkeypatch)
    servers.servers[1].take_snapshot()
    steps = [replica.node.compacted_through]
    while replica.needs_turn:
        effects = replica.turn()
        steps.append(replica.node.compacted_through)
        assert WriteCompacted(steps[-1]) in effects.writes
    assert steps == list(range(2, 2 * len(steps) + 1, 2)) or steps[-1] - steps[-2] == 1
    assert len(steps) > 5
    kept = sum(len(getattr(state.entry, "data", b"")) for state in replica.node.log.slots.values())
    assert kept < 400


def test_a_log_that_is_being_compacted_stays_as_it_is_once_its_snapshot_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers, replica = long_log(monkeypatch)
    servers.servers[1].take_snapshot()
    assert replica.node.compacted_through == 2
    monkeypatch.setattr(replica.comparison, "judge", lambda voters: Difference(Verdict.MINORITY, (2,), 1, 0))
    replica._compare()
    replica.transfer.take()
    assert not replica.needs_turn
    replica.turn()
    assert replica.node.compacted_through == 2


def test_a_large_state_is_not_written_more_often_than_the_log_is_long() -> None:
    servers = Servers(1, snapshot_log_bytes=500)
    servers.elect()
    client = servers.open(1)
    seq = 0
    for seq in range(1, 60):
        client.submit(seq, bytes(100))
    servers.run()
    servers.servers[1].take_snapshot()
    size = len(next(iter(servers.servers[1].snapshots.values()))[1])
    assert size > 5_000
    written = 0
    while not servers[1].snapshot_is_due:
        seq += 1
        written += 100
        client.submit(seq, bytes(100))
        servers.run()
    assert written > size // 3


def test_none_is_taken_while_one_is_sent_and_the_log_from_there_on_is_kept() -> None:
    servers, leader, late = behind()
    server = servers.servers[late]
    server.install = lambda slot, data: None  # type: ignore[method-assign]
    heal(servers, 3)
    replica = servers[leader]
    newest = replica.transfer.newest
    assert replica.transfer.keep_above() == newest
    client = servers.open(leader)
    for seq in range(1, 6):
        client.submit(seq, bytes(100))
        servers.run()
    assert not replica.snapshot_is_due
    servers.servers[leader].take_snapshot()
    assert replica.node.compacted_through <= newest


def test_a_peer_that_needs_a_newer_snapshot_makes_one_due() -> None:
    servers, leader, late = behind()
    replica = servers[leader]
    at_least = replica.transfer.newest + 1
    client = servers.open(leader)
    client.submit(1, b"x")
    servers.run()
    assert not _is_due(replica)
    replica.transfer.wanted_from = at_least
    assert _is_due(replica)
    assert late
