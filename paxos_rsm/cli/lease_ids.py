"""The number of a lease on the command line: hexadecimal, as etcd's command prints and reads it."""

from typing import Any

import click

__all__ = ["LeaseIdType"]


class LeaseIdType(click.ParamType[int]):
    """``694d77aa9e38260f``, with or without ``0x``: a number of 63 bits. 0 is no lease."""

    name = "lease"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            number = int(str(value), 16)
        except ValueError:
            self.fail(
                f"{value!r} is no lease: it is a number in hexadecimal, as `lease list` prints it", param, ctx
            )
        if not 0 <= number < 2**63:
            self.fail(f"{value!r} is no lease: it is a number of 63 bits", param, ctx)
        return number
