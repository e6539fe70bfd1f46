"""How a simulated server works: pauses, turns, and what the oracle is shown of them."""

from collections.abc import Sequence

import pytest

from paxos_rsm.codec.kv import encode_command
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.kv.types import Put
from paxos_rsm.paxos.messages import Message
from paxos_rsm.paxos.ready import Write
from paxos_rsm.paxos.types import NodeId
from paxos_rsm.replica.replica import Effects, Replica
from paxos_rsm.sim.driver import CHECK_TURNS
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.world import TICK_UNITS
from tests.unit.sim.helpers import (
    broken,
    busy,
    follower,
    formed,
    pass_units,
    play,
    the_leader,
    wait_for_whole,
)


class TestInputs:
    def test_a_paused_server_does_nothing_and_then_goes_on(self) -> None:
        simulation = busy()
        server = the_leader(simulation)
        server.paused_until = simulation.stage.now + 30 * TICK_UNITS
        frozen = server.replica._now, server.replica.node.decided_through
        pass_units(simulation.stage, 30 * TICK_UNITS - 1)
        assert (server.replica._now, server.replica.node.decided_through) == frozen
        others = [s for s in simulation.servers.values() if s is not server]
        assert any(s.leads for s in others)
        assert server.leads  # it knows nothing of that
        wait_for_whole(simulation)

    def test_a_lazy_server_takes_several_inputs_before_its_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulation = busy(lazy=1.0)
        server = the_leader(simulation)
        taken: list[int] = []
        turn, receive = server.replica.turn, server.replica.receive
        waiting = 0

        def received(sender: NodeId, messages: Sequence[Message]) -> None:
            nonlocal waiting
            waiting += 1
            receive(sender, messages)

        def turned(clock_us: int | None = None) -> Effects:
            nonlocal waiting
            taken.append(waiting)
            waiting = 0
            return turn(clock_us)

        monkeypatch.setattr(server.replica, "receive", received)
        monkeypatch.setattr(server.replica, "turn", turned)
        play(simulation, 30)
        assert max(taken) > 1
        wait_for_whole(simulation)

    def test_an_input_says_whether_it_had_an_effect(self) -> None:
        simulation = formed()
        server = follower(simulation)
        assert not server.feed(lambda: None)
        assert server.feed(server.replica.node.campaign)

    def test_a_turn_that_never_ends_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation = formed()
        monkeypatch.setattr(Replica, "needs_turn", property(lambda replica: True))
        with broken("liveness", "n2 does not come to rest in 200 turns"):
            simulation.servers[2].feed(lambda: None)

    def test_the_nodes_own_invariants_are_asked_now_and_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation = formed()
        server, asked = follower(simulation), 0
        check = server.replica.node.check

        def counted() -> None:
            nonlocal asked
            asked += 1
            check()

        monkeypatch.setattr(server.replica.node, "check", counted)
        for _ in range(2 * CHECK_TURNS):
            server.feed(lambda: None)
        assert asked == 2


class TestWhatTheOracleSees:
    def test_nothing_is_sent_that_is_not_on_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that takes its writes for durable too early."""
        simulation = busy(sync_units=2000)
        server = follower(simulation)
        submit = server._disk.submit

        def hasty(batch: int, writes: Sequence[Write], sync: bool = True) -> None:
            submit(batch, writes, sync)
            server.replica.durable(batch)

        monkeypatch.setattr(server._disk, "submit", hasty)
        with pytest.raises(Broken) as caught:
            play(simulation, 100)
        assert caught.value.rule == "4"

    def test_another_state_than_elsewhere(self) -> None:
        simulation = busy(digest_slots=1)
        server = follower(simulation)
        server.compare_digest()
        store = simulation.workload.machine()
        store.apply(encode_command(Put(b"k0", b"nobody wrote this")), Position(1, 0))
        server._watched.restore(store.snapshot())
        with broken("7", "has another state than others after slot"):
            server.compare_digest()

    def test_a_slot_applied_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation = busy()
        server = follower(simulation)
        turn = server.replica.turn

        def twice(clock_us: int | None = None) -> Effects:
            effects = turn(clock_us)
            effects.decided += effects.decided[-1:]
            return effects

        monkeypatch.setattr(server.replica, "turn", twice)
        with broken("7", "was told to apply slot"):
            play(simulation, 100)
