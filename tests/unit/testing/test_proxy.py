"""The proxy's links over real sockets, in this process: what passes when, and that order and bytes are kept."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from paxos_rsm.testing import proxy as proxy_module
from paxos_rsm.testing.ports import PortHolder
from paxos_rsm.testing.proxy import FORWARD, HELD_BYTES_MAX, REVERSE, Link, Proxy, ProxyError

LINK = "a>b"
ABSENT_S = 0.15
"""For which something that must not come is waited for."""
TIMEOUT_S = 30.0


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hear(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), TIMEOUT_S)

    async def hear_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.reader.readexactly(1), ABSENT_S)

    async def hear_the_end(self) -> None:
        """End of file, or a connection that was reset."""
        try:
            assert await asyncio.wait_for(self.reader.read(1), TIMEOUT_S) == b""
        except ConnectionError:
            pass

    def say(self, data: bytes) -> None:
        self.writer.write(data)


class Bench:
    """A link, the server behind it, and those who dial it."""

    def __init__(self, port: int, target: int) -> None:
        self.proxy = Proxy({LINK: (port, target)}, seed=1)
        self.accepted: asyncio.Queue[Peer] = asyncio.Queue()
        self._port = port

    @property
    def link(self) -> Link:
        return self.proxy.links[LINK]

    async def dial(self) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self._port))

    async def pair(self) -> tuple[Peer, Peer]:
        """Both ends of a new connection through the link."""
        near = await self.dial()
        return near, await asyncio.wait_for(self.accepted.get(), TIMEOUT_S)

    async def do(self, what: str, **change: Any) -> None:
        await self.proxy.answer({"changes": [{"do": what, **change}]})

    async def set(self, *ways: int, **what: Any) -> None:
        await self.do("set", ways=[[LINK, way] for way in ways], **what)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


@asynccontextmanager
async def bench_with_server() -> AsyncIterator[Bench]:
    with PortHolder() as holder:
        port, target = holder.take(2)
        made = Bench(port, target)
        writers: list[asyncio.StreamWriter] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            made.accepted.put_nowait(Peer(reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", target)
        await made.proxy.listen()
        try:
            yield made
        finally:
            made.link.refuse()
            server.close()
            for writer in writers:
                writer.transport.abort()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with bench_with_server() as made:
        yield made


async def test_bytes_pass_both_ways_whole_and_in_order(bench: Bench) -> None:
    near, far = await bench.pair()
    data = random.Random(7).randbytes(3 << 20)
    near.say(data)
    far.say(data[::-1])
    assert hashlib.sha256(await far.hear(len(data))).digest() == hashlib.sha256(data).digest()
    assert await near.hear(len(data)) == data[::-1]
    assert bench.link.stats()["passed_bytes"] == [len(data), len(data)]


async def test_end_of_one_way_is_not_the_end_of_the_other(bench: Bench) -> None:
    near, far = await bench.pair()
    near.say(b"question")
    near.writer.write_eof()
    assert await far.hear(8) == b"question"
    await far.hear_the_end()
    far.say(b"answer")
    far.writer.close()
    assert await near.hear(6) == b"answer"
    await near.hear_the_end()
    await until(lambda: not bench.link.connections)


async def test_held_way_is_silent_and_the_other_is_not(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.set(FORWARD, held=True)
    near.say(b"lost in the cable")
    far.say(b"heard")
    assert await near.hear(5) == b"heard"
    await far.hear_nothing()
    assert bench.link.stats()["waiting_bytes"] == [17, 0]
    await bench.set(FORWARD, held=False)
    assert await far.hear(17) == b"lost in the cable"


async def test_end_that_comes_while_held_is_told_late(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.set(FORWARD, REVERSE, held=True)
    near.say(b"last words")
    near.writer.close()
    await far.hear_nothing()
    await bench.set(FORWARD, REVERSE, held=False)
    assert await far.hear(10) == b"last words"
    await far.hear_the_end()


async def test_connection_opened_while_held_leads_nowhere_until_it_is_free(bench: Bench) -> None:
    await bench.set(FORWARD, held=True)
    near = await bench.dial()
    near.say(b"hello")
    gave_up = await bench.dial()
    await until(lambda: len(bench.link.connections) == 2)
    assert bench.accepted.empty()
    gave_up.writer.close()
    await until(lambda: len(bench.link.connections) == 1)
    await bench.set(FORWARD, held=False)
    far = await asyncio.wait_for(bench.accepted.get(), TIMEOUT_S)
    assert await far.hear(5) == b"hello"
    assert bench.accepted.empty()


async def test_what_is_held_is_bounded(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.set(FORWARD, held=True)
    total = 8 * HELD_BYTES_MAX
    near.say(bytes(total))
    await until(lambda: bench.link.stats()["waiting_bytes"][0] > HELD_BYTES_MAX)
    await asyncio.sleep(ABSENT_S)
    assert bench.link.stats()["waiting_bytes"][0] < 1.5 * HELD_BYTES_MAX
    await bench.set(FORWARD, held=False)
    assert await far.hear(total) == bytes(total)


async def test_reader_that_does_not_read_stops_the_writer(bench: Bench) -> None:
    near, far = await bench.pair()
    total = 64 << 20
    near.say(bytes(total))
    await asyncio.sleep(ABSENT_S)
    assert bench.link.stats()["waiting_bytes"][0] < 1.5 * HELD_BYTES_MAX
    assert bench.link.stats()["passed_bytes"][0] < total
    assert await far.hear(total) == bytes(total)


async def test_drop_closes_what_is_open_and_forgets_what_is_held(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.set(FORWARD, held=True)
    near.say(b"old")
    await until(lambda: bench.link.stats()["waiting_bytes"][0] == 3)
    await bench.do("drop", links=[LINK])
    await near.hear_the_end()
    await far.hear_the_end()
    await bench.set(FORWARD, held=False)
    near, far = await bench.pair()
    near.say(b"new")
    assert await far.hear(3) == b"new"


async def test_refused_and_open_again(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.do("refuse", links=[LINK])
    await near.hear_the_end()
    await far.hear_the_end()
    with pytest.raises(ConnectionRefusedError):
        await bench.dial()
    await bench.do("accept", links=[LINK])
    near, far = await bench.pair()
    near.say(b"x")
    assert await far.hear(1) == b"x"


async def test_target_that_is_down_closes_the_connection(bench: Bench) -> None:
    bench.link.target = 1
    near = await bench.dial()
    await near.hear_the_end()
    await until(lambda: not bench.link.connections)


async def test_reset_is_handed_on(bench: Bench) -> None:
    near, far = await bench.pair()
    near.say(b"x")
    assert await far.hear(1) == b"x"
    far.writer.transport.abort()
    await near.hear_the_end()
    near.writer.close()
    await until(lambda: not bench.link.connections)


async def timed(what: Awaitable[Any]) -> float:
    began = asyncio.get_running_loop().time()
    await what
    return asyncio.get_running_loop().time() - began


async def test_delay_is_added_one_way_and_order_is_kept(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.set(FORWARD, delay_ms=200, jitter_ms=50)
    sent = [b"%04d" % number for number in range(50)]

    async def exchange() -> None:
        near.say(sent[0])
        hearing = asyncio.create_task(far.hear(4))
        for each in sent[1:]:
            await asyncio.sleep(0.001)
            near.say(each)
        assert await hearing == sent[0]

    assert await timed(exchange()) >= 0.14
    assert await far.hear(4 * 49) == b"".join(sent[1:])
    far.say(b"back")
    assert await near.hear(4) == b"back"


async def test_delay_that_is_taken_back_lets_all_go(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.set(FORWARD, delay_ms=600_000)
    near.say(b"late")
    await far.hear_nothing()
    await bench.set(FORWARD, delay_ms=0)
    assert await far.hear(4) == b"late"


async def test_throttled_way_takes_its_time(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.set(FORWARD, bytes_per_s=200_000)
    near.say(bytes(60_000))
    assert await timed(far.hear(60_000)) >= 0.25
    await bench.set(FORWARD, bytes_per_s=0)
    near.say(bytes(1 << 20))
    await far.hear(1 << 20)


async def test_flapping_link_is_held_and_free_in_turns(bench: Bench) -> None:
    near, far = await bench.pair()
    await bench.do("flap", ways=[[LINK, FORWARD]], up_ms=30, down_ms=30)
    way = bench.link.ways[FORWARD]
    for _ in range(3):
        await until(lambda: not way.stopped)
        await until(lambda: way.stopped)
    near.say(b"x")
    assert await far.hear(1) == b"x"
    await bench.do("steady", ways=[[LINK, FORWARD]])
    await until(lambda: not way.stopped)
    await asyncio.sleep(0.1)  # three turns, had it gone on
    near.say(b"y")
    assert await far.hear(1) == b"y"
    assert not way.stopped


async def test_flapping_that_drops_closes_connections(bench: Bench) -> None:
    near, _ = await bench.pair()
    await bench.do("flap", ways=[[LINK, FORWARD], [LINK, REVERSE]], up_ms=30, down_ms=30, drop=True)
    await near.hear_the_end()
    await bench.do("steady", ways=[[LINK, REVERSE]])
    near, far = await bench.pair()
    near.say(b"x")
    assert await far.hear(1) == b"x"


async def test_what_makes_no_sense_changes_nothing(bench: Bench) -> None:
    near, far = await bench.pair()
    with pytest.raises(ProxyError, match="explode"):
        await bench.proxy.answer(
            {"changes": [{"do": "set", "ways": [[LINK, FORWARD]], "held": True}, {"do": "explode"}]}
        )
    with pytest.raises(ProxyError, match="no link 'c>d'"):
        await bench.do("drop", links=["c>d"])
    near.say(b"x")
    assert await far.hear(1) == b"x"


def test_the_proxy_needs_nothing_but_the_standard_library() -> None:
    """It is run by its path, for a start in milliseconds."""
    assert proxy_module.__file__ is not None
    with open(proxy_module.__file__, encoding="utf-8") as file:
        assert not [line for line in file if line.startswith(("import paxos", "from paxos", "import grpc"))]
