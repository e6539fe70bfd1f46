"""Where the store does not do yet what etcd does; commands are kept away from there. See docs/ETCD.md.

Found beside a real etcd 3.4 (tests/etcd). When the store is mended, this file goes, with the calls of :func:`tame`.
"""

from typing import Any

from paxos_rsm.machines.kv.types import Put, Range, SortOrder, Txn

__all__ = ["tame"]


def tame(command: Any) -> Any:
    """The command, or one like it on which both agree."""
    if isinstance(command, Range):
        return _sorted(command)
    if isinstance(command, Txn):
        return _tame_txn(command, may_read_the_past=not _may_fail(command))
    return command


def _sorted(command: Range) -> Range:
    """Without an order, etcd takes the first keys before it sorts them by anything else."""
    if command.limit > 0 and not command.sort_order:
        return command._replace(sort_order=SortOrder.ASCEND)
    return command


def _may_fail(operation: Any) -> bool:
    """Whether there is a put that the state may refuse: etcd looks at all puts before it looks at a range."""
    if isinstance(operation, Txn):
        return any(map(_may_fail, operation.success + operation.failure))
    return isinstance(operation, Put) and bool(
        operation.lease or operation.ignore_value or operation.ignore_lease
    )


def _tame_txn(txn: Txn, may_read_the_past: bool) -> Txn:
    def each(operation: Any) -> Any:
        if isinstance(operation, Txn):
            return _tame_txn(operation, may_read_the_past)
        if isinstance(operation, Range):
            # In a transaction etcd takes a negative revision for one that is compacted.
            revision = max(0, operation.revision) if may_read_the_past else 0
            return _sorted(operation)._replace(revision=revision)
        if isinstance(operation, Put) and (operation.ignore_value or operation.ignore_lease):
            # Here it asks for the key first and for the lease second; outside a transaction the other way.
            return operation._replace(lease=0)
        return operation

    return Txn(txn.compare, tuple(map(each, txn.success)), tuple(map(each, txn.failure)))
