"""Waiting for a condition, never for a time; and what several tests wait for."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from paxos_rsm._proto import admin_pb2
from paxos_rsm.testing.cluster import LocalCluster, LocalClusterError, LocalServer

__all__ = ["TIMEOUT_S", "eventually", "leader_among", "same_state", "status_now", "status_of"]

T = TypeVar("T")

TIMEOUT_S = 60.0
POLL_S = 0.02


def eventually(condition: Callable[[], T | None], what: str, timeout_s: float = TIMEOUT_S) -> T:
    """Asks ``condition`` until it gives something true, and gives that."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"no {what} within {timeout_s:g} s"
        time.sleep(POLL_S)


def status_now(server: LocalServer) -> admin_pb2.StatusResponse:
    """What the server says of itself; a busy machine gets the time that it needs."""
    return server.status(timeout_s=TIMEOUT_S)


def status_of(server: LocalServer) -> admin_pb2.StatusResponse | None:
    """What the server says of itself; None where it does not answer."""
    try:
        return server.status()
    except LocalClusterError:
        return None


def leader_among(servers: Iterable[LocalServer]) -> str | None:
    """The leader, where one of these servers says that it leads and all of them follow it in its ballot.

    Unlike ``LocalCluster.leader`` it does not ask a server that is stopped, which would take a second each time.
    """
    answers = [status_of(server) for server in servers]
    told = [answer for answer in answers if answer is not None]
    for answer in told:
        same = [a for a in told if a.leader == answer.name and a.ballot == answer.ballot]
        if answer.role == "leader" and len(same) == len(answers):
            return answer.name
    return None


def same_state(cluster: LocalCluster) -> tuple[int, bytes] | None:
    """Applied slot and digest, where all the servers that run are at the same slot with the same state.

    Raises AssertionError where they are at the same slot with different states: that never mends itself.
    """
    answers = cluster.statuses(digest=True)
    if len(answers) < len(cluster.running) or len({a.applied_slot for a in answers.values()}) != 1:
        return None
    digests = {name: answer.digest.hex() for name, answer in answers.items()}
    assert len(set(digests.values())) == 1, f"the servers have diverged: {digests}"
    one = next(iter(answers.values()))
    return one.applied_slot, one.digest
