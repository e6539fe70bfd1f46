"""What a model is: what an object is meant to do, one operation after the other.

A model is a sequential specification: a first state, and a step that says what state an operation leaves and whether
the answer it got is the right one there. The search in ``wgl.py`` asks for nothing else. A model of one's own is a
subclass of :class:`Model` with ``init`` and ``step``; the rest are hints, each of which the search can do without.

Three hints make the search fast, and each may only say what is true of every history:

``reads``
    Names of operations that leave no other state than the one they find. A legal read is placed at once and never
    weighed against other orders: taking it earlier cannot hurt what follows. (A read may narrow what is *known* of a
    state, as in ``kv.py``; then it is weighed like the rest.)
``needs`` and ``sets``
    Tokens of a state: which one an operation must find, and which one it leaves. They say which operations of unknown
    outcome can be of use. Such a write is worth placing only right before one that finds what it left: it need not
    take effect at all, and a blind write after it would cover it without anyone having seen it.
``possible``
    Whether an operation may still be legal now or later. A stale revision never will be.

``prepare`` sees all operations of a key before the search, and may rewrite or drop some of the unknown ones.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Final

from paxos_rsm.checker.history import Operation, freeze
from paxos_rsm.errors import HistoryError

__all__ = ["ANY", "BLIND", "ILLEGAL", "UNSEEN", "Mark", "Model", "hashable", "short"]


class Mark:
    """A constant that is equal to itself alone."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


ILLEGAL: Final = Mark("ILLEGAL")
"""What a step gives where the operation cannot have had this output in this state."""
ANY: Final = Mark("ANY")
"""Of ``needs`` and ``sets``: it depends, or nobody has said."""
BLIND: Final = Mark("BLIND")
"""Of ``needs``: legal in every state, and what it leaves does not depend on what it finds."""
UNSEEN: Final = Mark("a value that nobody has seen")
"""Stands for the values of open writes that no operation of the history could tell from each other."""


class Model:
    """A sequential specification. Subclass it with ``init`` and ``step``; give ``reads`` where there are any.

    ``step`` is also asked about operations of unknown outcome (``op.status == "unknown"``), whose output says nothing:
    it then gives the state that is left if the operation does take effect, the same state where it does nothing.
    States are hashable, and equal ones behave the same.
    """

    name: str = ""
    """For messages; the class's name where empty."""
    operations: frozenset[str] = frozenset()
    """The operations it knows; empty: ``step`` looks for itself."""
    reads: frozenset[str] = frozenset()

    def init(self) -> Hashable:
        """The state of a key before anything has happened to it."""
        raise NotImplementedError(f"{type(self).__name__}.init: return the first state of a key")

    def step(self, state: Any, op: Operation) -> Hashable:
        """The state after ``op``, or ILLEGAL where ``op`` cannot have answered this here."""
        raise NotImplementedError(f"{type(self).__name__}.step: return the next state, or ILLEGAL")

    def key_of(self, op: Operation) -> Any:
        """Which independent part of the state ``op`` is about: each is checked by itself."""
        return op.key

    def validate(self, op: Operation) -> None:
        """Raises HistoryError where ``op`` is none that this model knows."""
        if self.operations and op.op not in self.operations:
            raise HistoryError(
                f"{op.op!r} (process {op.process}, called at {op.call}) is no operation of the model"
                f" {self.name or type(self).__name__}: it knows {', '.join(sorted(self.operations))}"
            )

    def prepare(self, ops: Sequence[Operation]) -> Sequence[Operation | None]:
        """For each operation of one key, what the search is to use in its place; None leaves it out.

        Only operations of unknown outcome may be left out, and only where that makes no legal history illegal.
        """
        return ops

    def identity(self, op: Operation) -> Hashable:
        """Equal for two operations of unknown outcome that do the same in every state: one may stand for the other."""
        return (op.process, op.op, freeze(op.input))

    def needs(self, op: Operation) -> Hashable:
        """The token of the only states where ``op`` is legal, BLIND, or ANY."""
        return ANY

    def sets(self, op: Operation) -> Hashable:
        """The token of the state that ``op`` leaves wherever it takes effect, or ANY."""
        return ANY

    def possible(self, state: Any, op: Operation) -> bool:
        """False only where ``op`` is legal neither in ``state`` nor in any state that can follow."""
        return True

    def describe(self, op: Operation) -> str:
        """``op`` in a few words, for messages and drawings."""
        given = "" if op.input is None else short(op.input)
        text = f"{op.op}({given})"
        if op.status == "ok":
            return text if op.output is None and op.op not in self.reads else f"{text} → {short(op.output)}"
        return f"{text} {'failed' if op.status == 'fail' else '→ ?'}"

    def describe_state(self, state: Any) -> str:
        """``state`` in a few words."""
        return short(state)


def short(value: Any, length_max: int = 60) -> str:
    text = str(value) if isinstance(value, int | float | Mark) or value is None else repr(value)
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def hashable(op: Operation) -> Operation:
    """``op`` with an input and an output that can be part of a state."""
    try:
        hash((op.input, op.output))
    except TypeError:
        given, answered = freeze(op.input), freeze(op.output)
        return Operation(op.process, op.op, op.key, given, answered, op.call, op.return_, op.status)
    return op
