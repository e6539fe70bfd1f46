"""A transaction as text, in the grammar of etcd's command.

::

    mod("owner") > "0"              comparisons: all must hold
    value("owner") = "me"
                                    an empty line
    put owner you                   what is done where they hold: get, put, del, with their flags
    get owner
                                    an empty line
    get owner                       what is done where one does not
                                    an empty line

A comparison is TARGET(KEY) OPERATOR VALUE; KEY and VALUE stand in double quotes, with Go's escapes. Targets: ``value``
(``val``), ``version`` (``ver``), ``create`` (``c``), ``mod`` (``m``), ``lease``; operators: ``= != < >``. All three
sections end with an empty line, so that input that was cut off is never taken for a whole transaction.

This file knows words only: lines in, a request out.
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from paxos_rsm.cli.failures import BadInput
from paxos_rsm.cli.go_strings import split_words, unquote
from paxos_rsm.cli.options import key_bytes

if TYPE_CHECKING:
    from paxos_rsm._proto import kv_pb2 as pb

__all__ = ["SECTIONS", "parse_compare", "parse_operation", "read_txn"]

SECTIONS = ("compares", "success requests (get, put, del)", "failure requests (get, put, del)")

COMPARE = re.compile(
    r'\s*(?P<target>\w+)\s*\(\s*(?P<key>"(?:[^"\\]|\\.)*")\s*\)\s*(?P<op>\S+?)\s*(?P<value>"(?:[^"\\]|\\.)*")\s*',
    re.DOTALL,
)
TARGETS = {
    "ver": "VERSION",
    "version": "VERSION",
    "c": "CREATE",
    "create": "CREATE",
    "m": "MOD",
    "mod": "MOD",
    "val": "VALUE",
    "value": "VALUE",
    "lease": "LEASE",
}
FIELDS = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision", "LEASE": "lease"}
OPERATORS = {"=": "EQUAL", "==": "EQUAL", "!=": "NOT_EQUAL", "<": "LESS", ">": "GREATER"}

EXAMPLE = 'write it as mod("key") > "0"'


def read_txn(lines: Iterator[str], announce: Callable[[str], None] = lambda heading: None) -> "pb.TxnRequest":
    """The transaction in ``lines``, which come without their line breaks; each section is announced first.

    Raises BadInput for a line that makes no sense, and where the lines end too early.
    """
    from paxos_rsm._proto import kv_pb2 as pb

    txn = pb.TxnRequest()
    announce(f"{SECTIONS[0]}:")
    txn.compare.extend(parse_compare(line) for line in _section(lines, SECTIONS[0]))
    for heading, operations in zip(SECTIONS[1:], (txn.success, txn.failure), strict=True):
        announce(f"{heading}:")
        operations.extend(parse_operation(line) for line in _section(lines, heading))
    return txn


def _section(lines: Iterator[str], heading: str) -> Iterator[str]:
    for line in lines:
        if not line.strip():
            return
        yield line
    raise BadInput(
        f"the input ended within the {heading.partition(' (')[0]}: each of the three sections ends with an empty line"
    )


def parse_compare(line: str) -> "pb.Compare":
    """One comparison. Raises BadInput where it is none."""
    from paxos_rsm._proto import kv_pb2 as pb

    match = COMPARE.fullmatch(line)
    if match is None:
        raise BadInput(f"malformed comparison: {line.strip()}: {EXAMPLE}")
    target = TARGETS.get(match["target"])
    if target is None:
        known = ", ".join(name for name in TARGETS if len(name) > 1)
        raise BadInput(
            f"malformed comparison: {line.strip()}: unknown target {match['target']}; there are {known}"
        )
    if match["op"] not in OPERATORS:
        raise BadInput(
            f"malformed comparison: {line.strip()}: unknown operator {match['op']}; there are = != < >"
        )
    try:
        key, value = unquote(match["key"]), unquote(match["value"])
    except ValueError as error:
        raise BadInput(f"malformed comparison: {line.strip()}: {error}") from None
    compare = pb.Compare(
        result=pb.Compare.CompareResult.Value(OPERATORS[match["op"]]),
        target=pb.Compare.CompareTarget.Value(target),
        key=key,
    )
    if target == "VALUE":
        compare.value = value
    else:
        setattr(compare, FIELDS[target], _number(value, 16 if target == "LEASE" else 10, line))
    return compare


def _number(text: bytes, base: int, line: str) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = 2**63
    if not -(2**63) <= number < 2**63:
        kind = "a lease in hexadecimal" if base == 16 else "a whole number of 64 bits"
        raise BadInput(f"malformed comparison: {line.strip()}: its value is not {kind}")
    return number


def parse_operation(line: str) -> "pb.RequestOp":
    """One ``get``, ``put`` or ``del``, with the flags that the command of that name has.

    Raises BadInput where it is none of them, or would be bad usage of it.
    """
    from paxos_rsm._proto import kv_pb2 as pb
    from paxos_rsm.cli import kv

    try:
        words = split_words(line)
    except ValueError as error:
        raise BadInput(f"invalid txn request: {line.strip()}: {error}") from None
    name, arguments = words[0], words[1:]
    if name not in ("get", "put", "del"):
        raise BadInput(f"invalid txn request: {line.strip()}: it begins with none of get, put, del")
    try:
        with kv.COMMANDS[name].make_context(name, list(arguments)) as context:
            flags = context.params
        if name == "get":
            return pb.RequestOp(request_range=kv.range_request(flags))
        if name == "del":
            return pb.RequestOp(request_delete_range=kv.delete_request(flags))
        if (flags["value"] is None) != flags["ignore_value"]:
            raise click.UsageError("put takes KEY and VALUE here, or KEY with --ignore-value")
        return pb.RequestOp(request_put=kv.put_request(flags, key_bytes(flags["value"] or "")))
    except click.UsageError as error:
        raise BadInput(f"invalid txn request: {line.strip()}: {error.format_message().rstrip('.')}") from None
    except click.exceptions.Exit:  # --help
        raise BadInput(f"invalid txn request: {line.strip()}: --help is not for here") from None
