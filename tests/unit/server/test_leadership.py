"""Waiting for a leader: at once where there is one, through an election, and no longer than asked."""

import asyncio

from paxos_rsm.server.leadership import Leadership
from tests.unit.server.fakes import FakeReplica


async def test_it_follows_the_replica() -> None:
    replica = FakeReplica(leader=False)
    leadership = Leadership(replica)
    assert not await leadership.wait(0)
    replica.set_leader(True)
    assert leadership.has_leader
    assert await leadership.wait(0)
    replica.set_leader(False)
    assert not await leadership.wait(0)


async def test_waiting_ends_with_a_leader_or_in_time() -> None:
    replica = FakeReplica(leader=False)
    leadership = Leadership(replica)
    assert not await leadership.wait(0.01)
    waiting = [asyncio.create_task(leadership.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)
    replica.set_leader(True)
    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_a_leader_that_is_gone_again_is_not_promised() -> None:
    replica = FakeReplica(leader=False)
    leadership = Leadership(replica)
    waiting = asyncio.create_task(leadership.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    replica.set_leader(True)
    replica.set_leader(False)
    assert not await waiting
