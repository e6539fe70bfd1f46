"""What speaks etcd's language on a server, whatever state machine it runs."""

from typing import Any

import grpc
import pytest

from paxos_rsm._proto import cluster_pb2, kv_pb2
from paxos_rsm.config import Tuning
from paxos_rsm.server.admin_service import ServerIdentity
from paxos_rsm.server.etcd_services import EtcdServices
from paxos_rsm.server.rpc import StatusError
from paxos_rsm.server.watch_service import WatchLimits
from tests.unit.machines.helpers import Diary
from tests.unit.server.fakes import FakeReplica, put, serving

IDENTITY = ServerIdentity(0xC1, "n1", 0x31, 1, 1, {"n1": "http://n1:2380"}, {"n1": 0x31}, ("http://n1:2379",))
STORE = {
    "KV": ["Range", "Put", "DeleteRange", "Txn", "Compact"],
    "Lease": ["LeaseGrant", "LeaseKeepAlive", "LeaseTimeToLive"],
    "Watch": ["Watch"],
    "Lock": ["Lock"],
    "Election": ["Campaign", "Observe"],
}
ETCD = "etcdserverpb"
PACKAGES = {"Lock": "v3lockpb", "Election": "v3electionpb"}
"""Of etcd's services that are not in its package of that name."""


def full_name(package: str, kind: str) -> str:
    return f"{PACKAGES.get(kind, package) if package == ETCD else package}.{kind}"


def services(replica: FakeReplica) -> EtcdServices:
    return EtcdServices(replica, replica.kv, IDENTITY, Tuning(), leaderless_ms=100)


@pytest.mark.parametrize("package", ["paxos_rsm.v1", "etcdserverpb"])
async def test_the_store_answers_under_both_names(package: str) -> None:
    replica = FakeReplica()
    etcd = services(replica)
    assert set(etcd.names) >= {full_name(package, kind) for kind in STORE}
    async with serving(*etcd.handlers()) as (_, channel):
        rpc: Any = channel.unary_unary(f"/{package}.KV/Put")
        response = kv_pb2.PutResponse.FromString(await rpc(kv_pb2.PutRequest(key=b"k").SerializeToString()))
        assert response.header.revision == 2
        etcd.stop()
        with pytest.raises(grpc.aio.AioRpcError, match="etcdserver: server stopped"):
            await rpc(kv_pb2.PutRequest(key=b"k").SerializeToString())
        await etcd.drain(1.0)
        etcd.close()


async def test_watches_are_held_to_the_settings() -> None:
    replica = FakeReplica()
    tuning = Tuning(
        watch_stream_bytes_max=1 << 17,
        watch_stall_ms=500,
        watch_fragment_bytes=9_999,
        watch_progress_notify_ms=777,
        watches_bytes_max=1 << 18,
    )
    etcd = EtcdServices(replica, replica.kv, IDENTITY, tuning, leaderless_ms=123)
    assert etcd._watches is not None
    assert etcd._watches.limits == WatchLimits(1 << 17, 500, 9_999, 777, 123, 1 << 18)
    unchanged = services(replica)._watches
    assert unchanged is not None
    assert unchanged.limits == WatchLimits(leaderless_ms=100), "two places say what is the default"
    etcd.close()


@pytest.mark.parametrize("package", ["paxos_rsm.v1", "etcdserverpb"])
async def test_another_machine_has_no_keys_and_says_so_and_what_it_has_answers(package: str) -> None:
    replica = FakeReplica(Diary())
    etcd = services(replica)
    assert not any(name.endswith((".KV", ".Watch", ".Lease", ".Lock", ".Election")) for name in etcd.names)
    async with serving(*etcd.handlers()) as (_, channel):
        for kind, methods in STORE.items():
            for method in methods:
                one: Any = channel.unary_unary(f"/{full_name(package, kind)}/{method}")
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await one(b"")
                assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
                assert "tests.unit.machines.helpers:Diary" in (raised.value.details() or "")
        call: Any = channel.stream_stream(f"/{package}.Watch/Watch")()
        with pytest.raises(grpc.aio.AioRpcError, match="not the key-value store"):
            await call.read()
        rpc: Any = channel.unary_unary(f"/{package}.Cluster/MemberList")
        listed = cluster_pb2.MemberListResponse.FromString(await rpc(b""))
        assert [(member.ID, member.name) for member in listed.members] == [(0x31, "n1")]
        assert listed.header.revision == 0
    with pytest.raises(Exception, match="without sessions of its own") as broken:
        await etcd.calls.submit(put(b"k", b"v"), call)
    assert not isinstance(broken.value, StatusError)
    etcd.close()
