"""All three servers die by SIGKILL at once, under load: after a restart nothing is lost, and no ballot is used again.

SIGKILL keeps what the kernel has in its cache, so this shows nothing about syncing: test_sync_before_say.py does.
"""

import asyncio
import itertools

from paxos_rsm.paxos.types import Ballot
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.clients import (
    at_each_server,
    cas_counter,
    check_count,
    check_written,
    client_at,
    writer,
)
from tests.integration.disks import identity_on_disk, log_on_disk
from tests.integration.load import Load
from tests.integration.waiting import eventually, same_state, status_now

ROUNDS = 2


def leading_ballot(cluster: LocalCluster) -> Ballot:
    """A ballot that all servers have followed, once there is one."""
    leader = cluster.wait_for_leader(everyone=True)
    ballot = status_now(cluster[leader]).ballot
    return Ballot(ballot.round, ballot.node)


def test_nothing_is_lost_and_no_ballot_is_used_again(cluster: LocalCluster) -> None:
    places = at_each_server(cluster)
    writers = {f"writer-{name}": writer(f"writer-{name}", at) for name, at in places.items()}
    counters = {f"counter-{name}": cas_counter(f"counter-{name}", at) for name, at in places.items()}
    ballots = [leading_ballot(cluster)]
    with Load(*writers.values(), *counters.values()) as load:
        for _ in range(ROUNDS):
            load.wait_for(1, *writers, *counters)
            before = {server.name: status_now(server) for server in cluster}
            cluster.kill()
            promised = {server.name: log_on_disk(server).promised for server in cluster}
            identities = {server.name: identity_on_disk(server) for server in cluster}
            cluster.start()
            load.wait_for(1, *writers, *counters)
            ballot = leading_ballot(cluster)
            leader = next(
                name for name, identity in identities.items() if identity.incarnation == ballot.node
            )
            # Rule 2 by what the disks say: whoever leads has asked for more than it had ever promised.
            assert ballot > promised[leader], (
                "the new leader's ballot had been promised, hence perhaps used, before"
            )
            ballots.append(ballot)
            for name, told in before.items():
                now = status_now(cluster[name])
                assert now.incarnation == told.incarnation == identities[name].incarnation
                assert now.boot_count == told.boot_count + 1
                assert now.applied_slot >= told.applied_slot
    assert all(later.round > earlier.round for earlier, later in itertools.pairwise(ballots)), ballots
    eventually(lambda: same_state(cluster), "equal states")
    for server in cluster:
        asyncio.run(check_written(server.endpoint, {name: load.of(name) for name in writers}))
        with client_at(server.endpoint) as client:
            total = int(client.get("counter").value or b"0")
        check_count(total, [count for name in counters for count in load.of(name)])
