"""Who a server is that joins; whether real ones do is for the integration tests."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from paxos_rsm.config import ServerConfig
from paxos_rsm.errors import LogDamaged, MembershipRefused, Unavailable
from paxos_rsm.paxos.changes import UpdateMember
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.server import joining
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.identity import IDENTITY_NAME, NEXT_IDENTITY_NAME, Identity, write_identity
from paxos_rsm.transport import Description
from tests.unit.server.fakes import FakeReplica, until

INITIAL = "n1=http://h1:1,n2=http://h2:2"
CONFIGURATION = Configuration(
    77,
    (Member(11, 101, "n1", "http://h1:1"), Member(0, 102, "", "http://h2:2", learner=True)),
    QuorumSizes.majority(1),
)


def config(directory: Path, state: str = "existing") -> ServerConfig:
    return ServerConfig(
        name="n2",
        data_dir=str(directory),
        initial_cluster=INITIAL,
        initial_cluster_state=state,
        initial_advertise_peer_urls=("http://h2:2",),
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Whom the cluster was asked of; it answers with CONFIGURATION."""
    calls: list[list[str]] = []

    async def describe(urls: list[str], **options: object) -> Description:
        calls.append(urls)
        return Description(77, CONFIGURATION)

    monkeypatch.setattr(joining, "describe", describe)
    return calls


async def test_one_of_the_first_members_asks_nobody(tmp_path: Path, asked: list[list[str]]) -> None:
    first = config(tmp_path, "new")
    assert await joining.identified(first) is first
    peers = await joining.peers_to_dial(first, formed=False)
    assert peers == {first.member_ids["n1"]: "http://h1:1", first.member_ids["n2"]: "http://h2:2"}
    assert asked == []


async def test_who_joins_finds_itself_by_its_peer_url(tmp_path: Path, asked: list[list[str]]) -> None:
    found = await joining.identified(config(tmp_path))
    assert (found.cluster_id, found.member_id) == (77, 102)
    assert asked == [["http://h1:1"]]


@pytest.mark.parametrize("state", ["new", "existing"])
async def test_who_has_joined_is_what_its_directory_says(
    tmp_path: Path, asked: list[list[str]], state: str
) -> None:
    write_identity(RealFiles(), str(tmp_path), Identity(88, 103, "n2", 5, joined=True))
    found = await joining.identified(config(tmp_path, state))
    assert (found.cluster_id, found.member_id) == (88, 103)
    assert asked == []


async def test_a_first_member_may_come_back_to_a_cluster_that_has_changed(
    tmp_path: Path, asked: list[list[str]]
) -> None:
    write_identity(RealFiles(), str(tmp_path), Identity(88, 103, "n2", 5))
    assert (await joining.identified(config(tmp_path))).member_id == 103
    assert (await joining.identified(config(tmp_path, "new"))).joined_ids is None
    assert asked == []


async def test_whom_to_dial_is_asked_until_the_configuration_is_known(
    tmp_path: Path, asked: list[list[str]]
) -> None:
    joined = config(tmp_path).joined_as(77, 102)
    assert await joining.peers_to_dial(joined, formed=False) == {101: "http://h1:1", 102: "http://h2:2"}
    assert len(asked) == 1
    assert await joining.peers_to_dial(joined, formed=True) == {}
    assert len(asked) == 1


async def test_an_identity_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / IDENTITY_NAME).write_bytes(b"?")
    with pytest.raises(LogDamaged):
        await joining.identified(config(tmp_path))


async def test_a_restored_directory_has_ids_of_its_own(tmp_path: Path, asked: list[list[str]]) -> None:
    plain = config(tmp_path, "new")
    write_identity(RealFiles(), str(tmp_path), Identity(5, 6, "n2", 7, restored_from="ab" * 32))
    found = await joining.identified(plain)
    assert found.restored_from == "ab" * 32
    assert found.cluster_id != plain.cluster_id
    assert found.member_id == plain.member_id
    assert asked == []


async def test_a_directory_that_is_to_become_another_members_goes_by_its_new_ids(
    tmp_path: Path, asked: list[list[str]]
) -> None:
    write_identity(RealFiles(), str(tmp_path), Identity(5, 6, "n2", 7))
    write_identity(RealFiles(), str(tmp_path), Identity(8, 6, "n2", 9, joined=True), NEXT_IDENTITY_NAME)
    found = await joining.identified(config(tmp_path, "new"))
    assert (found.cluster_id, found.member_id) == (8, 6)


# ---- addresses for clients -------------------------------------------------------------------------------------


def with_clients(urls: tuple[str, ...], incarnation: int = 12) -> Configuration:
    me = Member(incarnation, 102, "n2", "http://h2:2", urls, learner=incarnation == 0)
    members = (Member(11, 101, "n1", "http://h1:1"), me)
    return Configuration(77, members, QuorumSizes.majority(1 + (incarnation != 0)))


async def test_other_addresses_for_clients_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "LOOK_S", 0.01)
    me = replace(config(tmp_path), advertise_client_urls=("http://h2:9",)).joined_as(77, 102)
    replica = FakeReplica()
    publishing = asyncio.create_task(joining.publish_addresses(replica, me, lambda: 1))
    await asyncio.sleep(0.05)  # there is no configuration
    replica.configuration = with_clients((), incarnation=0)
    await asyncio.sleep(0.05)  # it has yet to join
    assert replica.changes == []
    replica.change_error = Unavailable("no leader")
    replica.configuration = with_clients(("http://h2:8",))
    await until(lambda: len(replica.changes) > 1)
    replica.change_error = None
    await publishing
    assert replica.configuration == replace(
        with_clients(("http://h2:9",)), changes=replica.configuration.changes
    )
    assert replica.changes[-1] == UpdateMember(102, client_urls=("http://h2:9",))


async def test_what_is_known_or_refused_is_not_asked_for_again(tmp_path: Path) -> None:
    me = replace(config(tmp_path), advertise_client_urls=("http://h2:9",)).joined_as(77, 102)
    replica = FakeReplica()
    replica.configuration = with_clients(("http://h2:9",))
    await joining.publish_addresses(replica, me, lambda: 1)
    assert replica.changes == []
    replica.configuration = with_clients(())
    replica.change_error = MembershipRefused("no", 15)
    await joining.publish_addresses(replica, me, lambda: 1)
    assert len(replica.changes) == 1


async def test_no_change_is_asked_for_that_a_member_may_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "LOOK_S", 0.01)
    me = replace(config(tmp_path), advertise_client_urls=("http://h2:9",)).joined_as(77, 102)
    replica, level = FakeReplica(), 0
    replica.configuration = with_clients(())
    publishing = asyncio.create_task(joining.publish_addresses(replica, me, lambda: level))
    await asyncio.sleep(0.05)  # one is of an earlier version, or down, for all that is known
    assert replica.changes == []
    level = 1
    await publishing
    assert len(replica.changes) == 1


async def test_who_has_met_changes_knows_them(tmp_path: Path) -> None:
    me = replace(config(tmp_path), advertise_client_urls=("http://h2:9",)).joined_as(77, 102)
    replica = FakeReplica()
    replica.configuration = replace(with_clients(()), changes=(5,))
    await joining.publish_addresses(replica, me, lambda: 0)
    assert len(replica.changes) == 1
