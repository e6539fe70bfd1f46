"""What a client says on a stream, message after message, to the real service over a replica without a cluster."""

import asyncio
from random import Random
from typing import Any, cast

import grpc

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.codec.frames import commands_frame
from paxos_rsm.codec.kv import encode_command
from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.paxos.types import join_frames, split_frames
from paxos_rsm.server.rpc import Context, StatusError
from paxos_rsm.server.session_service import SessionLimits, SessionService
from tests.fuzz import values
from tests.fuzz.target import Target, require
from tests.unit.server.fakes import FRAME_BYTES_MAX, FakeReplica

CLUSTER = 0xC1
FIRST_SESSION = 1 << 16
TURNS_MAX = 60
"""Of the event loop, beyond those in which the client speaks; the replica decides in one."""


class _Context:
    """The server's end of a stream whose client has said everything already, and takes what it is given."""

    def __init__(self, said: list[bytes]) -> None:
        self._said = iter(said)
        self.answers: list[bytes] = []

    async def read(self) -> Any:
        await asyncio.sleep(0)
        return next(self._said, grpc.aio.EOF)

    async def write(self, data: bytes) -> None:
        self.answers.append(data)


async def _converse(said: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    unforeseen: list[str] = []
    loop.set_exception_handler(lambda _loop, context: unforeseen.append(str(context)))
    replica = FakeReplica()
    limits = SessionLimits(FRAME_BYTES_MAX, 1 << 20, 60_000)
    service = SessionService(replica, cluster_id=CLUSTER, member_id=1, limits=limits)
    context = _Context(said)
    try:
        stream = asyncio.ensure_future(service._stream(None, cast(Context, context)))
        for _ in range(TURNS_MAX + 4 * len(said)):
            await asyncio.sleep(0)
            if stream.done():
                break
        # The client leaves without waiting for an answer: gRPC cancels the handler then.
        stream.cancel()
        try:
            await stream
        except asyncio.CancelledError:
            pass
    except StatusError as error:
        require(
            error.code is not grpc.StatusCode.INTERNAL, f"the stream ended with {error.code}: {error.details}"
        )
        raise
    finally:
        require(not unforeseen, f"{unforeseen[:1]}")
        require(service.queued_bytes == 0 and service.stream_count == 0, "a stream is gone and not forgotten")
        for answer in context.answers:
            require(
                pb.ServerMessage.FromString(answer).WhichOneof("message") is not None, "an answer of no kind"
            )


def _make(rng: Random) -> tuple[None, bytes]:
    said = [pb.ClientMessage(open=pb.Open(session=0, cluster_id=rng.choice((0, CLUSTER))))]
    seq = 1
    for _ in range(rng.randint(0, 4)):
        match rng.randrange(5):
            case 0:
                queries = [encode_command(values.command(rng)) for _ in range(rng.randint(0, 3))]
                said.append(
                    pb.ClientMessage(read=pb.Read(id=seq, serializable=rng.random() < 0.5, requests=queries))
                )
            case 1:
                said.append(
                    rng.choice((pb.ClientMessage(open=pb.Open()), pb.ClientMessage(close=pb.Close())))
                )
            case _:
                commands = [encode_command(values.command(rng)) for _ in range(rng.randint(1, 3))]
                frame = commands_frame(FIRST_SESSION, seq, rng.randint(0, seq), commands)
                said.append(pb.ClientMessage(submit=pb.Submit(frame=frame)))
                seq += len(commands)
    return None, join_frames([message.SerializeToString() for message in said])


_runner: list[asyncio.Runner] = []


def _decode(data: bytes) -> None:
    said = list(split_frames(data))
    if not _runner:
        _runner.append(asyncio.Runner())
    _runner[0].run(_converse(said))


TARGETS = (
    Target(
        "server-stream",
        ("server.rpc:parse", "codec.frames:decode_frame"),
        _make,
        _decode,
        (PaxosRsmError, StatusError, ValueError),
        is_joined=True,
        blows_up=False,
    ),
)
