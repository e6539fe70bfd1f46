import os
import sys

import pytest

from paxos_rsm.client import forks
from paxos_rsm.errors import ClientError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    # Newer Pythons warn of forks with threads; the child here does next to nothing.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_child() -> str:
    """What ``require_usable`` says in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            forks.require_usable()
            said = "usable"
        except ClientError as error:
            said = str(error)
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 10_000).decode()
    os.close(reader)
    os.waitpid(child, 0)
    return said


def test_a_fork_with_a_connection_open_is_told() -> None:
    connection = object()
    forks.opened(connection)
    try:
        said = in_child()
        assert f"process {os.getpid()}" in said
        assert "spawn" in said
    finally:
        forks.closed(connection)
    forks.require_usable()


def test_a_fork_with_every_connection_closed_is_not() -> None:
    connection = object()
    forks.opened(connection)
    forks.closed(connection)
    assert in_child() == "usable"


def test_this_process_itself_is_usable() -> None:
    assert "pytest" in sys.modules
    connection = object()
    forks.opened(connection)
    forks.require_usable()
    forks.closed(connection)
