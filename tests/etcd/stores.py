"""One stub for both: etcd's services as they lie on the wire, and answers that can be compared.

What must differ is taken out of an answer (:data:`DIFFERENT_HEADERS`): nothing else is.
"""

import queue
from typing import Any, NamedTuple

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message

from paxos_rsm._proto import kv_pb2 as kv
from paxos_rsm._proto import lease_pb2 as lease
from paxos_rsm.codec.kv import Request
from tests.integration.raw import CHANNEL_OPTIONS, code_of, details_of

__all__ = ["Answer", "Store"]

TIMEOUT_S = 60.0

# Of a cluster, a server, and a ballot: they say nothing about the store.
DIFFERENT_HEADERS = ("cluster_id", "member_id", "raft_term")

# The request's type, the service that it belongs to, its method and its answer.
METHODS: dict[type[Message], tuple[str, type[Message]]] = {
    kv.RangeRequest: ("KV/Range", kv.RangeResponse),
    kv.PutRequest: ("KV/Put", kv.PutResponse),
    kv.DeleteRangeRequest: ("KV/DeleteRange", kv.DeleteRangeResponse),
    kv.TxnRequest: ("KV/Txn", kv.TxnResponse),
    kv.CompactionRequest: ("KV/Compact", kv.CompactionResponse),
    kv.LeaseGrantRequest: ("Lease/LeaseGrant", kv.LeaseGrantResponse),
    kv.LeaseRevokeRequest: ("Lease/LeaseRevoke", kv.LeaseRevokeResponse),
    lease.LeaseTimeToLiveRequest: ("Lease/LeaseTimeToLive", lease.LeaseTimeToLiveResponse),
    lease.LeaseLeasesRequest: ("Lease/LeaseLeases", lease.LeaseLeasesResponse),
}


class Answer(NamedTuple):
    """How a call ended: a message, or a status and its words."""

    message: Any = None
    code: str = "OK"
    words: str = ""

    def __str__(self) -> str:
        if self.message is None:
            return f"{self.code}: {self.words}"
        return text_format.MessageToString(self.message, as_one_line=True) or "(an empty message)"


class Store:
    """Unary calls at one endpoint, in etcd's names."""

    def __init__(self, endpoint: str, package: str = "etcdserverpb") -> None:
        self.channel = grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        self._package = package
        self._calls = {
            request: self.channel.unary_unary(
                f"/{package}.{method}", request.SerializeToString, response.FromString
            )
            for request, (method, response) in METHODS.items()
        }
        self.revision = 0
        """Of the last header that was seen."""

    def call(self, request: Request | Any) -> Answer:
        """The answer, with what must differ taken out."""
        try:
            message = self._calls[type(request)](request, timeout=TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            return Answer(None, code_of(error).name, details_of(error))
        return self._comparable(message)

    def keep_alive(self, lease_id: int) -> Answer:
        """One keep-alive on a stream of its own."""
        call = self.channel.stream_stream(
            f"/{self._package}.Lease/LeaseKeepAlive",
            kv.LeaseKeepAliveRequest.SerializeToString,
            kv.LeaseKeepAliveResponse.FromString,
        )
        requests: queue.SimpleQueue[kv.LeaseKeepAliveRequest | None] = queue.SimpleQueue()
        requests.put(kv.LeaseKeepAliveRequest(ID=lease_id))
        stream = call(iter(requests.get, None), timeout=TIMEOUT_S, wait_for_ready=True)
        try:
            message = next(stream)
        except grpc.RpcError as error:
            return Answer(None, code_of(error).name, details_of(error))
        finally:
            requests.put(None)
            stream.cancel()
        return self._comparable(message)

    def _comparable(self, message: Any) -> Answer:
        self.revision = message.header.revision
        for name in DIFFERENT_HEADERS:
            message.header.ClearField(name)
        return Answer(message)

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()
