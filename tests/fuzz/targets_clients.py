"""What comes from clients, and what clients take from servers."""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from google.protobuf.message import Message as PbMessage

from paxos_rsm._proto import admin_pb2, kv_pb2, session_pb2
from paxos_rsm.client import commands, members, txn
from paxos_rsm.client.reads import Answer
from paxos_rsm.client.session import Session, SessionSettings
from paxos_rsm.client.stream import LostError
from paxos_rsm.codec import kv as codec
from paxos_rsm.codec.frames import FrameCodec, decode_frame, encode_frame, register_frame
from paxos_rsm.errors import ClientError, InvalidArgument
from paxos_rsm.machines.frames import BadFrame, Frame
from paxos_rsm.machines.kv import types as kv
from paxos_rsm.machines.kv.check import check, is_read_only
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.types import join_frames, split_frames
from paxos_rsm.server.rpc import parse
from tests.fuzz import values
from tests.fuzz.target import Answered, Target, require

# ---- what goes into the log ----------------------------------------------------------------------------------


def _make_frame(rng: Random) -> tuple[Frame, bytes]:
    frame = values.frame(rng)
    return frame, encode_frame(frame)


def _decode_frame(data: bytes) -> Frame:
    frame = decode_frame(data)
    if isinstance(frame, BadFrame):
        raise Answered("BadFrame")
    of_timeouts = bool(frame.timeouts)
    of_commands = bool(frame.commands or frame.first_seq or frame.received_below)
    if frame.register is None and frame.expire is None and not (of_timeouts and of_commands):
        require(decode_frame(encode_frame(frame)) == frame, "it is another when it is said again")
    return frame


def _make_command(rng: Random) -> tuple[kv.Command, bytes]:
    command = values.logged_command(rng)
    return command, codec.encode_command(command)


def _checked(command: kv.Command) -> kv.Command:
    """What a server does with a command before the log."""
    is_read_only(command)
    error = check(command)
    if error is None and not (isinstance(command, kv.Txn) and None in (*command.success, *command.failure)):
        require(
            codec.decode_command(codec.encode_command(command)) == command,
            "it is another when it is said again",
        )
    return command


def _decode_command(data: bytes) -> kv.Command:
    command = codec.decode_command(data)
    if isinstance(command, kv.KvError):
        require(command == kv.BAD_COMMAND, "a decoder has errors of its own")
        raise Answered("BAD_COMMAND")
    # The same by another way: a field of no meaning in front keeps the hot path out.
    require(codec.decode_command(b"\xf8\x07\x01" + data) == command, "the two ways of decoding differ")
    return _checked(command)


_REQUESTS: dict[str, type[Any]] = {
    "put": kv_pb2.PutRequest,
    "range": kv_pb2.RangeRequest,
    "delete_range": kv_pb2.DeleteRangeRequest,
    "txn": kv_pb2.TxnRequest,
    "compact": kv_pb2.CompactionRequest,
}


def _make_request(rng: Random) -> tuple[kv.Command, bytes]:
    """A unary request, after one byte that says which."""
    command = values.command(rng)
    message = kv_pb2.KvCommand.FromString(codec.encode_command(command))
    kind = message.WhichOneof("request")
    number = list(_REQUESTS).index(kind or "put")
    return command, bytes((number,)) + getattr(message, kind or "put").SerializeToString()


def _decode_request(data: bytes) -> kv.Command:
    types = list(_REQUESTS.values())
    request = parse(types[data[0] % len(types) if data else 0], data[1:])
    command = codec.request_from_pb(request)
    again = codec.decode_command(codec.command_from_request(request))
    require(again == command, "the log would hold another command than the one that was checked")
    return _checked(command)


def _make_call(rng: Random) -> tuple[bytes, bytes]:
    message = session_pb2.ClientMessage()
    match rng.randrange(4):
        case 0:
            message.open.session, message.open.session_timeout_ms = values.counter(rng), values.hops(rng)
        case 1:
            message.submit.frame = encode_frame(values.frame(rng))
        case 2:
            message.read.id = values.counter(rng)
            message.read.requests.extend(values.several(rng, values.blob))
        case _:
            message.close.SetInParent()
    data = message.SerializeToString()
    return data, data


def _decode_call(data: bytes) -> bytes:
    message = parse(session_pb2.ClientMessage, data)
    if message.WhichOneof("message") == "submit":
        parse(session_pb2.Frame, message.submit.frame)
    parse(admin_pb2.StatusRequest, data)
    return message.SerializeToString()


# ---- what comes out of the log -------------------------------------------------------------------------------

_NONCE = 5
_FIRST_SESSION = 1 << 16


def _machine() -> SessionMachine:
    """With one session, and a key."""
    machine = SessionMachine(KeyValueMachine(codec.KvCodec()), FrameCodec())
    machine.apply_slot(1, [register_frame(_NONCE, 10_000)])
    put = codec.encode_command(kv.Put(b"a", b"1"))
    machine.apply_slot(2, [encode_frame(Frame(_FIRST_SESSION, 1, 1, [put]))])
    return machine


def _make_slot(rng: Random) -> tuple[None, bytes]:
    frames: list[bytes] = []
    seq = 2
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.2:
            frames.append(encode_frame(values.frame(rng)))
            continue
        drawn = [codec.encode_command(values.command(rng)) for _ in range(rng.randint(0, 4))]
        frames.append(encode_frame(Frame(_FIRST_SESSION, seq, rng.randint(0, seq), drawn)))
        seq += len(drawn)
    return None, join_frames(frames)


def _apply_slot(data: bytes) -> None:
    """Bad input is answered by apply, and leaves a state of which a snapshot can be taken."""
    frames = list(split_frames(data))
    machine = _machine()
    outcomes = machine.apply_slot(3, frames)
    require(len(outcomes) == len(frames), "an outcome is missing")
    for outcome in outcomes:
        for result in getattr(outcome, "results", ()):
            codec.result_to_pb(machine.encode_result(result))
    for frame in frames:
        opened = decode_frame(frame)
        if isinstance(opened, Frame):
            for command in opened.commands[:8]:
                machine.query(command)
    if len(data) % 4 == 0 or len(data) < 40:
        restored = SessionMachine(KeyValueMachine(codec.KvCodec()), FrameCodec())
        restored.restore(machine.snapshot())
        require(restored.digest() == machine.digest(), "a snapshot restores another state")


# ---- results -------------------------------------------------------------------------------------------------


def _make_result(rng: Random) -> tuple[Any, bytes]:
    machine = KeyValueMachine(codec.KvCodec())
    for _ in range(4):
        machine.execute(kv.Put(values.key(rng), values.blob(rng), prev_kv=True))
    data = codec.encode_result(machine.execute(values.logged_command(rng)))
    return codec.response_from_bytes(data), data


def _decode_result(data: bytes) -> Any:
    response = codec.response_from_bytes(data)
    require(codec.result_to_pb(data) == response, "a result is two")
    if isinstance(response, PbMessage):
        response.SerializeToString()
    return response


_OPS = {
    count: [txn.Op.put("a", "b"), txn.Op.get("a"), txn.Op.range(prefix="a"), txn.Op.delete("a")][:count]
    for count in range(5)
}


def _make_answer(rng: Random) -> tuple[None, bytes]:
    return None, _make_result(rng)[1]


def _decode_answer(data: bytes) -> None:
    """Every way in which the client reads a result; that of its own kind may take it, the others refuse."""
    answer = Answer(data, 1, 2)
    takers: tuple[Callable[[], object], ...] = (
        lambda: commands.put_result(data),
        lambda: commands.get_result(b"a", answer),
        lambda: commands.range_result(answer),
        lambda: commands.delete_result(data),
        lambda: commands.open_result(data, "compact"),
        *[partial(txn.txn_result, data, ops, ops) for ops in _OPS.values()],
    )
    refused: ClientError | None = None
    taken = 0
    for take in takers:
        try:
            take()
            taken += 1
        except ClientError as error:
            refused = error
    if refused is not None and not taken:
        raise refused


# ---- a client's stream ---------------------------------------------------------------------------------------


class _OpenSession(Session):
    """A client's session with three commands and two queries in flight, and no socket."""

    async def take(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._runner = asyncio.ensure_future(asyncio.sleep(0))  # so that nothing is dialled
        futures = [self.submit(b"x" * size, 1e6) for size in (3, 40, 1)]
        queries = [self.query(b"q", False, 1e6) for _ in range(2)]
        self._window.opened(_FIRST_SESSION, 1, 1_000)
        while self._window.next_message() is not None:
            pass
        while self._reads.next_message(0) is not None:
            pass
        try:
            self._take(data)
            window = self._window
            require(window.received_below <= window.next_seq, "the window is the wrong way round")
            require(
                all(window.received_below <= seq < window.next_seq for seq in window.in_flight),
                "a stray command",
            )
        finally:
            for handle in self._holds:
                handle.cancel()
            self._fail_all()
            waiting: list[asyncio.Future[Any]] = [*futures, *queries]
            for future in waiting:
                require(future.done(), "a caller would wait for ever")
                if not future.cancelled():
                    future.exception()
            await self._runner


def _make_server_message(rng: Random) -> tuple[None, bytes]:
    message = session_pb2.ServerMessage()
    match rng.randrange(5):
        case 0:
            message.opened.session = rng.choice((_FIRST_SESSION, values.counter(rng)))
            message.opened.next_seq = rng.randint(0, 5)
            message.opened.frame_bytes_max = values.hops(rng)
        case 1:
            message.results.first_seq = rng.randint(0, 4)
            message.results.results.extend(values.several(rng, values.blob))
        case 2:
            message.read_results.id = rng.randint(0, 4)
            message.read_results.results.extend(values.several(rng, values.blob, 2))
        case 3:
            message.read_results.id = rng.randint(0, 3)
            message.read_results.failure.code = rng.randint(0, 17)
            message.read_results.failure.message = values.text(rng)
        case _:
            failure = message.failure
            failure.code, failure.message = rng.randint(0, 17), values.text(rng)
            failure.first_seq = rng.randint(0, 4)
            failure.session_expired, failure.not_executed = rng.random() < 0.2, rng.random() < 0.5
    return None, message.SerializeToString()


_SETTINGS = SessionSettings(rng=Random(1))
_runner: list[asyncio.Runner] = []


def _take_server_message(data: bytes) -> None:
    if not _runner:
        _runner.append(asyncio.Runner())
    _runner[0].run(_OpenSession(["127.0.0.1:1"], _SETTINGS).take(data))


def _make_status(rng: Random) -> tuple[bytes, bytes]:
    answer = admin_pb2.StatusResponse(
        cluster_id=values.counter(rng),
        name=values.text(rng),
        member_id=values.counter(rng),
        role=values.text(rng),
        members=[
            admin_pb2.MemberStatus(
                member_id=values.counter(rng),
                name=values.text(rng),
                client_urls=[rng.choice(("http://h:1", "http://[::1]:2", values.text(rng)))],
            )
            for _ in range(rng.randint(0, 3))
        ],
    )
    data = answer.SerializeToString()
    return data, data


def _decode_status(data: bytes) -> bytes:
    try:
        answer = admin_pb2.StatusResponse.FromString(data)
    except Exception:
        raise Answered("DecodeError") from None
    unseen = {
        member.member_id: (member.name, members._addresses(member.client_urls)) for member in answer.members
    }
    rows = members._rows({"h:1": answer, "h:2": "no answer"}, unseen)
    require(len(rows) >= 1, "whoever answered is not listed")
    return answer.SerializeToString()


TARGETS = (
    Target("session-frame", ("codec.frames:decode_frame",), _make_frame, _decode_frame),
    Target("kv-command", ("codec.kv:decode_command",), _make_command, _decode_command),
    Target(
        "kv-request",
        ("codec.kv:request_from_pb", "server.rpc:parse"),
        _make_request,
        _decode_request,
        (InvalidArgument,),
    ),
    Target("client-message", ("server.rpc:parse",), _make_call, _decode_call, (InvalidArgument,)),
    Target(
        "applied-slot",
        ("codec.frames:decode_frame", "codec.kv:decode_command"),
        _make_slot,
        _apply_slot,
        (ValueError,),
        is_joined=True,
        blows_up=False,
    ),
    Target("kv-result", ("codec.kv:response_from_bytes",), _make_result, _decode_result, (ValueError,)),
    Target("client-answer", ("client.commands:open_result",), _make_answer, _decode_answer, (ClientError,)),
    Target(
        "client-stream",
        ("client.session:Session._take",),
        _make_server_message,
        _take_server_message,
        (LostError,),
    ),
    Target("client-status", ("client.members:_ask_one",), _make_status, _decode_status),
)
