import click
import pytest

from paxos_rsm.cli.lease_ids import LeaseIdType


@pytest.mark.parametrize(
    ("text", "number"), [("ff", 255), ("0xFF", 255), ("0", 0), ("7fffffffffffffff", 2**63 - 1)]
)
def test_is_a_number_in_hexadecimal(text: str, number: int) -> None:
    assert LeaseIdType().convert(text, None, None) == number
    assert LeaseIdType().convert(number, None, None) == number


@pytest.mark.parametrize("text", ["", "g", "-1", "8000000000000000"])
def test_what_is_none_is_said(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no lease"):
        LeaseIdType().convert(text, None, None)
