"""A member moves: to another address for its peers, and for its clients."""

from paxos_rsm import Client
from paxos_rsm.testing.ports import PortHolder
from tests.integration.conftest import NewCluster
from tests.integration.waiting import TIMEOUT_S, eventually


def test_a_member_moves_to_other_addresses(new_cluster: NewCluster) -> None:
    cluster = new_cluster(3)
    cluster.start()
    leader = cluster.wait_for_leader()
    name = next(each for each in cluster.names if each != leader)
    moved = cluster[name]
    with PortHolder() as ports, Client(cluster[leader].endpoint, timeout_s=TIMEOUT_S) as kv:
        before = moved.peer_url
        moved.terminate()
        moved.close()  # this bench asks it elsewhere from now on
        moved.client_port, moved.peer_port = ports.take(2)
        listed = kv.member_update(name, moved.peer_url)
        assert [each.peer_urls for each in listed if each.name == name] == [(moved.peer_url,)]
        flags = [flag.replace(before, moved.peer_url) for flag in moved.flags]
        flags[flags.index("--listen-client-urls") + 1] = f"http://{moved.endpoint}"
        moved.flags = [*flags, "--initial-cluster-state", "existing"]
        moved.start()
        cluster.wait_until(lambda: cluster.leader(everyone=True), "leader that all follow", TIMEOUT_S)

        def found() -> bool:
            urls = {each.name: each.client_urls for each in kv.members()}
            return urls[name] == (f"http://{moved.endpoint}",)

        eventually(found, "its new address among those for clients")
        kv.put("a", "1")
    with Client(moved.endpoint, timeout_s=TIMEOUT_S) as kv:
        assert kv.get("a").value == b"1"
    # The others find it there when they come back, too, whatever their flags say.
    other = next(each for each in cluster if each.name not in (name, leader))
    other.restart()
    cluster.wait_until(lambda: cluster.leader(everyone=True), "leader that all follow", TIMEOUT_S)
    eventually(lambda: all(each.connected for each in other.status().members), "connections to all")
