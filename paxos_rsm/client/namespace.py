"""A prefix that every key of a view begins with: put in front on the way out, taken off on the way in.

Whoever works in the view ``app/`` cannot name a key outside it: ``k`` is ``app/k``; a range without an end goes to
the end of the view; the key that is the prefix itself belongs to nobody in it. Transactions, to any depth, and the
conditions in them are translated like everything else. The root, whose prefix is empty, costs nothing.

Pure.
"""

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client.commands import prefix_end, to_bytes
from paxos_rsm.client.types import StrOrBytes
from paxos_rsm.errors import InvalidArgument

__all__ = ["ROOT", "Namespace"]

NO_END = b"\0"
EMPTY_KEY = "etcdserver: key is not provided"


class Namespace:
    """Translates keys, ranges and transactions of a view into those of the store."""

    __slots__ = ("length", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.length = len(prefix)
        """Bytes to take off a key of the store."""

    def within(self, prefix: StrOrBytes) -> "Namespace":
        """The view of ``prefix`` in this view. Raises InvalidArgument for an empty one."""
        inner = to_bytes(prefix, "a namespace's prefix")
        if not inner:
            raise InvalidArgument("a namespace has a prefix, such as 'app/'; this one is empty")
        return Namespace(self.prefix + inner)

    def key(self, given: StrOrBytes) -> bytes:
        """The store's name of a key. Raises InvalidArgument for what is none: the root leaves that to the store."""
        if not self.prefix:
            return to_bytes(given)
        return self._inner(to_bytes(given))

    def _inner(self, key: bytes) -> bytes:
        if not key:
            raise InvalidArgument(EMPTY_KEY)
        return self.prefix + key

    def bounds(self, bounds: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """The store's name of a range."""
        if not self.prefix:
            return bounds
        key, end = bounds
        if end == NO_END:
            return self._inner(key), prefix_end(self.prefix)
        return self._inner(key), self.prefix + end if end else b""

    def strip(self, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Those of the store's keys that lie in the view, as it names them."""
        if not self.prefix:
            return keys
        return tuple(key[self.length :] for key in keys if key.startswith(self.prefix) and key != self.prefix)

    def txn(self, txn: pb.TxnRequest) -> pb.TxnRequest:
        """The store's form of a transaction; a new one, except at the root."""
        if not self.prefix:
            return txn
        inner = pb.TxnRequest()
        inner.CopyFrom(txn)
        self._translate(inner)
        return inner

    def _translate(self, txn: pb.TxnRequest) -> None:
        for compare in txn.compare:
            compare.key, compare.range_end = self.bounds((compare.key, compare.range_end))
        for op in (*txn.success, *txn.failure):
            match op.WhichOneof("request"):
                case "request_put":
                    op.request_put.key = self._inner(op.request_put.key)
                case "request_range":
                    asked = op.request_range
                    asked.key, asked.range_end = self.bounds((asked.key, asked.range_end))
                case "request_delete_range":
                    gone = op.request_delete_range
                    gone.key, gone.range_end = self.bounds((gone.key, gone.range_end))
                case "request_txn":
                    self._translate(op.request_txn)


ROOT = Namespace(b"")
