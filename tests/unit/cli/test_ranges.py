"""Numbers within bounds: what is taken, and in which words the rest is refused."""

import click
import pytest

from paxos_rsm.cli.ranges import FiniteRange, WholeRange


def test_what_is_within_the_bounds_is_taken() -> None:
    assert FiniteRange(0, 10, min_open=True).convert("1e1", None, None) == 10.0
    assert FiniteRange(0).convert("0", None, None) == 0.0
    assert WholeRange(1, 3)("3") == 3


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (FiniteRange(0, 10), "nan", "nan is not in the range 0<=x<=10"),
        (FiniteRange(0), "inf", "inf is not in the range x>=0"),
        (FiniteRange(0, 10), "10.5", "10.5 is not in the range 0<=x<=10"),
        (FiniteRange(0, 10), "abc", "'abc' is not a valid number"),
        (WholeRange(1), "0", "0 is not in the range x>=1"),
        (WholeRange(1), "abc", "'abc' is not a valid whole number"),
        (WholeRange(1), "1.5", "'1.5' is not a valid whole number"),
    ],
)
def test_the_rest_is_refused_in_plain_words(kind: click.ParamType[float], value: str, words: str) -> None:
    with pytest.raises(click.BadParameter) as refused:
        kind.convert(value, None, None)
    assert refused.value.message == f"{words}."
