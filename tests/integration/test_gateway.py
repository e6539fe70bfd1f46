"""The HTTP gateway of real servers, driven by nothing but Python's own HTTP client, as a shell script would."""

import base64
import http.client
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from paxos_rsm.testing.ports import PortHolder
from tests.integration.clients import client_at
from tests.integration.conftest import NewCluster
from tests.integration.waiting import eventually

pytestmark = pytest.mark.skipif(
    find_spec("aiohttp") is None,
    reason="NOT TESTED: aiohttp is not installed (pip install 'paxos-rsm[gateway]')",
)

TIMEOUT_S = 60.0


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Http:
    """One server's gateway."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open(self, method: str, path: str, value: Any = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        connection.request(method, path, None if value is None else json.dumps(value))
        return connection.getresponse()

    def post(self, path: str, value: Any = None) -> tuple[int, Any]:
        response = self.open("POST", path, value or {})
        return response.status, json.loads(response.read())

    def get(self, path: str) -> tuple[int, str]:
        response = self.open("GET", path)
        return response.status, response.read().decode()

    def healthy(self) -> bool:
        try:
            return self.get("/health") == (200, '{"health":"true"}')
        except OSError:
            return False


class Stage:
    def __init__(self, cluster: LocalCluster, ports: dict[str, int]) -> None:
        self.cluster = cluster
        self.http = {name: Http(port) for name, port in ports.items()}


@pytest.fixture(scope="module")
def stage(new_shared_cluster: NewCluster) -> Iterator[Stage]:
    holder = PortHolder()
    cluster = new_shared_cluster()
    ports = dict(zip((server.name for server in cluster), holder.take(3), strict=True))
    for name, port in ports.items():
        cluster[name].environment["PAXOS_RSM_LISTEN_HTTP_URLS"] = f"http://127.0.0.1:{port}"
    cluster.start()
    cluster.wait_for_leader()
    yield Stage(cluster, ports)
    holder.close()


def test_what_one_gateway_puts_every_server_has(stage: Stage) -> None:
    for name, gateway in stage.http.items():
        status, put = gateway.post("/v3/kv/put", {"key": b64(b"gateway/key"), "value": b64(name.encode())})
        assert status == 200
        for other in stage.http.values():
            _, found = other.post("/v3/kv/range", {"key": b64(b"gateway/key")})
            assert found["kvs"][0]["value"] == b64(name.encode())
            assert found["kvs"][0]["mod_revision"] == put["header"]["revision"]
        client = client_at(stage.cluster["n1"].endpoint)
        assert client.get("gateway/key").value == name.encode()
        client.close()


def test_everybody_is_healthy_and_says_whose_api_it_is(stage: Stage) -> None:
    for gateway in stage.http.values():
        eventually(gateway.healthy, "health")
        assert gateway.get("/readyz") == gateway.get("/livez") == (200, "ok\n")
        versions = json.loads(gateway.get("/version")[1])
        # What tools such as Patroni take apart.
        assert tuple(map(int, versions["etcdserver"].split("."))) >= (3, 4)
        assert tuple(map(int, versions["etcdcluster"].split("."))) >= (3, 4)
        _, members = gateway.post("/v3/cluster/member/list")
        assert sorted(member["name"] for member in members["members"]) == ["n1", "n2", "n3"]


def test_a_watch_over_http_sees_what_is_written_elsewhere(stage: Stage) -> None:
    asked = {"create_request": {"key": b64(b"gateway/watch/"), "range_end": b64(b"gateway/watch0")}}
    response = stage.http["n1"].open("POST", "/v3/watch", asked)
    assert json.loads(response.readline())["result"]["created"] is True
    expected = []
    for number, gateway in enumerate(stage.http.values()):
        key = b64(b"gateway/watch/%d" % number)
        gateway.post("/v3/kv/put", {"key": key, "value": b64(b"v")})
        expected.append(key)
    seen: list[str] = []
    while len(seen) < len(expected):
        result = json.loads(response.readline())["result"]
        seen += [event["kv"]["key"] for event in result["events"]]
    assert seen == expected
    response.close()


def test_a_leader_key_as_a_failover_tool_holds_it(stage: Stage) -> None:
    """Granted, taken by a transaction, kept alive, contended, revoked: over any server."""
    one, two, three = stage.http.values()
    _, lease = one.post("/v3/lease/grant", {"TTL": "60"})
    take: dict[str, Any] = {
        "compare": [{"key": b64(b"gateway/leader"), "target": "CREATE", "create_revision": "0"}],
        "success": [
            {"request_put": {"key": b64(b"gateway/leader"), "value": b64(b"a"), "lease": lease["ID"]}}
        ],
    }
    assert one.post("/v3/kv/txn", take)[1]["succeeded"] is True
    _, other = two.post("/v3/lease/grant", {"TTL": "60"})
    take["success"][0]["request_put"]["lease"] = other["ID"]
    assert "succeeded" not in two.post("/v3/kv/txn", take)[1]
    kept = three.open("POST", "/v3/lease/keepalive", {"ID": lease["ID"]})
    assert [json.loads(line)["result"]["TTL"] for line in kept] == ["60"]
    assert three.post("/v3/lease/revoke", {"ID": lease["ID"]})[0] == 200
    assert two.post("/v3/kv/txn", take)[1]["succeeded"] is True
    assert two.post("/v3/kv/lease/revoke", {"ID": other["ID"]})[0] == 200


def test_a_lock_is_waited_for_over_http(stage: Stage) -> None:
    one, two, three = stage.http.values()
    name = b64(b"gateway/lock")
    _, first = one.post("/v3/lock/lock", {"name": name})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(two.post, "/v3/lock/lock", {"name": name})
        asked = {"key": b64(b"gateway/lock/"), "range_end": b64(b"gateway/lock0"), "count_only": True}
        eventually(lambda: three.post("/v3/kv/range", asked)[1]["count"] == "2", "second contender")
        assert not waiting.done()
        assert three.post("/v3/lock/unlock", {"key": first["key"]})[0] == 200
        status, second = waiting.result()
    assert status == 200
    assert second["key"] != first["key"]
    assert one.post("/v3/lock/unlock", {"key": second["key"]})[0] == 200


def test_a_server_without_a_quorum_says_so_and_ends_in_order(stage: Stage) -> None:
    """Last of its module: it stops servers."""
    alive, *others = stage.cluster
    gateway = stage.http[alive.name]
    watching = gateway.open("POST", "/v3/watch", {"create_request": {"key": b64(b"gateway/end")}})
    assert json.loads(watching.readline())["result"]["created"] is True
    for server in others:
        server.kill()
    eventually(lambda: gateway.get("/health")[0] == 503, "bad health")
    assert json.loads(gateway.get("/health")[1])["health"] == "false"
    assert gateway.get("/livez")[0] == 200
    assert gateway.post("/v3/kv/range", {"key": b64(b"a")})[0] == 503
    # What is known here is still told to who asks for no more.
    assert gateway.post("/v3/kv/range", {"key": b64(b"gateway/key"), "serializable": True})[0] == 200
    alive.send_signal(signal.SIGTERM)
    ends = watching.read()
    assert not ends or "error" in json.loads(ends)
    assert alive.wait() == 0
    assert "Traceback" not in alive.log()
