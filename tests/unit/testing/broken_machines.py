"""State machines that each break one clause of the contract, in a way that people do; and one that keeps all."""

import itertools
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from random import Random
from typing import Any

from paxos_rsm.machines.base import Position, SimpleMachine

NAMES = ("anna", "bert", "carla", "dora", "emil", "frida")


class Right(SimpleMachine):
    """A set of names for each key: ``add KEY NAME``, ``take KEY``. The others change a little of it."""

    def __init__(self) -> None:
        self.sets: dict[str, set[str]] = {}

    def apply(self, command: bytes, at: Position) -> bytes:
        words = command.decode("latin-1").split(" ")
        if len(words) == 3 and words[0] == "add":
            self.sets.setdefault(words[1], set()).add(words[2])
            return b"ok"
        if len(words) == 2 and words[0] == "take" and self.sets.get(words[1]):
            name = self.choose(self.sets[words[1]])
            self.sets[words[1]].remove(name)
            return name.encode("latin-1")
        return b"error: unknown command"

    def choose(self, names: set[str]) -> str:
        return min(names)

    def query(self, request: bytes) -> bytes:
        return b"%d" % len(self.sets.get(request.decode("latin-1"), ()))

    def dump(self) -> bytes:
        return repr([(key, sorted(names)) for key, names in sorted(self.sets.items())]).encode()

    def load(self, state: bytes) -> None:
        import ast

        self.sets = {key: set(names) for key, names in ast.literal_eval(state.decode())}


class ForgetsOrder(Right):
    """Whoever was added first is taken first, and the snapshot does not say who was."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def apply(self, command: bytes, at: Position) -> bytes:
        self.order.append(command.decode("latin-1").rpartition(" ")[2])
        return super().apply(command, at)

    def choose(self, names: set[str]) -> str:
        return min(names, key=lambda name: (self.order.index(name) if name in self.order else 0, name))


class HashOrder(Right):
    """The same on every machine of a process, restored or not."""

    def choose(self, names: set[str]) -> str:
        return next(iter(set(sorted(names))))  # noqa: C414 - inserted in one order, iterated in that of the hashes


class RaisesOnBadInput(Right):
    def apply(self, command: bytes, at: Position) -> bytes:
        command.decode()
        return super().apply(command, at)


class RaisesAtOnce(Right):
    def choose(self, names: set[str]) -> str:
        raise KeyError("nobody")


class AsksTheDate(Right):
    def choose(self, names: set[str]) -> str:
        return sorted(names)[int(time.time() // 86_400) % len(names)]


class AsksTheDateByDatetime(Right):
    def apply(self, command: bytes, at: Position) -> bytes:
        return super().apply(command, at) + datetime.now().strftime(" %Y").encode()


class AsksTheTime(Right):
    def apply(self, command: bytes, at: Position) -> bytes:
        return super().apply(command, at) + b" %d" % time.perf_counter_ns()


class DrawsLots(Right):
    def choose(self, names: set[str]) -> str:
        return random.choice(sorted(names))


class UsesIdentity(Right):
    def apply(self, command: bytes, at: Position) -> bytes:
        return super().apply(command, at) + b" %d" % id(self)


class AsksTheProcess(Right):
    def apply(self, command: bytes, at: Position) -> bytes:
        return super().apply(command, at) + b" %d" % os.getpid()


class SharesClassAttribute(Right):
    taken: list[str] = []  # noqa: RUF012 - the bug

    def choose(self, names: set[str]) -> str:
        name = super().choose(names)
        self.taken.append(name)
        return name

    def dump(self) -> bytes:
        return super().dump() + b"#%d" % len(self.taken)

    def load(self, state: bytes) -> None:
        super().load(state.partition(b"#")[0])


class SharesDefault(Right):
    def __init__(self, sets: dict[str, set[str]] = {}) -> None:  # noqa: B006 - the bug
        self.sets = sets


TICKETS = itertools.count(1)


class SharesGlobal(Right):
    def apply(self, command: bytes, at: Position) -> bytes:
        return super().apply(command, at) + b" %d" % next(TICKETS)


class QueryChanges(Right):
    def query(self, request: bytes) -> bytes:
        return b"%d" % len(self.sets.setdefault(request.decode("latin-1"), set()))


class QueryRaises(Right):
    def query(self, request: bytes) -> bytes:
        return b"%d" % len(self.sets[request.decode("latin-1")])


class ResultIsText(Right):
    def apply(self, command: bytes, at: Position) -> Any:
        return super().apply(command, at).decode("latin-1")


class ResultIsNone(Right):
    def apply(self, command: bytes, at: Position) -> Any:
        result = super().apply(command, at)
        return None if result == b"ok" else result


class QueryIsNumber(Right):
    def query(self, request: bytes) -> Any:
        return len(self.sets)


class DigestOfSetOrder(Right):
    """In one process, sets of equal elements that came in another order may be iterated in another order."""

    def dump(self) -> bytes:
        return repr([(key, list(names)) for key, names in self.sets.items()]).encode()


class DigestOfOrder(ForgetsOrder):
    """The answers are right; the digest is of an order that the snapshot does not keep."""

    def choose(self, names: set[str]) -> str:
        return min(names)

    def digest(self) -> bytes:
        return repr(self.order).encode()


class DigestOfCounter(Right):
    """The digest counts calls of itself."""

    calls = 0

    def digest(self) -> bytes:
        self.calls += 1
        return super().digest() + b"%d" % self.calls


class DigestTellsNothing(Right):
    def digest(self) -> bytes:
        return b"the state"


class SnapshotLosesState(Right):
    """What decides the next answer, and is in neither the snapshot nor the digest."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def apply(self, command: bytes, at: Position) -> bytes:
        self.count += 1
        return super().apply(command, at) + b" %d" % self.count


class SnapshotOfLiveState(Right):
    def snapshot(self) -> Iterator[bytes]:
        live = self.sets

        def slices() -> Iterator[bytes]:
            yield repr([(key, sorted(names)) for key, names in sorted(live.items())]).encode()

        return slices()


class SnapshotByGenerator(Right):
    """Tolerated: it is read whole at once."""

    def snapshot(self) -> Iterator[bytes]:
        yield self.dump()


class SnapshotForgetsEmpty(Right):
    def load(self, state: bytes) -> None:
        super().load(state)
        self.sets = {key: names for key, names in self.sets.items() if names}


class SnapshotClears(Right):
    def snapshot(self) -> Iterator[bytes]:
        view = super().snapshot()
        self.sets = {key: names for key, names in self.sets.items() if names}
        return view


class RestoreMerges(Right):
    def apply(self, command: bytes, at: Position) -> bytes:
        result = super().apply(command, at)
        self.sets = {key: names for key, names in self.sets.items() if names}
        return result

    def load(self, state: bytes) -> None:
        held = self.sets
        super().load(state)
        self.sets = {**held, **self.sets}


class RestoreRaises(Right):
    def restore(self, chunks: Iterable[bytes]) -> None:
        first, second = chunks
        self.load(first + second)


class SnapshotRaises(Right):
    def snapshot(self) -> Iterator[bytes]:
        if self.sets:
            raise OSError("no room")
        return super().snapshot()


class SlicesOfText(Right):
    def snapshot(self) -> Any:
        return [self.dump().decode()]


class RightInBatches(Right):
    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        return [(self.apply(c, Position(at.slot, at.index + n)),) for n, c in enumerate(commands)]

    def encode_result(self, result: Any) -> bytes:
        encoded: bytes = result[0]
        return encoded


class BatchDiffers(RightInBatches):
    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        return super().apply_batch(sorted(commands), at)


class BatchTooShort(RightInBatches):
    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        return super().apply_batch(commands, at)[:1]


class Names:
    """Adds names to three keys, and takes them."""

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        key = rnd.choice("xyz")
        if rnd.random() < 0.6:
            return f"add {key} {rnd.choice(NAMES)}".encode()
        return f"take {key}".encode()

    def query(self, rnd: Random) -> bytes:
        return rnd.choice("xyz").encode()


def adds_and_takes(rnd: Random) -> bytes:
    """The same commands, as a function."""
    return Names().command(rnd, 0, 0)


class DrawsFromSet(Names):
    """A workload that another process does not repeat."""

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        return f"add x {rnd.choice(list(set(NAMES)))}".encode()


class Objects(Names):
    """A workload that knows what is right: what is taken was added."""

    def __init__(self) -> None:
        self.added: dict[str, set[str]] = {}

    def answered(self, command: bytes, result: bytes) -> None:
        words = command.decode().split(" ")
        if words[0] == "add":
            self.added.setdefault(words[1], set()).add(words[2])
        elif not result.startswith(b"error"):
            assert result.decode() in self.added[words[1]], "nobody had added it"
            self.added[words[1]].remove(result.decode())

    def queried(self, request: bytes, result: bytes) -> None:
        expected = len(self.added.get(request.decode(), ()))
        assert int(result) == expected, f"it has {expected}"


class TakesAndKeeps(Right):
    """Deterministic, faithful, and wrong."""

    def apply(self, command: bytes, at: Position) -> bytes:
        before = {key: set(names) for key, names in self.sets.items()}
        result = super().apply(command, at)
        if command == b"take x" and at.slot % 3 == 0:
            self.sets = before
        return result
