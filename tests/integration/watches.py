"""Watch streams as they lie on the wire, without the SDK that would resume them by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from paxos_rsm._proto import kv_pb2, watch_pb2
from tests.integration.raw import ANSWER_TIMEOUT_S, CHANNEL_OPTIONS

__all__ = ["SERVICES", "RawWatches", "compact", "connected"]

SERVICES = ("paxos_rsm.v1.Watch", "etcdserverpb.Watch")


@asynccontextmanager
async def connected(endpoint: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server; several streams may share it."""
    channel = grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
    try:
        yield channel
    finally:
        await channel.close()


async def compact(channel: grpc.aio.Channel, revision: int) -> None:
    """Compacts the store."""
    call: Any = channel.unary_unary(
        "/etcdserverpb.KV/Compact",
        request_serializer=kv_pb2.CompactionRequest.SerializeToString,
        response_deserializer=kv_pb2.CompactionResponse.FromString,
    )
    await call(kv_pb2.CompactionRequest(revision=revision), timeout=ANSWER_TIMEOUT_S)


class RawWatches:
    """One stream, with as many watches as are made on it."""

    def __init__(self, channel: grpc.aio.Channel, service: str = SERVICES[1], metadata: Any = None) -> None:
        self._call: Any = channel.stream_stream(
            f"/{service}/Watch",
            request_serializer=watch_pb2.WatchRequest.SerializeToString,
            response_deserializer=watch_pb2.WatchResponse.FromString,
        )(metadata=metadata, wait_for_ready=True)

    async def send(self, key: bytes, **options: Any) -> None:
        """Asks for a watch."""
        create = watch_pb2.WatchCreateRequest(key=key, **options)
        await self._call.write(watch_pb2.WatchRequest(create_request=create))

    async def watch(self, key: bytes, **options: Any) -> watch_pb2.WatchResponse:
        """Makes a watch, where nothing else is on its way; what the server says of it."""
        await self.send(key, **options)
        response = await self.receive()
        assert response.created, response
        return response

    async def receive(self, timeout_s: float = ANSWER_TIMEOUT_S) -> watch_pb2.WatchResponse:
        """The next response. Raises EOFError with the status where the stream has ended."""
        response = await asyncio.wait_for(self._call.read(), timeout_s)
        if response is grpc.aio.EOF:
            raise EOFError(f"{await self._call.code()}: {await self._call.details()}")
        assert isinstance(response, watch_pb2.WatchResponse)
        return response

    async def revisions(self, last: int) -> list[int]:
        """The revision of each event, up to the one of revision ``last``; of a stream with one watch."""
        found: list[int] = []
        while not found or found[-1] < last:
            response = await self.receive()
            assert response.events, response
            found += [event.kv.mod_revision for event in response.events]
        return found

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended."""
        try:
            while await asyncio.wait_for(self._call.read(), ANSWER_TIMEOUT_S) is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self._call.code(), await self._call.details()
