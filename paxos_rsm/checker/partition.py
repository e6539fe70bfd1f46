"""The operations of one key, laid out for the search.

The search (``wgl.py``) walks over *events*: event ``i`` is the ``i``-th return. Between two returns some operations are
called; from then until its own return an operation is *pending*. An operation of unknown outcome is *open*: pending
from its call to the end of time, and never required to have taken effect.

A set of pending operations is a bit mask. A bit stands for a place that an operation has while it is pending, and that
another takes over later, so masks are as wide as the history is concurrent and not as long as it is. Open operations
keep their place for ever, in a mask of their own.

Two operations are ordered only if one returned strictly before the other was called. At equal times (ticks) they count
as concurrent: that may miss a violation, and never invents one.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Sequence
from operator import attrgetter

from paxos_rsm.checker.history import Operation
from paxos_rsm.checker.model import ANY, BLIND, Model

__all__ = ["Partition", "sort_by_call"]

STRIDE = 64
"""Events between two noted lists of what is pending: those between are worked out when they are asked for."""

_call_of = attrgetter("call")


def sort_by_call(ops: list[Operation]) -> bool:
    """Sorts by call. Whether no two operations overlap and none is open: then their order is the only one."""
    ops.sort(key=_call_of)
    last = float("-inf")
    for op in ops:
        return_ = op.return_
        if return_ is None or op.call <= last or op.status != "ok":
            return False
        last = return_
    return True


class Partition:
    """The events of one key. ``ops`` is sorted by call, and valid; failed operations are not in it."""

    def __init__(self, model: Model, ops: Sequence[Operation]) -> None:
        self.model = model
        prepared = model.prepare(ops)
        # The search sees what the model prepared; whoever reads the result sees what was recorded.
        self.required: list[Operation] = []
        self.open: list[Operation] = []
        recorded: list[Operation] = []
        recorded_open: list[Operation] = []
        for original, op in zip(ops, prepared, strict=True):
            if op is None:
                continue
            if original.status == "ok":
                self.required.append(op)
                recorded.append(original)
            elif op.op not in model.reads:  # an open read leaves nothing, and nobody heard its answer
                self.open.append(op)
                recorded_open.append(original)
        self.recorded = recorded + recorded_open
        returns = [op.return_ for op in recorded]
        self.order: list[int] = sorted(range(len(recorded)), key=returns.__getitem__)  # type: ignore[arg-type]
        """The required operations by return: event to index."""
        self.rank = [0] * len(recorded)
        for event, index in enumerate(self.order):
            self.rank[index] = event
        self._lay_out_events()
        self._lay_out_open()
        self._pending: dict[int, list[int]] = {}
        self._candidates: dict[int, list[int]] = {}

    def _lay_out_events(self) -> None:
        """Bits, what is called before each event, and who is pending at it."""
        required, order, reads = self.required, self.order, self.model.reads
        count = len(required)
        self.is_read = [op.op in reads for op in required]
        self.bit = bits = [0] * count
        self.called: list[int] = [0] * count
        """How many have been called before the event: the required ones of a lower index."""
        self.new_reads: list[Sequence[int]] = [()] * count
        self.reads_mask = [0] * count
        self.writes_mask = [0] * count
        self._noted: list[list[int]] = []
        free: list[int] = []
        pending: dict[int, None] = {}
        reads_mask = writes_mask = next_call = 0
        for event, index in enumerate(order):
            if event % STRIDE == 0:
                self._noted.append(list(pending))
            return_ = required[index].return_
            new_reads: list[int] = []
            while next_call < count and required[next_call].call <= return_:  # type: ignore[operator]
                bits[next_call] = bit = free.pop() if free else 1 << len(pending)
                pending[next_call] = None
                if self.is_read[next_call]:
                    new_reads.append(next_call)
                    reads_mask |= bit
                else:
                    writes_mask |= bit
                next_call += 1
            self.called[event] = next_call
            if new_reads:
                self.new_reads[event] = new_reads
            self.reads_mask[event] = reads_mask
            self.writes_mask[event] = writes_mask
            del pending[index]
            free.append(bits[index])
            reads_mask &= ~bits[index]
            writes_mask &= ~bits[index]

    def _lay_out_open(self) -> None:
        """Open operations: when each is called, which are alike, and which could be of use to whom."""
        model, order = self.model, self.order
        calls = [op.call for op in self.open]
        self.open_called = [bisect_right(calls, self.required[index].return_) for index in order]  # type: ignore[type-var]
        names: dict[Hashable, int] = {}
        self.alike = [names.setdefault(model.identity(op), len(names)) for op in self.open]
        """A number for each open operation, equal where one may stand for the other."""
        self.sets = [model.sets(op) for op in self.open]
        self.open_needs = [model.needs(op) for op in self.open]
        self.needs = [model.needs(op) for op in self.required] if self.open else []
        self._by_token: defaultdict[Hashable, list[int]] = defaultdict(list)
        for number, token in enumerate(self.sets):
            self._by_token[token].append(number)

    def pending(self, event: int) -> list[int]:
        """The required operations pending at ``event``, by return: that of the event itself comes first."""
        found = self._pending.get(event)
        if found is None:
            start = event - event % STRIDE
            rank = self.rank
            before = self.called[start - 1] if start else 0
            found = [index for index in self._noted[event // STRIDE] if rank[index] >= event]
            found += [index for index in range(before, self.called[event]) if rank[index] >= event]
            found.sort(key=rank.__getitem__)
            self._pending[event] = found
        return found

    def open_candidates(self, event: int) -> Sequence[int]:
        """The open operations that could be of use before ``event``: called, and somebody finds what they leave.

        In the search, what is placed at an event is there so that the pending operations can follow. One that leaves
        a state that none of them needs would be covered unseen, and can as well never have taken effect.
        """
        called = self.open_called[event]
        found = self._candidates.get(event)
        if found is not None or not called:
            return found or ()
        tokens = {self.needs[index] for index in self.pending(event)}
        tokens.discard(BLIND)
        waiting = [ANY, *tokens]
        chosen: list[int] = []
        while waiting and ANY not in tokens:
            for number in self._by_token.get(waiting.pop(), ()):
                if number < called:
                    chosen.append(number)
                    needed = self.open_needs[number]
                    if needed is not BLIND and needed not in tokens:
                        # This one may be of use, and so may be whoever leaves what it needs.
                        tokens.add(needed)
                        waiting.append(needed)
        if ANY in tokens:
            return range(called)
        self._candidates[event] = chosen = sorted(chosen)
        return chosen
