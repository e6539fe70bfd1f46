"""Every error that paxos_rsm raises on purpose, as one tree.

::

    PaxosRsmError
    ├── ConfigError                 a flag, file or argument is wrong; nothing was started
    ├── ClientError                 what a user of the SDK catches
    │   ├── InvalidArgument         refused before the log: nothing happened, do not retry as it is
    │   │   └── OutOfRange          a revision that is compacted or still in the future
    │   │       └── Compacted       compacted: what the caller has not seen cannot be had any more
    │   ├── MembershipRefused       a change of the members was refused: nothing happened
    │   ├── Unavailable             not executed, or a read: retry later or elsewhere
    │   ├── ResourceExhausted       a queue is full: not executed, retry later
    │   ├── DeadlineExceeded        a read, or a command never handed to a server, ran out of time
    │   ├── UnknownOutcome          a command may or may not have been executed
    │   ├── SessionExpired          exactly-once has ended for this session; open a new one
    │   └── LeaseLost               what was bound to a lease (a lock, a leadership) is gone, or may be
    ├── StorageError                the data directory; fatal to the server
    │   ├── DirectoryLocked         another process has it
    │   ├── DirectoryUnusable       cannot be created, read or written
    │   ├── IdentityMismatch        it belongs to another cluster, member or format
    │   ├── LogDamaged              acknowledged bytes cannot be trusted any more
    │   ├── SnapshotDamaged         a snapshot cannot be trusted any more; the state is elsewhere too
    │   ├── LogIOError              a write or a sync failed
    │   └── DiskFull                no space left for the log
    ├── ProtocolError               fatal to the server
    │   ├── InvariantViolation      a rule of docs/PROTOCOL.md does not hold: a bug
    │   └── UnknownEntry            an entry of a kind that this version does not know
    ├── RefusedByCluster            the peers will not work with this server; fatal, says what to do
    ├── MachineFailed               the state machine raised out of apply; fatal
    └── HistoryError                a history to be checked cannot be read or contradicts itself

A message says what happened, to what, and what to do about it.
"""

__all__ = [
    "ClientError",
    "Compacted",
    "ConfigError",
    "DeadlineExceeded",
    "DirectoryLocked",
    "DirectoryUnusable",
    "DiskFull",
    "HistoryError",
    "IdentityMismatch",
    "InvalidArgument",
    "InvariantViolation",
    "LeaseLost",
    "LogDamaged",
    "LogIOError",
    "MachineFailed",
    "MembershipRefused",
    "OutOfRange",
    "PaxosRsmError",
    "ProtocolError",
    "RefusedByCluster",
    "ResourceExhausted",
    "SessionExpired",
    "SnapshotDamaged",
    "StorageError",
    "Unavailable",
    "UnknownEntry",
    "UnknownOutcome",
]


class PaxosRsmError(Exception):
    """The root: everything that paxos_rsm raises on purpose."""


class ConfigError(PaxosRsmError):
    """A flag, a file or an argument is wrong; nothing was started."""


class ClientError(PaxosRsmError):
    """The root of what a user of the SDK catches."""


class InvalidArgument(ClientError):
    """Refused before the log: nothing happened, and the same request will be refused again."""


class OutOfRange(InvalidArgument):
    """A revision that has been compacted, or that is still in the future."""


class Compacted(OutOfRange):
    """The revision has been compacted: a watch cannot resume without a gap, a read has no state to read from."""

    def __init__(self, message: str, compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision
        """The oldest revision that can still be asked for; 0 where the server did not say."""


class MembershipRefused(ClientError):
    """A change of the members was refused before the log. ``reason`` is a number of ``paxos.changes.Reason``."""

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


class Unavailable(ClientError):
    """Not executed (or a read): no leader, no quorum, or no server could be reached. Retry."""


class ResourceExhausted(ClientError):
    """Not executed: a bounded queue is full. Retry after a pause."""


class DeadlineExceeded(ClientError):
    """Ran out of time before anything could have been executed."""


class UnknownOutcome(ClientError):
    """The command may or may not have been executed; only reading the state can tell."""


class SessionExpired(ClientError):
    """The cluster has forgotten this session: what was in flight has an unknown outcome."""


class LeaseLost(ClientError):
    """The lease has ended, or may have: its keys are gone, and so is every lock or leadership held by it."""


class StorageError(PaxosRsmError):
    """The data directory cannot be used; fatal to the server."""


class DirectoryLocked(StorageError):
    """Another process has the data directory."""


class DirectoryUnusable(StorageError):
    """The data directory cannot be created, read or written."""


class IdentityMismatch(StorageError):
    """The data directory belongs to another cluster, another member, or another format version."""


class LogDamaged(StorageError):
    """Bytes that were acknowledged cannot be trusted any more; the server must not vote."""


class SnapshotDamaged(StorageError):
    """A snapshot file is not what was written. No vote is lost: an older one or a peer's has the state."""

    offset = 0
    """Where the first damage is, in bytes."""
    why = ""
    """What is wrong there, as a phrase."""


class LogIOError(StorageError):
    """A write or a sync of the log failed. Never retried (fsync errors are reported once)."""


class DiskFull(StorageError):
    """No space is left for the log."""


class ProtocolError(PaxosRsmError):
    """The root of what stops a server because the protocol cannot go on safely."""


class InvariantViolation(ProtocolError):
    """A rule that always holds does not: a bug. The server stops rather than go on."""


class UnknownEntry(ProtocolError):
    """The log holds an entry of a kind that this version does not know; upgrade this server."""


class RefusedByCluster(PaxosRsmError):
    """The other members will not work with this server; the message says what to do."""


class MachineFailed(PaxosRsmError):
    """The state machine raised out of ``apply``: every replica would fail alike, so this one stops."""


class HistoryError(PaxosRsmError):
    """A history to be checked cannot be read, contradicts itself, or does not fit the model."""
