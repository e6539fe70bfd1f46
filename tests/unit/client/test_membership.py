"""Changes of the members and of the leader, against servers that answer as they are told."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import admin_pb2, maintenance_pb2
from paxos_rsm._proto import cluster_pb2 as pb
from paxos_rsm.client import AsyncClient, Member, membership
from paxos_rsm.client.calls import Calls
from paxos_rsm.errors import InvalidArgument, Unavailable

Code = grpc.StatusCode
Answer = Callable[[Any], Any]
LONG_S = 30.0
LEADER = pb.ClusterMember(ID=1, name="n1", peerURLs=["http://a:1"], clientURLs=["http://a:2"])
NEW = pb.ClusterMember(ID=9, peerURLs=["http://b:1"], isLearner=True)

REQUESTS: dict[str, Any] = {
    "paxos_rsm.v1.Cluster/MemberList": pb.MemberListRequest,
    "paxos_rsm.v1.Cluster/MemberAdd": pb.MemberAddRequest,
    "paxos_rsm.v1.Cluster/MemberRemove": pb.MemberRemoveRequest,
    "paxos_rsm.v1.Cluster/MemberUpdate": pb.MemberUpdateRequest,
    "paxos_rsm.v1.Cluster/MemberPromote": pb.MemberPromoteRequest,
    "paxos_rsm.v1.Maintenance/MoveLeader": maintenance_pb2.MoveLeaderRequest,
    "paxos_rsm.v1.Admin/Status": admin_pb2.StatusRequest,
}


class Scripted:
    """A server whose methods answer with a message, a status, or what a function says; the last answer stays."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[Any] = []
        self.endpoint = ""

    def says(self, method: str, *answers: Any) -> None:
        self.answers[method] = list(answers)

    async def answer(self, method: str, data: bytes, context: Any) -> bytes:
        request = REQUESTS[method].FromString(data)
        name = method.partition("/")[2]
        if name not in ("Status", "MemberList"):
            self.asked.append(request)
        answers = self.answers[name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, tuple):
            await context.abort(*answer)
        encoded: bytes = answer.SerializeToString()
        return encoded


@asynccontextmanager
async def serving(*servers: Scripted) -> AsyncIterator[None]:
    started = []
    for each in servers:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for method in REQUESTS:
            service, _, name = method.partition("/")

            async def behaviour(
                data: bytes, context: Any, each: Scripted = each, method: str = method
            ) -> Any:
                return await each.answer(method, data, context)

            handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(behaviour)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        each.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        started.append(server)
    try:
        yield
    finally:
        for server in started:
            await server.stop(None)


@asynccontextmanager
async def calling(server: Scripted) -> AsyncIterator[Calls]:
    async with serving(server):
        calls = Calls([server.endpoint], random.Random(1))
        try:
            yield calls
        finally:
            await calls.close()


async def test_changes_are_asked_for_and_their_answers_given() -> None:
    server = Scripted()
    server.says("MemberAdd", pb.MemberAddResponse(member=NEW, members=[LEADER, NEW]))
    server.says("MemberRemove", pb.MemberRemoveResponse(members=[LEADER]))
    server.says("MemberUpdate", pb.MemberUpdateResponse(members=[LEADER]))
    server.says("MemberPromote", pb.MemberPromoteResponse(members=[LEADER]))
    async with calling(server) as calls:
        assert (await membership.add(calls, "http://b:1", True, LONG_S)).member == NEW
        await membership.remove(calls, 9, LONG_S)
        await membership.update(calls, 9, "http://c:1", LONG_S)
        await membership.promote(calls, 9, LONG_S)
    assert server.asked == [
        pb.MemberAddRequest(peerURLs=["http://b:1"], isLearner=True),
        pb.MemberRemoveRequest(ID=9),
        pb.MemberUpdateRequest(ID=9, peerURLs=["http://c:1"]),
        pb.MemberPromoteRequest(ID=9),
    ]


LOST = (Code.UNAVAILABLE, "etcdserver: request timed out")
EXISTS = (Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
GONE = (Code.NOT_FOUND, "etcdserver: member not found")
VOTES = (Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")


async def test_a_change_whose_answer_was_lost_is_found_done() -> None:
    server = Scripted()
    server.says("MemberList", pb.MemberListResponse(members=[LEADER, NEW]))
    server.says("MemberAdd", LOST, EXISTS)
    server.says("MemberRemove", LOST, GONE)
    server.says("MemberPromote", LOST, VOTES)
    async with calling(server) as calls:
        added = await membership.add(calls, "http://b:1/", False, LONG_S)
        assert added.member == NEW
        assert list(added.members) == [LEADER, NEW]
        assert len((await membership.remove(calls, 7, LONG_S)).members) == 2
        assert len((await membership.promote(calls, 1, LONG_S)).members) == 2


async def test_a_refusal_of_the_first_attempt_is_one() -> None:
    server = Scripted()
    server.says("MemberAdd", EXISTS)
    server.says("MemberRemove", GONE)
    server.says("MemberPromote", VOTES)
    server.says("MemberUpdate", LOST, GONE)
    async with calling(server) as calls:
        with pytest.raises(InvalidArgument, match="already exists"):
            await membership.add(calls, "http://b:1", False, LONG_S)
        with pytest.raises(InvalidArgument, match="not found"):
            await membership.remove(calls, 7, LONG_S)
        with pytest.raises(InvalidArgument, match="only promote"):
            await membership.promote(calls, 7, LONG_S)
        with pytest.raises(InvalidArgument, match="not found"):
            await membership.update(calls, 7, "http://b:1", LONG_S)  # whatever an attempt before has done


async def test_an_address_that_somebody_else_took_meanwhile_is_a_refusal() -> None:
    server = Scripted()
    server.says("MemberList", pb.MemberListResponse(members=[LEADER]))
    server.says("MemberAdd", LOST, EXISTS)
    async with calling(server) as calls:
        with pytest.raises(InvalidArgument, match="already exists"):
            await membership.add(calls, "http://b:1", False, LONG_S)


async def test_members_are_found_by_name() -> None:
    server = Scripted()
    server.says("MemberList", pb.MemberListResponse(members=[LEADER, NEW]))
    async with calling(server) as calls:
        assert await membership.find(calls, "n1", LONG_S) == 1
        assert await membership.find(calls, 77, LONG_S) == 77
        for nobody in ("n2", ""):
            with pytest.raises(InvalidArgument, match="there are n1, 9"):
                await membership.find(calls, nobody, LONG_S)


# ---- leadership --------------------------------------------------------------------------------------------


def status(number: int, role: str = "follower", **more: Any) -> admin_pb2.StatusResponse:
    return admin_pb2.StatusResponse(member_id=number, name=f"n{number}", role=role, **more)


async def moved(servers: list[Scripted], to: str | int | None = None, timeout_s: float = LONG_S) -> Any:
    return await membership.move_leader([server.endpoint for server in servers], to, timeout_s)


@pytest.mark.parametrize(("to", "target"), [(None, 3), ("n2", 2), (2, 2), (99, 99)])
async def test_the_leader_is_found_and_told_whom_to_hand_over_to(to: Any, target: int) -> None:
    servers = [Scripted() for _ in range(4)]
    servers[0].says("Status", status(1, "leader", decided_slot=9))
    servers[1].says("Status", status(2, decided_slot=7))
    servers[2].says("Status", status(3, decided_slot=8))
    servers[3].says("Status", status(4, decided_slot=9, learner=True))
    servers[0].says("MoveLeader", maintenance_pb2.MoveLeaderResponse())
    async with serving(*servers):
        done = await moved(servers, to)
    assert (done.before, done.after) == (1, target)
    assert servers[0].asked == [maintenance_pb2.MoveLeaderRequest(targetID=target)]


async def test_a_leader_that_has_changed_is_looked_for_again() -> None:
    one, two = Scripted(), Scripted()
    one.says("Status", status(1, "leader"), status(1))
    two.says("Status", status(2), status(2, "leader"))
    one.says("MoveLeader", (Code.FAILED_PRECONDITION, "etcdserver: not leader"))
    two.says("MoveLeader", maintenance_pb2.MoveLeaderResponse())
    async with serving(one, two):
        done = await moved([one, two], "n1")
    assert (done.before, done.after) == (2, 1)


async def test_what_cannot_be_is_said() -> None:
    one, two = Scripted(), Scripted()
    one.says("Status", status(1, "leader"))
    two.says("Status", status(2, learner=True))
    one.says("MoveLeader", (Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee"))
    async with serving(one, two):
        with pytest.raises(InvalidArgument, match="no other voter that answers: n1 goes on"):
            await moved([one, two])
        with pytest.raises(InvalidArgument, match="no member 'n3'; there are n1, n2"):
            await moved([one, two], "n3")
        with pytest.raises(InvalidArgument, match="bad leader transferee"):
            await moved([one, two], 2)
        one.says(
            "MoveLeader", (Code.UNAVAILABLE, "etcdserver: request timed out, leader transfer took too long")
        )
        with pytest.raises(Unavailable, match="took too long"):
            await moved([one, two], 2)
        one.says("Status", status(1, "candidate"))
        with pytest.raises(Unavailable, match=r"no server said within 0\.2 s that it leads"):
            await moved([one, two], 2, 0.2)


async def test_a_client_goes_by_the_addresses_of_who_is_there_then() -> None:
    server = Scripted()
    two = pb.ClusterMember(ID=2, name="n2", peerURLs=["http://b:1"], clientURLs=["http://b:2"])
    server.says("MemberList", pb.MemberListResponse(members=[LEADER, two]))
    server.says("MemberAdd", pb.MemberAddResponse(member=NEW, members=[LEADER, NEW, two]))
    server.says("MemberRemove", pb.MemberRemoveResponse(members=[two]))
    server.says("MemberUpdate", pb.MemberUpdateResponse(members=[LEADER, two]))
    server.says("MemberPromote", pb.MemberPromoteResponse(members=[LEADER, two]))
    server.says("Status", status(1, "leader"))
    server.says("MoveLeader", maintenance_pb2.MoveLeaderResponse())
    async with serving(server), AsyncClient([server.endpoint], timeout_s=LONG_S) as kv:
        given = server.endpoint
        assert await kv.member_add("http://b:1") == Member(9, "", ("http://b:1",), (), True)
        assert list(kv.endpoints) == ["a:2", "b:2", given]
        assert [each.name for each in await kv.member_remove("n1")] == ["n2"]
        assert list(kv.endpoints) == ["b:2", given]
        kv._core.calls.ring.replace([given])  # nobody listens at the others
        assert [each.id for each in await kv.member_update("n2", "http://c:1")] == [1, 2]
        kv._core.calls.ring.replace([given])
        assert [each.id for each in await kv.member_promote(2)] == [1, 2]
        assert await kv.move_leader(2) == 2
    assert server.asked[1:] == [
        pb.MemberRemoveRequest(ID=1),
        pb.MemberUpdateRequest(ID=2, peerURLs=["http://c:1"]),
        pb.MemberPromoteRequest(ID=2),
        maintenance_pb2.MoveLeaderRequest(targetID=2),
    ]
