"""Clients without a client: the services as they lie on the wire, for tests of what the SDK would smooth over.

:class:`RawSession` is one stream of the Session service, message by message; :class:`RawKv` the unary calls of the KV
service, under either of its names. Both block, and raise what gRPC raises. :class:`Calls` is any method at all, with
bytes in and bytes out, for what does not parse.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

import grpc
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from paxos_rsm._proto import kv_pb2, session_pb2, session_pb2_grpc

__all__ = [
    "KV_SERVICES",
    "Calls",
    "Failed",
    "RawKv",
    "RawSession",
    "StreamEnded",
    "code_of",
    "details_of",
    "put_command",
    "value_query",
    "value_result",
]

KV_SERVICES = ("paxos_rsm.v1.KV", "etcdserverpb.KV")

ANSWER_TIMEOUT_S = 30.0
"""For what must come: generous, a machine may be busy."""

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
)


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The status of a call that failed."""
    code: grpc.StatusCode = cast(grpc.Call, error).code()
    return code


def details_of(error: grpc.RpcError) -> str:
    """The sentence of a call that failed."""
    return str(cast(grpc.Call, error).details())


class StreamEnded(Exception):
    """The stream has ended, with this status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


class Failed(Exception):
    """The server has put a Failure on the stream."""

    def __init__(self, failure: session_pb2.Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


class Calls:
    """One channel to one server, and its methods by name."""

    def __init__(self, endpoint: str) -> None:
        self.channel = grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)

    def unary(self, method: str, request: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> bytes:
        """One call of ``/service/Method``, bytes as they are. Raises grpc.RpcError."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return call(request, timeout=timeout_s, wait_for_ready=True)

    def stream(
        self, method: str, requests: Sequence[bytes], timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Iterator[bytes]:
        """One call with a stream each way; the way out ends after ``requests``. Raises grpc.RpcError."""
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = self.channel.stream_stream(method)
        return call(iter(requests), timeout=timeout_s, wait_for_ready=True)

    def health(self, service: str = "") -> str:
        """``SERVING`` or ``NOT_SERVING``."""
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        answer = health_pb2.HealthCheckResponse.FromString(
            self.unary("/grpc.health.v1.Health/Check", request)
        )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawKv(Calls):
    """The unary calls of the KV service at one server."""

    def __init__(self, endpoint: str, service: str = KV_SERVICES[0]) -> None:
        super().__init__(endpoint)
        self.service = service

    def put(
        self, key: bytes, value: bytes, timeout_s: float = ANSWER_TIMEOUT_S, wait_for_ready: bool = True
    ) -> kv_pb2.PutResponse:
        """Put."""
        call = self.channel.unary_unary(
            f"/{self.service}/Put", kv_pb2.PutRequest.SerializeToString, kv_pb2.PutResponse.FromString
        )
        response: kv_pb2.PutResponse = call(
            kv_pb2.PutRequest(key=key, value=value), timeout=timeout_s, wait_for_ready=wait_for_ready
        )
        return response

    def get(
        self,
        key: bytes,
        *,
        range_end: bytes = b"",
        revision: int = 0,
        serializable: bool = False,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> kv_pb2.RangeResponse:
        """Range."""
        request = kv_pb2.RangeRequest(
            key=key, range_end=range_end, revision=revision, serializable=serializable
        )
        response: kv_pb2.RangeResponse = self._range()(request, timeout=timeout_s, wait_for_ready=True)
        return response

    def value(self, key: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> bytes | None:
        """One value, linearizable; None where the key is missing."""
        found = self.get(key, timeout_s=timeout_s).kvs
        return found[0].value if found else None

    def begin_put(self, key: bytes, value: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Put, sent now; the future of a PutResponse."""
        call = self.channel.unary_unary(
            f"/{self.service}/Put", kv_pb2.PutRequest.SerializeToString, kv_pb2.PutResponse.FromString
        )
        return call.future(kv_pb2.PutRequest(key=key, value=value), timeout=timeout_s, wait_for_ready=True)

    def begin_get(self, key: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Range, sent now; the future of a RangeResponse."""
        request = kv_pb2.RangeRequest(key=key)
        return self._range().future(request, timeout=timeout_s, wait_for_ready=True)

    def txn(self, request: kv_pb2.TxnRequest) -> kv_pb2.TxnResponse:
        """Txn."""
        call = self.channel.unary_unary(
            f"/{self.service}/Txn", kv_pb2.TxnRequest.SerializeToString, kv_pb2.TxnResponse.FromString
        )
        response: kv_pb2.TxnResponse = call(request, timeout=ANSWER_TIMEOUT_S, wait_for_ready=True)
        return response

    def compact(self, revision: int) -> kv_pb2.CompactionResponse:
        """Compact."""
        call = self.channel.unary_unary(
            f"/{self.service}/Compact",
            kv_pb2.CompactionRequest.SerializeToString,
            kv_pb2.CompactionResponse.FromString,
        )
        request = kv_pb2.CompactionRequest(revision=revision)
        response: kv_pb2.CompactionResponse = call(request, timeout=ANSWER_TIMEOUT_S, wait_for_ready=True)
        return response

    def _range(self) -> "grpc.UnaryUnaryMultiCallable[kv_pb2.RangeRequest, kv_pb2.RangeResponse]":
        return self.channel.unary_unary(
            f"/{self.service}/Range", kv_pb2.RangeRequest.SerializeToString, kv_pb2.RangeResponse.FromString
        )


class _End(NamedTuple):
    code: grpc.StatusCode
    details: str


class RawSession:
    """One stream of the Session service at one server; a thread of its own reads what comes.

    ``session`` is the number of the session that is open on it, 0 before :meth:`open`.
    """

    def __init__(self, endpoint: str) -> None:
        self.session = 0
        self._channel = grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        self._outgoing: queue.SimpleQueue[session_pb2.ClientMessage | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[session_pb2.ServerMessage | _End] = queue.SimpleQueue()
        stub = session_pb2_grpc.SessionStub(self._channel)
        self._call = stub.Stream(iter(self._outgoing.get, None), wait_for_ready=True)
        self._early: list[session_pb2.ServerMessage] = []
        self._reads = 0
        self._thread = threading.Thread(target=self._receive, name=f"session at {endpoint}", daemon=True)
        self._thread.start()

    # ---- to the server -----------------------------------------------------------------------------------

    def open(self, session: int = 0, cluster_id: int = 0) -> session_pb2.Opened:
        """Opens a new session, or goes on with one, and waits until that is done.

        Results may come before: of what was on its way when the session was open elsewhere, and is applied here now.
        """
        self.send(session_pb2.ClientMessage(open=session_pb2.Open(session=session, cluster_id=cluster_id)))
        while (message := self.receive()).WhichOneof("message") == "results":
            self._early.append(message)
        assert message.WhichOneof("message") == "opened", message
        self.session = message.opened.session
        return message.opened

    def submit(self, first_seq: int, *commands: bytes, received_below: int = 1) -> None:
        """Sends a frame; see :meth:`results`."""
        frame = session_pb2.Frame(
            session=self.session, first_seq=first_seq, received_below=received_below, commands=commands
        )
        submit = session_pb2.Submit(frame=frame.SerializeToString())
        self.send(session_pb2.ClientMessage(submit=submit))

    def read(self, *requests: bytes, serializable: bool = False, cluster_id: int = 0) -> int:
        """Sends a Read and gives its id; see :meth:`read_results`."""
        self._reads += 1
        read = session_pb2.Read(
            id=self._reads, serializable=serializable, requests=requests, cluster_id=cluster_id
        )
        self.send(session_pb2.ClientMessage(read=read))
        return self._reads

    def send(self, message: session_pb2.ClientMessage) -> None:
        """Sends any message."""
        self._outgoing.put(message)

    # ---- from the server ---------------------------------------------------------------------------------

    def receive(self, timeout_s: float = ANSWER_TIMEOUT_S) -> session_pb2.ServerMessage:
        """The next message. Raises Failed where it is a Failure, StreamEnded after the last one."""
        try:
            message = self._incoming.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"the server said nothing for {timeout_s:g} s") from None
        if isinstance(message, _End):
            self._incoming.put(message)
            raise StreamEnded(*message)
        if message.WhichOneof("message") == "failure":
            raise Failed(message.failure)
        return message

    def results(self, first_seq: int, count: int) -> list[bytes]:
        """The results of ``first_seq, first_seq + 1, ...``, in however many messages they come."""
        found: dict[int, bytes] = {}
        wanted = range(first_seq, first_seq + count)
        while not all(seq in found for seq in wanted):
            message = self._early.pop(0) if self._early else self.receive()
            assert message.WhichOneof("message") == "results", message
            for seq, result in enumerate(message.results.results, message.results.first_seq):
                assert found.get(seq, result) == result, f"command {seq} was answered in two ways"
                found[seq] = result
        return [found[seq] for seq in wanted]

    def read_results(self) -> session_pb2.ReadResults:
        """The next answer to a Read, be it results or a failure within."""
        message = self.receive()
        assert message.WhichOneof("message") == "read_results", message
        return message.read_results

    # ---- ends --------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Ends the stream and its connection without another word, as a client does that dies."""
        self._outgoing.put(None)
        self._call.cancel()
        self._channel.close()
        self._thread.join(ANSWER_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def _receive(self) -> None:
        try:
            for message in self._call:
                self._incoming.put(message)
            end = _End(grpc.StatusCode.OK, "")
        except grpc.RpcError as error:
            end = _End(code_of(error), details_of(error))
        except ValueError:  # the channel was closed under its hands
            end = _End(grpc.StatusCode.CANCELLED, "closed")
        self._incoming.put(end)


def put_command(key: bytes, value: bytes) -> bytes:
    """A put, as a command of a session."""
    return kv_pb2.KvCommand(put=kv_pb2.PutRequest(key=key, value=value)).SerializeToString()


def value_query(key: bytes) -> bytes:
    """What a Read asks the key-value machine for one key."""
    return kv_pb2.KvCommand(range=kv_pb2.RangeRequest(key=key)).SerializeToString()


def value_result(result: bytes) -> bytes | None:
    """The value in the answer to :func:`value_query`; None where the key is missing."""
    answer = kv_pb2.KvResult.FromString(result)
    assert answer.WhichOneof("response") == "range", answer
    return answer.range.kvs[0].value if answer.range.kvs else None
