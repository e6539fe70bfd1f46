"""A store that begins a second life somewhere else: its revision raised, so that nobody takes it for the first one.

Whoever watched or cached the store knows revisions that it may have reached after the backup was taken. In the restored
one the same numbers would name other changes. Raising the revision by more than was ever written since makes every
new change newer than anything that anybody has seen; compacting it there as well ends watches that go on from an older
revision, with the answer that tells their owners to read everything again. One without the other would leave revisions
that never were and can be read (etcd's ``--bump-revision`` wants ``--mark-compacted``, too).
"""

from collections.abc import Iterable

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.kv import snapshots
from paxos_rsm.machines.kv.types import Compact
from paxos_rsm.machines.slices import SliceReader, Slices, sealed

__all__ = ["Bumped", "bumped"]


class Bumped:
    """The store as it is to be restored. ``slices`` are those of its snapshot."""

    def __init__(self, slices: Slices, revision: int, keys: int) -> None:
        self.slices = slices
        self.revision = revision
        self.keys = keys


def bumped(slices: Iterable[bytes], by: int) -> Bumped:
    """The store of a snapshot with its revision raised by ``by``, at least 1, and compacted there.

    The same snapshot gives the same bytes everywhere. Raises MachineFailed where it does not hold, and ConfigError
    where the revision would be more than a store can have.
    """
    store, _, checksum = snapshots.read(SliceReader(slices, "the key-value store"))
    if not 1 <= by <= snapshots.REVISION_MAX - store.revision:
        raise ConfigError(
            f"a revision of {store.revision} cannot be raised by {by}: it is to stay below {snapshots.REVISION_MAX}, "
            "and to rise"
        )
    store.revision += by
    store.compact(Compact(store.revision))
    view, leases = store.view(), store.leases
    # Nothing is left that the running hash could count.
    pieces = snapshots.pieces(
        view, leases.view(), leases.armings, snapshots.MORE.pack(store.quota_bytes, 0, checksum)
    )
    return Bumped(Slices(sealed(pieces), view.close), store.revision, len(store))
