import grpc
import pytest

from paxos_rsm.client.failures import ERRORS, MAY_SUCCEED_LATER, code_name, error_of, number_of
from paxos_rsm.errors import (
    ClientError,
    DeadlineExceeded,
    InvalidArgument,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, InvalidArgument),
        (grpc.StatusCode.FAILED_PRECONDITION, InvalidArgument),
        (grpc.StatusCode.OUT_OF_RANGE, OutOfRange),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, ClientError),
        (grpc.StatusCode.UNKNOWN, ClientError),
    ],
)
def test_a_code_is_an_exception_with_the_servers_own_words(
    code: grpc.StatusCode, error: type[ClientError]
) -> None:
    made = error_of(number_of(code), "etcdserver: as it is")
    assert type(made) is error
    assert str(made) == "etcdserver: as it is"


def test_every_error_is_one_that_a_user_can_catch() -> None:
    assert all(issubclass(error, ClientError) for error in ERRORS.values())


def test_a_server_without_a_word_is_given_one() -> None:
    assert "UNAVAILABLE" in str(error_of(14, ""))
    assert "code 99" in str(error_of(99, ""))
    assert code_name(8) == "RESOURCE_EXHAUSTED"


def test_what_is_wrong_for_ever_is_not_asked_again() -> None:
    assert number_of(grpc.StatusCode.UNAVAILABLE) in MAY_SUCCEED_LATER
    assert number_of(grpc.StatusCode.RESOURCE_EXHAUSTED) in MAY_SUCCEED_LATER
    assert number_of(grpc.StatusCode.INVALID_ARGUMENT) not in MAY_SUCCEED_LATER
    assert number_of(grpc.StatusCode.FAILED_PRECONDITION) not in MAY_SUCCEED_LATER
