"""What the package hands on, and what importing it costs."""

import subprocess
import sys

import pytest

import paxos_rsm
from paxos_rsm import client, errors


def test_everything_that_is_named_is_there() -> None:
    for name in paxos_rsm.__all__:
        assert getattr(paxos_rsm, name) is not None
        assert name in dir(paxos_rsm)


def test_the_names_are_those_of_their_home() -> None:
    for name in client.__all__:
        if name in paxos_rsm.__all__:
            assert getattr(paxos_rsm, name) is getattr(client, name)
    for name in errors.__all__:
        if name in paxos_rsm.__all__:
            assert getattr(paxos_rsm, name) is getattr(errors, name)


def test_the_errors_of_the_client_are_all_exported() -> None:
    for name in errors.__all__:
        if issubclass(getattr(errors, name), errors.ClientError):
            assert name in paxos_rsm.__all__


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = paxos_rsm.Nothing


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after ``statement``."""
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_pure_floors_do_not_load_grpc() -> None:
    loaded = modules_after("import paxos_rsm.paxos.types, paxos_rsm.errors")
    assert "paxos_rsm.paxos.types" in loaded
    assert not {"grpc", "google.protobuf", "asyncio", "paxos_rsm.client"} & loaded


def test_the_client_does_not_load_the_server() -> None:
    loaded = modules_after("from paxos_rsm import AsyncClient, Client")
    assert "paxos_rsm.client.session" in loaded
    mine = {name.split(".")[1] for name in loaded if name.startswith("paxos_rsm.")}
    assert mine == {"client", "errors", "_proto", "_version"}
