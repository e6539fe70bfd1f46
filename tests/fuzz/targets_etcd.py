"""What speaks etcd's language: answers to the client's watches and lists, and the gateway's JSON."""

import asyncio
import json
from collections.abc import Coroutine
from random import Random
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from paxos_rsm._proto import cluster_pb2, kv_pb2, lease_pb2, watch_pb2
from paxos_rsm.client.calls import Calls
from paxos_rsm.client.leases import list_leases, time_to_live
from paxos_rsm.client.members import list_members
from paxos_rsm.client.stream import LostError
from paxos_rsm.client.subscription import Subscription
from paxos_rsm.client.watch_stream import WatchSettings, WatchStream
from paxos_rsm.errors import ClientError
from paxos_rsm.server.gateway_calls import _from_json, _to_json
from paxos_rsm.server.rpc import StatusError
from tests.fuzz import values
from tests.fuzz.target import Answered, Target, require

_runner: list[asyncio.Runner] = []


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    if not _runner:
        _runner.append(asyncio.Runner())
    return _runner[0].run(work)


# ---- answers to the client -----------------------------------------------------------------------------------


def _key_value(rng: Random) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(
        key=b"k%d" % rng.randrange(9),
        mod_revision=rng.randrange(1 << 40),
        version=rng.randrange(3),
        value=rng.randbytes(rng.randrange(20)),
    )


def _make_watch_answer(rng: Random) -> tuple[None, bytes]:
    events = [
        watch_pb2.Event(type=rng.choice(watch_pb2.Event.EventType.values()), kv=_key_value(rng))
        for _ in range(rng.randint(0, 3))
    ]
    answer = watch_pb2.WatchResponse(
        header=kv_pb2.ResponseHeader(revision=rng.randrange(1 << 40)),
        watch_id=rng.choice((-1, 0, 1, 2, values.counter(rng) >> 1)),
        created=rng.random() < 0.3,
        canceled=rng.random() < 0.2,
        compact_revision=rng.choice((0, 0, 5)),
        cancel_reason=rng.choice(("", "", values.text(rng))),
        fragment=rng.random() < 0.2,
        events=events,
        resume_revision=rng.choice((0, 7)),
    )
    return None, answer.SerializeToString()


class _OpenStream(WatchStream):
    """A stream that waits for an answer to one watch, and has another that is live."""

    async def take(self, data: bytes) -> None:
        live, fresh = Subscription(b"a", b"b"), Subscription(b"k", b"l")
        for number, watch in enumerate((live, fresh), 1):
            watch.create_request(number)
            self._watches[watch] = None
            self._by_id[number] = watch
        live.created(1)
        self._uncreated.append(2)
        try:
            self._take(data)
        finally:
            self._stop_timers()

    def _stop_timers(self) -> None:
        for timer in list(self._timers):
            timer.cancel()


def _take_watch_answer(data: bytes) -> None:
    async def take() -> None:
        await _OpenStream(["127.0.0.1:1"], WatchSettings(rng=Random(1)), lambda _: "").take(data)

    _run(take())


class _OneAnswer(Calls):
    """Every call is answered with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def _ask(self, *_arguments: Any, **_more: Any) -> bytes:
        return self._answer


def _make_list(rng: Random) -> tuple[None, bytes]:
    leases = [lease_pb2.LeaseStatus(ID=rng.getrandbits(63)) for _ in range(rng.randint(0, 3))]
    members = [
        cluster_pb2.ClusterMember(
            ID=values.counter(rng),
            name=values.text(rng),
            clientURLs=[rng.choice(("http://h:1", "http://[::1]:2", values.text(rng)))],
        )
        for _ in range(rng.randint(0, 3))
    ]
    answer: Message = rng.choice(
        (
            lease_pb2.LeaseLeasesResponse(leases=leases),
            lease_pb2.LeaseTimeToLiveResponse(ID=7, TTL=rng.randint(-1, 60), grantedTTL=60, keys=[b"k"]),
            cluster_pb2.MemberListResponse(members=members),
        )
    )
    return None, answer.SerializeToString()


def _take_list(data: bytes) -> None:
    """All three readers: one of them is the right one, the others may refuse."""
    calls = _OneAnswer(data)
    refused: ClientError | None = None
    taken = 0
    for ask in (
        lambda: list_leases(calls, 1.0),
        lambda: time_to_live(calls, 7, True, 1.0),
        lambda: list_members(calls, 1.0),
    ):
        try:
            _run(ask())
            taken += 1
        except ClientError as error:
            refused = error
    if refused is not None and not taken:
        raise refused


# ---- the gateway ---------------------------------------------------------------------------------------------

_REQUESTS: tuple[type[Message], ...] = (
    kv_pb2.RangeRequest,
    kv_pb2.PutRequest,
    kv_pb2.TxnRequest,
    watch_pb2.WatchRequest,
    kv_pb2.LeaseGrantRequest,
)


def _make_json(rng: Random) -> tuple[None, bytes]:
    compare = kv_pb2.Compare(key=b"k", target=kv_pb2.Compare.VALUE, value=rng.randbytes(4))
    put = kv_pb2.PutRequest(key=rng.randbytes(4), value=rng.randbytes(9), lease=rng.getrandbits(60))
    request: Message = rng.choice(
        (
            kv_pb2.RangeRequest(
                key=rng.randbytes(3), limit=rng.getrandbits(40), sort_order=kv_pb2.RangeRequest.ASCEND
            ),
            put,
            kv_pb2.TxnRequest(compare=[compare], success=[kv_pb2.RequestOp(request_put=put)]),
            watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"k", watch_id=3)),
        )
    )
    return None, json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None).encode()


def _take_json(data: bytes) -> None:
    """Read as each kind of request; what is taken says the same when it is written down and read again."""
    taken = 0
    for kind in _REQUESTS:
        try:
            message = _from_json(kind, data)
        except StatusError:
            continue
        taken += 1
        again = _from_json(kind, json.dumps(_to_json(kind, message)).encode())
        require(kind.FromString(again) == kind.FromString(message), "it is another when it is said again")
    if not taken:
        raise Answered("INVALID_ARGUMENT")


TARGETS = (
    Target(
        "client-watch",
        ("client.watch_stream:WatchStream._take",),
        _make_watch_answer,
        _take_watch_answer,
        (LostError,),
    ),
    Target(
        "client-lists",
        ("client.calls:Calls.ask",),
        _make_list,
        _take_list,
        (ClientError,),
    ),
    Target(
        "gateway-json",
        ("server.gateway_calls:_from_json", "server.gateway_calls:_to_json"),
        _make_json,
        _take_json,
        is_proto=False,
    ),
)
