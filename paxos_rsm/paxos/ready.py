"""What a step of the protocol asks its driver to do: the one place where order against the disk is decided.

The driver performs, for each :class:`Ready`, in this order of knowledge:

1. sends ``messages`` whenever it likes, even before the writes are durable;
2. hands ``writes`` to the log, in order, after those of every earlier Ready;
3. once they and those of every earlier Ready are durable, and not before, sends ``messages_after_writes``
   (rule 4), even where this Ready writes nothing. Those addressed to the node itself are its own votes: the driver
   hands them back by ``Node.step``, so that a proposer counts its own Promise and Accepted no earlier than anyone
   else's;
4. applies ``decided``, in order; durability is not needed, a quorum has it;
5. serves the reads of ``reads`` once it has applied their index;
6. fetches a snapshot, where ``fetch_snapshot`` says so, installs it durably, and says so by ``Node.install``;
7. hands ``change_replies`` to whoever asked for the change.

(The shape is etcd-io/raft's ``Ready`` and ``msgsAfterAppend``.)
"""

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from paxos_rsm.paxos.messages import Envelope
from paxos_rsm.paxos.types import Ballot, Entry, NodeId, Slot

__all__ = [
    "ChangeAnswer",
    "ReadGranted",
    "Ready",
    "Write",
    "WriteAccepted",
    "WriteCompacted",
    "WriteDecided",
    "WriteDecidedThrough",
    "WritePromise",
]


@dataclass(frozen=True, slots=True)
class WritePromise:
    """The acceptor's promise: one ballot for the whole log."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class WriteAccepted:
    """The acceptor's vote in one slot. Raises the promise to ``ballot`` (rule 3)."""

    slot: Slot
    ballot: Ballot
    entry: Entry


@dataclass(frozen=True, slots=True)
class WriteDecided:
    """A decided entry learned from a peer: no ballot (rule 6)."""

    slot: Slot
    entry: Entry


@dataclass(frozen=True, slots=True)
class WriteDecidedThrough:
    """Every slot up to ``slot`` is decided with the entry that the log already holds there.

    Nothing waits for it to be durable, but where ``Ready.with_marks`` says so; lost, it is learned again.
    """

    slot: Slot


@dataclass(frozen=True, slots=True)
class WriteCompacted:
    """Every slot up to ``slot`` is decided, and in a durable snapshot: the log may forget it.

    No record: the log drops whole segments, once every earlier write is durable. Nothing waits for it.
    """

    slot: Slot


Write: TypeAlias = WritePromise | WriteAccepted | WriteDecided | WriteDecidedThrough | WriteCompacted


@dataclass(frozen=True, slots=True)
class ReadGranted:
    """The reads gathered under ``read_id`` may be served at ``index``; None: they must be asked again or refused."""

    read_id: int
    index: Slot | None


class ChangeAnswer(NamedTuple):
    """What became of a change that was asked for here: a sentence and a ``changes.Reason`` where it was refused.

    Both empty: it has been decided, which this server may yet have to learn.
    """

    request_id: int
    refusal: str
    reason: int


@dataclass(slots=True)
class Ready:
    """See the module's docstring."""

    writes: list[Write] = field(default_factory=list)
    messages: list[Envelope] = field(default_factory=list)
    messages_after_writes: list[Envelope] = field(default_factory=list)
    with_marks: bool = False
    """What is said after the writes is that slots are decided, and somebody stops for it: it waits for every
    ``WriteDecidedThrough``, too, of this Ready and of those before."""
    decided: list[tuple[Slot, Entry]] = field(default_factory=list)
    reads: list[ReadGranted] = field(default_factory=list)
    change_replies: list[ChangeAnswer] = field(default_factory=list)
    fetch_snapshot: tuple[NodeId, Slot] | None = None
    """The log of that peer starts above what this node needs next: it has a snapshot, which is wanted of that slot or
    a later one."""

    def __bool__(self) -> bool:
        return bool(
            self.writes
            or self.messages
            or self.messages_after_writes
            or self.decided
            or self.reads
            or self.change_replies
            or self.fetch_snapshot
        )
