from paxos_rsm.paxos.messages import Prepare
from tests.unit.paxos.harness import SETTINGS, Cluster

# ---- phase 1 -----------------------------------------------------------------------------------------------------


def test_no_prepare_leaves_before_the_own_promise_is_durable_however_slow_the_disk() -> None:
    """Found by the fuzz: asking again did not wait, and a crash then made the ballot new a second time (rule 2)."""
    cluster = Cluster(3)
    cluster.calm()
    cluster.hold_writes = {1}
    cluster.node(1).election.stand_at = 0
    for _ in range(3 * SETTINGS.retransmit_ticks):
        cluster.tick(1)
    assert not cluster.take(Prepare)
    cluster.crash(1)
    cluster.restart(1)
    cluster.hold_writes = set()
    cluster.make_lead(1)
    assert set(cluster.oracle.ballots) == {cluster.node(1).proposer.ballot}
