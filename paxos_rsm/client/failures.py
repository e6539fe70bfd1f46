"""From a gRPC status code to the exception that a user catches: the one table.

The code may be the status of a call, the ``code`` of a ``Failure`` on a session's stream, or that of a
``KvError`` among the results: a code always means the same. The message is the server's own sentence,
unchanged. Codes alone never say that a command was not executed; where that is in doubt, whoever knows
(window.py) raises UnknownOutcome.
"""

import grpc

from paxos_rsm.errors import (
    ClientError,
    Compacted,
    DeadlineExceeded,
    InvalidArgument,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
)

__all__ = ["ERRORS", "MAY_SUCCEED_LATER", "code_name", "error_of", "number_of"]


def number_of(code: grpc.StatusCode) -> int:
    """The number that stands for ``code`` on the wire."""
    number: int = code.value[0]
    return number


ERRORS: dict[int, type[ClientError]] = {
    number_of(grpc.StatusCode.INVALID_ARGUMENT): InvalidArgument,
    number_of(grpc.StatusCode.DEADLINE_EXCEEDED): DeadlineExceeded,
    # Not there, there already, not now: the request was understood, changed nothing, and would fail again.
    number_of(grpc.StatusCode.NOT_FOUND): InvalidArgument,
    number_of(grpc.StatusCode.ALREADY_EXISTS): InvalidArgument,
    number_of(grpc.StatusCode.FAILED_PRECONDITION): InvalidArgument,
    number_of(grpc.StatusCode.UNIMPLEMENTED): InvalidArgument,
    number_of(grpc.StatusCode.OUT_OF_RANGE): OutOfRange,
    number_of(grpc.StatusCode.RESOURCE_EXHAUSTED): ResourceExhausted,
    number_of(grpc.StatusCode.UNAVAILABLE): Unavailable,
}
"""By number. A code that is not listed is a ClientError."""

MAY_SUCCEED_LATER = frozenset(
    number_of(code)
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
    )
)
"""What is refused with one of these is asked again by the client itself, until the caller's deadline."""

_NAMES = {number_of(code): code.name for code in grpc.StatusCode}


def code_name(code: int) -> str:
    """``UNAVAILABLE`` for 14."""
    return _NAMES.get(code, f"code {code}")


COMPACTED = "etcdserver: mvcc: required revision has been compacted"


def error_of(code: int, message: str) -> ClientError:
    """The exception that says ``code``, with the server's ``message`` as it is."""
    if message == COMPACTED and code == number_of(grpc.StatusCode.OUT_OF_RANGE):
        return Compacted(message)
    return ERRORS.get(code, ClientError)(message or f"the server answered {code_name(code)} without a word")
