"""One simulated client: where it goes, what it takes there, and what it must say is broken."""

from collections import Counter
from collections.abc import Iterable

import pytest

from paxos_rsm.codec.frames import commands_frame
from paxos_rsm.errors import ResourceExhausted, SessionExpired, Unavailable
from paxos_rsm.replica.replica import ReplicaSettings
from paxos_rsm.sim import client as client_module
from paxos_rsm.sim.client import SimClient
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.simulation import Simulation
from paxos_rsm.sim.workload import Asked, KvWorkload
from paxos_rsm.sim.world import TICK_UNITS
from tests.unit.sim.helpers import answered, broken, follower, formed, play, quiet, the_leader, until


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, tuple[bytes, ...]]]:
    """Every frame that any client makes: session, first sequence number, received below, commands."""
    made: list[tuple[int, int, int, tuple[bytes, ...]]] = []

    def spy(session: int, first_seq: int, received_below: int, commands: Iterable[bytes]) -> bytes:
        commands = tuple(commands)
        made.append((session, first_seq, received_below, commands))
        return commands_frame(session, first_seq, received_below, commands)

    monkeypatch.setattr(client_module, "commands_frame", spy)
    return made


def started(**changes: object) -> tuple[Simulation, SimClient]:
    """A cluster with a leader, and its one client, which has been answered."""
    simulation = formed(**changes)  # type: ignore[arg-type]
    (client,) = simulation.clients
    client.start()
    answered(simulation, client, 3)
    return simulation, client


def server_of(client: SimClient) -> SimServer:
    assert client._server is not None
    return client._server


def history_of(simulation: Simulation) -> list[Asked]:
    assert simulation.history is not None
    return simulation.history


class TestCommands:
    def test_each_is_answered_once_in_order_of_its_number(
        self, frames: list[tuple[int, int, int, tuple[bytes, ...]]]
    ) -> None:
        simulation, client = started(in_flight_max=4, frame_commands_max=3)
        answered(simulation, client, 100)
        writes = [asked for asked in history_of(simulation) if not asked.is_read]
        assert len(writes) == client.answered == client.next_seq - 1 - len(client.in_flight)
        in_order = {first + n: each for _, first, _, part in frames for n, each in enumerate(part)}
        assert [asked.request for asked in writes] == [in_order[seq] for seq in range(1, len(writes) + 1)]
        assert all(asked.returned_at is not None and asked.called_at <= asked.returned_at for asked in writes)
        assert {session for session, *_ in frames} == {client.session}
        assert max(len(commands) for *_, commands in frames) == 3
        assert all(received_below <= first for _, first, received_below, _ in frames)

    @pytest.mark.parametrize("limit", [1, 3])
    def test_no_more_are_in_flight_than_the_world_says(self, limit: int) -> None:
        simulation, client = started(in_flight_max=limit, frame_commands_max=3, delay_units=500)
        most = 0
        for _ in range(5000):
            simulation.stage.next()
            most = max(most, len(client.in_flight))
        assert most == limit

    def test_a_client_may_be_given_a_number_of_commands_and_one_server(self) -> None:
        simulation = formed(reads=0.5)
        (client,) = simulation.clients
        client.home, client.commands_left = 2, 7
        client.start()
        until(simulation, lambda: client.answered == 7 and client.read > 0)
        assert server_of(client).number == 2
        play(simulation, 50)
        assert client.answered == 7
        assert client.next_seq == 8

    def test_results_of_an_attachment_that_it_has_left_are_lost(self) -> None:
        simulation, client = started()
        sink = client._sink
        until(simulation, lambda: bool(client.in_flight))
        before = dict(client.in_flight)
        client._move()
        assert not sink.current
        sink.results(next(iter(before)), [b"from the past"])
        sink.opened(client.session + 1, 1)
        sink.failed(0, SessionExpired("from the past"))
        assert client.in_flight == before

    def test_what_is_received_again_is_no_news(self) -> None:
        simulation, client = started()
        read = client.answered
        client.results(1, [b"anything"])
        assert client.answered == read
        assert simulation.stage.events


class TestGoingElsewhere:
    def test_with_the_same_session_and_what_has_no_result_in_other_frames(
        self, frames: list[tuple[int, int, int, tuple[bytes, ...]]]
    ) -> None:
        simulation, client = started(in_flight_max=12, frame_commands_max=3, servers=5)
        session = client.session
        homes = []
        for _ in range(6):
            until(simulation, lambda: len(client.in_flight) > 3, "something is in flight")
            server = server_of(client)
            homes.append(server.number)
            server.kill()
            answered(simulation, client, 12)
            server.boot()
            play(simulation, 4)
        assert len(set(homes)) > 1
        assert client.session == session
        sent: dict[int, set[tuple[int, int]]] = {}
        for _, first, _, commands in frames:
            for seq in range(first, first + len(commands)):
                sent.setdefault(seq, set()).add((first, len(commands)))
        assert any(len(cuts) > 1 for cuts in sent.values())
        by_seq = {(first + n, each) for _, first, _, commands in frames for n, each in enumerate(commands)}
        assert len(by_seq) == len(sent)  # each number is one command, wherever it is sent
        assert simulation.stage.fired["session expired"] == 0

    def test_when_it_hears_nothing(self) -> None:
        simulation, client = started(patience_ticks=12, servers=5)
        server = server_of(client)
        for other in simulation.servers:
            simulation.network.cut |= {(server.number, other), (other, server.number)}
        until(simulation, lambda: server_of(client) is not server, "it goes elsewhere")
        assert simulation.stage.fired["impatience"] >= 1
        answered(simulation, client, 5)

    @pytest.mark.parametrize("error", [Unavailable("it stops"), ResourceExhausted("too much waits")])
    def test_when_its_server_takes_no_more(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation, client = started(in_flight_max=12)
        handle, submitted = client._handle, client._submitted_through
        refused = 0

        def refuse(*args: object) -> None:
            nonlocal refused
            refused += 1
            raise error

        monkeypatch.setattr(handle, "submit", refuse)
        until(simulation, lambda: client._handle is not handle, "it goes elsewhere")
        assert refused > 0
        assert simulation.stage.fired["impatience"] == 1
        answered(simulation, client, 5)
        assert client._submitted_through > submitted

    def test_on_a_whim(self) -> None:
        simulation, client = started(moves=0.5)
        seen = Counter[int]()
        for _ in range(3000):
            simulation.stage.next()
            if client._server is not None:
                seen[client._server.number] += 1
        assert set(seen) == {1, 2, 3}
        assert simulation.stage.fired["move"] > 10

    def test_not_to_one_that_is_down_or_paused(self) -> None:
        simulation, client = started(moves=0.5)
        down = follower(simulation)
        down.kill()
        for other in simulation.servers.values():
            if other is not down and not other.leads:
                other.paused_until = simulation.stage.now + 8 * TICK_UNITS
        play(simulation, 5)
        for _ in range(20):
            client._move()
            assert server_of(client) is the_leader_among(simulation)

    def test_nowhere_where_nobody_is_up(self) -> None:
        simulation, client = started()
        for server in simulation.servers.values():
            server.kill()
        play(simulation, 20)
        assert client._server is None
        for server in simulation.servers.values():
            server.boot()
        answered(simulation, client, 5)

    def test_after_a_restart_of_its_server_too(self) -> None:
        simulation, client = started()
        client.home = follower(simulation).number
        client._move()
        answered(simulation, client, 3)
        server = server_of(client)
        server.kill()
        server.boot()
        answered(simulation, client, 5)
        assert server_of(client) is server
        assert client._life == server.life


def the_leader_among(simulation: Simulation) -> SimServer:
    (leader,) = [server for server in simulation.servers.values() if server.leads]
    return leader


SHORT = ReplicaSettings(tick_ms=250, resend_ticks=10, session_timeout_ms=3_000)


class TestSessions:
    def test_one_that_has_expired_ends_with_outcomes_unknown_and_another_begins(self) -> None:
        simulation, client = started(replica=SHORT, in_flight_max=12)
        session = client.session
        until(simulation, lambda: len(client.in_flight) > 2)
        waiting = {each.command for each in client.in_flight.values()}
        client._random.seed(4711)
        client._leave()
        client._wakes_at = simulation.stage.now + 100 * TICK_UNITS
        play(simulation, 90)
        assert client.in_flight
        assert simulation.stage.fired["session expired"] == 0
        until(simulation, lambda: simulation.stage.fired["session expired"] == 1)
        answered(simulation, client, 5)
        assert client.session != session
        unknown = [each for each in history_of(simulation) if each.returned_at is None]
        assert {each.request for each in unknown} == waiting
        assert {each.result for each in unknown} == {None}
        assert client.answered == sum(
            not each.is_read and each.returned_at is not None for each in history_of(simulation)
        )

    def test_one_that_is_used_does_not(self) -> None:
        simulation, client = started(replica=SHORT)
        session = client.session
        play(simulation, 80)
        assert client.session == session

    def test_a_client_may_end_its_own(self) -> None:
        simulation, client = started(ends=0.3, in_flight_max=1)
        sessions = set()
        for _ in range(6000):
            simulation.stage.next()
            sessions.add(client.session)
        assert len(sessions) > 4
        assert simulation.stage.fired["session ended"] >= len(sessions) - 2
        assert simulation.stage.fired["session expired"] == 0
        leader = the_leader(simulation)
        until(simulation, lambda: leader.replica.machine.session_count < 4, "those that ended are gone")

    def test_a_client_may_be_away(self) -> None:
        simulation, client = started(sleeps=0.3)
        stage = simulation.stage
        until(simulation, lambda: client._wakes_at > stage.now + 10 * TICK_UNITS, "a long sleep", 5000)
        since, wakes_at = stage.now, client._wakes_at
        until(simulation, lambda: stage.now >= wakes_at + TICK_UNITS)
        assert not [each for each in history_of(simulation) if since < each.called_at < wakes_at]
        until(simulation, lambda: history_of(simulation)[-1].called_at > wakes_at, "it acts again", 5000)
        assert stage.fired["sleep"] > 0

    def test_other_errors_leave_it(self) -> None:
        simulation, client = started()
        session = client.session
        client.failed(Unavailable("there is no leader"))
        assert client._handle is None
        answered(simulation, client, 5)
        assert client.session == session

    def test_being_told_too_early_that_it_has_ended_is_broken(self) -> None:
        _, client = started()
        with broken("11", "has ended, and the log has not ended it"):
            client.failed(SessionExpired("it has ended"))

    def test_being_given_another_is_broken(self) -> None:
        _, client = started()
        with broken("11", f"client 1 gets session {client.session + 1:x} for its {client.session:x}"):
            client.opened(client.session + 1, 1)

    def test_a_wrong_answer_is_broken(self) -> None:
        simulation, client = started()
        until(simulation, lambda: bool(client.in_flight))
        with broken("11", "of session"):
            client.results(next(iter(client.in_flight)), [b"not this"])


class TestReads:
    def test_they_are_answered_and_kept(self) -> None:
        simulation, client = started(reads=0.6)
        until(simulation, lambda: client.read >= 20)
        reads = [asked for asked in history_of(simulation) if asked.is_read]
        assert len(reads) == client.read
        assert all(each.returned_at is not None and type(each.result) is bytes for each in reads)

    def test_not_by_one_that_may_not(self) -> None:
        simulation, client = started(reads=0.6)
        client.reads_left = 0
        until(simulation, lambda: not client.reading)
        read = client.read
        answered(simulation, client, 20)
        assert client.read == read

    def test_without_a_leader_they_are_refused(self) -> None:
        simulation, client = started(reads=1.0, patience_ticks=10_000)
        client.home = follower(simulation).number
        client._move()
        answered(simulation, client, 2)
        for other in simulation.servers:
            simulation.network.cut |= {(client.home, other), (other, client.home)}
        until(simulation, lambda: simulation.stage.fired["read refused"] > 0)

    def test_one_that_is_older_than_what_was_applied_is_broken(self) -> None:
        simulation, client = started()
        client._server = the_leader(simulation)
        server = server_of(client)
        simulation.oracle.applied_through += 1  # somebody has applied what this server does not know of
        with broken("8", "had been applied when it was asked"):
            server.feed(_read_at_once, client, server)

    def test_one_from_another_state_than_is_said_is_broken(self) -> None:
        simulation, client = started()
        client._server = the_leader(simulation)
        server = server_of(client)
        with broken("8", "meets the state of another"):
            server.feed(_read_at_once, client, server, 1)

    def test_a_wrong_one_is_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation, client = started()
        client._server = the_leader(simulation)
        server = server_of(client)
        monkeypatch.setattr(server.replica, "query", lambda request: b"nonsense")
        simulation.oracle.applied_through = server.replica.machine.applied_slot
        with broken("11", "was answered b'nonsense'"):
            server.feed(_read_at_once, client, server)


def _read_at_once(client: SimClient, server: SimServer, beyond: int = 0) -> None:
    """A read that is granted at the state of now (or said to be at another), whatever the leader knows."""
    read = server.replica.read
    try:
        setattr(server.replica, "read", lambda done: done(server.replica.machine.applied_slot + beyond))  # noqa: B010
        client._read()
    finally:
        setattr(server.replica, "read", read)  # noqa: B010


def test_no_history_is_kept_where_nobody_asked() -> None:
    """The history of the usual workload is always judged; of a user's own it is kept where it is wanted."""
    assert Simulation(1).history == []
    assert Simulation(1, workload=KvWorkload(), history=True).history == []
    simulation = Simulation(1, workload=KvWorkload(), changes=quiet(), events=300)
    assert simulation.run().failure is None
    assert simulation.history is None
    assert simulation.stage.fired["commands answered"] > 0
