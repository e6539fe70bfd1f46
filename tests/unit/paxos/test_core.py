"""The outbox: what may leave at once, what waits, and what goes together."""

import random

from paxos_rsm.paxos.core import Core, Outbox
from paxos_rsm.paxos.log import SlotLog
from paxos_rsm.paxos.messages import Accepted, CatchUp, Decide, Envelope
from paxos_rsm.paxos.ready import ReadGranted, WritePromise
from paxos_rsm.paxos.types import Ballot, Noop
from tests.unit.paxos.harness import SETTINGS, members

BALLOT = Ballot(1, 1)


def test_what_waits_for_writes_is_kept_apart() -> None:
    out = Outbox()
    out.send(2, CatchUp(1, 2))
    out.send_after_writes(3, CatchUp(3, 4))
    out.write(WritePromise(BALLOT))
    out.grant(7, None)
    assert out.has_writes
    ready = out.take(SlotLog())
    assert ready.messages == [Envelope(2, CatchUp(1, 2))]
    assert ready.messages_after_writes == [Envelope(3, CatchUp(3, 4))]
    assert (ready.writes, ready.reads) == ([WritePromise(BALLOT)], [ReadGranted(7, None)])
    assert not out.take(SlotLog()), "it is empty again"


def test_the_accepted_slots_of_one_ballot_go_together() -> None:
    out = Outbox()
    higher = Ballot(2, 1)
    for ballot, slot in ((BALLOT, 1), (higher, 3), (BALLOT, 2)):
        out.accepted(9, ballot, slot)
    ready = out.take(SlotLog())
    assert ready.messages_after_writes == [
        Envelope(9, Accepted(BALLOT, (1, 2))),
        Envelope(9, Accepted(higher, (3,))),
    ]
    assert not out.take(SlotLog())


def test_a_message_for_all_is_one_object_so_that_it_is_encoded_once() -> None:
    out = Outbox()
    message = Decide(BALLOT, 1)
    out.send_all([2, 3], message)
    ready = out.take(SlotLog())
    assert [e.to for e in ready.messages] == [2, 3]
    assert all(e.message is message for e in ready.messages)


def test_a_ready_releases_what_is_decided_once() -> None:
    out, log = Outbox(), SlotLog()
    log.decide(1, Noop())
    log.advance()
    assert out.take(log).decided == [(1, Noop())]
    assert out.take(log).decided == []


def test_the_others_are_the_members_but_this_one() -> None:
    core = Core(2, SETTINGS, random.Random(0))
    assert core.others == []
    assert core.next_configuration is None
    core.configurations.meet(members(3))
    assert core.others == [1, 3]
