import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from paxos_rsm.cli.connect import dial
from paxos_rsm.cli.failures import BadConnection
from paxos_rsm.testing import PortHolder
from tests.unit.cli.helpers import run, spawn


@pytest.fixture
def free_port() -> Iterator[int]:
    with PortHolder() as holder:
        yield holder.take(1)[0]


def test_nobody_there_is_exit_code_2_with_the_reason(free_port: int) -> None:
    result = run("get", "a", "--endpoints", f"127.0.0.1:{free_port}", "--dial-timeout", "100ms")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: no server could be reached (127.0.0.1:{free_port}: connection refused); "
        "is one running there? see --endpoints\n"
    )


def test_nobody_there_in_a_process_of_its_own(free_port: int) -> None:
    done = spawn(
        "put", "a", "b", PAXOS_RSM_ENDPOINTS=f"127.0.0.1:{free_port}", PAXOS_RSM_DIAL_TIMEOUT="100ms"
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"Error: no server could be reached")
    assert done.stderr.count(b"\n") == 1


async def test_one_that_is_there_is_enough(free_port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        there = f"127.0.0.1:{listener.getsockname()[1]}"
        await dial([f"127.0.0.1:{free_port}", there], 30)


async def test_one_that_is_starting_is_waited_for(free_port: int) -> None:
    dialling = asyncio.create_task(dial([f"127.0.0.1:{free_port}"], 30))
    await asyncio.sleep(0)
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", free_port):
        await dialling


async def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(BadConnection, match=r"no\.such\.host\.invalid:1"):
        await dial(["no.such.host.invalid:1"], 0.2)


async def test_it_takes_no_longer_than_it_may(free_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(BadConnection):
        await dial([f"127.0.0.1:{free_port}"], 0.3)
    assert time.monotonic() - started < 20
