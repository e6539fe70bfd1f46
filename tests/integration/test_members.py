"""Members come and go while clients work: nothing is lost, and who is no member is told so and stops."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from paxos_rsm import AsyncClient, Client
from paxos_rsm.errors import InvalidArgument
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.conftest import NewCluster
from tests.integration.histories import Clients, checked_history
from tests.integration.kills import LONG
from tests.integration.processes import check_one_sentence, ended_server
from tests.integration.waiting import TIMEOUT_S, eventually

GAP_MS_MAX = 3_000
"""For a machine that does much else; what is aimed at is a thirtieth of it."""


async def grow(cluster: LocalCluster, kv: AsyncClient, name: str) -> None:
    """Adds a server that was prepared before; returns once it votes and has caught up."""
    member = await kv.member_add(cluster[name].peer_url)
    assert member.learner
    cluster[name].start()
    await until_voter(kv, name)


async def until_voter(kv: AsyncClient, name: str) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while name not in [each.name for each in await kv.members() if not each.learner]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def shrink(cluster: LocalCluster, kv: AsyncClient, name: str) -> None:
    """Removes a member; its server, where it runs, stops by itself."""
    runs = cluster[name].running
    await kv.member_remove(name)
    if runs:
        ended = await asyncio.to_thread(ended_server, cluster[name])
        assert "was removed from the cluster" in check_one_sentence(ended)
    cluster.remove(name)


async def led_by(cluster: LocalCluster, *, other_than: str = "") -> str:
    def leader() -> str | None:
        found = cluster.leader()
        return found if found != other_than else None

    return await asyncio.to_thread(cluster.wait_until, leader, "other leader", TIMEOUT_S)


# ---- growing, shrinking ----------------------------------------------------------------------------------------


async def test_one_server_becomes_three(
    new_cluster: NewCluster, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    cluster = new_cluster(1)
    await asyncio.to_thread(cluster.start)
    cluster.add("n2")
    cluster.add("n3")
    async with (
        AsyncClient(cluster.endpoints, timeout_s=TIMEOUT_S) as kv,
        checked_history(cluster, tmp_path, cluster.endpoints) as clients,
    ):
        await clients.work()
        # A learner counts for nothing: it may be gone, and one of one goes on.
        added = await kv.member_add(cluster["n2"].peer_url, learner=True)
        with pytest.raises(InvalidArgument, match="in sync with leader"):
            await kv.member_promote(added.id)
        with pytest.raises(InvalidArgument, match="too many learner"):
            await kv.member_add(cluster["n3"].peer_url, learner=True)
        with pytest.raises(InvalidArgument, match="Peer URLs already exists"):
            await kv.member_add(cluster["n2"].peer_url)
        await clients.work()
        cluster["n2"].start()
        await eventually_learner(cluster, "n2")
        cluster["n2"].kill()
        await clients.work()
        cluster["n2"].start()
        await promoted(kv, "n2")
        await grow(cluster, kv, "n3")
        assert sorted(each.name for each in await kv.members()) == ["n1", "n2", "n3"]
        # Two of three are a quorum, without the one that was there first, too.
        await clients.work()
        await asyncio.to_thread(cluster["n1"].kill)
        await led_by(cluster, other_than="n1")
        await clients.work()
        cluster["n1"].start()
        await asyncio.to_thread(cluster.wait_for_leader, TIMEOUT_S, everyone=True)
        tell(f"1 to 3 servers, the first one killed: longest gap {clients.longest_gap_ms():.0f} ms")


async def eventually_learner(cluster: LocalCluster, name: str) -> None:
    """Until a server follows as one that has no vote."""

    def follows() -> bool:
        told = cluster.statuses().get(name)
        return told is not None and told.learner and told.leader != "" and told.applied_slot > 0

    await asyncio.to_thread(eventually, follows, f"learner {name}")


async def promoted(kv: AsyncClient, name: str) -> None:
    """Asks until it is close enough."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                await kv.member_promote(name)
            except InvalidArgument as error:
                if "in sync with leader" not in str(error):
                    raise
                await asyncio.sleep(0.1)
            else:
                return


@LONG[0]
@LONG[1]
async def test_machines_are_replaced_and_the_leader_is_removed(
    new_cluster: NewCluster, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    cluster = new_cluster(3)
    await asyncio.to_thread(cluster.start)
    cluster.add("n4")
    cluster.add("n5")
    async with (
        AsyncClient(cluster.endpoints, timeout_s=TIMEOUT_S) as kv,
        checked_history(cluster, tmp_path, cluster.endpoints) as clients,
    ):
        # One whose machine is gone for good.
        leader = await led_by(cluster)
        dead = next(name for name in ("n1", "n2", "n3") if name != leader)
        await asyncio.to_thread(cluster[dead].kill)
        await shrink(cluster, kv, dead)
        await grow(cluster, kv, "n4")
        await clients.work()
        # The leader itself.
        await grow(cluster, kv, "n5")
        leader, removed_at = await led_by(cluster), clients.now_ms()
        await shrink(cluster, kv, leader)
        await clients.work()
        tell(f"the leader is removed: longest gap {clients.longest_gap_ms(removed_at):.0f} ms")
        assert clients.longest_gap_ms(removed_at) < GAP_MS_MAX
        await asyncio.to_thread(cluster.wait_for_leader, TIMEOUT_S, everyone=True)
        assert len(await kv.members()) == 3


@pytest.mark.parametrize("rounds", [pytest.param(1, id="long", marks=LONG)])
async def test_every_machine_is_replaced(
    new_cluster: NewCluster, tmp_path: Path, tell: Callable[[str], None], rounds: int
) -> None:
    cluster = new_cluster(1)
    await asyncio.to_thread(cluster.start)
    first = [f"n{number}" for number in range(1, 6)]
    later = [f"n{number}" for number in range(6, 11)]
    for name in [*first[1:], *later]:
        cluster.add(name)
    gone: list[str] = []
    async with (
        AsyncClient(cluster.endpoints, timeout_s=TIMEOUT_S) as kv,
        checked_history(cluster, tmp_path, cluster.endpoints) as clients,
    ):
        for name in first[1:]:
            await grow(cluster, kv, name)
            await clients.work()
        for old, new in zip(first, later, strict=True):
            await kill_leader(cluster, clients)
            await shrink(cluster, kv, old)
            gone.append(old)
            await grow(cluster, kv, new)
            await clients.work()
        for name in later[:2]:
            await shrink(cluster, kv, name)
            await kill_leader(cluster, clients)
        assert sorted(each.name for each in await kv.members()) == sorted(later[2:])
        gap = clients.longest_gap_ms()
        tell(f"1 to 5 servers, each replaced, and to 3, leaders killed in between: longest gap {gap:.0f} ms")


async def kill_leader(cluster: LocalCluster, clients: Clients) -> None:
    """Kills it, waits for another, and starts it again."""
    leader = await led_by(cluster)
    await asyncio.to_thread(cluster[leader].kill)
    await led_by(cluster, other_than=leader)
    await clients.work()
    cluster[leader].start()
    await asyncio.to_thread(cluster.wait_for_leader, TIMEOUT_S, everyone=True)


# ---- leadership ------------------------------------------------------------------------------------------------


async def test_the_leadership_is_handed_over(
    new_cluster: NewCluster, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    cluster = new_cluster(3)
    await asyncio.to_thread(cluster.start)
    async with (
        AsyncClient(cluster.endpoints, timeout_s=TIMEOUT_S) as kv,
        checked_history(cluster, tmp_path, cluster.endpoints) as clients,
    ):
        ids = {each.name: each.id for each in await kv.members()}
        await clients.work()
        began_ms, leader = clients.now_ms(), await led_by(cluster)
        for name in [each for each in cluster.names if each != leader]:
            assert await kv.move_leader(name) == ids[name]
            await clients.work(5)
            assert await led_by(cluster) == name
        assert await kv.move_leader() != ids[name]
        moved_ms = clients.longest_gap_ms(began_ms)
        leader = await asyncio.to_thread(cluster.wait_for_leader, TIMEOUT_S, everyone=True)
        with pytest.raises(InvalidArgument, match="bad leader transferee"):
            await kv.move_leader(1)
        # A server that is told to stop does so too, before it stops.
        began_ms = clients.now_ms()
        assert await asyncio.to_thread(cluster[leader].terminate) == 0
        await clients.work()
        stopped_ms = clients.longest_gap_ms(began_ms)
        assert "handed the leadership over" in cluster[leader].log()
        cluster[leader].start()
        await asyncio.to_thread(cluster.wait_for_leader, TIMEOUT_S, everyone=True)
    tell(f"longest gap: leadership moved {moved_ms:.0f} ms, leader stopped by SIGTERM {stopped_ms:.0f} ms")
    assert max(moved_ms, stopped_ms) < GAP_MS_MAX


# ---- who is no member ------------------------------------------------------------------------------------------


def sentence(cluster: LocalCluster, name: str) -> str:
    """With what a server ends that is started now."""
    log_before = cluster[name].log()
    cluster[name].start()
    ended = ended_server(cluster[name], log_before)
    assert ended.code == 1
    return check_one_sentence(ended)


def test_who_is_no_member_is_told_so(new_cluster: NewCluster) -> None:
    cluster = new_cluster(4)
    cluster.start()
    leader = cluster.wait_for_leader()
    here, away = [name for name in cluster.names if name != leader][:2]
    with Client(cluster.endpoints, timeout_s=TIMEOUT_S) as kv:
        kv.put("a", "1")
        # It runs, and is removed; it is started again.
        kv.member_remove(here)
        ended = ended_server(cluster[here])
        assert ended.code == 1
        assert "this server was removed from the cluster" in check_one_sentence(ended)
        assert "was removed from the cluster" in sentence(cluster, here)
        # Its directory is empty, and it still believes that it founds the cluster; then that it joins it.
        cluster[away].kill()
        cluster[away].wipe()
        told = sentence(cluster, away)
        assert "the directory was wiped or replaced" in told.casefold()
        assert f"paxos-rsm member add {away}" in told
        cluster[away].wipe()
        cluster[away].flags += ["--initial-cluster-state", "existing"]
        told = sentence(cluster, away)
        assert "has a data directory that this server does not have" in told
        assert "paxos-rsm member remove" in told
        # What the sentence says is what helps.
        kv.member_remove(away)
        kv.member_add(cluster[away].peer_url)
        cluster[away].start()
        eventually(lambda: not any(each.learner for each in kv.members()), "voter")
        # Nobody has added it.
        stranger = cluster.add()
        told = sentence(cluster, stranger.name)
        assert "is not a member of cluster" in told
        assert f"paxos-rsm member add {stranger.name} --peer-urls {stranger.peer_url}" in told
        # It is removed while it is away, and learns it when it comes back.
        kv.member_add(stranger.peer_url)
        stranger.start()
        eventually(lambda: not any(each.learner for each in kv.members()), "voter")
        stranger.kill()
        kv.member_remove(stranger.name)
        assert "was removed from the cluster" in sentence(cluster, stranger.name)
        assert kv.get("a").value == b"1"
