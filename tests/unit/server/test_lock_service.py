"""Locks: who has them, who waits for whom, and who has left."""

import asyncio
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import lock_pb2 as pb
from paxos_rsm.server.lock_service import SERVICES
from tests.unit.server.recipes import Stage, staged, until

Code = grpc.StatusCode


async def locked(call: Any) -> pb.LockResponse:
    return pb.LockResponse.FromString(await call)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


async def waiters(stage: Stage, *leases: int) -> list[Any]:
    """Calls that wait for the lock `l`, in the order of the leases."""
    calls = []
    for lease in leases:
        before = stage.waiting()
        calls.append(stage.lock(b"l", stage.lease(lease)))
        await until(lambda before=before: stage.waiting() == before + 1)  # type: ignore[misc]
    return calls


@pytest.mark.parametrize("service", SERVICES)
async def test_a_free_lock_is_had_at_once_by_a_key_of_the_lease(service: str) -> None:
    async with staged() as stage:
        stage.lock_name = service
        response = await locked(stage.lock(b"l", stage.lease(0xABC)))
        assert response.key == b"l/abc"
        (kv,) = stage.keys(b"l/")
        assert (kv.key, kv.value, kv.lease) == (b"l/abc", b"", 0xABC)
        # The fencing token of one who has not waited is in the header.
        assert response.header.revision == kv.create_revision
        assert response.header.cluster_id == 0xC1
        unlocked = await stage.unlock(response.key)
        assert unlocked.header.revision == kv.create_revision + 1
        assert not stage.keys(b"l/")


async def test_without_a_lease_one_of_sixty_seconds_is_granted() -> None:
    async with staged() as stage:
        response = await locked(stage.lock(b"l"))
        (lease,) = stage.machine.lease_ids()
        assert response.key == b"l/%x" % lease
        granted = stage.machine.lease(lease)
        assert granted is not None
        assert granted.ttl_s == 60


async def test_the_same_lease_has_the_lock_that_it_has() -> None:
    async with staged() as stage:
        first = await locked(stage.lock(b"l", stage.lease(7)))
        again = await locked(stage.lock(b"l", 7))
        assert again.key == first.key
        assert len(stage.keys(b"l/")) == 1


async def test_locks_are_had_in_the_order_in_which_they_were_asked_for_and_one_caller_wakes() -> None:
    async with staged() as stage:
        holder = await locked(stage.lock(b"l", stage.lease(1)))
        calls = await waiters(stage, 9, 5, 7)
        for lease in (9, 5, 7):
            await stage.unlock(holder.key)
            holder = await locked(calls.pop(0))
            assert holder.key == b"l/%x" % lease
            assert stage.waiting() == len(calls)
            assert not any(call.done() for call in calls)


async def test_each_waiter_watches_the_key_before_it_and_its_own_only() -> None:
    async with staged() as stage:
        await locked(stage.lock(b"l", stage.lease(1)))
        await waiters(stage, 2, 3)
        watched = [watch.key for watch in stage.hub._head.index]
        assert sorted(watched) == [b"l/1", b"l/2", b"l/2", b"l/3"]


async def test_one_who_waits_and_whose_predecessor_leaves_waits_for_the_next_before() -> None:
    async with staged() as stage:
        holder = await locked(stage.lock(b"l", stage.lease(1)))
        second, third = await waiters(stage, 2, 3)
        second.cancel()
        await until(lambda: [kv.key for kv in stage.keys(b"l/")] == [b"l/1", b"l/3"])
        assert not third.done()
        await stage.unlock(holder.key)
        assert (await locked(third)).key == b"l/3"


async def test_a_lease_that_ends_frees_the_lock() -> None:
    async with staged() as stage:
        await locked(stage.lock(b"l", stage.lease(1)))
        (second,) = await waiters(stage, 2)
        stage.run_out(1)
        response = await locked(second)
        (kv,) = stage.keys(b"l/")
        assert response.key == kv.key == b"l/2"
        assert response.header.revision >= kv.create_revision


async def test_one_whose_lease_ends_while_it_waits_is_told_at_once() -> None:
    async with staged() as stage:
        await locked(stage.lock(b"l", stage.lease(1)))
        (second,) = await waiters(stage, 2)
        stage.run_out(2)
        assert await refused(second) == (Code.UNKNOWN, "mutex: session is expired")
        assert [kv.key for kv in stage.keys(b"l/")] == [b"l/1"]


async def test_a_lease_that_has_ended_elsewhere_is_found_out_before_the_lock_is_given() -> None:
    async with staged() as stage:
        holder = await locked(stage.lock(b"l", stage.lease(1)))
        (second,) = await waiters(stage, 2)
        read_index = stage.calls.read_index

        async def lose_it_meanwhile(context: Any) -> None:
            stage.run_out(2)
            await read_index(context)

        stage.calls.read_index = lose_it_meanwhile  # type: ignore[method-assign]
        await stage.unlock(holder.key)
        assert await refused(second) == (Code.UNKNOWN, "mutex: session is expired")


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_a_caller_that_leaves_takes_its_key_with_it(how: str) -> None:
    async with staged() as stage:
        await locked(stage.lock(b"l", stage.lease(1)))
        call = stage.lock(b"l", stage.lease(2), timeout=0.3 if how == "deadline" else None)
        if how == "cancelled":
            await until(lambda: stage.waiting() == 1)
            call.cancel()
        else:
            assert (await refused(call))[0] == Code.DEADLINE_EXCEEDED
        await until(lambda: not stage.waiting() and [kv.key for kv in stage.keys(b"l/")] == [b"l/1"])


async def test_a_caller_that_leaves_before_the_log_has_answered_leaves_no_key() -> None:
    async with staged() as stage:
        await locked(stage.lock(b"l", stage.lease(1)))
        stage.replica.hold()
        sent = len(stage.replica.submitted)
        call = stage.lock(b"l", stage.lease(2))
        await until(lambda: len(stage.replica.submitted) > sent)
        call.cancel()
        await until(lambda: bool(stage.queue._leaving))
        stage.replica.release()
        await until(lambda: not stage.queue._leaving)
        assert [kv.key for kv in stage.keys(b"l/")] == [b"l/1"]
        # It was there, and was taken back.
        assert stage.machine.revision == 4


async def test_a_key_that_was_made_anew_is_not_taken_away() -> None:
    async with staged() as stage:
        holder = await locked(stage.lock(b"l", stage.lease(1)))
        place_gone = stage.keys(b"l/")[0]
        await stage.unlock(holder.key)
        await locked(stage.lock(b"l", 1))
        await stage.queue._delete(place_gone.key, place_gone.create_revision)
        assert [kv.key for kv in stage.keys(b"l/")] == [b"l/1"]


async def test_what_the_store_refuses_comes_with_etcds_code_and_words() -> None:
    async with staged() as stage:
        missing = await refused(stage.lock(b"l", 99))
        assert missing == (Code.UNKNOWN, "etcdserver: requested lease not found")
        empty = await refused(stage.call("/v3lockpb.Lock/Unlock", b""))
        assert empty == (Code.UNKNOWN, "etcdserver: key is not provided")
        large = await refused(stage.lock(b"l" * 100_000, stage.lease(1)))
        assert large == (Code.UNKNOWN, "etcdserver: request is too large")
        assert (await refused(stage.call("/v3lockpb.Lock/Lock", b"\xff")))[0] == Code.INVALID_ARGUMENT


async def test_without_a_leader_nobody_enters() -> None:
    async with staged(leader=False) as stage:
        assert await refused(stage.lock(b"l", 1)) == (Code.UNAVAILABLE, "etcdserver: no leader")
        assert await refused(stage.lock(b"l")) == (Code.UNAVAILABLE, "etcdserver: no leader")


async def test_a_command_that_is_not_answered_in_time_is_taken_back_when_it_is() -> None:
    async with staged(request_timeout_ms=200) as stage:
        stage.lease(1)
        stage.replica.hold()
        assert await refused(stage.lock(b"l", 1)) == (Code.UNAVAILABLE, "etcdserver: request timed out")
        stage.replica.release()
        await until(lambda: not stage.queue._leaving)
        assert not stage.keys(b"l/")
        assert stage.machine.revision == 3


async def test_a_server_that_stops_tells_those_who_wait_and_takes_their_keys_back() -> None:
    async with staged() as stage:
        await locked(stage.lock(b"l", stage.lease(1)))
        calls = await waiters(stage, 2, 3)
        stage.calls.stopping = True
        answers = asyncio.gather(*(refused(call) for call in calls))
        await stage.queue.drain(5.0)
        assert await answers == [(Code.UNAVAILABLE, "etcdserver: server stopped")] * 2
        assert [kv.key for kv in stage.keys(b"l/")] == [b"l/1"]
        assert await refused(stage.lock(b"l", 1)) == (Code.UNAVAILABLE, "etcdserver: server stopped")


async def test_fifty_contenders_have_it_one_after_the_other() -> None:
    async with staged() as stage:
        holders = 0
        order: list[int] = []

        async def contend(lease: int) -> None:
            nonlocal holders
            response = await locked(stage.lock(b"l", stage.lease(lease)))
            holders += 1
            assert holders == 1
            assert stage.keys(response.key)[0].create_revision == min(
                kv.create_revision for kv in stage.keys(b"l/")
            )
            order.append(lease)
            await asyncio.sleep(0)
            holders -= 1
            await stage.unlock(response.key)

        await asyncio.gather(*(contend(lease) for lease in range(1, 51)))
        assert sorted(order) == list(range(1, 51))
        assert not stage.keys(b"l/")
        assert not len(stage.hub)
