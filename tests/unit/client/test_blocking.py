"""For threads: watches that are iterated over, leases, locks and elections that look after themselves."""

import threading
import time
from collections.abc import Callable

import pytest

from paxos_rsm import (
    Client,
    ClientError,
    Compare,
    DeadlineExceeded,
    InvalidArgument,
    LeaseLost,
    Op,
    Unavailable,
)
from tests.unit.client.fake_server import FakeCluster, FakeServer
from tests.unit.client.test_client import background_threads, in_thread


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


async def run(server: FakeServer, work: Callable[[Client], None]) -> None:
    def with_client() -> None:
        with Client(server.endpoint, timeout_s=30) as kv:
            work(kv)
        assert background_threads() == []

    await in_thread(with_client)


async def test_a_consumer_that_calls_the_client(server: FakeServer) -> None:
    def work(kv: Client) -> None:
        with kv.watch(prefix="k") as watch:
            kv.put("k1", "x")
            seen = []
            for event in watch:
                seen.append(event.key)
                if len(seen) == 3:
                    break
                kv.put(b"k%d" % (len(seen) + 1), "x")
            assert seen == [b"k1", b"k2", b"k3"]
            assert watch.resume_revision == 5
            with pytest.raises(DeadlineExceeded):
                watch.next(timeout_s=0.05)
            kv.txn([], [Op.put("ka", ""), Op.put("kb", "")])
            first = watch.next()
            assert first is not None
            assert first.key == b"ka"
            assert watch.resume_revision == 5, "the same revision again"
            assert [event.key for event in watch.next_batch()] == [b"kb"]
        assert list(watch) == []
        assert watch.next_batch() == []

    await run(server, work)


async def test_another_thread_ends_the_iteration(server: FakeServer) -> None:
    def work(kv: Client) -> None:
        watch = kv.watch("k")
        watch.start()
        seen: list[bytes] = []
        consumer = threading.Thread(target=lambda: seen.extend(event.key for event in watch))
        consumer.start()
        kv.put("k", "v")
        until(lambda: seen)
        watch.close()
        consumer.join(20)
        assert not consumer.is_alive()
        assert seen == [b"k"]

    await run(server, work)


async def test_closing_the_client_ends_everything(server: FakeServer) -> None:
    def work() -> None:
        kv = Client(server.endpoint, timeout_s=30)
        watch, lease, lock = kv.watch("k"), kv.lease(60), kv.lock("l", ttl_s=60)
        watch.start()
        lease.grant()
        lock.acquire()
        raised: list[BaseException] = []

        def consume() -> None:
            try:
                watch.next()
            except Unavailable as error:
                raised.append(error)

        consumer = threading.Thread(target=consume)
        consumer.start()
        kv.close()
        consumer.join(20)
        assert len(raised) == 1
        assert lease.lost.is_set()
        assert not lease.alive
        assert not lock.held
        watch.close()
        with pytest.raises(Unavailable):
            lock.acquire()

    await in_thread(work)


async def test_a_lease(server: FakeServer, cluster: FakeCluster) -> None:
    def work(kv: Client) -> None:
        with kv.lease(2) as lease:
            kv.put("k", "v", lease=lease)
            assert lease.alive
            assert lease.remaining() == 7
            assert kv.time_to_live(lease, keys=True).keys == (b"k",)
            lease.check()
            cluster.store.end_lease(lease.id)
            assert lease.lost.wait(20)
            with pytest.raises(LeaseLost, match="it had ended"):
                lease.check()
        granted = kv.grant(60)
        assert kv.keep_alive_once(granted) == 60
        assert kv.leases() == [granted.id]
        kv.revoke(granted)
        other = kv.lease(60).grant()
        other.revoke()
        assert kv.leases() == []

    await run(server, work)


async def test_locks_of_many_threads(server: FakeServer) -> None:
    def work(kv: Client) -> None:
        tokens: list[int] = []
        inside = threading.Lock()

        def contend() -> None:
            with kv.lock("l", ttl_s=60) as lock:
                assert inside.acquire(blocking=False)
                assert lock.held
                lock.check()
                tokens.append(lock.fencing_token)
                assert kv.txn([Compare.create_revision(lock.key, "==", tokens[-1])], [Op.put("work", "x")])
                inside.release()

        threads = [threading.Thread(target=contend) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert tokens == sorted(tokens)
        assert len(tokens) == 10
        assert kv.leases() == []

    await run(server, work)


async def test_a_lock_that_is_lost(server: FakeServer, cluster: FakeCluster) -> None:
    def work(kv: Client) -> None:
        lock = kv.lock("l", ttl_s=2)
        with pytest.raises(LeaseLost):
            _ = lock.lost
        lock.acquire()
        assert not kv.lock("l").try_acquire()
        with pytest.raises(DeadlineExceeded):
            kv.lock("l").acquire(timeout_s=0.1)
        lost, lease = lock.lost, lock.lease
        assert lease is not None
        assert lease is lock.lease
        cluster.store.end_lease(lease.id)
        assert lost.wait(20)
        assert not lock.held
        with pytest.raises(LeaseLost):
            lock.check()
        lock.release()
        with pytest.raises(InvalidArgument):
            lock.release()
        with kv.lease(60) as shared, kv.lock("l", lease=shared) as again:
            assert again.lease is shared
            assert again.key == b"l/%x" % shared.id

    await run(server, work)


async def test_an_election(server: FakeServer) -> None:
    def work(kv: Client) -> None:
        seen: list[bytes] = []

        def observe() -> None:
            for leader in kv.election("e").observe():
                seen.append(leader.value)
                if len(seen) == 2:
                    return

        observer = threading.Thread(target=observe)
        observer.start()
        with kv.election("e", ttl_s=60) as election:
            assert election.leader() is None
            token = election.campaign("a")
            until(lambda: seen == [b"a"])
            assert election.leads
            assert election.fencing_token == token
            election.proclaim("b")
            observer.join(20)
            assert seen == [b"a", b"b"]
            leader = election.leader()
            assert leader is not None
            assert (leader.value, leader.key) == (b"b", election.key)
            election.resign()
            with pytest.raises(ClientError):
                election.check()
        assert kv.leases() == []

    await run(server, work)


async def test_a_scan_and_a_builder(server: FakeServer) -> None:
    def work(kv: Client) -> None:
        for n in range(40):
            kv.put(f"k{n:02}", str(n))
        scan = kv.scan(prefix="k")
        assert [each.key for each in scan] == [b"k%02d" % n for n in range(40)]
        assert scan.revision == 41
        assert len(kv.scan(prefix="k").next_page()) == 16
        done = kv.txn().when(Compare.exists("k00")).then(Op.delete("k00")).otherwise(Op.get("k00")).commit()
        assert done
        assert done.responses == (1,)

    await run(server, work)
