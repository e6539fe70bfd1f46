"""The built-in models of small objects: register, compare-and-swap, counter, lock. What a model is says ``model.py``.

Each class says which operations it knows, with their input and output as they stand in a history.
"""

from collections.abc import Hashable, Sequence
from typing import Any

from paxos_rsm.checker.history import Operation, freeze
from paxos_rsm.checker.kv import KV
from paxos_rsm.checker.model import ANY, BLIND, ILLEGAL, UNSEEN, Model, hashable, short
from paxos_rsm.errors import HistoryError

__all__ = ["ANY", "BLIND", "ILLEGAL", "KV", "MODELS", "CasRegister", "Counter", "Lock", "Model", "Register"]


class Register(Model):
    """A variable: ``read`` (output: the value) and ``write`` (input: the value).

    ``initial`` is what a read finds before the first write.
    """

    name = "register"
    operations = frozenset({"read", "write"})
    reads = frozenset({"read"})

    def __init__(self, initial: Any = None) -> None:
        self.initial = freeze(initial)

    def init(self) -> Hashable:
        return self.initial

    def step(self, state: Any, op: Operation) -> Any:
        if op.op == "read":
            return state if op.output == state or op.status != "ok" else ILLEGAL
        return op.input

    def prepare(self, ops: Sequence[Operation]) -> Sequence[Operation | None]:
        """Values made hashable; open writes of values that nobody saw are left out, or made one kind.

        Left out is sound: dropping a write that took effect changes what comes after it only up to the next write,
        and nobody in between has seen it. A compare-and-swap that was *refused* has seen that the value was another
        one, and so may owe its answer to such a write; there they are kept, all as the same value.
        """
        ops = [hashable(op) for op in ops]
        if all(op.status == "ok" for op in ops):
            return ops
        seen: set[Hashable] = {self.initial}
        refused = False
        for op in ops:
            if op.op == "read" and op.status == "ok":
                seen.add(op.output)
            elif op.op == "cas":
                seen.add(op.input[0])
                refused = refused or (op.status == "ok" and not op.output)
        prepared: list[Operation | None] = []
        for op in ops:
            if op.status == "ok" or op.op == "read" or self._left(op) in seen:
                prepared.append(op)
            elif refused:
                unseen = UNSEEN if op.op == "write" else (op.input[0], UNSEEN)
                prepared.append(Operation(op.process, op.op, op.key, unseen, None, op.call, None, "unknown"))
            else:
                prepared.append(None)
        return prepared

    def _left(self, op: Operation) -> Any:
        return op.input if op.op == "write" else op.input[1]

    def identity(self, op: Operation) -> Hashable:
        return (op.op, op.input)

    def needs(self, op: Operation) -> Hashable:
        return BLIND if op.op == "write" else op.output

    def sets(self, op: Operation) -> Hashable:
        return ANY if op.op == "read" else op.input


class CasRegister(Register):
    """A register with ``cas`` (input: the pair of old and new value; output: whether it was swapped)."""

    name = "cas"
    operations = frozenset({"read", "write", "cas"})

    def validate(self, op: Operation) -> None:
        super().validate(op)
        if op.op == "cas":
            if not isinstance(op.input, list | tuple) or len(op.input) != 2:
                raise HistoryError(
                    f"cas by process {op.process}, called at {op.call}: its input is {op.input!r}: give the pair"
                    " of the old and the new value"
                )
            if op.status == "ok" and not isinstance(op.output, bool):
                raise HistoryError(
                    f"cas by process {op.process}, called at {op.call}: its output is {op.output!r}: say true where"
                    " it was swapped, false where not"
                )

    def step(self, state: Any, op: Operation) -> Any:
        if op.op == "cas":
            old, new = op.input
            if op.status != "ok":
                return new if state == old else state
            if op.output:
                return new if state == old else ILLEGAL
            return ILLEGAL if state == old else state
        return super().step(state, op)

    def needs(self, op: Operation) -> Hashable:
        if op.op == "cas":
            return ANY if op.status == "ok" and not op.output else op.input[0]
        return super().needs(op)

    def sets(self, op: Operation) -> Hashable:
        return op.input[1] if op.op == "cas" else super().sets(op)


class Counter(Model):
    """A number: ``add`` (input: how much, 1 where null; output: the sum after it, or null) and ``get``."""

    name = "counter"
    operations = frozenset({"add", "get"})
    reads = frozenset({"get"})

    def __init__(self, initial: int = 0) -> None:
        self.initial = initial

    def init(self) -> Hashable:
        return self.initial

    def validate(self, op: Operation) -> None:
        super().validate(op)
        for what, value in (("input", op.input), ("output", op.output)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise HistoryError(
                    f"{op.op} by process {op.process}, called at {op.call}: its {what} is {value!r}: give"
                    " a whole number"
                )

    def step(self, state: Any, op: Operation) -> Hashable:
        if op.op == "get":
            return state if op.output == state or op.status != "ok" else ILLEGAL
        after: int = state + (1 if op.input is None else op.input)
        return after if op.output is None or op.status != "ok" or op.output == after else ILLEGAL

    def identity(self, op: Operation) -> Hashable:
        return 1 if op.input is None else op.input


class Lock(Model):
    """A lock with fencing tokens.

    ``acquire``
        input: the owner (the process where null); output: the fencing token (a whole number that only grows), true
        where the lock has none, or false: refused, because somebody had it. One that gave up waiting is a ``fail``.
    ``release``
        input: the owner; output: true (or null), or false: the owner did not have it.
    ``expire``
        input: the owner. A lease that ran out: releases the lock if the owner still has it. Record it as unknown, from
        when the lease may first run out.
    """

    name = "lock"
    operations = frozenset({"acquire", "release", "expire"})

    def init(self) -> Hashable:
        """(holder or None, highest token known to have been given)."""
        return (None, None)

    def validate(self, op: Operation) -> None:
        super().validate(op)
        given = op.output
        if op.status == "ok" and op.op == "acquire" and not isinstance(given, int):
            raise HistoryError(
                f"acquire by process {op.process}, called at {op.call}: its output is {given!r}: give the fencing"
                " token, true where there is none, false where it was refused"
            )

    def step(self, state: Any, op: Operation) -> Hashable:
        holder, token = state
        owner = self._owner(op)
        known = op.status == "ok"
        if op.op != "acquire":
            if holder == owner:
                return ILLEGAL if known and op.output is False else (None, token)
            # An expiry that comes too late does nothing; a release says so.
            return state if not known or op.op == "expire" or op.output is False else ILLEGAL
        if holder is not None:
            return ILLEGAL if known and op.output is not False else state
        if not known:
            # Tokens grow: the one that was given and never heard of is at least one above the last.
            return (owner, None if token is None else token + 1)
        if op.output is True:
            return (owner, token)
        if op.output is False or (token is not None and op.output <= token):
            return ILLEGAL
        return (owner, op.output)

    def _owner(self, op: Operation) -> Hashable:
        return freeze(op.process if op.input is None else op.input)

    def identity(self, op: Operation) -> Hashable:
        return (op.op, self._owner(op))

    def possible(self, state: Any, op: Operation) -> bool:
        """A token at or below one that was given never comes again."""
        token = state[1]
        if op.op != "acquire" or op.status != "ok" or token is None or isinstance(op.output, bool):
            return True
        return bool(op.output > token)

    def describe_state(self, state: Any) -> str:
        holder, token = state
        held = "free" if holder is None else f"held by {short(holder)}"
        return held if token is None else f"{held}, last token {token}"


MODELS: dict[str, type[Model]] = {
    "register": Register,
    "cas": CasRegister,
    "counter": Counter,
    "kv": KV,
    "lock": Lock,
}
"""The built-in models by name."""
