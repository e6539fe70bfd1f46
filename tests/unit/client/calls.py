"""Calls of a session, by name and with deadlines that a busy machine does not meet."""

import asyncio
from collections.abc import Callable

from paxos_rsm.client.reads import Answer
from paxos_rsm.client.session import Session

LONG_S = 30.0
"""The deadline of what must not meet one."""
SHORT_S = 0.2


def raw(name: object) -> bytes:
    """A command that the fake store keeps as it is."""
    return f"raw:{name}".encode()


class Caller:
    """A session, and calls of it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def submit(self, name: object, timeout_s: float = LONG_S) -> "asyncio.Future[bytes]":
        return self.session.submit(raw(name), timeout_s)

    def query(
        self, serializable: bool = False, timeout_s: float = LONG_S, request: bytes = b"raw:"
    ) -> "asyncio.Future[Answer]":
        return self.session.query(request, serializable, timeout_s)


Connect = Callable[..., Caller]
"""Of the fixture ``connect``: servers, in the order in which they are to be tried, and settings."""
