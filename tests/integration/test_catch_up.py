"""A follower that missed many slots catches up with them, and ends in the same state.

More than the window has and a chunk of catch-up holds; 10,000 in the long form (``make test-long``).
"""

import threading
import time
from collections.abc import Callable

import pytest

from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.conftest import NewCluster
from tests.integration.kills import LONG
from tests.integration.raw import RawSession, put_command
from tests.integration.waiting import eventually, same_state, status_now

SESSIONS = 2
IN_FLIGHT = 256
VALUE_BYTES = 1_000
PATIENCE_S = 600.0
"""For each half of the test, which takes some ten seconds: how long it was is told, and not asserted."""

# The smallest entries there may be: two frames of two such commands fill one, so that slots go fast.
OPTIONS: dict[str, str | int] = {
    "max-request-bytes": 1_024,
    "entry-bytes-max": 4_096,
    "window-entries": 512,
}


def fill(endpoint: str, number: int, stop: threading.Event) -> None:
    """Submits frames of one session, many in flight, until told to stop; every result is waited for."""
    with RawSession(endpoint) as session:
        session.open()
        sent = received = 0
        while not stop.is_set() or received < sent:
            while sent - received < IN_FLIGHT and not stop.is_set():
                frame = [
                    put_command(b"%d/%d" % (number, (sent + n) % 997), b"v" * VALUE_BYTES) for n in (1, 2)
                ]
                session.submit(sent + 1, *frame, received_below=received + 1)
                sent += 2
            message = session.receive()
            received = message.results.first_seq + len(message.results.results) - 1


def write_slots(cluster: LocalCluster, leader: str, count: int) -> None:
    """Writes until ``count`` slots more are decided."""
    wanted = status_now(cluster[leader]).decided_slot + count
    stop = threading.Event()
    threads = [
        threading.Thread(target=fill, args=[cluster[leader].endpoint, number, stop], daemon=True)
        for number in range(SESSIONS)
    ]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: status_now(cluster[leader]).decided_slot >= wanted, f"{count} slots", PATIENCE_S)
    finally:
        stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a session was not answered"


@pytest.mark.timeout(3 * PATIENCE_S)
@pytest.mark.parametrize(
    "slots", [pytest.param(2_000, id="short"), pytest.param(10_000, id="long", marks=LONG)]
)
def test_a_follower_that_missed_many_slots(
    new_cluster: NewCluster, slots: int, tell: Callable[[str], None]
) -> None:
    cluster = new_cluster(options=OPTIONS)
    cluster.start()
    leader = cluster.wait_for_leader(everyone=True)
    late = next(name for name in cluster.names if name != leader)
    behind_at = status_now(cluster[late]).decided_slot
    cluster[late].kill()
    began = time.monotonic()
    write_slots(cluster, leader, slots)
    written_s = time.monotonic() - began
    ahead_at = status_now(cluster[leader]).decided_slot
    assert ahead_at - behind_at >= slots

    began = time.monotonic()
    cluster[late].start()
    eventually(lambda: cluster.leader(everyone=True) and same_state(cluster), "equal states", PATIENCE_S)
    held = "the same leader" if cluster.wait_for_leader() == leader else "another leader"
    tell(
        f"{ahead_at - behind_at} slots missed (written in {written_s:.1f} s), "
        f"caught up {time.monotonic() - began:.1f} s after the start of the process, under {held}"
    )
    assert status_now(cluster[late]).applied_slot >= ahead_at
