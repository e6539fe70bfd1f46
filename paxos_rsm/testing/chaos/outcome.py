"""What a run came to, in one value: the input of the report, of the terminal's summary, and of ``--json``.

A run is judged by several checks. Each ends in one of three ways, and only ``ok`` is a pass: ``unknown`` means that
nothing was shown. The run as a whole is as bad as its worst check; one whose checks all passed may still be
incomplete, where this machine could not do all that was planned.

Exit status: 0 ok, 1 violation, 4 unknown or incomplete. (5, interrupted, is the command line's.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from paxos_rsm.testing.chaos.gaps import KindFigures, Occurrence
from paxos_rsm.testing.chaos.kinds import NEEDS
from paxos_rsm.testing.chaos.plan import Plan

__all__ = ["Check", "Outcome", "RunResult", "Word"]

Outcome = Literal["ok", "violation", "unknown"]
Word = Literal["ok", "violation", "unknown", "incomplete"]

EXIT = {"ok": 0, "violation": 1, "unknown": 4, "incomplete": 4}


@dataclass(frozen=True, slots=True)
class Check:
    """One question that was asked of the run, and its answer."""

    name: str
    outcome: Outcome
    told: str
    """What was looked at, or what is wrong."""
    details: tuple[str, ...] = ()
    drawing: str = ""
    """HTML that shows what is wrong; empty where nothing is."""


@dataclass(slots=True)
class RunResult:
    """Everything there is to say about a run."""

    plan: Plan
    version: str
    repeat: str
    """The command that draws the same plan."""
    began: str
    """Date and time."""
    ran_s: float
    checks: list[Check] = field(default_factory=list)
    occurrences: list[Occurrence] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)
    """Planned faults that were not done, by number, and why."""
    missing: tuple[str, ...] = ()
    """What faults need and this machine has not; see kinds.py."""
    allow_missing: bool = False
    figures: list[KindFigures] = field(default_factory=list)
    calm_gap_ms: float | None = None
    behind_s: float = 0.0
    leader_changes: int = 0
    seconds: Sequence[tuple[int, int, float | None, float | None]] = ()
    """Of each second: writes, reads, median and 99th percentile of the latency in ms."""
    latencies: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """By operation: count, p50_ms, p90_ms, p99_ms, max_ms."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    directory: str = ""

    @property
    def word(self) -> Word:
        """The verdict."""
        outcomes = {check.outcome for check in self.checks}
        if "violation" in outcomes:
            return "violation"
        if "unknown" in outcomes or not self.checks:
            return "unknown"
        return "incomplete" if self.not_shown and not self.allow_missing else "ok"

    @property
    def exit_status(self) -> int:
        """0 ok, 1 violation, 4 unknown or incomplete."""
        return EXIT[self.word]

    @property
    def not_shown(self) -> dict[str, str]:
        """Kinds that were planned and did not strike once, and why."""
        struck = {each.kind for each in self.occurrences}
        found: dict[str, str] = {}
        for fault in self.plan.faults:
            if fault.kind.name not in struck and fault.number in self.skipped:
                found.setdefault(fault.kind.name, self.skipped[fault.number])
        return found

    @property
    def missed_goals(self) -> dict[str, list[str]]:
        """By kind, where a figure fell short."""
        return {row.kind: row.missed for row in self.figures if row.missed}

    def headline(self) -> str:
        """The verdict in a sentence."""
        operations = sum(self.statuses.values())
        match self.word:
            case "ok":
                return f"linearizable: {operations:,} operations, no write lost, none executed twice"
            case "violation":
                wrong = [check.name for check in self.checks if check.outcome == "violation"]
                return f"VIOLATION: {', '.join(wrong)}"
            case "incomplete":
                return "what was shown is linearizable, but faults are missing: " + "; ".join(
                    f"{name} ({why})" for name, why in self.not_shown.items()
                )
        undecided = [check.name for check in self.checks if check.outcome == "unknown"]
        return f"unknown, which is no pass: {', '.join(undecided) or 'nothing was checked'}"

    def to_json(self) -> dict[str, Any]:
        """For ``--json``, and for whoever compares runs."""
        return {
            "verdict": self.word,
            "exit_status": self.exit_status,
            "seed": self.plan.seed,
            "servers": self.plan.servers,
            "version": self.version,
            "began": self.began,
            "ran_s": round(self.ran_s, 1),
            "behind_plan_s": round(self.behind_s, 1),
            "repeat": self.repeat,
            "directory": self.directory,
            "operations": dict(self.statuses),
            "errors": dict(self.errors),
            "leader_changes": self.leader_changes,
            "checks": [
                {"name": each.name, "outcome": each.outcome, "told": each.told, "details": list(each.details)}
                for each in self.checks
            ],
            "gaps": [_figures_json(row) for row in self.figures],
            "calm_gap_ms": self.calm_gap_ms,
            "faults": [_occurrence_json(each) for each in self.occurrences],
            "latencies": {name: dict(row) for name, row in self.latencies.items()},
            "missing": {need: NEEDS[need] for need in self.missing},
            "not_shown": self.not_shown,
            "not_reached": self.plan.not_reached,
        }


def _figures_json(row: KindFigures) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "count": len(row.gaps_ms),
        "median_ms": round(row.median_ms, 1),
        "p99_ms": round(row.p99_ms, 1),
        "max_ms": round(row.max_ms, 1),
        "held_max_ms": round(row.held_gaps_ms[-1], 1) if row.held_gaps_ms else None,
        "leader_changes_max": row.leader_changes_max,
        "stall_ms": round(row.stall_ms, 1),
        "has_goal": row.goal is not None,
        "missed": row.missed,
        "gaps_ms": [round(gap_ms, 1) for gap_ms in row.gaps_ms],
    }


def _occurrence_json(each: Occurrence) -> dict[str, Any]:
    return {
        "number": each.number,
        "kind": each.kind,
        "what": each.what,
        "victims": list(each.victims),
        "begin_ms": round(each.begin_ms, 1),
        "end_ms": round(each.end_ms, 1),
        "combined": each.combined,
        "gap_ms": None if each.gap is None else round(each.gap.ms, 1),
        "leader_changes": each.leader_changes,
    }
