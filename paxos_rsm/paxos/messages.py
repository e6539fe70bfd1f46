"""What servers say to each other.

One frozen dataclass a message of the table in docs/PROTOCOL.md. A message does not name its sender or receiver:
the stream it travels on is bound to both incarnations by the ``Hello`` that opened it, so that nothing meant for
a server reaches another one that was given its address.
"""

from dataclasses import dataclass
from typing import TypeAlias

from paxos_rsm.paxos.changes import Change
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Entry, NodeId, Slot

__all__ = [
    "Accept",
    "Accepted",
    "CatchUp",
    "CatchUpReply",
    "ChangeReply",
    "ChangeRequest",
    "Decide",
    "Envelope",
    "FetchSnapshot",
    "Forward",
    "HandOver",
    "Heartbeat",
    "HeartbeatReply",
    "Message",
    "Nack",
    "Prepare",
    "Promise",
    "ReadReply",
    "ReadRequest",
    "SnapshotChunk",
    "StateDigest",
]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Phase 1a: asks for the promise of ``ballot`` and for what the receiver holds from ``first`` on.

    Sent only once the candidate's own promise of ``ballot`` is durable (rule 2). Sent again with a higher
    ``first`` to pull the next chunk of a long promise. The leader of ``given_up`` has handed over to the candidate, and
    serves no read on a lease of that ballot any more (leases.py).
    """

    ballot: Ballot
    first: Slot
    given_up: Ballot = NO_BALLOT


@dataclass(frozen=True, slots=True)
class Promise:
    """Phase 1b, one chunk: covers the slots ``first..last`` (``last`` None: and everything above).

    ``accepted`` and ``decided`` hold what the sender has in that interval; a slot of the interval that is in
    neither is free at the sender, unless it is at or below ``compacted_through`` or among ``unreadable``: those
    are *not* covered (rule 5). Sent only once the promise is durable.
    """

    ballot: Ballot
    first: Slot
    last: Slot | None
    accepted: tuple[tuple[Slot, Ballot, Entry], ...]
    decided: tuple[tuple[Slot, Entry], ...]
    compacted_through: Slot = 0
    unreadable: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Accept:
    """Phase 2a: asks to accept ``entry`` in ``slot``.

    ``decided_through`` is the sender's watermark, bound to ``ballot`` by rule 6: it names slots, not values.
    """

    ballot: Ballot
    slot: Slot
    entry: Entry
    decided_through: Slot


@dataclass(frozen=True, slots=True)
class Accepted:
    """Phase 2b: the sender holds the entries of ``ballot`` in all of ``slots``, durably."""

    ballot: Ballot
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Nack:
    """Refuses ``refused``: the sender has promised the higher ballot ``promised``."""

    refused: Ballot
    promised: Ballot


@dataclass(frozen=True, slots=True)
class Decide:
    """The leader's watermark, sent at once where no Accept would carry it (rule 6 binds it to ``ballot``)."""

    ballot: Ballot
    decided_through: Slot


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I am here: what I follow, what I know, whom I hear. From every member to every member.

    ``ballot`` is the ballot that the sender leads (``leading``) or follows (not ``leading``; its node is the leader
    the sender believes in). ``leader_alive`` is the pre-vote, always up to date: whether the sender has a leader it
    would rather not see disturbed. ``decided_through`` is the sender's contiguous watermark: rule 6 makes it a
    statement on values only where ``leading``. ``round`` numbers read confirmations: not 0 asks for a reply.
    ``reach`` names the nodes that the sender has heard within an election time-out, itself included. Whoever confirms
    the round is asked to promise to nobody else for ``hold_us`` microseconds of its own clock (leases.py).
    """

    ballot: Ballot
    leading: bool
    leader_alive: bool
    decided_through: Slot
    round: int
    reach: frozenset[NodeId]
    promised: Ballot
    hold_us: int = 0


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """Confirms, for reads, that the sender had promised nothing above ``ballot`` when round ``round`` came.

    ``held``: and that it promises nothing to anybody else for as long as it was asked to.
    """

    ballot: Ballot
    round: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Asks any server for decided entries from ``first`` on, up to ``last``."""

    first: Slot
    last: Slot


@dataclass(frozen=True, slots=True)
class CatchUpReply:
    """Decided entries only (rule 6: stored as decided, without a ballot)."""

    promised: Ballot
    entries: tuple[tuple[Slot, Entry], ...]
    decided_through: Slot
    compacted_through: Slot = 0


@dataclass(frozen=True, slots=True)
class Forward:
    """Client frames on their way to the leader. ``hops`` counts servers passed; at most one hands them on."""

    frames: tuple[bytes, ...]
    hops: int = 0


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A follower asks for a read index, once for all the reads that wait there.

    ``accepted``: not for that, but for the highest slot in which the receiver holds anything (quorum_reads.py).
    """

    read_id: int
    hops: int = 0
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class ReadReply:
    """The read index for ``read_id``: serve the reads from a state at or past ``index``. 0: refused, ask again."""

    read_id: int
    index: Slot


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A change of the members on its way to the leader: one ``request_id`` is carried out once."""

    request_id: int
    change: Change
    hops: int = 0


@dataclass(frozen=True, slots=True)
class ChangeReply:
    """What became of a request: the sentence and the reason of a refusal. Both empty: it has been carried out."""

    request_id: int
    refusal: str
    reason: int


@dataclass(frozen=True, slots=True)
class HandOver:
    """The leader of ``ballot`` goes, and the receiver holds all that it has proposed: let it stand at once.

    From here on the sender serves no read on a lease in ``ballot``, whatever comes of it.
    """

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class FetchSnapshot:
    """Asks for the bytes of a snapshot file from ``offset`` on; ``slot`` 0 asks for the newest there is."""

    slot: Slot
    offset: int


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """Bytes of a snapshot file of ``size`` bytes, from ``offset`` on. No data: there is no such snapshot (any more)."""

    slot: Slot
    size: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StateDigest:
    """What the sender's state has come to at some slots, ascending: whoever has the same log has the same digests."""

    pairs: tuple[tuple[Slot, bytes], ...]


Message: TypeAlias = (
    Prepare
    | Promise
    | Accept
    | Accepted
    | Nack
    | Decide
    | Heartbeat
    | HeartbeatReply
    | CatchUp
    | CatchUpReply
    | Forward
    | ReadRequest
    | ReadReply
    | ChangeRequest
    | ChangeReply
    | HandOver
    | FetchSnapshot
    | SnapshotChunk
    | StateDigest
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message and the node that it is for."""

    to: NodeId
    message: Message
