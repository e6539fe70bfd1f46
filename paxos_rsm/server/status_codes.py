"""From paxos_rsm's errors to gRPC's status codes: the one table.

A unary call answers with the code as its status. A session stream lives on after most errors, so there the
same code travels inside a ``Failure``, which also says what a client needs for exactly-once: whether the frame
was refused before the log, and whether the session has ended.
"""

import grpc

from paxos_rsm._proto import session_pb2 as pb
from paxos_rsm.errors import (
    ClientError,
    ConfigError,
    DeadlineExceeded,
    DiskFull,
    InvalidArgument,
    LogDamaged,
    MachineFailed,
    OutOfRange,
    PaxosRsmError,
    ProtocolError,
    RefusedByCluster,
    ResourceExhausted,
    SessionExpired,
    StorageError,
    Unavailable,
    UnknownOutcome,
)

__all__ = ["STATUS_CODES", "code_of_number", "failure_of", "number_of", "status_code_of"]

STATUS_CODES: dict[type[PaxosRsmError], grpc.StatusCode] = {
    PaxosRsmError: grpc.StatusCode.UNKNOWN,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    ClientError: grpc.StatusCode.UNKNOWN,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    # Not UNAVAILABLE: gRPC clients retry that by themselves, and this may have been executed.
    UnknownOutcome: grpc.StatusCode.UNKNOWN,
    SessionExpired: grpc.StatusCode.FAILED_PRECONDITION,
    StorageError: grpc.StatusCode.INTERNAL,
    LogDamaged: grpc.StatusCode.DATA_LOSS,
    DiskFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ProtocolError: grpc.StatusCode.INTERNAL,
    RefusedByCluster: grpc.StatusCode.FAILED_PRECONDITION,
    MachineFailed: grpc.StatusCode.INTERNAL,
}
"""An error that is not listed has the code of its nearest base."""

_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

NOT_EXECUTED = (InvalidArgument, Unavailable, ResourceExhausted, DeadlineExceeded)
"""Raised only where nothing has reached the log: see the tree in paxos_rsm/errors.py."""


def status_code_of(error: PaxosRsmError) -> grpc.StatusCode:
    """The gRPC status that says ``error`` to a client."""
    return next(STATUS_CODES[base] for base in type(error).__mro__ if base in STATUS_CODES)


def number_of(code: grpc.StatusCode) -> int:
    """The number that stands for ``code`` on the wire."""
    number: int = code.value[0]
    return number


def code_of_number(number: int) -> grpc.StatusCode:
    """What ``number`` stands for; UNKNOWN where it stands for nothing."""
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def failure_of(error: PaxosRsmError, first_seq: int = 0) -> pb.Failure:
    """What a stream tells its client of ``error``; ``first_seq`` 0 speaks of the whole stream or session."""
    return pb.Failure(
        code=number_of(status_code_of(error)),
        message=str(error),
        first_seq=first_seq,
        session_expired=isinstance(error, SessionExpired),
        not_executed=first_seq != 0 and isinstance(error, NOT_EXECUTED),
    )
