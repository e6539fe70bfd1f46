"""A leader that is stopped (SIGSTOP) past an election and continued (SIGCONT) serves no stale linearizable read.

Each round writes a new value elsewhere while the old leader sleeps. Reads are given to the old leader before, while it
sleeps, and at once when it is continued: whatever was asked after the write was acknowledged must see it, or fail.
Those asked while it sleeps lie in its sockets, next to the heartbeats of its successor, and are the first thing that
it reads: no tick of its own comes between.
"""

import time
from collections.abc import Callable
from typing import Any

import grpc

from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.conftest import NewCluster
from tests.integration.raw import Failed, RawKv, RawSession, StreamEnded, value_query, value_result
from tests.integration.waiting import eventually, leader_among

ROUNDS = 6
KEY = b"paused"
SESSIONS = 3
READS_ASLEEP = 20
"""Of each session, and as many unary ones, asked while the server sleeps."""
AGE_ROUNDS_MAX = 5
READS_AWAKE = 50
"""Of each session, asked once it is continued, one after the other."""


class Readers:
    """Every way to read from one server, all at once."""

    def __init__(self, server: LocalServer) -> None:
        self._sessions = [RawSession(server.endpoint) for _ in range(SESSIONS)]
        self._asked = [0] * SESSIONS
        self._kv = RawKv(server.endpoint)
        self._calls: list[Any] = []
        self.values: list[int] = []
        self.failures = 0
        self.ask(1)
        self.collect()  # connections stand, and the server answers

    def ask(self, count: int) -> None:
        """Sends ``count`` reads every way, and does not wait for their answers."""
        for _ in range(count):
            for index, session in enumerate(self._sessions):
                session.read(value_query(KEY))
                self._asked[index] += 1
            self._calls.append(self._kv.begin_get(KEY))

    def collect(self) -> list[int]:
        """Waits for every answer; gives the values, and counts the reads that failed."""
        values = []
        for index, session in enumerate(self._sessions):
            while self._asked[index]:
                self._asked[index] -= 1
                try:
                    answer = session.read_results()
                except (Failed, StreamEnded):
                    self.failures += 1 + self._asked[index]
                    self._asked[index] = 0
                    break
                if answer.HasField("failure"):
                    self.failures += 1
                else:
                    values.append(int(value_result(answer.results[0]) or b"0"))
        for call in self._calls:
            try:
                values.append(int(call.result().kvs[0].value))
            except grpc.RpcError:
                self.failures += 1
        self._calls.clear()
        self.values += values
        return values

    def close(self) -> None:
        """Ends every stream."""
        for session in self._sessions:
            session.cut()
        self._kv.close()


def depose(cluster: LocalCluster, leader: str, number: int) -> None:
    """With ``leader`` asleep: waits for another one, and writes ``number`` there."""
    others = [server for server in cluster if server.name != leader]
    following = eventually(lambda: leader_among(others), "leader among the others")
    with RawKv(cluster[following].endpoint) as kv:
        kv.put(KEY, b"%d" % number)


def test_no_stale_read_from_a_leader_that_was_paused(
    cluster: LocalCluster, tell: Callable[[str], None]
) -> None:
    no_stale_reads(cluster, tell)


def test_nor_from_one_that_has_a_lease_when_it_is_paused(
    new_cluster: NewCluster, tell: Callable[[str], None]
) -> None:
    """Its ticks stand still while it sleeps; the clock that leases go by does not."""
    cluster = new_cluster(3, options={"read-lease-ms": 400})
    cluster.start()
    no_stale_reads(cluster, tell)


def no_stale_reads(cluster: LocalCluster, tell: Callable[[str], None]) -> None:
    """Pauses leader after leader."""
    with RawKv(cluster["n1"].endpoint) as kv:
        kv.put(KEY, b"0")
    answered = failed = 0
    for number in range(1, ROUNDS + 1):
        leader = cluster.wait_for_leader(everyone=True)
        before, asleep, awake = (Readers(cluster[leader]) for _ in range(3))
        try:
            before.ask(5)
            cluster[leader].stop()
            depose(cluster, leader, number)
            asleep.ask(READS_ASLEEP)
            cluster[leader].cont()
            awake.ask(READS_AWAKE)
            # Asked before the write: either value is right.
            assert set(before.collect()) <= {number - 1, number}
            for readers in (asleep, awake):
                stale = [value for value in readers.collect() if value != number]
                assert not stale, (
                    f"round {number}: {len(stale)} reads asked after {number} was written saw {stale[0]}"
                )
                answered += len(readers.values) - SESSIONS - 1
                failed += readers.failures
        finally:
            for readers in (before, asleep, awake):
                readers.close()
    tell(
        f"reads at the paused leader, asked after the write: {answered} saw it, {failed} were refused, 0 stale"
    )
    assert answered > 0, "every read was refused: nothing was tested"


def test_a_serializable_read_may_be_stale_and_says_so(cluster: LocalCluster) -> None:
    """Of a follower that was paused: it answers at once, from the past, and says how old its knowledge is."""
    leader = cluster.wait_for_leader(everyone=True)
    follower = next(name for name in cluster.names if name != leader)
    with RawKv(cluster[leader].endpoint) as kv:
        kv.put(KEY, b"100")
    with RawSession(cluster[follower].endpoint) as session:
        session.read(value_query(KEY))
        fresh = session.read_results()
        assert value_result(fresh.results[0]) == b"100"
        assert fresh.leader_age_ms < 10_000
        cluster[follower].stop()
        with RawKv(cluster[leader].endpoint) as kv:
            kv.put(KEY, b"101")
        session.read(value_query(KEY), serializable=True)
        cluster[follower].cont()
        stale = session.read_results()
        assert not stale.HasField("failure")
        value = int(value_result(stale.results[0]) or b"0")
        assert (value == 101) == (stale.applied_slot > fresh.applied_slot), (
            "the slot does not go with the value"
        )
        # It catches up by itself, and then says that it is fresh.
        eventually(lambda: read_at_once(session) == (101, True), "fresh serializable read")


def read_at_once(session: RawSession) -> tuple[int, bool]:
    """A serializable value, and whether the server has heard of a leader within ten seconds."""
    session.read(value_query(KEY), serializable=True)
    answer = session.read_results()
    return int(value_result(answer.results[0]) or b"0"), answer.leader_age_ms < 10_000


def test_a_leader_that_was_paused_does_not_call_the_past_fresh(
    cluster: LocalCluster, tell: Callable[[str], None]
) -> None:
    """It still believes that it leads: what it answers from the past is as old as its sleep was long, and says so."""
    past = 0
    for number in range(1001, 1001 + 2 * AGE_ROUNDS_MAX, 2):
        if past:
            break
        leader = cluster.wait_for_leader(everyone=True)
        with RawKv(cluster[leader].endpoint) as kv:
            kv.put(KEY, b"%d" % number)
        sessions = [RawSession(cluster[leader].endpoint) for _ in range(SESSIONS)]
        for session in sessions:
            session.read(value_query(KEY))
            assert value_result(session.read_results().results[0]) == b"%d" % number
        cluster[leader].stop()
        stopped_at = time.monotonic()
        depose(cluster, leader, number + 1)
        for session in sessions:
            for _ in range(READS_ASLEEP):
                session.read(value_query(KEY), serializable=True)
        slept_ms = (time.monotonic() - stopped_at) * 1000
        cluster[leader].cont()
        for session in sessions:
            for _ in range(READS_ASLEEP):
                answer = session.read_results()
                if value_result(answer.results[0]) == b"%d" % number:
                    past += 1
                    assert answer.leader_age_ms >= slept_ms, (
                        f"older than {slept_ms:.0f} ms, and said to be younger"
                    )
            session.cut()
    tell(f"serializable reads at the paused leader: {past} answered from the past, each as old as it said")
