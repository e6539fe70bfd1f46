"""Transactions and ranges over many keys, checked by replaying revisions.

A store that tells the revision of every answer has told its order: writes by their revision, and what only reads
after the write whose revision it reports. Nothing needs to be searched for. A history is linearizable exactly if

1. no two writes have one revision, and every revision has a write;
2. an operation that was called after another had returned has no lower revision, and a higher one if it writes;
3. replayed in that order on a naive store (``store.py``), every operation is answered as it was.

**Unknown outcomes** are what makes it harder. Such a write may stand at a revision that no acknowledged one has: a
*gap*. A gap can be filled only by an operation of unknown outcome that was called before anybody was told a revision as
high, and that writes what reads show at this revision; and every gap must be filled, since a store makes no revision
for nothing. Which operation fills which gap is tried out during the replay, with a way back; what reads show of a
revision usually leaves one choice. A gap that nothing can fill is a violation: a write that took effect twice, one that
failed and took effect all the same, a value from nowhere. That holds only for a **complete** history, which has every
write to the store since its first revision (those of expiring leases too); for others say ``complete=False``, and such
a gap makes the verdict unknown.

Way back: a contradiction names the keys it is about, and the replay goes back to the last gap that could have
touched one of them. (Where a transaction of unknown outcome is about, which may carry one key's state over to another,
it goes back to the last gap there is.)

A read that asked for serializable (``"serializable": true`` in its input) is exempt from 2, one of an old revision
is replayed there. The operations and their inputs and outputs are described in ``store.py``.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from operator import attrgetter, itemgetter

from paxos_rsm.checker.attribution import Stretch, Told, candidates, contradiction, meet, named, touched
from paxos_rsm.checker.history import Operation, validate
from paxos_rsm.checker.result import Result, Verdict
from paxos_rsm.checker.store import Store, comparable, differs, made_revision
from paxos_rsm.errors import HistoryError

__all__ = ["check_revisions"]

OPERATIONS = ("put", "get", "delete", "range", "delete_range", "txn")
READS = ("get", "range")
LOOK_AT_CLOCK_STEPS = 1000


@dataclass(slots=True)
class _Gap:
    """A revision that no acknowledged write has."""

    candidates: list[Operation]
    keys: frozenset[Hashable]
    """All that any candidate may touch."""
    needs: Mapping[Hashable, Stretch]
    """Of keys of which it is known, how many such writes they need, and until when."""
    tried: int = 0
    mark: int = 0
    blamed: frozenset[Hashable] = frozenset()
    """Keys of the contradictions that this gap's choices have led to."""


class _Contradiction(Exception):
    """The history is no linearizable one, or not with the choices made."""

    def __init__(self, reason: str, *ops: Operation, keys: Iterable[Hashable] = ()) -> None:
        super().__init__(reason)
        self.ops = ops
        self.keys = frozenset(keys)


class _Undecided(Exception):
    """A limit was reached, or a gap has an unknown author."""


def check_revisions(
    history: Iterable[Operation],
    *,
    complete: bool = True,
    initial_revision: int = 1,
    timeout_s: float = 60.0,
    steps_max: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Checks a history of a store with revisions that was empty at ``initial_revision`` (etcd's empty store is at 1).

    ``clock`` tells seconds. Raises HistoryError for what is malformed, or no operation of such a store.
    """
    started_s = clock()
    replay: _Replay | None = None
    verdict, reason = Verdict.LINEARIZABLE, "replayed revision by revision, every answer is explained"
    ops: tuple[Operation, ...] = ()
    told, unknown = _sorted_out(history)
    try:
        floor = _Floor(told)
        _check_order(told, floor)
        replay = _Replay(told, initial_revision)
        replay.find_gaps(told, unknown, floor, complete)
        replay.limit(steps_max, clock, started_s + timeout_s)
        replay.run()
    except _Contradiction as found:
        verdict, reason, ops = Verdict.VIOLATION, str(found), found.ops
    except _Undecided as limit:
        verdict, reason = Verdict.UNKNOWN, str(limit)
    order = tuple(replay.longest) if replay else ()
    return Result(
        verdict=verdict,
        reason=reason,
        operations=len(told) + len(unknown),
        partitions=1,
        steps=replay.steps if replay else 0,
        elapsed_s=clock() - started_s,
        prefix=order if verdict is Verdict.VIOLATION else (),
        unplaced=ops,
        undecided=(None,) if verdict is Verdict.UNKNOWN else (),
        orders={None: order} if verdict is Verdict.LINEARIZABLE else {},
    )


def _sorted_out(history: Iterable[Operation]) -> tuple[list[Told], list[Operation]]:
    """What was answered, and the writes of unknown outcome, both by call."""
    told: list[Told] = []
    unknown: list[Operation] = []
    for op in history:
        validate(op)
        if op.op not in OPERATIONS:
            raise HistoryError(
                f"{named(op)} is no operation of a store with revisions: there are {', '.join(OPERATIONS)}"
            )
        if op.status == "unknown" and op.op not in READS:
            unknown.append(op)
        elif op.status == "ok":
            try:
                revision = op.output["revision"]
                writes = made_revision(op.op, op.input, op.output)
                at = (op.input.get("revision") if op.op in READS and op.input else None) or revision
                if not isinstance(revision, int) or not isinstance(at, int):
                    raise TypeError(f"the revision {revision!r} is no whole number")
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise HistoryError(
                    f"{named(op)}: its input or output is malformed ({what}): see paxos_rsm.checker.store for the form"
                ) from None
            told.append(Told(op, revision, writes, at))
    told.sort(key=lambda each: each.op.call)
    unknown.sort(key=attrgetter("call"))
    return told, unknown


def _is_stale_by_choice(op: Operation) -> bool:
    return op.op in READS and isinstance(op.input, Mapping) and bool(op.input.get("serializable"))


class _Floor:
    """The highest revision that anybody had been told before a time."""

    def __init__(self, told: list[Told]) -> None:
        fresh = [each for each in told if not _is_stale_by_choice(each.op)]
        fresh.sort(key=lambda each: each.op.return_)  # type: ignore[arg-type, return-value]
        self.times: list[float] = []
        self.highest: list[Told] = []
        for each in fresh:
            self.times.append(each.op.return_)  # type: ignore[arg-type]
            best = self.highest[-1] if self.highest else each
            self.highest.append(each if each.revision > best.revision else best)

    def before(self, call: float) -> Told | None:
        """Who had told it; None where nobody had. Equal times count as concurrent."""
        number = bisect_left(self.times, call)
        return self.highest[number - 1] if number else None

    def revision(self, call: float) -> int:
        """The revision, 0 where nobody had been told any."""
        told = self.before(call)
        return 0 if told is None else told.revision


def _check_order(told: list[Told], floor: _Floor) -> None:
    """Rules 1 (no revision twice) and 2, and what answers say of each other."""
    authors: dict[int, Operation] = {}
    for each in told:
        op = each.op
        if each.writes:
            other = authors.setdefault(each.revision, op)
            if other is not op:
                raise _Contradiction(
                    f"{named(op)} and {named(other)} both made revision {each.revision}", op, other
                )
        if _is_stale_by_choice(op):
            continue
        earlier = floor.before(op.call)
        if earlier is None:
            continue
        if each.revision < earlier.revision or (each.writes and each.revision == earlier.revision):
            verb = "made" if each.writes else "was answered from"
            raise _Contradiction(
                f"{named(op)}, {verb} revision {each.revision}, after {named(earlier.op)} had returned at"
                f" {earlier.op.return_:g} with revision {earlier.revision}",
                op,
                earlier.op,
            )
    found = contradiction(told)
    if found is not None:
        raise _Contradiction(*found)


class _Replay:
    """Rule 3, and who fills the gaps."""

    def __init__(self, told: list[Told], initial: int) -> None:
        self.steps = 0
        self.store = Store()
        self.initial = initial
        self.writes = {each.revision: each.op for each in told if each.writes}
        self.shown: defaultdict[int, list[Operation]] = defaultdict(list)
        """What is read at each revision, by call."""
        for each in told:
            if not each.writes:
                self.shown[each.at].append(each.op)
        self.last = max([initial, *self.writes, *self.shown, *(each.revision for each in told)])
        for revision in (*self.writes, *self.shown):
            if revision < initial or (revision == initial and revision in self.writes):
                op = self.writes.get(revision) or self.shown[revision][0]
                raise _Contradiction(
                    f"{named(op)} has revision {revision}, but the store was empty at {initial}: give the"
                    " initial revision, if it began elsewhere",
                    op,
                )
        self.gaps: dict[int, _Gap] = {}
        self.chained = False
        self.used: set[int] = set()
        self.choices: list[tuple[int, Operation]] = []
        self.longest: list[Operation] = []
        self.placed: list[Operation] = []
        self.deepest: _Contradiction | None = None
        self.deepest_revision = -1

    def find_gaps(self, told: list[Told], unknown: list[Operation], floor: _Floor, complete: bool) -> None:
        """Finds the gaps, and who can fill each."""
        count = self.last - self.initial - len(self.writes)
        missing: list[int] = []
        if count <= len(unknown):
            missing = [at for at in range(self.initial + 1, self.last + 1) if at not in self.writes]
        found, needs = candidates(told, unknown, missing, floor.revision)
        empty = next((gap for gap, ops in found.items() if not ops), None)
        if count > len(unknown) or empty is not None:
            first = next(at for at in range(self.initial + 1, self.last + 1) if at not in self.writes)
            at = first if empty is None else empty
            reason = f"{count} revisions up to {self.last}, {at} among them, were acknowledged to nobody"
            if not complete:
                raise _Undecided(f"{reason}, and others than those of the history may have made them")
            raise _Contradiction(
                f"{reason}, and no operation of unknown outcome can have made"
                f" {f'revision {at}' if empty is not None else f'more than {len(unknown)} of them'}: a write took"
                " effect twice, or one that failed did, or the history lacks some of the writes",
                *self._witness(at),
            )
        for at, ops in found.items():
            self.gaps[at] = _Gap(ops, frozenset().union(*map(touched, ops)), needs.get(at, {}))
        self.chained = any(op.op == "txn" for ops in found.values() for op in ops)

    def limit(self, steps_max: int | None, clock: Callable[[], float], deadline_s: float) -> None:
        self.steps_max, self.clock, self.deadline_s = steps_max, clock, deadline_s

    def run(self) -> None:
        """Returns where everything is explained; raises _Contradiction or _Undecided."""
        revision = self.initial
        while revision <= self.last:
            try:
                if revision in self.gaps:
                    self._fill(revision)
                elif revision > self.initial:
                    self._write(revision)
                self._read(revision)
            except _Contradiction as found:
                if revision > self.deepest_revision:
                    self.deepest, self.deepest_revision = found, revision
                    self.longest = list(self.placed)
                revision = self._back(found)
            else:
                revision += 1
        self.longest = self.placed

    def _step(self) -> None:
        self.steps += 1
        if self.steps_max is not None and self.steps > self.steps_max:
            raise _Undecided(f"not decided within {self.steps_max} steps: nothing was shown")
        if self.steps % LOOK_AT_CLOCK_STEPS == 0 and self.clock() >= self.deadline_s:
            raise _Undecided("not decided within the time: nothing was shown")

    def _write(self, revision: int) -> None:
        op = self.writes[revision]
        self._step()
        problem = differs(op.output, self.store.apply(op.op, op.key, op.input, revision))
        if problem:
            raise _Contradiction(f"{named(op)}, revision {revision}, tells {problem}", op, keys=touched(op))
        self.placed.append(op)

    def _read(self, revision: int) -> None:
        for op in self.shown.get(revision, ()):
            self._step()
            mark = self.store.mark()
            replayed = self.store.apply(op.op, op.key, op.input, revision)
            changed = self.store.mark() != mark
            self.store.undo(mark)
            problem = differs(op.output, replayed)
            if changed and not problem:
                problem = "that it changed nothing, and it would have"
            if problem:
                raise _Contradiction(
                    f"{named(op)}, at revision {revision}, tells {problem}", op, keys=touched(op)
                )
            self.placed.append(op)

    def _fill(self, revision: int) -> None:
        """Lets the next candidate have the gap."""
        gap = self.gaps[revision]
        gap.mark = self.store.mark()
        alike: set[Hashable] = set()
        for number, op in enumerate(self._by_urgency(gap)):
            if id(op) in self.used:
                continue
            kind = (op.op, comparable(op.key), repr(op.input))
            if number < gap.tried or kind in alike:
                alike.add(kind)
                continue
            alike.add(kind)
            self._step()
            gap.tried = number + 1
            self.store.apply(op.op, op.key, op.input, revision)
            if self.store.mark() == gap.mark:  # it would have done nothing here, and made no revision
                gap.blamed |= touched(op)
                continue
            self.used.add(id(op))
            self._count(gap, op, -1)
            self.choices.append((revision, op))
            self.placed.append(op)
            return
        keys = gap.keys | gap.blamed
        self._forget(gap)
        raise _Contradiction(
            f"revision {revision} was made, and no operation of the history can have made it",
            *self._witness(revision),
            keys=keys,
        )

    def _by_urgency(self, gap: _Gap) -> list[Operation]:
        """The candidates, those first whose key needs a write soonest: the rule that meets every deadline if any does.

        The same each time that it is asked with the same choices made. Whose key has all it needs is left out.
        """
        ranked: list[tuple[float, int, Operation]] = []
        for number, op in enumerate(gap.candidates):
            need = None if op.op == "txn" or op.key is None else gap.needs.get(comparable(op.key))
            if need is None:
                ranked.append((inf, number, op))
            elif need.need > 0:
                ranked.append((need.high, number, op))
            else:
                gap.blamed |= touched(op)
        return [op for *_, op in sorted(ranked, key=itemgetter(0, 1))]

    @staticmethod
    def _count(gap: _Gap, op: Operation, change: int) -> None:
        for key in touched(op):
            if key in gap.needs and op.op == "put":
                gap.needs[key].need += change

    def _witness(self, revision: int) -> list[Operation]:
        """Somebody who has seen that revision made."""
        later = range(revision, self.last + 1)
        seen = next((op for at in later for op in self.shown.get(at, ())), None)
        seen = seen or next((self.writes[at] for at in later if at in self.writes), None)
        return [] if seen is None else [seen]

    def _back(self, found: _Contradiction) -> int:
        """Undoes choices up to the last gap that the contradiction may be due to; its revision, to be filled anew."""
        keys = found.keys
        while self.choices:
            revision, op = self.choices.pop()
            gap = self.gaps[revision]
            self.used.discard(id(op))
            self._count(gap, op, 1)
            self.store.undo(gap.mark)
            while self.placed.pop() is not op:
                pass
            if self.chained or meet(gap.keys, keys):
                gap.blamed |= keys
                return revision
            self._forget(gap)
        raise self.deepest or found

    @staticmethod
    def _forget(gap: _Gap) -> None:
        gap.tried = 0
        gap.blamed = frozenset()
