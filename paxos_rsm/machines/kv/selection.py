"""What of the records that a range has found it answers with: filters, order, limit."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from paxos_rsm.machines.kv.records import CREATE, KEY, MOD, VALUE, VERSION, Record
from paxos_rsm.machines.kv.types import KeyValue, Range, RangeResult, SortOrder, SortTarget

__all__ = ["is_in_order", "selected"]

# What a range is sorted by, for each SortTarget.
_SORT_KEYS: dict[int, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: itemgetter(KEY),
    SortTarget.VERSION: itemgetter(VERSION),
    SortTarget.CREATE: itemgetter(CREATE),
    SortTarget.MOD: itemgetter(MOD),
    SortTarget.VALUE: itemgetter(VALUE),
}

# The tail of a Range that asks for nothing special, from min_mod_revision on.
_UNFILTERED = Range(b"")[9:]

# Plain integers: to look up a member of an enumeration costs more than to compare it.
_BY_KEY = int(SortTarget.KEY)
_DESCEND = int(SortOrder.DESCEND)


def is_in_order(command: Range) -> bool:
    """Whether what is asked for is all that is found, in the order in which it is found."""
    return _is_by_key(command) and command[9:] == _UNFILTERED


def selected(command: Range, revision: int, found: list[Record]) -> RangeResult:
    """Filters, sorts and cuts what a range has found."""
    count = len(found)
    if command.count_only:
        return RangeResult(revision, (), False, count)
    kvs = list(map(KeyValue._make, found))
    if command[9:] != _UNFILTERED:
        kvs = _filtered(command, kvs)
    if not _is_by_key(command):
        if not command.sort_order and command.limit > 0 and command[9:] == _UNFILTERED:
            # etcd's rule: where no order is asked for, the first keys are sorted, and not the first taken of all.
            del kvs[command.limit + 1 :]
        # Ties stay in the order of keys, also where the order is reversed.
        kvs.sort(key=_SORT_KEYS[command.sort_target], reverse=command.sort_order == _DESCEND)
    more = 0 < command.limit < len(kvs)
    if more:
        del kvs[command.limit :]
    if command.keys_only:
        kvs = [kv._replace(value=b"") for kv in kvs]
    return RangeResult(revision, tuple(kvs), more, count)


def _is_by_key(command: Range) -> bool:
    """Whether the order asked for is the one in which keys are found."""
    return command.sort_target == _BY_KEY and command.sort_order != _DESCEND


def _filtered(command: Range, kvs: list[KeyValue]) -> list[KeyValue]:
    """Those that pass the filters on revisions; each is off where it is 0."""
    min_mod, max_mod = command.min_mod_revision, command.max_mod_revision
    min_create, max_create = command.min_create_revision, command.max_create_revision
    return [
        kv
        for kv in kvs
        if (not min_mod or kv.mod_revision >= min_mod)
        and (not max_mod or kv.mod_revision <= max_mod)
        and (not min_create or kv.create_revision >= min_create)
        and (not max_create or kv.create_revision <= max_create)
    ]
