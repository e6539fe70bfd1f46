"""What a simulated state has in it beside the state: where it began, and whether it has gone wrong.

A :class:`Marks` is a part of the state like any other: it goes into snapshots and comes out of them, and into the
digests by which servers compare themselves. So the product cannot tell it from the rest; and the simulation, which
can, sees two things in it that it could not see in the state itself.

- *The beginning*: a cluster that was founded on a restored state begins with another mark than an empty one. A server
  that was given the log of such a cluster, and not what lies before it, has another digest than the others.
- *A flaw*: a bit of the memory has turned over. Where a state has a flaw, so has every snapshot of it, and whoever
  installs one. The rest of the state stays right, so that all that clients are told can still be judged.

:class:`Flaws` judges whether servers judge one another rightly (replica/comparison.py).
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from struct import Struct

from paxos_rsm.machines.slices import Slices
from paxos_rsm.paxos.types import NodeId
from paxos_rsm.replica.comparison import Difference, Verdict
from paxos_rsm.sim.failure import Broken

__all__ = ["Flaws", "Marks"]

_PACKED = Struct(">II")


class Marks:
    """See the module's docstring. 0: an empty state, and one that is right."""

    def __init__(self, beginning: int = 0) -> None:
        self.beginning = beginning
        self.flaw = 0

    def packed(self) -> bytes:
        """Both, as bytes."""
        return _PACKED.pack(self.beginning, self.flaw)

    def before(self, slices: Iterable[bytes]) -> Slices:
        """A snapshot with the marks in front, as they are now."""
        close = getattr(slices, "close", None)
        return Slices(chain([self.packed()], slices), close or _nothing)

    def out_of(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Takes the marks from a snapshot, and gives the rest of it."""
        left = iter(chunks)
        head = b""
        while len(head) < _PACKED.size:
            head += next(left)
        self.beginning, self.flaw = _PACKED.unpack_from(head)
        rest = head[_PACKED.size :]
        # A machine gets the slices back that it gave, and no other.
        return chain([rest], left) if rest else left


class Flaws:
    """Whose state is flawed, and whose ever was."""

    def __init__(self) -> None:
        self.now: dict[NodeId, int] = {}
        self._had: dict[int, set[NodeId]] = {}
        """Who has ever had each flaw."""

    def note(self, node: NodeId, flaw: int) -> None:
        """The state of a server has this flaw, or (0) has none."""
        if flaw:
            self.now[node] = flaw
            self._had.setdefault(flaw, set()).add(node)
        else:
            self.now.pop(node, None)

    @property
    def ever(self) -> set[NodeId]:
        """Whose state was ever flawed."""
        return set().union(*self._had.values())

    def have_spread(self, voters: Collection[NodeId]) -> bool:
        """Whether one has sent its snapshot to so many others that no majority against it is sure to be right."""
        return any(2 * len(had.intersection(voters)) >= len(voters) for had in self._had.values())

    def judged(self, me: NodeId, found: Difference, voters: Collection[NodeId]) -> None:
        """A server has compared itself with the others, and found this. Raises Broken where that cannot be."""
        if found.verdict is Verdict.EQUAL or self.have_spread(voters):
            return
        if not self.ever:
            raise Broken("7", f"{me:x} finds states that differ, and none ever did: {found}")
        if found.verdict is Verdict.MINORITY and me not in self.now:
            raise Broken("7", f"{me:x} takes its state for wrong, and it is right: {found}")
        if found.verdict is Verdict.MAJORITY and not self.ever.issuperset(found.others):
            raise Broken("7", f"{me:x} takes states for wrong that are right: {found}")


def _nothing() -> None:
    """Nothing is held on to."""
