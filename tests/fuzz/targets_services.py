"""What clients say to the services that speak etcd's language: the real ones, over a replica without a cluster.

Each input is said to services of its own, whose store has something in it. What is refused must have changed nothing,
and a stream that is gone must have left nothing behind.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import grpc
from google.protobuf.message import Message

from paxos_rsm._proto import election_pb2, kv_pb2, lease_pb2, lock_pb2, maintenance_pb2, watch_pb2
from paxos_rsm.config import Tuning
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Compact, DeleteRange, LeaseGrant, Put
from paxos_rsm.paxos.types import join_frames, split_frames
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.etcd_services import EtcdServices
from paxos_rsm.server.gateway_calls import ROUTES, Aborted, CallContext, find_methods, json_objects, timeout_s
from paxos_rsm.server.rpc import BUG, StatusError
from tests.fuzz import values
from tests.fuzz.target import Broken, Target, require
from tests.unit.server.fakes import FakeReplica

IDENTITY = ServerIdentity(0xC1, "n1", 0x31, 1, 1, {"n1": "http://n1:2380"}, {"n1": 0x31}, ("http://n1:2379",))
TURNS_MAX = 60
"""Of the event loop, beyond those in which the client speaks; the replica decides in one."""
PATHS = sorted(ROUTES)
FILTERS = watch_pb2.WatchCreateRequest.FilterType.values()
LEASE = 7
ELECTED = election_pb2.LeaderKey(name=b"e", key=b"e/7", rev=4, lease=LEASE)
CONTENT = (
    Put(b"k", b"1"),
    LeaseGrant(60, LEASE),
    Put(b"k", b"2", LEASE),
    Put(ELECTED.key, b"me", LEASE),
    Put(b"gone", b""),
    DeleteRange(b"gone"),
    Compact(2),
)
"""Leaves revision 6, compacted at 2."""

_runner: list[asyncio.Runner] = []


def _run(work: Awaitable[None]) -> None:
    async def awaited() -> None:
        await work

    if not _runner:
        _runner.append(asyncio.Runner())
    _runner[0].run(awaited())


class _Stage:
    """A server's services, and one call of them."""

    def __init__(self) -> None:
        self.replica = FakeReplica()
        machine = self.replica.kv
        if not isinstance(machine, KeyValueMachine):
            raise Broken("the replica has another machine")
        self.machine = machine
        for command in CONTENT:
            self.machine.execute(command)
        self.machine.take_timers()
        self.etcd = EtcdServices(self.replica, machine, IDENTITY, Tuning(), leaderless_ms=100)
        self.methods = find_methods(self.etcd.handlers())

    @property
    def state(self) -> tuple[Any, ...]:
        """What no refused request may change."""
        return self.machine.revision, self.machine.digest(), self.machine.lease_ids()

    async def call(
        self, path: str, said: list[bytes], between: Callable[[], None] = lambda: None
    ) -> list[bytes]:
        """The answers to what a client says that then leaves. Raises Aborted where it is told off first."""
        method = self.methods[path]
        waiting = iter(said)
        answers: list[bytes] = []

        async def read() -> Any:
            await asyncio.sleep(0)
            between()
            return next(waiting, grpc.aio.EOF)

        async def write(data: bytes) -> None:
            answers.append(data)

        context = CallContext(read=read, write=write)
        request = None if method.takes_stream else said[0]
        call = asyncio.ensure_future(method.behaviour(request, context))
        for _ in range(TURNS_MAX + 4 * len(said)):
            await asyncio.sleep(0)
            if call.done():
                break
        call.cancel()
        try:
            answer = await call
            if not method.gives_stream:
                answers.append(answer)
        except asyncio.CancelledError:
            pass
        except Aborted as error:
            require(
                error.code is not grpc.StatusCode.INTERNAL, f"it ended with {error.code}: {error.details}"
            )
            require(bool(error.details), f"{error.code} without a word")
            raise
        finally:
            for answer in answers:
                method.response_type.FromString(answer)
        return answers


@asynccontextmanager
async def _staged() -> AsyncIterator[_Stage]:
    unforeseen: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unforeseen.append(str(context)))
    stage = _Stage()
    try:
        yield stage
    finally:
        stage.etcd.stop()
        await stage.etcd.drain(1.0)
        stage.etcd.close()
        require(not unforeseen, f"{unforeseen[:1]}")


# ---- one request ---------------------------------------------------------------------------------------------


def _kv_request(rng: Random, path: str) -> Message:
    key = rng.choice((b"k", b"e/7", b"new", values.blob(rng, 9) or b"x"))
    put = kv_pb2.PutRequest(key=key, value=values.blob(rng), lease=rng.choice((0, LEASE)))
    look = kv_pb2.RangeRequest(key=key, range_end=rng.choice((b"", b"\0", b"z")), limit=rng.randint(0, 9))
    if path == "kv/txn":
        compare = kv_pb2.Compare(key=b"k", target=kv_pb2.Compare.VERSION, version=rng.randint(0, 3))
        return kv_pb2.TxnRequest(
            compare=[compare],
            success=[kv_pb2.RequestOp(request_put=put)],
            failure=[kv_pb2.RequestOp(request_range=look)],
        )
    by_path: dict[str, Message] = {
        "kv/range": look,
        "kv/put": put,
        "kv/deleterange": kv_pb2.DeleteRangeRequest(key=key, prev_kv=rng.random() < 0.5),
        "kv/compaction": kv_pb2.CompactionRequest(revision=rng.randint(3, 6)),
    }
    return by_path[path]


def _other_request(rng: Random, path: str) -> Message:
    match path:
        case "lease/grant":
            return kv_pb2.LeaseGrantRequest(TTL=rng.randint(-1, 99), ID=rng.choice((0, 8, -1, 1 << 62)))
        case "lease/revoke" | "kv/lease/revoke":
            return kv_pb2.LeaseRevokeRequest(ID=LEASE)
        case "lease/timetolive" | "kv/lease/timetolive":
            return lease_pb2.LeaseTimeToLiveRequest(ID=rng.choice((0, LEASE, -1)), keys=rng.random() < 0.5)
        case "maintenance/hashkv":
            return maintenance_pb2.HashKVRequest(revision=rng.choice((0, 3, 6, -1)))
        case "lock/lock":
            return lock_pb2.LockRequest(name=rng.choice((b"l", b"e", b"")), lease=rng.choice((0, LEASE)))
        case "lock/unlock":
            return lock_pb2.UnlockRequest(key=rng.choice((b"e/7", b"none")))
        case "election/campaign":
            return election_pb2.CampaignRequest(name=b"e", lease=LEASE, value=values.blob(rng))
        case "election/proclaim":
            return election_pb2.ProclaimRequest(leader=ELECTED, value=values.blob(rng))
        case "election/resign":
            return election_pb2.ResignRequest(leader=ELECTED)
        case _:
            return election_pb2.LeaderRequest(name=b"e")


PLAIN = (
    "lease/leases",
    "cluster/member/list",
    "maintenance/alarm",
    "maintenance/status",
    "maintenance/defragment",
    "maintenance/hash",
    "maintenance/snapshot",
)
"""Whose real request says nothing. (Those that this version refuses whatever they say are met by mutation.)"""
SPEAKING = (
    "kv/range",
    "kv/put",
    "kv/deleterange",
    "kv/txn",
    "kv/compaction",
    "lease/grant",
    "lease/revoke",
    "kv/lease/revoke",
    "lease/timetolive",
    "kv/lease/timetolive",
    "maintenance/hashkv",
    "lock/lock",
    "lock/unlock",
    "election/campaign",
    "election/proclaim",
    "election/leader",
    "election/observe",
    "election/resign",
)


def _make_call(rng: Random) -> tuple[None, bytes]:
    path = rng.choice(SPEAKING if rng.random() < 0.8 else PLAIN)
    request = b""
    if path in SPEAKING:
        make = _kv_request if path.startswith("kv/") and "lease" not in path else _other_request
        request = make(rng, path).SerializeToString()
    return None, bytes((PATHS.index(path),)) + request


async def _ask(path: str, request: bytes) -> None:
    async with _staged() as stage:
        before = stage.state
        try:
            await stage.call(path, [request])
        except Aborted as error:
            require(stage.state == before, f"it was refused ({error.details}) and has changed something")
            raise


def _take_call(data: bytes) -> None:
    if data:
        _run(_ask(PATHS[data[0] % len(PATHS)], data[1:]))


# ---- streams -------------------------------------------------------------------------------------------------


def _make_watches(rng: Random) -> tuple[None, bytes]:
    said = []
    for _ in range(rng.randint(1, 5)):
        match rng.randrange(6):
            case 0:
                said.append(
                    watch_pb2.WatchRequest(
                        cancel_request=watch_pb2.WatchCancelRequest(watch_id=rng.randint(-1, 3))
                    )
                )
            case 1:
                said.append(watch_pb2.WatchRequest(progress_request=watch_pb2.WatchProgressRequest()))
            case _:
                create = watch_pb2.WatchCreateRequest(
                    key=rng.choice((b"", b"k", b"e/", values.blob(rng, 9))),
                    range_end=rng.choice((b"", b"\0", b"f", b"a")),
                    start_revision=rng.choice((0, 0, 1, 3, 7, values.number(rng))),
                    filters=rng.sample(FILTERS, rng.randint(0, 2)),
                    progress_notify=rng.random() < 0.3,
                    prev_kv=rng.random() < 0.5,
                    fragment=rng.random() < 0.3,
                    watch_id=rng.choice((0, 0, 2, values.number(rng))),
                )
                said.append(watch_pb2.WatchRequest(create_request=create))
    return None, join_frames([message.SerializeToString() for message in said])


async def _watch(said: list[bytes]) -> None:
    async with _staged() as stage:
        revisions = iter(range(1 << 30))

        def write() -> None:
            stage.machine.execute(Put(b"k%d" % (next(revisions) % 3), b"v", LEASE))
            stage.replica.ask_turn()
            for applied in stage.replica._applied_watchers:
                applied()

        service = stage.etcd._watches
        require(service is not None, "there is no Watch service")
        answers: list[bytes] = []
        try:
            answers = await stage.call("watch", said, write)
        finally:
            if service is not None:
                left = (service.queued_bytes, service.watches_bytes, service.stream_count, len(service.hub))
                require(left == (0, 0, 0, 0), f"a stream is gone and not forgotten: {left}")
        _check_watches([watch_pb2.WatchResponse.FromString(answer) for answer in answers])


def _check_watches(answers: list[watch_pb2.WatchResponse]) -> None:
    """Created, then events in order, then canceled; nothing of a watch that is not there."""
    open_watches: set[int] = set()
    seen: dict[int, int] = defaultdict(int)
    for answer in answers:
        number = answer.watch_id
        require(answer.cancel_reason != BUG, "the server met a bug")
        if answer.created and not answer.canceled:
            require(number not in open_watches, f"watch {number} was created twice")
            open_watches.add(number)
            seen[number] = 0
        elif answer.canceled and not answer.created:
            require(number in open_watches, f"watch {number} was canceled and is not there")
            open_watches.discard(number)
        for event in answer.events:
            require(number in open_watches, f"events of watch {number}, which is not there")
            require(event.kv.mod_revision >= seen[number], f"watch {number} went back")
            seen[number] = event.kv.mod_revision


def _take_watches(data: bytes) -> None:
    _run(_watch(list(split_frames(data))))


def _make_keep_alives(rng: Random) -> tuple[None, bytes]:
    ids = [rng.choice((LEASE, 0, -1, values.number(rng))) for _ in range(rng.randint(1, 5))]
    return None, join_frames([kv_pb2.LeaseKeepAliveRequest(ID=each).SerializeToString() for each in ids])


async def _keep_alive(said: list[bytes]) -> None:
    async with _staged() as stage:
        answers = await stage.call("lease/keepalive", said)
        asked = [kv_pb2.LeaseKeepAliveRequest.FromString(each).ID for each in said]
        told = [kv_pb2.LeaseKeepAliveResponse.FromString(each) for each in answers]
        require([each.ID for each in told] == asked[: len(told)], "answers in another order")
        require(all((each.TTL > 0) == (each.ID == LEASE) for each in told), "a lease that is not there")
        require(len(told) == len(said) or len(said) > TURNS_MAX, f"{len(told)} answers to {len(said)}")


def _take_keep_alives(data: bytes) -> None:
    _run(_keep_alive(list(split_frames(data))))


# ---- the gateway's streams -----------------------------------------------------------------------------------


def _make_objects(rng: Random) -> tuple[None, bytes]:
    objects = [
        {"create_request": {"key": rng.choice(("Zm9v", "", "e30=")), "watch_id": rng.choice((1, "2"))}},
        {"cancel_request": {"watch_id": rng.randint(-9, 9)}, "unknown": [{"}": "{"}, None, 1.5]},
        {"progress_request": {}},
        {},
    ]
    chosen = [rng.choice(objects) for _ in range(rng.randint(1, 4))]
    space = rng.choice(("", "\n", " \r\n\t"))
    return None, bytes((rng.randint(1, 20),)) + space.join([json.dumps(each) for each in chosen]).encode()


async def _objects(data: bytes, size: int) -> tuple[list[bytes], StatusError | None]:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    found: list[bytes] = []
    try:
        async for each in json_objects(watch_pb2.WatchRequest, chunks(), 1 << 20):
            found.append(each)  # noqa: PERF401 (what came before an error counts, too)
    except StatusError as error:
        return found, error
    return found, None


async def _cut_alike(data: bytes, size: int) -> None:
    """However a body is cut, it says the same."""
    whole, refusal = await _objects(data, max(1, len(data)))
    cut, refusal_too = await _objects(data, size)
    require((whole, refusal is None) == (cut, refusal_too is None), f"cut at {size} it is another")
    if refusal is not None:
        require(refusal.code is grpc.StatusCode.INVALID_ARGUMENT, f"{refusal.code}")
        raise refusal


def _take_objects(data: bytes) -> None:
    if data:
        _run(_cut_alike(data[1:], data[0] or 1))


def _make_timeout(rng: Random) -> tuple[float, bytes]:
    number = rng.randint(0, 99_999_999)
    unit, seconds = rng.choice(
        (("H", 3600.0), ("M", 60.0), ("S", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9))
    )
    return number * seconds, f"{number}{unit}".encode()


def _take_timeout(data: bytes) -> float:
    seconds = timeout_s(data.decode("utf-8", "surrogateescape"))
    require(0 <= seconds < 1e12, f"{seconds} seconds")
    return seconds


TARGETS = (
    Target(
        "server-call", ("server.rpc:parse",), _make_call, _take_call, (Aborted,), proto_from=1, blows_up=False
    ),
    Target(
        "server-watch",
        ("server.watch_service:_Stream._read",),
        _make_watches,
        _take_watches,
        (Aborted, ValueError),
        is_joined=True,
        blows_up=False,
    ),
    Target(
        "server-keep-alive",
        ("server.lease_service:LeaseService.keep_alive",),
        _make_keep_alives,
        _take_keep_alives,
        (Aborted, ValueError),
        is_joined=True,
        blows_up=False,
    ),
    Target(
        "gateway-stream",
        (
            "server.gateway_calls:json_objects",
            "server.gateway_calls:_whole_values",
            "server.gateway_calls:message_of",
        ),
        _make_objects,
        _take_objects,
        (StatusError,),
        is_proto=False,
        blows_up=False,
    ),
    Target(
        "gateway-timeout",
        ("server.gateway_calls:timeout_s",),
        _make_timeout,
        _take_timeout,
        (StatusError,),
        is_proto=False,
        blows_up=False,
    ),
)
