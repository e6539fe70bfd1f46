"""The two forms of a test that tries many cases: a short one for every run, and a long one for ``make test-long``."""

import os
from typing import TypeVar

__all__ = ["LONG", "of_form"]

T = TypeVar("T")

LONG = "PAXOS_RSM_LONG_TESTS" in os.environ
"""Whether the long forms run."""


def of_form(short: T, long: T) -> T:
    """How many cases there are in this run, say. The short form's are among the long one's."""
    return long if LONG else short
