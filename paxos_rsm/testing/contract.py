"""What every state machine owes the log, checked on the machine alone, without a cluster.

The same commands are given to machines in several ways, none of which may make a difference, and each difference has a
name of its own:

*alone*
    One machine, digest after digest. Queries in between must leave the state as it is; a snapshot must restore to the
    same state in a new machine, at once and after the machine has gone on.
*a twin*
    A second new machine, on another day (``another_day.py``), with whole frames where the machine takes them. It must
    answer the same and come to the same digests; and the first must not have moved meanwhile.
*restored*
    A machine that is replaced again and again by one that its snapshot was restored into, over an older state. What
    the snapshot leaves out shows in the answers that follow.
*bad input*
    Bytes that nobody meant to send, to two machines that must neither raise nor part.

A pass over some hundred commands takes milliseconds; so the commands that broke something are made fewer
(:func:`fewest`) as long as the same still breaks.
"""

import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import NamedTuple

from paxos_rsm.machines.base import BatchStateMachine, Position, StateMachine
from paxos_rsm.testing.another_day import another_day
from paxos_rsm.testing.shared_state import changed_values, shared_values

__all__ = ["ADVICE", "Breach", "Case", "Command", "Contract", "bad_input", "fewest", "raised", "short"]

POINTS_MAX = 16
"""Commands after which queries are asked and snapshots taken."""
TRIALS_MAX = 300
SHOWN_MAX = 120


class Command(NamedTuple):
    """A command, and where it stands in the log."""

    at: Position
    data: bytes


@dataclass(frozen=True)
class Case:
    """What a machine is checked with: commands in the order of the log, and queries that somebody might ask."""

    commands: Sequence[Command]
    queries: Sequence[bytes] = ()


class Breach(Exception):
    """A machine does not keep the contract: the clause ``check``, as the command ``at`` showed ``during`` a pass."""

    def __init__(self, check: str, told: str, advice: str, at: Position | None = None) -> None:
        super().__init__(f"{check}: {told}")
        self.check = check
        self.told = told
        self.advice = advice
        self.at = at
        self.during = ""


ADVICE = {
    "apply raised": "answer bad input with bytes that say so, and leave the state as it is: an exception out of apply "
    "stops every server alike, because no command is ever skipped",
    "a result is not bytes": "encode what apply, query, snapshot and digest give; they are what goes over the wire",
    "not deterministic": "apply may use its command, its position and the machine's own state, and nothing else: no "
    "clock, no random numbers, no id() or default hash, no environment; put what varies into the command, where the "
    "client draws it once for all servers",
    "depends on the clock": "the second machine lives on another day: let the client put the time into the command, "
    "where it is one for all servers",
    "machines share state": "keep everything that commands change in attributes that __init__ makes anew: no "
    "mutable class attribute, default argument or global",
    "query changed the state": "a query is answered by one server only, and any number of times: what changes the "
    "state must be a command",
    "query raised": "answer what cannot be answered with bytes that say so",
    "digest is not stable": "make the digest of the state alone, in an order of its own: sort what is in a set or "
    "has no order, and leave out whatever does not decide what later commands are answered",
    "digest tells nothing": "make the digest of all of the state: it is how a server that went astray is found",
    "snapshot changed the state": "snapshot only looks: it must leave the state as it is",
    "snapshot raised": "a server that cannot take snapshots keeps its whole log for ever",
    "restore raised": "restore must take whatever snapshot gave, whatever the state was before",
    "a restored machine is another": "put everything that decides later answers into the snapshot, and read all of "
    "it back in restore; and let nothing decide them that a snapshot cannot keep, such as the order in which a set is "
    "iterated",
    "restore does not replace": "restore must begin by emptying the machine: what it held before is older, not more",
    "snapshot is no view": "take what can change (copy the dict, not the reference) before snapshot returns, for its "
    "slices are read while commands go on",
    "apply_batch is not apply": "both must come to the same state and answers; encode_result must give what apply "
    "would have",
}


def short(data: object) -> str:
    """``data`` as it would stand in a program, cut where it is long."""
    text = repr(data)
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…"


def breach(check: str, told: str, at: Position | None = None) -> Breach:
    """The breach of a clause, with what to do about it."""
    return Breach(check, told, ADVICE[check], at)


def bad_input(rnd: Random, commands: Sequence[Command]) -> list[bytes]:
    """Bytes that nobody meant to send: none, too many, no text, and commands that were cut, bent and lengthened."""
    found = [b"", b"\0", b"\xff\xfe\xfd", b" ", b"-1", b"9" * 5_000]
    found += [rnd.randbytes(rnd.randint(1, 40)) for _ in range(4)]
    for _ in range(6 if commands else 0):
        data = rnd.choice(commands).data
        bent = bytearray(data or b"\0")
        bent[rnd.randrange(len(bent))] ^= 1 << rnd.randrange(8)
        found += [data[: rnd.randint(0, len(data))], bytes(bent), data + b" x", data + data]
    return found


class _Guarded:
    """A machine, every call of which is looked at."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine

    def apply(self, command: Command, what: str = "command") -> bytes:
        try:
            result = self.machine.apply(command.data, command.at)
        except Exception as error:
            told = f"apply {raised(error)} on the {what} {short(command.data)}"
            raise breach("apply raised", told, command.at) from error
        if type(result) is not bytes:
            told = (
                f"apply answered {short(result)}, which is {type(result).__name__}, to {short(command.data)}"
            )
            raise breach("a result is not bytes", told, command.at)
        return result

    def apply_frame(self, commands: Sequence[Command]) -> list[bytes]:
        """In one call where the machine takes that."""
        machine = self.machine
        if not isinstance(machine, BatchStateMachine):
            return [self.apply(each) for each in commands]
        first = commands[0]
        try:
            results = machine.apply_batch([each.data for each in commands], first.at)
            encoded = [each if type(each) is bytes else machine.encode_result(each) for each in results]
        except Exception as error:
            told = f"apply_batch or encode_result {raised(error)} on {short([c.data for c in commands])}"
            raise breach("apply raised", told, first.at) from error
        if len(encoded) != len(commands) or any(type(each) is not bytes for each in encoded):
            told = f"{len(commands)} commands were answered {short(encoded)}"
            raise breach("apply_batch is not apply", told, first.at)
        return encoded

    def query(self, request: bytes, at: Position, *, may_raise: bool = False) -> bytes | None:
        try:
            result = self.machine.query(request)
        except Exception as error:
            if may_raise:
                return None
            told = f"query {raised(error)} on the request {short(request)}"
            raise breach("query raised", told, at) from error
        if type(result) is not bytes:
            told = f"query answered {short(result)}, which is {type(result).__name__}, to {short(request)}"
            raise breach("a result is not bytes", told, at)
        return result

    def digest(self, at: Position | None = None) -> bytes:
        try:
            digest, again = self.machine.digest(), self.machine.digest()
        except Exception as error:
            raise breach("digest is not stable", f"digest {raised(error)}", at) from error
        if type(digest) is not bytes:
            raise breach(
                "a result is not bytes", f"digest gave {short(digest)}, a {type(digest).__name__}", at
            )
        if digest != again:
            told = f"two calls with nothing in between gave {digest.hex()} and {again.hex()}"
            raise breach("digest is not stable", told, at)
        return digest

    def view(self, at: Position | None) -> Iterable[bytes]:
        """A snapshot whose slices are yet to be read; of a generator all of them, as servers do."""
        try:
            view = self.machine.snapshot()
            return list(view) if inspect.isgeneratorfunction(self.machine.snapshot) else view
        except Exception as error:
            raise breach("snapshot raised", f"snapshot {raised(error)}", at) from error

    def restore(self, view: Iterable[bytes], at: Position | None) -> None:
        slices = _slices(view, at)
        try:
            self.machine.restore(slices)
            for _ in slices:
                pass
        except Breach:
            raise
        except Exception as error:
            raise breach("restore raised", f"restore {raised(error)}", at) from error


def _slices(view: Iterable[bytes], at: Position | None) -> Iterator[bytes]:
    reading = iter(view)
    while True:
        try:
            each = next(reading)
        except StopIteration:
            return
        except Exception as error:
            told = f"reading the slices of a snapshot {raised(error)}"
            raise breach("snapshot raised", told, at) from error
        if type(each) is not bytes:
            told = f"snapshot gave {short(each)}, which is {type(each).__name__}, as a slice"
            raise breach("a result is not bytes", told, at)
        yield each


def raised(error: Exception) -> str:
    """``raised ValueError: ...``, and where: the innermost line of the user's own code."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename != __file__ and "site-packages" not in frame.filename:
            file = frame.filename.rsplit("/", 1)[-1]
            return f"raised {type(error).__name__}: {error} ({file}, line {frame.lineno})"
    return f"raised {type(error).__name__}: {error}"


@dataclass
class Contract:
    """Checks the machines that ``make`` makes; see the module's docstring."""

    make: Callable[[], StateMachine]
    elsewhere: Callable[[], AbstractContextManager[None]] = another_day
    """Where the twin lives."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often what was checked."""
    digests: set[bytes] = field(default_factory=set)
    snapshots: set[bytes] = field(default_factory=set)
    """Hashes of those that were seen: if they differ, the digests should."""

    def __post_init__(self) -> None:
        first = _Guarded(self.make())
        self._shared = shared_values(first.machine)
        self.empty = first.digest()
        """The digest of a machine that nothing has been applied to."""
        first.restore(first.view(None), None)
        if first.digest() != self.empty:
            raise breach("a restored machine is another", "the snapshot of a new machine restores to another")

    def check(self, case: Case, seed: int = 0) -> tuple[list[bytes], list[bytes]]:
        """Raises Breach. Otherwise the results of all commands, and the digests after each."""
        commands = case.commands
        rnd = Random(f"{seed}/contract")
        everywhere = range(len(commands))
        points = set(everywhere if len(commands) <= POINTS_MAX else rnd.sample(everywhere, POINTS_MAX))
        run = _Run(self, case, points, rnd)
        for during in (run.alone, run.twin, run.restored, run.bad_input):
            try:
                during()
            except Breach as broken:
                broken.during = during.__name__
                raise
        self.digests.update(run.digests)
        return run.results, run.digests

    def check_digests(self) -> None:
        """At the end of it all: whether the digest ever told two states apart. Raises Breach."""
        if self.digests <= {self.empty} and len(self.snapshots) > 1:
            told = (
                f"it was {self.empty.hex()} from the first command to the last, and snapshots were different"
            )
            raise breach("digest tells nothing", told)

    def shared(self) -> list[str]:
        """What machines share, and commands have changed."""
        return changed_values(self._shared, shared_values(self.make()))

    def fewest(self, case: Case, seed: int, broken: Breach) -> tuple[Case, Breach]:
        """Fewer commands that break the same clause, and how."""
        found = broken

        def breaks(commands: Sequence[Command]) -> bool:
            nonlocal found
            try:
                self.check(Case(commands, case.queries), seed)
            except Breach as again:
                if (again.check, again.during) == (broken.check, broken.during):
                    found = again
                    return True
            return False

        commands = list(case.commands)
        through = [each for each in commands if broken.at is None or each.at <= broken.at]
        if len(through) < len(commands) and breaks(through):
            commands = through
        commands = fewest(commands, breaks)
        return Case(commands, case.queries), found


def fewest(commands: Sequence[Command], breaks: Callable[[Sequence[Command]], bool]) -> list[Command]:
    """Leaves out what is not needed, in pieces of half the rest, of a quarter, and so on down to single commands."""
    kept = list(commands)
    size, trials = max(1, len(kept) // 2), 0
    while trials < TRIALS_MAX and kept:
        start, smaller = 0, False
        while start < len(kept) and trials < TRIALS_MAX:
            without = kept[:start] + kept[start + size :]
            trials += 1
            if breaks(without):
                kept, smaller = without, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return kept


class _Run:
    """One run of :meth:`Contract.check`."""

    def __init__(self, contract: Contract, case: Case, points: set[int], rnd: Random) -> None:
        self._contract = contract
        self._commands = case.commands
        self._queries = case.queries
        self._points = points
        self._random = rnd
        self._counts = contract.counts
        self.results: list[bytes] = []
        self.digests: list[bytes] = []
        self._first = _Guarded(contract.make())

    def _new(self) -> _Guarded:
        machine = _Guarded(self._contract.make())
        if machine.digest() != self._contract.empty:
            raise self._sharing("a new machine has another digest than the first new one had", None)
        return machine

    def _sharing(self, told: str, at: Position | None, otherwise: str = "not deterministic") -> Breach:
        """What is shared, where that can be found; ``otherwise`` is the clause where not."""
        changed = self._contract.shared()
        if not changed:
            return breach(otherwise, told, at)
        return breach("machines share state", f"{told}; meanwhile, {' and '.join(changed)} changed", at)

    # ---- alone -----------------------------------------------------------------------------------------------

    def alone(self) -> None:
        machine = self._first = self._new()
        late: tuple[Position, bytes, Iterable[bytes]] | None = None
        for number, command in enumerate(self._commands):
            self.results.append(machine.apply(command))
            self.digests.append(machine.digest(command.at))
            self._counts["commands checked alone"] += 1
            if number in self._points:
                if late is not None:
                    self._read_late(*late)
                self._ask(machine, command.at, self.digests[-1])
                late = self._snap(machine, command.at, self.digests[-1])
        if late is not None:
            self._read_late(*late)

    def _ask(self, machine: _Guarded, at: Position, digest: bytes) -> None:
        """Queries, twice each."""
        for request in self._some(self._queries):
            answer, again = machine.query(request, at), machine.query(request, at)
            self._counts["queries"] += 1
            if answer != again:
                told = f"the query {short(request)} was answered {short(answer)}, and then {short(again)}"
                raise breach("not deterministic", told, at)
            self._unmoved(machine, f"the query {short(request)}", at, digest)

    def _some(self, queries: Sequence[bytes]) -> Sequence[bytes]:
        return queries if len(queries) <= 2 else self._random.sample(queries, 2)

    def _unmoved(self, machine: _Guarded, what: str, at: Position, digest: bytes) -> None:
        after = machine.digest(at)
        if after != digest:
            told = f"{what}: the digest was {digest.hex()} before it and {after.hex()} after it"
            raise breach("query changed the state", told, at)

    def _snap(
        self, machine: _Guarded, at: Position, digest: bytes
    ) -> tuple[Position, bytes, Iterable[bytes]]:
        """A snapshot restored at once, and one for later."""
        self._counts["snapshots restored"] += 1
        held = list(_slices(machine.view(at), at))
        self._contract.snapshots.add(blake2b(b"".join(held)).digest())
        restored = self._new()
        restored.restore(held, at)
        found = restored.digest(at)
        if machine.digest(at) != digest:
            raise breach("snapshot changed the state", "the digest after it is another than before it", at)
        if found != digest:
            told = (
                f"the digest is {digest.hex()}, and {found.hex()} in a new machine that restored its snapshot"
            )
            raise breach("a restored machine is another", told, at)
        return at, digest, machine.view(at)

    def _read_late(self, at: Position, digest: bytes, view: Iterable[bytes]) -> None:
        restored = self._new()
        restored.restore(view, at)
        found = restored.digest(at)
        if found != digest:
            told = (
                f"taken at digest {digest.hex()} and read after further commands, it restored to {found.hex()}; "
                "read at once it was right"
            )
            raise breach("snapshot is no view", told, at)

    # ---- a twin ----------------------------------------------------------------------------------------------

    def twin(self) -> None:
        try:
            with self._contract.elsewhere():
                self._twin()
        except Breach as parted:
            if parted.check == "not deterministic" and self._agree_today():
                raise breach("depends on the clock", parted.told, parted.at) from None
            raise

    def _agree_today(self) -> bool:
        """Whether the other day makes all the difference."""
        try:
            self._twin()
        except Breach:
            return False
        return True

    def _twin(self) -> None:
        twin = self._new()
        batched = isinstance(twin.machine, BatchStateMachine)
        for start, frame in self._frames():
            answers = twin.apply_frame(frame)
            for offset, answer in enumerate(answers):
                if answer != self.results[start + offset]:
                    raise self._parted(start + offset, "answered", answer, batched)
            last = start + len(frame) - 1
            digest = twin.digest(frame[-1].at)
            if digest != self.digests[last]:
                raise self._parted(last, "left with the digest", digest, batched)
        if self.digests and self._first.digest() != self.digests[-1]:
            told = "what one machine executed changed another"
            raise self._sharing(told, self._commands[-1].at, "machines share state")

    def _frames(self) -> Iterator[tuple[int, list[Command]]]:
        """Runs of commands that could have come in one frame."""
        start = 0
        for end in range(1, len(self._commands) + 1):
            if end < len(self._commands):
                before, after = self._commands[end - 1].at, self._commands[end].at
                if after.slot == before.slot and after.index == before.index + 1:
                    continue
            yield start, list(self._commands[start:end])
            start = end

    def _parted(self, number: int, verb: str, found: bytes, batched: bool) -> Breach:
        command = self._commands[number]
        known = self.results[number] if verb == "answered" else self.digests[number]
        show = short if verb == "answered" else bytes.hex
        told = (
            f"{short(command.data)} was {verb} {show(known)} by one machine, and {show(found)} by a second one "
            "that was given the same commands"
        )
        agreed = batched and self._agree_unbatched()
        return self._sharing(told, command.at, "apply_batch is not apply" if agreed else "not deterministic")

    def _agree_unbatched(self) -> bool:
        """Whether a third machine, one command at a time, answers as the first did."""
        third = self._new()
        return [third.apply(each) for each in self._commands] == self.results

    # ---- restored --------------------------------------------------------------------------------------------

    def restored(self) -> None:
        machine, older = self._new(), self._new()
        since: Position | None = None
        for number, command in enumerate(self._commands):
            answer, digest = machine.apply(command), machine.digest(command.at)
            for verb, found, known in (
                ("answered", answer, self.results[number]),
                ("left with the digest", digest, self.digests[number]),
            ):
                if found != known:
                    if since is None:
                        told = f"{short(command.data)}: a third machine answers what two did not"
                        raise self._sharing(told, command.at)
                    told = (
                        f"{short(command.data)} was {verb} {short(known)}, and {short(found)} by a machine that "
                        f"had restored a snapshot after slot {since.slot}, index {since.index}"
                    )
                    raise breach("a restored machine is another", told, command.at)
            if number in self._points:
                older.restore(list(_slices(machine.view(command.at), command.at)), command.at)
                found = older.digest(command.at)
                if found != digest:
                    told = (
                        f"a snapshot of digest {digest.hex()} restored to that in a new machine, and to {found.hex()} "
                        "in one that held an older state"
                    )
                    raise breach("restore does not replace", told, command.at)
                machine, older, since = older, machine, command.at
        self._last, self._other = machine, older

    # ---- bad input -------------------------------------------------------------------------------------------

    def bad_input(self) -> None:
        one, other = self._last, self._other
        slot = self._commands[-1].at.slot if self._commands else 0
        other.restore(list(_slices(one.view(None), None)), None)
        for data in bad_input(self._random, self._commands):
            slot += 1
            at = Position(slot, 0)
            bad = Command(at, data)
            before = one.digest()
            one.query(data, at, may_raise=True)
            self._unmoved(one, f"the query {short(data)}", at, before)
            results = one.apply(bad, "bad input"), other.apply(bad, "bad input")
            self._counts["bad inputs"] += 1
            if results[0] != results[1] or one.digest() != other.digest():
                told = (
                    f"the bad input {short(data)} was answered {short(results[0])} and {short(results[1])} by two "
                    "machines in the same state, or left them in different ones"
                )
                raise breach("not deterministic", told, at)
