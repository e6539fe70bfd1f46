"""The door for clients: taken addresses are explained, large requests refused in our words, floods cut off."""

import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from paxos_rsm.config import Tuning
from paxos_rsm.errors import ConfigError
from paxos_rsm.server.listening import client_server, require_free
from paxos_rsm.server.rpc import Context, service_handler, unary_handler
from paxos_rsm.testing.ports import PortHolder


@pytest.fixture
def port() -> Iterator[int]:
    with PortHolder() as ports:
        yield ports.take(1)[0]


def refused(url: str) -> str:
    with pytest.raises(ConfigError) as raised:
        require_free([url], "--listen-client-urls", "clients")
    assert str(raised.value).startswith(f"cannot listen for clients on {url}: ")
    assert str(raised.value).endswith("change --listen-client-urls")
    return str(raised.value)


def test_a_free_address_is_left_free(port: int) -> None:
    for _ in range(2):
        require_free([f"http://127.0.0.1:{port}", f"http://localhost:{port}"], "--x", "clients")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_in_use_is_named_with_whom_to_ask(port: int, host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        said = refused(f"http://{host}:{port}")
    assert f"port {port} is in use by another process" in said
    assert f"ss -ltnp 'sport = :{port}'" in said


def test_an_address_of_another_machine() -> None:
    assert "does not have that address" in refused("http://192.0.2.1:2379")


def test_a_name_that_nobody_knows() -> None:
    refused("http://no-such-host.invalid:2379")


def test_a_port_that_is_not_for_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: socket.socket, address: Any) -> None:
        raise PermissionError(13, "Permission denied")

    class Guarded(socket.socket):
        bind = forbidden

    monkeypatch.setattr(socket, "socket", Guarded)
    assert "this user may not use port 79" in refused("http://127.0.0.1:79")


async def echo(request: bytes, _context: Context) -> bytes:
    return b"%d" % len(request)


ECHO = service_handler("test.Echo", {"Do": unary_handler(echo)})


async def test_the_server_has_its_port_alone(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    server = client_server([url], Tuning(), [ECHO])
    await server.start()
    with pytest.raises(ConfigError, match=f"port {port} is in use"):
        client_server([url], Tuning(), [ECHO])
    await server.stop(None)


async def test_how_large_a_request_arrives(port: int) -> None:
    server = client_server([f"http://127.0.0.1:{port}"], Tuning(), [ECHO])
    await server.start()
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        method: Any = channel.unary_unary("/test.Echo/Do")
        assert await method(b"x" * 7_000_000) == b"7000000"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(b"x" * 9_000_000)
        assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await method(b"x") == b"1"
    await server.stop(None)
