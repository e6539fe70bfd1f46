"""What clients should not send to the services that speak etcd's language, all of them, under all their names.

One cluster for the whole module, with limits small enough to be met. Each request is refused with etcd's status and
words, or with a sentence where etcd has none; what it was refused for has changed nothing (the hash of the store at its
revision, and the leases, on every server), and the servers are still the processes that they were. What is odd but no
error is answered as etcd answers it.
"""

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from paxos_rsm._proto import (
    cluster_pb2,
    election_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    maintenance_pb2,
    watch_pb2,
)
from paxos_rsm.testing.cluster import LocalCluster
from paxos_rsm.testing.ports import PortHolder
from tests.integration.bad_requests import (
    INT64_MAX,
    INT64_MIN,
    LEASE,
    POSTED,
    REFUSED,
    UNKNOWN_FIELDS,
    Code,
    Posted,
    Watching,
    nobody,
)
from tests.integration.conftest import NewCluster
from tests.integration.raw import Calls, RawKv, code_of, details_of
from tests.integration.waiting import eventually, same_state, status_now

OURS = "paxos_rsm.v1"
KINDS = {
    "KV": "etcdserverpb",
    "Watch": "etcdserverpb",
    "Lease": "etcdserverpb",
    "Cluster": "etcdserverpb",
    "Maintenance": "etcdserverpb",
    "Lock": "v3lockpb",
    "Election": "v3electionpb",
}
"""Each service, and etcd's package of it."""
SERVICES = [f"{package}.{kind}" for kind, theirs in KINDS.items() for package in (OURS, theirs)]

IN_FLIGHT_MAX = 32
WATCHES_MAX = 64
STREAM_BYTES_MAX = 64 * 1024
STALL_MS = 300
OPTIONS = {
    "unary-in-flight-max": IN_FLIGHT_MAX,
    "watches-bytes-max": WATCHES_MAX * 1024,
    "watch-stream-bytes-max": STREAM_BYTES_MAX,
    "watch-stall-ms": STALL_MS,
}
GARBAGE = (b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05abc", b"\x08" + b"\x80" * 30)
"""No tag, a length of four gigabytes, a length beyond the end, a number without one."""


class Stage(NamedTuple):
    cluster: LocalCluster
    gateway_port: int
    """Of the server that is asked, 0 where aiohttp is missing."""

    @property
    def endpoint(self) -> str:
        """Of a server that follows, as far as the tests can choose."""
        return self.cluster["n2"].endpoint


@pytest.fixture(scope="module")
def stage(new_shared_cluster: NewCluster) -> Iterator[Stage]:
    ports = PortHolder()
    cluster = new_shared_cluster(options=OPTIONS)
    port = 0
    if find_spec("aiohttp") is not None:
        (port,) = ports.take(1)
        cluster["n2"].environment["PAXOS_RSM_LISTEN_HTTP_URLS"] = f"http://127.0.0.1:{port}"
    cluster.start()
    cluster.wait_for_leader(everyone=True)
    with RawKv(cluster["n2"].endpoint) as kv:
        for number in range(5):
            kv.put(b"k", b"%d" % number)
        kv.compact(4)
        grant = kv_pb2.LeaseGrantRequest(TTL=3_600, ID=LEASE).SerializeToString()
        kv.unary("/etcdserverpb.Lease/LeaseGrant", grant)
    yield Stage(cluster, port)
    ports.close()


@pytest.fixture(autouse=True)
def _the_servers_live_on(stage: Stage) -> Iterator[None]:
    cluster = stage.cluster
    before = {server.name: (server.pid, status_now(server).boot_count) for server in cluster}
    yield
    with RawKv(stage.endpoint) as kv:
        kv.put(b"alive", b"yes")
        assert kv.value(b"alive") == b"yes"
    assert {server.name: (server.pid, status_now(server).boot_count) for server in cluster} == before
    eventually(lambda: same_state(cluster), "equal states")
    for name, log in cluster.logs().items():
        assert "Traceback" not in log, f"{name} has written a traceback"
        assert "level=error" not in log, f"{name} has met an error"


class State(NamedTuple):
    hash: int
    revision: int
    leases: tuple[int, ...]


def state_at(calls: Calls) -> State:
    """What the store and the leases are at one server."""
    answer = maintenance_pb2.HashKVResponse.FromString(calls.unary("/etcdserverpb.Maintenance/HashKV", b""))
    leases = lease_pb2.LeaseLeasesResponse.FromString(calls.unary("/etcdserverpb.Lease/LeaseLeases", b""))
    return State(answer.hash, answer.header.revision, tuple(each.ID for each in leases.leases))


@pytest.fixture
def nothing_changes(stage: Stage) -> Iterator[None]:
    """Every server has the state after the test that it had before it."""

    def states() -> list[State]:
        eventually(lambda: same_state(stage.cluster), "equal states")
        found = []
        for server in stage.cluster:
            with Calls(server.endpoint) as calls:
                found.append(state_at(calls))
        return found

    before = states()
    yield
    assert states() == before


@pytest.fixture
def calls(stage: Stage) -> Iterator[Calls]:
    with Calls(stage.endpoint) as made:
        yield made


def methods_of(service: str) -> list[tuple[str, bool]]:
    """Each method of a service, by its path, and whether anything of it streams."""
    kind = service.rpartition(".")[2]
    described: Any = descriptor_pool.Default().FindServiceByName(f"{OURS}.{kind}")
    return [
        (f"/{service}/{method.name}", method.client_streaming or method.server_streaming)
        for method in described.methods
    ]


def status_of_call(calls: Calls, path: str, streams: bool, requests: Sequence[bytes]) -> tuple[Code, str]:
    """How a call ends; whatever is answered before that is thrown away."""
    try:
        if streams:
            for _ in calls.stream(path, requests):
                pass
        else:
            calls.unary(path, requests[0])
    except grpc.RpcError as error:
        return code_of(error), details_of(error)
    return Code.OK, ""


# ---- what is no request --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_changes")
def test_bytes_that_do_not_parse(calls: Calls) -> None:
    for service in SERVICES:
        for path, streams in methods_of(service):
            for garbage in GARBAGE:
                code, words = status_of_call(calls, path, streams, [garbage])
                # What this version has not, it has not whatever is asked.
                assert code in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED), (path, garbage, code, words)
                wanted = (
                    "do not parse as a paxos_rsm.v1." if code is Code.INVALID_ARGUMENT else "this version"
                )
                assert wanted in words, (path, garbage, words)


def test_methods_and_services_that_are_not_there(calls: Calls) -> None:
    for service in (*SERVICES, "etcdserverpb.Auth", "etcdserverpb.Nothing"):
        for method in ("NoSuchMethod", "range", ""):
            for streams in (False, True):
                code, words = status_of_call(calls, f"/{service}/{method}", streams, [b""])
                assert (code, bool(words)) == (Code.UNIMPLEMENTED, True), (service, method, code)


@pytest.mark.usefixtures("nothing_changes")
def test_messages_far_too_large(calls: Calls) -> None:
    """gRPC refuses them before anybody has seen them: once for each service."""
    large = kv_pb2.PutRequest(key=b"k", value=bytes(9 << 20)).SerializeToString()
    for kind, package in KINDS.items():
        path, streams = methods_of(f"{package}.{kind}")[0]
        code, words = status_of_call(calls, path, streams, [large])
        assert (code, "larger than max" in words) == (Code.RESOURCE_EXHAUSTED, True), (path, code, words)


@pytest.mark.usefixtures("nothing_changes")
def test_calls_that_say_nothing_and_calls_that_are_given_up(calls: Calls) -> None:
    """A hundred of each that streams or should not: half-closed without a request, or never closed and cancelled.

    To one that should have had a request gRPC itself gives no answer; what matters is that nothing stays behind.
    """
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait()
        yield b""

    for path in ("/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"):
        assert list(calls.stream(path, [])) == []
    open_calls: list[Any] = []
    for path in ("/etcdserverpb.KV/Put", "/etcdserverpb.Maintenance/Snapshot", "/v3lockpb.Lock/Lock"):
        call: Any = calls.channel.stream_stream(path)
        open_calls += [call(iter(())) for _ in range(100)]
        open_calls += [call(silent()) for _ in range(3)]
    for each in open_calls:
        each.cancel()
    never.set()
    for each in open_calls:
        assert each.code() is Code.CANCELLED


# ---- what cannot be done -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [False, True], ids=["etcd", "ours"])
@pytest.mark.usefixtures("nothing_changes")
def test_what_cannot_be_done_is_said_in_etcds_words(calls: Calls, ours: bool) -> None:
    before = state_at(calls)
    for row in REFUSED:
        kind = row.method.partition("/")[0]
        path = f"/{OURS if ours else KINDS[kind]}.{row.method}"
        # Fields that nobody knows make no difference.
        code, words = status_of_call(calls, path, False, [row.request.SerializeToString() + UNKNOWN_FIELDS])
        assert (code, words[: len(row.words)]) == (row.code, row.words), row.method
        assert words == row.words or row.code is Code.UNIMPLEMENTED, words
        assert state_at(calls) == before, f"{row.method} was refused and has changed something"


@pytest.mark.usefixtures("nothing_changes")
def test_what_is_odd_and_no_error(calls: Calls) -> None:
    def ask(path: str, request: Message, answer: type[Message], streams: bool = False) -> Any:
        data = request.SerializeToString() + UNKNOWN_FIELDS
        if streams:
            (only,) = calls.stream(path, [data])
            return answer.FromString(only)
        return answer.FromString(calls.unary(path, data))

    # A limit or a revision below zero is none.
    look = kv_pb2.RangeRequest(key=b"k", limit=-1, revision=INT64_MIN, min_mod_revision=-1)
    assert ask("/etcdserverpb.KV/Range", look, kv_pb2.RangeResponse).kvs[0].value == b"4"
    # An end before the begin is nothing.
    gone = kv_pb2.DeleteRangeRequest(key=b"z", range_end=b"a")
    assert ask("/etcdserverpb.KV/DeleteRange", gone, kv_pb2.DeleteRangeResponse).deleted == 0
    # A lease that is not there has no time left, and that is what it is asked for.
    for number in (0, -1, INT64_MIN, INT64_MAX):
        left = lease_pb2.LeaseTimeToLiveRequest(ID=number, keys=True)
        told = ask("/etcdserverpb.Lease/LeaseTimeToLive", left, lease_pb2.LeaseTimeToLiveResponse)
        assert number == told.ID
        assert told.TTL == -1
        kept = kv_pb2.LeaseKeepAliveRequest(ID=number)
        told = ask("/etcdserverpb.Lease/LeaseKeepAlive", kept, kv_pb2.LeaseKeepAliveResponse, streams=True)
        assert number == told.ID
        assert told.TTL == 0
    # One that is asked for in vain lives as short as one may; so does one below zero, and its id may be.
    for ttl, number in ((0, 0), (-7, -7), (INT64_MIN, INT64_MIN)):
        grant = kv_pb2.LeaseGrantRequest(TTL=ttl, ID=number)
        granted = ask("/etcdserverpb.Lease/LeaseGrant", grant, kv_pb2.LeaseGrantResponse)
        assert granted.TTL == 2
        assert (number or granted.ID) == granted.ID
        revoke = kv_pb2.LeaseRevokeRequest(ID=granted.ID)
        ask("/etcdserverpb.Lease/LeaseRevoke", revoke, kv_pb2.LeaseRevokeResponse)
    newest = maintenance_pb2.HashKVRequest(revision=-1)
    assert ask("/etcdserverpb.Maintenance/HashKV", newest, maintenance_pb2.HashKVResponse).hash
    members = ask(
        "/etcdserverpb.Cluster/MemberList", cluster_pb2.MemberListRequest(), cluster_pb2.MemberListResponse
    )
    assert len(members.members) == 3
    # To give back what is not there is done already.
    unlock = lock_pb2.UnlockRequest(key=b"nobody's")
    ask("/v3lockpb.Lock/Unlock", unlock, lock_pb2.UnlockResponse)
    ask(
        "/v3electionpb.Election/Resign",
        election_pb2.ResignRequest(leader=nobody()),
        election_pb2.ResignResponse,
    )


# ---- watches -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_changes")
def test_watches_that_cannot_be_are_refused_and_the_stream_goes_on(calls: Calls) -> None:
    stream = Watching(calls)
    for fields, reason in (
        ({"key": b"b", "range_end": b"a"}, "mvcc: watcher range is empty"),
        ({"key": b"b", "range_end": b"b"}, "mvcc: watcher range is empty"),
    ):
        stream.create(**fields)
        told = stream.hear()
        assert (told.watch_id, told.created, told.canceled, told.cancel_reason) == (-1, True, True, reason)
    # Nothing is asked, or of a kind that nobody knows: no answer, as in etcd.
    stream.say(b"")
    stream.say(UNKNOWN_FIELDS)
    stream.cancel(99)
    stream.cancel(INT64_MIN)
    # A filter that is unknown filters nothing; an id below zero is one; a revision below zero is the first.
    stream.create(key=b"k", filters=[9, -1], watch_id=-5)
    told = stream.hear()
    assert (told.watch_id, told.created, told.canceled) == (-5, True, False)
    stream.create(key=b"k", watch_id=-5)
    assert stream.hear().cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    stream.create(key=b"k", start_revision=INT64_MIN)
    assert stream.hear().created
    told = stream.hear()
    assert (told.canceled, told.compact_revision) == (True, 4)
    stream.create(key=b"k", start_revision=INT64_MAX)
    assert not stream.hear().canceled
    stream.say(b"\xff")
    code, words = stream.ended()
    assert (code, "do not parse as a paxos_rsm.v1.WatchRequest" in words) == (Code.INVALID_ARGUMENT, True)


@pytest.mark.usefixtures("nothing_changes")
def test_more_watches_than_a_server_takes(calls: Calls) -> None:
    stream, other = Watching(calls), Watching(calls)
    for _ in range(2 * WATCHES_MAX):
        stream.create(key=b"k")
    made: list[watch_pb2.WatchResponse] = []
    refused: list[watch_pb2.WatchResponse] = []
    for _ in range(2 * WATCHES_MAX):
        told = stream.hear()
        (refused if told.canceled else made).append(told)
    assert WATCHES_MAX - 5 <= len(made) <= WATCHES_MAX
    assert all(
        each.watch_id == -1 and "too many watches at this server" in each.cancel_reason for each in refused
    )
    # The limit is the server's, not the stream's; what is cancelled is given back, and so is what a stream leaves.
    other.create(key=b"k")
    assert other.hear().canceled
    for each in made[:3]:
        stream.cancel(each.watch_id)
        assert stream.hear().canceled
    other.create(key=b"k")
    assert not other.hear().canceled
    stream.call.cancel()

    def there_is_room() -> bool:
        for _ in range(10):
            other.create(key=b"k")
        return [other.hear().canceled for _ in range(10)] == [False] * 10

    eventually(there_is_room, "room for watches")
    other.call.cancel()


def test_a_half_closed_stream_goes_on(calls: Calls) -> None:
    stream = Watching(calls)
    stream.create(key=b"half")
    assert stream.hear().created
    stream.say(None)
    for number in range(3):
        put = kv_pb2.PutRequest(key=b"half", value=b"%d" % number).SerializeToString()
        calls.unary("/etcdserverpb.KV/Put", put)
        assert stream.hear().events[0].kv.value == b"%d" % number
    stream.call.cancel()


def test_a_client_that_does_not_read_is_told_where_to_go_on(stage: Stage, calls: Calls) -> None:
    with Calls(stage.endpoint) as slow:
        stream = Watching(slow)
        stream.create(key=b"slow")
        assert stream.hear().created
        revisions: list[int] = []
        stalled_at = 0.0
        # Much, and then little, until the server has had the time to notice: it answers these itself.
        while not stalled_at or time.monotonic() < stalled_at + 4 * STALL_MS / 1000:
            value = bytes(512 * 1024 if not stalled_at else 1)
            put = kv_pb2.PutRequest(key=b"slow", value=value).SerializeToString()
            answer = kv_pb2.PutResponse.FromString(calls.unary("/etcdserverpb.KV/Put", put))
            revisions.append(answer.header.revision)
            if len(revisions) == 24:
                stalled_at = time.monotonic()
        # It reads now; what it was given before it was cancelled comes first.
        seen: list[int] = []
        while not (told := stream.hear()).canceled:
            seen += [event.kv.mod_revision for event in told.events]
        assert "the client has read nothing for" in told.cancel_reason
        assert seen == revisions[: len(seen)]
        assert told.resume_revision == revisions[len(seen)]
        stream.create(key=b"slow", start_revision=told.resume_revision)
        assert stream.hear().created
        while len(seen) < len(revisions):
            seen += [event.kv.mod_revision for event in stream.hear().events]
        assert seen == revisions
        stream.call.cancel()


# ---- floods --------------------------------------------------------------------------------------------------


def test_a_flood_of_writes_is_bounded_and_what_is_refused_was_not_executed(stage: Stage) -> None:
    leader = stage.cluster.leader()
    with RawKv(stage.endpoint) as kv:
        revision = kv.get(b"k").header.revision
        flood = [kv.begin_put(b"flood", b"%d" % number) for number in range(600)]
        codes = [each.code() for each in flood]
        refused = [each for each, code in zip(flood, codes, strict=True) if code is not Code.OK]
        assert {(each.code(), each.details()) for each in refused} <= {
            (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        }
        done = codes.count(Code.OK)
        assert done >= IN_FLIGHT_MAX
        assert kv.get(b"flood").kvs[0].version == done
        assert kv.get(b"k").header.revision == revision + done
    assert stage.cluster.leader() == leader


def test_callers_who_wait_and_go_leave_nothing_behind(stage: Stage, calls: Calls) -> None:
    """A queue of a lock, observers, watch streams, lease streams: all at once, and all gone at once."""
    held = lock_pb2.LockRequest(name=b"crowd", lease=LEASE).SerializeToString()
    key = lock_pb2.LockResponse.FromString(calls.unary("/v3lockpb.Lock/Lock", held)).key
    leases = range(1_000, 1_020)
    for number in leases:
        grant = kv_pb2.LeaseGrantRequest(TTL=600, ID=number).SerializeToString()
        calls.unary("/etcdserverpb.Lease/LeaseGrant", grant)
    lock: Any = calls.channel.unary_unary("/v3lockpb.Lock/Lock")
    waiting = [
        lock.future(lock_pb2.LockRequest(name=b"crowd", lease=number).SerializeToString())
        for number in leases
    ]
    stream: Any = calls.channel.stream_stream("/v3electionpb.Election/Observe")
    observe = election_pb2.LeaderRequest(name=b"crowd2").SerializeToString()
    waiting += [stream(iter([observe])) for _ in range(20)]
    watches = [Watching(calls) for _ in range(20)]
    for watch in watches:
        watch.create(key=b"crowd3")
        assert watch.hear().created
        waiting.append(watch.call)

    def queue_length() -> int:
        with RawKv(stage.endpoint) as kv:
            return kv.get(b"crowd/", range_end=b"crowd0").count

    eventually(lambda: queue_length() == 1 + len(leases), "queue")
    for each in waiting:
        each.cancel()
    eventually(lambda: queue_length() == 1, "end of the queue")
    calls.unary("/v3lockpb.Lock/Unlock", lock_pb2.UnlockRequest(key=key).SerializeToString())
    for number in leases:
        revoke = kv_pb2.LeaseRevokeRequest(ID=number).SerializeToString()
        calls.unary("/etcdserverpb.Lease/LeaseRevoke", revoke)
    assert queue_length() == 0


# ---- the gateway ---------------------------------------------------------------------------------------------


BOMB = gzip.compress(bytes(20 << 20))


def post(port: int, row: Posted) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", f"/v3/{row.path}", row.body, row.headers)
        response = connection.getresponse()
        *_, last = response.read().splitlines()
    finally:
        connection.close()
    told = json.loads(last)["error"]
    return response.status, told["message"] if isinstance(told, dict) else told


@pytest.mark.usefixtures("nothing_changes")
def test_what_cannot_be_posted(stage: Stage, calls: Calls) -> None:
    if not stage.gateway_port:
        pytest.skip("NOT TESTED: aiohttp is not installed (pip install 'paxos-rsm[gateway]')")
    before = state_at(calls)
    for row in POSTED:
        status, words = post(stage.gateway_port, row)
        assert (status, row.words in words) == (row.status, True), (row.path, row.body[:80], status, words)
        assert len(words) < 1_000
        assert state_at(calls) == before, f"{row.path} was refused and has changed something"


@pytest.mark.usefixtures("nothing_changes")
def test_callers_of_the_gateway_who_go_in_the_middle(stage: Stage) -> None:
    if not stage.gateway_port:
        pytest.skip("NOT TESTED: aiohttp is not installed (pip install 'paxos-rsm[gateway]')")

    def begin(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stage.gateway_port, timeout=60)
        connection.putrequest("POST", ("/v3/kv/put", "/v3/watch", "/v3/lock/lock")[number % 3])
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.send(b'{"key": "')
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(150)))
    assert_healthy(stage)


BODIES = {
    "no length of a chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "too much in a chunk": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}{}\r\n0\r\n\r\n",
    "a negative length": b"Content-Length: -5\r\n\r\n{}",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "a bomb": b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(BOMB), BOMB),
}


@pytest.mark.parametrize("path", ["kv/put", "watch", "election/observe"])
@pytest.mark.usefixtures("nothing_changes")
def test_bodies_that_are_not_what_their_headers_say(stage: Stage, path: str) -> None:
    if not stage.gateway_port:
        pytest.skip("NOT TESTED: aiohttp is not installed (pip install 'paxos-rsm[gateway]')")
    for name, body in BODIES.items():
        with socket.create_connection(("127.0.0.1", stage.gateway_port), timeout=60) as connection:
            connection.sendall(
                b"POST /v3/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % path.encode() + body
            )
            answer = b""
            while more := connection.recv(65_536):
                answer += more
        told = answer.partition(b"\r\n")[0]
        # Where a stream had begun there may be nobody left to tell.
        assert told.endswith(b" 400 Bad Request") or (not answer and path != "kv/put"), (name, answer[:300])
    assert_healthy(stage)


def assert_healthy(stage: Stage) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stage.gateway_port, timeout=60)
    connection.request("GET", "/health")
    assert connection.getresponse().read() == b'{"health":"true"}'
    connection.close()
