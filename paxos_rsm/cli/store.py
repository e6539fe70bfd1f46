"""From a command line to the key-value store and back: requests and answers are those of the wire.

A write is sent as a command of the client's session, so it takes effect once, however often it had to be sent; a read
is a query of its. What comes back is the store's own response, all of it, which `paxos_rsm.cli.answers` prints.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from paxos_rsm.cli.connect import connected
from paxos_rsm.cli.direct import complete_header
from paxos_rsm.cli.options import Settings

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from paxos_rsm._proto import kv_pb2 as pb
    from paxos_rsm.client import AsyncClient, KeyValue, RangeResult

__all__ = ["ask_store", "execute", "key_value_to_pb", "range_to_pb", "work"]


async def execute(client: "AsyncClient", command: "pb.KvCommand", *, timeout_s: float | None = None) -> "Any":
    """Has the store execute ``command``, or answer it where it only reads; returns the response of its kind.

    Raises ClientError, in the store's words, where it refuses.
    """
    from paxos_rsm.client.commands import open_result

    kind = command.WhichOneof("request") or ""
    data = command.SerializeToString()
    if _reads_only(command):
        raw = await client.query(data, timeout_s=timeout_s)
    else:
        raw = await client.submit(data, timeout_s=timeout_s)
    return getattr(open_result(raw, cast(Any, kind)), kind)


def _reads_only(command: "pb.KvCommand") -> bool:
    def only_reads(txn: "pb.TxnRequest") -> bool:
        for op in (*txn.success, *txn.failure):
            kind = op.WhichOneof("request")
            if kind == "request_txn":
                if not only_reads(op.request_txn):
                    return False
            elif kind != "request_range":
                return False
        return True

    return command.HasField("range") or (command.HasField("txn") and only_reads(command.txn))


def work(settings: Settings, do: "Callable[[AsyncClient], Awaitable[Message]]") -> "Any":
    """Does ``do`` with a client; returns its answer, with a header that is complete where it will be shown."""

    async def whole() -> "Message":
        async with connected(settings) as client:
            answer = await do(client)
        await complete_header(settings, answer.header)  # type: ignore[attr-defined]
        return answer

    return asyncio.run(whole())


def ask_store(settings: Settings, command: "pb.KvCommand") -> "Any":
    """One command of the store, with a client of its own."""
    return work(settings, lambda client: execute(client, command))


def key_value_to_pb(kv: "KeyValue") -> "pb.KeyValue":
    """One key, as it was on the wire."""
    from paxos_rsm._proto import kv_pb2 as pb

    return pb.KeyValue(
        key=kv.key,
        value=kv.value,
        version=kv.version,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        lease=kv.lease,
    )


def range_to_pb(result: "RangeResult") -> "pb.RangeResponse":
    """What the client read, as it was on the wire."""
    from paxos_rsm._proto import kv_pb2 as pb

    return pb.RangeResponse(
        header=pb.ResponseHeader(revision=result.revision),
        kvs=map(key_value_to_pb, result.kvs),
        more=result.more,
        count=result.count,
    )
