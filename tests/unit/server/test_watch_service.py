"""The Watch service over real gRPC, and a key-value machine without a cluster: transcripts of streams.

What is compared with etcd's words and numbers was taken from etcd 3.4.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Command, Compact, DeleteRange, Put, Txn
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.watch_hub import WatchHub
from paxos_rsm.server.watch_service import SERVICES, WatchLimits, WatchService
from tests.unit.server.fakes import FakeReplica, serving, until

QUIET_S = 0.1
"""How long nothing must come where nothing should."""


class Client:
    """The client's end of one watch stream."""

    def __init__(self, channel: grpc.aio.Channel, service: str, metadata: Any = None) -> None:
        self.call: Any = channel.stream_stream(
            f"/{service}/Watch",
            request_serializer=_bytes_of,
            response_deserializer=pb.WatchResponse.FromString,
        )(metadata=metadata)

    async def send(self, **request: Any) -> None:
        await self.call.write(pb.WatchRequest(**request))

    async def create(self, key: bytes, **options: Any) -> None:
        await self.send(create_request=pb.WatchCreateRequest(key=key, **options))

    async def created(self, key: bytes, **options: Any) -> int:
        """The number of a new watch."""
        await self.create(key, **options)
        response = await self.receive()
        assert response.created, response
        assert not response.canceled, response
        return response.watch_id

    async def cancel(self, number: int) -> None:
        await self.send(cancel_request=pb.WatchCancelRequest(watch_id=number))

    async def progress(self) -> None:
        await self.send(progress_request=pb.WatchProgressRequest())

    async def receive(self) -> pb.WatchResponse:
        response = await asyncio.wait_for(self.call.read(), 30)
        if response is grpc.aio.EOF:
            raise EOFError(f"{await self.call.code()}: {await self.call.details()}")
        assert isinstance(response, pb.WatchResponse)
        return response

    async def line(self) -> str:
        return line_of(await self.receive())

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        try:
            while await self.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self.call.code(), await self.call.details()


def _bytes_of(message: pb.WatchRequest | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def line_of(response: pb.WatchResponse) -> str:
    """``0 @3: put k=1, del k`` or what is said of the watch itself."""
    said = [name for name in ("created", "canceled", "fragment") if getattr(response, name)]
    said += [
        f"{name}={getattr(response, name)}"
        for name in ("compact_revision", "resume_revision", "cancel_reason")
        if getattr(response, name)
    ]
    said += [
        (
            f"del {each.kv.key.decode()}"
            if each.type
            else f"put {each.kv.key.decode()}={each.kv.value.decode()}"
        )
        + (f" was {each.prev_kv.value.decode()}" if each.HasField("prev_kv") else "")
        for each in response.events
    ]
    return f"{response.watch_id} @{response.header.revision}: {', '.join(said)}".rstrip()


class Served:
    """A watch service, the store behind it, and streams to it."""

    def __init__(self, replica: FakeReplica, channel: grpc.aio.Channel, service: WatchService) -> None:
        self.replica = replica
        self.channel = channel
        self.service = service
        self.hub = service.hub

    def turn(self, *commands: Command) -> int:
        """Applies commands in one turn of the replica; the revision then."""
        machine = cast(KeyValueMachine, self.replica.kv)
        for command in commands:
            if isinstance(command, Compact):
                self.hub.compacting(command.revision)
            machine.execute(command)
        for applied in self.replica._applied_watchers:
            applied()
        return machine.revision

    def put(self, key: bytes, value: bytes = b"") -> int:
        return self.turn(Put(key, value))

    def stream(self, service: str = SERVICES[1], metadata: Any = None) -> Client:
        return Client(self.channel, service, metadata)

    async def nothing_comes(self, client: Client) -> None:
        """No response is on its way; the stream is of no use afterwards."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.call.read(), QUIET_S)


@asynccontextmanager
async def served(**limits: int) -> AsyncIterator[Served]:
    replica = FakeReplica()
    machine = cast(KeyValueMachine, replica.kv)
    hub = WatchHub(replica, machine)
    service = WatchService(
        replica, hub, Headers(replica, 11, 22, lambda: machine.revision), WatchLimits(**limits)
    )
    async with serving(*service.handlers()) as (_, channel):
        yield Served(replica, channel, service)
    # Whatever has happened: nothing is left of the streams that are gone.
    await until(lambda: service.stream_count == 0)
    assert (len(hub), service.queued_bytes, service.watches_bytes) == (0, 0, 0)


# ---- what etcd does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
async def test_created_comes_first_then_events_then_canceled(name: str) -> None:
    async with served() as server:
        server.put(b"k", b"1")
        stream = server.stream(name)
        await stream.create(b"k", start_revision=1, prev_kv=True)
        created = await stream.receive()
        assert line_of(created) == "0 @2: created"
        assert (created.header.cluster_id, created.header.member_id, created.header.raft_term) == (11, 22, 7)
        assert await stream.line() == "0 @2: put k=1"
        server.put(b"k", b"2")
        event = await stream.receive()
        assert line_of(event) == "0 @3: put k=2 was 1"
        kv = event.events[0].kv
        assert (kv.create_revision, kv.mod_revision, kv.version) == (2, 3, 2)
        assert (event.header.cluster_id, event.header.member_id, event.header.raft_term) == (11, 22, 7)
        server.turn(DeleteRange(b"k"))
        assert await stream.line() == "0 @4: del k was 2"
        await stream.cancel(0)
        assert await stream.line() == "0 @4: canceled"
        server.put(b"k", b"3")
        await stream.cancel(0)  # of what is not there: no answer
        await stream.progress()
        assert await stream.line() == "-1 @5:"


async def test_numbers_are_etcds() -> None:
    async with served() as server:
        stream = server.stream()
        assert [await stream.created(b"a") for _ in range(2)] == [0, 1]
        assert await stream.created(b"a", watch_id=7) == 7
        await stream.create(b"a", watch_id=7)
        duplicate = "mvcc: duplicate watch ID provided on the WatchStream"
        assert await stream.line() == f"-1 @1: created, canceled, cancel_reason={duplicate}"
        assert await stream.created(b"a", watch_id=2) == 2
        assert [await stream.created(b"a") for _ in range(2)] == [3, 4]
        assert await stream.created(b"a", watch_id=-5) == -5
        await stream.cancel(7)
        assert await stream.line() == "7 @1: canceled"
        assert await stream.created(b"b", watch_id=7) == 7
        server.put(b"b")
        assert await stream.line() == "7 @2: put b="


async def test_ranges_are_etcds() -> None:
    async with served() as server:
        stream = server.stream()
        for range_end in (b"a", b"b"):
            await stream.create(b"b", range_end=range_end, watch_id=9)
            empty = "mvcc: watcher range is empty"
            assert await stream.line() == f"-1 @1: created, canceled, cancel_reason={empty}"
        assert await stream.created(b"", range_end=b"\0") == 0  # everything
        assert await stream.created(b"") == 1  # the key \0
        assert await stream.created(b"", range_end=b"b") == 2
        assert await stream.created(b"b", range_end=b"\0") == 3
        for key in (b"a", b"b", b"\0"):
            server.put(key)
        seen: dict[int, str] = {}
        for _ in range(7):
            response = await stream.receive()
            keys = "".join(event.kv.key.decode() for event in response.events)
            seen[response.watch_id] = seen.get(response.watch_id, "") + keys
            if sum(map(len, seen.values())) == 7:
                break
        assert seen == {0: "ab\0", 1: "\0", 2: "a\0", 3: "b"}


async def test_filters_and_a_start_in_the_past() -> None:
    async with served() as server:
        stream = server.stream()
        for value in (b"2", b"3"):
            server.put(b"k", value)
        server.turn(DeleteRange(b"k"))
        await stream.created(b"k", filters=["NODELETE"], start_revision=3)
        assert await stream.line() == "0 @4: put k=3"
        await stream.created(b"k", filters=["NOPUT"], start_revision=1)
        assert await stream.line() == "1 @4: del k"
        await stream.created(b"k", filters=["NOPUT", "NODELETE"], start_revision=1)
        await stream.created(b"k", start_revision=6)
        server.put(b"k", b"5")
        server.put(b"k", b"6")
        assert {await stream.line(), await stream.line()} == {"0 @6: put k=5, put k=6", "3 @6: put k=6"}


async def test_a_transaction_is_one_response() -> None:
    async with served() as server:
        stream = server.stream()
        await stream.created(b"p", range_end=b"q")
        server.turn(Txn(success=(Put(b"p2", b"1"), Put(b"p1", b"2"), Put(b"x", b"")), failure=()))
        assert await stream.line() == "0 @2: put p2=1, put p1=2"


async def test_below_the_compaction_is_created_and_then_canceled() -> None:
    async with served() as server:
        stream = server.stream()
        for value in (b"2", b"3", b"4", b"5"):
            server.put(b"k", value)
        server.turn(Compact(4))
        await stream.create(b"k", start_revision=3)
        assert [await stream.line() for _ in range(2)] == [
            "0 @5: created",
            "0 @5: canceled, compact_revision=4",
        ]
        await stream.create(b"k", start_revision=4, prev_kv=True)
        assert [await stream.line() for _ in range(2)] == ["1 @5: created", "1 @5: put k=4, put k=5 was 4"]


async def test_a_client_that_has_nothing_more_to_say_is_still_served() -> None:
    async with served() as server:
        stream = server.stream()
        await stream.created(b"k")
        await stream.call.done_writing()
        server.put(b"k", b"1")
        assert await stream.line() == "0 @2: put k=1"
        done = server.stream()
        await done.created(b"k")
        await done.cancel(0)
        await done.call.done_writing()
        assert await done.ended() == (grpc.StatusCode.OK, "")


# ---- progress ------------------------------------------------------------------------------------------------


async def test_progress_is_told_when_all_watches_are_at_the_present() -> None:
    async with served() as server:
        stream = server.stream()
        await stream.progress()
        assert await stream.line() == "-1 @1:"
        for number in range(3_000):
            server.put(b"k", b"%d" % number)
        await stream.created(b"other")
        await stream.create(b"k", start_revision=1)
        await stream.progress()
        assert await stream.line() == "1 @3001: created"
        events = 0
        while (response := await stream.receive()).events:
            events += len(response.events)
        assert (response.watch_id, response.header.revision, events) == (-1, 3_001, 3_000)


async def test_progress_is_notified_to_who_asked_and_has_been_idle() -> None:
    async with served() as server:
        stream = server.stream()
        await stream.created(b"k")
        await stream.created(b"k", progress_notify=True)
        (it,) = server.service._streams
        server.put(b"x")
        it._notify_progress()
        assert await stream.line() == "1 @2:"
        server.put(b"k", b"1")
        assert {await stream.line() for _ in range(2)} == {"0 @3: put k=1", "1 @3: put k=1"}
        it._notify_progress()  # there were events since
        server.put(b"x")
        it._notify_progress()
        assert await stream.line() == "1 @4:"
        await stream.cancel(1)
        assert await stream.line() == "1 @4: canceled"
        it._notify_progress()
        await server.nothing_comes(stream)


async def test_progress_is_notified_every_so_often() -> None:
    async with served(progress_notify_ms=20) as server:
        stream = server.stream()
        await stream.created(b"k", progress_notify=True)
        assert [await stream.line() for _ in range(3)] == ["0 @1:"] * 3


# ---- sizes ---------------------------------------------------------------------------------------------------


async def test_a_response_that_is_too_large_is_cut_for_who_takes_fragments() -> None:
    async with served(fragment_bytes=2_000) as server:
        whole, cut = server.stream(), server.stream()
        await whole.created(b"k", range_end=b"l")
        await cut.created(b"k", range_end=b"l", fragment=True)
        server.turn(Txn(success=tuple(Put(b"k%d" % n, b"v" * 700) for n in range(5)), failure=()))
        assert len((await whole.receive()).events) == 5
        fragments = [await cut.receive() for _ in range(3)]
        assert [len(each.events) for each in fragments] == [2, 2, 1]
        assert [each.fragment for each in fragments] == [True, True, False]
        assert [event.kv.key for each in fragments for event in each.events] == [b"k%d" % n for n in range(5)]
        server.put(b"k", b"small")
        assert await cut.line() == "0 @3: put k=small"


async def test_revisions_that_wait_are_joined_and_none_is_cut() -> None:
    async with served() as server:
        stream = server.stream()
        await stream.created(b"k", range_end=b"l")
        for number in range(1_000):
            pair = (Put(b"k1", b"%d" % number + b"x" * 500), Put(b"k2", b""))
            server.turn(Txn(success=pair, failure=()))
        revisions: list[int] = []
        responses = 0
        while len(revisions) < 2_000:
            response = await stream.receive()
            responses += 1
            found = [event.kv.mod_revision for event in response.events]
            assert found[::2] == found[1::2], "both events of a revision are in one response"
            assert response.header.revision == found[-1]
            revisions += found
        assert revisions == [each for revision in range(2, 1_002) for each in (revision, revision)]
        assert responses < 20


async def test_too_many_watches_are_refused() -> None:
    async with served(watches_bytes_max=2_000) as server:
        stream = server.stream()
        assert await stream.created(b"a") == 0
        assert await stream.created(b"b" * 1_000) == 1
        await stream.create(b"c")
        refused = await stream.receive()
        assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
        assert "too many watches" in refused.cancel_reason
        await stream.cancel(1)
        assert await stream.line() == "1 @1: canceled"
        assert await stream.created(b"c") == 2


# ---- a client that does not read -------------------------------------------------------------------------------


async def test_a_slow_reader_costs_one_buffer_and_misses_nothing() -> None:
    async with served(stream_bytes_max=200_000) as server:
        slow, quick = server.stream(), server.stream()
        await slow.created(b"k", range_end=b"l")
        await slow.created(b"k")
        await quick.created(b"k")
        value = b"v" * 1_000
        for number in range(5_000):
            server.put(b"k", b"%d " % number + value)
            assert server.service.queued_bytes < 2_000_000
            response = await quick.receive()
            assert response.events[-1].kv.value.startswith(b"%d " % number)
        assert len(server.hub) == 3
        seen: dict[int, list[int]] = {0: [], 1: []}
        while any(len(each) < 5_000 for each in seen.values()):
            response = await slow.receive()
            assert response.events, response
            seen[response.watch_id] += [event.kv.mod_revision for event in response.events]
        assert seen == {number: list(range(2, 5_002)) for number in (0, 1)}


async def test_a_stream_that_takes_nothing_loses_the_watches_that_wait() -> None:
    async with served(stream_bytes_max=100_000, stall_ms=200) as server:
        stream = server.stream()
        await stream.created(b"idle")
        await stream.created(b"k")
        value = b"v" * 10_000
        while len(server.hub) == 2:
            server.put(b"k", value)
            await asyncio.sleep(0.001)
        last = server.put(b"k", b"last")
        revisions: list[int] = []
        while True:
            response = await stream.receive()
            if response.canceled:
                break
            revisions += [event.kv.mod_revision for event in response.events]
        assert response.watch_id == 1
        assert response.resume_revision == revisions[-1] + 1
        assert response.compact_revision == 0
        assert "read nothing" in response.cancel_reason
        # Where it is told to resume it misses nothing and sees nothing twice; the other watch lives on.
        number = await stream.created(b"k", start_revision=response.resume_revision)
        while revisions[-1] < last:
            response = await stream.receive()
            assert response.watch_id == number
            revisions += [event.kv.mod_revision for event in response.events]
        assert revisions == list(range(2, last + 1))
        server.put(b"idle", b"1")
        assert await stream.line() == f"0 @{last + 1}: put idle=1"


async def test_who_waits_is_compacted_away_and_told_so() -> None:
    async with served(stream_bytes_max=100_000) as server:
        stream = server.stream()
        await stream.created(b"k")
        (it,) = server.service._streams
        while not it._gate.waiting:
            server.put(b"k", b"v" * 10_000)
            await asyncio.sleep(0.001)
        for _ in range(10):
            revision = server.put(b"k", b"v" * 10_000)
        server.turn(Compact(revision))
        while not (response := await stream.receive()).canceled:
            assert response.events[-1].kv.mod_revision < revision
        assert line_of(response) == f"0 @{revision}: canceled, compact_revision={revision}"


async def test_one_who_asks_and_does_not_read_the_answers_is_not_listened_to() -> None:
    async with served(stream_bytes_max=100_000) as server:
        stream = server.stream()
        await stream.created(b"k")
        (it,) = server.service._streams
        full = 0
        while full < 100:  # gRPC takes more now and then, as its windows grow: until it does no more
            full = full + 1 if it._gate.waiting else 0
            if not full:
                server.put(b"k", b"v" * 10_000)
            await asyncio.sleep(0.001)
        waiting = it._queued_bytes
        for _ in range(100):
            await stream.create(b"k")
            await asyncio.sleep(0.001)
        assert len(server.hub) <= 2
        assert it._queued_bytes <= waiting + 1_000
        while len(server.hub) < 101:  # once it reads, it is listened to
            await stream.receive()


async def test_while_too_much_waits_over_all_everyone_is_allowed_less() -> None:
    async with served(stream_bytes_max=1_000_000) as server:
        streams = [server.stream() for _ in range(3)]
        for stream in streams:
            await stream.created(b"k")
        server.service.queued_bytes += 16_000_000
        while len(server.hub._head.index):
            server.put(b"k", b"v" * 10_000)
        assert server.service.queued_bytes < 16_000_000 + 3 * 100_000
        server.service.queued_bytes -= 16_000_000
        last = server.put(b"k", b"last")
        for stream in streams:
            while (await stream.receive()).events[-1].kv.mod_revision < last:
                pass


# ---- ends ----------------------------------------------------------------------------------------------------


async def test_a_stream_that_needs_a_leader_ends_without_one() -> None:
    async with served(leaderless_ms=50) as server:
        patient, needy = server.stream(), server.stream(metadata=(("hasleader", "true"),))
        await patient.created(b"k")
        await needy.created(b"k")
        server.replica.set_leader(False)
        server.replica.set_leader(True)
        await asyncio.sleep(0.1)
        server.put(b"k", b"1")
        assert await needy.line() == "0 @2: put k=1", "an election in time is none of its business"
        server.replica.set_leader(False)
        no_leader = (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        assert await needy.ended() == no_leader
        late = server.stream(metadata=(("hasleader", "true"),))
        assert await late.ended() == no_leader
        assert await patient.line() == "0 @2: put k=1"
        assert await patient.created(b"other") == 1


async def test_a_server_that_stops_says_so() -> None:
    async with served() as server:
        streams = [server.stream() for _ in range(3)]
        for stream in streams:
            await stream.created(b"k")
        server.service.stop()
        stopped = (grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")
        assert [await stream.ended() for stream in streams] == [stopped] * 3
        assert await server.stream().ended() == stopped


async def test_a_client_that_goes_leaves_nothing_behind() -> None:
    async with served() as server:
        for _ in range(5):
            stream = server.stream()
            await stream.created(b"k", progress_notify=True)
            await stream.created(b"a", range_end=b"z")
            stream.call.cancel()
        await until(lambda: server.service.stream_count == 0)
        assert len(server.hub) == 0
        server.put(b"k")


@pytest.mark.parametrize("garbage", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab"])
async def test_what_does_not_parse_ends_the_stream_cleanly(garbage: bytes) -> None:
    async with served() as server:
        stream = server.stream()
        await stream.created(b"k")
        await stream.call.write(garbage)
        code, words = await stream.ended()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "WatchRequest" in words


async def test_a_request_of_no_known_kind_is_passed_over() -> None:
    async with served() as server:
        stream = server.stream()
        await stream.send()
        await stream.call.write(b"\x7a\x00")  # a field of a later version
        await stream.create(b"k", filters=[5], start_revision=-(2**63))
        assert await stream.line() == "0 @1: created"
