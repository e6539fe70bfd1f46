"""What the client's methods return: frozen, and readable without knowing the wire.

Keys and values come back as bytes, whatever they were given as. ``revision`` is always that of the whole
store at the moment of the answer; a key's own revisions are ``create_revision`` and ``mod_revision``. What a
read returns also says how fresh it is: ``applied_slot``, the last slot of the log in the state that answered,
and ``leader_age_ms``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias, overload

__all__ = [
    "Ballot",
    "DeleteResult",
    "GetResult",
    "GrantResult",
    "KeyValue",
    "Leader",
    "LeaseRef",
    "Member",
    "MemberStatus",
    "PutResult",
    "RangeResult",
    "StrOrBytes",
    "TimeToLive",
    "WatchEvent",
]

StrOrBytes: TypeAlias = str | bytes
"""A key or a value as a caller may give it; a str stands for its UTF-8."""


class HasLeaseId(Protocol):
    """Anything that names a lease: what ``lease()`` and ``grant()`` return."""

    @property
    def id(self) -> int:
        """The lease's number in the cluster; never 0."""


LeaseRef: TypeAlias = int | HasLeaseId
"""A lease as a caller may name it: its number, or what has one. 0: no lease."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it stands in the store."""

    key: bytes
    value: bytes
    """Empty where only keys were asked for."""
    version: int
    """Writes since the key was created, that one included: 1 after the first."""
    create_revision: int
    """The store's revision when the key was created (anew, if it had been deleted)."""
    mod_revision: int
    """The store's revision when the key was last written."""
    lease: int = 0
    """The lease that the key is bound to; 0 for none."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """A key was written."""

    revision: int
    """The store's revision that this write made."""
    prev: KeyValue | None = None
    """What stood there before, where ``prev_kv`` asked for it; None where the key was missing."""


class DeleteResult(int):
    """How many keys were deleted: an int, that also knows what they were."""

    revision: int
    """The store's revision after it; that which the delete made, where there was anything to delete."""
    prev_kvs: tuple[KeyValue, ...]
    """The keys as they stood before, in order, where ``prev_kv`` asked for them."""

    def __new__(cls, deleted: int, revision: int = 0, prev_kvs: tuple[KeyValue, ...] = ()) -> Self:
        made = super().__new__(cls, deleted)
        made.revision = revision
        made.prev_kvs = prev_kvs
        return made

    @property
    def deleted(self) -> int:
        """The same number, by name."""
        return int(self)


@dataclass(frozen=True, slots=True)
class GetResult:
    """One key, or the knowledge that it is missing. True where it is there, even with an empty value."""

    key: bytes
    value: bytes | None
    """None where the key is missing."""
    version: int
    """Writes since the key was created; 0 where it is missing."""
    create_revision: int
    """0 where the key is missing."""
    mod_revision: int
    """0 where the key is missing."""
    revision: int
    """Of the store, when it answered; also where an older revision was asked for."""
    applied_slot: int = 0
    """The last slot of the log in the state that answered; 0 within a transaction that also writes."""
    leader_age_ms: int | None = None
    """How long the server that answered had not heard from a leader: a serializable read may be stale by this
    much, or more. None within a transaction that also writes."""
    lease: int = 0
    """The lease that the key is bound to; 0 for none."""

    def __bool__(self) -> bool:
        return self.value is not None


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Keys of a range: iterate over it, index it, ask for its ``len``. False where it holds none."""

    kvs: tuple[KeyValue, ...]
    count: int
    """Keys in the whole range, beyond ``limit`` too."""
    more: bool
    """Whether ``limit`` left some out."""
    revision: int
    """Of the store, when it answered."""
    applied_slot: int = 0
    """See :attr:`GetResult.applied_slot`."""
    leader_age_ms: int | None = None
    """See :attr:`GetResult.leader_age_ms`."""

    def __len__(self) -> int:
        return len(self.kvs)

    def __iter__(self) -> Iterator[KeyValue]:
        return iter(self.kvs)

    @overload
    def __getitem__(self, index: int) -> KeyValue: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[KeyValue, ...]: ...
    def __getitem__(self, index: int | slice) -> KeyValue | tuple[KeyValue, ...]:
        return self.kvs[index]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of one key, or, where it was asked for, the word that there was none up to ``revision``."""

    kind: Literal["put", "delete", "progress"]
    kv: KeyValue
    """The key as it stands after the change; of a deletion only ``key`` and ``mod_revision`` mean anything."""
    revision: int
    """The store's revision that the change belongs to. Changes of one transaction share it."""
    prev_kv: KeyValue | None = None
    """The key before the change, where ``prev_kv`` asked for it; None where it was missing, or is compacted."""

    @property
    def key(self) -> bytes:
        """The key that changed."""
        return self.kv.key

    @property
    def value(self) -> bytes:
        """What was put; empty for anything else."""
        return self.kv.value


@dataclass(frozen=True, slots=True)
class GrantResult:
    """A lease was granted. Nobody keeps it alive but who calls ``keep_alive_once``."""

    id: int
    ttl_s: int
    """Seconds granted: may be more than was asked for."""


@dataclass(frozen=True, slots=True)
class TimeToLive:
    """What is left of a lease. False where there is no such lease (any more)."""

    id: int
    ttl_s: int
    """Seconds that are left; -1 where there is no such lease."""
    granted_ttl_s: int
    """Seconds that it has from each keep-alive; 0 where there is no such lease."""
    keys: tuple[bytes, ...] = ()
    """The keys bound to it, sorted, where they were asked for."""

    def __bool__(self) -> bool:
        return self.ttl_s >= 0


@dataclass(frozen=True, slots=True)
class Leader:
    """Who holds an election."""

    key: bytes
    """The leader's own key: ELECTION/LEASE."""
    value: bytes
    """What the leader said of itself, with ``campaign`` or ``proclaim``."""
    fencing_token: int
    """The create revision of its key: higher for each leader that follows."""
    revision: int
    """The store's revision of this word: of the answer or the change that told it."""


@dataclass(frozen=True, slots=True)
class Member:
    """One server of the cluster, as the others know it."""

    id: int
    name: str
    """Empty where it has not been heard of yet."""
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool = False
    """It receives the log and has no vote."""


@dataclass(frozen=True, slots=True, order=True)
class Ballot:
    """Who leads, and since which round: ordered, and never used twice."""

    round: int
    node: int
    """The incarnation of the server that leads it."""


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One server of the cluster, as it describes itself; or, with ``error``, one that did not answer."""

    name: str
    """Empty where it has never answered and no other server named it."""
    member_id: int
    endpoint: str
    """Where it was asked, ``host:port``."""
    role: str = ""
    """``leader``, ``candidate``, ``follower`` or ``forming``; empty with ``error``."""
    leader: str = ""
    """The name of the leader it knows; empty for none."""
    ballot: Ballot = Ballot(0, 0)
    decided_slot: int = 0
    applied_slot: int = 0
    compacted_slot: int = 0
    revision: int = 0
    """Of the key-value store; 0 with another state machine."""
    log_bytes: int = 0
    memory_bytes: int = 0
    cluster_id: int = 0
    version: str = ""
    """Of paxos_rsm, on that server."""
    leader_age_ms: int = 0
    """Since it last had word from a leader."""
    sessions: int = 0
    snapshot_slot: int = 0
    """Of the newest snapshot on its disk; 0 where it has none."""
    learner: bool = False
    """It receives the log and has no vote."""
    error: str = ""
    """Why it did not answer; empty where it did."""
