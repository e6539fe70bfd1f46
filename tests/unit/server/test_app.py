"""A whole server, wired, on real ports and a real directory: up, in use, refused, failed, and down in order."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import admin_pb2, kv_pb2
from paxos_rsm.config import ServerConfig, Tuning
from paxos_rsm.errors import ConfigError, DirectoryLocked, DirectoryUnusable, IdentityMismatch, LogIOError
from paxos_rsm.machines.base import Position, SimpleMachine
from paxos_rsm.server import Server
from paxos_rsm.testing.ports import PortHolder
from tests.unit.server.fakes import SessionClient, get, put, until

NOT_SERVING, SERVING = b"\x08\x02", b"\x08\x01"


class Counter(SimpleMachine):
    """Adds up."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, command: bytes, at: Position) -> bytes:
        if command == b"break":
            raise ZeroDivisionError("this machine is broken")
        self.total += int(command)
        return self.dump()

    def query(self, request: bytes) -> bytes:
        return self.dump()

    def dump(self) -> bytes:
        return b"%d" % self.total

    def load(self, state: bytes) -> None:
        self.total = int(state)


class Place:
    """A directory and ports for as many servers as a test wants."""

    def __init__(self, directory: Path, ports: PortHolder) -> None:
        self.directory = directory
        self.ports = ports

    def config(self, **more: Any) -> ServerConfig:
        client, peer = self.ports.take(2)
        return ServerConfig(
            name="n1",
            data_dir=str(self.directory / "n1"),
            listen_client_urls=(f"http://127.0.0.1:{client}",),
            listen_peer_urls=(f"http://127.0.0.1:{peer}",),
            tuning=Tuning(tick_ms=5, heartbeat_ms=10, election_timeout_ms=400, shutdown_grace_ms=2_000),
            **more,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with PortHolder() as ports:
        yield Place(tmp_path, ports)


class Client:
    """Calls to one server, message by message."""

    def __init__(self, config: ServerConfig) -> None:
        self.channel = grpc.aio.insecure_channel(
            config.listen_client_urls[0].removeprefix("http://"),
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)],
        )

    async def call(self, method: str, request: Any = b"", *, timeout: float | None = None) -> bytes:
        rpc: Any = self.channel.unary_unary(method)
        data = request if isinstance(request, bytes) else request.SerializeToString()
        answer: bytes = await rpc(data, wait_for_ready=True, timeout=timeout)
        return answer

    async def refused(self, method: str, request: Any = b"") -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, request)
        return raised.value.code(), raised.value.details() or ""

    async def put(self, key: bytes, value: bytes) -> int:
        data = await self.call("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=key, value=value))
        return kv_pb2.PutResponse.FromString(data).header.revision

    async def get(self, key: bytes) -> list[bytes]:
        data = await self.call("/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=key))
        return [kv.value for kv in kv_pb2.RangeResponse.FromString(data).kvs]

    async def status(self) -> admin_pb2.StatusResponse:
        data = await self.call("/paxos_rsm.v1.Admin/Status", admin_pb2.StatusRequest(digest=True))
        return admin_pb2.StatusResponse.FromString(data)

    async def health(self) -> bytes:
        return await self.call("/grpc.health.v1.Health/Check")

    async def until_healthy(self) -> None:
        async with asyncio.timeout(20):
            while await self.health() != SERVING:  # noqa: ASYNC110 - it is another process, for all we know
                await asyncio.sleep(0.01)


@pytest.fixture
async def clients() -> AsyncIterator[Any]:
    made: list[Client] = []

    def make(config: ServerConfig) -> Client:
        made.append(Client(config))
        return made[-1]

    yield make
    for each in made:
        await each.channel.close()


# ---- in use ------------------------------------------------------------------------------------------------


async def test_a_cluster_of_one_serves_and_remembers(place: Place, clients: Any) -> None:
    config = place.config()
    for boot in (1, 2, 3):
        async with Server(config):
            client = clients(config)
            assert await client.put(b"k%d" % boot, b"v") == boot + 1
            assert await client.get(b"k1") == [b"v"]
            await client.until_healthy()
            status = await client.status()
            assert (status.role, status.leader, status.boot_count) == ("leader", "n1", boot)
            assert (status.revision, status.cluster_id, status.member_id) == (
                boot + 1,
                config.cluster_id,
                config.member_id,
            )
            assert status.ballot.round >= boot
            assert len(status.digest) == 16


async def test_the_log_names_the_leader_and_the_members(
    place: Place, clients: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = place.config()
    for _ in range(2):
        caplog.clear()
        async with Server(config):
            await clients(config).put(b"k", b"v")
    (leads,) = (each for each in caplog.records if each.message == "there is a leader")
    assert leads.__dict__["leader"] == "n1"
    assert f"the members are n1 ({config.listen_peer_urls[0]})" in caplog.text


async def test_a_server_whose_state_is_replaced_is_not_ready(place: Place, clients: Any) -> None:
    config = place.config()
    async with Server(config) as server:
        client = clients(config)
        await client.until_healthy()
        assert server._replica is not None
        server._replica._installing(True)
        assert await client.health() == NOT_SERVING
        server._replica._installing(False)
        assert await client.health() == SERVING


async def test_sessions_and_unary_calls_meet_in_one_store(place: Place, clients: Any) -> None:
    async with Server(place.config()) as server:
        client = clients(server.config)
        session = SessionClient(client.channel)
        await session.open()
        await session.submit(1, [put(b"a", b"1")])
        await session.results(1)
        assert await client.get(b"a") == [b"1"]
        await client.put(b"b", b"2")
        answer = await session.read(1, get(b"b"))
        assert kv_pb2.KvResult.FromString(answer.results[0]).range.kvs[0].value == b"2"


async def test_a_machine_of_the_users_own(place: Place, clients: Any) -> None:
    async with Server(place.config(), machine=Counter()) as server:
        client = clients(server.config)
        session = SessionClient(client.channel)
        await session.open()
        await session.submit(1, [b"5", b"7"])
        assert await session.results(2) == [b"5", b"12"]
        assert (await session.read(1, b"")).results == [b"12"]
        assert (await client.status()).revision == 0
        code, details = await client.refused("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"a"))
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert "test_app:Counter" in details


async def test_a_member_alone_waits_for_the_others_and_says_so(place: Place, clients: Any) -> None:
    config = place.config()
    peer = config.listen_peer_urls[0]
    other = f"http://127.0.0.1:{place.ports.take(1)[0]}"
    async with Server(replace(config, initial_cluster=f"n1={peer},n2={other}")) as server:
        client = clients(server.config)
        assert await client.health() == NOT_SERVING
        status = await client.status()
        assert (status.role, status.leader) == ("forming", "")
        assert [(m.name, m.connected) for m in status.members] == [("n1", True), ("n2", False)]
        refused = await client.refused("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"a"))
        assert refused == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")


async def test_an_overlong_request_is_refused_in_etcds_words(place: Place, clients: Any) -> None:
    async with Server(place.config()) as server:
        client = clients(server.config)
        for size in (1_572_864, 2_000_000, 6_000_000):
            request = kv_pb2.PutRequest(key=b"k", value=b"x" * size)
            refused = await client.refused("/etcdserverpb.KV/Put", request)
            assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large")
        assert await client.put(b"k", b"x" * (1_572_864 - 100)) == 2


@pytest.mark.parametrize("which", ["listen_client_urls", "listen_peer_urls"])
async def test_garbage_on_a_port_disturbs_nobody(place: Place, clients: Any, which: str) -> None:
    async with Server(place.config()) as server:
        host, _, port = getattr(server.config, which)[0].removeprefix("http://").rpartition(":")
        for garbage in (
            b"\0" * 100,
            Random(1).randbytes(5_000),
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(garbage)
            writer.write_eof()
            try:
                await asyncio.wait_for(reader.read(), 30)
            except ConnectionError:
                pass
            writer.close()
        assert await clients(server.config).put(b"a", b"1") == 2


# ---- refused -----------------------------------------------------------------------------------------------


async def fails(server: Server, error: type[Exception]) -> str:
    with pytest.raises(error) as raised:
        await server.start()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("which", "whom"), [("listen_client_urls", "clients"), ("listen_peer_urls", "peers")]
)
async def test_a_port_in_use_is_explained_and_leaves_nothing(place: Place, which: str, whom: str) -> None:
    config = place.config()
    port = int(getattr(config, which)[0].rpartition(":")[2])
    taken = await asyncio.start_server(lambda _, __: None, "127.0.0.1", port)
    said = await fails(Server(config), ConfigError)
    assert f"cannot listen for {whom}" in said
    assert f"port {port} is in use" in said
    assert not config.directory.exists()
    taken.close()
    async with Server(config):
        pass


async def test_a_second_server_on_the_directory_is_refused(place: Place, clients: Any) -> None:
    config = place.config()
    async with Server(config):
        said = await fails(Server(replace(place.config(), initial_cluster="")), DirectoryLocked)
        assert config.data_dir in said
        assert await clients(config).put(b"a", b"1") == 2


async def test_a_directory_of_another_member_is_refused(place: Place) -> None:
    async with Server(place.config()):
        pass
    await fails(Server(place.config()), IdentityMismatch)  # other ports: another member id


async def test_a_directory_that_cannot_be_is_refused(place: Place) -> None:
    (place.directory / "file").write_text("")
    config = replace(place.config(), data_dir=str(place.directory / "file" / "data"))
    assert "--data-dir" in await fails(Server(config), DirectoryUnusable)


async def test_what_makes_no_sense_is_refused(place: Place) -> None:
    assert "--name" in await fails(Server(place.config(initial_cluster="x=http://h:1")), ConfigError)
    twice = Server(place.config(machine="a:B"), machine=Counter())
    assert "two state machines" in await fails(twice, ConfigError)
    wrong: Any = object()
    assert "no state machine" in await fails(Server(place.config(), machine=wrong), ConfigError)
    assert "no module 'no_such'" in await fails(Server(place.config(machine="no_such:A")), ConfigError)
    existing = place.config(initial_cluster_state="existing")
    assert "there is nobody to ask" in await fails(Server(existing), ConfigError)
    assert not existing.directory.exists()


async def test_a_member_that_was_there_may_say_existing(place: Place) -> None:
    config = place.config()
    async with Server(config):
        pass
    async with Server(replace(config, initial_cluster_state="existing")):
        pass


async def test_a_server_is_used_once(place: Place) -> None:
    server = Server(place.config())
    with pytest.raises(ConfigError, match="not been started"):
        await server.wait()
    async with server:
        pass
    assert "used once" in await fails(server, ConfigError)


# ---- failed, and down --------------------------------------------------------------------------------------


async def test_what_stops_the_replica_comes_out_of_wait(place: Place, clients: Any) -> None:
    async with Server(place.config()) as server:
        client = clients(server.config)
        await client.put(b"a", b"1")
        waiting = asyncio.create_task(server.wait())
        replica = server._replica
        assert replica is not None
        replica.on_storage_failure(LogIOError("the disk is gone"))
        with pytest.raises(LogIOError, match="the disk is gone"):
            await waiting


async def test_a_machine_that_breaks_stops_the_server_and_says_where(place: Place, clients: Any) -> None:
    async with Server(place.config(), machine=Counter()) as server:
        session = SessionClient(clients(server.config).channel)
        await session.open()
        await session.submit(1, [b"break"])
        with pytest.raises(Exception, match="ZeroDivisionError: this machine is broken"):
            await server.wait()


async def test_wait_returns_when_somebody_else_stops_it(place: Place) -> None:
    server = Server(place.config())
    await server.start()
    waiting = asyncio.create_task(server.wait())
    await asyncio.gather(server.stop(), server.stop())
    await waiting
    await server.stop()


async def test_it_is_taken_down_in_order(place: Place, clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(place.config())
    await server.start()
    await clients(server.config).put(b"a", b"1")
    order: list[str] = []

    def note(owner: Any, method: str, word: str) -> None:
        original = getattr(owner, method)

        def noted(*arguments: Any) -> Any:
            order.append(word)
            return original(*arguments)

        monkeypatch.setattr(owner, method, noted)

    replica = server._replica
    assert replica is not None
    note(server._health, "stop", "health")
    note(server._sessions, "drain", "sessions")
    note(server._etcd, "drain", "unary")
    note(server._etcd, "close", "own sessions")
    note(server._grpc, "stop", "clients")
    note(replica.network, "close", "peers")
    note(replica.writer, "close", "log")
    note(server._directory, "close", "directory")
    await server.stop()
    assert order == ["health", "sessions", "unary", "own sessions", "clients", "peers", "log", "directory"]


async def test_what_is_in_flight_is_answered_before_the_end(place: Place, clients: Any) -> None:
    server = Server(place.config())
    await server.start()
    client = clients(server.config)
    await client.put(b"a", b"0")
    session = SessionClient(client.channel)
    await session.open()
    await session.submit(1, [put(b"a", b"%d" % i) for i in range(100)])
    results = asyncio.create_task(session.results(100))
    unary = [asyncio.create_task(client.put(b"b", b"%d" % i)) for i in range(20)]
    assert server._etcd is not None
    own = server._etcd._own
    assert own is not None
    await until(lambda: own.in_flight > 0)
    await server.stop()
    assert len(await results) == 100
    ends = await asyncio.gather(*unary, return_exceptions=True)
    # Those that had come are answered; the others are told that they were not taken, by us or (CANCELLED, of what
    # it had not handed over yet) by gRPC.
    assert any(isinstance(each, int) for each in ends)
    for each in ends:
        if not isinstance(each, int):
            assert isinstance(each, grpc.aio.AioRpcError)
            assert each.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert (await session.ended())[0] == grpc.StatusCode.UNAVAILABLE


async def test_a_start_that_is_cancelled_leaves_nothing(place: Place) -> None:
    config = place.config()
    for turns in (0, 1, 2, 5, 20):
        starting = asyncio.create_task(Server(config).start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    async with Server(config):
        pass


# ---- the process -------------------------------------------------------------------------------------------


PROGRAM = """
import sys
from paxos_rsm.config import load_config
from paxos_rsm.server import run_server
sys.exit(run_server(load_config({})))
"""


def run(config: ServerConfig, **more: str) -> "subprocess.Popen[str]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PAXOS_RSM_")}
    environ |= {
        "PAXOS_RSM_NAME": config.name,
        "PAXOS_RSM_DATA_DIR": config.data_dir,
        "PAXOS_RSM_LISTEN_CLIENT_URLS": config.listen_client_urls[0],
        "PAXOS_RSM_LISTEN_PEER_URLS": config.listen_peer_urls[0],
        "PYTHONPATH": os.getcwd(),
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


async def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    try:
        _, said = await asyncio.to_thread(process.communicate, timeout=60)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(place: Place, clients: Any, number: signal.Signals) -> None:
    config = place.config()
    process = run(config, PAXOS_RSM_LOG_FORMAT="json")
    assert await clients(config).put(b"a", b"1") == 2
    process.send_signal(number)
    code, said = await ended(process)
    assert code == 0
    events = [json.loads(line)["msg"] for line in said.splitlines()]
    assert events[0] == "serving"
    assert events[-1] == "stopped"
    assert "Traceback" not in said


async def test_an_error_is_one_sentence_and_status_1(place: Place, clients: Any) -> None:
    config = place.config()
    process = run(config, PAXOS_RSM_LOG_LEVEL="error")
    assert await clients(config).put(b"a", b"1") == 2
    second = replace(place.config(), data_dir=config.data_dir)
    code, said = await ended(run(second))
    assert code == 1
    assert said.startswith("Error: the data directory ")
    assert said.count("\n") == 1
    process.terminate()
    assert (await ended(process))[0] == 0


async def test_a_damaged_log_is_one_sentence_and_stays_as_it_is(place: Place, clients: Any) -> None:
    config = place.config()
    async with Server(config):
        for i in range(50):
            await clients(config).put(b"a%d" % i, b"x" * 100)
    (segment,) = (config.directory / "log").iterdir()
    data = bytearray(segment.read_bytes())
    data[data.index(b"a7") + 10] ^= 1
    segment.write_bytes(data)
    code, said = await ended(run(config))
    assert code == 1
    assert said.startswith("Error: the log is damaged")
    assert said.count("\n") == 1
    assert segment.read_bytes() == data


def test_a_bug_is_logged_and_named_as_one() -> None:
    program = "from paxos_rsm.server import app\n"
    program += "async def bug(self): raise KeyError('broken')\n"
    program += "app.Server._bring_up = bug\n" + PROGRAM
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 1
    *logged, sentence = process.stderr.splitlines()
    assert sentence.startswith("Error: a bug in paxos_rsm stopped this server: KeyError: 'broken'")
    assert any("stopped by a bug" in line and "Traceback" in line for line in logged)
