"""Who can have made the revisions that nobody acknowledged; what answers say of each other without any replay.

An answer shows key-values, each with the revision that wrote it. That says two things of a key: what was written to it
at that revision, and that nothing was between it and the revision the answer was given at. Acknowledged writes must
agree (:func:`contradiction`), and of the writes of unknown outcome only those can fill a gap that do
(:func:`candidates`). Both say only what holds in every order, so that the replay in ``revisions.py`` has little to try.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paxos_rsm.checker.history import Operation
from paxos_rsm.checker.store import comparable, requests_of

__all__ = ["ALL", "Told", "candidates", "contradiction", "meet", "named", "touched"]

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


def _shown(told: Iterable[Told]) -> Iterator[tuple[Told, Hashable, Mapping[str, Any], int]]:
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


def contradiction(told: list[Told]) -> tuple[str, Operation, Operation] | None:
    """A sentence, who said it and who else did, where an answer contradicts an acknowledged write."""
    writes: defaultdict[Hashable, list[tuple[int, Operation, Hashable]]] = defaultdict(list)
    for each in told:
        if each.writes:
            for key, value in _written(each.op):
                writes[key].append((each.revision, each.op, value))
    for found in writes.values():
        found.sort(key=lambda write: write[0])
    for each, key, kv, until in _shown(told):
        found, mod = writes.get(key, []), kv["mod_revision"]
        later = bisect_right(found, mod, key=lambda write: write[0])
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


def candidates(
    told: list[Told], unknown: list[Operation], gaps: list[int], floor: Callable[[float], int]
) -> dict[int, list[Operation]]:
    """For each gap, the writes of unknown outcome that can have made it.

    ``floor`` gives the highest revision that anybody had been told before a time: whoever called then can only
    have made a later one.
    """
    wanted: defaultdict[int, set[tuple[Hashable, Hashable]]] = defaultdict(set)
    untouched: defaultdict[Hashable, dict[int, int]] = defaultdict(dict)
    among = set(gaps)
    for _, key, kv, until in _shown(told):
        mod = kv["mod_revision"]
        if mod in among and "value" in kv:
            wanted[mod].add((key, comparable(kv["value"])))
        untouched[key][mod] = max(until, untouched[key].get(mod, until))
    quiet = {key: sorted(spans.items()) for key, spans in untouched.items()}
    found: dict[int, list[Operation]] = {gap: [] for gap in gaps}
    for op in unknown:
        puts = _puts(op)
        spans = quiet.get(comparable(op.key), []) if op.op in ("put", "delete") else []
        for gap in gaps[bisect_right(gaps, floor(op.call)) :]:
            if gap in wanted and not wanted[gap] <= puts:
                continue
            # The last thing shown below the gap: was it the newest still at the gap?
            before = bisect_left(spans, (gap, 0))
            if before and spans[before - 1][1] >= gap:
                continue
            found[gap].append(op)
    return _settled(found)


def _settled(found: dict[int, list[Operation]]) -> dict[int, list[Operation]]:
    """A gap with one candidate has it; nobody else has."""
    places: defaultdict[int, set[int]] = defaultdict(set)
    for gap, ops in found.items():
        for op in ops:
            places[id(op)].add(gap)
    ready = [gap for gap, ops in found.items() if len(ops) == 1]
    while ready:
        gap = ready.pop()
        for op in found[gap][:1]:
            for other in places[id(op)] - {gap}:
                found[other] = [each for each in found[other] if each is not op]
                if len(found[other]) == 1:
                    ready.append(other)
            places[id(op)] = {gap}
    for ops in found.values():
        ops.sort(key=lambda op: len(places[id(op)]))  # who has few places goes first; the sort is stable
    return found
