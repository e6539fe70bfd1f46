"""Who can have made the revisions that nobody acknowledged; what answers say of each other without any replay.

An answer shows key-values, each with the revision that wrote it. That says two things of a key: what was written to it
at that revision, and that nothing was between it and the revision the answer was given at. Acknowledged writes must
agree (:func:`contradiction`), and of the writes of unknown outcome only those can fill a gap that do
(:func:`candidates`). Both say only what holds in every order, so that the replay in ``revisions.py`` has little to try.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from paxos_rsm.checker.history import Operation
from paxos_rsm.checker.store import comparable, requests_of

__all__ = ["ALL", "Stretch", "Told", "candidates", "contradiction", "meet", "named", "touched"]

ALL = "every key"
"""Stands, in a set of keys (which are bytes), for all of them: where a range is about."""


@dataclass(slots=True)
class Told:
    """An operation that was answered."""

    op: Operation
    revision: int
    """Of the header."""
    writes: bool
    """Whether it made this revision."""
    at: int
    """The revision whose state it shows."""


def named(op: Operation) -> str:
    """The operation, for a message."""
    where = "" if op.key is None else f" of {op.key!r}"
    return f"{op.op}{where} by process {op.process}, called at {op.call:g}"


def touched(op: Operation) -> frozenset[Hashable]:
    """The keys that ``op`` may read or write."""
    if op.op == "txn":
        keys = {comparable(compare["key"]) for compare in op.input.get("compare") or ()}
        for name, key, _ in requests_of(op.op, op.input):
            keys.add(ALL if "range" in name else comparable(key))
        return frozenset(keys)
    return frozenset([ALL if "range" in op.op else comparable(op.key)])


def meet(some: frozenset[Hashable], others: frozenset[Hashable]) -> bool:
    """Whether two sets of keys have one in common."""
    return bool(some & others or (ALL in some and others) or (ALL in others and some))


def _requests(op: Operation) -> Iterator[tuple[str, Any, Any, Mapping[str, Any]]]:
    """What an acknowledged operation did: (op, key, input, output), those of a transaction one by one."""
    if op.op != "txn":
        yield op.op, op.key, op.input, op.output
        return
    requests = op.input.get("success" if op.output["succeeded"] else "failure") or ()
    responses = op.output.get("responses") or [{}] * len(requests)
    for request, response in zip(requests, responses, strict=False):
        yield request["op"], request.get("key"), request.get("input"), response or {}


def _written(op: Operation) -> Iterator[tuple[Hashable, Hashable]]:
    """The keys that an acknowledged write has surely written, each with its value; None where it deleted."""
    for name, key, given, output in _requests(op):
        if name == "put":
            yield comparable(key), comparable(given)
        elif name == "delete" and output.get("deleted"):
            yield comparable(key), None


def _puts(op: Operation) -> set[tuple[Hashable, Hashable]]:
    """All that a write of unknown outcome may put."""
    if op.op == "txn":
        requests = requests_of(op.op, op.input)
        return {(comparable(key), comparable(given)) for name, key, given in requests if name == "put"}
    return {(comparable(op.key), comparable(op.input))} if op.op == "put" else set()


_Shown = tuple[Told, Hashable, Mapping[str, Any], int]


def _shown(told: Iterable[Told]) -> Iterator[_Shown]:
    """Every key-value with a revision that an answer shows, and the last revision at which that was the newest."""
    for each in told:
        until = each.revision - 1 if each.writes else each.at
        for _, key, _, output in _requests(each.op):
            for field in ("kv", "prev_kv"):
                kv = output.get(field)
                if kv is not None and "mod_revision" in kv:
                    yield each, comparable(key), kv, until
            for field in ("kvs", "prev_kvs"):
                for kv in output.get(field) or ():
                    if "mod_revision" in kv:
                        yield each, comparable(kv["key"]), kv, until


def _writes(told: Iterable[Told]) -> dict[Hashable, list[tuple[int, Operation, Hashable]]]:
    """The acknowledged writes of each key, by revision: (revision, operation, value or None where it deleted)."""
    writes: defaultdict[Hashable, list[tuple[int, Operation, Hashable]]] = defaultdict(list)
    for each in told:
        if each.writes:
            for key, value in _written(each.op):
                writes[key].append((each.revision, each.op, value))
    for found in writes.values():
        found.sort(key=_revision_of)
    return writes


_revision_of = itemgetter(0)


def contradiction(told: list[Told]) -> tuple[str, Operation, Operation] | None:
    """A sentence, who said it and who else did, where an answer contradicts an acknowledged write."""
    writes = _writes(told)
    for each, key, kv, until in _shown(told):
        found, mod = writes.get(key, []), kv["mod_revision"]
        later = bisect_right(found, mod, key=_revision_of)
        if later and found[later - 1][0] == mod and mod <= until:
            _, op, value = found[later - 1]
            if value is None or ("value" in kv and comparable(kv["value"]) != value):
                # A transaction may put a key and show it, all at one revision; that is `mod <= until` above.
                return (
                    f"{named(each.op)} shows {kv.get('value')!r} of revision {mod}, which {named(op)} made",
                    each.op,
                    op,
                )
        if later < len(found) and found[later][0] <= until:
            revision, op, _ = found[later]
            return (
                f"{named(each.op)} shows {kv.get('value')!r} of revision {mod} at revision {until}, after"
                f" {named(op)} had written the key at revision {revision}",
                each.op,
                op,
            )
    return None


@dataclass(slots=True)
class Stretch:
    """A stretch of revisions, above ``low`` up to ``high``, in which a key was written ``need`` times by somebody of
    unknown outcome, and not deleted. The replay counts ``need`` down, and up again on its way back."""

    key: Hashable
    low: int
    high: int
    need: int


def _absences(told: list[Told], shown: list[_Shown], unknown: list[Operation]) -> list[Stretch]:
    """Before a key was seen to be absent, or created, nobody wrote it: not since it was last deleted.

    Only where nobody of unknown outcome can have deleted it.
    """
    if any(op.op not in ("put", "delete") for op in unknown):
        return []
    doubtful = {comparable(op.key) for op in unknown if op.op == "delete"}
    absent: defaultdict[Hashable, set[int]] = defaultdict(set)
    for _, key, kv, _ in shown:
        if "create_revision" in kv:
            absent[key].add(kv["create_revision"] - 1)
    deletions: defaultdict[Hashable, list[int]] = defaultdict(list)
    for each in told:
        for name, key, _, output in _requests(each.op):
            known = comparable(key)
            if output.get("kv", 0) is None or output.get("prev_kv", 0) is None:
                absent[known].add(each.revision - 1 if each.writes else each.at)
            if each.writes and name in ("delete", "delete_range"):
                deletions[ALL if name == "delete_range" else known].append(each.revision)
    found = []
    for key, revisions in absent.items():
        if key not in doubtful:
            deleted = sorted([*deletions.get(key, ()), *deletions.get(ALL, ())])
            for revision in revisions:
                last = bisect_right(deleted, revision)
                found.append(Stretch(key, deleted[last - 1] if last else 0, revision, 0))
    return found


def _stretches(told: list[Told], shown: list[_Shown]) -> list[Stretch]:
    """What answers show of a key tells when nobody wrote it, and its versions tell how often somebody did."""
    writes = _writes(told)
    until_of: defaultdict[tuple[Hashable, int], int] = defaultdict(int)
    lives: defaultdict[tuple[Hashable, int], dict[int, int]] = defaultdict(dict)
    for _, key, kv, until in shown:
        mod = kv["mod_revision"]
        until_of[key, mod] = max(until, until_of[key, mod])
        if "create_revision" in kv and "version" in kv:
            life = lives[key, kv["create_revision"]]
            life[kv["create_revision"]] = 1
            life[mod] = kv["version"]
    found = [Stretch(key, mod, until, 0) for (key, mod), until in until_of.items() if until > mod]
    for (key, _), life in lives.items():
        points = sorted(life.items())
        known = writes.get(key, [])
        for (low, before), (high, after) in pairwise(points):
            told_of = bisect_right(known, high, key=_revision_of) - bisect_right(known, low, key=_revision_of)
            found.append(Stretch(key, low, high, after - before - told_of))
    return found


def candidates(
    told: list[Told], unknown: list[Operation], gaps: list[int], floor: Callable[[float], int]
) -> tuple[dict[int, list[Operation]], dict[int, dict[Hashable, Stretch]]]:
    """For each gap, the writes of unknown outcome that can have made it; and what keys need in it, as far as is known.

    ``floor`` gives the highest revision that anybody had been told before a time: whoever called then can only
    have made a later one.
    """
    if not gaps:
        return {}, {}
    wanted: defaultdict[int, set[tuple[Hashable, Hashable]]] = defaultdict(set)
    among = set(gaps)
    shown = list(_shown(told))
    for _, key, kv, _ in shown:
        if kv["mod_revision"] in among and "value" in kv:
            wanted[kv["mod_revision"]].add((key, comparable(kv["value"])))
    stretches = _stretches(told, shown) + _absences(told, shown, unknown)
    quiet: defaultdict[tuple[str, Hashable], set[int]] = defaultdict(set)
    for each in stretches:
        inside = gaps[bisect_right(gaps, each.low) : bisect_right(gaps, each.high)]
        quiet["delete", each.key].update(inside)
        if each.need == 0:
            quiet["put", each.key].update(inside)
    found: dict[int, list[Operation]] = {gap: [] for gap in gaps}
    for op in unknown:
        puts = _puts(op)
        never = quiet.get((op.op, comparable(op.key)), ()) if op.op in ("put", "delete") else ()
        for gap in gaps[bisect_right(gaps, floor(op.call)) :]:
            if gap not in never and (gap not in wanted or wanted[gap] <= puts):
                found[gap].append(op)
    settling = _Settling(found, stretches)
    needs: defaultdict[int, dict[Hashable, Stretch]] = defaultdict(dict)
    for stretch, inside in settling.needs:
        for gap in inside:
            needs[gap][stretch.key] = stretch
    return settling.run(), needs


class _Settling:
    """Draws the conclusions that need no trying: a gap with one candidate has it, and nobody else has; where a key
    needs as many gaps as it can have, it has them."""

    def __init__(self, found: dict[int, list[Operation]], stretches: list[Stretch]) -> None:
        gaps = sorted(found)
        self.needs = [
            (each, gaps[bisect_right(gaps, each.low) : bisect_right(gaps, each.high)])
            for each in stretches
            if each.need > 0
        ]
        self.groups: dict[int, dict[Hashable, dict[int, Operation]]] = {}
        """For each gap, by key, the candidates that are about this key alone; under None those that are not."""
        self.places: defaultdict[int, set[int]] = defaultdict(set)
        self.group_of = {id(op): _only_key(op) for ops in found.values() for op in ops}
        for gap, ops in found.items():
            groups: defaultdict[Hashable, dict[int, Operation]] = defaultdict(dict)
            for op in ops:
                groups[self.group_of[id(op)]][id(op)] = op
                self.places[id(op)].add(gap)
            self.groups[gap] = dict(groups)
        self.settled: set[int] = set()

    def run(self) -> dict[int, list[Operation]]:
        changed = True
        while changed:
            changed = False
            for gap, groups in self.groups.items():
                if len(groups) == 1 and gap not in self.settled:
                    (only,) = groups.values()
                    if len(only) == 1:
                        self.settled.add(gap)
                        changed = True
                        for name in only:
                            for other in self.places[name] - {gap}:
                                self._drop(other, self.group_of[name], name)
            for stretch, gaps in self.needs:
                changed = self._weigh(stretch.key, stretch.need, gaps) or changed
        found: dict[int, list[Operation]] = {}
        for gap, groups in self.groups.items():
            ops = [op for group in groups.values() for op in group.values()]
            ops.sort(
                key=lambda op: len(self.places[id(op)])
            )  # who has few places goes first; the sort is stable
            found[gap] = ops
        return found

    def _weigh(self, key: Hashable, need: int, gaps: list[int]) -> bool:
        """Whether what a key needs has ruled anything out. Operations about several keys may do anything."""
        changed = False
        can = [gap for gap in gaps if key in self.groups[gap] or None in self.groups[gap]]
        if len(can) == need:
            for gap in can:
                for other in [each for each in self.groups[gap] if each != key and each is not None]:
                    self._drop(gap, other)
                    changed = True
        sure = [gap for gap in can if len(self.groups[gap]) == 1 and key in self.groups[gap]]
        if len(sure) == need:
            for gap in can:
                if gap not in sure and key in self.groups[gap]:
                    self._drop(gap, key)
                    changed = True
        return changed

    def _drop(self, gap: int, key: Hashable, name: int | None = None) -> None:
        """Takes a group of candidates, or one of it, off a gap."""
        groups = self.groups[gap]
        group = groups.get(key, {})
        for each in list(group) if name is None else [name]:
            group.pop(each, None)
            self.places[each].discard(gap)
        if not group:
            groups.pop(key, None)


def _only_key(op: Operation) -> Hashable:
    """The one key that ``op`` is about; None where there are several."""
    return comparable(op.key) if op.op in ("put", "delete") else None
