"""What the bench says of itself when it fails."""

import pytest

from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.testing import FaultUnavailable, LocalClusterError


def test_headline_has_the_last_line_of_the_log() -> None:
    error = LocalClusterError("n1 ended with exit code 1\n  n1| starting\n  n1| Error: no space left")
    assert error.headline == "n1 ended with exit code 1: Error: no space left"
    assert LocalClusterError("no leader").headline == "no leader"


def test_a_fault_that_cannot_be_shown_is_an_error_of_the_bench() -> None:
    with pytest.raises(LocalClusterError) as raised:
        raise FaultUnavailable("no compiler")
    assert isinstance(raised.value, PaxosRsmError)
