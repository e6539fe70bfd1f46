"""The gateway over real HTTP, in front of all the services that speak etcd's language."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: the HTTP gateway is NOT tested")

import aiohttp

from paxos_rsm._version import __version__
from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.cluster_service import ClusterService
from paxos_rsm.server.gateway_http import HttpGateway
from paxos_rsm.server.kv_service import KvService
from paxos_rsm.server.lease_service import LeaseService
from paxos_rsm.server.maintenance_service import MaintenanceService
from paxos_rsm.server.watch_service import WatchService
from paxos_rsm.testing.ports import PortHolder
from tests.unit.server.fakes import FakeReplica, etcd_calls, until
from tests.unit.server.recipes import Stage

IDENTITY = ServerIdentity(
    cluster_id=0xC1,
    name="n1",
    member_id=0x31,
    incarnation=1,
    boot_count=1,
    initial_members={"n1": "http://a:2380"},
    initial_member_ids={"n1": 0x31},
    client_urls=("http://a:2379",),
)
HEADER = {"cluster_id": "193", "member_id": "49", "raft_term": "7"}
REQUEST_BYTES_MAX = 4_096


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Http:
    def __init__(self, stage: Stage, gateway: HttpGateway, session: aiohttp.ClientSession) -> None:
        self.stage = stage
        self.gateway = gateway
        self.session = session
        self.url = f"http://127.0.0.1:{gateway.addresses[0][1]}"

    async def post(self, path: str, value: Any = None, **more: Any) -> tuple[int, Any]:
        data = value if isinstance(value, bytes) else json.dumps(value or {}).encode()
        async with self.session.post(f"{self.url}{path}", data=data, **more) as response:
            assert response.content_type == "application/json"
            return response.status, json.loads(await response.read())

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(f"{self.url}{path}") as response:
            return response.status, await response.text()

    async def put(self, key: bytes, value: bytes) -> int:
        status, body = await self.post("/v3/kv/put", {"key": b64(key), "value": b64(value)})
        assert status == 200
        return int(body["header"]["revision"])


@asynccontextmanager
async def staged(*, leader: bool = True, origins: frozenset[str] = frozenset()) -> AsyncIterator[Http]:
    replica = FakeReplica(leader=leader)
    machine = replica.kv
    assert isinstance(machine, KeyValueMachine)
    calls, own = etcd_calls(replica, request_bytes_max=REQUEST_BYTES_MAX)
    stage = Stage(replica, calls, own)
    watches = WatchService(replica, stage.hub, calls.headers)
    handlers = [
        *KvService(calls).handlers(),
        *LeaseService(replica, machine, calls).handlers(),
        *watches.handlers(),
        *ClusterService(replica, IDENTITY, calls).handlers(),
        *MaintenanceService(replica, machine, calls.headers, calls.read_index).handlers(),
        *stage.locks.handlers(),
        *stage.elections.handlers(),
    ]
    ports = PortHolder()
    (port,) = ports.take(1)
    gateway = HttpGateway(
        (f"http://127.0.0.1:{port}",),
        handlers,
        calls.read_index,
        request_bytes_max=REQUEST_BYTES_MAX,
        origins=origins,
    )
    await gateway.start()
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Http(stage, gateway, session)
    finally:
        watches.stop()
        await stage.queue.drain(1.0)
        await gateway.stop()
        own.close()
        ports.close()


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    async for line in response.content:
        yield json.loads(line)


@pytest.mark.parametrize("prefix", ["/v3", "/v3beta"])
async def test_what_is_put_is_found_in_etcds_own_json(prefix: str) -> None:
    async with staged() as http:
        put = await http.post(f"{prefix}/kv/put", {"key": "Zm9v", "value": "YmFy"})
        assert put == (200, {"header": {**HEADER, "revision": "2"}})
        kv = {"key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"}
        found = await http.post(f"{prefix}/kv/range", {"key": "Zm9v"})
        assert found == (200, {"header": {**HEADER, "revision": "2"}, "kvs": [kv], "count": "1"})
        deleted = await http.post(f"{prefix}/kv/deleterange", {"key": "Zm9v", "prev_kv": True})
        assert deleted[1] == {"header": {**HEADER, "revision": "3"}, "deleted": "1", "prev_kvs": [kv]}
        assert (await http.post(f"{prefix}/kv/compaction", {"revision": "3"}))[0] == 200


async def test_a_transaction_over_http() -> None:
    async with staged() as http:
        await http.put(b"a", b"1")
        txn = {
            "compare": [{"key": b64(b"a"), "target": "VALUE", "value": b64(b"1")}],
            "success": [{"request_put": {"key": b64(b"a"), "value": b64(b"2")}}],
            "failure": [{"request_range": {"key": b64(b"a")}}],
        }
        status, done = await http.post("/v3/kv/txn", txn)
        assert (status, done["succeeded"]) == (200, True)
        assert done["responses"] == [{"response_put": {"header": {"revision": "3"}}}]
        _, undone = await http.post("/v3/kv/txn", txn)
        assert "succeeded" not in undone
        assert undone["responses"][0]["response_range"]["kvs"][0]["value"] == b64(b"2")


async def test_errors_are_etcds_with_the_status_of_http() -> None:
    async with staged() as http:
        empty = "etcdserver: key is not provided"
        assert await http.post("/v3/kv/range") == (400, {"error": empty, "message": empty, "code": 3})
        future = await http.post("/v3/kv/range", {"key": "Zm9v", "revision": 99})
        assert future[0] == 400
        assert future[1]["code"] == 11
        assert (await http.post("/v3/lease/revoke", {"ID": 9}))[0] == 404
        assert (await http.post("/v3/lease/grant", {"TTL": 10, "ID": 9}))[0] == 200
        exists = await http.post("/v3/lease/grant", {"TTL": 10, "ID": 9})
        assert exists[0] == 412
        assert exists[1]["message"] == "etcdserver: lease already exists"
        assert (await http.post("/v3/maintenance/transfer-leadership"))[0] == 412
        assert (await http.post("/v3/maintenance/alarm", {"action": "ACTIVATE"}))[0] == 501
        assert (await http.post("/v3/election/leader", {"name": "ZQ=="}))[0] == 500


async def test_without_a_leader_it_is_503_and_unhealthy() -> None:
    async with staged(leader=False) as http:
        words = "etcdserver: no leader"
        assert await http.post("/v3/kv/range", {"key": "Zm9v"}) == (
            503,
            {"error": words, "message": words, "code": 14},
        )
        assert await http.get("/health") == (503, '{"health":"false","reason":"etcdserver: no leader"}')
        assert await http.get("/readyz") == (503, "etcdserver: no leader\n")
        assert await http.get("/livez") == (200, "ok\n")
        http.stage.replica.set_leader(True)
        assert await http.get("/health") == (200, '{"health":"true"}')
        assert await http.get("/readyz") == (200, "ok\n")


async def test_a_server_that_cannot_read_in_time_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paxos_rsm.server.gateway_http.HEALTH_TIMEOUT_S", 0.05)
    async with staged() as http:
        http.stage.replica.hold()
        assert await http.get("/health") == (503, '{"health":"false","reason":"context deadline exceeded"}')


async def test_the_version_says_whose_api_it_is_and_what_we_are() -> None:
    async with staged() as http:
        status, text = await http.get("/version")
    assert status == 200
    assert json.loads(text) == {"etcdserver": "3.4.0", "etcdcluster": "3.4.0", "paxos_rsm": __version__}


async def test_members_status_hashes_and_alarms() -> None:
    async with staged() as http:
        _, members = await http.post("/v3/cluster/member/list")
        assert members["members"] == [
            {"ID": "49", "name": "n1", "peerURLs": ["http://a:2380"], "clientURLs": ["http://a:2379"]}
        ]
        _, status = await http.post("/v3/maintenance/status")
        assert (status["version"], status["dbSize"]) == ("3.4.0", "12345")
        assert isinstance((await http.post("/v3/maintenance/hash"))[1]["hash"], int)
        assert (await http.post("/v3/maintenance/hashkv"))[1]["compact_revision"] == "-1"
        assert (await http.post("/v3/maintenance/alarm", {"action": "GET"}))[0] == 200
        assert (await http.post("/v3/maintenance/alarm", {"action": "ACTIVATE"}))[0] == 501
        assert (await http.post("/v3/maintenance/defragment"))[0] == 200
        assert (await http.post("/v3/cluster/member/add"))[0] == 400


async def test_leases_under_both_their_paths() -> None:
    async with staged() as http:
        await http.post("/v3/lease/grant", {"TTL": "60", "ID": "77"})
        await http.post("/v3/kv/put", {"key": "Zm9v", "lease": "77"})
        for path in ("/v3/lease", "/v3/kv/lease"):
            _, left = await http.post(f"{path}/timetolive", {"ID": 77, "keys": True})
            assert (left["TTL"], left["grantedTTL"], left["keys"]) == ("60", "60", ["Zm9v"])
            assert (await http.post(f"{path}/leases"))[1]["leases"] == [{"ID": "77"}]
        async with http.session.post(
            f"{http.url}/v3/lease/keepalive", data=b'{"ID": 77}\n{"ID": "78"}'
        ) as response:
            kept = [each["result"] async for each in lines(response)]
        assert [(each["ID"], each.get("TTL")) for each in kept] == [("77", "60"), ("78", None)]
        assert (await http.post("/v3/kv/lease/revoke", {"ID": 77}))[0] == 200


async def test_a_watch_is_a_stream_of_lines_until_its_caller_goes() -> None:
    async with staged() as http:
        await http.put(b"foo", b"1")
        body = json.dumps({"create_request": {"key": b64(b"foo"), "start_revision": "1"}})
        async with http.session.post(f"{http.url}/v3/watch", data=body) as response:
            assert response.status == 200
            coming = lines(response)
            assert (await anext(coming))["result"]["created"] is True
            past = (await anext(coming))["result"]["events"]
            assert past == [
                {
                    "kv": {
                        "key": b64(b"foo"),
                        "create_revision": "2",
                        "mod_revision": "2",
                        "version": "1",
                        "value": b64(b"1"),
                    }
                }
            ]
            await http.post("/v3/kv/deleterange", {"key": b64(b"foo")})
            (event,) = (await anext(coming))["result"]["events"]
            assert (event["type"], event["kv"]) == ("DELETE", {"key": b64(b"foo"), "mod_revision": "3"})
            assert len(http.stage.hub) == 1
        await until(lambda: not len(http.stage.hub))


async def test_a_caller_that_goes_while_it_waits_for_a_lock_takes_its_key_with_it() -> None:
    async with staged() as http:
        http.stage.lease(1)
        http.stage.lease(2)
        status, held = await http.post("/v3/lock/lock", {"name": b64(b"l"), "lease": 1})
        assert (status, held["key"]) == (200, b64(b"l/1"))
        waiting = asyncio.create_task(http.post("/v3/lock/lock", {"name": b64(b"l"), "lease": 2}))
        await until(lambda: http.stage.waiting() == 1)
        waiting.cancel()
        await until(lambda: [kv.key for kv in http.stage.keys(b"l/")] == [b"l/1"])
        late = await http.post(
            "/v3/lock/lock", {"name": b64(b"l"), "lease": 2}, headers={"Grpc-Timeout": "100m"}
        )
        words = "context deadline exceeded"
        assert late == (504, {"error": words, "message": words, "code": 4})
        await until(lambda: [kv.key for kv in http.stage.keys(b"l/")] == [b"l/1"])
        assert (await http.post("/v3/lock/unlock", {"key": held["key"]}))[0] == 200


async def test_an_election_over_http() -> None:
    async with staged() as http:
        http.stage.lease(1)
        asked = {"name": b64(b"e"), "lease": 1, "value": b64(b"me")}
        _, elected = await http.post("/v3/election/campaign", asked)
        leader = elected["leader"]
        assert leader == {"name": b64(b"e"), "key": b64(b"e/1"), "rev": "2", "lease": "1"}
        async with http.session.post(
            f"{http.url}/v3/election/observe", data=json.dumps({"name": b64(b"e")})
        ) as response:
            coming = lines(response)
            assert (await anext(coming))["result"]["kv"]["value"] == b64(b"me")
            await http.post("/v3/election/proclaim", {"leader": leader, "value": b64(b"still me")})
            assert (await anext(coming))["result"]["kv"]["value"] == b64(b"still me")
            # What ends a stream that has begun stands in its last line.
            await http.stage.queue.drain(1.0)
            words = {"grpc_code": 14, "http_code": 503, "message": "etcdserver: server stopped"}
            assert (await anext(coming))["error"] == {**words, "http_status": "Service Unavailable"}


async def test_a_snapshot_over_http() -> None:
    async with staged() as http:
        await http.put(b"foo", b"1")
        async with http.session.post(f"{http.url}/v3/maintenance/snapshot", data=b"{}") as response:
            whole = b"".join([base64.b64decode(each["result"]["blob"]) async for each in lines(response)])
        assert whole.startswith(b"paxos_rsm snapshot 2\n")
        assert len(whole) % 512 == 32


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v3/kv/range", b'{"key":'),
        ("/v3/kv/range", b"[" * 60_000),
        ("/v3/kv/range", b'{"key": "not base64"}'),
        ("/v3/kv/txn", b'{"success": [[]]}'),
        ("/v3/watch", b'{"create_request":'),
        ("/v3/watch", b"[]"),
        ("/v3/lease/keepalive", b"\xff"),
        ("/v3/election/observe", b'"name"'),
        ("/v3/lock/lock", b"{} {}"),
    ],
)
async def test_what_cannot_be_understood_is_a_400_and_no_traceback(
    path: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged() as http:
        status, told = await http.post(path, body)
    assert (status, told["code"]) == (400, 3)
    assert set(told) == {"error", "message", "code"}
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_other_paths_methods_and_sizes_are_refused_in_json() -> None:
    async with staged() as http:
        assert (await http.post("/v3/nothing"))[0] == 404
        assert (await http.post("/v2/keys"))[0] == 404
        async with http.session.get(f"{http.url}/v3/kv/range") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
            assert (await response.json())["code"] == 12
        large = await http.post("/v3/kv/put", {"key": b64(b"k"), "value": b64(bytes(REQUEST_BYTES_MAX + 1))})
        words = "etcdserver: request is too large"
        assert large == (400, {"error": words, "message": words, "code": 3})
        larger = await http.post("/v3/kv/put", bytes(2 * REQUEST_BYTES_MAX + 70_000))
        assert larger == (413, {"error": words, "message": words, "code": 3})
        assert (await http.post("/v3/kv/range", headers={"Grpc-Timeout": "soon"}))[0] == 400


async def test_only_so_many_calls_are_in_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paxos_rsm.server.gateway_http.RPCS_MAX", 1)
    async with staged() as http:
        http.stage.replica.hold()
        first = asyncio.create_task(http.post("/v3/kv/range", {"key": "Zm9v"}))
        await until(lambda: http.gateway._in_progress == 1)
        assert (await http.post("/v3/kv/range", {"key": "Zm9v"}))[0] == 429
        http.stage.replica.release()
        assert (await first)[0] == 200
        assert (await http.post("/v3/kv/range", {"key": "Zm9v"}))[0] == 200


async def test_what_is_not_http_is_refused_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with staged() as http:
        for garbage in (
            b"\x16\x03\x01\x00garbage\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0" * 20_000,
        ):
            reader, writer = await asyncio.open_connection(*http.gateway.addresses[0])
            writer.write(garbage)
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
        assert (await http.get("/health"))[0] == 200
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


# ---- web pages -------------------------------------------------------------------------------------------------

PAGE = "https://console.example.org"
PUT = {"key": "Zm9v", "value": "YmFy"}


async def test_a_web_page_may_not_write_not_even_one_that_calls_itself_the_servers_own() -> None:
    async with staged(origins=frozenset({PAGE})) as http:
        revision = http.stage.machine.revision
        for origin in ("https://evil.example", http.url, "null", f"{PAGE}:444", f"{PAGE}.evil.example", ""):
            for path in ("/v3/kv/put", "/v3/watch", "/v3/nothing"):
                status, told = await http.post(path, PUT, headers={"Origin": origin})
                assert (status, told["code"]) == (403, 7)
                assert f"{origin!r} may not use this server; the flag --cors" in told["message"]
            options = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            async with http.session.options(f"{http.url}/v3/kv/put", headers=options) as response:
                assert response.status == 403
                assert "Access-Control-Allow-Origin" not in response.headers
        assert http.stage.machine.revision == revision


@pytest.mark.parametrize("allowed", [PAGE, "*"])
async def test_a_web_page_that_is_named_may_and_its_browser_is_told(allowed: str) -> None:
    async with staged(origins=frozenset({allowed, "http://127.0.0.1:1"})) as http:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        watch = json.dumps({"create_request": {"key": "Zm9v"}}).encode()
        for method, path, data, status in (
            ("OPTIONS", "/v3/kv/put", None, 200),
            ("POST", "/v3/kv/put", json.dumps(PUT).encode(), 200),
            ("POST", "/v3/watch", watch, 200),
            ("POST", "/v3/kv/range", b"{", 400),
            ("GET", "/health", None, 200),
        ):
            async with http.session.request(
                method, f"{http.url}{path}", data=data, headers=asked
            ) as response:
                assert response.status == status
                assert response.headers["Access-Control-Allow-Origin"] == PAGE
                assert response.headers["Vary"] == "Origin"
                assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert http.stage.keys(b"foo")[0].version == 1


async def test_who_is_no_web_page_is_not_asked() -> None:
    async with staged() as http:
        async with http.session.post(f"{http.url}/v3/kv/put", json=PUT) as response:
            assert response.status == 200
            assert "Access-Control-Allow-Origin" not in response.headers
        async with http.session.options(f"{http.url}/v3/kv/put") as response:
            assert response.status == 405


async def test_a_port_that_is_taken_is_a_sentence() -> None:
    async with staged() as http:
        second = HttpGateway((http.url,), [], http.stage.calls.read_index, request_bytes_max=1_000)
        with pytest.raises(ConfigError, match=r"cannot listen for HTTP on .* --listen-http-urls"):
            await second.start()
        await second.stop()
