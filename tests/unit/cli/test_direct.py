"""Calls to single servers; how they look on the command line is tested with the commands."""

import threading
from typing import Any

import grpc
import pytest

from paxos_rsm._proto import kv_pb2, lease_pb2
from paxos_rsm.cli.direct import ask, ask_any, ask_each, complete_header
from paxos_rsm.cli.failures import BadConnection
from paxos_rsm.cli.options import Settings
from paxos_rsm.errors import ClientError, InvalidArgument, Unavailable
from paxos_rsm.testing import PortHolder
from tests.unit.cli.fake_servers import Member, serving

RANGE = ("KV/Range", kv_pb2.RangeRequest(key=b"k"), kv_pb2.RangeResponse)


async def test_each_answers_for_itself() -> None:
    first, second = Member(1), Member(2)
    second.no_leader = True
    with serving(first, second):
        answers = await ask_each([second.endpoint, first.endpoint], *RANGE, 30)
    assert isinstance(answers[0], Unavailable)
    assert str(answers[0]) == "etcdserver: no leader"
    assert not isinstance(answers[1], ClientError)
    assert answers[1].header.member_id == 1


async def test_any_goes_on_where_one_cannot_answer() -> None:
    first, second = Member(1), Member(2)
    first.no_leader = True
    with serving(first, second):
        settings = Settings(endpoints=(first.endpoint, second.endpoint), command_timeout_s=60)
        assert (await ask_any(settings, *RANGE)).header.member_id == 2
        second.no_leader = True
        with pytest.raises(Unavailable, match="no leader"):
            await ask_any(settings, *RANGE)


async def test_what_every_server_would_refuse_is_asked_once() -> None:
    first, second = Member(1), Member(2)
    with serving(first, second):
        settings = Settings(endpoints=(first.endpoint, second.endpoint), command_timeout_s=60)
        request = lease_pb2.LeaseLeasesRequest()
        with pytest.raises(InvalidArgument, match=rf"{first.endpoint} does not offer Lease\.LeaseLeases"):
            await ask_any(settings, "Lease/LeaseLeases", request, lease_pb2.LeaseLeasesResponse)


async def test_nobody_there() -> None:
    with PortHolder() as holder:
        endpoint = f"127.0.0.1:{holder.take(1)[0]}"
        with pytest.raises(Unavailable, match=f"^{endpoint}: connection refused$"):
            await ask(endpoint, *RANGE, 30)
        with pytest.raises(BadConnection):
            await ask_any(Settings(endpoints=(endpoint,), dial_timeout_s=0.1), *RANGE)


async def test_an_answer_that_takes_too_long() -> None:
    ended = threading.Event()

    class Slow(Member):
        def Range(self, request: Any, context: Any) -> Any:
            ended.wait(5)
            return super().Range(request, context)

    slow = Slow(1)
    try:
        with serving(slow), pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
            await ask(slow.endpoint, *RANGE, 0.2)
    finally:
        ended.set()


async def test_a_header_stays_as_it_is_where_nobody_tells_or_it_is_not_shown() -> None:
    class Mute(Member):
        def Status(self, request: Any, context: Any) -> Any:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    member = Mute(1)
    with serving(member):
        for write_out in ("simple", "json"):
            header = kv_pb2.ResponseHeader(revision=5)
            settings = Settings(endpoints=(member.endpoint,), write_out=write_out, dial_timeout_s=30)
            await complete_header(settings, header)
            assert header == kv_pb2.ResponseHeader(revision=5)
