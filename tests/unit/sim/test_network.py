"""Streams and messages between servers that do nothing but listen."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from paxos_rsm.codec.messages import encode_message
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    CatchUpReply,
    Envelope,
    Forward,
    Message,
    Promise,
)
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, NodeId
from paxos_rsm.sim import network as network_module
from paxos_rsm.sim.network import GRACE_TICKS, LATE_TICKS_MAX, RETRY_TICKS, Network
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS
from paxos_rsm.transport.handshake import Hello, PeerBook, Reason, Refusal
from tests.unit.sim.helpers import broken, pass_units, world

SOON = 10 * TICK_UNITS


GENESIS = ConfigChange(
    Configuration(
        7,
        tuple(Member(i, 100 + i, f"n{i}", f"http://n{i}:2380") for i in range(1, 8)),
        QuorumSizes.majority(7),
    )
)


class Listener:
    """A peer that keeps what it is told."""

    def __init__(self, number: int, network: Network) -> None:
        self.number = number
        self.node: NodeId = 10 + number
        self.life = 1
        self.boots = 1
        self.cluster_id = 7
        self.formed = False
        self.up = False
        self.paused_until = 0
        self.book = PeerBook({101, 102, 103})
        self.known: Configuration | None = None
        self.heard: list[tuple[NodeId, Message]] = []
        self.streams: list[tuple[str, NodeId]] = []
        self.refusals: list[Refusal] = []
        self._network = network

    @property
    def member(self) -> Member:
        return Member(self.node, 100 + self.number, f"n{self.number}", f"http://n{self.number}:2380")

    def hello(self) -> Hello:
        return Hello(self.cluster_id, self.member, self.boots, NO_BALLOT, self.formed, process=self.life)

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self.die()

    def peer_up(self, member: Member) -> None:
        self.streams.append(("up", member.incarnation))

    def peer_down(self, node: NodeId) -> None:
        self.streams.append(("down", node))

    def receive(self, sender: NodeId, message: Message) -> None:
        self.heard.append((sender, message))

    def understands(self, message: Message) -> bool:
        return True

    @property
    def configuration(self) -> Configuration | None:
        return self.known

    # what tests do

    def start(self) -> None:
        self.up = True
        self._network.came_up(self)

    def die(self) -> None:
        self.up = False
        self._network.went_down(self)
        self.life += 1
        self.boots += 1

    def say(self, to: "Listener", *messages: Message) -> None:
        self._network.send(self, [Envelope(to.node, message) for message in messages])

    @property
    def slots(self) -> list[int]:
        """What it heard of :func:`numbered` messages."""
        return [message.first for _, message in self.heard if isinstance(message, CatchUp)]


def numbered(numbers: Iterable[int]) -> list[Message]:
    return [CatchUp(n, n) for n in numbers]


class Net:
    """Two or three listeners and the network between them, connected where ``connected``."""

    def __init__(self, *, seed: int = 1, connected: bool = True, count: int = 2, **changes: object) -> None:
        self.stage = Stage(seed, True)
        self.network = Network(self.stage, world(**changes))  # type: ignore[arg-type]
        self.all = [Listener(number, self.network) for number in range(1, count + 1)]
        self.network.peers = {each.number: each for each in self.all}
        self.a, self.b = self.all[:2]
        if connected:
            for each in self.all:
                each.start()
            self.pass_units(SOON)
            for each in self.all:
                each.streams.clear()

    def pass_units(self, units: int = SOON) -> None:
        pass_units(self.stage, units)


class TestStreams:
    def test_all_who_start_find_each_other(self) -> None:
        net = Net(connected=False, count=3)
        for each in net.all:
            each.start()
            net.pass_units()
        assert net.network.connected() == [(1, 2), (1, 3), (2, 3)]
        assert [sorted(each.streams) for each in net.all] == [
            [("up", 12), ("up", 13)],
            [("up", 11), ("up", 13)],
            [("up", 11), ("up", 12)],
        ]

    def test_nothing_is_said_without_a_stream(self) -> None:
        net = Net(connected=False)
        net.a.start()
        net.b.start()
        net.a.say(net.b, *numbered([1]))
        net.pass_units()
        net.a.say(net.b, *numbered([2]))
        net.a.say(net.all[0], *numbered([3]))
        net.network.send(net.a, [Envelope(99, CatchUp(4, 4))])  # nobody
        net.pass_units()
        assert net.b.heard == [(11, CatchUp(2, 2))]

    @pytest.mark.parametrize("cut", [(1, 2), (2, 1)])
    def test_a_stream_needs_both_directions(self, cut: tuple[int, int]) -> None:
        net = Net(connected=False)
        net.network.cut.add(cut)
        net.a.start()
        net.b.start()
        net.pass_units()
        assert net.network.connected() == []
        net.network.cut.clear()
        net.pass_units((RETRY_TICKS + 1) * TICK_UNITS)
        assert net.network.connected() == [(1, 2)]

    def test_nobody_shakes_hands_while_it_is_paused(self) -> None:
        net = Net(connected=False)
        net.a.start()
        net.b.start()
        net.b.paused_until = SOON
        net.pass_units(SOON - 1)
        assert net.network.connected() == []
        net.pass_units((RETRY_TICKS + 1) * TICK_UNITS)
        assert net.network.connected() == [(1, 2)]

    def test_a_broken_stream_is_told_to_both_and_opened_again(self) -> None:
        net = Net()
        net.network.break_stream(net.a, net.b)
        assert net.network.connected() == []
        assert (net.a.streams, net.b.streams) == ([("down", 12)], [("down", 11)])
        net.network.break_stream(net.a, net.b)  # there is none
        net.pass_units()
        assert net.network.connected() == [(1, 2)]
        assert (net.a.streams, net.b.streams) == ([("down", 12), ("up", 12)], [("down", 11), ("up", 11)])

    def test_the_death_of_a_peer_is_learned_soon_or_when_it_comes_back(self) -> None:
        learned = set()
        for seed in range(20):
            net = Net(seed=seed)
            net.b.die()
            assert net.network.connected() == []
            net.pass_units()
            learned.add(tuple(net.a.streams))
            net.b.start()
            net.pass_units()
            # Whether it heard of the death or not: the old stream ends before the new one stands.
            assert net.a.streams == [("down", 12), ("up", 12)]
            assert net.b.streams == [("up", 11)]
        assert learned == {(), (("down", 12),)}

    def test_another_incarnation_takes_the_place_of_the_old(self) -> None:
        for seed in range(8):
            net = Net(seed=seed)
            net.b.die()
            net.b.node = 22
            net.b.start()
            net.pass_units()
            assert net.a.streams == [("down", 12), ("up", 22)]

    def test_a_life_that_is_over_is_not_connected(self) -> None:
        net = Net(connected=False)
        net.a.start()
        net.b.start()
        net.b.die()
        net.pass_units()
        assert net.network.connected() == []


class TestRefusals:
    def test_a_fatal_one_is_told_to_who_is_refused(self) -> None:
        net = Net(connected=False)
        net.b.boots = 5
        net.a.book.hear(net.b.hello())
        net.b.boots, net.b.life = 2, 9
        net.a.start()
        net.b.start()
        net.pass_units()
        assert [refusal.reason for refusal in net.b.refusals] == [Reason.ROLLED_BACK]
        assert net.a.refusals == []
        assert net.network.connected() == []
        assert net.stage.fired["refused"] == 1
        assert any("n1 refuses n2: member" in line for line in net.stage.trace or [])

    def test_another_one_is_tried_again(self) -> None:
        net = Net(connected=False)
        net.b.cluster_id = 8
        net.a.start()
        net.b.start()
        net.pass_units(3 * ELECTION_TICKS * TICK_UNITS)
        assert net.stage.fired["refused"] >= 2
        assert net.a.refusals == net.b.refusals == []
        net.b.cluster_id = 7
        net.pass_units(2 * ELECTION_TICKS * TICK_UNITS)
        assert net.network.connected() == [(1, 2)]

    def test_what_was_told_at_the_start_is_remembered(self) -> None:
        net = Net()
        net.b.die()
        net.b.boots = 1  # a copy of its directory, started once more
        net.b.start()
        net.pass_units()
        assert [refusal.reason for refusal in net.b.refusals] == [Reason.ROLLED_BACK]

    @pytest.mark.parametrize(
        "message", [Promise(Ballot(5, 11), 1, None, (), ()), Accepted(Ballot(5, 11), (1,))]
    )
    def test_and_so_is_what_was_promised_since(self, message: Message) -> None:
        net = Net()
        net.b.say(net.a, message)
        net.pass_units()
        net.b.die()
        net.b.start()  # its Hello has no promise
        net.pass_units()
        assert [refusal.reason for refusal in net.b.refusals] == [Reason.ROLLED_BACK]

    def test_an_accept_is_no_promise(self) -> None:
        net = Net()
        net.b.say(net.a, Accept(Ballot(5, 12), 1, Batch(b""), 0))
        net.pass_units()
        net.b.die()
        net.b.start()
        net.pass_units()
        assert net.b.refusals == []

    def test_who_is_not_named_by_the_configuration_is_not_heard_for_long(self) -> None:
        net = Net()
        net.a.say(net.b, *numbered([1]))
        net.pass_units()
        members = (net.b.member, Member(99, 101, "n1", "http://n1:2380"))
        net.b.book.form(Configuration(7, members, QuorumSizes.majority(2)))
        net.network.formed(net.b)
        net.a.say(net.b, *numbered([2]))
        net.pass_units(1)  # the others may need it yet
        net.pass_units(GRACE_TICKS * TICK_UNITS)
        net.a.say(net.b, *numbered([3]))
        net.pass_units()
        assert net.b.slots == [1, 2]


class TestMessages:
    def test_a_cut_has_a_direction(self) -> None:
        net = Net()
        net.network.cut.add((1, 2))
        net.a.say(net.b, *numbered([1, 2]))
        net.b.say(net.a, *numbered([3]))
        net.pass_units()
        assert (net.b.slots, net.a.slots) == ([], [3])
        assert net.stage.fired["cut"] == 2
        net.network.cut.clear()
        net.a.say(net.b, *numbered([4]))
        net.pass_units()
        assert net.b.slots == [4]

    def test_what_was_on_its_way_before_the_cut_arrives(self) -> None:
        net = Net()
        net.a.say(net.b, *numbered([1]))
        net.network.cut.add((1, 2))
        net.pass_units()
        assert net.b.slots == [1]

    def test_in_order(self) -> None:
        net = Net(fifo=True, delay_units=1500)
        for n in range(50):
            net.a.say(net.b, *numbered([n]))
            net.pass_units(100)
        net.pass_units()
        assert net.b.slots == list(range(50))
        assert not net.stage.fired["reorder"]

    def test_or_not(self) -> None:
        net = Net(fifo=False, delay_units=1500)
        for n in range(50):
            net.a.say(net.b, *numbered([n]))
            net.pass_units(100)
        net.pass_units()
        assert net.b.slots != sorted(net.b.slots) == list(range(50))
        assert net.stage.fired["reorder"] > 0

    def test_each_takes_its_time(self) -> None:
        net = Net(fifo=False, delay_units=500)
        arrivals = set()
        for n in range(50):
            began = net.stage.now
            net.a.say(net.b, *numbered([n]))
            while len(net.b.slots) == n:
                net.pass_units(1)
            arrivals.add(net.stage.now - began)
        assert max(arrivals) <= 1000
        assert max(arrivals) > 800
        assert len(arrivals) > 20

    def test_loss(self) -> None:
        net = Net(loss=0.3)
        net.a.say(net.b, *numbered(range(300)))
        net.pass_units()
        lost = 300 - len(net.b.slots)
        assert net.stage.fired["loss"] == lost
        assert 50 < lost < 150
        net.network.world = replace(world(), loss=1.0)  # more than a whole run bears
        net.a.say(net.b, *numbered([1]))
        net.pass_units()
        assert len(net.b.slots) == 300 - lost

    def test_duplicates(self) -> None:
        net = Net(duplicate=1.0)
        net.a.say(net.b, *numbered(range(20)))
        net.pass_units()
        assert sorted(net.b.slots) == sorted([*range(20), *range(20)])
        assert net.stage.fired["duplicate"] == 20

    def test_late_ones_come_again_much_later(self) -> None:
        net = Net(late=1.0)
        net.a.say(net.b, *numbered(range(20)))
        net.pass_units(TICK_UNITS - 1)
        assert net.b.slots == list(range(20))
        net.pass_units(LATE_TICKS_MAX * TICK_UNITS // 8)
        early = len(net.b.slots)
        assert 20 < early < 40
        net.pass_units(LATE_TICKS_MAX * TICK_UNITS)
        assert sorted(net.b.slots) == sorted([*range(20), *range(20)])
        assert net.stage.fired["late"] == 20

    def test_what_is_lost_may_come_late(self) -> None:
        net = Net(late=1.0)
        net.network.world = replace(net.network.world, loss=1.0)
        net.a.say(net.b, *numbered(range(20)))
        net.pass_units(TICK_UNITS - 1)
        assert net.b.slots == []
        net.pass_units(LATE_TICKS_MAX * TICK_UNITS)
        assert sorted(net.b.slots) == list(range(20))

    @pytest.mark.parametrize("who", ["sender", "receiver"])
    @pytest.mark.parametrize("carry", [True, False])
    def test_after_a_restart_they_come_where_streams_carry(self, who: str, carry: bool) -> None:
        net = Net(late=1.0, streams_carry=carry)
        net.a.say(net.b, *numbered(range(20)))
        net.pass_units(TICK_UNITS - 1)
        soon = len(net.b.slots)
        assert set(net.b.slots) == set(range(20))
        restarted = net.a if who == "sender" else net.b
        restarted.die()
        restarted.start()
        net.pass_units(LATE_TICKS_MAX * TICK_UNITS)
        assert len(net.b.slots) == (40 if carry else soon)
        assert net.stage.fired["stale"] == len(net.b.slots) - soon
        assert soon < 40

    def test_nothing_reaches_another_incarnation(self) -> None:
        net = Net(late=1.0, streams_carry=True)
        net.a.say(net.b, *numbered(range(20)))
        net.b.die()
        net.b.node = 22
        net.b.start()
        net.pass_units(LATE_TICKS_MAX * TICK_UNITS)
        assert net.network.connected() == [(1, 2)]
        assert net.b.slots == []

    def test_nor_one_that_is_down(self) -> None:
        net = Net()
        net.a.say(net.b, *numbered([1]))
        net.b.die()
        net.pass_units()
        assert net.b.slots == []

    def test_a_paused_peer_hears_when_it_goes_on(self) -> None:
        net = Net(streams_carry=False)
        net.b.paused_until = net.stage.now + SOON
        net.a.say(net.b, *numbered(range(5)))
        net.pass_units(SOON - 1)
        assert net.b.slots == []
        net.pass_units(2)
        assert net.b.slots == list(range(5))

    def test_every_arrival_is_an_event(self) -> None:
        net = Net()
        events, before = net.stage.events, net.stage.trace_hash
        net.a.say(net.b, *numbered([1]))
        assert (net.stage.events, net.stage.trace_hash) == (events, before)
        net.pass_units()
        assert net.stage.events == events + 1
        assert net.stage.trace_hash != before
        assert (net.stage.trace or [])[-1].endswith("n2 hears n1: CatchUp(first=1, last=1)")


class TestTheWire:
    MESSAGE = Accept(Ballot(3, 11), 4, Batch(b"frames"), 2)

    def test_messages_pass_through_their_format(self) -> None:
        net = Net(encoded=True)
        net.a.say(net.b, self.MESSAGE)
        net.pass_units()
        ((_, heard),) = net.b.heard
        assert heard == self.MESSAGE
        assert heard is not self.MESSAGE
        assert net.stage.fired["encoded"] == 1

    def test_or_as_they_are(self) -> None:
        net = Net(encoded=False)
        net.a.say(net.b, self.MESSAGE)
        net.pass_units()
        assert net.b.heard[0][1] is self.MESSAGE

    def test_a_format_that_loses_something_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net = Net(encoded=True)

        def forgetful(message: Message) -> bytes:
            assert isinstance(message, Accept)
            return encode_message(Accept(message.ballot, message.slot, message.entry, 0))

        monkeypatch.setattr(network_module, "encode_message", forgetful)
        with broken("wire", "comes out of its wire format as Accept("):
            net.a.say(net.b, self.MESSAGE)

    @pytest.mark.parametrize(
        "message",
        [
            Forward((b"x" * 196, b"x" * 196, b"x" * 196, b"x" * 197)),
            Accept(Ballot(3, 11), 4, Batch(bytes(769)), 2),
            CatchUpReply(Ballot(3, 11), ((4, Batch(bytes(368))), (5, Batch(bytes(369)))), 5),
            Promise(
                Ballot(3, 11), 4, None, ((4, Ballot(1, 11), Batch(bytes(368))),), ((5, Batch(bytes(369))),)
            ),
        ],
    )
    def test_a_message_that_no_peer_would_take_is_an_error_of_its_sender(self, message: Message) -> None:
        settings = Settings(entry_bytes_max=300, chunk_bytes_max=200)
        net = Net(settings=settings)
        with broken("wire", f"n1 sends a {type(message).__name__} of about 801 bytes; the most"):
            net.a.say(net.b, message)
        larger = Net(settings=replace(settings, chunk_bytes_max=201))
        larger.a.say(larger.b, message, Accept(Ballot(3, 11), 4, GENESIS, 2))
        larger.pass_units()
        assert len(larger.b.heard) == 2
