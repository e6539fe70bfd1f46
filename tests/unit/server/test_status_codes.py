"""Every error of the tree has its one status, and a Failure says what exactly-once needs to know."""

import inspect

import grpc
import pytest

from paxos_rsm import errors
from paxos_rsm.server.status_codes import STATUS_CODES, code_of_number, failure_of, number_of, status_code_of

Code = grpc.StatusCode


def every_error() -> list[type[errors.PaxosRsmError]]:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass)]
    return [each for each in found if issubclass(each, errors.PaxosRsmError)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgument, Code.INVALID_ARGUMENT),
        (errors.OutOfRange, Code.OUT_OF_RANGE),
        (errors.Unavailable, Code.UNAVAILABLE),
        (errors.ResourceExhausted, Code.RESOURCE_EXHAUSTED),
        (errors.DeadlineExceeded, Code.DEADLINE_EXCEEDED),
        (errors.UnknownOutcome, Code.UNKNOWN),
        (errors.SessionExpired, Code.FAILED_PRECONDITION),
        (errors.RefusedByCluster, Code.FAILED_PRECONDITION),
        (errors.LogIOError, Code.INTERNAL),
        (errors.LogDamaged, Code.DATA_LOSS),
        (errors.DiskFull, Code.RESOURCE_EXHAUSTED),
        (errors.InvariantViolation, Code.INTERNAL),
        (errors.MachineFailed, Code.INTERNAL),
    ],
)
def test_the_status_of_an_error(error: type[errors.PaxosRsmError], code: grpc.StatusCode) -> None:
    assert status_code_of(error("x")) == code


def test_every_error_has_a_status_and_none_means_success() -> None:
    assert len(every_error()) >= 20
    assert all(status_code_of(each("x")) != Code.OK for each in every_error())
    assert set(STATUS_CODES) <= set(every_error())


def test_an_error_that_is_not_listed_has_that_of_its_base() -> None:
    class FullQueue(errors.ResourceExhausted):
        pass

    assert status_code_of(FullQueue("x")) == Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("error", every_error())
def test_a_failure_says_what_a_client_has_to_know(error: type[errors.PaxosRsmError]) -> None:
    failure = failure_of(error("why"), 7)
    assert (failure.message, failure.first_seq) == ("why", 7)
    assert code_of_number(failure.code) == status_code_of(error("why"))
    assert failure.session_expired == (error is errors.SessionExpired)
    never_executed = (
        errors.InvalidArgument,
        errors.Unavailable,
        errors.ResourceExhausted,
        errors.DeadlineExceeded,
    )
    assert failure.not_executed == issubclass(error, never_executed)
    # Of a whole session nothing can be said: some of it was executed, some not.
    assert not failure_of(error("why")).not_executed


def test_numbers_are_those_of_grpc() -> None:
    assert number_of(Code.INVALID_ARGUMENT) == 3
    assert number_of(Code.UNAVAILABLE) == 14
    assert all(code_of_number(number_of(code)) is code for code in Code)
    assert code_of_number(4711) is Code.UNKNOWN
