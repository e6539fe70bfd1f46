"""What keeps a stream going, with a stream that carries lines: they are echoed, and each server can be told to fail."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import grpc
import pytest
import pytest_asyncio

from paxos_rsm.client import stream as module
from paxos_rsm.client.endpoints import EndpointRing
from paxos_rsm.client.failures import number_of
from paxos_rsm.client.stream import LostError, ServerStream
from tests.unit.client.calls import LONG_S

UNAVAILABLE = number_of(grpc.StatusCode.UNAVAILABLE)


class Lines(ServerStream):
    """Writes lines; what of them has come back is gone from ``unanswered``."""

    METHOD = "/test.Lines/Stream"
    METADATA = (("kind", "lines"),)
    TASKS = "paxos_rsm client lines"

    def __init__(self, *endpoints: str) -> None:
        super().__init__(EndpointRing(endpoints, Random(1)))
        self.unanswered: list[bytes] = []
        self.outbox: list[bytes] = []
        self.told: list[str] = []
        self.farewell: bytes | None = None
        self.answered = asyncio.Event()

    def say(self, *lines: bytes) -> None:
        self.unanswered += lines
        self.outbox += lines if self._call is not None else ()
        self._wake()

    async def close(self) -> None:
        self._closed = True
        if self._runner is not None:
            await self._end(self._runner)

    async def until_answered(self) -> None:
        async with asyncio.timeout(LONG_S):
            while self.unanswered:
                self.answered.clear()
                await self.answered.wait()

    @property
    def _is_wanted(self) -> bool:
        return bool(self.unanswered)

    def _begin(self) -> None:
        assert self._call is not None
        self.told.append("begin")
        self.outbox = list(self.unanswered)

    def _next_message(self) -> bytes | None:
        return self.outbox.pop(0) if self.outbox else None

    def _last_message(self) -> bytes | None:
        return self.farewell

    def _take(self, data: bytes) -> None:
        if data == b"what":
            raise LostError("it does not know what")
        if data == b"bug":
            raise KeyError("a bug")
        self.unanswered.remove(data)
        self.answered.set()

    def _stream_lost(self) -> None:
        assert self._call is None
        self.told.append("lost")

    def _refused_by(self, endpoint: str, code: int, details: str) -> None:
        self.told.append(f"refused: {code} {details}")


class Echo:
    """A server that answers each line with itself, or does what ``then`` says after the first."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.lines: list[bytes] = []
        self.streams = 0
        self.ended = 0
        self.metadata: dict[str, Any] = {}
        self.then: Callable[[Any], Awaitable[bytes | None]] | None = None

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.streams += 1
        self.metadata = dict(context.invocation_metadata())
        async for line in requests:
            self.lines.append(line)
            if self.then is not None:
                answer = await self.then(context)
                if answer is None:
                    return
                yield answer
            else:
                yield line
        self.ended += 1


Start = Callable[[], Awaitable[Echo]]


@pytest_asyncio.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(module, "OPERATIONS_END_S", LONG_S)
    servers = []

    async def start() -> Echo:
        echo, server = Echo(), grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(echo.stream)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Lines", {"Stream": handler})]
        )
        echo.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        servers.append(server)
        return echo

    yield start
    for server in servers:
        await server.stop(None)


async def ended(lines: Lines) -> None:
    """Until nothing of it runs."""
    runner = lines._runner
    if runner is not None:
        await asyncio.wait_for(asyncio.shield(runner), LONG_S)
    assert lines._runner is None
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(Lines.TASKS)]


async def failed_once(echo: Echo, answer: Callable[[Any], Awaitable[bytes | None]]) -> Lines:
    """Lines at a server that answers the first one so, and echoes what is said to it again."""

    async def once(context: Any) -> bytes | None:
        echo.then = None
        return await answer(context)

    echo.then = once
    lines = Lines(echo.endpoint)
    lines.say(b"a", b"b")
    await lines.until_answered()
    assert echo.streams == 2
    return lines


async def test_nothing_is_opened_before_it_is_wanted_and_what_is_said_later_wakes_the_writer(
    start: Start,
) -> None:
    echo = await start()
    lines = Lines(echo.endpoint)
    assert lines._runner is None
    for line in (b"a", b"b", b"c"):
        lines.say(line)
        await lines.until_answered()
    assert (echo.streams, echo.lines) == (1, [b"a", b"b", b"c"])
    assert echo.metadata["kind"] == "lines"
    assert lines.told == ["begin"]
    assert lines.trouble == ""
    await lines.close()
    assert lines.told == ["begin", "lost"]
    await ended(lines)


async def test_a_stream_that_the_server_ends_is_followed_by_another(start: Start) -> None:
    async def end(_: Any) -> None:
        return None

    lines = await failed_once(await start(), end)
    assert lines.told == ["begin", "lost", "begin"]
    assert lines._last_loss.endswith(": the server ended the stream")
    await lines.close()


async def test_a_status_is_told_before_the_next_try(start: Start) -> None:
    async def refuse(context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no leader")

    lines = await failed_once(await start(), refuse)
    assert lines.told == ["begin", "lost", f"refused: {UNAVAILABLE} no leader", "begin"]
    assert lines._last_loss.endswith(": UNAVAILABLE: no leader")
    await lines.close()


async def test_what_is_of_no_use_is_left_for_the_reason_it_gives(start: Start) -> None:
    async def what(_: Any) -> bytes:
        return b"what"

    lines = await failed_once(await start(), what)
    assert lines._last_loss.endswith(": it does not know what")
    await lines.close()


async def test_a_bug_is_logged_and_the_next_server_tried(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(_: Any) -> bytes:
        return b"bug"

    lines = await failed_once(await start(), bug)
    assert lines._last_loss.endswith(": KeyError: 'a bug'")
    assert [record.levelno for record in caplog.records if "met a bug" in record.message] == [logging.ERROR]
    await lines.close()


async def test_it_goes_on_at_the_next_server(start: Start) -> None:
    one, two = await start(), await start()

    asked = asyncio.Event()

    async def silent(_: Any) -> bytes:
        asked.set()
        await asyncio.sleep(LONG_S)
        return b""

    one.then = two.then = silent
    lines = Lines(one.endpoint, two.endpoint)
    lines.say(b"a")
    await asyncio.wait_for(asked.wait(), LONG_S)
    first, other = (one, two) if one.lines else (two, one)
    other.then = None
    lines._drop("it says nothing")
    lines._drop("a second reason is none")
    await lines.until_answered()
    assert lines._last_loss == f"{first.endpoint}: it says nothing"
    assert lines.trouble == lines._last_loss
    assert other.lines == [b"a"]
    await lines.close()


async def test_one_that_is_lost_while_it_is_not_wanted_is_not_replaced(start: Start) -> None:
    echo = await start()
    lines = Lines(echo.endpoint)
    lines.say(b"a")
    await lines.until_answered()
    lines._drop("nothing more to say")
    await ended(lines)
    assert echo.streams == 1
    lines.say(b"b")
    await lines.until_answered()
    assert echo.streams == 2
    await lines.close()


async def test_leave_is_taken_when_there_is_nothing_else_to_write(start: Start) -> None:
    echo = await start()
    lines = Lines(echo.endpoint)
    lines.say(b"a")
    await lines.until_answered()
    lines.say(b"b")
    lines.unanswered.append(b"bye")
    lines.farewell = b"bye"
    lines._closed = True
    lines._wake()
    await ended(lines)
    assert echo.lines == [b"a", b"b", b"bye"]
    assert echo.ended == 1
    assert not lines.unanswered
