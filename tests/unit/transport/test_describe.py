import asyncio
from dataclasses import replace

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.entries import configuration_to_pb
from paxos_rsm.codec.messages import MalformedMessage
from paxos_rsm.errors import ConfigError, RefusedByCluster
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.transport import Description, describe, join_identity
from paxos_rsm.transport.describe import DESCRIBE_METHOD, decode_description, encode_description
from tests.unit.codec.strategies import configurations, nodes
from tests.unit.transport.helpers import CLUSTER, configuration_of, free_ports, hello_of, make_peer, url_of

N1, N2, N3 = hello_of(1, 2381), hello_of(2, 2382), hello_of(3, 2383)


def pending(name: str | None = None) -> Configuration:
    """Of N1 and N2; N3 was added and has yet to join."""
    member = replace(N3.member, incarnation=0, learner=True, name=N3.member.name if name is None else name)
    configuration = configuration_of(N1, N2)
    return replace(configuration, members=(*configuration.members, member))


# ---- who joins as whom -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:2383", "http://127.0.0.1:2383/"])
@pytest.mark.parametrize("named", ["n3", ""])
def test_a_server_joins_as_the_member_that_waits_under_its_url(url: str, named: str) -> None:
    assert join_identity(Description(CLUSTER, pending(name=named)), "n3", url) == (CLUSTER, 3)


@pytest.mark.parametrize(
    ("configuration", "name", "url", "said"),
    [
        (None, "n3", url_of(2383), ["cluster 4d is still forming", "--initial-cluster-state new"]),
        (
            configuration_of(N1, N2),
            "n3",
            url_of(2383),
            [
                "this server, 'n3' at http://127.0.0.1:2383, is not a member of cluster 4d",
                "n1=http://127.0.0.1:2381, n2=http://127.0.0.1:2382",
                "Add it first: `paxos-rsm member add n3 --peer-urls http://127.0.0.1:2383`",
            ],
        ),
        (pending(), "n4", url_of(2383), ["member 'n3' (id 3)", "called 'n4'", "--name n3"]),
        (
            configuration_of(N1, N2, N3),
            "n3",
            url_of(2383),
            ["in cluster 4d already", "`paxos-rsm member remove 3`", "`paxos-rsm member add n3 --peer-urls"],
        ),
        (
            pending(),
            "n3",
            url_of(9),
            ["of the same name", "`paxos-rsm member update 3 --peer-urls http://127.0.0.1:9`"],
        ),
        (configuration_of(replace(N1, member=replace(N1.member, peer_url="?"))), "n3", "!", ["not a member"]),
    ],
    ids=["forming", "not added", "another name", "wiped", "another address", "no addresses"],
)
def test_a_server_for_which_nobody_waits_is_told_what_to_do(
    configuration: Configuration | None, name: str, url: str, said: list[str]
) -> None:
    with pytest.raises(RefusedByCluster) as found:
        join_identity(Description(CLUSTER, configuration), name, url)
    for part in said:
        assert part in str(found.value)


def test_a_member_that_has_not_started_has_no_name() -> None:
    with pytest.raises(RefusedByCluster, match=r"which has .*\(not started yet\)=http://"):
        join_identity(Description(CLUSTER, pending(name="")), "n9", url_of(9))


# ---- asking ----------------------------------------------------------------------------------------------


async def member(configuration: Configuration | None) -> str:
    """A server that listens, and what it is asked under."""
    (port,) = free_ports(1)
    peer = make_peer(hello_of(1, port), [])
    if configuration is not None:
        peer.transport.form(configuration)
    await peer.transport.start()
    return url_of(port)


async def test_who_is_asked_says_what_it_was_told_last() -> None:
    (port,) = free_ports(1)
    peer = make_peer(hello_of(1, port), [])
    await peer.transport.start()
    for configuration in (configuration_of(N1, N2), pending()):
        peer.transport.form(configuration)
        assert await describe([url_of(port)]) == Description(CLUSTER, configuration)


async def test_others_are_asked_where_one_is_away_or_forming_or_has_yet_to_learn_of_us() -> None:
    away = url_of(free_ports(1)[0])
    urls = [away, await member(None), await member(configuration_of(N1, N2)), await member(pending())]
    found = await describe(urls, check=lambda each: join_identity(each, "n3", url_of(2383)))
    assert found.configuration == pending()


async def test_a_server_that_comes_up_meanwhile_is_heard() -> None:
    (port,) = free_ports(1)
    asking = asyncio.create_task(describe([url_of(port)]))
    await asyncio.sleep(0.1)
    peer = make_peer(hello_of(1, port), [])
    peer.transport.form(configuration_of(N1))
    await peer.transport.start()
    assert (await asking).cluster_id == CLUSTER


async def test_a_member_that_is_added_meanwhile_is_found() -> None:
    (port,) = free_ports(1)
    peer = make_peer(hello_of(1, port), [])
    peer.transport.form(configuration_of(N1, N2))
    await peer.transport.start()
    asked = asyncio.Event()

    def check(description: Description) -> None:
        asked.set()
        join_identity(description, "n3", url_of(2383))

    asking = asyncio.create_task(describe([url_of(port)], check=check, lag_s=30))
    await asked.wait()
    peer.transport.form(pending())
    assert (await asking).configuration == pending()


async def test_who_was_not_added_is_told_so_and_not_that_others_are_away() -> None:
    urls = [await member(configuration_of(N1, N2)), url_of(free_ports(1)[0]), await member(None)]
    with pytest.raises(RefusedByCluster, match="Add it first"):
        await describe(urls, check=lambda each: join_identity(each, "n3", url_of(2383)), lag_s=0.1)


async def test_a_cluster_that_does_not_form_is_not_joined() -> None:
    urls = [url_of(free_ports(1)[0]), await member(None)]
    with pytest.raises(RefusedByCluster, match=r"still forming after 0\.1 s") as found:
        await describe(urls, patience_s=0.1)
    assert urls[1] in str(found.value)
    assert f"no answer from {urls[0]} (UNAVAILABLE" in str(found.value)


async def test_nobody_is_there() -> None:
    url = url_of(free_ports(1)[0])
    with pytest.raises(ConfigError, match=r"no server of the cluster has answered within 0\.1 s") as found:
        await describe([url], patience_s=0.1)
    assert f"{url} (UNAVAILABLE" in str(found.value)


async def test_an_address_for_clients_is_not_one_of_a_peer() -> None:
    server = grpc.aio.server()
    url = url_of(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    with pytest.raises(ConfigError, match="that is the address for clients, or"):
        await describe([url], patience_s=0.1)
    await server.stop(None)


async def test_there_is_nobody_to_ask() -> None:
    with pytest.raises(ConfigError, match="name its members in --initial-cluster"):
        await describe([])
    with pytest.raises(ConfigError, match=r"is not a URL|no http:// in front"):
        await describe(["n1"])


async def test_an_answer_that_is_none_is_no_answer() -> None:
    (port,) = free_ports(1)

    async def answer(_request: bytes, _context: object) -> bytes:
        return b"\xff\xff"

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    service, _, method = DESCRIBE_METHOD[1:].partition("/")
    server = aio.server(handlers=[grpc.method_handlers_generic_handler(service, {method: handler})])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        with pytest.raises(ConfigError, match="2 bytes are not a DescribeResponse"):
            await describe([url_of(port)], patience_s=0.1)
    finally:
        await server.stop(None)


async def test_any_client_may_ask_and_whatever_it_says() -> None:
    url = await member(pending())
    async with aio.insecure_channel(url.removeprefix("http://")) as channel:
        method: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(DESCRIBE_METHOD)
        assert decode_description(await method(b"\xff" * 100)).configuration == pending()


# ---- on the wire -----------------------------------------------------------------------------------------


@given(nodes, st.none() | configurations())
def test_round_trip(cluster_id: int, configuration: Configuration | None) -> None:
    if configuration is not None:
        configuration = replace(configuration, cluster_id=cluster_id)
    description = Description(cluster_id, configuration)
    assert decode_description(encode_description(description)) == description


def bad_configuration(**changes: object) -> pb.Configuration:
    message = configuration_to_pb(configuration_of(N1))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    "message",
    [
        pb.DescribeResponse(),
        pb.DescribeResponse(cluster_id=2**64 - 1),
        pb.DescribeResponse(cluster_id=CLUSTER, configuration=pb.Configuration()),
        pb.DescribeResponse(cluster_id=CLUSTER, configuration=bad_configuration(cluster_id=5)),
        pb.DescribeResponse(cluster_id=CLUSTER, configuration=bad_configuration(phase1_quorum=9)),
        pb.DescribeResponse(
            cluster_id=CLUSTER,
            configuration=configuration_to_pb(
                replace(configuration_of(N1), members=(Member(1, 0, "n1", "http://h:1"),))
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_malformed(message: pb.DescribeResponse) -> None:
    with pytest.raises(MalformedMessage):
        decode_description(message.SerializeToString())
