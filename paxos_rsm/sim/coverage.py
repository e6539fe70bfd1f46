"""What a campaign has reached: how often each fault fired, and each branch of the protocol.

A simulator that never lets a candidate meet a compacted promise proves nothing about it, so a campaign that leaves
something out has failed, however green. Faults are counted by whoever makes them. Branches are found in the source:
every function, and every suite of an ``if``, a loop, a ``match`` or an ``except`` in ``MODULES``, counts as reached
when its first statement runs. (A suite that begins by raising is a defence, not a branch: were it reached, the seed
would have failed.) What the simulation cannot reach is named in ``EXEMPT``, each with its reason.

Counting lines costs several times the run itself, so a campaign counts in one seed of so many.
"""

import ast
import importlib
import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType, MappingProxyType, ModuleType
from typing import Any

from paxos_rsm.sim.world import FAULTS

__all__ = ["EXEMPT", "MODULES", "REQUIRED", "Branch", "BranchCounter", "unreached"]

MODULES = (
    "paxos_rsm.paxos.acceptor",
    "paxos_rsm.paxos.core",
    "paxos_rsm.paxos.election",
    "paxos_rsm.paxos.learner",
    "paxos_rsm.paxos.leases",
    "paxos_rsm.paxos.log",
    "paxos_rsm.paxos.membership",
    "paxos_rsm.paxos.node",
    "paxos_rsm.paxos.proposer",
    "paxos_rsm.paxos.quorum",
    "paxos_rsm.paxos.quorum_reads",
    "paxos_rsm.paxos.reads",
    "paxos_rsm.paxos.reconfiguration",
    "paxos_rsm.paxos.succession",
    "paxos_rsm.paxos.views",
    "paxos_rsm.replica.changes",
    "paxos_rsm.replica.comparison",
    "paxos_rsm.replica.expiry",
    "paxos_rsm.replica.forming",
    "paxos_rsm.replica.local_sessions",
    "paxos_rsm.replica.replica",
    "paxos_rsm.replica.timers",
    "paxos_rsm.replica.transfer",
    "paxos_rsm.storage.base",
)
"""Whose branches must all be reached."""

REQUIRED = (
    *FAULTS,
    "added again",
    "cannot start now",
    "change refused",
    *(f"changed: {change}Member" for change in ("Add", "Remove", "Promote", "Update")),
    "cut",
    "damage found",
    "duplicate",
    "encoded",
    "founded on a backup",
    "fetch resumed",
    "impatience",
    "kept from an older version",
    "late",
    "lease ended",
    "loss",
    "move",
    "no space for a snapshot",
    "old copy put back",
    *(f"power loss: {mode}" for mode in ("drop", "keep", "tear", "scatter", "mixed")),
    "read refused",
    "rebuilt",
    "refused",
    "removed and stopped",
    "reorder",
    "session expired",
    "siege",
    "snapshot gone",
    "snapshot installed",
    "snapshot taken",
    "stale",
    *(f"states found {verdict}" for verdict in ("equal", "majority", "minority")),
    "state missing",
    "stopped by its disk",
    "unknown entry",
    "unsynced writes lost",
)
"""Every fault, and what must come of some of them."""

_VIEW = "asked by a server's services only"
_DEFENCE = "cannot come to pass; guards against a caller that asks for it"
_RARE = "too rare to be asked of every campaign; a transcript in tests/scripts has it"
_RARELY_SENT = "too rare to be asked of every campaign; tests/unit/replica/test_transfer.py has it"
_RARELY_CHANGED = "too rare to be asked of every campaign; tests/unit/paxos has it"
_RARELY_LED = "too rare to be asked of every campaign; tests/unit/paxos/test_proposer.py has it"
_RARELY_ARMED = "too rare to be asked of every campaign; tests/unit/replica/test_timers.py has it"
_SHORTCUT = "a shortcut to what the line after it would say"
_RARELY_REBUILT = (
    "too rare to be asked of every campaign; tests/unit/replica (test_rebuilding, test_comparison) has it"
)
_RECONCILED = "a data directory has brought log and snapshot together before a node is made of them"
_HELD = "whoever installs a snapshot has been told to hold before, and stands no more"
_HONEST = "every simulated server is honest, and so is every client"

EXEMPT: Mapping[str, str] = MappingProxyType(
    {
        "paxos.acceptor.Acceptor._is_absurd: "
        "if message.slot > max(message.decided_through, self._core.log.decided_through) + SLOTS_AHEAD_MAX:": _HONEST,
        "paxos.acceptor.Acceptor.accept: if self._is_absurd(sender, message):": _HONEST,
        "paxos.acceptor.Acceptor.accept: if state.entry != message.entry:": _RARE,
        "paxos.node.Node._catch_up_reply: elif message.promised > self.proposer.ballot:": _RARE,
        "paxos.election.Election.quorum_age_ticks": _VIEW,
        "paxos.election.Election.quorum_age_ticks: for age, node in sorted(": _VIEW,
        "paxos.election.Election.quorum_age_ticks: if configuration is None:": _VIEW,
        "paxos.election.Election.quorum_age_ticks: if configuration.is_phase2_quorum(heard):": _VIEW,
        "paxos.leases.Holds.bind: if any(ballot.node != candidate for ballot, _ in self._new):": _RARELY_CHANGED,
        "paxos.leases.Holds.read_clock: if clock_us is None:": _DEFENCE,
        "paxos.quorum_reads.QuorumReads.ask: if configuration is None:": _DEFENCE,
        "paxos.views.NodeView.leader_age_ticks": _VIEW,
        "paxos.views.NodeView.leader_age_ticks: if self.proposer.leading:": _VIEW,
        "paxos.views.NodeView.role": _VIEW,
        "paxos.views.NodeView.role: if self.configuration is None:": _VIEW,
        "paxos.proposer.Proposer._choose: if slot == 1 and self._core.configurations.forming is not None:": _RARE,
        "paxos.proposer.Proposer.pump: if self._core.log.is_decided(self.next_slot):": _RARELY_LED,
        "paxos.proposer.Proposer._pass_decided": _RARELY_LED,
        "paxos.proposer.Proposer._pass_decided: "
        "if self._recovered and type(self._recovered.popleft()) is ConfigChange:": _RARE,
        "replica.local_sessions.LocalSessions.__len__": _VIEW,
        "replica.local_sessions.LocalSessions._executed: if head.first_seq < min(first_seq, received):": _RARE,
        "replica.local_sessions.LocalSessions._gap: "
        "if session.pending and session.pending[0].first_seq <= outcome.first_seq:": _HONEST,
        "replica.local_sessions.LocalSessions._overloaded": _HONEST,
        "replica.local_sessions.LocalSessions.applied: elif type(outcome) is Overloaded:": _HONEST,
        "replica.comparison.Comparison.heard: while len(known) > KEPT_MAX:": _RARELY_REBUILT,
        "replica.comparison.told": _VIEW,
        "replica.comparison.told: case Verdict.MINORITY:": _VIEW,
        "replica.comparison.told: case Verdict.MAJORITY:": _VIEW,
        "replica.comparison.told: case Verdict.UNDECIDED:": _VIEW,
        "replica.comparison.told: case Verdict.EQUAL:": _VIEW,
        "replica.replica.Replica._fetch_state: "
        "elif anybody is not None and self._now - self._rebuilder_seen_at > patience:": _RARELY_REBUILT,
        "replica.replica.Replica.divergent": _VIEW,
        "replica.replica.Replica.divergent: case Verdict.MINORITY:": _VIEW,
        "replica.replica.Replica.divergent: case Verdict.UNDECIDED:": _VIEW,
        "replica.replica.Replica.divergent: case _:": _VIEW,
        "replica.replica.Replica.encode_result": _VIEW,
        "replica.replica.Replica.reads_waiting": _VIEW,
        "replica.replica.Replica.timer_remaining_ms": _VIEW,
        "replica.timers.Timers.remaining_ms": _VIEW,
        "replica.timers.Timers.tick: if watched is None or watched.look_at != look_at:": _RARELY_ARMED,
        "replica.timers.Timers.remaining_ms: if watched is None or watched.armed != armed:": _VIEW,
        "paxos.membership.Configuration.by_incarnation": _VIEW,
        "paxos.node.Node._start_from: "
        "if base.slot > decided_through or any(slot <= base.slot for slot in log.unreadable):": _RECONCILED,
        "paxos.proposer.Proposer.covered: if self.phase is Phase.PREPARING and self._core.me in self._next:": _HELD,
        "paxos.proposer.Proposer.covered: for node in self._core.others:": _HELD,
        "paxos.proposer.Proposer.covered: if self._next.get(node, 0) is not None:": _HELD,
        "paxos.reconfiguration.Reconfiguration._queue: if len(self._waiting) >= CHANGES_WAITING_MAX:": _HONEST,
        "paxos.reconfiguration.Reconfiguration._say: "
        "if configuration is not None and asked.request_id in configuration.changes:": _RARELY_CHANGED,
        "paxos.succession.Succession.heir": _VIEW,
        "paxos.views.NodeView.settings": _VIEW,
        "replica.changes.Changes.forget": _VIEW,
        "replica.changes._is_in: except MembershipRefused:": _RARE,
        "replica.forming.InitialCluster.is_founder": _VIEW,
        "replica.transfer.Transfer._ask: if fetch is None:": _DEFENCE,
        "storage.base.Recovered.is_empty": _VIEW,
        "storage.base.Recovered.lose: if slot <= self.compacted_through:": _RARE,
        "paxos.log.SlotLog.is_decided: if slot <= self.decided_through:": _SHORTCUT,
        "paxos.node.Node._accept: if message.ballot.node != sender:": _HONEST,
        "paxos.node.Node._prepare: if message.ballot.node != sender:": _HONEST,
        "paxos.node.Node._refused: if configuration is None or sender not in configuration.everybody:": _DEFENCE,
        "paxos.views.NodeView.compacted_through": _VIEW,
        "paxos.views.NodeView.log": _VIEW,
        "paxos.node.Node.read: elif route is None:": _DEFENCE,
        "paxos.views.NodeView.removed": _VIEW,
        "paxos.proposer.Proposer.resend_to: if node not in self._core.others:": _DEFENCE,
        "paxos.proposer.Proposer._conclude: if core.me not in covering:": _DEFENCE,
        "paxos.proposer.Proposer.refused: if promised <= self.ballot:": _DEFENCE,
        "paxos.node.Node._catch_up_reply: elif message.compacted_through > self.decided_through:": _RARELY_CHANGED,
        "paxos.node.Node._prepare: if self.reconfiguration.is_removed(sender):": _RARELY_CHANGED,
        "paxos.node.Node._prepare_anew: else of if self.may_campaign:": _RARELY_CHANGED,
        "paxos.node.Node.meet: if self.decided_through:": _RARELY_CHANGED,
        "paxos.node.Node.meet: if self.proposer.phase is not Phase.IDLE:": _RARELY_CHANGED,
        "paxos.proposer.Proposer._conclude: if self.has_missed_a_change():": _RARELY_CHANGED,
        "replica.local_sessions.LocalSessions.restored: elif registration_slot(number) <= slot:": _RARELY_SENT,
        "replica.replica.Replica.snapshot_is_due: "
        "if transfer.newest < transfer.wanted_from <= self.machine.applied_slot:": _RARELY_SENT,
        "replica.transfer.Transfer._gone: if message.slot == fetch.slot:": _RARELY_SENT,
        "replica.transfer.Transfer.chunk: if message.size > SNAPSHOT_BYTES_MAX:": _HONEST,
        "replica.transfer.Transfer.chunk: if message.slot == fetch.slot and message.size != fetch.size:": _RARELY_SENT,
        "replica.transfer.Transfer.tick: if fetch.tries >= tries_max:": _RARELY_SENT,
        "replica.transfer.Transfer.tick: "
        "for node in [n for n, (_, at) in self._sent.items() if self._now - at > 20 * self._patience]:": _RARELY_SENT,
        "replica.transfer.Transfer.want: if fetch.come == fetch.size:": _RARELY_SENT,
        "replica.transfer.Transfer.written: if fetch is None or fetch.slot != slot:": _RARELY_SENT,
    }
)
"""Branches that no simulation reaches, and why. What is never reached and not named here fails a campaign."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One place where the code can go one way or another."""

    module: str
    function: str
    condition: str
    """The first line of what leads here, as it stands in the source; empty for the function itself."""
    line: int
    """Of the first statement."""
    last_line: int

    def __str__(self) -> str:
        where = f"{self.module.removeprefix('paxos_rsm.')}.{self.function}"
        return f"{where}: {self.condition}" if self.condition else where


class BranchCounter:
    """Counts how often each branch is reached while it is entered (``with``); slow."""

    def __init__(self) -> None:
        self._by_file: dict[str, dict[int, Branch]] = {}
        self.branches: list[Branch] = []
        for name in MODULES:
            module = importlib.import_module(name)
            found = list(_branches(module))
            self.branches += found
            lines = self._by_file.setdefault(inspect.getfile(module), {})
            for branch in found:
                for line in range(branch.line, branch.last_line + 1):
                    lines[line] = branch
        self._hits: Counter[tuple[Branch, int]] = Counter()
        self._lines_of: dict[CodeType, Mapping[int, Branch] | None] = {}
        self._before: Any = None

    def __enter__(self) -> "BranchCounter":
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code in self._lines_of:
            lines = self._lines_of[code]
        else:
            lines = self._lines_of[code] = self._by_file.get(code.co_filename)
        return None if lines is None else self._line

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            line = frame.f_lineno
            branch = self._by_file[frame.f_code.co_filename].get(line)
            if branch is not None:
                self._hits[branch, line] += 1
        return self._line

    @property
    def counts(self) -> Counter[str]:
        """How often each branch was reached, those at 0 included."""
        counts: Counter[str] = Counter({str(branch): 0 for branch in self.branches})
        for (branch, _), hits in self._hits.items():
            counts[str(branch)] = max(counts[str(branch)], hits)
        return counts


def unreached(fired: Mapping[str, int], branches: Mapping[str, int]) -> list[str]:
    """What must be reached and was not: faults first, then branches."""
    faults = [f"fault: {name}" for name in REQUIRED if not fired.get(name)]
    return faults + [f"branch: {name}" for name, hits in branches.items() if not hits and name not in EXEMPT]


# ---- finding branches ------------------------------------------------------------------------------------


def _branches(module: ModuleType) -> Iterator[Branch]:
    source = inspect.getsource(module)
    lines = source.splitlines()
    yield from _within(ast.parse(source), module.__name__, "", lines)


def _within(node: ast.AST, module: str, function: str, lines: list[str]) -> Iterator[Branch]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in child.bases):
                yield from _within(child, module, f"{function}{child.name}.", lines)
        elif isinstance(child, ast.FunctionDef):
            name = f"{function}{child.name}"
            yield from _suite(child.body, module, name, "")
            yield from _within(child, module, f"{name}.", lines)
        else:
            owner = function.rstrip(".")
            for suite, condition in _suites(child, lines):
                yield from _suite(suite, module, owner, condition)
            yield from _within(child, module, function, lines)


def _suites(node: ast.AST, lines: list[str]) -> Iterator[tuple[list[ast.stmt], str]]:
    """The suites of a statement, each with the line that leads to it."""
    if isinstance(node, ast.If | ast.For | ast.While):
        head = lines[node.lineno - 1].strip()
        yield node.body, head
        if node.orelse and not (len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)):
            yield node.orelse, f"else of {head}"
    elif isinstance(node, ast.Match):
        for case in node.cases:
            yield case.body, lines[case.pattern.lineno - 1].strip()
    elif isinstance(node, ast.Try):
        for handler in node.handlers:
            yield handler.body, lines[handler.lineno - 1].strip()


def _suite(body: list[ast.stmt], module: str, function: str, condition: str) -> Iterator[Branch]:
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        if len(body) == 1:
            return  # a docstring, or an ellipsis
        first = body[1]
    if isinstance(first, ast.Raise):
        return
    inner = getattr(first, "body", None) or getattr(first, "cases", None)
    last_line = (
        inner[0].lineno - 1 if isinstance(inner, list) and inner and hasattr(inner[0], "lineno") else 0
    )
    last_line = max(first.lineno, last_line or (first.lineno if inner else first.end_lineno or first.lineno))
    yield Branch(module, function, condition, first.lineno, last_line)
