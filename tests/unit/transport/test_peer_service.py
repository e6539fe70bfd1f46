import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import replace

import grpc
import pytest
from grpc import aio

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.messages import encode_message
from paxos_rsm.errors import UnknownEntry
from paxos_rsm.paxos.messages import Accept, ReadRequest
from paxos_rsm.paxos.types import Ballot, Batch
from paxos_rsm.transport import Reason, Refusal, TransportOptions
from paxos_rsm.transport.frames import Cutter, decode_reply, encode_hello, pack
from paxos_rsm.transport.peer_link import STREAM_METHOD
from tests.unit.transport.helpers import Peer, close, free_ports, hello_of, make_peer, until
from tests.unit.transport.raw import Call, calling

OPTIONS = TransportOptions(handshake_timeout_ms=20_000)
N2 = hello_of(2)
READ = ReadRequest(7)


async def listener(options: TransportOptions = OPTIONS, **hello: object) -> tuple[Peer, int]:
    """A server that listens, whose peers 2 and 3 are nowhere to be found."""
    port, *others = free_ports(3)
    mine = hello_of(1, port, **hello)
    peer = make_peer(mine, [mine, *(hello_of(i, p) for i, p in zip((2, 3), others, strict=True))], options)
    await peer.transport.start()
    return peer, port


async def greet(call: Call, hello: object = N2) -> object:
    """Says Hello and returns the answer."""
    await call.write(encode_hello(hello))  # type: ignore[arg-type]
    return await answer(call)


async def answer(call: Call) -> object:
    data = await call.read()
    return decode_reply(data) if isinstance(data, bytes) else data


async def status(call: Call) -> tuple[grpc.StatusCode, str]:
    return await call.code(), await call.details()


async def test_a_hello_is_answered_and_messages_are_handed_over_by_the_frame() -> None:
    peer, port = await listener()
    async with calling(port) as call:
        reply = await greet(call)
        assert replace(reply, process=0) == replace(peer.hello, process=0)  # type: ignore[type-var]
        assert reply.process != 0  # type: ignore[attr-defined]
        await call.write(pack(READ).data + pack(ReadRequest(8)).data)
        await until(lambda: peer.received)
        assert peer.up == [N2.member]
        assert peer.frames == [[READ, ReadRequest(8)]]
        assert peer.received[0] == (N2.member.incarnation, READ)
        assert not peer.down
    await until(lambda: peer.down)
    assert peer.down == [N2.member.incarnation]


async def test_pieces_are_put_together_and_others_pass_between_them() -> None:
    peer, port = await listener()
    large = Accept(Ballot(1, 2), 1, Batch(random.Random(1).randbytes(1_000_000)), 0)
    cutter = Cutter(pack(large), 1, 100_000)
    async with calling(port) as call:
        await greet(call)
        while not cutter.done:
            await call.write(pack(READ).data + cutter.next_frame())
        await until(lambda: len(peer.received) == 12)
        assert [message for _, message in peer.received] == [READ] * 11 + [large]


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (replace(N2, cluster_id=5), Reason.WRONG_CLUSTER),
        (replace(N2, versions=(9,)), Reason.VERSION),
        (hello_of(9), Reason.NOT_A_MEMBER),
    ],
)
async def test_a_refusal_says_why_and_ends_the_stream(hello: object, reason: Reason) -> None:
    peer, port = await listener()
    async with calling(port) as call:
        reply = await greet(call, hello)
        assert isinstance(reply, Refusal)
        assert reply.reason is reason
        assert await answer(call) is aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert not peer.up
    assert not peer.down


async def test_who_was_rolled_back_is_refused() -> None:
    _, port = await listener()
    async with calling(port) as call:
        await greet(call, replace(N2, boot_count=5))
    for theirs in (replace(N2, boot_count=4, process=9), replace(N2, boot_count=5, process=9)):
        async with calling(port) as call:
            reply = await greet(call, theirs)
            assert isinstance(reply, Refusal)
            assert reply.reason is Reason.ROLLED_BACK
            assert reply.fatal


async def test_a_second_process_is_refused_while_the_first_goes_on() -> None:
    peer, port = await listener()
    async with calling(port) as first, calling(port) as second:
        await greet(first)
        assert isinstance(await greet(second, replace(N2, process=99)), Refusal)
        await first.write(pack(READ).data)
        await until(lambda: peer.received)
        assert not peer.down


async def test_a_newer_stream_takes_the_place_of_the_old_one() -> None:
    peer, port = await listener()
    async with calling(port) as old, calling(port) as new:
        await greet(old)
        await greet(new, replace(N2, boot_count=2, process=77))
        assert await answer_or_code(old) is grpc.StatusCode.ABORTED
        await new.write(pack(READ).data)
        await until(lambda: peer.received)
        assert len(peer.up) == 1  # it was never seen to go
        assert not peer.down
    await until(lambda: peer.down)


async def answer_or_code(call: Call) -> object:
    """What a stream ends with when there is nothing more to read."""
    try:
        await call.read()
    except aio.AioRpcError as error:
        return error.code()
    return await call.code()


MALFORMED_FRAMES = {
    "garbage": b"\xff\xfe\xfd",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no kind": pb.PeerFrame(messages=[pb.PeerMessage()]).SerializeToString(),
    "no ballot": pb.PeerFrame(
        messages=[pb.PeerMessage(accept=pb.Accept(slot=1, entry=pb.Entry(kind=pb.ENTRY_KIND_NOOP)))]
    ).SerializeToString(),
    "second hello": encode_hello(N2),
    "piece out of order": pb.PeerFrame(piece=pb.Piece(id=1, index=3, count=4, data=b"x")).SerializeToString(),
    "absurd piece": pb.PeerFrame(piece=pb.Piece(id=1, count=2**32 - 1, data=b"x")).SerializeToString(),
}


@pytest.mark.parametrize("name", MALFORMED_FRAMES)
async def test_a_malformed_frame_ends_its_stream_and_nothing_else(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer, port = await listener()
    async with calling(port) as other:
        await greet(other, hello_of(3))
        for _ in range(3):
            async with calling(port) as call:
                await greet(call)
                await call.write(MALFORMED_FRAMES[name])
                assert await answer_or_code(call) is grpc.StatusCode.INVALID_ARGUMENT
        await other.write(pack(READ).data)
        await until(lambda: peer.received)
    told = [record for record in caplog.records if "ended a stream" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING]


@pytest.mark.parametrize(
    "first",
    [b"", b"\xff\xff", pack(READ).data, pb.PeerFrame(hello=pb.Hello()).SerializeToString()],
    ids=["empty", "garbage", "message", "empty hello"],
)
async def test_a_stream_begins_with_a_hello(first: bytes) -> None:
    peer, port = await listener()
    async with calling(port) as call:
        await call.write(first)
        assert await answer_or_code(call) is grpc.StatusCode.INVALID_ARGUMENT
    assert not peer.up


async def test_who_says_nothing_is_not_waited_for() -> None:
    _, port = await listener(TransportOptions(handshake_timeout_ms=50))
    async with calling(port) as call:
        assert await answer_or_code(call) is grpc.StatusCode.INVALID_ARGUMENT
        assert "no Hello came in time" in (await status(call))[1]


async def test_a_frame_of_absurd_size_is_not_taken() -> None:
    _, port = await listener()
    async with calling(port) as call:
        await greet(call)
        await call.write(bytes(2 << 20))
        assert await answer_or_code(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
    async with calling(port) as call:
        assert not isinstance(await greet(call), Refusal)


async def test_a_message_of_absurd_size_is_not_put_together() -> None:
    options = TransportOptions(message_bytes_max=300_000, piece_bytes_max=100_000)
    peer, port = await listener(options)
    cutter = Cutter(pack(Accept(Ballot(1, 2), 1, Batch(bytes(400_000)), 0)), 1, 100_000)
    async with calling(port) as call:
        await greet(call)
        for _ in range(4):
            await call.write(cutter.next_frame())
        assert await answer_or_code(call) is grpc.StatusCode.INVALID_ARGUMENT
    assert not peer.received


@pytest.mark.parametrize("garbage", [b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 50])
async def test_garbage_on_the_port_harms_nobody(garbage: bytes) -> None:
    peer, port = await listener()
    async with calling(port) as call:
        await greet(call)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(garbage)
        while await reader.read(65_536):  # gRPC's settings, then the end
            pass
        writer.close()
        await call.write(pack(READ).data)
        await until(lambda: peer.received)
        assert not peer.down


async def test_an_unknown_method_is_unimplemented() -> None:
    _, port = await listener()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(aio.AioRpcError) as raised:
            await channel.unary_unary("/paxos_rsm.v1.Paxos/Other")(b"")  # type: ignore[arg-type]
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_entry_of_a_later_version_stops_the_server() -> None:
    peer, port = await listener()
    entry = pb.Entry(kind=9)  # type: ignore[arg-type]
    later = pb.PeerMessage(accept=pb.Accept(ballot=pb.Ballot(round=1, node=1), slot=1, entry=entry))
    async with calling(port) as call:
        await greet(call)
        await call.write(pb.PeerFrame(messages=[later]).SerializeToString())
        await until(lambda: peer.failed)
    assert [type(error) for error in peer.failed] == [UnknownEntry]
    peer.failed.clear()


async def test_a_callback_that_raises_is_told() -> None:
    peer, port = await listener()

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    peer.transport._on_messages = fail
    async with calling(port) as call:
        await greet(call)
        await call.write(pack(READ).data)
        await until(lambda: peer.failed)
    assert str(peer.failed[0]) == "broken"
    peer.failed.clear()


async def test_a_later_piece_of_an_unfinished_message_does_not_outlive_its_stream() -> None:
    _, port = await listener()
    large = Accept(Ballot(1, 2), 1, Batch(bytes(1_000)), 0)
    cutter = Cutter(pack(large), 1, 600)
    async with calling(port) as call:
        await greet(call)
        await call.write(cutter.next_frame())
    async with calling(port) as call:
        await greet(call)
        await call.write(cutter.next_frame())
        assert await answer_or_code(call) is grpc.StatusCode.INVALID_ARGUMENT
    assert len(encode_message(large)) < 1_200


async def test_closing_ends_the_streams() -> None:
    peer, port = await listener()
    async with calling(port) as call:
        await greet(call)
        await close(peer)
        assert await answer_or_code(call) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert not peer.down  # nothing is told any more


@pytest.mark.parametrize("first", [encode_hello(N2), b"\xff"], ids=["answer", "abort"])
async def test_a_caller_that_leaves_before_our_answer_is_told_to_grpc_as_that(first: bytes) -> None:
    """As CancelledError: gRPC logs every other exception with its traceback, as a failure of the handler."""

    class Gone:
        async def read(self) -> bytes:
            return first

        async def write(self, _: bytes) -> None:
            raise aio.InternalError

        async def abort(self, *_: object) -> None:
            raise aio.InternalError

        def peer(self) -> str:
            return "ipv4:127.0.0.1:1"

    peer, _ = await listener()
    with pytest.raises(asyncio.CancelledError):
        await peer.transport._service._stream(None, Gone())  # type: ignore[arg-type]
    assert not peer.up


async def test_callers_that_leave_at_any_moment_are_no_failure_of_ours() -> None:
    peer, port = await listener()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        method: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM_METHOD)
        for number in range(60):
            call = method()
            with suppress(aio.AioRpcError):  # The server may have ended it by then.
                await call.write(encode_hello(N2) if number % 3 else b"\xff")
            for _ in range(number % 20):
                await asyncio.sleep(0)
            call.cancel()
    await until(lambda: len(peer.down) == len(peer.up))
    async with calling(port) as call:
        assert not isinstance(await greet(call), Refusal)
