"""Members, maintenance, locks and elections across three real servers, and through a change of leader."""

import contextlib
import itertools
import json
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import cluster_pb2, election_pb2, kv_pb2, lock_pb2, maintenance_pb2
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Range, RangeResult
from paxos_rsm.storage.backup_format import BackupHead, check_backup, read_slices
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.raw import Calls, RawKv, code_of, details_of
from tests.integration.waiting import eventually

TTL_S = 60
NO_LEADER = "etcdserver: no leader"


class Etcd(Calls):
    """One server, by etcd's names of its services."""

    def ask(
        self, service: str, method: str, request: Any, response_type: Any, timeout_s: float = 30.0
    ) -> Any:
        """The answer. A call that was not executed for want of a leader is made again: the machine may be busy."""
        while True:
            try:
                data = self.unary(f"/{service}/{method}", request.SerializeToString(), timeout_s)
            except grpc.RpcError as error:
                if details_of(error) != NO_LEADER:
                    raise
            else:
                return response_type.FromString(data)

    def members(self) -> cluster_pb2.MemberListResponse:
        request = cluster_pb2.MemberListRequest(linearizable=True)
        found: cluster_pb2.MemberListResponse = self.ask(
            "etcdserverpb.Cluster", "MemberList", request, cluster_pb2.MemberListResponse
        )
        return found

    def maintain(self, method: str, request: Any, response_type: Any) -> Any:
        return self.ask("etcdserverpb.Maintenance", method, request, response_type)

    def hash_at(self, revision: int) -> tuple[int, int]:
        request = maintenance_pb2.HashKVRequest(revision=revision)
        found = self.maintain("HashKV", request, maintenance_pb2.HashKVResponse)
        return found.hash, found.compact_revision

    def snapshot(self) -> bytes:
        call: Any = self.channel.unary_stream("/etcdserverpb.Maintenance/Snapshot")
        return b"".join(
            maintenance_pb2.SnapshotResponse.FromString(each).blob for each in call(b"", timeout=60)
        )

    def grant(self, lease: int, ttl_s: int = TTL_S) -> int:
        request = kv_pb2.LeaseGrantRequest(ID=lease, TTL=ttl_s)
        self.ask("etcdserverpb.Lease", "LeaseGrant", request, kv_pb2.LeaseGrantResponse)
        return lease

    def revoke(self, lease: int) -> None:
        request = kv_pb2.LeaseRevokeRequest(ID=lease)
        self.ask("etcdserverpb.Lease", "LeaseRevoke", request, kv_pb2.LeaseRevokeResponse)

    def lock(self, name: bytes, lease: int, timeout_s: float = 60.0) -> lock_pb2.LockResponse:
        request = lock_pb2.LockRequest(name=name, lease=lease)
        found: lock_pb2.LockResponse = self.ask(
            "v3lockpb.Lock", "Lock", request, lock_pb2.LockResponse, timeout_s
        )
        return found

    def unlock(self, key: bytes) -> None:
        self.ask("v3lockpb.Lock", "Unlock", lock_pb2.UnlockRequest(key=key), lock_pb2.UnlockResponse)

    def campaign(self, name: bytes, lease: int, value: bytes) -> election_pb2.CampaignResponse:
        request = election_pb2.CampaignRequest(name=name, lease=lease, value=value)
        found: election_pb2.CampaignResponse = self.ask(
            "v3electionpb.Election", "Campaign", request, election_pb2.CampaignResponse, 60.0
        )
        return found

    def keys(self, prefix: bytes) -> list[bytes]:
        request = kv_pb2.RangeRequest(key=prefix, range_end=prefix[:-1] + bytes([prefix[-1] + 1]))
        found = self.ask("etcdserverpb.KV", "Range", request, kv_pb2.RangeResponse)
        return [kv.key for kv in found.kvs]


@pytest.fixture
def servers(cluster: LocalCluster) -> Iterator[dict[str, Etcd]]:
    made = {server.name: Etcd(server.endpoint) for server in cluster}
    yield made
    for each in made.values():
        each.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_every_server_names_the_same_members(cluster: LocalCluster, servers: dict[str, Etcd]) -> None:
    told = {name: list(server.members().members) for name, server in servers.items()}
    assert len({str(each) for each in told.values()}) == 1
    for member in told["n1"]:
        server = cluster[member.name]
        assert list(member.clientURLs) == [f"http://{server.endpoint}"]
        assert list(member.peerURLs) == [f"http://127.0.0.1:{server.peer_port}"]
        own = servers[member.name].members().header.member_id
        assert own == member.ID


def test_every_server_has_the_same_leader_and_hash(cluster: LocalCluster, servers: dict[str, Etcd]) -> None:
    leader = cluster.wait_for_leader()
    ids = {member.name: member.ID for member in servers["n1"].members().members}
    with RawKv(cluster["n1"].endpoint) as kv:
        for number in range(50):
            last = kv.put(b"hash/%d" % (number % 7), b"%d" % number).header.revision
        for server in servers.values():
            server.members()  # linearizable: from here on each has all of it
            request = maintenance_pb2.EndpointStatusRequest()
            status = server.maintain("Status", request, maintenance_pb2.EndpointStatusResponse)
            assert status.leader == ids[leader]
            assert status.dbSize > 0
            assert not status.errors
        for revision in (last - 20, last):
            assert len({server.hash_at(revision) for server in servers.values()}) == 1
        assert servers["n1"].hash_at(last - 20) != servers["n1"].hash_at(last)
        request_bytes = kv_pb2.CompactionRequest(revision=last - 10).SerializeToString()
        kv.unary("/etcdserverpb.KV/Compact", request_bytes)
    for server in servers.values():
        server.members()
    after = {server.hash_at(last) for server in servers.values()}
    assert len(after) == 1
    assert after.pop()[1] == last - 10
    with pytest.raises(grpc.RpcError) as raised:
        servers["n2"].hash_at(last - 10)
    assert details_of(raised.value) == "etcdserver: mvcc: required revision has been compacted"


def restored(whole: bytes) -> tuple[KeyValueMachine, BackupHead]:
    file = MemoryFiles().create("/backup", 0)
    file.pwrite(whole, 0)
    backup = check_backup(file, "/backup")
    machine = KeyValueMachine(KvCodec())
    machine.restore(read_slices(file, backup))
    return machine, backup.head


def test_a_snapshot_has_what_was_acknowledged_before_it_at_every_server(
    cluster: LocalCluster, servers: dict[str, Etcd]
) -> None:
    stop = threading.Event()

    def write() -> None:
        with RawKv(cluster["n2"].endpoint) as kv:
            number = 0
            while not stop.is_set():
                kv.put(b"snapshot/noise", b"%d" % number)
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for round_number in range(3):
            for name, server in servers.items():
                with RawKv(cluster["n1"].endpoint) as kv:
                    revision = kv.put(
                        b"snapshot/key", b"%s %d" % (name.encode(), round_number)
                    ).header.revision
                machine, head = restored(server.snapshot())
                assert head.revision == machine.revision >= revision
                found = machine.execute_query(Range(b"snapshot/key"))
                assert isinstance(found, RangeResult)
                assert found.kvs[0].value == b"%s %d" % (name.encode(), round_number)
    finally:
        stop.set()
        writer.join()


def test_a_lock_goes_from_one_server_s_caller_to_another_s(
    servers: dict[str, Etcd], threads: ThreadPoolExecutor
) -> None:
    first = servers["n1"].lock(b"across", servers["n1"].grant(0xA1))
    waiting = threads.submit(servers["n2"].lock, b"across", servers["n2"].grant(0xA2))
    eventually(lambda: len(servers["n3"].keys(b"across/")) == 2, "second contender")
    late = threads.submit(servers["n3"].lock, b"across", servers["n3"].grant(0xA3), 1.0)
    error = late.exception()
    assert isinstance(error, grpc.RpcError)
    assert code_of(error) == grpc.StatusCode.DEADLINE_EXCEEDED
    # Who has left is not in the queue any more.
    eventually(lambda: servers["n1"].keys(b"across/") == [b"across/a1", b"across/a2"], "queue of two")
    assert not waiting.done()
    servers["n3"].unlock(first.key)
    assert waiting.result().key == b"across/a2"
    servers["n1"].revoke(0xA2)
    again = servers["n2"].lock(b"across", 0xA1)
    assert again.key == b"across/a1"
    servers["n1"].unlock(again.key)


def test_a_lease_that_ends_frees_the_lock_and_tells_who_waits_with_it(
    servers: dict[str, Etcd], threads: ThreadPoolExecutor
) -> None:
    servers["n1"].lock(b"lease", servers["n1"].grant(0xB1))
    waiting = threads.submit(servers["n2"].lock, b"lease", servers["n2"].grant(0xB2))
    lost = threads.submit(servers["n3"].lock, b"lease", servers["n3"].grant(0xB3))
    eventually(lambda: len(servers["n1"].keys(b"lease/")) == 3, "queue of three")
    servers["n1"].revoke(0xB3)
    error = lost.exception()
    assert isinstance(error, grpc.RpcError)
    assert (code_of(error), details_of(error)) == (grpc.StatusCode.UNKNOWN, "mutex: session is expired")
    servers["n1"].revoke(0xB1)
    assert waiting.result().key == b"lease/b2"


def test_those_who_wait_go_on_waiting_while_the_leader_dies(
    new_cluster: NewCluster, threads: ThreadPoolExecutor
) -> None:
    cluster = new_cluster()
    cluster.start()
    leader = cluster.wait_for_leader()
    others = [server for server in cluster if server.name != leader]
    with contextlib.ExitStack() as stack:
        here, there = (stack.enter_context(Etcd(server.endpoint)) for server in others)
        held = here.lock(b"l", here.grant(1))
        waiting = threads.submit(there.lock, b"l", there.grant(2))
        candidate = threads.submit(there.campaign, b"e", there.grant(3), b"third")
        elected = candidate.result().leader
        behind = threads.submit(here.campaign, b"e", here.grant(4), b"fourth")
        eventually(lambda: len(here.keys(b"l/")) + len(here.keys(b"e/")) == 4, "everybody in a queue")
        cluster[leader].kill()
        cluster.wait_for_leader()
        assert not waiting.done()
        assert not behind.done()
        here.unlock(held.key)
        assert waiting.result().key == b"l/2"
        resigning = election_pb2.ResignRequest(leader=elected)
        there.ask("v3electionpb.Election", "Resign", resigning, election_pb2.ResignResponse)
        assert behind.result().leader.key == b"e/4"


class Contender:
    """Asks for one lock again and again, at any server, and notes what it did with it."""

    def __init__(self, number: int, cluster: LocalCluster, stop: threading.Event) -> None:
        self.number = number
        self.held: list[tuple[int, int]] = []
        """(revision of what was done under the lock, fencing token)."""
        self.intruders: list[bytes] = []
        self._servers = [Etcd(server.endpoint) for server in cluster]
        self._random = random.Random(number)
        self._stop = stop

    def run(self) -> None:
        for round_number in itertools.count():
            if self._stop.is_set():
                break
            lease = self.number * 1_000_000 + round_number + 1
            with contextlib.suppress(grpc.RpcError):
                self._any().grant(lease, 20)
                key = self._any().lock(b"contended", lease, 15.0).key
                self._work(key)
            self._give_back(lease)
        for server in self._servers:
            server.close()

    def _any(self) -> Etcd:
        return self._random.choice(self._servers)

    def _work(self, key: bytes) -> None:
        """Writes under the lock, if it is still held, and looks who is first at that very revision."""
        asked = kv_pb2.RangeRequest(key=key)
        kvs = self._any().ask("etcdserverpb.KV", "Range", asked, kv_pb2.RangeResponse).kvs
        if not kvs:
            return
        token = kvs[0].create_revision
        first = kv_pb2.RangeRequest(
            key=b"contended/",
            range_end=b"contended0",
            limit=1,
            sort_order=kv_pb2.RangeRequest.ASCEND,
            sort_target=kv_pb2.RangeRequest.CREATE,
        )
        put = kv_pb2.PutRequest(key=b"guarded", value=b"%d" % token)
        txn = kv_pb2.TxnRequest(
            compare=[kv_pb2.Compare(key=key, target=kv_pb2.Compare.CREATE, create_revision=token)],
            success=[kv_pb2.RequestOp(request_put=put), kv_pb2.RequestOp(request_range=first)],
        )
        answer = self._any().ask("etcdserverpb.KV", "Txn", txn, kv_pb2.TxnResponse)
        if answer.succeeded:
            self.held.append((answer.header.revision, token))
            (holder,) = answer.responses[1].response_range.kvs
            if holder.key != key:
                self.intruders.append(holder.key)

    def _give_back(self, lease: int) -> None:
        while True:
            try:
                self._any().revoke(lease)
                return
            except grpc.RpcError as error:
                if code_of(error) == grpc.StatusCode.NOT_FOUND:
                    return


@LONG[0]
@LONG[1]
def test_twenty_contenders_and_a_leader_killed_every_few_seconds(new_cluster: NewCluster) -> None:
    cluster = new_cluster()
    cluster.start()
    stop = threading.Event()
    contenders = [Contender(number, cluster, stop) for number in range(1, 21)]
    with ThreadPoolExecutor(len(contenders)) as pool:
        running = [pool.submit(contender.run) for contender in contenders]
        try:
            for _ in range(3):
                before = sum(len(contender.held) for contender in contenders)
                eventually(
                    lambda before=before: (  # type: ignore[misc]
                        sum(len(contender.held) for contender in contenders) > before + 10
                    ),
                    "progress",
                )
                leader = cluster.wait_for_leader()
                cluster[leader].restart(kill=True)
        finally:
            stop.set()
        for each in running:
            each.result()
    assert not [intruder for contender in contenders for intruder in contender.intruders]
    tokens = [token for _, token in sorted(held for contender in contenders for held in contender.held)]
    assert len(tokens) > 30
    # In the order of the log: who has it next has the higher token, and nobody has it twice.
    assert tokens == sorted(set(tokens))
    with Etcd(cluster["n1"].endpoint) as etcd:
        eventually(lambda: not etcd.keys(b"contended/"), "empty queue")


def test_observers_at_every_server_hear_the_same(
    servers: dict[str, Etcd], threads: ThreadPoolExecutor
) -> None:
    name, count = b"observed", 12

    def observe(server: Etcd, ready: threading.Event) -> list[tuple[bytes, bytes, int]]:
        server.members()  # there is a leader
        call: Any = server.channel.unary_stream("/v3electionpb.Election/Observe")
        stream = call(election_pb2.LeaderRequest(name=name).SerializeToString(), timeout=60)
        heard: list[tuple[bytes, bytes, int]] = []
        for data in stream:
            kv = election_pb2.LeaderResponse.FromString(data).kv
            heard.append((kv.key, kv.value, kv.mod_revision))
            ready.set()
            if kv.value == b"last":
                stream.cancel()
                break
        return heard

    first = servers["n1"].campaign(name, servers["n1"].grant(0xC1), b"first")
    ready = [threading.Event() for _ in servers]
    observers: list[Future[list[tuple[bytes, bytes, int]]]] = [
        threads.submit(observe, server, event) for server, event in zip(servers.values(), ready, strict=True)
    ]
    for event, observer in zip(ready, observers, strict=True):
        eventually(lambda e=event, o=observer: e.is_set() or o.done(), "first word")  # type: ignore[misc]
        assert not observer.done(), observer.result()
    second = threads.submit(servers["n2"].campaign, name, servers["n2"].grant(0xC2), b"second")
    eventually(lambda: len(servers["n1"].keys(name + b"/")) == 2, "second candidate")
    for number in range(count):
        said = election_pb2.ProclaimRequest(leader=first.leader, value=b"%d" % number)
        servers["n3"].ask("v3electionpb.Election", "Proclaim", said, election_pb2.ProclaimResponse)
    resigning = election_pb2.ResignRequest(leader=first.leader)
    servers["n3"].ask("v3electionpb.Election", "Resign", resigning, election_pb2.ResignResponse)
    said = election_pb2.ProclaimRequest(leader=second.result().leader, value=b"last")
    servers["n1"].ask("v3electionpb.Election", "Proclaim", said, election_pb2.ProclaimResponse)
    heard = [observer.result() for observer in observers]
    assert heard[0] == heard[1] == heard[2]
    expected = [b"first", *(b"%d" % number for number in range(count)), b"second", b"last"]
    assert [value for _, value, _ in heard[0]] == expected


ETCDCTL = shutil.which("etcdctl")


@pytest.mark.skipif(
    ETCDCTL is None, reason="NOT TESTED: there is no etcdctl here (Debian package etcd-client)"
)
def test_etcdctl_finds_its_way_about(cluster: LocalCluster, tmp_path: Path) -> None:
    def etcdctl(*words: str, at: list[LocalServer] | None = None) -> str:
        endpoints = ",".join(server.endpoint for server in at or list(cluster))
        ended = subprocess.run(
            [str(ETCDCTL), f"--endpoints={endpoints}", *words],
            env={"ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    one = [cluster["n1"]]
    assert etcdctl("endpoint", "health").count("is healthy") == 3
    statuses = json.loads(etcdctl("endpoint", "status", "-w", "json"))
    assert len({each["Status"]["leader"] for each in statuses}) == 1
    assert "3.4.0" in etcdctl("endpoint", "status", "-w", "table")
    hashes = json.loads(etcdctl("endpoint", "hashkv", "-w", "json"))
    assert len({each["HashKV"]["hash"] for each in hashes}) == 1
    assert etcdctl("member", "list", at=one).count("started") == 3
    assert etcdctl("alarm", "list", at=one) == ""
    assert etcdctl("alarm", "disarm", at=one) == ""
    assert etcdctl("defrag").count("Finished defragmenting") == 3
    target = tmp_path / "saved"
    assert "Snapshot saved" in etcdctl("snapshot", "save", str(target), at=one)
    assert restored(target.read_bytes())[1].machine.endswith("KeyValueMachine")
