import json

import pytest

from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm.cli.member import WHAT_TO_DO, member_ref
from paxos_rsm.errors import InvalidArgument
from paxos_rsm.server.cluster_service import REFUSALS
from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import run


def test_list_by_way_of_any() -> None:
    members = [Member(1), Member(255)]
    with serving(*members):
        result = run("member", "list", "--endpoints", members[1].endpoint)
        assert result.stdout == (
            f"1, started, n1, , http://{members[0].endpoint}, false\n"
            f"ff, started, n255, , http://{members[1].endpoint}, false\n"
        )
        shown = json.loads(run("member", "list", "-w", "json", "--endpoints", members[0].endpoint).stdout)
        assert [member["ID"] for member in shown["members"]] == [1, 255]
        assert shown["header"]["cluster_id"] == 9


def test_add_prints_what_to_start_the_server_with() -> None:
    with serving(one := Member(1)):
        result = run("member", "add", "n4", "--peer-urls", "http://b:2380", "--endpoints", one.endpoint)
        assert result.stdout == (
            "Member              abc added to cluster                9\n"
            "\n"
            'PAXOS_RSM_NAME="n4"\n'
            'PAXOS_RSM_INITIAL_CLUSTER="n1=http://a:2380,n4=http://b:2380"\n'
            'PAXOS_RSM_INITIAL_ADVERTISE_PEER_URLS="http://b:2380"\n'
            'PAXOS_RSM_INITIAL_CLUSTER_STATE="existing"\n'
        )
        shown = run(
            "member", "add", "n4", "--peer-urls", "http://b:2380", "--learner", "--endpoints", one.endpoint
        )
        assert shown.stdout.startswith("Member              abc added as learner to cluster")
        assert one.asked == [
            pb.MemberAddRequest(peerURLs=["http://b:2380"]),
            pb.MemberAddRequest(peerURLs=["http://b:2380"], isLearner=True),
        ]


def test_what_the_cluster_refuses_is_one_line() -> None:
    with serving(one := Member(1)):
        result = run("member", "add", "n4", "--peer-urls", "b:2380", "--endpoints", one.endpoint)
        assert result.exit_code == 1
        assert result.stderr == (
            "Error: etcdserver: given member URLs are invalid (give one address, such as http://10.0.0.4:2380)\n"
        )
        result = run("member", "remove", "7", "--endpoints", one.endpoint)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: etcdserver: member not found (`paxos-rsm member list` prints")
        result = run("member", "remove", "n7", "--endpoints", one.endpoint)
        assert result.exit_code == 1
        assert "there is no member 'n7'" in result.stderr
        assert run("member", "add", "n4", "--endpoints", one.endpoint).exit_code == 128


@pytest.mark.parametrize("name", ["", "n=4", "a,b", "-"])
def test_a_name_that_no_server_can_have_is_refused_before_anything_is_asked(name: str) -> None:
    with serving(one := Member(1)):
        result = run("member", "add", "--peer-urls", "http://b:1", "--endpoints", one.endpoint, "--", name)
        assert (result.exit_code, one.asked) == (128, [])
        assert f"{name!r} cannot be a name" in result.stderr


def test_a_name_that_a_member_has_is_refused() -> None:
    """What is printed would be two addresses for one name, and the server could never join."""
    with serving(one := Member(1)):
        result = run("member", "add", "n1", "--peer-urls", "http://b:2380", "--endpoints", one.endpoint)
        assert (result.exit_code, one.asked) == (1, [])
        assert "there is a member n1 already, 1 at" in result.stderr
        assert "`paxos-rsm member remove n1` first" in result.stderr


def test_every_refusal_of_the_servers_is_explained() -> None:
    said = {words for _, words in REFUSALS.values()}
    assert set(WHAT_TO_DO) == said - {"etcdserver: member ID already exist"}


@pytest.mark.parametrize("which", ["n255", "ff", "FF", "255"])
def test_members_are_named_by_name_or_number(which: str) -> None:
    with serving(one := Member(1), Member(255)):
        at = ("--endpoints", one.endpoint)
        result = run("member", "remove", which, *at)
        assert result.stdout == "Member               ff removed from cluster                9\n"
        result = run("member", "update", which, "--peer-urls", "http://c:1", *at)
        assert result.stdout == "Member               ff updated in cluster                9\n"
        result = run("member", "promote", which, *at)
        assert result.stdout == "Member               ff promoted in cluster                9\n"
        assert one.asked == [
            pb.MemberRemoveRequest(ID=255),
            pb.MemberUpdateRequest(ID=255, peerURLs=["http://c:1"]),
            pb.MemberPromoteRequest(ID=255),
        ]


CHANGES = {
    "add": ("n4", "--peer-urls", "http://b:2380"),
    "remove": ("n1",),
    "update": ("n1", "--peer-urls", "http://c:1"),
    "promote": ("n1",),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_in_every_form(change: str) -> None:
    with serving(one := Member(1)):
        command = ("member", change, *CHANGES[change], "--endpoints", one.endpoint)
        shown = json.loads(run(*command, "-w", "json").stdout)
        assert shown["header"]["cluster_id"] == 9
        assert shown["members"][0]["name"] == "n1"
        fields = run(*command, "-w", "fields").stdout
        assert '"ClusterID" : 9' in fields
        assert f'"ID" : {0xABC if change == "add" else 1}' in fields
        table = run(*command, "-w", "table").stdout
        assert "n1" in table.casefold()
        assert "is learner" in table.casefold()


def test_a_name_comes_before_a_number() -> None:
    members = [("ab", 1), ("", 2), ("n3", 0xAB)]
    assert member_ref(members, "ab") == 1
    assert member_ref(members, "0xab") == 0xAB
    assert member_ref(members, "171") == 0xAB
    assert member_ref([*members, ("", 0x171)], "171") == 0x171
    assert member_ref(members, "99") == 0x99
    for nobody in ("", "xyz", "-1", "1" * 17):
        with pytest.raises(InvalidArgument, match="as `member list` prints it"):
            member_ref(members, nobody)
