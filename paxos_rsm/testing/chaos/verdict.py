"""Was it right? Every check of a run, from what is on disk and what the servers answered at the end.

===================================  =================================================================================
servers lived and recovered          none ended without having been asked to; after each fault all went on
clients met no bug                   no call raised what the SDK does not promise
same state everywhere                one applied slot and one digest on all servers, once everything was mended
no acknowledged write lost           each key that was written once, with acknowledgement, is there as it was written
nothing executed twice               each of them is at version 1; and the store has no more revisions than there were
                                     writes that may have made them
linearizable, key by key             the checker finds one order that explains every answer, the last reads included
linearizable, revision by revision   so does a replay of the revisions, of transactions and ranges too
===================================  =================================================================================

Key by key the history is read epoch by epoch (see workload.py): what is in memory at a time is some three epochs of it.
The replay of revisions takes it whole, at about 1 kB an operation. What cannot be decided in time makes its check
``unknown``, which is no pass.
"""

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

from paxos_rsm.checker import Model, Operation, Result, Verdict, check
from paxos_rsm.checker.history import operation_from_json
from paxos_rsm.checker.models import CasRegister
from paxos_rsm.checker.revisions import check_revisions
from paxos_rsm.checker.store import made_revision
from paxos_rsm.checker.timeline import draw_svg
from paxos_rsm.client import AsyncClient
from paxos_rsm.testing.chaos.outcome import Check, Outcome
from paxos_rsm.testing.chaos.recorder import Recorder

__all__ = ["Evidence", "Final", "KeyState", "judge", "read_everything"]

PAGE_KEYS = 1_000
READ_TIMEOUT_S = 60.0
EPOCHS_OPEN = 3
"""An operation ends, and is written down, long before the epoch after the next begins."""
DETAILS_MAX = 12
DRAWN_MAX = 24
"""Operations of a drawing."""
EPOCH_OF = re.compile(r"(?:[kcm]|probe/\w+/)(\d+)")
ONCE = "once/"


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as it stood at the end."""

    value: str
    version: int
    create_revision: int
    mod_revision: int


@dataclass(slots=True)
class Final:
    """The whole store, read linearizably after everything was over."""

    keys: dict[str, KeyState] = field(default_factory=dict)
    revision: int = 1
    call_ms: float = 0.0
    return_ms: float = 0.0


@dataclass(slots=True)
class Evidence:
    """What a run left behind."""

    history: Path
    states: Mapping[str, tuple[int, str] | None]
    """Of each server: applied slot and digest; None where it did not answer."""
    final: Final | None
    """None where the store could not be read."""
    once_acknowledged: Mapping[str, int]
    """Keys that were written once, with the revision that was acknowledged."""
    problems: Sequence[str] = ()
    client_failure: BaseException | None = None


async def read_everything(endpoints: Mapping[str, str], recorder: Recorder) -> Final:
    """All keys there are, page by page, noted in the history too. Nobody else may be writing. Raises ClientError."""
    found = Final(call_ms=recorder.now_ms())
    start: bytes = b"\0"
    async with AsyncClient(list(endpoints.values()), timeout_s=READ_TIMEOUT_S) as client:
        while True:
            call_ms = recorder.now_ms()
            page = await client.range(start, b"\0", limit=PAGE_KEYS)
            states = {
                kv.key.decode(): KeyState(kv.value.decode(), kv.version, kv.create_revision, kv.mod_revision)
                for kv in page
            }
            found.keys |= states
            recorder.operation(
                0,
                "range",
                start.decode(),
                {"range_end": "\0", "limit": PAGE_KEYS},
                {
                    "revision": page.revision,
                    "kvs": [{"key": key, **asdict(state)} for key, state in states.items()],
                    "more": page.more,
                    "count": page.count,
                },
                call_ms,
            )
            found.revision = page.revision
            if not page.more:
                break
            start = page[-1].key + b"\0"
    found.return_ms = recorder.now_ms()
    return found


def judge(evidence: Evidence, *, timeout_s: float = 300.0) -> list[Check]:
    """Every check there is, each with its outcome. ``timeout_s`` is for the search for orders."""
    tally = Tally()
    final = evidence.final
    per_key = _PerKey(time.monotonic() + timeout_s)
    for epoch, operations in epochs(evidence.history, tally):
        per_key.take(epoch, operations, final)
    return [
        _servers(evidence),
        _clients(evidence),
        _same_state(evidence),
        _nothing_lost(evidence),
        _nothing_twice(evidence, tally),
        per_key.result(),
        _revisions(evidence, timeout_s),
    ]


# ---- reading the history -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """Counts over the whole history."""

    operations: int = 0
    made_revisions: int = 0
    """Acknowledged operations that made a revision of the store."""
    may_have_made: int = 0
    """Those of unknown outcome that would make one."""
    refused_once: list[str] = field(default_factory=list)
    """Write-once keys whose write was refused: nothing may be there."""
    made_twice: list[str] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)
    """One bit a revision: acknowledged to somebody."""

    def take(self, op: Operation) -> None:
        """Counts one."""
        self.operations += 1
        if op.status == "fail":
            if op.op == "put" and op.key.startswith(ONCE):
                self.refused_once.append(op.key)
        elif op.status == "unknown":
            self.may_have_made += op.op in ("put", "delete", "txn")
        elif made_revision(op.op, op.input, op.output):
            self.made_revisions += 1
            if op.op == "put":
                self._note(op.output["revision"], op.key)

    def _note(self, revision: int, key: str) -> None:
        index, bit = revision >> 3, 1 << (revision & 7)
        if index >= len(self.seen):
            self.seen.extend(bytes(index + 4096 - len(self.seen)))
        if self.seen[index] & bit:
            self.made_twice.append(
                f"revision {revision} was acknowledged twice, the second time to a put of {key}"
            )
        self.seen[index] |= bit


def epochs(path: Path, tally: "Tally") -> Iterator[tuple[int, list[Operation]]]:
    """The operations of one epoch after the other; those on write-once keys are only counted."""
    found: dict[int, list[Operation]] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            op = operation_from_json(json.loads(line), f"{path}, line {number}")
            tally.take(op)
            matched = EPOCH_OF.match(op.key)
            # Ranges, and reads of old revisions, are for the replay.
            if matched is None or op.op == "range" or (op.op == "get" and op.input is not None):
                continue
            epoch = int(matched[1])
            if epoch not in found:
                for over in sorted(each for each in found if each <= epoch - EPOCHS_OPEN):
                    yield over, found.pop(over)
            found.setdefault(epoch, []).append(op)
    for epoch in sorted(found):
        yield epoch, found[epoch]


# ---- the checks --------------------------------------------------------------------------------------------


def _servers(evidence: Evidence) -> Check:
    name = "servers lived and recovered"
    if evidence.problems:
        told = f"{len(evidence.problems)} times a server did what no fault had made it do"
        return Check(name, "violation", told, _some(evidence.problems))
    return Check(
        name, "ok", "no server ended without having been asked to, and each fault was recovered from"
    )


def _clients(evidence: Evidence) -> Check:
    name = "clients met no bug"
    failure = evidence.client_failure
    if failure is None:
        return Check(name, "ok", "every call returned, or raised what the SDK promises")
    return Check(name, "violation", f"a call raised {type(failure).__name__}: {failure}")


def _same_state(evidence: Evidence) -> Check:
    name = "same state everywhere"
    silent = [server for server, state in evidence.states.items() if state is None]
    if silent:
        return Check(name, "violation", f"{', '.join(silent)} did not answer after everything was mended")
    states = {server: state for server, state in evidence.states.items() if state is not None}
    if len(set(states.values())) == 1:
        slot, digest = next(iter(states.values()))
        return Check(name, "ok", f"{len(states)} servers at slot {slot}, digest {digest[:16]}")
    details = tuple(f"{server}: slot {slot}, digest {digest}" for server, (slot, digest) in states.items())
    if len({slot for slot, _ in states.values()}) < len(set(states.values())):
        return Check(name, "violation", "the servers have diverged: one slot, different states", details)
    return Check(name, "violation", "the servers did not come to one slot in time", details)


def _nothing_lost(evidence: Evidence) -> Check:
    name = "no acknowledged write lost"
    if evidence.final is None:
        return Check(name, "unknown", "the store could not be read at the end")
    keys = evidence.final.keys
    lost = [
        f"{key}, acknowledged at revision {revision}, "
        + ("is not there" if key not in keys else f"stands at revision {keys[key].create_revision}")
        for key, revision in evidence.once_acknowledged.items()
        if key not in keys or keys[key].create_revision != revision
    ]
    if lost:
        told = f"{len(lost)} of {len(evidence.once_acknowledged)} acknowledged writes are not where they were"
        return Check(name, "violation", told, _some(lost))
    if not evidence.once_acknowledged:
        return Check(name, "unknown", "no write of a key of its own was acknowledged: nothing was shown")
    return Check(
        name,
        "ok",
        f"all {len(evidence.once_acknowledged):,} acknowledged writes of keys of their own are there, as written",
    )


def _nothing_twice(evidence: Evidence, tally: Tally) -> Check:
    name = "nothing executed twice"
    if evidence.final is None:
        return Check(name, "unknown", "the store could not be read at the end")
    keys, revision = evidence.final.keys, evidence.final.revision
    wrong = [
        f"{key}, written by one command, is at version {state.version}"
        for key, state in keys.items()
        if key.startswith(ONCE) and state.version != 1
    ]
    wrong += [f"{key} was refused, and is there all the same" for key in tally.refused_once if key in keys]
    wrong += tally.made_twice
    beyond = revision - 1 - tally.made_revisions
    if beyond < 0:
        wrong.append(f"the store is at revision {revision}, and {tally.made_revisions} were acknowledged")
    if beyond > tally.may_have_made:
        wrong.append(
            f"the store has {beyond} revisions that were acknowledged to nobody, and only {tally.may_have_made} "
            "writes have an unknown outcome"
        )
    if wrong:
        return Check(name, "violation", f"{len(wrong)} findings", _some(wrong))
    once = sum(1 for key in keys if key.startswith(ONCE))
    return Check(
        name,
        "ok",
        f"{once:,} keys written once are at version 1; of {revision - 1:,} revisions {tally.made_revisions:,} were "
        f"acknowledged, and {beyond:,} came of {tally.may_have_made:,} writes of unknown outcome",
    )


class _PerKey:
    """Linearizability of single keys, epoch by epoch."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._operations = 0
        self._keys = 0
        self._failed: Check | None = None
        self._undecided: list[str] = []

    def take(self, epoch: int, operations: Sequence[Operation], final: Final | None) -> None:
        """Checks one epoch. Nothing more is looked at after a violation."""
        if self._failed is not None:
            return
        own = [as_register(op) for op in operations if not op.key.startswith("m")]
        if final is not None:
            own.extend(as_register(op) for op in last_reads({op.key for op in own}, final))
        left_s = max(1.0, self._deadline - time.monotonic())
        result = check(own, CasRegister, timeout_s=left_s)
        self._operations += result.operations
        self._keys += result.partitions
        if result.verdict is Verdict.UNKNOWN:
            self._undecided += [f"epoch {epoch}: {result.reason}"]
        elif result.verdict is Verdict.VIOLATION:
            self._failed = Check(
                NAME_PER_KEY, "violation", result.reason, drawing=_drawing(own, result, CasRegister)
            )

    def result(self) -> Check:
        """Of all epochs."""
        if self._failed is not None:
            return self._failed
        if self._undecided:
            return Check(NAME_PER_KEY, "unknown", "not all could be decided", _some(self._undecided))
        if not self._operations:
            return Check(NAME_PER_KEY, "unknown", "the history is empty: nothing was shown")
        return Check(NAME_PER_KEY, "ok", f"{self._operations:,} operations on {self._keys:,} keys")


NAME_PER_KEY = "linearizable, key by key"


def _revisions(evidence: Evidence, timeout_s: float) -> Check:
    """Everything at once, transactions and ranges too: the store has told its order by its revisions."""
    name = "linearizable, revision by revision"
    if evidence.final is None:
        return Check(name, "unknown", "the store could not be read at the end")
    with evidence.history.open(encoding="utf-8") as file:
        operations = [operation_from_json(json.loads(line)) for line in file]
    if not operations:
        return Check(name, "unknown", "the history is empty: nothing was shown")
    counted = Counter(op.op for op in operations if op.status == "ok")
    result = check_revisions(operations, timeout_s=timeout_s)
    if result.verdict is Verdict.LINEARIZABLE:
        told = f"{counted['txn']:,} transactions, {counted['range']:,} ranges and all else, replayed in one order"
        return Check(name, "ok", told)
    drawing = _drawing(operations, result, None) if result.unplaced else ""
    outcome: Outcome = "violation" if result.verdict is Verdict.VIOLATION else "unknown"
    return Check(name, outcome, result.reason, drawing=drawing)


def as_register(op: Operation) -> Operation:
    """An operation on a key, as the model of a compare-and-swap register has it; None stands for a missing key."""
    name, given, output = op.op, op.input, op.output
    match name:
        case "put":
            name, output = "write", None
        case "delete":
            name, given, output = "write", None, None
        case "get":
            name, output = (
                "read",
                None if op.status != "ok" or output["kv"] is None else output["kv"]["value"],
            )
        case "txn":
            expected = op.input["compare"][0]
            old = expected["value"] if expected["target"] == "value" else None
            name, given = "cas", (old, op.input["success"][0]["input"])
            output = output["succeeded"] if op.status == "ok" else None
    return Operation(op.process, name, op.key, given, output, op.call, op.return_, op.status)


def last_reads(keys: set[str], final: Final) -> Iterator[Operation]:
    """What was read at the end, as one read of each key."""
    for key in sorted(keys):
        state = final.keys.get(key)
        kv = None if state is None else asdict(state)
        output = {"revision": final.revision, "kv": kv}
        yield Operation("last", "get", key, None, output, final.call_ms, final.return_ms)


def _drawing(history: Sequence[Operation], result: Result, model: type[Model] | None) -> str:
    """The part of the history that matters, as an image: its styles are its own, and it is drawn for a light page."""
    svg = draw_svg(history, result, model=model, operations_max=DRAWN_MAX)
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f'<img class="history" alt="{escape(result.reason, quote=True)}" src="data:image/svg+xml;base64,{data}">'


def _some(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - DETAILS_MAX
    return (*lines[:DETAILS_MAX], *([f"and {more} more"] if more > 0 else []))
