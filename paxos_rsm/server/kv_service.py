"""The KV service: unary calls in etcd's own words, for any etcd client and any language.

One servicer under two names, ``paxos_rsm.v1.KV`` and ``etcdserverpb.KV``: the messages have etcd's field numbers,
so there is nothing to translate. What happens to a request::

    Range, Txn that only reads   checked -> read index -> asked of the local state    (serializable: at once)
    Put, DeleteRange, Txn, ...   checked -> one of the server's own sessions -> log -> result of the local apply

A request is checked here, before the log, by the function that the state machine applies again when it comes out of
the log; so both answer alike. A write goes into the log as the bytes it came as, with one tag in front.
"""

from collections.abc import Awaitable, Callable

import grpc

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.codec.kv import Request, request_from_pb
from paxos_rsm.machines.kv.check import check, is_read_only
from paxos_rsm.machines.kv.types import Command, Operation, Range, Txn
from paxos_rsm.server.etcd_calls import EtcdCalls
from paxos_rsm.server.rpc import (
    Context,
    length_delimited,
    parse,
    service_handler,
    unary_handler,
)

__all__ = ["SERVICES", "KvService"]

SERVICES = ("paxos_rsm.v1.KV", "etcdserverpb.KV")

# Of each method: its field in KvCommand, and its request.
METHODS: dict[str, tuple[int, type[Request]]] = {
    "Range": (1, pb.RangeRequest),
    "Put": (2, pb.PutRequest),
    "DeleteRange": (3, pb.DeleteRangeRequest),
    "Txn": (4, pb.TxnRequest),
    "Compact": (5, pb.CompactionRequest),
}


class KvService:
    """Range, Put, DeleteRange, Txn and Compact."""

    def __init__(self, calls: EtcdCalls) -> None:
        self._calls = calls

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server is given: the one servicer, under both names."""
        methods = {name: unary_handler(behaviour) for name, behaviour in self.methods().items()}
        return [service_handler(service, methods) for service in SERVICES]

    def methods(self) -> dict[str, Callable[[bytes, Context], Awaitable[bytes]]]:
        """Each method by its name: bytes in, bytes out."""
        return {name: self._method(*each) for name, each in METHODS.items()}

    def _method(
        self, field: int, request_type: type[Request]
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        calls = self._calls

        async def call(data: bytes, context: Context) -> bytes:
            request = request_from_pb(parse(request_type, data))
            calls.refuse(check(request), len(data))
            command = length_delimited(field, data)
            if is_read_only(request):
                result = await calls.query(command, context, serializable=_is_serializable(request))
            else:
                result = await calls.submit(command, context)
            return calls.response(result).SerializeToString()

        return call


def _is_serializable(request: Command | Operation) -> bool:
    """Whether stale state will do: a transaction of reads says so by each of them, as in etcd."""
    if isinstance(request, Txn):
        inner = [*request.success, *request.failure]
        return bool(inner) and all(map(_is_serializable, inner))
    return isinstance(request, Range) and request.serializable
