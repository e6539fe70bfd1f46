"""The search for an order: Wing and Gong's, with Lowe's memory and his just-in-time placing.

    J. M. Wing, C. Gong: Testing and verifying concurrent objects. J. Parallel Distrib. Comput. 17, 1993.
    G. Lowe: Testing for linearizability. Concurrency and Computation: Practice and Experience 29, 2017.

A *configuration* at an event (the next return, of an operation called x) is: the state, which pending operations have
been placed, which open ones have been used. From it the search must place x, if it has not been placed, and may
place other pending operations before it. **Just in time**: nothing is placed but in the run of operations that ends
with x; whatever has time is left for its own return, since an order that places it earlier for no reason has an equal
that does not. So a straight history is one step an operation, and a choice is looked at again only when what
followed from it has failed.

**Depth first over events**: x alone is tried first; the rest of the choice is left on the stack. **Breadth first
within one event**, the runs that use fewest open operations first, so that those are spared.

**Reads** leave no state but their own: one that is legal is placed at once. Taking it out of a later place changes
nothing there.

**Memory**: a configuration that was met is not searched again; neither is one that is *worse* than one met: the same
event, state and placed writes, but a read missing that the other has placed, or an open operation used that the other
has spared. What the worse one can do, the better one can.

**Open operations** come last of the candidates; among those that do the same, only the first is tried; and one that
was placed must be seen by the next (``model.Model.needs``), or it need not have been placed.

The search is iterative, takes no clock, and can be stopped and taken up again after any number of steps.

Which operation is to blame: the violation is reported at the latest event that any configuration reached. All that
returned before it has an order; with x there is none.
"""

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any, TypeAlias

from paxos_rsm.checker.history import Operation
from paxos_rsm.checker.model import ANY, ILLEGAL, Model
from paxos_rsm.checker.partition import Partition

__all__ = ["Search"]

Path: TypeAlias = "tuple[Any, int] | None"
"""What was placed, last first: (the rest, index). Open operations are numbered after the required ones."""

Node: TypeAlias = tuple[Any, int, int, int, Path, Hashable]
"""A configuration: state, placed writes, placed reads, used open operations, path, and the token that the last
placed one left if it was open and nobody has found it yet (else ANY)."""


class _Frame:
    """What is left to try at one event."""

    __slots__ = ("event", "nodes")

    def __init__(self, event: int, nodes: deque[Node]) -> None:
        self.event = event
        self.nodes = nodes


class Search:
    """The search for an order of one partition."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.steps = 0
        """How many times an operation was tried on a state."""
        self.path: Path = None
        """Once found: the order."""
        self._seen: dict[tuple[int, int, Hashable], int | list[int]] = {}
        self._stack: list[tuple[int, Node] | _Frame] = []
        self._at: tuple[int, Node] | None = (0, (partition.model.init(), 0, 0, 0, None, ANY))
        # Masks of used open operations stand above those of pending ones, so that one number tells which is better.
        self._shift = max((mask.bit_length() for mask in partition.reads_mask), default=0)
        self._model: Model = partition.model
        self._foresees = type(partition.model).possible is not Model.possible
        self.stuck_event = -1
        self._stuck_path: Path = None
        self._stuck_states: dict[Hashable, None] = {}

    @property
    def configurations(self) -> int:
        """How many are remembered: what the search weighs."""
        return len(self._seen)

    def run(self, steps_max: int) -> bool | None:
        """Whether there is an order; None where that took more than ``steps_max`` steps in all. Call again to go on."""
        while True:
            if self._at is not None:
                found = self._descend(steps_max)
                if found is not False:
                    return found
                self._at = None
            while self._at is None:
                if not self._stack:
                    return False
                if self.steps > steps_max:
                    return None
                self._back()

    def _descend(self, steps_max: int) -> bool | None:
        """Goes on from ``_at``, trying the returning operation alone at each event. False where that is stuck."""
        part, stack, seen = self.partition, self._stack, self._seen
        step, required, order, bits = self._model.step, part.required, part.order, part.bit
        event, (state, writes, reads, used, path, token) = self._at  # type: ignore[misc]
        steps, count, shift = self.steps, len(order), self._shift
        outcome: bool | None = True
        while event < count:
            if steps > steps_max:
                self._at = (event, (state, writes, reads, used, path, token))
                outcome = None
                break
            for index in part.new_reads[event]:
                steps += 1
                after = step(state, required[index])
                if after is state or after == state:
                    reads |= bits[index]
                    path = (path, index)
            x = order[event]
            bit = bits[x]
            if reads & bit:
                reads ^= bit
            elif writes & bit:
                writes ^= bit
            else:
                missing = part.reads_mask[event] & ~reads
                others = (missing | (part.writes_mask[event] & ~writes)) != bit
                if others or stack or part.open_called[event]:
                    key = (event, writes, state)
                    worth = used << shift | missing
                    known = seen.get(key)
                    if known is None:
                        seen[key] = worth
                    elif not _remember(seen, key, known, worth):
                        outcome = False
                        break
                    if others or part.open_called[event]:
                        stack.append((event, (state, writes, reads, used, path, ANY)))
                steps += 1
                after = step(state, required[x])
                if after is ILLEGAL:
                    self._note_stuck(event, state, path)
                    outcome = False
                    break
                path = (path, x)
                if missing & ~bit and after != state:
                    # A read that only narrowed the state was not placed at once: it is x, and placed now.
                    reads, path = self._absorb(event, after, reads | bit, path)
                    reads &= ~bit
                state = after
            event += 1
        self.steps = steps
        if outcome:
            self.path = path
        return outcome

    def _absorb(self, event: int, state: Any, reads: int, path: Path) -> tuple[int, Path]:
        """Places every pending read that is legal in ``state``."""
        part, step = self.partition, self._model.step
        for index in part.pending(event):
            if part.is_read[index] and not reads & part.bit[index]:
                self.steps += 1
                after = step(state, part.required[index])
                if after is state or after == state:
                    reads |= part.bit[index]
                    path = (path, index)
        return reads, path

    def _note_stuck(self, event: int, state: Any, path: Path) -> None:
        if event > self.stuck_event:
            self.stuck_event = event
            self._stuck_path = path
            self._stuck_states = {state: None}
        elif event == self.stuck_event and len(self._stuck_states) < 100:
            self._stuck_states[state] = None

    def _back(self) -> None:
        """Takes up the next thing left to try: sets ``_at`` if the event could be passed."""
        top = self._stack[-1]
        if not isinstance(top, _Frame):
            event, node = top
            self._stack[-1] = top = _Frame(event, deque())
            self._grow(top, node)
        if not top.nodes:
            self._stack.pop()
            return
        event, node = top.event, top.nodes.popleft()
        part = self.partition
        x = part.order[event]
        bit = part.bit[x]
        state, writes, reads, used, path, token = node
        if reads & bit:  # a read that the last placed write has made legal: the run ends here
            self._at = (event + 1, (state, writes, reads ^ bit, used, path, ANY))
            return
        self._grow(top, node)
        if token is not ANY and part.needs[x] != token and part.needs[x] is not ANY:
            return
        self.steps += 1
        after = self._model.step(state, part.required[x])
        if after is ILLEGAL:
            self._note_stuck(event, state, path)
            return
        reads, path = self._absorb(event, after, reads | bit, (path, x))
        self._at = (event + 1, (after, writes, reads & ~bit, used, path, ANY))

    def _grow(self, frame: _Frame, node: Node) -> None:
        """Puts into the frame what can be placed after ``node`` before x: required ones first, open ones last."""
        state, writes, reads, used, path, token = node
        part, step = self.partition, self._model.step
        event = frame.event
        required: list[Node] = []
        for index in part.pending(event)[1:]:
            bit = part.bit[index]
            if (writes | reads) & bit:
                continue
            if token is not ANY and part.needs[index] != token and part.needs[index] is not ANY:
                continue
            self.steps += 1
            after = step(state, part.required[index])
            if after is ILLEGAL:
                continue
            if part.is_read[index]:
                child = self._child(event, after, writes, reads | bit, used, (path, index), ANY)
            else:
                child = self._child(event, after, writes | bit, reads, used, (path, index), ANY)
            if child is not None:
                required.append(child)
        frame.nodes.extendleft(reversed(required))
        for number in self._open(event, used):
            needs = part.open_needs[number]
            if token is not ANY and needs != token and needs is not ANY:
                continue
            self.steps += 1
            after = step(state, part.open[number])
            if after is ILLEGAL or after == state:
                continue
            placed = (path, len(part.required) + number)
            child = self._child(event, after, writes, reads, used | 1 << number, placed, part.sets[number])
            if child is not None:
                frame.nodes.append(child)

    def _open(self, event: int, used: int) -> Iterator[int]:
        """The open operations worth trying: one of each kind."""
        part = self.partition
        tried: set[int] = set()
        for number in part.open_candidates(event):
            kind = part.alike[number]
            if not used >> number & 1 and kind not in tried:
                tried.add(kind)
                yield number

    def _child(
        self, event: int, state: Any, writes: int, reads: int, used: int, path: Path, token: Hashable
    ) -> Node | None:
        """The configuration, with its reads placed; None where it is hopeless or no better than one met."""
        part = self.partition
        if self._foresees:
            placed = writes | reads
            for index in part.pending(event):
                if not placed & part.bit[index] and not self._model.possible(state, part.required[index]):
                    return None
        before = path
        if part.reads_mask[event] & ~reads:
            reads, path = self._absorb(event, state, reads, path)
            if path is not before:
                token = ANY
        key = (event, writes, state)
        worth = used << self._shift | (part.reads_mask[event] & ~reads)
        known = self._seen.get(key)
        if known is None:
            self._seen[key] = worth
        elif not _remember(self._seen, key, known, worth):
            return None
        return (state, writes, reads, used, path, token)

    def order(self) -> tuple[Operation, ...]:
        """The order found."""
        return self._recorded(self.path)

    def prefix(self) -> tuple[Operation, ...]:
        """After a failure: an order of what could be placed before the event that nobody got past."""
        return self._recorded(self._stuck_path)

    def unplaced(self) -> Operation:
        """After a failure: the operation of that event."""
        return self.partition.recorded[self.partition.order[self.stuck_event]]

    def stuck_states(self) -> list[Hashable]:
        """After a failure: the states that were possible there."""
        return list(self._stuck_states)

    def _recorded(self, path: Path) -> tuple[Operation, ...]:
        found: list[Operation] = []
        while path is not None:
            path, index = path
            found.append(self.partition.recorded[index])
        found.reverse()
        return tuple(found)


def _remember(
    seen: dict[tuple[int, int, Hashable], int | list[int]],
    key: tuple[int, int, Hashable],
    known: int | list[int],
    worth: int,
) -> bool:
    """Notes a configuration beside those ``known``; False where one of them is as good or better."""
    if isinstance(known, int):
        if not known & ~worth:
            return False
        seen[key] = [known, worth]
        return True
    for other in known:
        if not other & ~worth:
            return False
    known.append(worth)
    return True
