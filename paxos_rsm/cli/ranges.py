"""Numbers within bounds, for options: click's own, with two things mended.

``click.FloatRange`` takes "not a number", which compares with no bound, for one that is within them; and what it calls
a value that does not parse, "not a valid integer range", says nothing to whoever typed one number.
"""

import math
from typing import Any

import click

__all__ = ["FiniteRange", "WholeRange"]


class WholeRange(click.IntRange):
    """A whole number within bounds."""

    name = "whole number"


class FiniteRange(click.FloatRange):
    """A number within bounds."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{found} is not in the range {self._describe_range()}.", param, ctx)
        return found
