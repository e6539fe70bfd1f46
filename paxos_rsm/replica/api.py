"""What the services of a server ask of its replica, and what they are told.

Everything here is called on the event loop, returns at once and never blocks. A *sink* is the far end of a
session as this server sees it: a client's stream, or the server itself for unary calls. The server to which a
session is attached answers it from its own state machine; no reply travels between servers.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.paxos.changes import Change
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.types import Ballot, NodeId, Slot

__all__ = ["ReplicaHandle", "ReplicaStatus", "SessionHandle", "SessionSink"]


class SessionSink(Protocol):
    """Who waits for the results of one session. Its methods must neither block nor raise."""

    def opened(self, session: int, next_seq: int) -> None:
        """The session is registered (or was found), and this server has applied commands below ``next_seq``."""
        ...

    def results(self, first_seq: int, results: Sequence[Any]) -> None:
        """Results of ``first_seq, first_seq + 1, ...`` as the state machine gave them, not encoded yet.

        A command that was submitted again may be answered again; a result that the client has acknowledged is None.
        """
        ...

    def failed(self, first_seq: int, error: PaxosRsmError) -> None:
        """The frame that starts at ``first_seq`` was refused, or (``first_seq`` 0) the session itself has ended."""
        ...


class SessionHandle(Protocol):
    """A session attached to this server."""

    @property
    def session(self) -> int:
        """Its number; 0 until it is registered."""
        ...

    def submit(self, frame: bytes, first_seq: int, count: int) -> None:
        """Sends a serialized Frame with ``count`` commands on its way to the leader and into the log.

        It is sent again by itself until it has been applied here. Raises InvalidArgument (too large),
        ResourceExhausted (too much waits already; nothing was sent), Unavailable (the server is stopping).
        """
        ...

    def close(self) -> None:
        """Detaches the sink. What was sent may still be executed; the session goes on, and may be opened again."""
        ...

    def end(self) -> None:
        """Detaches the sink and ends the session through the log, unless something else of it is executed before."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What a server knows of itself, at once and without asking anyone."""

    role: str
    """``leader``, ``candidate``, ``follower``, or ``forming`` before the genesis entry is decided."""
    leader: int
    """The incarnation of the leader this server follows or is; 0 where it knows none."""
    ballot: Ballot
    """In which that leader leads; where none is known, the one that this server has promised."""
    promised: Ballot
    decided_slot: Slot
    applied_slot: Slot
    compacted_slot: Slot
    snapshot_slot: Slot
    """Of the newest snapshot on this server's disk; 0 where there is none."""
    leader_age_ms: int
    """Since the last word from that leader, or at the leader itself from a quorum; 2**32 - 1 where there was none."""
    log_bytes: int
    sessions: int
    configuration: Configuration | None
    """What the log has decided; None while the cluster is forming."""
    reachable: frozenset[int]
    """Incarnations heard within an election time-out."""
    divergent: frozenset[int] = frozenset()
    """Incarnations whose state differs from that of a majority (replica/comparison.py), or from each other."""
    disk_full: bool = False
    """The log of this server waits for space on its disk: it neither votes nor leads."""


class ReplicaHandle(Protocol):
    """A running replica, as the services see it."""

    def attach(self, sink: SessionSink, session: int = 0, timeout_ms: int = 0) -> SessionHandle:
        """Attaches a session to this server; 0 registers a new one through the log. ``opened`` follows.

        ``timeout_ms``, of a new session: silence after which it may expire; 0 takes the server's own.
        """
        ...

    def read(self) -> "asyncio.Future[int]":
        """Done, with the applied slot, once the local state is at least as new as the moment of this call (rule 8).

        Fails with Unavailable where no leader can be asked for longer than the replica is willing to wait.
        All the calls of one turn of the loop share one read index.
        """
        ...

    def query(self, request: bytes) -> bytes:
        """Asks the local state machine, as it is now."""
        ...

    def encode_result(self, result: Any) -> bytes:
        """The bytes of a result that a sink was given."""
        ...

    def status(self) -> ReplicaStatus:
        """A view of the moment."""
        ...

    @property
    def ballot(self) -> Ballot:
        """``status().ballot``, at the cost that every response can bear."""
        ...

    def timer_remaining_ms(self, timer: int, armed: int) -> int | None:
        """What is left of a timer of the state machine since that arming, as this server has it.

        None where it has been armed so lately that no tick has passed since: all of it is left.
        """
        ...

    def watch_applied(self, applied: Callable[[], None]) -> None:
        """Calls ``applied()`` after every turn that has fed the state machine, before anything else runs."""
        ...

    async def take_snapshot(self) -> tuple[Slot, int]:
        """Takes a snapshot of the state as it is now: its slot, and its bytes once it is durable.

        The newest that there is, and 0 bytes, where nothing was applied since. Raises DiskFull, Unavailable.
        """
        ...

    def watch_install(self, installing: Callable[[bool], None]) -> None:
        """Calls ``installing(True)`` right before the state is replaced by a snapshot, ``installing(False)`` after.

        Between the two the state machine must not be asked but for what it allows while it restores.
        """
        ...

    async def change(self, change: Change) -> Configuration:
        """Changes the members: the configuration in which that is done, decided and known here.

        Asks until it is done or refused: bound it by a time-out, after which it may still be done. Raises
        MembershipRefused, and Unavailable where this server is stopping.
        """
        ...

    async def hand_over(self, to: NodeId | None = None) -> NodeId | None:
        """Hands the leadership over to ``to``, or to the voter that is closest; who leads then.

        None where this server does not lead, ``to`` cannot be reached or is no voter, or nobody has come to lead within
        two election time-outs.
        """
        ...

    def watch_leader(self, changed: Callable[[bool], None]) -> None:
        """Calls ``changed(has_leader)`` now and whenever that changes."""
        ...

    @property
    def failed(self) -> "asyncio.Future[None]":
        """Fails with what must stop this server: damage, a broken invariant, a refusal by the cluster."""
        ...

    async def stop(self) -> None:
        """Takes no more, finishes what is being written, closes the log and the streams."""
        ...
