"""What clients should not send: each request is refused with the status and the words that etcd's clients expect.

Through both names of the KV service, by raw stubs, and again as commands of a session; and what is no request at all,
on both ports. Whatever was refused has changed nothing, and the servers are still the processes that they were. All the
services that speak etcd's language have ``test_bad_requests_etcd.py``.
"""

import mmap
import socket
from collections.abc import Callable, Iterator
from random import Random

import grpc
import pytest

from paxos_rsm._proto import admin_pb2, kv_pb2, paxos_pb2, session_pb2
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.disks import segments_of
from tests.integration.raw import (
    KV_SERVICES,
    Calls,
    Failed,
    RawKv,
    RawSession,
    code_of,
    details_of,
    put_command,
    value_query,
)
from tests.integration.waiting import eventually, same_state, status_now

REQUEST_BYTES_MAX = 1_572_864
OPERATIONS_MAX = 128

EMPTY_KEY = "etcdserver: key is not provided"
TOO_LARGE = "etcdserver: request is too large"
TOO_MANY = "etcdserver: too many operations in txn request"
DUPLICATE = "etcdserver: duplicate key given in txn request"
COMPACTED = "etcdserver: mvcc: required revision has been compacted"
FUTURE = "etcdserver: mvcc: required revision is a future revision"

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE


def put_of_size(size: int) -> bytes:
    """A serialized PutRequest of exactly so many bytes."""
    request = kv_pb2.PutRequest(key=b"size", value=b"v" * (size - 32))
    while (missing := size - request.ByteSize()) > 0:
        request.value += b"v" * missing
    assert request.ByteSize() == size
    return request.SerializeToString()


def puts(*keys: bytes) -> kv_pb2.TxnRequest:
    """A transaction that puts each key."""
    operations = [kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=b"v")) for key in keys]
    return kv_pb2.TxnRequest(success=operations)


@pytest.fixture(params=KV_SERVICES)
def kv(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[RawKv]:
    """At a follower: there, whatever it lets through also has a way to go."""
    leader = cluster.wait_for_leader(everyone=True)
    follower = next(server for server in cluster if server.name != leader)
    with RawKv(follower.endpoint, request.param) as raw:
        yield raw


@pytest.fixture(autouse=True)
def _nothing_has_happened(cluster: LocalCluster) -> Iterator[None]:
    """After each test: the same processes, which serve, and are in one state."""
    before = {server.name: (server.pid, status_now(server).boot_count) for server in cluster}
    yield
    with RawKv(cluster["n1"].endpoint) as raw:
        raw.put(b"alive", b"yes")
        assert raw.value(b"alive") == b"yes"
    assert {server.name: (server.pid, status_now(server).boot_count) for server in cluster} == before
    eventually(lambda: same_state(cluster), "equal states")
    for name, log in cluster.logs().items():
        assert "Traceback" not in log, f"{name} has written a traceback"


def refuses(code: grpc.StatusCode, details: str, call: Callable[[], object]) -> None:
    """The call fails with this status."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert (code_of(refused.value), details_of(refused.value)) == (code, details)


def revision_at(kv: RawKv) -> int:
    """Of the store."""
    return kv.get(b"x").header.revision


# ---- the key-value store ---------------------------------------------------------------------------------


def test_an_empty_key(kv: RawKv) -> None:
    before = revision_at(kv)
    refuses(INVALID_ARGUMENT, EMPTY_KEY, lambda: kv.put(b"", b"v"))
    refuses(INVALID_ARGUMENT, EMPTY_KEY, lambda: kv.get(b""))
    refuses(INVALID_ARGUMENT, EMPTY_KEY, lambda: kv.txn(puts(b"")))
    delete = kv_pb2.DeleteRangeRequest().SerializeToString()
    refuses(INVALID_ARGUMENT, EMPTY_KEY, lambda: kv.unary(f"/{kv.service}/DeleteRange", delete))
    assert revision_at(kv) == before


def test_a_value_that_is_too_long(kv: RawKv) -> None:
    before = revision_at(kv)
    for size in (REQUEST_BYTES_MAX - 1, REQUEST_BYTES_MAX):
        kv.unary(f"/{kv.service}/Put", put_of_size(size))
    assert revision_at(kv) == before + 2
    for size in (REQUEST_BYTES_MAX + 1, REQUEST_BYTES_MAX + 400_000):
        too_large = put_of_size(size)
        refuses(INVALID_ARGUMENT, TOO_LARGE, lambda data=too_large: kv.unary(f"/{kv.service}/Put", data))  # type: ignore[misc]
    # Far too large for a message at all: gRPC refuses it before anybody has seen it.
    with pytest.raises(grpc.RpcError) as refused:
        kv.unary(f"/{kv.service}/Put", put_of_size(32 << 20))
    assert code_of(refused.value) in (grpc.StatusCode.RESOURCE_EXHAUSTED, INVALID_ARGUMENT)
    assert revision_at(kv) == before + 2


def test_too_many_operations_in_a_transaction(kv: RawKv) -> None:
    before = revision_at(kv)
    kv.txn(puts(*[b"op/%d" % number for number in range(OPERATIONS_MAX)]))
    assert revision_at(kv) == before + 1
    too_many = puts(*[b"op/%d" % number for number in range(OPERATIONS_MAX + 1)])
    refuses(INVALID_ARGUMENT, TOO_MANY, lambda: kv.txn(too_many))
    assert revision_at(kv) == before + 1


def test_two_puts_of_one_key_in_a_transaction(kv: RawKv) -> None:
    before = revision_at(kv)
    refuses(INVALID_ARGUMENT, DUPLICATE, lambda: kv.txn(puts(b"twice", b"other", b"twice")))
    assert revision_at(kv) == before
    assert kv.value(b"twice") is None


def test_a_revision_in_the_future(kv: RawKv) -> None:
    revision = revision_at(kv)
    assert not kv.get(b"x", revision=revision).kvs
    for serializable in (False, True):
        refuses(
            OUT_OF_RANGE,
            FUTURE,
            lambda stale=serializable: kv.get(b"x", revision=revision + 1_000, serializable=stale),  # type: ignore[misc]
        )
    refuses(OUT_OF_RANGE, FUTURE, lambda: kv.compact(revision + 1_000))


def test_a_revision_that_is_compacted(kv: RawKv) -> None:
    revisions = [kv.put(b"compacted", b"%d" % number).header.revision for number in range(5)]
    kv.compact(revisions[2])
    for revision, value in zip(revisions[2:], (b"2", b"3", b"4"), strict=True):
        assert kv.get(b"compacted", revision=revision).kvs[0].value == value
    for revision in revisions[:2]:
        refuses(OUT_OF_RANGE, COMPACTED, lambda at=revision: kv.get(b"compacted", revision=at))  # type: ignore[misc]
        refuses(OUT_OF_RANGE, COMPACTED, lambda at=revision: kv.compact(at))  # type: ignore[misc]
    refuses(OUT_OF_RANGE, COMPACTED, lambda: kv.compact(revisions[2]))


def test_the_same_as_commands_of_a_session(cluster: LocalCluster) -> None:
    commands = [
        (put_command(b"", b"v"), INVALID_ARGUMENT, EMPTY_KEY),
        (kv_pb2.KvCommand(txn=puts(b"a", b"a")).SerializeToString(), INVALID_ARGUMENT, DUPLICATE),
        (
            kv_pb2.KvCommand(txn=puts(*[b"%d" % n for n in range(OPERATIONS_MAX + 1)])).SerializeToString(),
            INVALID_ARGUMENT,
            TOO_MANY,
        ),
        (
            kv_pb2.KvCommand(compact=kv_pb2.CompactionRequest(revision=1 << 60)).SerializeToString(),
            OUT_OF_RANGE,
            FUTURE,
        ),
        (b"\xff\xff\xff not a command", INVALID_ARGUMENT, None),
        (b"", INVALID_ARGUMENT, None),
    ]
    with RawSession(cluster["n1"].endpoint) as session:
        session.open()
        session.submit(1, *(command for command, _, _ in commands), put_command(b"after", b"v"))
        results = [kv_pb2.KvResult.FromString(result) for result in session.results(1, len(commands) + 1)]
        for result, (_, code, words) in zip(results, commands, strict=False):
            assert result.WhichOneof("response") == "error", result
            assert result.error.code == code.value[0]
            assert words is None or result.error.message == words
        assert results[-1].WhichOneof("response") == "put", "one bad command has spoiled the frame"
        # And as reads.
        for request in (value_query(b""), b"\xff\xff", put_command(b"k", b"v")):
            session.read(request)
            answer = session.read_results()
            assert answer.HasField("failure") or kv_pb2.KvResult.FromString(answer.results[0]).HasField(
                "error"
            )


# ---- what is no request at all ---------------------------------------------------------------------------

GARBAGE = [
    b"\xff" * 40,
    b"\x0a\xff\xff\xff\xff\x0f",
    Random(1).randbytes(2_000),
    b"\x0a" * 5_000,
    b"\x08" + b"\x80" * 30,
]

METHODS = ["/paxos_rsm.v1.Admin/Status", "/grpc.health.v1.Health/Check"]


def test_garbage_as_requests(cluster: LocalCluster) -> None:
    with Calls(cluster["n2"].endpoint) as calls:
        for method in METHODS:
            for garbage in GARBAGE[:2]:
                with pytest.raises(grpc.RpcError) as refused:
                    calls.unary(method, garbage)
                assert code_of(refused.value) is INVALID_ARGUMENT, (method, refused.value)


@pytest.mark.parametrize("depth", [40, 500, 20_000])
def test_transactions_within_transactions(kv: RawKv, depth: int) -> None:
    nested = b""
    for _ in range(depth):
        operation = kv_pb2.RequestOp.REQUEST_TXN_FIELD_NUMBER << 3 | 2, nested
        nested = length_delimited(
            kv_pb2.TxnRequest.SUCCESS_FIELD_NUMBER << 3 | 2, length_delimited(*operation)
        )
    with pytest.raises(grpc.RpcError) as refused:
        kv.unary(f"/{kv.service}/Txn", nested)
    assert code_of(refused.value) is INVALID_ARGUMENT


def length_delimited(tag: int, data: bytes) -> bytes:
    """A field of protobuf that holds a message, as bytes: the library itself makes none so deep."""
    out = bytearray((tag,))
    length = len(data)
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out) + data


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_as_session_messages(cluster: LocalCluster, garbage: bytes) -> None:
    method = "/paxos_rsm.v1.Session/Stream"
    with Calls(cluster["n2"].endpoint) as calls:
        answers = calls.stream(method, [garbage])
        told = session_pb2.ServerMessage.FromString(next(answers)).failure
        assert told.code == INVALID_ARGUMENT.value[0], told
        with pytest.raises(grpc.RpcError) as refused:
            next(answers)
        assert code_of(refused.value) is INVALID_ARGUMENT


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_as_frames(cluster: LocalCluster, garbage: bytes) -> None:
    """Within a sound message, where only the servers would meet it: it never reaches the log."""
    with RawSession(cluster["n3"].endpoint) as session:
        session.open()
        session.send(session_pb2.ClientMessage(submit=session_pb2.Submit(frame=garbage)))
        with pytest.raises(Failed) as told:
            session.receive()
        assert told.value.failure.code == INVALID_ARGUMENT.value[0]
    with RawKv(cluster["n1"].endpoint) as kv:
        kv.put(b"after", b"garbage")  # whatever were before it in the log is there now
    assert not in_any_log(cluster, garbage)


def in_any_log(cluster: LocalCluster, data: bytes) -> bool:
    """Whether the bytes stand in the log of a server."""
    for server in cluster:
        for segment in segments_of(server):
            with segment.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                if mapped.find(data) >= 0:
                    return True
    return False


def test_frames_that_no_client_may_send(cluster: LocalCluster) -> None:
    command = b"this command never reaches a log"
    frames = [
        session_pb2.Frame(session=1, first_seq=1, commands=[command]),
        session_pb2.Frame(first_seq=1, commands=[command], register=session_pb2.Register(nonce=7)),
        session_pb2.Frame(first_seq=1, commands=[command], expire=session_pb2.Expire(session=1)),
        session_pb2.Frame(first_seq=0, commands=[command]),
        session_pb2.Frame(first_seq=2**64 - 1, commands=[command]),
        session_pb2.Frame(first_seq=1),
        session_pb2.Frame(first_seq=1, received_below=99, commands=[command]),
    ]
    for frame in frames:
        with RawSession(cluster["n1"].endpoint) as session:
            session.open()
            frame.session = frame.session or session.session
            submit = session_pb2.Submit(frame=frame.SerializeToString())
            session.send(session_pb2.ClientMessage(submit=submit))
            with pytest.raises(Failed) as told:
                session.receive()
            assert told.value.failure.code == INVALID_ARGUMENT.value[0], frame
    with RawSession(cluster["n1"].endpoint) as session:
        session.open()
        session.submit(1, put_command(b"this one does", b"v"))
        session.results(1, 1)
    assert not in_any_log(cluster, command)
    assert in_any_log(cluster, b"this one does")


def test_a_client_of_another_cluster(cluster: LocalCluster) -> None:
    cluster_id = status_now(cluster["n1"]).cluster_id
    with RawSession(cluster["n1"].endpoint) as session, pytest.raises(Failed) as told:
        session.open(cluster_id=cluster_id + 1)
    assert told.value.failure.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert f"{cluster_id:x}" in told.value.failure.message
    with RawSession(cluster["n1"].endpoint) as session:
        session.read(value_query(b"alive"), cluster_id=cluster_id + 1)
        answer = session.read_results()
        assert answer.failure.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert not answer.results
        session.read(value_query(b"alive"), cluster_id=cluster_id)
        assert not session.read_results().HasField("failure")
    with RawSession(cluster["n1"].endpoint) as session:
        assert session.open(cluster_id=cluster_id).cluster_id == cluster_id


# ---- what is not even gRPC -------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NOISE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 1_000,
    Random(2).randbytes(4_000),
    PREFACE + b"\x00" * 100,
    PREFACE + Random(3).randbytes(2_000),
    PREFACE + b"\xff\xff\xff\x04\x00\x00\x00\x00\x00" + b"x" * 1_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + Random(4).randbytes(400),  # somebody speaks TLS
]


@pytest.mark.parametrize("port", ["client", "peer"])
def test_noise_on_both_ports(cluster: LocalCluster, port: str) -> None:
    for server in cluster:
        for noise in NOISE:
            address = "127.0.0.1", server.client_port if port == "client" else server.peer_port
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(noise)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(10)
                try:
                    while connection.recv(65_536):
                        pass
                except OSError:
                    pass  # the server has hung up, as well it may


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_on_the_peer_stream(cluster: LocalCluster, garbage: bytes) -> None:
    with Calls(f"127.0.0.1:{cluster['n1'].peer_port}") as calls:
        with pytest.raises(grpc.RpcError) as refused:
            list(calls.stream("/paxos_rsm.v1.Paxos/Stream", [garbage]))
        assert code_of(refused.value) is INVALID_ARGUMENT


def test_a_stranger_on_the_peer_stream(cluster: LocalCluster) -> None:
    """Sound messages from somebody who is not a member: refused at the Hello, nothing else is read."""
    status = status_now(cluster["n1"])
    hello = paxos_pb2.Hello(
        cluster_id=status.cluster_id,
        member=paxos_pb2.Member(
            incarnation=99, member_id=99, name="stranger", peer_url="http://127.0.0.1:1", client_urls=[]
        ),
        boot_count=1,
        promised=paxos_pb2.Ballot(),
        versions=[1],
        process=7,
    )
    prepare = paxos_pb2.Prepare(ballot=paxos_pb2.Ballot(round=2**62, node=99), first=1)
    promise_all = paxos_pb2.PeerMessage(prepare=prepare)
    frames = [
        paxos_pb2.PeerFrame(hello=hello).SerializeToString(),
        paxos_pb2.PeerFrame(messages=[promise_all]).SerializeToString(),
    ]
    for wrong_cluster in (False, True):
        if wrong_cluster:
            hello.cluster_id += 1
            frames[0] = paxos_pb2.PeerFrame(hello=hello).SerializeToString()
        with Calls(f"127.0.0.1:{cluster['n1'].peer_port}") as calls:
            answers = list(calls.stream("/paxos_rsm.v1.Paxos/Stream", frames))
        refusal = paxos_pb2.PeerReply.FromString(answers[0]).refusal
        reasons = paxos_pb2.Refusal.REASON_NOT_A_MEMBER, paxos_pb2.Refusal.REASON_WRONG_CLUSTER
        assert refusal.reason == reasons[wrong_cluster]
        assert "stranger" in refusal.message
        assert len(answers) == 1
    assert status_now(cluster["n1"]).ballot.round < prepare.ballot.round


def test_the_two_ports_do_not_serve_each_others_services(cluster: LocalCluster) -> None:
    with Calls(f"127.0.0.1:{cluster['n1'].peer_port}") as calls:
        for method in ("/paxos_rsm.v1.KV/Put", "/etcdserverpb.KV/Put", "/paxos_rsm.v1.Admin/Status"):
            with pytest.raises(grpc.RpcError) as refused:
                calls.unary(method, b"")
            assert code_of(refused.value) is grpc.StatusCode.UNIMPLEMENTED
    with Calls(cluster["n1"].endpoint) as calls:
        with pytest.raises(grpc.RpcError) as refused:
            list(calls.stream("/paxos_rsm.v1.Paxos/Stream", [b""]))
        assert code_of(refused.value) is grpc.StatusCode.UNIMPLEMENTED
        assert (
            admin_pb2.StatusResponse.FromString(calls.unary("/paxos_rsm.v1.Admin/Status", b"")).name == "n1"
        )
