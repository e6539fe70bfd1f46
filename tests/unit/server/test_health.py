"""Health, checked and watched, for every service; and what reflection lists."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]

from paxos_rsm._proto import admin_pb2, kv_pb2, session_pb2
from paxos_rsm.errors import Unavailable
from paxos_rsm.server import health as health_module
from paxos_rsm.server.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, HealthService, enable_reflection
from tests.unit.server.fakes import FakeReplica, serving, until

NAMES = ["paxos_rsm.v1.KV", "etcdserverpb.KV"]


class Stage:
    def __init__(self, service: HealthService, channel: grpc.aio.Channel) -> None:
        self.service = service
        self.channel = channel

    async def check(self, service: str = "") -> int:
        call: Any = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        data = await call(pb.HealthCheckRequest(service=service).SerializeToString())
        status: int = pb.HealthCheckResponse.FromString(data).status
        return status

    def watch(self, service: str = "") -> Any:
        call: Any = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            response_deserializer=lambda data: pb.HealthCheckResponse.FromString(data).status,
        )
        return call(pb.HealthCheckRequest(service=service).SerializeToString())


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    service = HealthService(NAMES)
    async with serving(service.handler()) as (_, channel):
        yield Stage(service, channel)


async def test_nothing_is_served_before_there_is_a_leader(stage: Stage) -> None:
    for name in ["", *NAMES]:
        assert await stage.check(name) == NOT_SERVING
    stage.service.set_serving(True)
    for name in ["", *NAMES]:
        assert await stage.check(name) == SERVING
    stage.service.set_serving(False)
    assert await stage.check() == NOT_SERVING


async def test_nothing_is_served_while_the_state_is_not_here(stage: Stage) -> None:
    stage.service.set_serving(True)
    watch = stage.watch()
    assert await watch.read() == SERVING
    stage.service.set_installing(True)
    assert await watch.read() == NOT_SERVING
    for name in ["", "readiness", *NAMES]:
        assert await stage.check(name) == NOT_SERVING
    stage.service.set_installing(True)  # once since the start, and once when the snapshot has come
    stage.service.set_installing(False)
    assert await watch.read() == SERVING


async def test_a_server_that_is_behind_is_ready_from_the_first_read_on_that_works() -> None:
    service, replica = HealthService(NAMES, is_behind=True), FakeReplica()
    catching_up = asyncio.create_task(service.catch_up(replica.read))
    async with serving(service.handler()) as (_, channel):
        stage = Stage(service, channel)
        watch = stage.watch("readiness")
        assert await watch.read() == NOT_SERVING
        await asyncio.sleep(0.01)
        assert replica.reads_asked == 0, "nobody leads"
        replica.read_error = Unavailable("the leader is away")
        service.set_serving(True)
        await until(lambda: replica.reads_asked > 1)
        assert await stage.check() == NOT_SERVING
        replica.hold()
        asked = replica.reads_asked
        await until(lambda: replica.reads_asked > asked)
        replica.read_error = None
        assert await stage.check() == NOT_SERVING
        assert await stage.check("liveness") == SERVING
        replica.release()
        assert await watch.read() == SERVING
        await catching_up
        service.set_serving(False)
        service.set_serving(True)
        assert await stage.check() == SERVING, "it was not away"


async def test_who_stops_waits_for_no_read_and_spoils_it_for_nobody() -> None:
    service, replica = HealthService(NAMES, is_behind=True), FakeReplica()
    service.set_serving(True)
    replica.hold()
    shared = replica.read()
    catching_up = asyncio.create_task(service.catch_up(lambda: shared))
    await asyncio.sleep(0.01)
    catching_up.cancel()
    await asyncio.gather(catching_up, return_exceptions=True)
    replica.release()
    await shared


async def test_a_server_lives_until_it_stops(stage: Stage) -> None:
    assert await stage.check("liveness") == SERVING
    stage.service.set_installing(True)
    assert await stage.check("liveness") == SERVING
    stage.service.stop()
    assert await stage.check("liveness") == NOT_SERVING


async def test_an_unknown_service_is_not_found(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stage.check("no.Such")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert "etcdserverpb.KV, liveness, paxos_rsm.v1.KV, readiness" in (raised.value.details() or "")
    assert await stage.watch("no.Such").read() == SERVICE_UNKNOWN


async def test_a_watcher_is_told_of_every_change_that_lasts(stage: Stage) -> None:
    watch = stage.watch("paxos_rsm.v1.KV")
    assert await watch.read() == NOT_SERVING
    stage.service.set_serving(True)
    assert await watch.read() == SERVING
    stage.service.set_serving(True)
    stage.service.set_serving(False)
    assert await watch.read() == NOT_SERVING


async def test_stopping_is_for_good_and_ends_every_watch(stage: Stage) -> None:
    stage.service.set_serving(True)
    watch = stage.watch()
    assert await watch.read() == SERVING
    stage.service.stop()
    stage.service.set_serving(True)
    assert await watch.read() == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF
    assert await stage.check() == NOT_SERVING


async def test_a_watcher_that_does_not_read_holds_up_nobody(stage: Stage) -> None:
    stage.watch()  # never read
    await until(lambda: stage.service._watchers == 1)
    for _ in range(100):
        stage.service.set_serving(True)
        await asyncio.sleep(0)
        stage.service.set_serving(False)
        await asyncio.sleep(0)
    stage.service.set_serving(True)
    assert await stage.check() == SERVING


async def test_watchers_are_bounded_and_forgotten_when_they_leave(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "WATCHERS_MAX", 2)
    watches = [stage.watch() for _ in range(2)]
    for watch in watches:
        await watch.read()
    refused = stage.watch()
    assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    watches[0].cancel()
    await until(lambda: stage.service._watchers == 1)
    assert await stage.watch().read() == NOT_SERVING


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_garbage_gets_a_clean_status(stage: Stage, method: str) -> None:
    rpc: Any = stage.channel.unary_stream(f"/grpc.health.v1.Health/{method}")
    call = rpc(b"\xff\xff")
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_reflection_lists_and_describes_the_services() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    services = [
        module.DESCRIPTOR.services_by_name[name].full_name
        for module, name in ((session_pb2, "Session"), (kv_pb2, "KV"), (admin_pb2, "Admin"))
    ]
    enable_reflection(server, services)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = [each.name for each in (await call.read()).list_services_response.service]
        assert set(services) | {"grpc.health.v1.Health"} <= set(listed)
        for name in listed:
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
            assert (await call.read()).file_descriptor_response.file_descriptor_proto
        await call.done_writing()
    await server.stop(None)


async def test_what_happens_while_a_watcher_is_written_to_is_not_missed() -> None:
    service = HealthService(NAMES)
    written: list[int] = []

    class Slow:
        """A call whose every write takes until something else has happened."""

        async def write(self, data: bytes) -> None:
            written.append(pb.HealthCheckResponse.FromString(data).status)
            if len(written) == 1:
                service.stop()

    service.set_serving(True)
    context: Any = Slow()
    await service._watch(b"", context)
    assert written == [SERVING, NOT_SERVING]
