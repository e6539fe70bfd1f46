"""Queues of keys, without a service around them. What callers see of them is in the tests of locks and elections."""

import asyncio
from typing import Any

import pytest

from paxos_rsm.errors import ResourceExhausted
from paxos_rsm.server import key_queue
from paxos_rsm.server.key_queue import KeyQueue, Place, PlaceLost, Signal
from paxos_rsm.server.rpc import StatusError
from tests.unit.server.recipes import Stage, staged, until


class Caller:
    def time_remaining(self) -> float | None:
        return None


async def enter(queue: KeyQueue, lease: int, value: bytes = b"") -> Place:
    caller: Any = Caller()
    return await queue.enter(b"q", lease, value, caller)


async def wait(queue: KeyQueue, place: Place) -> None:
    caller: Any = Caller()
    await queue.wait(place, "lost", caller)


def keys(stage: Stage) -> list[bytes]:
    return [kv.key for kv in stage.keys(b"q/")]


async def test_a_place_is_a_key_and_the_order_is_that_of_creation() -> None:
    async with staged() as stage:
        first = await enter(stage.queue, stage.lease(0xBEEF), b"v")
        second = await enter(stage.queue, stage.lease(1))
        assert (first.key, first.is_first, first.lease) == (b"q/beef", True, 0xBEEF)
        assert first.written == first.revision
        assert not second.is_first
        assert second.revision == first.revision + 1
        again = await enter(stage.queue, 0xBEEF, b"other")
        assert (again.key, again.revision, again.is_first) == (first.key, first.revision, True)
        assert again.written == second.revision + 1
        own, other = stage.keys(b"q/beef") + stage.keys(b"q/1")
        assert (own.value, own.lease, own.mod_revision) == (b"other", 0xBEEF, again.written)
        assert (other.value, other.lease) == (b"", 1)


async def test_a_call_that_is_refused_leaves_no_lease_behind() -> None:
    async with staged() as stage:
        with pytest.raises(StatusError, match="etcdserver: request is too large"):
            await enter(stage.queue, 0, b"v" * 100_000)
        assert not list(stage.machine.lease_ids())
        place = await enter(stage.queue, 0, b"v")
        assert list(stage.machine.lease_ids()) == [place.lease]


async def test_names_that_begin_alike_are_different_queues() -> None:
    async with staged() as stage:
        caller: Any = Caller()
        stage.lease(1)
        for name in (b"q", b"q/x", b"", b"q\xff", b"\xff"):
            assert (await stage.queue.enter(name, 1, b"", caller)).is_first
        # As in etcd, one queue may lie within another: its keys are as old as they are.
        stage.lease(2)
        assert not (await stage.queue.enter(b"q", 2, b"", caller)).is_first


async def test_to_leave_is_to_have_the_key_deleted_if_it_is_still_that_one() -> None:
    async with staged() as stage:
        place = await enter(stage.queue, stage.lease(1))
        stage.queue.leave(place)
        await until(lambda: not keys(stage))
        anew = await enter(stage.queue, 1)
        stage.queue.leave(place)
        await until(lambda: not stage.queue._leaving)
        assert stage.queue.holds(anew)
        assert not stage.queue.holds(place)


async def test_a_call_that_leaves_late_does_not_take_the_place_of_the_one_that_came_after_it() -> None:
    """The server of the first call was cut off; its caller went elsewhere, holds the lock, and then the cut heals."""
    async with staged() as stage:
        before = await enter(stage.queue, stage.lease(1))
        again = await enter(stage.queue, 1)
        assert (again.key, again.revision) == (before.key, before.revision)
        stage.queue.leave(before)
        await until(lambda: not stage.queue._leaving)
        assert stage.queue.holds(again)
        stage.queue.leave(again)
        await until(lambda: not keys(stage))


async def test_who_comes_again_and_leaves_at_once_gives_up_only_what_nobody_can_hold() -> None:
    async with staged() as stage:
        held = await enter(stage.queue, stage.lease(1))
        waits = await enter(stage.queue, stage.lease(2))
        for lease in (1, 2):
            stage.replica.hold()
            coming = asyncio.create_task(enter(stage.queue, lease))
            await until(lambda: stage.own.in_flight == 1)
            coming.cancel()
            await asyncio.wait([coming])
            stage.replica.release()
            await until(lambda: not stage.queue._leaving)
        assert stage.queue.holds(held)
        assert not stage.queue.holds(waits)


async def test_a_deletion_that_is_not_taken_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_queue, "LEAVE_RETRIES_S", (0.01, 0.01, 0.01))
    async with staged() as stage:
        place = await enter(stage.queue, stage.lease(1))
        stage.replica.refuse_with = ResourceExhausted("full")
        stage.queue.leave(place)
        await asyncio.sleep(0.015)
        assert keys(stage) == [b"q/1"]
        stage.replica.refuse_with = None
        await until(lambda: not keys(stage))


async def test_who_waits_is_told_if_its_place_is_lost() -> None:
    async with staged() as stage:
        first = await enter(stage.queue, stage.lease(1))
        second = await enter(stage.queue, stage.lease(2))
        waiting = asyncio.create_task(wait(stage.queue, second))
        await until(lambda: stage.waiting() == 1)
        stage.run_out(2)
        with pytest.raises(PlaceLost, match="lost"):
            await waiting
        with pytest.raises(PlaceLost):
            await wait(stage.queue, second)
        await wait(stage.queue, first)


async def test_a_watch_that_ends_by_itself_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_queue, "WATCH_AGAIN_S", 0.0)
    async with staged() as stage:
        first = await enter(stage.queue, stage.lease(1))
        second = await enter(stage.queue, stage.lease(2))
        waiting = asyncio.create_task(wait(stage.queue, second))
        await until(lambda: stage.waiting() == 1)
        for watch in list(stage.hub._head.index):
            stage.hub.end(watch, "an end that nobody asked for")
        await until(lambda: len(stage.hub) == 2)
        assert not waiting.done()
        stage.queue.leave(first)
        await waiting


async def test_draining_waits_for_those_who_leave_but_not_for_ever() -> None:
    async with staged() as stage:
        place = await enter(stage.queue, stage.lease(1))
        stage.queue.leave(place)
        await stage.queue.drain(5.0)
        assert not keys(stage)
    async with staged() as stage:
        place = await enter(stage.queue, stage.lease(1))
        stage.replica.hold()
        stage.queue.leave(place)
        await stage.queue.drain(0.05)
        assert keys(stage) == [b"q/1"]


async def test_nobody_waits_at_a_server_that_stops() -> None:
    async with staged() as stage:
        await stage.queue.drain(0.05)
        with pytest.raises(StatusError, match="etcdserver: server stopped"):
            await stage.queue.until(Signal())
