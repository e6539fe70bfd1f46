"""Elections: who is elected, what it says, and who hears of it."""

import asyncio
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import election_pb2 as pb
from paxos_rsm.machines.kv.types import DeleteRange
from paxos_rsm.server import election_service
from paxos_rsm.server.election_service import SERVICES
from tests.unit.server.recipes import Stage, staged, until

Code = grpc.StatusCode
Key = pb.LeaderKey


async def elected(call: Any) -> pb.CampaignResponse:
    return pb.CampaignResponse.FromString(await call)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


async def leader_of(stage: Stage) -> pb.LeaderResponse:
    return pb.LeaderResponse.FromString(await stage.leader(b"e"))


async def heard(observing: Any) -> tuple[bytes, bytes, int]:
    data = await asyncio.wait_for(observing.read(), 10)
    assert data is not grpc.aio.EOF, await observing.details()
    response = pb.LeaderResponse.FromString(data)
    return response.kv.key, response.kv.value, response.header.revision


@pytest.mark.parametrize("service", SERVICES)
async def test_the_first_to_campaign_is_elected_and_resigns(service: str) -> None:
    async with staged() as stage:
        stage.election_name = service
        assert await refused(stage.leader(b"e")) == (Code.UNKNOWN, "election: no leader")
        response = await elected(stage.campaign(b"e", stage.lease(0xAB), b"one"))
        assert response.leader == Key(name=b"e", key=b"e/ab", rev=response.header.revision, lease=0xAB)
        found = await leader_of(stage)
        assert (found.kv.key, found.kv.value, found.kv.lease) == (b"e/ab", b"one", 0xAB)
        resigned = pb.ResignResponse.FromString(await stage.resign(response.leader))
        assert resigned.header.revision == response.header.revision + 1
        assert await refused(stage.leader(b"e")) == (Code.UNKNOWN, "election: no leader")
        # Once more is no error, and changes nothing.
        again = pb.ResignResponse.FromString(await stage.resign(response.leader))
        assert again.header.revision == resigned.header.revision


async def test_the_next_is_elected_when_the_one_before_resigns_or_is_silent() -> None:
    async with staged() as stage:
        first = await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        second = stage.campaign(b"e", stage.lease(2), b"two")
        await until(lambda: stage.waiting() == 1)
        third = stage.campaign(b"e", stage.lease(3), b"three")
        await until(lambda: stage.waiting() == 2)
        await stage.resign(first.leader)
        assert (await elected(second)).leader.key == b"e/2"
        assert (await leader_of(stage)).kv.value == b"two"
        stage.run_out(2)
        assert (await elected(third)).leader.key == b"e/3"
        # The fencing token is the create revision of the key, not of the moment of the election.
        assert (await elected(third)).leader.rev == stage.keys(b"e/")[0].create_revision


async def test_only_the_elected_one_proclaims_and_only_as_long_as_it_is() -> None:
    async with staged() as stage:
        response = await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        said = pb.ProclaimResponse.FromString(await stage.proclaim(response.leader, b"more"))
        kv = (await leader_of(stage)).kv
        assert (kv.value, kv.lease, kv.version) == (b"more", 1, 2)
        assert said.header.revision == kv.mod_revision
        unnamed = Key(name=b"e", key=b"e/1", rev=response.leader.rev)
        await stage.proclaim(unnamed, b"still held by its lease")
        assert (await leader_of(stage)).kv.lease == 1
        older = Key(name=b"e", key=b"e/1", rev=response.leader.rev - 1, lease=1)
        assert await refused(stage.proclaim(older, b"no")) == (Code.UNKNOWN, "election: not leader")
        await stage.resign(response.leader)
        assert await refused(stage.proclaim(response.leader, b"no")) == (Code.UNKNOWN, "election: not leader")


async def test_a_session_that_campaigns_again_says_its_new_value() -> None:
    async with staged() as stage:
        first = await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        again = await elected(stage.campaign(b"e", 1, b"two"))
        assert again.leader == first.leader
        assert (await leader_of(stage)).kv.value == b"two"
        # The same value is written again: that takes the key over from a call before, which may yet leave.
        await elected(stage.campaign(b"e", 1, b"two"))
        kv = (await leader_of(stage)).kv
        assert (kv.value, kv.version, kv.lease, kv.create_revision) == (b"two", 3, 1, first.leader.rev)


async def test_what_is_missing_is_said_in_etcds_words() -> None:
    async with staged() as stage:
        missing = (Code.UNKNOWN, '"leader" field must be provided')
        assert await refused(stage.proclaim(None, b"x")) == missing
        assert await refused(stage.resign(None)) == missing
        no_lease = await refused(stage.campaign(b"e", 99, b"x"))
        assert no_lease == (Code.UNKNOWN, "etcdserver: requested lease not found")
        for method in ("Campaign", "Proclaim", "Leader", "Resign"):
            code, _ = await refused(stage.call(f"/v3electionpb.Election/{method}", b"\xff"))
            assert code == Code.INVALID_ARGUMENT


async def test_a_candidate_whose_lease_ends_or_who_leaves_is_out() -> None:
    async with staged() as stage:
        await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        second = stage.campaign(b"e", stage.lease(2), b"two")
        await until(lambda: stage.waiting() == 1)
        stage.run_out(2)
        assert await refused(second) == (Code.UNKNOWN, "election: session is expired")
        third = stage.campaign(b"e", stage.lease(3), b"three")
        await until(lambda: stage.waiting() == 1)
        third.cancel()
        await until(lambda: not stage.waiting() and [kv.key for kv in stage.keys(b"e/")] == [b"e/1"])


async def test_a_leader_is_asked_of_the_log_not_of_this_server_alone() -> None:
    async with staged(leader=False) as stage:
        assert await refused(stage.leader(b"e")) == (Code.UNAVAILABLE, "etcdserver: no leader")


async def test_an_observer_hears_every_leader_and_everything_it_says() -> None:
    async with staged() as stage:
        first = await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        observing = stage.observe(b"e")
        assert await heard(observing) == (b"e/1", b"one", stage.machine.revision)
        revision = stage.machine.revision
        # Someone who waits is not heard of, nor is another election.
        second = stage.campaign(b"e", stage.lease(2), b"two")
        await until(lambda: stage.waiting() == 2)
        await elected(stage.campaign(b"other", stage.lease(3), b"three"))
        for value in (b"a", b"b", b"c"):
            await stage.proclaim(first.leader, value)
        assert [await heard(observing) for _ in range(3)] == [
            (b"e/1", b"a", revision + 3),
            (b"e/1", b"b", revision + 4),
            (b"e/1", b"c", revision + 5),
        ]
        await stage.resign(first.leader)
        await elected(second)
        assert (await heard(observing))[:2] == (b"e/2", b"two")
        observing.cancel()
        await until(lambda: not len(stage.hub))


async def test_an_observer_waits_for_the_first_leader() -> None:
    async with staged() as stage:
        observing = stage.observe(b"e")
        await until(lambda: len(stage.hub) == 1)
        await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        assert (await heard(observing))[:2] == (b"e/1", b"one")
        stage.machine.execute(DeleteRange(b"e/1"))
        await elected(stage.campaign(b"e", 1, b"again"))
        assert (await heard(observing))[:2] == (b"e/1", b"again")
        observing.cancel()


async def test_a_slow_observer_misses_the_oldest_never_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election_service, "OBSERVED_MAX", 3)
    async with staged() as stage:
        observer = election_service._Observer(stage.kv, b"e/")
        stage.hub.watch(observer, b"e/", b"e0")
        first = await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        for number in range(5):
            await stage.proclaim(first.leader, b"%d" % number)
        await until(lambda: bool(observer.changes) and observer.changes[-1][0].value == b"4")
        assert [kv.value for kv, _ in observer.changes] == [b"2", b"3", b"4"]


async def test_an_observer_whose_watch_ends_while_it_is_told_something_goes_on() -> None:
    class Caller:
        """Takes what it is told; the first time, the hub has to end its watch meanwhile."""

        def __init__(self) -> None:
            self.told: list[bytes] = []

        def time_remaining(self) -> float | None:
            return None

        async def write(self, data: bytes) -> None:
            if not self.told:
                for watch in list(stage.hub._head.index):
                    stage.hub.end(watch, "an end that nobody asked for")
            self.told.append(pb.LeaderResponse.FromString(data).kv.value)

    async with staged() as stage:
        first = await elected(stage.campaign(b"e", stage.lease(1), b"one"))
        caller: Any = Caller()
        request = pb.LeaderRequest(name=b"e").SerializeToString()
        observing = asyncio.create_task(stage.elections._observe(request, caller))
        async with asyncio.timeout(10):
            await until(lambda: len(caller.told) == 2)
            await stage.proclaim(first.leader, b"more")
            await until(lambda: caller.told == [b"one", b"one", b"more"])
        observing.cancel()


async def test_observers_are_told_when_the_server_stops() -> None:
    async with staged() as stage:
        observing = stage.observe(b"e")
        await until(lambda: len(stage.hub) == 1)
        await stage.queue.drain(5.0)
        assert await observing.code() == Code.UNAVAILABLE
        assert await observing.details() == "etcdserver: server stopped"
