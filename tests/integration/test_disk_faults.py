"""Disks that fail, fill up or stall, and clocks that jump, under the servers as they are shipped.

The servers run under a preloaded shim (``paxos_rsm.testing.shim``), which needs a C compiler; the disk that is really
full is a small tmpfs, which needs root. Where these are missing the tests skip and say so.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from paxos_rsm import AsyncClient
from paxos_rsm._proto import maintenance_pb2, maintenance_pb2_grpc
from paxos_rsm.testing import FaultUnavailable
from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.clients import DEADLINE_S, at_each_server, check_written, client_at, writer
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.load import PAUSE_S, Load
from tests.integration.processes import check_one_sentence, ended_server
from tests.integration.waiting import eventually, leader_among, same_state, status_now

PATIENT_MS = 2_000
"""The election time-out where a test asserts that the leader stays: a busy machine may well hold one up for 500 ms."""
BEAT_MS = 100
"""Their heartbeats', still twenty in a time-out."""

SETTLED = 50
SEGMENT_BYTES = 8 << 20
"""Of the log of the small disks: what is allocated ahead, and with it how long a full disk goes unnoticed."""
DISK_BYTES = 64 << 20
LARGE_DISK_BYTES = 256 << 20
VALUE_BYTES = 1 << 20


def cluster_or_skip(new_cluster: NewCluster, **options: Any) -> LocalCluster:
    """Skips where this machine cannot show the fault."""
    try:
        cluster = new_cluster(**options)
        cluster.start()
    except FaultUnavailable as error:
        pytest.skip(str(error))
    for server in cluster:
        if options.get("shim"):
            server.faults.check_loaded(server.pid)
    return cluster


@pytest.fixture(scope="module")
def _shimmed(new_shared_cluster: NewCluster) -> LocalCluster:
    return cluster_or_skip(new_shared_cluster, shim=True)


@pytest.fixture
def shimmed(_shimmed: LocalCluster) -> Iterator[LocalCluster]:
    """Three servers, all up, whose disks and clocks are sound."""
    _shimmed.start()
    yield _shimmed
    for server in _shimmed:
        server.faults.clear()


@pytest.fixture(scope="module")
def _patient(new_shared_cluster: NewCluster) -> LocalCluster:
    options = {"election-timeout": PATIENT_MS, "heartbeat-interval": BEAT_MS}
    return cluster_or_skip(new_shared_cluster, shim=True, options=options)


@pytest.fixture
def patient(_patient: LocalCluster, _shimmed: LocalCluster) -> Iterator[LocalCluster]:
    """The same, of servers that wait longer before they stand. The others, which beat all the time, need not run."""
    _shimmed.kill()
    _patient.start()
    yield _patient
    for server in _patient:
        server.faults.clear()


def check_all(cluster: LocalCluster, load: Load, names: list[str]) -> None:
    """Every write that was acknowledged is at every server, and all are in the same state."""
    eventually(lambda: same_state(cluster), "equal states")
    for server in cluster:
        asyncio.run(check_written(server.endpoint, {name: load.of(name) for name in names}))


def check_leader_ends(
    cluster: LocalCluster,
    case: str,
    fault: Callable[[LocalServer], None],
    sentence: str,
    recover: Callable[[LocalServer], None],
) -> str:
    """Under load, does something to the leader that it has to end of, with ``sentence``; the other two go on.

    Then ``recover`` mends it, it is started again, and nothing is lost. Gives a line to tell of the outage.
    """
    failing = cluster[cluster.wait_for_leader(everyone=True)]
    others = [server for server in cluster if server is not failing]
    before = failing.log()
    workers = {
        f"{case}-{name}": writer(f"{case}-{name}", at, 2) for name, at in at_each_server(cluster).items()
    }
    with Load(*workers.values()) as load:
        load.wait_for(1, *workers)
        load.pause_s = 0
        load.wait_for(SETTLED)
        failed_at = time.monotonic()
        fault(failing)
        check_end(failing, before, sentence)
        load.wait_for(SETTLED, *(f"{case}-{server.name}" for server in others))
        gap_s = load.longest_gap_s(failed_at)
        load.pause_s = PAUSE_S
        eventually(lambda: leader_among(others), "leader of the other two")
        for server in others:
            with client_at(server.endpoint) as client:
                client.put(f"{case}/{server.name}", "written")
                assert client.get(f"{case}/{server.name}").value == b"written"
        recover(failing)
        failing.start()
        load.wait_for(1, *workers)
    check_all(cluster, load, list(workers))
    return f"longest gap between acknowledged writes {gap_s * 1000:.0f} ms"


def check_end(server: LocalServer, log_before: str, sentence: str) -> None:
    """It has ended by itself, with this sentence about its directory."""
    said = check_one_sentence(ended_server(server, log_before))
    assert sentence in said
    assert str(server.data_dir) in said


async def fill_log(endpoints: list[str], is_enough: Callable[[], bool]) -> None:
    """Writes large values."""
    async with AsyncClient(endpoints, timeout_s=DEADLINE_S) as client:
        while not is_enough():
            await asyncio.gather(*(client.put(f"filler/{n}", bytes(VALUE_BYTES)) for n in range(4)))


def test_a_sync_that_fails_once_ends_the_leader(shimmed: LocalCluster, tell: Callable[[str], None]) -> None:
    """It stops at the first error, syncs no more, and finds its log whole when it is started again."""

    def check_never_tried_again(failing: LocalServer) -> None:
        assert failing.faults.syncs_failed == 1
        assert failing.faults.syncs == failing.faults.syncs_at_failure, (
            "a sync was begun after one had failed"
        )

    gap = check_leader_ends(
        shimmed,
        "sync-error",
        lambda failing: failing.faults.sync_errors(1),
        "an I/O error while syncing the log",
        check_never_tried_again,
    )
    tell(f"sync error on the leader: {gap}")


def test_a_write_without_space_ends_the_leader(shimmed: LocalCluster, tell: Callable[[str], None]) -> None:
    """Nothing is acknowledged that was not written; while there is no space it does not start, and says so."""

    def recover(failing: LocalServer) -> None:
        before = failing.log()
        failing.start()
        check_end(failing, before, "no space left")
        failing.faults.no_space(False)

    gap = check_leader_ends(
        shimmed,
        "no-space",
        lambda failing: failing.faults.no_space(True),
        "no space left while writing the log",
        recover,
    )
    tell(f"no space for the leader's log: {gap}")


def test_a_leader_whose_disk_is_full_leads_no_more_and_goes_on_when_there_is_space(
    new_cluster: NewCluster, tell: Callable[[str], None]
) -> None:
    """A real one (tmpfs): what was allocated ahead is used up first, then the log cannot grow. The other two go on, and
    the full one serves what they have written; it needs no restart.
    """
    options = {"log-segment-bytes": SEGMENT_BYTES}
    cluster = cluster_or_skip(new_cluster, disk_bytes=DISK_BYTES, options=options)
    full = cluster[cluster.wait_for_leader(everyone=True)]
    process = full.pid
    others = [server for server in cluster if server is not full]
    workers = {name: writer(name, at, 2) for name, at in at_each_server(cluster).items()}
    with Load(*workers.values()) as load:
        load.wait_for(1, *workers)
        begun_at = time.monotonic()
        full.fill_disk()
        asyncio.run(fill_log([server.endpoint for server in others], lambda: "no space left" in full.log()))
        load.wait_for(SETTLED, *workers)
        gap_s = load.longest_gap_s(begun_at)
        eventually(lambda: leader_among(others), "leader of the other two")
        with client_at(others[0].endpoint) as client:
            client.put("written", "while it is full")
        with client_at(full.endpoint) as client:
            assert client.get("written").value == b"while it is full"
        assert any("no space left" in error for error in errors_of(full))
        full.free_disk()
        eventually(lambda: not errors_of(full), "it goes on")
        load.wait_for(1, *workers)
    assert full.pid == process
    check_all(cluster, load, list(workers))
    tell(f"full disk under the leader's log: longest gap between acknowledged writes {gap_s * 1000:.0f} ms")


@LONG[0]
@LONG[1]
def test_a_server_whose_disk_stays_full_stops_before_its_memory_is_full_too(new_cluster: NewCluster) -> None:
    cluster = cluster_or_skip(
        new_cluster, disk_bytes=LARGE_DISK_BYTES, options={"log-segment-bytes": SEGMENT_BYTES}
    )
    leader = cluster.wait_for_leader(everyone=True)
    full, other = (server for server in cluster if server.name != leader)
    before = full.log()
    full.fill_disk()
    asyncio.run(fill_log([cluster[leader].endpoint, other.endpoint], lambda: not full.running))
    check_end(full, before, "no space left")
    full.free_disk()
    full.start()
    eventually(lambda: same_state(cluster), "equal states")


def errors_of(server: LocalServer) -> list[str]:
    """What its status complains of."""
    with grpc.insecure_channel(server.endpoint) as channel:
        stub = maintenance_pb2_grpc.MaintenanceStub(channel)
        return list(stub.Status(maintenance_pb2.EndpointStatusRequest(), timeout=DEADLINE_S).errors)


# Far more than the election time-out (500 ms) and all that a busy machine adds to it: that much nobody may wait.
@pytest.mark.parametrize("delay_ms", [10_000, pytest.param(30_000, marks=LONG)])
def test_a_leader_whose_disk_stalls_holds_nobody_up(
    shimmed: LocalCluster, delay_ms: int, tell: Callable[[str], None]
) -> None:
    """Each of its syncs takes so much longer: writes elsewhere go on, under it or under another."""
    leader = shimmed[shimmed.wait_for_leader(everyone=True)]
    workers = {f"stall-{delay_ms}-{name}": at for name, at in at_each_server(shimmed).items()}
    with Load(*(writer(name, at, 2) for name, at in workers.items())) as load:
        load.wait_for(SETTLED)
        stalled_at = time.monotonic()
        delayed = leader.faults.syncs_delayed
        leader.faults.sync_delay_ms(delay_ms)
        eventually(lambda: leader.faults.syncs_delayed > delayed, "sync that stalls")
        until = time.monotonic() + 1.2 * delay_ms / 1000
        while time.monotonic() < until:
            load.wait_for(5, *workers)
        gaps_ms = {name: load.longest_gap_s(stalled_at, name) * 1000 for name in workers}
        role = status_now(leader).role
        leader.faults.clear()
        load.wait_for(1, *workers)
    worst = max(gaps_ms.values())
    tell(
        f"leader whose syncs take {delay_ms / 1000:g} s: longest gap of any server's clients {worst:.0f} ms, "
        f"it is {role} after {1.2 * delay_ms / 1000:.1f} s"
    )
    assert worst < delay_ms, f"the stall of one disk was handed on to clients: {gaps_ms}"
    check_all(shimmed, load, list(workers))


@pytest.mark.parametrize(
    "offset_s",
    [pytest.param(3600, id="an hour forward"), pytest.param(-3600, id="an hour back", marks=LONG)],
)
def test_a_clock_that_jumps_changes_nothing(patient: LocalCluster, offset_s: int) -> None:
    """At the leader, then at a follower as well: the same leader, and every write and read goes on."""
    leader = patient.wait_for_leader(everyone=True)
    ballot = status_now(patient[leader]).ballot
    follower = next(name for name in patient.names if name != leader)
    workers = {f"clock-{offset_s}-{name}": at for name, at in at_each_server(patient).items()}
    with (
        Load(*(writer(name, at, 2) for name, at in workers.items())) as load,
        contextlib.ExitStack() as open_clients,
    ):
        clients = [open_clients.enter_context(client_at(server.endpoint)) for server in patient]
        load.wait_for(1, *workers)
        for name in (leader, follower):
            before = patient[name].faults.clocks_shifted
            patient[name].faults.clock_offset_s(offset_s)
            until = time.monotonic() + 2 * PATIENT_MS / 1000
            while time.monotonic() < until:
                load.wait_for(4, *workers)
                for client in clients:
                    client.put("clock", f"{offset_s}-{name}")
                    assert client.get("clock").value == f"{offset_s}-{name}".encode()
            assert patient[name].faults.clocks_shifted > before, "it never looked at the wall clock"
        assert patient.wait_for_leader(everyone=True) == leader
        assert status_now(patient[leader]).ballot == ballot
    check_all(patient, load, list(workers))
